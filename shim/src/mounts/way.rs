//! How mounts are made on this kernel, and the working directory, which mount(2) needs.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use corten::error::{Doing, Result};
use corten::rootfs::compat::Kernel;
use corten::sys::mount as sys;
use corten::sys::process::setns;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::Mode;
use nix::unistd::fchdir;

use super::Mount;

/// What this kernel offers.
#[derive(Debug)]
pub(super) struct Way {
    /// The new mount API.
    pub(super) kernel: Kernel,
    /// Overlay takes its layers as descriptors (Linux 6.13).
    pub(super) layer_fds: bool,
    /// And those may be of detached mounts (Linux 6.15); found out by trying.
    pub(super) detached_layers: bool,
}

impl Way {
    /// Finds out what these mounts need.
    pub(super) fn find(mounts: &[Mount]) -> Result<Self> {
        let kernel = Kernel::probe().doing(|| "look for the mount API".to_owned())?;
        let overlay = mounts.iter().any(|mount| mount.kind == "overlay");
        let layer_fds = overlay && kernel.present.detached && overlay_takes_fds().is_ok();
        Ok(Self { kernel, layer_fds, detached_layers: layer_fds })
    }
}

/// A directory that is surely no bad layer, for a file system that is never made.
fn overlay_takes_fds() -> Result<(), Errno> {
    let root = open_dir(Path::new("/"))?;
    let context = sys::fsopen(c"overlay")?;
    sys::fsconfig_fd(&context, c"lowerdir+", &root)
}

/// A layer or another directory of the host. Not `O_PATH`, which overlay takes only since Linux 6.14.
pub(super) fn open_dir(path: &Path) -> Result<OwnedFd, Errno> {
    open(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
}

/// Runs `work` and comes back to the working directory.
pub(super) fn keep_cwd<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let home = open(".", flags, Mode::empty()).doing(|| "open the working directory".to_owned())?;
    let done = work();
    fchdir(home).doing(|| "return to the working directory".to_owned())?;
    done
}

/// mount(2) on an open target, by its name in the host's procfs; relative paths in `data` start at
/// `cwd`.
pub(super) fn mount2(
    target: BorrowedFd<'_>,
    fstype: &str,
    source: &str,
    flags: u64,
    data: &str,
    cwd: Option<&Path>,
) -> Result<()> {
    let name = format!("/proc/self/fd/{}", target.as_raw_fd());
    let flags = MsFlags::from_bits_retain(flags);
    let data = CString::new(data).map_err(|_| Errno::EINVAL).doing(|| "options".to_owned())?;
    let data = (!data.is_empty()).then_some(data.as_c_str());
    keep_cwd(|| {
        if let Some(cwd) = cwd {
            let dir = open_dir(cwd).doing(|| format!("open {cwd:?}"))?;
            fchdir(dir).doing(|| format!("enter {cwd:?}"))?;
        }
        mount(Some(source), name.as_str(), Some(fstype), flags, data)
            .doing(|| "mount(2)".to_owned())
    })
}

/// Runs `work` in a mount namespace of its own, which is gone afterwards with all that was mounted in
/// it, also if we are killed.
pub(super) fn in_own_namespace<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let home = open("/proc/self/ns/mnt", flags, Mode::empty())
        .doing(|| "open /proc/self/ns/mnt".to_owned())?;
    keep_cwd(|| {
        unshare(CloneFlags::CLONE_NEWNS).doing(|| "make a mount namespace".to_owned())?;
        let none = None::<&str>;
        let done = mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)
            .doing(|| "cut off the mount namespace".to_owned())
            .and_then(|()| work());
        setns(home.as_fd(), CloneFlags::CLONE_NEWNS.bits())
            .doing(|| "return to the host's mount namespace".to_owned())?;
        done
    })
}
