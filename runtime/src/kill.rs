//! Signals to a container, which never reach anything else.
//!
//! The recorded pid is turned into a pidfd and what identifies the process compared *after* that
//! ([`crate::state::Process::open`]), so the handle is known to name the container's own init.
//! SIGKILL of a container that shares its pid namespace goes to everything in its cgroup, because
//! nothing else would end the rest.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::error::{Doing, Error, Result};
use crate::state::{State, Status};
use crate::sys::process::pidfd_send_signal;

/// How long killed processes may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// A handle of the container's init, if it lives.
///
/// # Errors
/// When the kernel has no pidfds or no descriptors are left.
pub fn init_pidfd(state: &State) -> Result<Option<OwnedFd>> {
    state.live_init()?.map_or(Ok(None), |init| init.open())
}

/// Sends `signal` to the container's init, or with `all` to every process in its cgroup.
///
/// # Errors
/// [`Error::NotRunning`] (not with `all`: then there is nothing to do).
pub fn kill(state: &State, signal: i32, all: bool) -> Result<()> {
    let killed = signal == libc::SIGKILL;
    let everything = all || (killed && !state.own_pid_namespace);
    if let (true, Some(cgroup)) = (everything, state.open_cgroup()) {
        if !all && state.status()? == Status::Stopped {
            return Err(Error::NotRunning);
        }
        return if killed { cgroup.kill_all(PATIENCE) } else { cgroup.signal_all(signal) };
    }
    let Some(pidfd) = init_pidfd(state)? else {
        return if all { Ok(()) } else { Err(Error::NotRunning) };
    };
    match pidfd_send_signal(&pidfd, signal) {
        Err(Errno::ESRCH) if !all => return Err(Error::NotRunning),
        Err(Errno::ESRCH) => {}
        other => other.doing(|| format!("signal {signal} to container {}", state.id))?,
    }
    // A frozen v1 group holds even a killed process.
    match state.open_cgroup() {
        Some(cgroup) if killed && cgroup.is_frozen().unwrap_or(true) => cgroup.thaw(),
        _ => Ok(()),
    }
}

/// Waits until the process behind `pidfd` has ended: true, or false when `patience` is over.
///
/// # Errors
/// When poll fails.
pub fn wait_ended(pidfd: impl AsFd, patience: Duration) -> Result<bool> {
    let deadline = Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Err(Errno::EINTR) => {}
            other => return Ok(other.doing(|| "wait for a process to end".to_owned())? > 0),
        }
    }
}
