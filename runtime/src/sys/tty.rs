//! Terminals: the ioctls of a pty pair.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

use super::check;

/// Rows and columns of a terminal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Characters a line.
    pub columns: u16,
}

/// `TIOCSPTLCK` with 0: lets the peer of a pty master be opened.
///
/// # Errors
/// `ENOTTY` unless `master` is one.
pub fn unlock(master: impl AsFd) -> Result<(), Errno> {
    let locked: libc::c_int = 0;
    // SAFETY: the kernel reads one int.
    let ret =
        unsafe { libc::ioctl(master.as_fd().as_raw_fd(), libc::TIOCSPTLCK, &raw const locked) };
    check(ret.into()).map(drop)
}

/// `TIOCGPTN`: the N of /dev/pts/N.
///
/// # Errors
/// `ENOTTY` unless `master` is one.
pub fn number(master: impl AsFd) -> Result<u32, Errno> {
    let mut number: libc::c_uint = 0;
    // SAFETY: the kernel writes one unsigned int.
    let ret = unsafe { libc::ioctl(master.as_fd().as_raw_fd(), libc::TIOCGPTN, &raw mut number) };
    check(ret.into()).map(|_| number)
}

/// `TIOCGPTPEER` (Linux 4.13): opens the slave of `master` without a path that could be swapped.
///
/// # Errors
/// `EIO` while it is locked.
pub fn peer(master: impl AsFd) -> Result<OwnedFd, Errno> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: a plain integer argument.
    let ret = unsafe { libc::ioctl(master.as_fd().as_raw_fd(), libc::TIOCGPTPEER, flags) };
    // SAFETY: the kernel just made this descriptor and nobody else has it.
    check(ret.into()).map(|fd| unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// `TIOCSCTTY`: makes `slave` the controlling terminal of our session.
///
/// # Errors
/// `EPERM` unless we lead a session that has none.
pub fn set_controlling(slave: impl AsFd) -> Result<(), Errno> {
    // SAFETY: a plain integer argument; 0 asks not to steal it from another session.
    let ret = unsafe { libc::ioctl(slave.as_fd().as_raw_fd(), libc::TIOCSCTTY, 0) };
    check(ret.into()).map(drop)
}

/// `TIOCSWINSZ`; the foreground process group gets SIGWINCH if this changes the size.
///
/// # Errors
/// `ENOTTY`.
pub fn set_size(tty: impl AsFd, size: Size) -> Result<(), Errno> {
    let raw = libc::winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the kernel reads one winsize.
    let ret = unsafe { libc::ioctl(tty.as_fd().as_raw_fd(), libc::TIOCSWINSZ, &raw const raw) };
    check(ret.into()).map(drop)
}

/// `TIOCGWINSZ`.
///
/// # Errors
/// `ENOTTY`.
pub fn size(tty: impl AsFd) -> Result<Size, Errno> {
    let mut raw = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the kernel writes one winsize.
    let ret = unsafe { libc::ioctl(tty.as_fd().as_raw_fd(), libc::TIOCGWINSZ, &raw mut raw) };
    check(ret.into()).map(|_| Size { rows: raw.ws_row, columns: raw.ws_col })
}
