//! The root file system mounts of a Create request: what containerd's snapshotter says how to mount.
//!
//! Promise: the mounts are made in the request's order, all of them or none; each target is resolved
//! inside the root file system, whatever links the layers hold; and an unmount never leaves the root
//! file system's directory, nor waits without an end. Everything here may block and changes the
//! working directory for a while: it runs in a worker, which is single-threaded.
//!
//! A file system is built detached from a context (`fsopen(2)`), which has no page limit for overlay's
//! layers because they are descriptors (Linux 6.13), and whose log becomes part of the error. Where
//! that is missing, mount(2) does it, with overlay's layers relative to their common directory when
//! they do not fit a page. One place decides: [`Way`].
//!
//! Threat: the layers are an image's. Names in them are only ever resolved with `openat2(2)` below the
//! root file system's directory, for unmounts without any link at all; the directory itself and the
//! sources are containerd's and trusted.

mod fuse;
mod idmap;
mod job;
mod loops;
pub(crate) mod options;
pub(crate) mod overlay;
pub(crate) mod unmount;
mod way;

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use containerd_shim_protos::types::mount as proto;
use corten::error::{Doing, Error, Result};
use nix::errno::Errno;
use nix::sys::stat::Mode;
use nix::unistd::mkdir;

use job::Job;
pub use unmount::unmount_all;
use way::Way;

/// How much of a mount's options an error quotes: a long list of layers says little.
const QUOTED: usize = 1024;

/// One mount of a Create request.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Mount {
    /// The file system's type, or `bind`, `fuse.X`, `fuse3.X`.
    pub kind: String,
    /// The device, the directory to bind, or a name.
    pub source: String,
    /// Where inside the root file system; it has to exist. Usually empty: the whole.
    pub target: String,
    /// As in /etc/fstab, one by one.
    pub options: Vec<String>,
}

impl From<&proto::Mount> for Mount {
    fn from(mount: &proto::Mount) -> Self {
        Self {
            kind: mount.type_.clone(),
            source: mount.source.clone(),
            target: mount.target.clone(),
            options: mount.options.clone(),
        }
    }
}

impl Mount {
    /// The mount for an error: everything that was asked for.
    fn shown(&self, index: usize, rootfs: &Path) -> String {
        let mut options = self.options.join(",");
        if options.len() > QUOTED {
            let all = options.len();
            options.truncate(options.floor_char_boundary(QUOTED));
            options = format!("{options}... ({all} bytes)");
        }
        let rootfs = rootfs.display();
        let inside = self.target.trim_matches('/');
        let slash = if inside.is_empty() { "" } else { "/" };
        let (kind, source) = (&self.kind, &self.source);
        let kind = if kind.is_empty() { "bind" } else { kind };
        format!(
            "rootfs[{index}]: mount {kind} at {rootfs}{slash}{inside} (source {source}, options {options})"
        )
    }
}

/// Makes the root file system in `rootfs`, a directory that is created (0711) if it is missing: all
/// mounts in their order. No mounts mean that somebody else has prepared it.
///
/// # Errors
/// Which mount failed and why; everything that was mounted until then is unmounted again.
pub fn mount_all(mounts: &[Mount], rootfs: &Path) -> Result<()> {
    if mounts.is_empty() {
        return Ok(());
    }
    mount_by(&Way::find(mounts)?, mounts, rootfs)
}

fn mount_by(way: &Way, mounts: &[Mount], rootfs: &Path) -> Result<()> {
    match mkdir(rootfs, Mode::from_bits_truncate(0o711)) {
        // Whatever the umask is.
        Ok(()) => set_permissions(rootfs, Permissions::from_mode(0o711))
            .doing(|| format!("set the mode of {rootfs:?}"))?,
        Err(Errno::EEXIST) => {}
        Err(errno) => return Err(Error::sys(format!("make directory {rootfs:?}"), errno)),
    }
    let mut made = Vec::new();
    let all = || {
        for (index, mount) in mounts.iter().enumerate() {
            Job::new(way, mount, rootfs)
                .and_then(|job| job.run(&mut made))
                .doing(|| mount.shown(index, rootfs))?;
        }
        Ok(())
    };
    let done = way::keep_cwd(all);
    done.map_err(|error| match unmount::undo(rootfs, &made) {
        Ok(()) => error,
        Err(undo) => Error::Failed(format!("{error}; and then: {undo}")),
    })
}

#[cfg(test)]
mod tests;
