//! What is fuzzed: functions of bytes that panic when an invariant does not hold.
//!
//! Each says more than "no panic": what is read back is what was written, what is accepted twice
//! is the same, another implementation agrees. `fuzz/` drives them with libFuzzer, which watches
//! memory and time too; the unit tests replay `fuzz/corpus` and mutations of it on any machine.

#![allow(clippy::unwrap_used, clippy::panic, reason = "to panic is how a target tells")]

mod config;
mod limits;
mod lines;
mod mounts;
#[path = "../../../fuzz/shared.rs"]
mod shared;
mod units;
mod words;

pub use crate::seccomp::book::fuzz as seccomp;
pub use config::{config, process, state, sync};
pub use limits::{cgroup_path, devices, resources};
pub use lines::{mountinfo, passwd};
pub use mounts::mount_options;
use shared::{Target, json_is_stable};
pub use units::slices;
pub use words::{ids, options, units, users};

/// All of this crate.
pub const TARGETS: &[Target] = &[
    ("config", config),
    ("process", process),
    ("state", state),
    ("sync", sync),
    ("mount_options", mount_options),
    ("seccomp", seccomp),
    ("cgroup_path", cgroup_path),
    ("slices", slices),
    ("resources", resources),
    ("devices", devices),
    ("mountinfo", mountinfo),
    ("passwd", passwd),
    ("users", users),
    ("ids", ids),
    ("units", units),
    ("options", options),
];

#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    use super::{TARGETS, replay};

    #[test]
    fn the_corpus_and_its_mutations_keep_the_invariants() {
        replay::all(TARGETS);
    }
}
