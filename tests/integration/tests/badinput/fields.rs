//! The fields: types, ranges, what is missing, null or unknown.

use corten_integration::suite::Case;
use corten_integration::{Flavour, Test, tests};
use serde_json::{Value, json};

use crate::refused;

pub(crate) const TESTS: &[Case] = tests![
    wrong_types_name_their_path,
    missing_fields_name_their_path,
    numbers_out_of_range,
    nulls_are_zero_values,
    strings_with_nul,
    unknown_members_are_ignored,
    other_platforms_are_ignored,
    versions,
    annotations,
    process_absent,
];

/// A value of a wrong type is blamed by its JSON path.
fn wrong_types_name_their_path(t: &Test) {
    t.skip_on_peers("name Go's or yajl's types");
    let cases: [(&str, Value); 34] = [
        ("ociVersion", json!(1)),
        ("process", json!([])),
        ("process.args", json!("sh")),
        ("process.args", json!([1])),
        ("process.env", json!({"A": "b"})),
        ("process.cwd", json!(5)),
        ("process.terminal", json!("yes")),
        ("process.user", json!("root")),
        ("process.user.uid", json!("0")),
        ("process.user.additionalGids", json!(5)),
        ("process.capabilities", json!(["CAP_KILL"])),
        ("process.capabilities.bounding", json!("CAP_KILL")),
        ("process.rlimits", json!({})),
        ("process.oomScoreAdj", json!("5")),
        ("process.consoleSize", json!("80x24")),
        ("root", json!("rootfs")),
        ("root.path", json!(7)),
        ("root.readonly", json!(1)),
        ("hostname", json!(["x"])),
        ("mounts", json!({})),
        ("mounts.0.options", json!("ro")),
        ("mounts.1.destination", json!(null)),
        ("hooks", json!("none")),
        ("hooks.prestart", json!({})),
        ("annotations", json!({"a": 1})),
        ("linux", json!(1)),
        ("linux.namespaces", json!("pid")),
        ("linux.namespaces.0.type", json!(1)),
        ("linux.resources.memory.limit", json!("64m")),
        ("linux.resources.devices", json!({})),
        ("linux.sysctl", json!({"net.ipv4.ip_forward": 1})),
        ("linux.uidMappings", json!({})),
        ("linux.maskedPaths", json!("/proc/kcore")),
        ("linux.seccomp", json!("none")),
    ];
    for (path, value) in cases {
        let mut b = t.bundle();
        b.set(path, value.clone());
        b.write();
        // "mounts.0.options" is written mounts[0].options in messages.
        let shown = path.replace(".0", "[0]").replace(".1", "[1]");
        let out = refused(t, &b);
        // What is null is missing: the parent is named, and the field.
        let (parent, field) = shown.rsplit_once('.').unwrap_or(("", &shown));
        let missing = format!("{parent}: missing field `{field}`");
        assert!(
            out.stderr.contains(&shown) || out.stderr.contains(&missing),
            "{path} = {value}: {out}"
        );
    }
}

/// What the specification requires.
fn missing_fields_name_their_path(t: &Test) {
    for path in
        ["ociVersion", "process.cwd", "process.args", "root.path", "root", "mounts.0.destination"]
    {
        if path == "ociVersion" && t.flavour != Flavour::Corten {
            continue;
        }
        let mut b = t.bundle();
        b.unset(path).write();
        let out = refused(t, &b);
        if t.flavour == Flavour::Corten {
            let shown = path.replace(".0", "[0]");
            let (parent, field) = shown.rsplit_once('.').unwrap_or(("", &shown));
            out.says(&format!("{shown}|{parent}: missing field `{field}`"));
        }
    }
}

/// Numbers that the field can't hold.
fn numbers_out_of_range(t: &Test) {
    t.skip_on_peers("some wrap");
    for (path, value) in [
        ("process.user.uid", json!(-1)),
        ("process.user.uid", json!(4_294_967_296_u64)),
        ("process.user.umask", json!(-1)),
        ("process.oomScoreAdj", json!(1e300)),
        ("process.rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": -1, "hard": 5}])),
        ("linux.resources.pids.limit", json!(1e19)),
        ("linux.resources.cpu.shares", json!(-2)),
        ("linux.uidMappings", json!([{"containerID": -1, "hostID": 0, "size": 1}])),
        ("hooks.prestart", json!([{"path": "/bin/true", "timeout": 1e30}])),
    ] {
        let mut b = t.bundle();
        b.set(path, value).write();
        refused(t, &b).says(path.split('.').next().unwrap_or(path));
    }
}

