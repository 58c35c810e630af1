//! One verb, one file: its arguments, one call, what it prints.
//!
//! [`dispatch`] is where a verb's name becomes a call; [`command`] is what it takes.

mod console;
pub mod create;
pub mod delete;
pub mod exec;
pub mod features;
pub mod help;
pub mod kill;
pub mod list;
pub mod pause;
pub mod ps;
pub mod resume;
pub mod run;
pub mod spec;
pub mod start;
pub mod state;
pub mod update;
pub mod version;

use std::ffi::OsString;

use crate::cli::options::{Arguments, Command};
use crate::cli::{self, Globals};
use crate::error::{Error, Result};

/// The exit code of a command that failed.
const FAILURE: u8 = 1;
/// The exit code of a word that is no command, runc's.
const UNKNOWN: u8 = 3;
/// The exit code of an `exec` that failed itself, so that callers can tell it from the command's.
const EXEC_FAILURE: u8 = 255;

/// What the program is.
pub const ABOUT: &str = "An OCI container runtime: runs containers from bundles";

/// The verbs with the line that describes each, in the order that `--help` shows them.
pub const VERBS: &[(&str, &str)] = &[
    ("create", "Prepare a container; its program waits for start"),
    ("start", "Let a created container run its program"),
    ("run", "Create and start a container, and wait for it"),
    ("exec", "Run another program in a container"),
    ("kill", "Send a signal to a container"),
    ("delete", "Remove a container and all that belongs to it"),
    ("state", "Print the state of a container as JSON"),
    ("list", "List containers"),
    ("ps", "List the processes of a container"),
    ("pause", "Freeze all processes of a container"),
    ("resume", "Thaw a paused container"),
    ("update", "Change the resource limits of a container"),
    ("spec", "Write a config.json to start from"),
    ("features", "Print what this runtime can do, as JSON"),
];

/// The exit code when `verb` fails: managers take that of a foreground `exec` for the command's.
pub fn failure_code(verb: &str) -> u8 {
    match verb {
        "exec" => EXEC_FAILURE,
        verb if is_known(verb) => FAILURE,
        _ => UNKNOWN,
    }
}

fn is_known(verb: &str) -> bool {
    VERBS.iter().any(|(name, _)| *name == verb)
}

/// Parses the arguments of `verb` and carries it out; the answer is the process's exit code.
///
/// # Errors
/// Whatever the verb fails with; [`Error::Usage`] for a verb that is none.
pub fn dispatch(globals: &Globals, verb: &str, args: Vec<OsString>) -> Result<u8> {
    match verb {
        "create" => go("create", globals, args, create::run),
        "start" => go("start", globals, args, start::run),
        "run" => go("run", globals, args, run::run),
        "exec" => go("exec", globals, args, exec::run),
        "kill" => go("kill", globals, args, kill::run),
        "delete" => go("delete", globals, args, delete::run),
        "state" => go("state", globals, args, state::run),
        "list" => go("list", globals, args, list::run),
        "ps" => go("ps", globals, args, ps::run),
        "pause" => go("pause", globals, args, pause::run),
        "resume" => go("resume", globals, args, resume::run),
        "update" => go("update", globals, args, update::run),
        "spec" => go("spec", globals, args, spec::run),
        "features" => go("features", globals, args, features::run),
        other => Err(Error::Usage(format!("{other:?} is not a command; see corten --help"))),
    }
}

fn go<A: Arguments>(
    verb: &'static str,
    globals: &Globals,
    args: Vec<OsString>,
    run: fn(&Globals, &A) -> Result<u8>,
) -> Result<u8> {
    match cli::verb::<A>(verb, args)? {
        Some(args) => run(globals, &args),
        None => help::run(Some(verb)),
    }
}

/// The exit code of a command that ran a program in the foreground: the program's own, or 128 and
/// the signal's number.
fn exit_code(exit: crate::sys::wait::Exit) -> Result<u8> {
    u8::try_from(exit.status()).map_err(|_| Error::Failed(format!("unexpected end: {exit:?}")))
}

/// The table of a verb, for help, completions and man pages.
pub fn command(verb: &str) -> Option<Command> {
    let (name, _) = VERBS.iter().find(|(name, _)| *name == verb)?;
    let tables = match *name {
        "create" => create::Args::TABLES,
        "start" => start::Args::TABLES,
        "run" => run::Args::TABLES,
        "exec" => exec::Args::TABLES,
        "kill" => kill::Args::TABLES,
        "delete" => delete::Args::TABLES,
        "state" => state::Args::TABLES,
        "list" => list::Args::TABLES,
        "ps" => ps::Args::TABLES,
        "pause" => pause::Args::TABLES,
        "resume" => resume::Args::TABLES,
        "update" => update::Args::TABLES,
        "spec" => spec::Args::TABLES,
        _ => features::Args::TABLES,
    };
    Some(Command { name, tables })
}
