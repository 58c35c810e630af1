//! `linux.sysctl`: kernel parameters of the container's own namespaces, and no others.
//!
//! Promise: a name is accepted only if a namespace of the container's own holds it; everything else
//! would change the host (CVE-2022-0811 set `kernel.core_pattern`). That is decided before anything
//! exists. A value is written through an fd of the host's `/proc/sys`, opened before the container's
//! mounts, so that nothing mounted over a procfs can take the write (CVE-2025-52881).
//!
//! Order: [`Plan::new`] is pure; [`Plan::check_joined`] in the parent, before the clone;
//! [`Plan::apply`] in the child, in its namespaces, before capabilities are dropped.
//!
//! Names are written as in sysctl(8): if the first separator is a slash, slashes separate and dots
//! belong to the names; otherwise dots separate and a slash stands for a dot, `net.ipv4.conf.eth0/1.rp_filter`.

use std::io::Write;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use oci_spec::runtime::{LinuxNamespaceType, Spec};

use crate::error::Doing;
use crate::rootfs::path::open_beneath;
use crate::{Error, Result};

/// What to write, in the order of the names.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    settings: Vec<Setting>,
}

/// One parameter.
#[derive(Debug, PartialEq, Eq)]
struct Setting {
    /// As the spec has it.
    name: String,
    /// Below `/proc/sys`.
    path: String,
    value: String,
    /// The namespace that holds it, and where it is joined from.
    namespace: LinuxNamespaceType,
    joined: Option<PathBuf>,
}

/// Parameters of the System V ipc namespace that are no whole directory of their own.
const IPC: [&str; 8] = [
    "kernel/msgmax",
    "kernel/msgmnb",
    "kernel/msgmni",
    "kernel/sem",
    "kernel/shmall",
    "kernel/shmmax",
    "kernel/shmmni",
    "kernel/shm_rmid_forced",
];

impl Plan {
    /// Reads `linux.sysctl`.
    ///
    /// # Errors
    /// [`Error::Config`] for a name that no namespace of the container's own holds.
    pub fn new(spec: &Spec) -> Result<Self> {
        let linux = spec.linux().as_ref();
        let Some(sysctl) = linux.and_then(|linux| linux.sysctl().as_ref()) else {
            return Ok(Self::default());
        };
        let namespaces = linux.and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default();
        let mut settings = Vec::with_capacity(sysctl.len());
        for (name, value) in sysctl {
            let json = || format!("linux.sysctl[{name:?}]");
            let path = path(name).ok_or_else(|| Error::config(json(), "not a parameter's name"))?;
            if value.contains('\0') {
                return Err(Error::config(json(), "its value holds a NUL"));
            }
            let namespace = holder(&path).map_err(|why| Error::config(json(), why))?;
            let own = namespaces.iter().find(|own| own.typ() == namespace).ok_or_else(|| {
                let why = format!("the container has no {namespace} namespace of its own");
                Error::config(json(), why)
            })?;
            settings.push(Setting {
                name: name.clone(),
                path,
                value: value.clone(),
                namespace,
                joined: own.path().clone().filter(|path| !path.as_os_str().is_empty()),
            });
        }
        settings.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Self { settings })
    }

    /// Nothing to write.
    pub fn is_empty(&self) -> bool {
        self.settings.is_empty()
    }

    /// Refuses to write into the caller's own namespace when the spec joins just that one by its path.
    /// Call it in the parent, in the host's namespaces.
    ///
    /// # Errors
    /// [`Error::Config`] for such a name; the errno of looking at the path.
    pub fn check_joined(&self) -> Result<()> {
        for setting in &self.settings {
            let Some(path) = &setting.joined else { continue };
            let file = match setting.namespace {
                LinuxNamespaceType::Network => "net",
                LinuxNamespaceType::Ipc => "ipc",
                LinuxNamespaceType::Uts => "uts",
                _ => "user",
            };
            let identity = |path: &std::path::Path| {
                let metadata = std::fs::metadata(path).doing(|| format!("stat {path:?}"))?;
                Ok::<_, Error>((metadata.dev(), metadata.ino()))
            };
            let host = PathBuf::from("/proc/self/ns").join(file);
            if identity(path)? == identity(&host)? {
                return Err(Error::config(
                    format!("linux.sysctl[{:?}]", setting.name),
                    format!("not allowed in the host's own {file} namespace"),
                ));
            }
        }
        Ok(())
    }

    /// Writes all values. `proc_sys` is an `O_PATH` fd of the host's `/proc/sys`.
    ///
    /// # Errors
    /// The name and the errno: `ENOENT` when the kernel has no such parameter, `EINVAL` for its value.
    pub fn apply(&self, proc_sys: BorrowedFd<'_>) -> Result<()> {
        for setting in &self.settings {
            let doing = || format!("set sysctl {}", setting.name);
            let file =
                open_beneath(proc_sys, setting.path.as_ref(), libc::O_WRONLY).doing(doing)?;
            // One write: the kernel takes a value whole.
            std::fs::File::from(file).write_all(setting.value.as_bytes()).doing(doing)?;
        }
        Ok(())
    }
}

/// The path below `/proc/sys`, or nothing for what can't be a name.
fn path(name: &str) -> Option<String> {
    let slashes = name.find(['.', '/']).is_some_and(|at| name.as_bytes().get(at) == Some(&b'/'));
    let swap = |letter| match letter {
        '.' if !slashes => '/',
        '/' if !slashes => '.',
        other => other,
    };
    let path: String = name.chars().map(swap).collect();
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "_-.:@%".contains(letter);
    let good =
        |part: &str| !part.is_empty() && part != "." && part != ".." && part.chars().all(plain);
    (path.contains('/') && path.split('/').all(good)).then_some(path)
}

