//! Processor time and sets of processors.

use std::fs;

use corten_integration::suite::Case;
use corten_integration::{Test, cgroups, tests};
use serde_json::json;

use crate::{created, need, number, v1};

pub(crate) const TESTS: &[Case] = tests![
    cpu_shares_quota_period,
    cpu_idle,
    cpu_burst,
    cpu_unlimited_quota,
    cpu_bad_quota_is_refused,
    cpuset_cpus_and_mems,
    cpuset_not_given_is_the_parents,
    cpuset_of_absent_cpus_is_refused,
];

/// shares, quota and period.
fn cpu_shares_quota_period(t: &Test) {
    v1(t);
    let b = created(t, &[("cpu", json!({"shares": 512, "quota": 20_000, "period": 50_000}))]);
    assert_eq!(number(&b, "cpu", "cpu.shares"), 512);
    assert_eq!(number(&b, "cpu", "cpu.cfs_quota_us"), 20_000);
    assert_eq!(number(&b, "cpu", "cpu.cfs_period_us"), 50_000);
    let b = created(t, &[("cpu", json!({"quota": 30_000}))]);
    assert_eq!(number(&b, "cpu", "cpu.cfs_quota_us"), 30_000);
    assert_eq!(number(&b, "cpu", "cpu.cfs_period_us"), 100_000);
}

/// idle makes the group run only when nobody else wants to.
fn cpu_idle(t: &Test) {
    v1(t);
    t.skip_on_peers("older than cpu.idle");
    need(t, "cpu", "cpu.idle");
    let b = created(t, &[("cpu", json!({"idle": 1}))]);
    assert_eq!(number(&b, "cpu", "cpu.idle"), 1);
}

/// burst is what may be saved up.
fn cpu_burst(t: &Test) {
    v1(t);
    t.skip_on_peers("older than cpu.burst");
    need(t, "cpu", "cpu.cfs_burst_us");
    let b = created(t, &[("cpu", json!({"quota": 50_000, "period": 100_000, "burst": 20_000}))]);
    assert_eq!(number(&b, "cpu", "cpu.cfs_burst_us"), 20_000);
}

/// A negative quota is no limit.
fn cpu_unlimited_quota(t: &Test) {
    v1(t);
    let b = created(t, &[("cpu", json!({"quota": -1, "period": 100_000}))]);
    assert_eq!(number(&b, "cpu", "cpu.cfs_quota_us"), -1);
}

/// What the kernel refuses fails the create with its errno.
fn cpu_bad_quota_is_refused(t: &Test) {
    for cpu in [json!({"quota": 1, "period": 100_000}), json!({"period": 1})] {
        let mut b = t.bundle();
        b.set("linux.resources.cpu", cpu);
        t.create_fails(&b).says("invalid argument");
    }
}

/// cpus and mems, as the kernel's list.
fn cpuset_cpus_and_mems(t: &Test) {
    v1(t);
    let b = created(t, &[("cpu", json!({"cpus": "0", "mems": "0"}))]);
    assert_eq!(b.cgroup_file("cpuset", "cpuset.cpus"), "0");
    assert_eq!(b.cgroup_file("cpuset", "cpuset.mems"), "0");
    t.start(&b.id).ok();
    let seen = t.exec(&b.id, &[], &["report", "sched"]).ok().fact(0);
    assert_eq!(seen["sched"]["affinity"], json!([0]));
}

/// v1 starts a group with empty sets, in which nothing can run: they are copied down.
fn cpuset_not_given_is_the_parents(t: &Test) {
    v1(t);
    let b = created(t, &[]);
    let root = fs::read_to_string(cgroups::directory("cpuset", "/").unwrap().join("cpuset.cpus"));
    assert_eq!(b.cgroup_file("cpuset", "cpuset.cpus"), root.unwrap().trim());
}

/// Processors that aren't there.
fn cpuset_of_absent_cpus_is_refused(t: &Test) {
    for cpus in ["4000", "nonsense"] {
        let mut b = t.bundle();
        b.set("linux.resources.cpu", json!({"cpus": cpus}));
        t.create_fails(&b);
    }
}
