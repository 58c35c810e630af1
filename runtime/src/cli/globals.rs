//! The options before the verb, and what follows from them and the environment.
//!
//! The environment is almost empty under most managers, and hostile under none: only
//! `XDG_RUNTIME_DIR` and `USER` are looked at, and only when `--root` is absent.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use super::options::{self, arguments, path};
use super::parse::boolean;
use crate::error::{Doing, Error, Result};
use crate::host;
use crate::store::Store;

/// Where the state of containers is kept unless told otherwise.
const DEFAULT_ROOT: &str = "/run/corten";

arguments! {
    /// The global options as they stand on the command line.
    pub struct Given {
        /// Directory for the state of containers [default: /run/corten, or
        /// $XDG_RUNTIME_DIR/corten for an ordinary user].
        root: Option<PathBuf> = value("DIR", path);
        /// File that log lines are appended to [default: standard error].
        log: Option<PathBuf> = value("FILE", path);
        /// Form of log lines: text or json.
        log_format: LogFormat = value("FORMAT", log_format), default "text";
        /// Least level to log: error, warning, info or debug.
        log_level: LogLevel = value("LEVEL", log_level), default "info";
        /// Log everything, at once, with the place in the source.
        debug: bool = flag;
        /// The same as --cgroup-manager systemd.
        systemd_cgroup: bool = flag;
        /// Who makes cgroups: cgroupfs, systemd or disabled [default: cgroupfs].
        cgroup_manager: Option<CgroupManager> = value("MANAGER", cgroup_manager);
        /// Whether cgroup permission errors are ignored: true, false or auto.
        rootless: Rootless = value("BOOL", rootless), default "auto";
        /// Accepted and ignored.
        systemd_log: bool = flag, hidden true;
        /// Print the version.
        version: bool = flag, short 'v';
    }
}

/// The global options with their defaults filled in.
#[derive(Debug, Clone)]
pub struct Globals {
    /// Directory for the state of containers: absolute, not `/`; it need not exist.
    pub root: PathBuf,
    /// Where `root` comes from.
    pub root_from: RootFrom,
    /// File for log lines; standard error without.
    pub log: Option<PathBuf>,
    /// Form of log lines.
    pub log_format: LogFormat,
    /// Least level that is logged.
    pub log_level: LogLevel,
    /// Log at once and with the place in the source.
    pub debug: bool,
    /// Who makes cgroups.
    pub cgroup_manager: CgroupManager,
    /// Whether cgroup permission errors are ignored.
    pub rootless: Rootless,
}

/// Where the state directory's name comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RootFrom {
    /// `--root`: `list` then wants it to exist.
    Option,
    /// `XDG_RUNTIME_DIR`: made with the sticky bit, so that cleaners of that directory spare it.
    Xdg,
    /// Neither.
    Default,
}

/// Form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// `time="…" level=error msg="…"`.
    Text,
    /// `{"level":"error","msg":"…","time":"…"}`.
    Json,
}

/// Severity of a log line.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub enum LogLevel {
    /// The command failed.
    Error,
    /// Something asked for was left out.
    Warning,
    /// Worth knowing.
    Info,
    /// For whoever debugs the runtime.
    Debug,
}

/// Who makes cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupManager {
    /// The runtime, in the cgroup file system.
    Cgroupfs,
    /// systemd, asked over D-Bus.
    Systemd,
    /// Nobody: the container stays in the caller's.
    Disabled,
}

/// Whether cgroup permission errors are ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rootless {
    /// Yes.
    True,
    /// No.
    False,
    /// If the caller is not root, or root only in a user namespace.
    Auto,
}

fn log_format(value: &OsStr) -> Result<LogFormat, String> {
    match options::utf8(value)? {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        other => Err(format!("invalid log-format: {}", other.escape_debug())),
    }
}

fn log_level(value: &OsStr) -> Result<LogLevel, String> {
    let text = options::utf8(value)?;
    match text.to_ascii_lowercase().as_str() {
        "error" | "fatal" | "panic" => Ok(LogLevel::Error),
        "warn" | "warning" => Ok(LogLevel::Warning),
        "info" => Ok(LogLevel::Info),
        "debug" | "trace" => Ok(LogLevel::Debug),
        _ => Err(format!("invalid log-level: {}", text.escape_debug())),
    }
}

fn cgroup_manager(value: &OsStr) -> Result<CgroupManager, String> {
    match options::utf8(value)? {
        "cgroupfs" => Ok(CgroupManager::Cgroupfs),
        "systemd" => Ok(CgroupManager::Systemd),
        "disabled" => Ok(CgroupManager::Disabled),
        other => Err(format!("invalid cgroup-manager: {}", other.escape_debug())),
    }
}

fn rootless(value: &OsStr) -> Result<Rootless, String> {
    match boolean(value.as_bytes()) {
        Some(true) => Ok(Rootless::True),
        Some(false) => Ok(Rootless::False),
        None if value == "auto" => Ok(Rootless::Auto),
        None => Err(format!("invalid value {value:?}: neither true nor false nor auto")),
    }
}

impl Globals {
    pub(super) fn resolve(options: Given) -> Result<Self> {
        let _ignored = options.systemd_log;
        let (root, root_from) = match options.root {
            Some(root) => (absolute(&root)?, RootFrom::Option),
            None => match xdg_root() {
                Some(root) => (root, RootFrom::Xdg),
                None => (PathBuf::from(DEFAULT_ROOT), RootFrom::Default),
            },
        };
        let cgroup_manager = match (options.cgroup_manager, options.systemd_cgroup) {
            (Some(manager), _) => manager,
            (None, true) => CgroupManager::Systemd,
            (None, false) => CgroupManager::Cgroupfs,
        };
        Ok(Self {
            root,
            root_from,
            log: options.log,
            log_format: options.log_format,
            log_level: if options.debug { LogLevel::Debug } else { options.log_level },
            debug: options.debug,
            cgroup_manager,
            rootless: options.rootless,
        })
    }

    /// The containers below the state directory.
    pub fn store(&self) -> Store {
        Store::new(&self.root, self.root_from == RootFrom::Xdg)
    }

    /// Whether cgroup permission errors are ignored.
    pub fn is_rootless(&self) -> bool {
        match self.rootless {
            Rootless::True => true,
            Rootless::False => false,
            Rootless::Auto => !nix::unistd::geteuid().is_root() || host::in_user_namespace(),
        }
    }
}

/// An absolute path that is not the root directory, however written.
fn absolute(root: &Path) -> Result<PathBuf> {
    if root.as_os_str().is_empty() {
        return Err(Error::Usage("--root: the directory's name is empty".to_owned()));
    }
    let root = std::path::absolute(root).doing(|| format!("find --root {root:?}"))?;
    let depth = root.components().fold(0_usize, |depth, component| match component {
        Component::Normal(_) => depth + 1,
        Component::ParentDir => depth.saturating_sub(1),
        _ => depth,
    });
    if depth == 0 {
        return Err(Error::Usage("--root: / cannot hold the state of containers".to_owned()));
    }
    Ok(root)
}

/// `$XDG_RUNTIME_DIR/corten` for an ordinary user, and for the root of a user namespace unless
/// `USER` says that it is meant to be root.
fn xdg_root() -> Option<PathBuf> {
    let dir = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty())?;
    let ordinary = !nix::unistd::geteuid().is_root();
    let user_is_root = || std::env::var_os("USER").as_deref() == Some(OsStr::new("root"));
    (ordinary || (!user_is_root() && host::in_user_namespace()))
        .then(|| Path::new(&dir).join("corten"))
}
