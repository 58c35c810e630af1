//! Finding and signalling everything in the group, however fast it forks.
//!
//! A pid read from a file may belong to somebody else by the time it is used. So each one becomes
//! a pidfd first, and the group is read again: a pid that is still listed then belonged to the
//! group when the pidfd was made, or the pidfd's process is dead and the signal goes nowhere.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::unistd::Pid;

use super::dir::{Dir, Step, walk_while};
use super::freezer::{pause, wait_event, wait_for};
use super::{Cgroup, Group};
use crate::error::{Doing, Error, Result};
use crate::sys::process::{pidfd_open, pidfd_send_signal};

/// Pidfds held at one time.
const BATCH: usize = 200;

/// How long killed processes are waited for before all is done once more: an exec that was under way
/// may have added one, and a pause may have frozen them again, with their signal pending.
const SLICE: Duration = Duration::from_millis(100);

impl Cgroup {
    /// Where the processes are counted: v1's devices as in runc, else any.
    fn census(&self) -> Option<&Group> {
        let v1 = ["devices", "freezer", "pids", "memory"].into_iter().find_map(|c| self.v1(c));
        v1.or_else(|| self.v2()).or_else(|| self.groups.first())
    }

    /// Every process in the group and its sub-groups, ascending. None when the group is gone.
    ///
    /// # Errors
    /// The errno of reading a group.
    pub fn pids(&self) -> Result<Vec<Pid>> {
        self.pids_among(usize::MAX)
    }

    /// The same for those who can't take the time: of so many groups at most, the outermost included.
    /// A container may make as many as it likes.
    ///
    /// # Errors
    /// Those of [`Cgroup::pids`].
    pub fn pids_among(&self, groups: usize) -> Result<Vec<Pid>> {
        match self.census().map(Group::find).transpose()?.flatten() {
            Some(top) => pids_below(top, groups),
            None => Ok(Vec::new()),
        }
    }

    /// Signals every process once. They are frozen meanwhile, so that none is missed because its
    /// parent forked it and exited in between; a paused container stays paused.
    ///
    /// # Errors
    /// The errno of signalling; processes that have exited are no error.
    pub fn signal_all(&self, signal: i32) -> Result<()> {
        let paused = self.is_frozen()?;
        // Best effort: an uninterruptible process must not keep the others from their signal.
        let frozen = !paused && self.freeze().map_err(|e| tracing::debug!("{e}")).is_ok();
        let signalled = self.signal_listed(signal);
        let thawed = if frozen { self.thaw() } else { Ok(()) };
        signalled.and(thawed)
    }

    /// Kills everything in the group and waits until it is empty, also when it or a sub-group is
    /// frozen or being frozen, and when processes fork faster than they are killed. The group ends
    /// up thawed.
    ///
    /// # Errors
    /// Processes that are still there at the end of `patience`, by their pids: they hang in the
    /// kernel.
    pub fn kill_all(&self, patience: Duration) -> Result<()> {
        let end = Instant::now() + patience;
        let slice = || end.min(Instant::now() + SLICE);
        let mut round = 0;
        loop {
            if round == 1 {
                self.lift_quota();
            }
            let at_once = self.kill_v2()?;
            // A frozen v1 process dies only when thawed.
            let thawed = self.thaw_tree();
            if at_once && let Some(dir) = self.v2().map(Group::find).transpose()?.flatten() {
                wait_event(dir, "populated 0", slice())?;
            }
            let left = self.pids()?;
            if left.is_empty() {
                return thawed;
            }
            if Instant::now() >= end {
                return Err(still_there(&left));
            }
            // Where the kernel does not kill all at once, a fork bomb can't fork while it is frozen;
            // the first round goes without, as most groups are no bombs.
            let frozen = !at_once
                && round > 0
                && self.freeze().map_err(|error| tracing::debug!("{error}")).is_ok();
            let signalled = self.signal_listed(nix::libc::SIGKILL);
            if frozen {
                let _tried_again_in_the_next_round = self.thaw_tree();
            }
            signalled?;
            wait_gone(&left, slice())?;
            round += 1;
        }
    }

    /// On older kernels a process over its group's quota waits for the next period even to die, which
    /// takes many of them longer than anybody's patience. Best effort: it is about time only.
    fn lift_quota(&self) {
        let Some(group) = self.group_of("cpu") else { return };
        let (file, none) =
            if group.is_v2() { ("cpu.max", "max") } else { ("cpu.cfs_quota_us", "-1") };
        if let Ok(Some(dir)) = group.find()
            && let Err(errno) = dir.try_write(file, none)
        {
            tracing::debug!("write {none:?} to {:?}: {}", dir.path().join(file), errno.desc());
        }
    }