/// Which namespace holds it.
fn holder(path: &str) -> std::result::Result<LinuxNamespaceType, &'static str> {
    if IPC.contains(&path) || path.starts_with("fs/mqueue/") {
        return Ok(LinuxNamespaceType::Ipc);
    }
    if path.starts_with("net/") {
        return Ok(LinuxNamespaceType::Network);
    }
    if path.starts_with("user/") {
        return Ok(LinuxNamespaceType::User);
    }
    match path {
        "kernel/domainname" => Ok(LinuxNamespaceType::Uts),
        "kernel/hostname" => Err("use the field hostname instead"),
        _ => Err("not in a namespace: it would change the host"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use serde_json::json;

    use super::*;

    fn plan(namespaces: &[&str], name: &str) -> Result<Plan> {
        let namespaces: Vec<_> = namespaces.iter().map(|kind| json!({"type": kind})).collect();
        let spec = json!({"ociVersion": "1.0.0", "linux": {"namespaces": namespaces,
            "sysctl": {name: "1"}}});
        Plan::new(&serde_json::from_value(spec).unwrap())
    }

    #[test]
    fn names_follow_sysctl() {
        for (name, wanted) in [
            ("net.ipv4.ip_forward", Some("net/ipv4/ip_forward")),
            ("net/ipv4/ip_forward", Some("net/ipv4/ip_forward")),
            ("net.ipv4.conf.eth0/1.rp_filter", Some("net/ipv4/conf/eth0.1/rp_filter")),
            ("net/ipv4/conf/eth0.1/rp_filter", Some("net/ipv4/conf/eth0.1/rp_filter")),
            ("", None),
            ("net", None),
            ("net.", None),
            (".net.x", None),
            ("net..x", None),
            ("net/../kernel/core_pattern", None),
            ("net/./x", None),
            ("net.x+kernel.core_pattern", None),
            ("net.x\0", None),
            ("net.x y", None),
            ("/net/x", None),
        ] {
            assert_eq!(path(name).as_deref(), wanted, "{name:?}");
        }
    }

    /// S1, X4: each name with its namespace, none without.
    #[test]
    fn only_the_containers_own_namespaces() {
        for (name, namespace) in [
            ("kernel.msgmax", "ipc"),
            ("kernel.msgmnb", "ipc"),
            ("kernel.msgmni", "ipc"),
            ("kernel.sem", "ipc"),
            ("kernel.shmall", "ipc"),
            ("kernel.shmmax", "ipc"),
            ("kernel.shmmni", "ipc"),
            ("kernel.shm_rmid_forced", "ipc"),
            ("fs.mqueue.msg_max", "ipc"),
            ("net.core.somaxconn", "network"),
            ("net/ipv4/ip_forward", "network"),
            ("kernel.domainname", "uts"),
            ("user.max_user_namespaces", "user"),
        ] {
            assert!(plan(&[namespace], name).is_ok(), "{name}");
            let all = ["ipc", "network", "uts", "user", "mount", "pid"];
            let others: Vec<_> = all.into_iter().filter(|kind| *kind != namespace).collect();
            let error = plan(&others, name).unwrap_err().to_string();
            assert!(error.contains("linux.sysctl") && error.contains("of its own"), "{error}");
        }
        let all = ["ipc", "network", "uts", "user", "mount", "pid"];
        for name in [
            "kernel.core_pattern",
            "vm.swappiness",
            "fs.file-max",
            "kernel.hostname",
            "kernel.msgmaxx",
            "fs.mqueue",
            "kernel.shm",
            "netx.y",
            "kernel/sysrq",
            "fs.mqueue.",
        ] {
            assert!(plan(&all, name).is_err(), "{name}");
        }
    }

    #[test]
    fn a_value_arrives_in_the_containers_namespace() {
        crate::sys::testing::in_child(|| {
            let host = std::fs::read_to_string("/proc/sys/kernel/domainname").unwrap();
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUTS).unwrap();
            let mut plan = plan(&["uts"], "kernel.domainname").unwrap();
            plan.settings[0].value = "inside".to_owned();
            let proc_sys = std::fs::File::open("/proc/sys").unwrap();
            plan.apply(proc_sys.as_fd()).unwrap();
            let now = std::fs::read_to_string("/proc/sys/kernel/domainname").unwrap();
            assert_eq!(now.trim(), "inside");
            assert_ne!(host.trim(), "inside");
            // What is mounted over the file does not take the write.
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
            let none = None::<&str>;
            let flags = nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE;
            nix::mount::mount(none, "/", none, flags, none).unwrap();
            let proc_sys = std::fs::File::open("/proc/sys").unwrap();
            let bind = nix::mount::MsFlags::MS_BIND;
            let (null, file) = (Some("/dev/null"), "/proc/sys/kernel/domainname");
            nix::mount::mount(null, file, none, bind, none).unwrap();
            let error = plan.apply(proc_sys.as_fd()).unwrap_err();
            assert_eq!(error.errno(), Some(nix::errno::Errno::EXDEV));
        });
    }

    #[test]
    fn the_hosts_own_namespace_by_its_path_is_refused() {
        let spec = json!({"ociVersion": "1.0.0", "linux": {
            "namespaces": [{"type": "network", "path": "/proc/self/ns/net"}],
            "sysctl": {"net.core.somaxconn": "1"}}});
        let plan = Plan::new(&serde_json::from_value(spec).unwrap()).unwrap();
        assert!(plan.check_joined().unwrap_err().to_string().contains("host's own net"));
    }
}
