//! The plan: the spec's root, mounts, devices, masks and read-only paths in the kernel's words.
//!
//! Promise: pure. Nothing is opened and no path is looked up, so that everything that is wrong with
//! the configuration itself is said before anything exists. The order of the mounts is kept.

use std::path::{Path, PathBuf};

use nix::sys::stat::stat;
use oci_spec::runtime::{Linux, LinuxNamespaceType, Spec};

use super::devices::{self, Device};
use super::mounts::{Common, Kind, Mount, Own};
use super::options::{Propagation, ms};
use super::path::clean;
use crate::{Error, Result};

/// What the caller knows and the spec does not say.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The bundle's absolute path: relative paths of the spec start here.
    pub bundle: &'a Path,
    /// We are not host root, or root in a user namespace only: device nodes can't be made.
    pub rootless: bool,
    /// `--no-pivot`: move the root instead of pivoting to it.
    pub no_pivot: bool,
}

/// Everything about the container's file system.
#[derive(Debug)]
pub struct Plan {
    /// The root file system's host path, absolute.
    pub(super) root: PathBuf,
    /// `root.readonly`.
    pub(super) readonly: bool,
    /// `linux.rootfsPropagation`.
    pub(super) propagation: Option<Propagation>,
    /// In the spec's order.
    pub(super) mounts: Vec<Mount>,
    /// Whether corten fills `/dev`: not when the host's own is bound there.
    pub(super) fill_dev: bool,
    /// Device and inode of the host's `/dev`, which is not filled however it gets into a container.
    pub(super) hosts_dev: Option<(u64, u64)>,
    /// The default devices and the spec's.
    pub(super) devices: Vec<Device>,
    /// Device nodes are bound from the host, because user namespaces can't make them.
    pub(super) bind_devices: bool,
    /// `linux.maskedPaths`, relative to the root.
    pub(super) masked: Vec<PathBuf>,
    /// `linux.readonlyPaths`, relative to the root.
    pub(super) readonly_paths: Vec<PathBuf>,
    /// `linux.mountLabel`.
    pub(super) label: Option<String>,
    /// A cgroup namespace of its own: cgroup mounts show its root by themselves.
    pub(super) own_cgroupns: bool,
    /// `--no-pivot`.
    pub(super) no_pivot: bool,
}

impl Plan {
    /// Reads the spec.
    ///
    /// # Errors
    /// [`Error::Config`] with the JSON path of what is wrong.
    pub fn new(spec: &Spec, context: &Context<'_>) -> Result<Self> {
        let root = spec.root().as_ref().ok_or_else(|| Error::config("root", "missing"))?;
        if root.path().as_os_str().is_empty() {
            return Err(Error::config("root.path", "empty"));
        }
        let linux = spec.linux().as_ref();
        let own = Own { linux };
        let label = linux.and_then(|linux| linux.mount_label().clone()).filter(|l| !l.is_empty());
        let common = Common { own, label: label.as_deref(), context };
        let mounts = spec.mounts().as_deref().unwrap_or_default();
        let mounts = mounts
            .iter()
            .enumerate()
            .map(|(index, mount)| Mount::new(index, mount, common))
            .collect::<Result<Vec<_>>>()?;
        let devices = linux.and_then(|linux| linux.devices().as_deref()).unwrap_or_default();
        let paths = |paths: Option<&Vec<String>>| {
            paths
                .map(|all| all.iter().map(|path| clean(Path::new(path))).collect())
                .unwrap_or_default()
        };
        let plan = Self {
            root: context.bundle.join(root.path()),
            readonly: root.readonly().unwrap_or(false),
            propagation: root_propagation(linux)?,
            fill_dev: !mounts.iter().any(|mount| {
                mount.destination == Path::new("dev") && matches!(mount.kind, Kind::Bind(_))
            }),
            hosts_dev: stat("/dev").ok().map(|dev| (dev.st_dev, dev.st_ino)),
            mounts,
            devices: devices::all(devices)?,
            bind_devices: context.rootless || own.has(LinuxNamespaceType::User),
            masked: paths(linux.and_then(|linux| linux.masked_paths().as_ref())),
            readonly_paths: paths(linux.and_then(|linux| linux.readonly_paths().as_ref())),
            label,
            own_cgroupns: own.has(LinuxNamespaceType::Cgroup),
            no_pivot: context.no_pivot,
        };
        if plan.no_pivot && plan.propagation.is_some_and(|p| p.kind == ms::PRIVATE) {
            return Err(Error::config(
                "linux.rootfsPropagation",
                "private is not possible with --no-pivot: the root can't be moved",
            ));
        }
        Ok(plan)
    }

    /// The root file system's host path, absolute.
    pub fn root_path(&self) -> &Path {
        &self.root
    }

    /// Whether a mount of type `cgroup` is wanted, so that [`super::Cgroups`] is needed.
    pub fn wants_cgroups(&self) -> bool {
        self.mounts.iter().any(|mount| matches!(mount.kind, Kind::Cgroup))
    }

    /// How the whole mount namespace is cut off from the host's before anything is mounted. An
    /// unbindable mount is a private one that can't be a source, so that has to wait.
    pub(super) fn cut(&self) -> Propagation {
        match self.propagation {
            None => Propagation { kind: ms::SLAVE, recursive: true },
            Some(p) if p.kind == ms::UNBINDABLE => Propagation { kind: ms::PRIVATE, ..p },
            Some(p) => p,
        }
    }
}

fn root_propagation(linux: Option<&Linux>) -> Result<Option<Propagation>> {
    match linux.and_then(|linux| linux.rootfs_propagation().as_deref()) {
        None | Some("") => Ok(None),
        Some(word) => Propagation::parse(word).map(Some).ok_or_else(|| {
            Error::config("linux.rootfsPropagation", format!("unknown propagation {word:?}"))
        }),
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
