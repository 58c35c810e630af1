//! The life of a container: create, start, state, kill, delete, run, in and out of order.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, ExitCode};

use corten_integration::driver::wait_until;
use corten_integration::{Flavour, Test, suite, tests};
use nix::sys::signal::Signal;
use serde_json::json;

fn main() -> ExitCode {
    suite(tests![
        run_prints_and_exits,
        run_returns_the_exit_code,
        run_deletes_the_container,
        run_keep_leaves_it_stopped,
        run_detached_returns_after_start,
        run_passes_stdin,
        run_forwards_signals,
        run_of_a_killed_program_is_137,
        create_does_not_start_the_program,
        created_output_goes_to_the_streams_of_create,
        state_has_the_fields_of_the_specification,
        state_follows_the_life,
        state_of_a_stopped_container_has_no_pid,
        the_container_is_left_to_the_caller,
        an_unknown_id_does_not_exist,
        a_used_id_already_exists,
        start_twice_is_refused,
        start_of_a_stopped_container_is_refused,
        kill_of_a_stopped_container_is_refused,
        delete_of_a_running_container_is_refused,
        delete_of_a_created_container_kills_it,
        delete_removes_everything,
        force_kills_and_removes,
        force_of_an_unknown_id_succeeds,
        force_works_in_every_status,
        kill_takes_every_spelling_of_a_signal,
        kill_of_a_bad_signal_is_refused,
        kill_works_on_a_created_container,
        kill_without_pid_namespace_ends_the_whole_cgroup,
        kill_all_is_accepted,
        pause_and_resume,
        pause_and_resume_out_of_order,
        a_paused_container_can_be_killed,
        a_created_container_can_be_paused,
        ps_lists_the_processes,
        list_shows_the_containers,
        list_of_nothing,
        pid_file_holds_the_pid,
        a_pid_file_left_half_written,
        a_pid_file_that_cannot_be_written_fails_create,
        the_bundle_defaults_to_the_current_directory,
        the_bundle_may_be_relative,
        root_path_may_be_absolute,
        root_path_may_lead_through_the_bundle_by_symlink,
        edits_after_create_have_no_effect,
        the_bundle_may_be_gone_before_delete,
        many_lives_one_after_the_other,
        many_creates_at_once,
        one_of_two_creates_wins,
        zombies_are_not_waited_for,
        orphans_end_with_the_container,
        the_program_may_end_before_start_returns,
    ])
}

/// A foreground run passes the program's output on and returns 0.
fn run_prints_and_exits(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["print", "hello", ";", "eprint", "there"]);
    let out = t.run(&b).ok();
    assert_eq!(out.fact(0), "hello");
    assert!(out.stderr.contains("there"));
}

/// A foreground run returns the program's exit code.
fn run_returns_the_exit_code(t: &Test) {
    for code in [1, 42, 125, 255] {
        let mut b = t.bundle();
        b.probe(&["exit", &code.to_string()]);
        t.run(&b).exits(code);
    }
}

/// After a foreground run the container is gone without a delete.
fn run_deletes_the_container(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["exit", "0"]);
    t.run(&b).ok();
    t.nothing_left(&b);
    t.state(&b.id).fails().says("does not exist");
}

/// `run --keep` leaves a stopped container for `delete`.
fn run_keep_leaves_it_stopped(t: &Test) {
    t.skip_on(Flavour::Crun, "--keep is newer than 1.8 in its effect");
    let mut b = t.bundle();
    b.probe(&["exit", "3"]);
    b.write();
    t.call(&["run", "--keep", "--bundle", b.path(), &b.id]).exits(3);
    assert_eq!(t.status(&b.id), "stopped");
    t.delete(&b.id).ok();
    t.nothing_left(&b);
}

/// `run --detach` returns 0 while the program runs on.
fn run_detached_returns_after_start(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["sleep"]);
    b.write();
    t.call(&["run", "--detach", "--bundle", b.path(), &b.id]).ok();
    assert_eq!(t.status(&b.id), "running");
    let pid = t.wait_asleep(&b.id);
    t.kill(&b.id, "TERM").ok();
    assert_eq!(t.exit_code(pid), 143);
    t.delete(&b.id).ok();
}

