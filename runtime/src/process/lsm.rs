//! AppArmor profiles and SELinux labels for the container's program.
//!
//! Promise: the kernel module is there and took the label, or the container does not start. A label
//! that is asked for and can't be given is never ignored.
//!
//! Order: [`Attributes::open`] in the new process while /proc is still the host's; the writes later
//! go through these files. AppArmor's before no_new_privs (which would forbid the change), SELinux's
//! after everything that the new label might not allow us.
//!
//! Threat: CVE-2019-19921, 2023-28642, 2025-52881: a fake /proc in the image turns the write into
//! nothing. Therefore the files are opened early, below a verified procfs, without crossing mounts,
//! and the label is read back.

use std::ffi::CStr;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs, statfs};
use oci_spec::runtime::Process;

use super::json_path;
use crate::error::{Doing, Error, Result};
use crate::sys;
use crate::sys::fs::resolve;

/// `SELINUX_MAGIC` of statfs(2).
const SELINUX_MAGIC: i64 = 0xf97c_ff8c;
/// What AppArmor calls having no profile.
const UNCONFINED: &str = "unconfined";

/// The labels that the config asks for; absent and empty are the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    apparmor: Option<String>,
    selinux: Option<String>,
}

impl Labels {
    /// Validates the labels of `process`, the value at the JSON path `path`.
    ///
    /// # Errors
    /// A config error for a NUL or a line break, which the kernel would read as the end.
    pub fn new(process: &Process, path: &str) -> Result<Self> {
        let label = |label: Option<&String>, key: &str| match label {
            Some(label) if label.contains(['\0', '\n']) => {
                Err(Error::config(json_path(path, key), format!("{label:?} is not a label")))
            }
            label => Ok(label.filter(|label| !label.is_empty()).cloned()),
        };
        Ok(Self {
            apparmor: label(process.apparmor_profile().as_ref(), "apparmorProfile")?,
            selinux: label(process.selinux_label().as_ref(), "selinuxLabel")?,
        })
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.apparmor.is_none() && self.selinux.is_none()
    }

    /// Checks, before anything is made, that this host has the modules for the labels.
    ///
    /// # Errors
    /// A module that is missing or off.
    pub fn check(&self) -> Result<()> {
        if let Some(profile) = self.apparmor.as_deref().filter(|name| *name != UNCONFINED)
            && !apparmor_enabled()
        {
            return Err(Error::Unsupported(format!(
                "apparmor failed to apply profile {profile:?}: AppArmor is not enabled on this host"
            )));
        }
        if let Some(label) = &self.selinux
            && !selinux_enabled()
        {
            return Err(Error::Unsupported(format!(
                "selinux failed to apply label {label:?}: SELinux is not enabled on this host"
            )));
        }
        Ok(())
    }
}

/// Whether AppArmor is there and on.
pub fn apparmor_enabled() -> bool {
    std::fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|on| on.starts_with(b"Y"))
}

/// Whether SELinux is there and on: its file system is mounted.
pub fn selinux_enabled() -> bool {
    statfs("/sys/fs/selinux").is_ok_and(|fs| fs.filesystem_type().0 == SELINUX_MAGIC)
}

/// The files of this process that take the labels for its next exec.
#[derive(Debug, Default)]
pub struct Attributes {
    apparmor: Option<(File, String)>,
    selinux: Option<(File, String)>,
}

impl Attributes {
    /// Opens what the labels need; nothing if there are none. `proc` is the host's /proc.
    ///
    /// # Errors
    /// The module is missing, or /proc is not the kernel's.
    pub fn open(proc: BorrowedFd<'_>, labels: &Labels) -> Result<Self> {
        labels.check()?;
        let apparmor = match &labels.apparmor {
            // Without the module nothing confines, which is what was asked.
            Some(profile) if profile == UNCONFINED && !apparmor_enabled() => None,
            // The second is the one of kernels before 5.8, and shared with other modules.
            Some(profile) => Some((open(proc, &[c"apparmor/exec", c"exec"])?, profile.clone())),
            None => None,
        };
        let selinux = match &labels.selinux {
            Some(label) => Some((open(proc, &[c"exec"])?, label.clone())),
            None => None,
        };
        Ok(Self { apparmor, selinux })
    }

    /// The open files.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        [&self.apparmor, &self.selinux].into_iter().flatten().map(|(file, _)| file.as_fd())
    }

    /// Gives the next exec its AppArmor profile.
    ///
    /// # Errors
    /// `ENOENT`: no such profile is loaded. `EACCES`, or a read-back that differs.
    pub fn apparmor(&mut self) -> Result<()> {
        match &mut self.apparmor {
            Some((file, profile)) => write(file, &format!("exec {profile}"), profile)
                .doing(|| format!("apparmor failed to apply profile {profile:?}")),
            None => Ok(()),
        }
    }

    /// Gives the next exec its SELinux label.
    ///
    /// # Errors
    /// `EINVAL`: no such label in the policy. `EACCES`, or a read-back that differs.
    pub fn selinux(&mut self) -> Result<()> {
        match &mut self.selinux {
            Some((file, label)) => write(file, label, label)
                .doing(|| format!("selinux failed to apply label {label:?}")),
            None => Ok(()),
        }
    }
}

