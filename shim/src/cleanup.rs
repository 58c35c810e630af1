//! Being written.

use corten::error::{Error, Result};

use crate::cli::Args;

/// Carries out `delete`.
///
/// # Errors
/// Always, for now.
pub fn run(args: &Args) -> Result<()> {
    Err(Error::Unsupported(format!("delete {} is not written yet", args.id)))
}
