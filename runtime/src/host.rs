//! The host's procfs, as descriptors.
//!
//! Kernel files that are written late in the scripts (labels, sysctls) are opened below here before
//! the first mount of the container is made, so that nothing the image or a racing container does
//! to its own `/proc` can redirect the write (CVE-2025-52881). And the host's own programs.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;
use nix::unistd::getgid;

use crate::error::{Doing, Result};

/// A program of the host to run. It gets the group that it has anyway: with one, std makes the process
/// with fork(2), which does without clone3; posix_spawn(3) does not where that is `EPERM`.
pub fn program(name: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(name);
    command.gid(getgid().as_raw());
    command
}

/// The host's `/proc`.
#[derive(Debug)]
pub struct Proc(OwnedFd);

impl Proc {
    /// Opens it; only sensible before the container's mounts are made.
    ///
    /// # Errors
    /// When there is none.
    pub fn open() -> Result<Self> {
        open("/proc", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
            .map(Self)
            .doing(|| "open /proc".to_owned())
    }

    /// `/proc/sys`.
    ///
    /// # Errors
    /// When it is not there.
    pub fn sysctls(&self) -> Result<OwnedFd> {
        openat(&self.0, "sys", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
            .doing(|| "open /proc/sys".to_owned())
    }
}

impl AsFd for Proc {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Whether this process's uids are mapped; a kernel without user namespaces has no map.
pub fn in_user_namespace() -> bool {
    let Ok(map) = std::fs::read_to_string("/proc/self/uid_map") else { return false };
    !map.split_ascii_whitespace().eq(["0", "0", "4294967295"])
}
