//! New namespaces, one of each kind, and all their combinations.

use corten_integration::suite::Case;
use corten_integration::{Flavour, Test, tests};
use serde_json::json;

use crate::{host_ns, with_user};

pub(crate) const TESTS: &[Case] = tests![
    new_ones_differ_from_the_hosts,
    the_others_are_the_hosts,
    every_combination_works,
    network_has_loopback_up_and_nothing_else,
    pid_makes_the_program_pid_1,
    uts_hostname_and_domainname,
    hostname_without_uts_is_refused,
    cgroup_shows_the_container_as_root,
    ipc_is_empty,
    mount_is_needed_for_mounts,
    duplicates_are_refused,
    unknown_types_are_refused,
];

/// The names of the specification and of /proc/self/ns.
const KINDS: [(&str, &str); 6] = [
    ("pid", "pid"),
    ("network", "net"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("mount", "mnt"),
    ("cgroup", "cgroup"),
];

/// Each namespace that is asked for is a new one.
fn new_ones_differ_from_the_hosts(t: &Test) {
    let mut b = t.bundle();
    b.namespace("cgroup", None);
    with_user(&mut b);
    let seen = t.report(&b);
    for (_, name) in KINDS {
        assert_ne!(seen["ns"][name], json!(host_ns(name)), "{name}");
    }
    assert_ne!(seen["ns"]["user"], json!(host_ns("user")));
}

/// What isn't asked for is shared with the runtime.
fn the_others_are_the_hosts(t: &Test) {
    let mut b = t.bundle();
    b.set("linux.namespaces", json!([{"type": "mount"}])).unset("hostname");
    b.unmount("/dev/mqueue");
    let seen = t.report(&b);
    for (_, name) in KINDS.iter().filter(|(kind, _)| *kind != "mount") {
        assert_eq!(seen["ns"][*name], json!(host_ns(name)), "{name}");
    }
    assert_eq!(seen["ns"]["user"], json!(host_ns("user")));
    assert_ne!(seen["ns"]["mnt"], json!(host_ns("mnt")));
}

/// All combinations of pid, network, ipc, uts, cgroup and user with the mount namespace.
fn every_combination_works(t: &Test) {
    let kinds = ["pid", "network", "ipc", "uts", "cgroup", "user"];
    for choice in 0..1_u32 << kinds.len() {
        let mut b = t.bundle();
        b.set("linux.namespaces", json!([{"type": "mount"}])).probe(&["report", "ns", "pid"]);
        b.unset("hostname");
        let asked = |kind: &str| {
            kinds.iter().position(|k| *k == kind).is_some_and(|n| choice >> n & 1 == 1)
        };
        for kind in kinds.iter().filter(|kind| asked(kind)) {
            b.namespace(kind, None);
        }
        if asked("user") {
            with_user(&mut b);
            if !asked("ipc") {
                b.unmount("/dev/mqueue");
            }
            if !asked("network") {
                b.unmount("/sys");
            }
            if !asked("pid") {
                // The kernel refuses a new proc of the host's pid namespace in there.
                b.unmount("/proc").mount("/proc", "bind", "/proc", &["rbind"]);
                b.set("linux.maskedPaths", json!([])).set("linux.readonlyPaths", json!([]));
            }
        }
        let seen = t.report(&b);
        for (kind, name) in KINDS {
            let new = seen["ns"][name] != json!(host_ns(name));
            assert_eq!(new, kind == "mount" || asked(kind), "{kind} of {choice:06b}: {seen}");
        }
        assert_eq!(seen["ns"]["user"] != json!(host_ns("user")), asked("user"), "{choice:06b}");
        t.nothing_left(&b);
    }
}

/// A new network namespace has its loopback up and no other interface up.
fn network_has_loopback_up_and_nothing_else(t: &Test) {
    let seen = t.report(&t.bundle());
    assert_eq!(seen["extra"]["lo"].as_i64().unwrap() & 1, 1);
    let names: Vec<String> = serde_json::from_value(seen["extra"]["interfaces"].clone()).unwrap();
    assert!(
        names.iter().all(|n| n == "lo"
            || n.contains("tunl")
            || n.contains("sit")
            || n.contains("ip6")
            || n.contains("gre")),
        "{names:?}"
    );
}

/// The program is the first process.
fn pid_makes_the_program_pid_1(t: &Test) {
    let seen = t.report(&t.bundle());
    assert_eq!(seen["pid"], 1);
    assert_eq!(seen["ppid"], 0);
    let mut b = t.bundle();
    b.no_namespace("pid");
    assert_ne!(t.report(&b)["pid"], 1);
}

/// hostname and domainname are those of the config.
fn uts_hostname_and_domainname(t: &Test) {
    let mut b = t.bundle();
    b.set("hostname", json!("a-name.example"));
    assert_eq!(t.report(&b)["uname"]["hostname"], "a-name.example");
    t.skip_on(Flavour::Runc, "1.1 is older than domainname");
    let mut b = t.bundle();
    b.set("domainname", json!("dom.example"));
    assert_eq!(t.report(&b)["uname"]["domainname"], "dom.example");
}

/// A name for the host's own uts namespace is an error, and the host keeps its name.
fn hostname_without_uts_is_refused(t: &Test) {
    let mut b = t.bundle();
    b.no_namespace("uts");
    t.create_fails(&b).says("hostname|uts");
    t.skip_on_peers("older than domainname, or without this check");
    let mut b = t.bundle();
    b.no_namespace("uts").unset("hostname").set("domainname", json!("x"));
    t.create_fails(&b).says("domainname|uts");
}

/// With a cgroup namespace every path in /proc/self/cgroup is "/".
fn cgroup_shows_the_container_as_root(t: &Test) {
    let mut b = t.bundle();
    b.namespace("cgroup", None);
    let seen = t.report(&b);
    for line in seen["cgroup"].as_array().unwrap() {
        assert!(line.as_str().unwrap().ends_with(":/"), "{seen}", seen = seen["cgroup"]);
    }
}

/// Nothing of the host's System V objects is visible.
fn ipc_is_empty(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["read", "/proc/sysvipc/shm"]);
    let text = t.run(&b).ok().fact(0)["value"].as_str().unwrap().to_owned();
    assert_eq!(text.lines().count(), 1, "{text}");
}

/// Mounts without a mount namespace would be the host's.
fn mount_is_needed_for_mounts(t: &Test) {
    t.skip_on(Flavour::Crun, "mounts into the host's namespace");
    let mut b = t.bundle();
    b.no_namespace("mount");
    t.create_fails(&b);
}

/// "If the namespaces field contains duplicated namespaces ... the runtime MUST generate an error."
fn duplicates_are_refused(t: &Test) {
    for kind in ["pid", "network", "mount", "ipc", "uts"] {
        let mut b = t.bundle();
        b.push("linux.namespaces", json!({"type": kind}));
        t.create_fails(&b).says("namespace|duplicated ns");
    }
}

/// A kind that doesn't exist is an error.
fn unknown_types_are_refused(t: &Test) {
    for kind in ["", "net", "PID", "nope"] {
        let mut b = t.bundle();
        b.push("linux.namespaces", json!({"type": kind}));
        t.create_fails(&b).says("namespace");
    }
}
