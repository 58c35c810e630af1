//! What the limits are on cgroup v2, where one group has all controllers; and their `update`.

use std::fs;
use std::path::Path;

use corten_integration::suite::Case;
use corten_integration::{Test, cgroups, tests};
use serde_json::json;

use crate::{created, disk, file, v2};

pub(crate) const TESTS: &[Case] = tests![
    v2_controllers_are_handed_down,
    v2_memory_limit_reservation_and_swap,
    v2_memory_swap_below_the_limit_is_refused,
    v2_memory_oom_is_told,
    v2_cpu_weight_and_max,
    v2_cpu_idle_and_burst,
    v2_cpuset,
    v2_io_limits,
    v2_hugetlb_limit,
    v2_unified,
    v2_unified_is_checked,
    v2_only_v1_is_refused,
    v2_update_changes_what_is_given,
    v2_update_that_fails_changes_nothing,
];

/// The groups of a harness that isn't at the top have the controllers that were delegated.
fn need(t: &Test, controller: &str) {
    let above = cgroups::parent();
    let above = Path::new(&above).parent().unwrap().to_str().unwrap();
    let dir = cgroups::directory("", above).unwrap();
    let there = fs::read_to_string(dir.join("cgroup.controllers")).unwrap();
    if !there.split_whitespace().any(|name| name == controller) {
        t.skip(&format!("{controller} is not handed down to {}", dir.display()));
    }
}

/// The group has every controller that its parents have, limited or not: managers read statistics.
fn v2_controllers_are_handed_down(t: &Test) {
    v2(t);
    let b = created(t, &[]);
    let above = cgroups::directory("", &cgroups::parent()).unwrap();
    let above = fs::read_to_string(above.parent().unwrap().join("cgroup.controllers")).unwrap();
    assert_eq!(file(&b, "cgroup.controllers"), above.trim());
    for name in ["cpu.stat", "memory.current", "pids.current", "io.stat"] {
        file(&b, name);
    }
}

/// The spec's swap counts memory as well, v2's doesn't; a reservation is protected memory.
fn v2_memory_limit_reservation_and_swap(t: &Test) {
    v2(t);
    let memory = json!({"limit": 64 << 20, "reservation": 32 << 20, "swap": 96 << 20});
    let b = created(t, &[("memory", memory)]);
    assert_eq!(file(&b, "memory.max"), (64 << 20).to_string());
    assert_eq!(file(&b, "memory.low"), (32 << 20).to_string());
    assert_eq!(file(&b, "memory.swap.max"), (32 << 20).to_string());
    let b = created(t, &[("memory", json!({"limit": -1}))]);
    assert_eq!(file(&b, "memory.max"), "max");
    assert_eq!(file(&b, "memory.swap.max"), "max");
}

/// Less swap-and-memory than memory is impossible.
fn v2_memory_swap_below_the_limit_is_refused(t: &Test) {
    v2(t);
    for memory in [json!({"limit": 64 << 20, "swap": 32 << 20}), json!({"swap": 32 << 20})] {
        let mut b = t.bundle();
        b.set("linux.resources.memory", memory);
        t.create_fails(&b);
    }
}

/// Who died of the limit is counted, and the runtime says so where the init did.
fn v2_memory_oom_is_told(t: &Test) {
    v2(t);
    let mut b = t.bundle();
    b.set("linux.resources.memory", json!({"limit": 32 << 20, "swap": 32 << 20}));
    b.probe(&["alloc-fork", &(128 << 20).to_string(), ";", "sleep"]);
    t.create(&b).ok();
    t.start(&b.id).ok();
    t.wait_asleep(&b.id);
    let events = file(&b, "memory.events");
    assert!(events.lines().any(|line| line == "oom_kill 1"), "{events}");
}

/// Shares become a weight on the curve of runc, crun and systemd; quota and period share a file.
fn v2_cpu_weight_and_max(t: &Test) {
    v2(t);
    let cpu = json!({"shares": 1024, "quota": 20_000, "period": 50_000});
    let b = created(t, &[("cpu", cpu)]);
    if t.flavour == corten_integration::Flavour::Corten {
        assert_eq!(file(&b, "cpu.weight"), "100");
    }
    assert_eq!(file(&b, "cpu.max"), "20000 50000");
    let b = created(t, &[("cpu", json!({"quota": 30_000}))]);
    assert_eq!(file(&b, "cpu.max"), "30000 100000");
    let b = created(t, &[("cpu", json!({"quota": -1, "period": 50_000}))]);
    assert_eq!(file(&b, "cpu.max"), "max 50000");
}

