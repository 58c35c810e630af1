//! What the mounts are made from, opened before the container exists: fds instead of paths.
//!
//! The moment is data. [`Sources::open`] is the same list of calls at each of them:
//! - before the clone, in the host's namespaces, by a privileged parent: detached trees, which the
//!   child inherits;
//! - after the clone, standing in the child's mount namespace: [`Sources::open_in`], by the parent for
//!   a child with a user namespace of its own. A tree cloned on the host side and attached there would
//!   not be locked: root of the container could make the host's read-only mounts writable (measured on
//!   6.18). Cloned from the child's copy of the mounts, every inherited flag stays locked; and the
//!   parent may look where the child may not. The fds travel by [`Sources::fds`], [`Sources::receive`];
//! - by the child itself, when nobody else may or the kernel has no detached trees.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, open};
use nix::sched::CloneFlags;
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::{Mode, fstat};
use nix::sys::wait::waitpid;
use nix::unistd::fchdir;
use oci_spec::runtime::LinuxIdMapping;

use super::compat::Kernel;
use super::devices::Device;
use super::mounts::{Bind, Idmap, Kind, Mapping};
use super::options::{Propagation, ms};
use super::path::{c_path, kind};
use super::plan::Plan;
use crate::error::Doing;
use crate::namespaces::enter_those_of;
use crate::sys::mount::{self as sys, MountAttr, attr};
use crate::sys::process::{CloneArgs, Cloned, clone, setns};
use crate::{Error, Result};

/// `PROC_SUPER_MAGIC`.
const PROC_MAGIC: u64 = 0x9fa0;
/// The inode of a procfs root.
const PROC_ROOT_INODE: u64 = 1;
/// `/dev/null`.
const NULL: (libc::c_uint, libc::c_uint) = (1, 3);

/// Where the caller of [`Sources::open`] stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// In the host's mount namespace, before the clone.
    Before,
    /// In the container's new mount namespace, still a copy of the host's.
    Inside,
}

/// Opened sources. Each fd is a detached tree where the kernel has them, else an `O_PATH` fd in the
/// container's mount namespace.
#[derive(Debug, Default)]
pub struct Sources {
    /// Whether anything was opened.
    pub(super) opened: bool,
    /// The root file system.
    pub(super) root: Option<OwnedFd>,
    /// Where it is attached: its own path in the container's mount namespace. Only of [`Moment::Inside`].
    pub(super) place: Option<OwnedFd>,
    /// The host's `/dev/null`, checked to be 1:3, for masks (CVE-2025-31133).
    pub(super) null: Option<OwnedFd>,
    /// As many as the plan's mounts, `Some` for binds.
    pub(super) mounts: Vec<Option<OwnedFd>>,
    /// As many as the plan's devices, `Some` where nodes are bound.
    pub(super) devices: Vec<Option<OwnedFd>>,
}

impl Sources {
    /// Nothing: the child will open them itself.
    pub fn none() -> Self {
        Self::default()
    }

    /// Opens everything that the plan needs from the host, in the caller's mount namespace.
    ///
    /// # Errors
    /// The errno of opening a source; a source that is not what it has to be.
    pub fn open(plan: &Plan, moment: Moment) -> Result<Self> {
        let kernel = Kernel::probe().doing(|| "look for the mount API".to_owned())?;
        Self::open_with(&kernel, plan, moment)
    }

    /// [`Sources::open`], when the kernel is known.
    pub(super) fn open_with(kernel: &Kernel, plan: &Plan, moment: Moment) -> Result<Self> {
        // An fd on the host's mount, not a detached one, can't be bound in another namespace.
        if moment == Moment::Before && !(kernel.present.detached && kernel.present.setattr) {
            return Ok(Self::none());
        }
        let opener = Opener {
            trees: kernel.present.detached,
            setattr: kernel.present.setattr,
            cut: plan.cut(),
        };
        let mut idmaps = Idmaps::default();
        let place = (moment == Moment::Inside).then(|| open_place(plan)).transpose()?;
        let mut sources = Self {
            opened: true,
            root: Some(opener.root(&plan.root)?),
            place,
            null: None,
            mounts: Vec::with_capacity(plan.mounts.len()),
            devices: Vec::new(),
        };
        if !plan.masked.is_empty() {
            sources.null = Some(opener.null()?);
        }
        for mount in &plan.mounts {
            sources.mounts.push(match &mount.kind {
                Kind::Bind(bind) => Some(
                    opener
                        .bind(bind, &mut idmaps)
                        .doing(|| format!("mounts[{}]: bind {:?}", mount.index, bind.source))?,
                ),
                _ => None,
            });
        }
        if plan.bind_devices && plan.fill_dev {
            for device in &plan.devices {
                sources.devices.push(opener.device(device)?);
            }
        }
        Ok(sources)
    }

