//! Writing the limits.
//!
//! The lists of [`super::v1`] and [`super::v2`] say which value goes where; here they are carried
//! out, in order. What the kernel checks against a value that comes later in the list is tried
//! again at the end, so that no order of limits that is possible at all is refused.

use nix::errno::Errno;
use oci_spec::runtime::LinuxResources;

use super::dir::{Dir, write_all};
use super::plan::Write;
use super::{Cgroup, Plan, Version, device_program, no_permission, v1, v2};
use crate::error::{Doing, Error, Result};

impl Cgroup {
    /// Sets everything the plan asks for.
    ///
    /// # Errors
    /// The first limit that could not be set, by its JSON path, file and errno.
    pub fn apply(&self, plan: &Plan) -> Result<()> {
        self.apply_limits(plan)?;
        self.apply_devices(plan)
    }

    /// Sets everything but the devices.
    ///
    /// # Errors
    /// As [`Cgroup::apply`].
    pub fn apply_limits(&self, plan: &Plan) -> Result<()> {
        if self.version == Version::V2 {
            self.check_memory(&plan.resources)?;
        }
        let mut writes = self.writes(&plan.resources)?;
        if self.placeholder.is_some() {
            writes.iter_mut().filter(|write| write.file == "pids.max").for_each(one_more);
        }
        self.carry_out(&writes, &mut |_, _| Ok(()))?;
        if self.version == Version::V2 {
            self.check_cpuset(&plan.resources)?;
        }
        Ok(())
    }

    /// The limit of processes as it was asked for, without the placeholder.
    pub(super) fn apply_pids(&self, resources: &LinuxResources) -> Result<()> {
        let mut writes = self.writes(resources)?;
        writes.retain(|write| write.file == "pids.max");
        self.carry_out(&writes, &mut |_, _| Ok(()))
    }

    /// Restricts the devices.
    ///
    /// # Errors
    /// As [`Cgroup::apply`].
    pub(super) fn apply_devices(&self, plan: &Plan) -> Result<()> {
        let Some(rules) = &plan.devices else { return Ok(()) };
        let result = match self.version {
            Version::None => Ok(()),
            Version::V1 | Version::Hybrid => match self.v1("devices") {
                Some(group) => apply_v1_devices(group.dir()?, rules),
                None => Ok(()),
            },
            // The group is new and everything is allowed: no program is the fastest program.
            Version::V2 if rules.allows_all() && self.v2().is_none_or(|v2| !v2.at.existed) => {
                Ok(())
            }
            Version::V2 => match self.v2() {
                // What is there is systemd's, which keeps its own hold of it.
                Some(group) if plan.unit.is_some() => device_program::add(group.dir()?, rules),
                Some(group) => device_program::replace(group.dir()?, rules),
                None => Ok(()),
            },
        };
        match result {
            // Without the right to use devices there is little to restrict (as in runc).
            Err(error) if plan.rootless && error.errno().is_some_and(no_permission) => {
                tracing::debug!("going on without device rules: {error}");
                Ok(())
            }
            other => other.doing(|| "linux.resources.devices".to_owned()),
        }
    }

    pub(super) fn writes(&self, resources: &LinuxResources) -> Result<Vec<Write>> {
        match self.version {
            Version::V2 => v2::writes(resources),
            Version::V1 | Version::Hybrid => v1::writes(resources),
            // Whatever is asked for will be found to have no controller.
            Version::None if resources.unified().is_some() => v2::writes(resources),
            Version::None => v1::writes(resources),
        }
    }

    /// Does the writes. `before` sees each file that is about to change.
    pub(super) fn carry_out(
        &self,
        writes: &[Write],
        before: &mut dyn FnMut(&Dir, &Write) -> Result<()>,
    ) -> Result<()> {
        let mut again = Vec::new();
        for write in writes {
            let Some(group) = self.group_of(&write.controller).or_else(|| self.v2()) else {
                if write.optional {
                    continue;
                }
                return Err(missing_controller(write));
            };
            let dir = group.dir()?;
            before(dir, write)?;
            match carry_out_one(dir, write) {
                Err(Errno::EINVAL) if write.again => again.push((dir, write)),
                other => other.or_else(|errno| explain(dir, write, errno))?,
            }
        }
        for (dir, write) in again {
            carry_out_one(dir, write).or_else(|errno| explain(dir, write, errno))?;
        }
        Ok(())
    }

    /// memory.checkBeforeUpdate: v2 would rather kill than refuse a limit below the present usage.
    pub(super) fn check_memory(&self, resources: &LinuxResources) -> Result<()> {
        let Some(memory) = resources.memory().filter(|m| m.check_before_update() == Some(true))
        else {
            return Ok(());
        };
        // As in runc, a group whose usage can't be known is not refused.
        let usage = self
            .v2()
            .and_then(|v2| v2.dir().ok())
            .and_then(|dir| dir.try_read("memory.current").ok()?.trim_end().parse::<i64>().ok());
        let Some(usage) = usage else { return Ok(()) };
        for (what, limit) in [("memory+swap", memory.swap()), ("memory", memory.limit())] {
            if let Some(limit) = limit.filter(|limit| *limit > 0 && *limit <= usage) {
                let why = format!("rejecting {what} limit {limit} <= usage {usage}");
                return Err(Error::Failed(why));
            }
        }
        Ok(())
    }

