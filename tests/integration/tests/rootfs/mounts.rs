//! Mounts in their order, of every type, and what file systems are given.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use corten_integration::suite::Case;
use corten_integration::{Bundle, Flavour, Test, tests};
use serde_json::json;

use crate::{has, mount_at, words};

pub(crate) const TESTS: &[Case] = tests![
    mounts_are_in_order,
    mounts_of_every_type,
    mount_without_options_type_or_source,
    mount_relative_destination_is_from_the_root,
    mount_at_root_is_refused,
    mount_of_unknown_type_is_refused,
    mount_unknown_option_goes_to_the_file_system,
    tmpfs_size_mode_and_owner,
    tmpfs_mode_is_the_directorys,
    tmpfs_copy_up,
    proc_options,
    sysfs_is_read_only,
    cgroup_mount_v1,
    cgroup_mount_v1_in_a_cgroup_namespace,
    cgroup_mount_is_read_only,
];

/// A later mount covers an earlier one, and one below it comes after it.
fn mounts_are_in_order(t: &Test) {
    let mut b = t.bundle();
    b.mount("/a", "tmpfs", "first", &[]).mount("/a/b", "tmpfs", "second", &[]);
    b.mount("/c", "tmpfs", "third", &[]).mount("/c", "tmpfs", "fourth", &["ro"]);
    let seen = t.report(&b);
    assert_eq!(mount_at(&seen, "/a")["source"], "first");
    assert_eq!(mount_at(&seen, "/a/b")["source"], "second");
    assert_eq!(mount_at(&seen, "/c")["source"], "fourth");
    let count = seen["mounts"].as_array().unwrap().iter().filter(|m| m["point"] == "/c").count();
    assert_eq!(count, 2);
}

/// Types go to the kernel as they are.
fn mounts_of_every_type(t: &Test) {
    let mut b = t.bundle();
    b.mount("/m/ramfs", "ramfs", "ramfs", &["mode=0700"]).mount(
        "/m/tmpfs",
        "tmpfs",
        "x",
        &["nosuid"],
    );
    let seen = t.report(&b);
    for (point, kind) in [
        ("/proc", "proc"),
        ("/dev", "tmpfs"),
        ("/dev/pts", "devpts"),
        ("/dev/shm", "tmpfs"),
        ("/dev/mqueue", "mqueue"),
        ("/sys", "sysfs"),
        ("/m/ramfs", "ramfs"),
        ("/m/tmpfs", "tmpfs"),
    ] {
        assert_eq!(mount_at(&seen, point)["type"], kind, "{point}");
    }
    assert_eq!(mount_at(&seen, "/m/tmpfs")["source"], "x");
}

/// type, source and options are optional.
fn mount_without_options_type_or_source(t: &Test) {
    let mut b = t.bundle();
    b.push("mounts", json!({"destination": "/bare", "type": "tmpfs"}));
    b.push("mounts", json!({"destination": "/bound", "source": t.dir, "options": ["bind", "ro"]}));
    let seen = t.report(&b);
    assert_eq!(mount_at(&seen, "/bare")["type"], "tmpfs");
    assert!(has(mount_at(&seen, "/bound"), "ro"));
}

/// "relative to /" for what existing configs hold.
fn mount_relative_destination_is_from_the_root(t: &Test) {
    let mut b = t.bundle();
    b.mount("relative/point", "tmpfs", "tmpfs", &[]);
    assert_eq!(mount_at(&t.report(&b), "/relative/point")["type"], "tmpfs");
}

/// The root itself can't be covered.
fn mount_at_root_is_refused(t: &Test) {
    t.skip_on(Flavour::Crun, "does it");
    for point in ["/", "/.", "/tmp/.."] {
        let mut b = t.bundle();
        b.mount(point, "tmpfs", "tmpfs", &[]);
        t.create_fails(&b);
    }
}

