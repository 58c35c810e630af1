use std::thread;

use super::*;

#[test]
fn bytes_go_through_each_way_and_end() {
    let client = Client::new();
    let (mut out, mut err) = (client.reader("out"), client.reader("err"));
    let (mut rig, [mut stdin, mut stdout, mut stderr]) = client.start();
    let mut typist = client.writer();
    stdout.write_all(b"to out").unwrap();
    stderr.write_all(b"to err").unwrap();
    typist.write_all(b"to in").unwrap();
    let (mut from_out, mut from_err) = (Vec::new(), Vec::new());
    rig.until(|_| {
        gather(&mut out, &mut from_out);
        gather(&mut err, &mut from_err);
        from_out.len() + from_err.len() == 12
    });
    assert_eq!((from_out.as_slice(), from_err.as_slice()), (&b"to out"[..], &b"to err"[..]));
    let mut text = [0; 5];
    rig.run(Duration::from_millis(20));
    stdin.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"to in");
    drop((stdout, stderr));
    rig.until(|_| gather(&mut out, &mut from_out) && gather(&mut err, &mut from_err));
    drop((stdin, typist, out, err));
    assert!(rig.delete().0 < Duration::from_millis(100));
    assert_eq!(client.open_fifos(), 0);
}

#[test]
fn only_our_ends_are_non_blocking_and_the_pipes_belong_to_the_containers_user() {
    let client = Client::new();
    let paths = ["in", "out", "err"].map(|name| client.path(name));
    let [stdin, stdout, stderr] = paths.each_ref().map(String::as_str);
    let request = Request { stdin, stdout, stderr, uid: 1234, gid: 5678, ..Request::default() };
    let Opened { process, shim } = open(&request).unwrap();
    let ProcessEnd::Streams(streams) = process else { panic!("a console") };
    for stream in streams.map(File::from) {
        assert!(!non_blocking(&stream));
        let stat = stream.metadata().unwrap();
        assert_eq!((stat.uid(), stat.gid()), (1234, 5678));
    }
    let (_, fds) = shim.into_parts();
    assert_eq!(fds.len(), 9);
    for fd in fds {
        let flags = fcntl(&fd, FcntlArg::F_GETFD).unwrap();
        assert_eq!(flags, nix::libc::FD_CLOEXEC);
        assert!(non_blocking(&fd.into()));
    }
}

#[test]
fn ten_megabytes_each_way_past_readers_that_stall() {
    let client = Client::new();
    let mut out = client.reader("out");
    let (mut rig, [mut stdin, mut stdout, _stderr]) = client.start();
    let sent = noise(10 << 20);
    let (to_out, to_in) = (sent.clone(), sent.clone());
    let writer = thread::spawn(move || stdout.write_all(&to_out).unwrap());
    let mut typist = OpenOptions::new().write(true).open(client.path("in")).unwrap();
    let typing = thread::spawn(move || typist.write_all(&to_in).unwrap());
    let container = thread::spawn(move || {
        let (mut got, mut chunk) = (Vec::new(), vec![0; 1 << 20]);
        loop {
            match stdin.read(&mut chunk).unwrap() {
                0 => return got,
                count => got.extend_from_slice(&chunk[..count]),
            }
            if got.len() % 13 == 0 {
                thread::sleep(Duration::from_millis(5));
            }
        }
    });
    rig.io.close_stdin();
    let (mut got, mut looks) = (Vec::new(), 0);
    rig.until(|_| {
        looks += 1;
        // It stalls four times of five, and the rest of the time takes less than there is.
        looks % 5 == 0 && (0..20).any(|_| gather(&mut out, &mut got))
    });
    writer.join().unwrap();
    typing.join().unwrap();
    assert!(got == sent);
    rig.until(|_| container.is_finished());
    assert!(container.join().unwrap() == sent);
    assert!(rig.io.describe().contains("stdout: over, 10485760 bytes"), "{}", rig.io.describe());
}

#[test]
fn a_reader_that_stops_stops_the_writer_and_costs_nothing() {
    let client = Client::new();
    let out = client.reader("out");
    let (mut rig, [_stdin, mut stdout, _stderr]) = client.start();
    let mut sum = 0;
    loop {
        let more = fill(&mut stdout);
        if more == 0 {
            break;
        }
        sum += more;
        rig.run(Duration::from_millis(5));
    }
    assert!((1 << 16..1 << 19).contains(&sum), "{sum}");
    assert_eq!(rig.idle_turns(), 0);
    // The writer is gone as well: a hang-up, while there is no room.
    drop(stdout);
    assert_eq!(rig.idle_turns(), 0);
    let (took, _) = rig.delete();
    assert!((400..900).contains(&took.as_millis()), "{took:?}");
    drop(out);
    assert_eq!(client.open_fifos(), 0);
}

