//! T-ENOSYS: what happens where newer system calls are missing, or hidden by a sandbox around us. A
//! fallback does the same or refuses; it never does less in silence.

use std::fs;
use std::os::unix::fs::chown;
use std::process::Command;

use corten_integration::bundle::probe;
use corten_integration::driver::wait_until;
use corten_integration::suite::Case;
use corten_integration::{Bundle, Output, Test, tests};
use serde_json::{Value, json};

pub const TESTS: &[Case] = tests![the_same_or_refused, a_whole_life, joined_by_files,];

/// Name and number (x86_64).
pub const CALLS: [(&str, &str); 18] = [
    ("statx", "332"),
    ("pidfd_send_signal", "424"),
    ("open_tree", "428"),
    ("move_mount", "429"),
    ("fsopen", "430"),
    ("fsconfig", "431"),
    ("fsmount", "432"),
    ("fspick", "433"),
    ("pidfd_open", "434"),
    ("clone3", "435"),
    ("close_range", "436"),
    ("openat2", "437"),
    ("pidfd_getfd", "438"),
    ("faccessat2", "439"),
    ("mount_setattr", "442"),
    ("fchmodat2", "452"),
    ("statmount", "457"),
    ("execveat", "322"),
];

fn bundle(t: &Test) -> Bundle {
    let mut b = t.bundle();
    b.file("/etc/secret", "secret");
    b.set("linux.maskedPaths", json!(["/etc/secret", "/proc/kcore"]))
        .set("root.readonly", json!(true))
        .set("process.user", json!({"uid": 1000, "gid": 1000}))
        .mount("/data", "tmpfs", "tmpfs", &["ro", "nosuid", "nodev", "noexec"])
        .mount("/bound", "bind", "/etc", &["bind", "ro", "nosuid", "nodev"])
        .probe(&[
            "report",
            "uid",
            "gid",
            "caps",
            "nnp",
            "mounts",
            "fds",
            ";",
            "read",
            "/etc/secret",
            ";",
            "create",
            "/new",
            "",
            ";",
            "create",
            "/data/new",
            "",
            ";",
            "create",
            "/bound/new",
            "",
        ]);
    b
}

/// Runs the runtime where these system calls, by number, answer `errno`.
pub fn under(t: &Test, errno: i32, numbers: &str, args: &[&str]) -> Output {
    let command = t.command(args);
    let mut wrapped = Command::new(probe());
    wrapped.args(["deny", &errno.to_string(), numbers]).arg(command.get_program());
    wrapped.args(command.get_args());
    t.execute(wrapped)
}

/// What of a container must not depend on the kernel's age.
fn facts(out: &Output) -> Vec<Value> {
    let mut all = out.facts();
    if let Some(mounts) = all.first_mut().and_then(|fact| fact["mounts"].as_array_mut()) {
        for mount in &mut *mounts {
            *mount = json!([mount["point"], mount["type"], mount["options"]]);
        }
        // Their numbers, and so their order, are the way's.
        mounts.sort_by_key(Value::to_string);
    }
    if let Some(fds) = all.first_mut().and_then(|fact| fact["fds"].as_object_mut()) {
        fds.values_mut().for_each(|target| *target = Value::Null);
    }
    all
}

fn numbers(wanted: impl Fn(&str) -> bool) -> String {
    let calls = CALLS.iter().filter(|(name, _)| wanted(name));
    calls.map(|(_, number)| *number).collect::<Vec<_>>().join(",")
}

/// What corten can't do without says so; statx(2) is older than 4.18, and together with the old
/// mount(2) it is needed to tell a mount from what it covers.
fn has_fallback(name: &str) -> bool {
    !["pidfd_open", "pidfd_send_signal", "statx"].contains(&name)
}

