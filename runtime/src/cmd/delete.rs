//! `corten delete`: removes a container and all that belongs to it.

use crate::cli::options::arguments;
use crate::cli::{Globals, container_id};
use crate::delete;
use crate::error::Result;

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
pub fn run(globals: &Globals, args: &Args) -> Result<u8> {
    delete::delete(&globals.store(), &args.id, args.force)?;
    Ok(0)
}
