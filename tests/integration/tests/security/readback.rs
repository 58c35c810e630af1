//! T-INV: what was asked for is there, as seen from the host; with every way that older kernels take too. Each look is shown to see the difference: where
//! the thing was not asked for, it says so.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::process::Command;

use corten_integration::suite::Case;
use corten_integration::{Bundle, Flavour, Test, tests};
use serde_json::json;

use crate::without::{CALLS, under};

pub const TESTS: &[Case] = tests![
    everything_asked_for_is_there,
    each_look_sees_what_is_missing,
    everything_asked_for_is_there_on_older_kernels,
];

/// Something that can be asked for, and whether it is there.
struct Wish {
    name: &'static str,
    ask: fn(&mut Bundle) -> &mut Bundle,
    is_there: fn(&Seen) -> bool,
}

const fn wish(
    name: &'static str,
    ask: fn(&mut Bundle) -> &mut Bundle,
    is_there: fn(&Seen) -> bool,
) -> Wish {
    Wish { name, ask, is_there }
}

const WISHES: &[Wish] = &[
    wish("a pid namespace", |b| b, |seen| seen.has_own("pid")),
    wish("a mount namespace", |b| b, |seen| seen.has_own("mnt")),
    wish("a network namespace", |b| b.namespace("network", None), |seen| seen.has_own("net")),
    wish("an ipc namespace", |b| b.namespace("ipc", None), |seen| seen.has_own("ipc")),
    wish("a uts namespace", |b| b.namespace("uts", None), |seen| seen.has_own("uts")),
    wish("a cgroup namespace", |b| b.namespace("cgroup", None), |seen| seen.has_own("cgroup")),
    wish(
        "a host name",
        |b| b.namespace("uts", None).set("hostname", json!("its-name")),
        |seen| seen.inside(&["-u", "hostname"]) == "its-name",
    ),
    wish(
        "a sysctl",
        |b| {
            b.namespace("network", None)
                .set("linux.sysctl", json!({"net.ipv4.ip_default_ttl": "77"}))
        },
        |seen| seen.inside(&["-n", "cat", "/proc/sys/net/ipv4/ip_default_ttl"]) == "77",
    ),
    wish(
        "a read-only root",
        |b| b.set("root.readonly", json!(true)),
        |seen| seen.mount_has("/", &["ro"]),
    ),
    wish(
        "a tmpfs with its attributes",
        |b| b.mount("/t", "tmpfs", "tmpfs", &["ro", "nosuid", "nodev", "noexec", "noatime"]),
        |seen| seen.mount_has("/t", &["ro", "nosuid", "nodev", "noexec", "noatime"]),
    ),
    wish(
        "a bind mount with its attributes",
        |b| b.mount("/b", "bind", "/etc", &["rbind", "ro", "nosuid", "nodev", "noexec"]),
        |seen| seen.mount_has("/b", &["ro", "nosuid", "nodev", "noexec"]),
    ),
    wish(
        "a shared mount",
        |b| b.mount("/s", "tmpfs", "tmpfs", &["shared"]),
        |seen| seen.mount_has("/s", &["shared"]),
    ),
    wish(
        "a masked file",
        |b| b.set("linux.maskedPaths", json!(["/etc/passwd"])),
        |seen| {
            fs::metadata(seen.path("/etc/passwd"))
                .is_ok_and(|m| m.file_type().is_char_device() && m.rdev() == 0x103)
        },
    ),
    wish(
        "a read-only path",
        |b| b.set("linux.readonlyPaths", json!(["/proc/sys"])),
        |seen| seen.mount_has("/proc/sys", &["ro"]),
    ),
    wish(
        "a device",
        |b| {
            let device = json!({"path": "/dev/its", "type": "c", "major": 1, "minor": 5,
                "fileMode": 0o640, "uid": 7, "gid": 8});
            b.set("linux.devices", json!([device]))
        },
        |seen| {
            fs::metadata(seen.path("/dev/its")).is_ok_and(|m| {
                (m.rdev(), m.mode() & 0o7777, m.uid(), m.gid()) == (0x105, 0o640, 7, 8)
            })
        },
    ),
    wish(
        "no new privileges",
        |b| b.set("process.noNewPrivileges", json!(true)),
        |seen| seen.status("NoNewPrivs") == "1",
    ),
    wish(
        "few capabilities",
        |b| b.capabilities(&["CAP_KILL"]),
        |seen| ["CapBnd", "CapPrm"].iter().all(|set| seen.status(set) == "0000000000000020"),
    ),
    wish(
        "limits",
        |b| b.set("process.rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 99}])),
        |seen| seen.limit("Max open files") == ["77", "99"],
    ),
    wish(
        "an OOM score",
        |b| b.set("process.oomScoreAdj", json!(321)),
        |seen| seen.file("oom_score_adj").trim() == "321",
    ),
    wish(
        "a personality",
        |b| b.set("linux.personality", json!({"domain": "LINUX32"})),
        |seen| seen.file("personality").trim() == "00000008",
    ),
    wish(
        "a limit of processes",
        |b| b.set("linux.resources.pids", json!({"limit": 77})),
        |seen| seen.cgroup("pids", "pids.max") == "77",
    ),
    wish(
        "a limit of memory",
        |b| b.set("linux.resources.memory", json!({"limit": 64 << 20})),
        |seen| {
            let files = ["memory.limit_in_bytes", "memory.max"];
            files.iter().any(|file| seen.cgroup("memory", file) == "67108864")
        },
    ),
];

/// A running container, from the host's side.
struct Seen {
    pid: i32,
    bundle: Bundle,
}

impl Seen {
    fn file(&self, name: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{name}", self.pid)).unwrap_or_default()
    }

    fn path(&self, inside: &str) -> String {
        format!("/proc/{}/root{inside}", self.pid)
    }

    fn has_own(&self, namespace: &str) -> bool {
        let of = |who: &str| fs::read_link(format!("/proc/{who}/ns/{namespace}")).unwrap();
        of(&self.pid.to_string()) != of("self")
    }

    /// A field of /proc/PID/status.
    fn status(&self, field: &str) -> String {
        let status = self.file("status");
        let value = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        value.unwrap_or_default().trim().to_owned()
    }

    /// Soft and hard.
    fn limit(&self, name: &str) -> Vec<String> {
        let limits = self.file("limits");
        let line = limits.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_default().split_whitespace().take(2).map(str::to_owned).collect()
    }

    /// What a program says that runs in some of its namespaces.
    fn inside(&self, args: &[&str]) -> String {
        let pid = self.pid.to_string();
        let (namespace, program) = args.split_first().unwrap();
        let out =
            Command::new("nsenter").args(["-t", &pid, namespace]).args(program).output().unwrap();
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    }

    fn cgroup(&self, controller: &str, file: &str) -> String {
        let path = self.bundle.cgroup_dir(controller).join(file);
        fs::read_to_string(path).unwrap_or_default().trim().to_owned()
    }

    /// Whether the topmost mount there has all of these: attributes of the mount, or its propagation.
    fn mount_has(&self, point: &str, words: &[&str]) -> bool {
        let all = self.file("mountinfo");
        let Some(line) = all.lines().rfind(|line| line.split(' ').nth(4) == Some(point)) else {
            return false;
        };
        let fields: Vec<&str> = line.split(' ').collect();
        let has = |word: &&str| {
            fields[5].split(',').any(|option| option == *word)
                || fields[6..].iter().any(|tag| tag.split(':').next() == Some(word))
        };
        words.iter().all(has)
    }
}

/// What this runtime can do.
fn wishes(t: &Test) -> impl Iterator<Item = &'static Wish> {
    // Newer than 1.1.5; dropped in silence by 1.8.1.
    let lacks = match t.flavour {
        Flavour::Corten => "",
        Flavour::Runc => "a personality",
        Flavour::Crun => "a shared mount",
    };
    WISHES.iter().filter(move |wish| wish.name != lacks)
}

