//! `exec`, both its scripts, from top to bottom.
//!
//! The base is the container's own copy of its config: later edits of the bundle change nothing.
//! A new process joins what the container's init lives in, by one handle of that init that is known
//! to be it. The pid namespace is joined by being born there, so the process is visible from inside
//! from its first moment: it is made undumpable before that, and everything it needs later is
//! already open (CVE-2016-9962).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::{Pid, geteuid};
use oci_spec::runtime::{LinuxNamespaceType, Process as OciProcess, Spec};

use crate::cgroup::Seats;
use crate::create::{died, end, need_pidfds};
use crate::error::{Doing, Error, Result};
use crate::init::{hand_over, outlive_parent};
use crate::namespaces;
use crate::process::fds::{self, Inherited};
use crate::process::lsm::Attributes;
use crate::process::{self, keyring, oom, sched, tty};
use crate::program::{Confinement, Program};
use crate::spawn::{Birth, Child, reap_strays, spawn};
use crate::state::{State, Status};
use crate::store::{Dir, Store};
use crate::sync::{self, Go, Report, ToInit, ToParent};
use crate::sys::process::exit_now;
use crate::undo::Undo;
use crate::{host, kill, log, pidfile, spec, userns};

/// A container to run something in.
#[derive(Debug)]
pub struct Target {
    /// Its directory.
    pub dir: Dir,
    /// Its journal.
    pub state: State,
    /// Its config as it was at create.
    pub spec: Spec,
}

impl Target {
    /// Finds container `id` and checks that something can run in it.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Status`] when it is stopped, or paused without
    /// `ignore_paused`.
    pub fn find(store: &Store, id: &str, ignore_paused: bool) -> Result<Self> {
        let dir = store.open(id)?;
        let state = dir.read_state()?;
        let refuse = |words: &str| Err(Error::Status(words.to_owned()));
        match state.status()? {
            Status::Created | Status::Running => {}
            Status::Paused if ignore_paused => {}
            Status::Paused => {
                return refuse(
                    "cannot exec in a paused container (use --ignore-paused to override)",
                );
            }
            Status::Stopped => return refuse("cannot exec in a stopped container"),
            Status::Creating => return refuse("cannot exec in a container that is being created"),
        }
        let spec = spec::parse(&dir.read_config()?)?;
        Ok(Self { dir, state, spec })
    }
}

/// What `exec` is asked for, beside the process.
#[derive(Debug, Default)]
pub struct Request {
    /// Where the terminal's master end goes.
    pub console: Option<OwnedFd>,
    /// Where a pidfd of the process goes.
    pub pidfd_socket: Option<PathBuf>,
    /// Where the process's pid goes.
    pub pid_file: Option<PathBuf>,
    /// How many descriptors from 3 on the process gets.
    pub preserve_fds: u32,
    /// Groups below the container's own, `[controller[,controller]:]path`.
    pub cgroup: Vec<String>,
}

/// What the process has from the runtime, besides its memory.
struct Inheritance<'a> {
    plan: process::Plan,
    confinement: &'a Confinement,
    namespaces: &'a namespaces::Plan,
    state: &'a State,
    init: &'a OwnedFd,
    /// It is in the container's namespaces and groups from birth.
    entered: bool,
    /// The host's, if there are labels to set.
    proc: Option<host::Proc>,
    /// None when it is in its groups from birth.
    seats: Option<Seats>,
    console: Option<OwnedFd>,
    inherited: Inherited,
}

