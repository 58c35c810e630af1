//! `delete`: what is left of a container whose shim has died, and how its init ended.
//!
//! containerd runs it when it has lost the connection to a shim, also when that was in order: it
//! knows nothing but the bundle, and needs neither containerd nor a shim. What is gone already is no
//! error; only an init that can't be killed is, since a container that lives must not be reported as
//! ended.
//!
//! The exit status is a fact, or containerd's own 137 where nobody knows one. The facts, in this
//! order: the record that the shim wrote before it told anybody ([`exits`]); what the kernel still
//! says of the process ([`Init`]), for which it is opened before it is killed. Go's shims always
//! answer 137.
//!
//! containerd 2 runs it for a pod's own container alone and takes the others, whose shim it was too,
//! for gone. So whoever gave its name to a group takes the group along, once the shim is dead; how
//! the others ended is recorded in their bundles, should they be asked for after all.
//!
//! Order: the processes end before the root file system is unmounted, which they use. The socket
//! goes last and only if nobody listens: a pod's shim lives on when one of its containers is
//! cleaned up.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use containerd_shim_protos::protobuf::Message;
use corten::delete;
use corten::error::{Doing, Error, Result};
use corten::host::in_user_namespace;
use corten::state::{Process, Stat};
use corten::store::Store;
use corten::sys::wait::{self, told_exit_of};
use nix::unistd::geteuid;

use crate::bootstrap::{ADDRESS, group_among, print, socket};
use crate::bundle::{PID_FILE, ROOTFS};
use crate::cli::Args;
use crate::exits::{self, Exit, KILLED};
use crate::mounts::unmount_all;
use crate::options::Options;

/// Carries out `delete`.
///
/// # Errors
/// When the container's init can't be ended; when nobody reads the answer.
pub fn run(args: &Args) -> Result<()> {
    let bundle = match &args.bundle {
        Some(path) => path.clone(),
        None => std::env::current_dir().doing(|| "find the working directory".to_owned())?,
    };
    let exit = clean_up(&bundle, &args.namespace, &args.id)?;
    // containerd may remove the bundle meanwhile, with the note of where the socket is. This is
    // where it is unless the shim was a pod's, or the directory another one.
    let usual = socket::path(Path::new(socket::DIR), &args.address, &args.namespace, &args.id);
    or_warn(socket::remove_dead(&usual));
    let answer = exit.delete_response().write_to_bytes();
    print(&answer.map_err(|error| Error::Failed(error.to_string()))?)
}

/// Removes all that there is of the container; the answer is how its init ended.
fn clean_up(bundle: &Path, namespace: &str, id: &str) -> Result<Exit> {
    let options = or_warn(Options::read(bundle)).unwrap_or_default();
    let store = Store::new(options.runtime_root(namespace), false);
    let exit = end(&store, bundle, id)?;
    or_warn(end_group(&store, bundle, id));
    or_warn(remove_socket(bundle));
    Ok(exit)
}

/// Ends one container.
fn end(store: &Store, bundle: &Path, id: &str) -> Result<Exit> {
    let recorded = or_warn(exits::read(bundle, None)).flatten();
    let init = Init::find(store, id, bundle);
    if let Err(error) = delete::delete(store, id, true) {
        if init.lives() {
            return Err(error);
        }
        tracing::warn!("delete container {id}: {error}");
    }
    let exit = recorded.unwrap_or_else(|| init.exit());
    or_warn(unmount_all(&bundle.join(ROOTFS)));
    Ok(exit)
}

/// Ends the containers of the group that has its name from `leader`, unless their shim lives.
fn end_group(store: &Store, bundle: &Path, leader: &str) -> Result<()> {
    let Some(socket) = address(bundle) else { return Ok(()) };
    if socket::answers(&socket)? {
        return Ok(());
    }
    for id in store.ids()? {
        let Ok(state) = store.open(&id).and_then(|dir| dir.read_state()) else { continue };
        if id != leader && group_among(&state.annotations) == Some(leader) {
            tracing::info!("container {id} had the same shim");
            let exit = or_warn(end(store, &state.bundle, &id));
            if let Some(exit) = exit.filter(|_| state.bundle.exists()) {
                or_warn(exits::write(&state.bundle, None, &exit));
            }
        }
    }
    Ok(())
}

/// What has gone wrong beside the way; containerd logs it.
fn or_warn<T>(result: Result<T>) -> Option<T> {
    result.map_err(|error| tracing::warn!("{error}")).ok()
}

/// The socket that `start` noted in the bundle; none if it has not come that far.
fn address(bundle: &Path) -> Option<PathBuf> {
    let address = fs::read_to_string(bundle.join(ADDRESS)).ok()?;
    socket::path_of(&address).map(Path::to_owned)
}

/// Removes the socket, if nobody listens there.
fn remove_socket(bundle: &Path) -> Result<()> {
    address(bundle).map_or(Ok(()), |socket| socket::remove_dead(&socket))
}

