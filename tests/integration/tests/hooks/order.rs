//! When each kind runs, and what is ready by then.

use std::fs;

use corten_integration::suite::Case;
use corten_integration::{Flavour, Test, tests};
use serde_json::json;

use crate::{KINDS, bundle, fact_of, hook, log, names, with_all};

pub(crate) const TESTS: &[Case] = tests![
    order_of_all_six,
    order_within_a_kind,
    cgroup_is_ready_before_prestart,
    mounts_are_ready_before_create_runtime,
    mounts_made_by_create_container_arrive,
    poststop_runs_once,
    run_runs_them_all,
];

/// prestart, createRuntime, createContainer in create; startContainer, the program, poststart in
/// start; poststop in delete.
fn order_of_all_six(t: &Test) {
    t.skip_on(Flavour::Runc, "1.1 runs poststart in create");
    let b = with_all(t);
    t.create(&b).ok();
    assert_eq!(names(t), KINDS[..3]);
    t.start(&b.id).ok();
    t.wait_status(&b.id, "stopped");
    let mut now = names(t);
    assert_eq!(now[3], "startContainer");
    now[4..].sort();
    assert_eq!(now[4..], ["main", "poststart"]);
    t.delete(&b.id).ok();
    assert_eq!(names(t)[6..], ["poststop"]);
}

/// Hooks of one kind run in their order, one after the other.
fn order_within_a_kind(t: &Test) {
    t.skip_on(Flavour::Runc, "1.1 runs poststart in create");
    let mut b = bundle(t);
    for kind in KINDS {
        for n in 0..4 {
            b.push(&format!("hooks.{kind}"), hook(t, kind, &format!("{kind}{n}"), &[]));
        }
    }
    b.probe(&["exit", "0"]);
    t.create(&b).ok();
    t.start(&b.id).ok();
    t.wait_status(&b.id, "stopped");
    t.delete(&b.id).ok();
    let expected: Vec<String> =
        KINDS.iter().flat_map(|kind| (0..4).map(move |n| format!("{kind}{n}"))).collect();
    assert_eq!(names(t), expected);
}

/// NVIDIA's hook edits the device cgroup: limits must be set before prestart.
fn cgroup_is_ready_before_prestart(t: &Test) {
    t.needs_controller("pids");
    let mut b = bundle(t);
    b.set("linux.resources.pids", json!({"limit": 66}));
    let script = format!(
        "cat >/dev/null; echo \"{{\\\"hook\\\":\\\"$(cat {}/pids.max) $(wc -l <{}/cgroup.procs)\\\"}}\" >>{}",
        b.cgroup_dir("pids").display(),
        b.cgroup_dir("pids").display(),
        log(t).display()
    );
    b.push(
        "hooks.prestart",
        json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]}),
    );
    b.probe(&["exit", "0"]);
    t.run(&b).ok();
    assert!(names(t)[0].starts_with("66 1"), "{:?}", names(t));
}

/// "after the runtime environment has been created": the mounts are there.
fn mounts_are_ready_before_create_runtime(t: &Test) {
    let b = with_all(t);
    t.run(&b).ok();
    let mounts = fact_of(t, "createRuntime")["of_target"]["mounts"].to_string();
    assert!(mounts.contains("/dev/mqueue") && mounts.contains("/hooks"), "{mounts}");
}

/// What createContainer mounts in the root file system is the container's.
fn mounts_made_by_create_container_arrive(t: &Test) {
    let mut b = bundle(t);
    b.directory("/from-hook");
    let target = b.rootfs().join("from-hook");
    let script =
        format!("cat >/dev/null; mount -t tmpfs hook {0} && echo x >{0}/x", target.display());
    b.push(
        "hooks.createContainer",
        json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]}),
    );
    b.probe(&["read", "/from-hook/x"]);
    assert_eq!(t.run(&b).ok().fact(0)["value"], "x\n");
    assert!(!target.join("x").exists(), "it is not the host's");
}

/// Whichever way a container ends, its poststop hooks run once.
fn poststop_runs_once(t: &Test) {
    for way in ["delete", "force", "force created", "run"] {
        let mut b = bundle(t);
        let _ = fs::remove_file(log(t));
        b.push("hooks.poststop", hook(t, "poststop", "end", &[]));
        b.probe(if way == "run" { &["exit", "0"] } else { &["sleep"] });
        if way == "run" {
            t.run(&b).ok();
        } else {
            t.create(&b).ok();
            if way != "force created" {
                t.start(&b.id).ok();
            }
            if way == "delete" {
                t.kill(&b.id, "KILL").ok();
                t.wait_status(&b.id, "stopped");
                t.delete(&b.id).ok();
            } else {
                t.force(&b.id).ok();
            }
        }
        t.force(&b.id).ok();
        assert_eq!(names(t), ["end"], "{way}");
    }
}

/// A foreground run goes through all of them.
fn run_runs_them_all(t: &Test) {
    let b = with_all(t);
    t.run(&b).ok();
    let mut ran = names(t);
    ran.sort();
    let mut all: Vec<&str> = KINDS.iter().copied().chain(["main"]).collect();
    all.sort_unstable();
    assert_eq!(ran, all);
}
