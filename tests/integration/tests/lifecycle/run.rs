//! `run`: in the foreground, detached, and what it returns.

use corten_integration::suite::Case;
use corten_integration::{Flavour, Test, tests};
use nix::sys::signal::Signal;

pub(crate) const TESTS: &[Case] = tests![
    run_prints_and_exits,
    run_returns_the_exit_code,
    run_deletes_the_container,
    run_keep_leaves_it_stopped,
    run_detached_returns_after_start,
    run_passes_stdin,
    run_forwards_signals,
    run_of_a_killed_program_is_137,
];

/// A foreground run passes the program's output on and returns 0.
fn run_prints_and_exits(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["print", "hello", ";", "eprint", "there"]);
    let out = t.run(&b).ok();
    assert_eq!(out.fact(0), "hello");
    assert!(out.stderr.contains("there"));
}

/// A foreground run returns the program's exit code.
fn run_returns_the_exit_code(t: &Test) {
    for code in [1, 42, 125, 255] {
        let mut b = t.bundle();
        b.probe(&["exit", &code.to_string()]);
        t.run(&b).exits(code);
    }
}

/// After a foreground run the container is gone without a delete.
fn run_deletes_the_container(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["exit", "0"]);
    t.run(&b).ok();
    t.nothing_left(&b);
    t.state(&b.id).fails().says("does not exist");
}

/// `run --keep` leaves a stopped container for `delete`.
fn run_keep_leaves_it_stopped(t: &Test) {
    t.skip_on(Flavour::Crun, "--keep is newer than 1.8 in its effect");
    let mut b = t.bundle();
    b.probe(&["exit", "3"]);
    b.write();
    t.call(&["run", "--keep", "--bundle", b.path(), &b.id]).exits(3);
    assert_eq!(t.status(&b.id), "stopped");
    t.delete(&b.id).ok();
    t.nothing_left(&b);
}

/// `run --detach` returns 0 while the program runs on.
fn run_detached_returns_after_start(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["sleep"]);
    b.write();
    t.call(&["run", "--detach", "--bundle", b.path(), &b.id]).ok();
    assert_eq!(t.status(&b.id), "running");
    let pid = t.wait_asleep(&b.id);
    t.kill(&b.id, "TERM").ok();
    assert_eq!(t.exit_code(pid), 143);
    t.delete(&b.id).ok();
}

/// Standard input of a foreground run is the program's.
fn run_passes_stdin(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["stdin"]);
    b.write();
    let line = format!("echo fed | $RUNTIME --root $ROOT run --bundle {} {}", b.path(), b.id);
    assert_eq!(t.shell(&line).ok().fact(0)["stdin"], "fed\n");
}

/// A foreground run forwards the signals it gets, and returns what the program then returns.
fn run_forwards_signals(t: &Test) {
    for (signal, code) in [(Signal::SIGTERM, 143), (Signal::SIGINT, 130), (Signal::SIGUSR1, 138)] {
        let mut b = t.bundle();
        b.probe(&["print", "up", ";", "sleep"]);
        b.write();
        let mut run = t.spawn(&["run", "--bundle", b.path(), &b.id]);
        run.wait_for("up");
        t.wait_asleep(&b.id);
        run.signal(signal);
        run.wait().exits(code);
        t.nothing_left(&b);
    }
}

/// A program killed by SIGKILL makes the run return 137.
fn run_of_a_killed_program_is_137(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["print", "up", ";", "sleep"]);
    b.write();
    let mut run = t.spawn(&["run", "--bundle", b.path(), &b.id]);
    run.wait_for("up");
    t.kill(&b.id, "KILL").ok();
    run.wait().exits(137);
}
