//! Processes: `clone3(2)` and `clone(2)`, pidfds, `close_range(2)`, `setns(2)`.

use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::signal::{SigSet, SigmaskHow};
use nix::sys::stat::Mode;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::{Pid, pipe2, read, write};

use super::{check, signal};

/// What a clone is asked for. Flags are `u64` on purpose: libc's gnu `CLONE_INTO_CGROUP` and
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

/// A fork: the child runs on a copy of this memory, with no handler of a signal of ours.
///
/// The process must be single-threaded (the runtime is), so that no lock is held by a thread that
/// the child does not have.
///
/// With `clone3(2)`, or `clone(2)` where a sandbox around us does not know that (Docker before
/// 20.10.10: `EPERM`) or the kernel not all of it (before 5.5 `EINVAL` for clearing handlers, before
/// 5.7 `E2BIG` for the cgroup). An errno that is about the arguments is answered again then.
///
/// # Errors
/// The errno of the call.
pub fn clone(args: &CloneArgs<'_>) -> Result<Cloned, Errno> {
    match clone3(args) {
        Err(Errno::ENOSYS | Errno::EPERM | Errno::EINVAL | Errno::E2BIG) => old_clone(args),
        other => other,
    }
}

/// With `CLONE_PARENT` the exit signal is the parent's own and must be 0.
fn exit_signal(flags: u64) -> u64 {
    if flags & libc::CLONE_PARENT as u64 == 0 { libc::SIGCHLD as u64 } else { 0 }
}

fn clone3(args: &CloneArgs<'_>) -> Result<Cloned, Errno> {
    let mut pidfd: libc::c_int = -1;
    // SAFETY: clone_args is plain data for which all zeroes is valid.
    let mut raw: libc::clone_args = unsafe { std::mem::zeroed() };
    raw.flags = args.flags | libc::CLONE_PIDFD as u64 | CLONE_CLEAR_SIGHAND;
    raw.pidfd = &raw mut pidfd as u64;
    raw.exit_signal = exit_signal(args.flags);
    if let Some(cgroup) = args.cgroup {
        raw.flags |= CLONE_INTO_CGROUP;
        raw.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: no CLONE_VM, so the child has its own copy of the stack and heap and simply returns
    // here; the process is single-threaded. `raw` and `pidfd` live across the call.
    let ret =
        unsafe { libc::syscall(libc::SYS_clone3, &raw const raw, size_of::<libc::clone_args>()) };
    side(check(ret)?, pidfd)
}

/// `clone(2)` where there is no clone3. Signals wait until the child has taken back the handlers, so that
/// none of them runs there. And the child takes its place in the cgroup before anything else, by the
/// caller's descriptor; if it can't, there is no child and the caller has the errno.
fn old_clone(args: &CloneArgs<'_>) -> Result<Cloned, Errno> {
    // Before Linux 5.2 CLONE_PIDFD is ignored, and we would have a child without a handle.
    has_pidfds()?;
    let seat = args
        .cgroup
        .map(|dir| openat(dir, "cgroup.procs", OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty()));
    let seat = seat.transpose()?;
    let (told, pen) = pipe2(OFlag::O_CLOEXEC)?;
    let mut pidfd: libc::c_int = -1;
    let flags = args.flags | libc::CLONE_PIDFD as u64 | exit_signal(args.flags);
    let mask = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    // SAFETY: no CLONE_VM and no stack, so the child has its own copy of both and returns here; the
    // process is single-threaded. The kernel writes into `pidfd`, which lives across the call.
    let ret = check(unsafe { libc::syscall(libc::SYS_clone, flags, 0, &raw mut pidfd, 0, 0) });
    if ret == Ok(0) {
        signal::forget_handlers();
    }
    // There is no mask for which it fails.
    let _restored = mask.thread_set_mask();
    let born = side(ret?, pidfd)?;
    let mut word = [0; 4];
    match &born {
        Cloned::Child => {
            if let Some(Err(errno)) = seat.map(|seat| write(seat, b"0")) {
                let _caller_may_be_gone = write(pen, &(errno as i32).to_ne_bytes());
                exit_now(1);
            }
        }
        Cloned::Parent(_, pidfd) => {
            drop(pen);
            if seat.is_some() && read(told, &mut word) == Ok(word.len()) {
                let _reaped = waitid(Id::PIDFd(pidfd.as_fd()), WaitPidFlag::WEXITED);
                return Err(Errno::from_raw(i32::from_ne_bytes(word)));
            }
        }
    }
    Ok(born)
}

fn side(ret: libc::c_long, pidfd: libc::c_int) -> Result<Cloned, Errno> {
    if ret == 0 {
        return Ok(Cloned::Child);
    }
    // SAFETY: the kernel wrote a fresh descriptor into `pidfd` for the child that it made.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Cloned::Parent(Pid::from_raw(ret as i32), pidfd))
}

/// Whether processes can be held and signalled by handles: `pidfd_open(2)` and
/// `pidfd_send_signal(2)`, since Linux 5.3.
///
/// # Errors
/// What a kernel before, or a filter, answers.
pub fn has_pidfds() -> Result<(), Errno> {
    // SAFETY: plain integers; no process has this pid.
    let opened = check(unsafe { libc::syscall(libc::SYS_pidfd_open, -1, 0) });
    // SAFETY: plain integers and a null siginfo; no descriptor has this number.
    let sent = check(unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, -1, 0, std::ptr::null::<libc::siginfo_t>(), 0)
    });
    for answer in [opened, sent] {
        if let Err(errno @ (Errno::ENOSYS | Errno::EPERM)) = answer {
            return Err(errno);
        }
    }
    Ok(())
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
