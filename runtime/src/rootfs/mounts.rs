//! Mounts of the plan: `mounts` in the kernel's words.
//!
//! Threat: a destination on or below `/proc` could redirect what corten writes there for the
//! container, such as the label of an LSM (CVE-2019-16884, CVE-2019-19921, CVE-2023-27561). Only a
//! procfs may stand on `/proc`, and only files from a short list may be bound below it. That the
//! image itself does not play the same game with links is checked on the fd, when mounting.

use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespaceType};

use super::options::{Attrs, Options, Propagation, ms};
use super::path::clean;
use super::plan::Context;
use crate::sys::mount::{FSCONFIG_VALUE_MAX, attr};
use crate::{Error, Result};

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
    pub fstype: String,
    /// The device or the name that mountinfo shows.
    pub source: String,
    /// `MS_*` of the superblock.
    pub superblock: u64,
    /// The file system's own options, one by one: name and value.
    pub parameters: Vec<(String, Option<String>)>,
    /// Parameters that are open directories: overlay's layers. mount(2) can't say them.
    pub files: Vec<(&'static CStr, OwnedFd)>,
    /// The same as mount(2) takes them, without `files`.
    pub data: String,
    /// `tmpcopyup`.
    pub copy_up: bool,
    /// Bind this host path instead when a user namespace may not mount the file system, because the
    /// namespace that it shows belongs to the host (row M17).
    pub stand_in: Option<&'static str>,
}

impl NewFs {
    /// Whether fsconfig(2) can't say it: a flag without a word, or a value beyond its limit (overlay's
    /// `lowerdir`).
    pub fn needs_mount2(&self) -> bool {
        self.has_wordless_flags()
            || self
                .parameters
                .iter()
                .any(|(_, value)| value.as_ref().is_some_and(|v| v.len() > FSCONFIG_VALUE_MAX))
    }

    /// Whether there are flags of the superblock that only mount(2) can say.
    pub fn has_wordless_flags(&self) -> bool {
        self.superblock & (ms::IVERSION | ms::SILENT) != 0
    }

    /// Adds one option of the file system.
    pub fn push(&mut self, name: &str, value: Option<&str>) {
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

/// Files below `/proc` that may be replaced: what lxcfs and its kind offer, and none that corten or
/// the kernel trusts (row M13).
pub(super) const PROC_ALLOWED: [&str; 10] = [
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
pub(super) struct Own<'a> {
    pub(super) linux: Option<&'a Linux>,
}

impl Own<'_> {
    pub(super) fn has(&self, kind: LinuxNamespaceType) -> bool {
        self.linux
            .and_then(|linux| linux.namespaces().as_ref())
            .is_some_and(|all| all.iter().any(|namespace| namespace.typ() == kind))
    }
}

/// What all mounts of one spec have in common.
#[derive(Debug, Clone, Copy)]
pub(super) struct Common<'a> {
    /// Which namespaces are the container's own.
    pub(super) own: Own<'a>,
    /// `linux.mountLabel`.
    pub(super) label: Option<&'a str>,
    /// What the caller knows.
    pub(super) context: &'a Context<'a>,
}

impl Mount {
    /// Reads `mounts[index]`.
    pub(super) fn new(
        index: usize,
        mount: &oci_spec::runtime::Mount,
        common: Common<'_>,
    ) -> Result<Self> {
        let destination = destination(index, mount.destination())?;
        let options = Options::parse(mount.options().as_deref().unwrap_or_default());
        let kind = Kind::new(index, mount, &options, &destination, common)?;
        let mapped = mount.uid_mappings().is_some() || mount.gid_mappings().is_some();
        if (mapped || options.idmap.is_some()) && !matches!(kind, Kind::Bind(_)) {
            return Err(Error::config(
                format!("mounts[{index}]"),
                "only bind mounts can have mapped identities",
            ));
        }
        check_proc(index, &destination, &kind)?;
        let mut planned = Self {
            index,
            destination,
            kind,
            attrs: options.attrs,
            recursive: options.recursive,
            readonly_late: false,
            propagation: options.propagation,
        };
        if planned.is_filled() && (planned.attrs.set | planned.recursive.set) & attr::RDONLY != 0 {
            planned.readonly_late = true;
            planned.attrs.set &= !attr::RDONLY;
            planned.recursive.set &= !attr::RDONLY;
        }
        Ok(planned)
    }

    /// Files are still to be made in `/dev`, and directories for other mounts in a tmpfs.
    fn is_filled(&self) -> bool {
        match &self.kind {
            Kind::New(fs) => fs.fstype == "tmpfs" || self.destination == Path::new("dev"),
            Kind::Bind(_) => self.destination == Path::new("dev"),
            Kind::Cgroup | Kind::Remount { .. } => false,
        }
    }
}

impl Kind {
    fn new(
        index: usize,
        mount: &oci_spec::runtime::Mount,
        options: &Options,
        destination: &Path,
        common: Common<'_>,
    ) -> Result<Self> {
        let fstype = mount.typ().as_deref().unwrap_or_default();
        let source = mount.source().as_deref().filter(|path| !path.as_os_str().is_empty());
        let bind = options.bind.or((fstype == "bind").then_some(false));
        if options.remount {
            let fs = NewFs::new(fstype, source, options);
            let of_the_superblock = options.superblock != 0 || !fs.parameters.is_empty();
            return Ok(Self::Remount { bind: bind.is_some() || !of_the_superblock, fs });
        }
        if let Some(recursive) = bind {
            let source = source.ok_or_else(|| {
                Error::config(format!("mounts[{index}].source"), "a bind mount needs one")
            })?;
            warn_meaningless(index, options);
            return Ok(Self::Bind(Bind {
                source: common.context.bundle.join(source),
                recursive,
                idmap: Idmap::new(index, mount, options, common.own.linux)?,
                must_be_proc: destination == Path::new("proc"),
            }));
        }
        if fstype.is_empty() {
            let json = format!("mounts[{index}].type");
            return Err(Error::config(json, "missing, and it is no bind"));
        }
        if fstype == "cgroup" {
            return Ok(Self::Cgroup);
        }
        let mut fs = NewFs::new(fstype, source, options);
        if fstype == "tmpfs" || destination == Path::new("dev") {
            // It becomes read-only as a mount, later.
            fs.superblock &= !ms::RDONLY;
        }
        // The kernel labels the first two itself, the third is labelled when it is mounted.
        let labelled = !matches!(fstype, "proc" | "sysfs" | "mqueue");
        if let Some(label) = common.label.filter(|_| labelled) {
            fs.push("context", Some(label));
        }
        fs.stand_in = stand_in(fstype, common.own);
        Ok(Self::New(fs))
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
    /// What the options say about a new file system of this type.
    pub fn new(fstype: &str, source: Option<&Path>, options: &Options) -> Self {
        Self {
            fstype: fstype.to_owned(),
            source: source.map(|path| path.to_string_lossy().into_owned()).unwrap_or_default(),
            superblock: options.superblock,
            parameters: parameters(fstype, &options.data),
            files: Vec::new(),
            data: options.data.join(","),
            copy_up: options.copy_up && fstype == "tmpfs",
            stand_in: None,
        }
    }
}

/// The words one by one, as fsconfig(2) takes them. One word of the spec may hold several, separated
/// by commas, as in /etc/fstab; a comma in quotes or, for overlay, after a backslash does not separate.
pub(crate) fn parameters(fstype: &str, words: &[String]) -> Vec<(String, Option<String>)> {
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
