//! `corten run`: creates and starts a container, and waits for it unless detached.

use crate::cli::Globals;
use crate::cli::options::arguments;
use crate::error::{Error, Result};

arguments! {
    /// The arguments of `corten run`.
    pub struct Args {
        include create: super::create::Args;
        /// Return once the container runs.
        detach: bool = flag, short 'd';
        /// Keep the container's record when its program has ended.
        keep: bool = flag;
        /// Do not become the reaper of orphaned processes of the container.
        no_subreaper: bool = flag;
    }
}

/// Carries out `corten run`; the answer is the process's exit code.
pub fn run(_globals: &Globals, _args: &Args) -> Result<u8> {
    Err(Error::Unsupported("corten run is not there yet".to_owned()))
}
