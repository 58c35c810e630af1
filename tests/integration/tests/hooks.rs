//! The six kinds of hooks: when, where, with what, and what happens when one fails or hangs.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use corten_integration::bundle::probe;
use corten_integration::{Bundle, Flavour, Test, suite, tests};
use serde_json::{Value, json};

fn main() -> ExitCode {
    suite(tests![
        order_of_all_six,
        order_within_a_kind,
        state_on_stdin,
        state_pid_is_the_containers,
        runtime_hooks_run_in_the_runtimes_namespaces,
        create_container_runs_in_the_containers_namespaces,
        start_container_runs_inside,
        args_are_verbatim,
        env_is_exactly_the_hooks,
        env_of_the_container_is_not_the_hosts_hooks,
        descriptors_are_the_three_streams,
        cgroup_is_ready_before_prestart,
        mounts_are_ready_before_create_runtime,
        mounts_made_by_create_container_arrive,
        failure_in_create_stops_everything,
        failure_in_start_container_stops_the_container,
        failure_in_poststart_stops_the_container,
        failure_in_poststop_is_a_warning,
        failure_tells_what_the_hook_said,
        failure_by_a_signal_says_so,
        timeout_ends_a_sleeping_hook,
        timeout_holds_although_a_child_keeps_the_pipe,
        a_child_that_keeps_the_pipe_delays_nothing,
        a_hook_that_does_not_read_is_fine,
        absent_program_is_an_error,
        relative_path_is_refused,
        timeout_must_be_positive,
        poststop_runs_once,
        run_runs_them_all,
    ])
}

const KINDS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// Where the hooks write: a directory that is /hooks inside.
fn log(t: &Test) -> PathBuf {
    let dir = t.dir.join("hooks");
    fs::create_dir_all(&dir).unwrap();
    dir.join("log")
}

