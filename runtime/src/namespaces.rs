//! Namespaces: which are new, which are joined, and what has to hold between them.
//!
//! [`Plan`] is pure. New ones come with the clone, except two: a cgroup namespace is unshared once
//! the process is in its cgroup, because its root is the group of that moment; a time namespace
//! takes effect for children only. Joined ones are opened by the parent, in the administrator's
//! view, and their type is asked of the kernel, so that a wrong path can't put a container into
//! another kind of namespace. See runtime-spec, config-linux.md, Namespaces; namespaces(7).
//!
//! Order: beside a user namespace, new or joined, the others are entered first, with the caller's
//! rights; what those don't suffice for comes after the user namespace, with its rights. That takes
//! a middle process ([`Joins::need_middle`]). Without a user namespace the init enters them itself.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::sys::stat::{Mode, fstat, stat};
use oci_spec::runtime::{LinuxNamespaceType, LinuxTimeOffset, Spec};

use crate::error::{Doing, Error, Result};
use crate::sys;
use crate::sys::process::{pidfd_send_signal, setns};
use crate::userns::Maps;

/// What the config asks for.
#[derive(Debug, Default)]
pub struct Plan {
    new: Vec<LinuxNamespaceType>,
    joined: Vec<Join>,
    maps: Maps,
    time: Option<String>,
}

/// A namespace to join.
#[derive(Debug)]
struct Join {
    kind: LinuxNamespaceType,
    path: PathBuf,
    /// Its place in the config, for errors.
    at: String,
}

impl Plan {
    /// Translates `linux.namespaces` and what depends on it.
    ///
    /// # Errors
    /// [`Error::Config`]: a type twice, a property that needs a namespace that is not there, id maps
    /// that no kernel takes.
    pub fn new(spec: &Spec) -> Result<Self> {
        let mut plan = Self::default();
        let linux = spec.linux().as_ref();
        let listed = linux.and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default();
        for (index, namespace) in listed.iter().enumerate() {
            let kind = namespace.typ();
            let at = format!("linux.namespaces[{index}]");
            if plan.has(kind) {
                return Err(Error::config(
                    format!("{at}.type"),
                    format!("{} is listed twice", word(kind)),
                ));
            }
            match namespace.path() {
                None => plan.new.push(kind),
                Some(path) if path.as_os_str().is_empty() => plan.new.push(kind),
                Some(path) if !path.is_absolute() => {
                    return Err(Error::config(
                        format!("{at}.path"),
                        format!("must be an absolute path, found {path:?}"),
                    ));
                }
                Some(path) => plan.joined.push(Join { kind, path: path.clone(), at }),
            }
        }
        plan.check_names(spec)?;
        if let Some(linux) = linux {
            plan.maps = Maps::new(
                linux.uid_mappings().as_deref().unwrap_or_default(),
                linux.gid_mappings().as_deref().unwrap_or_default(),
            )?;
            if linux.net_devices().as_ref().is_some_and(|devices| !devices.is_empty()) {
                return Err(Error::config("linux.netDevices", "not supported by this version"));
            }
            let offsets = linux.time_offsets().iter().flatten();
            plan.time = plan.time_lines(offsets)?;
        }
        plan.check_maps()?;
        Ok(plan)
    }

    fn check_names(&self, spec: &Spec) -> Result<()> {
        let names = [("hostname", spec.hostname()), ("domainname", spec.domainname())];
        for (key, name) in names {
            if name.as_ref().is_some_and(|name| !name.is_empty())
                && !self.has(LinuxNamespaceType::Uts)
            {
                return Err(Error::config(key, "needs a uts namespace in linux.namespaces"));
            }
        }
        Ok(())
    }

    fn check_maps(&self) -> Result<()> {
        let user = LinuxNamespaceType::User;
        match (self.is_new(user), self.has(user), self.maps.is_empty()) {
            (true, _, true) => Err(Error::config(
                "linux.uidMappings",
                "a new user namespace needs uidMappings and gidMappings",
            )),
            (true, _, false) => self.maps.check_root(),
            (false, false, false) => Err(Error::config(
                "linux.uidMappings",
                "id mappings need a user namespace in linux.namespaces",
            )),
            _ => Ok(()),
        }
    }

