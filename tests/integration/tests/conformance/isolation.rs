//! config-linux.md: namespaces, devices, seccomp and paths, of every kind and in combination.

use std::fs;

use corten_integration::suite::Case;
use corten_integration::{Bundle, Flavour, Test};
use serde_json::{Value, json};

use crate::process::mount_at;

/// The sentences.
pub const CASES: &[Case] = &[
    (
        "linux: cgroup, user and time namespaces MUST be new without path",
        namespaces_without_path_are_new,
    ),
    (
        "linux: the process MUST be placed in the namespace of path, of every type",
        namespaces_with_path_are_joined,
    ),
    (
        "linux: a path of another type MUST generate an error, of every kind of file",
        namespaces_path_of_another_type,
    ),
    (
        "linux: every type that is not specified MUST be inherited",
        namespaces_not_listed_are_inherited,
    ),
    ("linux: duplicates of any type MUST generate an error", namespaces_duplicates),
    ("linux: several mappings, of uids and of gids", user_mappings),
    (
        "linux: the ownership of referenced filesystems SHOULD NOT be modified",
        user_mappings_leave_the_files_alone,
    ),
    ("linux: timeOffsets are the offsets that the kernel reports", time_offsets),
    ("linux: devices of type c, b, u, p, anywhere in the filesystem", devices_are_available),
    ("linux: the default devices work for every user", devices_default),
    ("linux: /dev/console is set up if terminal is enabled", devices_console_with_a_terminal_only),
    ("linux: memoryPolicy: nodes, flags, modes with and without nodes", memory_policy),
    ("linux: errnoRet: the default is EPERM", seccomp_default_and_rules),
    (
        "linux: defaultErrnoRet with an action that doesn't support an errno MUST fail",
        seccomp_errno_of_an_action_without,
    ),
    ("linux: seccomp args: every op", seccomp_arguments),
    ("linux: rootfsPropagation is either shared, slave, private or unbindable", rootfs_propagation),
    ("linux: maskedPaths of directories and of absent paths", masked_paths),
    ("linux: readonlyPaths of directories, of /proc/sys and of absent paths", readonly_paths),
    ("linux: personality LINUX32 sets uname to show a 32 bit CPU type", personality),
];

/// The names of the specification and of /proc/self/ns, without user and time.
const KINDS: [(&str, &str); 6] = [
    ("pid", "pid"),
    ("network", "net"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("mount", "mnt"),
    ("cgroup", "cgroup"),
];

fn host(name: &str) -> Value {
    json!(fs::read_link(format!("/proc/self/ns/{name}")).unwrap())
}

fn with_user(b: &mut Bundle) {
    b.namespace("user", None)
        .set("linux.uidMappings", json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]))
        .set("linux.gidMappings", json!([{"containerID": 0, "hostID": 200_000, "size": 65536}]));
}

/// Namespaces: "If path is not specified, the runtime MUST create a new container namespace of
/// type type."
fn namespaces_without_path_are_new(t: &Test) {
    let mut b = t.bundle();
    b.namespace("cgroup", None);
    with_user(&mut b);
    if t.flavour == Flavour::Corten {
        b.namespace("time", None);
    }
    std::os::unix::fs::chown(b.rootfs(), Some(100_000), Some(200_000)).unwrap();
    let seen = t.report(&b)["ns"].clone();
    for (_, name) in KINDS {
        assert_ne!(seen[name], host(name), "{name}");
    }
    assert_ne!(seen["user"], host("user"));
    if t.flavour == Flavour::Corten {
        assert_ne!(seen["time"], host("time"));
    }
}

/// Namespaces: "The runtime MUST place the container process in the namespace associated with that
/// path."
fn namespaces_with_path_are_joined(t: &Test) {
    let mut first = t.bundle();
    first.namespace("cgroup", None);
    let pid = t.sleeper(&mut first);
    let theirs = |name: &str| json!(fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap());
    for (kind, name) in KINDS.iter().filter(|(kind, _)| *kind != "mount") {
        let mut b = t.bundle();
        b.namespace(kind, Some(&format!("/proc/{pid}/ns/{name}")));
        if *kind == "uts" {
            b.unset("hostname");
        }
        assert_eq!(t.report(&b)["ns"][*name], theirs(name), "{kind}");
    }
}

/// Namespaces: "The runtime MUST generate an error if path is not associated with a namespace of
/// type type."
fn namespaces_path_of_another_type(t: &Test) {
    for (kind, path) in [
        ("network", "/proc/self/ns/uts"),
        ("ipc", "/proc/self/ns/net"),
        ("uts", "/etc/passwd"),
        ("pid", "/absent"),
    ] {
        let mut b = t.bundle();
        b.namespace(kind, Some(path));
        t.create_fails(&b);
    }
}

