//! Namespaces as files, and the one network interface that a new network namespace has.

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

use super::check;

/// `NS_GET_NSTYPE` (Linux 4.11): the `CLONE_NEW*` of a namespace file.
///
/// # Errors
/// `ENOTTY` unless the file is a namespace.
pub fn kind(namespace: impl AsFd) -> Result<libc::c_int, Errno> {
    // SAFETY: the request takes no argument.
    let ret = unsafe { libc::ioctl(namespace.as_fd().as_raw_fd(), libc::NS_GET_NSTYPE) };
    check(ret.into()).map(|_| ret)
}

fn flags_request(name: &[u8]) -> Result<libc::ifreq, Errno> {
    // SAFETY: ifreq is plain data for which all zeroes is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays NUL.
    if name.len() >= request.ifr_name.len() {
        return Err(Errno::ENAMETOOLONG);
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name) {
        *to = *from as libc::c_char;
    }
    Ok(request)
}

/// `SIOCGIFFLAGS`: the `IFF_*` of an interface of the socket's network namespace.
///
/// # Errors
/// `ENODEV` when there is none of this name.
pub fn interface_flags(socket: impl AsFd, name: &[u8]) -> Result<libc::c_short, Errno> {
    let mut request = flags_request(name)?;
    // SAFETY: the kernel reads the name and writes the flags of one ifreq.
    let ret =
        unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request) };
    check(ret.into())?;
    // SAFETY: SIOCGIFFLAGS filled this member of the union.
    Ok(unsafe { request.ifr_ifru.ifru_flags })
}

/// `SIOCSIFFLAGS`: sets the `IFF_*` of an interface of the socket's network namespace.
///
/// # Errors
/// `EPERM` without `CAP_NET_ADMIN` there; `ENODEV`.
pub fn set_interface_flags(
    socket: impl AsFd,
    name: &[u8],
    flags: libc::c_short,
) -> Result<(), Errno> {
    let mut request = flags_request(name)?;
    request.ifr_ifru.ifru_flags = flags;
    // SAFETY: the kernel reads the name and the flags of one ifreq.
    let ret =
        unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    check(ret.into()).map(drop)
}
