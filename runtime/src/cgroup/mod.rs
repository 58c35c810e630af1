//! The container's control groups: v1, hybrid and v2, written directly (the cgroupfs driver), or
//! with systemd making them ([`systemd`]).
//!
//! The order is the caller's to keep, and each step says what it needs:
//! [`Plan::new`] (pure) → [`Cgroup::locate`] → the caller journals [`Cgroup::record`] →
//! [`Cgroup::create`] → [`Cgroup::apply`] → the process is born in the group
//! ([`Cgroup::clone_fd`]) or goes there by itself ([`Cgroup::seats`]). Limits and
//! device rules come before the process, so that it never runs without them.
//! After a crash, or in another command, [`Cgroup::open`] takes the record up again.
//!
//! What is removed at the end is what was not there before: the group itself in each hierarchy.
//! Parents stay, as with runc, because other containers are being created in them.
//!
//! Threats: a path that leads out of the hierarchy ([`plan`], [`dir`]); another container's group
//! taken over or killed (a group with processes is refused); a process that survives a kill
//! ([`kill`](Cgroup::kill_all) checks that the group is empty); a limit that was asked for and is
//! not there (a missing controller is an error, and values that the kernel bends are checked).

mod apply;
mod create;
mod device_index;
pub mod device_program;
pub mod devices;
pub mod dir;
mod freezer;
mod kill;
pub(crate) mod locate;
pub mod plan;
mod remove;
mod seats;
pub mod stats;
pub mod systemd;
mod update;
pub mod v1;
pub mod v2;

#[cfg(test)]
mod arithmetic;
#[cfg(test)]
mod tests;

use std::cell::OnceCell;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use self::dir::Dir;
pub use self::plan::{Options, Plan};
pub use self::seats::Seats;
pub use self::stats::Stats;
use crate::error::{Doing, Error, Result};

/// Which cgroups this host has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Version {
    /// None that we may use: not mounted, or no permission and nothing asked (rootless).
    None,
    /// One hierarchy for each controller.
    V1,
    /// v1, and v2 without controllers beside it.
    Hybrid,
    /// One hierarchy.
    V2,
}

/// Where the groups are: what the journal keeps, and all that `delete` needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Which cgroups.
    pub version: Version,
    /// A permission that is missing was tolerated at create and is later.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lenient: bool,
    /// [`Cgroup::create`] has found the groups fit and taken them. Before that, one that existed
    /// may be another container's, and must survive whatever is done to this one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub taken: bool,
    /// The systemd unit that the group belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<systemd::Unit>,
    /// The group in each hierarchy.
    pub groups: Vec<Location>,
}

impl Record {
    /// No cgroups at all, as with `--cgroup-manager disabled`.
    pub fn none() -> Self {
        Self {
            version: Version::None,
            lenient: false,
            taken: false,
            unit: None,
            groups: Vec::new(),
        }
    }

    /// Whether the container is paused, as [`Cgroup::is_frozen`], for `state` and `list`: one
    /// small file is read.
    ///
    /// # Errors
    /// The errno of reading it, except for its absence.
    pub fn is_frozen(&self) -> Result<bool> {
        let freezer = self.groups.iter().find(|group| group.has("freezer"));
        let freezer = freezer.or_else(|| self.groups.iter().find(|group| group.has("")));
        freezer.map_or(Ok(false), |at| {
            let groups = vec![Group::new(at.clone())];
            let (version, lenient, taken) = (self.version, self.lenient, self.taken);
            let (unit, placeholder) = (None, None);
            Cgroup { version, lenient, taken, unit, placeholder, groups }.is_frozen()
        })
    }
}

/// The group in one hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Location {
    /// As in /proc/self/cgroup: `cpu,cpuacct`, `name=systemd`, empty for v2.
    pub controllers: String,
    /// Where the hierarchy is mounted.
    pub mount: PathBuf,
    /// The group, below `mount`.
    pub path: PathBuf,
    /// It was there before us, so it stays after us.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub existed: bool,
}

impl Location {
    fn has(&self, controller: &str) -> bool {
        self.controllers.split(',').any(|name| name == controller)
    }
}

/// A group in one hierarchy; its directories are opened when first needed.
#[derive(Debug)]
struct Group {
    at: Location,
    path: PathBuf,
    dir: OnceCell<Dir>,
}

impl Group {
    fn new(at: Location) -> Self {
        Self { path: at.mount.join(&at.path), at, dir: OnceCell::new() }
    }

    fn is_v2(&self) -> bool {
        self.at.controllers.is_empty()
    }

    /// The group's directory; `None` when somebody has removed it.
    fn find(&self) -> Result<Option<&Dir>> {
        if self.dir.get().is_none() {
            match Dir::open(&self.path) {
                // Nobody else sets it: there are no threads and `open` does not recurse.
                Ok(open) => drop(self.dir.set(open)),
                Err(Errno::ENOENT | Errno::ENODEV) => return Ok(None),
                Err(errno) => return Err(errno).doing(|| format!("open {:?}", self.path)),
            }
        }
        Ok(self.dir.get())
    }

