//! `linux.cgroupsPath` and `linux.resources`, read from the host's side; and `update`. What can be
//! said of both versions, and v1's files; `v2_limits`, `v2_groups` and `v2_namespace` have the others.

mod cpu;
mod devices;
mod groups;
mod memory;
mod resources;
mod update;
mod v2_groups;
mod v2_limits;
mod v2_namespace;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use corten_integration::{Bundle, Test, cgroups, suite};
use serde_json::Value;

fn main() -> ExitCode {
    let groups = [
        groups::TESTS,
        memory::TESTS,
        cpu::TESTS,
        resources::TESTS,
        devices::TESTS,
        update::TESTS,
        v2_limits::TESTS,
        v2_groups::TESTS,
        v2_namespace::TESTS,
    ];
    suite(&groups.concat())
}

/// The value of a file as a number.
pub(crate) fn number(b: &Bundle, controller: &str, file: &str) -> i64 {
    b.cgroup_file(controller, file).parse().unwrap()
}

pub(crate) fn need(t: &Test, controller: &str, file: &str) {
    match cgroups::directory(controller, "/") {
        None => t.skip(&format!("no {controller} hierarchy here")),
        Some(dir) => {
            // The root cgroup lacks some files, so ask one of our own.
            let probe = dir.join(format!("{}-feature", t.tag));
            fs::create_dir(&probe).unwrap();
            let there = probe.join(file).exists();
            fs::remove_dir(&probe).unwrap();
            if !there {
                t.skip(&format!("no {file} here"));
            }
        }
    }
}

pub(crate) fn v1(t: &Test) {
    if cgroups::is_v2() {
        t.skip("reads cgroup v1 files");
    }
}

/// A created container with these resources.
pub(crate) fn created(t: &Test, resources: &[(&str, Value)]) -> Bundle {
    let mut b = t.bundle();
    for (key, value) in resources {
        b.set(&format!("linux.resources.{key}"), value.clone());
    }
    b.probe(&["sleep"]);
    t.create(&b).ok();
    b
}

/// A block device of this host.
pub(crate) fn disk(t: &Test) -> (u64, u64) {
    let table = fs::read_to_string("/proc/partitions").unwrap();
    let words = table.lines().skip(2).map(|l| l.split_whitespace().collect::<Vec<_>>());
    let found =
        words.filter(|w| w.len() == 4).find(|w| PathBuf::from("/sys/block").join(w[3]).exists());
    found.map_or_else(|| t.skip("no disk here"), |w| (w[0].parse().unwrap(), w[1].parse().unwrap()))
}

pub(crate) fn occupied_at(t: &Test, dir: &Path) -> corten_integration::driver::Running {
    fs::create_dir_all(dir).unwrap();
    let mut command = Command::new("/bin/sh");
    command
        .arg("-c")
        .arg(format!("echo $$ >{}/cgroup.procs; echo in; exec sleep 1000", dir.display()));
    let mut running = t.launch(command);
    running.wait_for("in");
    running
}

pub(crate) fn v2(t: &Test) {
    if !cgroups::is_v2() {
        t.skip("cgroup v2 only");
    }
}

pub(crate) fn file(b: &Bundle, name: &str) -> String {
    b.cgroup_file("", name)
}
