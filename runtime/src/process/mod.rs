//! The container's process: everything about it but its root, its cgroup and its filter.
//!
//! [`Plan`] is pure: `config.json`'s `process` object, or exec's, validated and in the kernel's
//! words. After `Plan::new` no input error is possible. Each property is a small module with one
//! function that applies it and reads it back; `init` calls them one by one, in this order:
//!
//! 1. [`keyring::join`], `namespaces::loopback_up` as soon as the namespaces are ours;
//! 2. after the pivot: [`tty::Pty::open`] and [`tty::Pty::attach`], [`cwd::Cwd::enter`];
//! 3. [`lsm::Attributes::apparmor`], no_new_privs, [`sched`], [`personality`], [`mempolicy`]; the
//!    parent meanwhile [`rlimits::apply`] and [`oom::write`];
//! 4. [`lsm::Attributes::selinux`], the filter unless no_new_privs, [`caps::Sets::limit_bounding`],
//!    [`env::Env::add_home`], [`user::chown_stdio`], [`user::Identity::assume`], `Cwd::enter` again
//!    if it asks for it, [`caps::Sets::apply`];
//! 5. [`exec_path::look_up`] (as the user, so that create fails when start would), the filter if
//!    no_new_privs, the gate, [`signals::reset`], [`fds::keep`], [`exec_path::execute`].
//!
//! Threat: after step 1 every path belongs to the image. Nothing here opens one but by fd.

pub mod caps;
pub mod cwd;
pub mod env;
pub mod exec_path;
pub mod fds;
pub mod foreground;
pub mod keyring;
pub mod lsm;
pub mod mempolicy;
pub mod oom;
pub mod personality;
pub mod rlimits;
pub mod sched;
pub mod signals;
pub mod tty;
pub mod user;

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use oci_spec::runtime::Process;

use crate::error::{Doing, Error, Result};
use crate::sys;

/// A process, validated. One of these serves the container's init and every exec.
#[derive(Clone, Debug)]
pub struct Plan {
    /// At least one; the first is looked up in the container's PATH.
    pub args: Vec<CString>,
    /// The environment, without HOME until [`env::Env::add_home`].
    pub env: env::Env,
    /// Where it starts.
    pub cwd: cwd::Cwd,
    /// Who it is.
    pub identity: user::Identity,
    /// What it may.
    pub caps: caps::Sets,
    /// Its resource limits, set by the parent.
    pub rlimits: Vec<rlimits::Limit>,
    /// No exec gains privileges.
    pub no_new_privileges: bool,
    /// Its /proc/PID/oom_score_adj, written by the parent; absent: left alone.
    pub oom_score_adj: Option<oom::Score>,
    /// CPU policy.
    pub scheduler: Option<sched::Scheduler>,
    /// I/O priority.
    pub io_priority: Option<sched::IoPriority>,
    /// The CPUs of an exec, before and after it joins the cgroup.
    pub affinity: sched::Affinity,
    /// AppArmor profile and SELinux label.
    pub lsm: lsm::Labels,
    /// It gets a pseudo-terminal.
    pub terminal: bool,
    /// The first size of that terminal.
    pub console_size: Option<sys::tty::Size>,
}

impl Plan {
    /// Validates `process`. `path` is its JSON path, which errors name: `process` for a
    /// config.json, empty for the file of `exec --process`.
    ///
    /// # Errors
    /// A config error with the JSON path of the offending value.
    pub fn new(process: &Process, path: &str) -> Result<Self> {
        let at = |key: &str| json_path(path, key);
        let terminal = process.terminal().unwrap_or(false);
        Ok(Self {
            args: args(process.args().as_deref(), &at("args"))?,
            env: env::Env::new(process.env().as_deref().unwrap_or_default(), &at("env"))?,
            cwd: cwd::Cwd::new(process.cwd(), &at("cwd"))?,
            identity: user::Identity::new(process.user(), &at("user"))?,
            caps: caps::Sets::new(
                process.capabilities().as_ref(),
                process.user().uid() == 0,
                &at("capabilities"),
            )?,
            rlimits: rlimits::plan(
                process.rlimits().as_deref().unwrap_or_default(),
                &at("rlimits"),
            )?,
            no_new_privileges: process.no_new_privileges().unwrap_or(false),
            oom_score_adj: process
                .oom_score_adj()
                .map(|score| oom::Score::new(score, &at("oomScoreAdj")))
                .transpose()?,
            scheduler: process
                .scheduler()
                .as_ref()
                .map(|scheduler| sched::Scheduler::new(scheduler, &at("scheduler")))
                .transpose()?,
            io_priority: process
                .io_priority()
                .map(|priority| sched::IoPriority::new(priority, &at("ioPriority")))
                .transpose()?,
            affinity: sched::Affinity::new(
                process.exec_cpu_affinity().as_ref(),
                &at("execCPUAffinity"),
            )?,
            lsm: lsm::Labels::new(process, path)?,
            terminal,
            console_size: match process.console_size() {
                Some(size) if terminal => Some(tty::plan_size(size, &at("consoleSize"))?),
                _ => None,
            },
        })
    }
}

