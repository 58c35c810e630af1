//! Who gets the master end of a terminal: the manager behind `--console-socket`, or this process
//! when it stays in the foreground.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use crate::error::{Error, Result};
use crate::process::tty;

/// The two ends that matter before there is a terminal.
#[derive(Debug, Default)]
pub(super) struct Console {
    /// Where the container sends the master.
    pub(super) container: Option<OwnedFd>,
    /// Where it arrives if it comes to us.
    pub(super) ours: Option<OwnedFd>,
}

impl Console {
    /// Connects to the socket, or makes a pair for the foreground.
    ///
    /// # Errors
    /// A terminal with nobody to serve it, a socket without a terminal, or nobody at the socket.
    pub(super) fn new(terminal: bool, detached: bool, socket: Option<&Path>) -> Result<Self> {
        match (terminal, detached, socket) {
            (true, true, Some(path)) => {
                Ok(Self { container: Some(tty::connect(path)?), ours: None })
            }
            (true, false, None) => {
                let (ours, container) = tty::pair()?;
                Ok(Self { container: Some(container), ours: Some(ours) })
            }
            (false, _, None) => Ok(Self::default()),
            (true, true, None) => Err(Error::Usage(
                "cannot allocate tty if corten will detach without setting console socket"
                    .to_owned(),
            )),
            (_, _, Some(_)) => Err(Error::Usage(
                "cannot use console socket if corten will not detach or allocate tty".to_owned(),
            )),
        }
    }
}

/// The master, when it came to us.
///
/// # Errors
/// When it did not.
pub(super) fn master(ours: Option<OwnedFd>) -> Result<Option<OwnedFd>> {
    ours.map(|ours| tty::receive(ours.as_fd())).transpose()
}
