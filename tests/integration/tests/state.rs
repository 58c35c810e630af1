//! What is recorded of a container stays true and removable: after crashes, with broken files, with
//! a pid that somebody else has now, on a full disk.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use corten_integration::driver::wait_until;
use corten_integration::journal::{edit, json_of, signed};
use corten_integration::{Bundle, Flavour, Test, suite, tests};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

fn main() -> ExitCode {
    suite(tests![
        killed_create_is_deletable,
        killed_run_is_deletable,
        killed_start_is_deletable,
        killed_exec_leaves_the_container_well,
        killed_delete_can_be_repeated,
        killed_create_frees_the_id_after_delete,
        terminated_create_cleans_up,
        broken_journal_is_deletable,
        broken_journal_is_reported_and_skipped_by_list,
        missing_journal_is_deletable,
        foreign_names_in_the_root_do_no_harm,
        reused_pid_is_stopped,
        reused_pid_is_never_signalled,
        reused_pid_may_be_a_threads,
        reused_pid_within_a_tick,
        another_boot_is_stopped,
        files_are_private,
        root_is_made_private,
        full_disk_fails_cleanly,
        unwritable_root_fails_cleanly,
        commands_at_the_same_time,
        deletes_at_the_same_time,
        a_slow_start_blocks_nobody_who_asks,
    ])
}

/// How long a create takes here and now.
fn pace(t: &Test) -> Duration {
    let mut b = t.bundle();
    b.probe(&["exit", "0"]);
    t.create(&b).ok();
    t.force(&b.id).ok();
    let start = Instant::now();
    t.create(&b).ok();
    let pace = start.elapsed();
    t.force(&b.id).ok();
    pace
}

/// Runs a command of the runtime and kills it after `delay`.
fn killed_after(t: &Test, args: &[&str], delay: Duration) {
    let running = t.spawn(args);
    let until = Instant::now() + delay;
    while Instant::now() < until {
        std::hint::spin_loop();
    }
    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(running.pid()), Signal::SIGKILL);
    running.wait();
}

/// Wherever `create` is killed, the container can be looked at, and `delete --force` leaves nothing.
fn killed_create_is_deletable(t: &Test) {
    t.skip_on_peers("no journal before the resources");
    let pace = pace(t);
    let mut b = t.bundle();
    b.set("linux.resources.memory", json!({"limit": 64 << 20})).namespace("cgroup", None);
    b.probe(&["create", "/ran", ""]).write();
    for n in 0..60 {
        killed_after(t, &["create", "--bundle", b.path(), &b.id], pace * n / 50);
        t.call(&["list"]).ok();
        t.state(&b.id);
        t.force(&b.id).ok();
        t.nothing_left(&b);
        assert!(!b.rootfs().join("ran").exists(), "the program ran");
    }
}

/// The same for a foreground run.
fn killed_run_is_deletable(t: &Test) {
    t.skip_on_peers("no journal before the resources");
    let pace = pace(t);
    let mut b = t.bundle();
    b.probe(&["sleep"]).write();
    for n in 0..30 {
        killed_after(t, &["run", "--bundle", b.path(), &b.id], pace * n / 20);
        t.force(&b.id).ok();
        t.nothing_left(&b);
    }
}

/// A killed `start` leaves a container that is created, running or stopped, and deletable.
fn killed_start_is_deletable(t: &Test) {
    let pace = pace(t);
    for n in 0..12 {
        let mut b = t.bundle();
        b.probe(&["sleep"]);
        t.create(&b).ok();
        killed_after(t, &["start", &b.id], pace * n / 20);
        let status = t.status(&b.id);
        assert!(["created", "running", "stopped"].contains(&status.as_str()), "{status}");
        t.force(&b.id).ok();
        t.nothing_left(&b);
    }
}

/// A killed `exec` doesn't harm the container.
fn killed_exec_leaves_the_container_well(t: &Test) {
    let pace = pace(t);
    let mut b = t.bundle();
    t.sleeper(&mut b);
    for n in 0..15 {
        killed_after(t, &["exec", &b.id, "/probe", "print", "x"], pace * n / 15);
        assert_eq!(t.status(&b.id), "running");
    }
    assert_eq!(t.exec(&b.id, &[], &["print", "well"]).ok().fact(0), "well");
}

/// A killed `delete` can be repeated.
fn killed_delete_can_be_repeated(t: &Test) {
    let pace = pace(t);
    for n in 0..15 {
        let mut b = t.bundle();
        t.sleeper(&mut b);
        killed_after(t, &["delete", "--force", &b.id], pace * n / 20);
        t.force(&b.id).ok();
        t.nothing_left(&b);
    }
}

