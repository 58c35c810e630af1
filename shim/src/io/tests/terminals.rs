use std::thread;

use corten::sys;
use nix::pty::openpty;
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};

use super::*;

/// A process with a terminal, as far as the shim can tell: the slave, raw unless `cooked`.
fn start(client: &Client, cooked: bool) -> (Rig, File) {
    let [stdin, stdout] = ["in", "out"].map(|name| client.path(name));
    start_with(&Request { stdin: &stdin, stdout: &stdout, ..Request::default() }, cooked)
}

pub(super) fn start_with(request: &Request<'_>, cooked: bool) -> (Rig, File) {
    let Opened { process, mut shim } = open(&Request { terminal: true, ..*request }).unwrap();
    let ProcessEnd::Console(socket) = process else { panic!("streams") };
    let pty = openpty(None, None).unwrap();
    if !cooked {
        make_raw(&pty.slave);
    }
    sys::socket::send(&socket, b"/dev/pts/0", &[pty.master.as_fd()]).unwrap();
    drop((socket, pty.master));
    shim.receive_console().unwrap();
    (Rig::new(shim), pty.slave.into())
}

pub(super) fn make_raw(tty: impl AsFd) {
    let mut raw = tcgetattr(&tty).unwrap();
    cfmakeraw(&mut raw);
    tcsetattr(&tty, SetArg::TCSANOW, &raw).unwrap();
}

#[test]
fn bytes_go_both_ways_and_the_size_follows() {
    let client = Client::new();
    let mut out = client.reader("out");
    let (mut rig, mut tty) = start(&client, true);
    let mut typist = client.writer();
    typist.write_all(b"hello\r").unwrap();
    let mut got = Vec::new();
    rig.until(|_| !gather(&mut out, &mut got) && got == b"hello\r\n");
    let mut line = [0; 6];
    tty.read_exact(&mut line).unwrap();
    assert_eq!(&line, b"hello\n");
    rig.io.resize(34, 12).unwrap();
    assert_eq!(sys::tty::size(&tty).unwrap(), Size { rows: 12, columns: 34 });
    // CloseIO ends the input, not the terminal.
    rig.io.close_stdin();
    drop(typist);
    rig.run(Duration::from_millis(20));
    got.clear();
    tty.write_all(b"bye").unwrap();
    rig.until(|_| !gather(&mut out, &mut got) && got == b"bye");
    assert!(rig.io.describe().starts_with("stdin: over, 6 bytes"), "{}", rig.io.describe());
    rig.io.exited();
    rig.until(|_| gather(&mut out, &mut got));
    rig.io.resize(1, 1).unwrap();
    drop(tty);
    assert!(rig.delete().0 < Duration::from_millis(100));
    drop(out);
    assert_eq!(client.open_fifos(), 0);
}

fn megabytes(mut splices: bool) {
    const SIZE: usize = 2 << 20;
    let client = Client::new();
    let mut out = client.reader("out");
    let (mut rig, mut tty) = start(&client, false);
    if !splices {
        *rig.io.stdin.splices().unwrap() = false;
        *rig.io.stdout.splices().unwrap() = false;
    }
    let sent = noise(SIZE);
    let (to_out, to_in) = (sent.clone(), sent.clone());
    let mut from_tty = tty.try_clone().unwrap();
    let container = thread::spawn(move || {
        let (mut got, mut chunk) = (Vec::new(), vec![0; 8192]);
        while got.len() < SIZE {
            let count = from_tty.read(&mut chunk).unwrap();
            got.extend_from_slice(&chunk[..count]);
            if got.len() % 7 == 0 {
                thread::sleep(Duration::from_millis(2));
            }
        }
        got
    });
    let writer = thread::spawn(move || tty.write_all(&to_out).unwrap());
    let mut typist = OpenOptions::new().write(true).open(client.path("in")).unwrap();
    let typing = thread::spawn(move || typist.write_all(&to_in).unwrap());
    let (mut got, mut looks) = (Vec::new(), 0);
    rig.until(|_| {
        looks += 1;
        if looks % 5 == 0 {
            for _ in 0..20 {
                gather(&mut out, &mut got);
            }
        }
        got.len() >= SIZE && container.is_finished()
    });
    writer.join().unwrap();
    typing.join().unwrap();
    assert!(got == sent);
    assert!(container.join().unwrap() == sent);
    assert_eq!(rig.io.stdin.splices(), Some(&mut splices));
    assert_eq!(rig.io.stdout.splices(), Some(&mut splices));
    rig.io.exited();
    rig.until(|_| gather(&mut out, &mut got));
    assert!(got == sent);
}

#[test]
fn megabytes_each_way_past_readers_that_stall() {
    megabytes(true);
}

#[test]
fn a_kernel_without_splice_for_terminals_is_served_too() {
    megabytes(false);
}

