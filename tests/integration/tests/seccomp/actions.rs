//! What happens to a call: errno, death, a signal, a line in the log; and the default.

use corten_integration::suite::Case;
use corten_integration::{Flavour, Test, tests};
use serde_json::json;

use crate::{MKDIR, SETHOSTNAME, filtered, lseek, rule};

pub(crate) const TESTS: &[Case] = tests![
    errno_is_returned,
    errno_defaults_to_eperm,
    default_errno_ret,
    default_action_errno_with_an_allow_list,
    actions_that_kill,
    action_trap_is_a_signal,
    action_log_lets_pass,
    action_trace_without_a_tracer_is_enosys,
    newer_calls_are_enosys,
];

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
