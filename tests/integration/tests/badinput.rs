//! Bad input: one clear line, the right exit code, nothing left behind, never a panic.

use std::fs;
use std::process::ExitCode;

use corten_integration::{Bundle, Flavour, Output, Test, suite, tests};
use serde_json::{Value, json};

fn main() -> ExitCode {
    suite(tests![
        config_that_is_not_json,
        config_that_is_not_utf8,
        config_that_is_not_an_object,
        config_absent,
        config_that_is_a_directory,
        config_that_is_huge,
        config_nested_very_deep,
        wrong_types_name_their_path,
        missing_fields_name_their_path,
        numbers_out_of_range,
        nulls_are_zero_values,
        strings_with_nul,
        unknown_members_are_ignored,
        other_platforms_are_ignored,
        duplicate_keys_do_not_crash,
        versions,
        ids_that_are_refused,
        ids_that_are_accepted,
        id_of_great_length,
        bundle_absent_or_a_file,
        huge_argument_lists,
        many_mounts,
        annotations,
        process_absent,
        every_error_is_one_line,
        exit_codes,
        cut_off_configs,
    ])
}

/// What a refusal must look like: one line of runc's text form.
#[track_caller]
fn clear(out: &Output) {
    let lines: Vec<&str> = out.stderr.lines().filter(|l| l.contains("level=error")).collect();
    assert_eq!(lines.len(), 1, "{out} should say one line");
    assert!(out.stderr.len() < 20_000, "{} bytes of words", out.stderr.len());
    assert!(!out.stderr.contains("serde") && !out.stderr.contains("RUST_BACKTRACE"), "{out}");
}

#[track_caller]
fn refused(t: &Test, b: &Bundle) -> Output {
    let out = t.call(&["create", "--bundle", b.path(), &b.id]).fails_with(1);
    if t.flavour == Flavour::Corten {
        clear(&out);
    }
    t.nothing_left(b);
    out
}

fn with_text(t: &Test, bytes: &[u8]) -> Bundle {
    let b = t.bundle();
    b.write_raw(bytes);
    b
}

/// Syntax errors, with the line they are in.
fn config_that_is_not_json(t: &Test) {
    for text in [
        "",
        " ",
        "{",
        "}",
        "nope",
        "{\"ociVersion\": }",
        "{\"a\": 1,}",
        "{\"a\" 1}",
        "{} {}",
        "\u{feff}{}",
        "'x'",
    ] {
        refused(t, &with_text(t, text.as_bytes()));
    }
    t.skip_on_peers("words of their own");
    let out = refused(t, &with_text(t, b"{\n  \"ociVersion\": \"1.0.2\",\n  oops\n}"));
    out.says("config.json").says("line 3");
}

/// Bytes that are no text.
fn config_that_is_not_utf8(t: &Test) {
    t.skip_on_peers("replace the bytes");
    for bytes in [
        &b"\xff\xfe{}"[..],
        b"{\"ociVersion\": \"\xff\"}",
        &[0; 64],
        b"{\"hostname\": \"\xc3\x28\"}",
    ] {
        refused(t, &with_text(t, bytes)).says("config.json");
    }
}

/// JSON of another shape.
fn config_that_is_not_an_object(t: &Test) {
    for text in ["[]", "1", "\"x\"", "true", "[{}]", "null"] {
        if text == "null" && t.flavour == Flavour::Runc {
            continue; // It crashes.
        }
        refused(t, &with_text(t, text.as_bytes()));
    }
}

/// No config.json.
fn config_absent(t: &Test) {
    let b = t.bundle();
    refused(t, &b).says("config.json").says("no such file|not found");
}

/// Something else by that name.
fn config_that_is_a_directory(t: &Test) {
    let b = t.bundle();
    fs::create_dir(b.dir.join("config.json")).unwrap();
    refused(t, &b).says("is a directory");
}

/// Many megabytes: refused or taken, in reasonable time.
fn config_that_is_huge(t: &Test) {
    let mut b = t.bundle();
    b.set("annotations", json!({"big": "x".repeat(20_000_000)})).probe(&["exit", "0"]);
    b.write();
    let out = t.call(&["run", "--bundle", b.path(), &b.id]);
    if out.code != 0 {
        out.fails();
    }
    t.nothing_left(&b);
}

/// Deep nesting must not overflow the stack.
fn config_nested_very_deep(t: &Test) {
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let text = format!("{{\"x\": {}1{}}}", open.repeat(200_000), close.repeat(200_000));
        let b = with_text(t, text.as_bytes());
        let out = t.call(&["create", "--bundle", b.path(), &b.id]);
        assert_ne!(out.code, 0);
        assert!(out.code < 128, "{} crashed", out.code);
        t.nothing_left(&b);
    }
}

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

/// Whatever is made of a key that stands twice.
fn duplicate_keys_do_not_crash(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["exit", "0"]);
    let text = b.config.to_string().replacen(
        "{\"",
        "{\"hostname\":\"first\",\"hostname\":\"second\",\"",
        1,
    );
    b.write_raw(text.as_bytes());
    let out = t.call(&["run", "--bundle", b.path(), &b.id]);
    assert!(out.code < 2, "{out}");
    t.nothing_left(&b);
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

