//! The shim's socket: its name, which one of many starters gets it, and its end.
//!
//! The name is Go's: sha256 of containerd's socket, the namespace and the group's id, so that
//! operators' tools find it and every container of a pod finds the pod's daemon. Whoever looks at a
//! socket in order to remove it, or makes one, holds a `flock` on the directory: so a starter never
//! removes a socket that another one has made meanwhile, and of many starters one makes the daemon
//! and the others are told its address.
//!
//! Threat: the path is guessable. The socket is 0600 from before it has a name, and one that is not
//! ours is refused, since a task's config and output would go to whoever listens there.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use corten::error::{Doing, Error, Result};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag, open};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, getsockname, listen,
    socket,
};
use nix::sys::stat::{Mode, fchmod, fstat};
use nix::unistd::geteuid;
use sha2::{Digest, Sha256};

/// Where the sockets of all shims are, unless containerd says otherwise.
pub const DIR: &str = "/run/containerd/s";
/// The longest path that containerd's shims use; `sun_path` has 108 bytes.
const PATH_MAX: usize = 106;
/// How long others may hold the directory, which they do for a moment.
const PATIENCE: Duration = Duration::from_secs(10);
/// What the address of a socket begins with.
const SCHEME: &str = "unix://";

/// The path of a group's socket: Go's `filepath.Join` of the three, hashed.
pub fn path(dir: &Path, grpc_address: &str, namespace: &str, group: &str) -> PathBuf {
    let parts: Vec<&str> =
        [grpc_address, namespace, group].into_iter().filter(|part| !part.is_empty()).collect();
    let hash = Sha256::digest(clean(&parts.join("/")).as_os_str().as_bytes());
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    dir.join(hex)
}

/// The address of a socket, as containerd dials it.
pub fn address(path: &Path) -> String {
    format!("{SCHEME}{}", path.display())
}

/// The path in an address of ours.
pub fn path_of(address: &str) -> Option<&Path> {
    address.trim().strip_prefix(SCHEME).filter(|path| path.starts_with('/')).map(Path::new)
}

/// Where a listener is bound.
///
/// # Errors
/// When it is no Unix socket.
pub fn path_of_listener(listener: &OwnedFd) -> Result<PathBuf> {
    let name: UnixAddr =
        getsockname(listener.as_raw_fd()).doing(|| "getsockname of the listener".to_owned())?;
    Ok(name.path().map(PathBuf::from).unwrap_or_default())
}

/// Go's `filepath.Clean`: without empty elements, `.` and what `..` takes back.
fn clean(path: &str) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in Path::new(path).components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => match clean.components().next_back() {
                Some(Component::Normal(_)) => drop(clean.pop()),
                Some(Component::RootDir) => {}
                _ => clean.push(".."),
            },
            part => clean.push(part),
        }
    }
    clean
}

/// What became of the wish for a socket.
#[derive(Debug)]
pub enum Claim {
    /// It is ours, and listens.
    Ours(Claimed),
    /// A live daemon has it.
    Taken,
}

/// A socket that goes again, unless it is kept.
#[derive(Debug)]
pub struct Claimed {
    /// Non-blocking.
    pub listener: OwnedFd,
    path: Option<PathBuf>,
}

impl Claimed {
    /// The daemon lives: the socket stays.
    pub fn keep(mut self) {
        self.path = None;
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        if let Some(path) = self.path.take() {
            // The error that led here is on its way, and a dead socket is removed by the next start.
            fs::remove_file(path).unwrap_or_default();
        }
    }
}

/// Makes the socket, unless somebody answers there.
///
/// # Errors
/// A path that is too long; a socket of another user; `EACCES`, `EROFS`.
pub fn claim(path: &Path) -> Result<Claim> {
    check_length(path)?;
    let dir =
        path.parent().ok_or_else(|| Error::Usage(format!("socket {path:?}: no directory")))?;
    let _lock = lock(dir)?;
    // A shim of Go's may come between, for it knows no lock.
    for _ in 0..10 {
        match listen_at(path) {
            Ok(listener) => {
                let path = Some(path.to_owned());
                return Ok(Claim::Ours(Claimed { listener, path }));
            }
            Err(Errno::EADDRINUSE) => {}
            Err(errno) => return Err(errno).doing(|| format!("listen on {}", path.display())),
        }
        if answers(path)? {
            return Ok(Claim::Taken);
        }
        remove(path)?;
    }
    Err(Error::Failed(format!("listen on {}: others make it too", path.display())))
}

