//! Nothing is left, wherever the runtime is killed and whatever fails: after `delete --force` there
//! is no process, cgroup, mount or directory, and the id can be used again. A sample of the points
//! at which strace(1) can come in between; the whole list is tried with `CORTEN_FAULTS_STEP=1`.

use std::collections::HashMap;
use std::fs;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use corten_integration::{Bundle, Output, Test, suite, tests};
use serde_json::json;

fn main() -> ExitCode {
    suite(tests![
        killed_anywhere_in_create,
        killed_anywhere_in_run,
        killed_anywhere_in_start,
        killed_anywhere_in_exec,
        killed_anywhere_in_delete,
        killed_init_fails_the_create,
        killed_init_fails_the_start,
        failing_calls_fail_the_create_cleanly,
        journals_cut_anywhere_are_deletable,
        damaged_directories_are_deletable,
        a_group_that_was_there_can_be_used_again,
        many_creates_of_one_id,
        many_commands_on_one_id,
    ])
}

/// The longest that `delete --force` may take.
const PATIENCE: Duration = Duration::from_secs(12);

fn bundle(t: &Test) -> Bundle {
    t.skip_on_peers("this is about our own journal");
    let mut b = t.bundle();
    b.probe(&["sleep"]);
    b.namespace("cgroup", None);
    b.set("linux.resources.pids", json!({"limit": 50}));
    b.write();
    b
}

/// The runtime under strace.
fn traced(t: &Test, options: &[&str], args: &[&str]) -> Output {
    let command = t.command(args);
    let mut strace = Command::new("strace");
    strace.arg("-qq").args(options).arg(command.get_program()).args(command.get_args());
    t.execute(strace)
}

/// Every system call that the runtime's own process makes: its name, and which of that name it is.
fn calls(t: &Test, args: &[&str]) -> Vec<(String, u32)> {
    if !Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_ok_and(|s| s.success()) {
        t.skip("no strace");
    }
    let trace = t.dir.join("trace");
    traced(t, &["-o", &trace.to_string_lossy()], args).ok();
    let mut seen: HashMap<String, u32> = HashMap::new();
    let text = fs::read_to_string(trace).expect("read the trace");
    let name = |line: &str| line.split_once('(').map(|(name, _)| name.to_owned());
    text.lines()
        .filter_map(name)
        .filter(|name| {
            name != "exit_group" && name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_')
        })
        .map(|name| {
            let count = seen.entry(name.clone()).or_default();
            *count += 1;
            (name, *count)
        })
        .collect()
}

/// A part of the points, evenly.
fn sample<T>(points: Vec<T>, count: usize) -> impl Iterator<Item = T> {
    let step = std::env::var("CORTEN_FAULTS_STEP").ok().and_then(|step| step.parse().ok());
    let step = step.unwrap_or(points.len().div_ceil(count)).max(1);
    points.into_iter().step_by(step)
}

#[track_caller]
fn force(t: &Test, b: &Bundle) {
    let start = Instant::now();
    t.force(&b.id).ok();
    assert!(start.elapsed() < PATIENCE, "delete took {:?}", start.elapsed());
    t.nothing_left(b);
}

/// Kills the runtime before a sample of its calls, each time on a container that `prepare` made.
fn killed(t: &Test, b: &Bundle, args: &[&str], count: usize, prepare: &dyn Fn()) {
    prepare();
    let points = calls(t, args);
    assert!(points.len() > 30, "{points:?}");
    force(t, b);
    for (name, number) in sample(points, count) {
        prepare();
        let inject = format!("inject={name}:signal=KILL:when={number}");
        // strace ends as its tracee did.
        traced(t, &["-o", "/dev/null", "-e", &inject], args);
        force(t, b);
    }
    t.create(b).ok();
    force(t, b);
}

fn killed_anywhere_in_create(t: &Test) {
    let b = bundle(t);
    killed(t, &b, &["create", "-b", b.path(), &b.id], 40, &|| {});
}

fn killed_anywhere_in_run(t: &Test) {
    let mut b = bundle(t);
    let hook = json!([{"path": "/bin/true"}]);
    b.set("hooks", json!({"createRuntime": hook, "createContainer": hook, "poststart": hook}));
    b.write();
    killed(t, &b, &["run", "-d", "-b", b.path(), &b.id], 30, &|| {});
}

fn killed_anywhere_in_start(t: &Test) {
    let b = bundle(t);
    killed(t, &b, &["start", &b.id], 12, &|| drop(t.create(&b).ok()));
}

fn killed_anywhere_in_exec(t: &Test) {
    let b = bundle(t);
    let running = || drop(t.call(&["run", "-d", "-b", b.path(), &b.id]).ok());
    killed(t, &b, &["exec", "-d", &b.id, "/probe", "sleep"], 12, &running);
}

fn killed_anywhere_in_delete(t: &Test) {
    let b = bundle(t);
    let running = || drop(t.call(&["run", "-d", "-b", b.path(), &b.id]).ok());
    killed(t, &b, &["delete", "--force", &b.id], 20, &running);
}

/// Calls that only the init makes.
fn killed_init_fails_the_create(t: &Test) {
    let b = bundle(t);
    let create = ["create", "-b", b.path(), &b.id];
    calls(t, &create);
    force(t, &b);
    for name in ["setsid", "pivot_root", "umount2", "sethostname", "capset"] {
        let inject = format!("inject={name}:signal=KILL:when=1");
        let out = traced(t, &["-f", "-o", "/dev/null", "-e", &inject], &create);
        out.fails_with(1).says("died before it was ready");
        t.nothing_left(&b);
    }
}

