//! config.md, POSIX-platform hooks: every kind of hook, two of each, seen from within.

use std::fs;

use corten_integration::bundle::probe;
use corten_integration::suite::Case;
use corten_integration::{Bundle, Flavour, Test};
use serde_json::{Value, json};

/// The sentences.
pub const CASES: &[Case] = &[
    ("hooks: poststart MUST be called before the start operation returns", hooks_of_start),
    ("hooks: poststop MUST be called after the container is deleted", hooks_of_delete),
    (
        "hooks: the state is appropriate to the current state of the container",
        hooks_state_over_stdin,
    ),
    (
        "hooks: the path of createContainer MUST resolve in the runtime namespace",
        hooks_create_container_in_the_container_namespace,
    ),
    ("hooks: args and env have the semantics of argv and environ", hooks_args_and_env),
    ("hooks: every kind MUST be called in the listed order", hooks_are_called_in_the_listed_order),
    (
        "hooks: after a failure the rest of the kind and the program do not run, poststop does",
        hooks_failure_in_create_destroys,
    ),
    (
        "hooks: the remaining poststop hooks continue and the failure is logged",
        hooks_failure_of_poststop_is_a_warning,
    ),
    ("hooks: path MUST be absolute in every kind", hooks_path_must_be_absolute),
    ("hooks: timeout MUST be greater than zero in every kind", hooks_timeout_must_be_positive),
];

const KINDS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// A bundle with two hooks of every kind; `bad` is the one of them that fails.
fn bundle(t: &Test, bad: &str) -> Bundle {
    let mut b = t.bundle();
    let dir = t.dir.join("hooks");
    fs::create_dir_all(&dir).unwrap();
    b.mount("/hooks", "bind", dir.to_str().unwrap(), &["bind"]);
    for kind in KINDS {
        let inside = kind == "startContainer";
        let program = if inside { "/probe" } else { probe().to_str().unwrap() };
        let log = if inside { "/hooks".into() } else { dir.clone() }.join("log");
        for n in 1..=2 {
            let name = format!("{kind}{n}");
            let mut args = json!(["named", "hook", name, log]);
            if name == bad {
                args.as_array_mut().unwrap().extend([json!("exit"), json!("3")]);
            }
            b.push(
                &format!("hooks.{kind}"),
                json!({"path": program, "args": args, "env": ["ONLY=this"]}),
            );
        }
    }
    b.probe(&["append", "/hooks/log", "{\"hook\":\"program\"}\n"]);
    b
}

