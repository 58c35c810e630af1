//! Installing a filter on the calling process.
//!
//! There is no read-back by `PR_GET_SECCOMP`, on purpose: from the moment the filter is in place
//! `prctl` may be killed by it, or wait for an agent that has no fd yet. The kernel's answer is
//! complete: it either attaches the filter to this very thread or fails, with one exception
//! (TSYNC reports a thread id) that [`crate::sys::seccomp::set_mode_filter`] makes an error.

use std::os::fd::OwnedFd;

use nix::errno::Errno;

use super::Filter;
use super::features::{names, unsupported};
use crate::error::Doing;
use crate::sys::seccomp::{action_known, flag, flags_known, set_mode_filter};
use crate::{Error, Result};

impl Filter {
    /// Whether this kernel can do what the profile asks for. One system call for each thing that
    /// is not in every kernel: none for most profiles.
    ///
    /// # Errors
    /// [`Error::Unsupported`] naming the flags or the action.
    pub fn check(&self) -> Result<()> {
        let missing = unsupported(self.flags);
        if !missing.is_empty() {
            return Err(unknown_flags(&missing));
        }
        if self.listener.is_some() && !action_known(libc::SECCOMP_RET_USER_NOTIF) {
            return Err(Error::Unsupported(
                "this kernel does not support SCMP_ACT_NOTIFY (Linux 5.0)".to_owned(),
            ));
        }
        Ok(())
    }

    /// Installs the filter on the calling process, which has one thread, and returns the
    /// notification fd when there is a [`Filter::listener`]. Needs no_new_privs or
    /// `CAP_SYS_ADMIN`. Allocates nothing and makes one system call if it succeeds.
    ///
    /// # Errors
    /// [`Error::Sys`] from `seccomp(2)`; [`Error::Unsupported`] naming a flag the kernel lacks.
    pub fn load(&self) -> Result<Option<OwnedFd>> {
        let wanted = if self.default_flags { flag::SPEC_ALLOW } else { 0 };
        match set_mode_filter(self.flags | wanted, &self.program) {
            Ok(notify) => Ok(notify),
            // Older than 4.17, and nobody asked for the flag by name.
            Err(Errno::EINVAL) if self.default_flags && !flags_known(wanted) => {
                set_mode_filter(self.flags, &self.program).doing(|| self.doing())
            }
            Err(Errno::EINVAL) if !flags_known(self.flags) => {
                Err(unknown_flags(&unsupported(self.flags)))
            }
            Err(Errno::EACCES) => Err(Errno::EACCES).doing(|| {
                format!("{} (without noNewPrivileges this needs CAP_SYS_ADMIN)", self.doing())
            }),
            Err(errno) => Err(errno).doing(|| self.doing()),
        }
    }

    fn doing(&self) -> String {
        format!("load the seccomp filter of {} instructions", self.program.len())
    }
}

fn unknown_flags(missing: &[&str]) -> Error {
    Error::Unsupported(format!(
        "linux.seccomp.flags: this kernel does not support {}",
        names(missing)
    ))
}
