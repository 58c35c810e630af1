//! The shim alone: real containers, and a containerd that is played (`corten_integration::shim`).
//!
//! Each comment is a promise of the shim contract. `SHIM=/usr/bin/containerd-shim-runc-v2` runs the
//! reference; what it is known to do otherwise is skipped there, with the reason.

mod abuse;
mod bootstrap;
mod crash;
mod delivery;
mod errors;
mod events;
mod exec;
mod exits;
mod faults;
mod golden;
mod groups;
mod hangs;
mod idle;
mod injection;
mod lifecycle;
mod loggers;
mod model;
mod options;
mod ordinary;
mod races;
mod resources;
mod rootfs;
mod soak;
mod stdio;
mod terminal;

use std::process::ExitCode;

use corten_integration::managers::sandbox::{self, Suite};
use corten_integration::shim;
use libtest_mimic::Trial;

/// What must be installed.
const NEEDS: &[(&str, &str)] = &[("prlimit", "util-linux"), ("/bin/busybox", "busybox-static")];

fn main() -> ExitCode {
    let stop = |_: &sandbox::Sandbox| Ok(());
    // One at a time: the search for leaks counts everything that exists.
    let suite = Suite { name: "shim", needs: NEEDS, threads: 1, start: shim::enter, trials, stop };
    sandbox::main(&suite)
}

fn trials() -> Vec<Trial> {
    let groups: &[(&str, &[shim::Case])] = &[
        ("lifecycle", lifecycle::TESTS),
        ("errors", errors::TESTS),
        ("exec", exec::TESTS),
        ("events", events::TESTS),
        ("exits", exits::TESTS),
        ("stdio", stdio::TESTS),
        ("terminal", terminal::TESTS),
        ("loggers", loggers::TESTS),
        ("rootfs", rootfs::TESTS),
        ("options", options::TESTS),
        ("resources", resources::TESTS),
        ("bootstrap", bootstrap::TESTS),
        ("groups", groups::TESTS),
        ("crash", crash::TESTS),
        ("hangs", hangs::TESTS),
        ("idle", idle::TESTS),
        ("abuse", abuse::TESTS),
        ("delivery", delivery::TESTS),
        ("ordinary", ordinary::TESTS),
        ("golden", golden::TESTS),
        ("faults", faults::TESTS),
        ("races", races::TESTS),
        ("model", model::TESTS),
        ("injection", injection::TESTS),
        ("soak", soak::TESTS),
    ];
    groups.iter().flat_map(|(group, cases)| shim::trials(group, cases)).collect()
}
