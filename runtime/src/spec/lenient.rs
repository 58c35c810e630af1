//! What the types of oci-spec refuse although the spec, or the Go programs that write and read
//! configs, allow it. Works on a tree, only after the types have refused the text.
//!
//! - `null` stands for an absent member anywhere, as in Go.
//! - A capability that does not exist is a warning (config.md, linux process: "an unknown
//!   capability MUST be logged as a warning"), and dropped.
//! - `process.user` may be absent: it is root.
//! - Two scheduler flags have other names in the types than in the spec.
//! - An empty string where Go marshals the zero value of an optional enum.
//! - Sections of other platforms are none of our business.

use std::collections::BTreeSet;

use oci_spec::runtime::Capability;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::Lost;

/// What a tree is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A whole config.
    Spec,
    /// The process of `exec`.
    Process,
    /// The resources of `update`.
    Resources,
}

impl Kind {
    /// What to call the whole of it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Spec => "config",
            Self::Process => "process",
            Self::Resources => "resources",
        }
    }
}

/// The capability sets of a process.
const SETS: [&str; 5] = ["bounding", "effective", "permitted", "inheritable", "ambient"];

/// Sections of other platforms.
const FOREIGN: [&str; 6] = ["solaris", "windows", "vm", "zos", "freebsd", "hwConfig"];

/// Scheduler flags, as the spec names them and as oci-spec 0.10 does.
const SCHEDULER_FLAGS: [(&str, &str); 2] = [
    ("SCHED_FLAG_RESET_ON_FORK", "SCHED_RESET_ON_FORK"),
    ("SCHED_FLAG_DL_OVERRUN", "SCHED_FLAG_D_L_OVERRUN"),
];

/// Rewrites a tree to what the types accept; what is left out is told to `lost`.
pub(super) fn forgive(tree: &mut Value, kind: Kind, lost: Lost) {
    drop_nulls(tree);
    let Value::Object(members) = tree else { return };
    match kind {
        Kind::Process => process(members, lost),
        Kind::Resources => resources(members),
        Kind::Spec => {
            for section in FOREIGN {
                members.remove(section);
            }
            if let Some(Value::Object(members)) = members.get_mut("process") {
                process(members, lost);
            }
            if let Some(Value::Object(members)) = tree.pointer_mut("/linux/resources") {
                resources(members);
            }
        }
    }
}

/// Removes null members at any depth; elements of lists stay, since others would move.
fn drop_nulls(tree: &mut Value) {
    match tree {
        Value::Array(values) => values.iter_mut().for_each(drop_nulls),
        Value::Object(members) => {
            members.retain(|_, value| !value.is_null());
            members.values_mut().for_each(drop_nulls);
        }
        _ => {}
    }
}

fn process(members: &mut Map<String, Value>, lost: Lost) {
    members.entry("user").or_insert_with(|| Value::Object(Map::new()));
    if let Some(Value::Object(sets)) = members.get_mut("capabilities") {
        capabilities(sets, lost);
    }
    if let Some(Value::Object(affinity)) = members.get_mut("execCPUAffinity") {
        affinity.retain(|_, value| !is_empty_text(value));
    }
    let flags = members.get_mut("scheduler").and_then(|scheduler| scheduler.get_mut("flags"));
    for flag in flags.and_then(Value::as_array_mut).into_iter().flatten() {
        let ours = SCHEDULER_FLAGS.iter().find(|(spec, _)| flag.as_str() == Some(spec));
        if let Some((_, ours)) = ours {
            *flag = Value::from(*ours);
        }
    }
}

fn capabilities(sets: &mut Map<String, Value>, lost: Lost) {
    let mut unknown = BTreeSet::new();
    for set in SETS {
        let Some(Value::Array(names)) = sets.get_mut(set) else { continue };
        names.retain(|name| {
            let Some(text) = name.as_str() else { return true };
            if Capability::deserialize(name).is_ok() {
                return true;
            }
            unknown.insert(text.to_owned());
            false
        });
    }
    for name in unknown {
        lost(&format!("process.capabilities: {name:?} is not a capability, ignored"));
    }
}

fn resources(members: &mut Map<String, Value>) {
    for device in members.get_mut("devices").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Value::Object(device) = device {
            device.retain(|key, value| key != "type" || !is_empty_text(value));
        }
    }
}

fn is_empty_text(value: &Value) -> bool {
    value.as_str().is_some_and(str::is_empty)
}
