//! Standard streams through FIFOs and files: every byte, once, in order; nobody waits for a reader.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use corten_integration::driver::patience;
use corten_integration::managers::{Verdict, check, contains, eventually, same};
use corten_integration::shim::leaks::processes;
use corten_integration::shim::stdio::{Reader, moment, open};
use corten_integration::shim::task::PATIENCE;
use corten_integration::shim::world::KILL;
use corten_integration::shim::{Case, World, request};
use corten_integration::shim_tests;
use serde_json::json;

pub(crate) const TESTS: &[Case] = shim_tests![
    out_and_err_are_two,
    input_comes_back,
    ten_megabytes_out,
    ten_megabytes_through,
    close_ends_the_input,
    close_of_no_input,
    close_before_the_start,
    exec_has_its_own_streams,
    output_of_the_last_moment,
    a_late_reader_loses_nothing,
    a_reader_comes_back,
    a_stuck_reader_does_not_hold_the_end,
    a_stuck_reader_of_an_exec,
    a_missing_reader_does_not_hold_the_end,
    output_to_a_file,
    the_process_that_writes_a_file,
    output_to_a_full_disk,
    output_to_a_relative_scheme,
    only_stdout,
    no_streams_are_null,
    owner_of_the_streams,
    no_descriptors_stay,
    background_writer_after_the_init,
];

/// Standard output and standard error are told apart.
fn out_and_err_are_two(world: &World) -> Verdict {
    let (task, fifos) = world.piped("echo out; echo err >&2")?;
    same("status", &task.wait()?.exit_status, &0)?;
    same("stdout", &fifos.out().end()?, b"out\n")?;
    same("stderr", &fifos.err().end()?, b"err\n")
}

/// What is written to standard input arrives.
fn input_comes_back(world: &World) -> Verdict {
    let (task, fifos) = world.piped("read line; echo got $line")?;
    let _stdin = fifos.write(b"hello\n")?;
    same("status", &task.wait()?.exit_status, &0)?;
    same("stdout", &fifos.out().end()?, b"got hello\n")
}

/// 10 MB are 10 MB.
fn ten_megabytes_out(world: &World) -> Verdict {
    let (task, fifos) = world.piped("head -c 10000000 /dev/zero | tr '\\0' x; printf end")?;
    same("status", &task.wait()?.exit_status, &0)?;
    let out = fifos.out().end()?;
    same("length", &out.len(), &10_000_003)?;
    check(out[..10_000_000].iter().all(|&byte| byte == b'x'), "the bytes")?;
    same("the end", &out[10_000_000..], b"end")
}

/// 10 MB in and out again, exactly these.
fn ten_megabytes_through(world: &World) -> Verdict {
    let (task, fifos) = world.piped("cat")?;
    let bytes: Vec<u8> = (0..10_000_000_u32).map(|number| ((number * 7) >> 3) as u8).collect();
    let mut stdin = fifos.stdin()?;
    let input = bytes.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let whole = || Ok(fifos.out().bytes().len() == bytes.len());
    eventually("all bytes come back", PATIENCE, whole)?;
    // The thread's end closes the writing end, as a client does before it says CloseIO.
    writer.join().map_err(|_| "the writer panicked")??;
    task.client.close_stdin(&task.id, "")?;
    same("status", &task.wait()?.exit_status, &0)?;
    check(fifos.out().end()? == bytes, "the bytes")
}

/// CloseIO is the end of the input, after what was written; without it there is no end.
fn close_ends_the_input(world: &World) -> Verdict {
    let (task, fifos) = world.piped("cat; echo end")?;
    drop(fifos.write(b"one\n")?);
    fifos.out().expect("one\n")?;
    // The client that wrote has gone; another one may come.
    moment();
    same("so far", &fifos.out().text().as_str(), &"one\n")?;
    drop(fifos.write(b"two\n")?);
    fifos.out().expect("two\n")?;
    task.client.close_stdin(&task.id, "")?;
    same("status", &task.wait()?.exit_status, &0)?;
    same("stdout", &fifos.out().end()?, b"one\ntwo\nend\n")
}

/// CloseIO before there is an input: it has ended once it is there.
fn close_before_the_start(world: &World) -> Verdict {
    world.reference_deviates("what was closed too early stays open")?;
    let task = world.running("sleep 1000")?;
    let fifos = world.fifos(false)?;
    let mut query = request::exec(&task.id, "e", &request::process("cat; echo end", false));
    fifos.exec(&mut query);
    task.client.exec(&query)?;
    task.client.close_stdin(&task.id, "e")?;
    task.client.start(&task.id, "e")?;
    same("status", &task.client.wait(&task.id, "e")?.exit_status, &0)?;
    same("stdout", &fifos.out().end()?, b"end\n")
}

