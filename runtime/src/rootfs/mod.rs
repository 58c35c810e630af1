//! The container's root file system: from `root` and `mounts` to a process whose `/` it is.
//!
//! Promise: what the spec asks for is mounted, in its order, each attribute read back; and no path of
//! the container is ever resolved outside its root. Every step works on fds: [`Plan`] is pure,
//! [`Sources`] holds what the host contributes, [`assemble`] builds, [`Root`] finishes.
//!
//! Order, each step once:
//! 1. [`Plan::new`], before anything exists.
//! 2. [`Sources::open`] before the clone; with a user namespace [`Sources::open_in`] after it; rootless
//!    neither ([`Sources::none`]).
//! 3. [`assemble`], in the child, in all its new namespaces (the cgroup namespace too), as root of its
//!    user namespace, on the host's `/proc`.
//! 4. Hooks that want the container's files below their host path.
//! 5. [`Root::pivot`], then [`Root::make_cwd`], [`Root::attach_console`], and [`Root::finish`]: only
//!    the last makes the root read-only and masks paths, so everything that creates names comes before.
//!
//! Threat: the image, and other containers that share a volume with this one and rename things in it
//! while we work.

mod cgroups;
pub mod compat;
mod copy_up;
mod dev;
mod devices;
mod mask;
mod mount;
pub(crate) mod mounts;
pub mod options;
pub mod path;
pub(crate) mod pivot;
mod plan;
mod sources;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::sys::stat::{Mode, umask};

pub use cgroups::{Cgroups, Hierarchy};
pub use mount::build;
pub use mounts::NewFs;
pub use options::Propagation;
pub use plan::{Context, Plan};
pub use sources::{Moment, Sources, make_userns};

use crate::Result;
use crate::error::Doing;
use crate::sys::mount as sys;
use crate::sys::mount::attr;
use compat::Kernel;
use mount::Mounter;
use options::ms;

/// The container's root, assembled.
#[derive(Debug)]
pub struct Root<'plan> {
    plan: &'plan Plan,
    kernel: Kernel,
    /// Its `/`.
    root: OwnedFd,
    /// Mounts that become read-only at the end.
    late: Vec<OwnedFd>,
    /// The host's `/dev/null`.
    null: Option<OwnedFd>,
}

/// Makes all mounts and devices, in the child. The root file system is then attached at its own host
/// path in this mount namespace, and the umask is 0 until [`Root::finish`].
///
/// # Errors
/// The mount or device, the errno, and what the kernel said about it.
pub fn assemble<'plan>(
    plan: &'plan Plan,
    sources: Sources,
    cgroups: &Cgroups,
) -> Result<Root<'plan>> {
    let kernel = Kernel::probe().doing(|| "look for the mount API".to_owned())?;
    assemble_with(kernel, plan, sources, cgroups)
}

fn assemble_with<'plan>(
    kernel: Kernel,
    plan: &'plan Plan,
    mut sources: Sources,
    cgroups: &Cgroups,
) -> Result<Root<'plan>> {
    umask(Mode::empty());
    cut_off(plan)?;
    if !sources.opened {
        sources = Sources::open_with(&kernel, plan, Moment::Inside)?;
    }
    let root = attach_root(&kernel, plan, &mut sources)?;
    let mounter = mounter(&kernel, plan, &root);
    let mut late = Vec::new();
    let mut trees = std::mem::take(&mut sources.mounts).into_iter();
    for mount in &plan.mounts {
        let made = mounter.mount(mount, trees.next().flatten(), cgroups);
        late.extend(made.doing(|| mount.shown())?);
    }
    dev::fill(&mounter, plan, std::mem::take(&mut sources.devices))?;
    Ok(Root { plan, kernel, root, late, null: sources.null })
}

/// Nothing that is mounted from here on reaches the host, or only what
/// `linux.rootfsPropagation` wants to.
fn cut_off(plan: &Plan) -> Result<()> {
    let cut = plan.cut();
    let mut flags = nix::mount::MsFlags::from_bits_retain(cut.kind);
    flags.set(nix::mount::MsFlags::MS_REC, cut.recursive);
    let none = None::<&str>;
    nix::mount::mount(none, "/", none, flags, none).doing(|| "set propagation of /".to_owned())
}