fn facts(t: &Test) -> Vec<Value> {
    let text = fs::read_to_string(t.dir.join("hooks/log")).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn names(t: &Test) -> Vec<String> {
    facts(t).iter().map(|f| f["hook"].as_str().unwrap().to_owned()).collect()
}

fn of(t: &Test, name: &str) -> Value {
    facts(t).into_iter().find(|f| f["hook"] == name).unwrap_or_else(|| panic!("no {name} ran"))
}

/// A whole life with all hooks.
fn live(t: &Test) -> Bundle {
    let mut b = bundle(t, "");
    b.set("annotations", json!({"com.example": "note"}));
    t.create(&b).ok();
    t.start(&b.id).ok();
    t.wait_status(&b.id, "stopped");
    t.delete(&b.id).ok();
    b
}

/// "Hooks MUST be called in the listed order."
fn hooks_are_called_in_the_listed_order(t: &Test) {
    live(t);
    for kind in KINDS {
        let own: Vec<_> = names(t).into_iter().filter(|name| name.starts_with(kind)).collect();
        assert_eq!(own, [format!("{kind}1"), format!("{kind}2")]);
    }
}

/// "The startContainer hooks MUST be called before the user-specified process is executed as part
/// of the start operation", "The poststart hooks MUST be called after the user-specified process
/// is executed but before the start operation returns."
fn hooks_of_start(t: &Test) {
    t.skip_on(Flavour::Runc, "1.1 runs poststart in create");
    let b = bundle(t, "");
    t.create(&b).ok();
    t.start(&b.id).ok();
    let now = names(t);
    assert!(now.contains(&"poststart2".to_owned()), "start returned before: {now:?}");
    t.wait_status(&b.id, "stopped");
    let now = names(t);
    assert_eq!(now[6..8], ["startContainer1", "startContainer2"]);
    assert!(now[8..].contains(&"program".to_owned()), "{now:?}");
}

/// "The poststop hooks MUST be called after the container is deleted but before the delete
/// operation returns."
fn hooks_of_delete(t: &Test) {
    let b = bundle(t, "");
    t.create(&b).ok();
    t.start(&b.id).ok();
    t.wait_status(&b.id, "stopped");
    assert!(!names(t).iter().any(|name| name.starts_with("poststop")));
    t.delete(&b.id).ok();
    assert_eq!(names(t)[names(t).len() - 2..], ["poststop1", "poststop2"]);
    if t.flavour == Flavour::Corten {
        let cgroup = of(t, "poststop1")["of_target"]["cgroup"].to_string();
        assert!(!cgroup.contains(&b.id), "not deleted yet: {cgroup}");
    }
}

/// "The state of the container MUST be passed to hooks over stdin so that they may do work
/// appropriate to the current state of the container."
fn hooks_state_over_stdin(t: &Test) {
    let b = live(t);
    for kind in KINDS {
        let state = &of(t, &format!("{kind}1"))["state"];
        assert_eq!(state["id"], json!(b.id), "{kind}");
        assert_eq!(state["bundle"], json!(b.path()), "{kind}");
        assert_eq!(state["annotations"]["com.example"], "note", "{kind}");
        assert!(state["ociVersion"].is_string() && state["status"].is_string(), "{kind}: {state}");
    }
    if t.flavour == Flavour::Corten {
        let statuses = KINDS.map(|kind| of(t, &format!("{kind}2"))["state"]["status"].clone());
        assert_eq!(statuses, ["creating", "creating", "creating", "created", "running", "stopped"]);
    }
}

/// "The createContainer hooks' path MUST resolve in the runtime namespace" and "The createContainer
/// hooks MUST be executed in the container namespace", before pivot_root.
fn hooks_create_container_in_the_container_namespace(t: &Test) {
    let mut b = bundle(t, "");
    b.probe(&["report", "ns"]);
    let seen = t.run(&b).ok().fact(0);
    let fact = of(t, "createContainer1");
    for name in ["mnt", "net", "uts", "ipc"] {
        assert_eq!(fact["ns"][name], seen["ns"][name], "{name}");
    }
    let names = fact["root_names"].to_string();
    assert!(names.contains("\"usr\""), "the root is not the host's: {names}");
}

/// "args (array of strings, OPTIONAL) with the same semantics as execv's argv", "env (array of
/// strings, OPTIONAL) with the same semantics as environ".
fn hooks_args_and_env(t: &Test) {
    live(t);
    for kind in KINDS {
        let fact = of(t, &format!("{kind}2"));
        assert_eq!(fact["args"][0], "named", "{kind}");
        assert_eq!(fact["args"][2], format!("{kind}2"), "{kind}");
        assert_eq!(fact["env"], json!(["ONLY=this"]), "{kind}");
    }
}

/// "This specification extends the IEEE standard in that path MUST be absolute."
fn hooks_path_must_be_absolute(t: &Test) {
    t.skip_on_peers("find it when they run it, or run it");
    for kind in KINDS {
        for path in ["true", "bin/true", "./true", ""] {
            let mut b = t.bundle();
            b.set(&format!("hooks.{kind}"), json!([{"path": path}]));
            t.create_fails(&b);
        }
    }
}

/// "If set, timeout MUST be greater than zero."
fn hooks_timeout_must_be_positive(t: &Test) {
    t.skip_on_peers("take anything");
    for kind in KINDS {
        for timeout in [0, -1] {
            let mut b = t.bundle();
            b.set(&format!("hooks.{kind}"), json!([{"path": "/bin/true", "timeout": timeout}]));
            t.create_fails(&b);
        }
    }
}

/// Lifecycle 3 to 5: "If any prestart hook fails, the runtime MUST generate an error, stop the
/// container, and continue the lifecycle at step 12", createRuntime and createContainer too; step
/// 13: "The poststop hooks MUST be invoked by the runtime."
fn hooks_failure_in_create_destroys(t: &Test) {
    for kind in &KINDS[..3] {
        let b = bundle(t, &format!("{kind}1"));
        t.create_fails(&b);
        let ran = names(t);
        assert!(
            !ran.contains(&"program".to_owned()) && !ran.contains(&format!("{kind}2")),
            "{ran:?}"
        );
        if t.flavour == Flavour::Corten {
            assert_eq!(ran[ran.len() - 2..], ["poststop1", "poststop2"], "{kind}");
        }
        fs::remove_file(t.dir.join("hooks/log")).unwrap();
    }
}

/// Lifecycle 13: "If any poststop hook fails, the runtime MUST log a warning, but the remaining
/// hooks and lifecycle continue as if the hook had succeeded."
fn hooks_failure_of_poststop_is_a_warning(t: &Test) {
    t.skip_on(Flavour::Runc, "fails and skips the others");
    let b = bundle(t, "poststop1");
    t.create(&b).ok();
    t.start(&b.id).ok();
    t.wait_status(&b.id, "stopped");
    let log = t.dir.join("log");
    t.call(&["--log", log.to_str().unwrap(), "delete", &b.id]).ok();
    assert_eq!(names(t).last().unwrap(), "poststop2");
    let text = fs::read_to_string(&log).unwrap();
    assert!(t.flavour == Flavour::Crun || text.contains("warn"), "{text}");
    t.nothing_left(&b);
}
