//! The user namespace and its mappings.

use std::fs;

use corten_integration::suite::Case;
use corten_integration::{Flavour, Test, tests};
use serde_json::{Value, json};

use crate::with_user;

pub(crate) const TESTS: &[Case] = tests![
    user_maps_are_written,
    user_maps_several_ranges,
    user_root_is_powerless_outside,
    user_files_belong_to_the_mapped_root,
    user_without_network_namespace_still_has_sys,
    user_process_may_be_anyone_mapped,
    user_process_unmapped_is_refused,
    user_namespace_without_mapping_is_refused,
    user_mapping_that_overlaps_is_refused,
    user_devices_work,
    user_default_capabilities,
];

fn map_of(seen: &Value, kind: &str) -> Vec<Vec<u64>> {
    let lines = seen["idmaps"][kind].as_array().unwrap();
    let numbers = |line: &Value| {
        line.as_str().unwrap().split_whitespace().map(|n| n.parse().unwrap()).collect()
    };
    lines.iter().map(numbers).collect()
}

/// The maps are those of the config, and setgroups works.
fn user_maps_are_written(t: &Test) {
    let mut b = t.bundle();
    with_user(&mut b);
    b.set("process.user.additionalGids", json!([7, 8]));
    let seen = t.report(&b);
    assert_eq!(map_of(&seen, "uid"), [[0, 100_000, 65536]]);
    assert_eq!(map_of(&seen, "gid"), [[0, 200_000, 65536]]);
    assert_eq!(seen["idmaps"]["setgroups"], "allow");
    assert_eq!(seen["groups"], json!([7, 8]));
    assert_eq!(seen["uid"], json!([0, 0, 0]));
}

/// Several ranges, up to the kernel's 340.
fn user_maps_several_ranges(t: &Test) {
    for count in [3_u64, 340] {
        let mut b = t.bundle();
        with_user(&mut b);
        let ranges: Vec<Value> = (0..count)
            .map(|n| json!({"containerID": n, "hostID": 1000 + n * 2, "size": 1}))
            .collect();
        b.set("linux.uidMappings", json!(ranges));
        assert_eq!(map_of(&t.report(&b), "uid").len() as u64, count);
    }
    let mut b = t.bundle();
    with_user(&mut b);
    let ranges: Vec<Value> = (0..341_u64)
        .map(|n| json!({"containerID": n, "hostID": 1000 + n * 2, "size": 1}))
        .collect();
    b.set("linux.uidMappings", json!(ranges));
    t.create_fails(&b);
}

/// The container's root can't use the host's files that only root may use.
fn user_root_is_powerless_outside(t: &Test) {
    use std::os::unix::fs::PermissionsExt;
    let mut b = t.bundle();
    with_user(&mut b);
    let secret = b.file("/secret", "s");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    b.probe(&["read", "/secret", ";", "stat", "/secret"]);
    let out = t.run(&b).ok();
    assert_eq!(out.fact(0)["errno"], "EACCES");
    assert_eq!(out.fact(1)["value"]["uid"], 65534);
}

/// What the container's root creates belongs to its mapped id.
fn user_files_belong_to_the_mapped_root(t: &Test) {
    use std::os::unix::fs::MetadataExt;
    let mut b = t.bundle();
    with_user(&mut b);
    b.probe(&["create", "/made", "x"]);
    t.run(&b).ok();
    let meta = fs::metadata(b.rootfs().join("made")).unwrap();
    assert_eq!((meta.uid(), meta.gid()), (100_000, 200_000));
}

/// The kernel refuses sysfs for a user namespace over the host's network; /sys is bound instead.
fn user_without_network_namespace_still_has_sys(t: &Test) {
    t.skip_on(Flavour::Runc, "1.1 fails");
    let mut b = t.bundle();
    with_user(&mut b);
    b.no_namespace("network").probe(&["ls", "/sys/class", ";", "report", "mounts"]);
    let out = t.run(&b).ok();
    assert_eq!(out.fact(0)["ok"], true);
    let report = out.fact(1);
    let sys = report["mounts"].as_array().unwrap().iter().find(|m| m["point"] == "/sys").unwrap();
    assert!(sys["options"].as_array().unwrap().contains(&json!("ro")), "{sys}");
}

/// process.user is an id inside.
fn user_process_may_be_anyone_mapped(t: &Test) {
    let mut b = t.bundle();
    with_user(&mut b);
    b.set("process.user", json!({"uid": 1000, "gid": 65535, "additionalGids": [3]}));
    let seen = t.report(&b);
    assert_eq!(seen["uid"], json!([1000, 1000, 1000]));
    assert_eq!(seen["gid"], json!([65535, 65535, 65535]));
}

/// An id that isn't mapped can't be taken.
fn user_process_unmapped_is_refused(t: &Test) {
    for (field, value) in
        [("uid", json!(70_000)), ("gid", json!(70_000)), ("additionalGids", json!([70_000]))]
    {
        let mut b = t.bundle();
        with_user(&mut b);
        b.set(&format!("process.user.{field}"), value);
        t.run_fails(&b);
    }
}

/// A new user namespace without mappings would have nobody in it.
fn user_namespace_without_mapping_is_refused(t: &Test) {
    t.skip_on(Flavour::Crun, "makes mappings up");
    let mut b = t.bundle();
    b.namespace("user", None);
    t.create_fails(&b).says("mapping");
}

/// Overlapping ranges are the kernel's EINVAL or our own word.
fn user_mapping_that_overlaps_is_refused(t: &Test) {
    let mut b = t.bundle();
    with_user(&mut b);
    b.push("linux.uidMappings", json!({"containerID": 5, "hostID": 300_000, "size": 10}));
    t.create_fails(&b);
    let mut b = t.bundle();
    with_user(&mut b);
    b.set("linux.uidMappings", json!([{"containerID": 0, "hostID": 100_000, "size": 0}]));
    t.create_fails(&b);
}

/// mknod is impossible there, so the default devices are bound from the host and work.
fn user_devices_work(t: &Test) {
    let mut b = t.bundle();
    with_user(&mut b);
    b.probe(&[
        "report",
        "devices",
        ";",
        "write",
        "/dev/null",
        "x",
        ";",
        "read-some",
        "/dev/urandom",
        "8",
    ]);
    let out = t.run(&b).ok();
    for (name, minor) in [("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9)] {
        let node = &out.fact(0)["devices"][name];
        assert_eq!(
            (&node["type"], &node["major"], &node["minor"]),
            (&json!("c"), &json!(1), &json!(minor))
        );
    }
    assert_eq!(out.fact(1)["ok"], true);
    assert_eq!(out.fact(2)["value"], 8);
}

/// The capabilities are those of the config, valid inside.
fn user_default_capabilities(t: &Test) {
    let mut b = t.bundle();
    with_user(&mut b);
    b.capabilities(&["CAP_SYS_ADMIN", "CAP_CHOWN"]);
    let seen = t.report(&b);
    assert_eq!(seen["caps"]["effective"], 1 << 21 | 1);
    assert_eq!(seen["caps"]["bounding"], 1 << 21 | 1);
}
