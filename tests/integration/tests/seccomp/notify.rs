//! SCMP_ACT_NOTIFY: the agent, what it receives, what it may not be asked.

use std::process::Command;

use corten_integration::bundle::probe;
use corten_integration::driver::Running;
use corten_integration::suite::Case;
use corten_integration::{Bundle, Flavour, Test, tests};
use serde_json::{Value, json};

use crate::{MKDIR, filtered, rule};

pub(crate) const TESTS: &[Case] = tests![
    notify_listener_gets_fd_and_state,
    notify_answers_reach_the_program,
    notify_of_exec,
    no_capability_is_left_from_loading,
    notify_metadata_without_path_is_refused,
    notify_absent_socket_is_refused,
    notify_on_write_is_refused,
    notify_as_default_is_refused,
];

/// Starts an agent that answers `count` notifications with `errno`.
fn agent(t: &Test, count: u32, errno: u32) -> (Running, String) {
    let path = t.dir.join(format!("agent{}", t.next()));
    let mut command = Command::new(probe());
    command.args(["notify-agent", path.to_str().unwrap(), &count.to_string(), &errno.to_string()]);
    let mut running = t.launch(command);
    running.wait_for("listening");
    (running, path.to_str().unwrap().to_owned())
}

fn notifying(t: &Test, listener: &str) -> Bundle {
    let mut b = filtered(t, "SCMP_ACT_ALLOW", &[rule(&["mkdir"], "SCMP_ACT_NOTIFY")]);
    b.set("linux.seccomp.listenerPath", json!(listener));
    b.set("linux.seccomp.listenerMetadata", json!("some metadata"));
    b
}

/// One message with one descriptor: the container process state of the specification.
fn notify_listener_gets_fd_and_state(t: &Test) {
    let (agent, path) = agent(t, 1, 95);
    let mut b = notifying(t, &path);
    b.set("annotations", json!({"k": "v"})).probe(&["syscall", MKDIR, "str:/x", "0"]);
    t.create(&b).ok();
    let pid = t.pid(&b.id);
    t.start(&b.id).ok();
    t.wait_status(&b.id, "stopped");
    let out = agent.wait().ok();
    let received = out.fact(1);
    assert_eq!(received["fds"], 1, "{received}");
    let state: Value = serde_json::from_str(received["message"].as_str().unwrap()).unwrap();
    assert_eq!(state["fds"], json!(["seccompFd"]), "{state}");
    assert_eq!(state["metadata"], "some metadata");
    assert_eq!(state["pid"], json!(pid));
    assert!(state["ociVersion"].is_string());
    assert_eq!(state["state"]["id"], json!(b.id));
    assert_eq!(state["state"]["status"], "creating");
    assert_eq!(state["state"]["bundle"], json!(b.path()));
    assert_eq!(state["state"]["annotations"]["k"], "v");
    assert_eq!(out.fact(2)["syscall"], 83);
    assert_eq!(out.fact(2)["pid"], json!(pid));
}

/// The agent decides: an errno, or let it pass.
fn notify_answers_reach_the_program(t: &Test) {
    for (errno, expected) in [(95, json!("EOPNOTSUPP")), (0, Value::Null)] {
        let (agent, path) = agent(t, 1, errno);
        let mut b = notifying(t, &path);
        b.probe(&["syscall", MKDIR, "str:/x", "0"]);
        let out = t.run(&b).ok();
        assert_eq!(out.fact(0)["errno"], expected);
        agent.wait().ok();
    }
}

/// exec connects too, with the status running and its own pid.
fn notify_of_exec(t: &Test) {
    let (first, path) = agent(t, 0, 95);
    let mut b = notifying(t, &path);
    let init = t.sleeper(&mut b);
    first.wait().ok();
    std::fs::remove_file(&path).unwrap();
    let mut command = Command::new(probe());
    command.args(["notify-agent", &path, "1", "95"]);
    let mut second = t.launch(command);
    second.wait_for("listening");
    let out = t.exec(&b.id, &[], &["syscall", MKDIR, "str:/x", "0"]).ok();
    assert_eq!(out.fact(0)["errno"], "EOPNOTSUPP");
    let message = second.wait().ok().fact(1)["message"].clone();
    let state: Value = serde_json::from_str(message.as_str().unwrap()).unwrap();
    if t.flavour == Flavour::Corten {
        assert_eq!(state["state"]["status"], "running", "{state}");
    }
    assert_eq!(state["state"]["pid"], json!(init), "{state}");
    assert_ne!(state["pid"], json!(init), "{state}");
}

/// A filter without no_new_privs takes CAP_SYS_ADMIN to load; the program has what was asked for.
fn no_capability_is_left_from_loading(t: &Test) {
    const KILL: u64 = 1 << 5;
    let (_agent, path) = agent(t, 1, 95);
    let plain = filtered(t, "SCMP_ACT_ALLOW", &[rule(&["mkdir"], "SCMP_ACT_ERRNO")]);
    for mut b in [plain, notifying(t, &path)] {
        b.set("process.noNewPrivileges", json!(false));
        for set in ["bounding", "effective", "permitted"] {
            b.set(&format!("process.capabilities.{set}"), json!(["CAP_KILL"]));
        }
        b.probe(&["report", "caps"]);
        let caps = t.run(&b).ok().fact(0)["caps"].clone();
        for set in ["bounding", "effective", "permitted"] {
            assert_eq!(caps[set], json!(KILL), "{set}: {caps}");
        }
        for set in ["inheritable", "ambient"] {
            assert_eq!(caps[set], json!(0), "{set}: {caps}");
        }
    }
}

/// "listenerMetadata ... MUST NOT be set if listenerPath is not set".
fn notify_metadata_without_path_is_refused(t: &Test) {
    t.skip_on_peers("don't look");
    let mut b = filtered(t, "SCMP_ACT_ALLOW", &[rule(&["mkdir"], "SCMP_ACT_ERRNO")]);
    b.set("linux.seccomp.listenerMetadata", json!("m"));
    t.create_fails(&b).says("listenerMetadata|listenerPath");
}

/// A NOTIFY without anybody to ask.
fn notify_absent_socket_is_refused(t: &Test) {
    t.create_fails(&notifying(t, "/absent/socket")).says("no such file or directory");
    let mut b = notifying(t, "/x");
    b.unset("linux.seccomp.listenerPath").unset("linux.seccomp.listenerMetadata");
    t.create_fails(&b);
}

/// The runtime itself must write to hand over the descriptor: NOTIFY on write would deadlock.
fn notify_on_write_is_refused(t: &Test) {
    t.skip_on(Flavour::Crun, "doesn't look");
    let mut b = filtered(t, "SCMP_ACT_ALLOW", &[rule(&["write"], "SCMP_ACT_NOTIFY")]);
    b.set("linux.seccomp.listenerPath", json!("/run/x"));
    t.create_fails(&b).says("SCMP_ACT_NOTIFY|write");
}

/// The same with NOTIFY for everything.
fn notify_as_default_is_refused(t: &Test) {
    t.skip_on(Flavour::Crun, "doesn't look");
    let mut b = filtered(t, "SCMP_ACT_NOTIFY", &[]);
    b.set("linux.seccomp.listenerPath", json!("/run/x"));
    t.create_fails(&b).says("SCMP_ACT_NOTIFY");
}
