//! What older kernels and sandboxes lack, in one place (table: docs/kernel-features.md).
//!
//! The rule everywhere else: mounts are built detached and attached from fd to fd. Where those calls
//! are missing (before Linux 5.2) or hidden by a seccomp profile around us, mount(2) does the same
//! work on `/proc/self/fd/N`, the kernel's own name of an fd. That name is looked up through a
//! directory of the *host's* procfs that was opened before anything of the container was touched, so
//! that nothing the container puts on its own `/proc` can redirect it.
//!
//! After mount(2) the new mount has to be found again by its path; it is compared with what was
//! mounted before anything is done to it.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::Mode;
use nix::unistd::fchdir;

use super::options::{Attrs, Propagation, ms};
use crate::sys::mount::{self as sys, MountAttr, Present, attr};

/// What this kernel offers, and the way around what it doesn't.
#[derive(Debug)]
pub struct Kernel {
    /// What was found.
    pub present: Present,
    /// The host's `/proc/self/fd`, only where something is missing.
    fds: Option<OwnedFd>,
}

impl Kernel {
    /// Finds out. Call it in the process that mounts, before any mount of the container.
    ///
    /// # Errors
    /// The errno of opening `/proc/self/fd`, on kernels that need it.
    pub fn probe() -> Result<Self, Errno> {
        Self::with(sys::present())
    }

    /// As if the kernel had offered just this.
    ///
    /// # Errors
    /// As [`Kernel::probe`].
    pub fn with(present: Present) -> Result<Self, Errno> {
        let fds = if present.detached && present.setattr { None } else { Some(open_fds()?) };
        Ok(Self { present, fds })
    }

    /// Runs `work` with the names of these fds, standing in the host's `/proc/self/fd`. The working
    /// directory is changed, and `/` afterwards.
    fn by_name<T>(&self, work: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
        match &self.fds {
            Some(fds) => fchdir(fds)?,
            None => fchdir(open_fds()?)?,
        }
        let done = work();
        nix::unistd::chdir("/")?;
        done
    }

    /// mount(2) of a new file system on `target`.
    ///
    /// # Errors
    /// The errno of mount(2), which has no words to add.
    pub fn mount_new(
        &self,
        target: BorrowedFd<'_>,
        fstype: &str,
        source: &str,
        flags: u64,
        data: &str,
    ) -> Result<(), Errno> {
        let name = target.as_raw_fd().to_string();
        let flags = MsFlags::from_bits_retain(flags);
        let data = (!data.is_empty()).then_some(data);
        self.by_name(|| mount(Some(source), name.as_str(), Some(fstype), flags, data))
    }

    /// mount(2) with `MS_BIND` from fd to fd.
    ///
    /// # Errors
    /// The errno of mount(2).
    pub fn bind(
        &self,
        source: BorrowedFd<'_>,
        target: BorrowedFd<'_>,
        recursive: bool,
    ) -> Result<(), Errno> {
        let (from, to) = (source.as_raw_fd().to_string(), target.as_raw_fd().to_string());
        let mut flags = MsFlags::MS_BIND;
        flags.set(MsFlags::MS_REC, recursive);
        self.by_name(|| mount(Some(from.as_str()), to.as_str(), None::<&str>, flags, None::<&str>))
    }

    /// Sets and clears attributes of the attached mount whose root `mount` is.
    ///
    /// # Errors
    /// The errno of the call; `ENOSYS` for recursive changes without mount_setattr(2), which nothing
    /// can replace.
    pub fn set_attrs(
        &self,
        mounted: BorrowedFd<'_>,
        recursive: bool,
        attrs: Attrs,
    ) -> Result<(), Errno> {
        if attrs.is_empty() {
            return Ok(());
        }
        if self.present.setattr {
            let what = MountAttr { set: attrs.set, clear: attrs.clear, ..MountAttr::default() };
            return sys::mount_setattr(mounted, recursive, &what);
        }
        if recursive {
            return Err(Errno::ENOSYS);
        }
        // A remount replaces all flags at once: those that were not to change are read first. In a
        // user namespace the inherited ones are locked and leaving one out is EPERM (row M12).
        let now = from_statfs(crate::sys::fs::statfs(mounted)?.flags);
        let flags = to_ms((now & !attrs.clear) | attrs.set)
            | (MsFlags::MS_REMOUNT | MsFlags::MS_BIND).bits();
        let name = mounted.as_raw_fd().to_string();
        let flags = MsFlags::from_bits_retain(flags);
        self.by_name(|| mount(None::<&str>, name.as_str(), None::<&str>, flags, None::<&str>))
    }

