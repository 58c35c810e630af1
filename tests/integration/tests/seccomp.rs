//! `linux.seccomp` by what happens when system calls are made.

use std::process::{Command, ExitCode};

use corten_integration::bundle::probe;
use corten_integration::driver::Running;
use corten_integration::{Bundle, Flavour, Test, suite, tests};
use serde_json::{Value, json};

fn main() -> ExitCode {
    #[cfg(not(target_arch = "x86_64"))]
    return ExitCode::SUCCESS; // The numbers below are x86_64's.
    #[cfg(target_arch = "x86_64")]
    suite(tests![
        errno_is_returned,
        errno_defaults_to_eperm,
        default_errno_ret,
        default_action_errno_with_an_allow_list,
        actions_that_kill,
        action_trap_is_a_signal,
        action_log_lets_pass,
        action_trace_without_a_tracer_is_enosys,
        operators_on_64_bits,
        several_arguments_must_all_match,
        one_argument_twice_is_an_alternative,
        several_rules_for_one_call,
        several_names_in_one_rule,
        unknown_names_are_ignored,
        unknown_words_are_refused,
        default_action_is_needed,
        errno_ret_of_another_action_is_refused,
        newer_calls_are_enosys,
        i386_calls_are_filtered_too,
        i386_calls_without_the_architecture_do_not_pass,
        x32_is_no_way_around,
        filter_without_no_new_privs,
        filter_with_no_new_privs,
        filter_of_an_ordinary_user,
        flags_are_accepted,
        there_is_one_filter,
        empty_means_default_for_all,
        large_profile,
        notify_listener_gets_fd_and_state,
        notify_answers_reach_the_program,
        notify_of_exec,
        no_capability_is_left_from_loading,
        notify_metadata_without_path_is_refused,
        notify_absent_socket_is_refused,
        notify_on_write_is_refused,
        notify_as_default_is_refused,
    ])
}

const LSEEK: &str = "8";
const MKDIR: &str = "83";
const SETHOSTNAME: &str = "170";

fn rule(names: &[&str], action: &str) -> Value {
    json!({"names": names, "action": action})
}

fn filtered(t: &Test, default: &str, rules: &[Value]) -> Bundle {
    let mut b = t.bundle();
    b.set(
        "linux.seccomp",
        json!({"defaultAction": default, "architectures": ["SCMP_ARCH_X86_64"], "syscalls": rules}),
    );
    b
}

/// lseek of an absent descriptor is EBADF unless the filter answers first.
fn lseek(t: &Test, rules: &[Value], argument: u64) -> String {
    let mut b = filtered(t, "SCMP_ACT_ALLOW", rules);
    b.probe(&["syscall", LSEEK, "999", &argument.to_string(), "0"]);
    t.run(&b).ok().fact(0)["errno"].as_str().unwrap().to_owned()
}

/// errnoRet is what the call returns.
fn errno_is_returned(t: &Test) {
    for (number, name) in [(1, "EPERM"), (38, "ENOSYS"), (95, "EOPNOTSUPP"), (13, "EACCES")] {
        let mut r = rule(&["lseek"], "SCMP_ACT_ERRNO");
        r["errnoRet"] = json!(number);
        assert_eq!(lseek(t, &[r], 0), name);
    }
}

/// Without errnoRet it is EPERM.
fn errno_defaults_to_eperm(t: &Test) {
    assert_eq!(lseek(t, &[rule(&["lseek"], "SCMP_ACT_ERRNO")], 0), "EPERM");
}

/// What a static program needs to start, report and end.
const NEEDED: [&str; 61] = [
    "fstatfs",
    "statfs",
    "close_range",
    "read",
    "write",
    "open",
    "openat",
    "close",
    "stat",
    "fstat",
    "lstat",
    "newfstatat",
    "statx",
    "poll",
    "ppoll",
    "lseek",
    "mmap",
    "mprotect",
    "munmap",
    "mremap",
    "brk",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "ioctl",
    "pread64",
    "writev",
    "access",
    "madvise",
    "sigaltstack",
    "arch_prctl",
    "prctl",
    "set_tid_address",
    "set_robust_list",
    "rseq",
    "prlimit64",
    "getrandom",
    "exit",
    "exit_group",
    "futex",
    "fcntl",
    "getdents64",
    "readlink",
    "readlinkat",
    "getcwd",
    "execve",
    "getpid",
    "gettid",
    "sched_getaffinity",
    "clone",
    "clone3",
    "wait4",
    "uname",
    "capget",
    "capset",
    "setuid",
    "setgid",
    "setgroups",
    "chdir",
    "epoll_pwait",
    "nanosleep",
];

