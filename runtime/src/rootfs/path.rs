//! Paths inside the container's root file system, as fds.
//!
//! Promise: no name is ever looked up, created or followed outside the root. `openat2(2)` with
//! `RESOLVE_IN_ROOT` treats the root as `/`, for absolute symbolic links and `..` too, and refuses
//! magic links; what is missing is created one component at a time on fds that we hold
//! (CVE-2024-45310: `mkdir -p` and `O_CREAT` on a path follow a link swapped in by another container
//! that shares the volume).
//!
//! A dangling symbolic link in a destination is followed inside the root and what it names is made:
//! images have such links.

use std::collections::VecDeque;
use std::ffi::{CString, OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, mkdirat, mknodat};

use crate::sys::fs::{openat2, resolve};

/// What a mount needs to stand on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// A directory, created with 0755.
    Dir,
    /// Anything else, created as an empty file with 0644.
    File,
}

/// Symbolic links in one path before we say `ELOOP`, the kernel's own limit.
const MAX_LINKS: usize = 40;
/// Times that `openat2` may say `EAGAIN`: a rename anywhere on the system raced a `..`.
const MAX_RACES: usize = 256;

/// The file's type bits.
pub fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode & libc::S_IFMT)
}

/// Whether the fd is a directory.
///
/// # Errors
/// The errno of `fstat(2)`.
pub fn is_dir(fd: impl AsFd) -> Result<bool, Errno> {
    Ok(kind(&fstat(fd)?) == SFlag::S_IFDIR)
}

/// A path for the kernel.
///
/// # Errors
/// `EINVAL` when it holds a NUL.
pub fn c_path(path: &Path) -> Result<CString, Errno> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)
}

/// The path without `.`, `..`, doubled and leading slashes, as text: `..` at the top stays there.
pub fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

/// `openat2` below `root`, which is `/` to it.
///
/// # Errors
/// The errno of the call; `ELOOP` for a magic link.
pub fn open(root: impl AsFd, path: &Path, flags: i32) -> Result<OwnedFd, Errno> {
    resolve(root.as_fd(), path, flags, resolve::IN_ROOT | resolve::NO_MAGICLINKS)
}

/// As [`open`], for a path whose every component has to be what it says and no link.
///
/// # Errors
/// The errno of the call; `ELOOP` for any link.
pub fn open_plain(root: impl AsFd, path: &Path, flags: i32) -> Result<OwnedFd, Errno> {
    resolve(root.as_fd(), path, flags, resolve::IN_ROOT | resolve::NO_SYMLINKS)
}

/// Opens a file of a file system that is trusted, below `dir`: no link, nothing mounted over any part
/// of the way. For the host's procfs.
///
/// # Errors
/// The errno of the call; `EXDEV` when something is mounted there, `ELOOP` for a link.
pub fn open_beneath(dir: impl AsFd, path: &Path, flags: i32) -> Result<OwnedFd, Errno> {
    let dir = dir.as_fd();
    let how = resolve::BENEATH | resolve::NO_SYMLINKS | resolve::NO_XDEV;
    match openat2(dir, &c_path(path)?, flags, 0, how) {
        Err(Errno::ENOSYS | Errno::EPERM | Errno::EINVAL) => {
            let found = Walk { root: dir, links: 0, create: None }.open(path, flags)?;
            if fstat(&found)?.st_dev != fstat(dir)?.st_dev {
                return Err(Errno::EXDEV);
            }
            Ok(found)
        }
        other => other,
    }
}

fn resolve(root: BorrowedFd<'_>, path: &Path, flags: i32, how: u64) -> Result<OwnedFd, Errno> {
    let name = c_path(if path.as_os_str().is_empty() { Path::new(".") } else { path })?;
    for _ in 0..MAX_RACES {
        match openat2(root, &name, flags, 0, how) {
            Err(Errno::EAGAIN) => {}
            // Missing before Linux 5.6, or hidden by a sandbox around us that predates it.
            Err(Errno::ENOSYS | Errno::EPERM | Errno::EINVAL) => {
                let links = if how & resolve::NO_SYMLINKS == 0 { MAX_LINKS } else { 0 };
                return Walk { root, links, create: None }.open(path, flags);
            }
            other => return other,
        }
    }
    Err(Errno::EAGAIN)
}

