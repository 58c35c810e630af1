//! Which devices a container may use: `linux.resources.devices` as a list that is evaluated.
//!
//! The rules apply in order and the last one that speaks about a device and an access decides.
//! After the user's rules come runc's default ones, which managers rely on: making any node, and
//! using the harmless devices that every container has. With no rule at all everything else is
//! denied. cgroup v2 gets the list as a BPF program ([`super::device_program`]). The v1 files and
//! systemd's `DeviceAllow` ([`super::systemd::allow_list`]) know only a default and exceptions to it:
//! what they can't say (a hole in a wildcard) is an error on v1, and systemd is told nothing then;
//! it is never a silent allow.

use std::collections::HashMap;
use std::fmt::{self, Write as _};

use oci_spec::runtime::{LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType};

use super::device_index::Index;
use crate::error::{Error, Result};

/// Character or block; the numbers are the kernel's `BPF_DEVCG_DEV_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `b`
    Block = 1,
    /// `c`
    Char = 2,
}

/// A set of accesses: the kernel's `BPF_DEVCG_ACC_*` bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access(u8);

impl Access {
    /// Making the node.
    pub const MKNOD: Self = Self(1);
    /// `rwm`
    pub const ALL: Self = Self(7);

    fn parse(text: &str) -> Option<Self> {
        text.bytes()
            .try_fold(0, |bits, letter| match letter {
                b'm' => Some(bits | 1),
                b'r' => Some(bits | 2),
                b'w' => Some(bits | 4),
                _ => None,
            })
            .filter(|bits| *bits != 0)
            .map(Self)
    }

    /// The kernel's bits.
    pub fn bits(self) -> u8 {
        self.0
    }

    /// What either allows.
    pub(super) fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    fn has(self, other: Self) -> bool {
        other.0 & !self.0 == 0
    }

    fn overlaps(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (bit, letter) in [(2, 'r'), (4, 'w'), (1, 'm')] {
            if self.0 & bit != 0 {
                f.write_char(letter)?;
            }
        }
        Ok(())
    }
}

/// What a rule is about. `None` is every number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Device {
    /// Character or block.
    pub kind: Kind,
    /// Major number.
    pub major: Option<u32>,
    /// Minor number.
    pub minor: Option<u32>,
}

impl Device {
    /// Whether every device of `other` is one of `self`.
    pub(super) fn covers(&self, other: &Self) -> bool {
        let part = |mine: Option<u32>, its: Option<u32>| mine.is_none() || mine == its;
        self.kind == other.kind && part(self.major, other.major) && part(self.minor, other.minor)
    }

    pub(super) fn overlaps(&self, other: &Self) -> bool {
        let part = |a: Option<u32>, b: Option<u32>| a.is_none() || b.is_none() || a == b;
        self.kind == other.kind && part(self.major, other.major) && part(self.minor, other.minor)
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |n: Option<u32>| n.map_or_else(|| "*".to_owned(), |n| n.to_string());
        let kind = if self.kind == Kind::Block { 'b' } else { 'c' };
        write!(f, "{kind} {}:{}", number(self.major), number(self.minor))
    }
}

/// Allow or deny these accesses to these devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Allow or deny.
    pub allow: bool,
    /// To which devices.
    pub device: Device,
    /// Which accesses.
    pub access: Access,
    /// Its place in `linux.resources.devices`; `None` for a default rule.
    index: Option<usize>,
}

/// The list, without the rules that change nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// What happens when no rule speaks.
    pub default_allow: bool,
    /// In order; the last one that speaks decides.
    pub rules: Vec<Rule>,
}

/// The rules as a default and the exceptions to it, whose order does not matter: what a v1 devices
/// group and systemd are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exceptions {
    /// The default.
    pub default_allow: bool,
    /// To which devices which accesses are allowed, or denied when the default is to allow; each
    /// is there once.
    pub list: Vec<(Device, Access)>,
}

impl Exceptions {
    /// Lines of `devices.allow`, or of `devices.deny` when the default is to allow.
    pub fn lines(&self) -> Vec<String> {
        self.list.iter().map(|(device, access)| format!("{device} {access}")).collect()
    }
}

