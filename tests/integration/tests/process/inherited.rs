//! What it has from its caller: streams, descriptors, signals, its session.

use std::fs;

use corten_integration::suite::Case;
use corten_integration::{Flavour, Test, tests};
use serde_json::{Value, json};

use crate::program::env_of;

pub(crate) const TESTS: &[Case] = tests![
    streams_are_the_callers,
    streams_can_be_opened_again_by_the_user,
    descriptors_are_not_leaked,
    descriptors_are_preserved_on_demand,
    listen_fds_are_passed_on,
    listen_fds_for_another_process_are_not,
    first_process_leads_a_session,
    signals_are_not_blocked_or_ignored,
    parent_death_signal_is_not_set,
    the_program_is_dumpable,
];

/// Standard streams of a container are the very files that `create` was given.
fn streams_are_the_callers(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["report", "fds"]).write();
    let [input, output] = ["input", "output"].map(|name| t.dir.join(name));
    fs::write(&input, "").unwrap();
    let (i, o) = (input.display(), output.display());
    t.shell(&format!("$RUNTIME --root $ROOT create -b {} {} <{i} >{o} 2>{o}", b.path(), b.id)).ok();
    t.start(&b.id).ok();
    t.wait_status(&b.id, "stopped");
    let seen: Value = serde_json::from_str(&fs::read_to_string(output).unwrap()).unwrap();
    assert!(seen["fds"]["0"].as_str().unwrap().ends_with("/input"), "{seen}");
    assert!(seen["fds"]["2"].as_str().unwrap().ends_with("/output"), "{seen}");
}

/// conmon's pipes: /proc/self/fd/1 can be opened again by an ordinary user.
fn streams_can_be_opened_again_by_the_user(t: &Test) {
    let mut b = t.bundle();
    b.set("process.user", json!({"uid": 1000, "gid": 1000}));
    b.probe(&["write", "/proc/self/fd/1", "\"again\"\n", ";", "write", "/proc/self/fd/2", "x\n"]);
    b.write();
    let line =
        format!("($RUNTIME --root $ROOT run -b {} {} 2>&1 | cat) </dev/null", b.path(), b.id);
    let out = t.shell(&line).ok();
    assert!(out.stdout.contains("\"again\""), "{out}");
    assert!(!out.stdout.contains("EACCES"), "{out}");
}

/// The program has its three streams and nothing else, whatever the caller had open.
fn descriptors_are_not_leaked(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["report", "fds"]).write();
    let line = format!(
        "exec 3</ 4</etc/passwd 9</proc 8</sys; $RUNTIME --root $ROOT run -b {} {}",
        b.path(),
        b.id
    );
    let seen = t.shell(&line).ok().fact(0);
    let open: Vec<&String> = seen["fds"].as_object().unwrap().keys().collect();
    assert_eq!(open, ["0", "1", "2"], "{seen}");
}

/// `--preserve-fds N` keeps 3 .. 3+N, and no more.
fn descriptors_are_preserved_on_demand(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["report", "fds"]).write();
    let line = format!(
        "exec 3</etc/passwd 4</etc/group 5</etc/hosts; $RUNTIME --root $ROOT run --preserve-fds 2 -b {} {}",
        b.path(),
        b.id
    );
    let seen = t.shell(&line).ok().fact(0);
    let open: Vec<&String> = seen["fds"].as_object().unwrap().keys().collect();
    assert_eq!(open, ["0", "1", "2", "3", "4"], "{seen}");
    assert!(seen["fds"]["4"].as_str().unwrap().ends_with("group"), "{seen}");
}

/// Socket activation: LISTEN_FDS are kept and LISTEN_PID is the program's pid.
fn listen_fds_are_passed_on(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["report", "fds", "env"]).write();
    let line = format!(
        "exec 3</etc/passwd 4</etc/group; export LISTEN_FDS=2 LISTEN_FDNAMES=a:b; exec sh -c \
         'export LISTEN_PID=$$; exec $RUNTIME --root $ROOT run -b {} {}'",
        b.path(),
        b.id
    );
    let seen = t.shell(&line).ok().fact(0);
    assert_eq!(seen["fds"].as_object().unwrap().len(), 5, "{seen}");
    let env = env_of(&seen);
    assert!(env.contains(&"LISTEN_FDS=2".to_owned()), "{env:?}");
    assert!(env.contains(&"LISTEN_PID=1".to_owned()), "{env:?}");
    if t.flavour == Flavour::Corten {
        assert!(env.contains(&"LISTEN_FDNAMES=a:b".to_owned()), "{env:?}");
    }
}

/// LISTEN_FDS that are meant for another process are not ours to pass on.
fn listen_fds_for_another_process_are_not(t: &Test) {
    t.skip_on_peers("1.1 and 1.8 don't look at LISTEN_PID");
    let mut b = t.bundle();
    b.probe(&["report", "fds", "env"]).write();
    let line = format!(
        "exec 3</etc/passwd 4</etc/group; LISTEN_FDS=2 LISTEN_PID=1 $RUNTIME --root $ROOT run -b {} {}",
        b.path(),
        b.id
    );
    let seen = t.shell(&line).ok().fact(0);
    assert_eq!(seen["fds"].as_object().unwrap().len(), 3, "{seen}");
    assert!(!env_of(&seen).iter().any(|e| e.starts_with("LISTEN_")), "{seen}");
}

/// The first process is pid 1 of its namespace and leads a session.
fn first_process_leads_a_session(t: &Test) {
    let seen = t.report(&t.bundle());
    assert_eq!(seen["pid"], 1);
    assert_eq!(seen["sid"], 1);
    assert_eq!(seen["tty"]["controlling"], false);
}

/// The program starts with no signal blocked or ignored, whatever the caller did.
fn signals_are_not_blocked_or_ignored(t: &Test) {
    let b = t.bundle();
    b.write();
    let line =
        format!("trap '' INT QUIT PIPE USR1; $RUNTIME --root $ROOT run -b {} {}", b.path(), b.id);
    let seen = t.shell(&line).ok().fact(0);
    assert_eq!(seen["status"]["SigBlk"], "0000000000000000", "{}", seen["status"]);
    t.skip_on_peers("ignored signals stay ignored");
    // Rust's runtime ignores SIGPIPE in the probe itself.
    let ignored = u64::from_str_radix(seen["status"]["SigIgn"].as_str().unwrap(), 16).unwrap();
    assert_eq!(ignored & !(1 << 12), 0, "{}", seen["status"]);
}

/// The program lives on when the runtime ends: no parent death signal is left.
fn parent_death_signal_is_not_set(t: &Test) {
    let seen = t.report(&t.bundle());
    assert_eq!(seen["extra"]["pdeathsig"], Value::Null);
    assert_eq!(seen["extra"]["subreaper"], false);
}

/// After execve the program is an ordinary, dumpable process.
fn the_program_is_dumpable(t: &Test) {
    assert_eq!(t.report(&t.bundle())["dumpable"], 1);
}
