//! The parts the probe plays on the host: a hook, and the agent behind a seccomp listener.

use std::io::{IoSliceMut, Read, Write};
use std::os::fd::RawFd;
use std::os::unix::net::UnixListener;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use serde_json::{Value, json};

use crate::{report, steps, sys};

/// `hook NAME FILE [MODE...]`: appends what the hook got to FILE as one line of JSON, then
/// `exit N` (say something on stderr and fail), `sleep SECONDS`, `hold` (leave a child that keeps
/// all the pipes open for 20 seconds and sleep for ever), or `leave` (leave one and succeed).
pub fn hook(args: &[&str]) -> Result<Value, String> {
    let (name, file) = match args {
        [name, file, ..] => (*name, *file),
        _ => return Err("hook NAME FILE".to_owned()),
    };
    let mut input = String::new();
    std::io::stdin().read_to_string(&mut input).map_err(|e| e.to_string())?;
    let state: Value = serde_json::from_str(&input).unwrap_or(Value::Null);
    let mut fact = report::report(&["pid", "ns", "cwd", "env", "args", "fds", "uname", "root"]);
    fact["hook"] = json!(name);
    fact["stdin"] = json!(input);
    fact["of_target"] = of_target(state["pid"].as_i64());
    fact["root_names"] = json!(
        report::directory("/").as_object().map(|o| { o.keys().cloned().collect::<Vec<_>>() })
    );
    fact["state"] = state;
    let mut out = std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(file)
        .map_err(|e| format!("{file}: {e}"))?;
    // One write: two hooks' lines must not get into each other.
    out.write_all(format!("{fact}\n").as_bytes()).map_err(|e| e.to_string())?;
    match args.get(2..) {
        Some(["exit", code]) => {
            println!("hook {name} says this on stdout");
            eprintln!("hook {name} says this on stderr");
            std::process::exit(steps::number(code)? as i32);
        }
        Some(["sleep", seconds]) => steps::run("sleep", &[seconds]),
        Some(["hold" | "leave"]) => {
            if let Ok(None) = sys::fork() {
                std::thread::sleep(std::time::Duration::from_secs(20));
                std::process::exit(0);
            }
            if args.get(2) == Some(&"leave") {
                return Ok(Value::Null);
            }
            loop {
                std::thread::sleep(std::time::Duration::from_secs(60));
            }
        }
        _ => Ok(Value::Null),
    }
}

/// What the host sees of the container's first process while the hook runs.
fn of_target(pid: Option<i64>) -> Value {
    let Some(pid) = pid.filter(|pid| *pid > 0) else { return Value::Null };
    let link = |name: &str| std::fs::read_link(format!("/proc/{pid}/{name}")).ok();
    let mounts = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).ok();
    json!({
        "root": link("root"), "mnt": link("ns/mnt"), "pid": link("ns/pid"), "net": link("ns/net"),
        "cgroup": std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok(),
        "mounts": mounts.map(|m| m.lines().map(str::to_owned).collect::<Vec<_>>()),
    })
}

const NOTIF_RECV: u64 = 0xc050_2100;
const NOTIF_SEND: u64 = 0xc018_2101;

/// `notify-agent SOCKET COUNT ERRNO`: takes one listener, prints the container process state it
/// came with, answers COUNT notifications with ERRNO (0: let the call go on) and prints each.
pub fn notify(args: &[&str]) -> Result<Value, String> {
    let [path, count, errno] = args else { return Err("SOCKET COUNT ERRNO".to_owned()) };
    let listener = UnixListener::bind(path).map_err(|e| e.to_string())?;
    steps::say(&json!("listening"));
    let (stream, _) = listener.accept().map_err(|e| e.to_string())?;
    let (message, fds) = receive(&stream)?;
    steps::say(&json!({"message": message, "fds": fds.len()}));
    let fd = *fds.first().ok_or("no descriptor came with the message")?;
    for _ in 0..steps::number(count)? {
        answer(fd, steps::number(errno)? as i32)?;
    }
    Ok(Value::Null)
}

fn receive(stream: &std::os::unix::net::UnixStream) -> Result<(String, Vec<RawFd>), String> {
    use std::os::fd::AsRawFd;
    let mut buffer = vec![0_u8; 1 << 16];
    let mut space = nix::cmsg_space!([RawFd; 8]);
    let mut slices = [IoSliceMut::new(&mut buffer)];
    let got = recvmsg::<()>(
        stream.as_raw_fd(),
        &mut slices,
        Some(&mut space),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )
    .map_err(|e| e.to_string())?;
    let mut fds = Vec::new();
    for control in got.cmsgs().map_err(|e| e.to_string())? {
        if let ControlMessageOwned::ScmRights(more) = control {
            fds.extend(more);
        }
    }
    let length = got.bytes;
    Ok((String::from_utf8_lossy(&buffer[..length]).into_owned(), fds))
}

fn answer(fd: RawFd, errno: i32) -> Result<(), String> {
    // struct seccomp_notif: u64 id, u32 pid, u32 flags, seccomp_data (i32 nr, u32 arch, u64 ip, 6 u64)
    let mut notification = [0_u64; 10];
    let words = |n: u64| [fd as u64, n, 0, 0, 0, 0];
    let mut call = words(NOTIF_RECV);
    call[2] = notification.as_mut_ptr() as u64;
    sys::raw(libc::SYS_ioctl, call).map_err(|e| format!("receive: {e}"))?;
    steps::say(&json!({
        "pid": notification[1] as u32, "syscall": notification[2] as u32 as i32,
        "arch": notification[2] >> 32, "args": notification[4..],
    }));
    // struct seccomp_notif_resp: u64 id, i64 val, i32 error, u32 flags (1: continue)
    let error = (-errno) as u32;
    let flags = u32::from(errno == 0);
    let response = [notification[0], 0, u64::from(error) | u64::from(flags) << 32];
    let mut call = words(NOTIF_SEND);
    call[2] = response.as_ptr() as u64;
    sys::raw(libc::SYS_ioctl, call).map_err(|e| format!("send: {e}"))?;
    Ok(())
}
