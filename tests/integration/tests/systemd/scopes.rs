//! The system's manager, with root as the one who asks.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use corten_integration::driver::wait_until;
use corten_integration::suite::Case;
use corten_integration::{Bundle, Flavour, Test, tests};
use serde_json::{Value, json};

use crate::{group_of, is_gone, need, property, systemctl};

pub(crate) const CASES: &[Case] = tests![
    a_container_is_a_scope_and_delete_leaves_none,
    the_program_is_born_in_the_scope,
    limits_are_in_files_and_properties,
    one_process_is_enough,
    a_reload_keeps_limits_and_devices,
    update_changes_files_and_properties,
    exec_is_in_the_scope,
    pause_and_resume,
    slices_are_nested,
    without_a_path_the_name_is_made_up,
    annotations_are_properties,
    bad_paths_and_annotations_are_refused,
    a_unit_that_runs_is_refused_and_survives,
    a_unit_that_failed_is_replaced,
    a_create_that_fails_leaves_no_unit,
    a_create_that_is_killed_leaves_no_unit,
    a_container_that_ends_leaves_no_unit,
    a_namespaced_container_joins_too,
    a_systemd_that_executes_itself_anew_is_waited_for,
];

pub(crate) fn scope(b: &Bundle) -> String {
    format!("test-{}.scope", b.id)
}

/// A bundle in a slice of the tests.
pub(crate) fn bundle(t: &Test) -> Bundle {
    need(t);
    let mut b = t.bundle();
    b.set("linux.cgroupsPath", json!(format!("corten-test.slice:test:{}", b.id)));
    b.probe(&["sleep"]);
    b
}

fn directory(b: &Bundle) -> PathBuf {
    Path::new("/sys/fs/cgroup/corten.slice/corten-test.slice").join(scope(b))
}

fn file(b: &Bundle, name: &str) -> String {
    fs::read_to_string(directory(b).join(name)).unwrap().trim_end().to_owned()
}

pub(crate) fn create(t: &Test, b: &Bundle) {
    b.write();
    t.call(&["--systemd-cgroup", "create", "--bundle", b.path(), &b.id]).ok();
}

fn create_fails(t: &Test, b: &Bundle, words: &str) {
    b.write();
    t.call(&["--systemd-cgroup", "create", "--bundle", b.path(), &b.id]).fails().says(words);
}

pub(crate) fn check_gone(t: &Test, b: &Bundle) {
    let unit = scope(b);
    assert!(is_gone(&unit), "{}", systemctl(&["show", &unit]));
    assert!(!directory(b).exists());
    t.nothing_left(b);
}

fn a_container_is_a_scope_and_delete_leaves_none(t: &Test) {
    let b = bundle(t);
    create(t, &b);
    let unit = scope(&b);
    for (name, value) in [
        ("ActiveState", "active"),
        ("Slice", "corten-test.slice"),
        ("Delegate", "yes"),
        ("ControlGroup", &format!("/corten.slice/corten-test.slice/{unit}")),
    ] {
        assert_eq!(property(&unit, name), value, "{name}");
    }
    // The placeholder has gone.
    assert_eq!(file(&b, "cgroup.procs"), t.pid(&b.id).to_string());
    t.start(&b.id).ok();
    t.kill(&b.id, "KILL").ok();
    t.wait_status(&b.id, "stopped");
    t.delete(&b.id).ok();
    check_gone(t, &b);
}

fn the_program_is_born_in_the_scope(t: &Test) {
    let mut b = bundle(t);
    b.probe(&["report", "cgroup"]).write();
    let output = t.call(&["--systemd-cgroup", "run", "--bundle", b.path(), &b.id]).ok();
    let seen = output.facts()[0].to_string();
    assert!(seen.contains(&scope(&b)) || seen.contains("0::/\""), "{seen}");
    check_gone(t, &b);
}

fn limits(b: &mut Bundle) {
    b.set(
        "linux.resources",
        json!({
            "memory": {"limit": 67_108_864, "swap": 134_217_728, "reservation": 33_554_432},
            "cpu": {"shares": 512, "quota": 20_500, "period": 50_000, "cpus": "0", "mems": "0"},
            "pids": {"limit": 20},
            "unified": {"memory.high": "50331648"},
            "devices": [{"allow": false, "access": "rwm"}],
        }),
    );
}

