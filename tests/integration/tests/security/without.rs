//! T-ENOSYS: what happens where newer system calls are missing, or hidden by a sandbox around us. A
//! fallback does the same or refuses; it never does less in silence.

use std::process::Command;

use corten_integration::bundle::probe;
use corten_integration::suite::Case;
use corten_integration::{Bundle, Output, Test, tests};
use serde_json::{Value, json};

pub const TESTS: &[Case] = tests![the_same_or_refused,];

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

/// The same container, or none, without each call and without all of them.
fn the_same_or_refused(t: &Test) {
    t.skip_on_peers("this is about our own fallbacks");
    let whole = facts(&t.run(&bundle(t)).ok());
    let all: Vec<&str> = CALLS.iter().map(|(_, number)| *number).collect();
    let all = all.join(",");
    // What corten can't do without says so; statx(2) is older than 4.18, and together with the old
    // mount(2) it is needed to tell a mount from what it covers.
    let api: Vec<&str> = CALLS
        .iter()
        .filter(|(name, _)| {
            !["clone3", "pidfd_open", "pidfd_send_signal", "execveat", "statx"].contains(name)
        })
        .map(|(_, number)| *number)
        .collect();
    let api = api.join(",");
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
                refused.push(format!("{name}: errno {errno}: {}", out.stderr.trim()));
                assert!(!out.stderr.contains("panicked"), "{name}: {out}");
                // What ran before the failure (no pidfd of it at the end) was the same container.
                let ran = !out.stdout.is_empty();
                assert!(!ran || facts(&out) == whole, "{name}: {out}");
            }
            // Known gap: corten needs pidfds (Linux 5.3), and without them `run` notices when its
            // container has run already, says so, and leaves it to `delete`.
            if out.code != 0 && (name.starts_with("pidfd") || name == "all") {
                t.force(&b.id);
            }
            t.nothing_left(&b);
        }
    }
    // What corten can't do without, and nothing else.
    let needed = ["fsconfig", "pidfd_open", "clone3", "execveat", "all:"];
    refused.retain(|words| !needed.iter().any(|name| words.starts_with(name)));
    assert!(refused.is_empty(), "{refused:#?}");
    // The flag that Linux 6.3 brought: before, it was EINVAL.
    let b = bundle(t);
    b.write();
    let out = under(t, libc::EINVAL, "319:16", &["run", "--bundle", b.path(), &b.id]).ok();
    assert_eq!(facts(&out), whole);
}
