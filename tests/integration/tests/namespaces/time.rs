//! The time namespace and its offsets.

use std::fs;

use corten_integration::suite::Case;
use corten_integration::{Flavour, Test, tests};
use serde_json::json;

use crate::host_ns;

pub(crate) const TESTS: &[Case] = tests![
    time_is_new,
    time_offsets_shift_the_clocks,
    time_offsets_hold_for_exec,
    time_offsets_without_namespace_are_refused,
    time_offsets_with_a_path_are_refused,
    time_offsets_of_unknown_clocks_are_refused,
    time_joined_by_path,
];

/// A new time namespace.
fn time_is_new(t: &Test) {
    t.skip_on(Flavour::Runc, "1.1 knows no time namespace");
    t.skip_on(Flavour::Crun, "1.8 has it without offsets only");
    let mut b = t.bundle();
    b.namespace("time", None);
    assert_ne!(t.report(&b)["ns"]["time"], json!(host_ns("time")));
}

fn now(clock: nix::time::ClockId) -> i64 {
    nix::time::clock_gettime(clock).unwrap().tv_sec()
}

/// monotonic and boottime are shifted by secs and nanosecs.
fn time_offsets_shift_the_clocks(t: &Test) {
    t.skip_on_peers("1.1 knows no time namespace, 1.8 no offsets");
    let mut b = t.bundle();
    b.namespace("time", None).set(
        "linux.timeOffsets",
        json!({"monotonic": {"secs": 100_000, "nanosecs": 5}, "boottime": {"secs": -1}}),
    );
    let before = now(nix::time::ClockId::CLOCK_MONOTONIC);
    let seen = t.report(&b);
    let monotonic = seen["time"]["monotonic"].as_i64().unwrap();
    assert!((100_000..100_120).contains(&(monotonic - before)), "{seen}", seen = seen["time"]);
    let offsets = seen["time"]["offsets"].to_string();
    assert!(offsets.contains("100000") && offsets.contains("-1"), "{offsets}");
}

/// A process that enters later has the same clocks.
fn time_offsets_hold_for_exec(t: &Test) {
    t.skip_on_peers("1.1 knows no time namespace, 1.8 no offsets");
    let mut b = t.bundle();
    b.namespace("time", None).set("linux.timeOffsets", json!({"monotonic": {"secs": 100_000}}));
    t.sleeper(&mut b);
    let before = now(nix::time::ClockId::CLOCK_MONOTONIC);
    let seen = t.exec(&b.id, &[], &["report", "time"]).ok().fact(0);
    assert!((100_000..100_120).contains(&(seen["time"]["monotonic"].as_i64().unwrap() - before)));
}

/// Offsets belong to a new time namespace.
fn time_offsets_without_namespace_are_refused(t: &Test) {
    t.skip_on_peers("1.1 knows no time namespace, 1.8 no offsets");
    let mut b = t.bundle();
    b.set("linux.timeOffsets", json!({"monotonic": {"secs": 1}}));
    t.create_fails(&b).says("timeOffsets|time");
}

/// A joined namespace has its offsets already.
fn time_offsets_with_a_path_are_refused(t: &Test) {
    t.skip_on_peers("1.1 knows no time namespace, 1.8 no offsets");
    let mut b = t.bundle();
    b.namespace("time", Some("/proc/self/ns/time"))
        .set("linux.timeOffsets", json!({"monotonic": {"secs": 1}}));
    t.create_fails(&b).says("timeOffsets|time");
}

/// There are two clocks only.
fn time_offsets_of_unknown_clocks_are_refused(t: &Test) {
    t.skip_on_peers("1.1 knows no time namespace, 1.8 no offsets");
    let mut b = t.bundle();
    b.namespace("time", None).set("linux.timeOffsets", json!({"realtime": {"secs": 1}}));
    t.create_fails(&b).says("timeOffsets|realtime");
}

/// A time namespace can be joined by path.
fn time_joined_by_path(t: &Test) {
    t.skip_on_peers("1.1 knows no time namespace, 1.8 no offsets");
    let mut first = t.bundle();
    first.namespace("time", None).set("linux.timeOffsets", json!({"monotonic": {"secs": 100_000}}));
    let pid = t.sleeper(&mut first);
    let path = format!("/proc/{pid}/ns/time");
    let mut b = t.bundle();
    b.namespace("time", Some(&path));
    let seen = t.report(&b);
    assert_eq!(seen["ns"]["time"], json!(fs::read_link(&path).unwrap()));
    assert!(seen["time"]["monotonic"].as_i64().unwrap() > 100_000);
}