/// Standard input of a foreground run is the program's.
fn run_passes_stdin(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["stdin"]);
    b.write();
    let line = format!("echo fed | $RUNTIME --root $ROOT run --bundle {} {}", b.path(), b.id);
    assert_eq!(t.shell(&line).ok().fact(0)["stdin"], "fed\n");
}

/// A foreground run forwards the signals it gets, and returns what the program then returns.
fn run_forwards_signals(t: &Test) {
    for (signal, code) in [(Signal::SIGTERM, 143), (Signal::SIGINT, 130), (Signal::SIGUSR1, 138)] {
        let mut b = t.bundle();
        b.probe(&["print", "up", ";", "sleep"]);
        b.write();
        let mut run = t.spawn(&["run", "--bundle", b.path(), &b.id]);
        run.wait_for("up");
        t.wait_asleep(&b.id);
        run.signal(signal);
        run.wait().exits(code);
        t.nothing_left(&b);
    }
}

/// A program killed by SIGKILL makes the run return 137.
fn run_of_a_killed_program_is_137(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["print", "up", ";", "sleep"]);
    b.write();
    let mut run = t.spawn(&["run", "--bundle", b.path(), &b.id]);
    run.wait_for("up");
    t.kill(&b.id, "KILL").ok();
    run.wait().exits(137);
}

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

/// State is JSON with ociVersion, id, status, pid, bundle and annotations.
fn state_has_the_fields_of_the_specification(t: &Test) {
    let mut b = t.bundle();
    b.set("annotations", json!({"org.example.key": "värde", "other": ""}));
    let pid = t.sleeper(&mut b);
    let state = t.state(&b.id).ok().json();
    assert!(state["ociVersion"].as_str().unwrap().starts_with("1."), "{state}");
    assert_eq!(state["id"], json!(b.id));
    assert_eq!(state["status"], "running");
    assert_eq!(state["bundle"], json!(b.path()));
    assert_eq!(state["annotations"]["org.example.key"], "värde");
    assert_eq!(state["annotations"]["other"], "");
    let environ = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    assert!(environ.starts_with(b"/probe\0sleep"), "pid is the program's, seen from the host");
}

/// Status goes from created to running to stopped.
fn state_follows_the_life(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["sleep"]);
    t.create(&b).ok();
    assert_eq!(t.status(&b.id), "created");
    t.start(&b.id).ok();
    assert_eq!(t.status(&b.id), "running");
    t.kill(&b.id, "KILL").ok();
    t.wait_status(&b.id, "stopped");
    t.delete(&b.id).ok();
    t.state(&b.id).fails().says("does not exist");
}

/// A stopped container has no process, so its pid is 0 or absent.
fn state_of_a_stopped_container_has_no_pid(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["exit", "0"]);
    t.create(&b).ok();
    t.start(&b.id).ok();
    t.wait_status(&b.id, "stopped");
    let state = t.state(&b.id).ok().json();
    assert_eq!(state["pid"].as_i64().unwrap_or(0), 0, "{state}");
    assert_eq!(state["bundle"], json!(b.path()));
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

/// Every command on an unknown id fails with "does not exist".
fn an_unknown_id_does_not_exist(t: &Test) {
    t.skip_on(Flavour::Crun, "crashes on one of them");
    let b = t.bundle();
    for verb in ["start", "state", "kill", "delete", "pause", "resume", "ps"] {
        t.call(&[verb, &b.id]).fails().says("does not exist");
    }
    t.exec(&b.id, &[], &["report"]).fails().says("does not exist");
    t.nothing_left(&b);
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

/// `kill` of a stopped container fails with the words that managers look for.
fn kill_of_a_stopped_container_is_refused(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["exit", "0"]);
    t.create(&b).ok();
    t.start(&b.id).ok();
    t.wait_status(&b.id, "stopped");
    t.kill(&b.id, "TERM").fails().says("container not running|is not running");
}

