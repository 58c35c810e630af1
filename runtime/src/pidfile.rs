//! The pid file: it is there with the whole number in it, or it is not there.
//!
//! conmon takes a missing pid file for a failed runtime and a present one for a process to watch,
//! so it is written beside its place and renamed, and only once the process exists.

use std::fs::OpenOptions;
use std::io::Write;
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
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&new)
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
