//! What the compiler refuses and what it makes, and filters at work: a child loads one and makes
//! the calls.

use std::os::fd::{AsFd, AsRawFd, IntoRawFd};
use std::os::unix::net::UnixListener;

use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use oci_spec::runtime::LinuxSeccomp;
use serde_json::{Value, json};

use super::interpreter::{Data, check, run};
use super::*;
use crate::sys::process::{CloneArgs, Cloned, clone, pidfd_getfd, pidfd_send_signal};
use crate::sys::seccomp::raw::{int80, syscall64};

fn parse(json: Value) -> LinuxSeccomp {
    serde_json::from_value(json).unwrap()
}

fn filter(json: Value) -> Filter {
    let filter = compile(&parse(json)).unwrap();
    check(&filter.program);
    filter
}

fn refused(json: Value) -> String {
    compile(&parse(json)).unwrap_err().to_string()
}

fn docker() -> LinuxSeccomp {
    // A small profile in the style of Docker's.
    parse(json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [
            {"names": ["read", "write", "openat", "close", "futex", "faccessat2", "exit_group"],
             "action": "SCMP_ACT_ALLOW"},
            {"names": ["personality"], "action": "SCMP_ACT_ALLOW",
             "args": [{"index": 0, "value": 0xffff_ffff_u32, "op": "SCMP_CMP_EQ"}]},
            {"names": ["clone"], "action": "SCMP_ACT_ALLOW",
             "args": [{"index": 0, "value": 2_114_060_288, "op": "SCMP_CMP_MASKED_EQ"}]},
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
        ]
    }))
}

#[test]
fn mistakes_are_named_by_their_json_path() {
    let with = |syscall: Value| {
        json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/a", "syscalls": [
            {"names": ["read"], "action": "SCMP_ACT_ERRNO"}, syscall]})
    };
    let cases = [
        (
            json!({"defaultAction": "SCMP_ACT_KILL", "defaultErrnoRet": 1}),
            "linux.seccomp.defaultErrnoRet: SCMP_ACT_KILL does not support an errno",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 4096}),
            "linux.seccomp.defaultErrnoRet: 4096 is above 4095",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": "/a"}),
            "linux.seccomp.defaultAction: ",
        ),
        (
            with(json!({"names": ["read", "write"], "action": "SCMP_ACT_NOTIFY"})),
            "linux.seccomp.syscalls[1].names[1]: SCMP_ACT_NOTIFY cannot be used for write",
        ),
        (
            with(json!({"names": ["kill"], "action": "SCMP_ACT_TRAP", "errnoRet": 1})),
            "linux.seccomp.syscalls[1].errnoRet: SCMP_ACT_TRAP does not support an errno",
        ),
        (
            with(json!({"names": ["kill"], "action": "SCMP_ACT_TRACE", "errnoRet": 65536})),
            "linux.seccomp.syscalls[1].errnoRet: 65536 is above 65535",
        ),
        (
            with(json!({"names": [], "action": "SCMP_ACT_TRAP"})),
            "linux.seccomp.syscalls[1].names: ",
        ),
        (
            with(json!({"names": ["kill", ""], "action": "SCMP_ACT_TRAP"})),
            "linux.seccomp.syscalls[1].names[1]: ",
        ),
        (
            with(json!({"names": ["kill"], "action": "SCMP_ACT_TRAP",
                "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]})),
            "linux.seccomp.syscalls[1].args[0].index: is 6",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "x"}),
            "linux.seccomp.listenerMetadata: must not be set",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
                {"names": ["kill"], "action": "SCMP_ACT_NOTIFY"}]}),
            "linux.seccomp.listenerPath: must be set",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
                {"names": ["kill"], "action": "SCMP_ACT_TRAP",
                 "args": [{"index": 1, "value": 9, "op": "SCMP_CMP_EQ"}]},
                {"names": ["kill"], "action": "SCMP_ACT_ERRNO",
                 "args": [{"index": 1, "value": 9, "op": "SCMP_CMP_EQ"}]}]}),
            "linux.seccomp.syscalls[1].action: contradicts syscalls[0]",
        ),
    ];
    for (json, message) in cases {
        let refusal = refused(json);
        assert!(refusal.starts_with(&format!("config.json: {message}")), "{refusal}");
    }
}

