//! Masked and read-only paths.

use std::fs;
use std::os::unix::fs::symlink;

use corten_integration::suite::Case;
use corten_integration::{Flavour, Test, tests};
use serde_json::json;

use crate::{has, mount_at};

pub(crate) const TESTS: &[Case] = tests![
    masked_files_are_empty,
    masked_directories_are_empty_and_read_only,
    masked_absent_paths_are_ignored,
    masked_path_does_not_trust_the_containers_dev_null,
    readonly_paths,
    readonly_absent_paths_are_ignored,
    readonly_keeps_flags,
];

/// A masked file reads as empty and swallows what is written.
fn masked_files_are_empty(t: &Test) {
    let mut b = t.bundle();
    b.file("/etc/secret", "secret");
    b.set("linux.maskedPaths", json!(["/etc/secret", "/proc/kcore", "/proc/timer_list"]));
    b.probe(&[
        "read",
        "/etc/secret",
        ";",
        "read",
        "/proc/timer_list",
        ";",
        "append",
        "/etc/secret",
        "x",
    ]);
    let out = t.run(&b).ok();
    assert_eq!(out.fact(0)["value"], "");
    assert_eq!(out.fact(1)["value"].as_str().unwrap_or(""), "");
    assert_eq!(fs::read_to_string(b.rootfs().join("etc/secret")).unwrap(), "secret");
}

/// A masked directory is empty and can't be filled.
fn masked_directories_are_empty_and_read_only(t: &Test) {
    let mut b = t.bundle();
    b.file("/hidden/file", "secret");
    b.set("linux.maskedPaths", json!(["/hidden", "/sys/firmware"]));
    b.probe(&["ls", "/hidden", ";", "create", "/hidden/x", "", ";", "ls", "/sys/firmware"]);
    let out = t.run(&b).ok();
    assert_eq!(out.fact(0)["value"], json!({}));
    assert_eq!(out.fact(1)["errno"], "EROFS");
    assert!(out.fact(2)["ok"] == false || out.fact(2)["value"] == json!({}));
}

/// What isn't there needn't be masked.
fn masked_absent_paths_are_ignored(t: &Test) {
    let mut b = t.bundle();
    b.set("linux.maskedPaths", json!(["/absent", "/proc/absent", "/absent/below"]));
    t.run(&b).ok();
    t.skip_on_peers("take ENOTDIR for a failure");
    b.set("linux.maskedPaths", json!(["/etc/passwd/below"]));
    t.run(&b).ok();
}

/// CVE-2025-31133: a /dev/null that is something else must not end up as the mask.
fn masked_path_does_not_trust_the_containers_dev_null(t: &Test) {
    t.skip_on_peers("affected");
    let mut b = t.bundle();
    for point in ["/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"] {
        b.unmount(point);
    }
    b.file("/evil", "evil");
    b.file("/etc/secret", "secret");
    symlink("/evil", b.rootfs().join("dev/null")).unwrap();
    b.set("linux.maskedPaths", json!(["/etc/secret"])).probe(&[
        "read",
        "/etc/secret",
        ";",
        "write",
        "/etc/secret",
        "x",
    ]);
    let out = t.run(&b);
    if out.code == 0 {
        assert_eq!(out.fact(0)["value"], "", "{out}");
    } else {
        out.fails();
    }
    assert_eq!(fs::read_to_string(b.rootfs().join("evil")).unwrap(), "evil");
}

/// Files and directories, with what is below them.
fn readonly_paths(t: &Test) {
    let mut b = t.bundle();
    b.file("/ro/file", "x");
    b.file("/ro/sub/file", "x");
    b.set("linux.readonlyPaths", json!(["/ro", "/etc/passwd", "/proc/sys"]));
    b.probe(&[
        "append",
        "/ro/file",
        "y",
        ";",
        "create",
        "/ro/sub/new",
        "",
        ";",
        "append",
        "/etc/passwd",
        "y",
        ";",
        "write",
        "/proc/sys/net/ipv4/ip_forward",
        "1",
        ";",
        "append",
        "/etc/group",
        "",
    ]);
    let out = t.run(&b).ok();
    for n in 0..4 {
        assert_eq!(out.fact(n)["errno"], "EROFS", "{out}");
    }
    assert_eq!(out.fact(4)["ok"], true);
}

/// What isn't there can't be written.
fn readonly_absent_paths_are_ignored(t: &Test) {
    let mut b = t.bundle();
    b.set("linux.readonlyPaths", json!(["/absent", "/proc/absent"]));
    t.run(&b).ok();
}

/// A read-only path on a nosuid mount stays nosuid.
fn readonly_keeps_flags(t: &Test) {
    t.skip_on(Flavour::Runc, "1.1 has it for user namespaces only");
    let mut b = t.bundle();
    b.remount("/proc", &["nosuid", "noexec", "nodev"]);
    let seen = t.report(&b);
    let mount = mount_at(&seen, "/proc/sys");
    for flag in ["ro", "nosuid", "noexec", "nodev"] {
        assert!(has(mount, flag), "{flag}: {mount}");
    }
}
