//! The plan: everything that the config asks for, validated and in the kernel's words.
//!
//! Pure: no file that a config names is opened and no id is looked up here, so it can be tested and
//! fuzzed without rights. Of this process it asks which user it is, and whether in a user namespace.
//! After [`Plan::new`] no input error is possible; what can still fail is the kernel.

use std::path::Path;

use oci_spec::runtime::{Linux, LinuxNamespaceType, Spec};

use crate::create::Request;
use crate::error::{Error, Result};
use crate::hooks::Hooks;
use crate::program::Confinement;
use crate::{cgroup, host, namespaces, process, rootfs, sysctl};

/// A container to be.
#[derive(Debug)]
pub struct Plan {
    /// What is new, what is joined, and the id maps.
    pub namespaces: namespaces::Plan,
    /// The root file system and all mounts.
    pub rootfs: rootfs::Plan,
    /// The cgroup and its limits.
    pub cgroup: cgroup::Plan,
    /// The user's program.
    pub process: process::Plan,
    /// What confines it beside that.
    pub confinement: Confinement,
    /// Kernel parameters of its namespaces.
    pub sysctl: sysctl::Plan,
    /// The name of its host.
    pub hostname: Option<String>,
    /// The NIS domain of its host.
    pub domainname: Option<String>,
    /// What runs beside it.
    pub hooks: Hooks,
}

impl Plan {
    /// Translates `spec`, found in `bundle`.
    ///
    /// # Errors
    /// [`Error::Config`] with the JSON path of whatever can't be.
    pub fn new(spec: &Spec, bundle: &Path, request: &Request) -> Result<Self> {
        let linux = spec.linux().as_ref();
        let namespaces = namespaces::Plan::new(spec)?;
        let process = spec
            .process()
            .as_ref()
            .ok_or_else(|| Error::config("process", "is required to create a container"))?;
        let context =
            rootfs::Context { bundle, rootless: request.rootless, no_pivot: request.no_pivot };
        let linux_default = Linux::default();
        let hooks = Hooks::new(spec.hooks().as_ref())?;
        Ok(Self {
            rootfs: rootfs::Plan::new(spec, &context)?,
            cgroup: cgroup::Plan::new(
                linux.unwrap_or(&linux_default),
                &cgroup::Options {
                    id: &request.id,
                    rootless: request.rootless,
                    systemd: request.systemd,
                    annotations: spec.annotations().as_ref(),
                    in_user_namespace: host::in_user_namespace(),
                    hooks: hooks.may_allow_devices(),
                    owner: cgroup_owner(spec, &namespaces),
                },
            )?,
            process: process::Plan::new(process, "process")?,
            confinement: Confinement::new(linux)?,
            sysctl: sysctl::Plan::new(spec)?,
            hostname: spec.hostname().clone(),
            domainname: spec.domainname().clone(),
            hooks,
            namespaces,
        })
    }
}

/// Who may make groups below the container's own: its root, when it sees no other groups and has
/// them mounted writable (config-linux.md, cgroup ownership).
fn cgroup_owner(spec: &Spec, namespaces: &namespaces::Plan) -> Option<u32> {
    let is_writable_mount = |mount: &oci_spec::runtime::Mount| {
        mount.typ().as_deref() == Some("cgroup")
            && !mount.options().iter().flatten().any(|option| option == "ro")
    };
    let writable = spec.mounts().iter().flatten().any(is_writable_mount);
    let private = namespaces.is_new(LinuxNamespaceType::Cgroup);
    if !private || !writable {
        return None;
    }
    namespaces.maps().root().map(|(uid, _)| uid)
}
