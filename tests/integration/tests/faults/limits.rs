//! R19, R20 and R22: limits that are too small for a container, and configs that are too large.

use std::time::{Duration, Instant};

use corten_integration::driver::patience;
use corten_integration::suite::Case;
use corten_integration::{Bundle, Test, tests};
use serde_json::{Value, json};

use crate::subject::{Subject, eventually};
use crate::tally::{self, Count, is_whole};
use crate::tracer::HANG;

pub(crate) const TESTS: &[Case] = tests![
    r19_memory_too_small,
    r20_few_pids,
    r20_little_processor,
    r20_little_processor_to_die,
    r20_rlimits_of_zero,
    r22_many_of_everything,
    r22_time_is_linear,
];

fn bundle(t: &Test) -> Bundle {
    t.skip_on_peers("hang, or leave things");
    let mut b = t.bundle();
    b.probe(&["exit", "0"]);
    b
}

/// It works, or fails soon with a word; nothing is left in either case.
fn tried(t: &Test, name: &str, b: Bundle) -> i32 {
    let subject = Subject::of(t, b);
    let mut code = -1;
    tally::point(&subject, name, || {
        let begun = Instant::now();
        let out = subject.call(&["run", "-b", subject.bundle.path(), subject.id()]);
        assert!(begun.elapsed() < patience(HANG), "{out} took {:?}", begun.elapsed());
        assert!(!out.stderr.contains("internal error"), "{out}");
        assert!(out.code == 0 || !out.stderr.trim().is_empty() || out.code > 128, "{out}");
        code = out.code;
        subject.is_gone(name);
        Ok(())
    });
    code
}

/// Whoever gets no memory is told that it is the limit.
fn r19_memory_too_small(t: &Test) {
    t.needs_controller("memory");
    let count = Count::begin();
    let mut worked = false;
    for limit in [1, 4, 16, 64, 128, 256, 512, 1024, 2048, 4096, 65536] {
        let mut b = bundle(t);
        b.set("linux.resources.memory", json!({"limit": limit << 10}));
        worked = tried(t, &format!("{limit} KiB of memory"), b) == 0;
    }
    assert!(worked, "64 MiB are enough");
    count.end(t, "memory limits");
}

/// Nothing of ours is counted beside the program: it works with one.
fn r20_few_pids(t: &Test) {
    t.needs_controller("pids");
    let count = Count::begin();
    for (limit, works) in [(1, true), (2, true), (0, true), (-1, true)] {
        let mut b = bundle(t);
        b.set("linux.resources.pids", json!({"limit": limit}));
        assert_eq!(tried(t, &format!("{limit} pids"), b) == 0, works, "{limit}");
    }
    count.end(t, "pids limits");
}

fn r20_little_processor(t: &Test) {
    t.needs_controller("cpu");
    let count = Count::begin();
    for cpu in [
        json!({"quota": 1000, "period": 1_000_000}),
        json!({"shares": 2}),
        json!({"shares": 1}),
        json!({"quota": 1}),
        json!({"quota": 1000, "period": 1}),
    ] {
        let mut b = bundle(t);
        b.set("linux.resources.cpu", cpu.clone());
        tried(t, &cpu.to_string(), b);
    }
    count.end(t, "processor limits");
}

/// Many who share a hundredth of a processor die soon all the same. (Newer kernels, 6.18 is one, let
/// who dies go over the quota.)
fn r20_little_processor_to_die(t: &Test) {
    t.needs_controller("cpu");
    t.skip_on_peers("wait for the quota");
    let mut b = t.busybox();
    b.script("i=0; while [ $i -lt 200 ]; do sleep 1000 & i=$((i+1)); done; wait");
    let subject = Subject::of(t, b);
    subject.call(&["run", "-d", "-b", subject.bundle.path(), subject.id()]).ok();
    eventually("they are there", || subject.processes() > 200);
    let quota = ["update", "--cpu-quota", "1000", "--cpu-period", "100000", subject.id()];
    subject.call(&quota).ok();
    subject.end("many with little processor");
}

/// They hold for the program; ours are not in the way.
fn r20_rlimits_of_zero(t: &Test) {
    let count = Count::begin();
    for kind in
        ["NOFILE", "NPROC", "AS", "FSIZE", "CORE", "MEMLOCK", "STACK", "DATA", "SIGPENDING", "CPU"]
    {
        let mut b = bundle(t);
        let limit = json!([{"type": format!("RLIMIT_{kind}"), "soft": 0, "hard": 0}]);
        b.set("process.rlimits", limit);
        tried(t, &format!("RLIMIT_{kind} 0"), b);
    }
    count.end(t, "rlimits");
}

/// A config with `count` of everything.
fn crowded(t: &Test, count: usize) -> Bundle {
    let mut b = bundle(t);
    let all = |make: &dyn Fn(usize) -> Value| Value::from((0..count).map(make).collect::<Vec<_>>());
    let hook = json!({"path": "/bin/true"});
    b.set("process.env", all(&|n| json!(format!("NAME{n}=value"))))
        .set("linux.maskedPaths", all(&|n| json!(format!("/proc/none{n}"))))
        .set("linux.readonlyPaths", all(&|n| json!(format!("/proc/nothing{n}"))))
        .set("hooks", json!({"createRuntime": vec![hook; count / 100]}))
        .set("annotations", (0..count).map(|n| (format!("a{n}"), json!("b"))).collect());
    let rules = (0..count / 10).map(|n| {
        json!({"names": ["mknod"], "action": "SCMP_ACT_ERRNO", "args": [
            {"index": 1, "value": n, "op": "SCMP_CMP_EQ"}]})
    });
    let rules: Vec<Value> = rules.collect();
    b.set("linux.seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}));
    b
}

fn r22_many_of_everything(t: &Test) {
    let count = Count::begin();
    assert_eq!(tried(t, "5,000 of everything", crowded(t, 5000)), 0);
    let mut b = bundle(t);
    for n in 0..1000 {
        b.mount(&format!("/tmp/{n}"), "tmpfs", "tmpfs", &["size=4k"]);
    }
    assert_eq!(tried(t, "1,000 mounts", b), 0);
    let mut b = bundle(t);
    b.probe(&["exit", "0", &"x".repeat(2 << 20)]);
    assert_ne!(tried(t, "an argument of 2 MiB", b), 0);
    let mut b = bundle(t);
    let size = if is_whole() { 64 } else { 8 };
    b.set("annotations", json!({"big": "x".repeat(size << 20)}));
    tried(t, "a config of many MiB", b);
    count.end(t, "large configs");
}

/// Ten times as much takes no more than ten times as long, and some.
fn r22_time_is_linear(t: &Test) {
    let count = Count::begin();
    let timed = |many: usize| {
        let b = crowded(t, many);
        let begun = Instant::now();
        assert_eq!(tried(t, &format!("{many} of everything"), b), 0);
        begun.elapsed()
    };
    let (few, many) = (timed(500), timed(5000));
    assert!(many < few * 20 + patience(Duration::from_millis(500)), "{few:?} and {many:?}");
    count.end(t, "time");
}
