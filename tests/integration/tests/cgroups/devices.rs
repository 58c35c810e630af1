//! The device rules, by what can be opened.

use corten_integration::suite::Case;
use corten_integration::{Bundle, Flavour, Test, cgroups, tests};
use serde_json::json;

pub(crate) const TESTS: &[Case] = tests![
    devices_denied_by_default,
    devices_default_list_is_allowed,
    devices_rules_in_order,
    devices_of_any_number,
    devices_access_letters,
    devices_bad_rules_are_refused,
    devices_absent_rules_allow_the_defaults,
];

/// A container that can make device nodes.
fn with_mknod(t: &Test) -> Bundle {
    let mut b = t.bundle();
    b.add_capabilities(&["CAP_MKNOD"]);
    b
}

/// Devices that no rule allows can be made but not opened.
fn devices_denied_by_default(t: &Test) {
    let mut b = with_mknod(t);
    b.probe(&[
        "mknod",
        "/dev/kmsg2",
        "c:1:99",
        ";",
        "open",
        "/dev/kmsg2",
        ";",
        "mknod",
        "/dev/d",
        "b:7:0",
        ";",
        "open",
        "/dev/d",
    ]);
    let out = t.run(&b).ok();
    assert_eq!(out.fact(0)["ok"], true);
    assert_eq!(out.fact(1)["errno"], "EPERM");
    assert_eq!(out.fact(2)["ok"], true);
    assert_eq!(out.fact(3)["errno"], "EPERM");
}

/// The devices every container has can be used although everything is denied.
fn devices_default_list_is_allowed(t: &Test) {
    let mut b = t.bundle();
    b.probe(&[
        "open-rw",
        "/dev/null",
        ";",
        "open-rw",
        "/dev/zero",
        ";",
        "open-rw",
        "/dev/full",
        ";",
        "open",
        "/dev/random",
        ";",
        "open",
        "/dev/urandom",
        ";",
        "open-rw",
        "/dev/ptmx",
    ]);
    for fact in t.run(&b).ok().facts() {
        assert_eq!(fact["ok"], true, "{fact}");
    }
}

// No driver has the device 1:99: if the cgroup lets an open pass, it ends with ENXIO, else EPERM.

/// A later rule overrides an earlier one.
fn devices_rules_in_order(t: &Test) {
    let kmsg = |allow: bool| json!({"allow": allow, "type": "c", "major": 1, "minor": 99, "access": "rwm"});
    let steps = ["mknod", "/dev/k", "c:1:99", ";", "open", "/dev/k"];
    for (rules, ok) in
        [(vec![true], true), (vec![true, false], false), (vec![true, false, true], true)]
    {
        let mut b = with_mknod(t);
        for allow in rules {
            b.push("linux.resources.devices", kmsg(allow));
        }
        b.probe(&steps);
        let out = t.run(&b).ok();
        assert_eq!(out.fact(1)["errno"], if ok { "ENXIO" } else { "EPERM" }, "{out}");
    }
}

/// The v1 files take any number, so they all are there: the first, and no other. The verifier of a
/// v2 program takes thousands, but its time.
fn devices_of_any_number(t: &Test) {
    let mut b = with_mknod(t);
    let rule = |n: usize| json!({"allow": true, "type": "c", "major": 1, "minor": 99 + n, "access": "rwm"});
    let mut rules = vec![json!({"allow": false, "access": "rwm"})];
    rules.extend((0..if cgroups::is_v2() { 1000 } else { 5000 }).map(rule));
    b.set("linux.resources.devices", json!(rules));
    b.probe(&[
        "mknod", "/dev/k", "c:1:99", ";", "open", "/dev/k", ";", "mknod", "/dev/l", "c:1:98", ";",
        "open", "/dev/l",
    ]);
    let out = t.run(&b).ok();
    assert_eq!(out.fact(1)["errno"], "ENXIO", "{out}");
    assert_eq!(out.fact(3)["errno"], "EPERM", "{out}");
}

/// r, w and m are separate rights.
fn devices_access_letters(t: &Test) {
    let mut b = with_mknod(t);
    b.push(
        "linux.resources.devices",
        json!({"allow": true, "type": "c", "major": 1, "minor": 99, "access": "r"}),
    );
    b.probe(&["mknod", "/dev/k", "c:1:99", ";", "open", "/dev/k", ";", "open-rw", "/dev/k"]);
    let out = t.run(&b).ok();
    assert_eq!(out.fact(1)["errno"], "ENXIO", "{out}");
    assert_eq!(out.fact(2)["errno"], "EPERM", "{out}");
    t.skip_on(Flavour::Crun, "wildcards need a major number");
    let mut b = with_mknod(t);
    b.push(
        "linux.resources.devices",
        json!({"allow": true, "type": "c", "major": 1, "access": "rwm"}),
    );
    b.probe(&["mknod", "/dev/k", "c:1:99", ";", "open", "/dev/k"]);
    assert_eq!(t.run(&b).ok().fact(1)["errno"], "ENXIO");
}

/// Unknown types and letters are mistakes of the config.
fn devices_bad_rules_are_refused(t: &Test) {
    let mut b = t.bundle();
    b.push("linux.resources.devices", json!({"allow": true, "type": "x", "access": "rwm"}));
    t.create_fails(&b);
    t.skip_on(Flavour::Runc, "takes any letters");
    let mut b = t.bundle();
    b.push("linux.resources.devices", json!({"allow": true, "type": "c", "access": "rwz"}));
    t.create_fails(&b);
}

/// Without any rule the container is not open to all devices.
fn devices_absent_rules_allow_the_defaults(t: &Test) {
    let mut b = with_mknod(t);
    b.unset("linux.resources.devices").probe(&[
        "open-rw",
        "/dev/null",
        ";",
        "mknod",
        "/dev/k",
        "c:1:99",
        ";",
        "open",
        "/dev/k",
    ]);
    let out = t.run(&b).ok();
    assert_eq!(out.fact(0)["ok"], true, "{out}");
}
