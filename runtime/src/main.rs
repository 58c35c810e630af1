//! The program `corten`: one command line, one error line, one exit code.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU8, Ordering};

use corten::cli::{self, Request};
use corten::{Result, cmd, log};

/// The exit code if this command fails; a panic needs it too.
static FAILURE: AtomicU8 = AtomicU8::new(1);

fn main() -> ExitCode {
    std::panic::set_hook(Box::new(panicked));
    match command() {
        Ok(code) => {
            log::flush();
            ExitCode::from(code)
        }
        Err(error) => {
            log::error(&error);
            ExitCode::from(FAILURE.load(Ordering::Relaxed))
        }
    }
}

fn command() -> Result<u8> {
    let (globals, request) = cli::split(std::env::args_os().skip(1))?;
    match request {
        Request::Version => cmd::version::run(),
        Request::Help(verb) => cmd::help::run(verb.as_deref()),
        Request::Verb(verb, args) => {
            FAILURE.store(cmd::failure_code(&verb), Ordering::Relaxed);
            log::init(&globals)?;
            cmd::dispatch(&globals, &verb, args)
        }
    }
}

/// A bug: one line that says where, no backtrace, and the exit code of a failure.
fn panicked(info: &std::panic::PanicHookInfo<'_>) {
    let place = info.location().map(|at| format!(" at {}:{}", at.file(), at.line()));
    let what = info.payload_as_str().unwrap_or("a panic");
    let message = format!("internal error{}: {what}", place.unwrap_or_default());
    log::error(&corten::Error::Failed(message));
    std::process::exit(i32::from(FAILURE.load(Ordering::Relaxed)));
}
