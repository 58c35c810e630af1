//! R11 to R14 and R24: what does not want to end: frozen groups, zombies, fork bombs, processes that
//! hang in the kernel, hooks.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use corten_integration::driver::{patience, wait_until};
use corten_integration::suite::Case;
use corten_integration::{Output, Test, cgroups, tests};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use serde_json::json;

use crate::subject::{Life, Subject};
use crate::tally::{self, Count, is_whole};

pub(crate) const TESTS: &[Case] = tests![
    r11_frozen_container,
    r11_busy_while_all_are_killed,
    r11_frozen_exec_of_a_dead_container,
    r11_frozen_group_below,
    r11_frozen_group_above,
    r12_many_zombies,
    r12_many_groups_below,
    r13_fork_bomb_without_pid_namespace,
    r13_many_processes,
    r14_a_program_that_never_ends,
    r14_a_create_that_never_ends,
    r24_hooks_that_hang,
    r24_hooks_that_talk,
    r24_hooks_that_kill_the_runtime,
];

fn subject<'a>(t: &'a Test, steps: &[&str]) -> Subject<'a> {
    t.skip_on_peers("hang or leave things");
    let mut bundle = t.bundle();
    bundle.probe(steps);
    Subject::of(t, bundle)
}

fn within(what: &str, limit: Duration, work: impl FnOnce()) {
    let begun = Instant::now();
    work();
    assert!(begun.elapsed() < patience(limit), "{what} took {:?}", begun.elapsed());
}

/// Writes the freezer's file of a group.
fn freeze(group: &Path, frozen: bool) {
    let (file, word) = match (cgroups::is_v2(), frozen) {
        (true, true) => ("cgroup.freeze", "1"),
        (true, false) => ("cgroup.freeze", "0"),
        (false, true) => ("freezer.state", "FROZEN"),
        (false, false) => ("freezer.state", "THAWED"),
    };
    fs::write(group.join(file), word).expect("write the freezer");
}

/// KILL ends it in a second, and so does delete; exec is refused.
fn r11_frozen_container(t: &Test) {
    let subject = subject(t, &["report", ";", "sleep"]);
    subject.reach(Life::Running);
    freeze(&subject.bundle.cgroup_dir("freezer"), true);
    assert_eq!(subject.status(), "paused");
    subject.call(&["exec", subject.id(), "/probe", "exit", "0"]).fails().says("paused");
    within("kill", Duration::from_secs(2), || {
        subject.call(&["kill", subject.id(), "KILL"]).ok();
        subject.wait("stopped");
    });
    subject.end("a frozen container");
    subject.reach(Life::Running);
    freeze(&subject.bundle.cgroup_dir("freezer"), true);
    within("delete", Duration::from_secs(2), || subject.end("a frozen container"));
}

/// Execs and pauses that are under way add processes to what has its SIGKILL already, or freeze it:
/// all end, and nobody waits for them until a limit is over.
fn r11_busy_while_all_are_killed(t: &Test) {
    let mut subject = subject(t, &["report", ";", "sleep"]);
    subject.bundle.no_namespace("pid").write();
    let id = subject.bundle.id.clone();
    for round in 0..if is_whole() { 100 } else { 20 } {
        for verb in [["kill", "--all", &id, "KILL"].as_slice(), &["delete", "--force", &id]] {
            subject.reach(Life::Running);
            let mut others =
                Vec::from([(); 4].map(|()| t.spawn(&["exec", &id, "/probe", "sleep"])));
            std::thread::sleep(Duration::from_millis(round));
            others.push(t.spawn(&["pause", &id]));
            within(verb[0], Duration::from_secs(4), || drop(t.spawn(verb).wait().ok()));
            others.into_iter().for_each(|other| drop(other.wait()));
            subject.end("execs and a pause while it was killed");
        }
    }
}

/// An exec that is frozen before it has entered the container does not wait for what nobody can thaw any
/// more when the container has died.
fn r11_frozen_exec_of_a_dead_container(t: &Test) {
    if !cgroups::is_v2() {
        t.skip("a frozen process of cgroup v1 dies when it is thawed");
    }
    let subject = subject(t, &["report", ";", "sleep"]);
    subject.reach(Life::Paused);
    let exec = t.spawn(&["exec", "--ignore-paused", subject.id(), "/probe", "exit", "0"]);
    wait_until("its process is there", || subject.processes() == 2);
    kill(subject.pid(), Signal::SIGKILL).expect("kill the init");
    let begun = Instant::now();
    exec.wait().fails_with(255).says("cannot exec in a stopped container");
    assert!(begun.elapsed() < patience(Duration::from_secs(5)), "{:?}", begun.elapsed());
    assert_eq!(subject.status(), "stopped");
    subject.end("a frozen exec");
}