/// idle and burst have files of their own.
fn v2_cpu_idle_and_burst(t: &Test) {
    v2(t);
    t.skip_on_peers("older than both");
    let b = created(t, &[("cpu", json!({"idle": 1, "shares": 512}))]);
    assert_eq!(file(&b, "cpu.idle"), "1");
    let cpu = json!({"quota": 50_000, "period": 100_000, "burst": 20_000});
    let b = created(t, &[("cpu", cpu)]);
    assert_eq!(file(&b, "cpu.max.burst"), "20000");
}

/// The processors of the list, which a process can see.
fn v2_cpuset(t: &Test) {
    v2(t);
    need(t, "cpuset");
    let b = created(t, &[("cpu", json!({"cpus": "0", "mems": "0"}))]);
    assert_eq!(file(&b, "cpuset.cpus.effective"), "0");
    assert_eq!(file(&b, "cpuset.mems.effective"), "0");
    t.start(&b.id).ok();
    let seen = t.exec(&b.id, &[], &["report", "sched"]).ok().fact(0);
    assert_eq!(seen["sched"]["affinity"], json!([0]));
}

/// Throttling of a device in one line, weights between 1 and 10000.
fn v2_io_limits(t: &Test) {
    v2(t);
    need(t, "io");
    let (major, minor) = disk(t);
    let device = |rate: u64| json!([{"major": major, "minor": minor, "rate": rate}]);
    let limits = json!({
        "throttleReadBpsDevice": device(1_000_000), "throttleWriteBpsDevice": device(2_000_000),
        "throttleReadIOPSDevice": device(100), "throttleWriteIOPSDevice": device(200),
    });
    let b = created(t, &[("blockIO", limits)]);
    let wanted = format!("{major}:{minor} rbps=1000000 wbps=2000000 riops=100 wiops=200");
    assert_eq!(file(&b, "io.max"), wanted);
    // Docker's default is nothing.
    let b = created(t, &[("blockIO", json!({"weight": 0}))]);
    let weights: Vec<_> = ["io.weight", "io.bfq.weight"]
        .into_iter()
        .filter(|name| b.cgroup_dir("").join(name).exists())
        .collect();
    let mut b = t.bundle();
    b.set("linux.resources.blockIO", json!({"weight": 1000})).probe(&["sleep"]);
    match weights.first() {
        None => drop(t.create_fails(&b).says("io.weight")),
        Some(name) => {
            t.create(&b).ok();
            let wanted = if *name == "io.weight" { "default 10000" } else { "default 1000" };
            assert_eq!(file(&b, name).lines().next(), Some(wanted), "{name}");
        }
    }
}

/// Huge pages, or an error that names the controller.
fn v2_hugetlb_limit(t: &Test) {
    v2(t);
    t.skip_on_peers("other words, or a limit that is dropped");
    let mut b = t.bundle();
    b.set("linux.resources.hugepageLimits", json!([{"pageSize": "2MB", "limit": 4 << 20}]));
    b.probe(&["sleep"]);
    if t.create(&b).code == 0 {
        assert_eq!(file(&b, "hugetlb.2MB.max"), (4 << 20).to_string());
        assert_eq!(file(&b, "hugetlb.2MB.rsvd.max"), (4 << 20).to_string());
        t.force(&b.id).ok();
        b.set("linux.resources.hugepageLimits", json!([{"pageSize": "3MB", "limit": 1}]));
        t.create_fails(&b);
    } else {
        t.create_fails(&b).says("controller hugetlb is not available");
    }
}

/// Every file by its name.
fn v2_unified(t: &Test) {
    v2(t);
    let unified = json!({"memory.high": "50000000", "pids.max": "44", "cpu.weight": "77"});
    let b = created(t, &[("unified", unified)]);
    // In pages.
    assert_eq!(file(&b, "memory.high"), (50_000_000 / 4096 * 4096).to_string());
    assert_eq!(file(&b, "pids.max"), "44");
    assert_eq!(file(&b, "cpu.weight"), "77");
}

