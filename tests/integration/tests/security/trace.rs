//! T-INV, the policy of the trace: what a process of ours does between entering a container's mount
//! namespace and the program's execve(2), read from strace(1). It holds for classes of attacks (P1,
//! P2, P5, D1 to D4, X1), whichever name the image or a neighbour redirects.
//!
//! 1. No name is absolute and none has a directory in it, unless the kernel was told how far it may
//!    lead (`openat2` with `RESOLVE_*`). `/` itself is no name. The program's own path is looked up
//!    as the container's user, last of all.
//! 2. mount(2) and umount2(2) get `/` and `.` only.
//! 3. Every descriptor is born close-on-exec, in the runtime's own processes as well.
//! 4. Nothing below /proc is opened for writing but through the host's procfs.
//! 5. No process becomes visible inside while it is dumpable.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use corten_integration::suite::Case;
use corten_integration::{Bundle, Test, tests};
use serde_json::json;

use crate::scene::{Peer, control, without_dev};

pub const TESTS: &[Case] =
    tests![policy_of_run, policy_of_variants, policy_of_exec, nothing_of_the_image_holds_us_up,];

/// One system call: its name, its arguments as strace shows them, its result.
struct Call {
    name: String,
    args: String,
    result: String,
}

impl Call {
    fn parse(line: &str) -> Option<Self> {
        let (name, rest) = line.split_once('(')?;
        if !name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_') {
            return None;
        }
        let (args, result) = rest.rsplit_once(") ")?;
        let result = result.trim_start().trim_start_matches("= ");
        Some(Self { name: name.to_owned(), args: args.to_owned(), result: result.to_owned() })
    }

    fn is(&self, name: &str, words: &str) -> bool {
        self.name == name && self.args.contains(words)
    }

    /// The quoted strings among the arguments, which in calls that take names are the names.
    fn names(&self) -> Vec<&str> {
        self.args.split('"').skip(1).step_by(2).collect()
    }

    fn line(&self) -> String {
        let cut: String = self.args.chars().take(160).collect();
        format!("{}({cut}) = {}", self.name, self.result)
    }
}

/// The calls of each process, in order.
fn traced(t: &Test, command: Command) -> Vec<Vec<Call>> {
    t.needs_strace();
    let dir = t.dir.join(format!("trace{}", t.next()));
    fs::create_dir(&dir).unwrap();
    let mut strace = Command::new("strace");
    // -D: strace is nobody's parent here, so the container is left to whom it belongs.
    strace.args(["-ff", "-qq", "-yy", "-v", "-s", "512", "-e", "signal=none", "-o"]);
    strace.arg(dir.join("p")).arg(command.get_program()).args(command.get_args());
    t.execute(strace);
    let files = fs::read_dir(&dir).unwrap().flatten().map(|entry| entry.path());
    files.map(|path: PathBuf| read(&path)).collect()
}

fn read(path: &Path) -> Vec<Call> {
    let text = String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
    text.lines().filter_map(Call::parse).collect()
}

/// The process that became the container's program, from where `enters` says that it is inside.
fn inside<'a>(all: &'a [Vec<Call>], enters: &dyn Fn(&Call) -> bool) -> Vec<&'a [Call]> {
    let mut found = Vec::new();
    for calls in all {
        let Some(from) = calls.iter().position(enters) else { continue };
        let end = calls.iter().rposition(|c| c.name == "execve" && c.result.starts_with('0'));
        let end = end.filter(|end| *end > from).unwrap_or(calls.len());
        found.push(&calls[from + 1..end]);
    }
    found
}

/// Calls that take names, beside those with rules of their own below.
const WITH_NAMES: [&str; 44] = [
    "open",
    "creat",
    "stat",
    "lstat",
    "access",
    "chmod",
    "chown",
    "lchown",
    "link",
    "unlink",
    "symlink",
    "rename",
    "mkdir",
    "rmdir",
    "mknod",
    "readlink",
    "truncate",
    "utime",
    "utimes",
    "statfs",
    "chroot",
    "chdir",
    "faccessat",
    "faccessat2",
    "fchmodat",
    "fchmodat2",
    "fchownat",
    "linkat",
    "mkdirat",
    "mknodat",
    "newfstatat",
    "readlinkat",
    "renameat",
    "renameat2",
    "statx",
    "symlinkat",
    "unlinkat",
    "utimensat",
    "openat",
    "execveat",
    "setxattr",
    "lsetxattr",
    "getxattr",
    "name_to_handle_at",
];

