//! Device rules as the scope's `DevicePolicy` and `DeviceAllow`, which have to say what holds.

use std::collections::BTreeSet;

use corten_integration::console::ConsoleSocket;
use corten_integration::suite::Case;
use corten_integration::{Bundle, Test, tests};
use serde_json::{Value, json};

use crate::scopes::{bundle, check_gone, create, scope};
use crate::{property, systemctl};

pub(crate) const CASES: &[Case] = tests![
    device_rules_are_a_strict_list,
    device_rules_that_are_no_list_are_ours_alone,
    device_programs_are_two,
    device_policy_by_annotation_is_the_only_one,
    device_list_is_left_out_beside_hooks,
    device_list_lets_terminals_and_nodes_be_made,
];

/// What every container may use.
const DEFAULT: [&str; 11] = [
    "block-* m",
    "char-* m",
    "char-136 rwm",
    "/dev/char/10:200 rwm",
    "/dev/char/1:3 rwm",
    "/dev/char/1:5 rwm",
    "/dev/char/1:7 rwm",
    "/dev/char/1:8 rwm",
    "/dev/char/1:9 rwm",
    "/dev/char/5:0 rwm",
    "/dev/char/5:2 rwm",
];

/// A container with these rules that runs and may make nodes.
fn running(t: &Test, rules: Value) -> Bundle {
    t.skip_on_peers("have other lists");
    let mut b = bundle(t);
    b.set("linux.resources.devices", rules).add_capabilities(&["CAP_MKNOD"]);
    create(t, &b);
    t.start(&b.id).ok();
    t.wait_asleep(&b.id);
    let nodes = ["mknod /dev/98 c:1:98", "mknod /dev/99 c:1:99", "mknod /dev/block b:99:7"];
    for fact in steps(t, &b, &nodes) {
        assert_eq!(fact["ok"], true, "{fact}");
    }
    b
}

/// What the probe says to each of these when it is executed in the container.
fn steps(t: &Test, b: &Bundle, steps: &[&str]) -> Vec<Value> {
    let all = steps.join(" ; ");
    t.exec(&b.id, &[], &all.split(' ').collect::<Vec<_>>()).ok().facts()
}

/// No driver has these devices: an open that all programs let pass ends with ENXIO, else with EPERM.
fn verdicts(t: &Test, b: &Bundle) -> Vec<Value> {
    let opens = ["open-rw /dev/98", "open-rw /dev/99", "open /dev/block", "open-rw /dev/block"];
    steps(t, b, &opens).iter().map(|fact| fact["errno"].clone()).collect()
}

fn policy(b: &Bundle) -> (String, BTreeSet<String>) {
    let list = property(&scope(b), "DeviceAllow");
    let entries = list.lines().map(|line| line.trim_start_matches("DeviceAllow=").to_owned());
    (property(&scope(b), "DevicePolicy"), entries.filter(|entry| !entry.is_empty()).collect())
}

fn strict(own: &[&str]) -> (String, BTreeSet<String>) {
    let all = DEFAULT.iter().chain(own).map(|&entry| entry.to_owned());
    ("strict".to_owned(), all.collect())
}

fn auto() -> (String, BTreeSet<String>) {
    ("auto".to_owned(), BTreeSet::new())
}

fn two_allowed() -> Value {
    json!([
        {"allow": false, "access": "rwm"},
        {"allow": true, "type": "c", "major": 1, "minor": 99, "access": "rw"},
        {"allow": true, "type": "b", "major": 99, "access": "r"},
        // Is taken back.
        {"allow": true, "type": "c", "major": 1, "minor": 98, "access": "rw"},
        {"allow": false, "type": "c", "major": 1, "minor": 98, "access": "rw"},
    ])
}

const TWO_ALLOWED: [&str; 4] = ["EPERM", "ENXIO", "ENXIO", "EPERM"];

/// The list is exactly what is allowed, and stays it: over a reload, over an update.
fn device_rules_are_a_strict_list(t: &Test) {
    let b = running(t, two_allowed());
    let expected = strict(&["/dev/char/1:99 rwm", "block-99 rm"]);
    let check = |when: &str| {
        assert_eq!(policy(&b), expected, "{when}");
        assert_eq!(verdicts(t, &b), TWO_ALLOWED, "{when}");
        let usual = ["open-rw /dev/null", "open-rw /dev/ptmx", "open /dev/zero"];
        for fact in steps(t, &b, &usual) {
            assert_eq!(fact["ok"], true, "{when}: {fact}");
        }
    };
    assert_eq!(property(&scope(&b), "NeedDaemonReload"), "no");
    check("at first");
    systemctl(&["daemon-reload"]);
    check("after a reload");
    t.call(&["update", "--pids-limit", "33", &b.id]).ok();
    check("after an update");
    systemctl(&["daemon-reload"]);
    check("after both");
    t.force(&b.id).ok();
    check_gone(t, &b);
}

