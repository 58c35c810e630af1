//! The plan: the spec's root, mounts, devices, masks and read-only paths in the kernel's words.
//!
//! Promise: pure. Nothing is opened and no path is looked up, so that everything that is wrong with
//! the configuration itself is said before anything exists. The order of the mounts is kept.
//!
//! Threat: a destination on or below `/proc` could redirect what corten writes there for the
//! container, such as the label of an LSM (CVE-2019-16884, CVE-2019-19921, CVE-2023-27561). Only a
//! procfs may stand on `/proc`, and only files from a short list may be bound below it. That the
//! image itself does not play the same game with links is checked on the fd, when mounting.

use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::{
    Linux, LinuxDevice, LinuxDeviceType, LinuxIdMapping, LinuxNamespaceType, Spec,
};

use super::options::{Attrs, Options, Propagation, ms};
use super::path::clean;
use crate::sys::mount::{FSCONFIG_VALUE_MAX, attr};
use crate::{Error, Result};

/// What the caller knows and the spec does not say.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The bundle's absolute path: relative paths of the spec start here.
    pub bundle: &'a Path,
    /// We are not host root, or root in a user namespace only: device nodes can't be made.
    pub rootless: bool,
    /// `--no-pivot`: move the root instead of pivoting to it.
    pub no_pivot: bool,
}

/// Everything about the container's file system.
#[derive(Debug)]
pub struct Plan {
    /// The root file system's host path, absolute.
    pub(super) root: PathBuf,
    /// `root.readonly`.
    pub(super) readonly: bool,
    /// `linux.rootfsPropagation`.
    pub(super) propagation: Option<Propagation>,
    /// In the spec's order.
    pub(super) mounts: Vec<Mount>,
    /// Whether corten fills `/dev`: not when the host's own is bound there.
    pub(super) fill_dev: bool,
    /// The default devices and the spec's.
    pub(super) devices: Vec<Device>,
    /// Device nodes are bound from the host, because user namespaces can't make them.
    pub(super) bind_devices: bool,
    /// `linux.maskedPaths`, relative to the root.
    pub(super) masked: Vec<PathBuf>,
    /// `linux.readonlyPaths`, relative to the root.
    pub(super) readonly_paths: Vec<PathBuf>,
    /// `linux.mountLabel`.
    pub(super) label: Option<String>,
    /// A cgroup namespace of its own: cgroup mounts show its root by themselves.
    pub(super) own_cgroupns: bool,
    /// `--no-pivot`.
    pub(super) no_pivot: bool,
}

/// One entry of `mounts`.
#[derive(Debug)]
pub struct Mount {
    /// Its place in the spec, for messages.
    pub(super) index: usize,
    /// Relative to the root, cleaned.
    pub(super) destination: PathBuf,
    /// What is mounted.
    pub(super) kind: Kind,
    /// Of the mount itself.
    pub(super) attrs: Attrs,
    /// Of the mount and all below.
    pub(super) recursive: Attrs,
    /// Read-only, but only when everything is in place.
    pub(super) readonly_late: bool,
    /// In this order.
    pub(super) propagation: Vec<Propagation>,
}

/// What is mounted.
#[derive(Debug)]
pub enum Kind {
    /// A tree of the host.
    Bind(Bind),
    /// A new file system.
    New(NewFs),
    /// The container's cgroups, whichever version the host has.
    Cgroup,
    /// A change to what is there; the superblock's too unless `bind`.
    Remount {
        /// Only the mount.
        bind: bool,
        /// Of the superblock.
        fs: NewFs,
    },
}

/// A tree of the host.
#[derive(Debug)]
pub struct Bind {
    /// Host path, absolute.
    pub(super) source: PathBuf,
    /// With the mounts below.
    pub(super) recursive: bool,
    /// With identities mapped.
    pub(super) idmap: Option<Idmap>,
    /// It goes on `/proc`: the source has to be the root of a procfs.
    pub(super) must_be_proc: bool,
}