    /// The file to write pids to. Half of the groups need no other, so it is opened by its path.
    fn writable(&self, file: &str) -> Result<OwnedFd, Errno> {
        match self.dir.get() {
            Some(dir) => dir.file(file, nix::fcntl::OFlag::O_WRONLY),
            None => dir::open_plain(&self.path.join(file), nix::libc::O_WRONLY),
        }
    }

    /// The group's directory, which must be there.
    fn dir(&self) -> Result<&Dir> {
        self.find()?.ok_or_else(|| gone(&self.path))
    }
}

fn gone(path: &Path) -> Error {
    Error::sys(format!("open {path:?}"), Errno::ENOENT)
}

/// A container's groups in all hierarchies.
#[derive(Debug)]
pub struct Cgroup {
    version: Version,
    lenient: bool,
    taken: bool,
    unit: Option<systemd::Unit>,
    /// In the unit until the container's first process is.
    placeholder: Option<systemd::Placeholder>,
    groups: Vec<Group>,
}

impl Cgroup {
    /// Takes up the groups of a journal, without those that were never ours. Nothing is opened
    /// before it is needed.
    pub fn open(record: &Record) -> Self {
        let ours = record.groups.iter().filter(|group| record.taken || !group.existed);
        let groups: Vec<Group> = ours.cloned().map(Group::new).collect();
        Self {
            version: record.version,
            lenient: record.lenient,
            taken: record.taken,
            unit: record.unit.clone().filter(|_| !groups.is_empty()),
            placeholder: None,
            groups,
        }
    }

    /// What to journal: after [`Cgroup::locate`], and again after [`Cgroup::create`], which may
    /// have gone on without some groups.
    pub fn record(&self) -> Record {
        Record {
            version: self.version,
            lenient: self.lenient,
            taken: self.taken,
            unit: self.unit.clone(),
            groups: self.groups.iter().map(|group| group.at.clone()).collect(),
        }
    }

    /// Which cgroups this is made of.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Once the container's first process is in its group: with systemd, checks that it is, and
    /// takes the placeholder and what was conceded to it away.
    ///
    /// # Errors
    /// The process is elsewhere; the limit of processes could not be set.
    pub fn settle(&mut self, plan: &Plan, init: Pid) -> Result<()> {
        if self.placeholder.is_none() {
            return Ok(());
        }
        if let Some(group) = self.v2() {
            systemd::verify(init, &group.at.path)?;
        }
        self.placeholder = None;
        self.apply_pids(&plan.resources)
    }

    /// Whether any of the groups is still there.
    ///
    /// # Errors
    /// The errno of looking for one.
    pub fn exists(&self) -> Result<bool> {
        for group in &self.groups {
            match nix::sys::stat::lstat(&group.path) {
                Ok(_) => return Ok(true),
                Err(Errno::ENOENT | Errno::ENOTDIR) => {}
                Err(errno) => return Err(errno).doing(|| format!("look for {:?}", group.path)),
            }
        }
        Ok(false)
    }

    /// Whether a process can be put into the groups: they are still there, and the v2 one hands no
    /// controllers down to groups below it (systemd in the container does that), which makes it one
    /// for groups only.
    ///
    /// # Errors
    /// The errno of looking.
    pub fn takes_processes(&self) -> Result<bool> {
        if !self.exists()? {
            return Ok(false);
        }
        let Some(dir) = self.v2().map(Group::find).transpose()?.flatten() else { return Ok(true) };
        match dir.try_value("cgroup.subtree_control") {
            Ok(controllers) => Ok(controllers.is_empty()),
            // Gone from this hierarchy alone: joining says so.
            Err(Errno::ENOENT | Errno::ENODEV) => Ok(true),
            Err(errno) => {
                Err(errno).doing(|| format!("read {:?}", dir.path().join("cgroup.subtree_control")))
            }
        }
    }

    fn v2(&self) -> Option<&Group> {
        self.groups.iter().find(|group| group.is_v2())
    }

    fn v1(&self, controller: &str) -> Option<&Group> {
        self.groups.iter().find(|group| group.at.has(controller))
    }

    /// Who has a controller's files.
    fn group_of(&self, controller: &str) -> Option<&Group> {
        if self.version == Version::V2 { self.v2() } else { self.v1(controller) }
    }

    /// The directory that has a controller's files; `None` without the controller, or when
    /// somebody has removed the group.
    ///
    /// # Errors
    /// The errno of opening it.
    pub fn dir_of(&self, controller: &str) -> Result<Option<&Dir>> {
        Ok(self.group_of(controller).map(Group::find).transpose()?.flatten())
    }

