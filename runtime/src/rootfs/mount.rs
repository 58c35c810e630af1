//! Mounting, in the container's new mount namespace, in the spec's order.
//!
//! Promise: a mount is built detached, with its attributes, and attached once, from fd to fd, to a
//! target that was resolved inside the root (attacks P1 to P6); attributes that were asked for are
//! read back (D7). Nothing is mounted on anything of a procfs but what the plan allows, whatever links
//! the image has: the target's fd tells.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::fstat;

use super::compat::{Kernel, missing, to_ms};
use super::mounts::{Kind, Mount, NewFs};
use super::options::{Attrs, ms};
use super::path::{self, Found, Want, c_path};
use super::{Cgroups, cgroups, copy_up};
use crate::error::Doing;
use crate::sys::mount::{self as sys, MountAttr, attr};
use crate::{Error, Result};

/// `PROC_SUPER_MAGIC`.
const PROC_MAGIC: u64 = 0x9fa0;

/// Where and how mounts are made.
#[derive(Debug)]
pub(super) struct Mounter<'a> {
    pub(super) kernel: &'a Kernel,
    /// The container's root.
    pub(super) root: BorrowedFd<'a>,
    pub(super) label: Option<&'a str>,
    pub(super) own_cgroupns: bool,
}

impl Mounter<'_> {
    /// Makes one mount of the plan. Returns the root of what has to become read-only at the end.
    pub(super) fn mount(
        &self,
        mount: &Mount,
        source: Option<OwnedFd>,
        cgroups: &Cgroups,
    ) -> Result<Option<OwnedFd>> {
        let mounted = match &mount.kind {
            Kind::Bind(bind) => {
                let source =
                    source.ok_or_else(|| Error::Failed("its source is not open".to_owned()))?;
                self.bind(source, &mount.destination, bind.recursive, mount.attrs, mount.recursive)?
            }
            Kind::New(fs) => self.new_fs(fs, mount)?,
            Kind::Cgroup => cgroups::mount(self, mount, cgroups)?,
            Kind::Remount { bind, fs } => self.remount(mount, *bind, fs)?,
        };
        for propagation in &mount.propagation {
            self.kernel
                .set_propagation(mounted.as_fd(), *propagation)
                .doing(|| "set propagation".to_owned())?;
        }
        verify(&mounted, merged(mount).set)?;
        Ok(mount.readonly_late.then_some(mounted))
    }

    /// The target inside the root, made if missing.
    fn target(&self, destination: &Path, want: Want) -> Result<Found> {
        let found = path::find_or_create(self.root, destination, want)
            .doing(|| "open the destination".to_owned())?;
        if !destination.starts_with("proc") {
            self.refuse_proc(&found.fd)?;
        }
        Ok(found)
    }

    /// A link of the image must not lead a mount to where corten or the kernel read their truth.
    pub(super) fn refuse_proc(&self, target: &OwnedFd) -> Result<()> {
        let info = crate::sys::fs::statfs(target).doing(|| "statfs".to_owned())?;
        if info.magic == PROC_MAGIC {
            return Err(Error::Failed("its destination leads into /proc".to_owned()));
        }
        Ok(())
    }

    /// Attaches a tree, or binds an fd, on the destination.
    fn bind(
        &self,
        source: OwnedFd,
        destination: &Path,
        recursive: bool,
        attrs: Attrs,
        all: Attrs,
    ) -> Result<OwnedFd> {
        let is_dir = path::is_dir(&source).doing(|| "stat".to_owned())?;
        let want = if is_dir { Want::Dir } else { Want::File };
        let target = self.target(destination, want)?.fd;
        let set_attrs = |mounted: BorrowedFd<'_>| {
            self.set_attrs(mounted, false, attrs)?;
            self.set_attrs(mounted, true, all)
        };
        if self.kernel.present.detached && self.kernel.present.setattr {
            set_attrs(source.as_fd())?;
            sys::move_mount(&source, &target).doing(|| "attach".to_owned())?;
            return Ok(source);
        }
        let mounted = self.attach(source, &target, destination, recursive)?;
        set_attrs(mounted.as_fd())?;
        Ok(mounted)
    }

    /// Attaches a tree, or binds an fd, on an open target; `destination` is the target's path, to
    /// find what was mounted.
    pub(super) fn attach(
        &self,
        source: OwnedFd,
        target: &OwnedFd,
        destination: &Path,
        recursive: bool,
    ) -> Result<OwnedFd> {
        if self.kernel.present.detached {
            sys::move_mount(&source, target).doing(|| "attach".to_owned())?;
            return Ok(source);
        }
        self.kernel.bind(source.as_fd(), target.as_fd(), recursive).doing(|| "bind".to_owned())?;
        let mounted = self.find(destination, target)?;
        let (wanted, found) = (fstat(&source), fstat(&mounted));
        let same = wanted.and_then(|a| found.map(|b| (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)));
        if same.doing(|| "stat".to_owned())? {
            return Ok(mounted);
        }
        Err(Error::Failed("the destination changed while it was mounted on".to_owned()))
    }

    /// Opens what mount(2) has put on `target`, by its path.
    fn find(&self, destination: &Path, target: &OwnedFd) -> Result<OwnedFd> {
        let doing = || "open what was mounted".to_owned();
        let mounted = path::open(self.root, destination, libc::O_PATH).doing(doing)?;
        match crate::sys::fs::is_mount_root(&mounted) {
            Ok(true) => return Ok(mounted),
            // Before Linux 5.8: something else is there now.
            Err(Errno::ENOTSUP | Errno::ENOSYS) => {
                let (new, old) = (fstat(&mounted).doing(doing)?, fstat(target).doing(doing)?);
                if (new.st_dev, new.st_ino) != (old.st_dev, old.st_ino) {
                    return Ok(mounted);
                }
            }
            Ok(false) => {}
            Err(errno) => return Err(Error::sys(doing(), errno)),
        }
        Err(Error::Failed("the destination changed while it was mounted on".to_owned()))
    }

    fn set_attrs(&self, mounted: BorrowedFd<'_>, recursive: bool, attrs: Attrs) -> Result<()> {
        self.kernel.set_attrs(mounted, recursive, attrs).map_err(|errno| match errno {
            Errno::ENOSYS if recursive => {
                Error::Unsupported("recursive mount options need Linux 5.12".to_owned())
            }
            Errno::EPERM if attrs.clear != 0 => Error::sys(
                "change mount attributes (one to be cleared may be locked by the user namespace)",
                errno,
            ),
            _ => Error::sys("change mount attributes", errno),
        })
    }

    /// A new file system.
    fn new_fs(&self, fs: &NewFs, mount: &Mount) -> Result<OwnedFd> {
        let plain = matches!(fs.fstype.as_str(), "proc" | "sysfs");
        let (target, mode) = if plain {
            (self.plain_target(fs, &mount.destination)?, None)
        } else {
            let found = self.target(&mount.destination, Want::Dir)?;
            let mode = mode_to_keep(fs, &found);
            (found.fd, mode)
        };
        // A new file system has no mounts below: recursive options are its own.
        let attrs = merged(mount);
        match self.build_and_attach(fs, attrs, mode, &target, &mount.destination) {
            Err(error) if error.errno() == Some(Errno::EPERM) => {
                let Some(stand_in) = fs.stand_in else { return Err(error) };
                let tree = if self.kernel.present.detached {
                    c_path(Path::new(stand_in))
                        .and_then(|path| sys::clone_tree(AT_FDCWD, &path, true))
                } else {
                    path::open_host(Path::new(stand_in))
                };
                let tree = tree.doing(|| format!("bind {stand_in} instead"))?;
                let mounted = self.attach(tree, &target, &mount.destination, true)?;
                // All below, or a read-only /sys would have writable parts.
                self.set_attrs(mounted.as_fd(), true, Attrs { clear: 0, ..attrs })?;
                Ok(mounted)
            }
            other => other,
        }
    }

    /// procfs and sysfs stand on a directory that no link leads to.
    fn plain_target(&self, fs: &NewFs, destination: &Path) -> Result<OwnedFd> {
        path::open_or_create_plain(self.root, destination).map_err(|errno| match errno {
            Errno::ELOOP | Errno::ENOTDIR => Error::Failed(format!(
                "{} must be mounted on an ordinary directory, not through a link",
                fs.fstype
            )),
            _ => Error::sys("open the destination", errno),
        })
    }

    fn build_and_attach(
        &self,
        fs: &NewFs,
        attrs: Attrs,
        mode: Option<u32>,
        target: &OwnedFd,
        destination: &Path,
    ) -> Result<OwnedFd> {
        let mode = mode.map(|mode| format!("{mode:o}"));
        if self.kernel.present.detached && !fs.needs_mount2() {
            let mode = mode.as_deref().map(|mode| ("mode", Some(mode)));
            let tree = build(fs, attrs.set, mode)?;
            if fs.copy_up {
                copy_up::copy(target, &tree)?;
            }
            self.label_mqueue(fs, &tree)?;
            sys::move_mount(&tree, target).doing(|| "attach".to_owned())?;
            return Ok(tree);
        }
        let data = match &mode {
            Some(mode) if fs.data.is_empty() => format!("mode={mode}"),
            Some(mode) => format!("mode={mode},{}", fs.data),
            None => fs.data.clone(),
        };
        let flags = fs.superblock | to_ms(attrs.set);
        let source = if fs.source.is_empty() { "none" } else { &fs.source };
        self.kernel
            .mount_new(target.as_fd(), &fs.fstype, source, flags, &data)
            .doing(|| format!("mount {}", fs.fstype))?;
        let mounted = self.find(destination, target)?;
        if fs.copy_up {
            copy_up::copy(target, &mounted)?;
        }
        self.label_mqueue(fs, &mounted)?;
        Ok(mounted)
    }

    /// An mqueue takes no context option; its root is labelled as a file is.
    fn label_mqueue(&self, fs: &NewFs, mounted: &OwnedFd) -> Result<()> {
        match self.label {
            Some(label) if fs.fstype == "mqueue" => {
                crate::sys::fs::set_selinux_label(mounted, &c_string(label)?)
                    .doing(|| format!("label the message queues {label:?}"))
            }
            _ => Ok(()),
        }
    }

    /// Changes what is mounted on the destination.
    fn remount(&self, mount: &Mount, bind: bool, fs: &NewFs) -> Result<OwnedFd> {
        let there = path::open(self.root, &mount.destination, libc::O_PATH)
            .doing(|| "open the destination".to_owned())?;
        if !bind {
            let doing = || "remount".to_owned();
            if !self.kernel.present.detached || fs.needs_mount2() {
                let flags = libc::MS_REMOUNT | fs.superblock | to_ms(merged(mount).set);
                self.kernel
                    .mount_new(there.as_fd(), &fs.fstype, "none", flags, &fs.data)
                    .doing(doing)?;
                return Ok(there);
            }
            let context = sys::fspick(&there).doing(doing)?;
            configure(context.as_fd(), fs, None)?;
            if mount.attrs.clear & attr::RDONLY != 0 {
                sys::fsconfig_flag(&context, c"rw").doing(doing)?;
            }
            sys::fsconfig_reconfigure(&context)
                .map_err(|errno| explain(context.as_fd(), "remount", errno))?;
        }
        self.set_attrs(there.as_fd(), false, mount.attrs)?;
        self.set_attrs(there.as_fd(), true, mount.recursive)?;
        Ok(there)
    }

    /// A tmpfs of ours, labelled: for masks and v1 cgroups.
    pub(super) fn tmpfs(&self, parameters: &[(&str, &str)]) -> NewFs {
        let mut fs =
            NewFs { fstype: "tmpfs".to_owned(), source: "tmpfs".to_owned(), ..NewFs::default() };
        for (name, value) in parameters {
            fs.push(name, Some(value));
        }
        if let Some(label) = self.label {
            fs.push("context", Some(label));
        }
        fs
    }

    /// Mounts a file system of ours on an open target.
    pub(super) fn new_at(
        &self,
        fs: &NewFs,
        attrs: u64,
        target: &OwnedFd,
        destination: &Path,
    ) -> Result<OwnedFd> {
        let attrs = Attrs { set: attrs, clear: 0 };
        self.build_and_attach(fs, attrs, None, target, destination)
    }

    /// Sets attributes of ours and reads them back.
    pub(super) fn make(&self, mounted: &OwnedFd, set: u64) -> Result<()> {
        self.set_attrs(mounted.as_fd(), false, Attrs { set, clear: 0 })?;
        verify(mounted, set)
    }
}

