//! `update`, by flags and by file.

use std::fs;

use corten_integration::suite::Case;
use corten_integration::{Flavour, Test, tests};
use serde_json::json;

use crate::{number, v1};

pub(crate) const TESTS: &[Case] = tests![
    update_by_flags,
    update_by_file_and_stdin,
    update_in_every_status,
    update_changes_only_what_is_given,
    update_that_fails_changes_nothing,
    update_of_an_unknown_container_fails,
    update_is_remembered,
];

/// The flags that managers and people use.
fn update_by_flags(t: &Test) {
    v1(t);
    let mut b = t.bundle();
    t.sleeper(&mut b);
    t.skip_on(Flavour::Crun, "takes no units");
    t.call(&[
        "update",
        "--memory",
        "64m",
        "--memory-reservation",
        "32m",
        "--cpu-share",
        "256",
        "--cpu-quota",
        "30000",
        "--cpu-period",
        "60000",
        "--pids-limit",
        "33",
        "--cpuset-cpus",
        "0",
        &b.id,
    ])
    .ok();
    assert_eq!(number(&b, "memory", "memory.limit_in_bytes"), 64 << 20);
    assert_eq!(number(&b, "memory", "memory.soft_limit_in_bytes"), 32 << 20);
    assert_eq!(number(&b, "cpu", "cpu.shares"), 256);
    assert_eq!(number(&b, "cpu", "cpu.cfs_quota_us"), 30_000);
    assert_eq!(number(&b, "cpu", "cpu.cfs_period_us"), 60_000);
    assert_eq!(number(&b, "pids", "pids.max"), 33);
    assert_eq!(b.cgroup_file("cpuset", "cpuset.cpus"), "0");
}

/// `--resources FILE` and `--resources -`, a bare LinuxResources.
fn update_by_file_and_stdin(t: &Test) {
    v1(t);
    let mut b = t.bundle();
    t.sleeper(&mut b);
    let file = t.dir.join("resources.json");
    fs::write(&file, json!({"pids": {"limit": 44}, "memory": {"limit": 80 << 20}}).to_string())
        .unwrap();
    t.call(&["update", "--resources", file.to_str().unwrap(), &b.id]).ok();
    assert_eq!(number(&b, "pids", "pids.max"), 44);
    assert_eq!(number(&b, "memory", "memory.limit_in_bytes"), 80 << 20);
    let line = format!(
        "echo '{{\"pids\":{{\"limit\":45}}}}' | $RUNTIME --root $ROOT update --resources=- {}",
        b.id
    );
    t.shell(&line).ok();
    assert_eq!(number(&b, "pids", "pids.max"), 45);
    fs::write(&file, "{").unwrap();
    t.call(&["update", "--resources", file.to_str().unwrap(), &b.id]).fails();
}

/// update works on created, running and paused containers.
fn update_in_every_status(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["sleep"]);
    t.create(&b).ok();
    let change = |limit: &str| {
        t.call(&["update", "--pids-limit", limit, &b.id]).ok();
        assert_eq!(b.cgroup_file("pids", "pids.max"), limit);
    };
    change("50");
    t.start(&b.id).ok();
    change("51");
    t.call(&["pause", &b.id]).ok();
    change("52");
    assert_eq!(t.status(&b.id), "paused");
    t.call(&["resume", &b.id]).ok();
}

/// What isn't named stays.
fn update_changes_only_what_is_given(t: &Test) {
    v1(t);
    let mut b = t.bundle();
    b.set("linux.resources.cpu", json!({"shares": 300, "quota": 40_000, "period": 80_000}))
        .set("linux.resources.memory", json!({"limit": 70 << 20}));
    t.sleeper(&mut b);
    t.call(&["update", "--cpu-share", "400", &b.id]).ok();
    assert_eq!(number(&b, "cpu", "cpu.shares"), 400);
    assert_eq!(number(&b, "cpu", "cpu.cfs_quota_us"), 40_000);
    assert_eq!(number(&b, "memory", "memory.limit_in_bytes"), 70 << 20);
    t.call(&["update", "--cpu-quota", "20000", &b.id]).ok();
    assert_eq!(number(&b, "cpu", "cpu.cfs_quota_us"), 20_000);
    assert_eq!(number(&b, "cpu", "cpu.cfs_period_us"), 80_000);
}

/// A value that the kernel refuses is an error and the old values hold.
fn update_that_fails_changes_nothing(t: &Test) {
    v1(t);
    t.skip_on_peers("don't roll back, or fail to");
    let mut b = t.bundle();
    b.set("linux.resources.cpu", json!({"shares": 300, "quota": 40_000, "period": 80_000}))
        .set("linux.resources.pids", json!({"limit": 40}));
    t.sleeper(&mut b);
    t.call(&["update", "--cpu-share", "555", "--pids-limit", "60", "--cpu-period", "1", &b.id])
        .fails();
    assert_eq!(number(&b, "cpu", "cpu.shares"), 300);
    assert_eq!(number(&b, "pids", "pids.max"), 40);
}

/// There is nothing to update.
fn update_of_an_unknown_container_fails(t: &Test) {
    t.call(&["update", "--pids-limit", "5", &format!("{}-absent", t.tag)])
        .fails()
        .says("does not exist");
}

/// A second update starts from what the first left.
fn update_is_remembered(t: &Test) {
    v1(t);
    let mut b = t.bundle();
    t.sleeper(&mut b);
    t.call(&["update", "--cpu-quota", "30000", "--cpu-period", "60000", &b.id]).ok();
    t.call(&["update", "--cpu-quota", "40000", &b.id]).ok();
    assert_eq!(number(&b, "cpu", "cpu.cfs_period_us"), 60_000);
    t.call(&["update", "--cpu-share", "77", &b.id]).ok();
    assert_eq!(number(&b, "cpu", "cpu.cfs_quota_us"), 40_000);
}
