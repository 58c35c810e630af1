//! The command line that managers rely on: the parser's rules P1 to P14, global options, logs,
//! `spec`, `features`, `--version`, and pid and console files, with real containers.

use std::fs;
use std::os::unix::net::UnixListener;
use std::process::{Command, ExitCode, Stdio};

use corten_integration::{Flavour, Test, suite, tests};
use serde_json::{Value, json};

fn main() -> ExitCode {
    suite(tests![
        p1_globals_may_be_repeated,
        p2_one_dash_and_equals_sign,
        p3_flags_take_true_and_false,
        p4_options_may_follow_the_id,
        p4_exec_and_ps_keep_what_follows,
        p6_kill_without_signal_is_term,
        p7_probe_for_lsm_mount_context,
        p8_checkpoint_help_tells_the_truth,
        p9_features_is_json_and_nothing_else,
        p10_version_for_dockerd,
        p12_usage_errors,
        p14_almost_no_environment,
        p14_no_standard_streams,
        root_default_and_environment,
        root_relative_is_made_absolute,
        root_slash_is_refused,
        log_file_gets_the_error_in_text,
        log_file_gets_the_error_in_json,
        log_is_appended_to,
        log_error_is_on_stderr_too,
        log_of_a_failure_is_one_line,
        log_of_success_is_empty,
        log_format_unknown_is_refused,
        log_level_and_debug,
        log_warnings_are_lines_too,
        spec_writes_a_config_that_runs,
        spec_does_not_overwrite,
        spec_rootless_has_a_user_namespace,
        features_are_true,
        help_of_every_command,
        go_runc_a_whole_life,
        conmon_a_whole_life,
        conmon_rs_a_whole_life,
        buildah_a_whole_life,
        notify_socket_is_passed_on,
        pidfd_socket_receives_the_process,
        systemd_cgroup_without_systemd_says_so,
        cgroup_manager_disabled_makes_none,
        tmpdir_is_not_needed,
    ])
}

/// P1: the last of repeated global options wins, flags may be repeated too.
fn p1_globals_may_be_repeated(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["print", "x"]).write();
    let root = t.root();
    let root = root.to_str().unwrap();
    let args = [
        "--root",
        "/absent/nowhere",
        "--debug",
        "--root",
        root,
        "--debug",
        "run",
        "--bundle",
        b.path(),
        &b.id,
    ];
    let mut command = Command::new(&t.runtime);
    command.args(args);
    t.execute(command).ok();
    assert!(!fs::exists("/absent").unwrap());
}

/// P2: `-root X`, `--root=X`, `-root=X`.
fn p2_one_dash_and_equals_sign(t: &Test) {
    t.skip_on(Flavour::Crun, "rc 64");
    let mut b = t.bundle();
    b.probe(&["print", "x"]).write();
    let root = t.root();
    let root = root.to_str().unwrap();
    for globals in [
        vec!["-root".to_owned(), root.to_owned()],
        vec![format!("--root={root}")],
        vec![format!("-root={root}")],
    ] {
        let mut command = Command::new(&t.runtime);
        command.args(&globals).args(["run", "-bundle", b.path(), &b.id]);
        t.execute(command).ok();
        let mut command = Command::new(&t.runtime);
        command.args(&globals).args([
            "run",
            &format!("--bundle={}", b.path()),
            "-no-subreaper",
            &b.id,
        ]);
        t.execute(command).ok();
    }
}

/// P3: go-runc writes `--rootless=%t`.
fn p3_flags_take_true_and_false(t: &Test) {
    t.skip_on(Flavour::Crun, "takes other forms");
    let mut b = t.bundle();
    b.probe(&["sleep"]).write();
    t.call(&[
        "--debug=false",
        "--rootless=false",
        "run",
        "--detach=true",
        "--no-pivot=false",
        "--bundle",
        b.path(),
        &b.id,
    ])
    .ok();
    assert_eq!(t.status(&b.id), "running");
    t.call(&["delete", "--force=true", &b.id]).ok();
    t.nothing_left(&b);
}

