//! What is told of containers: `state`, `ps`, `list`.

use std::fs;

use corten_integration::driver::wait_until;
use corten_integration::suite::Case;
use corten_integration::{Flavour, Test, tests};
use serde_json::json;

pub(crate) const TESTS: &[Case] = tests![
    state_has_the_fields_of_the_specification,
    state_follows_the_life,
    state_of_a_stopped_container_has_no_pid,
    an_unknown_id_does_not_exist,
    ps_lists_the_processes,
    list_shows_the_containers,
    list_of_nothing,
];

/// State is JSON with ociVersion, id, status, pid, bundle and annotations.
fn state_has_the_fields_of_the_specification(t: &Test) {
    let mut b = t.bundle();
    b.set("annotations", json!({"org.example.key": "värde", "other": ""}));
    let pid = t.sleeper(&mut b);
    let state = t.state(&b.id).ok().json();
    assert!(state["ociVersion"].as_str().unwrap().starts_with("1."), "{state}");
    assert_eq!(state["id"], json!(b.id));
    assert_eq!(state["status"], "running");
    assert_eq!(state["bundle"], json!(b.path()));
    assert_eq!(state["annotations"]["org.example.key"], "värde");
    assert_eq!(state["annotations"]["other"], "");
    let environ = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    assert!(environ.starts_with(b"/probe\0sleep"), "pid is the program's, seen from the host");
}

/// Status goes from created to running to stopped.
fn state_follows_the_life(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["sleep"]);
    t.create(&b).ok();
    assert_eq!(t.status(&b.id), "created");
    t.start(&b.id).ok();
    assert_eq!(t.status(&b.id), "running");
    t.kill(&b.id, "KILL").ok();
    t.wait_status(&b.id, "stopped");
    t.delete(&b.id).ok();
    t.state(&b.id).fails().says("does not exist");
}

/// A stopped container has no process, so its pid is 0 or absent.
fn state_of_a_stopped_container_has_no_pid(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["exit", "0"]);
    t.create(&b).ok();
    t.start(&b.id).ok();
    t.wait_status(&b.id, "stopped");
    let state = t.state(&b.id).ok().json();
    assert_eq!(state["pid"].as_i64().unwrap_or(0), 0, "{state}");
    assert_eq!(state["bundle"], json!(b.path()));
}

/// Every command on an unknown id fails with "does not exist".
fn an_unknown_id_does_not_exist(t: &Test) {
    t.skip_on(Flavour::Crun, "crashes on one of them");
    let b = t.bundle();
    for verb in ["start", "state", "kill", "delete", "pause", "resume", "ps"] {
        t.call(&[verb, &b.id]).fails().says("does not exist");
    }
    t.exec(&b.id, &[], &["report"]).fails().says("does not exist");
    t.nothing_left(&b);
}

/// `ps --format json` is one array of pids; the table is `ps`'s with the container's lines only.
fn ps_lists_the_processes(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["orphan", ";", "sleep"]);
    t.create(&b).ok();
    t.start(&b.id).ok();
    let pid = t.pid(&b.id);
    wait_until("the orphan lives", || b.cgroup_file("pids", "cgroup.procs").lines().count() == 2);
    let all = t.call(&["ps", "--format", "json", &b.id]).ok().json();
    assert_eq!(all.as_array().unwrap().len(), 2);
    assert!(all.as_array().unwrap().contains(&json!(pid)));
    t.skip_on(Flavour::Crun, "ps takes no arguments for ps");
    // ps(1) may look at a process in the middle of something; in the end it sees both.
    wait_until("ps shows the header and both processes", || {
        let table = t.call(&["ps", &b.id]).ok().stdout;
        table.lines().next().is_some_and(|header| header.contains("PID"))
            && table.lines().count() == 3
            && table.contains("/probe orphan")
    });
    let table = t.call(&["ps", &b.id, "-o", "pid,comm"]).ok().stdout;
    assert!(table.lines().next().unwrap().contains("COMMAND"), "{table}");
    assert!(table.contains(&pid.to_string()), "{table}");
    t.call(&["ps", "--format", "yaml", &b.id]).fails();
}

/// `list` knows a table, JSON and ids only.
fn list_shows_the_containers(t: &Test) {
    let mut first = t.bundle();
    let pid = t.sleeper(&mut first);
    let mut second = t.bundle();
    second.probe(&["exit", "0"]);
    t.create(&second).ok();
    let table = t.call(&["list"]).ok().stdout;
    let header: Vec<&str> = table.lines().next().unwrap().split_whitespace().collect();
    if t.flavour != Flavour::Crun {
        assert_eq!(header, ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]);
    }
    let line = table.lines().find(|l| l.starts_with(&first.id)).unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words[..4], [&first.id, &pid.to_string(), "running", first.path()]);
    assert_eq!(words.last(), Some(&"root"));
    let quiet = t.call(&["list", "-q"]).ok().stdout;
    let mut ids: Vec<&str> = quiet.split_whitespace().collect();
    ids.sort_unstable();
    assert_eq!(ids, [&first.id, &second.id]);
    let all = t.call(&["list", "--format", "json"]).ok().json();
    let mine = all.as_array().unwrap().iter().find(|c| c["id"] == json!(first.id)).unwrap();
    assert_eq!(mine["status"], "running");
    assert_eq!(mine["pid"], json!(pid));
    assert_eq!(mine["owner"], "root");
    assert!(mine["created"].as_str().unwrap().contains('T'), "an RFC 3339 time: {mine}");
    t.skip_on(Flavour::Crun, "any format is a table");
    t.call(&["list", "--format", "yaml"]).fails();
}

/// `list` with an empty state directory prints no container.
fn list_of_nothing(t: &Test) {
    fs::create_dir(t.root()).unwrap();
    assert_eq!(t.call(&["list", "-q"]).ok().stdout.trim(), "");
    assert_eq!(t.call(&["list"]).ok().stdout.lines().count(), 1);
}
