//! A process's places in the groups, which it takes by itself.
//!
//! The parent opens the files, because the permission to move a process is the opener's; the child
//! writes `0`, "me". On v1 this goes through `tasks`: a single thread that moves itself spares the
//! kernel a system-wide lock, and us 9 ms (`docs/adr/0003-join-v1-groups-from-the-child.md`).
//! Only a single-threaded process may do it, which every process of ours is.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::unistd::write;

use super::{Cgroup, no_permission};
use crate::error::{Doing, Result};

/// Opened files of the groups to move to.
#[derive(Debug, Default)]
pub struct Seats {
    files: Vec<(PathBuf, OwnedFd)>,
    lenient: bool,
}

impl Cgroup {
    /// Opens the places in every group; in all but the v2 one when the process is born there.
    ///
    /// # Errors
    /// A group is gone, or its file may not be written.
    pub fn seats(&self, born_in_v2: bool) -> Result<Seats> {
        let mut seats =
            Seats { files: Vec::with_capacity(self.groups.len()), lenient: self.lenient };
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
            match write(file, b"0") {
                Err(errno) if self.lenient && no_permission(errno) => {
                    tracing::debug!("going on outside of {}: {}", path.display(), errno);
                }
                Err(Errno::EINTR) => {
                    write(file, b"0").doing(|| format!("join {}", path.display()))?;
                }
                other => {
                    other.doing(|| format!("join {}", path.display()))?;
                }
            }
        }
        Ok(())
    }
}
