//! The daemon that `start` leaves: one per group, detached from containerd, and answering.
#![allow(clippy::disallowed_methods, reason = "starts that run at the same time")]
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use common::{Bundle, NAMESPACE, one_line};
use containerd_shim_corten::bootstrap::socket;
use containerd_shim_protos::api::ConnectRequest;
use containerd_shim_protos::bootstrap_api::BootstrapResult;
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::ttrpc::context;
use containerd_shim_protos::{Client, TaskClient};
use corten::kill::wait_ended;
use corten::sys::process::{pidfd_open, pidfd_send_signal};
use nix::unistd::{Pid, getpgid};

/// The process that listens at a socket; it is ended with the test.
struct Daemon {
    pid: Pid,
}

impl Daemon {
    /// The kernel would name `start`, which called listen(2).
    fn at(address: &str) -> Self {
        let client = TaskClient::new(Client::connect(address).unwrap());
        let context = context::with_duration(Duration::from_secs(10));
        let request = ConnectRequest { id: "demo".to_owned(), ..ConnectRequest::default() };
        let answer = client.connect(context, &request).unwrap();
        Self { pid: Pid::from_raw(answer.shim_pid.cast_signed()) }
    }

    fn end(&self, signal: i32) {
        let Ok(pidfd) = pidfd_open(self.pid) else { return };
        pidfd_send_signal(&pidfd, signal).unwrap_or_default();
        assert!(wait_ended(&pidfd, Duration::from_secs(10)).unwrap());
    }

    fn proc(&self, file: &str) -> String {
        let bytes = fs::read(format!("/proc/{}/{file}", self.pid)).unwrap();
        String::from_utf8_lossy(&bytes).replace('\0', "\n")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.end(libc::SIGKILL);
    }
}

fn address(out: &Output) -> String {
    assert!(out.status.success() && out.stderr.is_empty(), "{out:?}");
    BootstrapResult::parse_from_bytes(&out.stdout).unwrap().address
}

