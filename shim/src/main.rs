//! The program `containerd-shim-corten-v2`: what containerd starts, and the daemon that is left.
//!
//! `main` is C's, as the runtime's is and for the same reasons (`runtime/src/main.rs`).
#![cfg_attr(not(test), no_main)]

use std::ffi::OsString;

use containerd_shim_corten::bootstrap::daemon::{Ready, inherited_listener};
use containerd_shim_corten::bootstrap::socket;
use containerd_shim_corten::cli::{Action, Args, Environment, USAGE};
use containerd_shim_corten::server::{self, Config};
use containerd_shim_corten::{bootstrap, cleanup, info, log, worker};
use corten::error::{Error, Result};
use corten::process::fds::{self, Inherited};
use corten::process::signals;
use corten::sys;

/// Where libc starts us. glibc hands the arguments to `std::env` before.
#[cfg(not(test))]
#[expect(unsafe_code, reason = "the symbol is unique: without Rust's own main nobody defines it")]
#[unsafe(no_mangle)]
extern "C" fn main(_argc: libc::c_int, _argv: *const *const libc::c_char) -> libc::c_int {
    start()
}

/// What was asked for; the answer is the exit code.
#[cfg_attr(test, expect(dead_code))]
fn start() -> i32 {
    std::panic::set_hook(Box::new(panicked));
    match prepare().and_then(|()| command()) {
        Ok(()) => 0,
        Err(error) => {
            log::failure(&error);
            1
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

fn command() -> Result<()> {
    if std::env::args_os().nth(1).is_some_and(|verb| verb == worker::VERB) {
        worker::main_sealed();
    }
    let env = |name: &str| -> Option<OsString> { std::env::var_os(name) };
    let args = Args::parse(std::env::args_os().skip(1), env)?;
    let env = Environment::read(env);
    match args.action {
        Action::Help => bootstrap::print(USAGE.as_bytes()),
        Action::Version => info::print_version(),
        Action::Info => info::run(),
        Action::Start => {
            // Nothing that containerd left open is the daemon's.
            Inherited::take(0)?;
            bootstrap::start(&args, &env)
        }
        Action::Delete => {
            log::to_stderr()?;
            cleanup::run(&args)
        }
        Action::Serve => serve(args, env),
    }
}

/// The daemon, as `start` made it.
fn serve(args: Args, env: Environment) -> Result<()> {
    let mut ready = Ready::adopt(args.ready_fd)?;
    run(args, env, &mut ready).inspect_err(|error| ready.no(error))
}

fn run(args: Args, env: Environment, ready: &mut Ready) -> Result<()> {
    let listener = match &args.socket {
        Some(path) => socket::listen_on(path)?,
        None => inherited_listener()?,
    };
    log::to_fifo(args.level)?;
    let socket = socket::path_of_listener(&listener)?;
    let config = Config { namespace: args.namespace, ttrpc_address: env.ttrpc_address, listener };
    // The loop has let go of the listener: a socket without one would be in the way.
    server::run(config, ready).inspect_err(|_| socket::remove_dead(&socket).unwrap_or_default())
}

/// A bug, unless it is a worker's, which has somebody to tell.
fn panicked(info: &std::panic::PanicHookInfo<'_>) {
    log::failure(&Error::Failed(log::bug(info)));
    sys::process::exit_now(1);
}
