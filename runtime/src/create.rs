//! `create`, the parent's script, from top to bottom.
//!
//! Everything that can be wrong with the input is found before the first resource is made. Then
//! each resource is in the journal before it exists and has its undo from the moment it does. What
//! needs the host's view or the host's rights happens here (bind sources, id maps, limits, hooks);
//! what makes the container's inside happens in [`crate::init`], on a copy of this process. The two
//! speak as [`crate::sync`] says.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use nix::sys::prctl;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::geteuid;
use oci_spec::runtime::LinuxNamespaceType;

use crate::bundle::Bundle;
use crate::cgroup::Cgroup;
use crate::error::{Doing, Error, Result};
use crate::gate::Gate;
use crate::hooks::{Hooks, Kind};
use crate::init::{self, Inheritance};
use crate::namespaces::Joins;
use crate::notify::Notify;
use crate::plan::Plan;
use crate::process::fds::Inherited;
use crate::process::oom;
use crate::rootfs::{Moment, Sources};
use crate::spawn::{Birth, Child, spawn};
use crate::state::{FORMAT, Process, State, Status, boot_id};
use crate::store::{Dir, Lock, Store};
use crate::sync::{self, Go, Report, ToInit};
use crate::sys::process::{has_pidfds, pidfd_send_signal};
use crate::undo::Undo;
use crate::{error, host, log, pidfile, time};

/// What `create` and `run` are asked for.
#[derive(Debug, Default)]
pub struct Request {
    /// The container's id, valid.
    pub id: String,
    /// Where the terminal's master end goes.
    pub console: Option<OwnedFd>,
    /// Where a pidfd of the init goes.
    pub pidfd_socket: Option<PathBuf>,
    /// Where the init's pid goes.
    pub pid_file: Option<PathBuf>,
    /// Move and chroot instead of pivot_root.
    pub no_pivot: bool,
    /// Keep the caller's session keyring.
    pub no_new_keyring: bool,
    /// How many descriptors from 3 on the container gets.
    pub preserve_fds: u32,
    /// Go on without rights to cgroups.
    pub rootless: bool,
    /// Make cgroups at all.
    pub cgroups: bool,
    /// Let systemd make them.
    pub systemd: bool,
}

/// A created container, still locked, for `run` to start.
#[derive(Debug)]
pub struct Created {
    /// Its directory.
    pub dir: Dir,
    /// The right to change it.
    pub lock: Lock,
    /// Its journal.
    pub state: State,
    /// Its hooks.
    pub hooks: Hooks,
    /// Its first process, a child of this one.
    pub init: Child,
}

/// Creates a container. Returns only in the parent.
///
/// # Errors
/// Whatever went wrong; nothing of the container is left then.
pub fn create(store: &Store, mut bundle: Bundle, request: Request) -> Result<Created> {
    need_pidfds()?;
    let inherited = Inherited::take(request.preserve_fds)?;
    let notify = Notify::from_env();
    if let Some(notify) = &notify {
        notify.add_to(&mut bundle.config.spec, &store.root().join(&request.id))?;
    }
    let plan = Plan::new(&bundle.config.spec, &bundle.path, &request)?;
    let mut state = first_state(&bundle, &plan, &request)?;
    let (dir, lock) = store.claim(&request.id)?;
    let built = notify
        .map_or(Ok(()), |notify| notify.make_directory(&dir))
        .and_then(|()| build((&dir, &lock), &bundle, &plan, &mut state, inherited, request));
    match built {
        Ok(init) => Ok(Created { dir, lock, state, hooks: plan.hooks, init }),
        Err(error) => {
            if state.init.is_some() {
                plan.hooks.run_all(Kind::Poststop, &state.document(Status::Stopped, 0)?);
            }
            if let Err(left) = dir.remove() {
                tracing::warn!("undo: {left}");
            }
            Err(error)
        }
    }
}