/// A socket at a path that an operator chose.
///
/// # Errors
/// `EADDRINUSE`, a path that is too long.
pub fn listen_on(path: &Path) -> Result<OwnedFd> {
    check_length(path)?;
    listen_at(path).doing(|| format!("listen on {}", path.display()))
}

/// Removes a socket behind which nobody listens any more. A daemon that ends closes its listener
/// first. Nothing there is no error.
///
/// # Errors
/// `EACCES`, `EROFS`.
pub fn remove_dead(path: &Path) -> Result<()> {
    let socket = fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    let Some(dir) = path.parent().filter(|_| socket) else { return Ok(()) };
    let _lock = lock(dir)?;
    if answers(path)? { Ok(()) } else { remove(path) }
}

fn check_length(path: &Path) -> Result<()> {
    match path.as_os_str().len() {
        0..=PATH_MAX => Ok(()),
        length => Err(Error::Usage(format!(
            "socket path {} has {length} bytes, at most {PATH_MAX} can be: \
             containerd needs a shorter state directory",
            path.display()
        ))),
    }
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.doing(|| format!("remove the dead socket {}", path.display())),
    }
}

/// Its mode is the socket's own, which the name gets from it: there is no moment in which it is
/// wider.
fn listen_at(path: &Path) -> Result<OwnedFd, Errno> {
    let listener = stream()?;
    fchmod(&listener, Mode::S_IRUSR | Mode::S_IWUSR)?;
    bind(listener.as_raw_fd(), &UnixAddr::new(path)?)?;
    listen(&listener, Backlog::MAXCONN)?;
    Ok(listener)
}

/// Whether somebody listens there: one whose queue is full (`EAGAIN`) does.
///
/// # Errors
/// A socket of another user's.
pub fn answers(path: &Path) -> Result<bool> {
    let doing = || format!("connect to {}", path.display());
    let owner = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        other => other.doing(doing)?.uid(),
    };
    let probe = stream().doing(doing)?;
    let address = UnixAddr::new(path).doing(doing)?;
    match connect(probe.as_raw_fd(), &address) {
        Ok(()) | Err(Errno::EAGAIN) if owner != geteuid().as_raw() => {
            Err(Error::Failed(format!("{}: it belongs to user {owner}", doing())))
        }
        Ok(()) | Err(Errno::EAGAIN) => Ok(true),
        Err(Errno::ECONNREFUSED | Errno::ENOENT) => Ok(false),
        Err(errno) => Err(errno).doing(doing),
    }
}

fn stream() -> Result<OwnedFd, Errno> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    socket(AddressFamily::Unix, SockType::Stream, flags, None)
}

