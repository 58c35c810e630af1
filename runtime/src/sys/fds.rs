//! Descriptors by number: the ones that the caller of the runtime left open for the container, and
//! the ones that a shim and its worker agree on.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl, open};
use nix::sys::stat::Mode;

/// Runs `f` on the descriptor with this number, which may turn out to be closed (`EBADF`).
fn with<T>(number: RawFd, f: impl FnOnce(BorrowedFd<'_>) -> Result<T, Errno>) -> Result<T, Errno> {
    if number < 0 {
        return Err(Errno::EBADF);
    }
    // SAFETY: the number is only passed to fcntl during this call, which reports a closed one as
    // EBADF; it is neither closed nor kept, so no owner is disturbed.
    f(unsafe { BorrowedFd::borrow_raw(number) })
}

/// Whether a descriptor of this number is open.
pub fn is_open(number: RawFd) -> bool {
    with(number, |fd| fcntl(fd, FcntlArg::F_GETFD)).is_ok()
}

/// Sets or clears CLOEXEC of the descriptor of this number.
///
/// # Errors
/// `EBADF` when it is closed.
pub fn set_cloexec(number: RawFd, on: bool) -> Result<(), Errno> {
    let flags = if on { FdFlag::FD_CLOEXEC } else { FdFlag::empty() };
    with(number, |fd| fcntl(fd, FcntlArg::F_SETFD(flags))).map(drop)
}

/// The descriptor of this number, which whoever executed us left open for us: it is ours from now
/// on, and CLOEXEC. Only for numbers that nothing in this process owns, so at the beginning.
///
/// # Errors
/// `EBADF` when it is closed.
pub fn adopt(number: RawFd) -> Result<OwnedFd, Errno> {
    set_cloexec(number, true)?;
    // SAFETY: it is open, and the caller says that nobody else in this process owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// `dup2(2)`: makes `number` a copy of `fd` that outlives an execve. Only in a process that is about
/// to execute something, because whatever had this number is closed under its owner.
///
/// # Errors
/// `EMFILE`, `EBADF`.
pub fn place(fd: impl AsFd, number: RawFd) -> Result<(), Errno> {
    let from = fd.as_fd().as_raw_fd();
    if from == number {
        return set_cloexec(number, false);
    }
    // SAFETY: plain integers; the caller executes something next, so no owner uses the number again.
    super::check(unsafe { libc::dup2(from, number) }.into()).map(drop)
}

/// Opens /dev/null at the lowest free number and leaves it open for good.
///
/// # Errors
/// The errno of the open.
pub fn open_null_for_good() -> Result<RawFd, Errno> {
    // Not CLOEXEC: it becomes a standard stream.
    open(c"/dev/null", OFlag::O_RDWR, Mode::empty()).map(IntoRawFd::into_raw_fd)
}

/// Gives copies of `fds` the numbers 3, 4 and so on, without CLOEXEC, and closes everything else but
/// the standard streams: for a process that was just cloned and never returns to the owners of what
/// is closed.
///
/// # Errors
/// `EMFILE`.
pub fn keep_only(fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    const FIRST: RawFd = 3;
    let end = FIRST + fds.len() as RawFd;
    // First out of the way of the numbers that they are to get.
    let copies = fds.iter().map(|fd| fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(end)));
    let copies = copies.collect::<Result<Vec<RawFd>, Errno>>()?;
    for (copy, number) in copies.into_iter().zip(FIRST..) {
        // SAFETY: plain integers; whatever `number` was, its owner never runs again.
        super::check(unsafe { libc::dup2(copy, number) }.into())?;
    }
    super::process::close_all_but(end, &[]);
    Ok(())
}

/// Makes `fds` the standard streams.
///
/// # Errors
/// The errno of dup2(2).
pub fn become_stdio(fds: [BorrowedFd<'_>; 3]) -> Result<(), Errno> {
    for (fd, number) in fds.iter().zip(0..) {
        // SAFETY: plain integers; nobody owns the standard streams.
        super::check(unsafe { libc::dup2(fd.as_raw_fd(), number) }.into())?;
    }
    Ok(())
}