/// The attributes that the mount itself ends up with: the recursive ones come second.
pub(super) fn merged(mount: &Mount) -> Attrs {
    let (own, all) = (mount.attrs, mount.recursive);
    let atime = if all.clear & attr::ATIME != 0 { all } else { own }.set & attr::ATIME;
    let set = (own.set & !all.clear | all.set) & !attr::ATIME | atime;
    let late = if mount.readonly_late { attr::RDONLY } else { 0 };
    Attrs { set: set & !late, clear: own.clear | all.clear }
}

/// A tmpfs takes the mode of the directory that it covers (row M16).
fn mode_to_keep(fs: &NewFs, covered: &Found) -> Option<u32> {
    let said = || fs.parameters.iter().any(|(name, _)| name == "mode");
    let keeps = fs.fstype == "tmpfs" && covered.existed && !said();
    keeps.then_some(covered.stat.st_mode & 0o7777)
}

/// Reads back what was asked for.
pub(super) fn verify(mounted: &OwnedFd, set: u64) -> Result<()> {
    if set == 0 {
        return Ok(());
    }
    match missing(mounted, set).doing(|| "read back mount attributes".to_owned())? {
        0 => Ok(()),
        lacks => {
            Err(Error::Failed(format!("mount attributes {lacks:#x} were set and do not hold")))
        }
    }
}