/// Namespaces: "If a namespace type is not specified in the namespaces array, the container MUST
/// inherit the runtime namespace of that type."
fn namespaces_not_listed_are_inherited(t: &Test) {
    let mut b = t.bundle();
    b.set("linux.namespaces", json!([{"type": "mount"}])).unset("hostname").unmount("/dev/mqueue");
    let seen = t.report(&b)["ns"].clone();
    for name in ["pid", "net", "ipc", "uts", "cgroup", "user", "time"] {
        assert_eq!(seen[name], host(name), "{name}");
    }
}

/// Namespaces: "If a namespaces field contains duplicated namespaces with same type, the runtime
/// MUST generate an error."
fn namespaces_duplicates(t: &Test) {
    for kind in ["pid", "network", "ipc", "uts", "mount"] {
        let mut b = t.bundle();
        b.push("linux.namespaces", json!({"type": kind}));
        t.create_fails(&b);
    }
}

/// User namespace mappings: "hostID - is the starting uid/gid on the host to be mapped to
/// containerID", "size - is the number of ids to be mapped."
fn user_mappings(t: &Test) {
    let mut b = t.bundle();
    b.namespace("user", None)
        .set("linux.uidMappings", json!([{"containerID": 0, "hostID": 1000, "size": 1}, {"containerID": 1, "hostID": 5000, "size": 100}]))
        .set("linux.gidMappings", json!([{"containerID": 0, "hostID": 2000, "size": 32000}]));
    let seen = t.report(&b)["idmaps"].clone();
    let map = |kind: &str| -> Vec<Vec<u32>> {
        let lines = seen[kind].as_array().unwrap();
        lines
            .iter()
            .map(|l| l.as_str().unwrap().split_whitespace().map(|n| n.parse().unwrap()).collect())
            .collect()
    };
    assert_eq!(map("uid"), [vec![0, 1000, 1], vec![1, 5000, 100]]);
    assert_eq!(map("gid"), [vec![0, 2000, 32000]]);
}

/// User namespace mappings: "The runtime SHOULD NOT modify the ownership of referenced filesystems
/// to realize the mapping."
fn user_mappings_leave_the_files_alone(t: &Test) {
    use std::os::unix::fs::MetadataExt;
    let mut b = t.bundle();
    with_user(&mut b);
    b.probe(&["exit", "0"]);
    t.run(&b).ok();
    for path in ["", "etc", "etc/passwd", "tmp"] {
        let meta = fs::metadata(b.rootfs().join(path)).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (0, 0), "{path}");
    }
}

/// Offset for time namespace: "secs - is the offset of clock (in seconds) in the container."
fn time_offsets(t: &Test) {
    t.skip_on_peers("1.1 knows no time namespace, 1.8 no offsets");
    let mut b = t.bundle();
    b.namespace("time", None);
    b.set(
        "linux.timeOffsets",
        json!({"monotonic": {"secs": 1234, "nanosecs": 5}, "boottime": {"secs": 99}}),
    );
    let offsets = t.report(&b)["time"]["offsets"].clone();
    let lines: Vec<Vec<String>> = offsets
        .as_array()
        .unwrap()
        .iter()
        .map(|line| line.as_str().unwrap().split_whitespace().map(str::to_owned).collect())
        .collect();
    assert_eq!(lines, [["monotonic", "1234", "5"], ["boottime", "99", "0"]]);
}

/// Devices: "lists devices that MUST be available in the container", "The path MAY be anywhere in
/// the container filesystem, notably outside of /dev."
fn devices_are_available(t: &Test) {
    let mut b = t.bundle();
    b.set("linux.devices", json!([
        {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 3, "gid": 4},
        {"path": "/opt/block", "type": "b", "major": 7, "minor": 200, "fileMode": 0o600, "uid": 0, "gid": 0},
        {"path": "/dev/pipe", "type": "p", "fileMode": 0o622, "uid": 0, "gid": 0},
        {"path": "/dev/raw", "type": "u", "major": 1, "minor": 7},
    ]));
    b.probe(&[
        "stat",
        "/dev/fuse",
        ";",
        "stat",
        "/opt/block",
        ";",
        "stat",
        "/dev/pipe",
        ";",
        "stat",
        "/dev/raw",
    ]);
    let out = t.run(&b).ok();
    for (n, kind, major, minor) in
        [(0, "c", 10, 229), (1, "b", 7, 200), (2, "p", 0, 0), (3, "c", 1, 7)]
    {
        let node = &out.fact(n)["value"];
        assert_eq!(
            (&node["type"], &node["major"], &node["minor"]),
            (&json!(kind), &json!(major), &json!(minor))
        );
    }
    let fuse = &out.fact(0)["value"];
    assert_eq!((&fuse["mode"], &fuse["uid"], &fuse["gid"]), (&json!(0o640), &json!(3), &json!(4)));
    assert_eq!(out.fact(2)["value"]["mode"], 0o622);
}

