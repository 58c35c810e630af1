//! A process's places in the groups, which it takes by itself.
//!
//! The parent opens the files, because the permission to move a process is the opener's; the child
//! writes `0`, "me". On v1 this goes through `tasks`: a single thread that moves itself spares the
//! kernel a system-wide lock, and us 9 ms (`docs/adr/0003-join-v1-groups-from-the-child.md`).
//! Only a single-threaded process may do it, which every process of ours is.
//!
//! A process of an ordinary user may write the file of its manager's unit and yet not move there: the
//! kernel wants the right to write to the nearest group above both, which is root's when the process
//! comes from a login session. Then systemd moves it ([`super::systemd`]).

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::write;

use super::{Cgroup, no_permission, systemd};
use crate::error::{Doing, Result};

/// Opened files of the groups to move to.
#[derive(Debug, Default)]
pub struct Seats {
    files: Vec<(PathBuf, OwnedFd)>,
    lenient: bool,
    /// Of a user's manager, with the group in it.
    unit: Option<(systemd::Unit, PathBuf)>,
}

impl Cgroup {
    /// Opens the places in every group; in all but the v2 one when the process is born there.
    ///
    /// # Errors
    /// A group is gone, or its file may not be written.
    pub fn seats(&self, born_in_v2: bool) -> Result<Seats> {
        let unit = self.unit.as_ref().filter(|unit| unit.user).zip(self.v2());
        let unit = unit.map(|(unit, group)| (unit.clone(), group.at.path.clone()));
        let files = Vec::with_capacity(self.groups.len());
        let mut seats = Seats { files, lenient: self.lenient, unit };
        for group in self.groups.iter().filter(|group| !(born_in_v2 && group.is_v2())) {
            let name = if group.is_v2() { "cgroup.procs" } else { "tasks" };
            let path = group.path.join(name);
            match group.writable(name) {
                Err(errno) if self.lenient && no_permission(errno) => {}
                other => {
                    let file = other.doing(|| format!("open {}", path.display()))?;
                    seats.files.push((path, file));
                }
            }
        }
        Ok(seats)
    }
}

impl Seats {
    /// Moves the calling process.
    ///
    /// # Errors
    /// `EBUSY` when the v2 group has sub-groups with controllers, `ENODEV` when it is gone.
    pub fn take(&self) -> Result<()> {
        for (path, file) in &self.files {
            let written = match write(file, b"0") {
                Err(Errno::EINTR) => write(file, b"0"),
                other => other,
            };
            match written {
                Err(errno) if no_permission(errno) => self.cannot(path, errno)?,
                other => drop(other.doing(|| format!("join {}", path.display()))?),
            }
        }
        Ok(())
    }

    fn cannot(&self, path: &Path, errno: Errno) -> Result<()> {
        if let Some((unit, group)) = &self.unit {
            return unit.take_in(group);
        }
        if self.lenient {
            tracing::debug!("going on outside of {}: {}", path.display(), errno);
            return Ok(());
        }
        Err(errno).doing(|| format!("join {}", path.display()))
    }
}
