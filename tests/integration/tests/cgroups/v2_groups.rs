//! The group on cgroup v2: its devices, one that is there already, freezing and killing.

use std::fs;

use corten_integration::driver::wait_until;
use corten_integration::suite::Case;
use corten_integration::{Test, cgroups, tests};
use serde_json::json;

use crate::{file, v2};

pub(crate) const TESTS: &[Case] = tests![
    v2_devices_survive_update_and_hold_for_exec,
    v2_devices_of_an_existing_group_are_replaced,
    v2_a_group_with_processes_is_refused,
    v2_a_frozen_group_is_refused,
    v2_pause_freezes_sub_groups,
    v2_kill_ends_a_fork_bomb,
];

// No driver has the device 1:99: if the cgroup lets an open pass, it ends with ENXIO, else EPERM.
const OPEN: [&str; 6] = ["mknod", "/dev/k", "c:1:99", ";", "open", "/dev/k"];

/// The program is on the group, so it holds for whatever comes into it, and an update of limits
/// leaves it alone.
fn v2_devices_survive_update_and_hold_for_exec(t: &Test) {
    v2(t);
    let mut b = t.bundle();
    b.add_capabilities(&["CAP_MKNOD"]);
    t.sleeper(&mut b);
    let errno = |n: &str| {
        let node = format!("/dev/k{n}");
        let steps = ["mknod", &node, "c:1:99", ";", "open", &node];
        t.exec(&b.id, &["--cap", "CAP_MKNOD"], &steps).ok().fact(1)["errno"].clone()
    };
    assert_eq!(errno("1"), "EPERM");
    t.call(&["update", "--pids-limit", "50", &b.id]).ok();
    assert_eq!(errno("2"), "EPERM");
}

/// An empty group that was there may have a program of whoever made it; ours decides.
fn v2_devices_of_an_existing_group_are_replaced(t: &Test) {
    v2(t);
    let mut first = t.bundle();
    first.add_capabilities(&["CAP_MKNOD"]).probe(&OPEN);
    fs::create_dir_all(first.cgroup_dir("")).unwrap();
    assert_eq!(t.run(&first).ok().fact(1)["errno"], "EPERM");
    let rule = json!({"allow": true, "type": "c", "major": 1, "minor": 99, "access": "rwm"});
    let mut second = t.bundle();
    second.add_capabilities(&["CAP_MKNOD"]).set("linux.cgroupsPath", json!(first.cgroup()));
    second.push("linux.resources.devices", rule).probe(&OPEN);
    if first.cgroup_dir("").exists() {
        assert_eq!(t.run(&second).ok().fact(1)["errno"], "ENXIO");
        let mut third = t.bundle();
        third.add_capabilities(&["CAP_MKNOD"]).set("linux.cgroupsPath", json!(first.cgroup()));
        third.set("linux.resources.devices", json!([{"allow": true, "access": "rwm"}]));
        third.probe(&OPEN);
        assert_eq!(t.run(&third).ok().fact(1)["errno"], "ENXIO");
    }
    cgroups::remove(&cgroups::tagged(&t.tag));
}

/// A group with processes in it, or below it, is somebody's: refused, and left alone.
fn v2_a_group_with_processes_is_refused(t: &Test) {
    v2(t);
    t.skip_on_peers("only warn, or don't look");
    for below in ["", "/below"] {
        let b = t.bundle();
        let path = format!("{}{below}", b.cgroup());
        let mut stranger = super::occupied_at(t, &cgroups::directory("", &path).unwrap());
        t.create(&b).fails().says("cgroup is not empty");
        stranger.wait_for("in");
        let dir = cgroups::directory("", &path).unwrap();
        let procs = fs::read_to_string(dir.join("cgroup.procs")).unwrap();
        assert_eq!(procs.trim(), stranger.pid().to_string());
        drop(stranger);
        wait_until("the group is empty", || fs::remove_dir(&dir).is_ok());
        assert!(!t.root().join(&b.id).exists());
        cgroups::remove(&cgroups::tagged(&b.id));
    }
}

/// A frozen group would freeze the init: refused, and left frozen. So does one above it.
fn v2_a_frozen_group_is_refused(t: &Test) {
    v2(t);
    t.skip_on_peers("hang");
    for below in ["", "/below"] {
        let mut b = t.bundle();
        let dir = b.cgroup_dir("");
        let path = format!("{}{below}", b.cgroup());
        b.set("linux.cgroupsPath", json!(path));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("cgroup.freeze"), "1").unwrap();
        t.create(&b).fails().says("frozen");
        assert_eq!(fs::read_to_string(dir.join("cgroup.freeze")).unwrap(), "1\n");
        fs::write(dir.join("cgroup.freeze"), "0").unwrap();
        fs::remove_dir(&dir).unwrap();
        t.nothing_left(&b);
    }
}

/// pause freezes what is below as well.
fn v2_pause_freezes_sub_groups(t: &Test) {
    v2(t);
    let mut b = t.bundle();
    t.sleeper(&mut b);
    let sub = b.cgroup_dir("").join("sub");
    fs::create_dir(&sub).unwrap();
    let frozen = || fs::read_to_string(sub.join("cgroup.events")).unwrap().contains("frozen 1");
    t.call(&["pause", &b.id]).ok();
    wait_until("the sub-group is frozen", frozen);
    t.call(&["resume", &b.id]).ok();
    wait_until("the sub-group is thawed", || !frozen());
}

/// cgroup.kill reaches everything at once, also in sub-groups, also when frozen.
fn v2_kill_ends_a_fork_bomb(t: &Test) {
    v2(t);
    let mut b = t.busybox();
    b.set("linux.resources.pids", json!({"limit": 200})).no_namespace("pid");
    b.set("process.args", json!(["/bin/sh", "-c", "f() { f | f & }; while :; do f; done"]));
    t.create(&b).ok();
    t.start(&b.id).ok();
    let many = || file(&b, "pids.current").parse::<u32>().unwrap() > 50;
    wait_until("it has forked", many);
    t.force(&b.id).ok();
    t.nothing_left(&b);
}
