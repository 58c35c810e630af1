//! `linux.cgroupsPath`: where the group is, one that is there already, and groups below it.

use std::fs;

use corten_integration::driver::wait_until;
use corten_integration::suite::Case;
use corten_integration::{Bundle, Flavour, Test, cgroups, tests};
use serde_json::{Value, json};

use crate::{created, number, occupied_at, v1};

pub(crate) const TESTS: &[Case] = tests![
    path_absolute_is_used_in_every_hierarchy,
    path_nested_parents_are_made,
    path_relative_is_below_the_runtimes,
    path_absent_is_made_up,
    path_with_dots_stays_below,
    the_program_is_in_its_cgroup,
    a_cgroup_with_processes_is_refused,
    a_frozen_cgroup_is_refused,
    an_empty_existing_cgroup_is_fine,
    two_containers_cannot_share_one,
    kill_reaches_sub_cgroups,
    delete_removes_sub_cgroups,
    pause_freezes_sub_cgroups,
];

/// The line of a reported /proc/self/cgroup whose group has the limits.
fn limited(seen: &Value) -> &str {
    let mark = if cgroups::is_v2() { "0::" } else { ":pids:" };
    let mut lines = seen["cgroup"].as_array().unwrap().iter().map(|line| line.as_str().unwrap());
    lines.find(|line| line.contains(mark)).unwrap()
}

/// An absolute path is taken from the mount point of every hierarchy.
fn path_absolute_is_used_in_every_hierarchy(t: &Test) {
    let b = created(t, &[]);
    for hierarchy in cgroups::hierarchies() {
        let dir = hierarchy.mount.join(b.cgroup().trim_start_matches('/'));
        assert!(dir.is_dir(), "{}", dir.display());
    }
    t.force(&b.id).ok();
    t.nothing_left(&b);
}

/// Parents that don't exist are made.
fn path_nested_parents_are_made(t: &Test) {
    let mut b = t.bundle();
    let path = format!("{}/a/b/c", b.cgroup());
    b.set("linux.cgroupsPath", json!(path)).probe(&["sleep"]);
    t.create(&b).ok();
    assert!(b.cgroup_dir("pids").is_dir());
    t.force(&b.id).ok();
    assert!(!b.cgroup_dir("pids").exists());
    cgroups::remove(&cgroups::tagged(&t.tag));
}

/// A relative path is somewhere the runtime chooses, the same each time, and used.
fn path_relative_is_below_the_runtimes(t: &Test) {
    let mut b = t.bundle();
    let name = format!("{}-relative", t.tag);
    b.set("linux.cgroupsPath", json!(name)).probe(&["report", "cgroup"]);
    let seen = t.report(&b);
    assert!(limited(&seen).ends_with(&name), "{seen}");
}

/// Without a path the container has a cgroup of its own all the same.
fn path_absent_is_made_up(t: &Test) {
    let mut b = t.bundle();
    b.unset("linux.cgroupsPath").probe(&["report", "cgroup"]);
    let seen = t.report(&b);
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    let line = limited(&seen);
    assert!(line.contains(&b.id) && !own.contains(line), "{line}");
}

/// ".." doesn't lead out of the hierarchy.
fn path_with_dots_stays_below(t: &Test) {
    let mut b = t.bundle();
    b.set("linux.cgroupsPath", json!(format!("/../..{}", b.cgroup()))).probe(&["report", "cgroup"]);
    let out = t.run(&b);
    if out.code == 0 {
        let line = out.fact(0)["cgroup"].to_string();
        assert!(!line.contains(".."), "{line}");
    } else {
        out.fails();
    }
    t.nothing_left(&b);
}

/// /proc/self/cgroup names the container's path in each hierarchy.
fn the_program_is_in_its_cgroup(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["report", "cgroup"]);
    for line in t.report(&b)["cgroup"].as_array().unwrap() {
        assert!(line.as_str().unwrap().ends_with(b.cgroup()), "{line}");
    }
}

/// A process of the harness in the container's cgroup of one hierarchy.
fn occupied(t: &Test, b: &Bundle, controller: &str) -> corten_integration::driver::Running {
    occupied_at(t, &b.cgroup_dir(controller))
}

fn empty(b: &Bundle, controller: &str) {
    wait_until("the cgroup is empty", || b.cgroup_file(controller, "cgroup.procs").is_empty());
    fs::remove_dir(b.cgroup_dir(controller)).unwrap();
}