/// After that the same id works again.
fn killed_create_frees_the_id_after_delete(t: &Test) {
    t.skip_on_peers("no journal before the resources");
    let pace = pace(t);
    let mut b = t.bundle();
    b.probe(&["print", "again"]).write();
    for n in 1..6 {
        killed_after(t, &["create", "--bundle", b.path(), &b.id], pace * n / 6);
        t.force(&b.id).ok();
        assert_eq!(t.run(&b).ok().fact(0), "again");
    }
}

/// SIGTERM during `create` (a manager that gives up) leaves nothing, or a deletable container.
fn terminated_create_cleans_up(t: &Test) {
    t.skip_on_peers("leave the container");
    let mut b = t.bundle();
    b.push("hooks.createRuntime", json!({"path": "/bin/sleep", "args": ["sleep", "1000"]}));
    b.write();
    let running = t.spawn(&["create", "--bundle", b.path(), &b.id]);
    wait_until("the journal exists", || t.root().join(&b.id).join("state.json").exists());
    running.signal(Signal::SIGTERM);
    let out = running.wait();
    assert_ne!(out.code, 0);
    t.force(&b.id).ok();
    t.end_orphans();
    t.nothing_left(&b);
}

fn journal(t: &Test, b: &Bundle) -> PathBuf {
    t.root().join(&b.id).join("state.json")
}

/// Empty, cut off, garbage, of another version: `delete --force` works and leaves nothing.
fn broken_journal_is_deletable(t: &Test) {
    t.skip_on_peers("leave the cgroup and the process");
    let broken: [fn(String) -> String; 7] = [
        |_| String::new(),
        |text| text[..text.len() / 2].to_owned(),
        |_| "garbage".to_owned(),
        |_| "{}".to_owned(),
        |_| "[1, 2]".to_owned(),
        |text| text.replacen("\"format\":2", "\"format\":999", 1),
        |text| signed(&json_of(&text).replacen("\"format\":2", "\"format\":999", 1)),
    ];
    for (n, how) in broken.iter().enumerate() {
        for running in [false, true] {
            let mut b = t.bundle();
            b.probe(&["sleep"]);
            t.create(&b).ok();
            if running {
                t.start(&b.id).ok();
            }
            let text = fs::read_to_string(journal(t, &b)).unwrap();
            fs::write(journal(t, &b), how(text)).unwrap();
            let state = t.state(&b.id);
            assert!(state.code != 0 || state.json()["status"].is_string(), "{n}: {state}");
            t.force(&b.id).ok();
            t.nothing_left(&b);
        }
    }
}

/// One broken container doesn't hide the others.
fn broken_journal_is_reported_and_skipped_by_list(t: &Test) {
    t.skip_on(Flavour::Crun, "stops at it");
    let mut good = t.bundle();
    t.sleeper(&mut good);
    let mut bad = t.bundle();
    bad.probe(&["sleep"]);
    t.create(&bad).ok();
    let text = fs::read(journal(t, &bad)).unwrap();
    fs::write(journal(t, &bad), "{").unwrap();
    let out = t.call(&["list", "--format", "json"]).ok();
    let ids: Vec<Value> = out.json().as_array().unwrap().iter().map(|c| c["id"].clone()).collect();
    assert_eq!(ids, [json!(good.id)]);
    assert!(out.stderr.contains(&bad.id), "{out} should name the broken one");
    fs::write(journal(t, &bad), text).unwrap();
}

/// A directory without a journal (a create killed at its first step) is removable.
fn missing_journal_is_deletable(t: &Test) {
    let b = t.bundle();
    fs::create_dir_all(t.root().join(&b.id)).unwrap();
    t.create(&b).fails().says("already exists");
    t.force(&b.id).ok();
    t.nothing_left(&b);
    t.run(&b).ok();
}

/// Files and links that are not ours are neither listed nor followed.
fn foreign_names_in_the_root_do_no_harm(t: &Test) {
    let mut b = t.bundle();
    t.sleeper(&mut b);
    fs::write(t.root().join("file"), "x").unwrap();
    fs::create_dir(t.root().join("empty")).unwrap();
    let out = t.call(&["list", "-q"]).ok();
    assert!(out.stdout.contains(&b.id), "{out}");
    fs::remove_file(t.root().join("file")).unwrap();
    fs::remove_dir(t.root().join("empty")).unwrap();
    t.skip_on_peers("follow it");
    let outside = t.dir.join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("precious"), "x").unwrap();
    std::os::unix::fs::symlink(&outside, t.root().join("link")).unwrap();
    t.force("link");
    assert!(outside.join("precious").exists());
    let _ = fs::remove_file(t.root().join("link"));
}

/// Puts another pid where the first process's is recorded.
fn forge(t: &Test, b: &Bundle, from: i32, to: i32) {
    edit(&journal(t, b), |text| {
        let forged = text.replace(&format!("\"pid\":{from}"), &format!("\"pid\":{to}"));
        forged.replace(&format!("_pid\":{from}"), &format!("_pid\":{to}"))
    });
}

