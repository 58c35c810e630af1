//! The other limits: processes and block devices; and none, unified or impossible ones.

use corten_integration::suite::Case;
use corten_integration::{Flavour, Test, tests};
use serde_json::json;

use crate::{created, disk, need, number, v1};

pub(crate) const TESTS: &[Case] = tests![
    pids_limit,
    pids_limit_is_enforced,
    pids_unlimited,
    blkio_throttle,
    blkio_weight,
    resources_absent,
    unified_on_v1_is_refused,
    negative_and_huge_numbers,
];

/// pids.limit.
fn pids_limit(t: &Test) {
    let b = created(t, &[("pids", json!({"limit": 20}))]);
    assert_eq!(number(&b, "pids", "pids.max"), 20);
}

/// A fork bomb ends at the limit.
fn pids_limit_is_enforced(t: &Test) {
    let mut b = t.bundle();
    b.set("linux.resources.pids", json!({"limit": 12})).probe(&["forks", "100"]);
    let fact = t.run(&b).ok().fact(0);
    assert_eq!(fact["errno"], "EAGAIN");
    let forked = fact["forked"].as_u64().unwrap();
    assert!((8..12).contains(&forked), "{fact}");
}

/// -1 is unlimited.
fn pids_unlimited(t: &Test) {
    let b = created(t, &[("pids", json!({"limit": -1}))]);
    assert_eq!(b.cgroup_file("pids", "pids.max"), "max");
}

/// Throttling by bytes and operations, reading and writing.
fn blkio_throttle(t: &Test) {
    v1(t);
    need(t, "blkio", "blkio.throttle.read_bps_device");
    let (major, minor) = disk(t);
    let device = |rate: u64| json!([{"major": major, "minor": minor, "rate": rate}]);
    let b = created(
        t,
        &[(
            "blockIO",
            json!({
                "throttleReadBpsDevice": device(1_000_000), "throttleWriteBpsDevice": device(2_000_000),
                "throttleReadIOPSDevice": device(100), "throttleWriteIOPSDevice": device(200),
            }),
        )],
    );
    for (file, rate) in
        [("read_bps", 1_000_000), ("write_bps", 2_000_000), ("read_iops", 100), ("write_iops", 200)]
    {
        let text = b.cgroup_file("blkio", &format!("blkio.throttle.{file}_device"));
        assert_eq!(text, format!("{major}:{minor} {rate}"), "{file}");
    }
}

/// blkio weight 0 (Docker's default) is nothing; another one is written or is an error.
fn blkio_weight(t: &Test) {
    v1(t);
    let b = created(t, &[("blockIO", json!({"weight": 0}))]);
    t.force(&b.id).ok();
    need(t, "blkio", "blkio.weight");
    let b = created(t, &[("blockIO", json!({"weight": 300}))]);
    assert_eq!(number(&b, "blkio", "blkio.weight"), 300);
}

/// A config without linux.resources works, with a cgroup.
fn resources_absent(t: &Test) {
    let mut b = t.bundle();
    b.unset("linux.resources").probe(&["report", "cgroup"]);
    assert!(t.report(&b)["cgroup"].to_string().contains(b.cgroup()));
}

/// unified is for v2.
fn unified_on_v1_is_refused(t: &Test) {
    v1(t);
    t.skip_on(Flavour::Crun, "writes to the hybrid v2 hierarchy");
    let mut b = t.bundle();
    b.set("linux.resources.unified", json!({"memory.max": "1000000"}));
    t.create_fails(&b).says("unified");
}

/// Numbers out of range are refused, never wrapped.
fn negative_and_huge_numbers(t: &Test) {
    t.skip_on(Flavour::Crun, "wraps some");
    for (key, value) in [
        ("cpu", json!({"shares": -1})),
        ("cpu", json!({"period": -5})),
        ("pids", json!({"limit": 1e30})),
        ("memory", json!({"limit": "64m"})),
        ("memory", json!({"limit": 1.5})),
        ("blockIO", json!({"weight": 70_000})),
    ] {
        let mut b = t.bundle();
        b.set(&format!("linux.resources.{key}"), value);
        t.create_fails(&b);
    }
}
