//! Resource limits.
//!
//! Promise: every asked limit, soft and hard, read back. A type that comes twice is an error (the
//! spec; the peers take the last). A hard limit that this host can't raise is cut to what is
//! possible, with a warning: the spec wants it so.
//!
//! Order: by the parent with prlimit(2) on the child's pid: after the child opened what it needs
//! (RLIMIT_NOFILE, RLIMIT_AS) and before it starts. It needs no change of ours and no undo.

use nix::errno::Errno;
use nix::unistd::Pid;
use oci_spec::runtime::{PosixRlimit, PosixRlimitType};

use super::json_path;
use crate::error::{Doing, Error, Result};
use crate::sys::sched::{RlimitPair, prlimit};

/// One limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Its name.
    pub kind: PosixRlimitType,
    /// Its value; `u64::MAX` is unlimited.
    pub value: RlimitPair,
}

/// Validates the value at the JSON path `path` (`process.rlimits`).
///
/// # Errors
/// A config error for a type that comes twice, or a soft limit over the hard one.
pub fn plan(rlimits: &[PosixRlimit], path: &str) -> Result<Vec<Limit>> {
    let mut seen = 0u32;
    rlimits
        .iter()
        .enumerate()
        .map(|(index, rlimit)| {
            let (kind, soft, hard) = (rlimit.typ(), rlimit.soft(), rlimit.hard());
            let at = |key: &str| json_path(path, &format!("[{index}].{key}"));
            if seen & 1 << number(kind) != 0 {
                return Err(Error::config(at("type"), format!("{kind} comes twice")));
            }
            seen |= 1 << number(kind);
            if soft > hard {
                let why = format!("{kind}: {soft} is over the hard limit {hard}");
                return Err(Error::config(at("soft"), why));
            }
            Ok(Limit { kind, value: RlimitPair { soft, hard } })
        })
        .collect()
}

/// Raises the hard limits of `pid` to what will be asked for, while there are rights to; 0 is this
/// process. What may not be raised is a warning, and [`apply`] then cuts it.
///
/// # Errors
/// `EPERM` where we may not change that process at all.
pub fn raise(pid: Pid, limits: &[Limit]) -> Result<()> {
    for limit in limits {
        let doing = || format!("raise {} of process {pid}", limit.kind);
        let now = prlimit(pid, number(limit.kind), None).doing(doing)?;
        if limit.value.hard > now.hard {
            apply_one(
                pid,
                Limit { value: RlimitPair { soft: now.soft, ..limit.value }, ..*limit },
            )?;
        }
    }
    Ok(())
}

/// Sets the limits of `pid`; 0 is this process.
///
/// # Errors
/// `EPERM` where we may not change that process at all, or a read-back that differs.
pub fn apply(pid: Pid, limits: &[Limit]) -> Result<()> {
    for limit in limits {
        apply_one(pid, *limit)?;
    }
    Ok(())
}

fn apply_one(pid: Pid, limit: Limit) -> Result<()> {
    let resource = number(limit.kind);
    let doing = || format!("set {} of process {pid}", limit.kind);
    let wanted = match prlimit(pid, resource, Some(limit.value)) {
        Err(Errno::EPERM) => {
            let now = prlimit(pid, resource, None).doing(doing)?;
            if limit.value.hard <= now.hard {
                return Err(Error::sys(doing(), Errno::EPERM));
            }
            let cut = RlimitPair { soft: limit.value.soft.min(now.hard), hard: now.hard };
            prlimit(pid, resource, Some(cut)).doing(doing)?;
            tracing::warn!(
                "{}: hard limit {} can't be raised above {} here (it takes CAP_SYS_RESOURCE)",
                limit.kind,
                limit.value.hard,
                now.hard
            );
            cut
        }
        other => {
            other.doing(doing)?;
            limit.value
        }
    };
    let now = prlimit(pid, resource, None).doing(doing)?;
    match now == wanted {
        true => Ok(()),
        false => Err(Error::Failed(format!("{}: asked for {wanted:?}, got {now:?}", doing()))),
    }
}