/// The kernel's errno with what it wrote into the context's log.
fn explain(context: BorrowedFd<'_>, what: &str, errno: Errno) -> Error {
    let log = sys::log(context);
    Error::sys(if log.is_empty() { what.to_owned() } else { format!("{what}: {log}") }, errno)
}

fn c_string(text: &str) -> Result<std::ffi::CString> {
    std::ffi::CString::new(text).map_err(|_| Error::Failed(format!("{text:?} holds a NUL")))
}

fn configure(
    context: BorrowedFd<'_>,
    fs: &NewFs,
    first: Option<(&str, Option<&str>)>,
) -> Result<()> {
    let flags = [
        (ms::RDONLY, c"ro"),
        (ms::SYNC, c"sync"),
        (ms::DIRSYNC, c"dirsync"),
        (ms::LAZYTIME, c"lazytime"),
        (ms::MAND, c"mand"),
    ];
    for (flag, name) in flags {
        if fs.superblock & flag != 0 {
            sys::fsconfig_flag(context, name)
                .map_err(|errno| explain(context, &format!("option {name:?}"), errno))?;
        }
    }
    for (key, file) in &fs.files {
        sys::fsconfig_fd(context, key, file)
            .map_err(|errno| explain(context, &format!("option {key:?}"), errno))?;
    }
    let parameters = fs.parameters.iter().map(|(name, value)| (name.as_str(), value.as_deref()));
    for (name, value) in first.into_iter().chain(parameters) {
        let key = c_string(name)?;
        let done = match value {
            Some(value) => sys::fsconfig_string(context, &key, &c_string(value)?),
            None => sys::fsconfig_flag(context, &key),
        };
        done.map_err(|errno| {
            let shown = value.map_or_else(|| name.to_owned(), |value| format!("{name}={value}"));
            explain(context, &format!("option {shown:?}"), errno)
        })?;
    }
    Ok(())
}