/// The node's path (a device of the configuration at the same path replaces the rule too), its
/// numbers and accesses.
type Default = (&'static str, Kind, Option<u32>, Option<u32>, Access);

const DEFAULTS: [Default; 11] = [
    ("", Kind::Char, None, None, Access::MKNOD),
    ("", Kind::Block, None, None, Access::MKNOD),
    ("/dev/null", Kind::Char, Some(1), Some(3), Access::ALL),
    ("/dev/random", Kind::Char, Some(1), Some(8), Access::ALL),
    ("/dev/full", Kind::Char, Some(1), Some(7), Access::ALL),
    ("/dev/tty", Kind::Char, Some(5), Some(0), Access::ALL),
    ("/dev/zero", Kind::Char, Some(1), Some(5), Access::ALL),
    ("/dev/urandom", Kind::Char, Some(1), Some(9), Access::ALL),
    // Pseudo terminals and their ptmx.
    ("", Kind::Char, Some(136), None, Access::ALL),
    ("", Kind::Char, Some(5), Some(2), Access::ALL),
    // /dev/net/tun: VPN images rely on it; runc dropped it once and had to put it back.
    ("", Kind::Char, Some(10), Some(200), Access::ALL),
];

impl Rules {
    /// The user's rules, then the default ones. `nodes` is `linux.devices`.
    ///
    /// # Errors
    /// A bad type, number or access, with its JSON path.
    pub fn new(rules: &[LinuxDeviceCgroup], nodes: &[LinuxDevice]) -> Result<Self> {
        let mut list = List::default();
        for (index, rule) in rules.iter().enumerate() {
            list.push_user(rule, index)?;
        }
        for (path, kind, major, minor, access) in DEFAULTS {
            let replaced = |node: &LinuxDevice| node.path().as_os_str() == path;
            if path.is_empty() || !nodes.iter().any(replaced) {
                let device = Device { kind, major, minor };
                list.push(Rule { allow: true, device, access, index: None });
            }
        }
        let rules = list.rules.into_iter().flatten().collect();
        Ok(Self { default_allow: list.default_allow, rules })
    }

    /// Everything is allowed, by every rule.
    pub fn allows_all(&self) -> bool {
        self.default_allow && self.rules.is_empty()
    }

    /// What can be said without an order.
    ///
    /// # Errors
    /// A rule that takes some devices out of an earlier wildcard, with its JSON path.
    pub fn exceptions(&self) -> Result<Exceptions> {
        let mut kept: Vec<(Device, Access)> = Vec::with_capacity(self.rules.len());
        let mut places: HashMap<Device, usize> = HashMap::new();
        for rule in &self.rules {
            if rule.allow != self.default_allow {
                let place = *places.entry(rule.device).or_insert(kept.len());
                match kept.get_mut(place) {
                    Some((_, access)) => access.0 |= rule.access.0,
                    None => kept.push((rule.device, rule.access)),
                }
                continue;
            }
            for (device, access) in &mut kept {
                if rule.device.covers(device) {
                    access.0 &= !rule.access.0;
                } else if rule.device.overlaps(device) && rule.access.overlaps(*access) {
                    let path = rule.index.map_or_else(
                        || "linux.resources.devices".to_owned(),
                        |index| format!("linux.resources.devices[{index}]"),
                    );
                    return Err(Error::config(
                        path,
                        format!(
                            "cgroup v1 can't take {} {} out of {device} {access}",
                            rule.device, rule.access
                        ),
                    ));
                }
            }
        }
        kept.retain(|(_, access)| access.0 != 0);
        Ok(Exceptions { default_allow: self.default_allow, list: kept })
    }

    /// What the list says about one request: the meaning that both translations must keep.
    pub fn allows(&self, kind: Kind, major: u32, minor: u32, access: u8) -> bool {
        let device = Device { kind, major: Some(major), minor: Some(minor) };
        [1, 2, 4].into_iter().filter(|bit| access & bit != 0).all(|bit| {
            let speaks = |rule: &&Rule| rule.device.covers(&device) && rule.access.0 & bit != 0;
            self.rules.iter().rev().find(speaks).map_or(self.default_allow, |rule| rule.allow)
        })
    }
}

/// [`Rules`] while they are made.
#[derive(Debug, Default)]
struct List {
    default_allow: bool,
    /// What is gone leaves its place empty.
    rules: Vec<Option<Rule>>,
    index: Index,
}

impl List {
    fn push_user(&mut self, rule: &LinuxDeviceCgroup, index: usize) -> Result<()> {
        let at = |field: &str| format!("linux.resources.devices[{index}].{field}");
        let number = |value: Option<i64>, field| match value {
            // -1 is how older tools write "every".
            None | Some(-1) => Ok(None),
            Some(value) => u32::try_from(value)
                .map(Some)
                .map_err(|_| Error::config(at(field), format!("{value} is not a device number"))),
        };
        let (major, minor) = (number(rule.major(), "major")?, number(rule.minor(), "minor")?);
        let text = rule.access().as_deref().unwrap_or_default();
        let access = Access::parse(text).ok_or_else(|| {
            Error::config(at("access"), format!("{text:?} is not made of the letters r, w and m"))
        })?;
        let kinds: &[Kind] = match rule.typ().unwrap_or(LinuxDeviceType::A) {
            LinuxDeviceType::A => &[Kind::Char, Kind::Block],
            LinuxDeviceType::C => &[Kind::Char],
            LinuxDeviceType::B => &[Kind::Block],
            other => {
                let why = format!("{:?} is not one of a, b, c", other.as_str());
                return Err(Error::config(at("type"), why));
            }
        };
        let everything = (major, minor, access) == (None, None, Access::ALL) && kinds.len() == 2;
        if everything {
            *self = Self { default_allow: rule.allow(), ..Self::default() };
            return Ok(());
        }
        for &kind in kinds {
            let device = Device { kind, major, minor };
            self.push(Rule { allow: rule.allow(), device, access, index: Some(index) });
        }
        Ok(())
    }

    fn push(&mut self, new: Rule) {
        let alive = |place: usize| matches!(self.rules.get(place), Some(Some(_)));
        let places = self.index.meeting(new.device, alive);
        let met = |place: &usize| Some((*place, self.rules.get(*place).copied().flatten()?));
        let met: Vec<(usize, Rule)> = places.iter().filter_map(met).collect();
        // Nothing earlier says otherwise about any of it, so order does not matter (yet).
        let undisputed =
            !met.iter().any(|(_, old)| old.allow != new.allow && old.access.overlaps(new.access));
        if undisputed {
            if self.default_allow == new.allow {
                return;
            }
            let mut same = met.iter().filter(|(_, old)| old.allow == new.allow);
            if same.any(|(_, old)| old.device.covers(&new.device) && old.access.has(new.access)) {
                return;
            }
            let mut same = met.iter().filter(|(_, old)| old.allow == new.allow);
            if let Some((place, _)) = same.find(|(_, old)| old.device == new.device) {
                let old = self.rules.get_mut(*place).and_then(Option::as_mut);
                return old.into_iter().for_each(|old| old.access.0 |= new.access.0);
            }
        }
        for (place, old) in met {
            if new.device.covers(&old.device) && new.access.has(old.access) {
                self.rules.get_mut(place).into_iter().for_each(|old| *old = None);
            }
        }
        self.index.insert(new.device, self.rules.len());
        self.rules.push(Some(new));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(json: &str) -> Result<Rules> {
        Rules::new(&serde_json::from_str::<Vec<LinuxDeviceCgroup>>(json).unwrap(), &[])
    }

    #[test]
    fn dockers_rules_become_one_deny_and_thirteen_allows() {
        let docker: serde_json::Value =
            serde_json::from_str(include_str!("../../testdata/docker-resources.json")).unwrap();
        let list = rules(&docker["devices"].to_string()).unwrap();
        let exceptions = list.exceptions().unwrap();
        assert!(!exceptions.default_allow);
        assert_eq!(
            exceptions.lines(),
            [
                "c 1:3 rwm",
                "c 1:8 rwm",
                "c 1:7 rwm",
                "c 5:0 rwm",
                "c 1:5 rwm",
                "c 1:9 rwm",
                "c 5:1 rwm",
                "c 136:* rwm",
                "c 5:2 rwm",
                "c *:* m",
                "b *:* m",
                "c 10:200 rwm",
            ]
        );
    }

    #[test]
    fn a_privileged_container_is_not_restricted_at_all() {
        let list =
            rules(r#"[{"allow": false, "access": "rwm"}, {"allow": true, "access": "rwm"}]"#);
        assert!(list.unwrap().allows_all());
    }

    #[test]
    fn without_rules_only_the_defaults_are_allowed() {
        let list = rules("[]").unwrap();
        assert!(list.allows(Kind::Char, 1, 3, 7));
        assert!(list.allows(Kind::Block, 8, 0, 1));
        assert!(!list.allows(Kind::Block, 8, 0, 2));
        assert!(!list.allows(Kind::Char, 5, 1, 2), "the host's console is not a default");
    }

    #[test]
    fn a_hole_in_a_wildcard_is_refused_for_v1_and_kept_for_v2() {
        let list = rules(
            r#"[{"allow": true, "type": "c", "major": 1, "access": "rwm"},
                {"allow": false, "type": "c", "major": 1, "minor": 11, "access": "w"}]"#,
        )
        .unwrap();
        assert!(list.allows(Kind::Char, 1, 11, 2) && !list.allows(Kind::Char, 1, 11, 4));
        assert_eq!(
            list.exceptions().unwrap_err().to_string(),
            "config.json: linux.resources.devices[1]: cgroup v1 can't take c 1:11 w out of c 1:* rwm"
        );
    }

    #[test]
    fn the_default_rule_of_a_replaced_node_is_dropped() {
        let node: LinuxDevice =
            serde_json::from_str(r#"{"path": "/dev/null", "type": "c", "major": 9, "minor": 9}"#)
                .unwrap();
        let list = Rules::new(&[], &[node]).unwrap();
        assert!(!list.allows(Kind::Char, 1, 3, 2) && list.allows(Kind::Char, 1, 5, 2));
    }

    #[test]
    fn bad_rules_are_named() {
        for (json, path) in [
            (r#"[{"allow": true, "type": "c", "access": "rx"}]"#, "devices[0].access"),
            (r#"[{"allow": true, "type": "c"}]"#, "devices[0].access"),
            (r#"[{"allow": true, "type": "p", "access": "r"}]"#, "devices[0].type"),
            (r#"[{"allow": true, "major": -2, "access": "r"}]"#, "devices[0].major"),
            (r#"[{"allow": true, "minor": 4294967296, "access": "r"}]"#, "devices[0].minor"),
        ] {
            let message = rules(json).unwrap_err().to_string();
            assert!(message.contains(&format!("linux.resources.{path}: ")), "{message}");
        }
    }
}
