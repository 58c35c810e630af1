//! What travels from the worker to the shim: descriptors, and which is which.

use std::os::fd::OwnedFd;

use corten::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// What a descriptor is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The read half of the client's FIFO for input.
    StdinFifo,
    /// Its write half, which keeps the end of file away until CloseIO.
    StdinKeeper,
    /// The write end of the container's standard input.
    StdinPipe,
    /// The read end of the container's standard output.
    StdoutPipe,
    /// The write half of the client's FIFO for it, or a logger's pipe.
    StdoutSink,
    /// The read half of that FIFO, which keeps EPIPE away while no client is there.
    StdoutKeeper,
    /// The read end of a pipe for the copier: the container's standard output, or its terminal's.
    StdoutCopied,
    /// The file that it is appended to.
    StdoutFile,
    /// The read end of the container's standard error.
    StderrPipe,
    /// The write half of the client's FIFO for it.
    StderrSink,
    /// The read half of that FIFO.
    StderrKeeper,
    /// The read end of the container's standard error for the copier.
    StderrCopied,
    /// The file that it is appended to.
    StderrFile,
    /// The master of the container's terminal.
    Console,
    /// A pidfd of the client's logger.
    Logger,
}

/// The roles of the descriptors that travel beside it, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wires {
    pub(super) roles: Vec<Role>,
    /// The logger's pid.
    pub(super) logger: Option<i32>,
}

#[cfg(test)]
impl Wires {
    /// How many descriptors belong to it.
    pub(super) fn count(&self) -> usize {
        self.roles.len()
    }
}

/// Wires with their descriptors at hand.
#[derive(Debug, Default)]
pub(super) struct Bundle(Vec<(Role, OwnedFd)>);

impl Bundle {
    pub(super) fn join(wires: &Wires, fds: Vec<OwnedFd>) -> Result<Self> {
        if wires.roles.len() != fds.len() {
            let (want, got) = (wires.roles.len(), fds.len());
            return Err(Error::Failed(format!("stdio: {got} descriptors came for {want} roles")));
        }
        Ok(Self(wires.roles.iter().copied().zip(fds).collect()))
    }

    pub(super) fn split(self) -> (Vec<Role>, Vec<OwnedFd>) {
        self.0.into_iter().unzip()
    }

    pub(super) fn add(&mut self, role: Role, fd: OwnedFd) {
        self.0.push((role, fd));
    }

    pub(super) fn take(&mut self, role: Role) -> Option<OwnedFd> {
        let index = self.0.iter().position(|(has, _)| *has == role)?;
        Some(self.0.swap_remove(index).1)
    }
}