fn stranger(t: &Test) -> corten_integration::driver::Running {
    // A start time counts clock ticks of 10 ms: no pid is used again within one.
    std::thread::sleep(std::time::Duration::from_millis(50));
    let mut command = Command::new("/bin/sleep");
    command.arg("1000").stdin(Stdio::null());
    t.launch(command)
}

/// The recorded pid belongs to another process now (another start time): the container is stopped.
fn reused_pid_is_stopped(t: &Test) {
    t.skip_on_peers("leave the process, or keep the pid elsewhere");
    let mut b = t.bundle();
    let pid = t.sleeper(&mut b);
    let other = stranger(t);
    forge(t, &b, pid, other.pid());
    assert_eq!(t.status(&b.id), "stopped");
    t.kill(&b.id, "KILL").fails();
    t.force(&b.id).ok();
    t.nothing_left(&b);
}

/// Neither kill nor delete --force touches the process that has the pid now.
fn reused_pid_is_never_signalled(t: &Test) {
    t.skip_on(Flavour::Crun, "keeps it elsewhere");
    let mut b = t.bundle();
    let pid = t.sleeper(&mut b);
    let other = stranger(t);
    t.kill(&b.id, "KILL").ok();
    assert_eq!(t.exit_code(pid), 137);
    forge(t, &b, pid, other.pid());
    t.kill(&b.id, "TERM").fails();
    t.force(&b.id).ok();
    t.nothing_left(&b);
    let state = fs::read_to_string(format!("/proc/{}/stat", other.pid())).unwrap();
    assert!(state.contains(") S "), "it sleeps on: {state}");
}

/// The number is that of a thread, even one that began when the process did: it is gone. pidfd_open(2)
/// answers ENOENT or EINVAL then.
fn reused_pid_may_be_a_threads(t: &Test) {
    t.skip_on(Flavour::Crun, "keeps it elsewhere");
    let mut b = t.bundle();
    let pid = t.sleeper(&mut b);
    let start = start_time(pid);
    t.kill(&b.id, "KILL").ok();
    assert_eq!(t.exit_code(pid), 137);
    let (tell, told) = std::sync::mpsc::channel();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        tell.send(nix::unistd::gettid().as_raw()).unwrap();
        let _sender_is_gone = ended.recv();
    });
    let tid = told.recv().unwrap();
    forge(t, &b, pid, tid);
    let text = fs::read_to_string(journal(t, &b)).unwrap();
    let (was, is) =
        (format!("\"start_time\":{start}"), format!("\"start_time\":{}", start_time(tid)));
    if t.flavour == Flavour::Corten {
        assert!(text.contains(&was), "{was} stands in {text}");
    }
    fs::write(journal(t, &b), text.replace(&was, &is)).unwrap();
    t.kill(&b.id, "TERM").fails();
    t.force(&b.id).ok();
    t.nothing_left(&b);
    drop(end);
    thread.join().unwrap();
}

/// Pid and start time are another process's too: the kernel's number of it tells (Linux 6.9).
fn reused_pid_within_a_tick(t: &Test) {
    t.skip_on_peers("go by pid and start time");
    let mut b = t.bundle();
    let pid = t.sleeper(&mut b);
    let text = fs::read_to_string(journal(t, &b)).unwrap();
    let journal_of: serde_json::Value = serde_json::from_str(json_of(&text)).unwrap();
    let Some(inode) = journal_of["init"]["inode"].as_u64() else {
        t.skip("no numbers of processes before Linux 6.9")
    };
    edit(&journal(t, &b), |text| {
        text.replace(&format!("\"inode\":{inode}"), &format!("\"inode\":{}", inode + 1))
    });
    assert_eq!(t.status(&b.id), "stopped");
    t.kill(&b.id, "KILL").fails();
    fs::write(journal(t, &b), text).unwrap();
    assert_eq!(t.pid(&b.id), pid, "it was not signalled");
    assert_eq!(t.status(&b.id), "running");
}

/// Field 22 of /proc/PID/stat, in clock ticks.
fn start_time(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, rest) = stat.rsplit_once(") ").unwrap();
    rest.split(' ').nth(19).unwrap().parse().unwrap()
}

/// After a reboot every recorded process is gone, whatever pid it had.
fn another_boot_is_stopped(t: &Test) {
    t.skip_on_peers("don't record the boot");
    let mut b = t.bundle();
    let pid = t.sleeper(&mut b);
    let text = fs::read_to_string(journal(t, &b)).unwrap();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    edit(&journal(t, &b), |text| text.replace(boot.trim(), "00000000-0000-0000-0000-000000000000"));
    assert_eq!(t.status(&b.id), "stopped");
    fs::write(journal(t, &b), text).unwrap();
    assert_eq!(t.pid(&b.id), pid);
}

