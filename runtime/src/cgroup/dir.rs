//! One directory of a cgroup file system, held by fd.
//!
//! Everything below a group is reached relative to its fd and resolved without symbolic links,
//! `..` or mounts in between, so a path from the configuration can't lead out of the hierarchy
//! and a container that owns its group can't redirect us. A group's tree is walked with one fd at
//! a time: a container may nest thousands of sub-cgroups to exhaust our fds or our stack.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::error::{Doing, Result};
use crate::sys::fs::{openat2, resolve};

const DIRECTORY: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC).union(OFlag::O_NOFOLLOW);

/// An open directory and the name it is known by in messages.
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
    path: PathBuf,
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Dir {
    /// Opens a directory of the host by its absolute path, through no symbolic link.
    ///
    /// # Errors
    /// The errno of the open.
    pub fn open(path: &Path) -> Result<Self, Errno> {
        let fd = open_plain(path, libc::O_RDONLY | libc::O_DIRECTORY)?;
        Ok(Self { fd, path: path.to_owned() })
    }

    /// The name for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the directory `below` (relative, no `..`), following nothing and crossing nothing.
    ///
    /// # Errors
    /// The errno: `ENOENT`, or `ELOOP`, `EXDEV` for what has no business in a cgroup file system.
    pub fn sub(&self, below: &Path) -> Result<Self, Errno> {
        if below.as_os_str().is_empty() {
            return Ok(Self {
                fd: self.fd.try_clone().map_err(io_errno)?,
                path: self.path.clone(),
            });
        }
        let name = CString::new(below.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
        let how = resolve::BENEATH | resolve::NO_SYMLINKS | resolve::NO_XDEV;
        let fd = match openat2(&self.fd, &name, libc::O_RDONLY | libc::O_DIRECTORY, 0, how) {
            // Before Linux 5.6, or filtered by an outer container's seccomp profile.
            Err(Errno::ENOSYS | Errno::EPERM) => self.sub_by_steps(below)?,
            other => other?,
        };
        Ok(Self { fd, path: self.path.join(below) })
    }

    fn sub_by_steps(&self, below: &Path) -> Result<OwnedFd, Errno> {
        let mut at = self.fd.try_clone().map_err(io_errno)?;
        for step in below.components() {
            let std::path::Component::Normal(name) = step else { return Err(Errno::EXDEV) };
            at = openat(&at, name, DIRECTORY, Mode::empty())?;
        }
        Ok(at)
    }

    /// Opens a control file. `name` is a plain file name.
    ///
    /// # Errors
    /// The errno of the open.
    pub fn file(&self, name: &str, flags: OFlag) -> Result<OwnedFd, Errno> {
        openat(&self.fd, name, flags | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW, Mode::empty())
    }

    /// Writes a control file in one write, as cgroup files demand.
    ///
    /// # Errors
    /// What was written where, and the errno.
    pub fn write(&self, name: &str, value: &str) -> Result<()> {
        self.try_write(name, value)
            .doing(|| format!("write {value:?} to {:?}", self.path.join(name)))
    }

    /// [`Dir::write`] for callers that go by the errno.
    ///
    /// # Errors
    /// The bare errno.
    pub fn try_write(&self, name: &str, value: &str) -> Result<(), Errno> {
        write_all(&self.file(name, OFlag::O_WRONLY)?, value)
    }

    /// Reads a control file whole.
    ///
    /// # Errors
    /// What was read, and the errno.
    pub fn read(&self, name: &str) -> Result<String> {
        self.try_read(name).doing(|| format!("read {:?}", self.path.join(name)))
    }

    /// [`Dir::read`] for callers that go by the errno.
    ///
    /// # Errors
    /// The bare errno.
    pub fn try_read(&self, name: &str) -> Result<String, Errno> {
        read_all(&self.file(name, OFlag::O_RDONLY)?)
    }

    /// Reads a control file of one short value, for which one read is enough.
    ///
    /// # Errors
    /// The bare errno.
    pub fn try_value(&self, name: &str) -> Result<String, Errno> {
        let mut bytes = [0; 1024];
        let len = nix::unistd::read(&self.file(name, OFlag::O_RDONLY)?, &mut bytes)?;
        let text = std::str::from_utf8(&bytes[..len]).map_err(|_| Errno::EILSEQ)?;
        Ok(text.trim_end().to_owned())
    }

    /// The names of the sub-cgroups directly below.
    fn children(&self) -> Result<Vec<CString>, Errno> {
        let again = openat(&self.fd, ".", DIRECTORY, Mode::empty())?;
        let mut entries = nix::dir::Dir::from_fd(again)?;
        let mut names = Vec::new();
        for entry in entries.iter() {
            let entry = entry?;
            let name = entry.file_name();
            if entry.file_type() == Some(nix::dir::Type::Directory) && name != c"." && name != c".."
            {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    fn step(&self, name: &CStr) -> Result<Self, Errno> {
        let fd = openat(&self.fd, name, DIRECTORY, Mode::empty())?;
        Ok(Self { fd, path: self.path.join(OsStr::from_bytes(name.to_bytes())) })
    }

    fn up(&self) -> Result<Self, Errno> {
        let fd = openat(&self.fd, "..", DIRECTORY, Mode::empty())?;
        let path = self.path.parent().unwrap_or(Path::new("/")).to_owned();
        Ok(Self { fd, path })
    }
}

/// Opens a path of the host that has no symbolic links.
///
/// # Errors
/// The errno of the open.
pub(super) fn open_plain(path: &Path, flags: libc::c_int) -> Result<OwnedFd, Errno> {
    let name = CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    match openat2(AT_FDCWD, &name, flags, 0, resolve::NO_SYMLINKS) {
        // Before Linux 5.6, or filtered by an outer container's seccomp profile. A cgroup file
        // system can't hold symbolic links.
        Err(Errno::ENOSYS | Errno::EPERM) => {
            let flags = OFlag::from_bits_retain(flags) | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
            nix::fcntl::open(path, flags, Mode::empty())
        }
        other => other,
    }
}

/// A group, by its name in its parent: for making and removing it.
#[derive(Clone, Copy, Debug)]
pub struct Name<'path> {
    parent: BorrowedFd<'path>,
    path: &'path Path,
}

impl<'path> Name<'path> {
    /// By an absolute path.
    pub fn absolute(path: &'path Path) -> Self {
        Self { parent: AT_FDCWD, path }
    }

    /// Below an open directory.
    pub fn below(parent: &'path Dir, name: &'path CStr) -> Self {
        Self { parent: parent.as_fd(), path: Path::new(OsStr::from_bytes(name.to_bytes())) }
    }

    /// Makes the group, whose parent exists.
    ///
    /// # Errors
    /// The errno: `EEXIST`, `ENOENT` for a missing parent, `EACCES`, `EROFS`.
    pub fn mkdir(self) -> Result<(), Errno> {
        mkdirat(self.parent, self.path, Mode::from_bits_truncate(0o755))
    }

    /// Removes the empty group.
    ///
    /// # Errors
    /// The errno: `EBUSY` while it has processes or sub-cgroups.
    pub fn rmdir(self) -> Result<(), Errno> {
        unlinkat(self.parent, self.path, UnlinkatFlags::RemoveDir)
    }

    /// Opens the group.
    ///
    /// # Errors
    /// The errno of the open.
    pub fn open(self) -> Result<Dir, Errno> {
        let fd = openat(self.parent, self.path, DIRECTORY, Mode::empty())?;
        Ok(Dir { fd, path: self.path.to_owned() })
    }
}

/// Where a [`walk`] stands.
#[derive(Debug)]
pub enum Step<'dir> {
    /// In a group, the top included, before its sub-cgroups.
    Enter(&'dir Dir),
    /// Back in the parent of `1`, all of whose sub-cgroups were left before; not for the top.
    Leave(&'dir Dir, &'dir CStr),
}

/// Visits a group and its sub-cgroups. A sub-cgroup that vanishes meanwhile is skipped.
///
/// # Errors
/// The first error of `visit`, or of opening a directory.
pub fn walk(top: &Dir, mut visit: impl FnMut(Step<'_>) -> Result<()>) -> Result<()> {
    walk_while(top, |step| visit(step).map(|()| true))
}

/// The same, until `visit` answers false: it has seen enough.
///
/// # Errors
/// Those of [`walk`].
pub fn walk_while(top: &Dir, mut visit: impl FnMut(Step<'_>) -> Result<bool>) -> Result<()> {
    let gone = |errno| matches!(errno, Errno::ENOENT | Errno::ENODEV);
    let mut at = top.sub(Path::new("")).doing(|| format!("open {:?}", top.path))?;
    if !visit(Step::Enter(&at))? {
        return Ok(());
    }
    // One entry for each level: the names still to visit, and the name that led there.
    let mut levels = vec![(at.children().or_else(none_if(gone)).doing(|| listing(&at))?, None)];
    while let Some((pending, _)) = levels.last_mut() {
        if let Some(name) = pending.pop() {
            let below = match at.step(&name) {
                Err(errno) if gone(errno) => continue,
                other => other.doing(|| format!("open {:?} in {:?}", name, at.path))?,
            };
            if !visit(Step::Enter(&below))? {
                return Ok(());
            }
            let names = below.children().or_else(none_if(gone)).doing(|| listing(&below))?;
            levels.push((names, Some(name)));
            at = below;
        } else if let Some((_, Some(name))) = levels.pop() {
            at = at.up().doing(|| format!("open the parent of {:?}", at.path))?;
            if !visit(Step::Leave(&at, &name))? {
                return Ok(());
            }
        }
    }
    Ok(())
}

fn listing(dir: &Dir) -> String {
    format!("list {:?}", dir.path)
}

fn none_if<T: Default>(gone: impl Fn(Errno) -> bool) -> impl Fn(Errno) -> Result<T, Errno> {
    move |errno| if gone(errno) { Ok(T::default()) } else { Err(errno) }
}

/// Writes `value` with one `write(2)`.
pub(super) fn write_all(file: &OwnedFd, value: &str) -> Result<(), Errno> {
    loop {
        match nix::unistd::write(file, value.as_bytes()) {
            Err(Errno::EINTR) => {}
            Ok(n) if n < value.len() => return Err(Errno::EIO),
            other => return other.map(drop),
        }
    }
}

/// Reads to the end. A short read is not the end of a cgroup.procs of thousands.
pub(super) fn read_all(file: &OwnedFd) -> Result<String, Errno> {
    let mut bytes = vec![0; 4096];
    let mut len = 0;
    loop {
        if len == bytes.len() {
            bytes.resize(len * 4, 0);
        }
        match nix::unistd::read(file, &mut bytes[len..]) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    bytes.truncate(len);
    String::from_utf8(bytes).map_err(|_| Errno::EILSEQ)
}

fn io_errno(error: std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_never_reached_through_a_link_or_upwards() {
        let tmp = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(tmp.path().join("a/b")).unwrap();
        std::os::unix::fs::symlink("/", tmp.path().join("out")).unwrap();
        let top = Dir::open(tmp.path()).unwrap();
        assert!(top.sub(Path::new("a/b")).is_ok());
        for bad in ["out", "out/proc", "a/../a"] {
            let by_steps = top.sub_by_steps(Path::new(bad)).map(drop);
            assert!(by_steps.is_err(), "{bad}");
        }
        assert!(top.sub(Path::new("out")).is_err());
        assert_eq!(top.sub(Path::new("a/../../x")).map(drop), Err(Errno::EXDEV));
    }

    #[test]
    fn a_tree_deeper_than_the_fd_limit_is_walked_and_removed() {
        let tmp = tempfile::tempdir_in("/dev/shm").unwrap();
        let top = Dir::open(tmp.path()).unwrap();
        let mut at = top.sub(Path::new("")).unwrap();
        for _ in 0..3000 {
            Name::below(&at, c"d").mkdir().unwrap();
            at = at.step(c"d").unwrap();
        }
        let (mut entered, mut left) = (0, 0);
        walk(&top, |step| {
            match step {
                Step::Enter(_) => entered += 1,
                Step::Leave(parent, name) => {
                    left += 1;
                    Name::below(parent, name).rmdir().unwrap();
                }
            }
            Ok(())
        })
        .unwrap();
        assert_eq!((entered, left), (3001, 3000));
        assert!(top.children().unwrap().is_empty());
    }
}