/// The program never ran, so start must not say that it does.
fn killed_init_fails_the_start(t: &Test) {
    let mut b = bundle(t);
    b.set(
        "linux.seccomp",
        json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mknod"], "action": "SCMP_ACT_ERRNO"}]}),
    );
    b.write();
    let create = ["create", "-b", b.path(), &b.id];
    calls(t, &create);
    force(t, &b);
    // The last thing before execve. With -D strace goes on beside us for as long as the init lives.
    let options = ["-f", "-D", "-o", "/dev/null", "-e", "inject=seccomp:signal=KILL:when=1"];
    traced(t, &options, &create).ok();
    t.start(&b.id).fails_with(1).says("died before it was ready");
    t.wait_status(&b.id, "stopped");
    force(t, &b);
}

fn failing_calls_fail_the_create_cleanly(t: &Test) {
    let b = bundle(t);
    let create = ["create", "-b", b.path(), &b.id];
    let points = calls(t, &create);
    force(t, &b);
    let fatal = ["clone3", "mkdirat", "openat", "renameat", "bind", "socketpair", "sendmsg"];
    let points = points.into_iter().filter(|(name, _)| fatal.contains(&name.as_str())).collect();
    for (name, number) in sample(points, 20) {
        let inject = format!("inject={name}:error=EMFILE:when={number}");
        let out = traced(t, &["-o", "/dev/null", "-e", &inject], &create);
        if out.code == 0 {
            // There was another way.
            force(t, &b);
        } else {
            let out = out.fails_with(1);
            assert!(out.stderr.trim_end().lines().count() == 1, "{out}: not one line");
            t.nothing_left(&b);
        }
    }
}

fn journals_cut_anywhere_are_deletable(t: &Test) {
    let b = bundle(t);
    let journal = t.root().join(&b.id).join("state.json");
    t.create(&b).ok();
    let length = fs::read(&journal).expect("read the journal").len();
    force(t, &b);
    for cut in sample((0..length).collect(), 12) {
        t.call(&["run", "-d", "-b", b.path(), &b.id]).ok();
        let whole = fs::read(&journal).expect("read the journal");
        fs::write(&journal, &whole[..cut]).expect("cut the journal");
        force(t, &b);
    }
}

fn damaged_directories_are_deletable(t: &Test) {
    let mut b = bundle(t);
    for (garbage, no_config) in
        [("\0\u{ff}{", false), ("{\"format\":99}", false), ("", false), ("[", true)]
    {
        if no_config {
            // Then only the default place can be known.
            b.unset("linux.cgroupsPath");
            b.write();
        }
        t.call(&["run", "-d", "-b", b.path(), &b.id]).ok();
        let dir = t.root().join(&b.id);
        fs::write(dir.join("state.json"), garbage).expect("damage the journal");
        if garbage.is_empty() {
            fs::remove_file(dir.join("state.json")).expect("remove the journal");
        }
        if no_config {
            fs::remove_file(dir.join("config.json")).expect("remove the config");
        }
        force(t, &b);
    }
    fs::create_dir_all(t.root().join(&b.id)).expect("make an empty directory");
    force(t, &b);
}

/// What was once killed by cgroup.kill must take processes again.
fn a_group_that_was_there_can_be_used_again(t: &Test) {
    let b = bundle(t);
    let groups: Vec<_> = corten_integration::cgroups::hierarchies()
        .iter()
        .map(|hierarchy| hierarchy.mount.join(b.cgroup().trim_start_matches('/')))
        .collect();
    for group in &groups {
        fs::create_dir_all(group).expect("make a cgroup");
    }
    for _ in 0..2 {
        t.call(&["run", "-d", "-b", b.path(), &b.id]).ok();
        t.exec(&b.id, &[], &["exit", "0"]).ok();
        t.force(&b.id).ok();
    }
    for group in &groups {
        fs::remove_dir(group).expect("remove a cgroup: it must still be there, and empty");
    }
    t.nothing_left(&b);
}

fn many_creates_of_one_id(t: &Test) {
    let b = bundle(t);
    let all: Vec<_> = (0..64).map(|_| t.spawn(&["create", "-b", b.path(), &b.id])).collect();
    let mut winners = 0;
    for one in all {
        let out = one.wait();
        if out.code == 0 {
            winners += 1;
        } else {
            out.fails_with(1).says("already exists");
        }
    }
    assert_eq!(winners, 1);
    t.start(&b.id).ok();
    force(t, &b);
}

fn many_commands_on_one_id(t: &Test) {
    let b = bundle(t);
    let (path, id) = (b.path(), b.id.as_str());
    let verbs: [&[&str]; 9] = [
        &["create", "-b", path, id],
        &["run", "-d", "-b", path, id],
        &["start", id],
        &["kill", id, "KILL"],
        &["delete", "--force", id],
        &["state", id],
        &["exec", "-d", id, "/probe", "exit", "0"],
        &["update", "--pids-limit", "40", id],
        &["delete", id],
    ];
    // A fixed walk, the same in every run; what the processes make of it is not.
    let mut next: usize = 7;
    for _ in 0..25 {
        let round: Vec<_> = (0..8)
            .map(|_| {
                next = (next * 5 + 3) % 64;
                t.spawn(verbs[(next / 2) % verbs.len()])
            })
            .collect();
        for one in round {
            let out = one.wait();
            assert!(!out.stderr.contains("internal error"), "{out}");
            assert!(out.code == 0 || out.code == 1 || out.code == 255, "{out}");
        }
    }
    force(t, &b);
}
