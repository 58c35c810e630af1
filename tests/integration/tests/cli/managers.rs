//! What managers call, word by word, and the sockets that they pass.

use std::fs;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};

use corten_integration::suite::Case;
use corten_integration::{Flavour, Test, tests};
use serde_json::json;

pub(crate) const TESTS: &[Case] = tests![
    go_runc_a_whole_life,
    conmon_a_whole_life,
    conmon_rs_a_whole_life,
    buildah_a_whole_life,
    notify_socket_is_passed_on,
    pidfd_socket_receives_the_process,
];

/// What containerd's shim calls, word by word.
fn go_runc_a_whole_life(t: &Test) {
    t.skip_on(Flavour::Crun, "not its words");
    let mut b = t.bundle();
    b.probe(&["sleep"]).write();
    let log = b.dir.join("log.json");
    let (pid_file, log) = (b.dir.join("init.pid"), log.to_str().unwrap().to_owned());
    let globals = ["--log", &log, "--log-format", "json"];
    let go = |args: &[&str]| t.call(&[&globals[..], args].concat());
    go(&["create", "--bundle", b.path(), "--pid-file", pid_file.to_str().unwrap(), &b.id]).ok();
    let pid: i32 = fs::read_to_string(&pid_file).unwrap().parse().unwrap();
    go(&["start", &b.id]).ok();
    let process = b.dir.join("process.json");
    let text = json!({"args": ["/probe", "exit", "5"], "cwd": "/", "env": ["PATH=/"], "user": {"uid": 0, "gid": 0}});
    fs::write(&process, text.to_string()).unwrap();
    let exec_pid = b.dir.join("exec.pid");
    go(&[
        "exec",
        "--process",
        process.to_str().unwrap(),
        "--detach",
        "--pid-file",
        exec_pid.to_str().unwrap(),
        &b.id,
    ])
    .ok();
    assert_eq!(t.exit_code(fs::read_to_string(&exec_pid).unwrap().parse().unwrap()), 5);
    let pids = go(&["ps", "--format", "json", &b.id]).ok().json();
    assert_eq!(pids, json!([pid]));
    let update = format!(
        "echo '{{\"pids\":{{\"limit\":99}}}}' | $RUNTIME --root $ROOT update --resources=- {}",
        b.id
    );
    t.shell(&update).ok();
    go(&["pause", &b.id]).ok();
    go(&["resume", &b.id]).ok();
    t.wait_asleep(&b.id);
    go(&["kill", &b.id, "15"]).ok();
    assert_eq!(t.exit_code(pid), 143);
    go(&["kill", "--all", &b.id, "9"]);
    go(&["delete", &b.id]).ok();
    go(&["delete", "--force", &b.id]).ok();
    t.nothing_left(&b);
}

/// What conmon and podman call.
fn conmon_a_whole_life(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["sleep"]).write();
    let pid_file = b.dir.join("pidfile");
    let log = b.dir.join("oci-log");
    t.call(&[
        "--log-format=json",
        "--log",
        log.to_str().unwrap(),
        "create",
        "--bundle",
        b.path(),
        "--pid-file",
        pid_file.to_str().unwrap(),
        "--no-new-keyring",
        &b.id,
    ])
    .ok();
    t.call(&["start", &b.id]).ok();
    t.wait_asleep(&b.id);
    let process = b.dir.join("process.json");
    let text = json!({"args": ["/probe", "exit", "6"], "cwd": "/", "env": ["PATH=/"], "user": {"uid": 0, "gid": 0}});
    fs::write(&process, text.to_string()).unwrap();
    let exec_pid = b.dir.join("exec.pid");
    t.call(&[
        "exec",
        "--pid-file",
        exec_pid.to_str().unwrap(),
        "--process",
        process.to_str().unwrap(),
        "--detach",
        &b.id,
    ])
    .ok();
    assert_eq!(t.exit_code(fs::read_to_string(&exec_pid).unwrap().parse().unwrap()), 6);
    let resources = b.dir.join("resources");
    fs::write(&resources, json!({"pids": {"limit": 88}}).to_string()).unwrap();
    t.call(&["update", &format!("--resources={}", resources.display()), &b.id]).ok();
    t.call(&["kill", "--all", &b.id, "9"]).ok();
    t.wait_status(&b.id, "stopped");
    t.call(&["delete", "--force", &b.id]).ok();
    t.nothing_left(&b);
}

