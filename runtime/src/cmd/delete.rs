//! `corten delete`: removes a container and all that belongs to it.

use clap::Args as ClapArgs;

use crate::cli::{self, Globals};
use crate::error::{Error, Result};

/// The arguments of `corten delete`.
#[derive(Debug, ClapArgs)]
#[group(skip)]
pub struct Args {
    /// Kill the container first if it still runs; an id that does not exist is no error.
    #[arg(short, long)]
    pub force: bool,

    /// The container's id.
    #[arg(value_name = "ID", value_parser = cli::container_id)]
    pub id: String,
}

/// Carries out `corten delete`; the answer is the process's exit code.
pub fn run(_globals: &Globals, _args: &Args) -> Result<u8> {
    Err(Error::Unsupported("corten delete is not there yet".to_owned()))
}
