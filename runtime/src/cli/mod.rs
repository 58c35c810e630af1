//! The command line: global options, one verb, the verb's options.
//!
//! Managers call a runtime in ways that a strict parser refuses: globals given twice, `-no-subreaper`
//! with one dash, `--debug=false`, options behind the id. [`normal`] rewrites all of these to one
//! form, and only then clap gives the values their types. Only the Command of the verb at hand is
//! built: the whole tree exists for `--help` and the man pages.
//!
//! What is wrong with a command line is said in one line, as every error (`reference/cli.md` 1.0,
//! 1.9): managers put it into theirs.

mod globals;
mod normal;
pub mod units;

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, Command, FromArgMatches};

pub use globals::{CgroupManager, Globals, LogFormat, LogLevel, RootFrom, Rootless};

use crate::error::{Error, Result};
use normal::{Normal, Positionals};

/// The most bytes of a container's id: it names a directory.
const ID_MAX: usize = 255;

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
pub fn split(args: impl Iterator<Item = OsString>) -> Result<(Globals, Request)> {
    let table = globals::Options::augment_args(bare("corten"));
    let mut normal = normal::normalise(&table, args, Positionals::First)?;
    let mut rest = std::mem::take(&mut normal.rest).into_iter();
    let verb = rest.next();
    let help = normal.help;
    let options: globals::Options = typed(table, normal)?;
    let request = if options.version {
        Request::Version
    } else if help {
        Request::Help(None)
    } else {
        match verb {
            None => Request::Help(None),
            Some(verb) => {
                let verb = utf8(verb)?;
                match verb.as_str() {
                    "help" | "h" => Request::Help(rest.next().map(utf8).transpose()?),
                    _ => Request::Verb(verb, rest.collect()),
                }
            }
        }
    };
    Ok((Globals::resolve(options)?, request))
}

/// The arguments of one verb; `None` when they ask for help instead.
///
/// # Errors
/// [`Error::Usage`] with one line that names the option or argument.
pub fn verb<A: Args>(name: &'static str, args: Vec<OsString>) -> Result<Option<A>> {
    let table = A::augment_args(bare(name));
    let positionals = match name {
        "exec" | "ps" => Positionals::First,
        _ => Positionals::Anywhere,
    };
    let mut normal = normal::normalise(&table, args.into_iter(), positionals)?;
    if normal.help {
        return Ok(None);
    }
    if positionals == Positionals::First && normal.rest.get(1).is_some_and(|word| word == "--") {
        normal.rest.remove(1);
    }
    typed(table, normal).map(Some)
}

/// The global options as clap describes them, for `--help` and the man pages.
pub fn with_globals(command: Command) -> Command {
    globals::Options::augment_args(command)
}

/// A Command without what only a person would read.
fn bare(name: &'static str) -> Command {
    Command::new(name).no_binary_name(true).disable_help_flag(true).disable_version_flag(true)
}

fn typed<A: FromArgMatches>(table: Command, normal: Normal) -> Result<A> {
    let verb = table.get_name().to_owned();
    table
        .try_get_matches_from(normal.into_words())
        .and_then(|mut matches| A::from_arg_matches_mut(&mut matches))
        .map_err(|error| Error::Usage(one_line(&verb, &error)))
}

/// clap's several lines as one.
fn one_line(verb: &str, error: &clap::Error) -> String {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::Strings(texts)) => texts.join(" "),
        _ => String::new(),
    };
    let argument = context(ContextKind::InvalidArg);
    let value = context(ContextKind::InvalidValue);
    let why = match error.kind() {
        ErrorKind::MissingRequiredArgument => format!("{argument} is missing"),
        ErrorKind::UnknownArgument => format!("unexpected argument {argument:?}"),
        ErrorKind::ValueValidation => {
            let reason = std::error::Error::source(error).map(ToString::to_string);
            let option = argument.split([' ', '=']).next().unwrap_or_default();
            format!("{option}: {}", reason.unwrap_or_else(|| format!("invalid value {value:?}")))
        }
        ErrorKind::InvalidUtf8 => "an argument is not UTF-8".to_owned(),
        _ => {
            let text = error.to_string();
            let line = text.lines().next().unwrap_or_default();
            line.strip_prefix("error: ").unwrap_or(line).to_owned()
        }
    };
    format!("{verb}: {why}")
}

fn utf8(word: OsString) -> Result<String> {
    word.into_string().map_err(|word| Error::Usage(format!("{word:?} is not UTF-8")))
}

/// Checks a container's id: what every peer accepts, and no name that is a path.
pub fn container_id(text: &str) -> std::result::Result<String, String> {
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
pub fn format(text: &str) -> std::result::Result<Format, String> {
    match text {
        "table" => Ok(Format::Table),
        "json" => Ok(Format::Json),
        other => Err(format!("invalid format {other:?}: table or json")),
    }
}