/// The script.
fn build(
    (dir, lock): (&Dir, &Lock),
    bundle: &Bundle,
    plan: &Plan,
    state: &mut State,
    inherited: Inherited,
    request: Request,
) -> Result<Child> {
    let mut undo = Undo::new();

    let mut cgroup = if request.cgroups { Some(Cgroup::locate(&plan.cgroup)?) } else { None };
    state.cgroup = cgroup.as_ref().map(Cgroup::record);
    // The journal comes first: a config without one then means a damaged directory, never a create
    // that was killed before it knew whether the groups that the config names are its own.
    dir.write_state(state)?;
    dir.write_config(&bundle.config.bytes)?;

    if let Some(cgroup) = &mut cgroup {
        cgroup.create(&plan.cgroup)?;
        let made = Cgroup::open(&cgroup.record());
        undo.push("cgroup", move || made.remove());
        state.cgroup = Some(cgroup.record());
        cgroup.apply(&plan.cgroup)?;
    }
    plan.sysctl.check_joined()?;
    let gate = Gate::new(dir)?;
    let (to_init, to_parent) = sync::pair()?;
    let joins = plan.namespaces.open()?;
    let moment = moment(plan);
    let sources = match moment {
        Some(Moment::Before) => Sources::open(&plan.rootfs, Moment::Before)?,
        _ => Sources::none(),
    };
    let middle = joins.need_middle(plan.namespaces.is_new(LinuxNamespaceType::User));
    // A middle process would need a place of its own in the group: one more than `pids.limit` may have.
    let clone_into = match &cgroup {
        Some(cgroup) if !middle => cgroup.clone_fd()?,
        _ => None,
    };
    let seats = cgroup.as_ref().map(|cgroup| cgroup.seats(clone_into.is_some())).transpose()?;
    if geteuid().is_root() {
        // Before anything in a joined pid namespace can see the init (CVE-2016-9962). An ordinary
        // user's init must stay open for newuidmap until it is mapped.
        prctl::set_dumpable(false).doing(|| "prctl PR_SET_DUMPABLE".to_owned())?;
    }
    let proc = host::Proc::open()?;
    let birth = Birth {
        new: plan.namespaces.clone_flags(),
        joins: middle.then_some(&joins),
        user: None,
        before: None,
        pid: joins.pid().filter(|_| !middle),
        time: plan.namespaces.time_offsets().map(|offsets| (proc.as_fd(), offsets)),
        watch: None,
        cgroup: clone_into.as_ref().map(AsFd::as_fd),
    };
    let Some(init) = spawn(&birth)? else {
        drop(to_init);
        lock.close_in_child();
        let inheritance = Inheritance {
            plan,
            state,
            seats: seats.unwrap_or_default(),
            proc,
            joins: if middle { Joins::default() } else { joins },
            sources,
            moment,
            console: request.console,
            no_new_keyring: request.no_new_keyring,
            inherited,
        };
        init::main(inheritance, to_parent, gate);
    };
    drop((to_parent, gate, seats, joins, sources));
    let pidfd = init.pidfd.as_fd().try_clone_to_owned().doing(|| "dup a pidfd".to_owned())?;
    undo.push("init", move || end(&pidfd));
    state.init = Some(Process::of(init.pid)?);
    dir.write_state(state)?;

    let runtime = Runtime { plan, state, init: &init, request: &request, moment, proc: &proc };
    // A step that fails because the init has ended is not what went wrong.
    attend(&to_init, &runtime, cgroup.as_ref())
        .map_err(|error| to_init.last_words().unwrap_or(error))?;
    if let Some(cgroup) = &mut cgroup {
        cgroup.settle(&plan.cgroup, init.pid)?;
    }
    let gone = |_| to_init.last_words().unwrap_or_else(|| died(cgroup.as_ref()));

    state.complete = true;
    dir.write_state(state)?;
    if let Some(path) = &request.pidfd_socket {
        pidfile::send_pidfd(path, &init.pidfd, "standard")?;
    }
    if let Some(path) = &request.pid_file {
        pidfile::write(path, init.pid)?;
    }
    to_init.go(Go::Released).map_err(gone)?;
    undo.disarm();
    Ok(init)
}

/// Nothing can stand in for them: a pid may be another process's by the time it is used. Asked before
/// anything is made.
pub(crate) fn need_pidfds() -> Result<()> {
    has_pidfds().map_err(|errno| {
        Error::Unsupported(format!(
            "corten needs pidfd_open and pidfd_send_signal (Linux 5.4, and no filter against them): {}",
            error::errno_words(errno)
        ))
    })
}

