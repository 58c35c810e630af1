//! `corten start`: lets a created container run its program.

use crate::cli::options::arguments;
use crate::cli::{Globals, container_id};
use crate::error::{Error, Result};

arguments! {
    /// The arguments of `corten start`.
    pub struct Args {
        /// The container's id.
        id: String = operand("ID", container_id);
    }
}

/// Carries out `corten start`; the answer is the process's exit code.
pub fn run(_globals: &Globals, _args: &Args) -> Result<u8> {
    Err(Error::Unsupported("corten start is not there yet".to_owned()))
}
