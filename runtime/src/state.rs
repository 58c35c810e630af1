//! What is known of a container, and what is true of it now.
//!
//! [`State`] is the journal: written before each resource exists, so that `delete` always knows
//! what to look for, wherever the runtime was killed. [`State::status`] never trusts it alone: a
//! container lives when the process with the recorded pid, start time *and* number lives in the
//! recorded boot, and it is `created` until the kernel says that this process has executed something
//! (`PF_FORKNOEXEC`; the init is a clone without exec until `start`). So a reused pid, a reboot or
//! a runtime that was killed half-way can't make the answer wrong.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::stat::fstat;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::cgroup::{self, Cgroup};
use crate::error::{Doing, Error, Result};
use crate::sys;
use crate::sys::process::pidfd_open;

/// The version of the journal's format; a file with another one is not understood.
pub const FORMAT: u32 = 2;

/// `PF_FORKNOEXEC` of `/proc/<pid>/stat`: forked but did not exec. ps(1), PROCESS FLAGS, 1.
const PF_FORKNOEXEC: u64 = 0x40;
/// The file system of pidfds since Linux 6.9 (linux/magic.h).
const PID_FS_MAGIC: u64 = 0x5049_4446;

/// A container's status (runtime-spec, runtime.md, State), and `paused`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// `create` has not finished.
    Creating,
    /// Waits for `start`.
    Created,
    /// Has executed the user's program.
    Running,
    /// Running, and its cgroup is frozen.
    Paused,
    /// The process is gone.
    Stopped,
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        })
    }
}

/// A process that can't be mistaken for another one: its pid, when it started, and its number in the
/// kernel's own file system for processes. Without that number (before Linux 6.9) another process can
/// be taken for it that got the same pid within the same tick of 10 ms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// The pid in the runtime's pid namespace.
    pub pid: i32,
    /// Clock ticks after boot (`/proc/<pid>/stat`, field 22).
    pub start_time: u64,
    /// Inode of its pidfd: never used twice in one boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inode: Option<u64>,
}

/// One container's journal, `state.json` in its directory.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// [`FORMAT`].
    pub format: u32,
    /// The container's id.
    pub id: String,
    /// `ociVersion` of the container's config.
    pub oci_version: String,
    /// The bundle's absolute path.
    pub bundle: PathBuf,
    /// The root file system's absolute path on the host.
    pub rootfs: PathBuf,
    /// When `create` began, RFC 3339 with nanoseconds, UTC.
    pub created: String,
    /// The uid that called `create`.
    pub owner: u32,
    /// `/proc/sys/kernel/random/boot_id` of the boot that the process lives in.
    pub boot_id: String,
    /// `create` has come to its end.
    pub complete: bool,
    /// The first process, once it exists.
    pub init: Option<Process>,
    /// The cgroups, from before they exist.
    pub cgroup: Option<cgroup::Record>,
    /// Whether the container has a pid namespace of its own, so that its init takes everything
    /// with it when it ends.
    pub own_pid_namespace: bool,
    /// Whether the cgroups are managed without rights to them.
    pub rootless: bool,
    /// The config's annotations.
    pub annotations: BTreeMap<String, String>,
}

impl State {
    /// What is true now. Reads `/proc/<pid>/stat`, and the freezer when the process runs.
    ///
    /// # Errors
    /// When they can't be read. Not to know is no answer: a container that were taken for stopped
    /// would be deleted with all that runs in it.
    pub fn status(&self) -> Result<Status> {
        let Some(stat) = self.live()? else {
            let begun = self.init.is_none() && !self.complete && self.same_boot()?;
            return Ok(if begun { Status::Creating } else { Status::Stopped });
        };
        if !self.complete {
            return Ok(Status::Creating);
        }
        let frozen = self.open_cgroup().map_or(Ok(false), |cgroup| cgroup.is_frozen())?;
        Ok(if frozen {
            Status::Paused
        } else if stat.flags & PF_FORKNOEXEC != 0 {
            Status::Created
        } else {
            Status::Running
        })
    }

    /// The first process, if it still is one.
    ///
    /// # Errors
    /// Those of [`State::status`].
    pub fn live_init(&self) -> Result<Option<Process>> {
        Ok(self.live()?.and(self.init))
    }

