//! The five capability sets.
//!
//! Promise: after [`Sets::apply`] the kernel's bounding, effective, permitted, inheritable and
//! ambient sets are exactly the asked ones, read back with capget(2) and prctl(2). What this host
//! can't grant (it is not in our own bounding or permitted set) is left out with a warning, as the
//! spec wants; nothing is ever added (CVE-2022-29162: inheritable was filled uninvited).
//!
//! Order: [`Sets::limit_bounding`] while we still have `CAP_SETPCAP`, then the user change with
//! keepcaps ([`super::user::Identity::assume`]), then [`Sets::apply`]. Without no_new_privs the
//! seccomp filter is loaded before all of them, because it needs `CAP_SYS_ADMIN`.

use nix::errno::Errno;
use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities};

use super::json_path;
use crate::error::{Doing, Error, Result};
use crate::sys::cred::{self, CapSets};

/// The five sets as masks: bit n is capability n.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sets {
    /// The limit of what an exec can gain.
    pub bounding: u64,
    /// What the kernel checks.
    pub effective: u64,
    /// The limit of effective.
    pub permitted: u64,
    /// What survives an exec of a file that inherits it.
    pub inheritable: u64,
    /// What survives every exec of an ordinary file.
    pub ambient: u64,
}

impl Sets {
    /// Validates `caps`, the value at the JSON path `path` (`process.capabilities`). Absent sets,
    /// or no capabilities at all, are empty sets. `root` says whether they are for uid 0.
    ///
    /// # Errors
    /// A config error when effective asks for more than permitted: the kernel has no such state.
    pub fn new(caps: Option<&LinuxCapabilities>, root: bool, path: &str) -> Result<Self> {
        let Some(caps) = caps else { return Ok(Self::default()) };
        let mut sets = Self {
            bounding: mask(caps.bounding().as_ref()),
            effective: mask(caps.effective().as_ref()),
            permitted: mask(caps.permitted().as_ref()),
            inheritable: mask(caps.inheritable().as_ref()),
            ambient: mask(caps.ambient().as_ref()),
        };
        let beyond = sets.effective & !sets.permitted;
        if beyond != 0 {
            return Err(Error::config(
                json_path(path, "effective"),
                format!("{} is not in permitted", names(beyond)),
            ));
        }
        // The kernel keeps ambient within both; peers only warn, and managers rely on it.
        let beyond = sets.ambient & !(sets.permitted & sets.inheritable);
        if beyond != 0 {
            let words = format!(
                "{}: {} left out: an ambient capability must be permitted and inheritable",
                json_path(path, "ambient"),
                names(beyond)
            );
            // Root keeps its permitted set through every exec without them: nothing is lost, and
            // buildah, which asks so for every step, shows warnings among the step's own words.
            if root && beyond & !sets.effective == 0 {
                tracing::debug!("{words}");
            } else {
                tracing::warn!("{words}");
            }
            sets.ambient &= !beyond;
        }
        Ok(sets)
    }

    /// Takes out what this process does not have and so can't grant, with one warning.
    fn grantable(self) -> Result<(Self, CapSets, u64)> {
        let now = cred::capget().doing(|| "capget".to_owned())?;
        let bounding = bounding()?;
        let granted = Self {
            bounding: self.bounding & bounding,
            effective: self.effective & now.permitted,
            permitted: self.permitted & now.permitted,
            // The kernel adds to inheritable only from the bounding set.
            inheritable: self.inheritable & (bounding | now.inheritable),
            ambient: self.ambient & now.permitted & (bounding | now.inheritable),
        };
        Ok((granted, now, bounding))
    }

    /// Cuts the bounding set, and sets the inheritable one while the bounding set still has its
    /// capabilities. Returns what [`Sets::apply`] must be called on: the sets that this host can
    /// grant.
    ///
    /// # Errors
    /// `EPERM` without `CAP_SETPCAP`.
    pub fn limit_bounding(&self) -> Result<Self> {
        let (granted, now, bounding) = self.grantable()?;
        let missing = (self.bounding & !granted.bounding)
            | (self.permitted & !granted.permitted)
            | (self.inheritable & !granted.inheritable);
        if missing != 0 {
            tracing::warn!("{} left out: this host can't grant it", names(missing));
        }
        if now.inheritable != granted.inheritable {
            cred::capset(CapSets { inheritable: granted.inheritable, ..now })
                .doing(|| format!("capset inheritable {}", names(granted.inheritable)))?;
        }
        for cap in bits(bounding & !granted.bounding) {
            cred::bounding_drop(cap)
                .doing(|| format!("drop {} from the bounding set", name(cap)))?;
        }
        Ok(granted)
    }

