//! Namespaces that are joined by their path.

use std::fs;
use std::process::Command;

use corten_integration::driver::Running;
use corten_integration::suite::Case;
use corten_integration::{Flavour, Test, tests};
use serde_json::json;

pub(crate) const TESTS: &[Case] = tests![
    joined_by_path,
    joined_network_of_a_bind_mount,
    joined_pid_is_not_pid_1,
    joined_user,
    joined_user_with_other_namespaces_of_it,
    join_of_an_absent_path_is_refused,
    join_of_a_wrong_type_is_refused,
    join_of_no_namespace_is_refused,
];

/// Each kind can be joined by the path of a process that is in it.
fn joined_by_path(t: &Test) {
    for (kind, name) in [("network", "net"), ("ipc", "ipc"), ("uts", "uts"), ("cgroup", "cgroup")] {
        let mut first = t.bundle();
        first.namespace("cgroup", None);
        let pid = t.sleeper(&mut first);
        let path = format!("/proc/{pid}/ns/{name}");
        let mut b = t.bundle();
        b.namespace(kind, Some(&path));
        if kind == "uts" {
            b.unset("hostname");
        }
        let seen = t.report(&b);
        assert_eq!(seen["ns"][name], json!(fs::read_link(&path).unwrap()), "{kind}");
        if kind == "uts" {
            assert_eq!(seen["uname"]["hostname"], "probe");
        }
    }
}

/// A namespace kept by a bind mount (what CNI does) can be joined and stays.
fn joined_network_of_a_bind_mount(t: &Test) {
    let file = t.dir.join("netns");
    fs::write(&file, "").unwrap();
    let mut unshare = Command::new("unshare");
    unshare.arg(format!("--net={}", file.display())).arg("true");
    t.execute(unshare).ok();
    let mut b = t.bundle();
    b.namespace("network", file.to_str());
    let first = t.report(&b)["ns"]["net"].clone();
    let mut b = t.bundle();
    b.namespace("network", file.to_str());
    assert_eq!(t.report(&b)["ns"]["net"], first);
    let mut umount = Command::new("umount");
    umount.arg(&file);
    t.execute(umount).ok();
}

/// A joined pid namespace has a first process already; the program isn't it.
fn joined_pid_is_not_pid_1(t: &Test) {
    let mut first = t.bundle();
    let pid = t.sleeper(&mut first);
    let path = format!("/proc/{pid}/ns/pid");
    let mut b = t.bundle();
    b.namespace("pid", Some(&path));
    let seen = t.report(&b);
    assert_eq!(seen["ns"]["pid"], json!(fs::read_link(&path).unwrap()));
    assert_ne!(seen["pid"], 1);
    t.force(&b.id).ok();
    assert_eq!(t.status(&first.id), "running");
}

/// A namespace holder outside of any container.
fn holder(t: &Test, unshare: &str) -> (Running, i32) {
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(format!("{unshare} sh -c 'echo held; exec sleep 1000'"));
    let mut running = t.launch(command);
    running.wait_for("held");
    let pid = running.pid();
    if unshare.contains("--user") {
        for (file, host) in [("uid_map", 100_000), ("gid_map", 200_000)] {
            fs::write(format!("/proc/{pid}/{file}"), format!("0 {host} 65536")).unwrap();
        }
    }
    (running, pid)
}

/// A user namespace can be joined; the mappings are those it has.
fn joined_user(t: &Test) {
    t.skip_on(Flavour::Runc, "1.1 wants mappings too and then writes them");
    let (_held, pid) = holder(t, "exec unshare --user");
    let path = format!("/proc/{pid}/ns/user");
    let mut b = t.bundle();
    b.namespace("user", Some(&path));
    std::os::unix::fs::chown(b.rootfs(), Some(100_000), Some(200_000)).unwrap();
    let seen = t.report(&b);
    assert_eq!(seen["ns"]["user"], json!(fs::read_link(&path).unwrap()));
    assert_eq!(seen["uid"], json!([0, 0, 0]));
    assert!(seen["idmaps"]["uid"][0].as_str().unwrap().contains("100000"));
}

/// A pod: user and network of one process together, everything else new.
fn joined_user_with_other_namespaces_of_it(t: &Test) {
    t.skip_on(Flavour::Runc, "1.1 wants mappings too and then writes them");
    let (_held, pid) = holder(t, "exec unshare --user --net --uts");
    let mut b = t.bundle();
    for (kind, name) in [("user", "user"), ("network", "net"), ("uts", "uts")] {
        b.namespace(kind, Some(&format!("/proc/{pid}/ns/{name}")));
    }
    b.unset("hostname");
    std::os::unix::fs::chown(b.rootfs(), Some(100_000), Some(200_000)).unwrap();
    let seen = t.report(&b);
    for name in ["user", "net", "uts"] {
        let path = format!("/proc/{pid}/ns/{name}");
        assert_eq!(seen["ns"][name], json!(fs::read_link(path).unwrap()), "{name}");
    }
}

/// A path that isn't there is an error.
fn join_of_an_absent_path_is_refused(t: &Test) {
    for kind in ["network", "ipc", "uts", "pid"] {
        let mut b = t.bundle();
        b.namespace(kind, Some("/proc/self/ns/absent"));
        t.create_fails(&b).says("no such file or directory");
    }
}

/// "The runtime MUST generate an error if path is not associated with a namespace of type type."
fn join_of_a_wrong_type_is_refused(t: &Test) {
    let mut first = t.bundle();
    let pid = t.sleeper(&mut first);
    for (kind, other) in [("network", "uts"), ("ipc", "net"), ("uts", "ipc"), ("pid", "net")] {
        let mut b = t.bundle();
        b.namespace(kind, Some(&format!("/proc/{pid}/ns/{other}")));
        t.create_fails(&b);
    }
}

/// A plain file is no namespace.
fn join_of_no_namespace_is_refused(t: &Test) {
    let mut b = t.bundle();
    b.namespace("network", Some("/etc/passwd"));
    t.create_fails(&b);
    t.skip_on_peers("don't look at it");
    let mut b = t.bundle();
    b.namespace("network", Some("relative/path"));
    t.create_fails(&b).says("namespaces");
}
