//! The state directory: `<root>/<id>/` holds `state.json` (the journal), `config.json` (the
//! config as it was at create) and `gate` (the socket that `start` knocks on).
//!
//! A container is claimed by `mkdir`, so one of many creators wins. Whoever changes a container
//! holds a `flock` on its directory, which the kernel drops when the holder dies; readers need no
//! lock, because the journal is only ever replaced whole. The directory is removed last.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, Flock, FlockArg, OFlag, open, openat, renameat};
use nix::sys::stat::{Mode, fstat, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, close, unlinkat};

use crate::error::{Doing, Error, Result};
use crate::state::{FORMAT, State};

const JOURNAL: &str = "state.json";
/// What is to replace one of the files.
const NEW: &str = ".new";
const CONFIG: &str = "config.json";
/// How long others may hold the lock of a directory that was just made: they find nothing in it.
const CLAIM: Duration = Duration::from_secs(5);
/// The gate's socket in a container's directory.
pub const GATE: &str = "gate";

/// The directory with one directory per container.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    sticky: bool,
}

/// One container's directory, open.
#[derive(Debug)]
pub struct Dir {
    /// The container's id.
    pub id: String,
    path: PathBuf,
    fd: OwnedFd,
}

/// The exclusive right to change a container, until dropped.
#[derive(Debug)]
pub struct Lock(Flock<OwnedFd>);

impl Lock {
    /// In a process that was cloned from the holder and never returns: closes its copy of the
    /// descriptor, which would keep the lock for as long as that process lives, should the holder
    /// be killed. The lock stays the holder's.
    pub fn close_in_child(&self) {
        // Linux closes the descriptor whatever close(2) says.
        let _closed = close(self.0.as_raw_fd());
    }
}

const DIRECTORY: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC).union(OFlag::O_NOFOLLOW);

impl Store {
    /// The store at `root`, which need not exist yet; `sticky` gives it the sticky bit when it is
    /// made, which tells cleaners of `XDG_RUNTIME_DIR` to leave it alone.
    pub fn new(root: impl Into<PathBuf>, sticky: bool) -> Self {
        Self { root: root.into(), sticky }
    }

    /// Claims `id`, which becomes the caller's: nobody else has it, and the lock is held.
    ///
    /// Between the mkdir and the lock the directory is anybody's: another command may hold the lock
    /// for a moment, or `delete --force` may take the directory away; then it is made again.
    ///
    /// # Errors
    /// [`Error::Exists`] when the id is taken.
    pub fn claim(&self, id: &str) -> Result<(Dir, Lock)> {
        let path = self.root.join(id);
        loop {
            match mkdirat(AT_FDCWD, &path, Mode::S_IRWXU) {
                Err(Errno::ENOENT) => {
                    self.make_root()?;
                    continue;
                }
                Err(Errno::EEXIST) => return Err(Error::Exists(id.to_owned())),
                other => other.doing(|| format!("mkdir {}", path.display()))?,
            }
            match self.open(id).and_then(|dir| Ok((dir.lock(CLAIM)?, dir))) {
                Ok((lock, dir)) => return Ok((dir, lock)),
                Err(Error::NotFound(_)) => {}
                Err(error) => {
                    // Empty, so nobody's yet; whatever somebody put there makes this fail.
                    if let Err(left) = unlinkat(AT_FDCWD, &path, UnlinkatFlags::RemoveDir) {
                        tracing::warn!("undo: remove {}: {}", path.display(), left.desc());
                    }
                    return Err(error);
                }
            }
        }
    }

    /// Opens the directory of container `id`.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn open(&self, id: &str) -> Result<Dir> {
        let path = self.root.join(id);
        let fd = open(&path, DIRECTORY, Mode::empty()).map_err(|errno| match errno {
            Errno::ENOENT | Errno::ENOTDIR => Error::NotFound(id.to_owned()),
            errno => Error::sys(format!("open {}", path.display()), errno),
        })?;
        Ok(Dir { id: id.to_owned(), path, fd })
    }

    /// The ids in the store, sorted; none when it does not exist.
    ///
    /// # Errors
    /// When the directory can't be read.
    pub fn ids(&self) -> Result<Vec<String>> {
        let entries = match std::fs::read_dir(&self.root) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.doing(|| format!("read {}", self.root.display()))?,
        };
        let mut ids = Vec::new();
        for entry in entries {
            let entry = entry.doing(|| format!("read {}", self.root.display()))?;
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                ids.extend(entry.file_name().into_string());
            }
        }
        ids.sort();
        Ok(ids)
    }

    /// 0700: an id, a bundle path and a gate are nobody else's business.
    fn make_root(&self) -> Result<()> {
        let root = &self.root;
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(root)
            .doing(|| format!("mkdir {}", root.display()))?;
        if self.sticky {
            std::fs::set_permissions(root, std::fs::Permissions::from_mode(0o1700))
                .doing(|| format!("chmod {}", root.display()))?;
        }
        Ok(())
    }

    /// The store's directory.
    pub fn root(&self) -> &Path {
        &self.root
    }
}