/// Default devices: "In addition to any devices configured with this setting, the runtime MUST
/// also supply" null, zero, full, random, urandom, tty, ptmx: there, and they work for everybody.
fn devices_default(t: &Test) {
    let mut b = t.bundle();
    b.set("process.user", json!({"uid": 1000, "gid": 1000}));
    b.probe(&[
        "report",
        "devices",
        ";",
        "write",
        "/dev/null",
        "x",
        ";",
        "read-some",
        "/dev/zero",
        "16",
        ";",
        "write",
        "/dev/full",
        "x",
        ";",
        "read-some",
        "/dev/random",
        "16",
        ";",
        "read-some",
        "/dev/urandom",
        "16",
        ";",
        "open-rw",
        "/dev/ptmx",
        ";",
        "open",
        "/dev/tty",
    ]);
    let out = t.run(&b).ok();
    let seen = out.fact(0)["devices"].clone();
    for (name, major, minor) in [
        ("null", 1, 3),
        ("zero", 1, 5),
        ("full", 1, 7),
        ("random", 1, 8),
        ("urandom", 1, 9),
        ("tty", 5, 0),
    ] {
        assert_eq!(
            (&seen[name]["major"], &seen[name]["minor"]),
            (&json!(major), &json!(minor)),
            "{name}"
        );
    }
    assert!(out.fact(1)["ok"] == true && out.fact(2)["value"] == 16, "{out}");
    assert_eq!(out.fact(3)["errno"], "ENOSPC");
    assert!(out.fact(4)["value"] == 16 && out.fact(5)["value"] == 16, "{out}");
    assert_eq!(out.fact(6)["ok"], true, "{out}");
    assert_eq!(out.fact(7)["errno"], "ENXIO", "without a terminal: {out}");
}

/// Default devices: "/dev/console is set up if terminal is enabled in the config".
fn devices_console_with_a_terminal_only(t: &Test) {
    assert!(t.report(&t.bundle())["devices"]["console"].is_null());
}

/// Memory policy: "sets the NUMA memory policy for the container"; modes that need nodes, and
/// those that must not have any.
fn memory_policy(t: &Test) {
    t.skip_on_peers("1.1 and 1.8 know none");
    let mut b = t.bundle();
    b.set(
        "linux.memoryPolicy",
        json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}),
    );
    let seen = t.report(&b)["extra"]["mempolicy"].clone();
    assert_eq!((seen[0].as_i64().unwrap() & 0xff, &seen[1]), (2, &json!(1)));
    for bad in [
        json!({"mode": "MPOL_BIND"}),
        json!({"mode": "MPOL_LOCAL", "nodes": "0"}),
        json!({"mode": "MPOL_BIND", "nodes": "x"}),
        json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_FOO"]}),
    ] {
        let mut b = t.bundle();
        b.set("linux.memoryPolicy", bad);
        t.create_fails(&b);
    }
}

fn filtered(t: &Test, seccomp: Value) -> Bundle {
    let mut b = t.bundle();
    b.set("linux.seccomp", seccomp).probe(&[
        "mkdir",
        "/tmp/made",
        ";",
        "syscall",
        SYNC_FILE_RANGE,
        "999",
        "7",
        "0",
        "0",
    ]);
    b
}

/// A call that is EBADF if the filter lets it pass.
const SYNC_FILE_RANGE: &str = if cfg!(target_arch = "aarch64") { "84" } else { "277" };

/// Seccomp: "defaultAction - the default action for seccomp", "errnoRet - the errno return code to
/// use", "The default is EPERM."
fn seccomp_default_and_rules(t: &Test) {
    for (ret, name) in [(None, "EPERM"), (Some(38), "ENOSYS")] {
        let mut rule = json!({"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"});
        if let Some(number) = ret {
            rule["errnoRet"] = json!(number);
        }
        let out = t
            .run(&filtered(t, json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]})))
            .ok();
        assert_eq!((&out.fact(0)["errno"], &out.fact(1)["errno"]), (&json!(name), &json!("EBADF")));
    }
}