/// CloseIO without an input, and twice, is no error.
fn close_of_no_input(world: &World) -> Verdict {
    let task = world.running("sleep 1000")?;
    task.client.close_stdin(&task.id, "")?;
    let fifos = task.exec_piped(world, "e", "cat; echo end", false)?;
    task.client.close_stdin(&task.id, "e")?;
    same("stdout", &fifos.out().end()?, b"end\n")?;
    task.client.wait(&task.id, "e")?;
    task.client.close_stdin(&task.id, "e")?;
    Ok(())
}

/// Streams of execs, several at a time.
fn exec_has_its_own_streams(world: &World) -> Verdict {
    let task = world.running("sleep 1000")?;
    let mut all = Vec::new();
    for number in 0..5 {
        let name = format!("e{number}");
        let script = format!("read word; echo {number} $word; echo {number} >&2");
        all.push((task.exec_piped(world, &name, &script, false)?, name));
    }
    for (number, (fifos, name)) in all.iter().enumerate() {
        let _stdin = fifos.write(format!("w{number}\n").as_bytes())?;
        same(name, &task.client.wait(&task.id, name)?.exit_status, &0)?;
        same(name, &fifos.out().end()?, format!("{number} w{number}\n").as_bytes())?;
        same(name, &fifos.err().end()?, format!("{number}\n").as_bytes())?;
        task.client.delete(&task.id, name)?;
    }
    Ok(())
}

/// What was printed right before the end is there when Delete has answered.
fn output_of_the_last_moment(world: &World) -> Verdict {
    let task = world.running("sleep 1000")?;
    for number in 0..20 {
        let name = format!("e{number}");
        let script = "head -c 50000 /dev/zero; kill -9 $$";
        let fifos = task.exec_piped(world, &name, script, false)?;
        same("status", &task.client.wait(&task.id, &name)?.exit_status, &137)?;
        task.client.delete(&task.id, &name)?;
        same("length", &fifos.out().end()?.len(), &50_000)?;
    }
    Ok(())
}

/// A reader that comes late gets everything from the beginning.
fn a_late_reader_loses_nothing(world: &World) -> Verdict {
    let mut task = world.task(world.bundle("echo first; head -c 500000 /dev/zero; echo last"))?;
    let fifos = world.unread_fifos()?;
    let mut query = task.request();
    fifos.create(&mut query);
    // Who opens a FIFO may wait for its reader: it must not be the shim's other work.
    let creating = task.client.creating(&query);
    moment();
    let out = Reader::open(&fifos.dir.join("out"))?;
    let err = Reader::open(&fifos.dir.join("err"))?;
    task.pid = creating.answer()?.pid;
    task.start()?;
    same("status", &task.wait()?.exit_status, &0)?;
    same("length", &out.end()?.len(), &500_011)?;
    same("stderr", &err.end()?, b"")
}

/// A reader that left (the daemon was restarted) can come back: the container did not notice.
fn a_reader_comes_back(world: &World) -> Verdict {
    let (task, mut fifos) = world.piped("while read word; do echo $word; done; echo end")?;
    let mut stdin = fifos.write(b"one\n")?;
    fifos.out().expect("one\n")?;
    fifos.out.take().ok_or("no reader")?.close();
    moment();
    stdin.write_all(b"two\n")?;
    moment();
    same("status", &format!("{:?}", task.status()?).as_str(), &"RUNNING")?;
    let out = Reader::open(&fifos.dir.join("out"))?;
    stdin.write_all(b"three\n")?;
    out.expect("three\n")?;
    drop(stdin);
    task.client.close_stdin(&task.id, "")?;
    same("status", &task.wait()?.exit_status, &0)?;
    check(String::from_utf8(out.end()?)?.ends_with("three\nend\n"), "the rest")
}

/// A reader that has stopped reading: Kill and Delete answer within a second.
fn a_stuck_reader_does_not_hold_the_end(world: &World) -> Verdict {
    world.reference_deviates("Delete waits for the copy for 10 s (H7)")?;
    let mut task = world.task(world.bundle("cat /dev/zero"))?;
    let fifos = world.unread_fifos()?;
    let _out = open(&fifos.dir.join("out"))?;
    let _err = open(&fifos.dir.join("err"))?;
    let mut query = task.request();
    fifos.create(&mut query);
    task.pid = task.client.create(&query)?;
    task.start()?;
    // Until the FIFO, the pipe and whatever is between them are full.
    std::thread::sleep(Duration::from_millis(300));
    let begun = Instant::now();
    task.kill(KILL)?;
    same("status", &task.wait()?.exit_status, &137)?;
    check(
        begun.elapsed() < patience(Duration::from_secs(1)),
        format!("Wait: {:?}", begun.elapsed()),
    )?;
    task.delete()?;
    check(
        begun.elapsed() < patience(Duration::from_secs(2)),
        format!("Delete: {:?}", begun.elapsed()),
    )
}