#[test]
fn a_profile_beyond_the_kernels_limit_is_refused() {
    let args: Vec<_> =
        (0..2000_u64).map(|i| json!({"index": 0, "value": i << 32, "op": "SCMP_CMP_LT"})).collect();
    let refusal = refused(json!({"defaultAction": "SCMP_ACT_KILL", "syscalls": [
        {"names": ["kill"], "action": "SCMP_ACT_ALLOW", "args": args}]}));
    assert!(refusal.contains("the kernel takes 4096"), "{refusal}");
}

#[test]
fn far_targets_are_reached() {
    // Chains of more than 255 instructions between the search and its targets.
    let list = |n: u64| -> Vec<_> {
        (0..n).map(|i| json!({"index": 0, "value": (i << 32) | i, "op": "SCMP_CMP_EQ"})).collect()
    };
    let filter = filter(json!({"defaultAction": "SCMP_ACT_KILL", "syscalls": [
        {"names": ["kill"], "action": "SCMP_ACT_ALLOW", "args": list(300)},
        {"names": ["tkill"], "action": "SCMP_ACT_LOG", "args": list(299)},
        {"names": ["read", "ioctl", "close", "mmap"], "action": "SCMP_ACT_TRAP"}]}));
    let verdict =
        |nr, arg| run(&filter.program, &Data::raw(0xc000_003e, false, nr, [arg, 0, 0, 0, 0, 0])).0;
    for i in 0..300u64 {
        let wanted = if i < 299 { libc::SECCOMP_RET_LOG } else { 0 };
        assert_eq!(verdict(libc::SYS_kill as u32, (i << 32) | i), libc::SECCOMP_RET_ALLOW);
        assert_eq!(verdict(libc::SYS_tkill as u32, (i << 32) | i), wanted);
        assert_eq!(verdict(libc::SYS_kill as u32, (i << 32) | (i + 1)), 0);
    }
    assert_eq!(verdict(libc::SYS_mmap as u32, 7), libc::SECCOMP_RET_TRAP);
}

#[test]
fn calls_newer_than_the_profile_do_not_exist() {
    let filter = compile(&docker()).unwrap();
    let verdict = |audit, nr| run(&filter.program, &Data::raw(audit, false, nr, [1; 6])).0;
    let (x64, x86) = (0xc000_003e, 0x4000_0003);
    let eperm = libc::SECCOMP_RET_ERRNO | 1;
    assert_eq!(verdict(x64, 439), libc::SECCOMP_RET_ALLOW, "faccessat2, the newest that is named");
    assert_eq!(verdict(x64, 440), profile::ENOSYS);
    assert_eq!(verdict(x64, 438), eperm);
    assert_eq!(verdict(x86, 440), profile::ENOSYS);
    assert_eq!(verdict(x64, abi::X32_BIT | 440), profile::ENOSYS);
    assert_eq!(verdict(0xc000_00b7, 1), libc::SECCOMP_RET_KILL_PROCESS, "foreign");
    // A high bit hides nothing: personality(-1) is compared as 64 bits.
    assert_eq!(verdict(x64, libc::SYS_personality as u32), eperm);
}

#[test]
fn flags_follow_the_spec() {
    let of = |flags: Value, action: &str| {
        let filter = filter(json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/a",
            "flags": flags, "syscalls": [{"names": ["kill"], "action": action}]}));
        (filter.flags, filter.default_flags, filter.listener.is_some())
    };
    let all = json!([
        "SECCOMP_FILTER_FLAG_TSYNC",
        "SECCOMP_FILTER_FLAG_LOG",
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"
    ]);
    assert_eq!(of(json!(null), "SCMP_ACT_TRAP"), (0, true, false));
    assert_eq!(of(json!([]), "SCMP_ACT_TRAP"), (0, false, false));
    assert_eq!(of(all.clone(), "SCMP_ACT_TRAP"), (0b111, false, false));
    assert_eq!(of(all, "SCMP_ACT_NOTIFY"), (0b11_1111, false, true));
    let known = known();
    for flag in supported_flags() {
        assert!(known.flags.contains(&flag));
    }
}