/// Sets no_new_privs and reads it back. After it, every exec ignores setuid bits and file
/// capabilities, and a seccomp filter needs no `CAP_SYS_ADMIN`.
///
/// # Errors
/// The errno of prctl(2).
pub fn set_no_new_privileges() -> Result<()> {
    nix::sys::prctl::set_no_new_privs().doing(|| "prctl PR_SET_NO_NEW_PRIVS".to_owned())?;
    match nix::sys::prctl::get_no_new_privs().doing(|| "prctl PR_GET_NO_NEW_PRIVS".to_owned())? {
        true => Ok(()),
        false => Err(Error::Failed("no_new_privs was set but is not".to_owned())),
    }
}

fn args(args: Option<&[String]>, path: &str) -> Result<Vec<CString>> {
    let args = args.unwrap_or_default();
    match args.first() {
        None => return Err(Error::config(path, "needs at least one argument")),
        Some(first) if first.is_empty() => {
            return Err(Error::config(json_path(path, "[0]"), "must not be empty"));
        }
        Some(_) => {}
    }
    args.iter()
        .enumerate()
        .map(|(index, arg)| cstring(arg.as_bytes(), || json_path(path, &format!("[{index}]"))))
        .collect()
}

/// `process` and `cwd` are `process.cwd`; nothing and `cwd` are `cwd`.
pub(crate) fn json_path(path: &str, key: &str) -> String {
    match path {
        "" => key.to_owned(),
        _ if key.starts_with('[') => format!("{path}{key}"),
        _ => format!("{path}.{key}"),
    }
}

/// A C string, unless the value at the JSON path has a NUL.
pub(crate) fn cstring(bytes: &[u8], path: impl FnOnce() -> String) -> Result<CString> {
    CString::new(bytes).map_err(|_| Error::config(path(), "has a NUL byte"))
}

/// Opens a path of the container below its root fd: links stay inside the root, and links into
/// /proc/PID are refused.
pub(crate) fn open_in_root(
    root: BorrowedFd<'_>,
    path: &CStr,
    flags: OFlag,
) -> std::result::Result<OwnedFd, Errno> {
    // openat2 refuses flags that O_PATH makes meaningless.
    let no_tty = if flags.contains(OFlag::O_PATH) { OFlag::empty() } else { OFlag::O_NOCTTY };
    let path = Path::new(OsStr::from_bytes(path.to_bytes()));
    crate::rootfs::path::open(root, path, (flags | no_tty).bits())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::testing::in_child;

    fn process(json: serde_json::Value) -> Process {
        let mut base =
            serde_json::json!({"user": {"uid": 0, "gid": 0}, "args": ["sh"], "cwd": "/"});
        for (key, value) in json.as_object().unwrap() {
            base[key] = value.clone();
        }
        serde_json::from_value(base).unwrap()
    }

    #[test]
    fn a_small_process_has_the_defaults() {
        let plan = Plan::new(&process(serde_json::json!({})), "process").unwrap();
        assert_eq!(plan.args, [c"sh".to_owned()]);
        assert_eq!(plan.identity.umask, 0o022);
        assert_eq!(plan.caps, caps::Sets::default());
        assert!(!plan.no_new_privileges && !plan.terminal);
    }

    #[test]
    fn an_error_names_its_place() {
        let cases = [
            (serde_json::json!({"args": []}), "args"),
            (serde_json::json!({"args": [""]}), "args[0]"),
            (serde_json::json!({"args": ["a", "b\0"]}), "args[1]"),
            (serde_json::json!({"cwd": "tmp"}), "cwd"),
            (serde_json::json!({"cwd": ""}), "cwd"),
            (serde_json::json!({"env": ["A"]}), "env[0]"),
            (serde_json::json!({"oomScoreAdj": 1001}), "oomScoreAdj"),
            (
                serde_json::json!({"terminal": true, "consoleSize": {"height": 70000, "width": 1}}),
                "consoleSize.height",
            ),
            (serde_json::json!({"user": {"uid": u32::MAX, "gid": 0}}), "user.uid"),
        ];
        for (json, at) in cases {
            let error = Plan::new(&process(json.clone()), "process").unwrap_err().to_string();
            assert!(error.starts_with(&format!("config.json: process.{at}: ")), "{error}");
            let error = Plan::new(&process(json), "").unwrap_err().to_string();
            assert!(error.starts_with(&format!("config.json: {at}: ")), "{error}");
        }
    }

    #[test]
    fn a_console_size_without_a_terminal_is_ignored() {
        let json = serde_json::json!({"consoleSize": {"height": 70000, "width": 1}});
        assert_eq!(Plan::new(&process(json), "process").unwrap().console_size, None);
    }

    #[test]
    fn no_new_privs_holds() {
        in_child(|| set_no_new_privileges().unwrap());
    }
}