#[test]
fn what_was_written_before_the_reader_came_waits_for_it_even_after_the_exit() {
    let client = Client::new();
    let (mut rig, [_stdin, mut stdout, stderr]) = client.start();
    stdout.write_all(b"early").unwrap();
    rig.run(Duration::from_millis(20));
    drop((stdout, stderr));
    // No reader yet: it looks for one, ever less often.
    rig.run(Duration::from_millis(1500));
    assert!((2..14).contains(&rig.turns), "{}", rig.turns);
    assert!(rig.io.describe().contains("stdout: waiting for a reader"), "{}", rig.io.describe());
    let (mut out, mut got) = (client.reader("out"), Vec::new());
    rig.until(|_| gather(&mut out, &mut got) && !got.is_empty());
    assert_eq!(got, b"early");
    assert!(rig.delete().0 < Duration::from_millis(100), "what lingers does not delay");
    drop(out);
    assert_eq!(client.open_fifos(), 0);
}

#[test]
fn a_reader_may_leave_and_come_back() {
    let client = Client::new();
    let mut out = client.reader("out");
    let (mut rig, [_stdin, mut stdout, _stderr]) = client.start();
    let mut got = Vec::new();
    stdout.write_all(b"one ").unwrap();
    rig.until(|_| !gather(&mut out, &mut got) && got.len() == 4);
    drop(out);
    stdout.write_all(b"two ").unwrap();
    rig.run(Duration::from_millis(20));
    assert_eq!(rig.idle_turns(), 0);
    stdout.write_all(b"three").unwrap();
    let mut out = client.reader("out");
    rig.until(|_| !gather(&mut out, &mut got) && got.len() == 13);
    assert_eq!(got, b"one two three");
    drop(stdout);
    rig.until(|_| gather(&mut out, &mut got));
}

#[test]
fn the_copies_of_a_process_that_was_just_forked_are_no_reader() {
    let client = Client::new();
    let (mut rig, [_stdin, mut stdout, _stderr]) = client.start();
    stdout.write_all(b"kept").unwrap();
    rig.run(Duration::from_millis(20));
    // A worker has them, too, until it closes everything.
    let (copied, keeper) = (rig.poller.copied(), client.reader("out"));
    drop(stdout);
    rig.run(Duration::from_millis(20));
    drop(keeper);
    rig.run(Duration::from_millis(20));
    drop(copied);
    let (mut out, mut got) = (client.reader("out"), Vec::new());
    rig.until(|_| gather(&mut out, &mut got));
    assert_eq!(got, b"kept");
}

#[test]
fn a_path_that_is_no_fifo_or_not_there_is_an_error_and_one_removed_later_is_none() {
    let client = Client::new();
    let missing = client.path("missing");
    for request in [
        Request { stdout: &missing, ..Request::default() },
        Request { stdin: &missing, ..Request::default() },
    ] {
        let error = open(&request).unwrap_err();
        assert_eq!(error.errno(), Some(nix::errno::Errno::ENOENT), "{error}");
    }
    let (mut out, stdin) = (client.reader("out"), client.path("in"));
    let (mut rig, [_stdin, mut stdout, _stderr]) = client.start();
    std::fs::remove_file(client.path("out")).unwrap();
    stdout.write_all(b"still").unwrap();
    let mut got = Vec::new();
    rig.until(|_| !gather(&mut out, &mut got) && got == b"still");
    let error = open(&Request { stdin: client.dir.path().to_str().unwrap(), ..Request::default() });
    assert!(error.unwrap_err().to_string().ends_with("it is not one"), "{stdin}");
}

#[test]
fn the_input_ends_after_close_io_and_the_last_writer() {
    let client = Client::new();
    let (mut rig, [mut stdin, _stdout, _stderr]) = client.start();
    let mut typist = client.writer();
    typist.write_all(b"one ").unwrap();
    drop(typist);
    rig.run(Duration::from_millis(50));
    // The client may come back, as containerd does after a restart.
    let mut typist = client.writer();
    rig.io.close_stdin();
    rig.io.close_stdin();
    typist.write_all(b"two").unwrap();
    assert!(rig.idle_turns() < 3);
    let mut text = [0; 7];
    stdin.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"one two");
    drop(typist);
    rig.run(Duration::from_millis(50));
    assert_eq!(stdin.read(&mut text).unwrap(), 0);
    assert!(rig.io.describe().starts_with("stdin: over, 7 bytes"), "{}", rig.io.describe());
}

#[test]
fn without_close_io_the_input_stays_open() {
    let client = Client::new();
    let (mut rig, [stdin, _stdout, _stderr]) = client.start();
    drop(client.writer());
    assert!(rig.idle_turns() == 0);
    assert!(rig.io.describe().starts_with("stdin: moving"), "{}", rig.io.describe());
    rig.io.close_stdin();
    rig.run(Duration::from_millis(20));
    let mut stdin = stdin;
    assert_eq!(stdin.read(&mut [0]).unwrap(), 0);
}

#[test]
fn an_input_that_nobody_reads_waits_and_one_that_was_closed_is_refused() {
    let client = Client::new();
    let (mut rig, [stdin, _stdout, _stderr]) = client.start();
    let mut typist = client.writer();
    while fill(&mut typist) > 0 {
        rig.run(Duration::from_millis(5));
    }
    assert_eq!(rig.idle_turns(), 0);
    rig.io.close_stdin();
    assert_eq!(rig.idle_turns(), 0);
    drop(stdin);
    rig.run(Duration::from_millis(50));
    let error = typist.write(b"x").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
    assert_eq!(rig.idle_turns(), 0);
}

