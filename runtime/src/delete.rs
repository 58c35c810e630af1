//! `delete`: whatever is left of a container, gone, however far its life came.
//!
//! The order makes it repeatable at every step: end the processes, remove the cgroups, run the
//! poststop hooks, and only then the directory with the journal that knows all this. `--force`
//! does not believe in the journal: when it can't be read, the cgroups are found again from the
//! container's own copy of its config, and their processes are killed there.

use std::time::Duration;

use nix::errno::Errno;
use oci_spec::runtime::Linux;

use crate::cgroup::{self, Cgroup};
use crate::error::{Doing, Error, Result};
use crate::hooks::{Hooks, Kind};
use crate::kill;
use crate::spec;
use crate::state::{State, Status};
use crate::store::{Dir, Lock, Store};
use crate::sys::process::pidfd_send_signal;

/// How long killed processes may take to end.
const GRACE: Duration = Duration::from_secs(10);

/// Deletes container `id`.
///
/// # Errors
/// [`Error::NotFound`] and, for a running container, [`Error::Status`]; neither with `force`.
pub fn delete(store: &Store, id: &str, force: bool) -> Result<()> {
    let dir = match store.open(id) {
        Err(Error::NotFound(_)) if force => return Ok(()),
        other => other?,
    };
    let Some(lock) = lock(&dir, force)? else { return Ok(()) };
    match dir.read_state() {
        Ok(state) => delete_known(&dir, &state, force)?,
        Err(error) if !force => return Err(error),
        Err(error) => delete_unknown(&dir, error.errno() == Some(Errno::ENOENT))?,
    }
    let removed = dir.remove();
    drop(lock);
    removed
}

/// The container's lock; none when somebody else deleted it meanwhile and `force` is content with
/// that. A create that hangs (in a hook, in a mount) holds the lock: `force` kills its init, which
/// makes it fail and take everything back.
fn lock(dir: &Dir, force: bool) -> Result<Option<Lock>> {
    let first = dir.lock(if force { Duration::ZERO } else { GRACE });
    match first {
        Ok(lock) => return Ok(Some(lock)),
        Err(Error::NotFound(_)) if force => return Ok(None),
        Err(Error::Status(_)) if force => {}
        Err(error) => return Err(error),
    }
    if let Ok(state) = dir.read_state() {
        kill::kill(&state, libc::SIGKILL, true)?;
    }
    match dir.lock(GRACE) {
        Ok(lock) => Ok(Some(lock)),
        Err(Error::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

fn delete_known(dir: &Dir, state: &State, force: bool) -> Result<()> {
    if !force && let status @ (Status::Running | Status::Paused) = state.status()? {
        return Err(Error::Status(format!(
            "cannot delete container {} that is not stopped: {status}",
            state.id
        )));
    }
    if let Some(pidfd) = kill::init_pidfd(state)? {
        // Itself too: it may have left its cgroups, or been moved.
        match pidfd_send_signal(&pidfd, libc::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => {
                return Err(errno).doing(|| format!("kill container {}", state.id));
            }
        }
        kill::kill(state, libc::SIGKILL, true)?;
        if !kill::wait_ended(&pidfd, GRACE)? {
            return Err(Error::Failed(format!(
                "delete container {}: container init still running after {} s",
                state.id,
                GRACE.as_secs()
            )));
        }
    }
    if let Some(cgroup) = state.open_cgroup() {
        end(&cgroup)?;
    }
    if state.init.is_some() {
        run_poststop(dir, state);
    }
    Ok(())
}

/// Without a readable journal: the cgroups as the config names them, and in a damaged directory
/// without a readable config those that a config without `cgroupsPath` means.
fn delete_unknown(dir: &Dir, no_journal: bool) -> Result<()> {
    let linux = match dir.read_config().and_then(|bytes| spec::parse(&bytes)) {
        Ok(config) => config.linux().clone().unwrap_or_default(),
        // Create was killed before it made anything else, or delete when all else was gone.
        Err(_) if no_journal => return Ok(()),
        Err(_) => Linux::default(),
    };
    let systemd = cgroup::systemd::means(linux.cgroups_path().as_deref());
    let options = cgroup::Options { id: &dir.id, rootless: true, systemd, ..Default::default() };
    // That they exist says nothing now: this container's directory names them, and create refuses
    // a group that has another one's processes.
    let mut found = Cgroup::locate(&cgroup::Plan::new(&linux, &options)?)?.record();
    found.taken = true;
    found.groups.iter_mut().for_each(|group| group.existed = false);
    end(&Cgroup::open(&found))
}

/// Ends what is left in the cgroups and removes them.
fn end(cgroup: &Cgroup) -> Result<()> {
    cgroup.kill_all(GRACE)?;
    cgroup.remove()
}

/// A hook that fails, or a config that can't be read any more, is a warning (runtime.md).
fn run_poststop(dir: &Dir, state: &State) {
    let run = || -> Result<()> {
        let hooks = match dir.read_config() {
            // An earlier delete was killed while it removed the directory: they have run.
            Err(error) if error.errno() == Some(Errno::ENOENT) => return Ok(()),
            other => spec::parse_hooks(&other?)?,
        };
        let hooks = Hooks::new(hooks.as_ref())?;
        if hooks.any(&[Kind::Poststop]) {
            hooks.run_all(Kind::Poststop, &state.document(Status::Stopped, 0)?);
        }
        Ok(())
    };
    if let Err(error) = run() {
        tracing::warn!("poststop hooks of container {}: {error}", state.id);
    }
}
