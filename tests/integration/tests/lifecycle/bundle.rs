//! What `create` is given: the bundle, its root, the pid file.

use std::fs;
use std::os::unix::fs::MetadataExt;

use corten_integration::suite::Case;
use corten_integration::{Flavour, Test, tests};
use serde_json::json;

pub(crate) const TESTS: &[Case] = tests![
    pid_file_holds_the_pid,
    a_pid_file_left_half_written,
    a_pid_file_that_cannot_be_written_fails_create,
    the_bundle_defaults_to_the_current_directory,
    the_bundle_may_be_relative,
    root_path_may_be_absolute,
    root_path_may_lead_through_the_bundle_by_symlink,
    edits_after_create_have_no_effect,
    the_bundle_may_be_gone_before_delete,
];

/// `--pid-file` holds the host's pid of the first process and nothing else.
fn pid_file_holds_the_pid(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["sleep"]);
    b.write();
    let file = t.dir.join("pid");
    t.call(&["create", "--bundle", b.path(), "--pid-file", file.to_str().unwrap(), &b.id]).ok();
    assert_eq!(fs::read_to_string(&file).unwrap(), t.pid(&b.id).to_string());
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o022, 0, "nobody else writes it");
    let names: Vec<_> = fs::read_dir(&t.dir).unwrap().flatten().map(|e| e.file_name()).collect();
    assert!(!names.iter().any(|n| n.to_string_lossy().starts_with('.')), "{names:?}");
    t.force(&b.id).ok();
}

/// What a runtime that was killed has left beside the pid file is in nobody's way.
fn a_pid_file_left_half_written(t: &Test) {
    t.skip_on_peers("runc fails");
    let mut b = t.bundle();
    b.probe(&["sleep"]);
    b.write();
    let (file, half) = (t.dir.join("pid"), t.dir.join(".pid"));
    fs::write(&half, "").unwrap();
    t.call(&["create", "--bundle", b.path(), "--pid-file", file.to_str().unwrap(), &b.id]).ok();
    assert_eq!(fs::read_to_string(&file).unwrap(), t.pid(&b.id).to_string());
    assert!(!half.exists());
    t.force(&b.id).ok();
}

/// If the pid file can't be written, there is no container.
fn a_pid_file_that_cannot_be_written_fails_create(t: &Test) {
    let b = t.bundle();
    b.write();
    let file = t.dir.join("absent/pid");
    t.call(&["create", "--bundle", b.path(), "--pid-file", file.to_str().unwrap(), &b.id])
        .fails()
        .says("no such file or directory");
    t.nothing_left(&b);
}

/// Without --bundle the bundle is the current directory; a relative root.path starts there.
fn the_bundle_defaults_to_the_current_directory(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["print", "here"]).write();
    let out = t.shell(&format!("cd {} && $RUNTIME --root $ROOT run {}", b.path(), b.id)).ok();
    assert_eq!(out.fact(0), "here");
}

/// `--bundle` may be relative; `state` shows it absolute.
fn the_bundle_may_be_relative(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["sleep"]).write();
    let name = b.dir.file_name().unwrap().to_str().unwrap();
    t.shell(&format!("cd {} && $RUNTIME --root $ROOT create -b {name} {}", t.dir.display(), b.id))
        .ok();
    assert_eq!(t.state(&b.id).ok().json()["bundle"], json!(b.path()));
}

/// root.path may be absolute and elsewhere.
fn root_path_may_be_absolute(t: &Test) {
    let mut b = t.bundle();
    let elsewhere = t.dir.join("elsewhere");
    fs::rename(b.rootfs(), &elsewhere).unwrap();
    b.set("root.path", json!(elsewhere)).probe(&["ls", "/"]);
    assert!(t.run(&b).ok().fact(0)["value"]["probe"].is_object());
}

/// The bundle belongs to the caller: symbolic links on the way to the root file system are fine.
fn root_path_may_lead_through_the_bundle_by_symlink(t: &Test) {
    t.skip_on(Flavour::Runc, "refuses it");
    let mut b = t.bundle();
    fs::rename(b.rootfs(), t.dir.join("elsewhere")).unwrap();
    std::os::unix::fs::symlink("../elsewhere", b.rootfs()).unwrap();
    b.probe(&["print", "in"]);
    assert_eq!(t.run(&b).ok().fact(0), "in");
}

/// What is edited in config.json after create has no effect on the container.
fn edits_after_create_have_no_effect(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["create", "/first", ""]);
    t.create(&b).ok();
    b.probe(&["create", "/second", ""]).set("hostname", json!("other")).write();
    t.start(&b.id).ok();
    t.wait_status(&b.id, "stopped");
    assert!(b.rootfs().join("first").exists());
    assert!(!b.rootfs().join("second").exists());
}

/// A container can be stopped and deleted when its bundle no longer exists.
fn the_bundle_may_be_gone_before_delete(t: &Test) {
    let mut b = t.bundle();
    let pid = t.sleeper(&mut b);
    fs::remove_dir_all(&b.dir).unwrap();
    assert_eq!(t.status(&b.id), "running");
    t.kill(&b.id, "TERM").ok();
    assert_eq!(t.exit_code(pid), 143);
    t.delete(&b.id).ok();
    t.nothing_left(&b);
}