/// P4: the id may come before the options.
fn p4_options_may_follow_the_id(t: &Test) {
    t.skip_on(Flavour::Crun, "no");
    let mut b = t.bundle();
    b.probe(&["sleep"]).write();
    let file = t.dir.join("pid");
    t.call(&["create", &b.id, "--bundle", b.path(), "--pid-file", file.to_str().unwrap()]).ok();
    assert!(file.exists());
    t.call(&["delete", &b.id, "--force"]).ok();
    t.nothing_left(&b);
}

/// P4: but what follows the id of exec and ps is the program's.
fn p4_exec_and_ps_keep_what_follows(t: &Test) {
    let mut b = t.bundle();
    t.sleeper(&mut b);
    let out = t.call(&["exec", &b.id, "/probe", "print", "--user", "-d", "--help"]).ok();
    assert_eq!(out.fact(0), "--user -d --help");
    t.skip_on(Flavour::Crun, "no arguments for ps");
    assert!(t.call(&["ps", &b.id, "-o", "pid,args"]).ok().stdout.contains("/probe sleep"));
}

/// P6: buildah calls `kill ID`.
fn p6_kill_without_signal_is_term(t: &Test) {
    let mut b = t.bundle();
    let pid = t.sleeper(&mut b);
    t.call(&["kill", &b.id]).ok();
    assert_eq!(t.exit_code(pid), 143);
}

/// P7: podman and cri-o look for these words to know whether pods can be restored.
fn p7_probe_for_lsm_mount_context(t: &Test) {
    t.skip_on_peers("depends on CRIU");
    let out = t.call(&["restore", "--lsm-mount-context"]);
    assert_ne!(out.code, 0);
    // Without restore neither of the words may appear: it would be promised.
    let text = format!("{}{}", out.stdout, out.stderr);
    let promised = text.contains("flag needs an argument") || text.contains("requires an argument");
    assert_eq!(promised, t.call(&["checkpoint", "--help"]).code == 0, "{text}");
}

/// P8: `checkpoint --help` succeeds if and only if checkpoint works.
fn p8_checkpoint_help_tells_the_truth(t: &Test) {
    t.skip_on_peers("claim it without CRIU");
    let help = t.call(&["checkpoint", "--help"]).code;
    let mut b = t.bundle();
    t.sleeper(&mut b);
    let works =
        t.call(&["checkpoint", "--image-path", t.dir.join("image").to_str().unwrap(), &b.id]).code
            == 0;
    assert_eq!(help == 0, works);
}

/// P9: cri-o reads standard output and error together.
fn p9_features_is_json_and_nothing_else(t: &Test) {
    t.skip_on_peers("older than features");
    let out = t.call(&["features"]).ok();
    assert_eq!(out.stderr, "");
    assert!(out.json()["ociVersionMax"].is_string());
}

/// P10, P11: one word "version", in the first line.
fn p10_version_for_dockerd(t: &Test) {
    for flag in ["--version", "-v"] {
        let out = t.call(&[flag]).ok();
        let lines: Vec<&str> = out.stdout.lines().collect();
        assert_eq!(lines[0].split_whitespace().filter(|w| *w == "version").count(), 1, "{out}");
        if t.flavour != Flavour::Crun {
            assert!(lines[1..].iter().all(|l| !l.contains("version")), "{out}");
        }
        assert!(lines.iter().any(|l| l.starts_with("commit: ")), "{out}");
        assert!(lines.iter().any(|l| l.starts_with("spec: 1.")), "{out}");
    }
}

/// P12: usage errors are not 0; unknown commands too; exec's are 255.
fn p12_usage_errors(t: &Test) {
    for args in [
        &["no-such-command"][..],
        &["create"],
        &["create", "--no-such-flag", "x"],
        &["start"],
        &["kill"],
        &["list", "--format", "x"],
        &["state", "a", "b"],
    ] {
        if t.flavour == Flavour::Crun && args[0] == "list" {
            continue;
        }
        let out = t.call(args);
        assert_ne!(out.code, 0, "{out}");
        assert!(out.code < 128, "{out}");
    }
    t.skip_on_peers("1");
    assert_eq!(t.call(&["exec"]).code, 255);
    assert_eq!(t.call(&["exec", "--no-such-flag", "x", "y"]).code, 255);
}