/// A group with processes in it is somebody's: refused, and left alone.
fn a_cgroup_with_processes_is_refused(t: &Test) {
    t.skip_on(Flavour::Crun, "doesn't look");
    t.skip_on(Flavour::Runc, "1.1 only warns");
    v1(t);
    let b = t.bundle();
    let mut stranger = occupied(t, &b, "pids");
    t.create(&b).fails().says("cgroup is not empty");
    stranger.wait_for("in");
    assert_eq!(b.cgroup_file("pids", "cgroup.procs"), stranger.pid().to_string());
    drop(stranger);
    empty(&b, "pids");
    assert!(!t.root().join(&b.id).exists());
}

/// A frozen group would freeze the init: refused, and left frozen.
fn a_frozen_cgroup_is_refused(t: &Test) {
    t.skip_on(Flavour::Crun, "hangs");
    v1(t);
    let b = t.bundle();
    let dir = b.cgroup_dir("freezer");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("freezer.state"), "FROZEN").unwrap();
    t.create(&b).fails().says("frozen");
    assert_eq!(b.cgroup_file("freezer", "freezer.state"), "FROZEN");
    fs::write(dir.join("freezer.state"), "THAWED").unwrap();
    fs::remove_dir(&dir).unwrap();
    t.nothing_left(&b);
}

/// An empty group that exists is used.
fn an_empty_existing_cgroup_is_fine(t: &Test) {
    let b = t.bundle();
    fs::create_dir_all(b.cgroup_dir("pids")).unwrap();
    t.run(&b).ok();
    cgroups::remove(&cgroups::tagged(&t.tag));
}

/// The second container with the same cgroup is refused; the first is unharmed.
fn two_containers_cannot_share_one(t: &Test) {
    t.skip_on_peers("only warn, or don't look");
    let mut b = t.bundle();
    t.sleeper(&mut b);
    let mut other = t.bundle();
    other.set("linux.cgroupsPath", json!(b.cgroup()));
    t.create(&other).fails().says("cgroup is not empty");
    assert_eq!(t.status(&b.id), "running");
    assert_eq!(number(&b, "pids", "pids.current"), 1);
}

/// A process in a group below the container's ends with `delete --force`, pid namespace or not.
fn kill_reaches_sub_cgroups(t: &Test) {
    let mut b = t.bundle();
    b.no_namespace("pid").probe(&["orphan", ";", "sleep"]);
    t.create(&b).ok();
    t.start(&b.id).ok();
    wait_until("the orphan lives", || b.cgroup_file("pids", "cgroup.procs").lines().count() == 2);
    let pid = t.pid(&b.id).to_string();
    let procs = b.cgroup_file("pids", "cgroup.procs");
    let orphan = procs.lines().find(|p| *p != pid).unwrap();
    for controller in ["pids", "memory", "freezer", "devices"] {
        let sub = b.cgroup_dir(controller).join("sub/sub");
        fs::create_dir_all(&sub).unwrap();
        fs::write(sub.join("cgroup.procs"), orphan).unwrap();
    }
    t.force(&b.id).ok();
    t.nothing_left(&b);
}

/// Groups that somebody made below the container's go with it.
fn delete_removes_sub_cgroups(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["exit", "0"]);
    t.create(&b).ok();
    for controller in ["pids", "memory", "cpu"] {
        fs::create_dir_all(b.cgroup_dir(controller).join("a/b/c")).unwrap();
    }
    t.start(&b.id).ok();
    t.wait_status(&b.id, "stopped");
    t.delete(&b.id).ok();
    t.nothing_left(&b);
}

/// pause freezes what is below as well.
fn pause_freezes_sub_cgroups(t: &Test) {
    v1(t);
    let mut b = t.bundle();
    t.sleeper(&mut b);
    let sub = b.cgroup_dir("freezer").join("sub");
    fs::create_dir(&sub).unwrap();
    t.call(&["pause", &b.id]).ok();
    assert_eq!(fs::read_to_string(sub.join("freezer.state")).unwrap().trim(), "FROZEN");
    t.call(&["resume", &b.id]).ok();
    assert_eq!(fs::read_to_string(sub.join("freezer.state")).unwrap().trim(), "THAWED");
}
