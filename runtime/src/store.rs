//! The state directory: `<root>/<id>/` holds `state.json` (the journal), `config.json` (the
//! config as it was at create) and `gate` (the socket that `start` knocks on).
//!
//! A container is claimed by `mkdir`, so one of many creators wins. Whoever changes a container
//! holds a `flock` on its directory, which the kernel drops when the holder dies; readers need no
//! lock, because the journal is only ever replaced whole, and its last line is a checksum of the
//! rest. The directory is removed last.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, open, openat, renameat};
use nix::sys::stat::{Mode, SFlag, fstat, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, close, unlinkat};

use crate::error::{Doing, Error, Result};
use crate::state::{FORMAT, State};
use crate::sys::fs::{try_lock, unlock};

const JOURNAL: &str = "state.json";
/// How long the journal's last line is: a new line, 16 digits, a new line.
const SUM: usize = 18;
/// What is to replace one of the files.
const NEW: &str = ".new";
const CONFIG: &str = "config.json";
/// How long others may hold the lock of a directory that was just made: they find nothing in it.
const CLAIM: Duration = Duration::from_secs(5);
/// The gate's socket in a container's directory.
pub const GATE: &str = "gate";
/// How long a directory may be without its journal before that is no moment of a command any more.
const MOMENT: Duration = Duration::from_millis(50);

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
pub struct Lock(OwnedFd);

impl Lock {
    /// In a process that was cloned from the holder and never returns: closes its copy of the
    /// descriptor, which would keep the lock for as long as that process lives, should the holder
    /// be killed. The lock stays the holder's.
    pub fn close_in_child(&self) {
        // Linux closes the descriptor whatever close(2) says.
        let _closed = close(self.0.as_raw_fd());
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing would not do while a process that inherited the open file lives. A failure is
        // nothing to panic over: the kernel takes the lock back when this process ends.
        if let Err(errno) = unlock(&self.0) {
            tracing::debug!("unlock: {}", errno.desc());
        }
    }
}

/// What stands before the last line, if that is its checksum.
fn intact(bytes: &[u8]) -> Option<&[u8]> {
    let (json, sum) = bytes.split_at_checked(bytes.len().checked_sub(SUM)?)?;
    (sum == format!("\n{:016x}\n", checksum(json)).as_bytes()).then_some(json)
}

