//! Masked and read-only paths.
//!
//! Promise: a path that exists is masked or the container does not start. Only "there is no such
//! path" is passed over (attacks D6). A file is covered by the host's own null device, opened and
//! checked before the container's root was touched and never taken from the container's `/dev`
//! (CVE-2025-31133); a directory by one shared, empty, read-only tmpfs, however many there are.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;

use super::mount::{self, Mounter};
use super::path;
use crate::error::Doing;
use crate::sys::mount::{self as sys, attr};
use crate::{Error, Result};

/// Masks every path.
pub(super) fn mask(
    mounter: &Mounter<'_>,
    paths: &[impl AsRef<Path>],
    null: Option<OwnedFd>,
) -> Result<()> {
    let mut covers = Covers { mounter, null, null_used: false, empty: None };
    for masked in paths.iter().map(AsRef::as_ref) {
        let doing = || format!("mask /{}", masked.display());
        let Some(target) = existing(mounter, masked).doing(doing)? else { continue };
        covers.cover(&target, masked).doing(doing)?;
    }
    Ok(())
}

/// The path inside the root, if there is one.
fn existing(mounter: &Mounter<'_>, path: &Path) -> Result<Option<OwnedFd>, Errno> {
    match path::open(mounter.root, path, libc::O_PATH) {
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
        found => found.map(Some),
    }
}

/// What masks are made of.
struct Covers<'a> {
    mounter: &'a Mounter<'a>,
    /// A detached tree until it is attached, then that mount, from which others are cloned: a
    /// detached tree can't be cloned before Linux 6.15.
    null: Option<OwnedFd>,
    null_used: bool,
    empty: Option<OwnedFd>,
}

impl Covers<'_> {
    fn cover(&mut self, target: &OwnedFd, path: &Path) -> Result<()> {
        if path::is_dir(target).doing(|| "stat".to_owned())? {
            return self.cover_dir(target, path);
        }
        let null = self.null.take();
        let null = null.ok_or_else(|| Error::Failed("/dev/null is not open".to_owned()))?;
        let next = if self.null_used && self.mounter.kernel.present.detached {
            mount::again(&null)?
        } else {
            null.try_clone().doing(|| "duplicate an fd".to_owned())?
        };
        self.mounter.attach(next, target, path, false)?;
        (self.null, self.null_used) = (Some(null), true);
        Ok(())
    }

    fn cover_dir(&mut self, target: &OwnedFd, path: &Path) -> Result<()> {
        let attrs = attr::RDONLY;
        let Some(empty) = &self.empty else {
            // One inode is the root's. Some kernels want two.
            let small = |inodes| self.mounter.tmpfs(&[("nr_blocks", "1"), ("nr_inodes", inodes)]);
            let mounted = match self.mounter.new_at(&small("1"), attrs, target, path) {
                Err(_) => self.mounter.new_at(&small("2"), attrs, target, path)?,
                mounted => mounted?,
            };
            self.empty = Some(mounted);
            return Ok(());
        };
        if self.mounter.kernel.present.detached {
            return self.mounter.attach(mount::again(empty)?, target, path, false).map(drop);
        }
        let same = empty.try_clone().doing(|| "duplicate an fd".to_owned())?;
        let mounted = self.mounter.attach(same, target, path, false)?;
        self.mounter.make(&mounted, attrs)
    }
}

/// Makes every path read-only, by a bind of itself that keeps all other attributes; what is mounted
/// below keeps its own.
pub(super) fn readonly(mounter: &Mounter<'_>, paths: &[impl AsRef<Path>]) -> Result<()> {
    for readonly in paths.iter().map(AsRef::as_ref) {
        let doing = || format!("make /{} read-only", readonly.display());
        let Some(target) = existing(mounter, readonly).doing(doing)? else { continue };
        if mounter.kernel.present.detached && mounter.kernel.present.setattr {
            let tree = sys::clone_tree(&target, c"", true).doing(doing)?;
            mount::set(&tree, attr::RDONLY).doing(doing)?;
            sys::move_mount(&tree, &target).doing(doing)?;
            mount::verify(&tree, attr::RDONLY).doing(doing)?;
            continue;
        }
        let source = if mounter.kernel.present.detached {
            sys::clone_tree(&target, c"", true).doing(doing)?
        } else {
            target.as_fd().try_clone_to_owned().doing(doing)?
        };
        let mounted = mounter.attach(source, &target, readonly, true).doing(doing)?;
        mounter.make(&mounted, attr::RDONLY).doing(doing)?;
    }
    Ok(())
}
