//! Everything a process can see about itself, as one JSON object.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use nix::errno::Errno;
use nix::unistd;
use serde_json::{Map, Value, json};

use crate::sys;

/// The report, or only the sections named.
pub fn report(only: &[&str]) -> Value {
    type Section = (&'static str, fn() -> Value);
    const SECTIONS: [Section; 33] = [
        ("pid", || json!(unistd::getpid().as_raw())),
        ("ppid", || json!(unistd::getppid().as_raw())),
        ("sid", || json!(unistd::getsid(None).map_or(-1, unistd::Pid::as_raw))),
        ("pgid", || json!(unistd::getpgrp().as_raw())),
        ("uid", uids),
        ("gid", gids),
        ("groups", groups),
        ("caps", capabilities),
        ("nnp", || number(sys::prctl(libc::PR_GET_NO_NEW_PRIVS, 0))),
        ("dumpable", || number(sys::prctl(libc::PR_GET_DUMPABLE, 0))),
        ("status", status),
        ("rlimits", rlimits),
        ("mounts", mounts),
        ("cwd", || json!(unistd::getcwd().ok().map(|p| p.to_string_lossy().into_owned()))),
        ("exe", || link("/proc/self/exe")),
        ("root", || link("/proc/self/root")),
        ("env", environment),
        ("args", || json!(std::env::args().collect::<Vec<_>>())),
        ("uname", uname),
        ("ns", namespaces),
        ("cgroup", || lines("/proc/self/cgroup")),
        ("oom_score_adj", || parsed("/proc/self/oom_score_adj")),
        ("sched", scheduling),
        ("ioprio", || number(sys::raw(libc::SYS_ioprio_get, [1, 0, 0, 0, 0, 0]))),
        ("personality", || number(sys::raw(libc::SYS_personality, [0xffff_ffff, 0, 0, 0, 0, 0]))),
        ("umask", umask),
        ("fds", descriptors),
        ("tty", terminal),
        ("devices", || directory("/dev")),
        ("idmaps", idmaps),
        ("time", time),
        ("keyring", || json!(sys::session_keyring().ok())),
        ("extra", extra),
    ];
    let mut all = Map::new();
    for (name, section) in SECTIONS {
        if only.is_empty() || only.contains(&name) {
            all.insert(name.to_owned(), section());
        }
    }
    Value::Object(all)
}

fn number(got: Result<i64, Errno>) -> Value {
    got.map_or(Value::Null, |n| json!(n))
}

fn link(path: &str) -> Value {
    json!(fs::read_link(path).ok().map(|p| p.to_string_lossy().into_owned()))
}

fn text(path: &str) -> Option<String> {
    fs::read(path).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

fn lines(path: &str) -> Value {
    json!(text(path).map(|t| t.lines().map(str::to_owned).collect::<Vec<_>>()))
}

fn parsed(path: &str) -> Value {
    json!(text(path).and_then(|t| t.trim().parse::<i64>().ok()))
}

fn uids() -> Value {
    unistd::getresuid().map_or(Value::Null, |ids| {
        json!([ids.real.as_raw(), ids.effective.as_raw(), ids.saved.as_raw()])
    })
}

fn gids() -> Value {
    unistd::getresgid().map_or(Value::Null, |ids| {
        json!([ids.real.as_raw(), ids.effective.as_raw(), ids.saved.as_raw()])
    })
}

fn groups() -> Value {
    unistd::getgroups().map_or(Value::Null, |all| {
        let mut all: Vec<u32> = all.into_iter().map(unistd::Gid::as_raw).collect();
        all.sort_unstable();
        json!(all)
    })
}

fn capabilities() -> Value {
    let set = |option: i32, sub: Option<u64>| {
        (0..64_u64)
            .filter(|cap| {
                let got = match sub {
                    None => sys::prctl(option, *cap),
                    Some(sub) => sys::raw(libc::SYS_prctl, [option as u64, sub, *cap, 0, 0, 0]),
                };
                got == Ok(1)
            })
            .fold(0_u64, |mask, cap| mask | 1 << cap)
    };
    let (effective, permitted, inheritable) = sys::capget().unwrap_or_default();
    json!({
        "effective": effective,
        "permitted": permitted,
        "inheritable": inheritable,
        "bounding": set(libc::PR_CAPBSET_READ, None),
        "ambient": set(libc::PR_CAP_AMBIENT, Some(libc::PR_CAP_AMBIENT_IS_SET as u64)),
    })
}

/// /proc/self/status as an object: signal masks, Seccomp, NoNewPrivs, cpus and mems allowed.
fn status() -> Value {
    let Some(all) = text("/proc/self/status") else { return Value::Null };
    let pairs: BTreeMap<_, _> =
        all.lines().filter_map(|l| l.split_once(':')).map(|(k, v)| (k, v.trim())).collect();
    json!(pairs)
}

fn rlimits() -> Value {
    const NAMES: [&str; 16] = [
        "CPU",
        "FSIZE",
        "DATA",
        "STACK",
        "CORE",
        "RSS",
        "NPROC",
        "NOFILE",
        "MEMLOCK",
        "AS",
        "LOCKS",
        "SIGPENDING",
        "MSGQUEUE",
        "NICE",
        "RTPRIO",
        "RTTIME",
    ];
    let mut all = Map::new();
    for (number, name) in (0_u32..).zip(NAMES) {
        if let Ok((soft, hard)) = sys::rlimit(number) {
            all.insert(format!("RLIMIT_{name}"), json!([soft, hard]));
        }
    }
    Value::Object(all)
}

fn mounts() -> Value {
    let Some(all) = text("/proc/self/mountinfo") else { return Value::Null };
    let parse = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        let left: Vec<&str> = left.split(' ').collect();
        let right: Vec<&str> = right.split(' ').collect();
        Some(json!({
            "id": left.first()?, "parent": left.get(1)?, "dev": left.get(2)?,
            "root": left.get(3)?, "point": left.get(4)?,
            "options": left.get(5)?.split(',').collect::<Vec<_>>(),
            "optional": left.get(6..)?,
            "type": right.first()?, "source": right.get(1)?,
            "super": right.get(2)?.split(',').collect::<Vec<_>>(),
        }))
    };
    json!(all.lines().filter_map(parse).collect::<Vec<_>>())
}

fn environment() -> Value {
    let all = std::env::vars_os()
        .map(|(k, v)| format!("{}={}", k.to_string_lossy(), v.to_string_lossy()));
    json!(all.collect::<Vec<_>>())
}

fn uname() -> Value {
    nix::sys::utsname::uname().map_or(Value::Null, |name| {
        json!({
            "hostname": name.nodename().to_string_lossy(),
            "domainname": name.domainname().to_string_lossy(),
            "machine": name.machine().to_string_lossy(),
        })
    })
}

fn namespaces() -> Value {
    let Ok(dir) = fs::read_dir("/proc/self/ns") else { return Value::Null };
    let all: BTreeMap<_, _> = dir
        .flatten()
        .map(|entry| {
            let target = fs::read_link(entry.path()).unwrap_or_default();
            (
                entry.file_name().to_string_lossy().into_owned(),
                target.to_string_lossy().into_owned(),
            )
        })
        .collect();
    json!(all)
}

fn scheduling() -> Value {
    let Ok(attr) = sys::sched_getattr() else { return Value::Null };
    json!({
        "policy": attr[0] >> 32,
        "flags": attr[1],
        "nice": attr[2] as u32 as i32,
        "priority": attr[2] >> 32,
        "runtime": attr[3], "deadline": attr[4], "period": attr[5],
        "affinity": sys::affinity().ok(),
    })
}

fn umask() -> Value {
    use nix::sys::stat::{Mode, umask};
    let now = umask(Mode::empty());
    umask(now);
    json!(now.bits())
}

/// Open descriptors with their targets. Found without /proc too: then the target is null.
fn descriptors() -> Value {
    let open = (0..4096).filter(|fd| sys::raw(libc::SYS_fcntl, [*fd, 1, 0, 0, 0, 0]).is_ok());
    let all: BTreeMap<_, _> =
        open.map(|fd| (fd.to_string(), link(&format!("/proc/self/fd/{fd}")))).collect();
    json!(all)
}

fn terminal() -> Value {
    let one = |fd: i32| {
        let name = fs::read_link(format!("/proc/self/fd/{fd}")).ok();
        match sys::window_size(fd) {
            Ok((rows, columns)) => json!({"name": name, "rows": rows, "columns": columns}),
            Err(_) => Value::Null,
        }
    };
    let controlling = fs::File::open("/dev/tty").is_ok();
    json!({"0": one(0), "1": one(1), "2": one(2), "controlling": controlling})
}

/// Names in a directory with type, numbers, mode and owner.
pub fn directory(path: &str) -> Value {
    let Ok(dir) = fs::read_dir(path) else { return Value::Null };
    let all: BTreeMap<_, _> = dir
        .flatten()
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), node(&entry.path())))
        .collect();
    json!(all)
}

