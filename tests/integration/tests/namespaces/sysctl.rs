//! `linux.sysctl`: what belongs to a namespace of the container.

use std::fs;

use corten_integration::suite::Case;
use corten_integration::{Test, tests};
use serde_json::json;

pub(crate) const TESTS: &[Case] = tests![
    sysctl_is_written,
    sysctl_of_a_namespace_that_is_the_hosts_is_refused,
    sysctl_of_the_host_is_refused,
    sysctl_tricks_are_refused,
    sysctl_unknown_is_refused,
];

/// Namespaced settings are written, with dots or slashes.
fn sysctl_is_written(t: &Test) {
    let mut b = t.bundle();
    b.set(
        "linux.sysctl",
        json!({"net.ipv4.ip_forward": "1", "kernel.shmmax": "12345678", "kernel.msgmax": "4321", "fs.mqueue.msg_max": "7"}),
    );
    b.probe(&[
        "read",
        "/proc/sys/net/ipv4/ip_forward",
        ";",
        "read",
        "/proc/sys/kernel/shmmax",
        ";",
        "read",
        "/proc/sys/kernel/msgmax",
        ";",
        "read",
        "/proc/sys/fs/mqueue/msg_max",
    ]);
    let out = t.run(&b).ok();
    for (n, value) in ["1\n", "12345678\n", "4321\n", "7\n"].iter().enumerate() {
        assert_eq!(out.fact(n)["value"], *value);
    }
    t.skip_on_peers("dots only, or not this one");
    let mut b = t.bundle();
    b.set("linux.sysctl", json!({"net/ipv4/ip_forward": "1"}));
    b.probe(&["read", "/proc/sys/net/ipv4/ip_forward"]);
    assert_eq!(t.run(&b).ok().fact(0)["value"], "1\n");
}

/// Without its own namespace a setting would be the host's.
fn sysctl_of_a_namespace_that_is_the_hosts_is_refused(t: &Test) {
    for (kind, key) in [
        ("network", "net.ipv4.ip_forward"),
        ("ipc", "kernel.msgmax"),
        ("ipc", "fs.mqueue.msg_max"),
        ("uts", "kernel.domainname"),
    ] {
        let mut b = t.bundle();
        b.no_namespace(kind).set("linux.sysctl", json!({key: "1"}));
        if kind == "uts" {
            b.unset("hostname");
        }
        if kind == "ipc" {
            b.unmount("/dev/mqueue");
        }
        t.create_fails(&b).says("sysctl");
    }
}

/// CVE-2022-0811: settings that no namespace owns are refused.
fn sysctl_of_the_host_is_refused(t: &Test) {
    for key in [
        "kernel.core_pattern",
        "vm.swappiness",
        "fs.file-max",
        "kernel.panic",
        "kernel.hostname",
        "dev.cdrom.info",
    ] {
        let mut b = t.bundle();
        b.set("linux.sysctl", json!({key: "0"}));
        t.create_fails(&b).says("sysctl");
    }
}

/// Names that lead elsewhere are refused.
fn sysctl_tricks_are_refused(t: &Test) {
    let before = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    for key in [
        "net/../kernel/core_pattern",
        "net.ipv4/../../kernel/core_pattern",
        "net..kernel.core_pattern",
        "kernel.shm_rmid_forced+kernel.core_pattern",
        "",
        "net.",
        "net.ipv4.ip_forward ",
        "/kernel/core_pattern",
    ] {
        let mut b = t.bundle();
        b.set("linux.sysctl", json!({key: "|/bin/x"}));
        t.create_fails(&b);
    }
    assert_eq!(fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap(), before);
}

/// A setting that isn't there, or a value that the kernel refuses, fails the create.
fn sysctl_unknown_is_refused(t: &Test) {
    for (key, value) in [("net.ipv4.absent", "1"), ("net.ipv4.ip_forward", "many")] {
        let mut b = t.bundle();
        b.set("linux.sysctl", json!({key: value}));
        t.create_fails(&b);
    }
}
