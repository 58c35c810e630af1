//! Hooks that fail, hang, do not read, or are not there.

use std::fs;
use std::time::{Duration, Instant};

use corten_integration::suite::Case;
use corten_integration::{Flavour, Test, tests};
use serde_json::json;

use crate::{KINDS, bundle, hook, log, names};

pub(crate) const TESTS: &[Case] = tests![
    failure_in_create_stops_everything,
    failure_in_start_container_stops_the_container,
    failure_in_poststart_stops_the_container,
    failure_in_poststop_is_a_warning,
    failure_tells_what_the_hook_said,
    failure_by_a_signal_says_so,
    timeout_ends_a_sleeping_hook,
    timeout_holds_although_a_child_keeps_the_pipe,
    a_child_that_keeps_the_pipe_delays_nothing,
    a_hook_that_does_not_read_is_fine,
    absent_program_is_an_error,
    relative_path_is_refused,
    timeout_must_be_positive,
];

/// A hook of create that fails: an error, later hooks don't run, nothing is left; the poststop
/// hooks do run.
fn failure_in_create_stops_everything(t: &Test) {
    for (n, kind) in KINDS[..3].iter().enumerate() {
        let mut b = bundle(t);
        let _ = fs::remove_file(log(t));
        for other in KINDS {
            let extra: &[&str] = if other == *kind { &["exit", "3"] } else { &[] };
            b.push(&format!("hooks.{other}"), hook(t, other, other, extra));
            b.push(&format!("hooks.{other}"), hook(t, other, &format!("{other}-second"), &[]));
        }
        t.create_fails(&b);
        let ran = names(t);
        assert!(ran.contains(&(*kind).to_owned()), "{kind}: {ran:?}");
        assert!(!ran.contains(&format!("{kind}-second")), "{kind}: {ran:?}");
        for later in &KINDS[n + 1..5] {
            assert!(!ran.contains(&(*later).to_owned()), "{kind}: {ran:?}");
        }
        if t.flavour == Flavour::Corten {
            assert!(ran.contains(&"poststop".to_owned()), "{kind}: {ran:?}");
        }
        t.state(&b.id).fails().says("does not exist");
    }
}

/// The program must not run; `start` fails; the container is stopped or gone.
fn failure_in_start_container_stops_the_container(t: &Test) {
    let mut b = bundle(t);
    b.push("hooks.startContainer", hook(t, "startContainer", "bad", &["exit", "3"]));
    b.probe(&["create", "/hooks/main", ""]);
    t.create(&b).ok();
    let start = t.start(&b.id);
    if t.flavour == Flavour::Corten {
        start.fails();
    }
    t.wait_status(&b.id, "stopped");
    assert!(!log(t).with_file_name("main").exists(), "the program ran");
    t.delete(&b.id).ok();
}

/// 1.3: a failing poststart hook makes `start` fail and stops the container.
fn failure_in_poststart_stops_the_container(t: &Test) {
    t.skip_on(Flavour::Runc, "1.1 runs poststart in create");
    let mut b = bundle(t);
    b.push("hooks.poststart", hook(t, "poststart", "bad", &["exit", "3"]));
    b.probe(&["sleep"]);
    t.create(&b).ok();
    t.start(&b.id).fails();
    if t.state(&b.id).code == 0 {
        t.wait_status(&b.id, "stopped");
        t.force(&b.id).ok();
    }
    t.nothing_left(&b);
}

/// "the runtime MUST log a warning, but the remaining hooks and lifecycle continue".
fn failure_in_poststop_is_a_warning(t: &Test) {
    t.skip_on(Flavour::Runc, "fails and skips the others");
    let mut b = bundle(t);
    b.push("hooks.poststop", hook(t, "poststop", "bad", &["exit", "3"]));
    b.push("hooks.poststop", hook(t, "poststop", "good", &[]));
    b.probe(&["exit", "0"]);
    t.create(&b).ok();
    t.start(&b.id).ok();
    t.wait_status(&b.id, "stopped");
    let out = t.delete(&b.id).ok();
    if t.flavour == Flavour::Corten {
        assert!(
            out.stderr.contains("poststop") || out.stderr.contains("hook"),
            "{out} should warn"
        );
    }
    assert_eq!(names(t), ["bad", "good"]);
    t.nothing_left(&b);
}

