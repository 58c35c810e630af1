//! Who the container's process is: uid, gid, supplementary groups, umask.
//!
//! Promise: after [`Identity::assume`] the real, effective and saved ids and the groups are exactly
//! the asked ones, or there is an error. The one exception is documented at [`Identity::assume`].
//!
//! Order: bounding set limited ([`super::caps::Sets::limit_bounding`]), then `assume`, then the
//! other sets ([`super::caps::Sets::apply`]). Becoming a user clears pdeathsig and dumpable.
//!
//! Threat: an id of 2^32-1 means "leave it" to setresuid(2) and would start the process as root
//! (CVE-2024-40635 and its kind): it is refused, here and in the `--user` parser.

use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, getresgid, getresuid};
use oci_spec::runtime::User;

use super::json_path;
use crate::error::{Doing, Error, Result};
use crate::sys::cred;

/// What runc and crun give a process that does not say: the spec leaves it open.
const DEFAULT_UMASK: u32 = 0o022;
/// `CAP_SETGID` as a bit of a capability set.
const CAP_SETGID: u64 = 1 << 6;

/// Ids in the container's user namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Never `u32::MAX`.
    pub uid: u32,
    /// Never `u32::MAX`.
    pub gid: u32,
    /// Never `u32::MAX`.
    pub groups: Vec<u32>,
    /// Keep the caller's supplementary groups instead (annotation `run.oci.keep_original_groups`).
    pub keep_groups: bool,
    /// Permission bits that new files don't get.
    pub umask: u32,
}

impl Identity {
    /// Validates `user`, the value at the JSON path `path` (`process.user`).
    ///
    /// # Errors
    /// A config error for an id of 2^32-1 or a umask beyond 0777.
    pub fn new(user: &User, path: &str) -> Result<Self> {
        let id = |id: u32, key: &str| match id {
            u32::MAX => Err(Error::config(
                json_path(path, key),
                format!("{id} is not an id: the kernel takes it for \"unchanged\""),
            )),
            id => Ok(id),
        };
        let groups = user.additional_gids().as_deref().unwrap_or_default();
        for (index, gid) in groups.iter().enumerate() {
            id(*gid, &format!("additionalGids[{index}]"))?;
        }
        let umask = user.umask().unwrap_or(DEFAULT_UMASK);
        if umask > 0o777 {
            return Err(Error::config(json_path(path, "umask"), format!("{umask} is over 0777")));
        }
        Ok(Self {
            uid: id(user.uid(), "uid")?,
            gid: id(user.gid(), "gid")?,
            groups: groups.to_vec(),
            keep_groups: false,
            umask,
        })
    }

    /// Becomes this user. Permitted capabilities are kept for [`super::caps::Sets::apply`].
    ///
    /// Where the user namespace denies setgroups(2) (rootless with one mapped group) the caller's
    /// groups can't be given up; that is an error only if the config asks for groups.
    ///
    /// # Errors
    /// An id that is not mapped in the user namespace, groups that can't be set, or a read-back
    /// that differs.
    pub fn assume(&self) -> Result<()> {
        umask(Mode::from_bits_truncate(self.umask));
        nix::sys::prctl::set_keepcaps(true).doing(|| "prctl PR_SET_KEEPCAPS".to_owned())?;
        let groups_set = self.set_groups()?;
        cred::setresgid(self.gid).map_err(|errno| unmapped("gid", self.gid, errno))?;
        cred::setresuid(self.uid).map_err(|errno| unmapped("uid", self.uid, errno))?;
        nix::sys::prctl::set_keepcaps(false).doing(|| "prctl PR_SET_KEEPCAPS".to_owned())?;
        self.verify(groups_set)
    }

    /// Whether the groups are now ours.
    fn set_groups(&self) -> Result<bool> {
        if self.keep_groups {
            return Ok(false);
        }
        match cred::setgroups(&self.groups) {
            Ok(()) => Ok(true),
            // With CAP_SETGID the only EPERM is the namespace's own "deny".
            Err(Errno::EPERM) if self.groups.is_empty() && may_set_ids()? => Ok(false),
            Err(Errno::EINVAL) => Err(Error::sys(
                format!(
                    "setgroups {:?}: a group is not mapped in the container's user namespace",
                    self.groups
                ),
                Errno::EINVAL,
            )),
            Err(errno) => Err(Error::sys(format!("setgroups {:?}", self.groups), errno)),
        }
    }

