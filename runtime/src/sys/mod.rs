//! The only unsafe code: one system call, one function.
//!
//! What nix offers is used directly from nix; here stands what it lacks. Every function takes
//! borrowed fds and returns owned ones, sets CLOEXEC, retries nothing, and returns the bare
//! [`nix::errno::Errno`]: the caller knows what it was doing and says so ([`crate::error::Doing`]).
#![allow(unsafe_code)]

pub mod bpf;
pub mod cred;
pub mod fds;
pub mod fs;
pub mod keyring;
pub mod loopdev;
pub mod mount;
pub mod ns;
pub mod process;
pub mod sched;
pub mod seccomp;
pub mod signal;
pub mod socket;
#[cfg(test)]
pub(crate) mod testing;
pub mod tty;
pub mod wait;

use nix::errno::Errno;

/// A raw return value as a result.
pub(crate) fn check(ret: libc::c_long) -> Result<libc::c_long, Errno> {
    if ret == -1 { Err(Errno::last()) } else { Ok(ret) }
}
