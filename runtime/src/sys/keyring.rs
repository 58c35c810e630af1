//! Kernel keyrings: `keyctl(2)`.

use std::ffi::CStr;

use nix::errno::Errno;

use super::check;

const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
const KEYCTL_SETPERM: libc::c_int = 5;
const KEYCTL_DESCRIBE: libc::c_int = 6;

/// `KEY_SPEC_SESSION_KEYRING`: whichever session keyring the process has.
const SESSION: libc::c_int = -3;

/// Joins the session keyring `name`, creating it if there is none.
///
/// # Errors
/// `ENOSYS` without keyrings, `EDQUOT`, `EACCES`.
pub fn join_session(name: &CStr) -> Result<(), Errno> {
    // SAFETY: `name` is NUL-terminated.
    let ret =
        unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) };
    // The serial number, or 0 if it was this one already.
    check(ret).map(drop)
}

/// `type;uid;gid;permissions in hex;name` of the session keyring, without its final NUL.
///
/// # Errors
/// `EACCES` without the view permission; `ENAMETOOLONG` beyond 4 KiB.
pub fn describe_session() -> Result<Vec<u8>, Errno> {
    let mut buffer = vec![0u8; 4096];
    // SAFETY: the kernel writes nothing unless the whole description fits the given length.
    let ret = unsafe {
        libc::syscall(libc::SYS_keyctl, KEYCTL_DESCRIBE, SESSION, buffer.as_mut_ptr(), buffer.len())
    };
    let length = check(ret)? as usize;
    if length > buffer.len() {
        return Err(Errno::ENAMETOOLONG);
    }
    buffer.truncate(length.saturating_sub(1));
    Ok(buffer)
}

/// Sets the permission mask of the session keyring.
///
/// # Errors
/// `EACCES` unless it is ours.
pub fn set_session_permissions(mask: u32) -> Result<(), Errno> {
    // SAFETY: plain integers.
    check(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_SETPERM, SESSION, mask) }).map(drop)
}