/// The container's first process, as far as it is known. It is not our child.
#[derive(Debug)]
struct Init {
    /// Zero if nobody has noted it.
    pid: i32,
    /// What the journal says of it, and a handle from before it was killed: it may be a zombie.
    handle: Option<(Process, OwnedFd)>,
}

impl Init {
    fn find(store: &Store, id: &str, bundle: &Path) -> Self {
        let state = store.open(id).and_then(|dir| dir.read_state());
        let known = state.ok().and_then(|state| state.init);
        let pid = known.map_or_else(|| pid_of(&bundle.join(PID_FILE)), |init| init.pid);
        Self { pid, handle: known.and_then(handle) }
    }

    fn lives(&self) -> bool {
        self.handle.as_ref().is_some_and(|(init, _)| {
            let stat = Stat::of(init.pid());
            stat.is_ok_and(|now| now.start_time == init.start_time && now.state != 'Z')
        })
    }

    /// How it ended: a zombie says so in /proc, a pidfd (Linux 6.15) when its parent has waited.
    fn exit(&self) -> Exit {
        let known = self
            .handle
            .as_ref()
            .and_then(|(init, pidfd)| zombie(*init).or_else(|| told_exit_of(pidfd).ok().flatten()));
        Exit {
            pid: u32::try_from(self.pid).unwrap_or_default(),
            status: known.and_then(|exit| u32::try_from(exit.status()).ok()).unwrap_or(KILLED),
            exited_at: SystemTime::now(),
        }
    }
}

/// With a pidfd of that very process, also if it has ended and nobody has waited for it yet.
fn handle(init: Process) -> Option<(Process, OwnedFd)> {
    init.open().ok().flatten().map(|pidfd| (init, pidfd))
}

/// The kernel says 0 for every exit to those who may not look.
fn zombie(init: Process) -> Option<wait::Exit> {
    let stat = Stat::of(init.pid()).ok()?;
    let may_look = geteuid().is_root() && !in_user_namespace();
    let ended = stat.start_time == init.start_time && stat.state == 'Z' && may_look;
    ended.then(|| wait::Exit::from_wait(stat.exit_code))
}

fn pid_of(file: &Path) -> i32 {
    // No file: there was no process.
    let text = fs::read_to_string(file).unwrap_or_default();
    text.trim().parse().ok().filter(|pid| *pid > 0).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use corten::kill::wait_ended;
    use corten::sys::process::{CloneArgs, Cloned, clone, exit_now, pidfd_send_signal};
    use nix::sys::wait::waitpid;
    use nix::unistd::Pid;

    use super::*;

    /// A process that ends with 3 when it is told to, or when it is killed.
    fn child() -> (Pid, Init) {
        let Cloned::Parent(pid, pidfd) = clone(&CloneArgs::default()).unwrap() else {
            std::thread::sleep(Duration::from_secs(60));
            exit_now(1)
        };
        let init = Process::of(pid).unwrap();
        (pid, Init { pid: pid.as_raw(), handle: Some((init, pidfd)) })
    }

    fn ended_with(code: i32) -> (Pid, Init) {
        let Cloned::Parent(pid, pidfd) = clone(&CloneArgs::default()).unwrap() else {
            exit_now(code)
        };
        let init = Process::of(pid).unwrap();
        wait_ended(&pidfd, Duration::from_secs(10)).unwrap();
        (pid, Init { pid: pid.as_raw(), handle: Some((init, pidfd)) })
    }

    #[test]
    fn the_exit_of_a_process_is_known_before_and_after_its_parent_has_waited() {
        let (pid, init) = ended_with(3);
        assert!(!init.lives());
        assert_eq!(init.exit().status, 3);
        assert!(handle(init.handle.as_ref().unwrap().0).is_some());
        waitpid(pid, None).unwrap();
        assert!(!init.lives());
        assert_eq!(i64::from(init.exit().pid), i64::from(pid.as_raw()));
        let (_, pidfd) = init.handle.as_ref().unwrap();
        // A kernel before 6.15 can't tell.
        let expected = if told_exit_of(pidfd).is_ok() { 3 } else { KILLED };
        assert_eq!(init.exit().status, expected);
    }

    #[test]
    fn a_process_that_lives_is_seen_to() {
        let (pid, init) = child();
        assert!(init.lives());
        let (_, pidfd) = init.handle.as_ref().unwrap();
        pidfd_send_signal(pidfd, libc::SIGKILL).unwrap();
        wait_ended(pidfd, Duration::from_secs(10)).unwrap();
        assert_eq!(init.exit().status, 137);
        waitpid(pid, None).unwrap();
        // Another process with the same pid would not have its start time.
        let other = Process { pid: Pid::this().as_raw(), start_time: 1, inode: None };
        assert!(handle(other).is_none());
    }

    #[test]
    fn nothing_there_is_nothing_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let bundle = dir.path().join("bundle");
        for _ in 0..2 {
            let exit = clean_up(&bundle, "corten-test-none", "none").unwrap();
            assert_eq!((exit.pid, exit.status), (0, KILLED));
            fs::create_dir_all(&bundle).unwrap();
        }
    }
}
