//! The pid file: it is there with the whole number in it, or it is not there.
//!
//! conmon takes a missing pid file for a failed runtime and a present one for a process to watch,
//! so it is written beside its place and renamed, and only once the process exists.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::unistd::Pid;

use crate::error::{Doing, Error, Result};
use crate::sys::socket;

/// Writes `pid` in decimal, without a newline, to `path`.
///
/// # Errors
/// When the file can't be made; nothing is left then.
pub fn write(path: &Path, pid: Pid) -> Result<()> {
    let doing = || format!("write the pid file {}", path.display());
    let name = path.file_name().ok_or_else(|| Error::Usage(format!("{}: no name", doing())))?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    let new = path.with_file_name(hidden);
    // Made anew, wherever a link of that name would lead; and a runtime that was killed may have left one.
    let create = || OpenOptions::new().write(true).create_new(true).open(&new);
    let written = create()
        .or_else(|error| match error.kind() {
            ErrorKind::AlreadyExists => std::fs::remove_file(&new).and_then(|()| create()),
            _ => Err(error),
        })
        .and_then(|mut file| file.write_all(pid.to_string().as_bytes()))
        .and_then(|()| std::fs::rename(&new, path));
    if written.is_err() {
        let _was_perhaps_never_made = std::fs::remove_file(&new);
    }
    written.doing(doing)
}

/// Sends a pidfd to the socket at `path` (`--pidfd-socket`) with a word that says what it is of:
/// `standard` for a container, `setns` for an exec.
///
/// # Errors
/// When nobody listens there.
pub fn send_pidfd(path: &Path, pidfd: impl AsFd, word: &str) -> Result<()> {
    let doing = || format!("send the pidfd to {}", path.display());
    let stream = UnixStream::connect(path).doing(doing)?;
    socket::send(&stream, word.as_bytes(), &[pidfd.as_fd()]).doing(doing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_runtime_left_is_in_nobodys_way() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("pid"), dir.path().join("other"));
        std::fs::write(&other, "not ours").unwrap();
        std::os::unix::fs::symlink(&other, dir.path().join(".pid")).unwrap();
        write(&path, Pid::from_raw(17)).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "17");
        assert_eq!(std::fs::read_to_string(&other).unwrap(), "not ours");
        assert!(!dir.path().join(".pid").exists());
    }
}