/// defaultErrnoRet is the errno of a default action ERRNO.
fn default_errno_ret(t: &Test) {
    let mut b = filtered(t, "SCMP_ACT_ERRNO", &[rule(&NEEDED, "SCMP_ACT_ALLOW")]);
    b.set("linux.seccomp.defaultErrnoRet", json!(95)).probe(&["syscall", MKDIR, "str:/x", "0"]);
    assert_eq!(t.run(&b).ok().fact(0)["errno"], "EOPNOTSUPP");
}

/// Everything that isn't listed fails, the rest works.
fn default_action_errno_with_an_allow_list(t: &Test) {
    let mut b = filtered(t, "SCMP_ACT_ERRNO", &[rule(&NEEDED, "SCMP_ACT_ALLOW")]);
    b.probe(&["syscall", MKDIR, "str:/x", "0", ";", "read", "/etc/group"]);
    let out = t.run(&b).ok();
    assert_eq!(out.fact(0)["errno"], "EPERM");
    assert_eq!(out.fact(1)["ok"], true);
}

/// KILL, KILL_THREAD and KILL_PROCESS end the process with SIGSYS.
fn actions_that_kill(t: &Test) {
    for action in ["SCMP_ACT_KILL", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_KILL_PROCESS"] {
        let mut b = filtered(t, "SCMP_ACT_ALLOW", &[rule(&["mkdir"], action)]);
        b.probe(&["syscall-fork", MKDIR, "str:/x", "0", ";", "print", "alive"]);
        let out = t.run(&b).ok();
        assert_eq!(out.fact(0)["died_of"], 31, "{action}");
        assert_eq!(out.fact(1), "alive");
    }
}

/// TRAP sends SIGSYS, which nobody handles here.
fn action_trap_is_a_signal(t: &Test) {
    let mut b = filtered(t, "SCMP_ACT_ALLOW", &[rule(&["mkdir"], "SCMP_ACT_TRAP")]);
    b.probe(&["syscall-fork", MKDIR, "str:/x", "0"]);
    assert_eq!(t.run(&b).ok().fact(0)["died_of"], 31);
}

/// LOG is ALLOW with a line in the audit log.
fn action_log_lets_pass(t: &Test) {
    let mut b = filtered(t, "SCMP_ACT_ALLOW", &[rule(&["mkdir"], "SCMP_ACT_LOG")]);
    b.probe(&["syscall", MKDIR, "str:/x", "0"]);
    assert_eq!(t.run(&b).ok().fact(0)["ok"], true);
}

/// TRACE asks a tracer; without one the kernel says ENOSYS.
fn action_trace_without_a_tracer_is_enosys(t: &Test) {
    let mut b = filtered(t, "SCMP_ACT_ALLOW", &[rule(&["mkdir"], "SCMP_ACT_TRACE")]);
    b.probe(&["syscall", MKDIR, "str:/x", "0"]);
    assert_eq!(t.run(&b).ok().fact(0)["errno"], "ENOSYS");
}

