//! `corten start`: lets a created container run its program.

use crate::cli::options::arguments;
use crate::cli::{Globals, container_id};
use crate::error::Result;
use crate::start::start_by_id;

arguments! {
    /// The arguments of `corten start`.
    pub struct Args {
        /// The container's id.
        id: String = operand("ID", container_id);
    }
}

/// Carries out `corten start`; the answer is the process's exit code.
pub fn run(globals: &Globals, args: &Args) -> Result<u8> {
    start_by_id(&globals.store(), &args.id)?;
    Ok(0)
}
