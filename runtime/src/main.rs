//! The program `corten`: one command line, one error line, one exit code.
//!
//! Rust's own start-up reads `/proc/self/maps` and installs handlers for stack overflows, 35 µs of
//! the 85 that a start costs us, and every command is a start: so `main` is C's. What that leaves
//! out and matters is done here: standard streams that are closed are opened to `/dev/null`, lest a
//! file of ours becomes the container's output, and a broken pipe is an error, not a death that
//! leaves half a container.
#![cfg_attr(not(test), no_main)]

use std::sync::atomic::{AtomicU8, Ordering};

use corten::Result;
use corten::cli::{self, Request};
use corten::process::{fds, signals};
use corten::{cmd, log, sys};

/// The exit code if this command fails; a panic needs it too.
static FAILURE: AtomicU8 = AtomicU8::new(1);

/// Where libc starts us. glibc hands the arguments to `std::env` before.
#[cfg(not(test))]
#[expect(unsafe_code, reason = "the symbol is unique: without Rust's own main nobody defines it")]
#[unsafe(no_mangle)]
extern "C" fn main(_argc: libc::c_int, _argv: *const *const libc::c_char) -> libc::c_int {
    libc::c_int::from(start())
}

/// Runs the command; the answer is the exit code.
#[cfg_attr(test, expect(dead_code))]
fn start() -> u8 {
    std::panic::set_hook(Box::new(panicked));
    match prepare().and_then(|()| command()) {
        Ok(code) => {
            log::flush();
            code
        }
        Err(error) => {
            log::error(&error);
            FAILURE.load(Ordering::Relaxed)
        }
    }
}

/// What a caller may have left odd: standard streams closed, SIGCHLD ignored, signals blocked; and a
/// broken pipe is an error.
fn prepare() -> Result<()> {
    sys::process::ignore_broken_pipes();
    fds::ensure_stdio()?;
    signals::normalize()
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
    sys::process::exit_now(i32::from(FAILURE.load(Ordering::Relaxed)));
}