/// `delete` of a running container has no effect but an error.
fn delete_of_a_running_container_is_refused(t: &Test) {
    let mut b = t.bundle();
    let pid = t.sleeper(&mut b);
    t.delete(&b.id).fails().says("not stopped");
    assert_eq!(t.status(&b.id), "running");
    assert_eq!(t.pid(&b.id), pid);
}

/// containerd deletes created containers without --force, so that is allowed and kills the init.
fn delete_of_a_created_container_kills_it(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["create", "/ran", ""]);
    t.create(&b).ok();
    t.delete(&b.id).ok();
    t.nothing_left(&b);
    assert!(!b.rootfs().join("ran").exists());
}

/// After `delete` of a stopped container there is no state, no cgroup, no mount; the id is free.
fn delete_removes_everything(t: &Test) {
    let mut b = t.bundle();
    for _ in 0..2 {
        b.probe(&["exit", "0"]);
        t.create(&b).ok();
        t.start(&b.id).ok();
        t.wait_status(&b.id, "stopped");
        t.delete(&b.id).ok();
        t.nothing_left(&b);
    }
    t.delete(&b.id).fails().says("does not exist");
}

/// `delete --force` ends a program that ignores every signal, and removes the container.
fn force_kills_and_removes(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["ignore", "1", "2", "15", ";", "print", "deaf", ";", "orphan", ";", "sleep", "1000"]);
    t.create(&b).ok();
    t.start(&b.id).ok();
    let pid = t.pid(&b.id);
    t.force(&b.id).ok();
    t.nothing_left(&b);
    assert!(!fs::exists(format!("/proc/{pid}/exe")).unwrap() || t.exit_code(pid) == 137);
}

/// `delete --force` of what doesn't exist succeeds silently, as often as you like.
fn force_of_an_unknown_id_succeeds(t: &Test) {
    let b = t.bundle();
    for _ in 0..2 {
        t.force(&b.id).ok();
    }
}

/// `delete --force` works on created, running, paused and stopped containers, and twice.
fn force_works_in_every_status(t: &Test) {
    for status in ["created", "running", "paused", "stopped"] {
        let mut b = t.bundle();
        b.probe(&["sleep"]);
        t.create(&b).ok();
        if status != "created" {
            t.start(&b.id).ok();
        }
        match status {
            "paused" => drop(t.call(&["pause", &b.id]).ok()),
            "stopped" => drop(t.kill(&b.id, "KILL").ok()),
            _ => {}
        }
        t.wait_status(&b.id, status);
        t.force(&b.id).ok();
        t.nothing_left(&b);
        t.force(&b.id).ok();
    }
}

/// P6: no signal is SIGTERM; a number, a name with or without SIG, in any case.
fn kill_takes_every_spelling_of_a_signal(t: &Test) {
    t.skip_on(Flavour::Crun, "knows upper case only");
    for (spelling, code) in [
        ("", 143),
        ("15", 143),
        ("TERM", 143),
        ("SIGINT", 130),
        ("sigint", 130),
        ("hup", 129),
        ("10", 138),
        ("KILL", 137),
    ] {
        let mut b = t.bundle();
        b.probe(&["print", "up", ";", "sleep"]);
        t.create(&b).ok();
        t.start(&b.id).ok();
        let pid = t.wait_asleep(&b.id);
        let args: Vec<&str> =
            ["kill", &b.id, spelling].into_iter().filter(|a| !a.is_empty()).collect();
        t.call(&args).ok();
        assert_eq!(t.exit_code(pid), code, "signal {spelling:?}");
    }
}

/// A signal that doesn't exist is an error and nothing is sent.
fn kill_of_a_bad_signal_is_refused(t: &Test) {
    t.skip_on(Flavour::Crun, "takes NOPE for 0");
    let mut b = t.bundle();
    t.sleeper(&mut b);
    for signal in ["NOPE", "SIGNOPE", "-5", "9999", "1x"] {
        t.kill(&b.id, signal).fails();
    }
    assert_eq!(t.status(&b.id), "running");
}