const FILES: &[(&str, &str)] = &[
    ("memory.max", "67108864"),
    ("memory.swap.max", "67108864"),
    ("memory.low", "33554432"),
    ("memory.high", "50331648"),
    ("cpu.weight", "59"),
    ("cpuset.cpus", "0"),
    ("cpuset.mems", "0"),
    ("pids.max", "20"),
];

fn check_files(b: &Bundle, files: &[(&str, &str)]) {
    for (name, value) in files {
        assert_eq!(file(b, name), *value, "{name}");
    }
}

fn limits_are_in_files_and_properties(t: &Test) {
    let mut b = bundle(t);
    limits(&mut b);
    create(t, &b);
    check_files(&b, FILES);
    assert_eq!(file(&b, "cpu.max"), "20500 50000");
    for (name, value) in [
        ("MemoryMax", "67108864"),
        ("MemorySwapMax", "67108864"),
        ("MemoryLow", "33554432"),
        ("MemoryHigh", "50331648"),
        ("CPUWeight", "59"),
        ("CPUQuotaPerSecUSec", "410ms"),
        ("CPUQuotaPeriodUSec", "50ms"),
        ("AllowedCPUs", "0"),
        ("AllowedMemoryNodes", "0"),
        ("TasksMax", "20"),
    ] {
        assert_eq!(property(&scope(&b), name), value, "{name}");
    }
    t.force(&b.id).ok();
    check_gone(t, &b);
}

/// The placeholder takes nothing from a container that may have one process.
fn one_process_is_enough(t: &Test) {
    let mut b = bundle(t);
    b.set("linux.resources.pids", json!({"limit": 1}));
    create(t, &b);
    check_files(&b, &[("pids.max", "1"), ("pids.current", "1")]);
    t.start(&b.id).ok();
    t.force(&b.id).ok();
    check_gone(t, &b);
}

/// What systemd writes again on a reload is what was asked for, and our device program stays.
fn a_reload_keeps_limits_and_devices(t: &Test) {
    let mut b = bundle(t);
    limits(&mut b);
    b.push("process.capabilities.bounding", json!("CAP_MKNOD"));
    create(t, &b);
    t.start(&b.id).ok();
    let devices = || {
        // 1:1 is /dev/mem, which the rules deny; 1:3 is /dev/null.
        let pid = t.wait_asleep(&b.id).to_string();
        let procs = directory(&b).join("cgroup.procs");
        let open = |node: &str| {
            // In the container's cgroup and outside of its other walls.
            let script = format!("echo $$ >{} && exec 3<{node}", procs.display());
            Command::new("sh").args(["-c", &script]).output().unwrap().status.success()
        };
        let _pid = pid;
        (open("/dev/null"), open("/dev/kmsg"))
    };
    assert_eq!(devices(), (true, false), "before the reload");
    systemctl(&["daemon-reload"]);
    // A change of one property makes systemd write all of them.
    systemctl(&["set-property", "--runtime", &scope(&b), "Description=reloaded"]);
    systemctl(&["set-property", "--runtime", "corten-test.slice", "CPUWeight=200"]);
    check_files(&b, FILES);
    assert!(["20500 50000", "21000 50000"].contains(&file(&b, "cpu.max").as_str()));
    assert_eq!(devices(), (true, false), "after the reload");
    t.force(&b.id).ok();
    check_gone(t, &b);
}

fn update_changes_files_and_properties(t: &Test) {
    let mut b = bundle(t);
    limits(&mut b);
    create(t, &b);
    t.start(&b.id).ok();
    t.call(&["update", "--pids-limit", "33", "--cpu-quota", "10300", "--cpu-share", "1024", &b.id])
        .ok();
    let changed = [("pids.max", "33"), ("cpu.weight", "100"), ("memory.max", "67108864")];
    check_files(&b, &changed);
    assert_eq!(file(&b, "cpu.max"), "10300 50000");
    assert_eq!(property(&scope(&b), "TasksMax"), "33");
    assert_eq!(property(&scope(&b), "CPUQuotaPerSecUSec"), "210ms");
    systemctl(&["daemon-reload"]);
    check_files(&b, &changed);
    // One that fails changes neither.
    t.call(&["update", "--pids-limit", "44", "--cpuset-cpus", "4000", &b.id]).fails();
    check_files(&b, &changed);
    assert_eq!(property(&scope(&b), "TasksMax"), "33");
    t.force(&b.id).ok();
    check_gone(t, &b);
}