/// The same container, or none, without each call and without all of them.
fn the_same_or_refused(t: &Test) {
    t.skip_on_peers("this is about our own fallbacks");
    let whole = facts(&t.run(&bundle(t)).ok());
    let all = numbers(|_| true);
    let api = numbers(has_fallback);
    let mut sets: Vec<(&str, &str)> = CALLS.to_vec();
    sets.push(("all", &all));
    sets.push(("all that has a fallback", &api));
    let mut refused = Vec::new();
    for (name, numbers) in sets {
        for errno in [libc::ENOSYS, libc::EPERM] {
            let b = bundle(t);
            b.write();
            let out = under(t, errno, numbers, &["run", "--bundle", b.path(), &b.id]);
            if out.code == 0 {
                assert_eq!(facts(&out), whole, "{name}, errno {errno}: {out}");
            } else {
                // Before anything was made.
                out.says("corten needs pidfd_open and pidfd_send_signal");
                refused.push(name);
            }
            t.nothing_left(&b);
        }
    }
    // What nothing can stand in for, and nothing else, with either errno.
    assert_eq!(
        refused,
        ["pidfd_send_signal", "pidfd_send_signal", "pidfd_open", "pidfd_open", "all", "all"]
    );
    // The flag that Linux 6.3 brought: before, it was EINVAL.
    let b = bundle(t);
    b.write();
    let out = under(t, libc::EINVAL, "319:16", &["run", "--bundle", b.path(), &b.id]).ok();
    assert_eq!(facts(&out), whole);
}

/// The other commands without all that has a fallback.
fn a_whole_life(t: &Test) {
    t.skip_on_peers("this is about our own fallbacks");
    let calls = numbers(has_fallback);
    for errno in [libc::ENOSYS, libc::EPERM] {
        let call = |args: &[&str]| under(t, errno, &calls, args);
        let mut b = t.bundle();
        b.file("/plain", "not a program");
        b.probe(&["sleep"]).write();
        call(&["create", "--bundle", b.path(), &b.id]).ok();
        call(&["start", &b.id]).ok();
        // Where it was not born in its group it went there by itself, and so did the first process.
        let inside = ["report", "uid", "cgroup"];
        let fact = call(&[&["exec", &b.id, "/probe"], &inside[..]].concat()).ok().fact(0);
        assert_eq!(fact, t.exec(&b.id, &[], &inside).ok().fact(0));
        let first = fs::read_to_string(format!("/proc/{}/cgroup", t.pid(&b.id))).unwrap();
        assert_eq!(fact["cgroup"], json!(first.lines().collect::<Vec<_>>()));
        call(&["exec", &b.id, "/plain"]).fails_with(255).says("permission denied");
        assert!(call(&["ps", &b.id]).ok().stdout.contains("/probe sleep"));
        call(&["pause", &b.id]).ok();
        call(&["resume", &b.id]).ok();
        call(&["kill", &b.id, "KILL"]).ok();
        call(&["delete", "--force", &b.id]).ok();
        t.nothing_left(&b);
    }
}

/// Before Linux 5.8 setns(2) knows no pidfds: the namespaces are the same ones by their files.
fn joined_by_files(t: &Test) {
    t.skip_on_peers("this is about our own fallbacks");
    t.needs_strace();
    let inside = ["report", "ns", "uid", "idmaps", "caps", "cgroup"];
    for user in [false, true] {
        let mut b = t.bundle();
        if user {
            let map = |host: u32| json!([{"containerID": 0, "hostID": host, "size": 65536}]);
            b.namespace("user", None)
                .set("linux.uidMappings", map(100_000))
                .set("linux.gidMappings", map(200_000));
            chown(b.rootfs(), Some(100_000), Some(200_000)).unwrap();
        }
        b.probe(&["sleep"]);
        let trace = t.dir.join(format!("trace{user}"));
        let by_files = |args: &[&str]| {
            let command = t.command(args);
            let mut strace = Command::new("strace");
            // strace tells a pidfd by its name. -D: it is nobody's parent here.
            strace.args(["-D", "-f", "-qq", "-P", "anon_inode:[pidfd]", "-e", "trace=setns"]);
            strace.args(["-e", "inject=setns:error=EINVAL", "-A", "-o"]).arg(&trace);
            strace.arg(command.get_program()).args(command.get_args());
            t.execute(strace)
        };
        b.write();
        // With a user namespace the bind sources are opened in the container's mount namespace.
        by_files(&["create", "--bundle", b.path(), &b.id]).ok();
        t.call(&["start", &b.id]).ok();
        let whole = t.exec(&b.id, &[], &inside).ok().facts();
        let fact = by_files(&[&["exec", &b.id, "/probe"][..], &inside[..]].concat()).ok().facts();
        assert_eq!(fact, whole);
        // With a user namespace: the container's mount namespace, its pid namespace, the rest.
        let least = if user { 3 } else { 1 };
        wait_until("setns was refused each time", || {
            let trace = fs::read_to_string(&trace).unwrap();
            trace.matches("(INJECTED)").count() >= least
        });
        t.force(&b.id);
        t.nothing_left(&b);
    }
}