/// G3: an id is one plain name; nothing outside of --root is touched.
fn ids_that_are_refused(t: &Test) {
    let b = t.bundle();
    b.write();
    let before = names(t);
    for id in [
        "", ".", "..", "a/b", "../x", "/abs", "a b", "a\nb", "ä", "$(x)", "a;b", "a\\b", "a*",
        "a:b", "a@b", "a,b",
    ] {
        if t.flavour == Flavour::Crun || (t.flavour == Flavour::Runc && id == "a,b") {
            continue; // Both take some of them.
        }
        t.call(&["create", "--bundle", b.path(), "--", id]).fails();
        for verb in ["state", "start", "kill", "delete"] {
            t.call(&[verb, "--", id]).fails();
        }
    }
    let after: Vec<_> =
        names(t).into_iter().filter(|n| !n.starts_with("out") && !n.starts_with("err")).collect();
    assert_eq!(after, before);
}

fn names(t: &Test) -> Vec<String> {
    let entries = fs::read_dir(&t.dir).unwrap().flatten();
    let mut all: Vec<String> = entries
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .filter(|n| n != "root")
        .collect();
    all.sort();
    all
}

/// P13: dots, plus, underscore, upper case, digits, dashes.
fn ids_that_are_accepted(t: &Test) {
    for suffix in [".x", "+x", "_x", "X", "-", "...", "09"] {
        let mut b = t.bundle();
        b.id = format!("{}{suffix}", b.id);
        b.probe(&["exit", "0"]);
        t.run(&b).ok();
    }
}

/// The kernel's limit of a name, not ours, and no crash.
fn id_of_great_length(t: &Test) {
    for length in [200, 255, 256, 1024, 5000] {
        let mut b = t.bundle();
        b.id = format!("{}{}", b.id, "x".repeat(length - b.id.len()));
        b.probe(&["exit", "0"]);
        let out = t.run(&b);
        assert!(out.code < 128, "{out}");
        if length <= 200 {
            out.ok();
        }
        t.nothing_left(&b);
    }
}

/// A bundle that isn't one.
fn bundle_absent_or_a_file(t: &Test) {
    let b = t.bundle();
    b.write();
    let config = b.dir.join("config.json");
    for path in ["/absent/bundle", config.to_str().unwrap(), ""] {
        t.call(&["create", "--bundle", path, &b.id]).fails_with(1);
        t.nothing_left(&b);
    }
}

/// Ten megabytes of arguments or environment: E2BIG in words, not a crash or a hang.
fn huge_argument_lists(t: &Test) {
    let big: Vec<String> = (0..2000).map(|_| "x".repeat(5000)).collect();
    let mut b = t.bundle();
    b.set(
        "process.env",
        json!(big.iter().zip(0..).map(|(s, n)| format!("A{n}={s}")).collect::<Vec<_>>()),
    )
    .probe(&["exit", "0"]);
    let out = t.run(&b);
    assert!(out.code != 0 && out.code < 128, "{}", out.code);
    out.says("argument list too long");
    t.nothing_left(&b);
    let mut b = t.bundle();
    let many: Vec<String> = (0..5000).map(|n| format!("A{n}={}", "y".repeat(20))).collect();
    b.set("process.env", json!(many)).probe(&["exit", "0"]);
    t.run(&b).ok();
}

/// Hundreds of mounts.
fn many_mounts(t: &Test) {
    let mut b = t.bundle();
    for n in 0..300 {
        b.mount(&format!("/m/{n}"), "bind", "/usr/share", &["rbind", "ro", "nosuid"]);
    }
    b.probe(&["ls", "/m/299"]);
    assert_eq!(t.run(&b).ok().fact(0)["ok"], true);
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

/// Words with newlines stay on one line, so that the log can be read by lines.
fn every_error_is_one_line(t: &Test) {
    t.skip_on(Flavour::Crun, "plain words");
    let mut b = t.bundle();
    b.args(&["/absent\nlevel=error msg=\"forged\""]).write();
    let out = t.call(&["create", "--bundle", b.path(), &b.id]).fails();
    assert_eq!(out.stderr.trim_end().lines().count(), 1, "{out}");
    let log = t.dir.join("log");
    let flags = ["--log", log.to_str().unwrap(), "--log-format", "json"];
    t.call(&[&flags[..], &["create", "--bundle", b.path(), &b.id]].concat()).fails();
    let text = fs::read_to_string(&log).unwrap();
    let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(last["level"], "error");
    t.nothing_left(&b);
}

/// 1 for what fails, 255 for exec.
fn exit_codes(t: &Test) {
    let b = t.bundle();
    b.write_raw(b"{");
    t.call(&["create", "--bundle", b.path(), &b.id]).fails_with(1);
    t.call(&["run", "--bundle", b.path(), &b.id]).fails_with(1);
    for verb in ["start", "state", "kill", "delete", "pause", "resume", "ps"] {
        if t.flavour != Flavour::Crun {
            t.call(&[verb, &b.id]).fails_with(1);
        }
    }
    t.skip_on_peers("1");
    t.call(&["exec", &b.id, "true"]).fails_with(255);
}

/// A config cut off anywhere is refused, and never half-believed.
fn cut_off_configs(t: &Test) {
    let b = t.bundle();
    let text = serde_json::to_vec(&b.config).unwrap();
    for n in (0..text.len()).step_by(text.len() / 40) {
        b.write_raw(&text[..n]);
        refused(t, &b);
    }
}