/// Seccomp: "When the action doesn't support an errno, the runtime MUST print and error and fail."
fn seccomp_errno_of_an_action_without(t: &Test) {
    t.skip_on_peers("ignore the errno");
    for bad in [
        json!({"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1}),
        json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_KILL", "errnoRet": 1}]}),
    ] {
        t.create_fails(&filtered(t, bad));
    }
}

/// Seccomp: args: "index, value, valueTwo, op": the call is matched by the values of its arguments.
fn seccomp_arguments(t: &Test) {
    for (op, value, two, hit) in [
        ("SCMP_CMP_EQ", 7, 0, true),
        ("SCMP_CMP_EQ", 8, 0, false),
        ("SCMP_CMP_NE", 8, 0, true),
        ("SCMP_CMP_LT", 8, 0, true),
        ("SCMP_CMP_LE", 7, 0, true),
        ("SCMP_CMP_GE", 8, 0, false),
        ("SCMP_CMP_GT", 6, 0, true),
        ("SCMP_CMP_MASKED_EQ", 6, 6, true),
        ("SCMP_CMP_MASKED_EQ", 6, 5, false),
    ] {
        let args = json!([{"index": 1, "value": value, "valueTwo": two, "op": op}]);
        let rule = json!({"names": ["sync_file_range"], "action": "SCMP_ACT_ERRNO", "args": args});
        let out = t
            .run(&filtered(t, json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]})))
            .ok();
        assert_eq!(out.fact(1)["errno"], if hit { "EPERM" } else { "EBADF" }, "{op} {value} {two}");
    }
}

/// Rootfs mount propagation: "Its value is either shared, slave, private or unbindable."
fn rootfs_propagation(t: &Test) {
    t.skip_on_peers("bind the root after its parent became private");
    for (word, shared, unbindable) in [
        ("shared", true, false),
        ("slave", false, false),
        ("private", false, false),
        ("unbindable", false, true),
    ] {
        let mut b = t.bundle();
        b.set("linux.rootfsPropagation", json!(word));
        let optional = mount_at(&t.report(&b), "/")["optional"].to_string();
        assert_eq!(
            (optional.contains("shared:"), optional.contains("unbindable")),
            (shared, unbindable),
            "{word}"
        );
    }
    let mut b = t.bundle();
    b.set("linux.rootfsPropagation", json!("other"));
    t.create_fails(&b);
}

/// Masked paths: "will mask over the provided paths inside the container so that they cannot be
/// read."
fn masked_paths(t: &Test) {
    let mut b = t.bundle();
    b.file("/etc/secret", "secret");
    b.file("/hidden/file", "secret");
    b.set("linux.maskedPaths", json!(["/etc/secret", "/hidden", "/proc/kcore", "/absent"]));
    b.probe(&[
        "read",
        "/etc/secret",
        ";",
        "read",
        "/hidden/file",
        ";",
        "ls",
        "/hidden",
        ";",
        "read-some",
        "/proc/kcore",
        "16",
    ]);
    let out = t.run(&b).ok();
    assert!(out.fact(0)["value"].as_str().unwrap_or("").is_empty(), "{out}");
    assert_eq!(out.fact(1)["errno"], "ENOENT");
    assert_eq!(out.fact(2)["value"], json!({}));
    assert_ne!(out.fact(3)["value"], 16);
}

/// Readonly paths: "will set the provided paths as readonly inside the container."
fn readonly_paths(t: &Test) {
    let mut b = t.bundle();
    b.file("/etc/fixed", "fixed");
    b.file("/data/file", "fixed");
    b.set("linux.readonlyPaths", json!(["/etc/fixed", "/data", "/proc/sys", "/absent"]));
    b.probe(&[
        "write",
        "/etc/fixed",
        "x",
        ";",
        "create",
        "/data/new",
        "",
        ";",
        "write",
        "/proc/sys/net/ipv4/ip_forward",
        "1",
        ";",
        "read",
        "/data/file",
    ]);
    let out = t.run(&b).ok();
    for n in 0..3 {
        assert_eq!(out.fact(n)["errno"], "EROFS", "{n}");
    }
    assert_eq!(out.fact(3)["value"], "fixed");
}

/// Personality: "LINUX32 will set the uname system call to show a 32 bit CPU type, such as i686."
fn personality(t: &Test) {
    t.skip_on(Flavour::Runc, "1.1 knows no personality");
    for (domain, number) in [("LINUX", 0), ("LINUX32", 8)] {
        let mut b = t.bundle();
        b.set("linux.personality", json!({"domain": domain}));
        let seen = t.report(&b);
        assert_eq!(seen["personality"].as_i64().unwrap() & 0xff, number);
        let machine = seen["uname"]["machine"].as_str().unwrap();
        assert_eq!(
            machine.contains("64"),
            domain == "LINUX" || machine.starts_with("armv8"),
            "{machine}"
        );
    }
}
