//! Global options: the root, the cgroup manager; and TMPDIR.

use std::fs;
use std::process::Stdio;

use corten_integration::suite::Case;
use corten_integration::{Flavour, Test, tests};
use serde_json::json;

pub(crate) const TESTS: &[Case] = tests![
    root_default_and_environment,
    root_relative_is_made_absolute,
    root_slash_is_refused,
    systemd_cgroup_without_systemd_says_so,
    cgroup_manager_disabled_makes_none,
    tmpdir_is_not_needed,
];

/// --root's default; XDG_RUNTIME_DIR doesn't matter to root.
fn root_default_and_environment(t: &Test) {
    t.skip_on_peers("theirs have other names");
    let mut b = t.bundle();
    b.probe(&["sleep"]).write();
    let line = format!(
        "XDG_RUNTIME_DIR={} $RUNTIME create -b {} {}",
        t.dir.join("xdg").display(),
        b.path(),
        b.id
    );
    t.shell(&line).ok();
    let there = fs::exists(format!("/run/corten/{}", b.id)).unwrap();
    t.shell(&format!("$RUNTIME delete --force {}", b.id)).ok();
    assert!(there, "the default is /run/corten");
    let _ = fs::remove_dir("/run/corten");
}

/// A relative --root holds for later commands from elsewhere.
fn root_relative_is_made_absolute(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["sleep"]).write();
    let line =
        format!("cd {} && $RUNTIME --root root create -b {} {}", t.dir.display(), b.path(), b.id);
    t.shell(&line).ok();
    assert_eq!(t.status(&b.id), "created");
    t.start(&b.id).ok();
    assert_eq!(t.status(&b.id), "running");
}

/// Containers would be directories of "/".
fn root_slash_is_refused(t: &Test) {
    t.skip_on_peers("take it");
    let b = t.bundle();
    b.write();
    t.shell(&format!("$RUNTIME --root / create -b {} {}", b.path(), b.id)).fails();
    assert!(!fs::exists(format!("/{}", b.id)).unwrap());
}

/// There is no systemd here: an error in words, nothing left.
fn systemd_cgroup_without_systemd_says_so(t: &Test) {
    if fs::exists("/run/systemd/system").unwrap() {
        t.skip("systemd runs here");
    }
    let mut b = t.bundle();
    b.set("linux.cgroupsPath", json!(format!("system.slice:corten:{}", b.id))).write();
    t.call(&["--systemd-cgroup", "create", "--bundle", b.path(), &b.id]).fails().says("systemd");
    t.nothing_left(&b);
}

/// podman's `--cgroups=disabled`.
fn cgroup_manager_disabled_makes_none(t: &Test) {
    t.skip_on(Flavour::Runc, "has no such option");
    let mut b = t.bundle();
    b.unset("linux.resources").probe(&["report", "cgroup"]).write();
    let out = t.call(&["--cgroup-manager", "disabled", "run", "--bundle", b.path(), &b.id]).ok();
    assert!(!out.stdout.contains(&b.id), "{out}");
}

/// Nothing is put into TMPDIR, /tmp or the bundle.
fn tmpdir_is_not_needed(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["exit", "0"]).write();
    let mut command = t.command(&["run", "--bundle", b.path(), &b.id]);
    command.env("TMPDIR", "/absent").stdin(Stdio::null());
    t.execute(command).ok();
    let mut names: Vec<_> =
        fs::read_dir(&b.dir).unwrap().flatten().map(|e| e.file_name()).collect();
    names.sort();
    assert_eq!(names, ["config.json", "rootfs"]);
}
