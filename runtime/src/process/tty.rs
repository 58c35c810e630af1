//! The container's terminal.
//!
//! The container's process opens a pty of the container's own devpts, keeps the slave and sends the
//! master out through a socket: the manager's `--console-socket`, or one of ours when the runtime
//! stays in the foreground and copies ([`super::foreground`]).
//!
//! Promise: the process leads a session of its own, whose controlling terminal is that pty, or none
//! (CVE-2017-5226: without a session of its own it could type into the caller's terminal).
//!
//! Order: [`connect`] in the parent, before anything is made; [`new_session`] early in the process;
//! [`Pty::open`] once devpts is mounted; [`Pty::slave`] for the /dev/console bind; [`Pty::send`];
//! [`Pty::attach`] before [`super::user::chown_stdio`].
//!
//! Threat: CVE-2025-52565. /dev/ptmx, /dev/pts/ptmx and /dev/pts/N are names that the image or a
//! running container can redirect or replace by a fifo. Only `ptmx` directly in the root of a devpts
//! is opened, without links and without crossing a mount; the slave comes from an ioctl, not a path.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::fcntl::OFlag;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, connect as connect_socket, setsockopt, socket,
    sockopt,
};
use nix::sys::stat::{SFlag, fstat, makedev};
use nix::sys::statfs::{FsType, fstatfs};
use nix::sys::time::TimeVal;
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout, setsid};

use super::{json_path, open_in_root};
use crate::error::{Doing, Error, Result};
use crate::rootfs::path::open_beneath;
use crate::sys;
use crate::sys::tty::{self, Size};

/// `DEVPTS_SUPER_MAGIC` of statfs(2).
const DEVPTS_MAGIC: FsType = FsType(0x1cd1);
/// The root directory of every devpts.
const DEVPTS_ROOT_INODE: u64 = 1;
/// How long a manager may take to accept its own console, in seconds.
const CONSOLE_TIMEOUT: i64 = 10;
/// `sockaddr_un.sun_path` with its NUL.
const SOCKET_PATH_MAX: usize = 108;

/// Validates the value at the JSON path `path` (`process.consoleSize`).
///
/// # Errors
/// A config error beyond 65535.
pub fn plan_size(size: oci_spec::runtime::Box, path: &str) -> Result<Size> {
    let fit = |value: u64, key: &str| {
        u16::try_from(value)
            .map_err(|_| Error::config(json_path(path, key), format!("{value} is over 65535")))
    };
    Ok(Size { rows: fit(size.height(), "height")?, columns: fit(size.width(), "width")? })
}

/// Connects to a manager's console socket.
///
/// # Errors
/// No socket there, nobody listening, or nobody accepting for 10 s.
pub fn connect(path: &Path) -> Result<OwnedFd> {
    let doing = || format!("connect to console socket {path:?}");
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None).doing(doing)?;
    // Of a stream socket this also bounds connect(2), while the backlog is full.
    setsockopt(&socket, sockopt::SendTimeout, &TimeVal::new(CONSOLE_TIMEOUT, 0)).doing(doing)?;
    if path.as_os_str().len() < SOCKET_PATH_MAX {
        let address = UnixAddr::new(path).doing(doing)?;
        connect_socket(socket.as_raw_fd(), &address).doing(doing)?;
        return Ok(socket);
    }
    // Managers nest deeply: reach a long path through its directory.
    let parent = path.parent().unwrap_or(Path::new("/"));
    let name = path.file_name().unwrap_or(OsStr::new(""));
    let dir = nix::fcntl::open(
        parent,
        OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
        nix::sys::stat::Mode::empty(),
    )
    .doing(doing)?;
    let short = Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(name);
    let address = UnixAddr::new(&short).doing(doing)?;
    connect_socket(socket.as_raw_fd(), &address).doing(doing)?;
    Ok(socket)
}

/// A socket pair in place of a console socket: the runtime's end, the container's end.
///
/// # Errors
/// The errno of the call.
pub fn pair() -> Result<(OwnedFd, OwnedFd)> {
    sys::socket::pair().doing(|| "socketpair for the console".to_owned())
}

/// Receives the master that [`Pty::send`] sent.
///
/// # Errors
/// The sender is gone, or sent something else.
pub fn receive(socket: BorrowedFd<'_>) -> Result<OwnedFd> {
    let mut name = [0; 256];
    let (_, mut fds) =
        sys::socket::receive(socket, &mut name).doing(|| "receive the console".to_owned())?;
    fds.pop().ok_or_else(|| Error::Failed("receive the console: nothing came".to_owned()))
}

/// Leads a new session without a controlling terminal, with or without a pty to come.
///
/// # Errors
/// `EPERM` for a process that leads a process group already.
pub fn new_session() -> Result<()> {
    setsid().doing(|| "setsid".to_owned()).map(drop)
}