/// The directory above, on disk or through a mount.
///
/// # Errors
/// The errno of the call.
pub fn parent(dir: &OwnedFd) -> Result<OwnedFd, Errno> {
    openat(dir, "..", O_STEP | OFlag::O_DIRECTORY, Mode::empty())
}

/// A path of the host, which is trusted, with `O_PATH`.
///
/// # Errors
/// The errno of the call.
pub fn open_host(path: &Path) -> Result<OwnedFd, Errno> {
    nix::fcntl::open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
}

/// Something below the root, opened with `O_PATH`.
#[derive(Debug)]
pub struct Found {
    /// It.
    pub fd: OwnedFd,
    /// What it is.
    pub stat: FileStat,
    /// It was there before.
    pub existed: bool,
}

/// Opens `path` below `root`, creating what is missing.
///
/// # Errors
/// `ENOTDIR` or `EISDIR` when something of the wrong kind is there.
pub fn find_or_create(root: impl AsFd, path: &Path, want: Want) -> Result<Found, Errno> {
    let (fd, existed) = match open(root.as_fd(), path, libc::O_PATH) {
        Err(Errno::ENOENT) => {
            let mut walk = Walk { root: root.as_fd(), links: MAX_LINKS, create: Some(want) };
            (walk.run(path)?, false)
        }
        found => (found?, true),
    };
    let stat = fstat(&fd)?;
    match (want, kind(&stat) == SFlag::S_IFDIR) {
        (Want::Dir, false) => Err(Errno::ENOTDIR),
        (Want::File, true) => Err(Errno::EISDIR),
        _ => Ok(Found { fd, stat, existed }),
    }
}

/// [`find_or_create`] for when only the fd matters.
///
/// # Errors
/// As [`find_or_create`].
pub fn open_or_create(root: impl AsFd, path: &Path, want: Want) -> Result<OwnedFd, Errno> {
    find_or_create(root, path, want).map(|found| found.fd)
}

/// As [`open_or_create`] for a directory that is not reached through any link: what `/proc` and
/// `/sys` have to be (CVE-2019-19921, CVE-2023-27561).
///
/// # Errors
/// `ELOOP` for a link, `ENOTDIR`.
pub fn open_or_create_plain(root: impl AsFd, path: &Path) -> Result<OwnedFd, Errno> {
    match open_plain(root.as_fd(), path, libc::O_PATH | libc::O_DIRECTORY) {
        Err(Errno::ENOENT) => {
            Walk { root: root.as_fd(), links: 0, create: Some(Want::Dir) }.run(path)
        }
        other => other,
    }
}

/// A path resolved by hand, one component and one fd at a time.
struct Walk<'fd> {
    root: BorrowedFd<'fd>,
    /// Symbolic links that may still be followed.
    links: usize,
    /// Create what is missing, the last component as this.
    create: Option<Want>,
}