/// P14: no HOME, no PATH, no USER, no TMPDIR.
fn p14_almost_no_environment(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["sleep"]).write();
    let life = format!(
        "R='env -i '$RUNTIME' --root '$ROOT; $R create -b {} {id} && $R start {id} && $R exec {id} /probe exit 0 && \
         $R state {id} >/dev/null && $R pause {id} && $R resume {id} && $R kill {id} KILL && $R delete --force {id}",
        b.path(),
        id = b.id
    );
    t.shell(&life).ok();
    t.nothing_left(&b);
}

/// Closed streams are not taken for files that are opened later.
fn p14_no_standard_streams(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["report", "fds"]).write();
    let life = format!(
        "R=$RUNTIME' --root '$ROOT; $R create -b {} {id} <&- >&- 2>&- && $R start {id} <&- >&- 2>&- && $R delete --force {id} <&- >&- 2>&-",
        b.path(),
        id = b.id
    );
    t.skip_on_peers("fail or use other files");
    t.shell(&life).ok();
    t.nothing_left(&b);
}

/// --root's default; XDG_RUNTIME_DIR doesn't matter to root.
fn root_default_and_environment(t: &Test) {
    t.skip_on_peers("theirs have other names");
    let mut b = t.bundle();
    b.probe(&["sleep"]).write();
    let line = format!(
        "XDG_RUNTIME_DIR={} $RUNTIME create -b {} {}",
        t.dir.join("xdg").display(),
        b.path(),
        b.id
    );
    t.shell(&line).ok();
    let there = fs::exists(format!("/run/corten/{}", b.id)).unwrap();
    t.shell(&format!("$RUNTIME delete --force {}", b.id)).ok();
    assert!(there, "the default is /run/corten");
    let _ = fs::remove_dir("/run/corten");
}

/// A relative --root holds for later commands from elsewhere.
fn root_relative_is_made_absolute(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["sleep"]).write();
    let line =
        format!("cd {} && $RUNTIME --root root create -b {} {}", t.dir.display(), b.path(), b.id);
    t.shell(&line).ok();
    assert_eq!(t.status(&b.id), "created");
    t.start(&b.id).ok();
    assert_eq!(t.status(&b.id), "running");
}

/// Containers would be directories of "/".
fn root_slash_is_refused(t: &Test) {
    t.skip_on_peers("take it");
    let b = t.bundle();
    b.write();
    t.shell(&format!("$RUNTIME --root / create -b {} {}", b.path(), b.id)).fails();
    assert!(!fs::exists(format!("/{}", b.id)).unwrap());
}

/// Fails with a log file; returns the file's text and standard error.
fn logged(t: &Test, flags: &[&str]) -> (String, String) {
    let mut b = t.bundle();
    b.args(&["/absent"]).write();
    let log = t.dir.join(format!("log{}", t.next()));
    let mut args = vec!["--log", log.to_str().unwrap()];
    args.extend(flags);
    args.extend(["create", "--bundle", b.path(), &b.id]);
    let out = t.call(&args).fails();
    t.nothing_left(&b);
    (fs::read_to_string(&log).unwrap(), out.stderr)
}

/// runc's text form: time="..." level=error msg="...".
fn log_file_gets_the_error_in_text(t: &Test) {
    t.skip_on(Flavour::Crun, "its own form");
    let (log, _) = logged(t, &[]);
    let line = log.lines().last().unwrap();
    assert!(line.starts_with("time=\"") && line.contains("level=error msg=\""), "{line}");
    assert!(line.contains("no such file or directory"), "{line}");
}

/// containerd decodes level, msg and an RFC 3339 time, and takes the last error.
fn log_file_gets_the_error_in_json(t: &Test) {
    let (log, _) = logged(t, &["--log-format", "json"]);
    let line: Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
    assert_eq!(line["level"], "error");
    assert!(
        line["msg"].as_str().unwrap().to_lowercase().contains("no such file or directory"),
        "{line}"
    );
    let time = line["time"].as_str().unwrap();
    let shape: String =
        time.chars().take(19).map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(shape, "0000-00-00T00:00:00", "{time}");
    assert!(time.ends_with('Z') || time[19..].contains(['+', '-']), "{time}");
}

