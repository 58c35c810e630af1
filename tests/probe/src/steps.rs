//! The steps: one name, one act, one line of JSON.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::time::Duration;

use nix::errno::Errno;
use serde_json::{Value, json};

use crate::{agent, attack, files, report, sys};

const ENDING: [i32; 5] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGUSR1, libc::SIGUSR2];

/// Prints one line at once: a reader may be waiting for it.
pub fn say(fact: &Value) {
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{fact}").and_then(|()| out.flush()).is_err() {
        std::process::exit(98);
    }
}

/// Executes one step. `Null` prints nothing; an error is a mistake of the test.
pub fn run(verb: &str, args: &[&str]) -> Result<Value, String> {
    if let Some(fact) = files::run(verb, args) {
        return Ok(fact);
    }
    let first = args.first().copied().unwrap_or("");
    match verb {
        "report" => Ok(report::report(args)),
        "print" => Ok(json!(args.join(" "))),
        "eprint" => {
            eprintln!("{}", args.join(" "));
            Ok(Value::Null)
        }
        "exit" => std::process::exit(number(first)? as i32),
        "sleep" => sleep(first),
        "ignore" => {
            args.iter().try_for_each(|n| number(n).map(|n| sys::ignore(n as i32, true)))?;
            Ok(Value::Null)
        }
        "next-signal" => Ok(json!({"signal": next_signal(args)?})),
        "die-by" => {
            let signal = number(first)? as i32;
            sys::ignore(signal, false);
            let _sent =
                sys::raw(libc::SYS_kill, [std::process::id().into(), signal as u64, 0, 0, 0, 0]);
            Ok(Value::Null)
        }
        "stdin" => stdin(),
        "exec" => {
            let (program, rest) = args.split_first().ok_or("nothing to execute")?;
            Err(std::process::Command::new(program).args(rest).exec().to_string())
        }
        "setuid" => Ok(errno(sys::raw(
            libc::SYS_setresuid,
            [number(first)?; 3].iter().chain(&[0; 3]).copied().collect::<Vec<_>>()[..]
                .try_into()
                .map_err(|_| "six arguments")?,
        ))),
        "syscall" => syscall(args),
        "syscall-fork" => in_child(|| syscall(args)),
        "int80-fork" => in_child(|| int80(args)),
        "forks" => forks(number(first)?),
        "alloc" => Ok(errno(sys::touch_memory(number(first)? as usize).map(|()| 0))),
        "alloc-fork" => {
            in_child(|| Ok(errno(sys::touch_memory(number(first)? as usize).map(|()| 0))))
        }
        "burn" => burn(number(first)?),
        "notify-ready" => {
            let path = std::env::var("NOTIFY_SOCKET").map_err(|e| e.to_string())?;
            let socket = std::os::unix::net::UnixDatagram::unbound();
            socket
                .and_then(|socket| socket.send_to(b"READY=1\n", path))
                .map_err(|e| e.to_string())?;
            Ok(Value::Null)
        }
        "zombie" => zombie(),
        "orphan" => orphan(),
        "hook" => agent::hook(args),
        "notify-agent" => agent::notify(args),
        "swap" => attack::swap(args),
        "deny" => attack::deny(args),
        "spy" => attack::spy(args),
        "keep-exe" => attack::keep_exe(args),
        "winch" => {
            sys::block(&[libc::SIGWINCH]);
            say(&json!("ready"));
            sys::next_signal(&[libc::SIGWINCH]);
            Ok(report::report(&["tty"]))
        }
        "resize" => {
            let rows = number(first)? as u16;
            let columns = number(args.get(1).copied().unwrap_or("80"))? as u16;
            Ok(errno(sys::set_window_size(0, rows, columns)))
        }
        other => Err(format!("no such step: {other}")),
    }
}

/// A number, decimal or 0x-hexadecimal, negative ones as two's complement.
pub fn number(text: &str) -> Result<u64, String> {
    let got = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse::<i128>().ok().map(|n| n as u64),
    };
    got.ok_or_else(|| format!("not a number: {text:?}"))
}

fn errno(got: Result<i64, Errno>) -> Value {
    match got {
        Ok(value) => json!({"ok": true, "value": value}),
        Err(errno) => json!({"ok": false, "errno": format!("{errno:?}")}),
    }
}

