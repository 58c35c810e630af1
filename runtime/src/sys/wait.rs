//! How a process ended: `waitid(2)` on a pidfd.

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

use super::check;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It called exit with this code.
    Code(i32),
    /// This signal killed it; a number, since it may be a real-time one.
    Signal(i32),
}

impl Exit {
    /// The shell's way to say both in one number: the code, or 128 + signal.
    pub fn status(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }
}

/// `waitid(P_PIDFD)`: reaps our child, waiting for its end.
///
/// # Errors
/// `ECHILD` when it is not our child; `EINTR`.
pub fn exit_of(pidfd: impl AsFd) -> Result<Exit, Errno> {
    // SAFETY: siginfo is plain data for which all zeroes is valid.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let id = pidfd.as_fd().as_raw_fd() as libc::id_t;
    // SAFETY: `info` lives across the call.
    check(unsafe { libc::waitid(libc::P_PIDFD, id, &raw mut info, libc::WEXITED) }.into())?;
    // SAFETY: waitid with WEXITED filled the SIGCHLD members.
    let status = unsafe { info.si_status() };
    Ok(if info.si_code == libc::CLD_EXITED { Exit::Code(status) } else { Exit::Signal(status) })
}
