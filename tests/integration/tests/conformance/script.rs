//! `scripts/conformance` itself, on programs that print TAP as runtime-tools' do.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use corten_integration::driver::{Output, workspace};
use corten_integration::suite::Case;
use corten_integration::{Test, tests};

pub const CASES: &[Case] = tests![
    script_tells_what_to_do_without_programs,
    script_counts_assertions,
    script_sees_every_way_to_fail,
];

fn conformance(t: &Test, programs: &[(&str, &str)]) -> Output {
    let dir = t.dir.join("validation-programs");
    fs::create_dir_all(&dir).unwrap();
    for (name, body) in programs {
        let path = dir.join(name);
        fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut command = Command::new(workspace().join("scripts/conformance"));
    command.arg(&dir).env("RUNTIME", &t.runtime).env("CONFORMANCE_TIMEOUT", "1");
    t.execute(command)
}

/// The words of the line that starts with `name`.
fn row<'a>(out: &'a Output, name: &str) -> Vec<&'a str> {
    let line = out.stdout.lines().find(|line| line.split_whitespace().next() == Some(name));
    line.unwrap_or_else(|| panic!("{out}: no {name}")).split_whitespace().skip(1).collect()
}

/// Without a directory, or with an empty one, the way to get the programs is shown.
fn script_tells_what_to_do_without_programs(t: &Test) {
    let out = t.execute(Command::new(workspace().join("scripts/conformance"))).fails_with(2);
    assert!(out.stderr.contains("VALIDATION=DIR") && out.stderr.contains("runtime-tools"), "{out}");
    conformance(t, &[]).fails_with(2);
}

/// The programs get the runtime; a skip is no failure; the sums are the last line.
fn script_counts_assertions(t: &Test) {
    let out = conformance(t, &[
        ("good.t", "echo 1..3; echo ok 1 - a; echo ok 2 - b; [ -x \"$RUNTIME\" ] && echo 'ok 3 # SKIP c'"),
        ("none.t", "echo '1..0 # SKIP not on this host'"),
        ("runtimetest", "echo not a program of its own; exit 1"),
    ])
    .ok();
    assert_eq!(row(&out, "good")[..3], ["2", "0", "1"]);
    assert_eq!(row(&out, "none")[..3], ["0", "0", "1"]);
    let last = out.stdout.lines().last().unwrap();
    assert!(
        last.starts_with("2 programs, 0 failed; assertions: 2 passed, 0 failed, 2 skipped"),
        "{last}"
    );
}

/// A `not ok`, a plan that isn't kept, a bad exit code, no output and a program that hangs.
fn script_sees_every_way_to_fail(t: &Test) {
    let out = conformance(
        t,
        &[
            ("bad.t", "echo 1..2; echo ok 1; echo not ok 2 - why"),
            ("short.t", "echo 1..2; echo ok 1"),
            ("crash.t", "echo 1..1; echo ok 1; exit 3"),
            ("mute.t", ""),
            ("hang.t", "echo ok 1; exec sleep 60"),
            ("good.t", "echo ok 1; echo 1..1"),
        ],
    );
    assert_eq!(out.code, 1, "{out}");
    for name in ["bad", "short", "crash", "mute", "hang"] {
        assert_eq!(row(&out, name)[1], "1", "{name}: {out}");
    }
    assert_eq!(row(&out, "good")[..3], ["1", "0", "0"]);
    assert!(out.stdout.lines().last().unwrap().starts_with("6 programs, 5 failed"), "{out}");
}