/// An idmapped mount.
#[derive(Debug)]
pub struct Idmap {
    /// `ridmap`: with the mounts below.
    pub(super) recursive: bool,
    /// Through which user namespace.
    pub(super) through: Mapping,
}

/// A user namespace, given or to be made.
#[derive(Debug, PartialEq, Eq)]
pub enum Mapping {
    /// One with these mappings.
    Ids(Vec<LinuxIdMapping>, Vec<LinuxIdMapping>),
    /// The one at this path.
    Path(PathBuf),
}

/// A new file system.
#[derive(Debug, Default)]
pub struct NewFs {
    /// `tmpfs`, `proc`, ...
    pub(super) fstype: String,
    /// The device or the name that mountinfo shows.
    pub(super) source: String,
    /// `MS_*` of the superblock.
    pub(super) superblock: u64,
    /// The file system's own options, one by one: name and value.
    pub(super) parameters: Vec<(String, Option<String>)>,
    /// The same as mount(2) takes them.
    pub(super) data: String,
    /// `tmpcopyup`.
    pub(super) copy_up: bool,
    /// Bind this host path instead when a user namespace may not mount the file system, because the
    /// namespace that it shows belongs to the host (row M17).
    pub(super) stand_in: Option<&'static str>,
}

impl NewFs {
    /// Whether fsconfig(2) can't say it: a flag without a word, or a value beyond its limit (overlay's
    /// `lowerdir`).
    pub(super) fn needs_mount2(&self) -> bool {
        self.superblock & (ms::IVERSION | ms::SILENT) != 0
            || self
                .parameters
                .iter()
                .any(|(_, value)| value.as_ref().is_some_and(|v| v.len() > FSCONFIG_VALUE_MAX))
    }

    /// Adds one option of the file system.
    pub(super) fn push(&mut self, name: &str, value: Option<&str>) {
        self.parameters.push((name.to_owned(), value.map(str::to_owned)));
        if !self.data.is_empty() {
            self.data.push(',');
        }
        self.data.push_str(name);
        if let Some(value) = value {
            self.data.push('=');
            // A label holds commas; mount(2) takes them in quotes.
            let quote = if value.contains(',') && !value.starts_with('"') { "\"" } else { "" };
            self.data.push_str(quote);
            self.data.push_str(value);
            self.data.push_str(quote);
        }
    }
}

/// A device node or a FIFO.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Relative to the root, cleaned.
    pub(super) path: PathBuf,
    /// `S_IFCHR`, `S_IFBLK` or `S_IFIFO`.
    pub(super) kind: u32,
    /// As `st_rdev` shows it.
    pub(super) rdev: u64,
    /// Permission bits.
    pub(super) mode: u32,
    /// In the container.
    pub(super) uid: u32,
    /// In the container.
    pub(super) gid: u32,
}

/// The devices that every container has (config-linux.md, "Default Devices"); `console` and `ptmx`
/// are not nodes of their own.
const DEFAULT_DEVICES: [(&str, u32, u32); 6] = [
    ("dev/null", 1, 3),
    ("dev/zero", 1, 5),
    ("dev/full", 1, 7),
    ("dev/random", 1, 8),
    ("dev/urandom", 1, 9),
    ("dev/tty", 5, 0),
];

/// Files below `/proc` that may be replaced: what lxcfs and its kind offer, and none that corten or
/// the kernel trusts (row M13).
const PROC_ALLOWED: [&str; 10] = [
    "proc/cpuinfo",
    "proc/diskstats",
    "proc/meminfo",
    "proc/stat",
    "proc/swaps",
    "proc/uptime",
    "proc/loadavg",
    "proc/slabinfo",
    "proc/sys/kernel/ns_last_pid",
    "proc/sys/crypto/fips_enabled",
];

/// Which namespaces are the container's own, new or joined.
#[derive(Debug, Clone, Copy)]
struct Own<'a> {
    linux: Option<&'a Linux>,
}

impl Own<'_> {
    fn has(&self, kind: LinuxNamespaceType) -> bool {
        self.linux
            .and_then(|linux| linux.namespaces().as_ref())
            .is_some_and(|all| all.iter().any(|namespace| namespace.typ() == kind))
    }
}

