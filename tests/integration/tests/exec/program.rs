//! The program: its exit code, signals, what follows the id, and the detached one.

use std::fs;

use corten_integration::driver::wait_until;
use corten_integration::suite::Case;
use corten_integration::{Flavour, Test, tests};
use nix::sys::signal::Signal;

use crate::container;

pub(crate) const TESTS: &[Case] = tests![
    exec_prints_and_returns_the_exit_code,
    exec_of_a_killed_program_is_128_and_the_signal,
    exec_forwards_signals,
    exec_arguments_after_the_id_are_the_programs,
    exec_detached_with_pid_file,
    exec_detached_is_left_to_the_caller,
    exec_of_an_absent_program_is_255,
    exec_of_something_not_executable_is_255,
    exec_many_at_once,
    exec_ends_with_the_container,
];

/// Output and exit code of the program are those of the command.
fn exec_prints_and_returns_the_exit_code(t: &Test) {
    let (b, _) = container(t);
    let out = t.exec(&b.id, &[], &["print", "a", "b", ";", "eprint", "c", ";", "exit", "42"]);
    let out = out.exits(42);
    assert_eq!(out.fact(0), "a b");
    assert_eq!(out.stderr.trim(), "c");
    t.exec(&b.id, &[], &["exit", "0"]).ok();
}

/// A program that dies of a signal makes exec return 128 + n.
fn exec_of_a_killed_program_is_128_and_the_signal(t: &Test) {
    let (b, _) = container(t);
    t.exec(&b.id, &[], &["die-by", "9"]).exits(137);
    t.exec(&b.id, &[], &["die-by", "15"]).exits(143);
}

/// The foreground command forwards signals to the program.
fn exec_forwards_signals(t: &Test) {
    let (b, _) = container(t);
    let mut exec = t.spawn(&["exec", &b.id, "/probe", "next-signal", "10", "15", ";", "exit", "9"]);
    exec.wait_for("ready");
    exec.signal(Signal::SIGUSR1);
    let out = exec.wait().exits(9);
    assert_eq!(out.fact(1)["signal"], 10);
}

/// P4: what follows the id belongs to the program, flags too.
fn exec_arguments_after_the_id_are_the_programs(t: &Test) {
    let (b, _) = container(t);
    let out = t.call(&["exec", &b.id, "/probe", "print", "--cwd", "-t", "--", "--env"]).ok();
    assert_eq!(out.fact(0), "--cwd -t -- --env");
}

/// `--detach` returns at once and `--pid-file` names the process.
fn exec_detached_with_pid_file(t: &Test) {
    let (b, _) = container(t);
    let file = t.dir.join("pid");
    let flags = ["--detach", "--pid-file", file.to_str().unwrap()];
    t.exec(&b.id, &flags, &["sleep"]).ok();
    let text = fs::read_to_string(&file).unwrap();
    let pid: i32 = text.parse().unwrap_or_else(|_| panic!("{text:?}"));
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    assert_eq!(words, b"/probe\0sleep\0");
    let absent = t.dir.join("pid2");
    let flags = ["--detach", "--pid-file", absent.to_str().unwrap()];
    t.call(&[&["exec"], &flags[..], &[&b.id, "/absent"]].concat()).fails_with(255);
    assert!(!absent.exists(), "no pid file after a failure: conmon takes it for success");
}

/// A detached process becomes a child of the caller's subreaper, which gets its exit code.
fn exec_detached_is_left_to_the_caller(t: &Test) {
    let (b, _) = container(t);
    let file = t.dir.join("pid");
    let flags = ["--detach", "--pid-file", file.to_str().unwrap()];
    t.exec(&b.id, &flags, &["exit", "11"]).ok();
    let pid = fs::read_to_string(&file).unwrap().parse().unwrap();
    assert_eq!(t.exit_code(pid), 11);
}

/// P12: the runtime's own failure is 255, with the words that managers look for.
fn exec_of_an_absent_program_is_255(t: &Test) {
    let (b, _) = container(t);
    t.skip_on(Flavour::Crun, "returns 1");
    t.call(&["exec", &b.id, "absent"]).fails_with(255).says("executable file not found in $PATH");
    t.call(&["exec", &b.id, "/absent"]).fails_with(255).says("no such file or directory");
}

/// A program without execute permission, or a directory, is 255 too.
fn exec_of_something_not_executable_is_255(t: &Test) {
    let (b, _) = container(t);
    b.file("/tmp/plain", "not a program");
    t.skip_on(Flavour::Crun, "returns 1");
    t.call(&["exec", &b.id, "/tmp/plain"]).fails_with(255).says("permission denied");
    t.call(&["exec", &b.id, "/tmp"]).fails_with(255).says("permission denied|is a directory");
}

/// Ten at the same time don't hinder each other.
fn exec_many_at_once(t: &Test) {
    let (b, _) = container(t);
    let all: Vec<_> =
        (0..10).map(|n| t.spawn(&["exec", &b.id, "/probe", "exit", &n.to_string()])).collect();
    for (n, running) in (0..).zip(all) {
        running.wait().exits(n);
    }
}

/// When the container is killed, so are the processes that entered it, and their exec returns.
fn exec_ends_with_the_container(t: &Test) {
    let (b, _) = container(t);
    let mut exec = t.spawn(&["exec", &b.id, "/probe", "print", "in", ";", "sleep"]);
    exec.wait_for("in");
    t.kill(&b.id, "KILL").ok();
    exec.wait().exits(137);
    wait_until("the container is stopped", || t.status(&b.id) == "stopped");
}
