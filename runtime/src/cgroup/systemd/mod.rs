//! The systemd driver: the container's group is a transient scope unit, and systemd knows its limits.
//!
//! The order of `create` stays what it is: journal → group → limits → a process born in it. A scope
//! needs a process from its start, so a [`Placeholder`] stands in until the container's first
//! process is there ([`Cgroup::settle`](super::Cgroup::settle)). It ends with the runtime that
//! forked it, and systemd takes an empty scope away: a runtime killed at any moment leaves no unit.
//!
//! Limits are written twice: as properties, because systemd writes all of them again on
//! `daemon-reload`, and to the files, because only they have every limit, to the byte. The device
//! rules are a property where they are a list of what is allowed ([`allow_list`]); the wall is our
//! own program, which stays attached beside whatever systemd attaches.
//!
//! Threats: another unit of the same name taken over or stopped (a unit that is active is refused);
//! a process that is not where systemd says (read back from /proc); a systemd that doesn't answer
//! (every conversation has a deadline). Only cgroup v2: see `docs/adr/0009-systemd-scopes.md`.

pub(crate) mod allow_list;
mod annotations;
mod bus;
mod names;
mod placeholder;
pub(crate) mod properties;
mod value;

use std::collections::HashMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};

use nix::unistd::{Pid, geteuid};
use oci_spec::runtime::LinuxResources;
use serde::{Deserialize, Serialize};

use self::bus::{Bus, Refused, ask};
pub(super) use self::placeholder::Placeholder;
use self::value::Properties;
pub(crate) use self::value::Value;
use super::devices::Rules;
use crate::error::{Doing, Error, Result};
use crate::host;

/// A unit, as the journal has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// Its name, `prefix-name.scope`.
    pub name: String,
    /// It is the user manager's, not the system's.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub user: bool,
}

/// What is asked of systemd, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Whose unit.
    pub unit: Unit,
    /// The slice that it is in.
    pub slice: String,
    /// The unit's group, below that of the manager.
    pub path: PathBuf,
    /// The container's id, for the unit's description.
    id: String,
    /// From annotations.
    extra: Properties,
    /// Hooks may allow devices that the rules don't.
    hooks: bool,
}

impl Plan {
    /// Reads `linux.cgroupsPath` as `slice:prefix:name`.
    ///
    /// # Errors
    /// [`Error::Config`] when it is none, or when an annotation is no property.
    pub fn new(
        path: Option<&Path>,
        id: &str,
        annotations: Option<&HashMap<String, String>>,
        hooks: bool,
    ) -> Result<Self> {
        let user = is_users();
        let triple = names::Triple::parse(path, id, user)?;
        Ok(Self {
            unit: Unit { name: triple.unit(), user },
            path: names::expand(&triple.slice)?.join(triple.unit()),
            slice: triple.slice,
            id: id.to_owned(),
            extra: annotations::properties(annotations)?,
            hooks,
        })
    }

    /// The group of the manager that is asked, which ours is below.
    pub(super) fn base(&self) -> Result<PathBuf> {
        let group = ask(self.unit.user, |bus| bus.manager("ControlGroup"))?;
        Ok(group.trim_start_matches('/').into())
    }

    /// Starts the unit with `pid` in it.
    pub(super) fn start(
        &self,
        pid: Pid,
        resources: &LinuxResources,
        devices: Option<&Rules>,
    ) -> Result<()> {
        let mut wanted = vec![
            ("Description".to_owned(), Value::Text(format!("corten container {}", self.id))),
            ("Slice".to_owned(), Value::Text(self.slice.clone())),
            ("PIDs".to_owned(), Value::Numbers(vec![pid.as_raw().cast_unsigned()])),
            ("Delegate".to_owned(), Value::Flag(true)),
            ("DefaultDependencies".to_owned(), Value::Flag(false)),
            // What fails leaves nothing to be reset.
            ("CollectMode".to_owned(), Value::Text("inactive-or-failed".to_owned())),
        ];
        for kind in ["CPU", "Memory", "IO", "Tasks"] {
            wanted.push((format!("{kind}Accounting"), Value::Flag(true)));
        }
        ask(self.unit.user, |bus| {
            let (mut wanted, version) = (wanted.clone(), bus.version()?);
            wanted.extend(properties::of(resources, version)?);
            wanted.extend(self.devices(devices, version));
            wanted.extend(self.extra.iter().cloned());
            self.start_on(bus, pid, &wanted)
        })
    }

