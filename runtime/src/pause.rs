//! `pause` and `resume`: the container's cgroup, frozen and thawed.

use crate::cgroup::Cgroup;
use crate::error::{Error, Result};
use crate::start::PATIENCE;
use crate::state::{State, Status};
use crate::store::Store;

/// Freezes every process of container `id`.
///
/// # Errors
/// [`Error::NotRunning`] unless it is created or running.
pub fn pause(store: &Store, id: &str) -> Result<()> {
    let dir = store.open(id)?;
    let _lock = dir.lock(PATIENCE)?;
    let state = dir.read_state()?;
    match state.status()? {
        Status::Created | Status::Running => {}
        _ => return Err(Error::NotRunning),
    }
    let group = group(&state)?;
    group.freeze()?;
    // A kill just before found nothing to thaw, and nobody resumes a stopped container: an exec that is
    // under way would stay frozen.
    match state.status()? {
        Status::Stopped => group.thaw().and(Err(Error::NotRunning)),
        _ => Ok(()),
    }
}

/// Thaws a paused container.
///
/// # Errors
/// [`Error::Status`] with "container not paused".
pub fn resume(store: &Store, id: &str) -> Result<()> {
    let dir = store.open(id)?;
    let _lock = dir.lock(PATIENCE)?;
    let state = dir.read_state()?;
    match state.status()? {
        Status::Paused => group(&state)?.thaw(),
        _ => Err(Error::Status("container not paused".to_owned())),
    }
}

fn group(state: &State) -> Result<Cgroup> {
    state.open_cgroup().ok_or_else(|| {
        Error::Unsupported(format!("container {} has no cgroup to freeze", state.id))
    })
}
