//! A process that the worker starts and the shim inherits.

use std::os::fd::OwnedFd;
use std::time::Duration;

use corten::error::{Doing, Result};
use corten::sys::process::{pidfd_open, pidfd_send_signal};
use corten::sys::wait::{Exit, exit_of};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;
use std::os::fd::AsFd;

/// A child of ours. Dropped, it is killed and reaped: what it was started for did not come to be.
#[derive(Debug)]
pub(super) struct Child {
    pid: Pid,
    pidfd: Option<OwnedFd>,
}

impl Child {
    pub(super) fn new(pid: Pid, pidfd: OwnedFd) -> Self {
        Self { pid, pidfd: Some(pidfd) }
    }

    /// A child that was not reaped yet, so that its pid is its own.
    pub(super) fn of_pid(pid: Pid) -> Result<Self> {
        let pidfd = pidfd_open(pid).doing(|| format!("pidfd_open {pid}"))?;
        Ok(Self::new(pid, pidfd))
    }

    #[cfg(test)]
    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    /// How it ended, if it does within this time.
    pub(super) fn exit_within(&mut self, time: Duration) -> Option<Exit> {
        let pidfd = self.pidfd.as_ref()?;
        if !readable_within(pidfd, time).unwrap_or(false) {
            return None;
        }
        let exit = exit_of(pidfd).ok();
        self.pidfd = None;
        exit
    }

    /// It goes on without us; nothing if it has been reaped.
    pub(super) fn release(mut self) -> Option<(Pid, OwnedFd)> {
        Some((self.pid, self.pidfd.take()?))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if let Some(pidfd) = &self.pidfd
            && pidfd_send_signal(pidfd, libc::SIGKILL).is_ok()
            && let Err(errno) = exit_of(pidfd)
        {
            tracing::debug!("reap {}: {errno}", self.pid);
        }
    }
}

/// Waits until there is something to read, or an end.
pub(super) fn readable_within(fd: impl AsFd, time: Duration) -> Result<bool> {
    let timeout = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
    loop {
        match poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], timeout) {
            Err(Errno::EINTR) => {}
            other => return other.map(|count| count > 0).doing(|| "poll".to_owned()),
        }
    }
}
