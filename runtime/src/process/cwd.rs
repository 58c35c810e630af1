//! Where the container's process starts.
//!
//! Promise: the process stands in `process.cwd` of the container, reachable from its root, or it
//! does not start.
//!
//! Order: [`Cwd::enter`] after the pivot and after the directory was made, with the runtime's
//! rights; where those are refused (a FUSE or NFS home of the container's user) once more after
//! [`super::user::Identity::assume`].
//!
//! Threat: CVE-2024-21626. A cwd of `/proc/self/fd/7`, or a link to it, reaches a directory of the
//! host through a leaked fd. The path is resolved without magic links, by fd, and getcwd(2) must
//! then answer a path below the root.

use std::ffi::CString;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::{fchdir, getcwd};

use super::{cstring, open_in_root};
use crate::error::{Doing, Error, Result};

/// An absolute path in the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cwd(CString);

/// What became of [`Cwd::enter`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Entered {
    /// We stand there.
    Yes,
    /// Refused to us; the container's user may be allowed.
    TryAsUser,
}

impl Cwd {
    /// Validates the value at the JSON path `path` (`process.cwd`).
    ///
    /// # Errors
    /// A config error unless it is an absolute path.
    pub fn new(cwd: &Path, path: &str) -> Result<Self> {
        if !cwd.is_absolute() {
            return Err(Error::config(path, format!("{cwd:?} is not an absolute path")));
        }
        cstring(cwd.as_os_str().as_bytes(), || path.to_owned()).map(Self)
    }

    /// The path, for whoever makes the directory.
    pub fn path(&self) -> &Path {
        Path::new(std::ffi::OsStr::from_bytes(self.0.to_bytes()))
    }

    /// Goes there. `root` is the container's root, which is also our own.
    ///
    /// # Errors
    /// Anything but a lack of permission; with `as_user` that too.
    pub fn enter(&self, root: BorrowedFd<'_>, as_user: bool) -> Result<Entered> {
        let doing = || format!("chdir to cwd ({:?}) set in config.json failed", self.path());
        let moved =
            open_in_root(root, &self.0, OFlag::O_PATH | OFlag::O_DIRECTORY).and_then(fchdir);
        match moved {
            Err(Errno::EPERM | Errno::EACCES) if !as_user => return Ok(Entered::TryAsUser),
            other => other.doing(doing)?,
        }
        // glibc turns the kernel's "(unreachable)" into ENOENT; another libc may not.
        match getcwd() {
            Ok(now) if now.is_absolute() => Ok(Entered::Yes),
            Ok(_) | Err(Errno::ENOENT) => Err(Error::Failed(format!(
                "{}: current working directory is outside of the container's root",
                doing()
            ))),
            Err(errno) => Err(Error::sys("getcwd", errno)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::{AsFd, AsRawFd};

    use super::*;
    use crate::sys::testing::in_child;

    fn cwd(path: &str) -> Cwd {
        Cwd::new(Path::new(path), "process.cwd").unwrap()
    }

    #[test]
    fn a_leaked_directory_is_not_a_cwd() {
        in_child(|| {
            let outside = tempfile::tempdir().unwrap();
            let leaked = File::open(outside.path()).unwrap();
            let root = File::open("/").unwrap();
            let magic = format!("/proc/self/fd/{}", leaked.as_raw_fd());
            for path in [magic.as_str(), "/proc/self/cwd", "/proc/self/root"] {
                let error = cwd(path).enter(root.as_fd(), true).unwrap_err();
                assert_eq!(error.errno(), Some(Errno::ELOOP), "{error}");
            }
            let link = outside.path().join("link");
            std::os::unix::fs::symlink(&magic, &link).unwrap();
            assert!(cwd(link.to_str().unwrap()).enter(root.as_fd(), true).is_err());
            assert_eq!(cwd("/proc/self/../").enter(root.as_fd(), false).unwrap(), Entered::Yes);
        });
    }

    #[test]
    fn a_cwd_outside_of_our_root_is_noticed() {
        in_child(|| {
            let outside = File::open("/tmp").unwrap();
            let jail = tempfile::tempdir().unwrap();
            nix::unistd::chroot(jail.path()).unwrap();
            let error = cwd("/").enter(outside.as_fd(), true).unwrap_err().to_string();
            assert!(error.ends_with("outside of the container's root"), "{error}");
        });
    }

    #[test]
    fn a_missing_one_is_an_error_and_a_forbidden_one_is_tried_again() {
        in_child(|| {
            let root = File::open("/").unwrap();
            let error = cwd("/no/such").enter(root.as_fd(), false).unwrap_err().to_string();
            assert_eq!(
                error,
                "chdir to cwd (\"/no/such\") set in config.json failed: no such file or directory"
            );
            crate::sys::cred::setresuid(12345).unwrap();
            assert_eq!(cwd("/root/x").enter(root.as_fd(), false).unwrap(), Entered::TryAsUser);
            assert!(cwd("/root/x").enter(root.as_fd(), true).is_err());
        });
    }
}