    fn verify(&self, groups_set: bool) -> Result<()> {
        let uids = getresuid().doing(|| "getresuid".to_owned())?;
        let gids = getresgid().doing(|| "getresgid".to_owned())?;
        let uids = [uids.real, uids.effective, uids.saved].map(nix::unistd::Uid::as_raw);
        let gids = [gids.real, gids.effective, gids.saved].map(Gid::as_raw);
        if uids != [self.uid; 3] || gids != [self.gid; 3] {
            return Err(Error::Failed(format!(
                "asked for uid {} and gid {}, but the process has {uids:?} and {gids:?}",
                self.uid, self.gid
            )));
        }
        if groups_set {
            let sorted = |mut groups: Vec<u32>| {
                groups.sort_unstable();
                groups
            };
            let now = sorted(cred::getgroups().doing(|| "getgroups".to_owned())?);
            if now != sorted(self.groups.clone()) {
                return Err(Error::Failed(format!(
                    "asked for groups {:?}, but the process has {now:?}",
                    self.groups
                )));
            }
        }
        Ok(())
    }
}

fn may_set_ids() -> Result<bool> {
    let sets = cred::capget().doing(|| "capget".to_owned())?;
    Ok(sets.effective & CAP_SETGID != 0)
}

fn unmapped(kind: &str, id: u32, errno: Errno) -> Error {
    match errno {
        Errno::EINVAL => Error::sys(
            format!("set {kind} {id}: it is not mapped in the container's user namespace"),
            errno,
        ),
        errno => Error::sys(format!("set {kind} {id}"), errno),
    }
}

/// `exec --user`: `uid` or `uid:gid`, decimal digits only. Without a gid it is `None`, and the
/// caller keeps the container's.
///
/// Strict because a lenient parser is CVE-2026-30892 (`-u 1` ran as root): no sign, no space, no
/// names, nothing that does not fit, and not 2^32-1.
///
/// # Errors
/// A usage error for anything else.
pub fn parse_exec_user(text: &str) -> Result<(u32, Option<u32>)> {
    let id = |digits: &str| -> Option<u32> {
        let all_digits = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        // The digits are checked before, because parse would also take a "+".
        digits.parse().ok().filter(|id| all_digits && *id != u32::MAX)
    };
    let parsed = match text.split_once(':') {
        None => id(text).map(|uid| (uid, None)),
        Some((uid, gid)) => id(uid).zip(id(gid)).map(|(uid, gid)| (uid, Some(gid))),
    };
    parsed.ok_or_else(|| Error::Usage(format!("invalid user {text:?}: want uid or uid:gid")))
}