fn exec_is_in_the_scope(t: &Test) {
    let b = bundle(t);
    create(t, &b);
    t.start(&b.id).ok();
    t.wait_asleep(&b.id);
    let mut running = t.spawn(&["exec", &b.id, "/probe", "print", "here", ";", "sleep"]);
    running.wait_for("here");
    assert_eq!(file(&b, "cgroup.procs").lines().count(), 2);
    t.force(&b.id).ok();
    drop(running);
    check_gone(t, &b);
}

fn pause_and_resume(t: &Test) {
    let b = bundle(t);
    create(t, &b);
    t.start(&b.id).ok();
    t.wait_asleep(&b.id);
    t.call(&["pause", &b.id]).ok();
    assert_eq!(t.status(&b.id), "paused");
    systemctl(&["daemon-reload"]);
    assert_eq!(t.status(&b.id), "paused");
    t.call(&["resume", &b.id]).ok();
    t.call(&["pause", &b.id]).ok();
    t.force(&b.id).ok();
    check_gone(t, &b);
}

fn slices_are_nested(t: &Test) {
    let mut b = bundle(t);
    b.set("linux.cgroupsPath", json!(format!("corten-test-deep.slice:test:{}", b.id)));
    create(t, &b);
    let expected = "/corten.slice/corten-test.slice/corten-test-deep.slice/";
    assert_eq!(group_of(t.pid(&b.id)), format!("{expected}{}", scope(&b)));
    t.force(&b.id).ok();
    check_gone(t, &b);
    b.set("linux.cgroupsPath", json!(format!("-.slice::{}", b.id)));
    create(t, &b);
    assert_eq!(group_of(t.pid(&b.id)), format!("/{}.scope", b.id));
    t.force(&b.id).ok();
    assert!(is_gone(&format!("{}.scope", b.id)));
}

fn without_a_path_the_name_is_made_up(t: &Test) {
    t.skip_on(Flavour::Runc, "has another prefix");
    let mut b = bundle(t);
    b.unset("linux.cgroupsPath");
    create(t, &b);
    let unit = format!("corten-{}.scope", b.id);
    assert_eq!(group_of(t.pid(&b.id)), format!("/system.slice/{unit}"));
    t.force(&b.id).ok();
    assert!(is_gone(&unit));
}

fn annotations_are_properties(t: &Test) {
    let mut b = bundle(t);
    let prefix = "org.systemd.property.";
    b.set(
        "annotations",
        json!({
            format!("{prefix}TimeoutStopUSec"): "uint64 5000000",
            format!("{prefix}Description"): "'of the test'",
            format!("{prefix}After"): "['dbus.service']",
        }),
    );
    create(t, &b);
    let unit = scope(&b);
    assert_eq!(property(&unit, "TimeoutStopUSec"), "5s");
    assert_eq!(property(&unit, "Description"), "of the test");
    assert!(property(&unit, "After").contains("dbus.service"));
    t.force(&b.id).ok();
    check_gone(t, &b);
}

fn bad_paths_and_annotations_are_refused(t: &Test) {
    let mut b = bundle(t);
    for path in ["/a/b", "a:b", "a:b:c", "corten.slice:b:", "corten.slice:b:c/d", "a--b.slice:c:d"]
    {
        b.set("linux.cgroupsPath", json!(path));
        create_fails(t, &b, "cgroupsPath");
    }
    b.set("linux.cgroupsPath", json!(format!("corten-test.slice:test:{}", b.id)));
    for (name, text) in [("No Name", "true"), ("Description", "'open"), ("Nonsense", "true")] {
        b.set("annotations", json!({ format!("org.systemd.property.{name}"): text }));
        create_fails(t, &b, "annotations|Nonsense|property");
    }
    check_gone(t, &b);
}

/// Somebody else's unit of the same name.
fn a_unit_that_runs_is_refused_and_survives(t: &Test) {
    let b = bundle(t);
    let unit = scope(&b);
    let mut other = Command::new("systemd-run")
        .args(["--scope", "--slice=corten-test.slice", "--unit", &unit, "sleep", "1000"])
        .spawn()
        .unwrap();
    wait_until("the other unit runs", || property(&unit, "ActiveState") == "active");
    create_fails(t, &b, "already exists|not empty");
    t.force(&b.id).ok();
    assert_eq!(property(&unit, "ActiveState"), "active");
    assert!(other.try_wait().unwrap().is_none());
    systemctl(&["stop", &unit]);
    other.wait().unwrap();
    check_gone(t, &b);
}