/// Every command adds its lines.
fn log_is_appended_to(t: &Test) {
    let log = t.dir.join("log");
    let flags = ["--log", log.to_str().unwrap(), "--log-format", "json"];
    for _ in 0..3 {
        t.call(&[&flags[..], &["state", "absent"]].concat()).fails();
    }
    let text = fs::read_to_string(&log).unwrap();
    let errors = text.lines().filter(|l| l.contains("\"error\"")).count();
    assert_eq!(errors, 3, "{text}");
}

/// conmon sends standard error on, so the error is there as well.
fn log_error_is_on_stderr_too(t: &Test) {
    t.skip_on(Flavour::Crun, "only in the file");
    let (_, stderr) = logged(t, &["--log-format", "json"]);
    assert!(stderr.contains("no such file or directory"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

/// podman parses the whole file as one JSON value.
fn log_of_a_failure_is_one_line(t: &Test) {
    let (log, _) = logged(t, &["--log-format", "json"]);
    assert_eq!(log.lines().count(), 1, "{log}");
}

/// Nothing to say.
fn log_of_success_is_empty(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["exit", "0"]).write();
    let log = t.dir.join("log");
    let out = t.call(&["--log", log.to_str().unwrap(), "run", "--bundle", b.path(), &b.id]).ok();
    assert_eq!(fs::read_to_string(&log).unwrap_or_default(), "");
    assert_eq!(out.stderr, "");
}

/// "invalid log-format: X".
fn log_format_unknown_is_refused(t: &Test) {
    t.call(&["--log-format", "xml", "list"]).fails().says("log-format");
    t.skip_on_peers("have no log levels");
    t.call(&["--log-level", "loud", "list"]).fails().says("log-level");
}

/// --debug says more, in the log only.
fn log_level_and_debug(t: &Test) {
    t.skip_on_peers("more or less");
    let mut b = t.bundle();
    b.probe(&["exit", "0"]).write();
    for flag in [&["--debug"][..], &["--log-level", "debug"]] {
        let log = t.dir.join("log");
        let mut args = vec!["--log", log.to_str().unwrap(), "--log-format", "json"];
        args.extend(flag);
        args.extend(["run", "--bundle", b.path(), &b.id]);
        let out = t.call(&args).ok();
        assert_eq!(out.stderr, "");
        for line in fs::read_to_string(&log).unwrap().lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            assert!(line["level"].is_string() && line["msg"].is_string(), "{line}");
        }
        fs::remove_file(&log).unwrap();
    }
}

/// A warning is a line of its own with level warning.
fn log_warnings_are_lines_too(t: &Test) {
    t.skip_on(Flavour::Crun, "refuses the capability");
    let mut b = t.bundle();
    b.capabilities(&["CAP_OF_TOMORROW"]).probe(&["exit", "0"]).write();
    let log = t.dir.join("log");
    t.call(&[
        "--log",
        log.to_str().unwrap(),
        "--log-format",
        "json",
        "run",
        "--bundle",
        b.path(),
        &b.id,
    ])
    .ok();
    let text = fs::read_to_string(&log).unwrap();
    let lines: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert!(
        lines
            .iter()
            .any(|l| l["level"] == "warning"
                && l["msg"].as_str().unwrap().contains("CAP_OF_TOMORROW")),
        "{text}"
    );
}

/// `spec` writes a config.json that works with a shell.
fn spec_writes_a_config_that_runs(t: &Test) {
    let b = t.busybox();
    t.call(&["spec", "--bundle", b.path()]).ok();
    let path = b.dir.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert!(config["process"]["args"][0].as_str().unwrap().ends_with("sh"), "{config}");
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(["sh", "-c", "echo '\"ran\"'"]);
    config["linux"]["cgroupsPath"] = json!(b.cgroup());
    fs::write(&path, config.to_string()).unwrap();
    let out = t.call(&["run", "--bundle", b.path(), &b.id]).ok();
    assert_eq!(out.fact(0), "ran");
}

/// "File config.json exists. Remove it first".
fn spec_does_not_overwrite(t: &Test) {
    let b = t.bundle();
    b.write_raw(b"mine");
    t.call(&["spec", "--bundle", b.path()]).fails().says("exists");
    assert_eq!(fs::read(b.dir.join("config.json")).unwrap(), b"mine");
}

/// `spec --rootless` maps the caller.
fn spec_rootless_has_a_user_namespace(t: &Test) {
    let b = t.bundle();
    t.call(&["spec", "--rootless", "--bundle", b.path()]).ok();
    let config: Value =
        serde_json::from_slice(&fs::read(b.dir.join("config.json")).unwrap()).unwrap();
    let namespaces = config["linux"]["namespaces"].as_array().unwrap();
    assert!(namespaces.iter().any(|n| n["type"] == "user"), "{config}");
    assert_eq!(config["linux"]["uidMappings"][0]["size"], 1);
}

/// What features claims works here: spot checks of names that other suites use.
fn features_are_true(t: &Test) {
    t.skip_on_peers("older than features");
    let all = t.call(&["features"]).ok().json();
    let list = |path: &str| {
        all.pointer(path).and_then(Value::as_array).unwrap_or_else(|| panic!("no {path}")).clone()
    };
    for option in
        ["rro", "idmap", "ridmap", "tmpcopyup", "nosymfollow", "rbind", "lazytime", "unbindable"]
    {
        assert!(list("/mountOptions").contains(&json!(option)), "{option}");
    }
    for kind in ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"] {
        assert!(list("/linux/namespaces").contains(&json!(kind)), "{kind}");
    }
    assert_eq!(list("/hooks").len(), 6);
    for action in ["SCMP_ACT_NOTIFY", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_LOG"] {
        assert!(list("/linux/seccomp/actions").contains(&json!(action)), "{action}");
    }
    assert!(list("/linux/seccomp/archs").contains(&json!("SCMP_ARCH_X86_64")));
    assert_eq!(list("/linux/seccomp/operators").len(), 7);
    assert_eq!(all["linux"]["cgroup"]["v1"], true);
    assert_eq!(all["linux"]["cgroup"]["v2"], true);
    assert_eq!(all["linux"]["mountExtensions"]["idmap"]["enabled"], true);
    assert!(list("/linux/capabilities").len() >= 41);
    // Each mount option that is claimed is understood: none reaches the file system as data.
    let mut b = t.bundle();
    let skip = [
        "bind",
        "rbind",
        "idmap",
        "ridmap",
        "remount",
        "tmpcopyup",
        "shared",
        "rshared",
        "slave",
        "rslave",
        "private",
        "rprivate",
        "unbindable",
        "runbindable",
    ];
    for option in list("/mountOptions") {
        let option = option.as_str().unwrap().to_owned();
        if !skip.contains(&option.as_str()) {
            b.mount(&format!("/opt/{option}"), "tmpfs", "tmpfs", &[&option]);
        }
    }
    b.probe(&["print", "ok"]);
    assert_eq!(t.run(&b).ok().fact(0), "ok");
}

