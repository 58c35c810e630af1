//! Finding the hierarchies and the group's place in them.
//!
//! Every container start does this, so the usual places below /sys/fs/cgroup are tried first: a
//! mountinfo of hundreds of lines costs more than all the limits together. It is read only where
//! a hierarchy is mounted elsewhere, or where its mount shows a part of it (a container without
//! its own cgroup namespace) and the group's place is relative to ours.

use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::sys::stat::{lstat, stat};
use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, statfs};

use super::plan::Place;
use super::{Cgroup, Group, Location, Plan, Version, systemd};
use crate::error::{Doing, Error, Result};

const ROOT: &str = "/sys/fs/cgroup";

impl Cgroup {
    /// Finds out where the plan's group is in each hierarchy. Changes nothing.
    ///
    /// # Errors
    /// No cgroups at all, though the plan needs them; an unreadable /proc.
    pub fn locate(plan: &Plan) -> Result<Self> {
        let only_v2 = is_mount(Path::new(ROOT), true);
        let groups = match &plan.place {
            Place::Absolute(path) if only_v2 && plan.unit.is_some() => {
                let base = plan.unit.as_ref().map(systemd::Plan::base).transpose()?;
                vec![located("", ROOT.into(), base.unwrap_or_default().join(path))]
            }
            _ if plan.unit.is_some() => return Err(systemd::needs_v2()),
            // Nothing is relative to us: /proc/self/cgroup has no news.
            Place::Absolute(path) if only_v2 => vec![located("", ROOT.into(), path.clone())],
            place => Finder { place, only_v2, mountinfo: None }.find()?,
        };
        let v2 = groups.iter().any(Group::is_v2);
        let version = match (groups.len(), v2) {
            (0, _) => Version::None,
            (1, true) => Version::V2,
            (_, true) => Version::Hybrid,
            (_, false) => Version::V1,
        };
        if version == Version::None && !plan.lenient() {
            return Err(Error::Unsupported("no cgroup mount found in mountinfo".to_owned()));
        }
        // Without the devices hierarchy the container could use every device: runc refuses too.
        let restricts = plan.devices.as_ref().is_some_and(|devices| !devices.allows_all());
        let on_v1 = matches!(version, Version::V1 | Version::Hybrid);
        if on_v1 && restricts && !plan.rootless && !groups.iter().any(|g| g.at.has("devices")) {
            return Err(Error::Unsupported(
                "linux.resources.devices: cgroup controller devices is not mounted".to_owned(),
            ));
        }
        let unit = plan.unit.as_ref().map(|plan| plan.unit.clone());
        let (lenient, taken, placeholder) = (plan.lenient(), false, None);
        let mut cgroup = Self { version, lenient, taken, unit, placeholder, groups };
        for group in &mut cgroup.groups {
            // The journal must know, or a crash now would make another's group look like ours. Not to
            // know is no answer: what is taken for another's is never removed.
            group.at.existed = match lstat(&group.path) {
                Ok(_) => true,
                Err(Errno::ENOENT) => false,
                Err(errno) if plan.lenient() && super::no_permission(errno) => true,
                Err(errno) => return Err(errno).doing(|| format!("stat {:?}", group.path)),
            };
        }
        Ok(cgroup)
    }
}

struct Finder<'plan> {
    place: &'plan Place,
    /// [`ROOT`] is the one hierarchy, v2.
    only_v2: bool,
    /// Read at most once, and on most hosts never.
    mountinfo: Option<String>,
}

impl Finder<'_> {
    fn find(mut self) -> Result<Vec<Group>> {
        let mut groups = Vec::with_capacity(16);
        for line in read("/proc/self/cgroup")?.lines() {
            let mut parts = line.splitn(3, ':');
            let (Some(_), Some(controllers), Some(own)) =
                (parts.next(), parts.next(), parts.next())
            else {
                return Err(Error::Failed(format!("bad line in /proc/self/cgroup: {line:?}")));
            };
            if (self.only_v2 && !controllers.is_empty()) || unused(controllers) {
                continue;
            }
            let Some((mount, root)) = self.mount(controllers, own)? else { continue };
            let path = match self.place {
                Place::Absolute(path) => path.clone(),
                Place::Relative(path) => {
                    let own = below(own, &root, &mount)?;
                    // Our own v2 group has processes (us), so it can't have limited sub-groups.
                    let base = if self.only_v2 { own.parent().unwrap_or(own) } else { own };
                    base.join(path)
                }
            };
            groups.push(located(controllers, mount, path));
        }
        Ok(groups)
    }

    /// The mount of a hierarchy, and which part of the hierarchy it shows.
    fn mount(&mut self, controllers: &str, own: &str) -> Result<Option<(PathBuf, PathBuf)>> {
        let v2 = controllers.is_empty();
        let usual = match controllers {
            "" if self.only_v2 => "",
            "" => "unified",
            named => named.strip_prefix("name=").unwrap_or(named),
        };
        let usual = match usual {
            "" => PathBuf::from(ROOT),
            name => Path::new(ROOT).join(name),
        };
        if is_mount(&usual, v2) {
            // What shows a part of a hierarchy does not have its root, which has inode 1.
            let whole = || stat(&usual).is_ok_and(|status| status.st_ino == 1);
            if matches!(self.place, Place::Absolute(_)) || own == "/" || whole() {
                return Ok(Some((usual, PathBuf::from("/"))));
            }
        }
        let text = match &mut self.mountinfo {
            Some(text) => text,
            none => none.insert(read("/proc/self/mountinfo")?),
        };
        Ok(mount_in(text, controllers, own))
    }
}

