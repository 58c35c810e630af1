//! Removing the groups, with what the container made inside.
//!
//! The kernel answers EBUSY as long as a process is being torn down, which can take longer than
//! its exit. v2 tells when it is over; v1 is asked again, ever more slowly.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::unistd::Pid;

use super::dir::{Name, Step, walk};
use super::freezer::{pause, wait_event};
use super::kill::still_there;
use super::{Cgroup, Group, systemd};
use crate::error::{Doing, Result};

/// How long the last processes' end may take.
const DEADLINE: Duration = Duration::from_secs(5);

impl Cgroup {
    /// Removes the group from every hierarchy, sub-groups first; one that was there before us is
    /// only cleared of sub-groups. A group that is gone already is no error.
    ///
    /// # Errors
    /// A group still has processes five seconds later (by their pids), or can't be removed. The
    /// other hierarchies have been removed all the same.
    pub fn remove(&self) -> Result<()> {
        let end = Instant::now() + DEADLINE;
        let mut first = self.unit.as_ref().map_or(Ok(()), systemd::Unit::stop);
        for group in &self.groups {
            match remove(group, end) {
                Err(error) if self.lenient && error.errno().is_some_and(super::no_permission) => {}
                Err(error) if first.is_ok() => first = Err(error),
                _ => {}
            }
        }
        first
    }
}

fn remove(group: &Group, end: Instant) -> Result<()> {
    let name = Name::absolute(&group.path);
    if !group.at.existed {
        match name.rmdir() {
            Ok(()) | Err(Errno::ENOENT | Errno::ENODEV) => return Ok(()),
            Err(Errno::EBUSY | Errno::ENOTEMPTY | Errno::EROFS | Errno::EACCES) => {}
            Err(errno) => {
                return Err(errno).doing(|| format!("remove {:?}", group.path));
            }
        }
    }
    // EROFS comes before ENOENT, so a group that is not there looks like one that can't be removed.
    let Some(top) = group.find()? else { return Ok(()) };
    walk(top, |step| match step {
        Step::Enter(_) => Ok(()),
        Step::Leave(parent, name) => {
            remove_empty(Name::below(parent, name), &group.path, group.is_v2(), end)
        }
    })?;
    if group.at.existed {
        return Ok(());
    }
    remove_empty(name, &group.path, group.is_v2(), end)
}

/// Removes a group without sub-groups, waiting for its processes to end.
fn remove_empty(name: Name<'_>, top: &Path, v2: bool, end: Instant) -> Result<()> {
    let mut wait = Duration::from_millis(1);
    loop {
        let errno = match name.rmdir() {
            Ok(()) | Err(Errno::ENOENT | Errno::ENODEV) => return Ok(()),
            Err(errno) => errno,
        };
        let doing = || format!("remove {top:?}");
        if errno != Errno::EBUSY {
            return Err(errno).doing(doing);
        }
        if Instant::now() >= end {
            let listed = name.open().and_then(|dir| dir.try_read("cgroup.procs"));
            let pids: Vec<Pid> = listed
                .iter()
                .flat_map(|text| text.lines().filter_map(|line| line.parse().ok()))
                .map(Pid::from_raw)
                .collect();
            let error =
                if pids.is_empty() { Err(errno).doing(doing) } else { Err(still_there(&pids)) };
            return error.doing(doing);
        }
        let populated = match name.open() {
            Ok(dir) if v2 => !wait_event(&dir, "populated 0", end.min(Instant::now() + wait * 16))?,
            _ => true,
        };
        if populated || wait > Duration::from_millis(1) {
            pause(wait)?;
        }
        wait = (wait * 2).min(Duration::from_millis(50));
    }
}