    /// The v2 directory for `CLONE_INTO_CGROUP`: the process is born in it and needs no move.
    /// Needs Linux 5.7; before, and on v1, [`Cgroup::join`] is the way. So it is for a group that
    /// was there before us: the kernel kills what is born into a group whose cgroup.kill was ever
    /// written, because it compares the kill count of the group with that of the parent's group
    /// (seen on 6.18). And for a unit of a user's manager, which not everybody may be born into:
    /// see [`Seats`].
    ///
    /// # Errors
    /// The group is gone.
    pub fn clone_fd(&self) -> Result<Option<OwnedFd>> {
        if self.unit.as_ref().is_some_and(|unit| unit.user) {
            return Ok(None);
        }
        let Some(group) = self.v2().filter(|group| !group.at.existed) else { return Ok(None) };
        let fd = group.dir()?.as_fd().try_clone_to_owned();
        fd.doing(|| format!("duplicate the fd of {:?}", group.path)).map(Some)
    }

    /// Moves a process and all its threads into every group; into all but the v2 one when it was
    /// born there. [`Cgroup::seats`] are better by far where the process is our own child.
    ///
    /// # Errors
    /// `ESRCH` when the process has gone, `ENOENT` when a group has, `EBUSY` when the v2 group has
    /// sub-groups with controllers, `EOPNOTSUPP` when it is part of a threaded tree.
    pub fn join(&self, pid: Pid, born_in_v2: bool) -> Result<()> {
        let text = pid.to_string();
        for group in self.groups.iter().filter(|group| !(born_in_v2 && group.is_v2())) {
            let joined =
                group.writable("cgroup.procs").and_then(|file| dir::write_all(&file, &text));
            match joined {
                Err(errno) if self.lenient && no_permission(errno) => {
                    tracing::debug!("going on outside of {:?}: {}", group.path, errno.desc());
                }
                other => other
                    .doing(|| format!("move process {pid} into its cgroup {:?}", group.path))?,
            }
        }
        Ok(())
    }

    /// The sub-groups that `exec --cgroup` names: `path` in every hierarchy, or
    /// `controller[,controller]:path` in some. They must exist already.
    ///
    /// # Errors
    /// A path that leads out of the container's group, an unknown controller, a missing group.
    pub fn sub_groups(&self, specs: &[impl AsRef<str>]) -> Result<Self> {
        let mut record = self.record();
        for spec in specs.iter().map(AsRef::as_ref) {
            let (controllers, path) = spec.split_once(':').unwrap_or(("", spec));
            let below = Path::new(path.trim_start_matches('/'));
            if below.components().any(|part| !matches!(part, std::path::Component::Normal(_))) {
                return Err(Error::Usage(format!("bad sub cgroup path: {path}")));
            }
            for name in controllers.split(',') {
                let mut hits = 0;
                for group in &mut record.groups {
                    if name.is_empty() || group.has(name) {
                        group.path.push(below);
                        group.existed = true;
                        hits += 1;
                    }
                }
                if hits == 0 {
                    return Err(Error::Usage(format!("unknown controller {name} in --cgroup")));
                }
            }
        }
        let sub = Self::open(&record);
        for group in &sub.groups {
            group.dir()?;
        }
        Ok(sub)
    }

    /// The groups that a process of the container is in by now: where an exec goes when the
    /// container's own group refuses it (`EBUSY`: systemd inside has made sub-groups) or is gone.
    ///
    /// # Errors
    /// The process has gone.
    pub fn of_process(&self, pid: Pid) -> Result<Self> {
        let file = format!("/proc/{pid}/cgroup");
        let text = std::fs::read_to_string(&file).doing(|| format!("read {file:?}"))?;
        let mut record = self.record();
        for line in text.lines() {
            let mut parts = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(now)) = (parts.next(), parts.next()) else { continue };
            let found = record.groups.iter_mut().find(|group| group.controllers == controllers);
            let Some(group) = found else { continue };
            // What the mount shows may start below the hierarchy's root: the known path tells.
            let now = Path::new(now.trim_start_matches('/'));
            let known = group.path.as_os_str().len();
            let above = now.ancestors().find(|above| above.ends_with(&group.path));
            let hidden = above.map_or(0, |above| above.as_os_str().len() - known);
            let shown = now.as_os_str().to_str().and_then(|now| now.get(hidden..));
            if let Some(shown) = shown.filter(|shown| !shown.contains("..")) {
                group.path = shown.trim_start_matches('/').into();
                // Not made by us: see `clone_fd`.
                group.existed = true;
            }
        }
        Ok(Self::open(&record))
    }

    /// How many processes of the container the kernel has killed for want of memory; 0 where the
    /// kernel does not tell.
    ///
    /// # Errors
    /// The errno of reading it.
    pub fn oom_kill_count(&self) -> Result<u64> {
        let Some(group) = self.group_of("memory") else { return Ok(0) };
        let Some(dir) = group.find()? else { return Ok(0) };
        let file = if group.is_v2() { "memory.events" } else { "memory.oom_control" };
        match dir.try_read(file) {
            Ok(text) => Ok(stats::reader::value_of(&text, "oom_kill").unwrap_or(0)),
            Err(Errno::ENOENT | Errno::ENODEV) => Ok(0),
            Err(errno) => Err(errno).doing(|| format!("read {:?}", dir.path().join(file))),
        }
    }
}

fn no_permission(errno: Errno) -> bool {
    matches!(errno, Errno::EACCES | Errno::EPERM | Errno::EROFS)
}
