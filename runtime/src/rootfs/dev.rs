//! `/dev`: the default devices, the spec's, the links, and the console.
//!
//! Promise: every name is made in a directory that was resolved inside the root, through its fd
//! (CVE-2026-41579, CVE-2026-47766: a `/dev` that is a link made runtimes delete and create files on
//! the host); a node is what was asked for, looked at through an fd of the node itself; a node of the
//! wrong kind that is already there is an error, as the spec wants.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, mknodat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, symlinkat, unlinkat};

use super::devices::Device;
use super::mount::Mounter;
use super::path::{self, Want, kind};
use super::plan::Plan;
use crate::error::Doing;
use crate::sys::mount as sys;
use crate::{Error, Result};

/// Links of every container (runc's and crun's; the spec's "/dev symbolic links").
const LINKS: [(&str, &str); 4] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// Fills `/dev`, unless the host's own is there: bound, or because the host's root is the container's.
/// Its `ptmx` would become a link.
pub(super) fn fill(mounter: &Mounter<'_>, plan: &Plan, bound: Vec<Option<OwnedFd>>) -> Result<()> {
    if !plan.fill_dev {
        return Ok(());
    }
    let dev = path::open_or_create(mounter.root, Path::new("dev"), Want::Dir)
        .doing(|| "open /dev".to_owned())?;
    let seen = fstat(&dev).doing(|| "fstat /dev".to_owned())?;
    if plan.hosts_dev == Some((seen.st_dev, seen.st_ino)) {
        return Ok(());
    }
    let mut bound = bound.into_iter();
    for device in &plan.devices {
        let host = bound.next().flatten();
        make(mounter, &dev, device, host).doing(|| format!("device /{}", device.path.display()))?;
    }
    for (name, target) in LINKS {
        link(&dev, name, target)?;
    }
    if Path::new("/proc/kcore").exists() {
        link(&dev, "core", "/proc/kcore")?;
    }
    ptmx(&dev)
}

fn make(
    mounter: &Mounter<'_>,
    dev: &OwnedFd,
    device: &Device,
    host: Option<OwnedFd>,
) -> Result<()> {
    let (Some(parent), Some(name)) = (device.path.parent(), device.path.file_name()) else {
        return Err(Error::Failed("it has no name".to_owned()));
    };
    let elsewhere;
    let parent = if parent == Path::new("dev") {
        dev
    } else {
        elsewhere = path::open_or_create(mounter.root, parent, Want::Dir)
            .doing(|| "open its directory".to_owned())?;
        &elsewhere
    };
    let (kind, mode) =
        (SFlag::from_bits_truncate(device.kind), Mode::from_bits_truncate(device.mode));
    if let Some(host) = host {
        return bind(mounter, host, device);
    }
    let made = mknodat(parent, name, kind, mode, device.rdev);
    if made == Err(Errno::EPERM) {
        // A sandbox around us; what the host has will do.
        let path = Path::new("/").join(&device.path);
        let host = if mounter.kernel.present.detached {
            path::c_path(&path).and_then(|path| sys::clone_tree(nix::fcntl::AT_FDCWD, &path, false))
        } else {
            path::open_host(&path)
        };
        return bind(
            mounter,
            host.doing(|| "mknod is not permitted; bind the host's".to_owned())?,
            device,
        );
    }
    if made != Err(Errno::EEXIST) {
        made.doing(|| "mknod".to_owned())?;
    }
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let node = openat(parent, name, flags, Mode::empty()).doing(|| "open".to_owned())?;
    let stat = check(&node, device)?;
    if made.is_ok() { own(&node, &stat, device) } else { Ok(()) }
}

/// The node is the one that was asked for.
fn check(node: &OwnedFd, device: &Device) -> Result<FileStat> {
    let stat = fstat(node).doing(|| "stat".to_owned())?;
    let rdev = if device.is_fifo() { 0 } else { stat.st_rdev };
    if kind(&stat).bits() == device.kind && rdev == device.rdev {
        return Ok(stat);
    }
    Err(Error::Failed(format!("another file is there already, it is not {}", device.shown())))
}

