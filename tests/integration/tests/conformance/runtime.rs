//! runtime.md.

use std::fs;

use corten_integration::suite::Case;
use corten_integration::{Bundle, Flavour, Test};
use serde_json::{Value, json};

fn stopped(t: &Test) -> Bundle {
    let mut b = t.bundle();
    b.probe(&["exit", "0"]);
    t.create(&b).ok();
    t.start(&b.id).ok();
    t.wait_status(&b.id, "stopped");
    b
}

/// The sentences.
pub const CASES: &[Case] = &[
    (
        "runtime: ociVersion (string, REQUIRED), id, status, bundle, pid when created or running",
        |t| {
            let mut b = t.bundle();
            t.sleeper(&mut b);
            let state = t.state(&b.id).ok().json();
            assert!(state["ociVersion"].as_str().unwrap().split('.').count() >= 3, "{state}");
            assert_eq!(state["id"], json!(b.id));
            assert_eq!(state["status"], "running");
            assert_eq!(state["bundle"], json!(b.path()));
            assert!(state["pid"].as_i64().unwrap() > 1);
        },
    ),
    ("runtime: id MUST be unique across all containers on this host", |t| {
        let b = t.bundle();
        t.create(&b).ok();
        t.create(&b).fails();
    }),
    ("runtime: annotations contain the list of annotations associated with the container", |t| {
        let mut b = t.bundle();
        b.set("annotations", json!({"k": "v"}));
        t.create(&b).ok();
        assert_eq!(t.state(&b.id).ok().json()["annotations"], json!({"k": "v"}));
    }),
    ("runtime: the user-specified program MUST NOT be run at create", |t| {
        let mut b = t.bundle();
        b.probe(&["create", "/ran", ""]);
        t.create(&b).ok();
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(!b.rootfs().join("ran").exists());
    }),
    ("runtime: updates to config.json after create MUST NOT affect the container", |t| {
        let mut b = t.bundle();
        b.probe(&["create", "/one", ""]);
        t.create(&b).ok();
        b.probe(&["create", "/two", ""]).write();
        t.start(&b.id).ok();
        t.wait_status(&b.id, "stopped");
        assert!(b.rootfs().join("one").exists() && !b.rootfs().join("two").exists());
    }),
    (
        "runtime: generating an error MUST leave the environment as if the operation were never attempted",
        |t| {
            let mut b = t.bundle();
            b.mount("/x", "nosuchfs", "x", &[]);
            t.create_fails(&b);
            let mut b = t.bundle();
            b.args(&["/absent"]);
            t.create_fails(&b);
        },
    ),
    ("runtime: state MUST generate an error if it is not provided the ID of a container", |t| {
        t.call(&["state"]).fails();
    }),
    ("runtime: querying a container that does not exist MUST generate an error", |t| {
        t.state(&t.bundle().id).fails();
    }),
    (
        "runtime: create MUST generate an error without a path to the bundle and the container ID",
        |t| {
            t.call(&["create"]).fails();
            t.call(&["create", "--bundle", "/absent", "x"]).fails();
        },
    ),
    ("runtime: an ID that is not valid MUST generate an error and no container is created", |t| {
        let b = t.bundle();
        b.write();
        for id in ["", "a/b", "..", " "] {
            t.call(&["create", "--bundle", b.path(), id]).fails();
        }
        t.nothing_left(&b);
    }),
    (
        "runtime: a property that cannot be applied MUST generate an error and no container is created",
        |t| {
            let mut b = t.bundle();
            b.set("linux.resources.cpu", json!({"cpus": "4095"}));
            t.create_fails(&b);
        },
    ),
    ("runtime: start MUST generate an error if it is not provided the container ID", |t| {
        t.call(&["start"]).fails();
    }),
    (
        "runtime: start of a container that is not created MUST have no effect and generate an error",
        |t| {
            let mut b = t.bundle();
            let pid = t.sleeper(&mut b);
            t.start(&b.id).fails();
            assert_eq!(t.pid(&b.id), pid);
            let b = stopped(t);
            t.start(&b.id).fails();
            assert_eq!(t.status(&b.id), "stopped");
        },
    ),
    ("runtime: start MUST run the user-specified program as specified by process", |t| {
        let mut b = t.bundle();
        b.probe(&["create", "/ran", "yes"]);
        t.create(&b).ok();
        t.start(&b.id).ok();
        t.wait_status(&b.id, "stopped");
        assert_eq!(fs::read_to_string(b.rootfs().join("ran")).unwrap(), "yes");
    }),
    ("runtime: start MUST generate an error if process was not set", |t| {
        let mut b = t.bundle();
        b.unset("process");
        // Said at create already, when a program could still be named.
        t.create_fails(&b);
    }),
    ("runtime: kill MUST generate an error if it is not provided the container ID", |t| {
        t.call(&["kill"]).fails();
    }),
    (
        "runtime: kill of a container neither created nor running MUST have no effect and generate an error",
        |t| {
            let b = stopped(t);
            t.kill(&b.id, "KILL").fails();
            assert_eq!(t.status(&b.id), "stopped");
        },
    ),
    ("runtime: kill MUST send the specified signal to the container process", |t| {
        for (signal, code) in [("TERM", 143), ("USR1", 138), ("KILL", 137)] {
            let mut b = t.bundle();
            let pid = t.sleeper(&mut b);
            t.kill(&b.id, signal).ok();
            assert_eq!(t.exit_code(pid), code);
        }
    }),
    ("runtime: delete MUST generate an error if it is not provided the container ID", |t| {
        t.call(&["delete"]).fails();
    }),
    (
        "runtime: delete of a container that is not stopped MUST have no effect and generate an error",
        |t| {
            let mut b = t.bundle();
            let pid = t.sleeper(&mut b);
            t.delete(&b.id).fails();
            t.call(&["pause", &b.id]).ok();
            t.delete(&b.id).fails();
            t.call(&["resume", &b.id]).ok();
            assert_eq!(t.pid(&b.id), pid);
            assert_eq!(t.status(&b.id), "running");
        },
    ),
    ("runtime: delete MUST delete the resources that were created during create", |t| {
        let b = stopped(t);
        t.delete(&b.id).ok();
        t.nothing_left(&b);
    }),
    ("runtime: resources not created by this container MUST NOT be deleted", |t| {
        let mut b = t.bundle();
        let shared = t.dir.join("shared");
        fs::create_dir(&shared).unwrap();
        fs::write(shared.join("file"), "x").unwrap();
        b.mount("/shared", "bind", shared.to_str().unwrap(), &["bind"]).probe(&["exit", "0"]);
        let mut first = t.bundle();
        let pid = t.sleeper(&mut first);
        b.namespace("network", Some(&format!("/proc/{pid}/ns/net")));
        t.run(&b).ok();
        assert!(shared.join("file").exists() && b.rootfs().exists());
        assert_eq!(t.status(&first.id), "running");
    }),
    ("runtime: once a container is deleted its ID MAY be used by a subsequent container", |t| {
        let b = t.bundle();
        t.create(&b).ok();
        t.force(&b.id).ok();
        t.create(&b).ok();
    }),
    (
        "runtime: created: neither exited nor executed the user-specified program",
        state_status_created,
    ),
    (
        "runtime: running: has executed the user-specified program but has not exited",
        state_status_running,
    ),
    ("runtime: stopped: the container process has exited", state_status_stopped),
    (
        "runtime: pid is the ID of the container process, the same one from create to its end",
        state_pid_is_the_container_process,
    ),
    (
        "runtime: bundle is the absolute path to the container's bundle directory",
        state_bundle_is_absolute,
    ),
    ("runtime: without annotations the property MAY be absent or an empty map", state_annotations),
    (
        "runtime: the format MUST adhere to the JSON Schema, in every status",
        state_agrees_with_the_schema,
    ),
    (
        "runtime: the resources requested MUST be created before the program runs",
        lifecycle_environment_is_created_first,
    ),
    (
        "runtime: the process exits by erroring out, exiting or crashing",
        lifecycle_exit_makes_it_stopped,
    ),
    ("runtime: an error of any section leaves nothing behind", errors_leave_nothing),
    ("runtime: a warning MUST continue as if it had not been logged", warnings_change_nothing),
    (
        "runtime: with a used ID a new container MUST NOT be created and the other is untouched",
        create_id_must_be_unique,
    ),
    ("runtime: kill of a created container sends the signal", kill_of_a_created_container),
];