    /// [`Sources::open`] at [`Moment::Inside`] by the parent: it enters the mount namespace of the
    /// process behind `pidfd`, opens, and comes back.
    ///
    /// # Errors
    /// As [`Sources::open`]; the errno of entering or of coming back.
    pub fn open_in(plan: &Plan, pidfd: BorrowedFd<'_>) -> Result<Self> {
        let flags = OFlag::O_CLOEXEC;
        let home = open("/proc/self/ns/mnt", flags | OFlag::O_RDONLY, Mode::empty())
            .doing(|| "open /proc/self/ns/mnt".to_owned())?;
        let cwd = open(".", flags | OFlag::O_PATH | OFlag::O_DIRECTORY, Mode::empty())
            .doing(|| "open the working directory".to_owned())?;
        enter_those_of(pidfd, libc::CLONE_NEWNS)
            .doing(|| "enter the container's mount namespace".to_owned())?;
        let opened = Self::open(plan, Moment::Inside);
        setns(home, libc::CLONE_NEWNS)
            .doing(|| "return from the container's mount namespace".to_owned())?;
        fchdir(cwd).doing(|| "return to the working directory".to_owned())?;
        opened
    }

    /// All fds in the order that [`Sources::receive`] wants them. More than 253 need more than one
    /// message (`SCM_MAX_FD`).
    pub fn fds(&self) -> Vec<BorrowedFd<'_>> {
        let ends = [&self.root, &self.place, &self.null];
        let all = ends.into_iter().chain(&self.mounts).chain(&self.devices);
        all.filter_map(|fd| fd.as_ref().map(AsFd::as_fd)).collect()
    }

    /// The sources that another process opened with [`Sources::open_in`] for the same plan.
    ///
    /// # Errors
    /// When there are more or fewer fds than the plan needs.
    pub fn receive(plan: &Plan, fds: impl IntoIterator<Item = OwnedFd>) -> Result<Self> {
        let mut fds = fds.into_iter();
        let mut next = || {
            fds.next()
                .ok_or_else(|| Error::Failed("a mount source is missing".to_owned()))
                .map(Some)
        };
        let mut sources = Self { opened: true, root: next()?, place: next()?, ..Self::default() };
        if !plan.masked.is_empty() {
            sources.null = next()?;
        }
        for mount in &plan.mounts {
            let fd = if matches!(mount.kind, Kind::Bind(_)) { next()? } else { None };
            sources.mounts.push(fd);
        }
        if plan.bind_devices && plan.fill_dev {
            for device in &plan.devices {
                sources.devices.push(if device.is_fifo() { None } else { next()? });
            }
        }
        if fds.next().is_some() {
            return Err(Error::Failed("a mount source too many".to_owned()));
        }
        Ok(sources)
    }
}

/// The directory on which the root file system is attached, in this mount namespace.
pub(super) fn open_place(plan: &Plan) -> Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    open(&plan.root, flags, Mode::empty())
        .doing(|| format!("open root file system {:?}", plan.root))
}

/// How the sources are opened.
struct Opener {
    /// As detached trees.
    trees: bool,
    /// Detached trees can be changed.
    setattr: bool,
    /// What the mount namespace gets; a tree that was cloned on the host side needs it, too.
    cut: Propagation,
}

impl Opener {
    fn source(&self, path: &Path, recursive: bool) -> Result<OwnedFd, Errno> {
        if self.trees {
            return sys::clone_tree(AT_FDCWD, &c_path(path)?, recursive);
        }
        open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
    }

    /// Cuts the tree off from the host: a clone of a shared mount is its peer, and what the container
    /// mounts in it would appear on the host.
    fn isolate(&self, tree: &OwnedFd) -> Result<(), Errno> {
        if !self.trees || !self.setattr || self.cut.kind == ms::SHARED {
            return Ok(());
        }
        let what = MountAttr { propagation: self.cut.kind, ..MountAttr::default() };
        sys::mount_setattr(tree, true, &what)
    }

    fn root(&self, path: &Path) -> Result<OwnedFd> {
        let doing = || format!("open root file system {path:?}");
        let root = self.source(path, true).doing(doing)?;
        if !super::path::is_dir(&root).doing(doing)? {
            return Err(Error::sys(doing(), Errno::ENOTDIR));
        }
        self.isolate(&root).doing(doing)?;
        Ok(root)
    }

    fn null(&self) -> Result<OwnedFd> {
        let doing = || "open /dev/null for masks".to_owned();
        let null = self.source(Path::new("/dev/null"), false).doing(doing)?;
        let stat = fstat(&null).doing(doing)?;
        if stat.st_mode & libc::S_IFMT != libc::S_IFCHR
            || stat.st_rdev != libc::makedev(NULL.0, NULL.1)
        {
            return Err(Error::Failed("/dev/null is not the null device 1:3".to_owned()));
        }
        self.isolate(&null).doing(doing)?;
        Ok(null)
    }

