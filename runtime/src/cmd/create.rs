//! `corten create`: prepares a container; its program waits for `start`.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use crate::cli::{self, Globals};
use crate::error::{Error, Result};

/// The arguments of `corten create`, and most of those of `corten run`.
#[derive(Debug, ClapArgs)]
#[group(skip)]
pub struct Args {
    /// The bundle directory [default: the current directory].
    #[arg(short, long, value_name = "DIR")]
    pub bundle: Option<PathBuf>,

    /// Read this file instead of config.json of the bundle.
    #[arg(short = 'f', long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Unix socket that receives the master end of the container's terminal.
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,

    /// Unix socket that receives a pidfd of the container's first process.
    #[arg(long, value_name = "SOCKET")]
    pub pidfd_socket: Option<PathBuf>,

    /// File that receives the pid of the container's first process.
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,

    /// Use MS_MOVE and chroot instead of pivot_root. Unsafe; for a root on a ramdisk only.
    #[arg(long)]
    pub no_pivot: bool,

    /// Keep the caller's session keyring instead of a new one.
    #[arg(long)]
    pub no_new_keyring: bool,

    /// Pass this many file descriptors, from 3 on (after LISTEN_FDS), to the container.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub preserve_fds: u32,

    /// The container's id: unique on this host under --root.
    #[arg(value_name = "ID", value_parser = cli::container_id)]
    pub id: String,
}

/// Carries out `corten create`; the answer is the process's exit code.
pub fn run(_globals: &Globals, _args: &Args) -> Result<u8> {
    Err(Error::Unsupported("corten create is not there yet".to_owned()))
}
