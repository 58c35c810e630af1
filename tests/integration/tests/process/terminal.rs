//! Its terminal, and the console socket.

use corten_integration::console::ConsoleSocket;
use corten_integration::suite::Case;
use corten_integration::{Bundle, Flavour, Test, tests};
use serde_json::{Value, json};

pub(crate) const TESTS: &[Case] = tests![
    terminal_arrives_at_the_console_socket,
    terminal_has_the_console_size,
    terminal_is_controlling_and_dev_console,
    terminal_resize_reaches_the_program,
    terminal_belongs_to_the_user,
    terminal_in_the_foreground,
    terminal_needs_a_console_socket_to_detach,
    console_socket_without_terminal_is_refused,
    console_size_without_terminal_is_ignored,
    console_socket_that_is_absent_fails,
];

fn with_terminal(t: &Test, steps: &[&str]) -> Bundle {
    let mut b = t.bundle();
    b.set("process.terminal", json!(true)).probe(steps);
    b
}

/// Creates the container with a console socket and starts it.
fn on_a_terminal(t: &Test, b: &Bundle) -> corten_integration::console::Terminal {
    b.write();
    let socket = ConsoleSocket::bind(&t.dir.join(format!("console{}", t.next())));
    t.call(&["create", "--bundle", b.path(), "--console-socket", socket.path(), &b.id]).ok();
    let terminal = socket.accept();
    t.start(&b.id).ok();
    terminal
}

/// The terminal's master is sent to the console socket, and talks to the program.
fn terminal_arrives_at_the_console_socket(t: &Test) {
    let b = with_terminal(t, &["print", "tick", ";", "stdin"]);
    let mut terminal = on_a_terminal(t, &b);
    assert!(!terminal.name.is_empty(), "the message names the terminal");
    terminal.expect("\"tick\"");
    terminal.send("typed\n\u{4}");
    terminal.expect("{\"stdin\":\"typed\\n\"}");
    t.wait_status(&b.id, "stopped");
}

/// consoleSize is the window's size from the start.
fn terminal_has_the_console_size(t: &Test) {
    let mut b = with_terminal(t, &["report", "tty"]);
    b.set("process.consoleSize", json!({"height": 33, "width": 101}));
    let text = on_a_terminal(t, &b).expect("\"controlling\"");
    t.wait_status(&b.id, "stopped");
    let seen: Value = serde_json::from_str(text.trim()).unwrap();
    assert_eq!(seen["tty"]["0"]["rows"], 33, "{seen}");
    assert_eq!(seen["tty"]["0"]["columns"], 101, "{seen}");
}

/// All three streams are the terminal, it is the controlling one, and /dev/console is the same.
fn terminal_is_controlling_and_dev_console(t: &Test) {
    let b = with_terminal(t, &["report", "tty", "devices", ";", "print", "end"]);
    let text = on_a_terminal(t, &b).expect("\"end\"");
    let seen: Value = serde_json::from_str(text.lines().next().unwrap().trim()).unwrap();
    assert_eq!(seen["tty"]["controlling"], true, "{seen}");
    for fd in ["0", "1", "2"] {
        assert!(seen["tty"][fd]["rows"].is_number(), "stream {fd}: {seen}");
    }
    assert_eq!(seen["devices"]["console"]["type"], "c");
    assert_eq!(seen["devices"]["console"]["major"], 136);
    assert_eq!(
        seen["devices"]["console"]["mode"].as_i64().unwrap() & 0o022,
        0o020 & 0o022 & seen["devices"]["console"]["mode"].as_i64().unwrap()
    );
}

/// A resize of the master reaches the program as SIGWINCH with the new size.
fn terminal_resize_reaches_the_program(t: &Test) {
    let b = with_terminal(t, &["winch"]);
    let mut terminal = on_a_terminal(t, &b);
    terminal.expect("ready");
    let mut resize = std::process::Command::new(corten_integration::bundle::probe());
    resize.args(["resize", "50", "132"]);
    resize.stdin(terminal.master().try_clone().unwrap());
    t.launch(resize).wait().ok();
    let text = terminal.expect("\"controlling\"");
    assert!(text.contains("\"rows\":50") && text.contains("\"columns\":132"), "{text}");
}

/// The terminal's slave belongs to the program's user.
fn terminal_belongs_to_the_user(t: &Test) {
    let mut b = with_terminal(
        t,
        &["stat", "/dev/pts/0", ";", "open-rw", "/dev/pts/0", ";", "print", "end"],
    );
    b.set("process.user", json!({"uid": 1000, "gid": 1000}));
    let text = on_a_terminal(t, &b).expect("\"end\"");
    assert!(text.contains("\"uid\":1000"), "{text}");
    assert!(text.lines().nth(1).unwrap().contains("\"ok\":true"), "{text}");
}

/// A foreground run makes the terminal itself and copies both ways.
fn terminal_in_the_foreground(t: &Test) {
    let b = with_terminal(t, &["report", "tty", ";", "exit", "3"]);
    b.write();
    let line = format!(
        "{} --root {} run -b {} {}",
        t.runtime.display(),
        t.root().display(),
        b.path(),
        b.id
    );
    let mut command = std::process::Command::new("script");
    command.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
    let out = t.execute(command).exits(3);
    assert_eq!(out.fact(0)["tty"]["controlling"], true);
}

/// Without a socket nobody could hold the terminal of a detached container.
fn terminal_needs_a_console_socket_to_detach(t: &Test) {
    let b = with_terminal(t, &["report"]);
    t.create_fails(&b).says(
        "cannot allocate tty if runc will detach without setting console socket|console socket",
    );
}

/// The opposite mistake.
fn console_socket_without_terminal_is_refused(t: &Test) {
    t.skip_on(Flavour::Crun, "ignores it");
    let b = t.bundle();
    b.write();
    let socket = ConsoleSocket::bind(&t.dir.join("console"));
    t.call(&["create", "--bundle", b.path(), "--console-socket", socket.path(), &b.id])
        .fails()
        .says("cannot use console socket");
    t.nothing_left(&b);
}

/// consoleSize without terminal has no meaning and does no harm.
fn console_size_without_terminal_is_ignored(t: &Test) {
    let mut b = t.bundle();
    b.set("process.consoleSize", json!({"height": 33, "width": 101}));
    assert_eq!(t.report(&b)["tty"]["0"], Value::Null);
}

/// A socket that isn't there fails the create and leaves nothing.
fn console_socket_that_is_absent_fails(t: &Test) {
    let b = with_terminal(t, &["report"]);
    b.write();
    t.call(&["create", "--bundle", b.path(), "--console-socket", "/absent/socket", &b.id])
        .fails()
        .says("no such file or directory");
    t.nothing_left(&b);
}