/// Gives the standard streams to the container's user, so that it can open /dev/stderr and
/// /proc/self/fd/1 again, as programs like nginx do. `uid` is seen from the container's user
/// namespace, so call it there, before [`Identity::assume`] and after the terminal is in place.
///
/// Only what a caller plausibly made for this container changes hands: pipes, sockets, regular
/// files, terminals. /dev/null and every other device stay the host's (runc 1.1.1 gave the host's
/// /dev/null away). The group stays: terminals belong to group tty.
///
/// # Errors
/// Only unexpected ones: a read-only file system, an unmapped id or a lack of permission just means
/// that the stream stays as it is.
pub fn chown_stdio(streams: [BorrowedFd<'_>; 3], uid: u32) -> Result<()> {
    use nix::sys::stat::{SFlag, fstat};
    for stream in streams {
        let stat = match fstat(stream) {
            Ok(stat) => stat,
            Err(Errno::EBADF) => continue,
            Err(errno) => return Err(Error::sys("fstat a standard stream", errno)),
        };
        let ours = match SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) {
            SFlag::S_IFIFO | SFlag::S_IFSOCK | SFlag::S_IFREG => true,
            SFlag::S_IFCHR => nix::unistd::isatty(stream).unwrap_or(false),
            _ => false,
        };
        if !ours || stat.st_uid == uid {
            continue;
        }
        match nix::unistd::fchown(stream, Some(uid.into()), None) {
            Ok(()) | Err(Errno::EPERM | Errno::EROFS | Errno::EINVAL) => {}
            Err(errno) => return Err(Error::sys(format!("chown stdio to uid {uid}"), errno)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;

    use nix::unistd::pipe;
    use proptest::prelude::*;

    use super::*;
    use crate::sys::testing::in_child;

    #[test]
    fn the_user_table_of_cve_2026_30892() {
        let good = [
            ("1", (1, None)),
            ("1:1", (1, Some(1))),
            ("0", (0, None)),
            ("007", (7, None)),
            ("4294967294", (4_294_967_294, None)),
            ("0:4294967294", (0, Some(4_294_967_294))),
        ];
        for (text, want) in good {
            assert_eq!(parse_exec_user(text).unwrap(), want, "{text:?}");
        }
        let bad = [
            "",
            ":",
            ":1",
            "0x1",
            " 1",
            "1 ",
            "-1",
            "+1",
            "1:+1",
            "4294967295",
            "4294967296",
            "99999999999",
            "root",
            "nosuch",
            "1:",
            "1:x",
            "1:1:1",
            "1:4294967295",
            "1\n",
            "1\0",
            "١",
        ];
        for text in bad {
            assert!(matches!(parse_exec_user(text), Err(Error::Usage(_))), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn a_parsed_user_is_what_the_digits_say(text in "[0-9:+ -]{0,14}") {
            let want = |part: &str| part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse::<u64>().ok()).flatten().filter(|id| *id < u64::from(u32::MAX));
            let parts: Vec<_> = text.split(':').map(want).collect();
            match parse_exec_user(&text) {
                Ok((uid, None)) => prop_assert_eq!(parts, [Some(u64::from(uid))]),
                Ok((uid, Some(gid))) => prop_assert_eq!(parts, [Some(u64::from(uid)), Some(u64::from(gid))]),
                Err(_) => prop_assert!(parts.len() > 2 || parts.contains(&None)),
            }
        }
    }

    fn user(uid: u32, gid: u32, groups: &[u32]) -> User {
        let mut user = User::default();
        user.set_uid(uid).set_gid(gid).set_additional_gids(Some(groups.to_vec()));
        user
    }

    #[test]
    fn minus_one_is_refused_everywhere() {
        for (user, at) in [
            (user(u32::MAX, 0, &[]), "uid"),
            (user(0, u32::MAX, &[]), "gid"),
            (user(0, 0, &[1, u32::MAX]), "additionalGids[1]"),
        ] {
            let error = Identity::new(&user, "process.user").unwrap_err().to_string();
            assert!(error.starts_with(&format!("config.json: process.user.{at}: ")), "{error}");
        }
        assert!(Identity::new(&user(u32::MAX - 1, 1 << 31, &[]), "u").is_ok());
    }

    #[test]
    fn a_process_becomes_exactly_the_user() {
        in_child(|| {
            let mut asked = user(12345, 2345, &[30, 10, 20]);
            asked.set_umask(Some(0o027));
            Identity::new(&asked, "u").unwrap().assume().unwrap();
            assert_eq!(umask(Mode::empty()).bits(), 0o027);
            // Permitted survives for caps::apply, effective does not.
            let sets = cred::capget().unwrap();
            assert_eq!(sets.effective, 0);
            assert_ne!(sets.permitted, 0);
            assert!(cred::setresuid(0).is_err());
        });
    }

    #[test]
    fn stdio_changes_hands_but_dev_null_does_not() {
        in_child(|| {
            let null = File::options().read(true).write(true).open("/dev/null").unwrap();
            let before = null.metadata().unwrap().uid();
            let (reader, writer) = pipe().unwrap();
            chown_stdio([null.as_fd(), reader.as_fd(), writer.as_fd()], 4321).unwrap();
            assert_eq!(null.metadata().unwrap().uid(), before);
            assert_eq!(File::from(reader).metadata().unwrap().uid(), 4321);
        });
    }
}