    fn bind<'p>(&self, bind: &'p Bind, idmaps: &mut Idmaps<'p>) -> Result<OwnedFd> {
        let tree = self.source(&bind.source, bind.recursive).doing(|| "open".to_owned())?;
        self.isolate(&tree).doing(|| "cut off from the host".to_owned())?;
        if bind.must_be_proc {
            let info = crate::sys::fs::statfs(&tree).doing(|| "statfs".to_owned())?;
            let stat = fstat(&tree).doing(|| "stat".to_owned())?;
            if info.magic != PROC_MAGIC || stat.st_ino != PROC_ROOT_INODE {
                return Err(Error::Failed("only a procfs can be mounted on /proc".to_owned()));
            }
        }
        if let Some(idmap) = &bind.idmap {
            if !self.trees || !self.setattr {
                return Err(Error::Unsupported("idmapped mounts need Linux 5.12".to_owned()));
            }
            idmaps.apply(&tree, idmap)?;
        }
        Ok(tree)
    }

    /// A host's device node, for a user namespace. FIFOs can be made anywhere.
    fn device(&self, device: &Device) -> Result<Option<OwnedFd>> {
        if device.is_fifo() {
            return Ok(None);
        }
        let path = Path::new("/").join(&device.path);
        let doing = || format!("open device {path:?}");
        let node = self.source(&path, false).doing(doing)?;
        let stat = fstat(&node).doing(doing)?;
        if kind(&stat).bits() != device.kind || stat.st_rdev != device.rdev {
            return Err(Error::Failed(format!(
                "device {path:?} of the host is not the {} that was asked for, and a user namespace can't make one",
                device.shown()
            )));
        }
        self.isolate(&node).doing(doing)?;
        Ok(Some(node))
    }
}

/// User namespaces for idmapped mounts, each made once.
#[derive(Debug, Default)]
struct Idmaps<'plan> {
    made: Vec<(&'plan Mapping, OwnedFd)>,
}

impl<'plan> Idmaps<'plan> {
    fn apply(&mut self, tree: &OwnedFd, idmap: &'plan Idmap) -> Result<()> {
        let at = match self.made.iter().position(|(mapping, _)| **mapping == idmap.through) {
            Some(at) => at,
            None => {
                let userns = match &idmap.through {
                    Mapping::Ids(uids, gids) => make_userns(uids, gids)?,
                    Mapping::Path(path) => {
                        open(path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
                            .doing(|| format!("open user namespace {path:?}"))?
                    }
                };
                self.made.push((&idmap.through, userns));
                self.made.len() - 1
            }
        };
        let userns = self.made.get(at).map(|(_, fd)| fd.as_fd());
        let what = MountAttr { set: attr::IDMAP, userns, ..MountAttr::default() };
        sys::mount_setattr(tree, idmap.recursive, &what).doing(|| "map identities".to_owned())
    }
}

/// A user namespace with these mappings, held by nothing but its fd: a child is born in it, the maps
/// are written, and the child goes. The caller is single-threaded.
///
/// # Errors
/// The errno of the clone; of writing the maps, `EINVAL` for ranges that the kernel doesn't take.
pub fn make_userns(uids: &[LinuxIdMapping], gids: &[LinuxIdMapping]) -> Result<OwnedFd> {
    let args = CloneArgs { flags: CloneFlags::CLONE_NEWUSER.bits() as u64, ..CloneArgs::default() };
    let (pid, _pidfd) = match clone(&args).doing(|| "make a user namespace".to_owned())? {
        Cloned::Child => loop {
            // Dies with its parent, whatever happens to that.
            if nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).is_err() {
                return Err(Error::Failed("prctl".to_owned()));
            }
            nix::unistd::pause();
        },
        Cloned::Parent(pid, pidfd) => (pid, pidfd),
    };
    let made = write_map(pid, "uid_map", uids)
        .and_then(|()| write_map(pid, "gid_map", gids))
        .and_then(|()| {
            let path = format!("/proc/{pid}/ns/user");
            open(path.as_str(), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
                .doing(|| format!("open {path}"))
        });
    kill(pid, Signal::SIGKILL).doing(|| "end the helper".to_owned())?;
    waitpid(pid, None).doing(|| "wait for the helper".to_owned())?;
    made
}

fn write_map(pid: nix::unistd::Pid, file: &str, map: &[LinuxIdMapping]) -> Result<()> {
    let lines: String = map
        .iter()
        .map(|m| format!("{} {} {}\n", m.container_id(), m.host_id(), m.size()))
        .collect();
    let path = format!("/proc/{pid}/{file}");
    std::fs::write(&path, lines).doing(|| format!("write {path}"))
}
