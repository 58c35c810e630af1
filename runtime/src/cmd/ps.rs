//! `corten ps`: lists the processes of a container.

use clap::Args as ClapArgs;

use crate::cli::{self, Globals};
use crate::error::{Error, Result};

/// The arguments of `corten ps`. What follows the id belongs to ps(1).
#[derive(Debug, ClapArgs)]
#[group(skip)]
pub struct Args {
    /// table or json.
    #[arg(short, long, value_name = "FORMAT", default_value = "table", value_parser = cli::format)]
    pub format: cli::Format,

    /// The container's id.
    #[arg(value_name = "ID", value_parser = cli::container_id)]
    pub id: String,

    /// Options of ps(1) [default: -ef].
    #[arg(value_name = "PS-ARGUMENTS", trailing_var_arg = true, allow_hyphen_values = true)]
    pub ps_args: Vec<String>,
}

/// Carries out `corten ps`; the answer is the process's exit code.
pub fn run(_globals: &Globals, _args: &Args) -> Result<u8> {
    Err(Error::Unsupported("corten ps is not there yet".to_owned()))
}
