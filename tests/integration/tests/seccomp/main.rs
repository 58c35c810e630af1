//! `linux.seccomp` by what happens when system calls are made.

mod actions;
mod loading;
mod notify;
mod rules;

use std::process::ExitCode;

use corten_integration::{Bundle, Test, suite};
use serde_json::{Value, json};

fn main() -> ExitCode {
    let groups = [actions::TESTS, rules::TESTS, loading::TESTS, notify::TESTS];
    suite(&groups.concat())
}

pub(crate) const LSEEK: &str = "8";
pub(crate) const MKDIR: &str = "83";
pub(crate) const SETHOSTNAME: &str = "170";

pub(crate) fn rule(names: &[&str], action: &str) -> Value {
    json!({"names": names, "action": action})
}

pub(crate) fn filtered(t: &Test, default: &str, rules: &[Value]) -> Bundle {
    let mut b = t.bundle();
    b.set(
        "linux.seccomp",
        json!({"defaultAction": default, "architectures": ["SCMP_ARCH_X86_64"], "syscalls": rules}),
    );
    b
}

/// lseek of an absent descriptor is EBADF unless the filter answers first.
pub(crate) fn lseek(t: &Test, rules: &[Value], argument: u64) -> String {
    let mut b = filtered(t, "SCMP_ACT_ALLOW", rules);
    b.probe(&["syscall", LSEEK, "999", &argument.to_string(), "0"]);
    t.run(&b).ok().fact(0)["errno"].as_str().unwrap().to_owned()
}