fn facts(t: &Test) -> Vec<Value> {
    let text = fs::read_to_string(log(t)).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn names(t: &Test) -> Vec<String> {
    facts(t).iter().map(|f| f["hook"].as_str().unwrap().to_owned()).collect()
}

/// A hook of this kind that writes what it gets; `extra` is what it does then.
fn hook(t: &Test, kind: &str, name: &str, extra: &[&str]) -> Value {
    let file = log(t);
    let (program, file) = match kind {
        "startContainer" => ("/probe", "/hooks/log"),
        _ => (probe().to_str().unwrap(), file.to_str().unwrap()),
    };
    let args: Vec<&str> = ["probe", "hook", name, file].iter().chain(extra).copied().collect();
    json!({"path": program, "args": args})
}

fn bundle(t: &Test) -> Bundle {
    let mut b = t.bundle();
    let dir = log(t).parent().unwrap().to_owned();
    b.mount("/hooks", "bind", dir.to_str().unwrap(), &["bind"]);
    b
}

/// A bundle with one logging hook of each kind, whose program writes "main".
fn with_all(t: &Test) -> Bundle {
    let mut b = bundle(t);
    for kind in KINDS {
        b.push(&format!("hooks.{kind}"), hook(t, kind, kind, &[]));
    }
    b.probe(&["append", "/hooks/log", "{\"hook\":\"main\"}\n"]);
    b
}

/// prestart, createRuntime, createContainer in create; startContainer, the program, poststart in
/// start; poststop in delete.
fn order_of_all_six(t: &Test) {
    t.skip_on(Flavour::Runc, "1.1 runs poststart in create");
    let b = with_all(t);
    t.create(&b).ok();
    assert_eq!(names(t), KINDS[..3]);
    t.start(&b.id).ok();
    t.wait_status(&b.id, "stopped");
    let mut now = names(t);
    assert_eq!(now[3], "startContainer");
    now[4..].sort();
    assert_eq!(now[4..], ["main", "poststart"]);
    t.delete(&b.id).ok();
    assert_eq!(names(t)[6..], ["poststop"]);
}

/// Hooks of one kind run in their order, one after the other.
fn order_within_a_kind(t: &Test) {
    t.skip_on(Flavour::Runc, "1.1 runs poststart in create");
    let mut b = bundle(t);
    for kind in KINDS {
        for n in 0..4 {
            b.push(&format!("hooks.{kind}"), hook(t, kind, &format!("{kind}{n}"), &[]));
        }
    }
    b.probe(&["exit", "0"]);
    t.create(&b).ok();
    t.start(&b.id).ok();
    t.wait_status(&b.id, "stopped");
    t.delete(&b.id).ok();
    let expected: Vec<String> =
        KINDS.iter().flat_map(|kind| (0..4).map(move |n| format!("{kind}{n}"))).collect();
    assert_eq!(names(t), expected);
}

/// The state on stdin is complete JSON with the status of the moment.
fn state_on_stdin(t: &Test) {
    t.skip_on(Flavour::Runc, "1.1 runs poststart in create");
    let mut b = with_all(t);
    b.set("annotations", json!({"a": "b"}));
    t.create(&b).ok();
    t.start(&b.id).ok();
    t.wait_status(&b.id, "stopped");
    t.delete(&b.id).ok();
    let all = facts(t);
    let statuses = ["creating", "creating", "creating", "created", "running", "stopped"];
    for (kind, status) in KINDS.iter().zip(statuses) {
        let state = &all.iter().find(|f| f["hook"] == *kind).unwrap()["state"];
        if t.flavour != Flavour::Crun {
            assert_eq!(state["status"], status, "{kind}: {state}");
        }
        assert_eq!(state["id"], json!(b.id), "{kind}");
        assert_eq!(state["bundle"], json!(b.path()), "{kind}");
        assert_eq!(state["annotations"]["a"], "b", "{kind}");
        assert!(state["ociVersion"].as_str().unwrap().starts_with("1."), "{kind}");
    }
}

/// pid is the container's first process, as seen where the hook runs.
fn state_pid_is_the_containers(t: &Test) {
    t.skip_on(Flavour::Crun, "0 in the container's namespaces");
    let mut b = with_all(t);
    b.probe(&["sleep"]);
    t.create(&b).ok();
    let pid = t.pid(&b.id);
    t.start(&b.id).ok();
    let all = facts(t);
    let of = |kind: &str| all.iter().find(|f| f["hook"] == kind).unwrap()["state"]["pid"].clone();
    for kind in ["prestart", "createRuntime", "poststart"] {
        assert_eq!(of(kind), json!(pid), "{kind}");
    }
    for kind in ["createContainer", "startContainer"] {
        assert_eq!(of(kind), json!(1), "{kind}");
    }
    t.kill(&b.id, "KILL").ok();
    t.wait_status(&b.id, "stopped");
    t.delete(&b.id).ok();
    let last = facts(t).pop().unwrap();
    assert_eq!(last["hook"], "poststop");
    assert_eq!(last["state"]["pid"].as_i64().unwrap_or(0), 0);
}

fn fact_of(t: &Test, kind: &str) -> Value {
    facts(t).into_iter().find(|f| f["hook"] == kind).unwrap_or_else(|| panic!("no {kind} ran"))
}

/// prestart, createRuntime, poststart and poststop are processes of the host.
fn runtime_hooks_run_in_the_runtimes_namespaces(t: &Test) {
    let b = with_all(t);
    t.create(&b).ok();
    t.start(&b.id).ok();
    t.wait_status(&b.id, "stopped");
    t.delete(&b.id).ok();
    for kind in ["prestart", "createRuntime", "poststart", "poststop"] {
        let fact = fact_of(t, kind);
        for name in ["mnt", "pid", "net", "uts", "ipc"] {
            let host = fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
            assert_eq!(fact["ns"][name], json!(host), "{kind} {name}");
        }
        assert_eq!(fact["root"], "/", "{kind}");
    }
}

/// createContainer is in the container's namespaces, before the root is changed.
fn create_container_runs_in_the_containers_namespaces(t: &Test) {
    let mut b = with_all(t);
    b.probe(&["sleep"]);
    t.create(&b).ok();
    let pid = t.pid(&b.id);
    let fact = fact_of(t, "createContainer");
    for name in ["mnt", "net", "uts", "ipc"] {
        let init = fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap();
        assert_eq!(fact["ns"][name], json!(init), "{name}");
    }
    let names = fact["root_names"].to_string();
    assert!(names.contains("\"etc\"") && !names.contains("\"probe\""), "the host's root: {names}");
}

/// startContainer is inside in every way, with the container's program as its path.
fn start_container_runs_inside(t: &Test) {
    let mut b = with_all(t);
    b.probe(&["sleep"]);
    t.create(&b).ok();
    t.start(&b.id).ok();
    let pid = t.pid(&b.id);
    let fact = fact_of(t, "startContainer");
    for name in ["mnt", "net", "uts", "ipc", "pid"] {
        let init = fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap();
        assert_eq!(fact["ns"][name], json!(init), "{name}");
    }
    assert!(fact["root_names"].to_string().contains("\"probe\""));
}

/// args[0] may differ from path; without args there is the path only.
fn args_are_verbatim(t: &Test) {
    let mut b = bundle(t);
    let mut odd = hook(t, "createRuntime", "x y", &[]);
    odd["args"][0] = json!("another name");
    b.push("hooks.createRuntime", odd);
    let link = t.dir.join("bare");
    fs::write(
        &link,
        format!("#!/bin/sh\necho \"{{\\\"hook\\\":\\\"$#\\\"}}\" >>{}\n", log(t).display()),
    )
    .unwrap();
    std::os::unix::fs::chown(&link, Some(0), Some(0)).unwrap();
    fs::set_permissions(&link, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    b.push("hooks.createRuntime", json!({"path": link}));
    b.probe(&["exit", "0"]);
    t.run(&b).ok();
    let fact = fact_of(t, "x y");
    assert_eq!(fact["args"][0], "another name");
    assert_eq!(fact["args"][2], "x y");
    assert_eq!(names(t), ["x y", "0"]);
}

/// With env the hook has exactly that.
fn env_is_exactly_the_hooks(t: &Test) {
    let mut b = bundle(t);
    for kind in KINDS {
        let mut with = hook(t, kind, kind, &[]);
        with["env"] = json!(["ONLY=1", "EMPTY="]);
        b.push(&format!("hooks.{kind}"), with);
    }
    b.probe(&["exit", "0"]);
    t.run(&b).ok();
    for kind in KINDS {
        let mut env: Vec<String> = serde_json::from_value(fact_of(t, kind)["env"].clone()).unwrap();
        env.sort();
        assert_eq!(env, ["EMPTY=", "ONLY=1"], "{kind}");
    }
}

/// CVE-2025-23266: LD_PRELOAD of an image must not reach a program of the host.
fn env_of_the_container_is_not_the_hosts_hooks(t: &Test) {
    t.skip_on(Flavour::Runc, "affected in createContainer");
    let mut b = with_all(t);
    b.push("process.env", json!("LD_PRELOAD=/evil.so"));
    t.run(&b).ok();
    for kind in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
        let env = fact_of(t, kind)["env"].to_string();
        assert!(!env.contains("evil"), "{kind}: {env}");
    }
}

/// A hook has its three streams and nothing of the runtime's.
fn descriptors_are_the_three_streams(t: &Test) {
    t.skip_on_peers("leak some into createContainer");
    let b = with_all(t);
    t.run(&b).ok();
    for kind in KINDS {
        let fact = fact_of(t, kind);
        let open: Vec<&String> = fact["fds"].as_object().unwrap().keys().collect();
        // The log file itself is opened later than the report.
        assert_eq!(open, ["0", "1", "2"], "{kind}: {}", fact["fds"]);
    }
}

/// NVIDIA's hook edits the device cgroup: limits must be set before prestart.
fn cgroup_is_ready_before_prestart(t: &Test) {
    t.needs_controller("pids");
    let mut b = bundle(t);
    b.set("linux.resources.pids", json!({"limit": 66}));
    let script = format!(
        "cat >/dev/null; echo \"{{\\\"hook\\\":\\\"$(cat {}/pids.max) $(wc -l <{}/cgroup.procs)\\\"}}\" >>{}",
        b.cgroup_dir("pids").display(),
        b.cgroup_dir("pids").display(),
        log(t).display()
    );
    b.push(
        "hooks.prestart",
        json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]}),
    );
    b.probe(&["exit", "0"]);
    t.run(&b).ok();
    assert!(names(t)[0].starts_with("66 1"), "{:?}", names(t));
}