/// Waits forever (or so many seconds), but ends by itself with 128 + n on signals that would
/// end any other process: the first process of a pid namespace has no default actions.
fn sleep(seconds: &str) -> Result<Value, String> {
    if !seconds.is_empty() {
        std::thread::sleep(Duration::from_millis(
            (seconds.parse::<f64>().map_err(|e| e.to_string())? * 1000.0) as u64,
        ));
        return Ok(Value::Null);
    }
    sys::block(&ENDING);
    // The name tells the host that from now on no signal is lost.
    let _named = sys::raw(
        libc::SYS_prctl,
        [libc::PR_SET_NAME as u64, sys::pointer_to("asleep"), 0, 0, 0, 0],
    );
    std::process::exit(128 + sys::next_signal(&ENDING))
}

fn next_signal(args: &[&str]) -> Result<i32, String> {
    let signals: Result<Vec<i32>, String> =
        args.iter().map(|n| number(n).map(|n| n as i32)).collect();
    let signals = signals?;
    sys::block(&signals);
    say(&json!("ready"));
    Ok(sys::next_signal(&signals))
}

fn stdin() -> Result<Value, String> {
    let mut all = Vec::new();
    std::io::stdin().read_to_end(&mut all).map_err(|e| e.to_string())?;
    Ok(json!({"stdin": String::from_utf8_lossy(&all)}))
}

/// `syscall NUMBER [ARG...]`: an argument is a number or `str:text`.
fn syscall(args: &[&str]) -> Result<Value, String> {
    let (name, rest) = args.split_first().ok_or("no number")?;
    let mut values = [0_u64; 6];
    for (value, text) in values.iter_mut().zip(rest) {
        *value = match text.strip_prefix("str:") {
            Some(string) => sys::pointer_to(string),
            None => number(text)?,
        };
    }
    Ok(errno(sys::raw(number(name)? as i64, values)))
}

fn int80(args: &[&str]) -> Result<Value, String> {
    let (name, rest) = args.split_first().ok_or("no number")?;
    let mut values = [0_u32; 3];
    for (value, text) in values.iter_mut().zip(rest) {
        *value = number(text)? as u32;
    }
    Ok(match sys::int80(number(name)? as u32, values) {
        bad @ -4095..=-1 => errno(Err(Errno::from_raw(-bad))),
        good => errno(Ok(good.into())),
    })
}

/// Runs a step in a child, so that its death by a signal is a fact too.
fn in_child(step: impl Fn() -> Result<Value, String>) -> Result<Value, String> {
    let Some(pid) = sys::fork().map_err(|e| e.to_string())? else {
        match step() {
            Ok(fact) => say(&fact),
            Err(why) => eprintln!("probe: {why}"),
        }
        std::process::exit(0);
    };
    let status = sys::wait_for(pid).map_err(|e| e.to_string())?;
    if libc::WIFSIGNALED(status) {
        return Ok(json!({"died_of": libc::WTERMSIG(status)}));
    }
    Ok(Value::Null)
}

/// Forks up to `count` children that do nothing: how many there were before the kernel said no.
fn forks(count: u64) -> Result<Value, String> {
    let mut children = Vec::new();
    let mut why = None;
    for _ in 0..count {
        match sys::fork() {
            Ok(None) => loop {
                std::thread::sleep(Duration::from_secs(60));
            },
            Ok(Some(pid)) => children.push(pid),
            Err(errno) => {
                why = Some(format!("{errno:?}"));
                break;
            }
        }
    }
    for pid in &children {
        let _sent = sys::raw(libc::SYS_kill, [*pid as u64, libc::SIGKILL as u64, 0, 0, 0, 0]);
        let _ended = sys::wait_for(*pid);
    }
    Ok(json!({"forked": children.len(), "errno": why}))
}

/// Uses the processor for so many milliseconds of wall time.
fn burn(milliseconds: u64) -> Result<Value, String> {
    let end = std::time::Instant::now() + Duration::from_millis(milliseconds);
    let mut rounds = 0_u64;
    while std::time::Instant::now() < end {
        rounds = std::hint::black_box(rounds + 1);
    }
    Ok(json!({"rounds": rounds}))
}

/// Leaves a dead child unwaited.
fn zombie() -> Result<Value, String> {
    match sys::fork().map_err(|e| e.to_string())? {
        None => std::process::exit(0),
        Some(pid) => Ok(json!({"zombie": pid})),
    }
}

/// Leaves a grandchild that lives in a session of its own and ignores what can be ignored.
fn orphan() -> Result<Value, String> {
    let Some(pid) = sys::fork().map_err(|e| e.to_string())? else {
        let _led_already = nix::unistd::setsid();
        if let Ok(None) = sys::fork() {
            for signal in ENDING {
                sys::ignore(signal, true);
            }
            loop {
                std::thread::sleep(Duration::from_secs(60));
            }
        }
        std::process::exit(0);
    };
    sys::wait_for(pid).map_err(|e| e.to_string())?;
    Ok(json!("orphaned"))
}
