//! Signals as a fresh process has them.
//!
//! Promise: the container's process starts with every signal at its default and none blocked,
//! whatever the caller ignored (`nohup`, a parent that ignores SIGCHLD) or we blocked.
//!
//! Order: [`reset`] last before the exec, since Rust ignores SIGPIPE and the foreground blocks nearly
//! all; [`normalize`] at the start of the runtime.

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};

use crate::error::{Doing, Error, Result};
use crate::sys::signal::{LAST, set_default};

/// Makes SIGCHLD ordinary for the runtime itself: ignored, our children would vanish with their
/// exit codes.
///
/// # Errors
/// The errno of the calls.
pub fn normalize() -> Result<()> {
    set_default(Signal::SIGCHLD as i32).doing(|| "reset SIGCHLD".to_owned())?;
    SigSet::empty().thread_set_mask().doing(|| "unblock all signals".to_owned())
}

/// Every signal, glibc's own real-time ones included, at its default and unblocked.
///
/// # Errors
/// The errno of the calls.
pub fn reset() -> Result<()> {
    for signal in 1..=LAST {
        match set_default(signal) {
            Ok(()) => {}
            Err(Errno::EINVAL) if [libc::SIGKILL, libc::SIGSTOP].contains(&signal) => {}
            Err(errno) => return Err(Error::sys(format!("reset signal {signal}"), errno)),
        }
    }
    SigSet::empty().thread_set_mask().doing(|| "unblock all signals".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::testing::in_child;

    #[test]
    fn nothing_is_ignored_or_blocked_after_a_reset() {
        in_child(|| {
            SigSet::all().thread_block().unwrap();
            reset().unwrap();
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            for field in ["SigBlk", "SigIgn", "SigCgt"] {
                let line = status.lines().find(|line| line.starts_with(field)).unwrap();
                assert!(line.ends_with("\t0000000000000000"), "{line}");
            }
        });
    }
}