/// A detached mount of a new file system; `first` is a parameter that comes before the others.
///
/// # Errors
/// The step that failed, what the kernel wrote about it, and the errno.
pub fn build(fs: &NewFs, attrs: u64, first: Option<(&str, Option<&str>)>) -> Result<OwnedFd> {
    let fstype = c_string(&fs.fstype)?;
    let context = sys::fsopen(&fstype).doing(|| format!("open file system type {}", fs.fstype))?;
    if !fs.source.is_empty() {
        sys::fsconfig_string(&context, c"source", &c_string(&fs.source)?)
            .map_err(|errno| explain(context.as_fd(), "set the source", errno))?;
    }
    configure(context.as_fd(), fs, first)?;
    let doing = || format!("mount {}", fs.fstype);
    sys::fsconfig_create(&context).map_err(|errno| explain(context.as_fd(), &doing(), errno))?;
    sys::fsmount(&context, attrs).map_err(|errno| explain(context.as_fd(), &doing(), errno))
}

/// Makes the mount that holds `place` private, so that what is attached there stays in this
/// namespace and pivot_root(2) accepts it.
pub(super) fn private_parent(kernel: &Kernel, place: BorrowedFd<'_>) -> Result<()> {
    let doing = || "find the mount that holds the root file system".to_owned();
    let mut here = place.try_clone_to_owned().doing(doing)?;
    while !crate::sys::fs::is_mount_root(&here).doing(doing)? {
        here = path::parent(&here).doing(doing)?;
    }
    let private = super::Propagation { kind: ms::PRIVATE, recursive: false };
    kernel.set_propagation(here.as_fd(), private).doing(|| "make it private".to_owned())
}

/// A clone of an attached mount, to be attached again.
pub(super) fn again(mounted: &OwnedFd) -> Result<OwnedFd> {
    sys::clone_tree(mounted, c"", false).doing(|| "clone a mount".to_owned())
}

/// Attributes for one detached tree.
pub(super) fn set(tree: &OwnedFd, set: u64) -> Result<(), Errno> {
    sys::mount_setattr(tree, false, &MountAttr { set, ..MountAttr::default() })
}