    /// v2 takes cpus that are not there, and then silently uses the parent's.
    pub(super) fn check_cpuset(&self, resources: &LinuxResources) -> Result<()> {
        let Some(cpu) = resources.cpu() else { return Ok(()) };
        for (json, file, list) in [
            ("cpu.cpus", "cpuset.cpus.effective", cpu.cpus()),
            ("cpu.mems", "cpuset.mems.effective", cpu.mems()),
        ] {
            let Some(list) = list.as_deref().filter(|list| !list.trim().is_empty()) else {
                continue;
            };
            let Some(group) = self.v2() else { continue };
            let effective = group.dir()?.read(file)?;
            let (wanted, got) = (super::stats::numbers(list), super::stats::numbers(&effective));
            if let (Some(wanted), Some(got)) = (wanted, got)
                && got.iter().any(|number| !wanted.contains(number))
            {
                return Err(Error::config(
                    format!("linux.resources.{json}"),
                    format!(
                        "{list:?} has none of those available here, {:?}",
                        effective.trim_end()
                    ),
                ));
            }
        }
        Ok(())
    }
}

fn carry_out_one(dir: &Dir, write: &Write) -> Result<(), Errno> {
    match (dir.try_write(&write.file, &write.value), &write.instead) {
        (Err(Errno::ENOENT), Some((file, value))) => dir.try_write(file, value),
        (Err(Errno::ENOENT), None) if write.optional => {
            tracing::debug!("no {} in {:?}", write.file, dir.path());
            Ok(())
        }
        (other, _) => other,
    }
}

/// Room for the placeholder.
fn one_more(write: &mut Write) {
    if let Ok(limit) = write.value.trim().parse::<u64>() {
        write.value = limit.saturating_add(1).to_string();
    }
}

fn missing_controller(write: &Write) -> Error {
    Error::Unsupported(format!(
        "linux.resources.{}: cgroup controller {} is not mounted",
        write.json, write.controller
    ))
}

/// What the errno of a limit means.
fn explain(dir: &Dir, write: &Write, errno: Errno) -> Result<()> {
    let (json, file) = (&write.json, dir.path().join(write.file.as_ref()));
    let number = |name: &str| {
        dir.try_read(name).map_or_else(|_| "unknown".to_owned(), |text| text.trim_end().to_owned())
    };
    if errno == Errno::EBUSY && write.file == "memory.limit_in_bytes" {
        return Err(Error::Failed(format!(
            "linux.resources.{json}: unable to set memory limit to {} (current usage: {}, peak usage: {})",
            write.value,
            number("memory.usage_in_bytes"),
            number("memory.max_usage_in_bytes")
        )));
    }
    if errno == Errno::ENOENT
        && let Ok(controllers) = dir.try_read("cgroup.controllers")
        && write.controller != "cgroup"
        && !controllers.split_whitespace().any(|name| name == write.controller)
    {
        let kind = number("cgroup.type");
        return Err(Error::Unsupported(format!(
            "linux.resources.{json}: cgroup controller {} is not available in {:?} (it has {:?}, its type is {kind})",
            write.controller,
            dir.path(),
            controllers.trim_end()
        )));
    }
    Err(errno)
        .doing(|| format!("write {:?} to {file:?}", write.value))
        .doing(|| format!("linux.resources.{json}"))
}

/// The default first, which forgets all exceptions, then the exceptions; then what the kernel
/// made of it.
fn apply_v1_devices(dir: &Dir, rules: &super::devices::Rules) -> Result<()> {
    let exceptions = rules.exceptions()?;
    let [default, other] = if exceptions.default_allow {
        ["devices.allow", "devices.deny"]
    } else {
        ["devices.deny", "devices.allow"]
    };
    let lines = exceptions.lines();
    dir.write(default, "a")?;
    if !lines.is_empty() {
        let path = || dir.path().join(other);
        let file =
            dir.file(other, nix::fcntl::OFlag::O_WRONLY).doing(|| format!("open {:?}", path()))?;
        for line in &lines {
            write_all(&file, line).doing(|| format!("write {line:?} to {:?}", path()))?;
        }
    }
    let list = dir.read("devices.list")?;
    let same = if exceptions.default_allow {
        // The exceptions to an allow are not shown.
        list.trim_end() == "a *:* rwm"
    } else {
        list.lines().count() == lines.len()
            && list.lines().all(|line| lines.iter().any(|ours| ours == line))
    };
    if same {
        return Ok(());
    }
    Err(Error::Failed(format!(
        "the kernel's device rules {list:?} of {:?} are not what was asked for, {lines:?}",
        dir.path()
    )))
}
