//! `corten run`: creates and starts a container, and waits for it unless detached.

use clap::Args as ClapArgs;

use crate::cli::Globals;
use crate::error::{Error, Result};

/// The arguments of `corten run`.
#[derive(Debug, ClapArgs)]
#[group(skip)]
pub struct Args {
    /// What `create` takes too.
    #[command(flatten)]
    pub create: super::create::Args,

    /// Return once the container runs.
    #[arg(short, long)]
    pub detach: bool,

    /// Keep the container's record when its program has ended.
    #[arg(long)]
    pub keep: bool,

    /// Do not become the reaper of orphaned processes of the container.
    #[arg(long)]
    pub no_subreaper: bool,
}

/// Carries out `corten run`; the answer is the process's exit code.
pub fn run(_globals: &Globals, _args: &Args) -> Result<u8> {
    Err(Error::Unsupported("corten run is not there yet".to_owned()))
}