/// What breaks the rules inside. `program` may be looked up.
fn violations(calls: &[Call], program: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut pivoted = false;
    for call in calls {
        pivoted |= call.name == "pivot_root";
        // Whether the host has it decides about the link /dev/core.
        if !pivoted && call.is("statx", "\"/proc/kcore\"") {
            continue;
        }
        let mut bad = |rule: &str| found.push(format!("{rule}: {}", call.line()));
        match call.name.as_str() {
            "openat2" if call.args.contains("resolve=0") || !call.args.contains("resolve=RES") => {
                bad("openat2 without a limit");
            }
            "mount" if !call.args.starts_with("NULL, \"/\", NULL, MS_REC|MS_") => bad("mount"),
            "umount2" if !call.args.starts_with("\".\"") => bad("umount2"),
            "pivot_root" if call.args != "\".\", \".\"" => bad("pivot_root"),
            // The target of a link is a text, the name is the last string.
            "symlinkat" if call.names().last().is_some_and(|name| name.contains('/')) => {
                bad("a name with a directory");
            }
            "symlinkat" => {}
            "openat" => {
                let name = call.names().first().copied().unwrap_or_default().to_owned();
                let host = call.args.starts_with(|c: char| c.is_ascii_digit())
                    && call.args.split('"').next().is_some_and(|fd| fd.contains("</proc"));
                let step = !name.contains('/') && call.args.contains("O_NOFOLLOW");
                if name != "/" && name != ".." && name != "." && !step && !host {
                    bad("openat that may be led away");
                }
            }
            name if WITH_NAMES.contains(&name) => {
                let all = call.names();
                let fine = |name: &&str| !name.contains('/') || *name == "/" || *name == program;
                if !all.iter().all(fine) {
                    bad("a name with a directory");
                }
            }
            _ => {}
        }
        let written = call.args.contains("O_WRONLY") || call.args.contains("O_RDWR");
        let opens = matches!(call.name.as_str(), "open" | "openat" | "openat2");
        if opens && written && call.result.contains("</proc") {
            let through_host = call.args.split(',').next().is_some_and(|fd| fd.contains("/proc"));
            if !through_host {
                bad("opened for writing below /proc");
            }
        }
    }
    found
}

/// Descriptors that would survive an execve.
fn not_closed(calls: &[Call]) -> Vec<String> {
    // The words that each call has to hold; `dup2` makes standard streams only.
    const BORN: [(&str, &str); 17] = [
        ("open", "O_CLOEXEC"),
        ("openat", "O_CLOEXEC"),
        ("openat2", "O_CLOEXEC"),
        ("socket", "SOCK_CLOEXEC"),
        ("socketpair", "SOCK_CLOEXEC"),
        ("accept4", "SOCK_CLOEXEC"),
        ("pipe2", "O_CLOEXEC"),
        ("memfd_create", "MFD_CLOEXEC"),
        ("epoll_create1", "EPOLL_CLOEXEC"),
        ("eventfd2", "EFD_CLOEXEC"),
        ("signalfd4", "SFD_CLOEXEC"),
        ("timerfd_create", "TFD_CLOEXEC"),
        ("inotify_init1", "IN_CLOEXEC"),
        ("fsopen", "FSOPEN_CLOEXEC"),
        ("fsmount", "FSMOUNT_CLOEXEC"),
        ("open_tree", "OPEN_TREE_CLOEXEC"),
        ("fspick", "FSPICK_CLOEXEC"),
    ];
    const NEVER: [&str; 6] = ["creat", "accept", "pipe", "dup", "epoll_create", "inotify_init"];
    let mut found = Vec::new();
    for call in calls.iter().filter(|call| !call.result.starts_with('-')) {
        let born = BORN.iter().find(|(name, _)| *name == call.name);
        // Asked whether it is there, with arguments that make nothing.
        let bad = born.is_some_and(|(_, word)| !call.args.contains(word))
            || NEVER.contains(&call.name.as_str())
            || call.is("fcntl", "F_DUPFD,")
            || (call.name == "recvmsg"
                && call.args.contains("SCM_RIGHTS")
                && !call.args.contains("MSG_CMSG_CLOEXEC"))
            || (call.name == "dup2" && !["0", "1", "2"].iter().any(|n| call.result.starts_with(n)));
        if bad {
            found.push(call.line());
        }
    }
    found
}

