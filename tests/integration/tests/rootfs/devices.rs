//! The container's /dev.

use std::fs;

use corten_integration::suite::Case;
use corten_integration::{Flavour, Test, tests};
use serde_json::json;

pub(crate) const TESTS: &[Case] = tests![
    devices_default_nodes_and_links,
    devices_of_the_config,
    devices_in_directories,
    devices_existing_wrong_node_is_refused,
    devices_existing_right_node_is_fine,
    devices_bad_ones_are_refused,
    dev_without_a_mount,
    dev_bound_from_the_host_is_left_alone,
];

/// "The runtime MUST supply" these, and the links that programs expect.
fn devices_default_nodes_and_links(t: &Test) {
    let seen = t.report(&t.bundle())["devices"].clone();
    for (name, major, minor) in [
        ("null", 1, 3),
        ("zero", 1, 5),
        ("full", 1, 7),
        ("random", 1, 8),
        ("urandom", 1, 9),
        ("tty", 5, 0),
    ] {
        let node = &seen[name];
        assert_eq!(
            (&node["type"], &node["major"], &node["minor"]),
            (&json!("c"), &json!(major), &json!(minor)),
            "{name}"
        );
        assert_eq!(node["mode"], 0o666, "{name}");
        assert_eq!(node["uid"], 0, "{name}");
    }
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        assert_eq!(seen[name]["target"], target);
    }
    assert!(
        seen["ptmx"]["target"] == "pts/ptmx" || seen["ptmx"]["type"] == "c",
        "{}",
        seen["ptmx"]
    );
}

/// Character, block and fifo nodes with mode, uid and gid.
fn devices_of_the_config(t: &Test) {
    let mut b = t.bundle();
    b.set("linux.devices", json!([
        {"path": "/dev/one", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 7, "gid": 8},
        {"path": "/dev/two", "type": "b", "major": 7, "minor": 0, "fileMode": 0o600, "uid": 0, "gid": 0},
        {"path": "/dev/three", "type": "p", "fileMode": 0o666, "uid": 1, "gid": 2},
        {"path": "/dev/four", "type": "u", "major": 10, "minor": 200, "fileMode": 0o666, "uid": 0, "gid": 0},
    ]));
    let seen = t.report(&b)["devices"].clone();
    let node = |name: &str| {
        let n = &seen[name];
        (
            n["type"].clone(),
            n["major"].clone(),
            n["minor"].clone(),
            n["mode"].clone(),
            n["uid"].clone(),
            n["gid"].clone(),
        )
    };
    assert_eq!(node("one"), (json!("c"), json!(10), json!(229), json!(0o640), json!(7), json!(8)));
    assert_eq!(node("two"), (json!("b"), json!(7), json!(0), json!(0o600), json!(0), json!(0)));
    assert_eq!(seen["three"]["type"], "p");
    assert_eq!((&seen["three"]["mode"], &seen["three"]["uid"]), (&json!(0o666), &json!(1)));
    assert_eq!(node("four"), (json!("c"), json!(10), json!(200), json!(0o666), json!(0), json!(0)));
}

/// Parents are made; a device may be outside of /dev.
fn devices_in_directories(t: &Test) {
    let mut b = t.bundle();
    b.set("linux.devices", json!([
        {"path": "/dev/dir/x", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666, "uid": 0, "gid": 0},
        {"path": "/opt/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666, "uid": 0, "gid": 0},
    ]));
    b.probe(&["stat", "/dev/dir/x", ";", "stat", "/opt/null"]);
    let out = t.run(&b).ok();
    assert_eq!(out.fact(0)["value"]["type"], "c");
    assert_eq!(out.fact(1)["value"]["minor"], 3);
}

/// "If a file already exists at path that does not match the requested device, MUST generate an error."
fn devices_existing_wrong_node_is_refused(t: &Test) {
    t.skip_on_peers("keep the wrong one");
    for (kind, major, minor) in [("c", 1, 5), ("p", 0, 0), ("file", 0, 0)] {
        let mut b = t.bundle();
        b.directory("/opt");
        let path = b.rootfs().join("opt/x");
        match kind {
            "file" => fs::write(&path, "").unwrap(),
            _ => {
                let kind = if kind == "c" {
                    nix::sys::stat::SFlag::S_IFCHR
                } else {
                    nix::sys::stat::SFlag::S_IFIFO
                };
                let mode = nix::sys::stat::Mode::from_bits_truncate(0o666);
                nix::sys::stat::mknod(&path, kind, mode, nix::sys::stat::makedev(major, minor))
                    .unwrap();
            }
        }
        b.set("linux.devices", json!([{"path": "/opt/x", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666, "uid": 0, "gid": 0}]));
        t.create_fails(&b).says("/opt/x");
    }
}

/// The right node may be there already.
fn devices_existing_right_node_is_fine(t: &Test) {
    let mut b = t.bundle();
    b.directory("/opt");
    let mode = nix::sys::stat::Mode::from_bits_truncate(0o666);
    let path = b.rootfs().join("opt/x");
    nix::sys::stat::mknod(
        &path,
        nix::sys::stat::SFlag::S_IFCHR,
        mode,
        nix::sys::stat::makedev(1, 3),
    )
    .unwrap();
    b.set("linux.devices", json!([{"path": "/opt/x", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666, "uid": 0, "gid": 0}]));
    t.run(&b).ok();
}

/// A type that doesn't exist, or no type.
fn devices_bad_ones_are_refused(t: &Test) {
    for device in [
        json!({"path": "/dev/x", "type": "z", "major": 1, "minor": 3}),
        json!({"path": "/dev/x", "type": "", "major": 1, "minor": 3}),
    ] {
        let mut b = t.bundle();
        b.set("linux.devices", json!([device]));
        t.create_fails(&b);
    }
}

/// Without a /dev mount the nodes are made in the root file system.
fn dev_without_a_mount(t: &Test) {
    let mut b = t.bundle();
    for point in ["/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"] {
        b.unmount(point);
    }
    let seen = t.report(&b);
    assert_eq!(seen["devices"]["null"]["type"], "c");
}

/// A /dev bound from the host keeps its content.
fn dev_bound_from_the_host_is_left_alone(t: &Test) {
    let dir = t.dir.join("dev");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("mine"), "").unwrap();
    let mode = nix::sys::stat::Mode::from_bits_truncate(0o666);
    let null = nix::sys::stat::makedev(1, 3);
    nix::sys::stat::mknod(&dir.join("null"), nix::sys::stat::SFlag::S_IFCHR, mode, null).unwrap();
    let mut b = t.bundle();
    for point in ["/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"] {
        b.unmount(point);
    }
    b.mount("/dev", "bind", dir.to_str().unwrap(), &["bind"]).probe(&["ls", "/dev"]);
    let out = t.run(&b).ok();
    assert!(out.fact(0)["value"]["mine"].is_object());
    t.skip_on(Flavour::Crun, "makes nodes there");
    let mut names: Vec<_> = fs::read_dir(&dir).unwrap().flatten().map(|e| e.file_name()).collect();
    names.sort();
    assert_eq!(names, ["mine", "null"], "the host's directory is as it was");
}