/// The same with an exec; the other processes are served meanwhile.
fn a_stuck_reader_of_an_exec(world: &World) -> Verdict {
    world.reference_deviates("Delete waits for the copy for 10 s (H7)")?;
    let task = world.running("sleep 1000")?;
    let fifos = world.unread_fifos()?;
    let _out = open(&fifos.dir.join("out"))?;
    let _err = open(&fifos.dir.join("err"))?;
    let mut query = request::exec(&task.id, "e", &request::process("cat /dev/zero", false));
    fifos.exec(&mut query);
    task.client.exec(&query)?;
    task.client.start(&task.id, "e")?;
    std::thread::sleep(Duration::from_millis(200));
    same("other", &task.shell(world, "echo fine")?, &(0, "fine\n".to_owned()))?;
    let begun = Instant::now();
    task.client.kill(&task.id, "e", KILL, false)?;
    same("status", &task.client.wait(&task.id, "e")?.exit_status, &137)?;
    task.client.delete(&task.id, "e")?;
    check(begun.elapsed() < patience(Duration::from_secs(2)), format!("{:?}", begun.elapsed()))
}

/// Nobody ever opens the FIFOs: Create may wait, but the shim answers others, and Delete cleans.
fn a_missing_reader_does_not_hold_the_end(world: &World) -> Verdict {
    world.reference_deviates("it waits for the reader for ever, and then for the copy (H7)")?;
    let mut task = world.task(world.bundle("echo unheard; sleep 1000"))?;
    let fifos = world.unread_fifos()?;
    let mut query = task.request();
    fifos.create(&mut query);
    task.pid = task.client.create(&query)?;
    task.start()?;
    task.killed()?;
    let begun = Instant::now();
    task.delete()?;
    check(begun.elapsed() < patience(Duration::from_secs(2)), format!("{:?}", begun.elapsed()))
}

/// `file://`: both streams are appended to one file, whose directories are made.
fn output_to_a_file(world: &World) -> Verdict {
    let mut task = world.task(world.bundle("echo out; echo err >&2"))?;
    let path = world.dir.join("logs/deep/file");
    let mut query = task.request();
    query.stdout = format!("file://{}", path.display());
    query.stderr = query.stdout.clone();
    task.pid = task.client.create(&query)?;
    task.start()?;
    same("status", &task.wait()?.exit_status, &0)?;
    task.delete()?;
    let text = std::fs::read_to_string(&path)?;
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    same("lines", &lines, &["err", "out"])
}

/// What appends to the file shares the shim's memory (it is no copy of the binary) and has nothing
/// open but what it needs.
fn the_process_that_writes_a_file(world: &World) -> Verdict {
    world.reference_deviates("its copy is in the shim")?;
    let mut task = world.task(world.bundle("while read word; do echo $word; done"))?;
    let (fifos, path) = (world.unread_fifos()?, world.dir.join("log"));
    let mut query = task.request();
    query.stdin = fifos.path("in");
    query.stdout = format!("file://{}", path.display());
    query.stderr.clone_from(&query.stdout);
    task.pid = task.client.create(&query)?;
    task.start()?;
    let all = processes();
    let copier = all.iter().find(|(_, line)| line.contains("(corten-output) "));
    let copier = Path::new("/proc").join(copier.ok_or("no copier")?.0.to_string());
    let shim = Path::new("/proc").join(task.shim.pid.to_string());
    let exe = |process: &Path| std::fs::read_link(process.join("exe"));
    same("binary", &exe(&copier)?, &exe(&shim)?)?;
    same("descriptors", &std::fs::read_dir(copier.join("fd"))?.count(), &4)?;
    let stat = std::fs::read_to_string(copier.join("stat"))?;
    contains("its parent", &stat, &format!("(corten-output) S {} ", task.shim.pid))?;
    let mut stdin = fifos.write(b"one\n")?;
    let written = |text: &str| Ok(std::fs::read_to_string(&path)? == text);
    eventually("one", PATIENCE, || written("one\n"))?;
    stdin.write_all(b"two\n")?;
    eventually("two", PATIENCE, || written("one\ntwo\n"))
}