/// Owner and mode of a node of ours. Both are right already unless the directory has the set-group-id
/// bit, a default ACL, or an owner was asked for.
fn own(node: &OwnedFd, stat: &FileStat, device: &Device) -> Result<()> {
    if (stat.st_uid, stat.st_gid) != (device.uid, device.gid) {
        let (uid, gid) = (Uid::from_raw(device.uid), Gid::from_raw(device.gid));
        fchownat(node, "", Some(uid), Some(gid), AtFlags::AT_EMPTY_PATH)
            .doing(|| "chown".to_owned())?;
    }
    // chown clears the set-id bits, so the mode comes second.
    if stat.st_mode & 0o7777 != device.mode || device.mode & 0o7000 != 0 {
        crate::sys::fs::chmod(node, device.mode).doing(|| "chmod".to_owned())?;
    }
    Ok(())
}

/// Binds a host's node.
fn bind(mounter: &Mounter<'_>, host: OwnedFd, device: &Device) -> Result<()> {
    check(&host, device)?;
    let target = match path::open(mounter.root, &device.path, libc::O_PATH | libc::O_NOFOLLOW) {
        // Bound or made already: by the image, by a mount of the spec, or by an outer runtime.
        Ok(there) if check(&there, device).is_ok() => return Ok(()),
        _ => path::open_or_create(mounter.root, &device.path, Want::File)
            .doing(|| "open".to_owned())?,
    };
    mounter.refuse_proc(&target)?;
    mounter.attach(host, &target, &device.path, false).map(drop)
}

/// A link, unless the name is taken: an image may have its own.
fn link(dev: &OwnedFd, name: &str, target: &str) -> Result<()> {
    match symlinkat(target, dev, name) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        failed => failed.doing(|| format!("link /dev/{name}")),
    }
}

/// `/dev/ptmx` is always the container's own devpts.
fn ptmx(dev: &OwnedFd) -> Result<()> {
    const TARGET: &str = "pts/ptmx";
    match symlinkat(TARGET, dev, "ptmx") {
        Ok(()) => return Ok(()),
        Err(Errno::EEXIST) if readlinkat(dev, "ptmx").is_ok_and(|target| target == TARGET) => {
            return Ok(());
        }
        Err(Errno::EEXIST) => {}
        failed => return failed.doing(|| "link /dev/ptmx".to_owned()),
    }
    unlinkat(dev, "ptmx", UnlinkatFlags::NoRemoveDir).doing(|| "replace /dev/ptmx".to_owned())?;
    symlinkat(TARGET, dev, "ptmx").doing(|| "link /dev/ptmx".to_owned())
}

/// Binds the terminal on `/dev/console`, from fd to fd (CVE-2025-52565). The image's own `console`, if
/// it is a link, leads no further than the root.
pub(super) fn console(mounter: &Mounter<'_>, pty: BorrowedFd<'_>) -> Result<()> {
    let doing = || "bind the terminal on /dev/console".to_owned();
    let name = Path::new("dev/console");
    let target = path::open_or_create(mounter.root, name, Want::File).doing(doing)?;
    mounter.refuse_proc(&target).doing(doing)?;
    let source = if mounter.kernel.present.detached {
        sys::clone_tree(pty, c"", false).doing(doing)?
    } else {
        pty.as_fd().try_clone_to_owned().doing(doing)?
    };
    let mounted = mounter.attach(source, &target, name, false).doing(doing)?;
    let (ours, there) = (fstat(pty).doing(doing)?, fstat(&mounted).doing(doing)?);
    if (ours.st_dev, ours.st_ino, ours.st_rdev) != (there.st_dev, there.st_ino, there.st_rdev) {
        return Err(Error::Failed("/dev/console is not the terminal".to_owned()));
    }
    Ok(())
}
