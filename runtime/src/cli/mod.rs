//! The command line: global options, one verb, the verb's options.
//!
//! Managers call a runtime in ways that a strict parser refuses: globals given twice, `-no-subreaper`
//! with one dash, `--debug=false`, options behind the id. The parser takes all of these; what a
//! command takes is in its table ([`options`]).
//!
//! What is wrong with a command line is said in one line, as every error (`reference/cli.md` 1.0,
//! 1.9): managers put it into theirs.

mod globals;
pub mod help;
pub mod options;
mod parse;
pub mod units;

use std::ffi::{OsStr, OsString};

pub use globals::{CgroupManager, Globals, LogFormat, LogLevel, RootFrom, Rootless};

use crate::error::{Error, Result};
use options::{Arguments, Command};
use parse::{Options, Parsed, parse};

/// The most bytes of a container's id: it names a directory.
const ID_MAX: usize = 255;

/// The program itself, with the global options.
pub const PROGRAM: Command = Command { name: "corten", tables: globals::Given::TABLES };

/// What the words before the verb's own arguments ask for.
#[derive(Debug)]
pub enum Request {
    /// `--version`.
    Version,
    /// `--help`, `help [VERB]`, or nothing at all.
    Help(Option<String>),
    /// A verb and its arguments, as they came.
    Verb(String, Vec<OsString>),
}

/// Splits a command line, without the program's name, into global options and a request.
///
/// # Errors
/// [`Error::Usage`] for an unknown or malformed global option.
pub fn split(words: impl Iterator<Item = OsString>) -> Result<(Globals, Request)> {
    let Parsed { help, mut given } = parse(&PROGRAM, words, Options::First)?;
    let options = globals::Given::take(&mut given)?;
    let mut words = given.operands;
    let verb = if help { None } else { words.next() };
    let request = match verb {
        _ if options.version => Request::Version,
        None => Request::Help(None),
        Some(verb) => match utf8(verb)?.as_str() {
            "help" | "h" => Request::Help(words.next().map(utf8).transpose()?),
            verb => Request::Verb(verb.to_owned(), words.collect()),
        },
    };
    Ok((Globals::resolve(options)?, request))
}

/// The arguments of one verb; `None` when they ask for help instead.
///
/// # Errors
/// [`Error::Usage`] with one line that names the option or argument.
pub fn verb<A: Arguments>(name: &'static str, words: Vec<OsString>) -> Result<Option<A>> {
    // The command behind the id has options of its own.
    let options = if matches!(name, "exec" | "ps") { Options::First } else { Options::Anywhere };
    let command = Command { name, tables: A::TABLES };
    let Parsed { help, mut given } = parse(&command, words.into_iter(), options)?;
    if help {
        return Ok(None);
    }
    if options == Options::First {
        given.operands = without_dashes(given.operands);
    }
    let arguments = A::take(&mut given)?;
    given.end()?;
    Ok(Some(arguments))
}

/// `exec ID -- COMMAND` is `exec ID COMMAND`: no command is called `--`.
fn without_dashes(words: std::vec::IntoIter<OsString>) -> std::vec::IntoIter<OsString> {
    let mut words: Vec<OsString> = words.collect();
    if words.get(1).is_some_and(|word| word == "--") {
        words.remove(1);
    }
    words.into_iter()
}

fn utf8(word: OsString) -> Result<String> {
    word.into_string().map_err(|word| Error::Usage(format!("{word:?} is not UTF-8")))
}

/// Checks a container's id: what every peer accepts, and no name that is a path.
///
/// # Errors
/// Says what is wrong with it.
pub fn container_id(value: &OsStr) -> std::result::Result<String, String> {
    let text = options::utf8(value)?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_+.-".contains(&byte);
    if text.is_empty() {
        Err("container id cannot be empty".to_owned())
    } else if text.len() > ID_MAX {
        Err(format!("invalid container ID format: {} bytes, at most {ID_MAX} can be", text.len()))
    } else if text == "." || text == ".." || !text.bytes().all(allowed) {
        Err(format!("invalid container ID format: {text:?} (letters, digits and _+.- only)"))
    } else {
        Ok(text.to_owned())
    }
}

/// How `list` and `ps` print.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Columns for people.
    Table,
    /// One line for programs.
    Json,
}

/// Reads the value of `--format`.
///
/// # Errors
/// Anything but the two.
pub fn format(value: &OsStr) -> std::result::Result<Format, String> {
    match options::utf8(value)? {
        "table" => Ok(Format::Table),
        "json" => Ok(Format::Json),
        other => Err(format!("invalid format {other:?}: neither table nor json")),
    }
}

#[cfg(test)]
mod tests;
