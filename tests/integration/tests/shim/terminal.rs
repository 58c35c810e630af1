//! Containers and execs on a terminal.

use std::io::Write;
use std::time::Duration;

use containerd_shim_protos::ttrpc::Code;
use corten_integration::managers::{Verdict, check, contains, same};
use corten_integration::shim::stdio::Fifos;
use corten_integration::shim::task::refused;
use corten_integration::shim::{Case, Task, World, request};
use corten_integration::shim_tests;
use serde_json::json;

pub(crate) const TESTS: &[Case] = shim_tests![
    init_on_a_terminal,
    exec_on_a_terminal,
    size_of_the_terminal,
    keys_are_signals,
    a_megabyte_on_a_terminal,
    resize_without_a_terminal,
    resize_after_the_end,
    hangup_is_not_an_exit,
    the_last_words_on_a_terminal,
    no_descriptors_stay,
];

fn terminal(
    world: &World,
    script: &str,
) -> Result<(Task, Fifos), corten_integration::managers::Stop> {
    let mut bundle = world.bundle(script);
    bundle.set("process.terminal", json!(true));
    world.piped_with(bundle)
}

/// The init has a terminal: both ways, echo and line discipline.
fn init_on_a_terminal(world: &World) -> Verdict {
    let (task, fifos) = terminal(world, "tty; read word; echo got $word")?;
    fifos.out().expect("/dev/pts/0\r\n")?;
    check(task.client.state(&task.id, "")?.terminal, "State says terminal")?;
    let mut stdin = fifos.write(b"typed\n")?;
    fifos.out().expect("typed\r\ngot typed\r\n")?;
    same("status", &task.wait()?.exit_status, &0)?;
    // Writing to what has ended is no matter.
    stdin.write_all(b"more\n").ok();
    fifos.out().end().map(drop)
}

/// So has an exec.
fn exec_on_a_terminal(world: &World) -> Verdict {
    let task = world.running("sleep 1000")?;
    let fifos = task.exec_piped(world, "e", "tty; read word; echo got $word; exit 3", true)?;
    fifos.out().expect("/dev/pts/0\r\n")?;
    let _stdin = fifos.write(b"typed\n")?;
    same("status", &task.client.wait(&task.id, "e")?.exit_status, &3)?;
    task.client.delete(&task.id, "e")?;
    fifos.out().end()?;
    contains("screen", &fifos.out().text(), "got typed\r\n")
}

/// ResizePty sets the size and the process is told.
fn size_of_the_terminal(world: &World) -> Verdict {
    let script = "trap 'stty size; exit 0' WINCH; echo ready; while :; do sleep 0.1; done";
    let (task, fifos) = terminal(world, script)?;
    fifos.out().expect("ready")?;
    task.client.resize(&task.id, "", 77, 33)?;
    fifos.out().expect("33 77")?;
    same("status", &task.wait()?.exit_status, &0)
}

/// ^C is SIGINT, ^D the end of the input.
fn keys_are_signals(world: &World) -> Verdict {
    let task = world.running("sleep 1000")?;
    let fifos = task.exec_piped(world, "e", "echo ready; exec sleep 1000", true)?;
    fifos.out().expect("ready")?;
    let _stdin = fifos.write(b"\x03")?;
    same("status", &task.client.wait(&task.id, "e")?.exit_status, &130)?;
    let fifos = task.exec_piped(world, "f", "cat; echo end", true)?;
    let _stdin = fifos.write(b"word\n\x04")?;
    same("status", &task.client.wait(&task.id, "f")?.exit_status, &0)?;
    fifos.out().expect("end\r\n")
}

/// A lot of output on a terminal is complete when the process has ended.
fn a_megabyte_on_a_terminal(world: &World) -> Verdict {
    let (task, fifos) = terminal(world, "head -c 1000000 /dev/zero | tr '\\0' x; echo end")?;
    same("status", &task.wait()?.exit_status, &0)?;
    let out = fifos.out().end()?;
    same("length", &out.len(), &1_000_005)?;
    same("the end", &&out[1_000_000..], &b"end\r\n")
}

/// Without a terminal ResizePty does nothing.
fn resize_without_a_terminal(world: &World) -> Verdict {
    let task = world.running("sleep 1000")?;
    task.client.resize(&task.id, "", 80, 24)?;
    task.exec("e", "sleep 1000")?;
    task.client.resize(&task.id, "e", 80, 24)?;
    refused(task.client.resize(&task.id, "nothing", 80, 24), Code::NOT_FOUND, "")
}

/// After the end ResizePty is refused or does nothing; it is no crash.
fn resize_after_the_end(world: &World) -> Verdict {
    let (task, fifos) = terminal(world, "true")?;
    task.wait()?;
    fifos.out().end()?;
    task.client.resize(&task.id, "", 80, 24).ok();
    same("status", &task.client.state(&task.id, "")?.exit_status, &0)
}

/// A process that closes its terminal and goes on is not an exit; its terminal may be opened
/// again.
fn hangup_is_not_an_exit(world: &World) -> Verdict {
    let script = "exec </dev/null >/dev/null 2>&1; sleep 0.3; echo back > /dev/console; sleep 1000";
    let (task, fifos) = terminal(world, script)?;
    let answer = fifos.out().expect("back");
    if answer.is_err() {
        world.reference_deviates("the copy ends with the first EIO")?;
    }
    answer?;
    same("status", &format!("{:?}", task.status()?).as_str(), &"RUNNING")
}

/// What was printed last is there when Delete has answered.
fn the_last_words_on_a_terminal(world: &World) -> Verdict {
    let task = world.running("sleep 1000")?;
    for number in 0..20 {
        let name = format!("e{number}");
        let fifos = task.exec_piped(world, &name, "echo last words", true)?;
        task.client.wait(&task.id, &name)?;
        task.client.delete(&task.id, &name)?;
        same("screen", &fifos.out().end()?, b"last words\r\n")?;
    }
    Ok(())
}

/// After any number of terminals the shim holds the descriptors that it held before.
fn no_descriptors_stay(world: &World) -> Verdict {
    world.reference_deviates("terminal and input stay open if nobody calls CloseIO (H12)")?;
    let task = world.running("sleep 1000")?;
    let mut before = Vec::new();
    for number in 0..10 {
        let name = format!("e{number}");
        let fifos = world.fifos(true)?;
        let mut query = request::exec(&task.id, &name, &request::process("echo word", true));
        fifos.exec(&mut query);
        task.client.exec(&query)?;
        task.client.start(&task.id, &name)?;
        task.client.wait(&task.id, &name)?;
        task.client.delete(&task.id, &name)?;
        fifos.out().end()?;
        if number == 0 {
            std::thread::sleep(Duration::from_millis(100));
            before = task.shim.descriptors();
        }
    }
    task.shim.settles(&before)
}