    /// The lines of `/proc/self/timens_offsets`; none without a new time namespace.
    fn time_lines<'a>(
        &self,
        offsets: impl Iterator<Item = (&'a String, &'a LinuxTimeOffset)>,
    ) -> Result<Option<String>> {
        let mut lines = String::new();
        for (clock, offset) in offsets {
            let at = format!("linux.timeOffsets.{clock}");
            if !matches!(clock.as_str(), "monotonic" | "boottime") {
                return Err(Error::config(at, "must be monotonic or boottime"));
            }
            if !self.is_new(LinuxNamespaceType::Time) {
                return Err(Error::config(at, "needs a new time namespace in linux.namespaces"));
            }
            let (secs, nanos) = (offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0));
            if nanos >= 1_000_000_000 {
                return Err(Error::config(
                    format!("{at}.nanosecs"),
                    format!("must be below 1000000000, found {nanos}"),
                ));
            }
            lines.push_str(&format!("{clock} {secs} {nanos}\n"));
        }
        Ok(self.is_new(LinuxNamespaceType::Time).then_some(lines))
    }

    /// Whether the container has one of its own or a joined one.
    pub fn has(&self, kind: LinuxNamespaceType) -> bool {
        self.is_new(kind) || self.joined.iter().any(|join| join.kind == kind)
    }

    /// Whether the container gets a new one.
    pub fn is_new(&self, kind: LinuxNamespaceType) -> bool {
        self.new.contains(&kind)
    }

    /// `CLONE_NEW*` for the clone: all new ones but cgroup and time.
    pub fn clone_flags(&self) -> u64 {
        let late = [LinuxNamespaceType::Cgroup, LinuxNamespaceType::Time];
        let at_clone = self.new.iter().filter(|kind| !late.contains(kind));
        at_clone.fold(0, |flags, kind| flags | *kind as u64)
    }

    /// `CLONE_NEW*` of every listed one, for `setns(2)` to a process of the container.
    pub fn all_flags(&self) -> i32 {
        let joined = self.joined.iter().map(|join| join.kind);
        self.new.iter().copied().chain(joined).fold(0, |flags, kind| flags | kind as i32)
    }

    /// The lines for a new time namespace.
    pub fn time_offsets(&self) -> Option<&str> {
        self.time.as_deref()
    }

    /// The id maps of a user namespace.
    pub fn maps(&self) -> &Maps {
        &self.maps
    }

    /// Opens the namespaces to join, in the caller's view.
    ///
    /// # Errors
    /// A path that can't be opened; [`Error::Config`] for a namespace of another type.
    pub fn open(&self) -> Result<Joins> {
        let mut joins = Joins::default();
        for join in &self.joined {
            let shown = join.path.display();
            // NONBLOCK: a fifo must not stop us.
            let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
            let fd = open(&join.path, flags, Mode::empty())
                .doing(|| format!("{}.path: open {shown}", join.at))?;
            let found = sys::ns::kind(&fd);
            if found != Ok(join.kind as i32) {
                return Err(Error::config(
                    format!("{}.path", join.at),
                    format!("{shown} is not a {} namespace", word(join.kind)),
                ));
            }
            // setns(2) answers EINVAL to the user namespace that we are in.
            if join.kind != LinuxNamespaceType::User || !is_our_user_namespace(&fd)? {
                joins.0.push((join.kind, fd));
            }
        }
        // The mount namespace last: behind it the host's paths are gone.
        joins.0.sort_by_key(|(kind, _)| *kind == LinuxNamespaceType::Mount);
        Ok(joins)
    }
}

/// The spec's word.
fn word(kind: LinuxNamespaceType) -> &'static str {
    match kind {
        LinuxNamespaceType::Mount => "mount",
        LinuxNamespaceType::Cgroup => "cgroup",
        LinuxNamespaceType::Uts => "uts",
        LinuxNamespaceType::Ipc => "ipc",
        LinuxNamespaceType::User => "user",
        LinuxNamespaceType::Pid => "pid",
        LinuxNamespaceType::Network => "network",
        LinuxNamespaceType::Time => "time",
    }
}

