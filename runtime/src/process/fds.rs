//! Which descriptors the container's process gets: the standard streams, and `--preserve-fds` with
//! the sockets of systemd's activation protocol. Nothing else.
//!
//! Promise: at the container's execve(2), every descriptor from `3 + count` up is CLOEXEC, the
//! preserved ones are not.
//!
//! Order: [`ensure_stdio`] first of all, [`Inherited::take`] before the runtime opens anything that
//! it means to keep; from then on all inherited descriptors are CLOEXEC, so that hooks and helpers
//! don't get them either. [`keep`] immediately before the exec.
//!
//! Threat: CVE-2024-21626, a directory of the host left open in the container. conmon's pipes
//! (`_OCI_SYNCPIPE`) must not leak either.

use std::ffi::OsString;
use std::os::fd::{BorrowedFd, RawFd};
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;

use super::env::Env;
use crate::error::{Doing, Error, Result};
use crate::sys;

/// The first descriptor after the standard streams; `SD_LISTEN_FDS_START` as well.
const FIRST: u32 = 3;
/// On kernels without close_range(2): descriptors of ours never reach this number.
const LAST_WITHOUT_CLOSE_RANGE: u32 = 1 << 16;

/// Opens /dev/null for each standard stream that is closed, so that no file of ours takes its
/// place and gets written to. Rust's own start-up does the same for a `main` in Rust.
///
/// # Errors
/// /dev/null can't be opened.
pub fn ensure_stdio() -> Result<()> {
    for number in 0..FIRST as RawFd {
        if !sys::fds::is_open(number) {
            // The lowest free number: the lower ones are open by now.
            let opened =
                sys::fds::open_null_for_good().doing(|| "open \"/dev/null\"".to_owned())?;
            if opened != number {
                return Err(Error::Failed(format!("stdio {number} became {opened}")));
            }
        }
    }
    Ok(())
}

/// What the caller passed on for the container's process: descriptors 3 to 3 + count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inherited {
    /// How many, listening sockets included.
    pub count: u32,
    /// The first of them that are listening sockets, and `LISTEN_FDNAMES`.
    listen: Option<(u32, Option<OsString>)>,
}

impl Inherited {
    /// Takes `LISTEN_FDS` (if `LISTEN_PID` is us) and then `preserve` more, checks that they are
    /// open, and marks everything inherited CLOEXEC.
    ///
    /// # Errors
    /// A usage error for a descriptor that is not open.
    pub fn take(preserve: u32) -> Result<Self> {
        let inherited = Self::from_environment(preserve, nix::unistd::getpid().as_raw(), |name| {
            std::env::var_os(name)
        })?;
        for number in inherited.numbers() {
            if !sys::fds::is_open(number) {
                return Err(Error::Usage(format!(
                    "preserved fd {number} (of {}) is not open",
                    inherited.count
                )));
            }
        }
        match sys::process::cloexec_from(FIRST) {
            Err(Errno::ENOSYS | Errno::EINVAL | Errno::EPERM) => cloexec_by_listing()?,
            other => other.doing(|| "close_range".to_owned())?,
        }
        Ok(inherited)
    }

