//! `delete` from outside: it needs nothing but the bundle, and finds out how the init ended.
#![allow(clippy::disallowed_methods, reason = "the containers' processes are ordinary children")]
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Child, Command, Output};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::{Bundle, NAMESPACE};
use containerd_shim_corten::exits::{self, Exit};
use containerd_shim_corten::options::Options;
use containerd_shim_protos::api::DeleteResponse;
use containerd_shim_protos::protobuf::Message;
use corten::state::{FORMAT, Process, State, boot_id};
use corten::store::Store;
use nix::unistd::Pid;

/// A container as far as `delete` knows: a journal, and a process outside of all cgroups.
struct Container {
    bundle: Bundle,
    init: Child,
}

impl Container {
    fn new(program: &[&str]) -> Self {
        let bundle = Bundle::new("{}");
        let init = Command::new(program[0]).args(&program[1..]).spawn().unwrap();
        let container = Self { bundle, init };
        let options = Options {
            root: container.bundle.outside().join("state").to_str().unwrap().to_owned(),
            ..Options::default()
        };
        options.write(&container.bundle.path()).unwrap();
        container.write_journal();
        container
    }

    fn state_dir(&self) -> PathBuf {
        self.bundle.outside().join("state").join(NAMESPACE).join("demo")
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.init.id().cast_signed())
    }

    fn write_journal(&self) {
        let store = Store::new(self.state_dir().parent().unwrap(), false);
        let (dir, _lock) = store.claim("demo").unwrap();
        let state = State {
            format: FORMAT,
            id: "demo".to_owned(),
            oci_version: "1.2.0".to_owned(),
            bundle: self.bundle.path(),
            rootfs: self.bundle.path().join("rootfs"),
            created: "2026-01-01T00:00:00Z".to_owned(),
            owner: 0,
            boot_id: boot_id().unwrap(),
            complete: true,
            init: Some(Process::of(self.pid()).unwrap()),
            cgroup: None,
            own_pid_namespace: true,
            rootless: false,
            annotations: Default::default(),
        };
        dir.write_state(&state).unwrap();
    }

    fn delete(&self) -> Output {
        self.bundle.run(&[], &["-namespace", NAMESPACE, "-id", "demo", "delete"])
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.init.kill().unwrap_or_default();
        self.init.wait().unwrap();
    }
}

fn answer(out: &Output) -> DeleteResponse {
    assert!(out.status.success(), "{out:?}");
    DeleteResponse::parse_from_bytes(&out.stdout).unwrap()
}

fn seconds_ago(answer: &DeleteResponse) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    now.cast_signed() - answer.exited_at.seconds
}

#[test]
fn a_running_container_is_killed() {
    let container = Container::new(&["sleep", "600"]);
    let out = container.delete();
    let answer = answer(&out);
    assert!(out.stderr.is_empty(), "{out:?}");
    assert_eq!((answer.pid, answer.exit_status), (container.init.id(), 137));
    assert!((0..60).contains(&seconds_ago(&answer)), "{answer:?}");
    assert!(!container.state_dir().exists());
    // It has ended: nobody but us keeps it as a zombie.
    let stat = corten::state::Stat::of(container.pid()).unwrap();
    assert_eq!(stat.state, 'Z');
}

#[test]
fn an_init_that_has_ended_by_itself_keeps_its_status() {
    let container = Container::new(&["sh", "-c", "exit 42"]);
    wait_for_zombie(container.pid());
    let answer = answer(&container.delete());
    assert_eq!((answer.pid, answer.exit_status), (container.init.id(), 42));
}

#[test]
fn the_record_is_what_counts() {
    let container = Container::new(&["sleep", "600"]);
    let exited_at = UNIX_EPOCH + Duration::new(1_700_000_000, 42);
    let exit = Exit { pid: 4711, status: 3, exited_at };
    exits::write(&container.bundle.path(), None, &exit).unwrap();
    let answer = answer(&container.delete());
    assert_eq!((answer.pid, answer.exit_status), (4711, 3));
    assert_eq!((answer.exited_at.seconds, answer.exited_at.nanos), (1_700_000_000, 42));
    assert!(!container.state_dir().exists());
}

#[test]
fn nothing_there_is_no_error_however_often() {
    let bundle = Bundle::new("{}");
    fs::write(bundle.path().join("init.pid"), "4711").unwrap();
    let words = ["-namespace", NAMESPACE, "-id", "corten-test-none", "delete"];
    for _ in 0..2 {
        let out = bundle.run(&[], &words);
        let answer = answer(&out);
        assert_eq!((answer.pid, answer.exit_status), (4711, 137));
        assert!(out.stderr.is_empty(), "{out:?}");
    }
}

#[test]
fn the_bundle_may_be_named() {
    let container = Container::new(&["sleep", "600"]);
    let out = common::shim()
        .args(["-namespace", NAMESPACE, "-id", "demo", "-bundle"])
        .arg(container.bundle.path())
        .arg("delete")
        .current_dir("/")
        .output()
        .unwrap();
    assert_eq!(answer(&out).pid, container.init.id());
    assert!(!container.state_dir().exists());
}

#[test]
fn a_record_that_is_not_understood_is_a_warning() {
    let container = Container::new(&["sleep", "600"]);
    fs::write(container.bundle.path().join("exit.json"), "{").unwrap();
    let out = container.delete();
    assert_eq!(answer(&out).exit_status, 137);
    let words = String::from_utf8(out.stderr).unwrap();
    assert!(words.contains("level=warning") && words.contains("exit.json"), "{words}");
}

#[test]
fn a_dead_socket_goes_and_a_live_one_stays() {
    let bundle = Bundle::new("{}");
    let socket = bundle.outside().join("socket");
    let address = format!("unix://{}", socket.display());
    fs::write(bundle.path().join("address"), address).unwrap();
    let live = UnixListener::bind(&socket).unwrap();
    let delete = || {
        let words = ["-namespace", NAMESPACE, "-id", "corten-test-none", "delete"];
        answer(&bundle.run(&[], &words));
    };
    delete();
    assert!(socket.exists());
    drop(live);
    delete();
    assert!(!socket.exists());
}

#[test]
fn the_root_file_system_is_unmounted() {
    let bundle = Bundle::new("{}");
    // In a mount namespace of its own, so that nothing of it is left here.
    let script = format!(
        "set -e; cd {}; mkdir rootfs; mount -t tmpfs one rootfs; mkdir rootfs/sub; \
         mount -t tmpfs two rootfs/sub; \
         {} -namespace {NAMESPACE} -id corten-test-none delete >/dev/null; \
         ! grep -q {0}/rootfs /proc/self/mountinfo",
        bundle.path().display(),
        env!("CARGO_BIN_EXE_containerd-shim-corten-v2"),
    );
    let out = Command::new("unshare").args(["-m", "sh", "-c", &script]).output().unwrap();
    assert!(out.status.success(), "{out:?}");
}

fn wait_for_zombie(pid: Pid) {
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while corten::state::Stat::of(pid).unwrap().state != 'Z' {
        assert!(std::time::Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(1));
    }
}
