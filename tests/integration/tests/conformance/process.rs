//! config.md: root, mounts and process, in more than one form.

use std::fs;

use corten_integration::suite::Case;
use corten_integration::{Flavour, Test};
use serde_json::{Value, json};

/// The sentences.
pub const CASES: &[Case] = &[
    ("config: root.path is absolute or relative to the bundle", root_path_relative_to_the_bundle),
    ("config: root.path MUST be a directory", root_directory_must_exist),
    ("config: bind sources are absolute or relative to the bundle", mounts_relative_source),
    ("config: every propagation option, read back", mounts_propagation_options),
    (
        "config: unknown options SHOULD be treated as filesystem-specific ones",
        mounts_unknown_options_are_the_file_systems,
    ),
    ("config: cwd is the working directory that will be set for the executable", process_cwd),
    ("config: env is the whole environment, verbatim", process_env),
    (
        "config: args: the whole array, a file with a slash is not looked up",
        process_args_like_execvp,
    ),
    ("config: the five sets of capabilities are kept for the process", capabilities_sets),
    ("config: scheduler: nice not set: the runtime must use the value 0", scheduler_defaults),
    ("config: ioPriority: class and priority", io_priority),
    (
        "config: execCPUAffinity is not applicable to the container's init process",
        exec_cpu_affinity_is_not_the_inits,
    ),
    ("config: user.umask specifies the umask of the user", user_umask),
    ("config: domainname is changed in the UTS namespace", hostname_and_domainname),
    ("config: invalid values of any section MUST generate an error", invalid_values_are_errors),
];

/// The mount at `point` in a report.
pub fn mount_at<'a>(seen: &'a Value, point: &str) -> &'a Value {
    let all = seen["mounts"].as_array().unwrap();
    all.iter().rfind(|m| m["point"] == point).unwrap_or_else(|| panic!("no mount at {point}"))
}

/// Root: "A directory MUST exist at the path declared by the field."
fn root_directory_must_exist(t: &Test) {
    let mut b = t.bundle();
    b.set("root.path", json!("nowhere"));
    t.create_fails(&b);
    let mut b = t.bundle();
    fs::write(b.dir.join("file"), "").unwrap();
    b.set("root.path", json!("file"));
    t.create_fails(&b);
}

/// Root: "path is either an absolute path or a relative path to the bundle."
fn root_path_relative_to_the_bundle(t: &Test) {
    let mut b = t.bundle();
    let moved = b.dir.join("other");
    fs::rename(b.rootfs(), &moved).unwrap();
    for path in [json!("other"), json!(moved)] {
        b.set("root.path", path);
        assert_eq!(t.report(&b)["root"], "/");
    }
}

/// Mounts: "Path values for bind mounts are either absolute or relative to the bundle."
fn mounts_relative_source(t: &Test) {
    let mut b = t.bundle();
    fs::create_dir(b.dir.join("data")).unwrap();
    fs::write(b.dir.join("data/file"), "relative").unwrap();
    b.mount("/mnt", "bind", "data", &["bind"]).probe(&["read", "/mnt/file"]);
    assert_eq!(t.run(&b).ok().fact(0)["value"], "relative");
}

/// Linux mount options: "private, rprivate, shared, rshared, slave, rslave, unbindable,
/// runbindable: MUST, Bind mount propagation".
fn mounts_propagation_options(t: &Test) {
    let mut b = t.bundle();
    let words = [
        "private",
        "rprivate",
        "shared",
        "rshared",
        "slave",
        "rslave",
        "unbindable",
        "runbindable",
    ];
    for word in words {
        b.mount(&format!("/p/{word}"), "tmpfs", "tmpfs", &[word]);
    }
    let seen = t.report(&b);
    for word in words {
        let optional = mount_at(&seen, &format!("/p/{word}"))["optional"].to_string();
        assert_eq!(word.ends_with("shared"), optional.contains("shared:"), "{word}: {optional}");
        assert_eq!(
            word.ends_with("unbindable"),
            optional.contains("unbindable"),
            "{word}: {optional}"
        );
    }
}