/// State: "created: the runtime has finished the create operation, and the container process has
/// neither exited nor executed the user-specified program".
fn state_status_created(t: &Test) {
    let b = t.bundle();
    t.create(&b).ok();
    assert_eq!(t.status(&b.id), "created");
    assert!(fs::metadata(format!("/proc/{}", t.pid(&b.id))).is_ok(), "the process has exited");
}

/// State: "running: the container process has executed the user-specified program but has not
/// exited".
fn state_status_running(t: &Test) {
    let mut b = t.bundle();
    let pid = t.sleeper(&mut b);
    assert_eq!(t.status(&b.id), "running");
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    assert_eq!(words, b"/probe\0sleep\0");
}

/// State: "stopped: the container process has exited".
fn state_status_stopped(t: &Test) {
    let mut b = t.bundle();
    let pid = t.sleeper(&mut b);
    t.kill(&b.id, "KILL").ok();
    t.exit_code(pid);
    assert_eq!(t.status(&b.id), "stopped");
}

/// State: "pid (int, REQUIRED when status is created or running on Linux) is the ID of the
/// container process."
fn state_pid_is_the_container_process(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["sleep"]);
    t.create(&b).ok();
    let created = t.pid(&b.id);
    t.start(&b.id).ok();
    let pid = t.wait_asleep(&b.id);
    assert_eq!(pid, created, "the container process became another one");
    let root = fs::read(format!("/proc/{pid}/root/etc/passwd")).unwrap();
    assert_eq!(root, fs::read(b.rootfs().join("etc/passwd")).unwrap());
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let inside = status.lines().find(|line| line.starts_with("NSpid:")).unwrap();
    assert!(inside.ends_with("\t1"), "{inside}");
}

