//! What reaches the processes: `kill`, `pause` and `resume`.

use corten_integration::driver::wait_until;
use corten_integration::suite::Case;
use corten_integration::{Flavour, Test, tests};

pub(crate) const TESTS: &[Case] = tests![
    kill_of_a_stopped_container_is_refused,
    kill_takes_every_spelling_of_a_signal,
    kill_of_a_bad_signal_is_refused,
    kill_works_on_a_created_container,
    kill_without_pid_namespace_ends_the_whole_cgroup,
    kill_all_is_accepted,
    pause_and_resume,
    pause_and_resume_out_of_order,
    a_paused_container_can_be_killed,
    a_created_container_can_be_paused,
];

/// `kill` of a stopped container fails with the words that managers look for.
fn kill_of_a_stopped_container_is_refused(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["exit", "0"]);
    t.create(&b).ok();
    t.start(&b.id).ok();
    t.wait_status(&b.id, "stopped");
    t.kill(&b.id, "TERM").fails().says("container not running|is not running");
}

/// P6: no signal is SIGTERM; a number, a name with or without SIG, in any case.
fn kill_takes_every_spelling_of_a_signal(t: &Test) {
    t.skip_on(Flavour::Crun, "knows upper case only");
    for (spelling, code) in [
        ("", 143),
        ("15", 143),
        ("TERM", 143),
        ("SIGINT", 130),
        ("sigint", 130),
        ("hup", 129),
        ("10", 138),
        ("KILL", 137),
    ] {
        let mut b = t.bundle();
        b.probe(&["print", "up", ";", "sleep"]);
        t.create(&b).ok();
        t.start(&b.id).ok();
        let pid = t.wait_asleep(&b.id);
        let args: Vec<&str> =
            ["kill", &b.id, spelling].into_iter().filter(|a| !a.is_empty()).collect();
        t.call(&args).ok();
        assert_eq!(t.exit_code(pid), code, "signal {spelling:?}");
    }
}

/// A signal that doesn't exist is an error and nothing is sent.
fn kill_of_a_bad_signal_is_refused(t: &Test) {
    t.skip_on(Flavour::Crun, "takes NOPE for 0");
    let mut b = t.bundle();
    t.sleeper(&mut b);
    for signal in ["NOPE", "SIGNOPE", "-5", "9999", "1x"] {
        t.kill(&b.id, signal).fails();
    }
    assert_eq!(t.status(&b.id), "running");
}

/// A created container can be killed; it is then stopped and its program never ran.
fn kill_works_on_a_created_container(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["create", "/ran", ""]);
    t.create(&b).ok();
    t.kill(&b.id, "KILL").ok();
    t.wait_status(&b.id, "stopped");
    t.start(&b.id).fails();
    assert!(!b.rootfs().join("ran").exists());
    t.delete(&b.id).ok();
    t.nothing_left(&b);
}

/// SIGKILL of a container that shares the host's pid namespace ends everything in its cgroup.
fn kill_without_pid_namespace_ends_the_whole_cgroup(t: &Test) {
    t.skip_on_peers("only kill --all does it before runc 1.2");
    let mut b = t.bundle();
    b.no_namespace("pid").probe(&["orphan", ";", "orphan", ";", "sleep"]);
    t.create(&b).ok();
    t.start(&b.id).ok();
    wait_until("two orphans live", || b.cgroup_file("pids", "cgroup.procs").lines().count() == 3);
    t.kill(&b.id, "KILL").ok();
    wait_until("the cgroup is empty", || b.cgroup_file("pids", "cgroup.procs").is_empty());
    t.wait_status(&b.id, "stopped");
    t.delete(&b.id).ok();
}

/// `kill --all` and `-a` reach every process; on a stopped container they are no error.
fn kill_all_is_accepted(t: &Test) {
    let mut b = t.bundle();
    b.no_namespace("pid").probe(&["orphan", ";", "sleep"]);
    t.create(&b).ok();
    t.start(&b.id).ok();
    wait_until("the orphan lives", || b.cgroup_file("pids", "cgroup.procs").lines().count() == 2);
    t.call(&["kill", "--all", &b.id, "KILL"]).ok();
    t.wait_status(&b.id, "stopped");
    wait_until("the cgroup is empty", || b.cgroup_file("pids", "cgroup.procs").is_empty());
    if t.flavour != Flavour::Crun {
        t.call(&["kill", "-a", &b.id, "KILL"]).ok();
    }
}

/// `pause` freezes, `resume` thaws; `state` says paused between.
fn pause_and_resume(t: &Test) {
    let mut b = t.bundle();
    t.sleeper(&mut b);
    t.call(&["pause", &b.id]).ok();
    assert_eq!(t.status(&b.id), "paused");
    assert!(b.is_frozen());
    t.call(&["resume", &b.id]).ok();
    assert_eq!(t.status(&b.id), "running");
    assert!(!b.is_frozen());
}

/// `pause` and `resume` in the wrong status are errors with the peers' words.
fn pause_and_resume_out_of_order(t: &Test) {
    t.skip_on(Flavour::Crun, "other words, and resume of a running container succeeds");
    let mut b = t.bundle();
    t.sleeper(&mut b);
    t.call(&["resume", &b.id]).fails().says("not paused");
    t.call(&["pause", &b.id]).ok();
    t.call(&["pause", &b.id]).fails().says("not running|paused");
    t.delete(&b.id).fails();
    t.call(&["resume", &b.id]).ok();
    t.kill(&b.id, "KILL").ok();
    t.wait_status(&b.id, "stopped");
    t.call(&["pause", &b.id]).fails().says("not running");
    t.call(&["resume", &b.id]).fails().says("not paused|not running");
}

/// SIGKILL reaches a frozen container.
fn a_paused_container_can_be_killed(t: &Test) {
    t.skip_on(Flavour::Crun, "the signal stays pending until resume");
    let mut b = t.bundle();
    t.sleeper(&mut b);
    t.call(&["pause", &b.id]).ok();
    t.kill(&b.id, "KILL").ok();
    t.wait_status(&b.id, "stopped");
    t.delete(&b.id).ok();
    t.nothing_left(&b);
}

/// A created container can be paused too.
fn a_created_container_can_be_paused(t: &Test) {
    t.skip_on(Flavour::Crun, "goes on saying created");
    let mut b = t.bundle();
    b.probe(&["exit", "0"]);
    t.create(&b).ok();
    t.call(&["pause", &b.id]).ok();
    assert_eq!(t.status(&b.id), "paused");
    t.call(&["resume", &b.id]).ok();
    assert_eq!(t.status(&b.id), "created");
}
