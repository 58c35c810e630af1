//! The root itself: read-only, its propagation, what it may be.

use std::fs;

use corten_integration::suite::Case;
use corten_integration::{Flavour, Test, tests};
use serde_json::json;

use crate::{has, mount, mount_at, umount, words};

pub(crate) const TESTS: &[Case] = tests![
    root_is_the_rootfs_and_nothing_else,
    root_readonly,
    root_readonly_leaves_other_mounts_writable,
    root_absent_is_refused,
    root_that_is_a_file_is_refused,
    root_may_be_a_mount_point,
    root_propagation,
    root_propagation_unknown_is_refused,
    root_propagation_slave_receives_and_private_does_not,
    no_pivot_works,
    host_sees_none_of_the_mounts,
    overlay_as_a_root,
];

/// "/" is the root file system, ".." ends there, and no mount of the host is to be seen.
fn root_is_the_rootfs_and_nothing_else(t: &Test) {
    let mut b = t.bundle();
    b.file("/only-here", "");
    b.probe(&["report", "mounts", ";", "ls", "/../../.."]);
    let out = t.run(&b).ok();
    let report = out.fact(0);
    let mut points: Vec<String> = report["mounts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["point"].as_str().unwrap().to_owned())
        .collect();
    points.sort();
    points.dedup();
    let known = ["/", "/proc", "/dev", "/sys"];
    assert!(
        points.iter().all(|p| known.iter().any(|k| p == k || p.starts_with(&format!("{k}/")))),
        "{points:?}"
    );
    assert!(out.fact(1)["value"]["only-here"].is_object());
    assert!(
        !out.stdout.contains(t.dir.to_str().unwrap().trim_start_matches("/tmp/"))
            || mount_at(&report, "/")["root"].as_str().is_some()
    );
}

/// root.readonly: nothing can be written.
fn root_readonly(t: &Test) {
    let mut b = t.bundle();
    b.set("root.readonly", json!(true)).probe(&[
        "create",
        "/new",
        "",
        ";",
        "append",
        "/etc/passwd",
        "x",
        ";",
        "report",
        "mounts",
    ]);
    let out = t.run(&b).ok();
    assert_eq!(out.fact(0)["errno"], "EROFS");
    assert_eq!(out.fact(1)["errno"], "EROFS");
    assert!(has(mount_at(&out.fact(2), "/"), "ro"));
}

/// Other mounts are as the config says.
fn root_readonly_leaves_other_mounts_writable(t: &Test) {
    let mut b = t.bundle();
    b.set("root.readonly", json!(true)).mount("/tmp", "tmpfs", "tmpfs", &[]);
    b.probe(&["create", "/tmp/x", "", ";", "create", "/dev/x", ""]);
    let out = t.run(&b).ok();
    assert_eq!(out.fact(0)["ok"], true);
    assert_eq!(out.fact(1)["ok"], true);
}

/// A root file system that isn't there is an error that names it.
fn root_absent_is_refused(t: &Test) {
    let mut b = t.bundle();
    b.set("root.path", json!("absent"));
    t.create_fails(&b).says("absent");
    let mut b = t.bundle();
    b.set("root.path", json!(""));
    t.create_fails(&b);
}

/// A file can't be a root.
fn root_that_is_a_file_is_refused(t: &Test) {
    let mut b = t.bundle();
    fs::write(b.dir.join("plain"), "").unwrap();
    b.set("root.path", json!("plain"));
    t.create_fails(&b).says("not a directory");
}

/// The root may be a mount itself, as overlay file systems are.
fn root_may_be_a_mount_point(t: &Test) {
    let mut b = t.bundle();
    let rootfs = b.rootfs();
    let path = rootfs.to_str().unwrap();
    mount(t, &["--bind", path, path]);
    mount(t, &["--make-shared", path]);
    b.probe(&["print", "in"]);
    assert_eq!(t.run(&b).ok().fact(0), "in");
    umount(t, path);
}

/// rootfsPropagation is what "/" has in the end.
fn root_propagation(t: &Test) {
    for (word, expected) in [
        (None, None),
        (Some("private"), None),
        (Some("rprivate"), None),
        (Some("slave"), None),
        (Some("rslave"), None),
        (Some("shared"), Some("shared:")),
        (Some("rshared"), Some("shared:")),
        (Some("unbindable"), Some("unbindable")),
        (Some("runbindable"), Some("unbindable")),
    ] {
        if t.flavour != Flavour::Corten && expected.is_some() {
            continue; // The peers bind the root after its parent became private.
        }
        let mut b = t.bundle();
        if let Some(word) = word {
            b.set("linux.rootfsPropagation", json!(word));
        }
        let seen = t.report(&b);
        let optional = words(mount_at(&seen, "/"), "optional");
        match expected {
            None => {
                assert!(
                    !optional.iter().any(|o| o.starts_with("shared")),
                    "{word:?}: {optional:?}"
                );
            }
            Some(start) => {
                assert!(optional.iter().any(|o| o.starts_with(start)), "{word:?}: {optional:?}");
            }
        }
    }
}

/// Another word is an error.
fn root_propagation_unknown_is_refused(t: &Test) {
    let mut b = t.bundle();
    b.set("linux.rootfsPropagation", json!("sideways"));
    t.create_fails(&b).says("propagation|invalid");
}

/// A mount that the host makes later arrives in a slave, not in a private root.
fn root_propagation_slave_receives_and_private_does_not(t: &Test) {
    for (word, arrives) in [("rslave", true), ("rprivate", false)] {
        let mut b = t.bundle();
        let dir = b.path().to_owned();
        mount(t, &["--bind", &dir, &dir]);
        mount(t, &["--make-shared", &dir]);
        b.set("linux.rootfsPropagation", json!(word));
        b.directory("/later");
        t.sleeper(&mut b);
        let later = b.rootfs().join("later");
        mount(t, &["-t", "tmpfs", "later", later.to_str().unwrap()]);
        fs::write(later.join("seen"), "").unwrap();
        let out = t.exec(&b.id, &[], &["open", "/later/seen"]).ok();
        assert_eq!(out.fact(0)["ok"], arrives, "{word}");
        t.force(&b.id).ok();
        umount(t, later.to_str().unwrap());
        umount(t, &dir);
    }
}

/// `--no-pivot` moves the mount and changes root, for a root on an initramfs.
fn no_pivot_works(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["report", "mounts", "cwd", ";", "ls", "/.."]).write();
    let out = t.call(&["run", "--no-pivot", "--bundle", b.path(), &b.id]).ok();
    assert!(out.fact(1)["value"]["probe"].is_object(), "{out}");
}

/// The mounts are the container's own: the host's table is the same before, during and after.
fn host_sees_none_of_the_mounts(t: &Test) {
    let mut b = t.bundle();
    b.mount("/mnt", "tmpfs", "tmpfs", &["shared"]).set("linux.rootfsPropagation", json!("rshared"));
    t.sleeper(&mut b);
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!table.contains(b.path()), "{table}");
}

/// What containerd hands over: an overlay, written to in its upper layer.
fn overlay_as_a_root(t: &Test) {
    let mut b = t.bundle();
    let lower = b.dir.join("lower");
    fs::rename(b.rootfs(), &lower).unwrap();
    for name in ["upper", "work", "rootfs"] {
        fs::create_dir(b.dir.join(name)).unwrap();
    }
    let path = b.path().to_owned();
    let options = format!("lowerdir={path}/lower,upperdir={path}/upper,workdir={path}/work");
    mount(t, &["-t", "overlay", "overlay", "-o", &options, &format!("{path}/rootfs")]);
    b.probe(&["create", "/made", "x"]);
    let out = t.run(&b);
    umount(t, &format!("{path}/rootfs"));
    out.ok();
    assert!(b.dir.join("upper/made").exists());
    assert!(!lower.join("made").exists());
}