fn attach_root(kernel: &Kernel, plan: &Plan, sources: &mut Sources) -> Result<OwnedFd> {
    let doing = || format!("attach root file system {:?}", plan.root);
    let place = match sources.place.take() {
        Some(place) => place,
        None => sources::open_place(plan)?,
    };
    let cut = plan.cut();
    let may_be_shared = !cut.recursive || cut.kind == ms::SHARED;
    if may_be_shared {
        mount::private_parent(kernel, place.as_fd())?;
    }
    let root = sources.root.take();
    let mut root = root.ok_or_else(|| crate::Error::Failed("the root is not open".to_owned()))?;
    if kernel.present.detached {
        sys::move_mount(&root, &place).doing(doing)?;
    } else {
        kernel.bind(root.as_fd(), place.as_fd(), true).doing(doing)?;
        root = sources::open_place(plan)?;
    }
    if may_be_shared {
        // As a peer of the host's mount it would show /proc there, and can't be pivoted to.
        let private = Propagation { kind: ms::PRIVATE, recursive: false };
        kernel.set_propagation(root.as_fd(), private).doing(doing)?;
    }
    Ok(root)
}

fn mounter<'a>(kernel: &'a Kernel, plan: &'a Plan, root: &'a OwnedFd) -> Mounter<'a> {
    Mounter {
        kernel,
        root: root.as_fd(),
        label: plan.label.as_deref(),
        own_cgroupns: plan.own_cgroupns,
    }
}

impl Root<'_> {
    /// The container's `/`.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Binds the terminal on `/dev/console`. The terminal has to come from a devpts that is mounted in
    /// this mount namespace.
    ///
    /// # Errors
    /// The errno of the mount.
    pub fn attach_console(&self, pty: BorrowedFd<'_>) -> Result<()> {
        dev::console(&mounter(&self.kernel, self.plan, &self.root), pty)
    }

    /// The container's root becomes this process's, and the host's is gone.
    ///
    /// # Errors
    /// The errno of the call that failed.
    pub fn pivot(&mut self) -> Result<()> {
        if !self.kernel.present.detached {
            // The host's /dev/null can only be bound while its mount is still here.
            let null = self.null.take();
            mask::mask(&mounter(&self.kernel, self.plan, &self.root), &self.plan.masked, null)?;
        }
        pivot::pivot(&self.kernel, self.plan, self.root.as_fd())
    }

    /// Makes the process's working directory if it is missing, as runc does.
    ///
    /// # Errors
    /// The errno of making it.
    pub fn make_cwd(&self, cwd: &Path) -> Result<()> {
        let cwd = path::clean(cwd);
        if cwd.as_os_str().is_empty() {
            return Ok(());
        }
        path::open_or_create(&self.root, &cwd, path::Want::Dir)
            .map(drop)
            .doing(|| format!("make working directory {cwd:?}"))
    }

    /// Everything that takes rights away: read-only mounts, read-only paths, masks, the read-only
    /// root; then `linux.rootfsPropagation`. The umask is 022 afterwards.
    ///
    /// # Errors
    /// The path and the errno.
    pub fn finish(mut self) -> Result<()> {
        let mounter = mounter(&self.kernel, self.plan, &self.root);
        for mounted in &self.late {
            mounter.make(mounted, attr::RDONLY)?;
        }
        mask::readonly(&mounter, &self.plan.readonly_paths)?;
        if self.kernel.present.detached {
            mask::mask(&mounter, &self.plan.masked, self.null.take())?;
        }
        if self.plan.readonly {
            mounter
                .make(&self.root, attr::RDONLY)
                .doing(|| "make the root read-only".to_owned())?;
        }
        // Last: nothing could be cloned from an unbindable mount.
        pivot::propagate(&self.kernel, self.plan, self.root.as_fd())?;
        umask(Mode::from_bits_truncate(0o022));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