/// "after the runtime environment has been created": the mounts are there.
fn mounts_are_ready_before_create_runtime(t: &Test) {
    let b = with_all(t);
    t.run(&b).ok();
    let mounts = fact_of(t, "createRuntime")["of_target"]["mounts"].to_string();
    assert!(mounts.contains("/dev/mqueue") && mounts.contains("/hooks"), "{mounts}");
}

/// What createContainer mounts in the root file system is the container's.
fn mounts_made_by_create_container_arrive(t: &Test) {
    let mut b = bundle(t);
    b.directory("/from-hook");
    let target = b.rootfs().join("from-hook");
    let script =
        format!("cat >/dev/null; mount -t tmpfs hook {0} && echo x >{0}/x", target.display());
    b.push(
        "hooks.createContainer",
        json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]}),
    );
    b.probe(&["read", "/from-hook/x"]);
    assert_eq!(t.run(&b).ok().fact(0)["value"], "x\n");
    assert!(!target.join("x").exists(), "it is not the host's");
}

/// A hook of create that fails: an error, later hooks don't run, nothing is left; the poststop
/// hooks do run.
fn failure_in_create_stops_everything(t: &Test) {
    for (n, kind) in KINDS[..3].iter().enumerate() {
        let mut b = bundle(t);
        let _ = fs::remove_file(log(t));
        for other in KINDS {
            let extra: &[&str] = if other == *kind { &["exit", "3"] } else { &[] };
            b.push(&format!("hooks.{other}"), hook(t, other, other, extra));
            b.push(&format!("hooks.{other}"), hook(t, other, &format!("{other}-second"), &[]));
        }
        t.create_fails(&b);
        let ran = names(t);
        assert!(ran.contains(&(*kind).to_owned()), "{kind}: {ran:?}");
        assert!(!ran.contains(&format!("{kind}-second")), "{kind}: {ran:?}");
        for later in &KINDS[n + 1..5] {
            assert!(!ran.contains(&(*later).to_owned()), "{kind}: {ran:?}");
        }
        if t.flavour == Flavour::Corten {
            assert!(ran.contains(&"poststop".to_owned()), "{kind}: {ran:?}");
        }
        t.state(&b.id).fails().says("does not exist");
    }
}