/// A file that isn't there, a value that the kernel refuses, a path.
fn v2_unified_is_checked(t: &Test) {
    v2(t);
    for (name, value) in
        [("memory.nosuch", "1"), ("nosuch.max", "1"), ("pids.max", "many"), ("../pids.max", "1")]
    {
        let mut b = t.bundle();
        b.set("linux.resources.unified", json!({ name: value }));
        t.create_fails(&b).says(if t.flavour == corten_integration::Flavour::Corten {
            "linux.resources.unified"
        } else {
            ""
        });
    }
}

/// What v2 doesn't have is refused with its JSON path, before anything is made.
fn v2_only_v1_is_refused(t: &Test) {
    v2(t);
    t.skip_on_peers("drop some of them");
    for (key, value) in [
        ("network.classID", json!(7)),
        ("network.priorities", json!([{"name": "lo", "priority": 1}])),
        ("cpu.realtimeRuntime", json!(1000)),
        ("blockIO.leafWeight", json!(100)),
    ] {
        let mut b = t.bundle();
        b.set(&format!("linux.resources.{key}"), value);
        t.create_fails(&b).says(&format!("linux.resources.{key}: needs cgroup v1"));
    }
}

/// By flags, by file; what isn't named stays, a second update starts from what the first left.
fn v2_update_changes_what_is_given(t: &Test) {
    v2(t);
    t.skip_on(corten_integration::Flavour::Crun, "takes no units");
    let mut b = t.bundle();
    b.set("linux.resources.cpu", json!({"shares": 300, "quota": 40_000, "period": 80_000}))
        .set("linux.resources.memory", json!({"limit": 70 << 20, "swap": 90 << 20}));
    t.sleeper(&mut b);
    let weight = file(&b, "cpu.weight");
    let update = |flags: &[&str]| {
        let mut words = vec!["update"];
        words.extend(flags);
        words.push(&b.id);
        t.call(&words).ok();
    };
    update(&["--cpu-quota", "20000", "--pids-limit", "33", "--memory-reservation", "32m"]);
    assert_eq!(file(&b, "cpu.max"), "20000 80000");
    assert_eq!(file(&b, "pids.max"), "33");
    assert_eq!(file(&b, "memory.low"), (32 << 20).to_string());
    assert_eq!(file(&b, "memory.max"), (70 << 20).to_string());
    assert_eq!(file(&b, "memory.swap.max"), (20 << 20).to_string());
    assert_eq!(file(&b, "cpu.weight"), weight);
    update(&["--cpu-share", "1024", "--memory", "80m"]);
    assert_eq!(file(&b, "cpu.max"), "20000 80000");
    assert_ne!(file(&b, "cpu.weight"), weight);
    // The saved limit is of both together.
    assert_eq!(file(&b, "memory.max"), (80 << 20).to_string());
    assert_eq!(file(&b, "memory.swap.max"), (10 << 20).to_string());
    let resources = t.dir.join("resources.json");
    fs::write(&resources, json!({"unified": {"memory.high": "41943040"}}).to_string()).unwrap();
    update(&["--resources", resources.to_str().unwrap()]);
    assert_eq!(file(&b, "memory.high"), "41943040");
    assert_eq!(file(&b, "cpu.max"), "20000 80000");
}

/// A value that the kernel refuses is an error and the old values hold.
fn v2_update_that_fails_changes_nothing(t: &Test) {
    v2(t);
    t.skip_on_peers("don't roll back, or fail to");
    let mut b = t.bundle();
    b.set("linux.resources.cpu", json!({"shares": 300, "quota": 40_000, "period": 80_000}))
        .set("linux.resources.pids", json!({"limit": 40}));
    t.sleeper(&mut b);
    let names = ["cpu.weight", "cpu.max", "pids.max", "memory.max", "memory.swap.max"];
    let before: Vec<String> = names.iter().map(|name| file(&b, name)).collect();
    for bad in [["--cpu-period", "1"], ["--cpuset-cpus", "4000"]] {
        let mut words = vec!["update", "--cpu-share", "555", "--pids-limit", "60"];
        words.extend(["--memory", "99m"]);
        words.extend(bad);
        words.push(&b.id);
        t.call(&words).fails();
        let after: Vec<String> = names.iter().map(|name| file(&b, name)).collect();
        assert_eq!(before, after);
    }
}