/// Both ends of the container's terminal.
#[derive(Debug)]
pub struct Pty {
    master: OwnedFd,
    slave: OwnedFd,
    number: u32,
}

impl Pty {
    /// Opens a new pty of the devpts at dev/pts below `root`.
    ///
    /// # Errors
    /// There is no devpts, or what is there is not one.
    pub fn open(root: BorrowedFd<'_>, size: Option<Size>) -> Result<Self> {
        let doing = || "open a terminal in the container's /dev/pts".to_owned();
        let dir =
            open_in_root(root, c"dev/pts", OFlag::O_PATH | OFlag::O_DIRECTORY).doing(doing)?;
        let is_devpts = fstatfs(&dir).doing(doing)?.filesystem_type() == DEVPTS_MAGIC
            && fstat(&dir).doing(doing)?.st_ino == DEVPTS_ROOT_INODE;
        if !is_devpts {
            return Err(Error::Failed(format!("{}: no devpts is mounted there", doing())));
        }
        let flags = (OFlag::O_RDWR | OFlag::O_NOCTTY).bits();
        let master = open_beneath(&dir, Path::new("ptmx"), flags).doing(doing)?;
        let stat = fstat(&master).doing(doing)?;
        let is_device =
            SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFCHR;
        if !is_device || stat.st_rdev != makedev(5, 2) {
            return Err(Error::Failed(format!("{}: ptmx is not char 5:2", doing())));
        }
        tty::unlock(&master).doing(doing)?;
        let slave = tty::peer(&master).doing(doing)?;
        let number = tty::number(&master).doing(doing)?;
        let pty = Self { master, slave, number };
        if let Some(size) = size {
            tty::set_size(&pty.master, size)
                .doing(|| format!("resize the terminal to {size:?}"))?;
        }
        Ok(pty)
    }

    /// The end that the container's process gets, for the /dev/console bind.
    pub fn slave(&self) -> BorrowedFd<'_> {
        self.slave.as_fd()
    }

    /// `/dev/pts/N`, its name in the container.
    pub fn name(&self) -> String {
        format!("/dev/pts/{}", self.number)
    }

    /// Sends the master, with its name as the payload, which managers ignore.
    ///
    /// # Errors
    /// Nobody is on the other side.
    pub fn send(&self, socket: BorrowedFd<'_>) -> Result<()> {
        let name = self.name();
        sys::socket::send(socket, name.as_bytes(), &[self.master.as_fd()])
            .doing(|| format!("send terminal {name} to the console socket"))
    }

    /// Makes it our controlling terminal and standard streams, and lets go of the master.
    ///
    /// # Errors
    /// `EPERM` unless [`new_session`] came first.
    pub fn attach(self) -> Result<()> {
        let doing = || format!("attach to terminal {}", self.name());
        tty::set_controlling(&self.slave).doing(doing)?;
        dup2_stdin(&self.slave).doing(doing)?;
        dup2_stdout(&self.slave).doing(doing)?;
        dup2_stderr(&self.slave).doing(doing)
    }
}