/// Runs `calls` in a child under `filter` and returns how it ended. The child may allocate
/// nothing: it is a copy of one of several threads.
fn under(filter: &Filter, calls: impl Fn() -> u8) -> WaitStatus {
    match clone(&CloneArgs::default()).unwrap() {
        Cloned::Child => {
            nix::sys::prctl::set_no_new_privs().ok();
            let code = match filter.load() {
                Ok(notify) => {
                    std::mem::forget(notify);
                    calls()
                }
                Err(_) => 255,
            };
            loop {
                syscall64(libc::SYS_exit_group as u64, [code.into(), 0, 0, 0, 0, 0]);
            }
        }
        Cloned::Parent(_, pidfd) => waitid(Id::PIDFd(pidfd.as_fd()), WaitPidFlag::WEXITED).unwrap(),
    }
}

/// The code of a child that exited.
fn code(status: WaitStatus) -> i32 {
    match status {
        WaitStatus::Exited(_, code) => code,
        other => panic!("{other:?}"),
    }
}

fn call(nr: libc::c_long, args: &[u64]) -> i64 {
    let mut all = [0; 6];
    all[..args.len()].copy_from_slice(args);
    syscall64(nr as u64, all)
}

#[test]
fn the_kernel_does_what_the_profile_says() {
    let filter = filter(json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [
            {"names": ["getppid"], "action": "SCMP_ACT_ERRNO"},
            {"names": ["getpgid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77},
            {"names": ["umask"], "action": "SCMP_ACT_ERRNO", "errnoRet": 0},
            {"names": ["getuid"], "action": "SCMP_ACT_LOG"},
            {"names": ["getgid"], "action": "SCMP_ACT_TRACE"},
            {"names": ["kill"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5,
             "args": [{"index": 1, "value": 0x1_0000_0007_u64, "op": "SCMP_CMP_GE"}]},
        ]
    }));
    let status = under(&filter, || {
        let checks = [
            call(libc::SYS_getppid, &[]) == -i64::from(libc::EPERM),
            call(libc::SYS_getpgid, &[0]) == -77,
            call(libc::SYS_umask, &[0]) == 0,
            call(libc::SYS_getuid, &[]) >= 0,
            // A trace action without a tracer is ENOSYS.
            call(libc::SYS_getgid, &[]) == -i64::from(libc::ENOSYS),
            call(libc::SYS_kill, &[0, 0x1_0000_0007]) == -5,
            call(libc::SYS_kill, &[1 << 30, 0x1_0000_0000]) == -i64::from(libc::ESRCH),
            // The same through the other entry, where getppid is 64.
            int80(64, 0) == -libc::EPERM,
            int80(20, 0) > 0,
        ];
        checks.iter().position(|ok| !ok).map_or(0, |i| i as u8 + 1)
    });
    assert_eq!(code(status), 0);
}

#[test]
fn killing_actions_kill_and_so_does_an_unlisted_abi() {
    for action in
        ["SCMP_ACT_KILL", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_TRAP"]
    {
        let filter = filter(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["getppid"], "action": action}]}));
        let by_sigsys = |status: &WaitStatus| {
            matches!(status, WaitStatus::Signaled(_, nix::sys::signal::Signal::SIGSYS, _))
        };
        let killed = under(&filter, || call(libc::SYS_getppid, &[]) as u8);
        assert!(by_sigsys(&killed), "{action} {killed:?}");
        let killed = under(&filter, || int80(20, 0) as u8);
        assert!(by_sigsys(&killed), "int 0x80: {killed:?}");
        let killed = under(&filter, || call(libc::SYS_getpid | 0x4000_0000, &[]) as u8);
        assert!(by_sigsys(&killed), "x32: {killed:?}");
        assert_eq!(code(under(&filter, || 3)), 3);
    }
}

#[test]
fn every_flag_of_this_kernel_loads() {
    for flag in supported_flags() {
        for action in ["SCMP_ACT_ERRNO", "SCMP_ACT_NOTIFY"] {
            let filter = filter(json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": [flag],
                "listenerPath": "/a", "syscalls": [{"names": ["getppid"], "action": action}]}));
            filter.check().unwrap();
            assert_eq!(code(under(&filter, || 4)), 4, "{flag} {action}");
        }
    }
    let mut filter = filter(json!({"defaultAction": "SCMP_ACT_ALLOW"}));
    filter.flags = 1 << 30;
    assert!(filter.load().is_err());
}