fn number(kind: PosixRlimitType) -> u32 {
    match kind {
        PosixRlimitType::RlimitCpu => libc::RLIMIT_CPU,
        PosixRlimitType::RlimitFsize => libc::RLIMIT_FSIZE,
        PosixRlimitType::RlimitData => libc::RLIMIT_DATA,
        PosixRlimitType::RlimitStack => libc::RLIMIT_STACK,
        PosixRlimitType::RlimitCore => libc::RLIMIT_CORE,
        PosixRlimitType::RlimitRss => libc::RLIMIT_RSS,
        PosixRlimitType::RlimitNproc => libc::RLIMIT_NPROC,
        PosixRlimitType::RlimitNofile => libc::RLIMIT_NOFILE,
        PosixRlimitType::RlimitMemlock => libc::RLIMIT_MEMLOCK,
        PosixRlimitType::RlimitAs => libc::RLIMIT_AS,
        PosixRlimitType::RlimitLocks => libc::RLIMIT_LOCKS,
        PosixRlimitType::RlimitSigpending => libc::RLIMIT_SIGPENDING,
        PosixRlimitType::RlimitMsgqueue => libc::RLIMIT_MSGQUEUE,
        PosixRlimitType::RlimitNice => libc::RLIMIT_NICE,
        PosixRlimitType::RlimitRtprio => libc::RLIMIT_RTPRIO,
        PosixRlimitType::RlimitRttime => libc::RLIMIT_RTTIME,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::testing::in_child;

    fn rlimits(json: serde_json::Value) -> Result<Vec<Limit>> {
        let parsed: Vec<PosixRlimit> = serde_json::from_value(json).unwrap();
        plan(&parsed, "process.rlimits")
    }

    #[test]
    fn a_type_that_comes_twice_is_an_error() {
        let one = serde_json::json!({"type": "RLIMIT_CORE", "soft": 1, "hard": 2});
        let error = rlimits(serde_json::json!([one, one])).unwrap_err().to_string();
        assert_eq!(error, "config.json: process.rlimits[1].type: RLIMIT_CORE comes twice");
    }

    #[test]
    fn soft_over_hard_is_an_error() {
        let bad = serde_json::json!([{"type": "RLIMIT_CORE", "soft": 3, "hard": 2}]);
        let error = rlimits(bad).unwrap_err().to_string();
        assert!(error.starts_with("config.json: process.rlimits[0].soft: "), "{error}");
    }

    #[test]
    fn all_sixteen_are_set_from_outside() {
        let names = [
            "CPU",
            "FSIZE",
            "DATA",
            "STACK",
            "CORE",
            "RSS",
            "NPROC",
            "NOFILE",
            "MEMLOCK",
            "AS",
            "LOCKS",
            "SIGPENDING",
            "MSGQUEUE",
            "NICE",
            "RTPRIO",
            "RTTIME",
        ];
        in_child(|| {
            let json: Vec<_> = names
                .iter()
                .map(|name| {
                    let kind = format!("RLIMIT_{name}");
                    let now =
                        prlimit(Pid::from_raw(0), number(kind.parse().unwrap()), None).unwrap();
                    let hard = now.hard.min(1 << 40);
                    serde_json::json!({"type": kind, "soft": now.soft.min(hard), "hard": hard})
                })
                .collect();
            let limits = rlimits(serde_json::Value::Array(json)).unwrap();
            assert_eq!(limits.len(), 16);
            apply(nix::unistd::getpid(), &limits).unwrap();
        });
    }

    #[test]
    fn a_hard_limit_out_of_reach_is_cut() {
        in_child(|| {
            let me = Pid::from_raw(0);
            let set = |soft, hard| Limit {
                kind: PosixRlimitType::RlimitNofile,
                value: RlimitPair { soft, hard },
            };
            apply(me, &[set(64, 128)]).unwrap();
            crate::sys::cred::setresuid(12345).unwrap();
            apply(me, &[set(200, 4096)]).unwrap();
            let now = prlimit(me, libc::RLIMIT_NOFILE, None).unwrap();
            assert_eq!(now, RlimitPair { soft: 128, hard: 128 });
        });
    }
}