/// What the hook wrote is in the error.
fn failure_tells_what_the_hook_said(t: &Test) {
    t.skip_on(Flavour::Crun, "shows the exit code only");
    let mut b = bundle(t);
    b.push("hooks.createRuntime", hook(t, "createRuntime", "bad", &["exit", "3"]));
    t.create_fails(&b)
        .says("hook bad says this on stderr")
        .says("exit status 3")
        .says("createRuntime|hook #0");
}

/// A hook killed by a signal.
fn failure_by_a_signal_says_so(t: &Test) {
    t.skip_on(Flavour::Crun, "shows the exit code only");
    let mut b = bundle(t);
    b.push("hooks.createRuntime", json!({"path": "/bin/sh", "args": ["sh", "-c", "kill -9 $$"]}));
    t.create_fails(&b).says("signal: killed|signal 9|sigkill");
}

/// timeout is in seconds, and the hook is killed.
fn timeout_ends_a_sleeping_hook(t: &Test) {
    let mut b = bundle(t);
    let mut slow = hook(t, "createRuntime", "slow", &["sleep", "1000"]);
    slow["timeout"] = json!(1);
    b.push("hooks.createRuntime", slow);
    let start = Instant::now();
    t.create_fails(&b);
    let took = start.elapsed();
    assert!((Duration::from_millis(900)..Duration::from_secs(15)).contains(&took), "{took:?}");
}

/// The hook's child has the pipe open too: the timeout holds all the same.
fn timeout_holds_although_a_child_keeps_the_pipe(t: &Test) {
    t.skip_on_peers("wait for the pipe's end");
    let mut b = bundle(t);
    let mut slow = hook(t, "createRuntime", "slow", &["hold"]);
    slow["timeout"] = json!(1);
    b.push("hooks.createRuntime", slow);
    let start = Instant::now();
    t.create_fails(&b);
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    t.end_orphans();
}

/// A hook that ends well but leaves a child (a daemon) is done.
fn a_child_that_keeps_the_pipe_delays_nothing(t: &Test) {
    t.skip_on_peers("wait for the pipe's end");
    let mut b = bundle(t);
    b.push("hooks.createRuntime", hook(t, "createRuntime", "leaves", &["leave"]));
    b.probe(&["exit", "0"]);
    let start = Instant::now();
    t.run(&b).ok();
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    t.end_orphans();
}

/// State that nobody reads is no error, however long.
fn a_hook_that_does_not_read_is_fine(t: &Test) {
    let mut b = bundle(t);
    b.set("annotations", json!({"long": "x".repeat(300_000)}));
    for kind in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
        b.push(&format!("hooks.{kind}"), json!({"path": "/bin/true"}));
    }
    b.probe(&["exit", "0"]);
    t.run(&b).ok();
}

/// A program that isn't there is an error that names it.
fn absent_program_is_an_error(t: &Test) {
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let mut b = t.bundle();
        b.push(&format!("hooks.{kind}"), json!({"path": "/absent/hook"}));
        t.create_fails(&b).says("/absent/hook");
    }
}

/// "path ... MUST be an absolute path".
fn relative_path_is_refused(t: &Test) {
    t.skip_on_peers("don't look");
    for path in ["true", "bin/true", ""] {
        let mut b = t.bundle();
        b.push("hooks.poststop", json!({"path": path}));
        t.create_fails(&b).says("hooks.poststop[0].path");
    }
}

/// "If set, timeout MUST be greater than zero."
fn timeout_must_be_positive(t: &Test) {
    t.skip_on_peers("don't look");
    for timeout in [0, -1] {
        let mut b = t.bundle();
        b.push("hooks.poststop", json!({"path": "/bin/true", "timeout": timeout}));
        t.create_fails(&b).says("hooks.poststop[0].timeout");
    }
}