/// One file without following a last symbolic link.
pub fn node(path: &std::path::Path) -> Value {
    let Ok(meta) = fs::symlink_metadata(path) else { return Value::Null };
    let kind = meta.file_type();
    let letter = match () {
        () if kind.is_symlink() => "l",
        () if kind.is_dir() => "d",
        () if kind.is_char_device() => "c",
        () if kind.is_block_device() => "b",
        () if kind.is_fifo() => "p",
        () if kind.is_socket() => "s",
        () => "f",
    };
    json!({
        "type": letter, "mode": meta.mode() & 0o7777, "uid": meta.uid(), "gid": meta.gid(),
        "major": nix::sys::stat::major(meta.rdev()), "minor": nix::sys::stat::minor(meta.rdev()),
        "size": meta.size(), "ino": meta.ino(), "dev": meta.dev(),
        "target": fs::read_link(path).ok(),
    })
}

fn idmaps() -> Value {
    json!({
        "uid": lines("/proc/self/uid_map"),
        "gid": lines("/proc/self/gid_map"),
        "setgroups": text("/proc/self/setgroups").map(|t| t.trim().to_owned()),
    })
}

fn time() -> Value {
    json!({
        "offsets": lines("/proc/self/timens_offsets"),
        "monotonic": sys::clock(libc::CLOCK_MONOTONIC).ok(),
        "boottime": sys::clock(libc::CLOCK_BOOTTIME).ok(),
    })
}

fn extra() -> Value {
    json!({
        "lo": sys::interface_flags("lo").ok(),
        "interfaces": text("/proc/net/dev").map(|t| {
            t.lines().skip(2).filter_map(|l| l.split_once(':'))
                .map(|(name, _)| name.trim().to_owned()).collect::<Vec<_>>()
        }),
        "mempolicy": sys::mempolicy().ok(),
        "coredump_filter": text("/proc/self/coredump_filter").map(|t| t.trim().to_owned()),
        "label": text("/proc/self/attr/current").map(|t| t.trim().to_owned()),
        "pdeathsig": pdeathsig(),
        "subreaper": subreaper(),
    })
}

fn pdeathsig() -> Value {
    json!(nix::sys::prctl::get_pdeathsig().ok().flatten().map(|signal| signal as i32))
}

fn subreaper() -> Value {
    json!(nix::sys::prctl::get_child_subreaper().ok())
}