/// A created container can be killed; it is then stopped and its program never ran.
fn kill_works_on_a_created_container(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["create", "/ran", ""]);
    t.create(&b).ok();
    t.kill(&b.id, "KILL").ok();
    t.wait_status(&b.id, "stopped");
    t.start(&b.id).fails();
    assert!(!b.rootfs().join("ran").exists());
    t.delete(&b.id).ok();
    t.nothing_left(&b);
}

/// SIGKILL of a container that shares the host's pid namespace ends everything in its cgroup.
fn kill_without_pid_namespace_ends_the_whole_cgroup(t: &Test) {
    t.skip_on_peers("only kill --all does it before runc 1.2");
    let mut b = t.bundle();
    b.no_namespace("pid").probe(&["orphan", ";", "orphan", ";", "sleep"]);
    t.create(&b).ok();
    t.start(&b.id).ok();
    wait_until("two orphans live", || b.cgroup_file("pids", "cgroup.procs").lines().count() == 3);
    t.kill(&b.id, "KILL").ok();
    wait_until("the cgroup is empty", || b.cgroup_file("pids", "cgroup.procs").is_empty());
    t.wait_status(&b.id, "stopped");
    t.delete(&b.id).ok();
}

/// `kill --all` and `-a` reach every process; on a stopped container they are no error.
fn kill_all_is_accepted(t: &Test) {
    let mut b = t.bundle();
    b.no_namespace("pid").probe(&["orphan", ";", "sleep"]);
    t.create(&b).ok();
    t.start(&b.id).ok();
    wait_until("the orphan lives", || b.cgroup_file("pids", "cgroup.procs").lines().count() == 2);
    t.call(&["kill", "--all", &b.id, "KILL"]).ok();
    t.wait_status(&b.id, "stopped");
    wait_until("the cgroup is empty", || b.cgroup_file("pids", "cgroup.procs").is_empty());
    if t.flavour != Flavour::Crun {
        t.call(&["kill", "-a", &b.id, "KILL"]).ok();
    }
}

/// `pause` freezes, `resume` thaws; `state` says paused between.
fn pause_and_resume(t: &Test) {
    let mut b = t.bundle();
    t.sleeper(&mut b);
    t.call(&["pause", &b.id]).ok();
    assert_eq!(t.status(&b.id), "paused");
    assert!(b.is_frozen());
    t.call(&["resume", &b.id]).ok();
    assert_eq!(t.status(&b.id), "running");
    assert!(!b.is_frozen());
}

/// `pause` and `resume` in the wrong status are errors with the peers' words.
fn pause_and_resume_out_of_order(t: &Test) {
    t.skip_on(Flavour::Crun, "other words, and resume of a running container succeeds");
    let mut b = t.bundle();
    t.sleeper(&mut b);
    t.call(&["resume", &b.id]).fails().says("not paused");
    t.call(&["pause", &b.id]).ok();
    t.call(&["pause", &b.id]).fails().says("not running|paused");
    t.delete(&b.id).fails();
    t.call(&["resume", &b.id]).ok();
    t.kill(&b.id, "KILL").ok();
    t.wait_status(&b.id, "stopped");
    t.call(&["pause", &b.id]).fails().says("not running");
    t.call(&["resume", &b.id]).fails().says("not paused|not running");
}

/// SIGKILL reaches a frozen container.
fn a_paused_container_can_be_killed(t: &Test) {
    t.skip_on(Flavour::Crun, "the signal stays pending until resume");
    let mut b = t.bundle();
    t.sleeper(&mut b);
    t.call(&["pause", &b.id]).ok();
    t.kill(&b.id, "KILL").ok();
    t.wait_status(&b.id, "stopped");
    t.delete(&b.id).ok();
    t.nothing_left(&b);
}

/// A created container can be paused too.
fn a_created_container_can_be_paused(t: &Test) {
    t.skip_on(Flavour::Crun, "goes on saying created");
    let mut b = t.bundle();
    b.probe(&["exit", "0"]);
    t.create(&b).ok();
    t.call(&["pause", &b.id]).ok();
    assert_eq!(t.status(&b.id), "paused");
    t.call(&["resume", &b.id]).ok();
    assert_eq!(t.status(&b.id), "created");
}