/// A named hierarchy of somebody else's: only systemd's is joined, by which managers find us.
fn unused(controllers: &str) -> bool {
    controllers.strip_prefix("name=").is_some_and(|name| name != "systemd")
}

/// Our own group, relative to what the mount shows.
fn below<'own>(own: &'own str, root: &Path, mount: &Path) -> Result<&'own Path> {
    let plain = |path: &&Path| path.components().all(|c| matches!(c, Component::Normal(_)));
    Path::new(own).strip_prefix(root).ok().filter(plain).ok_or_else(|| {
        Error::Unsupported(format!(
            "our own cgroup {own:?} is not below {mount:?}: give an absolute linux.cgroupsPath"
        ))
    })
}

fn located(controllers: &str, mount: PathBuf, path: PathBuf) -> Group {
    let controllers = controllers.to_owned();
    Group::new(Location { controllers, mount, path, existed: false })
}

/// Whether a directory is one of a cgroup file system of that version.
fn is_mount(path: &Path, v2: bool) -> bool {
    let magic = if v2 { CGROUP2_SUPER_MAGIC } else { CGROUP_SUPER_MAGIC };
    statfs(path).is_ok_and(|fs| fs.filesystem_type() == magic)
}

/// The mount point of a hierarchy and the part of it that is mounted there: the one under which
/// our own group can be seen, if there is one.
pub(crate) fn mount_in(
    mountinfo: &str,
    controllers: &str,
    own: &str,
) -> Option<(PathBuf, PathBuf)> {
    let mut first = None;
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let (mut left, mut right) = (left.split(' '), right.split(' '));
        let (Some(root), Some(point)) = (left.nth(3), left.next()) else { continue };
        let (Some(kind), Some(options)) = (right.next(), right.nth(1)) else { continue };
        let matches = match controllers {
            "" => kind == "cgroup2",
            some => {
                kind == "cgroup"
                    && some.split(',').all(|name| options.split(',').any(|option| option == name))
            }
        };
        if !matches {
            continue;
        }
        let found = (PathBuf::from(unescape(point)), PathBuf::from(unescape(root)));
        if Path::new(own).starts_with(&found.1) {
            return Some(found);
        }
        first = first.or(Some(found));
    }
    first
}

/// mountinfo writes blanks and backslashes as `\ooo`.
pub(crate) fn unescape(text: &str) -> String {
    if !text.contains('\\') {
        return text.to_owned();
    }
    let mut parts = text.split('\\');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.get(..3).and_then(|octal| u8::from_str_radix(octal, 8).ok()) {
            Some(byte) => {
                out.push(char::from(byte));
                out.push_str(&part[3..]);
            }
            None => {
                out.push('\\');
                out.push_str(part);
            }
        }
    }
    out
}

fn read(path: &str) -> Result<String> {
    std::fs::read_to_string(path).doing(|| format!("read {path:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:5 - cgroup cgroup rw,cpu,cpuacct
33 31 0:30 /docker/abc /mnt/a\\040b rw - cgroup cgroup rw,memory
34 31 0:30 / /mnt/whole rw - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
";

    #[test]
    fn a_hierarchy_is_known_by_its_controllers_wherever_it_is_mounted() {
        for (controllers, own, point, root) in [
            ("cpu,cpuacct", "/", "/sys/fs/cgroup/cpu,cpuacct", "/"),
            ("memory", "/docker/abc/x", "/mnt/a b", "/docker/abc"),
            ("memory", "/user", "/mnt/whole", "/"),
            ("name=systemd", "/", "/sys/fs/cgroup/systemd", "/"),
            ("", "/", "/sys/fs/cgroup/unified", "/"),
        ] {
            let found = mount_in(HYBRID, controllers, own);
            assert_eq!(found, Some((point.into(), root.into())), "{controllers}");
        }
        assert_eq!(mount_in(HYBRID, "net_cls", "/"), None);
    }

    #[test]
    fn our_own_group_must_be_in_the_mount() {
        let dir = Path::new("/sys/fs/cgroup");
        assert_eq!(below("/docker/abc/x", Path::new("/docker/abc"), dir).unwrap(), Path::new("x"));
        assert!(below("/../other", Path::new("/"), dir).is_err());
        assert!(below("/user", Path::new("/docker"), dir).is_err());
    }
}