/// A group that the container has frozen below its own.
fn r11_frozen_group_below(t: &Test) {
    let mut subject = subject(t, &["report", ";", "sleep"]);
    subject.bundle.no_namespace("pid").write();
    for verb in ["kill", "delete"] {
        subject.reach(Life::Running);
        let below = subject.bundle.cgroup_dir("freezer").join("below");
        fs::create_dir(&below).expect("make a group");
        fs::write(below.join("cgroup.procs"), t.pid(subject.id()).to_string()).expect("move it");
        freeze(&below, true);
        within(verb, Duration::from_secs(3), || {
            if verb == "kill" {
                subject.call(&["kill", subject.id(), "KILL"]).ok();
                subject.wait("stopped");
            }
            subject.end("a frozen group below");
        });
    }
}

/// What is above is somebody else's: nothing of ours runs, nothing hangs for longer than its limit,
/// and when it is thawed everything works.
fn r11_frozen_group_above(t: &Test) {
    let mut subject = subject(t, &["report", ";", "sleep"]);
    let above = format!("{}/above-{}", cgroups::parent(), subject.id());
    subject.bundle.set("linux.cgroupsPath", json!(format!("{above}/{}", subject.id()))).write();
    subject.reach(Life::Created);
    let group = cgroups::directory("freezer", &above).expect("a freezer");
    freeze(&group, true);
    let begun = Instant::now();
    let start = t.spawn(&["start", subject.id()]);
    std::thread::sleep(Duration::from_millis(300));
    let other = subject.call(&["delete", "--force", subject.id()]);
    assert!(begun.elapsed() < patience(Duration::from_secs(25)), "{:?}", begun.elapsed());
    freeze(&group, false);
    start.wait();
    assert!(other.code == 0 || other.code == 1, "{other}");
    subject.call(&["delete", "--force", subject.id()]).ok();
    // Made on the way to the container's own group, and left, as runc leaves it.
    for group in cgroups::tagged(&format!("above-{}", subject.id())) {
        std::fs::remove_dir(&group).expect("it has no groups below");
    }
    subject.end("a frozen group above");
}

/// Dead processes that nobody has waited for: they end with their parent.
fn r12_many_zombies(t: &Test) {
    let many = if is_whole() { 2000 } else { 300 };
    let mut steps = Vec::new();
    for _ in 0..many {
        steps.extend(["zombie", ";"]);
    }
    steps.extend(["print", "all", ";", "sleep"]);
    let mut b = t.bundle();
    b.no_namespace("pid").probe(&steps);
    t.skip_on_peers("the same is tried of ours");
    let subject = Subject::of(t, b);
    for verb in ["kill", "delete"] {
        subject.call(&["create", "-b", subject.bundle.path(), subject.id()]).ok();
        subject.call(&["start", subject.id()]).ok();
        wait_until("all are dead", || subject.reports() > many);
        within(verb, Duration::from_secs(8), || {
            if verb == "kill" {
                subject.call(&["kill", subject.id(), "KILL"]).ok();
                subject.wait("stopped");
            }
            subject.end("many zombies");
        });
    }
}

/// Groups that the container has made below its own, some of them threaded.
fn r12_many_groups_below(t: &Test) {
    let subject = subject(t, &["report", ";", "sleep"]);
    subject.reach(Life::Running);
    let top = subject.bundle.cgroup_dir("pids");
    for n in 0..50 {
        let below = top.join(format!("a{n}/b/c"));
        fs::create_dir_all(&below).expect("make groups");
        if cgroups::is_v2() && n % 2 == 0 {
            fs::write(below.join("cgroup.type"), "threaded").expect("make it threaded");
        }
    }
    within("delete", Duration::from_secs(5), || subject.end("many groups below"));
}

