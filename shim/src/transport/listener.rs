//! Where connections come from.
//!
//! The socket is 0600 in a directory of root's, so nobody else should get here at all. That is
//! checked once more by the peer's credentials (CVE-2020-15257 was a shim that listened where any
//! container could connect): only our own user and root are served.
//!
//! When the kernel has no descriptor or no memory for another connection, the listener is left
//! alone for [`PAUSE`]: level-triggered, it would be ready at once and forever. The connection
//! waits in the backlog and is not refused: containerd takes a shim that refuses for a dead one.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use corten::error::{Doing, Result};
use nix::errno::Errno;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::geteuid;

use crate::poll::{Interest, Poller, Token, Watched};

/// How long nothing is accepted after the kernel could not.
pub const PAUSE: Duration = Duration::from_millis(100);

/// How many connections are accepted in one turn.
const PER_TURN: usize = 16;

/// A listening Unix socket.
#[derive(Debug)]
pub struct Listener {
    socket: Watched<UnixListener>,
    paused_until: Option<Instant>,
}

impl Listener {
    /// Takes a socket that listens already: fd 3, which `start` has bound.
    ///
    /// # Errors
    /// Those of [`Poller::watch`].
    pub fn new(socket: OwnedFd, poller: &Poller, token: Token) -> Result<Self> {
        let listener = UnixListener::from(socket);
        listener
            .set_nonblocking(true)
            .doing(|| "make the shim's socket non-blocking".to_owned())?;
        let socket = poller.watch(listener, token, Interest::Read)?;
        Ok(Self { socket, paused_until: None })
    }

    /// Called when the socket is ready: the new connections, non-blocking and close-on-exec, of
    /// peers that may connect.
    pub fn turn(&mut self) -> Vec<OwnedFd> {
        let mut connections = Vec::new();
        for _ in 0..PER_TURN {
            match self.socket.get().accept() {
                Ok((connection, _)) => match admit(connection.into()) {
                    Ok(connection) => connections.push(connection),
                    Err(error) => tracing::warn!("refused a connection: {error}"),
                },
                Err(error) => match error.raw_os_error().map(Errno::from_raw) {
                    Some(Errno::EAGAIN) => break,
                    Some(Errno::ECONNABORTED) => {}
                    _ => {
                        self.pause(&error);
                        break;
                    }
                },
            }
        }
        connections
    }

    /// When [`tick`](Self::tick) wants to be called.
    pub fn deadline(&self) -> Option<Instant> {
        self.paused_until
    }

    /// Listens again if the pause is over.
    pub fn tick(&mut self, now: Instant) {
        if self.paused_until.is_some_and(|until| until <= now) {
            // ENOMEM here is one more reason to wait.
            self.paused_until = self.socket.want(Interest::Read).err().map(|_| now + PAUSE);
        }
    }

    fn pause(&mut self, error: &std::io::Error) {
        tracing::warn!("accept a connection: {error}; trying again in {PAUSE:?}");
        match self.socket.want(Interest::Nothing) {
            Ok(()) => self.paused_until = Some(Instant::now() + PAUSE),
            Err(error) => tracing::warn!("pause the listener: {error}"),
        }
    }
}

fn admit(connection: OwnedFd) -> Result<OwnedFd> {
    let peer = getsockopt(&connection, PeerCredentials).doing(|| "SO_PEERCRED".to_owned())?;
    if peer.uid() != 0 && peer.uid() != geteuid().as_raw() {
        return Err(corten::error::Error::Failed(format!(
            "user {} (process {}) is neither root nor ours",
            peer.uid(),
            peer.pid()
        )));
    }
    let stream = std::os::unix::net::UnixStream::from(connection);
    stream.set_nonblocking(true).doing(|| "make it non-blocking".to_owned())?;
    Ok(stream.into())
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, set_permissions};
    use std::io::{Read, Write};
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixStream;
    use std::path::PathBuf;
    use std::process::Command;
    use std::thread;

    use corten::sys::cred::setresuid;
    use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
    use nix::sys::resource::{Resource, getrlimit, setrlimit};

    use super::*;

    fn listener(poller: &Poller) -> (tempfile::TempDir, PathBuf, Listener) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let socket = UnixListener::bind(&path).unwrap();
        (dir, path, Listener::new(socket.into(), poller, Token(1)).unwrap())
    }

    fn told(poller: &Poller) -> bool {
        !poller.wait(Some(Instant::now())).unwrap().is_empty()
    }

    #[test]
    fn connections_never_block_and_are_not_inherited() {
        let poller = Poller::new().unwrap();
        let (_dir, path, mut listener) = listener(&poller);
        assert!(listener.turn().is_empty());
        let _peers = [UnixStream::connect(&path).unwrap(), UnixStream::connect(&path).unwrap()];
        assert!(told(&poller));
        let connections = listener.turn();
        assert_eq!(connections.len(), 2);
        for connection in &connections {
            let status = OFlag::from_bits_retain(fcntl(connection, FcntlArg::F_GETFL).unwrap());
            assert!(status.contains(OFlag::O_NONBLOCK));
            let flags = FdFlag::from_bits_retain(fcntl(connection, FcntlArg::F_GETFD).unwrap());
            assert!(flags.contains(FdFlag::FD_CLOEXEC));
        }
        assert!(!told(&poller));
        assert_eq!(listener.deadline(), None);
    }

    #[test]
    fn another_user_is_refused() {
        if !geteuid().is_root() {
            return;
        }
        let poller = Poller::new().unwrap();
        let (dir, path, mut listener) = listener(&poller);
        set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        set_permissions(&path, Permissions::from_mode(0o777)).unwrap();
        let other = {
            let path = path.clone();
            thread::spawn(move || {
                setresuid(65534).unwrap();
                UnixStream::connect(path).unwrap()
            })
        };
        let mut other = other.join().unwrap();
        let mut root = UnixStream::connect(&path).unwrap();
        let connections = listener.turn();
        assert_eq!(connections.len(), 1, "root's connection");
        assert_eq!(other.read(&mut [0]).unwrap(), 0, "closed");
        root.write_all(b"x").unwrap();
        let mut byte = [0];
        UnixStream::from(connections.into_iter().next().unwrap()).read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"x");
    }

    /// The limit is the whole process's, so this runs in one of its own.
    #[test]
    fn without_descriptors_it_rests_and_the_connection_is_not_refused() {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "transport::listener::tests::out_of_descriptors", "--ignored"])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
    }

    #[test]
    #[ignore = "run by without_descriptors_it_rests_and_the_connection_is_not_refused"]
    fn out_of_descriptors() {
        let poller = Poller::new().unwrap();
        let (_dir, path, mut listener) = listener(&poller);
        let mut peer = UnixStream::connect(&path).unwrap();
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, 3, hard).unwrap();
        assert!(told(&poller));
        assert!(listener.turn().is_empty());
        assert!(!told(&poller), "the loop does not spin");
        let deadline = listener.deadline().unwrap();
        listener.tick(deadline - Duration::from_millis(1));
        assert!(!told(&poller), "the pause is not over");
        listener.tick(deadline);
        assert_eq!(listener.deadline(), None);
        assert!(told(&poller));
        assert!(listener.turn().is_empty());

        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
        listener.tick(listener.deadline().unwrap());
        let mut connections = listener.turn();
        assert_eq!(connections.len(), 1);
        peer.write_all(b"x").unwrap();
        UnixStream::from(connections.remove(0)).read_exact(&mut [0]).unwrap();
    }
}