/// A disk that is full (H7): the container writes on, and ends.
fn output_to_a_full_disk(world: &World) -> Verdict {
    world
        .reference_deviates("the first error ends the copy, and the writer waits for ever (H7)")?;
    let disk = world.dir.join("disk");
    std::fs::create_dir(&disk)?;
    let (tmpfs, flags) = (Some("tmpfs"), nix::mount::MsFlags::empty());
    nix::mount::mount(tmpfs, &disk, tmpfs, flags, Some("size=64k"))?;
    let mut task = world.task(world.bundle("head -c 3000000 /dev/zero; exit 4"))?;
    let mut query = task.request();
    query.stdout = format!("file://{}/log", disk.display());
    query.stderr = query.stdout.clone();
    task.pid = task.client.create(&query)?;
    task.start()?;
    let ended = task.wait();
    let deleted = task.delete();
    nix::mount::umount2(&disk, nix::mount::MntFlags::MNT_DETACH)?;
    same("status", &ended?.exit_status, &4)?;
    deleted
}

/// A scheme that nobody knows is refused with its name.
fn output_to_a_relative_scheme(world: &World) -> Verdict {
    let task = world.task(world.bundle("true"))?;
    let mut query = task.request();
    query.stdout = "gopher:///somewhere".to_owned();
    let answer = task.client.create(&query);
    let words = answer.map_or_else(|refusal| refusal.message, |_| String::new());
    check(words.contains("gopher"), format!("the scheme is named: {words}"))
}

/// Only one of the streams.
fn only_stdout(world: &World) -> Verdict {
    world.reference_deviates("it opens the empty name of the other one")?;
    let mut task = world.task(world.bundle("cat; echo out; echo err >&2"))?;
    let fifos = world.fifos(false)?;
    let mut query = task.request();
    query.stdout = fifos.path("out");
    task.pid = task.client.create(&query)?;
    task.start()?;
    same("status", &task.wait()?.exit_status, &0)?;
    same("stdout", &fifos.out().end()?, b"out\n")
}

/// Without streams a process has /dev/null.
fn no_streams_are_null(world: &World) -> Verdict {
    let task = world.running("sleep 1000")?;
    let pid = task.exec("e", "exec sleep 1000")?;
    for pid in [pid, task.pid] {
        for fd in 0..3 {
            let target = std::fs::read_link(format!("/proc/{pid}/fd/{fd}"))?;
            same("stream", &target.display().to_string().as_str(), &"/dev/null")?;
        }
    }
    Ok(())
}

/// `io_uid` and `io_gid` own the streams, so that the process can open them again.
fn owner_of_the_streams(world: &World) -> Verdict {
    let mut bundle = world.bundle("echo again > /proc/self/fd/1; echo two > /proc/self/fd/2");
    bundle.set("process.user", json!({"uid": 1000, "gid": 1001}));
    let mut task = world.task(bundle)?;
    let fifos = world.fifos(false)?;
    let mut query = task.request();
    fifos.create(&mut query);
    let mut options = containerd_shim_protos::shim::oci::Options::new();
    (options.io_uid, options.io_gid) = (1000, 1001);
    query.options = Some(request::runc_options(&options)).into();
    task.pid = task.client.create(&query)?;
    task.start()?;
    same("status", &task.wait()?.exit_status, &0)?;
    same("stdout", &fifos.out().end()?, b"again\n")?;
    same("stderr", &fifos.err().end()?, b"two\n")
}

/// After any number of execs with streams the shim holds the descriptors that it held before.
fn no_descriptors_stay(world: &World) -> Verdict {
    let task = world.running("sleep 1000")?;
    task.shell(world, "echo warm")?;
    let before = task.shim.descriptors();
    for _ in 0..20 {
        same("exec", &task.shell(world, "echo word")?, &(0, "word\n".to_owned()))?;
    }
    task.shim.settles(&before)
}

/// A process that holds the output after its parent's end does not hold the exit; what it prints
/// still comes.
fn background_writer_after_the_init(world: &World) -> Verdict {
    let task = world.running("sleep 1000")?;
    let late = patience(Duration::from_millis(500));
    let script = format!("(sleep {}; echo late) & echo early", late.as_secs_f64());
    let fifos = task.exec_piped(world, "e", &script, false)?;
    let begun = Instant::now();
    same("status", &task.client.wait(&task.id, "e")?.exit_status, &0)?;
    check(begun.elapsed() < late * 9 / 10, "the exit is not held")?;
    fifos.out().expect("early\nlate\n")
}