impl Dir {
    /// Where the directory is, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits at most `patience` for the exclusive right to change this container.
    ///
    /// # Errors
    /// [`Error::NotFound`] when it was deleted meanwhile; [`Error::Status`] when another command
    /// holds on for longer.
    pub fn lock(&self, patience: Duration) -> Result<Lock> {
        let deadline = Instant::now() + patience;
        let mut fd = openat(&self.fd, ".", DIRECTORY, Mode::empty())
            .doing(|| format!("open {}", self.path.display()))?;
        loop {
            match Flock::lock(fd, FlockArg::LockExclusiveNonblock) {
                Ok(lock) if self.is_linked() => return Ok(Lock(lock)),
                Ok(_) => return Err(Error::NotFound(self.id.clone())),
                Err((_, Errno::EWOULDBLOCK)) if Instant::now() >= deadline => {
                    return Err(Error::Status(format!(
                        "another command is changing container {} (waited {} s)",
                        self.id,
                        patience.as_secs()
                    )));
                }
                Err((back, Errno::EWOULDBLOCK | Errno::EINTR)) => {
                    fd = back;
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err((_, errno)) => {
                    return Err(errno).doing(|| format!("lock {}", self.path.display()));
                }
            }
        }
    }

    /// Whether the path still leads to this directory.
    fn is_linked(&self) -> bool {
        let ours = fstat(&self.fd);
        let there = fstatat(AT_FDCWD, &self.path, AtFlags::AT_SYMLINK_NOFOLLOW);
        matches!((ours, there), (Ok(a), Ok(b)) if a.st_dev == b.st_dev && a.st_ino == b.st_ino)
    }

    /// Replaces the journal, atomically.
    ///
    /// # Errors
    /// `ENOSPC`, `EROFS`; the old journal is then still there.
    pub fn write_state(&self, state: &State) -> Result<()> {
        let bytes = serde_json::to_vec(state)
            .map_err(|error| Error::Failed(format!("write {JOURNAL}: {error}")))?;
        self.replace(JOURNAL, &bytes)
    }

    /// Replaces the container's copy of its config, atomically.
    ///
    /// # Errors
    /// `ENOSPC`, `EROFS`; the old copy is then still there.
    pub fn replace_config(&self, bytes: &[u8]) -> Result<()> {
        self.replace(CONFIG, bytes)
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let doing = || format!("write {}", self.path.join(name).display());
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC | OFlag::O_CLOEXEC;
        let file = openat(&self.fd, NEW, flags, Mode::S_IRUSR | Mode::S_IWUSR).doing(doing)?;
        File::from(file).write_all(bytes).doing(doing)?;
        renameat(&self.fd, NEW, &self.fd, name).doing(doing)
    }

    /// Reads the journal.
    ///
    /// # Errors
    /// When there is none, or it is not understood.
    pub fn read_state(&self) -> Result<State> {
        let bytes = self.read(JOURNAL)?;
        let state: State = serde_json::from_slice(&bytes).map_err(|error| {
            Error::Failed(format!("read {}: {error}", self.path.join(JOURNAL).display()))
        })?;
        if state.format != FORMAT || state.id != self.id {
            return Err(Error::Failed(format!(
                "read {}: format {} of container {:?} is not understood",
                self.path.join(JOURNAL).display(),
                state.format,
                state.id
            )));
        }
        Ok(state)
    }

    /// Keeps the config as it is now: later edits in the bundle change nothing (runtime.md).
    ///
    /// # Errors
    /// `ENOSPC`, `EROFS`.
    pub fn write_config(&self, bytes: &[u8]) -> Result<()> {
        let doing = || format!("write {}", self.path.join(CONFIG).display());
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        let file = openat(&self.fd, CONFIG, flags, Mode::S_IRUSR | Mode::S_IWUSR).doing(doing)?;
        File::from(file).write_all(bytes).doing(doing)
    }

    /// The config as it was at create.
    ///
    /// # Errors
    /// When it is not there.
    pub fn read_config(&self) -> Result<Vec<u8>> {
        self.read(CONFIG)
    }

    fn read(&self, name: &str) -> Result<Vec<u8>> {
        let doing = || format!("read {}", self.path.join(name).display());
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        let file = openat(&self.fd, name, flags, Mode::empty()).doing(doing)?;
        let mut bytes = Vec::new();
        File::from(file).read_to_end(&mut bytes).doing(doing)?;
        Ok(bytes)
    }

    /// Removes a file; one that is not there is fine.
    ///
    /// # Errors
    /// `EROFS`, `EPERM`.
    pub fn remove_file(&self, name: &str) -> Result<()> {
        match unlinkat(&self.fd, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(errno).doing(|| format!("remove {}", self.path.join(name).display())),
        }
    }

    /// Removes the directory with everything in it, the journal last.
    ///
    /// # Errors
    /// When something in it resists.
    pub fn remove(&self) -> Result<()> {
        let doing = || format!("remove {}", self.path.display());
        for entry in std::fs::read_dir(format!("/proc/self/fd/{}", self.fd.as_raw_fd()))
            .doing(doing)?
            .flatten()
        {
            let name = entry.file_name();
            if name == OsStr::new(JOURNAL) {
                continue;
            }
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                std::fs::remove_dir_all(entry.path()).doing(doing)?;
            } else {
                unlinkat(&self.fd, name.as_os_str(), UnlinkatFlags::NoRemoveDir).doing(doing)?;
            }
        }
        self.remove_file(JOURNAL)?;
        match unlinkat(AT_FDCWD, &self.path, UnlinkatFlags::RemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(errno).doing(doing),
        }
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