/// When this process opens the mount sources, if it may: an ordinary user's init does it itself.
fn moment(plan: &Plan) -> Option<Moment> {
    match (geteuid().is_root(), plan.namespaces.has(LinuxNamespaceType::User)) {
        (true, false) => Some(Moment::Before),
        (true, true) => Some(Moment::Inside),
        (false, _) => None,
    }
}

/// The journal before anything exists.
fn first_state(bundle: &Bundle, plan: &Plan, request: &Request) -> Result<State> {
    let spec = &bundle.config.spec;
    Ok(State {
        format: FORMAT,
        id: request.id.clone(),
        oci_version: spec.version().clone(),
        bundle: bundle.path.clone(),
        rootfs: plan.rootfs.root_path().to_owned(),
        created: time::rfc3339_nano(std::time::SystemTime::now()),
        owner: geteuid().as_raw(),
        boot_id: boot_id()?,
        complete: false,
        init: None,
        cgroup: None,
        own_pid_namespace: plan.namespaces.is_new(LinuxNamespaceType::Pid),
        rootless: request.rootless,
        annotations: spec.annotations().clone().unwrap_or_default().into_iter().collect(),
    })
}

/// What the runtime's side of the conversation needs to know.
struct Runtime<'a> {
    plan: &'a Plan,
    state: &'a State,
    init: &'a Child,
    request: &'a Request,
    moment: Option<Moment>,
    proc: &'a host::Proc,
}

/// Does for the init what it can't do itself, until it is ready.
fn attend(to_init: &ToInit, runtime: &Runtime<'_>, cgroup: Option<&Cgroup>) -> Result<()> {
    let Runtime { plan, init, .. } = runtime;
    // While the init waits for its maps: later it is not dumpable, and its files in /proc are root's.
    if let Some(score) = plan.process.oom_score_adj {
        oom::write(runtime.proc.as_fd(), init.pid, score, runtime.request.rootless)?;
    }
    if plan.namespaces.is_new(LinuxNamespaceType::User) {
        plan.namespaces.maps().write(init.pid)?;
        to_init.go(Go::Mapped)?;
    }
    if runtime.moment == Some(Moment::Inside) {
        to_init.send_fds(&Sources::open_in(&plan.rootfs, init.pidfd.as_fd())?.fds())?;
    }
    converse(to_init, runtime, cgroup)
}

/// Serves the init until it is ready.
fn converse(to_init: &ToInit, runtime: &Runtime<'_>, cgroup: Option<&Cgroup>) -> Result<()> {
    let document = |status| runtime.state.document(status, runtime.init.pid.as_raw());
    loop {
        match to_init.next()? {
            Report::Mounted => {
                let hooks = &runtime.plan.hooks;
                for kind in [Kind::Prestart, Kind::CreateRuntime] {
                    hooks.run(kind, &document(Status::Creating)?, Some(&runtime.init.pidfd))?;
                }
                to_init.go(Go::Hooked)?;
            }
            Report::Listener(number) => {
                let state = runtime.state.oci(Status::Creating, runtime.init.pid.as_raw());
                runtime.plan.confinement.send_listener(number, runtime.init, &state)?;
            }
            Report::Log(line) => log::put(vec![line]),
            Report::Ready => return Ok(()),
            Report::Failed(why) => return Err(Error::Failed(why)),
            Report::Gone => return Err(died(cgroup)),
        }
    }
}

/// The init ended without a word.
pub(crate) fn died(cgroup: Option<&Cgroup>) -> Error {
    let oom = cgroup.is_some_and(|cgroup| cgroup.oom_kill_count().is_ok_and(|count| count > 0));
    Error::Failed(if oom {
        "container init was OOM-killed (memory limit too low?)".to_owned()
    } else {
        "container init died before it was ready".to_owned()
    })
}

/// Kills and reaps a child that must not live on.
pub(crate) fn end(pidfd: &OwnedFd) -> Result<()> {
    // One that has ended already is just reaped.
    let _ended = pidfd_send_signal(pidfd, libc::SIGKILL);
    waitid(Id::PIDFd(pidfd.as_fd()), WaitPidFlag::WEXITED)
        .map(drop)
        .doing(|| "wait for the init to end".to_owned())
}
