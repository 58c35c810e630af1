//! `corten features`: prints what this runtime can do, as JSON.

use clap::Args as ClapArgs;

use crate::cli::Globals;
use crate::error::{Error, Result};

/// `corten features` has no arguments.
#[derive(Debug, ClapArgs)]
#[group(skip)]
pub struct Args {}

/// Carries out `corten features`; the answer is the process's exit code.
pub fn run(_globals: &Globals, _args: &Args) -> Result<u8> {
    Err(Error::Unsupported("corten features is not there yet".to_owned()))
}
