//! `corten --help`, `corten help [COMMAND]`, `corten COMMAND --help`.

use crate::cli::{PROGRAM, help};
use crate::error::{Error, Result};
use crate::output;

use super::{ABOUT, VERBS, command};

/// Prints the help of the whole program, or of one command.
///
/// # Errors
/// [`Error::Usage`] if there is no such command; [`Error::Sys`] if standard output is gone.
pub fn run(verb: Option<&str>) -> Result<u8> {
    output::print(&text(verb)?)?;
    Ok(0)
}

fn text(verb: Option<&str>) -> Result<String> {
    let Some(verb) = verb else { return Ok(help::program(ABOUT, &PROGRAM, VERBS)) };
    let about = VERBS.iter().find(|(name, _)| *name == verb).map(|(_, about)| *about);
    match (about, command(verb)) {
        (Some(about), Some(command)) => Ok(help::command(PROGRAM.name, about, &command)),
        _ => Err(Error::Usage(format!("no help for {verb:?}: not a command"))),
    }
}
