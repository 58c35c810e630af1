//! Standard output: written whole, and a failure to do so is a failure of the command.

use std::io::Write;

use crate::error::{Doing, Result};

/// Writes `text` to standard output as it is.
///
/// # Errors
/// [`crate::Error::Sys`] if it cannot be written completely, a closed pipe included.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .doing(|| "write to standard output".to_owned())
}