/// --help of the program and of each command, on standard output, 0.
fn help_of_every_command(t: &Test) {
    let commands = [
        "create", "start", "state", "kill", "delete", "run", "exec", "list", "ps", "pause",
        "resume", "spec", "update",
    ];
    let all = t.call(&["--help"]).ok().stdout;
    for command in commands {
        assert!(all.contains(command), "{command} in {all}");
        let help = t.call(&[command, "--help"]).ok();
        assert!(help.stdout.to_lowercase().contains("usage"), "{help}");
    }
}

/// What containerd's shim calls, word by word.
fn go_runc_a_whole_life(t: &Test) {
    t.skip_on(Flavour::Crun, "not its words");
    let mut b = t.bundle();
    b.probe(&["sleep"]).write();
    let log = b.dir.join("log.json");
    let (pid_file, log) = (b.dir.join("init.pid"), log.to_str().unwrap().to_owned());
    let globals = ["--log", &log, "--log-format", "json"];
    let go = |args: &[&str]| t.call(&[&globals[..], args].concat());
    go(&["create", "--bundle", b.path(), "--pid-file", pid_file.to_str().unwrap(), &b.id]).ok();
    let pid: i32 = fs::read_to_string(&pid_file).unwrap().parse().unwrap();
    go(&["start", &b.id]).ok();
    let process = b.dir.join("process.json");
    let text = json!({"args": ["/probe", "exit", "5"], "cwd": "/", "env": ["PATH=/"], "user": {"uid": 0, "gid": 0}});
    fs::write(&process, text.to_string()).unwrap();
    let exec_pid = b.dir.join("exec.pid");
    go(&[
        "exec",
        "--process",
        process.to_str().unwrap(),
        "--detach",
        "--pid-file",
        exec_pid.to_str().unwrap(),
        &b.id,
    ])
    .ok();
    assert_eq!(t.exit_code(fs::read_to_string(&exec_pid).unwrap().parse().unwrap()), 5);
    let pids = go(&["ps", "--format", "json", &b.id]).ok().json();
    assert_eq!(pids, json!([pid]));
    let update = format!(
        "echo '{{\"pids\":{{\"limit\":99}}}}' | $RUNTIME --root $ROOT update --resources=- {}",
        b.id
    );
    t.shell(&update).ok();
    go(&["pause", &b.id]).ok();
    go(&["resume", &b.id]).ok();
    t.wait_asleep(&b.id);
    go(&["kill", &b.id, "15"]).ok();
    assert_eq!(t.exit_code(pid), 143);
    go(&["kill", "--all", &b.id, "9"]);
    go(&["delete", &b.id]).ok();
    go(&["delete", "--force", &b.id]).ok();
    t.nothing_left(&b);
}