/// Enters those of `kinds` (`CLONE_NEW*`) that the process behind `pidfd` is in; or the one namespace
/// that the descriptor stands for itself.
///
/// One call since Linux 5.8; before, `EINVAL`, by the process's files in /proc. That has to be the
/// host's, so the mount namespace is entered last and in the same call. The number that the kernel has
/// for the handle stays the process's own until somebody has waited for it; so the files are its own if
/// it can still be signalled once they are open.
///
/// # Errors
/// `ESRCH` when the process is gone; `EPERM` without rights over a namespace.
pub fn enter_those_of(pidfd: BorrowedFd<'_>, kinds: libc::c_int) -> Result<()> {
    match setns(pidfd, kinds) {
        Err(Errno::EINVAL) => Joins::of_process(pidfd, kinds)?.enter_as_middle(),
        other => other.doing(|| "join the container's namespaces".to_owned()),
    }
}

/// Namespaces to join, open.
#[derive(Debug, Default)]
pub struct Joins(Vec<(LinuxNamespaceType, OwnedFd)>);

impl Joins {
    fn of_process(pidfd: BorrowedFd<'_>, kinds: libc::c_int) -> Result<Self> {
        let info = format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd());
        let text = std::fs::read_to_string(&info).doing(|| format!("read {info}"))?;
        let pid = text.lines().find_map(|line| line.strip_prefix("Pid:")).map(str::trim);
        let pid = pid.ok_or_else(|| Error::sys("join a process's namespaces", Errno::EINVAL))?;
        // The mount namespace last, as in `Plan::open`.
        let files = [
            (LinuxNamespaceType::User, "user"),
            (LinuxNamespaceType::Pid, "pid"),
            (LinuxNamespaceType::Network, "net"),
            (LinuxNamespaceType::Ipc, "ipc"),
            (LinuxNamespaceType::Uts, "uts"),
            (LinuxNamespaceType::Cgroup, "cgroup"),
            (LinuxNamespaceType::Time, "time"),
            (LinuxNamespaceType::Mount, "mnt"),
        ];
        let mut joins = Self::default();
        for (kind, name) in files.into_iter().filter(|(kind, _)| kinds & *kind as i32 != 0) {
            let path = format!("/proc/{pid}/ns/{name}");
            let fd = open(path.as_str(), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty());
            joins.0.push((kind, fd.doing(|| format!("open {path}"))?));
        }
        pidfd_send_signal(pidfd, 0).doing(|| "join the namespaces of a process".to_owned())?;
        Ok(joins)
    }

    /// The user namespace, to be born in.
    pub fn user(&self) -> Option<BorrowedFd<'_>> {
        self.find(LinuxNamespaceType::User)
    }

    /// The pid namespace, to be born in.
    pub fn pid(&self) -> Option<BorrowedFd<'_>> {
        self.find(LinuxNamespaceType::Pid)
    }

    fn find(&self, wanted: LinuxNamespaceType) -> Option<BorrowedFd<'_>> {
        self.0.iter().find(|(kind, _)| *kind == wanted).map(|(_, fd)| fd.as_fd())
    }

    /// Whether a middle process has to enter them, `with_new_user` being about to make a user
    /// namespace: from within that, those of the host can't be entered any more.
    pub fn need_middle(&self, with_new_user: bool) -> bool {
        self.user().is_some() || (with_new_user && !self.0.is_empty())
    }

    /// Enters all but the pid namespace, which a process is born in; for the init, where no user
    /// namespace is in play.
    ///
    /// # Errors
    /// `EPERM` without rights over one.
    pub fn enter(self) -> Result<()> {
        for (kind, fd) in self.0.iter().filter(|(kind, _)| *kind != LinuxNamespaceType::Pid) {
            enter_one(*kind, fd)?;
        }
        Ok(())
    }

    /// Enters all, for the children that will be born.
    ///
    /// # Errors
    /// `EPERM` without rights over one, neither the caller's nor the user namespace's.
    pub fn enter_as_middle(&self) -> Result<()> {
        let others = self.0.iter().filter(|(kind, _)| *kind != LinuxNamespaceType::User);
        let mut later = Vec::new();
        for (kind, fd) in others {
            match enter_one(*kind, fd) {
                Err(error) if error.errno() == Some(Errno::EPERM) && self.user().is_some() => {
                    later.push((*kind, fd));
                }
                other => other?,
            }
        }
        if let Some(user) = self.user() {
            enter_one(LinuxNamespaceType::User, user)?;
        }
        later.into_iter().try_for_each(|(kind, fd)| enter_one(kind, fd))
    }
}

fn enter_one(kind: LinuxNamespaceType, fd: impl AsFd) -> Result<()> {
    setns(fd, kind as i32).doing(|| format!("join the {} namespace", word(kind)))
}

