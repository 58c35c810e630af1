//! `corten create`: prepares a container; its program waits for `start`.

use std::path::PathBuf;

use crate::cli::options::{arguments, number, path};
use crate::cli::{Globals, container_id};
use crate::error::{Error, Result};

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
pub fn run(_globals: &Globals, _args: &Args) -> Result<u8> {
    Err(Error::Unsupported("corten create is not there yet".to_owned()))
}