    /// Changes how events travel through the attached or detached mount whose root `mount` is.
    ///
    /// # Errors
    /// The errno of the call.
    pub fn set_propagation(
        &self,
        mounted: BorrowedFd<'_>,
        propagation: Propagation,
    ) -> Result<(), Errno> {
        if self.present.setattr {
            let what = MountAttr { propagation: propagation.kind, ..MountAttr::default() };
            return sys::mount_setattr(mounted, propagation.recursive, &what);
        }
        let mut flags = MsFlags::from_bits_retain(propagation.kind);
        flags.set(MsFlags::MS_REC, propagation.recursive);
        let name = mounted.as_raw_fd().to_string();
        self.by_name(|| mount(None::<&str>, name.as_str(), None::<&str>, flags, None::<&str>))
    }
}

fn open_fds() -> Result<OwnedFd, Errno> {
    open("/proc/self/fd", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
}

/// `MOUNT_ATTR_*` and the `ST_*` of statfs(2) and `MS_*` of mount(2) that mean the same.
const SAME: [(u64, u64, u64); 7] = [
    (attr::RDONLY, libc::ST_RDONLY, ms::RDONLY),
    (attr::NOSUID, libc::ST_NOSUID, libc::MS_NOSUID),
    (attr::NODEV, libc::ST_NODEV, libc::MS_NODEV),
    (attr::NOEXEC, libc::ST_NOEXEC, libc::MS_NOEXEC),
    (attr::NOATIME, libc::ST_NOATIME, libc::MS_NOATIME),
    (attr::NODIRATIME, libc::ST_NODIRATIME, libc::MS_NODIRATIME),
    // ST_NOSYMFOLLOW and MS_NOSYMFOLLOW, Linux 5.10
    (attr::NOSYMFOLLOW, 0x2000, 256),
];
/// `ST_RELATIME`.
const ST_RELATIME: u64 = 4096;

/// The attributes that statfs(2) shows.
pub fn from_statfs(flags: u64) -> u64 {
    let atime = if flags & (libc::ST_NOATIME | ST_RELATIME) == 0 { attr::STRICTATIME } else { 0 };
    SAME.iter().filter(|(_, st, _)| flags & st != 0).fold(atime, |all, (attr, ..)| all | attr)
}

/// The attributes as flags of mount(2).
pub fn to_ms(attrs: u64) -> u64 {
    let atime = match attrs & attr::ATIME {
        attr::RELATIME => libc::MS_RELATIME,
        attr::STRICTATIME => libc::MS_STRICTATIME,
        _ => 0,
    };
    SAME.iter().filter(|(attr, ..)| attrs & attr != 0).fold(atime, |all, (_, _, ms)| all | ms)
}

/// Reads back what was asked for (attacks D7): the attributes of `set` that the mount does not have.
///
/// # Errors
/// The errno of fstatfs(2).
pub fn missing(mounted: impl AsFd, set: u64) -> Result<u64, Errno> {
    let has = from_statfs(crate::sys::fs::statfs(mounted)?.flags);
    let mut lacks = set & !attr::ATIME & !has;
    if set & attr::ATIME != 0 && set & attr::ATIME != has & attr::ATIME {
        lacks |= set & attr::ATIME;
    }
    Ok(lacks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_vocabularies_agree() {
        for (attr, st, ms) in SAME {
            assert_eq!(from_statfs(st | ST_RELATIME) & !attr::ATIME, attr & !attr::ATIME);
            assert_eq!(to_ms(attr) & ms, ms);
        }
        assert_eq!(from_statfs(ST_RELATIME), attr::RELATIME);
        assert_eq!(from_statfs(0), attr::STRICTATIME);
        assert_eq!(to_ms(attr::RELATIME), libc::MS_RELATIME);
        assert_eq!(to_ms(attr::STRICTATIME), libc::MS_STRICTATIME);
        assert_eq!(to_ms(attr::NOATIME), libc::MS_NOATIME);
    }
}