impl Walk<'_> {
    /// With `O_PATH`, links followed.
    fn run(&mut self, path: &Path) -> Result<OwnedFd, Errno> {
        self.open(path, libc::O_PATH)
    }

    fn open(&mut self, path: &Path, flags: i32) -> Result<OwnedFd, Errno> {
        let flags = OFlag::from_bits_retain(flags) | OFlag::O_CLOEXEC;
        let mut todo: VecDeque<OsString> = names(path.as_os_str()).collect();
        // The directories from the root to where we stand: `..` goes back, never up on disk.
        let mut stack: Vec<(OwnedFd, OsString)> = Vec::new();
        while let Some(name) = todo.pop_front() {
            if name == ".." {
                stack.pop();
                continue;
            }
            let here = stack.last().map_or(self.root, |(fd, _)| fd.as_fd());
            let found = self.step(here, &name, todo.is_empty())?;
            let last_itself = todo.is_empty() && flags.contains(OFlag::O_NOFOLLOW);
            if kind(&fstat(&found)?) != SFlag::S_IFLNK || last_itself {
                stack.push((found, name));
                continue;
            }
            self.links = self.links.checked_sub(1).ok_or(Errno::ELOOP)?;
            let target = readlinkat(&found, "")?;
            if target.as_bytes().first() == Some(&b'/') {
                stack.clear();
            }
            for name in names(&target).collect::<Vec<_>>().into_iter().rev() {
                todo.push_front(name);
            }
        }
        let Some((found, name)) = stack.pop() else {
            return openat(self.root, ".", flags, Mode::empty());
        };
        let here = stack.last().map_or(self.root, |(fd, _)| fd.as_fd());
        if !flags.contains(OFlag::O_PATH) {
            return openat(here, name.as_os_str(), flags | OFlag::O_NOFOLLOW, Mode::empty());
        }
        if flags.contains(OFlag::O_DIRECTORY) && !is_dir(&found)? {
            return Err(Errno::ENOTDIR);
        }
        Ok(found)
    }

    /// One component below `here`, a link itself and not what it names.
    fn step(&self, here: BorrowedFd<'_>, name: &OsStr, last: bool) -> Result<OwnedFd, Errno> {
        match (openat(here, name, O_STEP, Mode::empty()), self.create) {
            (Err(Errno::ENOENT), Some(want)) => {
                let made = if last && want == Want::File {
                    mknodat(here, name, SFlag::S_IFREG, Mode::from_bits_truncate(0o644), 0)
                } else {
                    mkdirat(here, name, Mode::from_bits_truncate(0o755))
                };
                match made {
                    // Somebody else made it first; whatever it is, it is looked at below.
                    Ok(()) | Err(Errno::EEXIST) => openat(here, name, O_STEP, Mode::empty()),
                    Err(errno) => Err(errno),
                }
            }
            (found, _) => found,
        }
    }
}