/// The directory, made if it is missing, for ourselves.
fn lock(dir: &Path) -> Result<Flock<OwnedFd>> {
    let doing = || format!("open socket directory {}", dir.display());
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).doing(doing)?;
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut fd = open(dir, flags, Mode::empty()).doing(doing)?;
    tighten(dir, &fd)?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        fd = match Flock::lock(fd, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((back, Errno::EWOULDBLOCK | Errno::EINTR)) if Instant::now() < deadline => back,
            Err((_, errno)) => {
                return Err(errno).doing(|| format!("lock socket directory {}", dir.display()));
            }
        };
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// `s` in containerd's state directory is there for shims' sockets alone: nobody else looks into
/// it. Another directory is an operator's choice, and its mode too.
fn tighten(dir: &Path, fd: impl AsFd) -> Result<()> {
    let doing = || format!("chmod 0700 {}", dir.display());
    let found = fstat(&fd).doing(doing)?;
    let wide = found.st_mode & 0o077 != 0;
    if wide && found.st_uid == geteuid().as_raw() && dir.ends_with("s") {
        fchmod(&fd, Mode::S_IRWXU).doing(doing)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixListener;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn ours(claim: Claim) -> Claimed {
        match claim {
            Claim::Ours(claimed) => claimed,
            Claim::Taken => panic!("taken"),
        }
    }

    #[test]
    fn the_name_is_the_one_that_gos_shims_give() {
        // printf %s /run/containerd/containerd.sock/default/demo | sha256sum
        assert_eq!(
            path(Path::new(DIR), "/run/containerd/containerd.sock", "default", "demo"),
            Path::new(DIR).join("12117510a54ae87cb9f59e68c4b6897783ff70cec968b5b5967a0a0cd503057e")
        );
    }

    #[test]
    fn clean_is_gos() {
        for (path, cleaned) in [
            ("/run//containerd/./x.sock/default/demo", "/run/containerd/x.sock/default/demo"),
            ("unix:///run/x/ns/id", "unix:/run/x/ns/id"),
            ("/a/../../b/ns/id", "/b/ns/id"),
            ("../a/b/../c", "../a/c"),
            ("../../a", "../../a"),
            ("ns/id", "ns/id"),
        ] {
            assert_eq!(clean(path), Path::new(cleaned), "{path}");
            assert_eq!(clean(path).as_os_str().len(), cleaned.len(), "{path}");
        }
    }

    #[test]
    fn a_new_socket_and_its_directory_are_for_the_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/s/name");
        let claimed = ours(claim(&path).unwrap());
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        drop(claimed);
        assert!(!path.exists());
    }

    #[test]
    fn the_sockets_directory_of_shims_is_tightened_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        for (name, expected) in [("s", 0o700), ("sockets", 0o755)] {
            let sub = dir.path().join(name);
            fs::create_dir(&sub).unwrap();
            fs::set_permissions(&sub, PermissionsExt::from_mode(0o755)).unwrap();
            drop(claim(&sub.join("x")).unwrap());
            assert_eq!(mode(&sub), expected, "{name}");
        }
    }

    #[test]
    fn a_live_socket_is_taken_and_a_dead_one_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let first = ours(claim(&path).unwrap());
        assert!(matches!(claim(&path).unwrap(), Claim::Taken));
        remove_dead(&path).unwrap();
        assert!(path.exists());
        first.keep();
        assert!(path.exists());
        let second = ours(claim(&path).unwrap());
        second.keep();
        remove_dead(&path).unwrap();
        assert!(!path.exists());
        remove_dead(&path).unwrap();
    }

    #[test]
    fn a_daemon_with_a_full_queue_lives() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let listener = stream().unwrap();
        bind(listener.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
        listen(&listener, Backlog::new(0).unwrap()).unwrap();
        let waiting: Vec<OwnedFd> = (0..8).map(|_| stream().unwrap()).collect();
        let full = waiting.iter().any(|one| {
            connect(one.as_raw_fd(), &UnixAddr::new(&path).unwrap()) == Err(Errno::EAGAIN)
        });
        assert!(full);
        assert!(matches!(claim(&path).unwrap(), Claim::Taken));
    }

    #[test]
    fn of_many_starters_one_wins_and_the_others_find_it() {
        let dir = tempfile::tempdir().unwrap();
        for round in 0..150 {
            let path = dir.path().join(round.to_string());
            // A dead one, so that all find it and want to remove it.
            drop(UnixListener::bind(&path).unwrap());
            let claims: Vec<Claim> = std::thread::scope(|scope| {
                let start = || scope.spawn(|| claim(&path).unwrap());
                let starters: Vec<_> = (0..8).map(|_| start()).collect();
                starters.into_iter().map(|one| one.join().unwrap()).collect()
            });
            let winners = claims.iter().filter(|one| matches!(one, Claim::Ours(_))).count();
            assert_eq!(winners, 1);
            assert!(answers(&path).unwrap());
        }
    }

    #[test]
    fn a_socket_of_another_user_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let _listener = UnixListener::bind(&path).unwrap();
        std::os::unix::fs::lchown(&path, Some(12345), None).unwrap();
        let error = claim(&path).unwrap_err().to_string();
        assert!(error.contains("belongs to user 12345"), "{error}");
    }

    #[test]
    fn a_path_that_is_too_long_is_said_so() {
        let dir = Path::new("/tmp").join("d".repeat(100));
        let error = claim(&path(&dir, "/a", "n", "i")).unwrap_err().to_string();
        assert!(error.contains("at most 106"), "{error}");
        assert!(!dir.exists());
    }

    #[test]
    fn addresses() {
        assert_eq!(address(Path::new("/x/y")), "unix:///x/y");
        assert_eq!(path_of("unix:///x/y\n"), Some(Path::new("/x/y")));
        assert_eq!(path_of("/x/y"), None);
        assert_eq!(path_of("unix://x"), None);
    }
}