/// Runs `process` in the container. Returns in the parent only, when the program runs.
///
/// # Errors
/// Whatever went wrong; no process of ours is left in the container then.
pub fn exec(target: &Target, process: &OciProcess, path: &str, request: Request) -> Result<Child> {
    need_pidfds()?;
    let inherited = Inherited::take(request.preserve_fds)?;
    let linux = target.spec.linux().as_ref();
    let plan = process::Plan::new(process, path)?;
    let confinement = Confinement::new(linux)?;
    let namespaces = namespaces::Plan::new(&target.spec)?;
    let gone = || Error::Status("cannot exec in a stopped container".to_owned());
    let init = kill::init_pidfd(&target.state)?.ok_or_else(gone)?;

    let mut undo = Undo::new();
    let cgroup = target.state.open_cgroup();
    let cgroup = match (cgroup, request.cgroup.as_slice()) {
        // Somebody moved the container's processes and removed its groups, or the first process has
        // made groups below: we go where it went.
        (Some(cgroup), []) if !cgroup.takes_processes()? => {
            target.state.init.map(|init| cgroup.of_process(init.pid())).transpose()?
        }
        (Some(cgroup), []) => Some(cgroup),
        (Some(cgroup), paths) => Some(cgroup.sub_groups(paths)?),
        (None, []) => None,
        (None, _) => return Err(Error::Usage("--cgroup: the container has none".to_owned())),
    };
    let privileged = geteuid().is_root();
    let user = (!privileged && namespaces.has(LinuxNamespaceType::User)).then(|| init.as_fd());
    // Root in the container's pid namespace alone could look at us with CAP_SYS_PTRACE, dumpable or
    // not. So a process in the middle, which can't be seen from inside, goes where the container is and
    // lets go of all that is the host's, and only then makes the one that can be seen.
    let apart = privileged
        && namespaces.has(LinuxNamespaceType::Pid)
        && !namespaces.has(LinuxNamespaceType::User);
    let clone_into = match &cgroup {
        Some(cgroup) if user.is_none() => cgroup.clone_fd()?,
        _ => None,
    };
    let seats = cgroup.as_ref().map(|cgroup| cgroup.seats(clone_into.is_some())).transpose()?;
    let (to_child, to_parent) = sync::pair()?;
    if privileged {
        prctl::set_dumpable(false).doing(|| "prctl PR_SET_DUMPABLE".to_owned())?;
    }
    let score = plan.oom_score_adj;
    let proc = (!plan.lsm.is_empty()).then(host::Proc::open).transpose()?;
    let enter = |peer: BorrowedFd<'_>| {
        take_place(&plan, seats.as_ref())?;
        let mut keep = vec![peer, to_parent.as_fd(), init.as_fd()];
        keep.extend(request.console.as_ref().map(AsFd::as_fd));
        keep.extend(proc.as_ref().map(AsFd::as_fd));
        fds::shed(&inherited, &keep);
        // All at once: behind the mount namespace no other could be looked up any more.
        namespaces::enter_those_of(init.as_fd(), namespaces.all_flags())
    };
    let birth = Birth {
        before: apart.then_some(&enter),
        pid: (namespaces.has(LinuxNamespaceType::Pid) && !apart).then(|| init.as_fd()),
        user,
        cgroup: clone_into.as_ref().map(AsFd::as_fd),
        watch: Some(init.as_fd()),
        ..Birth::default()
    };
    let spawned = match spawn(&birth) {
        Ok(spawned) => spawned,
        Err(error) => {
            drop((to_child, to_parent));
            reap_strays();
            return Err(if kill::wait_ended(&init, Duration::ZERO)? { gone() } else { error });
        }
    };
    let Some(child) = spawned else {
        let seats = if apart {
            // Closed, with much else whose owners stay asleep in this process.
            std::mem::forget((to_child, seats));
            None
        } else {
            drop(to_child);
            seats
        };
        let inheritance = Inheritance {
            plan,
            confinement: &confinement,
            namespaces: &namespaces,
            state: &target.state,
            init: &init,
            entered: apart,
            proc,
            seats,
            console: request.console,
            inherited,
        };
        main(inheritance, to_parent, privileged);
    };
    drop((to_parent, seats));
    let pidfd = child.pidfd.as_fd().try_clone_to_owned().doing(|| "dup a pidfd".to_owned())?;
    undo.push("exec", move || end(&pidfd));
    if let Some(score) = score {
        oom::write(host::Proc::open()?.as_fd(), child.pid, score, target.state.rootless)?;
    }
    converse(&to_child, target, &confinement, &child)?;
    if let Some(path) = &request.pidfd_socket {
        pidfile::send_pidfd(path, &child.pidfd, "setns")?;
    }
    if let Some(path) = &request.pid_file {
        pidfile::write(path, child.pid)?;
    }
    to_child.go(Go::Released)?;
    match to_child.next()? {
        Report::Gone => undo.disarm(),
        Report::Failed(why) => return Err(Error::Failed(why)),
        other => return Err(Error::Failed(format!("unexpected from the process: {other:?}"))),
    }
    Ok(child)
}

