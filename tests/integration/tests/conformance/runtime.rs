//! runtime.md.

use std::fs;

use corten_integration::suite::Case;
use corten_integration::{Bundle, Test};
use serde_json::json;

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
];
