//! Leaving the host's file system: pivot_root(2), or for `--no-pivot` a move and chroot(2).
//!
//! Promise: afterwards the root and the working directory are the container's root, and the host's
//! tree is detached. No fd of it is kept here.
//!
//! `--no-pivot` is for hosts whose root is a ramfs. It is weaker: the host's root stays below in the
//! mount tree, so every procfs and sysfs that could be reached there is unmounted or covered first
//! (attacks G5).

use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::Mode;
use nix::unistd::{chdir, chroot, fchdir, pivot_root};

use super::compat::Kernel;
use super::options::{Propagation, ms};
use super::plan::Plan;
use crate::error::Doing;
use crate::sys::mount as sys;
use crate::{Error, Result};

/// The container's root becomes ours.
pub(super) fn pivot(kernel: &Kernel, plan: &Plan, root: BorrowedFd<'_>) -> Result<()> {
    if plan.no_pivot {
        move_root(kernel, plan, root)?;
    } else {
        swap_roots(kernel, plan, root)?;
    }
    chdir("/").doing(|| "enter the new root".to_owned())
}

/// The old root ends up on top of the new one, at `/`, and is taken off again.
fn swap_roots(kernel: &Kernel, plan: &Plan, root: BorrowedFd<'_>) -> Result<()> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let cut = plan.cut();
    // Unmounting a mount that is still a peer of the host's would unmount it there, too.
    let peer = !(cut.recursive && cut.kind != ms::SHARED);
    let old = peer.then(|| open("/", flags, Mode::empty())).transpose();
    let old = old.doing(|| "open the old root".to_owned())?;
    fchdir(root).doing(|| "enter the root file system".to_owned())?;
    pivot_root(".", ".").doing(|| "pivot_root".to_owned())?;
    if let Some(old) = old {
        let slave = Propagation { kind: ms::SLAVE, recursive: true };
        kernel
            .set_propagation(old.as_fd(), slave)
            .doing(|| "cut the old root off from the host".to_owned())?;
        // Without mount_setattr this has left the directory.
        fchdir(root).doing(|| "enter the root file system".to_owned())?;
    }
    umount2(".", MntFlags::MNT_DETACH).doing(|| "unmount the old root".to_owned())
}

/// Moves the root over `/`.
fn move_root(kernel: &Kernel, plan: &Plan, root: BorrowedFd<'_>) -> Result<()> {
    hide_kernel_files(&plan.root.to_string_lossy())?;
    fchdir(root).doing(|| "enter the root file system".to_owned())?;
    let doing = || "move the root file system to /".to_owned();
    if kernel.present.detached {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let top = open("/", flags, Mode::empty()).doing(doing)?;
        sys::move_mount(root, &top).doing(doing)?;
    } else {
        let none = None::<&str>;
        mount(Some("."), "/", none, MsFlags::MS_MOVE, none).doing(doing)?;
    }
    chroot(".").doing(|| "chroot".to_owned())
}

/// Unmounts every procfs and sysfs outside the container's root, or covers it.
fn hide_kernel_files(root: &str) -> Result<()> {
    let doing = || "read /proc/self/mountinfo".to_owned();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").doing(doing)?;
    let root = std::fs::canonicalize(root).doing(doing)?;
    for line in mounts.lines().rev() {
        let Some((point, fstype)) = point_and_type(line) else { continue };
        if !matches!(fstype, "proc" | "sysfs") || std::path::Path::new(&point).starts_with(&root) {
            continue;
        }
        let none = None::<&str>;
        mount(none, point.as_str(), none, MsFlags::MS_PRIVATE, none)
            .doing(|| format!("make {point:?} private"))?;
        match umount2(point.as_str(), MntFlags::MNT_DETACH) {
            Ok(()) => {}
            // Locked by the user namespace.
            Err(Errno::EINVAL | Errno::EPERM) => {
                mount(Some("tmpfs"), point.as_str(), Some("tmpfs"), MsFlags::MS_RDONLY, none)
                    .doing(|| format!("cover {point:?}"))?;
            }
            Err(errno) => return Err(Error::sys(format!("unmount {point:?}"), errno)),
        }
    }
    Ok(())
}

/// Fields 5 and the one after the lone dash of a line of mountinfo; the path unescaped.
pub(crate) fn point_and_type(line: &str) -> Option<(String, &str)> {
    let point = line.split(' ').nth(4)?;
    let fstype = line.split(" - ").nth(1)?.split(' ').next()?;
    let plain = [(r"\040", " "), (r"\011", "\t"), (r"\012", "\n"), (r"\134", "\\")];
    let point = plain.iter().fold(point.to_owned(), |text, (code, is)| text.replace(code, is));
    Some((point, fstype))
}

/// `linux.rootfsPropagation`, now that the container's root is `/`. Private needs nothing more.
pub(super) fn propagate(kernel: &Kernel, plan: &Plan, root: BorrowedFd<'_>) -> Result<()> {
    match plan.propagation {
        Some(propagation) if propagation.kind != ms::PRIVATE => kernel
            .set_propagation(root, propagation)
            .doing(|| "set linux.rootfsPropagation".to_owned()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::point_and_type;

    #[test]
    fn a_line_of_mountinfo() {
        let line = r"36 35 98:0 / /mnt/a\040b rw,noatime master:1 - ext3 /dev/root rw";
        assert_eq!(point_and_type(line), Some(("/mnt/a b".to_owned(), "ext3")));
        assert_eq!(point_and_type("short"), None);
    }
}
