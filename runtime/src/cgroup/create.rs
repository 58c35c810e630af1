//! Making the groups.

use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::dir::{Dir, Name, Step, walk};
use super::{Cgroup, Group, Plan, Version, no_permission, systemd};
use crate::error::{Doing, Error, Result};

impl Cgroup {
    /// Makes the group in every hierarchy, ready to take processes. What was made is removed again
    /// when a later one fails.
    ///
    /// # Errors
    /// A limit that this host's cgroups can't do; a group that has processes or is frozen; the
    /// errno of making one.
    pub fn create(&mut self, plan: &Plan) -> Result<()> {
        let wanted = self.writes(&plan.resources)?;
        self.check_controllers(&wanted)?;
        let mut made = Vec::with_capacity(self.groups.len());
        let mut result = self.make(plan, &mut made);
        if result.is_ok() {
            // Some may have been left out for want of permission.
            result = self.check_controllers(&wanted);
        }
        self.taken = result.is_ok();
        if result.is_err() {
            for path in made.iter().rev() {
                if let Err(errno) = Name::absolute(path).rmdir() {
                    tracing::debug!("undo: remove {path:?}: {}", errno.desc());
                }
            }
        }
        result
    }

    /// `made` gets the groups that were not there.
    fn make(&mut self, plan: &Plan, made: &mut Vec<PathBuf>) -> Result<()> {
        if let Some(unit) = &plan.unit {
            return self.start_unit(unit, plan);
        }
        let (version, v1_freezer) = (self.version, self.v1("freezer").is_some());
        let mut forbidden = Vec::new();
        for (index, group) in self.groups.iter_mut().enumerate() {
            match make(group, version) {
                Ok(()) => made.push(group.path.clone()),
                Err(Errno::EEXIST) => {
                    group.at.existed = true;
                    refuse_processes(group)?;
                }
                Err(errno) if plan.lenient() && no_permission(errno) => {
                    forbidden.push(index);
                    continue;
                }
                Err(errno) => return Err(errno).doing(|| format!("create {:?}", group.path)),
            }
            if group.at.has("freezer") || (group.is_v2() && !v1_freezer) {
                refuse_frozen(group)?;
            }
            if group.at.has("cpuset") {
                fill_cpuset(group, plan)?;
            }
        }
        for index in forbidden.into_iter().rev() {
            let group = self.groups.remove(index);
            tracing::debug!("no permission for {:?}: going on without", group.path);
        }
        if self.groups.is_empty() {
            self.version = Version::None;
        }
        if let (Some(owner), Some(group)) = (plan.owner, self.v2()) {
            delegate(group.dir()?, owner)?;
        }
        Ok(())
    }

    /// The unit with a placeholder in it; no unit when anything fails.
    fn start_unit(&mut self, unit: &systemd::Plan, plan: &Plan) -> Result<()> {
        if let Some(group) = self.v2().filter(|group| group.at.existed)
            && group.find()?.is_some()
        {
            refuse_processes(group)?;
        }
        let placeholder = systemd::Placeholder::new()?;
        unit.start(placeholder.pid, &plan.resources, plan.devices.as_ref())?;
        let placed = self.take_unit(placeholder.pid, plan);
        match placed {
            Ok(()) => self.placeholder = Some(placeholder),
            Err(_) => {
                drop(placeholder);
                if let Err(error) = unit.unit.stop() {
                    tracing::warn!("undo: {error}");
                }
            }
        }
        placed
    }

    fn take_unit(&mut self, placeholder: nix::unistd::Pid, plan: &Plan) -> Result<()> {
        for group in &mut self.groups {
            // What was there was empty, and systemd takes it away with the unit.
            group.at.existed = false;
            *group = Group::new(group.at.clone());
            systemd::verify(placeholder, &group.at.path)?;
            refuse_frozen(group)?;
            if let Some(owner) = plan.owner {
                delegate(group.dir()?, owner)?;
            }
        }
        Ok(())
    }

    /// Every controller that a limit needs must be there.
    fn check_controllers(&self, wanted: &[super::plan::Write]) -> Result<()> {
        for write in wanted.iter().filter(|write| !write.optional) {
            if self.group_of(&write.controller).is_none() {
                let (json, name) = (&write.json, &write.controller);
                return Err(Error::Unsupported(if self.lenient {
                    format!("cannot set {name} limit: container could not join or create cgroup")
                } else {
                    format!("linux.resources.{json}: cgroup controller {name} is not mounted")
                }));
            }
        }
        Ok(())
    }
}

/// Makes the directory; its parents come along.
fn make(group: &Group, version: Version) -> Result<(), Errno> {
    if version == Version::V2 {
        enable_controllers(group)?;
    }
    let name = Name::absolute(&group.path);
    let mut made = name.mkdir();
    if made == Err(Errno::ENOENT) {
        for parent in ancestors(group).into_iter().skip(1) {
            match Name::absolute(parent).mkdir() {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(errno) => return Err(errno),
            }
        }
        made = name.mkdir();
    }
    made?;
    if version == Version::V2
        && let Err(errno) = Dir::open(&group.path).and_then(|dir| check_type(&dir))
    {
        return name.rmdir().and(Err(errno));
    }
    Ok(())
}

/// The mount point and the groups between it and this one, from the top.
fn ancestors(group: &Group) -> Vec<&Path> {
    let count = group.at.path.components().count();
    let mut above: Vec<&Path> = group.path.ancestors().skip(1).take(count).collect();
    above.reverse();
    above
}