fn is_our_user_namespace(namespace: impl AsFd) -> Result<bool> {
    let doing = || "stat /proc/self/ns/user".to_owned();
    let ours = stat("/proc/self/ns/user").doing(doing)?;
    let theirs = fstat(namespace).doing(doing)?;
    Ok((ours.st_dev, ours.st_ino) == (theirs.st_dev, theirs.st_ino))
}

/// Sets the loopback interface up, in a new network namespace, as everybody expects of one.
///
/// # Errors
/// The errno of the socket calls.
pub fn loopback_up() -> Result<()> {
    let doing = || "set the loopback interface up".to_owned();
    let control = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
        .doing(doing)?;
    let flags = sys::ns::interface_flags(&control, b"lo").doing(doing)?;
    let up = libc::IFF_UP as libc::c_short;
    sys::ns::set_interface_flags(&control, b"lo", flags | up).doing(doing)?;
    match sys::ns::interface_flags(&control, b"lo").doing(doing)? & up {
        0 => Err(Error::Failed(format!("{}: it stays down", doing()))),
        _ => Ok(()),
    }
}

/// Sets the NIS domain name of this uts namespace.
///
/// # Errors
/// `EINVAL` beyond 64 bytes.
pub fn set_domainname(name: &str) -> Result<()> {
    sys::process::set_domainname(name.as_bytes()).doing(|| format!("setdomainname {name:?}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn plan(linux: serde_json::Value) -> Result<Plan> {
        let spec = json!({
            "ociVersion": "1.3.0",
            "linux": linux,
        });
        let mut spec: Spec = serde_json::from_value(spec).unwrap();
        spec.set_hostname(None).set_mounts(None).set_process(None).set_root(None);
        Plan::new(&spec)
    }

    #[test]
    fn flags_are_the_kernels() {
        let plan = plan(json!({"namespaces": [
            {"type": "pid"}, {"type": "network"}, {"type": "mount"}, {"type": "cgroup"},
            {"type": "time"}, {"type": "ipc", "path": "/proc/1/ns/ipc"}]}))
        .unwrap();
        let flags = libc::CLONE_NEWPID | libc::CLONE_NEWNET | libc::CLONE_NEWNS;
        assert_eq!(plan.clone_flags(), flags as u64);
        assert_eq!(plan.time_offsets(), Some(""));
        assert!(plan.has(LinuxNamespaceType::Ipc) && !plan.is_new(LinuxNamespaceType::Ipc));
        assert_eq!(
            plan.all_flags(),
            flags | libc::CLONE_NEWCGROUP | libc::CLONE_NEWTIME | libc::CLONE_NEWIPC
        );
    }

    #[test]
    fn what_can_not_be_is_told_with_its_path() {
        let cases = [
            (json!({"namespaces": [{"type": "pid"}, {"type": "pid"}]}), "linux.namespaces[1].type"),
            (json!({"namespaces": [{"type": "pid", "path": "x"}]}), "linux.namespaces[0].path"),
            (json!({"namespaces": [{"type": "user"}]}), "linux.uidMappings"),
            (
                json!({"namespaces": [], "uidMappings": [{"containerID": 0, "hostID": 1, "size": 1}],
                    "gidMappings": [{"containerID": 0, "hostID": 1, "size": 1}]}),
                "linux.uidMappings",
            ),
            (
                json!({"namespaces": [], "timeOffsets": {"monotonic": {"secs": 1}}}),
                "linux.timeOffsets.monotonic",
            ),
            (
                json!({"namespaces": [{"type": "time"}], "timeOffsets": {"realtime": {"secs": 1}}}),
                "linux.timeOffsets.realtime",
            ),
        ];
        for (linux, at) in cases {
            match plan(linux).unwrap_err() {
                Error::Config { path, .. } => assert_eq!(path, at),
                other => panic!("{other}"),
            }
        }
    }

    #[test]
    fn a_file_of_another_type_is_refused() {
        let wrong = json!({"namespaces": [{"type": "network", "path": "/proc/self/ns/pid"}]});
        let error = plan(wrong).unwrap().open().unwrap_err().to_string();
        assert!(error.contains("linux.namespaces[0].path"), "{error}");
        assert!(error.contains("is not a network namespace"), "{error}");
    }
}
