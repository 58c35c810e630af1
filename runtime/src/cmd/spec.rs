//! `corten spec`: writes a config.json to start from.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use crate::cli::Globals;
use crate::error::{Error, Result};

/// The arguments of `corten spec`.
#[derive(Debug, ClapArgs)]
#[group(skip)]
pub struct Args {
    /// Directory to write config.json to [default: the current directory].
    #[arg(short, long, value_name = "DIR")]
    pub bundle: Option<PathBuf>,

    /// Write one for an ordinary user's container.
    #[arg(long)]
    pub rootless: bool,
}

/// Carries out `corten spec`; the answer is the process's exit code.
pub fn run(_globals: &Globals, _args: &Args) -> Result<u8> {
    Err(Error::Unsupported("corten spec is not there yet".to_owned()))
}
