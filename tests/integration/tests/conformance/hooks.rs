//! runtime.md, lifecycle, and config.md, POSIX-platform Hooks.

use std::fs;
use std::path::PathBuf;

use corten_integration::suite::Case;
use corten_integration::{Bundle, Flavour, Test};
use serde_json::{Value, json};

fn log(t: &Test) -> PathBuf {
    let dir = t.dir.join("hooks");
    fs::create_dir_all(&dir).unwrap();
    dir.join("log")
}

/// A hook that writes its name, its mount namespace and what it got, then ends with `code`.
fn hook(t: &Test, kind: &str, code: i32) -> Value {
    let (log, shell) = match kind {
        "startContainer" => ("/hooks/log".to_owned(), "/bin/sh"),
        _ => (log(t).display().to_string(), "/bin/sh"),
    };
    let script = format!(
        "echo \"{kind} $(readlink /proc/self/ns/mnt) $(cat | tr -d '\\n ')\" >>{log}; exit {code}"
    );
    json!({"path": shell, "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]})
}

fn bundle(t: &Test, failing: &str) -> Bundle {
    let mut b = t.busybox();
    let dir = log(t).parent().unwrap().to_owned();
    b.mount("/hooks", "bind", dir.to_str().unwrap(), &["bind"]);
    for kind in
        ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"]
    {
        b.push(&format!("hooks.{kind}"), hook(t, kind, i32::from(kind == failing)));
    }
    b.args(&["/bin/sh", "-c", "echo main >>/hooks/log"]);
    b
}

fn ran(t: &Test) -> Vec<String> {
    let text = fs::read_to_string(log(t)).unwrap_or_default();
    text.lines().map(|l| l.split(' ').next().unwrap().to_owned()).collect()
}

fn line(t: &Test, kind: &str) -> String {
    let text = fs::read_to_string(log(t)).unwrap_or_default();
    text.lines()
        .find(|l| l.starts_with(kind))
        .unwrap_or_else(|| panic!("no {kind} in {text}"))
        .to_owned()
}

fn host() -> String {
    fs::read_link("/proc/self/ns/mnt").unwrap().display().to_string()
}

/// A failing hook of create: the error, no container, and the poststop hooks.
fn fails_in_create(t: &Test, kind: &str) {
    let b = bundle(t, kind);
    t.create_fails(&b);
    let ran = ran(t);
    assert!(
        !ran.contains(&"startContainer".to_owned()) && !ran.contains(&"main".to_owned()),
        "{ran:?}"
    );
    if t.flavour == Flavour::Corten {
        assert_eq!(ran.last().map(String::as_str), Some("poststop"), "step 12 and 13: {ran:?}");
    }
}

/// The sentences.
pub const CASES: &[Case] = &[
    ("hooks: each kind MUST be invoked, in the order of the lifecycle", |t| {
        t.skip_on(Flavour::Runc, "1.1 runs poststart in create");
        let b = bundle(t, "");
        t.create(&b).ok();
        assert_eq!(ran(t), ["prestart", "createRuntime", "createContainer"]);
        t.start(&b.id).ok();
        t.wait_status(&b.id, "stopped");
        t.delete(&b.id).ok();
        let all = ran(t);
        assert_eq!(all[3], "startContainer");
        assert_eq!(all.len(), 7, "{all:?}");
        assert_eq!(all[6], "poststop");
    }),
    (
        "hooks: if any prestart hook fails the runtime MUST generate an error, stop, continue at step 12",
        |t| {
            fails_in_create(t, "prestart");
        },
    ),
    (
        "hooks: if any createRuntime hook fails the runtime MUST generate an error, stop, continue at step 12",
        |t| {
            fails_in_create(t, "createRuntime");
        },
    ),
    (
        "hooks: if any createContainer hook fails the runtime MUST generate an error, stop, continue at step 12",
        |t| {
            fails_in_create(t, "createContainer");
        },
    ),
    (
        "hooks: if any startContainer hook fails the runtime MUST generate an error and stop the container",
        |t| {
            let b = bundle(t, "startContainer");
            t.create(&b).ok();
            let start = t.start(&b.id);
            if t.flavour == Flavour::Corten {
                start.fails();
            }
            assert!(!ran(t).contains(&"main".to_owned()));
            if t.state(&b.id).code == 0 {
                t.wait_status(&b.id, "stopped");
            }
        },
    ),
    (
        "hooks: if any poststart hook fails the runtime MUST generate an error and stop the container",
        |t| {
            t.skip_on(Flavour::Runc, "1.1 runs poststart in create");
            t.skip_on(Flavour::Crun, "only logs it");
            let mut b = bundle(t, "poststart");
            b.args(&["/probe", "sleep"]);
            t.create(&b).ok();
            t.start(&b.id).fails();
            if t.state(&b.id).code == 0 {
                t.wait_status(&b.id, "stopped");
            }
        },
    ),
    (
        "hooks: if any poststop hook fails a warning is logged, the remaining hooks and lifecycle continue",
        |t| {
            t.skip_on(Flavour::Runc, "fails");
            let b = bundle(t, "poststop");
            t.create(&b).ok();
            t.force(&b.id).ok();
            t.nothing_left(&b);
        },
    ),
    (
        "hooks: prestart, createRuntime, poststart and poststop MUST be executed in the runtime namespace",
        |t| {
            let b = bundle(t, "");
            t.run(&b).ok();
            for kind in ["prestart", "createRuntime", "poststart", "poststop"] {
                assert!(line(t, kind).contains(&host()), "{kind}");
            }
        },
    ),
    (
        "hooks: createContainer and startContainer MUST be executed in the container namespace",
        |t| {
            let b = bundle(t, "");
            t.run(&b).ok();
            for kind in ["createContainer", "startContainer"] {
                assert!(!line(t, kind).contains(&host()), "{kind}");
            }
        },
    ),
    ("hooks: the path of startContainer MUST resolve in the container namespace", |t| {
        let mut b = bundle(t, "");
        b.push(
            "hooks.startContainer",
            json!({"path": "/probe", "args": ["probe", "append", "/hooks/log", "inside\n"]}),
        );
        t.run(&b).ok();
        assert!(ran(t).contains(&"inside".to_owned()));
    }),
    ("hooks: the state of the container MUST be passed to hooks over stdin", |t| {
        let b = bundle(t, "");
        t.run(&b).ok();
        for kind in [
            "prestart",
            "createRuntime",
            "createContainer",
            "startContainer",
            "poststart",
            "poststop",
        ] {
            let line = line(t, kind);
            let state: Value = serde_json::from_str(line.splitn(3, ' ').nth(2).unwrap()).unwrap();
            assert_eq!(state["id"], json!(b.id), "{kind}");
        }
    }),
    ("hooks: hooks MUST be called in the listed order", |t| {
        let mut b = t.bundle();
        for n in 0..5 {
            let script = format!("cat >/dev/null; echo {n} >>{}", log(t).display());
            b.push("hooks.createRuntime", json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]}));
        }
        b.probe(&["exit", "0"]);
        t.run(&b).ok();
        assert_eq!(ran(t), ["0", "1", "2", "3", "4"]);
    }),
    ("hooks: path MUST be absolute", |t| {
        t.skip_on_peers("don't look");
        let mut b = t.bundle();
        b.push("hooks.poststart", json!({"path": "bin/true"}));
        t.create_fails(&b);
    }),
    ("hooks: timeout MUST be greater than zero", |t| {
        t.skip_on_peers("don't look");
        let mut b = t.bundle();
        b.push("hooks.poststart", json!({"path": "/bin/true", "timeout": 0}));
        t.create_fails(&b);
    }),
];