/// Replaces each standard stream that is the host's /dev/null by the container's, so that no inode
/// of the host is reachable through it. An image without a real one keeps the host's.
///
/// A file of another kind by this name is not taken (CVE-2026-88264 and -88265: a link in the image
/// made the runtime hand out, and chown, a file of the attacker's choice).
///
/// # Errors
/// The errno of the calls.
pub fn reopen_null(root: BorrowedFd<'_>) -> Result<()> {
    let doing = || "reopen /dev/null in the container".to_owned();
    let is_null = |fd: BorrowedFd<'_>| {
        fstat(fd).is_ok_and(|stat| {
            SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFCHR
                && stat.st_rdev == makedev(1, 3)
        })
    };
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let streams = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()].map(is_null);
    if streams == [false; 3] {
        return Ok(());
    }
    // First without opening it for real, which could have effects on another device.
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW;
    match open_in_root(root, c"dev/null", flags) {
        Ok(path) if is_null(path.as_fd()) => {}
        _ => return Ok(()),
    }
    let Ok(null) = open_in_root(root, c"dev/null", OFlag::O_RDWR | OFlag::O_NOFOLLOW) else {
        return Ok(());
    };
    let null = File::from(null);
    if !is_null(null.as_fd()) {
        return Ok(());
    }
    if streams[0] {
        dup2_stdin(&null).doing(doing)?;
    }
    if streams[1] {
        dup2_stdout(&null).doing(doing)?;
    }
    if streams[2] {
        dup2_stderr(&null).doing(doing)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixListener;

    use nix::mount::{MsFlags, mount};
    use nix::sched::{CloneFlags, unshare};

    use super::*;
    use crate::sys::testing::in_child;

    /// A root with a devpts of its own, in a mount namespace of our own.
    fn with_devpts(test: impl FnOnce(&Path, BorrowedFd<'_>)) {
        let root = tempfile::tempdir().unwrap();
        in_child(|| {
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            let none = None::<&str>;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
            let pts = root.path().join("dev/pts");
            std::fs::create_dir_all(&pts).unwrap();
            let options = Some("newinstance,ptmxmode=0666,mode=0620");
            mount(Some("devpts"), &pts, Some("devpts"), MsFlags::empty(), options).unwrap();
            test(root.path(), File::open(root.path()).unwrap().as_fd());
        });
    }

    #[test]
    fn a_terminal_is_opened_sent_and_attached() {
        with_devpts(|_, root| {
            new_session().unwrap();
            let pty = Pty::open(root, Some(Size { rows: 5, columns: 7 })).unwrap();
            assert_eq!(pty.name(), "/dev/pts/0");
            let (ours, theirs) = pair().unwrap();
            pty.send(theirs.as_fd()).unwrap();
            let mut master = File::from(receive(ours.as_fd()).unwrap());
            pty.attach().unwrap();
            assert_eq!(tty::size(std::io::stdin()).unwrap(), Size { rows: 5, columns: 7 });
            // /dev/tty only opens for a process with a controlling terminal.
            File::open("/dev/tty").unwrap();
            // Not through std: another thread may have held its lock when we were forked.
            nix::unistd::write(std::io::stdout(), b"hello\n").unwrap();
            let mut text = [0; 7];
            master.read_exact(&mut text).unwrap();
            assert_eq!(&text, b"hello\r\n");
            // Closing it would hang up on us, the leader of its session.
            std::mem::forget(master);
        });
    }

    #[test]
    fn anything_but_a_devpts_is_refused_at_once() {
        with_devpts(|path, root| {
            // Over the real ptmx, which needs a mount: refused as a mount crossing.
            let fifo = path.join("fifo");
            nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
            let ptmx = path.join("dev/pts/ptmx");
            mount(Some(&fifo), &ptmx, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
            let error = Pty::open(root, None).unwrap_err();
            assert_eq!(error.errno(), Some(nix::errno::Errno::EXDEV));
            // A directory of the image instead of the mount.
            std::fs::create_dir_all(path.join("b/dev/pts")).unwrap();
            nix::unistd::mkfifo(&path.join("b/dev/pts/ptmx"), nix::sys::stat::Mode::S_IRWXU)
                .unwrap();
            let other = File::open(path.join("b")).unwrap();
            let error = Pty::open(other.as_fd(), None).unwrap_err().to_string();
            assert!(error.ends_with("no devpts is mounted there"), "{error}");
            // A link to the host's.
            std::fs::create_dir_all(path.join("c/dev")).unwrap();
            std::os::unix::fs::symlink("/dev/pts", path.join("c/dev/pts")).unwrap();
            let other = File::open(path.join("c")).unwrap();
            assert!(Pty::open(other.as_fd(), None).is_err());
        });
    }

    #[test]
    fn console_sockets_with_long_paths_are_reached() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(100)).join("e".repeat(100));
        std::fs::create_dir_all(&deep).unwrap();
        for parent in [dir.path(), &deep] {
            let real = dir.path().join("s");
            let listener = UnixListener::bind(&real).unwrap();
            let path = parent.join("s");
            if path != real {
                std::fs::rename(&real, &path).unwrap();
            }
            connect(&path).unwrap();
            listener.accept().unwrap();
            std::fs::remove_file(&path).unwrap();
        }
        let error = connect(&dir.path().join("none")).unwrap_err();
        assert_eq!(error.errno(), Some(nix::errno::Errno::ENOENT));
        std::fs::write(dir.path().join("file"), "").unwrap();
        assert!(connect(&dir.path().join("file")).is_err());
    }

    #[test]
    fn only_a_real_dev_null_replaces_the_hosts() {
        in_child(|| {
            let null = File::options().read(true).write(true).open("/dev/null").unwrap();
            dup2_stdin(&null).unwrap();
            let root = tempfile::tempdir().unwrap();
            let dir = File::open(root.path()).unwrap();
            let inode = || fstat(std::io::stdin()).unwrap().st_ino;
            let host = inode();
            reopen_null(dir.as_fd()).unwrap();
            std::fs::create_dir(root.path().join("dev")).unwrap();
            let path = root.path().join("dev/null");
            std::fs::write(&path, "canary").unwrap();
            reopen_null(dir.as_fd()).unwrap();
            std::fs::remove_file(&path).unwrap();
            std::os::unix::fs::symlink("zero", &path).unwrap();
            reopen_null(dir.as_fd()).unwrap();
            assert_eq!(inode(), host);
            std::fs::remove_file(&path).unwrap();
            let mode = nix::sys::stat::Mode::from_bits_truncate(0o666);
            nix::sys::stat::mknod(&path, SFlag::S_IFCHR, mode, makedev(1, 3)).unwrap();
            reopen_null(dir.as_fd()).unwrap();
            assert_ne!(inode(), host);
        });
    }
}