    /// No list for a user's manager, which may not attach programs (it takes the properties and does
    /// nothing); beside a policy that is asked for by annotation; and where a hook may allow more, as
    /// NVIDIA's does in every program that it finds: the next `daemon-reload` would take it away again.
    fn devices(&self, rules: Option<&Rules>, version: u32) -> Properties {
        let asked = self.extra.iter().any(|(name, _)| name == "DevicePolicy");
        let rules = rules.filter(|_| !self.unit.user && !asked && !self.hooks);
        rules.map(|rules| allow_list::properties(rules, version)).unwrap_or_default()
    }

    fn start_on(&self, bus: &mut Bus, pid: Pid, wanted: &Properties) -> Result<()> {
        let name = &self.unit.name;
        match bus.start(name, wanted)? {
            Ok(()) => return Ok(()),
            // systemd went away after it had done what it was asked.
            Err(refused) if refused.is_unit_exists() && self.unit.has(pid) => return Ok(()),
            Err(refused) if refused.is_unit_exists() => {}
            Err(refused) => return Err(refused.error(format!("start unit {name}"))),
        }
        // Of a run that failed and that nobody has reset, or on its way out.
        let state = bus.active_state(name)?;
        if !matches!(state.as_str(), "failed" | "inactive" | "deactivating") {
            return Err(Error::Failed(format!("unit {name} already exists and is {state}")));
        }
        bus.stop(name)?;
        bus.start(name, wanted)?.map_err(|refused| refused.error(format!("start unit {name}")))
    }
}

impl Unit {
    /// Stops the unit, waits until it is and forgets that it failed. None is no error.
    pub(super) fn stop(&self) -> Result<()> {
        ask(self.user, |bus| bus.stop(&self.name))
    }

    /// Tells systemd new limits, until the unit ends: all or, with an error, none. It has written
    /// them when this returns.
    pub(super) fn set(&self, resources: &LinuxResources) -> Result<()> {
        ask(self.user, |bus| {
            let wanted = properties::of(resources, bus.version()?)?;
            if wanted.is_empty() {
                return Ok(());
            }
            let refused =
                |refused: Refused| refused.error(format!("set properties of {}", self.name));
            bus.set(&self.name, &wanted)?.map_err(refused)?;
            // It answers first and writes then, but before it reads the next question.
            bus.active_state(&self.name).map(drop)
        })
    }

    /// Whether a process is in it.
    fn has(&self, pid: Pid) -> bool {
        let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        groups.trim_end().split('/').any(|part| part == self.name)
    }

    /// The part of a group's path that is below the unit's own group; `None` for a group elsewhere.
    pub(super) fn below<'path>(&self, group: &'path Path) -> Option<&'path Path> {
        let mut parts = group.components();
        parts.find(|part| part.as_os_str() == self.name.as_str())?;
        Some(parts.as_path())
    }

    /// Has systemd move the calling process into a group below the unit's own and checks that it
    /// did. An ordinary user may not leave its session's group by itself, but its manager has the
    /// system's manager to ask. Needs systemd 238.
    pub(super) fn take_in(&self, group: &Path) -> Result<()> {
        let below = self.below(group).unwrap_or(Path::new(""));
        ask(self.user, |bus| bus.attach_caller(&self.name, below))?;
        verify("self", group)
    }
}

/// Whether the manager to ask is a user's. In a user namespace the system's is root's own only where
/// a whole system runs in it (LXC, unlike rootless Podman).
fn is_users() -> bool {
    !geteuid().is_root() || (host::in_user_namespace() && !bus::system_is_ours())
}

/// A host with cgroup v1; the first thing to say is that systemd does not run, when it doesn't.
pub(super) fn needs_v2() -> Error {
    match bus::booted() {
        Ok(()) => Error::Unsupported(
            "the systemd cgroup driver needs cgroup v2, and this host has v1; use cgroupfs"
                .to_owned(),
        ),
        Err(error) => error,
    }
}

/// Whether a `linux.cgroupsPath` was meant for this driver, where no journal tells.
pub fn means(path: Option<&Path>) -> bool {
    path.is_some_and(|path| {
        path.is_relative() && names::Triple::parse(Some(path), "", false).is_ok()
    }) && bus::booted().is_ok()
}

/// Whether a process (a pid, or `self`) is in the group `path`, below the root of the hierarchy.
pub(super) fn verify(process: impl Display, path: &Path) -> Result<()> {
    let file = format!("/proc/{process}/cgroup");
    let text = std::fs::read_to_string(&file).doing(|| format!("read {file:?}"))?;
    let now = text.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    if Path::new(now).starts_with(path) {
        return Ok(());
    }
    Err(Error::Failed(format!(
        "process {process} is in the cgroup \"/{now}\" and not in \"/{}\"",
        path.display()
    )))
}