fn a_unit_that_failed_is_replaced(t: &Test) {
    let b = bundle(t);
    let unit = scope(&b);
    let failed = Command::new("systemd-run")
        .args(["--slice=corten-test.slice", "--scope", "--unit", &unit])
        .args(["-p", "RuntimeMaxSec=1", "-p", "CollectMode=inactive", "sleep", "1000"])
        .output()
        .unwrap();
    assert!(!failed.status.success());
    wait_until("the other unit has failed", || property(&unit, "ActiveState") == "failed");
    create(t, &b);
    assert_eq!(property(&unit, "ActiveState"), "active");
    t.force(&b.id).ok();
    check_gone(t, &b);
}

fn a_create_that_fails_leaves_no_unit(t: &Test) {
    let mut b = bundle(t);
    b.mount("/nowhere", "bind", "/does/not/exist", &["bind"]);
    create_fails(t, &b, "exist");
    check_gone(t, &b);
    b.unmount("/nowhere");
    b.set("linux.resources.cpu", json!({"cpus": "4000"}));
    create_fails(t, &b, "cpus|CPUs");
    check_gone(t, &b);
}

/// Killed while a hook runs, when the unit and the init are there.
fn a_create_that_is_killed_leaves_no_unit(t: &Test) {
    let mut b = bundle(t);
    let mark = b.file("mark", "");
    fs::remove_file(&mark).unwrap();
    let script = format!("touch {}; sleep 1000", mark.display());
    let hook: Value = json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}]);
    b.set("hooks.createRuntime", hook).write();
    let running = t.spawn(&["--systemd-cgroup", "create", "--bundle", b.path(), &b.id]);
    wait_until("the hook runs", || mark.exists());
    assert_eq!(property(&scope(&b), "ActiveState"), "active");
    running.signal(nix::sys::signal::Signal::SIGKILL);
    running.wait();
    t.end_orphans();
    t.force(&b.id).ok();
    check_gone(t, &b);
}

/// The scope is gone with its last process, and neither state nor delete mind.
fn a_container_that_ends_leaves_no_unit(t: &Test) {
    let b = bundle(t);
    create(t, &b);
    t.start(&b.id).ok();
    t.kill(&b.id, "KILL").ok();
    t.wait_status(&b.id, "stopped");
    wait_until("systemd takes the scope away", || is_gone(&scope(&b)));
    assert_eq!(t.status(&b.id), "stopped");
    t.delete(&b.id).ok();
    check_gone(t, &b);
}

/// In a user namespace, and in a pid namespace that is joined.
fn a_namespaced_container_joins_too(t: &Test) {
    let mut b = bundle(t);
    create(t, &b);
    let pid = t.pid(&b.id);
    let mut second = t.bundle();
    second.set("linux.cgroupsPath", json!(format!("corten-test.slice:test:{}", second.id)));
    second.namespace("pid", Some(&format!("/proc/{pid}/ns/pid"))).probe(&["sleep"]);
    create(t, &second);
    assert!(group_of(t.pid(&second.id)).ends_with(&scope(&second)));
    t.force(&second.id).ok();
    check_gone(t, &second);
    t.force(&b.id).ok();
    b.namespace("user", None);
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
    b.set("linux.uidMappings", map.clone()).set("linux.gidMappings", map);
    check_gone(t, &b);
}

/// `daemon-reexec` closes every connection, in the middle of a request or not.
fn a_systemd_that_executes_itself_anew_is_waited_for(t: &Test) {
    let b = bundle(t);
    let mut restarts = Command::new("sh");
    restarts.args(["-c", "for i in 1 2 3; do systemctl daemon-reexec; sleep 0.1; done"]);
    let restarts = t.launch(restarts);
    for _ in 0..3 {
        create(t, &b);
        assert!(group_of(t.pid(&b.id)).ends_with(&scope(&b)));
        t.call(&["update", "--pids-limit", "33", &b.id]).ok();
        t.force(&b.id).ok();
    }
    restarts.wait();
    check_gone(t, &b);
}