/// The runtime's own part of a process: up to where it becomes the container's program.
fn own<'a>(calls: &'a [Call], program: &str) -> &'a [Call] {
    let end = calls.iter().position(|c| c.name == "execve" && c.names().first() == Some(&program));
    &calls[..end.unwrap_or(calls.len())]
}

fn rich(t: &Test) -> Bundle {
    let mut b = t.bundle();
    let volume = t.dir.join(format!("volume{}", t.next()));
    fs::create_dir_all(volume.join("x/y")).unwrap();
    let volume = volume.to_str().unwrap().to_owned();
    b.file("/copied/file", "x");
    b.mount("/vol", "bind", &volume, &["rbind", "ro", "nosuid"])
        .mount("/vol2/made", "bind", &volume, &["bind"])
        .mount("/etc/hosts", "bind", "/etc/hosts", &["bind", "ro"])
        .mount("/copied", "tmpfs", "tmpfs", &["tmpcopyup"])
        .mount("/sys/fs/cgroup", "cgroup", "cgroup", &["ro", "nosuid", "noexec", "nodev"])
        .namespace("cgroup", None)
        .set("root.readonly", json!(true))
        .set("process.user", json!({"uid": 1000, "gid": 1000, "additionalGids": [5]}))
        .set("process.cwd", json!("/home/user/new"))
        .set("process.oomScoreAdj", json!(100))
        .set("linux.sysctl", json!({"net.ipv4.ip_forward": "1", "kernel.shm_rmid_forced": "1"}))
        .set(
            "linux.devices",
            json!([{"type": "c", "path": "/dev/own/fuse", "major": 10,
            "minor": 229, "fileMode": 0o666, "uid": 1000, "gid": 1000}]),
        )
        .set(
            "linux.seccomp",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["mknod"], "action": "SCMP_ACT_ERRNO"}]}),
        );
    b.probe(&["report", "uid"]);
    b
}

fn create(t: &Test, b: &Bundle) -> Vec<Vec<Call>> {
    b.write();
    let all = traced(t, t.command(&["run", "--bundle", b.path(), &b.id]));
    t.nothing_left(b);
    all
}

#[track_caller]
fn hold(all: &[Vec<Call>], enters: &dyn Fn(&Call) -> bool, least: usize) {
    let inside = inside(all, enters);
    assert_eq!(inside.len(), 1, "one process goes inside");
    assert!(inside[0].len() > least, "only {} calls were seen inside", inside[0].len());
    let broken = violations(inside[0], "/probe");
    assert!(broken.is_empty(), "{broken:#?}");
    let open: Vec<_> = all.iter().flat_map(|calls| not_closed(own(calls, "/probe"))).collect();
    assert!(open.is_empty(), "not close-on-exec: {open:#?}");
}

/// From where the image can be reached on: before that, names are the administrator's.
fn attaches(call: &Call) -> bool {
    call.name == "move_mount" && call.result == "0"
}

fn begins(call: &Call) -> bool {
    call.is("prctl", "PR_SET_NAME, \"corten:exec\"")
}

/// T-INV for `create` and `start`: with everything that makes a name in the container.
fn policy_of_run(t: &Test) {
    t.skip_on_peers("paths as strings, see the control");
    hold(&create(t, &rich(t)), &attaches, 300);
    let mut plain = t.bundle();
    plain.probe(&["report", "uid"]);
    hold(&create(t, without_dev(&mut plain)), &attaches, 150);
    // The same eyes see crun 1.8 break the rules.
    control(t, "crun", |peer| breaks(t, peer));
}