/// The program must not run; `start` fails; the container is stopped or gone.
fn failure_in_start_container_stops_the_container(t: &Test) {
    let mut b = bundle(t);
    b.push("hooks.startContainer", hook(t, "startContainer", "bad", &["exit", "3"]));
    b.probe(&["create", "/hooks/main", ""]);
    t.create(&b).ok();
    let start = t.start(&b.id);
    if t.flavour == Flavour::Corten {
        start.fails();
    }
    t.wait_status(&b.id, "stopped");
    assert!(!log(t).with_file_name("main").exists(), "the program ran");
    t.delete(&b.id).ok();
}

/// 1.3: a failing poststart hook makes `start` fail and stops the container.
fn failure_in_poststart_stops_the_container(t: &Test) {
    t.skip_on(Flavour::Runc, "1.1 runs poststart in create");
    let mut b = bundle(t);
    b.push("hooks.poststart", hook(t, "poststart", "bad", &["exit", "3"]));
    b.probe(&["sleep"]);
    t.create(&b).ok();
    t.start(&b.id).fails();
    if t.state(&b.id).code == 0 {
        t.wait_status(&b.id, "stopped");
        t.force(&b.id).ok();
    }
    t.nothing_left(&b);
}

/// "the runtime MUST log a warning, but the remaining hooks and lifecycle continue".
fn failure_in_poststop_is_a_warning(t: &Test) {
    t.skip_on(Flavour::Runc, "fails and skips the others");
    let mut b = bundle(t);
    b.push("hooks.poststop", hook(t, "poststop", "bad", &["exit", "3"]));
    b.push("hooks.poststop", hook(t, "poststop", "good", &[]));
    b.probe(&["exit", "0"]);
    t.create(&b).ok();
    t.start(&b.id).ok();
    t.wait_status(&b.id, "stopped");
    let out = t.delete(&b.id).ok();
    if t.flavour == Flavour::Corten {
        assert!(
            out.stderr.contains("poststop") || out.stderr.contains("hook"),
            "{out} should warn"
        );
    }
    assert_eq!(names(t), ["bad", "good"]);
    t.nothing_left(&b);
}

/// What the hook wrote is in the error.
fn failure_tells_what_the_hook_said(t: &Test) {
    t.skip_on(Flavour::Crun, "shows the exit code only");
    let mut b = bundle(t);
    b.push("hooks.createRuntime", hook(t, "createRuntime", "bad", &["exit", "3"]));
    t.create_fails(&b)
        .says("hook bad says this on stderr")
        .says("exit status 3")
        .says("createRuntime|hook #0");
}

