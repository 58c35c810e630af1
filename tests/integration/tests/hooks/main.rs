//! The six kinds of hooks: when, where, with what, and what happens when one fails or hangs.

mod failures;
mod order;
mod process;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use corten_integration::bundle::probe;
use corten_integration::{Bundle, Test, suite};
use serde_json::{Value, json};

fn main() -> ExitCode {
    let groups = [order::TESTS, process::TESTS, failures::TESTS];
    suite(&groups.concat())
}

pub(crate) const KINDS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// Where the hooks write: a directory that is /hooks inside.
pub(crate) fn log(t: &Test) -> PathBuf {
    let dir = t.dir.join("hooks");
    fs::create_dir_all(&dir).unwrap();
    dir.join("log")
}

pub(crate) fn facts(t: &Test) -> Vec<Value> {
    let text = fs::read_to_string(log(t)).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

pub(crate) fn names(t: &Test) -> Vec<String> {
    facts(t).iter().map(|f| f["hook"].as_str().unwrap().to_owned()).collect()
}

/// A hook of this kind that writes what it gets; `extra` is what it does then.
pub(crate) fn hook(t: &Test, kind: &str, name: &str, extra: &[&str]) -> Value {
    let file = log(t);
    let (program, file) = match kind {
        "startContainer" => ("/probe", "/hooks/log"),
        _ => (probe().to_str().unwrap(), file.to_str().unwrap()),
    };
    let args: Vec<&str> = ["probe", "hook", name, file].iter().chain(extra).copied().collect();
    json!({"path": program, "args": args})
}

pub(crate) fn bundle(t: &Test) -> Bundle {
    let mut b = t.bundle();
    let dir = log(t).parent().unwrap().to_owned();
    b.mount("/hooks", "bind", dir.to_str().unwrap(), &["bind"]);
    b
}

/// A bundle with one logging hook of each kind, whose program writes "main".
pub(crate) fn with_all(t: &Test) -> Bundle {
    let mut b = bundle(t);
    for kind in KINDS {
        b.push(&format!("hooks.{kind}"), hook(t, kind, kind, &[]));
    }
    b.probe(&["append", "/hooks/log", "{\"hook\":\"main\"}\n"]);
    b
}

pub(crate) fn fact_of(t: &Test, kind: &str) -> Value {
    facts(t).into_iter().find(|f| f["hook"] == kind).unwrap_or_else(|| panic!("no {kind} ran"))
}
