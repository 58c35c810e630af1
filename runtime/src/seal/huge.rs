//! A copy in a tmpfs of its own, in huge pages.
//!
//! Two huge pages are zeroed, filled and freed at a third of what 750 small ones cost, but a memfd
//! gets them only where the administrator allows it for all shared memory. A mount of our own may
//! choose. The seal is that the file system is read-only, for good: it has no place in any mount
//! namespace, so no path leads to its root, which fspick(2) and mount(2) would need to make it
//! writable; and we let go of the context that made it. What can be reached is the one file, through
//! `/proc/<pid>/exe`, and there every change is `EROFS`.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use nix::fcntl::{OFlag, openat, readlink};
use nix::sys::stat::{Mode, fchmod};

use super::fill;
use crate::error::{Doing, Error, Result};
use crate::sys;
use crate::sys::mount::{
    fsconfig_create, fsconfig_flag, fsconfig_reconfigure, fsconfig_string, fsmount, fsopen,
};

/// The copy's name; links in /proc to it begin at the root of its file system.
const NAME: &str = "corten (sealed copy)";

/// A sealed copy of `exe`.
///
/// # Errors
/// `EPERM` without the right to mount, `EINVAL` from a kernel without huge pages, `ENOSYS` before
/// Linux 5.2.
pub fn copy(exe: impl AsFd) -> Result<OwnedFd> {
    let doing = || "make a file system for the runtime's copy".to_owned();
    let fs = fsopen(c"tmpfs").doing(doing)?;
    fsconfig_string(&fs, c"huge", c"always").doing(doing)?;
    fsconfig_string(&fs, c"mode", c"0700").doing(doing)?;
    fsconfig_create(&fs).doing(doing)?;
    let mount = fsmount(&fs, libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV).doing(doing)?;

    let write = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    let mode = Mode::S_IRUSR | Mode::S_IXUSR;
    let copy = openat(&mount, NAME, write, mode).doing(doing)?;
    // Whatever the caller's umask is: a copy that nobody may execute is none.
    fchmod(&copy, mode).doing(doing)?;
    fill(&copy, exe)?;
    // What is open for writing is not executed (ETXTBSY), and keeps its file system writable (EBUSY).
    drop(copy);
    fsconfig_flag(&fs, c"ro").doing(doing)?;
    fsconfig_reconfigure(&fs).doing(doing)?;
    let copy =
        openat(&mount, NAME, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).doing(doing)?;
    // What we would not know again, we would copy for ever.
    if is_sealed(&copy) {
        return Ok(copy);
    }
    Err(Error::Failed("the runtime's copy is not sealed".to_owned()))
}

/// Whether the file is such a copy.
pub fn is_sealed(file: impl AsFd) -> bool {
    let file = file.as_fd();
    let read_only = sys::fs::statfs(file).is_ok_and(|info| {
        info.magic == libc::TMPFS_MAGIC as u64 && info.flags & libc::ST_RDONLY != 0
    });
    let link = || readlink(format!("/proc/self/fd/{}", file.as_raw_fd()).as_str());
    read_only && link().is_ok_and(|link| Path::new(&link) == Path::new("/").join(NAME))
}