/// A hook killed by a signal.
fn failure_by_a_signal_says_so(t: &Test) {
    t.skip_on(Flavour::Crun, "shows the exit code only");
    let mut b = bundle(t);
    b.push("hooks.createRuntime", json!({"path": "/bin/sh", "args": ["sh", "-c", "kill -9 $$"]}));
    t.create_fails(&b).says("signal: killed|signal 9|sigkill");
}

/// timeout is in seconds, and the hook is killed.
fn timeout_ends_a_sleeping_hook(t: &Test) {
    let mut b = bundle(t);
    let mut slow = hook(t, "createRuntime", "slow", &["sleep", "1000"]);
    slow["timeout"] = json!(1);
    b.push("hooks.createRuntime", slow);
    let start = Instant::now();
    t.create_fails(&b);
    let took = start.elapsed();
    assert!((Duration::from_millis(900)..Duration::from_secs(15)).contains(&took), "{took:?}");
}

/// The hook's child has the pipe open too: the timeout holds all the same.
fn timeout_holds_although_a_child_keeps_the_pipe(t: &Test) {
    t.skip_on_peers("wait for the pipe's end");
    let mut b = bundle(t);
    let mut slow = hook(t, "createRuntime", "slow", &["hold"]);
    slow["timeout"] = json!(1);
    b.push("hooks.createRuntime", slow);
    let start = Instant::now();
    t.create_fails(&b);
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    t.end_orphans();
}

/// A hook that ends well but leaves a child (a daemon) is done.
fn a_child_that_keeps_the_pipe_delays_nothing(t: &Test) {
    t.skip_on_peers("wait for the pipe's end");
    let mut b = bundle(t);
    b.push("hooks.createRuntime", hook(t, "createRuntime", "leaves", &["leave"]));
    b.probe(&["exit", "0"]);
    let start = Instant::now();
    t.run(&b).ok();
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    t.end_orphans();
}

/// State that nobody reads is no error, however long.
fn a_hook_that_does_not_read_is_fine(t: &Test) {
    let mut b = bundle(t);
    b.set("annotations", json!({"long": "x".repeat(300_000)}));
    for kind in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
        b.push(&format!("hooks.{kind}"), json!({"path": "/bin/true"}));
    }
    b.probe(&["exit", "0"]);
    t.run(&b).ok();
}

/// A program that isn't there is an error that names it.
fn absent_program_is_an_error(t: &Test) {
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let mut b = t.bundle();
        b.push(&format!("hooks.{kind}"), json!({"path": "/absent/hook"}));
        t.create_fails(&b).says("/absent/hook");
    }
}

/// "path ... MUST be an absolute path".
fn relative_path_is_refused(t: &Test) {
    t.skip_on_peers("don't look");
    for path in ["true", "bin/true", ""] {
        let mut b = t.bundle();
        b.push("hooks.poststop", json!({"path": path}));
        t.create_fails(&b).says("hooks.poststop[0].path");
    }
}

/// "If set, timeout MUST be greater than zero."
fn timeout_must_be_positive(t: &Test) {
    t.skip_on_peers("don't look");
    for timeout in [0, -1] {
        let mut b = t.bundle();
        b.push("hooks.poststop", json!({"path": "/bin/true", "timeout": timeout}));
        t.create_fails(&b).says("hooks.poststop[0].timeout");
    }
}

/// Whichever way a container ends, its poststop hooks run once.
fn poststop_runs_once(t: &Test) {
    for way in ["delete", "force", "force created", "run"] {
        let mut b = bundle(t);
        let _ = fs::remove_file(log(t));
        b.push("hooks.poststop", hook(t, "poststop", "end", &[]));
        b.probe(if way == "run" { &["exit", "0"] } else { &["sleep"] });
        if way == "run" {
            t.run(&b).ok();
        } else {
            t.create(&b).ok();
            if way != "force created" {
                t.start(&b.id).ok();
            }
            if way == "delete" {
                t.kill(&b.id, "KILL").ok();
                t.wait_status(&b.id, "stopped");
                t.delete(&b.id).ok();
            } else {
                t.force(&b.id).ok();
            }
        }
        t.force(&b.id).ok();
        assert_eq!(names(t), ["end"], "{way}");
    }
}

/// A foreground run goes through all of them.
fn run_runs_them_all(t: &Test) {
    let b = with_all(t);
    t.run(&b).ok();
    let mut ran = names(t);
    ran.sort();
    let mut all: Vec<&str> = KINDS.iter().copied().chain(["main"]).collect();
    all.sort_unstable();
    assert_eq!(ran, all);
}
