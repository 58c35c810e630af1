//! Processes: `clone3(2)`, pidfds, `close_range(2)`, `setns(2)`.

use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::unistd::Pid;

use super::check;

/// What `clone3` is asked for. Flags are `u64` on purpose: libc's gnu `CLONE_INTO_CGROUP` and
/// `CLONE_CLEAR_SIGHAND` are `c_int` and overflow to 0.
#[derive(Debug, Default)]
pub struct CloneArgs<'fd> {
    /// `CLONE_NEW*`, `CLONE_PARENT`.
    pub flags: u64,
    /// Be born in this cgroup v2 directory (`CLONE_INTO_CGROUP`, Linux 5.7).
    pub cgroup: Option<BorrowedFd<'fd>>,
}

/// `CLONE_INTO_CGROUP` (clone3 only).
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
/// `CLONE_CLEAR_SIGHAND` (clone3 only): handlers become default, ignored stays ignored.
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;

/// Where closing one by one ends, on kernels without close_range(2).
const CLOSED_WITHOUT_CLOSE_RANGE: libc::c_int = 1 << 12;

/// Which side of a clone we are.
#[derive(Debug)]
pub enum Cloned {
    /// The caller: the child's pid in the caller's pid namespace, and a pidfd for it.
    Parent(Pid, OwnedFd),
    /// The new process.
    Child,
}

/// `clone3(2)` as a fork: the child runs on a copy of this memory.
///
/// The process must be single-threaded (the runtime is), so that no lock is held by a thread that
/// the child does not have.
///
/// # Errors
/// The errno of the call.
pub fn clone3(args: &CloneArgs<'_>) -> Result<Cloned, Errno> {
    let mut pidfd: libc::c_int = -1;
    // SAFETY: clone_args is plain data for which all zeroes is valid.
    let mut raw: libc::clone_args = unsafe { std::mem::zeroed() };
    raw.flags = args.flags | libc::CLONE_PIDFD as u64 | CLONE_CLEAR_SIGHAND;
    raw.pidfd = &raw mut pidfd as u64;
    // With CLONE_PARENT the exit signal is the parent's own and must be 0.
    raw.exit_signal =
        if args.flags & libc::CLONE_PARENT as u64 == 0 { libc::SIGCHLD as u64 } else { 0 };
    if let Some(cgroup) = args.cgroup {
        raw.flags |= CLONE_INTO_CGROUP;
        raw.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: no CLONE_VM, so the child has its own copy of the stack and heap and simply returns
    // here; the process is single-threaded. `raw` and `pidfd` live across the call.
    let ret =
        unsafe { libc::syscall(libc::SYS_clone3, &raw const raw, size_of::<libc::clone_args>()) };
    match check(ret)? {
        0 => Ok(Cloned::Child),
        pid => {
            // SAFETY: the kernel wrote a fresh descriptor into `pidfd`.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Cloned::Parent(Pid::from_raw(pid as i32), pidfd))
        }
    }
}

/// `pidfd_open(2)`: a handle that never names another process.
///
/// # Errors
/// `ESRCH` when there is no such process, also where the number is by now that of a thread, a process
/// group or a session: the kernel's word for these is `ENOENT`, and before 6.15 `EINVAL`.
pub fn pidfd_open(pid: Pid) -> Result<OwnedFd, Errno> {
    // SAFETY: plain integers.
    let ret = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    match check(ret) {
        // SAFETY: the kernel just made this descriptor and nobody else has it.
        Ok(fd) => Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) }),
        Err(Errno::ENOENT | Errno::EINVAL) => Err(Errno::ESRCH),
        Err(errno) => Err(errno),
    }
}

/// `pidfd_send_signal(2)`. `signal` is a number, so that real-time signals can be sent; 0 probes.
///
/// # Errors
/// `ESRCH` when the process has been reaped.
pub fn pidfd_send_signal(pidfd: impl AsFd, signal: libc::c_int) -> Result<(), Errno> {
    // SAFETY: a null siginfo asks for the same contents as kill(2).
    let ret = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_fd().as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    check(ret).map(drop)
}

