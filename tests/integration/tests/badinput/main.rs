//! Bad input: one clear line, the right exit code, nothing left behind, never a panic.

mod command;
mod config;
mod fields;

use std::process::ExitCode;

use corten_integration::{Bundle, Flavour, Output, Test, suite};

fn main() -> ExitCode {
    let groups = [config::TESTS, fields::TESTS, command::TESTS];
    suite(&groups.concat())
}

/// What a refusal must look like: one line of runc's text form.
#[track_caller]
pub(crate) fn clear(out: &Output) {
    let lines: Vec<&str> = out.stderr.lines().filter(|l| l.contains("level=error")).collect();
    assert_eq!(lines.len(), 1, "{out} should say one line");
    assert!(out.stderr.len() < 20_000, "{} bytes of words", out.stderr.len());
    assert!(!out.stderr.contains("serde") && !out.stderr.contains("RUST_BACKTRACE"), "{out}");
}

#[track_caller]
pub(crate) fn refused(t: &Test, b: &Bundle) -> Output {
    let out = t.call(&["create", "--bundle", b.path(), &b.id]).fails_with(1);
    if t.flavour == Flavour::Corten {
        clear(&out);
    }
    t.nothing_left(b);
    out
}