fn breaks(t: &Test, peer: &Peer) -> bool {
    let mut b = t.bundle();
    b.probe(&["report", "uid"]).write();
    let all = traced(t, peer.command(&["run", "--bundle", b.path(), &b.id]));
    t.execute(peer.command(&["delete", "--force", &b.id]));
    let enters = |call: &Call| call.name == "pivot_root";
    inside(&all, &enters).iter().any(|calls| !violations(calls, "/probe").is_empty())
}

/// T-INV with a user namespace, and with a terminal.
fn policy_of_variants(t: &Test) {
    t.skip_on_peers("paths as strings");
    let mut b = t.bundle();
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    b.namespace("user", None)
        .set("linux.uidMappings", map.clone())
        .set("linux.gidMappings", map)
        .probe(&["report", "uid"]);
    hold(&create(t, &b), &attaches, 150);
    let mut b = t.bundle();
    b.set("process.terminal", json!(true)).probe(&["report", "tty"]);
    hold(&create(t, &b), &attaches, 150);
}

/// T-INV for `exec`, with and without a terminal, in a user namespace too.
fn policy_of_exec(t: &Test) {
    t.skip_on_peers("paths as strings");
    let mut b = rich(t);
    t.sleeper(&mut b);
    let mut users = t.bundle();
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    users
        .namespace("user", None)
        .set("linux.uidMappings", map.clone())
        .set("linux.gidMappings", map);
    t.sleeper(&mut users);
    for (id, flags) in [
        (&b.id, &[][..]),
        (&b.id, &["--user", "7:8", "--cwd", "/vol/x", "--cap", "CAP_KILL"][..]),
        (&b.id, &["--tty"][..]),
        (&users.id, &[][..]),
    ] {
        let mut args = vec!["exec"];
        args.extend(flags);
        args.extend([id.as_str(), "/probe", "report", "uid"]);
        let all = traced(t, t.command(&args));
        hold(&all, &begins, 40);
        undumpable(&all);
    }
}

/// Who enters is not dumpable before the clone that makes it visible (CVE-2016-9962).
#[track_caller]
fn undumpable(all: &[Vec<Call>]) {
    let hides = |calls: &[Call]| {
        let clone = calls.iter().position(|call| call.name == "clone3")?;
        let hidden =
            calls.iter().position(|call| call.is("prctl", "PR_SET_DUMPABLE, SUID_DUMP_DI"));
        Some(hidden.is_some_and(|hidden| hidden < clone))
    };
    let seen: Vec<bool> = all.iter().filter_map(|calls| hides(calls)).collect();
    // A process in the middle is born hidden.
    assert!(seen.contains(&true), "cloned while dumpable: {seen:?}");
}

/// No name in the container decides how long we wait: libc once looked for a number in /proc.
fn nothing_of_the_image_holds_us_up(t: &Test) {
    let mut b = t.bundle();
    b.unmount("/proc");
    b.set("linux.maskedPaths", json!([])).set("linux.readonlyPaths", json!([]));
    without_dev(&mut b);
    for path in [
        "proc/sys/kernel/ngroups_max",
        "proc/sys/kernel/cap_last_cap",
        "proc/sys/vm/overcommit_memory",
        "proc/self/status",
        "proc/self/mountinfo",
        "proc/self/attr/exec",
        "proc/self/oom_score_adj",
        "proc/self/setgroups",
        "proc/cpuinfo",
        "proc/stat",
        "proc/meminfo",
        "sys/devices/system/cpu/online",
        "etc/group",
        "etc/nsswitch.conf",
        "etc/ld.so.cache",
        "etc/localtime",
    ] {
        let path = b.rootfs().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let _absent = fs::remove_file(&path);
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    }
    b.set("process.user", json!({"uid": 1000, "gid": 1000, "additionalGids": [1, 2]}));
    b.probe(&["report", "uid"]);
    assert_eq!(t.run(&b).ok().fact(0)["uid"], json!([1000, 1000, 1000]));
    // And one that is read on purpose.
    let path = b.rootfs().join("etc/passwd");
    fs::remove_file(&path).unwrap();
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    t.run(&b).ok();
}
