//! `delete`, with and without force, and what ends with the container.

use std::fs;

use corten_integration::suite::Case;
use corten_integration::{Test, tests};

pub(crate) const TESTS: &[Case] = tests![
    delete_of_a_running_container_is_refused,
    delete_of_a_created_container_kills_it,
    delete_removes_everything,
    force_kills_and_removes,
    force_of_an_unknown_id_succeeds,
    force_works_in_every_status,
    zombies_are_not_waited_for,
    orphans_end_with_the_container,
];

/// `delete` of a running container has no effect but an error.
fn delete_of_a_running_container_is_refused(t: &Test) {
    let mut b = t.bundle();
    let pid = t.sleeper(&mut b);
    t.delete(&b.id).fails().says("not stopped");
    assert_eq!(t.status(&b.id), "running");
    assert_eq!(t.pid(&b.id), pid);
}

/// containerd deletes created containers without --force, so that is allowed and kills the init.
fn delete_of_a_created_container_kills_it(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["create", "/ran", ""]);
    t.create(&b).ok();
    t.delete(&b.id).ok();
    t.nothing_left(&b);
    assert!(!b.rootfs().join("ran").exists());
}

/// After `delete` of a stopped container there is no state, no cgroup, no mount; the id is free.
fn delete_removes_everything(t: &Test) {
    let mut b = t.bundle();
    for _ in 0..2 {
        b.probe(&["exit", "0"]);
        t.create(&b).ok();
        t.start(&b.id).ok();
        t.wait_status(&b.id, "stopped");
        t.delete(&b.id).ok();
        t.nothing_left(&b);
    }
    t.delete(&b.id).fails().says("does not exist");
}

/// `delete --force` ends a program that ignores every signal, and removes the container.
fn force_kills_and_removes(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["ignore", "1", "2", "15", ";", "print", "deaf", ";", "orphan", ";", "sleep", "1000"]);
    t.create(&b).ok();
    t.start(&b.id).ok();
    let pid = t.pid(&b.id);
    t.force(&b.id).ok();
    t.nothing_left(&b);
    assert!(!fs::exists(format!("/proc/{pid}/exe")).unwrap() || t.exit_code(pid) == 137);
}

/// `delete --force` of what doesn't exist succeeds silently, as often as you like.
fn force_of_an_unknown_id_succeeds(t: &Test) {
    let b = t.bundle();
    for _ in 0..2 {
        t.force(&b.id).ok();
    }
}

/// `delete --force` works on created, running, paused and stopped containers, and twice.
fn force_works_in_every_status(t: &Test) {
    for status in ["created", "running", "paused", "stopped"] {
        let mut b = t.bundle();
        b.probe(&["sleep"]);
        t.create(&b).ok();
        if status != "created" {
            t.start(&b.id).ok();
        }
        match status {
            "paused" => drop(t.call(&["pause", &b.id]).ok()),
            "stopped" => drop(t.kill(&b.id, "KILL").ok()),
            _ => {}
        }
        t.wait_status(&b.id, status);
        t.force(&b.id).ok();
        t.nothing_left(&b);
        t.force(&b.id).ok();
    }
}

/// Dead children that nobody waited for don't keep a container from being stopped and deleted.
fn zombies_are_not_waited_for(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["zombie", ";", "zombie", ";", "sleep"]);
    t.create(&b).ok();
    t.start(&b.id).ok();
    t.kill(&b.id, "KILL").ok();
    t.wait_status(&b.id, "stopped");
    t.delete(&b.id).ok();
    t.nothing_left(&b);
}

/// When the first process of the pid namespace ends, so does everything it left.
fn orphans_end_with_the_container(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["orphan", ";", "orphan", ";", "exit", "5"]);
    t.run(&b).exits(5);
    t.nothing_left(&b);
}
