//! `corten ps`: lists the processes of a container.

use crate::cli::options::{arguments, text};
use crate::cli::{Format, Globals, container_id, format};
use crate::error::{Error, Result};

arguments! {
    /// The arguments of `corten ps`. What follows the id belongs to ps(1).
    pub struct Args {
        /// table or json.
        format: Format = value("FORMAT", format), short 'f', default "table";
        /// The container's id.
        id: String = operand("ID", container_id);
        /// Options of ps(1) [default: -ef].
        ps_args: Vec<String> = operands("PS-ARGUMENTS", text);
    }
}

/// Carries out `corten ps`; the answer is the process's exit code.
pub fn run(_globals: &Globals, _args: &Args) -> Result<u8> {
    Err(Error::Unsupported("corten ps is not there yet".to_owned()))
}
