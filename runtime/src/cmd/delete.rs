//! `corten delete`: removes a container and all that belongs to it.

use crate::cli::options::arguments;
use crate::cli::{Globals, container_id};
use crate::error::{Error, Result};

arguments! {
    /// The arguments of `corten delete`.
    pub struct Args {
        /// Kill the container first if it still runs; an id that does not exist is no error.
        force: bool = flag, short 'f';
        /// The container's id.
        id: String = operand("ID", container_id);
    }
}

/// Carries out `corten delete`; the answer is the process's exit code.
pub fn run(_globals: &Globals, _args: &Args) -> Result<u8> {
    Err(Error::Unsupported("corten delete is not there yet".to_owned()))
}