#[test]
fn the_agent_gets_fd_and_state_in_one_message() {
    use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("agent");
    let agent = UnixListener::bind(&path).unwrap();
    let listener = Listener { path: path.clone(), metadata: Some("meta".to_owned()) };
    let file = tempfile::tempfile().unwrap();
    let state = json!({"ociVersion": "1.3.0", "id": "x", "status": "creating", "bundle": "/b"});
    send_listener(&listener, file.as_fd(), nix::unistd::Pid::from_raw(7), &state).unwrap();
    let (connection, _) = agent.accept().unwrap();
    let mut bytes = [0; 4096];
    let mut space = nix::cmsg_space!([i32; 2]);
    let mut parts = [std::io::IoSliceMut::new(&mut bytes)];
    let message =
        recvmsg::<()>(connection.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::empty())
            .unwrap();
    let fds = match message.cmsgs().unwrap().next() {
        Some(ControlMessageOwned::ScmRights(fds)) => fds,
        other => panic!("{other:?}"),
    };
    assert_eq!(fds.len(), 1);
    let length = message.bytes;
    let json: Value = serde_json::from_slice(&bytes[..length]).unwrap();
    assert_eq!(
        json,
        json!({"ociVersion": "1.3.0", "fds": ["seccompFd"], "pid": 7, "metadata": "meta", "state": state})
    );
    let gone = Listener { path: directory.path().join("gone"), metadata: None };
    let error =
        send_listener(&gone, file.as_fd(), nix::unistd::Pid::from_raw(7), &state).unwrap_err();
    assert!(error.to_string().starts_with("connect to seccomp listener"), "{error}");
}

#[test]
fn the_notification_fd_gets_out_by_write_alone() {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    // Everything that could pass an fd waits for the agent, who does not have his fd yet.
    let filter = filter(json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/a",
        "syscalls": [{"names": ["sendmsg", "sendto", "sendmmsg", "prctl", "getppid"],
                      "action": "SCMP_ACT_NOTIFY"}]}));
    let (ours, theirs) = crate::sys::socket::pair().unwrap();
    let pidfd = match clone(&CloneArgs::default()).unwrap() {
        Cloned::Child => {
            nix::sys::prctl::set_no_new_privs().ok();
            let notify = filter.load().ok().flatten().map_or(-1, IntoRawFd::into_raw_fd);
            let number = notify.to_ne_bytes();
            let (fd, pointer) = (theirs.as_raw_fd() as u64, number.as_ptr() as u64);
            call(libc::SYS_write, &[fd, pointer, number.len() as u64]);
            call(libc::SYS_getppid, &[]);
            loop {
                call(libc::SYS_exit_group, &[0]);
            }
        }
        Cloned::Parent(_, pidfd) => pidfd,
    };
    let mut number = [0; 4];
    nix::unistd::read(&ours, &mut number).unwrap();
    let notify = pidfd_getfd(&pidfd, i32::from_ne_bytes(number)).unwrap();
    let mut wait = [PollFd::new(notify.as_fd(), PollFlags::POLLIN)];
    let ready = poll(&mut wait, PollTimeout::from(5000_u16)).unwrap();
    pidfd_send_signal(&pidfd, libc::SIGKILL).unwrap();
    waitid(Id::PIDFd(pidfd.as_fd()), WaitPidFlag::WEXITED).unwrap();
    assert_eq!(ready, 1, "getppid did not notify");
}

/// `cargo test --release -p corten -- --ignored --nocapture seccomp::tests::time`
#[test]
#[ignore = "a measurement"]
fn time_of_dockers_profile() {
    let path = std::env::var("CORTEN_PROFILE")
        .unwrap_or_else(|_| "/work/shared/data/docker-like.json".to_owned());
    let config: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let spec = parse(config["linux"]["seccomp"].clone());
    let mut times: Vec<_> = (0..1000)
        .map(|_| {
            let start = std::time::Instant::now();
            std::hint::black_box(compile(std::hint::black_box(&spec)).unwrap());
            start.elapsed()
        })
        .collect();
    let first = times[0];
    times.sort();
    let filter = compile(&spec).unwrap();
    let mut load: Vec<_> = (0..50)
        .map(|_| {
            let start = std::time::Instant::now();
            under(&filter, || 0);
            start.elapsed()
        })
        .collect();
    load.sort();
    println!(
        "compile: first {first:?}, median {:?}, {} instructions; fork, load, exit: median {:?}",
        times[500],
        filter.program.len(),
        load[25]
    );
}
