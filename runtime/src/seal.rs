//! The runtime runs from a sealed copy of itself (CVE-2019-5736).
//!
//! Whatever enters a container can be found there as `/proc/<pid>/exe`. If that were the host's
//! binary, a process in the container could reopen it for writing and wait for root to run it
//! again. So `create`, `run` and `exec` first re-execute themselves from a memfd that is sealed
//! against writing, and everything that follows, the container's init included, is a clone of that
//! process. One exec, early, instead of one in the child: the child then has the whole plan in its
//! memory and nothing has to be passed to it (`docs/adr/0001-seal-first.md`).

use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, FcntlArg, OFlag, SealFlag, fcntl, openat};
use nix::sys::sendfile::sendfile;
use nix::sys::stat::{Mode, fstat};
use nix::unistd::fexecve;

use crate::error::{Doing, Result};
use crate::sys;

/// `F_SEAL_FUTURE_WRITE` (Linux 5.1) refuses every write and every writable mapping from now on, and
/// there is none yet. `F_SEAL_WRITE` does no more for us, but looks at every page for somebody who
/// holds it, and is EBUSY when memory management happens to.
const SEALS: SealFlag = SHAPE.union(SealFlag::F_SEAL_FUTURE_WRITE);
/// What Linux before 5.1 has.
const OLD_SEALS: SealFlag = SHAPE.union(SealFlag::F_SEAL_WRITE);
const SHAPE: SealFlag =
    SealFlag::F_SEAL_SEAL.union(SealFlag::F_SEAL_SHRINK).union(SealFlag::F_SEAL_GROW);

/// Returns at once in the sealed copy; otherwise makes it and becomes it, with the same arguments
/// and environment.
///
/// # Errors
/// When `/proc/self/exe` can't be read or the copy can't be made or executed.
pub fn ensure() -> Result<()> {
    let exe = own_binary()?;
    if is_sealed(&exe) {
        return Ok(());
    }
    let args: Vec<CString> =
        std::env::args_os().filter_map(|arg| CString::new(arg.into_vec()).ok()).collect();
    let env: Vec<CString> = std::env::vars_os()
        .filter_map(|(key, value)| {
            let mut pair = key.into_vec();
            pair.push(b'=');
            pair.extend_from_slice(value.as_bytes());
            CString::new(pair).ok()
        })
        .collect();
    become_copy(exe, &args, &env).map(|never| match never {})
}

/// Becomes a sealed copy of this process's binary, for a program that chooses what to execute it
/// as. Open descriptors without close-on-exec are passed on.
///
/// # Errors
/// As [`ensure`].
pub fn execute(args: &[CString], env: &[CString]) -> Result<Infallible> {
    become_copy(own_binary()?, args, env)
}

fn own_binary() -> Result<OwnedFd> {
    openat(AT_FDCWD, "/proc/self/exe", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
        .doing(|| "open /proc/self/exe".to_owned())
}

fn become_copy(exe: OwnedFd, args: &[CString], env: &[CString]) -> Result<Infallible> {
    let copy = sys::fs::memfd_executable(c"corten").doing(|| "memfd_create".to_owned())?;
    let mut left =
        usize::try_from(fstat(&exe).doing(|| "fstat /proc/self/exe".to_owned())?.st_size)
            .unwrap_or(0);
    while left > 0 {
        match sendfile(&copy, &exe, None, left).doing(|| "copy /proc/self/exe".to_owned())? {
            0 => break,
            sent => left -= sent,
        }
    }
    match fcntl(&copy, FcntlArg::F_ADD_SEALS(SEALS)) {
        Err(Errno::EINVAL) => fcntl(&copy, FcntlArg::F_ADD_SEALS(OLD_SEALS)),
        other => other,
    }
    .doing(|| "seal the runtime's copy".to_owned())?;
    drop(exe);
    fexecve(&copy, args, env).doing(|| "execute the runtime's sealed copy".to_owned())
}

/// Whether the file can no longer be written by anybody.
fn is_sealed(file: impl AsFd) -> bool {
    // EINVAL: not a memfd.
    fcntl(file, FcntlArg::F_GET_SEALS).is_ok_and(|seals| {
        let seals = SealFlag::from_bits_truncate(seals);
        seals.contains(SEALS) || seals.contains(OLD_SEALS)
    })
}
