//! Being written: the loop.

use std::os::fd::OwnedFd;

use corten::error::{Error, Result};

use crate::bootstrap::daemon::Ready;

/// What the daemon is started with. The bundle of the first container is the working directory.
#[derive(Debug)]
pub struct Config {
    /// The id of the container that the shim was started for, which need not be the group's.
    pub id: String,
    /// Its namespace in containerd.
    pub namespace: String,
    /// containerd's ttrpc socket, where events go; empty when there is none.
    pub ttrpc_address: String,
    /// containerd's GRPC socket, for programs that we start.
    pub grpc_address: String,
    /// Listens, non-blocking.
    pub listener: OwnedFd,
}

/// Serves until it is told to shut down.
///
/// # Errors
/// Whatever keeps the loop from running.
pub fn run(config: Config, ready: &mut Ready) -> Result<()> {
    drop((config, ready));
    Err(Error::Unsupported("the server is not written yet".to_owned()))
}
