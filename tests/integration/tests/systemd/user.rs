//! A user's own manager: containers of an ordinary user with cgroups that systemd has delegated.
//!
//! The user is the one that `CORTEN_TEST_USER` names, as the lab does: one with subordinate ids,
//! whose manager may be started. The commands come from the suite's own group, where the user
//! has no rights, as from a login session; `in_its_own_group` has them come from a unit of its own.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, lchown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use corten_integration::driver::{Running, wait_until};
use corten_integration::suite::Case;
use corten_integration::{Bundle, Output, Test, tests};
use nix::sys::signal::Signal;
use nix::unistd::User;
use serde_json::json;

use crate::{group_of, need};

pub(crate) const CASES: &[Case] = tests![
    rootless_container_is_a_scope_of_its_manager,
    rootless_in_its_own_group,
    rootless_exec_is_in_the_scope,
    rootless_reload_keeps_limits,
    rootless_limit_that_is_not_delegated_is_refused,
    rootless_group_belongs_to_the_container,
    rootless_life_and_pause,
    rootless_create_that_is_killed_leaves_no_unit,
    rootless_without_a_manager_is_told_so,
];

/// The user, with its manager running and a copy of the runtime that it can execute.
fn user(t: &Test) -> User {
    need(t);
    let Ok(name) = std::env::var("CORTEN_TEST_USER") else {
        t.skip("needs an ordinary user with a service manager: CORTEN_TEST_USER");
    };
    let user = User::from_name(&name).unwrap().expect("the user of CORTEN_TEST_USER");
    let copy = t.dir.join("runtime");
    if copy.exists() {
        return user;
    }
    fs::copy(&t.runtime, &copy).unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir_all(t.root()).unwrap();
    for dir in [t.root(), t.dir.join("tmp")] {
        chown(&dir, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
    }
    crate::systemctl(&["start", &format!("user@{}.service", user.uid)]);
    wait_until("the user's manager listens", || run_dir(&user).join("systemd/private").exists());
    user
}

fn run_dir(user: &User) -> PathBuf {
    format!("/run/user/{}", user.uid).into()
}

/// A shell of the user in the suite's own group; `$R` is the runtime with the driver.
fn command(t: &Test, script: &str) -> Command {
    let user = user(t);
    let run = format!(
        "{} --systemd-cgroup --root {}",
        t.dir.join("runtime").display(),
        t.root().display()
    );
    let mut command = Command::new("setpriv");
    let (uid, gid) = (user.uid.to_string(), user.gid.to_string());
    command.args(["--reuid", &uid, "--regid", &gid, "--init-groups", "--inh-caps=-all"]);
    command.args(["sh", "-c", script]).stdin(Stdio::null());
    command.env("XDG_RUNTIME_DIR", run_dir(&user)).env("R", run).env("HOME", &user.dir);
    command
}

#[track_caller]
fn call(t: &Test, script: &str) -> Output {
    t.execute(command(t, script))
}

fn spawn(t: &Test, script: &str) -> Running {
    t.launch(command(t, script))
}

/// What the user's own systemctl prints.
fn systemctl(t: &Test, words: &str) -> String {
    let output = command(t, &format!("systemctl --user {words}")).output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

fn property(t: &Test, b: &Bundle, name: &str) -> String {
    systemctl(t, &format!("show --value --property {name} {}", scope(b)))
}

fn scope(b: &Bundle) -> String {
    format!("test-{}.scope", b.id)
}

/// The group of the user's manager.
fn above(t: &Test) -> String {
    let uid = user(t).uid;
    format!("/user.slice/user-{uid}.slice/user@{uid}.service")
}

fn directory(t: &Test, b: &Bundle) -> PathBuf {
    Path::new("/sys/fs/cgroup").join(&above(t)[1..]).join("corten.slice").join(scope(b))
}

fn file(t: &Test, b: &Bundle, name: &str) -> String {
    fs::read_to_string(directory(t, b).join(name)).unwrap().trim_end().to_owned()
}

/// A bundle of the user: root inside, with the user's subordinate ids for the others.
fn bundle(t: &Test) -> Bundle {
    let user = user(t);
    let mut b = t.bundle();
    b.namespace("user", None).unset("linux.resources").probe(&["sleep"]);
    b.remount("/dev/pts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]);
    b.set("linux.cgroupsPath", json!(format!("corten.slice:test:{}", b.id)));
    for (kind, own) in [("uid", user.uid.as_raw()), ("gid", user.gid.as_raw())] {
        let first = subordinate(kind, &user.name);
        let map = json!([{"containerID": 0, "hostID": own, "size": 1},
            {"containerID": 1, "hostID": first, "size": 65535}]);
        b.set(&format!("linux.{kind}Mappings"), map);
    }
    give(&b.dir, &user);
    b
}

fn subordinate(kind: &str, name: &str) -> u32 {
    let text = fs::read_to_string(format!("/etc/sub{kind}")).unwrap();
    let mut lines = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
    lines.find(|line| line[0] == name).expect("subordinate ids")[1].parse().unwrap()
}

fn give(path: &Path, user: &User) {
    let is_dir = fs::symlink_metadata(path).unwrap().is_dir();
    lchown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
    if is_dir {
        fs::read_dir(path).unwrap().flatten().for_each(|entry| give(&entry.path(), user));
    }
}

fn create(t: &Test, b: &Bundle) {
    b.write();
    call(t, &format!("$R create -b {} {}", b.path(), b.id)).ok();
}

#[track_caller]
fn does(t: &Test, b: &Bundle, verb: &str) {
    call(t, &format!("$R {verb} {}", b.id)).ok();
}

fn check_gone(t: &Test, b: &Bundle) {
    assert_eq!(property(t, b, "LoadState"), "not-found");
    assert!(!directory(t, b).exists());
    t.nothing_left(b);
}

fn limits(b: &mut Bundle) {
    b.set("linux.resources", json!({"memory": {"limit": 67_108_864}, "pids": {"limit": 20}}));
}

fn check_limits(t: &Test, b: &Bundle) {
    assert_eq!(file(t, b, "memory.max"), "67108864");
    assert_eq!(file(t, b, "pids.max"), "20");
}

fn rootless_container_is_a_scope_of_its_manager(t: &Test) {
    let mut b = bundle(t);
    limits(&mut b);
    create(t, &b);
    let group = group_of(t.pid(&b.id));
    assert_eq!(group, format!("{}/corten.slice/{}", above(t), scope(&b)));
    assert_eq!(property(t, &b, "Delegate"), "yes");
    assert_eq!(property(t, &b, "MemoryMax"), "67108864");
    assert_eq!(property(t, &b, "TasksMax"), "20");
    // A user's manager would do nothing about it.
    assert_eq!(property(t, &b, "DevicePolicy"), "auto");
    check_limits(t, &b);
    // The placeholder has gone.
    assert_eq!(file(t, &b, "cgroup.procs"), t.pid(&b.id).to_string());
    does(t, &b, "start");
    call(t, &format!("$R kill {} KILL", b.id)).ok();
    t.wait_status(&b.id, "stopped");
    does(t, &b, "delete");
    check_gone(t, &b);
}

/// From a unit of the user's, which is below the same manager.
fn rootless_in_its_own_group(t: &Test) {
    let b = bundle(t);
    b.write();
    let run = "systemd-run --user --quiet --scope --collect";
    call(t, &format!("{run} $R create -b {} {}", b.path(), b.id)).ok();
    assert!(group_of(t.pid(&b.id)).ends_with(&scope(&b)));
    call(t, &format!("{run} $R start {}", b.id)).ok();
    let script = format!("{run} $R exec {} /probe report cgroup", b.id);
    let seen = call(t, &script).ok().fact(0).to_string();
    assert!(seen.contains(&scope(&b)), "{seen}");
    does(t, &b, "delete --force");
    check_gone(t, &b);
}

fn rootless_exec_is_in_the_scope(t: &Test) {
    let b = bundle(t);
    create(t, &b);
    does(t, &b, "start");
    let mut running = spawn(t, &format!("exec $R exec {} /probe print here \\; sleep", b.id));
    running.wait_for("here");
    assert_eq!(file(t, &b, "cgroup.procs").lines().count(), 2);
    does(t, &b, "delete --force");
    running.wait();
    check_gone(t, &b);
}

fn rootless_reload_keeps_limits(t: &Test) {
    let mut b = bundle(t);
    limits(&mut b);
    create(t, &b);
    systemctl(t, "daemon-reload");
    crate::systemctl(&["daemon-reload"]);
    check_limits(t, &b);
    call(t, &format!("$R update --pids-limit 21 {}", b.id)).ok();
    systemctl(t, "daemon-reload");
    assert_eq!(file(t, &b, "pids.max"), "21");
    assert_eq!(property(t, &b, "TasksMax"), "21");
    does(t, &b, "delete --force");
    check_gone(t, &b);
}

/// Debian delegates cpu, memory and pids only.
fn rootless_limit_that_is_not_delegated_is_refused(t: &Test) {
    let mut b = bundle(t);
    let given = Path::new("/sys/fs/cgroup").join(&above(t)[1..]).join("cgroup.controllers");
    if fs::read_to_string(given).unwrap().contains("cpuset") {
        t.skip("the user has cpuset here");
    }
    b.set("linux.resources", json!({"cpu": {"cpus": "0"}})).write();
    call(t, &format!("$R create -b {} {}", b.path(), b.id)).fails().says("cpuset");
    check_gone(t, &b);
}

/// With a cgroup namespace of its own and a writable mount.
fn rootless_group_belongs_to_the_container(t: &Test) {
    let mut b = bundle(t);
    b.namespace("cgroup", None);
    b.unmount("/sys/fs/cgroup").mount("/sys/fs/cgroup", "cgroup", "cgroup", &["rw"]);
    create(t, &b);
    does(t, &b, "start");
    let script = format!("$R exec {} /probe mkdir /sys/fs/cgroup/inner", b.id);
    call(t, &script).ok();
    assert!(directory(t, &b).join("inner").is_dir());
    does(t, &b, "delete --force");
    check_gone(t, &b);
}

fn rootless_life_and_pause(t: &Test) {
    let b = bundle(t);
    create(t, &b);
    does(t, &b, "start");
    does(t, &b, "pause");
    assert_eq!(t.status(&b.id), "paused");
    does(t, &b, "resume");
    does(t, &b, "pause");
    does(t, &b, "delete --force");
    check_gone(t, &b);
}

fn rootless_create_that_is_killed_leaves_no_unit(t: &Test) {
    let mut b = bundle(t);
    let mark = t.dir.join("tmp/mark");
    let script = format!("touch {}; sleep 1000", mark.display());
    let hook = json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}]);
    b.set("hooks.createRuntime", hook).write();
    let running = spawn(t, &format!("exec $R create -b {} {}", b.path(), b.id));
    wait_until("the hook runs", || mark.exists());
    assert_eq!(property(t, &b, "ActiveState"), "active");
    running.signal(Signal::SIGKILL);
    running.wait();
    t.end_orphans();
    does(t, &b, "delete --force");
    check_gone(t, &b);
    fs::remove_file(mark).unwrap();
}

fn rootless_without_a_manager_is_told_so(t: &Test) {
    let b = bundle(t);
    b.write();
    let script = format!("XDG_RUNTIME_DIR=/nowhere $R create -b {} {}", b.path(), b.id);
    call(t, &script).fails().says("user's systemd");
    check_gone(t, &b);
}