    /// These, and `CAP_SYS_ADMIN` where this process has it, for loading a filter.
    ///
    /// # Errors
    /// The errno of capget(2).
    pub fn with_admin(&self) -> Result<Self> {
        let now = cred::capget().doing(|| "capget".to_owned())?;
        let admin = now.permitted & (1 << number(Capability::SysAdmin));
        Ok(Self { permitted: self.permitted | admin, effective: self.effective | admin, ..*self })
    }

    /// Goes from [`Sets::with_admin`] down to these, with one system call, since a filter may be
    /// in force that knows no other.
    ///
    /// # Errors
    /// The filter refuses capset(2).
    pub fn go_down(&self) -> Result<()> {
        cred::capset(CapSets {
            effective: self.effective,
            permitted: self.permitted,
            inheritable: self.inheritable,
        })
        .doing(|| format!("capset permitted {}", names(self.permitted)))
    }

    /// Sets effective, permitted, inheritable and ambient, and reads all five back.
    ///
    /// # Errors
    /// `EPERM`, or a read-back that differs.
    pub fn apply(&self) -> Result<()> {
        let wanted = CapSets {
            effective: self.effective,
            permitted: self.permitted,
            inheritable: self.inheritable,
        };
        cred::capset(wanted).doing(|| format!("capset permitted {}", names(self.permitted)))?;
        match cred::ambient_clear() {
            // Before Linux 4.3 there is no ambient set.
            Ok(()) | Err(Errno::EINVAL) => {}
            Err(errno) => return Err(Error::sys("clear the ambient capabilities", errno)),
        }
        for cap in bits(self.ambient) {
            cred::ambient_raise(cap).doing(|| format!("raise ambient {}", name(cap)))?;
        }
        let now = current()?;
        if now == *self {
            return Ok(());
        }
        Err(Error::Failed(format!(
            "asked for capabilities {self:x?}, but the process has {now:x?}"
        )))
    }
}

/// The sets that the calling process has.
///
/// # Errors
/// The errno of the calls.
pub fn current() -> Result<Sets> {
    let now = cred::capget().doing(|| "capget".to_owned())?;
    let mut ambient = 0;
    // The ambient set is within the permitted one.
    for cap in bits(now.permitted) {
        if cred::ambient_has(cap).unwrap_or(false) {
            ambient |= 1 << cap;
        }
    }
    Ok(Sets {
        bounding: bounding()?,
        effective: now.effective,
        permitted: now.permitted,
        inheritable: now.inheritable,
        ambient,
    })
}

/// The bounding set, up to the kernel's last capability, which answers EINVAL to the next.
fn bounding() -> Result<u64> {
    let mut set = 0;
    for cap in 0..64 {
        match cred::bounding_has(cap) {
            Ok(true) => set |= 1 << cap,
            Ok(false) => {}
            Err(Errno::EINVAL) => break,
            Err(errno) => return Err(Error::sys("prctl PR_CAPBSET_READ", errno)),
        }
    }
    Ok(set)
}

/// `CAP_NET_ADMIN`, `net_admin` and the like, for `exec --cap`.
pub fn parse(name: &str) -> Option<Capability> {
    let upper = name.to_ascii_uppercase();
    upper.strip_prefix("CAP_").unwrap_or(&upper).parse().ok()
}

fn mask(caps: Option<&Capabilities>) -> u64 {
    caps.into_iter().flatten().fold(0, |mask, cap| mask | 1 << number(*cap))
}

fn bits(mask: u64) -> impl Iterator<Item = u8> {
    (0..64).filter(move |bit| mask & (1 << bit) != 0)
}

fn names(mask: u64) -> String {
    bits(mask).map(name).collect::<Vec<_>>().join(", ")
}

fn name(cap: u8) -> String {
    caps::all()
        .into_iter()
        .find(|known| known.index() == cap)
        .map_or_else(|| format!("capability {cap}"), |known| known.to_string())
}

