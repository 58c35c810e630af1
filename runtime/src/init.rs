//! `init`, the child's script, from top to bottom.
//!
//! It runs on a copy of the creator's memory, in the container's new namespaces, and ends in the
//! user's program. Until the pivot, paths lead through the host's tree and are used only for what
//! the administrator named; what belongs to the image is reached through the root's descriptor.
//! Host's procfs files that are needed later are opened before the first mount is made
//! (CVE-2025-52881). Any failure is reported to the parent, whole, and ends this process.

use std::os::fd::{AsFd, OwnedFd};

use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{getpid, sethostname};
use oci_spec::runtime::LinuxNamespaceType::{Cgroup, Network, User};

use crate::cgroup::Seats;
use crate::error::{Doing, Result};
use crate::gate::Gate;
use crate::hooks::Kind;
use crate::namespaces::{self, Joins};
use crate::plan::Plan;
use crate::process::fds::{self, Inherited};
use crate::process::lsm::Attributes;
use crate::process::{keyring, tty};
use crate::program::Program;
use crate::rootfs::{Cgroups, Moment, Sources};
use crate::state::{State, Status};
use crate::sync::{Go, Report, ToParent};
use crate::sys::process::exit_now;
use crate::{host, log, rootfs, userns};

/// What the init has from its creator, besides its memory.
#[derive(Debug)]
pub struct Inheritance<'a> {
    /// What to become.
    pub plan: &'a Plan,
    /// What the hooks are told.
    pub state: &'a State,
    /// Its places in the cgroups.
    pub seats: Seats,
    /// The host's.
    pub proc: host::Proc,
    /// Namespaces to join, unless a middle process did.
    pub joins: Joins,
    /// Mount sources, if they were opened before the clone.
    pub sources: Sources,
    /// When the parent opens the mount sources, if it does.
    pub moment: Option<Moment>,
    /// Where the terminal's master end goes.
    pub console: Option<OwnedFd>,
    /// Keep the caller's session keyring.
    pub no_new_keyring: bool,
    /// The descriptors that go to the user's program.
    pub inherited: Inherited,
}

/// Becomes the container's init, waits at the gate, and becomes the user's program.
pub fn main(from: Inheritance<'_>, to_parent: ToParent, gate: Gate) -> ! {
    log::take();
    let (plan, state) = (from.plan, from.state);
    let ready = prepare(from, &to_parent, &gate).and_then(|mut program| {
        hand_over(&to_parent)?;
        program.let_go();
        Ok(program)
    });
    match ready {
        Ok(program) => {
            drop(to_parent);
            pass(plan, state, gate, program);
        }
        Err(error) => {
            // Without a parent nobody is left to be told.
            let _parent_may_be_gone = to_parent.report(&Report::Failed(error.to_string()));
        }
    }
    exit_now(1)
}

/// Everything up to the user's program.
fn prepare<'a>(
    mut from: Inheritance<'a>,
    to_parent: &ToParent,
    gate: &Gate,
) -> Result<Program<'a>> {
    let plan = from.plan;
    prctl::set_pdeathsig(Signal::SIGKILL).doing(|| "prctl PR_SET_PDEATHSIG".to_owned())?;
    prctl::set_name(c"corten:init").doing(|| "prctl PR_SET_NAME".to_owned())?;
    std::mem::take(&mut from.seats).take()?;
    let attributes = Attributes::open(from.proc.as_fd(), &plan.process.lsm)?;
    let sysctls = from.proc.sysctls()?;
    from.joins.enter()?;
    if plan.namespaces.is_new(User) {
        to_parent.wait(Go::Mapped)?;
    }
    hide()?;
    tty::new_session()?;
    if !from.no_new_keyring {
        keyring::join(&from.state.id, plan.namespaces.has(User))?;
    }
    if plan.namespaces.is_new(Network) {
        namespaces::loopback_up()?;
    }

    if from.moment == Some(Moment::Inside) {
        from.sources = Sources::receive(&plan.rootfs, to_parent.receive_fds()?)?;
    }
    if plan.namespaces.has(User) {
        userns::become_root()?;
        hide()?;
        plan.namespaces.maps().check_joined()?;
    }
    let cgroups = if plan.rootfs.wants_cgroups() { Cgroups::of_self()? } else { Cgroups::None };
    if plan.namespaces.is_new(Cgroup) {
        unshare(CloneFlags::CLONE_NEWCGROUP).doing(|| "make a cgroup namespace".to_owned())?;
    }
    let mut root = rootfs::assemble(&plan.rootfs, from.sources, &cgroups)?;
    if plan.hooks.any(&[Kind::Prestart, Kind::CreateRuntime, Kind::CreateContainer]) {
        to_parent.report(&Report::Mounted)?;
        to_parent.wait(Go::Hooked)?;
        let document = from.state.document(Status::Creating, getpid().as_raw())?;
        plan.hooks.run(Kind::CreateContainer, &document, None)?;
    }
    root.pivot()?;

    if let Some(hostname) = &plan.hostname {
        sethostname(hostname).doing(|| format!("sethostname {hostname:?}"))?;
    }
    if let Some(domainname) = &plan.domainname {
        namespaces::set_domainname(domainname)?;
    }
    plan.sysctl.apply(sysctls.as_fd())?;
    drop((from.proc, sysctls));
    root.make_cwd(plan.process.cwd.path())?;
    match from.console {
        Some(socket) => {
            let pty = tty::Pty::open(root.fd(), plan.process.console_size)?;
            root.attach_console(pty.slave())?;
            pty.send(socket.as_fd())?;
            pty.attach()?;
        }
        None => tty::reopen_null(root.fd())?,
    }
    root.finish()?;
    outlive_parent()?;
    drop(cgroups);
    let mut keep = vec![to_parent.as_fd(), gate.as_fd()];
    keep.extend(attributes.fds());
    fds::shed(&from.inherited, &keep);
    Program::settle(plan.process.clone(), &plan.confinement, attributes, from.inherited, to_parent)
}

/// A process that entered a container must not be opened from inside (CVE-2016-9962).
fn hide() -> Result<()> {
    prctl::set_dumpable(false).doing(|| "prctl PR_SET_DUMPABLE".to_owned())
}

/// From here on the parent's end shows as the end of file when we next talk; the signal would come
/// for its ordinary exit too. Before a filter is loaded, which may know no prctl.
pub(crate) fn outlive_parent() -> Result<()> {
    prctl::set_pdeathsig(None).doing(|| "prctl PR_SET_PDEATHSIG".to_owned())
}

/// The parent writes the journal and the pid file, then may leave.
pub(crate) fn hand_over(to_parent: &ToParent) -> Result<()> {
    for line in log::take() {
        to_parent.report(&Report::Log(line))?;
    }
    to_parent.report(&Report::Ready)?;
    to_parent.wait(Go::Released)
}

/// Waits for `start`, runs the startContainer hooks and executes. Returns only if that fails, after
/// `start` was told.
fn pass(plan: &Plan, state: &State, gate: Gate, program: Program<'_>) {
    let Ok(opened) = gate.wait() else { return };
    let hooked = || {
        let document = state.document(Status::Created, getpid().as_raw())?;
        plan.hooks.run(Kind::StartContainer, &document, None)
    };
    let error = match hooked() {
        Ok(()) => program.execute(),
        Err(error) => error,
    };
    opened.fail(&error.to_string());
}