/// Faster than it is killed: it is frozen first.
fn r13_fork_bomb_without_pid_namespace(t: &Test) {
    t.needs_controller("pids");
    t.skip_on_peers("the same is tried of ours");
    let mut b = t.busybox();
    // Enough to be a bomb; the machine is shared.
    b.set("linux.resources.pids", json!({"limit": 300})).no_namespace("pid");
    // A shell gives up when it can't fork, awk does not.
    b.script(r#"export B='BEGIN { while (1) system("awk \"$B\" &") }'; awk "$B" 2>/dev/null & exec sleep 1000"#);
    let subject = Subject::of(t, b);
    for verb in ["kill", "delete"] {
        subject.call(&["run", "-d", "-b", subject.bundle.path(), subject.id()]).ok();
        wait_until("it has forked", || subject.processes() > 250);
        within(verb, Duration::from_secs(8), || {
            if verb == "kill" {
                subject.call(&["kill", subject.id(), "KILL"]).ok();
                wait_until("the group is empty", || subject.processes() == 0);
            }
            subject.end("a fork bomb");
        });
    }
}

fn r13_many_processes(t: &Test) {
    let many: usize = if is_whole() { 5000 } else { 500 };
    t.skip_on_peers("the same is tried of ours");
    let mut b = t.busybox();
    b.limit("pids", json!({"limit": many + 10})).no_namespace("pid");
    b.script(&format!("i=0; while [ $i -lt {many} ]; do sleep 1000 & i=$((i+1)); done; wait"));
    let subject = Subject::of(t, b);
    subject.call(&["run", "-d", "-b", subject.bundle.path(), subject.id()]).ok();
    wait_until("they are there", || subject.processes() > many);
    within("kill", Duration::from_secs(if is_whole() { 10 } else { 3 }), || {
        subject.call(&["kill", subject.id(), "KILL"]).ok();
        wait_until("the group is empty", || {
            corten_integration::reaper::reap();
            subject.processes() == 0
        });
    });
    subject.end("many processes");
}

/// A FUSE mount whose server reads requests and answers none but the first, so that whoever asks
/// hangs in the kernel and not even SIGKILL ends him.
struct Silent {
    at: PathBuf,
    /// Where connections can be aborted.
    control: PathBuf,
    server: Option<JoinHandle<()>>,
}

impl Silent {
    fn new(t: &Test) -> Self {
        let device = OpenOptions::new().read(true).write(true).open("/dev/fuse");
        let mut device = device.unwrap_or_else(|e| t.skip(&format!("/dev/fuse: {e}")));
        let (at, control) = (t.dir.join("silent"), t.dir.join("control"));
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
        for (dir, kind, options) in [(&at, "fuse", options.as_str()), (&control, "fusectl", "")] {
            fs::create_dir(dir).expect("make a directory");
            let kind = Some(kind);
            mount(Some("silent"), dir, kind, MsFlags::empty(), Some(options)).expect("mount");
        }
        answer_the_first(&mut device);
        // What nobody has taken can still be interrupted. Ends with the connection.
        let server = std::thread::spawn(move || {
            let mut request = vec![0; 1 << 17];
            while device.read(&mut request).is_ok() {}
        });
        Self { at, control, server: Some(server) }
    }

    fn abort(&self) {
        for connection in fs::read_dir(&self.control).into_iter().flatten().flatten() {
            if connection.file_name().to_string_lossy() == self.minor() {
                fs::write(connection.path().join("abort"), "1").expect("abort the connection");
            }
        }
    }

    /// The number that the connection is known by.
    fn minor(&self) -> String {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let line = table.lines().find(|line| line.contains(&*self.at.to_string_lossy()));
        let minor = line.and_then(|line| line.split(' ').nth(2)?.split(':').nth(1));
        minor.unwrap_or_default().to_owned()
    }
}

/// FUSE_INIT: its version, and no features.
fn answer_the_first(device: &mut File) {
    let mut request = vec![0; 1 << 17];
    let length = device.read(&mut request).expect("the first request");
    assert!(length > 48, "{length}");
    let mut answer = [0_u8; 16 + 64];
    answer[..4].copy_from_slice(&80_u32.to_ne_bytes());
    answer[8..16].copy_from_slice(&request[8..16]);
    // Major and minor as they were asked for, then the largest write.
    answer[16..24].copy_from_slice(&request[40..48]);
    answer[36..40].copy_from_slice(&4096_u32.to_ne_bytes());
    device.write_all(&answer).expect("answer the first request");
}

impl Drop for Silent {
    fn drop(&mut self) {
        self.abort();
        for dir in [&self.at, &self.control] {
            let _gone = umount2(dir, MntFlags::MNT_DETACH);
        }
        let _ended = self.server.take().map(JoinHandle::join);
    }
}

/// A container on such a file system, and what `delete --force` says of it in time; when that is over
/// the container can be deleted.
fn hangs(t: &Test, point: &str, source: &Path, silent: &Silent) -> Output {
    let mut b = t.bundle();
    b.mount(point, "bind", &source.display().to_string(), &["rbind"]);
    b.probe(&["print", "begun", ";", "ls", "/above/silent"]);
    let subject = Subject::of(t, b);
    let run = t.spawn(&["run", "-d", "-b", subject.bundle.path(), subject.id()]);
    std::thread::sleep(patience(Duration::from_millis(700)));
    let begun = Instant::now();
    let out = subject.call(&["delete", "--force", subject.id()]);
    let took = begun.elapsed();
    assert!(took < patience(Duration::from_secs(25)), "{took:?}");
    subject.call(&["list"]).ok();
    silent.abort();
    run.wait();
    subject.end("a file system that never answers");
    out
}

/// What hangs is named, and the container is still known.
fn r14_a_program_that_never_ends(t: &Test) {
    t.skip_on_peers("the same is tried of ours");
    let silent = Silent::new(t);
    // Bound from above it is not looked at before the program does that.
    let above = t.dir.join("above");
    fs::create_dir_all(above.join("silent")).expect("make a directory");
    let none: Option<&str> = None;
    mount(Some(&silent.at), &above.join("silent"), none, MsFlags::MS_BIND, none).expect("bind");
    hangs(t, "/above", &above, &silent).fails_with(1).says("still running|process(es)");
    umount2(&above.join("silent"), MntFlags::MNT_DETACH).expect("unmount");
}

/// The create is told to give up, or delete says that it can't.
fn r14_a_create_that_never_ends(t: &Test) {
    t.skip_on_peers("the same is tried of ours");
    let silent = Silent::new(t);
    let out = hangs(t, "/silent", &silent.at, &silent);
    assert!(out.code == 0 || (out.code == 1 && !out.stderr.is_empty()), "{out}");
}

/// Of each kind: bounded by their timeout, and all that they have started is killed.
fn r24_hooks_that_hang(t: &Test) {
    let count = Count::begin();
    let kinds =
        ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];
    for kind in kinds {
        let mut b = t.busybox();
        let path = if kind == "startContainer" { "/bin/sh" } else { "/bin/busybox" };
        let args = json!(["sh", "-c", "sleep 1234 & sleep 1234"]);
        b.probe(&["report", ";", "sleep"]);
        b.set("hooks", json!({kind: [{"path": path, "args": args, "timeout": 1}]}));
        t.skip_on_peers("wait for the pipe, or leave its children");
        let subject = Subject::of(t, b);
        tally::point(&subject, kind, || {
            within(kind, Duration::from_secs(6), || {
                let out = subject.call(&["create", "-b", subject.bundle.path(), subject.id()]);
                if out.code == 0 {
                    subject.call(&["start", subject.id()]);
                    subject.call(&["delete", "--force", subject.id()]).ok();
                } else {
                    drop(out.fails_with(1).says("timed out"));
                }
            });
            subject.is_gone(kind);
            Ok(())
        });
    }
    count.end(t, "hooks that hang");
}

