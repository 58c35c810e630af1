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
    /// From the number that wait(2) fills.
    pub fn from_wait(status: i32) -> Self {
        match status & 0x7f {
            0 => Self::Code(status >> 8 & 0xff),
            signal => Self::Signal(signal),
        }
    }

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

/// What `PIDFD_GET_INFO` (Linux 6.13) fills, in its first size (`PIDFD_INFO_SIZE_VER0`): newer
/// kernels append to it and cut what they tell to the size that they were asked for.
#[derive(Debug, Default)]
#[repr(C)]
struct PidfdInfo {
    mask: u64,
    cgroup: u64,
    pid: u32,
    tgid: u32,
    ppid: u32,
    /// ruid, rgid, euid, egid, suid, sgid, fsuid, fsgid.
    ids: [u32; 8],
    /// As wait(2) fills it.
    exit_code: i32,
}

/// `PIDFD_INFO_EXIT` (Linux 6.15): asked for and told in the mask.
const PIDFD_INFO_EXIT: u64 = 1 << 3;

nix::ioctl_readwrite!(pidfd_get_info, 0xFF, 11, PidfdInfo);

/// How a process ended that is not our child and that its parent has waited for, by a pidfd from
/// before. None while it lives, and while it is a zombie.
///
/// # Errors
/// `ENOTTY` before Linux 6.13; `ESRCH` before 6.15, when the process is gone.
pub fn told_exit_of(pidfd: impl AsFd) -> Result<Option<Exit>, Errno> {
    let mut info = PidfdInfo { mask: PIDFD_INFO_EXIT, ..PidfdInfo::default() };
    // SAFETY: the structure has the size that the number of the ioctl says, and lives across it.
    unsafe { pidfd_get_info(pidfd.as_fd().as_raw_fd(), &raw mut info) }?;
    Ok((info.mask & PIDFD_INFO_EXIT != 0).then(|| Exit::from_wait(info.exit_code)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::process::{CloneArgs, Cloned, clone, exit_now};

    #[test]
    fn a_pidfd_tells_the_exit_after_somebody_has_waited() {
        let ended = |end: fn() -> !| {
            let Cloned::Parent(_, pidfd) = clone(&CloneArgs::default()).unwrap() else { end() };
            let before = exit_of(&pidfd).unwrap();
            match told_exit_of(&pidfd) {
                Ok(told) => assert_eq!(told, Some(before)),
                // A kernel before 6.15.
                Err(errno) => assert!(matches!(errno, Errno::ENOTTY | Errno::ESRCH), "{errno}"),
            }
            before
        };
        assert_eq!(ended(|| exit_now(7)), Exit::Code(7));
        let killed = ended(|| {
            nix::sys::signal::raise(nix::sys::signal::SIGKILL).unwrap();
            exit_now(1)
        });
        assert_eq!(killed, Exit::Signal(libc::SIGKILL));
    }

    #[test]
    fn a_live_process_has_no_exit() {
        let me = crate::sys::process::pidfd_open(nix::unistd::Pid::this()).unwrap();
        if let Ok(told) = told_exit_of(me) {
            assert_eq!(told, None);
        }
    }

    #[test]
    fn the_numbers_of_wait() {
        assert_eq!(Exit::from_wait(0x0700), Exit::Code(7));
        assert_eq!(Exit::from_wait(0xff00), Exit::Code(255));
        // With a core dump.
        assert_eq!(Exit::from_wait(0x8b), Exit::Signal(11));
    }
}
