//! `corten start`: lets a created container run its program.

use crate::cli::options::arguments;
use crate::cli::{Globals, container_id};
use crate::error::Result;
use crate::hooks::Hooks;
use crate::spec;
use crate::start::{self, Wait};

arguments! {
    /// The arguments of `corten start`.
    pub struct Args {
        /// The container's id.
        id: String = operand("ID", container_id);
    }
}

/// Carries out `corten start`; the answer is the process's exit code.
pub fn run(globals: &Globals, args: &Args) -> Result<u8> {
    let dir = globals.store().open(&args.id)?;
    let _lock = dir.lock(start::PATIENCE)?;
    let state = dir.read_state()?;
    let hooks = spec::parse_hooks(&dir.read_config()?)?;
    start::start(&dir, &state, &Hooks::new(hooks.as_ref())?, Wait::ForReady)?;
    Ok(0)
}