#[test]
fn a_client_that_writes_after_the_exit_is_told() {
    let client = Client::new();
    let (mut rig, [stdin, _stdout, _stderr]) = client.start();
    drop(stdin);
    assert_eq!(rig.idle_turns(), 0);
    let mut typist = client.writer();
    typist.write_all(b"too late").unwrap();
    rig.run(Duration::from_millis(50));
    let error = typist.write(b"x").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
}

#[test]
fn a_delete_waits_for_nobody_who_is_not_there() {
    // A full FIFO without a reader.
    let client = Client::new();
    let (mut rig, [_stdin, mut stdout, _stderr]) = client.start();
    while fill(&mut stdout) > 0 {
        rig.run(Duration::from_millis(5));
    }
    let (took, _) = rig.delete();
    assert!(took < Duration::from_millis(100), "{took:?}");
    // A process in the background that keeps the pipe, and has something to say before that.
    let client = Client::new();
    let mut out = client.reader("out");
    let (rig, [_stdin, mut background, _stderr]) = client.start();
    let pipe = inode(&background);
    background.write_all(b"last words").unwrap();
    let (took, _) = rig.delete();
    assert!(took < Duration::from_millis(100), "{took:?}");
    let mut got = Vec::new();
    while !gather(&mut out, &mut got) {}
    assert_eq!(got, b"last words");
    assert_eq!(open_ends(pipe), 1);
    let error = background.write(b"x").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
}

#[test]
fn a_delete_gives_a_slow_reader_its_rest() {
    let client = Client::new();
    let mut out = client.reader("out");
    let (mut rig, [_stdin, mut stdout, stderr]) = client.start();
    let mut sent = 0;
    loop {
        let more = fill(&mut stdout);
        if more == 0 {
            break;
        }
        sent += more;
        rig.run(Duration::from_millis(5));
    }
    drop((stdout, stderr));
    let reading = thread::spawn(move || {
        thread::sleep(Duration::from_millis(100));
        let mut got = Vec::new();
        while !gather(&mut out, &mut got) {
            thread::sleep(Duration::from_millis(1));
        }
        got.len()
    });
    let (took, _) = rig.delete();
    assert!((90..450).contains(&took.as_millis()), "{took:?}");
    assert_eq!(reading.join().unwrap(), sent);
}

#[test]
fn one_turn_is_bounded() {
    let client = Client::new();
    let out = client.reader("out");
    let (mut rig, [_stdin, mut stdout, _stderr]) = client.start();
    let feeder = thread::spawn(move || while stdout.write_all(&[0; 65536]).is_ok() {});
    let mut eater = out;
    for _ in 0..200 {
        let before = Instant::now();
        rig.io.turn();
        assert!(before.elapsed() < Duration::from_millis(100));
        gather(&mut eater, &mut Vec::new());
    }
    drop(rig);
    feeder.join().unwrap();
}

#[test]
fn both_streams_may_go_to_one_fifo() {
    let client = Client::new();
    let path = client.path("out");
    let (mut rig, [_stdin, mut stdout, mut stderr]) =
        start(&Request { stdout: &path, stderr: &path, ..Request::default() });
    stdout.write_all(b"one ").unwrap();
    drop(stdout);
    rig.run(Duration::from_millis(20));
    stderr.write_all(b"two").unwrap();
    drop(stderr);
    rig.run(Duration::from_millis(20));
    let (mut out, mut got) = (client.reader("out"), Vec::new());
    rig.until(|_| gather(&mut out, &mut got) && !got.is_empty());
    assert_eq!(got, b"one two");
}

#[test]
fn a_drain_that_nobody_finishes_does_not_keep_the_loop_busy() {
    let client = Client::new();
    let _out = client.reader("out");
    let (mut rig, [_stdin, mut stdout, _stderr]) = client.start();
    while fill(&mut stdout) > 0 {
        rig.run(Duration::from_millis(5));
    }
    rig.io.drain();
    assert!(!rig.io.is_drained());
    rig.run(Duration::from_millis(800));
    assert!(rig.io.is_drained());
    assert_eq!(rig.io.deadline(), None);
    assert_eq!(rig.idle_turns(), 0);
}

#[test]
fn the_last_call_ends_though_somebody_always_has_something_to_say() {
    let client = Client::new();
    let mut out = client.reader("out");
    let (mut rig, [_stdin, mut background, _stderr]) = client.start();
    let mut got = Vec::new();
    fill(&mut background);
    rig.io.stdout.last_call();
    for _ in 0..1000 {
        rig.io.turn();
        fill(&mut background);
        gather(&mut out, &mut got);
        if rig.io.stdout.is_settled() {
            break;
        }
    }
    assert!(rig.io.stdout.is_settled(), "{}", rig.io.describe());
    assert!((1 << 20..3 << 19).contains(&got.len()), "{}", got.len());
}

#[test]
fn the_streams_of_a_process_take_little_memory() {
    assert!(size_of::<Io>() <= 768, "{}", size_of::<Io>());
}