/// State: "bundle (string, REQUIRED) is the absolute path to the container's bundle directory."
fn state_bundle_is_absolute(t: &Test) {
    let b = t.bundle();
    b.write();
    let mut command = t.command(&["create", "--bundle", ".", &b.id]);
    command.current_dir(&b.dir);
    t.execute(command).ok();
    assert_eq!(t.state(&b.id).ok().json()["bundle"], json!(b.path()));
}

/// State: "annotations (map, OPTIONAL) contains the list of annotations associated with the
/// container. If no annotations were provided then this property MAY either be absent or an empty
/// map."
fn state_annotations(t: &Test) {
    let (plain, mut noted) = (t.bundle(), t.bundle());
    let notes = json!({"com.example.key": "value", "com.example.empty": ""});
    noted.set("annotations", notes.clone());
    t.create(&plain).ok();
    t.create(&noted).ok();
    let none = &t.state(&plain.id).ok().json()["annotations"];
    assert!(none.is_null() || *none == json!({}), "{none}");
    let mut found = t.state(&noted.id).ok().json()["annotations"].clone();
    if t.flavour == Flavour::Runc {
        found.as_object_mut().unwrap().remove("bundle");
    }
    assert_eq!(found, notes);
}

/// State: "When serialized in JSON, the format MUST adhere to the JSON Schema
/// schema/state-schema.json": its required members and types, pid not negative, in every status.
fn state_agrees_with_the_schema(t: &Test) {
    fn holds(state: &Value) {
        let status = state["status"].as_str().unwrap();
        assert!(["creating", "created", "running", "stopped"].contains(&status), "{state}");
        assert!(state["pid"].is_null() || state["pid"].as_u64().is_some(), "{state}");
        let notes = &state["annotations"];
        let strings = |map: &serde_json::Map<String, Value>| map.values().all(Value::is_string);
        assert!(notes.is_null() || notes.as_object().is_some_and(strings), "{state}");
        for name in ["ociVersion", "id", "bundle"] {
            assert!(state[name].is_string(), "{name} of {state}");
        }
    }
    let mut b = t.bundle();
    b.set("annotations", json!({"a": "b"})).probe(&["sleep"]);
    t.create(&b).ok();
    holds(&t.state(&b.id).ok().json());
    t.start(&b.id).ok();
    t.wait_asleep(&b.id);
    holds(&t.state(&b.id).ok().json());
    t.kill(&b.id, "KILL").ok();
    t.wait_status(&b.id, "stopped");
    holds(&t.state(&b.id).ok().json());
}