/// A bundle that asks for all but one of the wishes.
fn bundle(t: &Test, without: Option<&str>) -> Bundle {
    let mut b = t.bundle();
    for kind in ["network", "ipc", "uts", "cgroup"] {
        b.no_namespace(kind);
    }
    for path in ["linux.maskedPaths", "linux.readonlyPaths", "process.rlimits", "hostname"] {
        b.unset(path);
    }
    b.set("root.readonly", json!(false)).set("process.noNewPrivileges", json!(false));
    b.unmount("/sys");
    for wish in wishes(t).filter(|wish| Some(wish.name) != without) {
        (wish.ask)(&mut b);
    }
    b.probe(&["sleep"]).write();
    b
}

/// The wishes that are not there. Asserts nothing, so that it can be shown to see.
fn missing(t: &Test, seen: &Seen) -> Vec<&'static str> {
    wishes(t).filter(|wish| !(wish.is_there)(seen)).map(|wish| wish.name).collect()
}

fn started(t: &Test, bundle: Bundle) -> Seen {
    t.start(&bundle.id).ok();
    Seen { pid: t.wait_asleep(&bundle.id), bundle }
}

fn everything_asked_for_is_there(t: &Test) {
    let b = bundle(t, None);
    t.create(&b).ok();
    assert_eq!(missing(t, &started(t, b)), [""; 0]);
}

/// Two looks at the same thing, as at a namespace and what is set in it, may both miss it.
fn each_look_sees_what_is_missing(t: &Test) {
    for wish in wishes(t) {
        // Asked for by every bundle, or by another wish as well.
        let twice =
            ["a pid namespace", "a mount namespace", "a network namespace", "a uts namespace"];
        if twice.contains(&wish.name) {
            continue;
        }
        let b = bundle(t, Some(wish.name));
        t.create(&b).ok();
        let id = b.id.clone();
        assert_eq!(missing(t, &started(t, b)), [wish.name]);
        t.force(&id).ok();
    }
}

fn everything_asked_for_is_there_on_older_kernels(t: &Test) {
    t.skip_on_peers("this is about our own fallbacks");
    for (name, number) in CALLS {
        let b = bundle(t, None);
        let out = under(t, libc::ENOSYS, number, &["create", "--bundle", b.path(), &b.id]);
        if out.code != 0 {
            // Refused; `the_same_or_refused` says which may be.
            t.nothing_left(&b);
            continue;
        }
        let id = b.id.clone();
        assert_eq!(missing(t, &started(t, b)), [""; 0], "without {name}");
        t.force(&id).ok();
    }
}