impl Plan {
    /// Reads the spec.
    ///
    /// # Errors
    /// [`Error::Config`] with the JSON path of what is wrong.
    pub fn new(spec: &Spec, context: &Context<'_>) -> Result<Self> {
        let root = spec.root().as_ref().ok_or_else(|| Error::config("root", "missing"))?;
        if root.path().as_os_str().is_empty() {
            return Err(Error::config("root.path", "empty"));
        }
        let linux = spec.linux().as_ref();
        let own = Own { linux };
        let label = linux.and_then(|linux| linux.mount_label().clone()).filter(|l| !l.is_empty());
        let mounts = spec.mounts().as_deref().unwrap_or_default();
        let mounts = mounts
            .iter()
            .enumerate()
            .map(|(index, mount)| Mount::new(index, mount, own, label.as_deref(), context))
            .collect::<Result<Vec<_>>>()?;
        let devices = linux.and_then(|linux| linux.devices().as_deref()).unwrap_or_default();
        let paths = |paths: Option<&Vec<String>>| {
            paths
                .map(|all| all.iter().map(|path| clean(Path::new(path))).collect())
                .unwrap_or_default()
        };
        let plan = Self {
            root: context.bundle.join(root.path()),
            readonly: root.readonly().unwrap_or(false),
            propagation: root_propagation(linux)?,
            fill_dev: !mounts.iter().any(|mount| {
                mount.destination == Path::new("dev") && matches!(mount.kind, Kind::Bind(_))
            }),
            mounts,
            devices: devices_of(devices)?,
            bind_devices: context.rootless || own.has(LinuxNamespaceType::User),
            masked: paths(linux.and_then(|linux| linux.masked_paths().as_ref())),
            readonly_paths: paths(linux.and_then(|linux| linux.readonly_paths().as_ref())),
            label,
            own_cgroupns: own.has(LinuxNamespaceType::Cgroup),
            no_pivot: context.no_pivot,
        };
        if plan.no_pivot && plan.propagation.is_some_and(|p| p.kind == ms::PRIVATE) {
            return Err(Error::config(
                "linux.rootfsPropagation",
                "private is not possible with --no-pivot: the root can't be moved",
            ));
        }
        Ok(plan)
    }

    /// The root file system's host path, absolute.
    pub fn root_path(&self) -> &Path {
        &self.root
    }

    /// Whether a mount of type `cgroup` is wanted, so that [`super::Cgroups`] is needed.
    pub fn wants_cgroups(&self) -> bool {
        self.mounts.iter().any(|mount| matches!(mount.kind, Kind::Cgroup))
    }

    /// How the whole mount namespace is cut off from the host's before anything is mounted. An
    /// unbindable mount is a private one that can't be a source, so that has to wait.
    pub(super) fn cut(&self) -> Propagation {
        match self.propagation {
            None => Propagation { kind: ms::SLAVE, recursive: true },
            Some(p) if p.kind == ms::UNBINDABLE => Propagation { kind: ms::PRIVATE, ..p },
            Some(p) => p,
        }
    }
}

fn root_propagation(linux: Option<&Linux>) -> Result<Option<Propagation>> {
    match linux.and_then(|linux| linux.rootfs_propagation().as_deref()) {
        None | Some("") => Ok(None),
        Some(word) => Propagation::parse(word).map(Some).ok_or_else(|| {
            Error::config("linux.rootfsPropagation", format!("unknown propagation {word:?}"))
        }),
    }
}

