//! The device rules as `DeviceAllow`, where they are a list of what is allowed. Pure.
//!
//! systemd's program is attached beside ours, and the kernel asks both: the list must say exactly
//! what the rules say. Where it can't (all devices but some, one minor number of every major) there
//! is none, `DevicePolicy` stays `auto`, which allows everything, and our program decides alone.
//!
//! What systemd makes of an entry is read off its `bpf-devices.c`: a request passes if one entry has
//! the device and all of its accesses, whereas in our rules opening for reading and writing may be
//! allowed by two. `/dev/char/1:3` and `char-136` are numbers, which need neither a node nor a
//! driver, since systemd 240.

use super::value::{Properties, Value};
use crate::cgroup::devices::{Access, Device, Kind, Rules};

/// Before, a node that the host does not have was left out of the list.
const SINCE: u32 = 240;
/// systemd's program has up to 7 instructions for each, and kernels before 5.2 take 4096 in all.
const LONGEST: usize = 512;
/// The kernel's: `MINORBITS` is 20, and a `dev_t` has 32 bits.
const MAJORS: u32 = 1 << 12;
const MINORS: u32 = 1 << 20;

/// The list and the policy that makes it one; nothing when the rules are no list.
pub(super) fn properties(rules: &Rules, version: u32) -> Properties {
    let Some(list) = list(rules).filter(|_| version >= SINCE) else { return Properties::new() };
    let list = list.into_iter().map(|(node, access)| (node, access.to_string())).collect();
    // In this order: see https://github.com/opencontainers/runc/issues/4568.
    vec![
        ("DeviceAllow".to_owned(), Value::Pairs(list)),
        ("DevicePolicy".to_owned(), Value::Text("strict".to_owned())),
    ]
}

/// What is allowed, in systemd's words.
pub(crate) fn list(rules: &Rules) -> Option<Vec<(String, Access)>> {
    if rules.default_allow || rules.rules.len() > LONGEST {
        return None;
    }
    let allowed = rules.exceptions().ok()?.list;
    let whole = |device: &Device| {
        let wider = allowed.iter().filter(|(other, _)| other.covers(device));
        wider.map(|(_, access)| *access).reduce(Access::or)
    };
    allowed.iter().map(|(device, _)| Some((node(device)?, whole(device)?))).collect()
}

fn node(device: &Device) -> Option<String> {
    let kind = if device.kind == Kind::Block { "block" } else { "char" };
    match (device.major, device.minor) {
        (None, None) => Some(format!("{kind}-*")),
        (Some(major), None) if major < MAJORS => Some(format!("{kind}-{major}")),
        (Some(major), Some(minor)) if major < MAJORS && minor < MINORS => {
            Some(format!("/dev/{kind}/{major}:{minor}"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const DEFAULT: &str = "char-* m, block-* m, /dev/char/1:3 rwm, /dev/char/1:8 rwm, \
        /dev/char/1:7 rwm, /dev/char/5:0 rwm, /dev/char/1:5 rwm, /dev/char/1:9 rwm, char-136 rwm, \
        /dev/char/5:2 rwm, /dev/char/10:200 rwm";

    fn rules(json: serde_json::Value) -> Rules {
        Rules::new(&serde_json::from_value::<Vec<_>>(json).unwrap(), &[]).unwrap()
    }

    fn told(json: serde_json::Value) -> Option<String> {
        let words = |(node, access)| format!("{node} {access}");
        Some(list(&rules(json))?.into_iter().map(words).collect::<Vec<_>>().join(", "))
    }

    #[test]
    fn what_is_a_list_is_told() {
        let deny = json!({"allow": false, "access": "rwm"});
        let allow = |rest: serde_json::Value| {
            let mut rule = json!({"allow": true});
            rule.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
            rule
        };
        assert_eq!(told(json!([])).unwrap(), DEFAULT);
        for (rule, first) in [
            // Making nodes is allowed anyway.
            (json!({"type": "b", "major": 8, "minor": 1, "access": "r"}), "/dev/block/8:1 rm, "),
            (json!({"type": "b", "major": 8, "access": "rw"}), "block-8 rwm, "),
            (json!({"type": "b", "access": "rwm"}), "block-* rwm, "),
        ] {
            let told = told(json!([deny, allow(rule)])).unwrap();
            let rest = if first.starts_with("block-*") {
                DEFAULT.replace("block-* m, ", "")
            } else {
                DEFAULT.to_owned()
            };
            assert_eq!(told, format!("{first}{rest}"));
        }
    }

    /// Opening for both must pass at one entry.
    #[test]
    fn an_entry_has_what_wider_ones_allow() {
        let told = told(json!([
            {"allow": true, "type": "b", "access": "r"},
            {"allow": true, "type": "b", "major": 8, "minor": 1, "access": "w"},
        ]));
        let told = told.unwrap();
        assert!(told.starts_with("block-* rm, /dev/block/8:1 rwm, "), "{told}");
    }

    #[test]
    fn what_is_no_list_is_not_told() {
        for (what, json) in [
            ("everything", json!([{"allow": true, "access": "rwm"}])),
            (
                "all but one",
                json!([{"allow": true, "access": "rwm"},
                    {"allow": false, "type": "c", "major": 1, "minor": 11, "access": "rwm"}]),
            ),
            (
                "a hole",
                json!([{"allow": true, "type": "c", "major": 1, "access": "rwm"},
                    {"allow": false, "type": "c", "major": 1, "minor": 11, "access": "w"}]),
            ),
            ("every major", json!([{"allow": true, "type": "c", "minor": 3, "access": "r"}])),
            ("no device", json!([{"allow": true, "type": "c", "major": 4096, "access": "r"}])),
            (
                "no device",
                json!([{"allow": true, "type": "b", "major": 8, "minor": 1 << 20, "access": "r"}]),
            ),
        ] {
            assert_eq!(told(json), None, "{what}");
        }
        let many = |count: usize| {
            let one =
                |n| json!({"allow": true, "type": "b", "major": 8, "minor": n, "access": "r"});
            list(&rules((0..count).map(one).collect()))
        };
        // The default ones count, too.
        assert!(many(LONGEST - 11).is_some() && many(LONGEST - 10).is_none());
    }

    #[test]
    fn an_old_systemd_is_told_nothing() {
        assert_eq!(properties(&rules(json!([])), 239), Properties::new());
        let names = |(name, _): &(String, Value)| name.clone();
        let told: Vec<_> = properties(&rules(json!([])), 240).iter().map(names).collect();
        assert_eq!(told, ["DeviceAllow", "DevicePolicy"]);
    }
}