/// conmon-rs repeats the global options.
fn conmon_rs_a_whole_life(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["sleep"]).write();
    let root = format!("--root={}", t.root().display());
    let pid_file = format!("--pid-file={}", b.dir.join("pid").display());
    let bundle = format!("--bundle={}", b.path());
    let mut command = Command::new(&t.runtime);
    command.args([&root, &root, "create", &bundle, &pid_file, &b.id]);
    t.execute(command).ok();
    t.start(&b.id).ok();
    let exec_file = format!("--pid-file={}", b.dir.join("exec.pid").display());
    t.call(&["exec", "-d", &exec_file, &b.id, "/probe", "exit", "4"]).ok();
    assert_eq!(
        t.exit_code(fs::read_to_string(b.dir.join("exec.pid")).unwrap().parse().unwrap()),
        4
    );
    t.call(&["kill", &b.id, "KILL"]).ok();
    t.wait_status(&b.id, "stopped");
    t.call(&["delete", "--force", &b.id]).ok();
}

/// buildah polls the state and knows four words of status.
fn buildah_a_whole_life(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["sleep"]).write();
    let pid_file = b.dir.join("pid");
    t.call(&["create", "--bundle", b.path(), "--pid-file", pid_file.to_str().unwrap(), &b.id]).ok();
    t.call(&["start", &b.id]).ok();
    t.wait_asleep(&b.id);
    assert_eq!(t.status(&b.id), "running");
    t.call(&["kill", &b.id]).ok();
    t.wait_status(&b.id, "stopped");
    t.call(&["delete", &b.id]).ok();
}

/// sd_notify: the program finds a socket of its own; READY arrives at the caller's, with MAINPID.
fn notify_socket_is_passed_on(t: &Test) {
    use std::os::unix::net::UnixDatagram;
    t.skip_on(Flavour::Crun, "other rules");
    let path = t.dir.join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(corten_integration::driver::deadline())).unwrap();
    let mut b = t.bundle();
    b.probe(&["notify-ready", ";", "sleep"]).write();
    let mut run = t.command(&["run", "--detach", "--bundle", b.path(), &b.id]);
    run.env("NOTIFY_SOCKET", &path).stdin(Stdio::null());
    // It returns when the barrier that it sends has been received.
    let run = t.launch(run);
    let mut got = String::new();
    while !got.contains("MAINPID") || (t.flavour == Flavour::Corten && !got.contains("BARRIER")) {
        let mut buffer = [0; 512];
        let length = socket.recv(&mut buffer).expect("a notification");
        got.push_str(&String::from_utf8_lossy(&buffer[..length]));
        got.push('\n');
    }
    run.wait().ok();
    let pid = t.pid(&b.id);
    assert!(got.contains("READY=1") && got.contains(&format!("MAINPID={pid}")), "{got}");
    t.force(&b.id).ok();
}

/// --pidfd-socket receives a pidfd of the first process.
fn pidfd_socket_receives_the_process(t: &Test) {
    t.skip_on_peers("older than --pidfd-socket");
    let path = t.dir.join("pidfd");
    let listener = UnixListener::bind(&path).unwrap();
    listener.set_nonblocking(true).unwrap();
    let mut b = t.bundle();
    b.probe(&["sleep"]).write();
    let create =
        t.spawn(&["create", "--pidfd-socket", path.to_str().unwrap(), "--bundle", b.path(), &b.id]);
    let mut stream = None;
    corten_integration::driver::wait_until("the pidfd is sent", || {
        stream = listener.accept().ok();
        stream.is_some()
    });
    let (stream, _) = stream.unwrap();
    stream.set_nonblocking(false).unwrap();
    let fds = corten_integration::console::receive(&stream);
    create.wait().ok();
    assert_eq!(fds.1.len(), 1);
    let info = fs::read_to_string(format!(
        "/proc/self/fdinfo/{}",
        std::os::fd::AsRawFd::as_raw_fd(&fds.1[0])
    ))
    .unwrap();
    assert!(info.contains(&format!("Pid:\t{}\n", t.pid(&b.id))), "{info}");
    assert_eq!(fds.0, "standard");
}