    /// Whether the first process has ended without having executed anything: asked when it has let
    /// go of the gate, which it does by execve(2) or by its end. The kernel notes the execution
    /// before it closes a descriptor for it, and keeps the note until somebody has waited.
    ///
    /// # Errors
    /// Those of [`State::status`].
    pub fn has_died_early(&self) -> Result<bool> {
        let Some(init) = self.init else { return Ok(false) };
        let stat = Stat::find(init.pid())?;
        Ok(stat.is_some_and(|stat| init.is(&stat) && stat.flags & PF_FORKNOEXEC != 0))
    }

    /// The container's cgroups, if it has any.
    pub fn open_cgroup(&self) -> Option<Cgroup> {
        // A rootless container may have been refused all of them: its journal lists none.
        self.cgroup.as_ref().filter(|record| !record.groups.is_empty()).map(Cgroup::open)
    }

    fn live(&self) -> Result<Option<Stat>> {
        let Some(init) = self.init else { return Ok(None) };
        if !self.same_boot()? {
            return Ok(None);
        }
        let stat = Stat::find(init.pid())?;
        Ok(stat.filter(|stat| init.is(stat) && !matches!(stat.state, 'Z' | 'X' | 'x')))
    }

    fn same_boot(&self) -> Result<bool> {
        Ok(boot_id()? == self.boot_id)
    }

    /// The state of runtime.md, with the status and pid of the moment.
    pub fn oci(&self, status: Status, pid: i32) -> OciState<'_> {
        OciState {
            oci_version: &self.oci_version,
            id: &self.id,
            status,
            pid,
            bundle: &self.bundle,
            annotations: &self.annotations,
        }
    }

    /// The state of runtime.md as a hook or a seccomp agent gets it, in compact JSON, with the
    /// status and pid of the moment.
    ///
    /// # Errors
    /// When a path is not UTF-8.
    pub fn document(&self, status: Status, pid: i32) -> Result<Vec<u8>> {
        serde_json::to_vec(&self.oci(status, pid))
            .map_err(|error| Error::Failed(format!("write the container's state: {error}")))
    }
}

/// runtime.md, State.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OciState<'a> {
    oci_version: &'a str,
    id: &'a str,
    status: Status,
    #[serde(skip_serializing_if = "is_zero")]
    pid: i32,
    bundle: &'a Path,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if passes &T")]
fn is_zero(pid: &i32) -> bool {
    *pid == 0
}

/// The fields of `/proc/<pid>/stat` that identify a process (proc_pid_stat(5)).
#[derive(Debug, Clone, Copy)]
pub struct Stat {
    /// Field 3: `R`, `S`, `D`, `Z`, ...
    pub state: char,
    /// Field 9: `PF_*`.
    pub flags: u64,
    /// Field 22, clock ticks after boot.
    pub start_time: u64,
    /// Field 52: of a zombie, how it ended, as wait(2) fills it. Zero for whoever may not trace it.
    pub exit_code: i32,
}

impl Stat {
    /// Reads the process's line.
    ///
    /// # Errors
    /// `ENOENT` or `ESRCH` when there is no such process.
    pub fn of(pid: Pid) -> Result<Self> {
        let path = format!("/proc/{pid}/stat");
        let line = read(&path)?;
        Self::parse(&line).ok_or_else(|| Error::Failed(format!("read {path}: not understood")))
    }

    /// The same; none when there is no such process.
    ///
    /// # Errors
    /// When that can't be known.
    pub fn find(pid: Pid) -> Result<Option<Self>> {
        match Self::of(pid) {
            Err(error) if matches!(error.errno(), Some(Errno::ENOENT | Errno::ESRCH)) => Ok(None),
            other => other.map(Some),
        }
    }

    /// The name in parentheses is the process's own choice and may hold anything: the fields start
    /// behind the last parenthesis.
    fn parse(line: &[u8]) -> Option<Self> {
        let end = line.iter().rposition(|byte| *byte == b')')?;
        let rest = std::str::from_utf8(line.get(end + 1..)?).ok()?;
        let mut fields = rest.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        let flags = fields.nth(5)?.parse().ok()?;
        let start_time = fields.nth(12)?.parse().ok()?;
        let exit_code = fields.nth(29).and_then(|code| code.parse().ok()).unwrap_or_default();
        Some(Self { state, flags, start_time, exit_code })
    }
}

