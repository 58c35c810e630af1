//! A process that does nothing, so that a scope can start before the container's first process.

use std::os::fd::OwnedFd;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getpid, getppid, pause};

use crate::error::Result;
use crate::spawn::{Birth, Child, spawn};
use crate::sys::process::{end_with_only, exit_now};

/// Ends when dropped, and when its maker ends.
#[derive(Debug)]
pub(in crate::cgroup) struct Placeholder {
    pub(in crate::cgroup) pid: Pid,
    pidfd: OwnedFd,
}

impl Placeholder {
    /// Forks it. It keeps nothing open: not the lock of the container's directory, above all.
    pub(in crate::cgroup) fn new() -> Result<Self> {
        let maker = getpid();
        match spawn(&Birth::default())? {
            Some(Child { pid, pidfd }) => Ok(Self { pid, pidfd }),
            None => end_with_only(&[], || {
                // The maker may have ended before it could have been noticed.
                if set_pdeathsig(Signal::SIGKILL).is_err() || getppid() != maker {
                    exit_now(1);
                }
                loop {
                    pause();
                }
            }),
        }
    }
}

impl Drop for Placeholder {
    fn drop(&mut self) {
        if let Err(error) = crate::create::end(&self.pidfd) {
            tracing::debug!("end the placeholder: {error}");
        }
    }
}