/// Linux mount options: "Runtimes SHOULD treat unknown options as filesystem-specific ones".
fn mounts_unknown_options_are_the_file_systems(t: &Test) {
    let mut b = t.bundle();
    b.mount("/mnt", "tmpfs", "tmpfs", &["size=1m", "mode=0711", "nr_inodes=7"])
        .probe(&["statfs", "/mnt", ";", "stat", "/mnt"]);
    let out = t.run(&b).ok();
    assert_eq!(out.fact(0)["value"]["size"], 1 << 20);
    assert_eq!(out.fact(0)["value"]["files"], 7);
    assert_eq!(out.fact(1)["value"]["mode"], 0o711);
    let mut b = t.bundle();
    b.mount("/mnt", "tmpfs", "tmpfs", &["no-file-system-knows-this"]);
    t.create_fails(&b);
}

/// Process: "cwd (string, REQUIRED) is the working directory that will be set for the executable."
fn process_cwd(t: &Test) {
    let mut b = t.bundle();
    b.directory("/home/user/below");
    b.set("process.cwd", json!("/home/user/below"));
    assert_eq!(t.report(&b)["cwd"], "/home/user/below");
}

/// Process: "env (array of strings, OPTIONAL) with the same semantics as environ": these and no
/// others of the runtime's.
fn process_env(t: &Test) {
    let mut b = t.bundle();
    let wanted = ["PATH=/bin", "EMPTY=", "SPACE=a b", "EQUALS=a=b", "HOME=/here"];
    b.set("process.env", json!(wanted));
    assert_eq!(t.report(&b)["env"], json!(wanted));
}

/// Process: "that entry is used with the same semantics as execvp's file": found in PATH unless it
/// holds a slash, and argv is the whole array.
fn process_args_like_execvp(t: &Test) {
    let mut b = t.bundle();
    b.directory("/opt/tools");
    fs::rename(b.rootfs().join("probe"), b.rootfs().join("opt/tools/tool")).unwrap();
    b.set("process.env", json!(["PATH=/absent:/opt/tools"]));
    b.set("process.args", json!(["tool", "report", "args", "", "two words"]));
    assert_eq!(t.report(&b)["args"], json!(["tool", "report", "args", "", "two words"]));
    b.set("process.args", json!(["./tool", "report", "args"]))
        .set("process.cwd", json!("/opt/tools"));
    assert_eq!(t.report(&b)["args"], json!(["./tool", "report", "args"]));
}

/// Linux process: capabilities: "contains arrays that specifies the sets of capabilities for the
/// process": each of the five is exactly that.
fn capabilities_sets(t: &Test) {
    let mut b = t.bundle();
    b.set(
        "process.capabilities",
        json!({
            "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW", "CAP_SETUID"],
            "permitted": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"],
            "inheritable": ["CAP_CHOWN", "CAP_KILL"],
            "effective": ["CAP_CHOWN", "CAP_KILL"],
            "ambient": ["CAP_KILL"],
        }),
    )
    .set("process.user", json!({"uid": 1000, "gid": 1000}));
    let seen = t.report(&b)["caps"].clone();
    // An ordinary user keeps over execve what is ambient.
    assert_eq!(seen["bounding"], 1 | 1 << 5 | 1 << 13 | 1 << 7);
    assert_eq!(seen["inheritable"], 1 | 1 << 5);
    for set in ["permitted", "effective", "ambient"] {
        assert_eq!(seen[set], 1 << 5, "{set}");
    }
}