/// FNV-1a of 64 bits: against half a file and turned bits, not against anybody.
fn checksum(bytes: &[u8]) -> u64 {
    let step = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
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
        // Like its parents the root itself may be a link.
        let flags = DIRECTORY - OFlag::O_NOFOLLOW;
        let entries = match open(&self.root, flags, Mode::empty()).and_then(entries) {
            Err(Errno::ENOENT) => return Ok(Vec::new()),
            other => other.doing(|| format!("read {}", self.root.display()))?,
        };
        let directories = entries.into_iter().filter(|(_, is_directory)| *is_directory);
        let mut ids: Vec<String> =
            directories.filter_map(|(name, _)| name.into_string().ok()).collect();
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
        let fd = openat(&self.fd, ".", DIRECTORY, Mode::empty())
            .doing(|| format!("open {}", self.path.display()))?;
        loop {
            match try_lock(&fd) {
                Ok(()) => {
                    let lock = Lock(fd);
                    return if self.is_linked()? {
                        Ok(lock)
                    } else {
                        Err(Error::NotFound(self.id.clone()))
                    };
                }
                Err(Errno::EWOULDBLOCK) if Instant::now() >= deadline => {
                    return Err(Error::Status(format!(
                        "another command is changing container {} (waited {} s)",
                        self.id,
                        patience.as_secs()
                    )));
                }
                Err(Errno::EWOULDBLOCK | Errno::EINTR) => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(errno) => return Err(errno).doing(|| format!("lock {}", self.path.display())),
            }
        }
    }

    /// Whether the path still leads to this directory. Not to know is no answer: a claim that took
    /// it for "deleted" would make the directory again and find its own.
    fn is_linked(&self) -> Result<bool> {
        let doing = || format!("stat {}", self.path.display());
        let ours = fstat(&self.fd).doing(doing)?;
        match fstatat(AT_FDCWD, &self.path, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(there) => Ok(ours.st_dev == there.st_dev && ours.st_ino == there.st_ino),
            Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(false),
            Err(errno) => Err(errno).doing(doing),
        }
    }

    /// Replaces the journal, atomically.
    ///
    /// # Errors
    /// `ENOSPC`, `EROFS`; the old journal is then still there.
    pub fn write_state(&self, state: &State) -> Result<()> {
        let mut bytes = serde_json::to_vec(state)
            .map_err(|error| Error::Failed(format!("write {JOURNAL}: {error}")))?;
        bytes.extend(format!("\n{:016x}\n", checksum(&bytes)).into_bytes());
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

    /// Reads the journal. One with another checksum is not believed: its groups would be killed,
    /// and whose they are is not known any more.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the container was deleted meanwhile; when there is no journal, or it
    /// is not what we wrote, or not understood.
    pub fn read_state(&self) -> Result<State> {
        let bytes = self.read_journal()?;
        let damaged =
            |why: &str| Error::Failed(format!("read {}: {why}", self.path.join(JOURNAL).display()));
        let json = intact(&bytes).ok_or_else(|| damaged("damaged: the checksum is not its own"))?;
        let state: State =
            serde_json::from_slice(json).map_err(|error| damaged(&error.to_string()))?;
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

    /// A create that has just begun has no journal yet, a delete in its last step none any more: what
    /// they do next tells. One that was killed there does nothing next.
    fn read_journal(&self) -> Result<Vec<u8>> {
        let end = Instant::now() + MOMENT;
        loop {
            match self.read(JOURNAL) {
                Err(error) if error.errno() == Some(Errno::ENOENT) => {
                    if !self.is_linked()? {
                        return Err(Error::NotFound(self.id.clone()));
                    }
                    if Instant::now() >= end {
                        return Err(error);
                    }
                }
                other => return other,
            }
            std::thread::sleep(Duration::from_millis(1));
        }
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
        match openat(&self.fd, ".", DIRECTORY, Mode::empty()).and_then(entries) {
            Ok(entries) => entries
                .iter()
                .try_for_each(|(name, is_directory)| self.remove_entry(name, *is_directory))?,
            // No descriptor is left to look with, and what we make has known names.
            Err(Errno::EMFILE | Errno::ENFILE) => {
                [NEW, CONFIG, GATE].iter().try_for_each(|name| self.remove_file(name))?;
            }
            Err(errno) => return Err(errno).doing(doing),
        }
        self.remove_file(JOURNAL)?;
        match unlinkat(AT_FDCWD, &self.path, UnlinkatFlags::RemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(errno).doing(doing),
        }
    }

    fn remove_entry(&self, name: &OsStr, is_directory: bool) -> Result<()> {
        let doing = || format!("remove {}", self.path.display());
        if is_directory {
            let here = PathBuf::from(format!("/proc/self/fd/{}", self.fd.as_raw_fd()));
            return std::fs::remove_dir_all(here.join(name)).doing(doing);
        }
        if name == OsStr::new(JOURNAL) {
            return Ok(());
        }
        unlinkat(&self.fd, name, UnlinkatFlags::NoRemoveDir).doing(doing)
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The names in a directory, and which of them are directories. Not with std's `ReadDir`, which panics
/// when closing fails.
fn entries(directory: OwnedFd) -> Result<Vec<(OsString, bool)>, Errno> {
    let mut directory = nix::dir::Dir::from_fd(directory)?;
    let listed: Vec<_> = directory.iter().collect::<Result<_, Errno>>()?;
    let mut entries = Vec::with_capacity(listed.len());
    for entry in listed.iter().filter(|entry| ![c".", c".."].contains(&entry.file_name())) {
        let is_directory = match entry.file_type() {
            Some(kind) => kind == nix::dir::Type::Directory,
            // A file system that does not say; one that is gone is none.
            None => fstatat(&directory, entry.file_name(), AtFlags::AT_SYMLINK_NOFOLLOW)
                .is_ok_and(|stat| SFlag::S_IFMT.bits() & stat.st_mode == SFlag::S_IFDIR.bits()),
        };
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        entries.push((name.to_owned(), is_directory));
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_is_believed_only_as_it_was_written() {
        let json = br#"{"format":2,"id":"a"}"#;
        let mut bytes = [&json[..], format!("\n{:016x}\n", checksum(json)).as_bytes()].concat();
        assert_eq!(intact(&bytes), Some(&json[..]));
        for length in 0..bytes.len() {
            assert_eq!(intact(&bytes[..length]), None, "cut at {length}");
        }
        for at in 0..bytes.len() {
            for bit in 0..8 {
                bytes[at] ^= 1 << bit;
                assert_eq!(intact(&bytes), None, "bit {bit} of byte {at}");
                bytes[at] ^= 1 << bit;
            }
        }
    }

    #[test]
    fn a_directory_with_anything_in_it_is_removed() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::new(root.path(), false);
        let (dir, _lock) = store.claim("a").unwrap();
        std::fs::create_dir_all(dir.path().join(JOURNAL).join("below")).unwrap();
        std::fs::write(dir.path().join("other"), "x").unwrap();
        dir.remove().unwrap();
        assert!(matches!(store.open("a"), Err(Error::NotFound(_))));
    }

    #[test]
    fn the_checksum_is_fnv_1a() {
        assert_eq!(checksum(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(checksum(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn a_lock_is_given_back_also_while_a_copy_of_its_descriptor_lives() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::new(root.path(), false);
        let (dir, lock) = store.claim("a").unwrap();
        let copy = lock.0.try_clone().unwrap();
        assert!(matches!(dir.lock(Duration::ZERO), Err(Error::Status(_))));
        drop(lock);
        dir.lock(Duration::ZERO).unwrap();
        drop(copy);
    }
}
