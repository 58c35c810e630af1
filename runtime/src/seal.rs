//! The runtime runs from a sealed copy of itself (CVE-2019-5736).
//!
//! Whatever enters a container can be found there as `/proc/<pid>/exe`. If that were the host's
//! binary, a process in the container could reopen it for writing and wait for root to run it
//! again. So `create`, `run` and `exec` first re-execute themselves from a copy that nobody can
//! write any more, and everything that follows, the container's init included, is a clone of that
//! process. One exec, early, instead of one in the child: the child then has the whole plan in its
//! memory and nothing has to be passed to it (`docs/adr/0001-seal-first.md`).
//!
//! The copy is a file of a small file system in huge pages ([`huge`]), where we may mount, or else a
//! memfd ([`memfd`]), which takes a millisecond longer (`docs/adr/0010-a-copy-in-huge-pages.md`).

mod huge;
mod memfd;

use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::sendfile::sendfile;
use nix::sys::stat::{Mode, fstat};
use nix::unistd::{execve, fexecve};

use crate::error::{Doing, Result};

/// Returns at once in the sealed copy; otherwise makes it and becomes it, with the same arguments
/// and environment.
///
/// # Errors
/// When `/proc/self/exe` can't be read or the copy can't be made or executed.
pub fn ensure() -> Result<()> {
    let exe = own_binary()?;
    if memfd::is_sealed(&exe) || huge::is_sealed(&exe) {
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
    become_copy(&exe, &args, &env).map(|never| match never {})
}

/// Becomes a sealed copy of this process's binary, for a program that chooses what to execute it
/// as. Open descriptors without close-on-exec are passed on.
///
/// # Errors
/// As [`ensure`].
pub fn execute(args: &[CString], env: &[CString]) -> Result<Infallible> {
    become_copy(&own_binary()?, args, env)
}

fn own_binary() -> Result<OwnedFd> {
    openat(AT_FDCWD, "/proc/self/exe", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
        .doing(|| "open /proc/self/exe".to_owned())
}

fn become_copy(exe: &OwnedFd, args: &[CString], env: &[CString]) -> Result<Infallible> {
    let execute = |copy: OwnedFd| {
        let refused = match fexecve(&copy, args, env) {
            // A filter that does not know execveat(2). The name is the kernel's for this very file: we
            // are on the host yet. And whoever runs as that copy asks again whether it is sealed.
            Err(Errno::ENOSYS | Errno::EPERM) => {
                let name = CString::new(format!("/proc/self/fd/{}", copy.as_raw_fd()));
                execve(&name.unwrap_or_default(), args, env)
            }
            other => other,
        };
        refused.doing(|| "execute the runtime's sealed copy".to_owned())
    };
    // Not without the right to mount, without huge pages, before Linux 5.2, or where a security module
    // has no rule for such a file.
    match huge::copy(exe).and_then(execute) {
        Ok(never) => match never {},
        Err(_) => execute(memfd::copy(exe)?),
    }
}

/// Writes all of our binary into `copy`. It is read from its beginning, whoever read it before.
fn fill(copy: impl AsFd, exe: impl AsFd) -> Result<()> {
    let (copy, exe) = (copy.as_fd(), exe.as_fd());
    let size = fstat(exe).doing(|| "fstat /proc/self/exe".to_owned())?.st_size;
    let mut at = 0;
    while at < size {
        let left = usize::try_from(size - at).unwrap_or(0);
        let sent = sendfile(copy, exe, Some(&mut at), left);
        if sent.doing(|| "copy /proc/self/exe".to_owned())? == 0 {
            break;
        }
    }
    Ok(())
}
