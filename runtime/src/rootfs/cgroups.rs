//! Mounts of type `cgroup`: the container's own groups, in the form that the host has.
//!
//! On cgroup v2 one file system: in a cgroup namespace of its own its root is the container's group,
//! otherwise the host's. On v1 a tmpfs with one directory for each hierarchy and links for controllers
//! that share one; with a cgroup namespace each is a fresh mount, whose root is the container's group,
//! otherwise the group's directory is bound. A read-only mount is read-only in all its parts and on
//! every way round (CVE-2023-25809: the fallback forgot it).

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::sys::stat::{Mode, fstatat, mkdirat};
use nix::unistd::symlinkat;

use super::mount::{Mounter, merged};
use super::mounts::{Mount, NewFs};
use super::path::{self, Want, c_path};
use crate::error::Doing;
use crate::sys::mount::{self as sys, attr};
use crate::{Error, Result};

/// `CGROUP2_SUPER_MAGIC`.
const CGROUP2_MAGIC: u64 = 0x6367_7270;
/// Where every system mounts them.
const MOUNTPOINT: &str = "/sys/fs/cgroup";

/// Where the container's groups are on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cgroups {
    /// No cgroups, or none wanted.
    None,
    /// cgroup v2: the directory of the container's group.
    Unified(PathBuf),
    /// cgroup v1, also hybrid: each hierarchy with controllers or a name.
    Legacy(Vec<Hierarchy>),
}

/// One v1 hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// The name of its directory: `cpu,cpuacct`, `systemd`.
    pub name: String,
    /// Its mount options: `cpu,cpuacct`, `name=systemd`.
    pub options: String,
    /// The directory of the container's group on the host.
    pub own: PathBuf,
}

impl Cgroups {
    /// The groups that the calling process is in. Call it after joining them and before entering a
    /// cgroup namespace, on the host's `/proc` and `/sys`.
    ///
    /// # Errors
    /// The errno of reading `/proc/self/cgroup`.
    pub fn of_self() -> Result<Self> {
        let file = "/proc/self/cgroup";
        let text = fs::read_to_string(file).doing(|| format!("read {file}"))?;
        let Ok(top) = path::open_host(Path::new(MOUNTPOINT)) else { return Ok(Self::None) };
        let info = crate::sys::fs::statfs(&top).doing(|| format!("statfs {MOUNTPOINT}"))?;
        let top = Path::new(MOUNTPOINT);
        if info.magic == CGROUP2_MAGIC {
            let own = text.lines().find_map(|line| line.strip_prefix("0::/"));
            return Ok(Self::Unified(top.join(own.unwrap_or_default())));
        }
        Ok(Self::Legacy(text.lines().filter_map(|line| Hierarchy::of_line(line, top)).collect()))
    }
}

impl Hierarchy {
    /// A line of `/proc/self/cgroup`: `4:cpu,cpuacct:/path`.
    fn of_line(line: &str, top: &Path) -> Option<Self> {
        let mut fields = line.splitn(3, ':');
        let (_, options, group) = (fields.next()?, fields.next()?, fields.next()?);
        let base = options.strip_prefix("name=").unwrap_or(options);
        // Either the directory's name, or of a link to it, or in another order.
        let name = [base]
            .into_iter()
            .chain(base.split(',').take(1))
            .find_map(|name| fs::canonicalize(top.join(name)).ok())?;
        let name = name.file_name()?.to_str()?.to_owned();
        let own = top.join(&name).join(group.trim_start_matches('/'));
        (!base.is_empty()).then(|| Self { name, options: options.to_owned(), own })
    }
}

/// Makes the mount. Returns its root.
pub(super) fn mount(mounter: &Mounter<'_>, mount: &Mount, cgroups: &Cgroups) -> Result<OwnedFd> {
    let target = path::open_or_create(mounter.root, &mount.destination, Want::Dir)
        .doing(|| "open the destination".to_owned())?;
    mounter.refuse_proc(&target)?;
    match cgroups {
        Cgroups::None => Err(Error::Unsupported("this host has no cgroups to mount".to_owned())),
        Cgroups::Unified(own) => unified(mounter, mount, &target, own),
        Cgroups::Legacy(hierarchies) => legacy(mounter, mount, &target, hierarchies),
    }
}

