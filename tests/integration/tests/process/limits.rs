//! Resource limits, scheduling, personality.

use corten_integration::suite::Case;
use corten_integration::{Flavour, Test, tests};
use serde_json::{Value, json};

pub(crate) const TESTS: &[Case] = tests![
    rlimits_all_sixteen,
    rlimits_duplicate_is_refused,
    rlimits_unknown_is_refused,
    rlimits_soft_above_hard_is_refused,
    rlimits_not_given_are_the_callers,
    oom_score_adj,
    oom_score_adj_absent_leaves_the_callers,
    oom_score_adj_out_of_range_is_refused,
    scheduler_batch_with_nice,
    scheduler_idle,
    scheduler_fifo_or_a_reason,
    scheduler_unknown_is_refused,
    io_priority,
    personality_linux32,
    personality_unknown_is_refused,
    exec_cpu_affinity_final,
];

/// All sixteen resources can be limited, soft and hard.
fn rlimits_all_sixteen(t: &Test) {
    let values = [
        ("RLIMIT_AS", 1_u64 << 33),
        ("RLIMIT_CORE", 1 << 20),
        ("RLIMIT_CPU", 1000),
        ("RLIMIT_DATA", 1 << 33),
        ("RLIMIT_FSIZE", 1 << 30),
        ("RLIMIT_LOCKS", 500),
        ("RLIMIT_MEMLOCK", 65536),
        ("RLIMIT_MSGQUEUE", 4096),
        ("RLIMIT_NICE", 0),
        ("RLIMIT_NOFILE", 512),
        ("RLIMIT_NPROC", 300),
        ("RLIMIT_RSS", 1 << 30),
        ("RLIMIT_RTPRIO", 0),
        ("RLIMIT_RTTIME", 100_000),
        ("RLIMIT_SIGPENDING", 100),
        ("RLIMIT_STACK", 1 << 22),
    ];
    let mut b = t.bundle();
    let all: Vec<Value> = values
        .iter()
        .map(|(kind, hard)| json!({"type": kind, "soft": hard / 2, "hard": hard}))
        .collect();
    b.set("process.rlimits", json!(all));
    let seen = t.report(&b);
    for (kind, hard) in values {
        assert_eq!(seen["rlimits"][kind], json!([hard / 2, hard]), "{kind}");
    }
}

/// "the runtime MUST generate an error" for a resource given twice.
fn rlimits_duplicate_is_refused(t: &Test) {
    t.skip_on_peers("take the last");
    let mut b = t.bundle();
    b.push("process.rlimits", json!({"type": "RLIMIT_NOFILE", "soft": 10, "hard": 20}));
    t.create_fails(&b).says("process.rlimits");
}

/// A resource that doesn't exist is an error.
fn rlimits_unknown_is_refused(t: &Test) {
    let mut b = t.bundle();
    b.push("process.rlimits", json!({"type": "RLIMIT_NOPE", "soft": 10, "hard": 20}));
    t.create_fails(&b).says("RLIMIT_NOPE");
}

/// The kernel refuses a soft limit above the hard one; so does the runtime.
fn rlimits_soft_above_hard_is_refused(t: &Test) {
    let mut b = t.bundle();
    b.set("process.rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": 20, "hard": 10}]));
    t.create_fails(&b);
}

/// Resources that aren't named keep the caller's limits.
fn rlimits_not_given_are_the_callers(t: &Test) {
    let mut b = t.bundle();
    b.unset("process.rlimits").write();
    let line =
        format!("ulimit -n 321; ulimit -c 0; $RUNTIME --root $ROOT run -b {} {}", b.path(), b.id);
    let seen = t.shell(&line).ok().fact(0);
    assert_eq!(seen["rlimits"]["RLIMIT_NOFILE"], json!([321, 321]));
    assert_eq!(seen["rlimits"]["RLIMIT_CORE"], json!([0, 0]));
}

/// oomScoreAdj is the program's.
fn oom_score_adj(t: &Test) {
    for value in [0, 500, 1000] {
        let mut b = t.bundle();
        b.set("process.oomScoreAdj", json!(value));
        assert_eq!(t.report(&b)["oom_score_adj"], value);
    }
}

/// "If not set, the runtime SHOULD NOT modify" it.
fn oom_score_adj_absent_leaves_the_callers(t: &Test) {
    let b = t.bundle();
    b.write();
    let line = format!(
        "echo 123 >/proc/self/oom_score_adj; $RUNTIME --root $ROOT run -b {} {}",
        b.path(),
        b.id
    );
    assert_eq!(t.shell(&line).ok().fact(0)["oom_score_adj"], 123);
}

