//! The group on cgroup v2 as the container sees it: its namespace, its mount, groups of its own.

use std::fs;
use std::os::unix::fs::MetadataExt;

use corten_integration::suite::Case;
use corten_integration::{Bundle, Test, tests};
use serde_json::{Value, json};

use crate::{file, v2};

pub(crate) const TESTS: &[Case] = tests![
    v2_the_namespace_hides_what_is_above,
    v2_the_mount_is_the_containers_group,
    v2_the_group_belongs_to_the_containers_root,
    v2_exec_follows_into_sub_groups,
    v2_exec_into_a_sub_group,
];

fn in_namespace(t: &Test, options: &[&str]) -> Bundle {
    let mut b = t.bundle();
    b.namespace("cgroup", None).mount("/sys/fs/cgroup", "cgroup", "cgroup", options);
    b
}

const RO: [&str; 4] = ["nosuid", "noexec", "nodev", "ro"];
const RW: [&str; 4] = ["nosuid", "noexec", "nodev", "rw"];

/// In a cgroup namespace the container's group is the top.
fn v2_the_namespace_hides_what_is_above(t: &Test) {
    v2(t);
    let mut b = in_namespace(t, &RO);
    b.probe(&["report", "cgroup"]);
    assert_eq!(t.report(&b)["cgroup"], json!(["0::/"]));
}

/// A mount of type cgroup is cgroup2, read-only if asked. In a namespace its root is the container's
/// group, without one the host's; the host's own mount keeps its options, which all mounts share
/// (a new one without a namespace takes nsdelegate from them, and the container's limits are its own).
fn v2_the_mount_is_the_containers_group(t: &Test) {
    v2(t);
    let options_of_the_host = || {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let line = table.lines().find(|line| line.contains(" /sys/fs/cgroup ")).unwrap();
        line.split_once(" - ").unwrap().1.to_owned()
    };
    let before = options_of_the_host();
    let steps = [
        "read",
        "/sys/fs/cgroup/pids.max",
        ";",
        "mkdir",
        "/sys/fs/cgroup/new",
        ";",
        "rmdir",
        "/sys/fs/cgroup/new",
        ";",
        "report",
        "mounts",
    ];
    for (namespace, options, writable) in
        [(true, RO, false), (true, RW, true), (false, RO, false), (false, RW, true)]
    {
        let mut b = in_namespace(t, &options);
        if !namespace {
            b.no_namespace("cgroup");
        }
        b.set("linux.resources.pids", json!({"limit": 77})).probe(&steps);
        let out = t.run(&b).ok();
        if namespace {
            assert_eq!(out.fact(0)["value"], "77\n", "{out}");
        } else {
            // Only the top has no limits.
            assert_eq!(out.fact(0)["errno"], "ENOENT", "{out}");
        }
        let made = &out.fact(1);
        // The host's top belongs to nobody who has no CAP_DAC_OVERRIDE.
        let refused = if writable { "EACCES" } else { "EROFS" };
        assert!(made["errno"] == refused || (writable && made["ok"] == true), "{made}");
        let seen = out.fact(3);
        let mounts: &Vec<Value> = seen["mounts"].as_array().unwrap();
        let own: Vec<_> = mounts.iter().filter(|m| m["type"] == "cgroup2").collect();
        assert_eq!(own.len(), 1, "{seen}");
        assert_eq!(own[0]["point"], "/sys/fs/cgroup");
        if t.flavour == corten_integration::Flavour::Corten {
            assert_eq!(options_of_the_host(), before);
        }
    }
}

/// What systemd does in a container: a sub-group for itself, and controllers for more of them.
const MAKES_GROUPS: [&str; 11] = [
    "mkdir",
    "/sys/fs/cgroup/init",
    ";",
    "write",
    "/sys/fs/cgroup/init/cgroup.procs",
    "0",
    ";",
    "write",
    "/sys/fs/cgroup/cgroup.subtree_control",
    "+pids",
    ";",
];

/// With a namespace and a writable mount the group is the user's who is root in the container, and
/// its limits are not.
fn v2_the_group_belongs_to_the_containers_root(t: &Test) {
    v2(t);
    t.skip_on_peers("other rules");
    let mut b = in_namespace(t, &RW);
    b.namespace("user", None)
        .set("linux.uidMappings", json!([{"containerID": 0, "hostID": 100_000, "size": 1000}]))
        .set("linux.gidMappings", json!([{"containerID": 0, "hostID": 100_000, "size": 1000}]));
    std::os::unix::fs::chown(b.rootfs(), Some(100_000), Some(100_000)).unwrap();
    b.set("linux.resources.pids", json!({"limit": 77}));
    let limits = ["write", "/sys/fs/cgroup/pids.max", "max", ";", "sleep"];
    b.probe(&[&MAKES_GROUPS[..], &limits[..]].concat());
    t.create(&b).ok();
    let owner = |name: &str| fs::metadata(b.cgroup_dir("").join(name)).unwrap().uid();
    assert_eq!(["", "cgroup.procs", "cgroup.subtree_control"].map(owner), [100_000; 3]);
    assert_eq!(["pids.max", "memory.max", "cpu.weight"].map(owner), [0; 3]);
    t.start(&b.id).ok();
    t.wait_asleep(&b.id);
    assert_eq!(file(&b, "cgroup.subtree_control"), "pids");
    assert_eq!(file(&b, "pids.max"), "77");
    t.force(&b.id).ok();
    t.nothing_left(&b);
    // Read-only: nothing is given away.
    let mut b = in_namespace(t, &RO);
    b.probe(&["sleep"]);
    t.create(&b).ok();
    assert_eq!(fs::metadata(b.cgroup_dir("")).unwrap().uid(), 0);
}

/// An init that made sub-groups with controllers (systemd) leaves no place for processes beside
/// them: exec goes where the init is.
fn v2_exec_follows_into_sub_groups(t: &Test) {
    v2(t);
    let mut b = in_namespace(t, &RW);
    b.probe(&[&MAKES_GROUPS[..], &["sleep"]].concat());
    t.create(&b).ok();
    t.start(&b.id).ok();
    t.wait_asleep(&b.id);
    let seen = t.exec(&b.id, &[], &["report", "cgroup"]).ok().fact(0);
    assert_eq!(seen["cgroup"], json!(["0::/init"]));
    t.call(&["pause", &b.id]).ok();
    assert!(b.is_frozen());
    t.call(&["resume", &b.id]).ok();
    t.force(&b.id).ok();
    t.nothing_left(&b);
}

/// `exec --cgroup` names a group below the container's.
fn v2_exec_into_a_sub_group(t: &Test) {
    v2(t);
    let mut b = in_namespace(t, &RO);
    t.sleeper(&mut b);
    fs::create_dir(b.cgroup_dir("").join("sub")).unwrap();
    let seen = t.exec(&b.id, &["--cgroup", "sub"], &["report", "cgroup"]).ok().fact(0);
    assert_eq!(seen["cgroup"], json!(["0::/sub"]));
    t.exec(&b.id, &["--cgroup", "absent"], &["report", "cgroup"]).fails();
    t.exec(&b.id, &["--cgroup", "../.."], &["report", "cgroup"]).fails();
}