    fn from_environment(
        preserve: u32,
        pid: i32,
        var: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self> {
        let number = |name: &str| var(name).and_then(|text| text.to_str()?.parse::<u32>().ok());
        let listen = match (number("LISTEN_PID"), number("LISTEN_FDS")) {
            (Some(to), Some(count)) if i32::try_from(to) == Ok(pid) && count > 0 => {
                Some((count, var("LISTEN_FDNAMES")))
            }
            _ => None,
        };
        let count = listen.as_ref().map_or(0, |(count, _)| *count).checked_add(preserve);
        match count {
            Some(count) if count < i32::MAX as u32 - FIRST => Ok(Self { count, listen }),
            _ => Err(Error::Usage(format!("--preserve-fds {preserve} is too many"))),
        }
    }

    /// Tells the container's process about its listening sockets. `pid` is its own, as it sees it.
    ///
    /// # Errors
    /// Never in practice: environment variables have no NUL.
    pub fn add_env(&self, env: &mut Env, pid: i32) -> Result<()> {
        let Some((count, names)) = &self.listen else { return Ok(()) };
        env.set("LISTEN_FDS", count.to_string().as_bytes())?;
        env.set("LISTEN_PID", pid.to_string().as_bytes())?;
        match names {
            Some(names) => env.set("LISTEN_FDNAMES", names.as_bytes()),
            None => Ok(()),
        }
    }

    fn numbers(&self) -> impl Iterator<Item = RawFd> {
        (FIRST..FIRST + self.count).map(|number| number as RawFd)
    }
}

/// Closes everything but the standard streams, the inherited ones and `keep`, in a process that was
/// cloned and never returns to the code that owns the others.
///
/// CLOEXEC is not enough: execve(2) looks up the program's path before it closes anything, so a path
/// of the image like `/proc/self/fd/7/../../usr/bin/sh` would lead through a directory of ours to a
/// program of the host, which the container could then overwrite (CVE-2024-21626); and a process that
/// can be seen from inside must hold nothing worth stealing (CVE-2016-9962).
pub fn shed(inherited: &Inherited, keep: &[BorrowedFd<'_>]) {
    let first = FIRST + inherited.count;
    sys::process::close_all_but(RawFd::try_from(first).unwrap_or(RawFd::MAX), keep);
}

/// Lets the next execve(2) pass on exactly the standard streams and the inherited ones.
///
/// # Errors
/// The errno of the calls.
pub fn keep(inherited: &Inherited) -> Result<()> {
    let first = FIRST + inherited.count;
    match sys::process::cloexec_from(first) {
        Err(Errno::ENOSYS | Errno::EINVAL | Errno::EPERM) => {
            for number in first..LAST_WITHOUT_CLOSE_RANGE {
                match sys::fds::set_cloexec(number as RawFd, true) {
                    Ok(()) | Err(Errno::EBADF) => {}
                    Err(errno) => return Err(Error::sys(format!("cloexec fd {number}"), errno)),
                }
            }
        }
        other => other.doing(|| "close_range".to_owned())?,
    }
    for number in inherited.numbers() {
        sys::fds::set_cloexec(number, false).doing(|| format!("pass on fd {number}"))?;
    }
    Ok(())
}

/// The start's fallback before Linux 5.11: at that time /proc is still the host's.
fn cloexec_by_listing() -> Result<()> {
    let doing = || "read \"/proc/self/fd\"".to_owned();
    for entry in std::fs::read_dir("/proc/self/fd").doing(doing)? {
        let name = entry.doing(doing)?.file_name();
        let number: RawFd = match name.to_str().and_then(|name| name.parse().ok()) {
            Some(number) if number >= FIRST as RawFd => number,
            _ => continue,
        };
        match sys::fds::set_cloexec(number, true) {
            Ok(()) | Err(Errno::EBADF) => {}
            Err(errno) => return Err(Error::sys(format!("cloexec fd {number}"), errno)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsRawFd, IntoRawFd};

    use nix::unistd::{close, pipe};

    use super::*;
    use crate::sys::testing::in_child;

    fn from(preserve: u32, vars: &[(&str, &str)]) -> Result<Inherited> {
        Inherited::from_environment(preserve, 42, |name| {
            vars.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into())
        })
    }

    #[test]
    fn listen_fds_count_only_for_our_pid() {
        assert_eq!(from(2, &[]).unwrap().count, 2);
        let ours = [("LISTEN_PID", "42"), ("LISTEN_FDS", "3"), ("LISTEN_FDNAMES", "a:b:c")];
        let inherited = from(2, &ours).unwrap();
        assert_eq!(inherited.count, 5);
        let mut env = Env::default();
        inherited.add_env(&mut env, 1).unwrap();
        assert_eq!(
            env.iter().collect::<Vec<_>>(),
            [c"LISTEN_FDS=3", c"LISTEN_PID=1", c"LISTEN_FDNAMES=a:b:c"]
        );
        for pid in ["43", "-1", "x", ""] {
            let inherited = from(2, &[("LISTEN_PID", pid), ("LISTEN_FDS", "3")]).unwrap();
            assert_eq!(inherited, from(2, &[]).unwrap());
        }
        assert!(from(u32::MAX, &ours).is_err());
        assert!(from(i32::MAX as u32, &[]).is_err());
    }

    #[test]
    fn exactly_the_preserved_ones_pass_an_exec() {
        in_child(|| {
            for number in FIRST..64 {
                let _closed_or_not = close(number as RawFd);
            }
            let (reader, writer) = pipe().unwrap();
            let (other, another) = pipe().unwrap();
            assert_eq!(reader.as_raw_fd(), 3);
            let inherited = Inherited::take(2).unwrap();
            keep(&inherited).unwrap();
            let cloexec = |fd: &std::os::fd::OwnedFd| {
                nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_GETFD).unwrap() == 1
            };
            assert_eq!(
                [&reader, &writer, &other, &another].map(cloexec),
                [false, false, true, true]
            );
            let error = Inherited::take(5).unwrap_err().to_string();
            assert_eq!(error, "preserved fd 7 (of 5) is not open");
            cloexec_by_listing().unwrap();
            assert!(cloexec(&reader));
        });
    }

    #[test]
    fn closed_streams_become_dev_null() {
        in_child(|| {
            let (reader, _writer) = pipe().unwrap();
            close(0).unwrap();
            close(2).unwrap();
            ensure_stdio().unwrap();
            let link = |n| std::fs::read_link(format!("/proc/self/fd/{n}")).unwrap();
            assert_eq!((link(0), link(2)), ("/dev/null".into(), "/dev/null".into()));
            assert!(reader.into_raw_fd() > 2);
        });
    }
}
