//! `create` and `start`, out of order, many of them, and at once.

use std::fs;
use std::process::Command;

use corten_integration::suite::Case;
use corten_integration::{Flavour, Test, tests};

pub(crate) const TESTS: &[Case] = tests![
    create_does_not_start_the_program,
    created_output_goes_to_the_streams_of_create,
    the_container_is_left_to_the_caller,
    a_used_id_already_exists,
    start_twice_is_refused,
    start_of_a_stopped_container_is_refused,
    many_lives_one_after_the_other,
    many_creates_at_once,
    one_of_two_creates_wins,
    the_program_may_end_before_start_returns,
];

/// `create` sets everything up, but the user's program doesn't run before `start`.
fn create_does_not_start_the_program(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["create", "/started", "x"]);
    t.create(&b).ok();
    assert_eq!(t.status(&b.id), "created");
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert!(!b.rootfs().join("started").exists(), "it ran before start");
    t.start(&b.id).ok();
    t.wait_status(&b.id, "stopped");
    assert!(b.rootfs().join("started").exists(), "it didn't run after start");
    t.delete(&b.id).ok();
}

/// The program's streams are those of the `create` command.
fn created_output_goes_to_the_streams_of_create(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["print", "from inside"]);
    b.write();
    let out = t.dir.join("stream");
    let line =
        format!("$RUNTIME --root $ROOT create --bundle {} {} >{}", b.path(), b.id, out.display());
    t.shell(&line).ok();
    let start = t.start(&b.id).ok();
    t.wait_status(&b.id, "stopped");
    assert_eq!(fs::read_to_string(out).unwrap().trim(), "\"from inside\"");
    assert_eq!(start.stdout, "");
}

/// The first process becomes a child of the caller's subreaper, which gets its exit code.
fn the_container_is_left_to_the_caller(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["exit", "7"]);
    t.create(&b).ok();
    let pid = t.pid(&b.id);
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let parent = stat.rsplit_once(") ").unwrap().1.split(' ').nth(1).unwrap();
    assert_eq!(parent, std::process::id().to_string());
    t.start(&b.id).ok();
    assert_eq!(t.exit_code(pid), 7);
    assert_eq!(t.status(&b.id), "stopped");
}

/// A second create with an id in use fails with "already exists" and doesn't disturb the first.
fn a_used_id_already_exists(t: &Test) {
    let mut b = t.bundle();
    let pid = t.sleeper(&mut b);
    let mut other = t.bundle();
    other.id.clone_from(&b.id);
    other.probe(&["create", "/ran", ""]);
    t.create(&other).fails().says("already exists");
    t.run(&other).fails().says("already exists");
    assert!(!other.rootfs().join("ran").exists());
    assert_eq!(t.pid(&b.id), pid);
    assert_eq!(t.status(&b.id), "running");
    t.kill(&b.id, "KILL").ok();
    t.wait_status(&b.id, "stopped");
    t.create(&other).fails().says("already exists");
}

/// `start` needs a created container.
fn start_twice_is_refused(t: &Test) {
    let mut b = t.bundle();
    let pid = t.sleeper(&mut b);
    t.start(&b.id).fails().says("cannot start an already running container|`running` state");
    assert_eq!(t.pid(&b.id), pid);
    assert_eq!(t.status(&b.id), "running");
}

/// `start` of a stopped container has no effect but an error.
fn start_of_a_stopped_container_is_refused(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["append", "/count", "x"]);
    t.create(&b).ok();
    t.start(&b.id).ok();
    t.wait_status(&b.id, "stopped");
    t.start(&b.id)
        .fails()
        .says("cannot start a container that has stopped|not running|`stopped` state");
    assert_eq!(t.status(&b.id), "stopped");
    assert_eq!(fs::read_to_string(b.rootfs().join("count")).unwrap(), "x");
}

/// Ten lives in a row with the same id leave nothing.
fn many_lives_one_after_the_other(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["exit", "0"]);
    for _ in 0..10 {
        t.create(&b).ok();
        t.start(&b.id).ok();
        t.wait_status(&b.id, "stopped");
        t.delete(&b.id).ok();
    }
    t.nothing_left(&b);
}

/// Eight creates at the same time don't hinder each other.
fn many_creates_at_once(t: &Test) {
    let bundles: Vec<_> = (0..8).map(|_| t.bundle()).collect();
    let creates: Vec<_> = bundles
        .iter()
        .map(|b| {
            b.write();
            t.spawn(&["create", "--bundle", b.path(), &b.id])
        })
        .collect();
    for create in creates {
        create.wait().ok();
    }
    assert_eq!(t.call(&["list", "-q"]).ok().stdout.lines().count(), 8);
    let deletes: Vec<_> = bundles.iter().map(|b| t.spawn(&["delete", "--force", &b.id])).collect();
    for delete in deletes {
        delete.wait().ok();
    }
}

/// Of two creates with the same id at the same time exactly one succeeds.
fn one_of_two_creates_wins(t: &Test) {
    t.skip_on(Flavour::Crun, "both may fail");
    t.skip_on(Flavour::Runc, "1.1 checks and creates the directory in two steps");
    for _ in 0..5 {
        let (a, mut b) = (t.bundle(), t.bundle());
        b.id.clone_from(&a.id);
        a.write();
        b.set("linux.cgroupsPath", a.config["linux"]["cgroupsPath"].clone()).write();
        let both = [&a, &b].map(|x| t.spawn(&["create", "--bundle", x.path(), &x.id]));
        let ends = both.map(|running| running.wait());
        assert_eq!(ends.iter().filter(|end| end.code == 0).count(), 1, "{ends:?}");
        let loser = ends.iter().find(|end| end.code != 0).unwrap();
        loser.clone().says("already exists");
        assert_eq!(t.status(&a.id), "created");
        t.force(&a.id).ok();
        t.nothing_left(&a);
    }
}

/// A program that ends at once is no failure of `start`.
fn the_program_may_end_before_start_returns(t: &Test) {
    for _ in 0..5 {
        let mut b = t.bundle();
        b.probe(&["exit", "0"]);
        t.create(&b).ok();
        t.start(&b.id).ok();
        t.wait_status(&b.id, "stopped");
    }
    // The same from a shell, where nothing waits between the commands.
    let mut b = t.bundle();
    b.probe(&["exit", "0"]).write();
    let mut shell = Command::new("/bin/sh");
    let line = "$RUNTIME --root $ROOT create --bundle $B $ID && $RUNTIME --root $ROOT start $ID";
    shell.arg("-c").arg(line).env("RUNTIME", &t.runtime).env("ROOT", t.root());
    shell.env("B", b.path()).env("ID", &b.id);
    t.execute(shell).ok();
}