/// The kernel knows -1000 to 1000.
fn oom_score_adj_out_of_range_is_refused(t: &Test) {
    for value in [1001, -1001, 100_000] {
        let mut b = t.bundle();
        b.set("process.oomScoreAdj", json!(value));
        t.create_fails(&b);
    }
}

/// SCHED_BATCH with a nice value.
fn scheduler_batch_with_nice(t: &Test) {
    t.skip_on_peers("older than process.scheduler");
    let mut b = t.bundle();
    b.set("process.scheduler", json!({"policy": "SCHED_BATCH", "nice": 7}));
    let seen = t.report(&b);
    assert_eq!(seen["sched"]["policy"], 3);
    assert_eq!(seen["sched"]["nice"], 7);
}

/// SCHED_IDLE.
fn scheduler_idle(t: &Test) {
    t.skip_on_peers("older than process.scheduler");
    let mut b = t.bundle();
    b.set("process.scheduler", json!({"policy": "SCHED_IDLE"}));
    assert_eq!(t.report(&b)["sched"]["policy"], 5);
}

/// A real-time policy is applied with its priority and flags, or refused with the errno.
fn scheduler_fifo_or_a_reason(t: &Test) {
    t.skip_on_peers("older than process.scheduler");
    let mut b = t.bundle();
    b.set(
        "process.scheduler",
        json!({"policy": "SCHED_FIFO", "priority": 3, "flags": ["SCHED_FLAG_RESET_ON_FORK"]}),
    );
    let out = t.run(&b);
    if out.code != 0 {
        out.fails().says("scheduler|sched");
        t.nothing_left(&b);
        return;
    }
    let seen = out.fact(0);
    assert_eq!(seen["sched"]["policy"], 1);
    assert_eq!(seen["sched"]["priority"], 3);
    assert_eq!(seen["sched"]["flags"].as_u64().unwrap() & 1, 1);
}

/// A policy or flag that doesn't exist is an error.
fn scheduler_unknown_is_refused(t: &Test) {
    t.skip_on_peers("older than process.scheduler");
    let mut b = t.bundle();
    b.set("process.scheduler", json!({"policy": "SCHED_NOPE"}));
    t.create_fails(&b).says("scheduler");
    let mut b = t.bundle();
    b.set("process.scheduler", json!({"policy": "SCHED_BATCH", "flags": ["SCHED_FLAG_NOPE"]}));
    t.create_fails(&b).says("scheduler");
}

/// ioPriority: class and level.
fn io_priority(t: &Test) {
    t.skip_on_peers("older than process.ioPriority");
    for (class, number) in [("IOPRIO_CLASS_BE", 2), ("IOPRIO_CLASS_IDLE", 3)] {
        let mut b = t.bundle();
        b.set("process.ioPriority", json!({"class": class, "priority": 6}));
        assert_eq!(t.report(&b)["ioprio"], number << 13 | 6, "{class}");
    }
    let mut b = t.bundle();
    b.set("process.ioPriority", json!({"class": "IOPRIO_CLASS_NOPE", "priority": 6}));
    t.create_fails(&b).says("ioPriority");
}

/// LINUX32 makes the machine look like a 32-bit one.
fn personality_linux32(t: &Test) {
    t.skip_on(Flavour::Runc, "1.1 is older than linux.personality");
    let mut b = t.bundle();
    b.set("linux.personality", json!({"domain": "LINUX32"}));
    let seen = t.report(&b);
    assert_eq!(seen["personality"].as_i64().unwrap() & 0xff, 8);
    assert_eq!(seen["uname"]["machine"], "i686");
    let mut b = t.bundle();
    b.set("linux.personality", json!({"domain": "LINUX"}));
    assert_eq!(t.report(&b)["personality"].as_i64().unwrap() & 0xff, 0);
}

/// Another domain is an error.
fn personality_unknown_is_refused(t: &Test) {
    t.skip_on(Flavour::Runc, "1.1 is older than linux.personality");
    let mut b = t.bundle();
    b.set("linux.personality", json!({"domain": "BSD"}));
    t.create_fails(&b).says("personality");
}

/// execCPUAffinity.final is what an exec'ed process may run on.
fn exec_cpu_affinity_final(t: &Test) {
    t.skip_on_peers("older than process.execCPUAffinity");
    let mut b = t.bundle();
    b.set("process.execCPUAffinity", json!({"initial": "0", "final": "1"}));
    t.sleeper(&mut b);
    let seen = t.exec(&b.id, &[], &["report", "sched"]).ok().fact(0);
    assert_eq!(seen["sched"]["affinity"], json!([1]));
}