/// Lifecycle 2: "While the resources requested in the config.json MUST be created, the
/// user-specified program MUST NOT be run at this time": namespaces, mounts and cgroups are there.
fn lifecycle_environment_is_created_first(t: &Test) {
    let mut b = t.bundle();
    b.set("linux.resources.pids", json!({"limit": 77})).mount("/mnt", "tmpfs", "tmpfs", &["ro"]);
    t.create(&b).ok();
    let pid = t.pid(&b.id);
    for name in ["pid", "net", "ipc", "uts", "mnt"] {
        let own = fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap();
        assert_ne!(own, fs::read_link(format!("/proc/self/ns/{name}")).unwrap(), "{name}");
    }
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    assert!(mounts.contains(" /mnt "), "{mounts}");
    assert_eq!(b.cgroup_file("pids", "pids.max"), "77");
}

/// Lifecycle 10: "The container process exits. This MAY happen due to erroring out, exiting,
/// crashing or the runtime's kill operation being invoked."
fn lifecycle_exit_makes_it_stopped(t: &Test) {
    for steps in [&["exit", "3"][..], &["exit", "0"], &["die-by", "11"]] {
        let mut b = t.bundle();
        b.no_namespace("pid").probe(steps);
        t.create(&b).ok();
        t.start(&b.id).ok();
        t.wait_status(&b.id, "stopped");
        t.delete(&b.id).ok();
    }
}

/// Errors: "Unless otherwise stated, generating an error MUST leave the state of the environment
/// as if the operation were never attempted".
fn errors_leave_nothing(t: &Test) {
    for (path, value) in [
        ("mounts", json!([{"destination": "/x", "type": "no-such-fs", "source": "x"}])),
        ("process.cwd", json!("relative")),
        ("linux.namespaces", json!([{"type": "mount"}, {"type": "network", "path": "/absent"}])),
        ("root.path", json!("absent")),
    ] {
        let mut b = t.bundle();
        b.set(path, value);
        t.create_fails(&b);
    }
}

/// Warnings: "logging a warning does not change the flow of the operation; it MUST continue as if
/// the warning had not been logged."
fn warnings_change_nothing(t: &Test) {
    t.skip_on(Flavour::Crun, "unknown capabilities are its errors");
    let mut b = t.bundle();
    b.capabilities(&["CAP_KILL", "CAP_FROM_THE_FUTURE"]);
    assert_eq!(t.report(&b)["caps"]["effective"], 1 << 5);
}

/// Create: "If the ID provided is not unique across all containers within the scope of the runtime
/// the implementation MUST generate an error and a new container MUST NOT be created."
fn create_id_must_be_unique(t: &Test) {
    let (a, mut b) = (t.bundle(), t.bundle());
    t.create(&a).ok();
    let before = t.state(&a.id).ok().json();
    let own = std::mem::replace(&mut b.id, a.id.clone());
    t.create(&b).fails();
    assert_eq!(t.state(&a.id).ok().json(), before);
    let cgroups = corten_integration::cgroups::tagged(&own);
    assert!(cgroups.is_empty(), "{cgroups:?}");
}

/// Kill: a created container takes signals ("neither created nor running" is the error).
fn kill_of_a_created_container(t: &Test) {
    let b = t.bundle();
    t.create(&b).ok();
    let pid = t.pid(&b.id);
    t.kill(&b.id, "KILL").ok();
    assert_eq!(t.exit_code(pid), 128 + 9);
    assert_eq!(t.status(&b.id), "stopped");
}