/// Opens the first of `names` that exists below our own attr directory.
fn open(proc: BorrowedFd<'_>, names: &[&CStr]) -> Result<File> {
    let doing = || "open /proc/thread-self/attr".to_owned();
    // thread-self is a link that the kernel makes up, hence this one step may follow links.
    let how = resolve::NO_XDEV | resolve::NO_MAGICLINKS | resolve::BENEATH;
    let dir = sys::fs::openat2(proc, c"thread-self/attr", libc::O_PATH | libc::O_DIRECTORY, 0, how)
        .doing(doing)?;
    if fstatfs(&dir).doing(doing)?.filesystem_type() != PROC_SUPER_MAGIC {
        return Err(Error::Failed(format!("{}: it is not the kernel's", doing())));
    }
    let how = resolve::NO_XDEV | resolve::NO_SYMLINKS | resolve::BENEATH;
    let mut last = Errno::ENOENT;
    for name in names {
        match sys::fs::openat2(&dir, name, libc::O_RDWR, 0, how) {
            Ok(fd) => return Ok(File::from(fd)),
            Err(errno) => last = errno,
        }
    }
    Err(Error::sys(format!("{}: {names:?}", doing()), last))
}

/// Writes `text` and reads back that the kernel now has `label`.
fn write(file: &mut File, text: &str, label: &str) -> Result<()> {
    let doing = || "write /proc/thread-self/attr/exec".to_owned();
    file.write_all(text.as_bytes()).doing(doing)?;
    file.rewind().doing(doing)?;
    let mut now = Vec::new();
    file.take(4096).read_to_end(&mut now).doing(doing)?;
    let now = String::from_utf8_lossy(&now);
    // AppArmor appends the mode, and prefixes the namespace: `:ns://name (enforce)`.
    match now.contains(label.trim_start_matches('&')) {
        true => Ok(()),
        false => Err(Error::Failed(format!("{}: it reads {now:?} afterwards", doing()))),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    fn labels(json: serde_json::Value) -> Result<Labels> {
        let mut process = serde_json::json!({"user": {}, "cwd": "/"});
        for (key, value) in json.as_object().unwrap() {
            process[key] = value.clone();
        }
        Labels::new(&serde_json::from_value(process).unwrap(), "process")
    }

    #[test]
    fn a_label_with_a_line_break_is_a_config_error() {
        let error = labels(serde_json::json!({"apparmorProfile": "a\nchangehat"})).unwrap_err();
        assert!(error.to_string().starts_with("config.json: process.apparmorProfile: "));
        let error = labels(serde_json::json!({"selinuxLabel": "a\0"})).unwrap_err();
        assert!(error.to_string().starts_with("config.json: process.selinuxLabel: "));
    }

    #[test]
    fn a_label_without_its_module_is_an_error() {
        let proc = File::open("/proc").unwrap();
        let none = labels(serde_json::json!({"apparmorProfile": "", "selinuxLabel": ""})).unwrap();
        let mut attributes = Attributes::open(proc.as_fd(), &none).unwrap();
        attributes.apparmor().unwrap();
        attributes.selinux().unwrap();
        if !apparmor_enabled() {
            let asked = labels(serde_json::json!({"apparmorProfile": "docker-default"})).unwrap();
            let error = Attributes::open(proc.as_fd(), &asked).unwrap_err().to_string();
            assert!(error.contains("AppArmor is not enabled"), "{error}");
            let asked = labels(serde_json::json!({"apparmorProfile": "unconfined"})).unwrap();
            Attributes::open(proc.as_fd(), &asked).unwrap().apparmor().unwrap();
        }
        if !selinux_enabled() {
            let asked = labels(serde_json::json!({"selinuxLabel": "system_u:x"})).unwrap();
            let error = Attributes::open(proc.as_fd(), &asked).unwrap_err().to_string();
            assert!(error.contains("SELinux is not enabled"), "{error}");
        }
    }

    #[test]
    fn attr_is_refused_outside_of_the_kernels_proc() {
        let fake = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(fake.path().join("thread-self/attr")).unwrap();
        std::fs::write(fake.path().join("thread-self/attr/exec"), "").unwrap();
        let dir = File::open(fake.path()).unwrap();
        let error = open(dir.as_fd(), &[c"exec"]).unwrap_err().to_string();
        assert!(error.ends_with("not the kernel's"), "{error}");
    }
}
