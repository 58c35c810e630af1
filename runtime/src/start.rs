//! `start`: open the gate, learn that the user's program runs, run the poststart hooks.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::gate;
use crate::hooks::{Hooks, Kind};
use crate::kill;
use crate::state::{State, Status};
use crate::store::{Dir, GATE};

/// How long `start` waits for another command that changes the same container.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Starts the created container in `dir`, whose lock the caller holds.
///
/// # Errors
/// [`Error::Status`] when it is not `created`; what the init said when the user's program could
/// not be executed; a poststart hook's failure, after which the container is killed.
pub fn start(dir: &Dir, state: &State, hooks: &Hooks) -> Result<()> {
    let refuse = |words: &str| Err(Error::Status(words.to_owned()));
    match state.status() {
        Status::Created => {}
        Status::Stopped => return refuse("cannot start a container that has stopped"),
        Status::Running => return refuse("cannot start an already running container"),
        other => return refuse(&format!("cannot start a container in the {other} state")),
    }
    gate::open(dir)?;
    dir.remove_file(GATE)?;
    if hooks.any(&[Kind::Poststart]) {
        let pid = state.init.map_or(0, |init| init.pid);
        let document = state.document(Status::Running, pid)?;
        hooks.run(Kind::Poststart, &document, None).inspect_err(|_| {
            // The hook's failure is the error to tell; a container that ended by itself is fine.
            let _already_ended = kill::kill(state, libc::SIGKILL, true);
        })?;
    }
    Ok(())
}
