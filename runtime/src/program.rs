//! From a process inside the container to the user's program: the end of the scripts of init and
//! exec, which is the same for both.
//!
//! The order is the kernel's. Labels and priorities need rights, so they come first. A filter
//! needs no_new_privs or `CAP_SYS_ADMIN`: for the latter that one capability is kept until the
//! filter is loaded, so that the filter can come last of all, after the gate, and sees no more of
//! us than `capset` and `execve`. Only a filter with a listener comes before the gate, because
//! `create` has to hand the listener over. The program is looked up as the container's user, so
//! that create fails where start would.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, getpid};
use oci_spec::runtime::Linux;

use crate::error::{Doing, Error, Result};
use crate::process::caps::Sets;
use crate::process::cwd::Entered;
use crate::process::fds::{self, Inherited};
use crate::process::lsm::Attributes;
use crate::process::mempolicy::MemoryPolicy;
use crate::process::personality::Personality;
use crate::process::{Plan, exec_path, rlimits, set_no_new_privileges, signals, user};
use crate::seccomp::{self, Filter};
use crate::spawn::Child;
use crate::state::OciState;
use crate::sync::{Report, ToParent};
use crate::sys::process::pidfd_getfd;

/// What applies to the container's init and to every exec, beside their own process object.
#[derive(Debug, Default)]
pub struct Confinement {
    /// The system calls that may be made.
    pub filter: Option<Filter>,
    /// The execution domain.
    pub personality: Option<Personality>,
    /// Where memory comes from.
    pub memory_policy: Option<MemoryPolicy>,
}

impl Confinement {
    /// Translates what stands in `linux`.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub fn new(linux: Option<&Linux>) -> Result<Self> {
        let Some(linux) = linux else { return Ok(Self::default()) };
        Ok(Self {
            filter: linux.seccomp().as_ref().map(seccomp::compile).transpose()?,
            personality: linux
                .personality()
                .as_ref()
                .map(|personality| Personality::new(personality, "linux.personality"))
                .transpose()?,
            memory_policy: linux
                .memory_policy()
                .as_ref()
                .map(|policy| MemoryPolicy::new(policy, "linux.memoryPolicy"))
                .transpose()?,
        })
    }
}

impl Confinement {
    /// Hands the filter's listener to the agent that the config names.
    ///
    /// # Errors
    /// When the agent can't be reached.
    pub fn send_listener(&self, number: RawFd, child: &Child, state: &OciState<'_>) -> Result<()> {
        let listener =
            self.filter.as_ref().and_then(Filter::listener).ok_or_else(|| {
                Error::Failed("a seccomp listener that was not asked for".to_owned())
            })?;
        let fd = pidfd_getfd(&child.pidfd, number)
            .doing(|| "fetch the seccomp listener from the process".to_owned())?;
        seccomp::send_listener(listener, fd.as_fd(), child.pid, state)
    }
}

/// A program that only has to be executed.
#[derive(Debug)]
pub struct Program<'a> {
    path: CString,
    plan: Plan,
    /// The filter that is still to be loaded.
    filter: Option<&'a Filter>,
    /// The capabilities to go down to after that, if one was kept for it.
    down: Option<Sets>,
    inherited: Inherited,
    /// Kept until the parent has fetched it.
    listener: Option<OwnedFd>,
}

impl<'a> Program<'a> {
    /// Makes this process what `plan` asks for, all but the filter and the limits.
    ///
    /// # Errors
    /// Whatever can't be applied, or reads back different.
    pub fn settle(
        mut plan: Plan,
        confinement: &'a Confinement,
        mut attributes: Attributes,
        inherited: Inherited,
        to_parent: &ToParent,
    ) -> Result<Self> {
        let root = openat(AT_FDCWD, "/", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
            .doing(|| "open the container's root".to_owned())?;
        let entered = plan.cwd.enter(root.as_fd(), false)?;
        attributes.apparmor()?;
        if plan.no_new_privileges {
            set_no_new_privileges()?;
        }
        if let Some(scheduler) = plan.scheduler {
            scheduler.apply()?;
        }
        if let Some(priority) = plan.io_priority {
            priority.apply()?;
        }
        if let Some(personality) = confinement.personality {
            personality.apply()?;
        }
        if let Some(policy) = &confinement.memory_policy {
            policy.apply()?;
        }
        attributes.selinux()?;
        rlimits::raise(Pid::from_raw(0), &plan.rlimits)?;

        plan.env.add_home(root.as_fd(), plan.identity.uid)?;
        inherited.add_env(&mut plan.env, getpid().as_raw())?;
        let streams = (std::io::stdin(), std::io::stdout(), std::io::stderr());
        user::chown_stdio(
            [streams.0.as_fd(), streams.1.as_fd(), streams.2.as_fd()],
            plan.identity.uid,
        )?;
        let caps = plan.caps.limit_bounding()?;
        plan.identity.assume()?;
        if entered == Entered::TryAsUser {
            match plan.cwd.enter(root.as_fd(), true)? {
                Entered::Yes => {}
                Entered::TryAsUser => return Err(Error::Failed("cwd: refused twice".to_owned())),
            }
        }
        let mut filter = confinement.filter.as_ref();
        let keep = filter.is_some() && !plan.no_new_privileges;
        let held = if keep { caps.with_admin()? } else { caps };
        held.apply()?;
        let first = plan.args.first().ok_or_else(|| Error::Failed("no program".to_owned()))?;
        let path = exec_path::look_up(first, &plan.env)?;
        let mut listener = None;
        if let Some(early) = filter.take_if(|filter| filter.listener().is_some()) {
            listener = early.load()?;
        }
        if let Some(listener) = &listener {
            to_parent.report(&Report::Listener(listener.as_raw_fd()))?;
        }
        let down = keep.then_some(caps);
        Ok(Self { path, plan, filter, down, inherited, listener })
    }

    /// The parent has the listener: from now on the agent's is the only one, and its end is seen.
    pub fn let_go(&mut self) {
        self.listener = None;
    }

    /// Becomes the program. Returns only if that fails.
    pub fn execute(self) -> Error {
        let last = || -> Result<()> {
            rlimits::apply(Pid::from_raw(0), &self.plan.rlimits)?;
            signals::reset()?;
            fds::keep(&self.inherited)?;
            if let Some(filter) = self.filter {
                filter.load()?;
            }
            self.down.as_ref().map_or(Ok(()), Sets::go_down)
        };
        match last() {
            Ok(()) => exec_path::execute(&self.path, &self.plan.args, &self.plan.env),
            Err(error) => error,
        }
    }
}
