//! The systemd cgroup driver, seen with systemctl and in the files. Needs systemd as PID 1 and
//! cgroup v2 alone: `make lab LAB_SUITES=systemd`.

mod devices;
mod scopes;
mod user;

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use corten_integration::{Test, cgroups, suite};

fn main() -> ExitCode {
    suite(&[scopes::CASES, devices::CASES, user::CASES].concat())
}

/// Skips where systemd does not run.
pub(crate) fn need(t: &Test) {
    if !Path::new("/run/systemd/system").exists() {
        t.skip("systemd is not running");
    }
    if !cgroups::is_v2() {
        t.skip("needs cgroup v2 alone");
    }
}

pub(crate) fn systemctl(args: &[&str]) -> String {
    let output = Command::new("systemctl").args(args).output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

pub(crate) fn property(unit: &str, name: &str) -> String {
    systemctl(&["show", "--value", "--property", name, unit])
}

pub(crate) fn is_gone(unit: &str) -> bool {
    property(unit, "LoadState") == "not-found" && property(unit, "ActiveState") == "inactive"
}

pub(crate) fn group_of(pid: i32) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    text.trim_end().strip_prefix("0::").unwrap().to_owned()
}