impl Process {
    /// The process `pid` as it is now.
    ///
    /// # Errors
    /// When it is gone.
    pub fn of(pid: Pid) -> Result<Self> {
        let start_time = Stat::of(pid)?.start_time;
        Ok(Self {
            pid: pid.as_raw(),
            start_time,
            inode: pidfd_open(pid).and_then(inode).ok().flatten(),
        })
    }

    /// A pidfd of it, while it is there, if only as a zombie.
    ///
    /// # Errors
    /// When the kernel has no pidfds or no descriptors are left, or `/proc` can't be read.
    pub fn open(&self) -> Result<Option<OwnedFd>> {
        let pidfd = match pidfd_open(self.pid()) {
            Err(Errno::ESRCH) => return Ok(None),
            other => other.doing(|| format!("pidfd_open {}", self.pid))?,
        };
        // The pid may have been another process's before; the handle can't be any more.
        let same = Stat::find(self.pid())?
            .is_some_and(|now| now.start_time == self.start_time && self.may_have(inode(&pidfd)));
        Ok(same.then_some(pidfd))
    }

    /// Whether it is this process that has the pid now; `now` was read just before.
    fn is(&self, now: &Stat) -> bool {
        let now_inode = || pidfd_open(self.pid()).and_then(inode);
        now.start_time == self.start_time && (self.inode.is_none() || self.may_have(now_inode()))
    }

    /// Whether a pidfd with this inode can be its own; where there is none its start must do.
    fn may_have(&self, inode: nix::Result<Option<u64>>) -> bool {
        match (self.inode, inode) {
            (Some(own), Ok(Some(inode))) => own == inode,
            (Some(_), Err(Errno::ESRCH)) => false,
            _ => true,
        }
    }

    /// The pid as nix's type.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.pid)
    }
}

/// The number of a pidfd's process; none before Linux 6.9, where all pidfds have the same.
fn inode(pidfd: impl AsFd) -> nix::Result<Option<u64>> {
    let pidfd = pidfd.as_fd();
    if sys::fs::statfs(pidfd)?.magic != PID_FS_MAGIC {
        return Ok(None);
    }
    Ok(Some(fstat(pidfd)?.st_ino))
}

/// This boot's id.
///
/// # Errors
/// When `/proc` is not there.
pub fn boot_id() -> Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    let id = read(path)?;
    Ok(String::from_utf8_lossy(&id).trim_end().to_owned())
}

/// A file of procfs that fits in a page. It has no size to ask for first, and read piece by piece
/// it would be made anew for each.
fn read(path: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(4096);
    fs::File::open(path)
        .and_then(|file| file.take(4096).read_to_end(&mut bytes))
        .doing(|| format!("read {path}"))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let line = b"7 (a) S 1 (b) S 1 7 7 0 -1 4194560 0 0 0 0 1 2 3 4 20 0 1 0 98765 1 2 3";
        let stat = Stat::parse(line).unwrap();
        assert_eq!((stat.state, stat.flags, stat.start_time), ('S', 4_194_560, 98765));
    }

    #[test]
    fn a_zombie_says_how_it_ended() {
        use crate::sys::process::{CloneArgs, Cloned, clone, exit_now};
        let Cloned::Parent(pid, pidfd) = clone(&CloneArgs::default()).unwrap() else {
            exit_now(3);
        };
        crate::kill::wait_ended(&pidfd, std::time::Duration::from_secs(10)).unwrap();
        let stat = Stat::of(pid).unwrap();
        assert_eq!((stat.state, stat.exit_code), ('Z', 3 << 8));
        nix::sys::wait::waitpid(pid, None).unwrap();
    }

    #[test]
    fn this_process_has_executed_something() {
        let stat = Stat::of(Pid::this()).unwrap();
        assert_eq!(stat.flags & PF_FORKNOEXEC, 0);
    }
}