/// Serves the process until it is ready.
fn converse(
    to_child: &ToInit,
    target: &Target,
    confinement: &Confinement,
    child: &Child,
) -> Result<()> {
    loop {
        match to_child.next()? {
            Report::Ready => return Ok(()),
            Report::Listener(number) => {
                // The container's state: its pid is the first process's (config-linux.md,
                // containerProcessState).
                let init = target.state.init.map_or(0, |init| init.pid);
                let state = target.state.oci(Status::Running, init);
                confinement.send_listener(number, child, &state)?;
            }
            Report::Log(line) => log::put(vec![line]),
            Report::Failed(why) => return Err(Error::Failed(why)),
            Report::Gone => return Err(died(target.state.open_cgroup().as_ref())),
            Report::Mounted => return Err(Error::Failed("an exec that mounts".to_owned())),
        }
    }
}

/// The child's script.
fn main(from: Inheritance<'_>, to_parent: ToParent, privileged: bool) -> ! {
    log::take();
    let ready = prepare(from, &to_parent, privileged).and_then(|mut program| {
        hand_over(&to_parent)?;
        program.let_go();
        Ok(program)
    });
    let error = match ready {
        Ok(program) => program.execute(),
        Err(error) => error,
    };
    // Without a parent nobody is left to be told.
    let _parent_may_be_gone = to_parent.report(&Report::Failed(error.to_string()));
    exit_now(1)
}

/// Goes to the processors and into the groups that the process is to have, while the host's files
/// are open.
fn take_place(plan: &process::Plan, seats: Option<&Seats>) -> Result<()> {
    if let Some(cpus) = &plan.affinity.initial {
        sched::set_affinity(Pid::from_raw(0), cpus)?;
    }
    seats.map_or(Ok(()), Seats::take)
}

fn prepare<'a>(
    mut from: Inheritance<'a>,
    to_parent: &ToParent,
    privileged: bool,
) -> Result<Program<'a>> {
    prctl::set_pdeathsig(Signal::SIGKILL).doing(|| "prctl PR_SET_PDEATHSIG".to_owned())?;
    prctl::set_name(c"corten:exec").doing(|| "prctl PR_SET_NAME".to_owned())?;
    let attributes = match from.proc.take() {
        Some(proc) => Attributes::open(proc.as_fd(), &from.plan.lsm)?,
        None => Attributes::default(),
    };
    if !from.entered {
        take_place(&from.plan, from.seats.take().as_ref())?;
        // An ordinary user's is born in its user namespace already.
        let user = if privileged { 0 } else { libc::CLONE_NEWUSER };
        let born_in = user | libc::CLONE_NEWPID;
        namespaces::enter_those_of(from.init.as_fd(), from.namespaces.all_flags() & !born_in)?;
    }
    if from.namespaces.has(LinuxNamespaceType::User) {
        userns::become_root()?;
    }
    prctl::set_dumpable(false).doing(|| "prctl PR_SET_DUMPABLE".to_owned())?;
    tty::new_session()?;
    keyring::join(&from.state.id, from.namespaces.has(LinuxNamespaceType::User))?;
    match &from.plan.affinity.last {
        Some(cpus) => sched::set_affinity(Pid::from_raw(0), cpus)?,
        None => sched::reset_affinity(Pid::from_raw(0))?,
    }
    let root = openat(AT_FDCWD, "/", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
        .doing(|| "open the container's root".to_owned())?;
    match from.console.take() {
        Some(socket) => {
            let pty = tty::Pty::open(root.as_fd(), from.plan.console_size)?;
            pty.send(socket.as_fd())?;
            pty.attach()?;
        }
        None => tty::reopen_null(root.as_fd())?,
    }
    outlive_parent()?;
    drop(root);
    let mut keep = vec![to_parent.as_fd()];
    keep.extend(attributes.fds());
    fds::shed(&from.inherited, &keep);
    Program::settle(from.plan, from.confinement, attributes, from.inherited, to_parent)
}
