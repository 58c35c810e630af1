//! `corten run`: creates and starts a container, and waits for it unless detached.

use std::os::fd::AsFd;

use nix::sys::prctl;

use super::console::{Console, master};
use super::exit_code;
use crate::cli::Globals;
use crate::cli::options::arguments;
use crate::create::{self, Created};
use crate::error::{Doing, Result};
use crate::process::foreground::Foreground;
use crate::start::{self, Wait};
use crate::{delete, seal};

arguments! {
    /// The arguments of `corten run`.
    pub struct Args {
        include create: super::create::Args;
        /// Return once the container runs.
        detach: bool = flag, short 'd';
        /// Keep the container's record when its program has ended.
        keep: bool = flag;
        /// Do not become the reaper of orphaned processes of the container.
        no_subreaper: bool = flag;
    }
}

/// Carries out `corten run`; the answer is the program's exit code, or 0 when detached.
///
/// # Errors
/// Whatever went wrong; the container is gone then.
pub fn run(globals: &Globals, args: &Args) -> Result<u8> {
    seal::ensure()?;
    if !args.detach && !args.no_subreaper {
        prctl::set_child_subreaper(true).doing(|| "become a subreaper".to_owned())?;
    }
    let socket = args.create.console_socket.as_deref();
    let bundle = args.create.bundle()?;
    let console = Console::new(bundle.wants_terminal(), args.detach, socket)?;
    let foreground = if args.detach { None } else { Some(Foreground::begin()?) };

    let store = globals.store();
    let request = args.create.request(globals, console.container)?;
    let Created { dir, lock, state, hooks, init } = create::create(&store, bundle, request)?;
    let wait = if args.detach { Wait::ForReady } else { Wait::No };
    let started = start::start(&dir, &state, &hooks, wait);
    drop(lock);
    let id = &args.create.id;
    if let Err(error) = started {
        delete::delete(&store, id, true)?;
        return Err(error);
    }
    let Some(foreground) = foreground else { return Ok(0) };
    let exit = foreground.finish(init.pidfd.as_fd(), master(console.ours)?);
    if !args.keep {
        delete::delete(&store, id, true)?;
    }
    exit_code(exit?)
}
