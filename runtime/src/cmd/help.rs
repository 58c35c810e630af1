//! `corten --help`, `corten help [COMMAND]`, `corten COMMAND --help`.

use crate::error::{Error, Result};
use crate::output;

/// Prints the help of the whole program, or of one command.
///
/// # Errors
/// [`Error::Usage`] if there is no such command; [`Error::Sys`] if standard output is gone.
pub fn run(verb: Option<&str>) -> Result<u8> {
    let mut tree = super::tree();
    tree.build();
    let text = match verb {
        None => tree.render_long_help().to_string(),
        Some(verb) => match tree.find_subcommand_mut(verb) {
            Some(command) => command.render_long_help().to_string(),
            None => return Err(Error::Usage(format!("no help for {verb:?}: not a command"))),
        },
    };
    output::print(&text)?;
    Ok(0)
}