/// `pidfd_getfd(2)` (Linux 5.6): a duplicate of the descriptor that is `fd` in that process.
///
/// # Errors
/// `EBADF` when it has no such descriptor; `EPERM` when the caller may not ptrace it.
pub fn pidfd_getfd(pidfd: impl AsFd, fd: libc::c_int) -> Result<OwnedFd, Errno> {
    // SAFETY: plain integers.
    let ret = unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_fd().as_raw_fd(), fd, 0_u32) };
    // SAFETY: the kernel just made this descriptor, close-on-exec, and nobody else has it.
    check(ret).map(|fd| unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// `setns(2)`: join the namespaces `flags` that `fd` stands for, a namespace file or a pidfd
/// (Linux 5.8).
///
/// # Errors
/// `EINVAL` when the fd is of another type than `flags`; `EPERM`.
pub fn setns(fd: impl AsFd, flags: libc::c_int) -> Result<(), Errno> {
    // SAFETY: plain integers.
    check(unsafe { libc::setns(fd.as_fd().as_raw_fd(), flags) }.into()).map(drop)
}

/// `close_range(2)` with `CLOSE_RANGE_CLOEXEC`: mark every fd from `first` up.
///
/// # Errors
/// `ENOSYS` before Linux 5.9, `EINVAL` before 5.11.
pub fn cloexec_from(first: u32) -> Result<(), Errno> {
    // SAFETY: only marks descriptors; none is closed under an owner.
    let ret =
        unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    check(ret).map(drop)
}

/// Ends this process at once, without unwinding or flushing what belongs to its parent.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(status) }
}

/// Runs `rest` with no descriptors but `keep`, and then ends this process: for a forked child that
/// has nothing to do with what its parent had open.
pub fn end_with_only(keep: &[BorrowedFd<'_>], rest: impl FnOnce()) -> ! {
    close_all_but(0, keep);
    rest();
    exit_now(0)
}

/// Closes every fd from `first` up but `keep`, in a process that never returns to the code that owns
/// them.
pub fn close_all_but(mut first: libc::c_int, keep: &[BorrowedFd<'_>]) {
    while let Some(last) = keep.iter().map(AsRawFd::as_raw_fd).filter(|fd| *fd >= first).min() {
        close_between(first, last);
        first = last + 1;
    }
    close_between(first, libc::c_int::MAX);
}

/// Closes from `first` up to, not including, `end`.
fn close_between(first: libc::c_int, end: libc::c_int) {
    if first == end {
        return;
    }
    // SAFETY: this process ends without returning to any owner of these descriptors.
    let ret = unsafe { libc::syscall(libc::SYS_close_range, first, end - 1, 0) };
    if check(ret).is_err() {
        // Before Linux 5.9, or hidden: as far as descriptors go in practice.
        for fd in first..end.min(CLOSED_WITHOUT_CLOSE_RANGE) {
            // SAFETY: as above.
            unsafe { libc::close(fd) };
        }
    }
}

/// Makes a write to a pipe or socket without a reader fail with `EPIPE` instead of killing us.
pub fn ignore_broken_pipes() {
    // SAFETY: SIG_IGN is a valid disposition of SIGPIPE, which cannot fail then.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

/// `setdomainname(2)`: the NIS domain name of the uts namespace.
///
/// # Errors
/// `EINVAL` for more than 64 bytes; `EPERM`.
pub fn set_domainname(name: &[u8]) -> Result<(), Errno> {
    // SAFETY: the pointer and the length are those of one slice.
    check(unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) }.into()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fds::is_open;
    use crate::sys::testing::in_child;

    #[test]
    fn what_is_kept_is_open_and_nothing_else() {
        in_child(|| {
            let pair = || std::io::pipe().unwrap();
            let (gone, kept, also_gone, also_kept) = (pair(), pair(), pair(), pair());
            let keep = [also_kept.0.as_fd(), kept.1.as_fd(), kept.1.as_fd()];
            let open = keep.map(|fd| fd.as_raw_fd());
            let _last = (gone, also_gone);
            end_with_only(&keep, || {
                let right = (0..1000).all(|fd| is_open(fd) == open.contains(&fd));
                exit_now(i32::from(!right));
            });
        });
    }
}