/// How a component is opened: itself, even if it is a link.
const O_STEP: OFlag = OFlag::O_PATH.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// The components, `..` among them, `.` and empty ones not.
fn names(path: &OsStr) -> impl Iterator<Item = OsString> {
    path.as_bytes()
        .split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty() && *name != b".")
        .map(|name| OsStr::from_bytes(name).to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::symlink;

    use super::*;

    struct Dirs {
        _top: tempfile::TempDir,
        root: PathBuf,
        outside: PathBuf,
        fd: File,
    }

    fn dirs() -> Dirs {
        let top = tempfile::tempdir().unwrap();
        let (root, outside) = (top.path().join("root"), top.path().join("outside"));
        fs::create_dir(&root).unwrap();
        fs::create_dir(&outside).unwrap();
        let fd = File::open(&root).unwrap();
        Dirs { _top: top, root, outside, fd }
    }

    fn nothing_outside(dirs: &Dirs) {
        assert_eq!(fs::read_dir(&dirs.outside).unwrap().count(), 0);
    }

    #[test]
    fn text_is_cleaned() {
        for (dirty, wanted) in [
            ("/", ""),
            ("//proc/.", "proc"),
            ("/proc/../etc", "etc"),
            ("../../a//b/", "a/b"),
            ("a/./b/..", "a"),
        ] {
            assert_eq!(clean(Path::new(dirty)), Path::new(wanted), "{dirty}");
        }
    }

    #[test]
    fn missing_directories_and_files_are_made() {
        let dirs = dirs();
        open_or_create(&dirs.fd, Path::new("a/b/c"), Want::Dir).unwrap();
        assert!(dirs.root.join("a/b/c").is_dir());
        open_or_create(&dirs.fd, Path::new("/a/new/file"), Want::File).unwrap();
        assert!(dirs.root.join("a/new/file").is_file());
        let wrong = open_or_create(&dirs.fd, Path::new("a"), Want::File);
        assert_eq!(wrong.unwrap_err(), Errno::EISDIR);
        let wrong = open_or_create(&dirs.fd, Path::new("a/new/file"), Want::Dir);
        assert_eq!(wrong.unwrap_err(), Errno::ENOTDIR);
    }

    /// P3 and P6: links, dangling or not, absolute or not, mean the same as inside the container.
    #[test]
    fn links_stay_inside() {
        let dirs = dirs();
        symlink(&dirs.outside, dirs.root.join("absolute")).unwrap();
        symlink("../../../../outside", dirs.root.join("relative")).unwrap();
        symlink("/dangling/x", dirs.root.join("link")).unwrap();
        open_or_create(&dirs.fd, Path::new("absolute/f"), Want::File).unwrap();
        open_or_create(&dirs.fd, Path::new("relative/d"), Want::Dir).unwrap();
        open_or_create(&dirs.fd, Path::new("link"), Want::Dir).unwrap();
        open_or_create(&dirs.fd, Path::new("link/deeper/f"), Want::File).unwrap();
        nothing_outside(&dirs);
        assert!(dirs.root.join(dirs.outside.strip_prefix("/").unwrap()).join("f").is_file());
        assert!(dirs.root.join("outside/d").is_dir());
        assert!(dirs.root.join("dangling/x/deeper/f").is_file());
    }

    #[test]
    fn loops_end() {
        let dirs = dirs();
        symlink("b", dirs.root.join("a")).unwrap();
        symlink("a", dirs.root.join("b")).unwrap();
        assert_eq!(
            open_or_create(&dirs.fd, Path::new("a/x"), Want::Dir).unwrap_err(),
            Errno::ELOOP
        );
        let mut walk = Walk { root: dirs.fd.as_fd(), links: MAX_LINKS, create: None };
        assert_eq!(walk.run(Path::new("a")).unwrap_err(), Errno::ELOOP);
    }

    #[test]
    fn plain_means_no_link_anywhere() {
        let dirs = dirs();
        symlink("bad", dirs.root.join("proc")).unwrap();
        fs::create_dir(dirs.root.join("bad")).unwrap();
        let refused = open_or_create_plain(&dirs.fd, Path::new("proc")).unwrap_err();
        assert_eq!(refused, Errno::ELOOP);
        assert!(open_or_create_plain(&dirs.fd, Path::new("x/proc")).is_ok());
        assert!(dirs.root.join("x/proc").is_dir());
    }

    #[test]
    fn beneath_is_beneath() {
        let dirs = dirs();
        fs::create_dir(dirs.root.join("d")).unwrap();
        fs::write(dirs.root.join("d/f"), "x").unwrap();
        symlink("f", dirs.root.join("d/l")).unwrap();
        assert!(open_beneath(&dirs.fd, Path::new("d/f"), libc::O_RDWR).is_ok());
        let refused =
            |path: &str| open_beneath(&dirs.fd, Path::new(path), libc::O_RDWR).unwrap_err();
        assert_eq!(refused("d/l"), Errno::ELOOP);
        assert_eq!(refused("../outside"), Errno::EXDEV);
        assert_eq!(refused("/d/f"), Errno::EXDEV);
    }

    /// The walk by hand and openat2 agree.
    #[test]
    fn the_walk_resolves_as_the_kernel_does() {
        let dirs = dirs();
        fs::create_dir_all(dirs.root.join("a/b")).unwrap();
        fs::write(dirs.root.join("a/b/f"), "x").unwrap();
        symlink("/a", dirs.root.join("l")).unwrap();
        symlink("../b/../b", dirs.root.join("a/m")).unwrap();
        for path in ["a/b/f", "l/b/f", "l/m/f", "../../a/m/../b/f", "l/m", "/", "none/x", "a/b/f/g"]
        {
            let mut walk = Walk { root: dirs.fd.as_fd(), links: MAX_LINKS, create: None };
            let by_hand = walk.run(Path::new(path)).map(|fd| fstat(fd).unwrap().st_ino);
            let by_kernel =
                open(&dirs.fd, Path::new(path), libc::O_PATH).map(|fd| fstat(fd).unwrap().st_ino);
            assert_eq!(by_hand, by_kernel, "{path}");
            for flags in
                [libc::O_RDONLY, libc::O_PATH | libc::O_NOFOLLOW, libc::O_PATH | libc::O_DIRECTORY]
            {
                let mut walk = Walk { root: dirs.fd.as_fd(), links: MAX_LINKS, create: None };
                let by_hand = walk.open(Path::new(path), flags).map(|fd| fstat(fd).unwrap().st_ino);
                let by_kernel =
                    open(&dirs.fd, Path::new(path), flags).map(|fd| fstat(fd).unwrap().st_ino);
                assert_eq!(by_hand, by_kernel, "{path} {flags:#x}");
            }
        }
    }
}