#[test]
fn it_answers_as_soon_as_start_has_ended() {
    let bundle = Bundle::new("{}");
    let answer = address(&bundle.start(&[]));
    let daemon = Daemon::at(&answer);
    let mode = fs::metadata(bundle.socket("demo")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // And no second one is made.
    assert_eq!(address(&bundle.start(&[])), answer);
    assert_eq!(Daemon::at(&answer).pid, daemon.pid);
}

#[test]
fn it_is_detached_from_containerd() {
    let bundle = Bundle::new("{}");
    let mut start = bundle.start_beside("c0");
    start.env("NOTIFY_SOCKET", "/run/notify").env("KEPT", "yes");
    let daemon = Daemon::at(&address(&start.output().unwrap()));
    assert_eq!(getpgid(Some(daemon.pid)).unwrap(), daemon.pid);
    assert_eq!(daemon.proc("comm"), "containerd-shim\n");
    let cmdline = daemon.proc("cmdline");
    let words = format!("-namespace\n{NAMESPACE}\n-id\nc0\n-address\n{}\n", bundle.grpc_address());
    assert!(cmdline.contains(&words), "{cmdline}");
    let cwd = fs::read_link(format!("/proc/{}/cwd", daemon.pid)).unwrap();
    assert_eq!(cwd, bundle.outside().join("c0").canonicalize().unwrap());
    let environ = daemon.proc("environ");
    assert!(environ.contains("KEPT=yes\n") && !environ.contains("NOTIFY_SOCKET"), "{environ}");
    for stream in 0..3 {
        let file = fs::read_link(format!("/proc/{}/fd/{stream}", daemon.pid)).unwrap();
        assert_eq!(file, Path::new("/dev/null"), "{stream}");
    }
}

#[test]
fn the_oom_killer_takes_it_before_containerd() {
    let bundle = Bundle::new("{}");
    let daemon = Daemon::at(&address(&bundle.start(&[])));
    let ours: i32 = fs::read_to_string("/proc/self/oom_score_adj").unwrap().trim().parse().unwrap();
    let its: i32 = daemon.proc("oom_score_adj").trim().parse().unwrap();
    assert_eq!(its, (ours + 1).min(1000));
}

#[test]
fn a_dead_one_is_replaced() {
    let bundle = Bundle::new("{}");
    let answer = address(&bundle.start(&[]));
    let first = Daemon::at(&answer);
    first.end(libc::SIGKILL);
    assert!(bundle.socket("demo").exists());
    assert_eq!(address(&bundle.start(&[])), answer);
    let second = Daemon::at(&answer);
    assert_ne!(first.pid, second.pid);
    // One that ends in order takes its socket with it.
    second.end(libc::SIGTERM);
    assert!(!bundle.socket("demo").exists());
}

#[test]
fn of_many_starts_for_one_group_one_makes_it() {
    let config = r#"{"annotations":{"io.containerd.runc.v2.group":"all"}}"#;
    let bundle = Bundle::new(config);
    let starts: Vec<_> = (0..8)
        .map(|number| {
            let mut start = bundle.start_beside(&format!("c{number}"));
            start.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    let mut addresses: Vec<String> =
        starts.into_iter().map(|start| address(&start.wait_with_output().unwrap())).collect();
    let _daemon = Daemon::at(&addresses[0]);
    addresses.dedup();
    assert_eq!(addresses, [socket::address(&bundle.socket("all"))]);
    // The others have left none behind that nobody can reach.
    let grpc = bundle.grpc_address();
    let ours = |pid: &str| {
        fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| String::from_utf8_lossy(&line).contains(&grpc))
    };
    let pids = fs::read_dir("/proc").unwrap().flatten();
    let shims = pids.filter(|entry| ours(&entry.file_name().to_string_lossy())).count();
    assert_eq!(shims, 1);
}

#[test]
fn an_answer_that_nobody_reads_leaves_no_daemon() {
    let bundle = Bundle::new("{}");
    let (reader, writer) = nix::unistd::pipe().unwrap();
    drop(reader);
    let out = bundle.start_beside("c0").stdout(writer).output().unwrap();
    assert!(one_line(&out.stderr).contains("write to standard output: broken pipe"), "{out:?}");
    assert!(!bundle.socket("c0").exists());
}

#[test]
fn its_log_is_the_bundles_fifo() {
    let bundle = Bundle::new("{}");
    let fifo = bundle.path().join("log");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    // Nobody reads yet, and nothing waits for that.
    let daemon = Daemon::at(&address(&bundle.start(&["-debug"])));
    let mut log = fs::File::open(&fifo).unwrap();
    daemon.end(libc::SIGTERM);
    let mut text = String::new();
    log.read_to_string(&mut text).unwrap();
    assert!(text.lines().all(|line| line.starts_with("time=\"20")), "{text}");
    assert!(text.contains("level=info msg="), "{text}");
}

/// A group of the test's own in one hierarchy of v1, or below the root of v2.
struct Group(PathBuf);

impl Group {
    fn new(name: &str) -> Self {
        let pids = Path::new("/sys/fs/cgroup/pids");
        let mount = if pids.exists() { pids } else { Path::new("/sys/fs/cgroup") };
        fs::create_dir(mount.join(name)).unwrap();
        Self(mount.join(name))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // A process that has ended leaves its group a moment later.
        let removed = (0..500).any(|_| {
            std::thread::sleep(Duration::from_millis(2));
            fs::remove_dir(&self.0).is_ok()
        });
        assert!(removed);
    }
}

#[test]
fn it_joins_the_cgroup_that_its_options_name() {
    let name = format!("corten-test-shim-{}", std::process::id());
    let group = Group::new(&name);
    let bundle = Bundle::new("{}");
    let daemon = Daemon::at(&address(&bundle.start_in(&name)));
    let procs = fs::read_to_string(group.0.join("cgroup.procs")).unwrap();
    assert_eq!(procs.trim(), daemon.pid.to_string());
    drop(daemon);
}

#[test]
fn a_cgroup_that_does_not_exist_is_an_error() {
    let bundle = Bundle::new("{}");
    let out = bundle.start_in("/corten-no-such-group");
    assert!(one_line(&out.stderr).contains("/corten-no-such-group does not exist"), "{out:?}");
    assert!(!bundle.socket("demo").exists());
}

#[test]
fn one_that_nobody_waits_for_does_not_stay() {
    // As when start is killed before the daemon is ready: the ready pipe has no reader.
    let bundle = Bundle::new("{}");
    let socket = bundle.outside().join("socket");
    let (reader, writer) = nix::unistd::pipe().unwrap();
    drop(reader);
    let out = bundle
        .command(&["-namespace", NAMESPACE, "-id", "demo", "-ready-fd", "1", "-socket"])
        .arg(&socket)
        .stdout(writer)
        .output()
        .unwrap();
    assert_eq!(out.status.code(), Some(1), "{out:?}");
    assert!(String::from_utf8_lossy(&out.stderr).contains("broken pipe"), "{out:?}");
    assert!(!socket.exists());
}