/// A gigabyte on standard output is read and dropped.
fn r24_hooks_that_talk(t: &Test) {
    t.skip_on_peers("keep it all in memory");
    let mut b = t.bundle();
    let size = if is_whole() { 1 << 30 } else { 64 << 20 };
    let script = format!("head -c {size} /dev/zero; head -c 65536 /dev/zero >&2; exit 3");
    let hook = json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "timeout": 60}]);
    b.set("hooks", json!({"createRuntime": hook}));
    within("the hook", Duration::from_secs(20), || {
        let out = t.create(&b).fails_with(1).says("exit status 3");
        assert!(out.stderr.len() < 80_000, "{} bytes of error", out.stderr.len());
    });
    t.nothing_left(&b);
}

/// Its parent is the runtime.
fn r24_hooks_that_kill_the_runtime(t: &Test) {
    let count = Count::begin();
    for kind in ["prestart", "createRuntime", "poststart", "poststop"] {
        let mut b = t.bundle();
        let hook = json!([{"path": "/bin/sh", "args": ["sh", "-c", "kill -9 $PPID"]}]);
        b.probe(&["report", ";", "sleep"]).set("hooks", json!({kind: hook}));
        t.skip_on_peers("leave cgroups");
        let subject = Subject::of(t, b);
        tally::point(&subject, kind, || {
            subject.call(&["create", "-b", subject.bundle.path(), subject.id()]);
            subject.call(&["start", subject.id()]);
            if kind == "poststop" {
                // It kills this one, too: the hook runs until it has come to its end once.
                subject.call(&["delete", "--force", subject.id()]).exits(137);
                fs::remove_file(t.root().join(subject.id()).join("config.json"))
                    .map_err(|e| e.to_string())?;
            }
            subject.end(kind);
            Ok(())
        });
    }
    count.end(t, "hooks that kill");
}