/// `ps --format json` is one array of pids; the table is `ps`'s with the container's lines only.
fn ps_lists_the_processes(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["orphan", ";", "sleep"]);
    t.create(&b).ok();
    t.start(&b.id).ok();
    let pid = t.pid(&b.id);
    wait_until("the orphan lives", || b.cgroup_file("pids", "cgroup.procs").lines().count() == 2);
    let all = t.call(&["ps", "--format", "json", &b.id]).ok().json();
    assert_eq!(all.as_array().unwrap().len(), 2);
    assert!(all.as_array().unwrap().contains(&json!(pid)));
    t.skip_on(Flavour::Crun, "ps takes no arguments for ps");
    // ps(1) may look at a process in the middle of something; in the end it sees both.
    wait_until("ps shows the header and both processes", || {
        let table = t.call(&["ps", &b.id]).ok().stdout;
        table.lines().next().is_some_and(|header| header.contains("PID"))
            && table.lines().count() == 3
            && table.contains("/probe orphan")
    });
    let table = t.call(&["ps", &b.id, "-o", "pid,comm"]).ok().stdout;
    assert!(table.lines().next().unwrap().contains("COMMAND"), "{table}");
    assert!(table.contains(&pid.to_string()), "{table}");
    t.call(&["ps", "--format", "yaml", &b.id]).fails();
}

/// `list` knows a table, JSON and ids only.
fn list_shows_the_containers(t: &Test) {
    let mut first = t.bundle();
    let pid = t.sleeper(&mut first);
    let mut second = t.bundle();
    second.probe(&["exit", "0"]);
    t.create(&second).ok();
    let table = t.call(&["list"]).ok().stdout;
    let header: Vec<&str> = table.lines().next().unwrap().split_whitespace().collect();
    if t.flavour != Flavour::Crun {
        assert_eq!(header, ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]);
    }
    let line = table.lines().find(|l| l.starts_with(&first.id)).unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words[..4], [&first.id, &pid.to_string(), "running", first.path()]);
    assert_eq!(words.last(), Some(&"root"));
    let quiet = t.call(&["list", "-q"]).ok().stdout;
    let mut ids: Vec<&str> = quiet.split_whitespace().collect();
    ids.sort_unstable();
    assert_eq!(ids, [&first.id, &second.id]);
    let all = t.call(&["list", "--format", "json"]).ok().json();
    let mine = all.as_array().unwrap().iter().find(|c| c["id"] == json!(first.id)).unwrap();
    assert_eq!(mine["status"], "running");
    assert_eq!(mine["pid"], json!(pid));
    assert_eq!(mine["owner"], "root");
    assert!(mine["created"].as_str().unwrap().contains('T'), "an RFC 3339 time: {mine}");
    t.skip_on(Flavour::Crun, "any format is a table");
    t.call(&["list", "--format", "yaml"]).fails();
}

/// `list` with an empty state directory prints no container.
fn list_of_nothing(t: &Test) {
    fs::create_dir(t.root()).unwrap();
    assert_eq!(t.call(&["list", "-q"]).ok().stdout.trim(), "");
    assert_eq!(t.call(&["list"]).ok().stdout.lines().count(), 1);
}

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

/// Dead children that nobody waited for don't keep a container from being stopped and deleted.
fn zombies_are_not_waited_for(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["zombie", ";", "zombie", ";", "sleep"]);
    t.create(&b).ok();
    t.start(&b.id).ok();
    t.kill(&b.id, "KILL").ok();
    t.wait_status(&b.id, "stopped");
    t.delete(&b.id).ok();
    t.nothing_left(&b);
}

/// When the first process of the pid namespace ends, so does everything it left.
fn orphans_end_with_the_container(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["orphan", ";", "orphan", ";", "exit", "5"]);
    t.run(&b).exits(5);
    t.nothing_left(&b);
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