#[test]
fn what_a_terminal_did_not_take_without_splice_follows_when_it_has_room() {
    let client = Client::new();
    let (mut rig, mut tty) = start(&client, false);
    *rig.io.stdin.splices().unwrap() = false;
    let mut typist = client.writer();
    let mut sent = 0;
    while rig.io.describe().starts_with(&format!("stdin: moving, {sent} bytes")) {
        typist.write_all(&[b'x'; 1000]).unwrap();
        sent += 1000;
        rig.run(Duration::from_millis(5));
    }
    assert_eq!(rig.idle_turns(), 0);
    let mut chunk = [0; 4096];
    while sent > 0 {
        sent -= tty.read(&mut chunk).unwrap();
        rig.run(Duration::from_millis(5));
    }
}

#[test]
fn a_terminal_that_nobody_has_open_may_come_back() {
    let client = Client::new();
    let mut out = client.reader("out");
    let (mut rig, mut tty) = start(&client, false);
    let name = std::fs::read_link(format!("/proc/self/fd/{}", {
        use std::os::fd::AsRawFd;
        tty.as_raw_fd()
    }))
    .unwrap();
    let mut got = Vec::new();
    tty.write_all(b"before ").unwrap();
    drop(tty);
    rig.until(|_| !gather(&mut out, &mut got) && got == b"before ");
    assert!(rig.idle_turns() < 3);
    let noctty = nix::libc::O_NOCTTY;
    let mut tty =
        OpenOptions::new().read(true).write(true).custom_flags(noctty).open(&name).unwrap();
    tty.write_all(b"after").unwrap();
    rig.until(|_| !gather(&mut out, &mut got) && got == b"before after");
    assert_eq!(rig.idle_turns(), 0);
    let mut typist = client.writer();
    typist.write_all(b"x").unwrap();
    rig.run(Duration::from_millis(30));
    tty.read_exact(&mut [0]).unwrap();
    drop(tty);
    rig.io.exited();
    rig.until(|_| gather(&mut out, &mut got));
    assert_eq!(rig.idle_turns(), 0);
}

#[test]
fn the_exit_ends_a_terminal_that_somebody_keeps_open_after_the_last_words() {
    let client = Client::new();
    let mut out = client.reader("out");
    let (mut rig, mut tty) = start(&client, false);
    let said = fill(&mut tty);
    rig.io.exited();
    let mut got = Vec::new();
    rig.until(|_| gather(&mut out, &mut got));
    assert_eq!(got.len(), said);
    drop(tty);
}

#[test]
fn somebody_who_writes_for_ever_does_not_keep_it_open() {
    let client = Client::new();
    let mut out = client.reader("out");
    let (mut rig, mut tty) = start(&client, false);
    let chatty = thread::spawn(move || while tty.write_all(b"and another thing, ").is_ok() {});
    rig.run(Duration::from_millis(20));
    rig.io.exited();
    rig.until(|_| gather(&mut out, &mut Vec::new()));
    chatty.join().unwrap();
}

#[test]
fn a_reader_that_is_away_at_the_exit_gets_the_last_words_later() {
    let client = Client::new();
    let (mut rig, mut tty) = start(&client, false);
    tty.write_all(b"last words").unwrap();
    drop(tty);
    rig.io.exited();
    rig.run(Duration::from_millis(50));
    let (mut out, mut got) = (client.reader("out"), Vec::new());
    rig.until(|_| gather(&mut out, &mut got) && !got.is_empty());
    assert_eq!(got, b"last words");
}

#[test]
fn a_reader_that_stops_costs_nothing_and_half_a_second_of_a_delete() {
    let client = Client::new();
    let out = client.reader("out");
    let (mut rig, mut tty) = start(&client, false);
    let mut typist = client.writer();
    while fill(&mut tty) > 0 {
        rig.run(Duration::from_millis(10));
    }
    // Nobody reads the terminal either.
    while fill(&mut typist) > 0 {
        rig.run(Duration::from_millis(10));
    }
    assert_eq!(rig.idle_turns(), 0);
    drop(tty);
    assert!(rig.idle_turns() < 3);
    rig.io.exited();
    assert!(rig.idle_turns() < 3);
    let (took, _) = rig.delete();
    assert!((400..900).contains(&took.as_millis()), "{took:?}");
    drop((out, typist));
    assert_eq!(client.open_fifos(), 0);
}

#[test]
fn output_that_nobody_asked_for_is_dropped() {
    let (mut rig, mut tty) = start_with(&Request::default(), false);
    let writer = thread::spawn(move || {
        tty.write_all(&noise(1 << 20)).unwrap();
        tty
    });
    rig.until(|_| writer.is_finished());
    rig.run(Duration::from_millis(20));
    assert!(rig.io.describe().contains("stdout: dropping, 1048576 bytes"), "{}", rig.io.describe());
    rig.io.exited();
    rig.until(|io| io.stdout.is_settled());
}

#[test]
fn a_process_that_sends_no_terminal_is_an_error() {
    let Opened { process, mut shim } =
        open(&Request { terminal: true, ..Request::default() }).unwrap();
    drop(process);
    shim.receive_console().unwrap_err();
}
