//! `corten resume`: thaws a paused container.

use crate::cli::options::arguments;
use crate::cli::{Globals, container_id};
use crate::error::Result;
use crate::pause;

arguments! {
    /// The arguments of `corten resume`.
    pub struct Args {
        /// The container's id.
        id: String = operand("ID", container_id);
    }
}

/// Carries out `corten resume`; the answer is the process's exit code.
pub fn run(globals: &Globals, args: &Args) -> Result<u8> {
    pause::resume(&globals.store(), &args.id)?;
    Ok(0)
}
