//! The gate: where a created container waits for `start`.
//!
//! A socket in the container's directory. The init accepts one connection, which is the permission
//! to go on; it keeps that connection until `execve` closes it. So `start` learns what became of
//! it: a message says why the user's program does not run, and the end of file means that it does,
//! or that the init was killed at the last moment, which the kernel tells apart
//! ([`crate::state::State::has_died_early`]). A `start` that was killed after it knocked has started
//! the container; one that was killed before has not.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;

use crate::error::{Doing, Error, Result};
use crate::store::{Dir, GATE};
use crate::sys::socket;

/// The init's side, closed.
#[derive(Debug)]
pub struct Gate(OwnedFd);

/// The init's side after somebody knocked. Closes at execve, the gate as well: until then whoever
/// knocks too late does not hear that nobody let them in.
#[derive(Debug)]
pub struct Opened {
    start: OwnedFd,
    _gate: Gate,
}

impl Gate {
    /// Makes the gate of a container.
    ///
    /// # Errors
    /// When the socket can't be made in its directory.
    pub fn new(dir: &Dir) -> Result<Self> {
        socket::listen_at(dir, GATE)
            .map(Self)
            .doing(|| format!("listen at {}/{GATE}", dir.path().display()))
    }

    /// Waits for `start`.
    ///
    /// # Errors
    /// When the socket fails.
    pub fn wait(self) -> Result<Opened> {
        let start = socket::accept(&self.0).doing(|| "wait for start".to_owned())?;
        Ok(Opened { start, _gate: self })
    }
}

impl AsFd for Gate {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Opened {
    /// Tells `start` why the user's program does not run.
    pub fn fail(self, why: &str) {
        // When nobody listens any more, the exit status of the init still tells.
        let _start_may_be_gone = socket::send(&self.start, why.as_bytes(), &[]);
    }
}

/// `start`'s side: opens the gate and waits until the user's program runs or the init was killed.
/// False when the init has let nobody in, or somebody else: a knock that is not answered is told
/// (`ECONNRESET`) apart from the end of a conversation.
///
/// # Errors
/// [`Error::Status`] when nobody waits there any more, or what the init said.
pub fn open(dir: &Dir) -> Result<bool> {
    let stream = socket::connect_at(dir, GATE).map_err(|errno| match errno {
        Errno::ECONNREFUSED | Errno::ENOENT => {
            Error::Status("cannot start an already running container".to_owned())
        }
        errno => Error::sys(format!("connect to {}/{GATE}", dir.path().display()), errno),
    })?;
    let mut buffer = vec![0; 32 * 1024];
    match socket::receive(&stream, &mut buffer) {
        Ok((0, _)) => Ok(true),
        Err(Errno::ECONNRESET) => Ok(false),
        Ok((length, _)) => {
            let why = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default());
            Err(Error::Failed(why.into_owned()))
        }
        Err(errno) => Err(errno).doing(|| "wait for the container's init".to_owned()),
    }
}