impl Mount {
    fn new(
        index: usize,
        mount: &oci_spec::runtime::Mount,
        own: Own<'_>,
        label: Option<&str>,
        context: &Context<'_>,
    ) -> Result<Self> {
        let destination = destination(index, mount.destination())?;
        let options = Options::parse(mount.options().as_deref().unwrap_or_default());
        let fstype = mount.typ().as_deref().unwrap_or_default();
        let mapped = mount.uid_mappings().is_some() || mount.gid_mappings().is_some();
        let bind = options.bind.or((fstype == "bind").then_some(false));
        let mut readonly_late = false;
        let kind = if options.remount {
            let bind = bind.is_some();
            let fs = NewFs::new(fstype, mount.source().as_deref(), &options);
            if !bind && options.superblock == 0 && fs.parameters.is_empty() {
                Kind::Remount { bind: true, fs }
            } else {
                Kind::Remount { bind, fs }
            }
        } else if let Some(recursive) = bind {
            let source = mount.source().as_deref().filter(|path| !path.as_os_str().is_empty());
            let source = source.ok_or_else(|| {
                Error::config(format!("mounts[{index}].source"), "a bind mount needs one")
            })?;
            warn_meaningless(index, &options);
            Kind::Bind(Bind {
                source: context.bundle.join(source),
                recursive,
                idmap: Idmap::new(index, mount, &options, own.linux)?,
                must_be_proc: destination == Path::new("proc"),
            })
        } else if fstype.is_empty() {
            return Err(Error::config(
                format!("mounts[{index}].type"),
                "missing, and it is no bind",
            ));
        } else if fstype == "cgroup" {
            Kind::Cgroup
        } else {
            let mut fs = NewFs::new(fstype, mount.source().as_deref(), &options);
            // Files are still to be made in /dev and directories in a tmpfs.
            if (fstype == "tmpfs" || destination == Path::new("dev"))
                && options.attrs.set & attr::RDONLY != 0
            {
                fs.superblock &= !ms::RDONLY;
                readonly_late = true;
            }
            // The kernel labels the first two itself, the third is labelled when it is mounted.
            if let Some(label) = label.filter(|_| !matches!(fstype, "proc" | "sysfs" | "mqueue")) {
                fs.push("context", Some(label));
            }
            fs.stand_in = stand_in(fstype, own);
            Kind::New(fs)
        };
        if (mapped || options.idmap.is_some()) && !matches!(kind, Kind::Bind(_)) {
            return Err(Error::config(
                format!("mounts[{index}]"),
                "only bind mounts can have mapped identities",
            ));
        }
        check_proc(index, &destination, &kind)?;
        let mut attrs = options.attrs;
        if readonly_late {
            attrs.set &= !attr::RDONLY;
        }
        if matches!(kind, Kind::Bind(_)) && destination == Path::new("dev") {
            readonly_late = attrs.set & attr::RDONLY != 0;
            attrs.set &= !attr::RDONLY;
        }
        Ok(Self {
            index,
            destination,
            kind,
            attrs,
            recursive: options.recursive,
            readonly_late,
            propagation: options.propagation,
        })
    }
}

impl Mount {
    /// `mounts[3]: mount tmpfs on /run`, for messages.
    pub(super) fn shown(&self) -> String {
        let what = match &self.kind {
            Kind::Bind(bind) => format!("bind {:?}", bind.source),
            Kind::New(fs) => format!("mount {}", fs.fstype),
            Kind::Cgroup => "mount cgroup".to_owned(),
            Kind::Remount { .. } => "remount".to_owned(),
        };
        format!("mounts[{}]: {what} on /{}", self.index, self.destination.display())
    }
}

/// The destination, relative to the root and cleaned.
fn destination(index: usize, path: &Path) -> Result<PathBuf> {
    let json = || format!("mounts[{index}].destination");
    let cleaned = clean(path);
    if cleaned.as_os_str().is_empty() {
        return Err(Error::config(json(), format!("{} is the root itself", path.display())));
    }
    let mut names = path.components().filter(|name| !matches!(name, Component::RootDir));
    let into_proc = names.next() == Some(Component::Normal("proc".as_ref()));
    if into_proc && names.any(|name| name == Component::ParentDir) {
        return Err(Error::config(json(), format!("{} leaves /proc by \"..\"", path.display())));
    }
    Ok(cleaned)
}

