//! How readily the OOM killer takes the process: /proc/PID/oom_score_adj.
//!
//! Promise: the asked score, read back. Absent means untouched. To go below the parent's own score
//! takes `CAP_SYS_RESOURCE` on the host; a rootless caller can't have it, and is let off.
//!
//! Order: by the parent, in the host's /proc, before the process becomes undumpable (its files in
//! /proc then belong to root) and before it starts.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::Pid;

use crate::error::{Doing, Error, Result};
use crate::rootfs::path::open_beneath;

/// -1000 (never) to 1000 (first).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Score(i32);

impl Score {
    /// Validates the value at the JSON path `path` (`process.oomScoreAdj`).
    ///
    /// # Errors
    /// A config error beyond ±1000.
    pub fn new(score: i32, path: &str) -> Result<Self> {
        match score {
            -1000..=1000 => Ok(Self(score)),
            _ => Err(Error::config(path, format!("{score} is not between -1000 and 1000"))),
        }
    }
}

/// Writes the score of `pid`. `proc` is the host's /proc.
///
/// # Errors
/// `EACCES` to lower it without `CAP_SYS_RESOURCE`, unless `rootless`; or a read-back that differs.
pub fn write(proc: BorrowedFd<'_>, pid: Pid, score: Score, rootless: bool) -> Result<()> {
    let doing = || format!("write {} to /proc/{pid}/oom_score_adj", score.0);
    let path = format!("{pid}/oom_score_adj");
    let opened = open_beneath(proc, path.as_ref(), OFlag::O_RDWR.bits());
    let mut file = match opened {
        Err(Errno::EACCES | Errno::EPERM) if rootless => return Ok(()),
        other => File::from(other.doing(doing)?),
    };
    match file.write_all(score.0.to_string().as_bytes()) {
        Err(error) if rootless && error.kind() == std::io::ErrorKind::PermissionDenied => {
            return Ok(());
        }
        other => other.doing(doing)?,
    }
    let mut now = String::new();
    file.rewind().doing(doing)?;
    file.read_to_string(&mut now).doing(doing)?;
    match now.trim_end() == score.0.to_string() {
        true => Ok(()),
        false => {
            Err(Error::Failed(format!("{}: it reads {:?} afterwards", doing(), now.trim_end())))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::sys::testing::in_child;

    #[test]
    fn the_score_is_written_and_a_lower_one_refused_without_the_capability() {
        in_child(|| {
            let proc = File::open("/proc").unwrap();
            let me = nix::unistd::getpid();
            write(proc.as_fd(), me, Score::new(700, "p").unwrap(), false).unwrap();
            let now = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap();
            assert_eq!(now, "700\n");
            let low = Score::new(-1000, "p").unwrap();
            crate::sys::cred::setresuid(12345).unwrap();
            assert!(write(proc.as_fd(), me, low, false).is_err());
            write(proc.as_fd(), me, low, true).unwrap();
        });
    }
}