/// The kernel's errno for a type it doesn't have.
fn mount_of_unknown_type_is_refused(t: &Test) {
    let mut b = t.bundle();
    b.mount("/x", "nosuchfs", "x", &[]);
    t.create_fails(&b).says("no such device");
}

/// A word that is no option of ours belongs to the file system, which refuses it.
fn mount_unknown_option_goes_to_the_file_system(t: &Test) {
    let mut b = t.bundle();
    b.mount("/x", "tmpfs", "x", &["size=64k", "nr_inodes=100"]);
    b.probe(&["statfs", "/x"]);
    assert_eq!(t.run(&b).ok().fact(0)["value"]["files"], 100);
    let mut b = t.bundle();
    b.mount("/x", "tmpfs", "x", &["nosuchoption"]);
    t.create_fails(&b).says("invalid argument");
}

/// Data options of tmpfs.
fn tmpfs_size_mode_and_owner(t: &Test) {
    let mut b = t.bundle();
    b.mount("/t", "tmpfs", "tmpfs", &["size=128k", "mode=0710", "uid=12", "gid=34"]);
    b.probe(&["statfs", "/t", ";", "stat", "/t"]);
    let out = t.run(&b).ok();
    assert_eq!(out.fact(0)["value"]["size"], 128 << 10);
    let node = &out.fact(1)["value"];
    assert_eq!(
        (&node["mode"], &node["uid"], &node["gid"]),
        (&json!(0o710), &json!(12), &json!(34))
    );
}

/// Without mode= a tmpfs takes the mode of the directory it covers.
fn tmpfs_mode_is_the_directorys(t: &Test) {
    t.skip_on(Flavour::Crun, "1.8 leaves it 1777");
    let mut b = t.bundle();
    let dir = b.directory("/covered");
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o750)).unwrap();
    b.mount("/covered", "tmpfs", "tmpfs", &[]).probe(&["stat", "/covered"]);
    assert_eq!(t.run(&b).ok().fact(0)["value"]["mode"], 0o750);
}

/// tmpcopyup: the directory's content is there, links stay links, modes and owners too.
fn tmpfs_copy_up(t: &Test) {
    let mut b = t.bundle();
    b.file("/up/file", "text");
    b.file("/up/sub/deep", "deeper");
    let secret = b.file("/up/secret", "s");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    std::os::unix::fs::chown(&secret, Some(1000), Some(1000)).unwrap();
    symlink("/etc/passwd", b.rootfs().join("up/link")).unwrap();
    b.mount("/up", "tmpfs", "tmpfs", &["tmpcopyup", "nosuid"]);
    b.probe(&[
        "ls",
        "/up",
        ";",
        "read",
        "/up/sub/deep",
        ";",
        "create",
        "/up/new",
        "",
        ";",
        "report",
        "mounts",
    ]);
    let out = t.run(&b).ok();
    let names = &out.fact(0)["value"];
    assert_eq!(names["file"]["type"], "f");
    assert_eq!(names["link"]["target"], "/etc/passwd");
    assert_eq!((&names["secret"]["mode"], &names["secret"]["uid"]), (&json!(0o600), &json!(1000)));
    assert_eq!(out.fact(1)["value"], "deeper");
    assert_eq!(mount_at(&out.fact(3), "/up")["type"], "tmpfs");
    assert!(!b.rootfs().join("up/new").exists());
}

/// procfs has options of its own.
fn proc_options(t: &Test) {
    t.skip_on(Flavour::Crun, "1.8 takes them, with other rules");
    let mut b = t.bundle();
    b.remount("/proc", &["nosuid", "noexec", "nodev", "hidepid=2"]);
    let seen = t.report(&b);
    let mount = mount_at(&seen, "/proc");
    assert!(has(mount, "nosuid") && has(mount, "noexec") && has(mount, "nodev"));
    assert!(
        words(mount, "super").iter().any(|o| o == "hidepid=invisible" || o == "hidepid=2"),
        "{mount}"
    );
}