fn check_proc(index: usize, destination: &Path, kind: &Kind) -> Result<()> {
    if !destination.starts_with("proc") || matches!(kind, Kind::Remount { .. }) {
        return Ok(());
    }
    let allowed = if destination == Path::new("proc") {
        // That a bound source is a procfs is checked on its fd.
        match kind {
            Kind::Bind(_) => true,
            Kind::New(fs) => fs.fstype == "proc",
            Kind::Cgroup | Kind::Remount { .. } => false,
        }
    } else {
        matches!(kind, Kind::Bind(_))
            && PROC_ALLOWED.iter().any(|allowed| destination == Path::new(allowed))
    };
    if allowed {
        return Ok(());
    }
    Err(Error::config(
        format!("mounts[{index}].destination"),
        format!("/{} can't be mounted on because it is inside /proc", destination.display()),
    ))
}

/// What shows the same when the file system itself can't be mounted from a user namespace.
fn stand_in(fstype: &str, own: Own<'_>) -> Option<&'static str> {
    match fstype {
        "sysfs" if !own.has(LinuxNamespaceType::Network) => Some("/sys"),
        "proc" if !own.has(LinuxNamespaceType::Pid) => Some("/proc"),
        "mqueue" if !own.has(LinuxNamespaceType::Ipc) => Some("/dev/mqueue"),
        _ => None,
    }
}

/// A bind has no superblock of its own: mount(8) and runc accept these words there and nothing comes
/// of them; we say so.
fn warn_meaningless(index: usize, options: &Options) {
    if options.superblock & !ms::RDONLY != 0 {
        tracing::warn!("mounts[{index}].options: superblock options mean nothing for a bind mount");
    }
    if !options.data.is_empty() {
        let words = options.data.join(",");
        tracing::warn!("mounts[{index}].options: {words:?} mean nothing for a bind mount");
    }
    if options.copy_up {
        tracing::warn!("mounts[{index}].options: tmpcopyup means nothing for a bind mount");
    }
}

impl Idmap {
    fn new(
        index: usize,
        mount: &oci_spec::runtime::Mount,
        options: &Options,
        linux: Option<&Linux>,
    ) -> Result<Option<Self>> {
        let json = format!("mounts[{index}]");
        let some = |mappings: &Option<Vec<LinuxIdMapping>>| {
            mappings.clone().filter(|mappings| !mappings.is_empty())
        };
        let recursive = options.idmap.unwrap_or(false);
        match (some(mount.uid_mappings()), some(mount.gid_mappings())) {
            (Some(uids), Some(gids)) => {
                return Ok(Some(Self { recursive, through: Mapping::Ids(uids, gids) }));
            }
            (None, None) if options.idmap.is_none() => return Ok(None),
            (None, None) => {}
            _ => {
                return Err(Error::config(json, "uidMappings and gidMappings go together"));
            }
        }
        let userns = linux.and_then(|linux| linux.namespaces().as_ref()).and_then(|all| {
            all.iter().find(|namespace| namespace.typ() == LinuxNamespaceType::User)
        });
        let Some(userns) = userns else {
            return Err(Error::config(
                json,
                "idmap needs uidMappings and gidMappings, or a user namespace of the container",
            ));
        };
        if let Some(path) = userns.path() {
            return Ok(Some(Self { recursive, through: Mapping::Path(path.clone()) }));
        }
        let linux = linux.map(|linux| (some(linux.uid_mappings()), some(linux.gid_mappings())));
        let Some((Some(uids), Some(gids))) = linux else {
            return Err(Error::config(json, "idmap needs linux.uidMappings and linux.gidMappings"));
        };
        Ok(Some(Self { recursive, through: Mapping::Ids(uids, gids) }))
    }
}

impl NewFs {
    fn new(fstype: &str, source: Option<&Path>, options: &Options) -> Self {
        Self {
            fstype: fstype.to_owned(),
            source: source.map(|path| path.to_string_lossy().into_owned()).unwrap_or_default(),
            superblock: options.superblock,
            parameters: parameters(fstype, &options.data),
            data: options.data.join(","),
            copy_up: options.copy_up && fstype == "tmpfs",
            stand_in: None,
        }
    }
}

/// The words one by one, as fsconfig(2) takes them. One word of the spec may hold several, separated
/// by commas, as in /etc/fstab; a comma in quotes or, for overlay, after a backslash does not separate.
fn parameters(fstype: &str, words: &[String]) -> Vec<(String, Option<String>)> {
    let mut parameters = Vec::new();
    for word in words {
        let (mut quoted, mut escaped, mut one) = (false, false, String::new());
        for letter in word.chars() {
            match letter {
                ',' if escaped => {
                    one.pop();
                    one.push(',');
                }
                ',' if !quoted => parameters.extend(parameter(&std::mem::take(&mut one))),
                _ => one.push(letter),
            }
            quoted ^= letter == '"';
            escaped = fstype == "overlay" && letter == '\\' && !escaped;
        }
        parameters.extend(parameter(&one));
    }
    parameters
}

fn parameter(word: &str) -> Option<(String, Option<String>)> {
    if word.is_empty() {
        return None;
    }
    let Some((name, value)) = word.split_once('=') else { return Some((word.to_owned(), None)) };
    let bare = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
    Some((name.to_owned(), Some(bare.to_owned())))
}

fn devices_of(asked: &[LinuxDevice]) -> Result<Vec<Device>> {
    let mut devices: Vec<Device> = DEFAULT_DEVICES
        .iter()
        .map(|(path, major, minor)| Device {
            path: PathBuf::from(path),
            kind: libc::S_IFCHR,
            rdev: libc::makedev(*major, *minor),
            mode: 0o666,
            uid: 0,
            gid: 0,
        })
        .collect();
    for (index, device) in asked.iter().enumerate() {
        let device = Device::new(index, device)?;
        // /dev/ptmx is a link to the container's own devpts.
        if device.path == Path::new("dev/ptmx") {
            continue;
        }
        match devices.iter_mut().find(|known| known.path == device.path) {
            Some(known) => *known = device,
            None => devices.push(device),
        }
    }
    Ok(devices)
}

impl Device {
    /// Needs no privilege.
    pub(super) fn is_fifo(&self) -> bool {
        self.kind == libc::S_IFIFO
    }

    /// `c 1:3`, for messages.
    pub(super) fn shown(&self) -> String {
        let kind = match self.kind {
            libc::S_IFBLK => 'b',
            libc::S_IFIFO => return "FIFO".to_owned(),
            _ => 'c',
        };
        format!("{kind} {}:{}", libc::major(self.rdev), libc::minor(self.rdev))
    }

    fn new(index: usize, device: &LinuxDevice) -> Result<Self> {
        let json = |field: &str| format!("linux.devices[{index}].{field}");
        let path = clean(device.path());
        if path.as_os_str().is_empty() {
            return Err(Error::config(json("path"), "empty"));
        }
        let kind = match device.typ() {
            LinuxDeviceType::C | LinuxDeviceType::U => libc::S_IFCHR,
            LinuxDeviceType::B => libc::S_IFBLK,
            LinuxDeviceType::P => libc::S_IFIFO,
            LinuxDeviceType::A => {
                return Err(Error::config(json("type"), "\"a\" is not a device that can be made"));
            }
        };
        let number = |field, value: i64, most: u32| {
            u32::try_from(value).ok().filter(|value| *value <= most).ok_or_else(|| {
                Error::config(json(field), format!("{value} is not between 0 and {most}"))
            })
        };
        let rdev = if kind == libc::S_IFIFO {
            0
        } else {
            // dev_t in the kernel: 12 bits and 20 bits.
            let major = number("major", device.major(), 0xfff)?;
            libc::makedev(major, number("minor", device.minor(), 0xf_ffff)?)
        };
        Ok(Self {
            path,
            kind,
            rdev,
            mode: device.file_mode().unwrap_or(0o666) & 0o7777,
            uid: device.uid().unwrap_or(0),
            gid: device.gid().unwrap_or(0),
        })
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
