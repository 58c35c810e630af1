//! `tmpcopyup`: a new tmpfs starts with a copy of what it covers.
//!
//! The copy goes from fd to fd, into the mount while it is still detached: no temporary directory on
//! the host that a kill could leave behind, and no name that the container could swap (attacks P7).
//! Links are copied as links and special files as special files; owners, modes and modification times
//! are kept. Hard links become separate files.

use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{
    FileStat, Mode, SFlag, UtimensatFlags, fstat, fstatat, mkdirat, mknodat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchownat, symlinkat};

use super::path::kind;
use crate::Result;
use crate::error::Doing;

/// Directories in each other, before we say `ELOOP`: each holds two fds open.
const MAX_DEPTH: usize = 200;

/// Copies the contents of the directory `from` into the root of the new mount `to`.
pub(super) fn copy(from: &OwnedFd, to: &OwnedFd) -> Result<()> {
    let doing = || "copy up".to_owned();
    let from = openat(from, ".", O_DIR, Mode::empty()).doing(doing)?;
    let to = openat(to, ".", O_DIR, Mode::empty()).doing(doing)?;
    let stat = fstat(&from).doing(doing)?;
    tree(from, &to, 0)?;
    fchownat(
        &to,
        "",
        Some(Uid::from_raw(stat.st_uid)),
        Some(Gid::from_raw(stat.st_gid)),
        AtFlags::AT_EMPTY_PATH,
    )
    .doing(doing)
}

const O_DIR: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

fn tree(from: OwnedFd, to: &OwnedFd, depth: usize) -> Result<()> {
    let doing = || "copy up a directory".to_owned();
    if depth > MAX_DEPTH {
        return Err(Errno::ELOOP).doing(doing);
    }
    let mut entries = Dir::from_fd(from.try_clone().doing(doing)?).doing(doing)?;
    for entry in entries.iter() {
        let entry = entry.doing(doing)?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        one(from.as_fd(), to, name, depth)
            .doing(|| format!("copy up {:?}", OsStr::from_bytes(name.to_bytes())))?;
    }
    Ok(())
}

fn one(from: BorrowedFd<'_>, to: &OwnedFd, name: &CStr, depth: usize) -> Result<()> {
    let stat = fstatat(from, name, AtFlags::AT_SYMLINK_NOFOLLOW).doing(|| "stat".to_owned())?;
    let mode = Mode::from_bits_truncate(stat.st_mode & 0o777);
    match kind(&stat) {
        SFlag::S_IFDIR => {
            mkdirat(to, name, mode).doing(|| "mkdir".to_owned())?;
            let inner = openat(from, name, O_DIR, Mode::empty()).doing(|| "open".to_owned())?;
            let copied = openat(to, name, O_DIR, Mode::empty()).doing(|| "open".to_owned())?;
            tree(inner, &copied, depth + 1)?;
        }
        SFlag::S_IFREG => file(from, to, name)?,
        SFlag::S_IFLNK => {
            let target = readlinkat(from, name).doing(|| "readlink".to_owned())?;
            symlinkat(target.as_os_str(), to, name).doing(|| "symlink".to_owned())?;
        }
        // A socket belongs to whoever listens on it.
        SFlag::S_IFSOCK => return Ok(()),
        special => {
            mknodat(to, name, special, mode, stat.st_rdev).doing(|| "mknod".to_owned())?;
        }
    }
    keep(to, name, &stat).doing(|| "keep owner, mode and times".to_owned())
}

fn file(from: BorrowedFd<'_>, to: &OwnedFd, name: &CStr) -> Result<()> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let source = openat(from, name, flags | OFlag::O_RDONLY | OFlag::O_NONBLOCK, Mode::empty());
    let create = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
    let copy = openat(to, name, flags | create, Mode::from_bits_truncate(0o600));
    let mut source = File::from(source.doing(|| "open".to_owned())?);
    let mut copy = File::from(copy.doing(|| "create".to_owned())?);
    std::io::copy(&mut source, &mut copy).map(drop).doing(|| "copy".to_owned())
}

/// Owner first: changing it clears the set-id bits.
fn keep(to: &OwnedFd, name: &CStr, stat: &FileStat) -> std::result::Result<(), Errno> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    fchownat(to, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)?;
    if kind(stat) != SFlag::S_IFLNK {
        let mode = Mode::from_bits_truncate(stat.st_mode & 0o7777);
        nix::sys::stat::fchmodat(to, name, mode, nix::sys::stat::FchmodatFlags::FollowSymlink)?;
    }
    let (read, written) = (
        TimeSpec::new(stat.st_atime, stat.st_atime_nsec),
        TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec),
    );
    utimensat(to, name, &read, &written, UtimensatFlags::NoFollowSymlink)
}
