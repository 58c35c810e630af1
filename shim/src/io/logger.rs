//! The process that takes a container's output in place of the client, seen from the loop.
//!
//! Promise: it does not outlive its container for long, and nobody waits for it. It ends by itself
//! at the end of its pipes; one that does not gets SIGTERM when the container's process is deleted,
//! and SIGKILL 12 s later.
//!
//! The copier is the shim's child; a client's program is once the worker that started it has exited
//! (the shim is a subreaper). If it ends before that, the pidfd says so but the shim can't reap it yet; whoever reaps the shim's
//! unknown children does.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use corten::error::Result;
use corten::sys::process::pidfd_send_signal;
use corten::sys::wait::ended;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;

use crate::poll::{Interest, Poller, Token, Watched};

/// As containerd's own shim: a logger may want 10 s to say goodbye to its server.
const PATIENCE: Duration = Duration::from_secs(12);

/// A logger that runs.
#[derive(Debug)]
pub struct Logger {
    pid: Pid,
    pidfd: Watched<OwnedFd>,
    kill_at: Option<Instant>,
}

impl Logger {
    pub(super) fn adopt(pid: Pid, pidfd: OwnedFd, poller: &Poller, token: Token) -> Result<Self> {
        let pidfd = poller.watch(pidfd, token, Interest::Read)?;
        Ok(Self { pid, pidfd, kill_at: None })
    }

    /// Its pid.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Asks it to end.
    pub(super) fn dismiss(&mut self, now: Instant) {
        self.signal(libc::SIGTERM);
        self.kill_at = Some(now + PATIENCE);
    }

    /// Called when its token is ready or its deadline past; true when it has ended, and was reaped
    /// if it was ours.
    pub fn turn(&mut self, now: Instant) -> bool {
        let mut fds = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::ZERO).is_ok() && fds[0].any().unwrap_or(true) {
            match ended(self.pidfd.get()) {
                Ok(exit) => tracing::debug!("logger {}: {exit:?}", self.pid),
                // Still the worker's, or reaped as an unknown child.
                Err(errno) => tracing::debug!("logger {} ended: {errno}", self.pid),
            }
            return true;
        }
        if self.kill_at.is_some_and(|at| at <= now) {
            tracing::warn!("logger {} did not end within {PATIENCE:?}: killed", self.pid);
            self.signal(libc::SIGKILL);
            self.kill_at = None;
        }
        false
    }

    /// When it wants a turn without being called.
    pub fn deadline(&self) -> Option<Instant> {
        self.kill_at
    }

    fn signal(&self, signal: libc::c_int) {
        match pidfd_send_signal(self.pidfd.get(), signal) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => tracing::warn!("signal {signal} to logger {}: {errno}", self.pid),
        }
    }
}