/// Rules that a list can't say exactly: there is none, and they hold.
fn device_rules_that_are_no_list_are_ours_alone(t: &Test) {
    let (all, none) = (json!({"allow": true, "access": "rwm"}), ["ENXIO"; 4]);
    for (rules, expected) in [
        (json!([all]), none),
        (
            json!([all, {"allow": false, "type": "c", "major": 1, "minor": 98, "access": "w"}]),
            ["EPERM", "ENXIO", "ENXIO", "ENXIO"],
        ),
        (
            json!([{"allow": true, "type": "c", "minor": 98, "access": "rw"}]),
            ["ENXIO", "EPERM", "EPERM", "EPERM"],
        ),
        (
            json!([{"allow": true, "type": "c", "major": 1, "access": "rw"},
                {"allow": false, "type": "c", "major": 1, "minor": 98, "access": "w"}]),
            ["EPERM", "ENXIO", "EPERM", "EPERM"],
        ),
    ] {
        let b = running(t, rules.clone());
        assert_eq!(policy(&b), auto(), "{rules}");
        assert_eq!(verdicts(t, &b), expected, "{rules}");
        systemctl(&["daemon-reload"]);
        assert_eq!(policy(&b), auto(), "{rules}, after a reload");
        assert_eq!(verdicts(t, &b), expected, "{rules}, after a reload");
        t.force(&b.id).ok();
        check_gone(t, &b);
    }
}

/// systemd's program is beside ours: each forbids what the other one allows.
fn device_programs_are_two(t: &Test) {
    let b = running(t, two_allowed());
    let unit = scope(&b);
    assert_eq!(policy(&b).0, "strict");
    let allow = |nodes: &[&str]| {
        systemctl(&["set-property", "--runtime", &unit, "DeviceAllow="]);
        for node in nodes {
            systemctl(&["set-property", "--runtime", &unit, &format!("DeviceAllow={node} rwm")]);
        }
    };
    allow(&["char-1"]);
    assert_eq!(verdicts(t, &b), ["EPERM", "ENXIO", "EPERM", "EPERM"], "systemd's is tighter");
    allow(&["char-*", "block-*"]);
    assert_eq!(verdicts(t, &b), TWO_ALLOWED, "systemd's is wider");
    t.force(&b.id).ok();
    check_gone(t, &b);
}

/// For what a hook allows later (a GPU), which systemd would take away again with a reload.
fn device_policy_by_annotation_is_the_only_one(t: &Test) {
    t.skip_on_peers("give the list all the same");
    let mut b = bundle(t);
    b.set("annotations", json!({"org.systemd.property.DevicePolicy": "'auto'"}));
    create(t, &b);
    assert_eq!(policy(&b), auto());
    t.force(&b.id).ok();
    check_gone(t, &b);
}

/// A hook before the program may allow more than the rules do; Docker's does not.
fn device_list_is_left_out_beside_hooks(t: &Test) {
    t.skip_on_peers("give the list all the same");
    for (kind, wanted) in
        [("prestart", auto()), ("createRuntime", auto()), ("poststop", strict(&[]))]
    {
        let mut b = bundle(t);
        b.set("hooks", json!({kind: [{"path": "/bin/true"}]}));
        create(t, &b);
        assert_eq!(policy(&b), wanted, "{kind}");
        t.force(&b.id).ok();
        check_gone(t, &b);
    }
}

/// What the runtime itself does in the scope: nodes that may not be used, consoles.
fn device_list_lets_terminals_and_nodes_be_made(t: &Test) {
    let mut b = bundle(t);
    b.set("process.terminal", json!(true)).probe(&["print", "tick", ";", "sleep"]);
    b.push("linux.devices", json!({"path": "/dev/x", "type": "b", "major": 99, "minor": 7}));
    b.write();
    let socket = ConsoleSocket::bind(&t.dir.join("console"));
    let create =
        ["--systemd-cgroup", "create", "--bundle", b.path(), "--console-socket", socket.path()];
    t.call(&[&create[..], &[&b.id]].concat()).ok();
    assert_eq!(property(&scope(&b), "DevicePolicy"), "strict");
    let mut terminal = socket.accept();
    t.start(&b.id).ok();
    terminal.expect("\"tick\"");
    let flags = ["--tty", "--detach", "--console-socket", socket.path()];
    t.exec(&b.id, &flags, &["open-rw", "/dev/tty", ";", "open", "/dev/x", ";", "sleep"]).ok();
    let mut second = socket.accept();
    let seen = second.expect("EPERM");
    assert!(seen.contains("\"ok\":true"), "{seen}");
    t.force(&b.id).ok();
    check_gone(t, &b);
}
