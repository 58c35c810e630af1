//! `corten resume`: thaws a paused container.

use crate::cli::options::arguments;
use crate::cli::{Globals, container_id};
use crate::error::{Error, Result};

arguments! {
    /// The arguments of `corten resume`.
    pub struct Args {
        /// The container's id.
        id: String = operand("ID", container_id);
    }
}

/// Carries out `corten resume`; the answer is the process's exit code.
pub fn run(_globals: &Globals, _args: &Args) -> Result<u8> {
    Err(Error::Unsupported("corten resume is not there yet".to_owned()))
}