/// v2: every ancestor must hand the controllers down. All of them, as managers read statistics of
/// controllers that have no limit.
fn enable_controllers(group: &Group) -> Result<(), Errno> {
    let above = ancestors(group);
    let all = Dir::open(&group.at.mount)?.try_read("cgroup.controllers")?;
    let last = above.last().map(|parent| Dir::open(parent));
    if let Some(Ok(parent)) = last
        && lacks(&parent.try_read("cgroup.subtree_control")?, &all).is_empty()
    {
        return Ok(());
    }
    for (depth, path) in above.into_iter().enumerate() {
        if depth > 0 {
            match Name::absolute(path).mkdir() {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(errno) => return Err(errno),
            }
        }
        let dir = Dir::open(path)?;
        let missing = lacks(&dir.try_read("cgroup.subtree_control")?, &all);
        if missing.is_empty() || dir.try_write("cgroup.subtree_control", &missing).is_ok() {
            continue;
        }
        // One of them stops all: a controller that is not delegated to us, realtime processes
        // under the cpu controller. A limit that needs it fails by name when it is written.
        for one in missing.split(' ') {
            if let Err(errno) = dir.try_write("cgroup.subtree_control", one) {
                tracing::debug!("{one} for the groups below {path:?}: {}", errno.desc());
            }
        }
    }
    Ok(())
}

/// `+a +b` for what of `wanted` is not in `have`.
fn lacks(have: &str, wanted: &str) -> String {
    let missing =
        wanted.split_whitespace().filter(|name| !have.split_whitespace().any(|h| h == *name));
    missing.map(|name| format!("+{name}")).collect::<Vec<_>>().join(" ")
}

/// v2: below a threaded group, or one with processes and threaded sub-groups, a new group can't
/// take processes until it is threaded too; then it has no memory or io controller, which a limit
/// that needs one will say.
fn check_type(dir: &Dir) -> Result<(), Errno> {
    match dir.try_read("cgroup.type") {
        Ok(kind) if kind.trim_end() == "domain invalid" => dir.try_write("cgroup.type", "threaded"),
        // Before 4.14 there are no threaded groups.
        Ok(_) | Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Another container's group, or one that somebody else uses.
fn refuse_processes(group: &Group) -> Result<()> {
    let mut count = 0;
    walk(group.dir()?, |step| {
        if let Step::Enter(dir) = step {
            count += dir.try_read("cgroup.procs").map_or(0, |text| text.lines().count());
        }
        Ok(())
    })?;
    if count == 0 {
        return Ok(());
    }
    Err(Error::Failed(format!(
        "container's cgroup is not empty: {count} process(es) found in {:?}",
        group.path
    )))
}

/// In a frozen group (or below one) the container's first process would never run.
fn refuse_frozen(group: &Group) -> Result<()> {
    let dir = group.dir()?;
    let frozen = if group.is_v2() {
        dir.try_value("cgroup.events").is_ok_and(|text| text.contains("frozen 1"))
    } else {
        dir.try_value("freezer.state").is_ok_and(|state| state != "THAWED")
    };
    if frozen {
        let path = &group.path;
        return Err(Error::Failed(format!("container's cgroup unexpectedly frozen: {path:?}")));
    }
    Ok(())
}

/// v1: a cpuset takes no process before it has cpus and memory nodes, and it inherits none. What
/// the plan does not ask for comes from the parent, and the parent's from its own.
fn fill_cpuset(group: &Group, plan: &Plan) -> Result<()> {
    let cpu = plan.resources.cpu().as_ref();
    let given = |list: Option<&String>| list.is_some_and(|list| !list.trim().is_empty());
    let files = [
        ("cpuset.cpus", given(cpu.and_then(|cpu| cpu.cpus().as_ref()))),
        ("cpuset.mems", given(cpu.and_then(|cpu| cpu.mems().as_ref()))),
    ];
    let above = ancestors(group);
    let mut opened: Vec<Dir> = Vec::with_capacity(1);
    for (file, given) in files {
        let mut inherited = String::new();
        let mut empty = 0;
        for (distance, path) in above.iter().rev().enumerate() {
            if opened.len() == distance {
                opened.push(Dir::open(path).doing(|| format!("open {path:?}"))?);
            }
            inherited = value(&opened[distance], file)?;
            if !inherited.is_empty() {
                break;
            }
            empty = distance + 1;
        }
        for dir in opened[..empty].iter().rev() {
            dir.write(file, &inherited)?;
        }
        let dir = group.dir()?;
        // With cgroup.clone_children the kernel has filled it, or somebody before us.
        if !given && (!group.at.existed || value(dir, file)?.is_empty()) {
            dir.write(file, &inherited)?;
        }
    }
    Ok(())
}

fn value(dir: &Dir, file: &str) -> Result<String> {
    dir.try_value(file).doing(|| format!("read {:?}", dir.path().join(file)))
}

/// v2: the container's root may arrange sub-groups and move processes between them, and change no
/// limit. Which files that takes is the kernel's to say.
fn delegate(dir: &Dir, owner: u32) -> Result<()> {
    use nix::fcntl::AtFlags;
    use nix::unistd::{Uid, fchownat};
    let listed = std::fs::read_to_string("/sys/kernel/cgroup/delegate");
    let listed = listed
        .unwrap_or_else(|_| "cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n".to_owned());
    for file in std::iter::once(".").chain(listed.lines().filter(|name| !name.contains('/'))) {
        match fchownat(dir, file, Some(Uid::from_raw(owner)), None, AtFlags::AT_SYMLINK_NOFOLLOW) {
            // The list is of all controllers' files, also of those that are not enabled.
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => {
                return Err(errno).doing(|| format!("chown {:?}", dir.path().join(file)));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_missing_controllers_are_enabled() {
        assert_eq!(lacks("cpu memory\n", "cpuset cpu memory pids\n"), "+cpuset +pids");
        assert_eq!(lacks("cpu", "cpu\n"), "");
        assert_eq!(lacks("", ""), "");
    }
}
