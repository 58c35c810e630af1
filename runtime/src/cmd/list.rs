//! `corten list`: lists containers.

use clap::Args as ClapArgs;

use crate::cli::{self, Globals};
use crate::error::{Error, Result};

/// The arguments of `corten list`.
#[derive(Debug, ClapArgs)]
#[group(skip)]
pub struct Args {
    /// table or json.
    #[arg(short, long, value_name = "FORMAT", default_value = "table", value_parser = cli::format)]
    pub format: cli::Format,

    /// Print only ids.
    #[arg(short, long)]
    pub quiet: bool,
}

/// Carries out `corten list`; the answer is the process's exit code.
pub fn run(_globals: &Globals, _args: &Args) -> Result<u8> {
    Err(Error::Unsupported("corten list is not there yet".to_owned()))
}
