//! `start`: open the gate, learn that the user's program runs, run the poststart hooks.

use std::time::Duration;

use nix::unistd::Pid;

use crate::create::died;
use crate::error::{Error, Result};
use crate::gate;
use crate::hooks::{Hooks, Kind};
use crate::notify::Notify;
use crate::state::{State, Status};
use crate::store::{Dir, GATE, Store};
use crate::{kill, spec};

/// How long `start` waits for another command that changes the same container.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// What to do about a service manager that wants to know when the container is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Come back when it is.
    ForReady,
    /// Come back at once; a process of ours tells the service manager.
    No,
}

/// Starts the created container `id`.
///
/// # Errors
/// As [`start`], and [`Error::NotFound`].
pub fn start_by_id(store: &Store, id: &str) -> Result<()> {
    let dir = store.open(id)?;
    let _lock = dir.lock(PATIENCE)?;
    let state = dir.read_state()?;
    let hooks = spec::parse_hooks(&dir.read_config()?)?;
    start(&dir, &state, &Hooks::new(hooks.as_ref())?, Wait::ForReady)
}

/// Starts the created container in `dir`, whose lock the caller holds.
///
/// # Errors
/// [`Error::Status`] when it is not `created`; what the init said when the user's program could
/// not be executed; a poststart hook's failure, after which the container is killed.
pub fn start(dir: &Dir, state: &State, hooks: &Hooks, wait: Wait) -> Result<()> {
    let refuse = |words: &str| Err(Error::Status(words.to_owned()));
    match state.status()? {
        Status::Created => {}
        Status::Stopped => return refuse("cannot start a container that has stopped"),
        Status::Running => return refuse("cannot start an already running container"),
        other => return refuse(&format!("cannot start a container in the {other} state")),
    }
    let notify = Notify::from_env().map(|notify| notify.listen(dir)).transpose()?.flatten();
    // When it says why it can't go on it is on its way out, and not created any more.
    let init = kill::init_pidfd(state)?;
    let let_in = gate::open(dir).inspect_err(|error| {
        if let (Error::Failed(_), Some(init)) = (error, &init) {
            let _told_already = kill::wait_ended(init, PATIENCE);
        }
    })?;
    // Of one that somebody has waited for the kernel knows nothing any more.
    if state.has_died_early()? || (!let_in && state.live_init()?.is_none()) {
        return Err(died(state.open_cgroup().as_ref()));
    }
    if !let_in {
        return refuse("cannot start an already running container");
    }
    dir.remove_file(GATE)?;
    if hooks.any(&[Kind::Poststart]) {
        let pid = state.init.map_or(0, |init| init.pid);
        let document = state.document(Status::Running, pid)?;
        hooks.run(Kind::Poststart, &document, None).inspect_err(|_| {
            // The hook's failure is the error to tell; a container that ended by itself is fine.
            let _already_ended = kill::kill(state, libc::SIGKILL, true);
        })?;
    }
    if let (Some(notify), Some(init)) = (notify, kill::init_pidfd(state)?) {
        let pid = state.init.map_or(Pid::from_raw(0), |init| init.pid());
        match wait {
            Wait::ForReady => notify.forward(pid, &init)?,
            Wait::No => notify.forward_aside(pid, &init)?,
        }
    }
    Ok(())
}