/// What the config calls read-only is.
fn sysfs_is_read_only(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["create", "/sys/x", "", ";", "mkdir", "/sys/kernel/x", ";", "report", "mounts"]);
    let out = t.run(&b).ok();
    assert_eq!(out.fact(0)["ok"], false);
    assert_eq!(out.fact(1)["errno"], "EROFS");
    assert!(has(mount_at(&out.fact(2), "/sys"), "ro"));
}

fn with_cgroup_mount(t: &Test, options: &[&str]) -> Bundle {
    let mut b = t.bundle();
    b.mount("/sys/fs/cgroup", "cgroup", "cgroup", options);
    b
}

fn v1(t: &Test) {
    if corten_integration::cgroups::is_v2() {
        t.skip("cgroup v1 only");
    }
}

/// type cgroup on v1: one mount for each hierarchy, each showing the container's group only.
fn cgroup_mount_v1(t: &Test) {
    v1(t);
    let mut b = with_cgroup_mount(t, &["nosuid", "noexec", "nodev", "relatime", "ro"]);
    b.probe(&[
        "ls",
        "/sys/fs/cgroup",
        ";",
        "read",
        "/sys/fs/cgroup/pids/pids.max",
        ";",
        "report",
        "mounts",
    ]);
    b.set("linux.resources.pids", json!({"limit": 77}));
    let out = t.run(&b).ok();
    for name in ["cpu", "memory", "pids", "devices", "freezer"] {
        assert!(out.fact(0)["value"][name].is_object(), "{name}: {out}");
    }
    assert_eq!(out.fact(1)["value"], "77\n");
    let seen = out.fact(2);
    assert_eq!(mount_at(&seen, "/sys/fs/cgroup/pids")["type"], "cgroup");
}

/// In a cgroup namespace the mounts are new ones whose root is the container's group.
fn cgroup_mount_v1_in_a_cgroup_namespace(t: &Test) {
    v1(t);
    let mut b = with_cgroup_mount(t, &["nosuid", "noexec", "nodev", "relatime", "ro"]);
    b.namespace("cgroup", None).set("linux.resources.pids", json!({"limit": 78}));
    b.probe(&["read", "/sys/fs/cgroup/pids/pids.max", ";", "report", "mounts"]);
    let out = t.run(&b).ok();
    assert_eq!(out.fact(0)["value"], "78\n");
    assert_eq!(mount_at(&out.fact(1), "/sys/fs/cgroup/pids")["root"], "/");
}

/// CVE-2023-25809, CVE-2022-0492: ro is ro in every hierarchy; rw is rw.
fn cgroup_mount_is_read_only(t: &Test) {
    v1(t);
    let steps = [
        "mkdir",
        "/sys/fs/cgroup/pids/new",
        ";",
        "mkdir",
        "/sys/fs/cgroup/new",
        ";",
        "write",
        "/sys/fs/cgroup/pids/pids.max",
        "5",
    ];
    for cgroupns in [false, true] {
        let mut b = with_cgroup_mount(t, &["nosuid", "noexec", "nodev", "ro"]);
        if cgroupns {
            b.namespace("cgroup", None);
        }
        b.probe(&steps);
        let out = t.run(&b).ok();
        assert_eq!(out.fact(0)["errno"], "EROFS", "{out}");
        assert_eq!(out.fact(1)["ok"], false, "{out}");
        assert_eq!(out.fact(2)["errno"], "EROFS", "{out}");
        let mut b = with_cgroup_mount(t, &["nosuid", "noexec", "nodev"]);
        if cgroupns {
            b.namespace("cgroup", None);
        }
        b.probe(&["mkdir", "/sys/fs/cgroup/pids/new", ";", "rmdir", "/sys/fs/cgroup/pids/new"]);
        assert_eq!(t.run(&b).ok().fact(0)["ok"], true, "cgroupns {cgroupns}");
    }
}