/// The kernel's number (`linux/capability.h`).
fn number(cap: Capability) -> u8 {
    match cap {
        Capability::Chown => 0,
        Capability::DacOverride => 1,
        Capability::DacReadSearch => 2,
        Capability::Fowner => 3,
        Capability::Fsetid => 4,
        Capability::Kill => 5,
        Capability::Setgid => 6,
        Capability::Setuid => 7,
        Capability::Setpcap => 8,
        Capability::LinuxImmutable => 9,
        Capability::NetBindService => 10,
        Capability::NetBroadcast => 11,
        Capability::NetAdmin => 12,
        Capability::NetRaw => 13,
        Capability::IpcLock => 14,
        Capability::IpcOwner => 15,
        Capability::SysModule => 16,
        Capability::SysRawio => 17,
        Capability::SysChroot => 18,
        Capability::SysPtrace => 19,
        Capability::SysPacct => 20,
        Capability::SysAdmin => 21,
        Capability::SysBoot => 22,
        Capability::SysNice => 23,
        Capability::SysResource => 24,
        Capability::SysTime => 25,
        Capability::SysTtyConfig => 26,
        Capability::Mknod => 27,
        Capability::Lease => 28,
        Capability::AuditWrite => 29,
        Capability::AuditControl => 30,
        Capability::Setfcap => 31,
        Capability::MacOverride => 32,
        Capability::MacAdmin => 33,
        Capability::Syslog => 34,
        Capability::WakeAlarm => 35,
        Capability::BlockSuspend => 36,
        Capability::AuditRead => 37,
        Capability::Perfmon => 38,
        Capability::Bpf => 39,
        Capability::CheckpointRestore => 40,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::sys::testing::in_child;

    #[test]
    fn numbers_are_the_ones_of_the_caps_crate() {
        let all = caps::all();
        assert_eq!(all.len(), 41);
        for cap in all {
            let ours = parse(&cap.to_string()).unwrap();
            assert_eq!(number(ours), cap.index(), "{cap}");
            assert_eq!(format!("CAP_{ours}"), cap.to_string());
        }
        assert_eq!(parse("net_admin"), Some(Capability::NetAdmin));
        assert_eq!(parse("CAP_NOSUCH"), None);
    }

    fn sets(bounding: &[Capability], rest: &[Capability]) -> LinuxCapabilities {
        let set = |caps: &[Capability]| Some(caps.iter().copied().collect::<HashSet<_>>());
        let mut caps = LinuxCapabilities::default();
        caps.set_bounding(set(bounding)).set_effective(set(rest)).set_permitted(set(rest));
        caps.set_inheritable(None).set_ambient(None);
        caps
    }

    #[test]
    fn effective_beyond_permitted_is_a_config_error() {
        let mut caps = sets(&[Capability::Kill], &[]);
        caps.set_effective(Some(HashSet::from([Capability::Kill])));
        let error = Sets::new(Some(&caps), false, "process.capabilities").unwrap_err().to_string();
        assert_eq!(
            error,
            "config.json: process.capabilities.effective: CAP_KILL is not in permitted"
        );
    }

    #[test]
    fn ambient_stays_within_permitted_and_inheritable() {
        let mut caps = sets(&[Capability::Kill], &[Capability::Kill]);
        caps.set_ambient(Some(HashSet::from([Capability::Kill])));
        assert_eq!(Sets::new(Some(&caps), false, "p").unwrap().ambient, 0);
        caps.set_inheritable(Some(HashSet::from([Capability::Kill])));
        assert_eq!(Sets::new(Some(&caps), false, "p").unwrap().ambient, 1 << 5);
    }

    #[test]
    fn the_kernel_gets_exactly_the_five_sets() {
        in_child(|| {
            let (kill, net, chown) = (1 << 5, 1 << 10, 1 << 0);
            let asked = Sets {
                bounding: kill | net,
                effective: kill,
                permitted: kill | net,
                // chown: inheritable, yet not in the bounding set.
                inheritable: net | chown,
                ambient: net,
            };
            let granted = asked.limit_bounding().unwrap();
            let mut user = oci_spec::runtime::User::default();
            user.set_uid(1234).set_gid(1234);
            super::super::user::Identity::new(&user, "u").unwrap().assume().unwrap();
            granted.apply().unwrap();
            assert_eq!(current().unwrap(), asked);
        });
    }

    #[test]
    fn no_capabilities_means_none() {
        in_child(|| {
            let granted = Sets::new(None, false, "p").unwrap().limit_bounding().unwrap();
            granted.apply().unwrap();
            assert_eq!(current().unwrap(), Sets::default());
        });
    }

    #[test]
    fn what_the_host_lacks_is_left_out_and_the_rest_applied() {
        in_child(|| {
            cred::bounding_drop(13).unwrap();
            let now = cred::capget().unwrap();
            let without = |set: u64| set & !(1 << 13);
            cred::capset(CapSets {
                effective: without(now.effective),
                permitted: without(now.permitted),
                inheritable: 0,
            })
            .unwrap();
            let all = 1 << 13 | 1 << 5;
            let asked = Sets { bounding: all, effective: all, permitted: all, ..Sets::default() };
            let granted = asked.limit_bounding().unwrap();
            granted.apply().unwrap();
            let got = current().unwrap();
            assert_eq!((got.bounding, got.effective, got.permitted), (1 << 5, 1 << 5, 1 << 5));
        });
    }
}