fn compare(op: &str, value: u64, two: u64) -> Value {
    json!({"names": ["lseek"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95,
        "args": [{"index": 1, "value": value, "valueTwo": two, "op": op}]})
}

/// Every operator, with values whose halves differ.
fn operators_on_64_bits(t: &Test) {
    let big = 0x1_0000_0005_u64;
    let around = [0, 5, 0xffff_ffff, big - 1, big, big + 1, 0x2_0000_0000, u64::MAX];
    type Holds = fn(u64, u64) -> bool;
    let operators: [(&str, Holds); 6] = [
        ("SCMP_CMP_EQ", |a, b| a == b),
        ("SCMP_CMP_NE", |a, b| a != b),
        ("SCMP_CMP_LT", |a, b| a < b),
        ("SCMP_CMP_LE", |a, b| a <= b),
        ("SCMP_CMP_GT", |a, b| a > b),
        ("SCMP_CMP_GE", |a, b| a >= b),
    ];
    let steps: Vec<String> = around
        .iter()
        .flat_map(|a| ["syscall", LSEEK, "999", &a.to_string(), "0", ";"].map(str::to_owned))
        .collect();
    let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
    for (op, holds) in operators {
        let mut b = filtered(t, "SCMP_ACT_ALLOW", &[compare(op, big, 0)]);
        b.probe(&steps);
        let out = t.run(&b).ok();
        for (n, argument) in around.iter().enumerate() {
            let expected = if holds(*argument, big) { "EOPNOTSUPP" } else { "EBADF" };
            assert_eq!(out.fact(n)["errno"], expected, "{argument:#x} {op} {big:#x}");
        }
    }
    // MASKED_EQ: argument & value == valueTwo
    let mask = 0xff00_0000_00f0_u64;
    for (argument, hit) in [
        (0x1200_0000_0030_u64, true),
        (0x1200_0000_003f, true),
        (0x1200_0000_0040, false),
        (0x30, false),
    ] {
        let got = lseek(t, &[compare("SCMP_CMP_MASKED_EQ", mask, 0x1200_0000_0030)], argument);
        assert_eq!(got, if hit { "EOPNOTSUPP" } else { "EBADF" }, "{argument:#x}");
    }
}

/// Conditions on different arguments are joined by "and".
fn several_arguments_must_all_match(t: &Test) {
    let both = json!({"names": ["lseek"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95, "args": [
        {"index": 1, "value": 7, "op": "SCMP_CMP_EQ"}, {"index": 2, "value": 1, "op": "SCMP_CMP_EQ"}]});
    let mut b = filtered(t, "SCMP_ACT_ALLOW", &[both]);
    b.probe(&[
        "syscall", LSEEK, "999", "7", "1", ";", "syscall", LSEEK, "999", "7", "0", ";", "syscall",
        LSEEK, "999", "6", "1",
    ]);
    let out = t.run(&b).ok();
    assert_eq!(out.fact(0)["errno"], "EOPNOTSUPP");
    assert_eq!(out.fact(1)["errno"], "EBADF");
    assert_eq!(out.fact(2)["errno"], "EBADF");
}

/// Conditions on the same argument become separate rules, joined by "or", as runc does.
fn one_argument_twice_is_an_alternative(t: &Test) {
    let either = json!({"names": ["lseek"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95, "args": [
        {"index": 1, "value": 7, "op": "SCMP_CMP_EQ"}, {"index": 1, "value": 9, "op": "SCMP_CMP_EQ"}]});
    for (argument, name) in [(7, "EOPNOTSUPP"), (9, "EOPNOTSUPP"), (8, "EBADF")] {
        assert_eq!(lseek(t, std::slice::from_ref(&either), argument), name, "{argument}");
    }
}

/// Each rule of a call counts.
fn several_rules_for_one_call(t: &Test) {
    let one = |value: u64, errno: u32| {
        json!({"names": ["lseek"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno,
            "args": [{"index": 1, "value": value, "op": "SCMP_CMP_EQ"}]})
    };
    let rules = [one(7, 95), one(9, 13), one(11, 38)];
    for (argument, name) in [(7, "EOPNOTSUPP"), (9, "EACCES"), (11, "ENOSYS"), (8, "EBADF")] {
        assert_eq!(lseek(t, &rules, argument), name, "{argument}");
    }
}

/// One rule may name many calls.
fn several_names_in_one_rule(t: &Test) {
    let mut b = filtered(
        t,
        "SCMP_ACT_ALLOW",
        &[rule(&["mkdir", "sethostname", "lseek"], "SCMP_ACT_ERRNO")],
    );
    b.probe(&[
        "syscall",
        MKDIR,
        "str:/x",
        "0",
        ";",
        "syscall",
        SETHOSTNAME,
        "str:x",
        "1",
        ";",
        "syscall",
        LSEEK,
        "999",
        "0",
        "0",
    ]);
    for fact in t.run(&b).ok().facts() {
        assert_eq!(fact["errno"], "EPERM");
    }
}

/// A name of tomorrow or of another architecture is no mistake.
fn unknown_names_are_ignored(t: &Test) {
    assert_eq!(
        lseek(t, &[rule(&["call_of_tomorrow", "lseek", "_newselect"], "SCMP_ACT_ERRNO")], 0),
        "EPERM"
    );
}

/// Unknown actions, operators, architectures and flags are errors.
fn unknown_words_are_refused(t: &Test) {
    let b = filtered(t, "SCMP_ACT_ALLOW", &[rule(&["lseek"], "SCMP_ACT_NOPE")]);
    t.create_fails(&b).says("SCMP_ACT_NOPE");
    t.create_fails(&filtered(t, "SCMP_ACT_NOPE", &[])).says("SCMP_ACT_NOPE");
    t.create_fails(&filtered(t, "SCMP_ACT_ALLOW", &[compare("SCMP_CMP_NOPE", 1, 0)]))
        .says("SCMP_CMP_NOPE");
    let mut b = filtered(t, "SCMP_ACT_ALLOW", &[]);
    b.set("linux.seccomp.architectures", json!(["SCMP_ARCH_NOPE"]));
    t.create_fails(&b).says("SCMP_ARCH_NOPE");
    t.skip_on_peers("know no flags, or don't look at them");
    let mut b = filtered(t, "SCMP_ACT_ALLOW", &[rule(&["lseek"], "SCMP_ACT_ERRNO")]);
    b.set("linux.seccomp.flags", json!(["SECCOMP_FILTER_FLAG_NOPE"]));
    t.create_fails(&b).says("SECCOMP_FILTER_FLAG_NOPE");
}

/// "defaultAction (REQUIRED)".
fn default_action_is_needed(t: &Test) {
    let mut b = filtered(t, "SCMP_ACT_ALLOW", &[rule(&["lseek"], "SCMP_ACT_ERRNO")]);
    b.unset("linux.seccomp.defaultAction");
    t.create_fails(&b);
}

/// "If the action doesn't support returning an errno ... MUST generate an error."
fn errno_ret_of_another_action_is_refused(t: &Test) {
    t.skip_on(Flavour::Runc, "ignores it");
    let mut r = rule(&["lseek"], "SCMP_ACT_KILL");
    r["errnoRet"] = json!(5);
    t.create_fails(&filtered(t, "SCMP_ACT_ALLOW", &[r])).says("errnoRet");
}

/// A call newer than every call of the profile is ENOSYS, so that libc falls back; an older one
/// that isn't listed is the default.
fn newer_calls_are_enosys(t: &Test) {
    t.skip_on(Flavour::Crun, "EPERM for all");
    let mut b = filtered(t, "SCMP_ACT_ERRNO", &[rule(&NEEDED, "SCMP_ACT_ALLOW")]);
    b.probe(&[
        "syscall",
        "450",
        "0",
        ";",
        "syscall",
        "9999",
        "0",
        ";",
        "syscall",
        SETHOSTNAME,
        "str:x",
        "1",
    ]);
    let out = t.run(&b).ok();
    assert_eq!(out.fact(0)["errno"], "ENOSYS");
    assert_eq!(out.fact(1)["errno"], "ENOSYS");
    assert_eq!(out.fact(2)["errno"], "EPERM");
}

const I386_MKDIR: &str = "39";
const I386_GETPID: &str = "20";

fn has_i386(t: &Test) {
    let mut command = Command::new(probe());
    command.args(["int80-fork", I386_GETPID]);
    let out = t.execute(command);
    if out.facts().first().is_none_or(|fact| fact["ok"] != true) {
        t.skip("this kernel has no i386 entry");
    }
}

/// A rule holds for the i386 numbers if the architecture is listed.
fn i386_calls_are_filtered_too(t: &Test) {
    has_i386(t);
    let mut b = filtered(t, "SCMP_ACT_ALLOW", &[rule(&["mkdir"], "SCMP_ACT_ERRNO")]);
    b.set(
        "linux.seccomp.architectures",
        json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]),
    );
    b.probe(&["int80-fork", I386_MKDIR, "0", "0", ";", "int80-fork", I386_GETPID]);
    let out = t.run(&b).ok();
    assert_eq!(out.fact(0)["errno"], "EPERM");
    assert_eq!(out.fact(1)["ok"], true);
}

/// An architecture that isn't listed is no way around the filter.
fn i386_calls_without_the_architecture_do_not_pass(t: &Test) {
    has_i386(t);
    let mut b = filtered(t, "SCMP_ACT_ALLOW", &[rule(&["mkdir"], "SCMP_ACT_ERRNO")]);
    b.probe(&["int80-fork", I386_GETPID]);
    assert_eq!(t.run(&b).ok().fact(0)["died_of"], 31);
}

/// mkdir with the x32 bit isn't mkdir for a careless filter.
fn x32_is_no_way_around(t: &Test) {
    let mut b = filtered(t, "SCMP_ACT_ALLOW", &[rule(&["mkdir"], "SCMP_ACT_ERRNO")]);
    b.probe(&["syscall-fork", &(0x4000_0000_u32 | 83).to_string(), "str:/x", "0"]);
    t.run(&b).ok();
    assert!(!b.rootfs().join("x").exists());
}

fn mode(t: &Test, b: &mut Bundle) -> Value {
    b.probe(&["report", "status", "nnp", "caps"]);
    t.run(b).ok().fact(0)
}

/// Without no_new_privs the filter needs CAP_SYS_ADMIN, so it is loaded before they are dropped.
fn filter_without_no_new_privs(t: &Test) {
    let mut b = filtered(t, "SCMP_ACT_ALLOW", &[rule(&["mkdir"], "SCMP_ACT_ERRNO")]);
    b.set("process.noNewPrivileges", json!(false));
    let seen = mode(t, &mut b);
    assert_eq!(seen["status"]["Seccomp"], "2");
    assert_eq!(seen["nnp"], 0);
    assert_eq!(seen["caps"]["effective"].as_u64().unwrap() & 1 << 21, 0);
}

/// With it the filter comes last: the runtime's own calls need not be allowed.
fn filter_with_no_new_privs(t: &Test) {
    let forbidden = ["setuid", "setgid", "setgroups", "capset", "prctl", "mount", "chdir"];
    let mut b = filtered(t, "SCMP_ACT_ALLOW", &[rule(&forbidden[..3], "SCMP_ACT_KILL_PROCESS")]);
    b.set("process.user", json!({"uid": 1000, "gid": 1000, "additionalGids": [5]}));
    b.probe(&["report", "status", "uid"]);
    let seen = t.run(&b).ok().fact(0);
    assert_eq!(seen["status"]["Seccomp"], "2");
    assert_eq!(seen["uid"], json!([1000, 1000, 1000]));
}

/// For an ordinary user too, with and without no_new_privs.
fn filter_of_an_ordinary_user(t: &Test) {
    for nnp in [true, false] {
        let mut b = filtered(t, "SCMP_ACT_ALLOW", &[rule(&["mkdir"], "SCMP_ACT_ERRNO")]);
        b.set("process.noNewPrivileges", json!(nnp))
            .set("process.user", json!({"uid": 1000, "gid": 1000}));
        assert_eq!(mode(t, &mut b)["status"]["Seccomp"], "2", "{nnp}");
    }
}

/// The flags of the specification.
fn flags_are_accepted(t: &Test) {
    t.skip_on(Flavour::Runc, "1.1 knows no flags");
    for flags in [
        json!([]),
        json!(["SECCOMP_FILTER_FLAG_LOG"]),
        json!(["SECCOMP_FILTER_FLAG_SPEC_ALLOW"]),
        json!(["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG"]),
    ] {
        let mut b = filtered(t, "SCMP_ACT_ALLOW", &[rule(&["mkdir"], "SCMP_ACT_ERRNO")]);
        b.set("linux.seccomp.flags", flags.clone());
        assert_eq!(mode(t, &mut b)["status"]["Seccomp"], "2", "{flags}");
    }
}

/// One filter is loaded, not two.
fn there_is_one_filter(t: &Test) {
    let mut b = filtered(t, "SCMP_ACT_ALLOW", &[rule(&["mkdir"], "SCMP_ACT_ERRNO")]);
    assert_eq!(mode(t, &mut b)["status"]["Seccomp_filters"], "1");
    let mut none = t.bundle();
    assert_eq!(mode(t, &mut none)["status"]["Seccomp"], "0");
}

/// No rules and ALLOW: the program runs.
fn empty_means_default_for_all(t: &Test) {
    let mut b = filtered(t, "SCMP_ACT_ALLOW", &[]);
    b.probe(&["syscall", MKDIR, "str:/x", "0"]);
    assert_eq!(t.run(&b).ok().fact(0)["ok"], true);
}

/// Hundreds of rules with arguments, three architectures.
fn large_profile(t: &Test) {
    let mut rules: Vec<Value> = (0..400_u64)
        .map(|n| {
            json!({"names": ["lseek"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95,
            "args": [{"index": 1, "value": n * 2 + 1000, "op": "SCMP_CMP_EQ"}]})
        })
        .collect();
    rules.push(rule(
        &["mkdir", "mkdirat", "rmdir", "mount", "umount2", "ptrace", "reboot"],
        "SCMP_ACT_ERRNO",
    ));
    let mut b = filtered(t, "SCMP_ACT_ALLOW", &rules);
    b.set(
        "linux.seccomp.architectures",
        json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]),
    );
    b.probe(&[
        "syscall", LSEEK, "999", "1798", "0", ";", "syscall", LSEEK, "999", "1799", "0", ";",
        "syscall", MKDIR, "str:/x", "0",
    ]);
    let out = t.run(&b).ok();
    assert_eq!(out.fact(0)["errno"], "EOPNOTSUPP");
    assert_eq!(out.fact(1)["errno"], "EBADF");
    assert_eq!(out.fact(2)["errno"], "EPERM");
}

/// Starts an agent that answers `count` notifications with `errno`.
fn agent(t: &Test, count: u32, errno: u32) -> (Running, String) {
    let path = t.dir.join(format!("agent{}", t.next()));
    let mut command = Command::new(probe());
    command.args(["notify-agent", path.to_str().unwrap(), &count.to_string(), &errno.to_string()]);
    let mut running = t.launch(command);
    running.wait_for("listening");
    (running, path.to_str().unwrap().to_owned())
}

fn notifying(t: &Test, listener: &str) -> Bundle {
    let mut b = filtered(t, "SCMP_ACT_ALLOW", &[rule(&["mkdir"], "SCMP_ACT_NOTIFY")]);
    b.set("linux.seccomp.listenerPath", json!(listener));
    b.set("linux.seccomp.listenerMetadata", json!("some metadata"));
    b
}

/// One message with one descriptor: the container process state of the specification.
fn notify_listener_gets_fd_and_state(t: &Test) {
    let (agent, path) = agent(t, 1, 95);
    let mut b = notifying(t, &path);
    b.set("annotations", json!({"k": "v"})).probe(&["syscall", MKDIR, "str:/x", "0"]);
    t.create(&b).ok();
    let pid = t.pid(&b.id);
    t.start(&b.id).ok();
    t.wait_status(&b.id, "stopped");
    let out = agent.wait().ok();
    let received = out.fact(1);
    assert_eq!(received["fds"], 1, "{received}");
    let state: Value = serde_json::from_str(received["message"].as_str().unwrap()).unwrap();
    assert_eq!(state["fds"], json!(["seccompFd"]), "{state}");
    assert_eq!(state["metadata"], "some metadata");
    assert_eq!(state["pid"], json!(pid));
    assert!(state["ociVersion"].is_string());
    assert_eq!(state["state"]["id"], json!(b.id));
    assert_eq!(state["state"]["status"], "creating");
    assert_eq!(state["state"]["bundle"], json!(b.path()));
    assert_eq!(state["state"]["annotations"]["k"], "v");
    assert_eq!(out.fact(2)["syscall"], 83);
    assert_eq!(out.fact(2)["pid"], json!(pid));
}

/// The agent decides: an errno, or let it pass.
fn notify_answers_reach_the_program(t: &Test) {
    for (errno, expected) in [(95, json!("EOPNOTSUPP")), (0, Value::Null)] {
        let (agent, path) = agent(t, 1, errno);
        let mut b = notifying(t, &path);
        b.probe(&["syscall", MKDIR, "str:/x", "0"]);
        let out = t.run(&b).ok();
        assert_eq!(out.fact(0)["errno"], expected);
        agent.wait().ok();
    }
}

/// exec connects too, with the status running and its own pid.
fn notify_of_exec(t: &Test) {
    let (first, path) = agent(t, 0, 95);
    let mut b = notifying(t, &path);
    let init = t.sleeper(&mut b);
    first.wait().ok();
    std::fs::remove_file(&path).unwrap();
    let mut command = Command::new(probe());
    command.args(["notify-agent", &path, "1", "95"]);
    let mut second = t.launch(command);
    second.wait_for("listening");
    let out = t.exec(&b.id, &[], &["syscall", MKDIR, "str:/x", "0"]).ok();
    assert_eq!(out.fact(0)["errno"], "EOPNOTSUPP");
    let message = second.wait().ok().fact(1)["message"].clone();
    let state: Value = serde_json::from_str(message.as_str().unwrap()).unwrap();
    if t.flavour == Flavour::Corten {
        assert_eq!(state["state"]["status"], "running", "{state}");
    }
    assert_eq!(state["state"]["pid"], json!(init), "{state}");
    assert_ne!(state["pid"], json!(init), "{state}");
}

/// A filter without no_new_privs takes CAP_SYS_ADMIN to load; the program has what was asked for.
fn no_capability_is_left_from_loading(t: &Test) {
    const KILL: u64 = 1 << 5;
    let (_agent, path) = agent(t, 1, 95);
    let plain = filtered(t, "SCMP_ACT_ALLOW", &[rule(&["mkdir"], "SCMP_ACT_ERRNO")]);
    for mut b in [plain, notifying(t, &path)] {
        b.set("process.noNewPrivileges", json!(false));
        for set in ["bounding", "effective", "permitted"] {
            b.set(&format!("process.capabilities.{set}"), json!(["CAP_KILL"]));
        }
        b.probe(&["report", "caps"]);
        let caps = t.run(&b).ok().fact(0)["caps"].clone();
        for set in ["bounding", "effective", "permitted"] {
            assert_eq!(caps[set], json!(KILL), "{set}: {caps}");
        }
        for set in ["inheritable", "ambient"] {
            assert_eq!(caps[set], json!(0), "{set}: {caps}");
        }
    }
}

/// "listenerMetadata ... MUST NOT be set if listenerPath is not set".
fn notify_metadata_without_path_is_refused(t: &Test) {
    t.skip_on_peers("don't look");
    let mut b = filtered(t, "SCMP_ACT_ALLOW", &[rule(&["mkdir"], "SCMP_ACT_ERRNO")]);
    b.set("linux.seccomp.listenerMetadata", json!("m"));
    t.create_fails(&b).says("listenerMetadata|listenerPath");
}

/// A NOTIFY without anybody to ask.
fn notify_absent_socket_is_refused(t: &Test) {
    t.create_fails(&notifying(t, "/absent/socket")).says("no such file or directory");
    let mut b = notifying(t, "/x");
    b.unset("linux.seccomp.listenerPath").unset("linux.seccomp.listenerMetadata");
    t.create_fails(&b);
}

/// The runtime itself must write to hand over the descriptor: NOTIFY on write would deadlock.
fn notify_on_write_is_refused(t: &Test) {
    t.skip_on(Flavour::Crun, "doesn't look");
    let mut b = filtered(t, "SCMP_ACT_ALLOW", &[rule(&["write"], "SCMP_ACT_NOTIFY")]);
    b.set("linux.seccomp.listenerPath", json!("/run/x"));
    t.create_fails(&b).says("SCMP_ACT_NOTIFY|write");
}

/// The same with NOTIFY for everything.
fn notify_as_default_is_refused(t: &Test) {
    t.skip_on(Flavour::Crun, "doesn't look");
    let mut b = filtered(t, "SCMP_ACT_NOTIFY", &[]);
    b.set("linux.seccomp.listenerPath", json!("/run/x"));
    t.create_fails(&b).says("SCMP_ACT_NOTIFY");
}
