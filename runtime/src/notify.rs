//! sd_notify through the container's wall (sd_notify(3)).
//!
//! With `NOTIFY_SOCKET` in the runtime's environment, the container gets a socket of its own at
//! `/run/notify/notify.sock`, in a directory of its state that is mounted there read-only. Whoever
//! starts the container listens on it, passes the first `READY=` on to the real socket together
//! with the host's view of the main pid, and waits until the service manager has read both
//! (`BARRIER=1`). Everything else that the container says is its own claim and stays inside.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{Pid, pipe2};
use oci_spec::runtime::{MountBuilder, Spec};

use crate::error::{Doing, Error, Result};
use crate::store::Dir;
use crate::sys::process::{CloneArgs, Cloned, clone, exit_now};
use crate::sys::socket;

/// The directory in the container's state.
const DIRECTORY: &str = "notify";
/// Where it is mounted in the container.
const MOUNTED: &str = "/run/notify";
const SOCKET: &str = "notify.sock";
/// How long the service manager may take to read the barrier, in milliseconds (runc's 30 s).
const BARRIER_TIMEOUT: u16 = 30_000;

/// The service manager's socket.
#[derive(Debug)]
pub struct Notify {
    host: PathBuf,
}

impl Notify {
    /// The socket that the environment names, if any.
    pub fn from_env() -> Option<Self> {
        let host = std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty())?;
        Some(Self { host: host.into() })
    }

    /// Adds the mount and the environment variable to a config whose state will be in `state`.
    ///
    /// # Errors
    /// When the state directory's path is not UTF-8.
    pub fn add_to(&self, spec: &mut Spec, state: &Path) -> Result<()> {
        let options = ["bind", "nosuid", "noexec", "nodev", "ro"].map(str::to_owned);
        let mount = MountBuilder::default()
            .destination(MOUNTED)
            .typ("bind")
            .source(state.join(DIRECTORY))
            .options(options)
            .build()
            .map_err(|error| Error::Failed(format!("mount {MOUNTED}: {error}")))?;
        spec.mounts_mut().get_or_insert_default().push(mount);
        if let Some(process) = spec.process_mut() {
            let variable = format!("NOTIFY_SOCKET={MOUNTED}/{SOCKET}");
            process.env_mut().get_or_insert_default().push(variable);
        }
        Ok(())
    }

    /// Makes the directory that is mounted.
    ///
    /// # Errors
    /// Those of mkdir.
    pub fn make_directory(&self, dir: &Dir) -> Result<()> {
        let path = dir.path().join(DIRECTORY);
        std::fs::DirBuilder::new()
            .mode(0o755)
            .create(&path)
            .doing(|| format!("mkdir {}", path.display()))
    }

    /// Listens for the container; none when it was created without a socket.
    ///
    /// # Errors
    /// When the socket can't be made.
    pub fn listen(self, dir: &Dir) -> Result<Option<Listening>> {
        let directory = dir.path().join(DIRECTORY);
        if !directory.is_dir() {
            return Ok(None);
        }
        let doing = || format!("listen at {}/{SOCKET}", directory.display());
        let handle = std::fs::File::open(&directory).doing(doing)?;
        // Through the descriptor, because a socket address holds 108 bytes only.
        let path = format!("/proc/self/fd/{}/{SOCKET}", handle.as_raw_fd());
        let inside = UnixDatagram::bind(&path).doing(doing)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).doing(doing)?;
        Ok(Some(Listening { inside, host: self.host }))
    }
}

/// The container's socket, listened to.
#[derive(Debug)]
pub struct Listening {
    inside: UnixDatagram,
    host: PathBuf,
}

impl Listening {
    /// Waits until the container is ready and says so to the service manager, or until its first
    /// process ends.
    ///
    /// # Errors
    /// When the service manager's socket can't be reached.
    pub fn forward(&self, pid: Pid, pidfd: &OwnedFd) -> Result<()> {
        let mut buffer = [0; 4096];
        loop {
            let mut fds = [
                PollFd::new(self.inside.as_fd(), PollFlags::POLLIN),
                PollFd::new(pidfd.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut fds, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                other => other.doing(|| "wait for READY=1".to_owned())?,
            };
            if !fds.first().and_then(PollFd::any).unwrap_or(false) {
                return Ok(());
            }
            let length =
                self.inside.recv(&mut buffer).doing(|| "receive from the container".to_owned())?;
            let message = buffer.get(..length).unwrap_or_default();
            let ready = message.split(|byte| *byte == b'\n').find(|l| l.starts_with(b"READY="));
            if let Some(line) = ready {
                return self.tell_ready(line, pid);
            }
        }
    }

    /// [`Listening::forward`] in a process of its own, for a caller that has other things to do.
    ///
    /// # Errors
    /// When there can be no more processes.
    pub fn forward_aside(&self, pid: Pid, pidfd: &OwnedFd) -> Result<()> {
        match clone(&CloneArgs::default()).doing(|| "clone a process".to_owned())? {
            Cloned::Parent(..) => Ok(()),
            // Its failure concerns the service manager only, who will time out.
            Cloned::Child => exit_now(i32::from(self.forward(pid, pidfd).is_err())),
        }
    }

    fn tell_ready(&self, line: &[u8], pid: Pid) -> Result<()> {
        let doing = || format!("notify {}", self.host.display());
        let manager = UnixDatagram::unbound().doing(doing)?;
        match self.host.as_os_str().as_bytes().strip_prefix(b"@") {
            Some(name) => {
                use std::os::linux::net::SocketAddrExt;
                let address =
                    std::os::unix::net::SocketAddr::from_abstract_name(name).doing(doing)?;
                manager.connect_addr(&address).doing(doing)?;
            }
            None => manager.connect(&self.host).doing(doing)?,
        }
        let ready = [line, b"\n"].concat();
        manager.send(&ready).doing(doing)?;
        manager.send(format!("MAINPID={pid}\n").as_bytes()).doing(doing)?;
        barrier(&manager).doing(doing)
    }
}

/// The manager closes the pipe when it has processed everything sent before.
fn barrier(manager: &UnixDatagram) -> Result<()> {
    let (read, write) = pipe2(OFlag::O_CLOEXEC).doing(|| "pipe".to_owned())?;
    socket::send(manager, b"BARRIER=1", &[write.as_fd()]).doing(|| "BARRIER=1".to_owned())?;
    drop(write);
    let mut fds = [PollFd::new(read.as_fd(), PollFlags::POLLHUP)];
    match poll(&mut fds, PollTimeout::from(BARRIER_TIMEOUT)) {
        Ok(0) => Err(Error::Failed("BARRIER=1: timed out".to_owned())),
        other => other.map(drop).doing(|| "BARRIER=1".to_owned()),
    }
}
