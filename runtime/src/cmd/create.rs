//! `corten create`: prepares a container; its program waits for `start`.

use super::console::Console;
use crate::bundle::Bundle;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use crate::cli::options::{arguments, number, path};
use crate::cli::{CgroupManager, Globals, container_id};
use crate::error::Result;
use crate::{create, seal};

arguments! {
    /// The arguments of `corten create`, and most of those of `corten run`.
    pub struct Args {
        /// The bundle directory [default: the current directory].
        bundle: Option<PathBuf> = value("DIR", path), short 'b';
        /// Read this file instead of config.json of the bundle.
        config: Option<PathBuf> = value("FILE", path), short 'f';
        /// Unix socket that receives the master end of the container's terminal.
        console_socket: Option<PathBuf> = value("SOCKET", path);
        /// Unix socket that receives a pidfd of the container's first process.
        pidfd_socket: Option<PathBuf> = value("SOCKET", path);
        /// File that receives the pid of the container's first process.
        pid_file: Option<PathBuf> = value("FILE", path);
        /// Use MS_MOVE and chroot instead of pivot_root. Unsafe; for a root on a ramdisk only.
        no_pivot: bool = flag;
        /// Keep the caller's session keyring instead of a new one.
        no_new_keyring: bool = flag;
        /// Pass this many file descriptors, from 3 on (after LISTEN_FDS), to the container.
        preserve_fds: u32 = value("N", number::<u32>), default "0";
        /// The container's id: unique on this host under --root.
        id: String = operand("ID", container_id);
    }
}

/// Carries out `corten create`; the answer is the process's exit code.
///
/// # Errors
/// Whatever went wrong; nothing of the container is left then.
pub fn run(globals: &Globals, args: &Args) -> Result<u8> {
    seal::ensure()?;
    let bundle = args.bundle()?;
    let console = Console::new(bundle.wants_terminal(), true, args.console_socket.as_deref())?;
    create::create(&globals.store(), bundle, args.request(globals, console.container)?)?;
    Ok(0)
}

impl Args {
    /// Enters the bundle.
    pub(super) fn bundle(&self) -> Result<Bundle> {
        Bundle::enter(self.bundle.as_deref(), self.config.as_deref())
    }

    /// What the script is asked for.
    pub(super) fn request(
        &self,
        globals: &Globals,
        console: Option<OwnedFd>,
    ) -> Result<create::Request> {
        Ok(create::Request {
            id: self.id.clone(),
            console,
            pidfd_socket: self.pidfd_socket.clone(),
            pid_file: self.pid_file.clone(),
            no_pivot: self.no_pivot,
            no_new_keyring: self.no_new_keyring,
            preserve_fds: self.preserve_fds,
            rootless: globals.is_rootless(),
            cgroups: globals.cgroup_manager != CgroupManager::Disabled,
            systemd: globals.cgroup_manager == CgroupManager::Systemd,
        })
    }
}
