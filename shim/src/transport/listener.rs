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