/// What conmon and podman call.
fn conmon_a_whole_life(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["sleep"]).write();
    let pid_file = b.dir.join("pidfile");
    let log = b.dir.join("oci-log");
    t.call(&[
        "--log-format=json",
        "--log",
        log.to_str().unwrap(),
        "create",
        "--bundle",
        b.path(),
        "--pid-file",
        pid_file.to_str().unwrap(),
        "--no-new-keyring",
        &b.id,
    ])
    .ok();
    t.call(&["start", &b.id]).ok();
    t.wait_asleep(&b.id);
    let process = b.dir.join("process.json");
    let text = json!({"args": ["/probe", "exit", "6"], "cwd": "/", "env": ["PATH=/"], "user": {"uid": 0, "gid": 0}});
    fs::write(&process, text.to_string()).unwrap();
    let exec_pid = b.dir.join("exec.pid");
    t.call(&[
        "exec",
        "--pid-file",
        exec_pid.to_str().unwrap(),
        "--process",
        process.to_str().unwrap(),
        "--detach",
        &b.id,
    ])
    .ok();
    assert_eq!(t.exit_code(fs::read_to_string(&exec_pid).unwrap().parse().unwrap()), 6);
    let resources = b.dir.join("resources");
    fs::write(&resources, json!({"pids": {"limit": 88}}).to_string()).unwrap();
    t.call(&["update", &format!("--resources={}", resources.display()), &b.id]).ok();
    t.call(&["kill", "--all", &b.id, "9"]).ok();
    t.wait_status(&b.id, "stopped");
    t.call(&["delete", "--force", &b.id]).ok();
    t.nothing_left(&b);
}

/// conmon-rs repeats the global options.
fn conmon_rs_a_whole_life(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["sleep"]).write();
    let root = format!("--root={}", t.root().display());
    let pid_file = format!("--pid-file={}", b.dir.join("pid").display());
    let bundle = format!("--bundle={}", b.path());
    let mut command = Command::new(&t.runtime);
    command.args([&root, &root, "create", &bundle, &pid_file, &b.id]);
    t.execute(command).ok();
    t.start(&b.id).ok();
    let exec_file = format!("--pid-file={}", b.dir.join("exec.pid").display());
    t.call(&["exec", "-d", &exec_file, &b.id, "/probe", "exit", "4"]).ok();
    assert_eq!(
        t.exit_code(fs::read_to_string(b.dir.join("exec.pid")).unwrap().parse().unwrap()),
        4
    );
    t.call(&["kill", &b.id, "KILL"]).ok();
    t.wait_status(&b.id, "stopped");
    t.call(&["delete", "--force", &b.id]).ok();
}

/// buildah polls the state and knows four words of status.
fn buildah_a_whole_life(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["sleep"]).write();
    let pid_file = b.dir.join("pid");
    t.call(&["create", "--bundle", b.path(), "--pid-file", pid_file.to_str().unwrap(), &b.id]).ok();
    t.call(&["start", &b.id]).ok();
    t.wait_asleep(&b.id);
    assert_eq!(t.status(&b.id), "running");
    t.call(&["kill", &b.id]).ok();
    t.wait_status(&b.id, "stopped");
    t.call(&["delete", &b.id]).ok();
}