/// Go managers write null for an empty list or map; that is the zero value.
fn nulls_are_zero_values(t: &Test) {
    t.skip_on(Flavour::Crun, "refuses some");
    for path in [
        "process.env",
        "process.rlimits",
        "process.capabilities",
        "process.user.additionalGids",
        "hooks",
        "annotations",
        "linux.resources",
        "linux.resources.devices",
        "linux.devices",
        "linux.sysctl",
        "linux.maskedPaths",
        "linux.readonlyPaths",
        "linux.seccomp",
        "linux.uidMappings",
        "hostname",
        "mounts.0.options",
        "linux.cgroupsPath",
        "process.oomScoreAdj",
        "linux.resources.memory",
        "linux.rootfsPropagation",
    ] {
        let mut b = t.bundle();
        b.set(path, Value::Null).args(&["/probe", "print", "ok"]);
        let out = t.run(&b).ok();
        assert_eq!(out.fact(0), "ok", "{path}");
    }
}

/// A NUL byte ends strings in the kernel: refused wherever it would be passed on.
fn strings_with_nul(t: &Test) {
    t.skip_on_peers("cut or pass on");
    for (path, value) in [
        ("process.args", json!(["/probe", "re\0port"])),
        ("process.env", json!(["A=b\0c"])),
        ("process.cwd", json!("/tm\0p")),
        ("root.path", json!("root\0fs")),
        ("hostname", json!("a\0b")),
        ("mounts.0.destination", json!("/pr\0oc")),
        ("linux.cgroupsPath", json!("/corten\0x")),
        ("linux.maskedPaths", json!(["/proc/\0x"])),
    ] {
        let mut b = t.bundle();
        b.set(path, value).write();
        refused(t, &b).says(path.split('.').next().unwrap_or(path));
    }
}

/// "Runtimes MUST NOT generate an error for unknown properties."
fn unknown_members_are_ignored(t: &Test) {
    let mut b = t.bundle();
    for path in [
        "future",
        "process.future",
        "root.future",
        "linux.future",
        "linux.resources.future",
        "linux.resources.memory.future",
    ] {
        b.set(path, json!({"a": [1, 2]}));
    }
    b.set("mounts.0.future", json!(true)).probe(&["print", "ok"]);
    assert_eq!(t.run(&b).ok().fact(0), "ok");
}

/// Sections of other platforms are not ours.
fn other_platforms_are_ignored(t: &Test) {
    t.skip_on(Flavour::Crun, "reads some");
    let mut b = t.bundle();
    b.set("solaris", json!({"limitpriv": "default"}))
        .set("windows", json!({"layerFolders": ["x"]}));
    b.set("vm", json!({"kernel": {"path": "/k"}}))
        .set("process.commandLine", json!("x"))
        .probe(&["print", "ok"]);
    assert_eq!(t.run(&b).ok().fact(0), "ok");
}

/// ociVersion is a SemVer of a 1.x; others are refused.
fn versions(t: &Test) {
    for version in ["1.0.0", "1.0.2-dev", "1.1.0-rc.1", "1.2.0", "1.3.0", "1.0.0+meta"] {
        let mut b = t.bundle();
        b.set("ociVersion", json!(version)).probe(&["exit", "0"]);
        t.run(&b).ok();
    }
    t.skip_on_peers("don't look");
    for version in ["", "0.9.0", "2.0.0", "1", "1.0", "nonsense", "1.0.0.0"] {
        let mut b = t.bundle();
        b.set("ociVersion", json!(version)).write();
        refused(t, &b).says("ociVersion");
    }
}

/// Keys must not be empty; values may be.
fn annotations(t: &Test) {
    let mut b = t.bundle();
    b.set("annotations", json!({"a": "", "org.example/x": "ä\n\"q\"\\"})).probe(&["sleep"]);
    t.create(&b).ok();
    let state = t.state(&b.id).ok().json();
    assert_eq!(state["annotations"]["org.example/x"], "ä\n\"q\"\\");
    t.force(&b.id).ok();
    t.skip_on_peers("take it");
    let mut b = t.bundle();
    b.set("annotations", json!({"": "x"})).write();
    refused(t, &b).says("annotations");
}

/// "process is REQUIRED when start is called": create or start says so.
fn process_absent(t: &Test) {
    let mut b = t.bundle();
    b.unset("process").write();
    refused(t, &b).says("process");
}
