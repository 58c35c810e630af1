//! `corten pause`: freezes all processes of a container.

use crate::cli::options::arguments;
use crate::cli::{Globals, container_id};
use crate::error::Result;
use crate::pause;

arguments! {
    /// The arguments of `corten pause`.
    pub struct Args {
        /// The container's id.
        id: String = operand("ID", container_id);
    }
}

/// Carries out `corten pause`; the answer is the process's exit code.
pub fn run(globals: &Globals, args: &Args) -> Result<u8> {
    pause::pause(&globals.store(), &args.id)?;
    Ok(0)
}