    /// cgroup.kill (Linux 5.14): whether everything in the v2 group has its SIGKILL.
    fn kill_v2(&self) -> Result<bool> {
        let Some(dir) = self.v2().map(Group::find).transpose()?.flatten() else {
            return Ok(false);
        };
        match dir.try_write("cgroup.kill", "1") {
            Ok(()) => Ok(true),
            // An older kernel; a threaded group; a group that was removed just now.
            Err(Errno::ENOENT | Errno::EOPNOTSUPP | Errno::ENODEV) => Ok(false),
            Err(errno) => {
                Err(errno).doing(|| format!("write \"1\" to {:?}", dir.path().join("cgroup.kill")))
            }
        }
    }

    fn signal_listed(&self, signal: i32) -> Result<()> {
        for batch in self.pids()?.chunks(BATCH) {
            let mut opened: Vec<(Pid, OwnedFd)> = Vec::with_capacity(batch.len());
            for &pid in batch {
                match pidfd_open(pid) {
                    Ok(fd) => opened.push((pid, fd)),
                    // Gone, or a thread of a threaded group: its process is listed elsewhere.
                    Err(Errno::ESRCH) => {}
                    Err(errno) => return Err(errno).doing(|| format!("open process {pid}")),
                }
            }
            let still: HashSet<Pid> = self.pids()?.into_iter().collect();
            for (pid, fd) in opened.iter().filter(|(pid, _)| still.contains(pid)) {
                match pidfd_send_signal(fd, signal) {
                    Ok(()) | Err(Errno::ESRCH) => {}
                    Err(errno) => {
                        return Err(errno)
                            .doing(|| format!("send signal {signal} to process {pid}"));
                    }
                }
            }
        }
        Ok(())
    }
}

fn pids_below(top: &Dir, groups: usize) -> Result<Vec<Pid>> {
    let (mut pids, mut left) = (Vec::new(), groups);
    walk_while(top, |step| {
        let Step::Enter(dir) = step else { return Ok(true) };
        if left == 0 {
            return Ok(false);
        }
        left -= 1;
        let procs = match dir.try_read("cgroup.procs") {
            Err(Errno::ENOENT | Errno::ENODEV) => return Ok(true),
            // Below a threaded domain, whose own cgroup.procs has these processes.
            Err(Errno::EOPNOTSUPP) => return Ok(true),
            other => other.doing(|| format!("read {:?}", dir.path().join("cgroup.procs")))?,
        };
        pids.extend(procs.lines().filter_map(|line| line.parse().ok()).map(Pid::from_raw));
        Ok(true)
    })?;
    // 0 is a process outside of our pid namespace, which we can't name.
    pids.retain(|pid| pid.as_raw() > 0);
    pids.sort_unstable();
    pids.dedup();
    Ok(pids)
}

/// Waits until the first of the processes has gone.
fn wait_gone(pids: &[Pid], end: Instant) -> Result<()> {
    match pids.first().map(|pid| pidfd_open(*pid)) {
        Some(Ok(fd)) => wait_for(&fd, PollFlags::POLLIN, end).map(drop),
        _ => pause(Duration::from_millis(1)),
    }
}

/// "Processes 3, 4 and 5 more do not die".
pub(super) fn still_there(pids: &[Pid]) -> Error {
    let shown: Vec<String> = pids.iter().take(10).map(ToString::to_string).collect();
    let more = match pids.len().saturating_sub(10) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Error::Failed(format!("container's cgroup still has process(es) {}{more}", shown.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_groups_are_looked_at_than_asked_for() {
        let tmp = tempfile::tempdir().unwrap();
        std::fs::write(tmp.path().join("cgroup.procs"), "7\n").unwrap();
        for number in 1..=5 {
            let group = tmp.path().join(number.to_string());
            std::fs::create_dir(&group).unwrap();
            std::fs::write(group.join("cgroup.procs"), format!("{number}0\n0\n")).unwrap();
        }
        let top = Dir::open(tmp.path()).unwrap();
        let count = |groups| pids_below(&top, groups).unwrap().len();
        assert_eq!([1, 3, 6, 7, usize::MAX].map(count), [1, 3, 6, 6, 6]);
        assert_eq!(pids_below(&top, 1).unwrap(), [Pid::from_raw(7)]);
    }
}