/// Nobody else reads or writes what is recorded.
fn files_are_private(t: &Test) {
    t.skip_on_peers("0711 directories and 0644 files");
    let b = t.bundle();
    b.write();
    let line = format!("umask 000; $RUNTIME --root $ROOT create -b {} {}", b.path(), b.id);
    t.shell(&line).ok();
    let dir = t.root().join(&b.id);
    let mode = |path: &PathBuf| fs::symlink_metadata(path).unwrap().permissions().mode() & 0o077;
    assert_eq!(mode(&dir) & 0o066, 0, "{}", dir.display());
    for entry in fs::read_dir(&dir).unwrap().flatten().filter(|e| e.file_name() != "gate") {
        assert_eq!(mode(&entry.path()), 0, "{}", entry.path().display());
    }
}

/// The state directory is made with its parents, for its owner only.
fn root_is_made_private(t: &Test) {
    let b = t.bundle();
    b.write();
    let root = t.dir.join("new/er/root");
    let line = format!(
        "umask 000; $RUNTIME --root {r} run -b {} {}; ls -ld {r}",
        b.path(),
        b.id,
        r = root.display()
    );
    t.shell(&line).ok();
    let mode = fs::metadata(&root).unwrap().permissions().mode();
    assert_eq!(mode & 0o066, 0, "{mode:o}");
}

/// No room for the state: an error with the errno, and nothing else is left.
fn full_disk_fails_cleanly(t: &Test) {
    t.skip_on_peers("leave things");
    fs::create_dir(t.root()).unwrap();
    let mount = |options: &str| {
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", options, "small"]).arg(t.root());
        t.execute(command).ok();
    };
    let umount = || {
        let mut command = Command::new("umount");
        command.arg("-l").arg(t.root());
        t.execute(command).ok();
    };
    for options in
        ["size=4k", "size=8k", "nr_inodes=1", "nr_inodes=2", "nr_inodes=3", "nr_inodes=4"]
    {
        mount(options);
        let b = t.bundle();
        let out = t.create(&b);
        if out.code == 0 {
            t.force(&b.id).ok();
        } else {
            out.fails().says("no space left on device");
        }
        t.nothing_left(&b);
        umount();
    }
}

/// A state directory that can't be made.
fn unwritable_root_fails_cleanly(t: &Test) {
    let b = t.bundle();
    b.write();
    fs::write(t.dir.join("plain"), "").unwrap();
    let root = t.dir.join("plain/root");
    let line = format!("$RUNTIME --root {} create -b {} {}", root.display(), b.path(), b.id);
    t.shell(&line).fails().says("not a directory");
    t.nothing_left(&b);
}

/// Questions and signals from many sides at once.
fn commands_at_the_same_time(t: &Test) {
    let mut b = t.bundle();
    t.sleeper(&mut b);
    let mut all = Vec::new();
    for _ in 0..5 {
        all.push((t.spawn(&["state", &b.id]), true));
        all.push((t.spawn(&["list"]), true));
        all.push((t.spawn(&["ps", "--format", "json", &b.id]), true));
        all.push((t.spawn(&["exec", &b.id, "/probe", "exit", "0"]), true));
        all.push((t.spawn(&["kill", &b.id, "0"]), false));
    }
    for (running, must) in all {
        let out = running.wait();
        assert!(!must || out.code == 0, "{out}");
    }
    assert_eq!(t.status(&b.id), "running");
}

/// Several `delete --force` at once: all succeed.
fn deletes_at_the_same_time(t: &Test) {
    t.skip_on_peers("one of them may fail");
    for _ in 0..3 {
        let mut b = t.bundle();
        t.sleeper(&mut b);
        let all: Vec<_> = (0..4).map(|_| t.spawn(&["delete", "--force", &b.id])).collect();
        for running in all {
            running.wait().ok();
        }
        t.nothing_left(&b);
    }
}

/// While a hook keeps `start` busy, `state` and `list` answer at once.
fn a_slow_start_blocks_nobody_who_asks(t: &Test) {
    let mut b = t.bundle();
    b.push("hooks.poststart", json!({"path": "/bin/sleep", "args": ["sleep", "3"]}))
        .probe(&["sleep"]);
    t.skip_on(Flavour::Runc, "1.1 runs poststart in create");
    t.create(&b).ok();
    let start = t.spawn(&["start", &b.id]);
    let begun = Instant::now();
    wait_until("it runs", || t.status(&b.id) == "running");
    t.call(&["list"]).ok();
    assert!(begun.elapsed() < Duration::from_millis(2500), "{:?}", begun.elapsed());
    start.wait().ok();
}