/// sd_notify: the program finds a socket of its own; READY arrives at the caller's, with MAINPID.
fn notify_socket_is_passed_on(t: &Test) {
    use std::os::unix::net::UnixDatagram;
    t.skip_on(Flavour::Crun, "other rules");
    let path = t.dir.join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(corten_integration::driver::deadline())).unwrap();
    let mut b = t.bundle();
    b.probe(&["notify-ready", ";", "sleep"]).write();
    let mut run = t.command(&["run", "--detach", "--bundle", b.path(), &b.id]);
    run.env("NOTIFY_SOCKET", &path).stdin(Stdio::null());
    // It returns when the barrier that it sends has been received.
    let run = t.launch(run);
    let mut got = String::new();
    while !got.contains("MAINPID") || (t.flavour == Flavour::Corten && !got.contains("BARRIER")) {
        let mut buffer = [0; 512];
        let length = socket.recv(&mut buffer).expect("a notification");
        got.push_str(&String::from_utf8_lossy(&buffer[..length]));
        got.push('\n');
    }
    run.wait().ok();
    let pid = t.pid(&b.id);
    assert!(got.contains("READY=1") && got.contains(&format!("MAINPID={pid}")), "{got}");
    t.force(&b.id).ok();
}

/// --pidfd-socket receives a pidfd of the first process.
fn pidfd_socket_receives_the_process(t: &Test) {
    t.skip_on_peers("older than --pidfd-socket");
    let path = t.dir.join("pidfd");
    let listener = UnixListener::bind(&path).unwrap();
    listener.set_nonblocking(true).unwrap();
    let mut b = t.bundle();
    b.probe(&["sleep"]).write();
    let create =
        t.spawn(&["create", "--pidfd-socket", path.to_str().unwrap(), "--bundle", b.path(), &b.id]);
    let mut stream = None;
    corten_integration::driver::wait_until("the pidfd is sent", || {
        stream = listener.accept().ok();
        stream.is_some()
    });
    let (stream, _) = stream.unwrap();
    stream.set_nonblocking(false).unwrap();
    let fds = corten_integration::console::receive(&stream);
    create.wait().ok();
    assert_eq!(fds.1.len(), 1);
    let info = fs::read_to_string(format!(
        "/proc/self/fdinfo/{}",
        std::os::fd::AsRawFd::as_raw_fd(&fds.1[0])
    ))
    .unwrap();
    assert!(info.contains(&format!("Pid:\t{}\n", t.pid(&b.id))), "{info}");
    assert_eq!(fds.0, "standard");
}

/// There is no systemd here: an error in words, nothing left.
fn systemd_cgroup_without_systemd_says_so(t: &Test) {
    if fs::exists("/run/systemd/system").unwrap() {
        t.skip("systemd runs here");
    }
    let mut b = t.bundle();
    b.set("linux.cgroupsPath", json!(format!("system.slice:corten:{}", b.id))).write();
    t.call(&["--systemd-cgroup", "create", "--bundle", b.path(), &b.id]).fails().says("systemd");
    t.nothing_left(&b);
}

/// podman's `--cgroups=disabled`.
fn cgroup_manager_disabled_makes_none(t: &Test) {
    t.skip_on(Flavour::Runc, "has no such option");
    let mut b = t.bundle();
    b.unset("linux.resources").probe(&["report", "cgroup"]).write();
    let out = t.call(&["--cgroup-manager", "disabled", "run", "--bundle", b.path(), &b.id]).ok();
    assert!(!out.stdout.contains(&b.id), "{out}");
}

/// Nothing is put into TMPDIR, /tmp or the bundle.
fn tmpdir_is_not_needed(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["exit", "0"]).write();
    let mut command = t.command(&["run", "--bundle", b.path(), &b.id]);
    command.env("TMPDIR", "/absent").stdin(Stdio::null());
    t.execute(command).ok();
    let mut names: Vec<_> =
        fs::read_dir(&b.dir).unwrap().flatten().map(|e| e.file_name()).collect();
    names.sort();
    assert_eq!(names, ["config.json", "rootfs"]);
}
