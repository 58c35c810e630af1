//! A hook's process: what it reads, in which namespaces, with which words, environment and streams.

use std::fs;

use corten_integration::suite::Case;
use corten_integration::{Flavour, Test, tests};
use serde_json::json;

use crate::{KINDS, bundle, fact_of, facts, hook, log, names, with_all};

pub(crate) const TESTS: &[Case] = tests![
    state_on_stdin,
    state_pid_is_the_containers,
    runtime_hooks_run_in_the_runtimes_namespaces,
    create_container_runs_in_the_containers_namespaces,
    start_container_runs_inside,
    args_are_verbatim,
    env_is_exactly_the_hooks,
    env_of_the_container_is_not_the_hosts_hooks,
    descriptors_are_the_three_streams,
];

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
