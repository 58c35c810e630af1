//! Standard input, terminals and descriptors.

use std::fs;
use std::process::Command;

use corten_integration::console::ConsoleSocket;
use corten_integration::suite::Case;
use corten_integration::{Test, tests};

use crate::container;

pub(crate) const TESTS: &[Case] = tests![
    exec_passes_stdin,
    exec_without_terminal_is_a_session_of_its_own,
    exec_terminal_in_the_foreground,
    exec_terminal_through_a_console_socket,
    exec_preserves_descriptors,
    exec_leaks_no_descriptor,
];

/// Standard input of the command is the program's.
fn exec_passes_stdin(t: &Test) {
    let (b, _) = container(t);
    let line = format!("echo fed | $RUNTIME --root $ROOT exec {} /probe stdin", b.id);
    assert_eq!(t.shell(&line).ok().fact(0)["stdin"], "fed\n");
}

/// CVE-2017-5226: without a terminal the process must not keep the caller's controlling one.
fn exec_without_terminal_is_a_session_of_its_own(t: &Test) {
    let (b, _) = container(t);
    let seen = t.exec(&b.id, &[], &["report", "pid", "sid", "tty"]).ok().fact(0);
    assert_eq!(seen["sid"], seen["pid"]);
    assert_eq!(seen["tty"]["controlling"], false);
}

/// `exec --tty` in the foreground makes a terminal of its own and copies both ways.
fn exec_terminal_in_the_foreground(t: &Test) {
    let (b, _) = container(t);
    // script(1) gives the runtime a terminal, as a person's shell would.
    let line = format!(
        "{} --root {} exec --tty {} /probe report tty pid sid",
        t.runtime.display(),
        t.root().display(),
        b.id
    );
    let mut command = Command::new("script");
    command.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
    let seen = t.execute(command).ok().fact(0);
    assert_eq!(seen["tty"]["controlling"], true, "{seen}");
    assert!(seen["tty"]["0"]["name"].as_str().unwrap().starts_with("/dev/pts/"), "{seen}");
    assert_eq!(seen["sid"], seen["pid"]);
}

/// `exec --tty --detach --console-socket`: the terminal arrives at the socket and works.
fn exec_terminal_through_a_console_socket(t: &Test) {
    let (b, _) = container(t);
    let socket = ConsoleSocket::bind(&t.dir.join("console"));
    let flags = ["--tty", "--detach", "--console-socket", socket.path()];
    t.exec(&b.id, &flags, &["report", "tty", ";", "stdin"]).ok();
    let mut terminal = socket.accept();
    terminal.expect("\"controlling\":true");
    terminal.send("typed\n\u{4}");
    terminal.expect("{\"stdin\":\"typed\\n\"}");
}

/// `--preserve-fds N` hands 3 .. 3+N over.
fn exec_preserves_descriptors(t: &Test) {
    let (b, _) = container(t);
    let file = t.dir.join("handed");
    fs::write(&file, "x").unwrap();
    let line = format!(
        "exec 3<{f} 4<{f} 5<{f}; $RUNTIME --root $ROOT exec --preserve-fds 2 {} /probe report fds",
        b.id,
        f = file.display()
    );
    let seen = t.shell(&line).ok().fact(0);
    let names: Vec<&String> = seen["fds"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["0", "1", "2", "3", "4"], "{seen}");
}

/// CVE-2024-21626: nothing but the three standard streams is open in the program.
fn exec_leaks_no_descriptor(t: &Test) {
    let (b, _) = container(t);
    let line = format!(
        "exec 3</ 4</proc 9</sys/fs/cgroup; $RUNTIME --root $ROOT exec {} /probe report fds",
        b.id
    );
    let seen = t.shell(&line).ok().fact(0);
    assert_eq!(seen["fds"].as_object().unwrap().len(), 3, "{seen}");
    for fd in 3..12 {
        let cwd = format!("/proc/self/fd/{fd}");
        let out = t.exec(&b.id, &["--cwd", &cwd], &["ls", "..", ";", "report", "cwd"]);
        assert!(out.code != 0 || !out.stdout.contains("sbin"), "the host's root is visible: {out}");
    }
}
