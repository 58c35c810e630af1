//! `--log`, its formats and levels, and standard error.

use std::fs;

use corten_integration::suite::Case;
use corten_integration::{Flavour, Test, tests};
use serde_json::Value;

pub(crate) const TESTS: &[Case] = tests![
    log_file_gets_the_error_in_text,
    log_file_gets_the_error_in_json,
    log_is_appended_to,
    log_error_is_on_stderr_too,
    log_of_a_failure_is_one_line,
    log_of_success_is_empty,
    log_format_unknown_is_refused,
    log_level_and_debug,
    log_warnings_are_lines_too,
];

/// Fails with a log file; returns the file's text and standard error.
fn logged(t: &Test, flags: &[&str]) -> (String, String) {
    let mut b = t.bundle();
    b.args(&["/absent"]).write();
    let log = t.dir.join(format!("log{}", t.next()));
    let mut args = vec!["--log", log.to_str().unwrap()];
    args.extend(flags);
    args.extend(["create", "--bundle", b.path(), &b.id]);
    let out = t.call(&args).fails();
    t.nothing_left(&b);
    (fs::read_to_string(&log).unwrap(), out.stderr)
}

/// runc's text form: time="..." level=error msg="...".
fn log_file_gets_the_error_in_text(t: &Test) {
    t.skip_on(Flavour::Crun, "its own form");
    let (log, _) = logged(t, &[]);
    let line = log.lines().last().unwrap();
    assert!(line.starts_with("time=\"") && line.contains("level=error msg=\""), "{line}");
    assert!(line.contains("no such file or directory"), "{line}");
}

/// containerd decodes level, msg and an RFC 3339 time, and takes the last error.
fn log_file_gets_the_error_in_json(t: &Test) {
    let (log, _) = logged(t, &["--log-format", "json"]);
    let line: Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
    assert_eq!(line["level"], "error");
    assert!(
        line["msg"].as_str().unwrap().to_lowercase().contains("no such file or directory"),
        "{line}"
    );
    let time = line["time"].as_str().unwrap();
    let shape: String =
        time.chars().take(19).map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(shape, "0000-00-00T00:00:00", "{time}");
    assert!(time.ends_with('Z') || time[19..].contains(['+', '-']), "{time}");
}

/// Every command adds its lines.
fn log_is_appended_to(t: &Test) {
    let log = t.dir.join("log");
    let flags = ["--log", log.to_str().unwrap(), "--log-format", "json"];
    for _ in 0..3 {
        t.call(&[&flags[..], &["state", "absent"]].concat()).fails();
    }
    let text = fs::read_to_string(&log).unwrap();
    let errors = text.lines().filter(|l| l.contains("\"error\"")).count();
    assert_eq!(errors, 3, "{text}");
}

/// conmon sends standard error on, so the error is there as well.
fn log_error_is_on_stderr_too(t: &Test) {
    t.skip_on(Flavour::Crun, "only in the file");
    let (_, stderr) = logged(t, &["--log-format", "json"]);
    assert!(stderr.contains("no such file or directory"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

/// podman parses the whole file as one JSON value.
fn log_of_a_failure_is_one_line(t: &Test) {
    let (log, _) = logged(t, &["--log-format", "json"]);
    assert_eq!(log.lines().count(), 1, "{log}");
}

/// Nothing to say.
fn log_of_success_is_empty(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["exit", "0"]).write();
    let log = t.dir.join("log");
    let out = t.call(&["--log", log.to_str().unwrap(), "run", "--bundle", b.path(), &b.id]).ok();
    assert_eq!(fs::read_to_string(&log).unwrap_or_default(), "");
    assert_eq!(out.stderr, "");
}

/// "invalid log-format: X".
fn log_format_unknown_is_refused(t: &Test) {
    t.call(&["--log-format", "xml", "list"]).fails().says("log-format");
    t.skip_on_peers("have no log levels");
    t.call(&["--log-level", "loud", "list"]).fails().says("log-level");
}

/// --debug says more, in the log only.
fn log_level_and_debug(t: &Test) {
    t.skip_on_peers("more or less");
    let mut b = t.bundle();
    b.probe(&["exit", "0"]).write();
    for flag in [&["--debug"][..], &["--log-level", "debug"]] {
        let log = t.dir.join("log");
        let mut args = vec!["--log", log.to_str().unwrap(), "--log-format", "json"];
        args.extend(flag);
        args.extend(["run", "--bundle", b.path(), &b.id]);
        let out = t.call(&args).ok();
        assert_eq!(out.stderr, "");
        for line in fs::read_to_string(&log).unwrap().lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            assert!(line["level"].is_string() && line["msg"].is_string(), "{line}");
        }
        fs::remove_file(&log).unwrap();
    }
}

/// A warning is a line of its own with level warning.
fn log_warnings_are_lines_too(t: &Test) {
    t.skip_on(Flavour::Crun, "refuses the capability");
    let mut b = t.bundle();
    b.capabilities(&["CAP_OF_TOMORROW"]).probe(&["exit", "0"]).write();
    let log = t.dir.join("log");
    t.call(&[
        "--log",
        log.to_str().unwrap(),
        "--log-format",
        "json",
        "run",
        "--bundle",
        b.path(),
        &b.id,
    ])
    .ok();
    let text = fs::read_to_string(&log).unwrap();
    let lines: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert!(
        lines
            .iter()
            .any(|l| l["level"] == "warning"
                && l["msg"].as_str().unwrap().contains("CAP_OF_TOMORROW")),
        "{text}"
    );
}
