//! `corten state`: prints the state of a container as JSON.

use clap::Args as ClapArgs;

use crate::cli::{self, Globals};
use crate::error::{Error, Result};

/// The arguments of `corten state`.
#[derive(Debug, ClapArgs)]
#[group(skip)]
pub struct Args {
    /// The container's id.
    #[arg(value_name = "ID", value_parser = cli::container_id)]
    pub id: String,
}

/// Carries out `corten state`; the answer is the process's exit code.
pub fn run(_globals: &Globals, _args: &Args) -> Result<u8> {
    Err(Error::Unsupported("corten state is not there yet".to_owned()))
}
