//! How a process ended: `waitid(2)` on a pidfd.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::unistd::Pid;

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
    // Without WNOHANG it answers only when there is an exit.
    wait(pidfd.as_fd(), libc::WEXITED)?.ok_or(Errno::EINTR)
}

/// `waitid(P_PIDFD)` with `WNOHANG`: reaps our child if it has ended.
///
/// # Errors
/// `ECHILD` when it is not our child, or not yet.
pub fn ended(pidfd: impl AsFd) -> Result<Option<Exit>, Errno> {
    wait(pidfd.as_fd(), libc::WEXITED | libc::WNOHANG)
}

fn wait(pidfd: BorrowedFd<'_>, options: libc::c_int) -> Result<Option<Exit>, Errno> {
    // SAFETY: siginfo is plain data for which all zeroes is valid.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let id = pidfd.as_raw_fd() as libc::id_t;
    // SAFETY: `info` lives across the call.
    check(unsafe { libc::waitid(libc::P_PIDFD, id, &raw mut info, options) }.into())?;
    // SAFETY: waitid filled the SIGCHLD members, or left them zero.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    Ok(match (pid, info.si_code) {
        (0, _) => None,
        (_, libc::CLD_EXITED) => Some(Exit::Code(status)),
        _ => Some(Exit::Signal(status)),
    })
}

/// The pid of a child that has ended and was not reaped yet, if there is one; it is left as it is.
///
/// # Errors
/// `ECHILD` without any child.
pub fn any_ended() -> Result<Option<Pid>, Errno> {
    // SAFETY: siginfo is plain data for which all zeroes is valid.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: `info` lives across the call.
    check(unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, options) }.into())?;
    // SAFETY: waitid filled the SIGCHLD members, or left them zero.
    let pid = unsafe { info.si_pid() };
    Ok((pid != 0).then(|| Pid::from_raw(pid)))
}