fn unified(mounter: &Mounter<'_>, mount: &Mount, target: &OwnedFd, own: &Path) -> Result<OwnedFd> {
    let attrs = merged(mount).set;
    if !mounter.own_cgroupns {
        // All of the host's, as with runc. Not a new mount: made in the first cgroup namespace it
        // would take the host's options (nsdelegate, memory_recursiveprot) from its one superblock.
        return bind(mounter, Path::new(MOUNTPOINT), attrs, target, &mount.destination);
    }
    let fs =
        NewFs { fstype: "cgroup2".to_owned(), source: "cgroup".to_owned(), ..NewFs::default() };
    match mounter.new_at(&fs, attrs, target, &mount.destination) {
        // A cgroup namespace that isn't our user namespace's; or a manager that keeps it busy.
        Err(error) if matches!(error.errno(), Some(Errno::EPERM | Errno::EBUSY)) => {
            bind(mounter, own, attrs, target, &mount.destination)
        }
        mounted => mounted,
    }
}

fn legacy(
    mounter: &Mounter<'_>,
    mount: &Mount,
    target: &OwnedFd,
    hierarchies: &[Hierarchy],
) -> Result<OwnedFd> {
    // runc's and crun's, asked for or not: nothing in here is ever a device or a program.
    let attrs = merged(mount).set | attr::NOSUID | attr::NODEV | attr::NOEXEC;
    let tmpfs = mounter.tmpfs(&[("mode", "755")]);
    let top = mounter.new_at(&tmpfs, attrs & !attr::RDONLY, target, &mount.destination)?;
    for hierarchy in hierarchies {
        let doing = || format!("cgroup hierarchy {}", hierarchy.name);
        mkdirat(&top, hierarchy.name.as_str(), Mode::from_bits_truncate(0o755)).doing(doing)?;
        let place =
            path::open_plain(&top, Path::new(&hierarchy.name), libc::O_PATH).doing(doing)?;
        let destination = mount.destination.join(&hierarchy.name);
        let mounted = if mounter.own_cgroupns {
            match mounter.new_at(&hierarchy.fs(), attrs, &place, &destination) {
                Err(error) if matches!(error.errno(), Some(Errno::EPERM | Errno::EBUSY)) => {
                    bind(mounter, &hierarchy.own, attrs, &place, &destination)
                }
                mounted => mounted,
            }
        } else {
            bind(mounter, &hierarchy.own, attrs, &place, &destination)
        };
        mounted.doing(doing)?;
        for controller in hierarchy.name.split(',').filter(|_| hierarchy.name.contains(',')) {
            let taken = fstatat(&top, controller, AtFlags::AT_SYMLINK_NOFOLLOW).is_ok();
            if !taken {
                symlinkat(hierarchy.name.as_str(), &top, controller).doing(doing)?;
            }
        }
    }
    if attrs & attr::RDONLY != 0 {
        mounter.make(&top, attr::RDONLY)?;
    }
    Ok(top)
}

impl Hierarchy {
    fn fs(&self) -> NewFs {
        let mut fs = NewFs { fstype: "cgroup".to_owned(), ..NewFs::default() };
        match self.options.strip_prefix("name=") {
            Some(name) => {
                name.clone_into(&mut fs.source);
                fs.push("name", Some(name));
            }
            None => {
                "cgroup".clone_into(&mut fs.source);
                for controller in self.options.split(',') {
                    fs.push(controller, None);
                }
            }
        }
        fs
    }
}

/// Binds the container's own group, or all. It is a path of the host, where only managers make
/// directories.
fn bind(
    mounter: &Mounter<'_>,
    own: &Path,
    attrs: u64,
    target: &OwnedFd,
    destination: &Path,
) -> Result<OwnedFd> {
    let doing = || format!("bind {own:?}");
    let source = if mounter.kernel.present.detached {
        c_path(own).and_then(|path| sys::clone_tree(AT_FDCWD, &path, false)).doing(doing)?
    } else {
        path::open_host(own).doing(doing)?
    };
    let mounted = mounter.attach(source, target, destination, false).doing(doing)?;
    mounter.make(&mounted, attrs)?;
    Ok(mounted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_proc_self_cgroup() {
        let top = tempfile::tempdir().unwrap();
        for name in ["cpu,cpuacct", "systemd", "pids"] {
            fs::create_dir(top.path().join(name)).unwrap();
        }
        std::os::unix::fs::symlink("cpu,cpuacct", top.path().join("cpu")).unwrap();
        let of = |line| Hierarchy::of_line(line, top.path());
        let cpu = of("4:cpu,cpuacct:/a/b").unwrap();
        assert_eq!((cpu.name.as_str(), cpu.options.as_str()), ("cpu,cpuacct", "cpu,cpuacct"));
        assert!(cpu.own.ends_with("cpu,cpuacct/a/b"));
        assert_eq!(of("4:cpu:/").unwrap().name, "cpu,cpuacct");
        let named = of("1:name=systemd:/user.slice").unwrap();
        assert_eq!((named.name.as_str(), named.options.as_str()), ("systemd", "name=systemd"));
        assert_eq!(of("0::/x"), None);
        assert_eq!(of("9:absent:/x"), None);
    }
}
