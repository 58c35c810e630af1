//! The command: ids, bundles, and how it says what is wrong.

use std::fs;

use corten_integration::suite::Case;
use corten_integration::{Flavour, Test, tests};
use serde_json::Value;

pub(crate) const TESTS: &[Case] = tests![
    ids_that_are_refused,
    ids_that_are_accepted,
    id_of_great_length,
    bundle_absent_or_a_file,
    every_error_is_one_line,
    exit_codes,
];

/// G3: an id is one plain name; nothing outside of --root is touched.
fn ids_that_are_refused(t: &Test) {
    let b = t.bundle();
    b.write();
    let before = names(t);
    for id in [
        "", ".", "..", "a/b", "../x", "/abs", "a b", "a\nb", "ä", "$(x)", "a;b", "a\\b", "a*",
        "a:b", "a@b", "a,b",
    ] {
        if t.flavour == Flavour::Crun || (t.flavour == Flavour::Runc && id == "a,b") {
            continue; // Both take some of them.
        }
        t.call(&["create", "--bundle", b.path(), "--", id]).fails();
        for verb in ["state", "start", "kill", "delete"] {
            t.call(&[verb, "--", id]).fails();
        }
    }
    let after: Vec<_> =
        names(t).into_iter().filter(|n| !n.starts_with("out") && !n.starts_with("err")).collect();
    assert_eq!(after, before);
}

fn names(t: &Test) -> Vec<String> {
    let entries = fs::read_dir(&t.dir).unwrap().flatten();
    let mut all: Vec<String> = entries
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .filter(|n| n != "root")
        .collect();
    all.sort();
    all
}

/// P13: dots, plus, underscore, upper case, digits, dashes.
fn ids_that_are_accepted(t: &Test) {
    for suffix in [".x", "+x", "_x", "X", "-", "...", "09"] {
        let mut b = t.bundle();
        b.id = format!("{}{suffix}", b.id);
        b.probe(&["exit", "0"]);
        t.run(&b).ok();
    }
}

/// The kernel's limit of a name, not ours, and no crash.
fn id_of_great_length(t: &Test) {
    for length in [200, 255, 256, 1024, 5000] {
        let mut b = t.bundle();
        b.id = format!("{}{}", b.id, "x".repeat(length - b.id.len()));
        b.probe(&["exit", "0"]);
        let out = t.run(&b);
        assert!(out.code < 128, "{out}");
        if length <= 200 {
            out.ok();
        }
        t.nothing_left(&b);
    }
}

/// A bundle that isn't one.
fn bundle_absent_or_a_file(t: &Test) {
    let b = t.bundle();
    b.write();
    let config = b.dir.join("config.json");
    for path in ["/absent/bundle", config.to_str().unwrap(), ""] {
        t.call(&["create", "--bundle", path, &b.id]).fails_with(1);
        t.nothing_left(&b);
    }
}

/// Words with newlines stay on one line, so that the log can be read by lines.
fn every_error_is_one_line(t: &Test) {
    t.skip_on(Flavour::Crun, "plain words");
    let mut b = t.bundle();
    b.args(&["/absent\nlevel=error msg=\"forged\""]).write();
    let out = t.call(&["create", "--bundle", b.path(), &b.id]).fails();
    assert_eq!(out.stderr.trim_end().lines().count(), 1, "{out}");
    let log = t.dir.join("log");
    let flags = ["--log", log.to_str().unwrap(), "--log-format", "json"];
    t.call(&[&flags[..], &["create", "--bundle", b.path(), &b.id]].concat()).fails();
    let text = fs::read_to_string(&log).unwrap();
    let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(last["level"], "error");
    t.nothing_left(&b);
}

/// 1 for what fails, 255 for exec.
fn exit_codes(t: &Test) {
    let b = t.bundle();
    b.write_raw(b"{");
    t.call(&["create", "--bundle", b.path(), &b.id]).fails_with(1);
    t.call(&["run", "--bundle", b.path(), &b.id]).fails_with(1);
    for verb in ["start", "state", "kill", "delete", "pause", "resume", "ps"] {
        if t.flavour != Flavour::Crun {
            t.call(&[verb, &b.id]).fails_with(1);
        }
    }
    t.skip_on_peers("1");
    t.call(&["exec", &b.id, "true"]).fails_with(255);
}