/// Linux process: scheduler: "nice [...] If not set, the runtime must use the value 0."
fn scheduler_defaults(t: &Test) {
    t.skip_on(Flavour::Runc, "1.1 knows no scheduler");
    let mut b = t.bundle();
    b.set("process.scheduler", json!({"policy": "SCHED_BATCH"})).write();
    let out = t.shell(&format!(
        "exec nice -n 5 \"$RUNTIME\" --root \"$ROOT\" run --bundle {} {}",
        b.path(),
        b.id
    ));
    let seen = out.ok().fact(0)["sched"].clone();
    assert_eq!(
        (&seen["policy"], &seen["nice"], &seen["priority"]),
        (&json!(3), &json!(0), &json!(0))
    );
}

/// Linux process: "ioPriority (object, OPTIONAL) configures the I/O priority settings".
fn io_priority(t: &Test) {
    t.skip_on_peers("1.1 and 1.8 know none");
    for (class, number) in [("IOPRIO_CLASS_BE", 2), ("IOPRIO_CLASS_IDLE", 3)] {
        let mut b = t.bundle();
        b.set("process.ioPriority", json!({"class": class, "priority": 6}));
        let seen = t.report(&b)["ioprio"].as_i64().unwrap();
        assert_eq!((seen >> 13, seen & 7), (number, 6), "{class}");
    }
    let mut b = t.bundle();
    b.set("process.ioPriority", json!({"class": "IOPRIO_CLASS_FOO", "priority": 1}));
    t.create_fails(&b);
}

/// Linux process: execCPUAffinity: "This setting is not applicable to the container's init
/// process."
fn exec_cpu_affinity_is_not_the_inits(t: &Test) {
    let mut b = t.bundle();
    let before = t.report(&b)["sched"]["affinity"].clone();
    b.set("process.execCPUAffinity", json!({"initial": "0", "final": "0"}));
    assert_eq!(t.report(&b)["sched"]["affinity"], before);
}

/// POSIX-platform user: "umask (int, OPTIONAL) specifies the umask of the user. If unspecified,
/// the umask should not be changed from the calling process' umask." Both peers and corten take
/// 0022 then, on which managers rely; the value that is given is the one that holds.
fn user_umask(t: &Test) {
    for value in [0o027, 0o077, 0] {
        let mut b = t.bundle();
        b.set("process.user.umask", json!(value));
        assert_eq!(t.report(&b)["umask"], value);
    }
}

/// Hostname: "specifies the container's hostname as seen by processes running inside the
/// container", and Domainname likewise.
fn hostname_and_domainname(t: &Test) {
    let mut b = t.bundle();
    b.set("hostname", json!("mrsdalloway"));
    if t.flavour != Flavour::Runc {
        b.set("domainname", json!("foobarbaz.test"));
    }
    let seen = t.report(&b)["uname"].clone();
    assert_eq!(seen["hostname"], "mrsdalloway");
    if t.flavour != Flavour::Runc {
        assert_eq!(seen["domainname"], "foobarbaz.test");
    }
}

/// Valid values: "Runtimes MUST generate an error when invalid or unsupported values are
/// encountered."
fn invalid_values_are_errors(t: &Test) {
    t.skip_on_peers("let several of these pass");
    for (path, value) in [
        ("linux.namespaces.0.type", json!("galaxy")),
        ("process.scheduler", json!({"policy": "SCHED_FOO"})),
        ("linux.seccomp", json!({"defaultAction": "SCMP_ACT_FOO"})),
        ("linux.personality", json!({"domain": "LINUX64"})),
        ("linux.personality", json!({"domain": "LINUX", "flags": ["FOO"]})),
        ("linux.memoryPolicy", json!({"mode": "MPOL_FOO"})),
        ("linux.devices", json!([{"path": "/dev/x", "type": "q", "major": 1, "minor": 1}])),
        ("process.user.uid", json!(-1)),
        ("process.user.uid", json!(4_294_967_296_u64)),
        ("hostname", json!("h".repeat(65))),
    ] {
        let mut b = t.bundle();
        b.set(path, value);
        t.create_fails(&b);
    }
}
