//! `linux.cgroupsPath` and `linux.resources`, read from the host's side; and `update`. What can be
//! said of both versions, and v1's files; `v2` has the others.

mod v2;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use corten_integration::driver::wait_until;
use corten_integration::suite::Case;
use corten_integration::{Bundle, Flavour, Test, cgroups, suite, tests};
use serde_json::{Value, json};

fn main() -> ExitCode {
    let all: &[Case] = tests![
        path_absolute_is_used_in_every_hierarchy,
        path_nested_parents_are_made,
        path_relative_is_below_the_runtimes,
        path_absent_is_made_up,
        path_with_dots_stays_below,
        the_program_is_in_its_cgroup,
        memory_limit_and_reservation,
        memory_swap,
        memory_swap_below_the_limit_is_refused,
        memory_unlimited,
        memory_swappiness,
        memory_oom_killer,
        memory_limit_is_enforced,
        memory_too_small_for_the_init_says_so,
        cpu_shares_quota_period,
        cpu_idle,
        cpu_burst,
        cpu_unlimited_quota,
        cpu_bad_quota_is_refused,
        cpuset_cpus_and_mems,
        cpuset_not_given_is_the_parents,
        cpuset_of_absent_cpus_is_refused,
        pids_limit,
        pids_limit_is_enforced,
        pids_unlimited,
        blkio_throttle,
        blkio_weight,
        hugetlb_limit,
        devices_denied_by_default,
        devices_default_list_is_allowed,
        devices_rules_in_order,
        devices_of_any_number,
        devices_access_letters,
        devices_bad_rules_are_refused,
        devices_absent_rules_allow_the_defaults,
        resources_absent,
        unified_on_v1_is_refused,
        negative_and_huge_numbers,
        a_cgroup_with_processes_is_refused,
        a_frozen_cgroup_is_refused,
        an_empty_existing_cgroup_is_fine,
        two_containers_cannot_share_one,
        kill_reaches_sub_cgroups,
        delete_removes_sub_cgroups,
        pause_freezes_sub_cgroups,
        update_by_flags,
        update_by_file_and_stdin,
        update_in_every_status,
        update_changes_only_what_is_given,
        update_that_fails_changes_nothing,
        update_of_an_unknown_container_fails,
        update_is_remembered,
    ];
    suite(&[all, v2::CASES].concat())
}

/// The value of a file as a number.
fn number(b: &Bundle, controller: &str, file: &str) -> i64 {
    b.cgroup_file(controller, file).parse().unwrap()
}

fn need(t: &Test, controller: &str, file: &str) {
    match cgroups::directory(controller, "/") {
        None => t.skip(&format!("no {controller} hierarchy here")),
        Some(dir) => {
            // The root cgroup lacks some files, so ask one of our own.
            let probe = dir.join(format!("{}-feature", t.tag));
            fs::create_dir(&probe).unwrap();
            let there = probe.join(file).exists();
            fs::remove_dir(&probe).unwrap();
            if !there {
                t.skip(&format!("no {file} here"));
            }
        }
    }
}

fn v1(t: &Test) {
    if cgroups::is_v2() {
        t.skip("reads cgroup v1 files");
    }
}

/// The line of a reported /proc/self/cgroup whose group has the limits.
fn limited(seen: &Value) -> &str {
    let mark = if cgroups::is_v2() { "0::" } else { ":pids:" };
    let mut lines = seen["cgroup"].as_array().unwrap().iter().map(|line| line.as_str().unwrap());
    lines.find(|line| line.contains(mark)).unwrap()
}

/// A created container with these resources.
fn created(t: &Test, resources: &[(&str, Value)]) -> Bundle {
    let mut b = t.bundle();
    for (key, value) in resources {
        b.set(&format!("linux.resources.{key}"), value.clone());
    }
    b.probe(&["sleep"]);
    t.create(&b).ok();
    b
}

/// An absolute path is taken from the mount point of every hierarchy.
fn path_absolute_is_used_in_every_hierarchy(t: &Test) {
    let b = created(t, &[]);
    for hierarchy in cgroups::hierarchies() {
        let dir = hierarchy.mount.join(b.cgroup().trim_start_matches('/'));
        assert!(dir.is_dir(), "{}", dir.display());
    }
    t.force(&b.id).ok();
    t.nothing_left(&b);
}

/// Parents that don't exist are made.
fn path_nested_parents_are_made(t: &Test) {
    let mut b = t.bundle();
    let path = format!("{}/a/b/c", b.cgroup());
    b.set("linux.cgroupsPath", json!(path)).probe(&["sleep"]);
    t.create(&b).ok();
    assert!(b.cgroup_dir("pids").is_dir());
    t.force(&b.id).ok();
    assert!(!b.cgroup_dir("pids").exists());
    cgroups::remove(&cgroups::tagged(&t.tag));
}

/// A relative path is somewhere the runtime chooses, the same each time, and used.
fn path_relative_is_below_the_runtimes(t: &Test) {
    let mut b = t.bundle();
    let name = format!("{}-relative", t.tag);
    b.set("linux.cgroupsPath", json!(name)).probe(&["report", "cgroup"]);
    let seen = t.report(&b);
    assert!(limited(&seen).ends_with(&name), "{seen}");
}

/// Without a path the container has a cgroup of its own all the same.
fn path_absent_is_made_up(t: &Test) {
    let mut b = t.bundle();
    b.unset("linux.cgroupsPath").probe(&["report", "cgroup"]);
    let seen = t.report(&b);
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    let line = limited(&seen);
    assert!(line.contains(&b.id) && !own.contains(line), "{line}");
}

/// ".." doesn't lead out of the hierarchy.
fn path_with_dots_stays_below(t: &Test) {
    let mut b = t.bundle();
    b.set("linux.cgroupsPath", json!(format!("/../..{}", b.cgroup()))).probe(&["report", "cgroup"]);
    let out = t.run(&b);
    if out.code == 0 {
        let line = out.fact(0)["cgroup"].to_string();
        assert!(!line.contains(".."), "{line}");
    } else {
        out.fails();
    }
    t.nothing_left(&b);
}

/// /proc/self/cgroup names the container's path in each hierarchy.
fn the_program_is_in_its_cgroup(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["report", "cgroup"]);
    for line in t.report(&b)["cgroup"].as_array().unwrap() {
        assert!(line.as_str().unwrap().ends_with(b.cgroup()), "{line}");
    }
}

/// memory.limit and memory.reservation.
fn memory_limit_and_reservation(t: &Test) {
    v1(t);
    let b = created(t, &[("memory", json!({"limit": 64 << 20, "reservation": 32 << 20}))]);
    assert_eq!(number(&b, "memory", "memory.limit_in_bytes"), 64 << 20);
    assert_eq!(number(&b, "memory", "memory.soft_limit_in_bytes"), 32 << 20);
}

/// memory.swap is memory and swap together.
fn memory_swap(t: &Test) {
    v1(t);
    need(t, "memory", "memory.memsw.limit_in_bytes");
    let b = created(t, &[("memory", json!({"limit": 64 << 20, "swap": 96 << 20}))]);
    assert_eq!(number(&b, "memory", "memory.memsw.limit_in_bytes"), 96 << 20);
    assert_eq!(number(&b, "memory", "memory.limit_in_bytes"), 64 << 20);
}

/// Less swap-and-memory than memory is impossible.
fn memory_swap_below_the_limit_is_refused(t: &Test) {
    need(t, "memory", "memory.memsw.limit_in_bytes");
    let mut b = t.bundle();
    b.set("linux.resources.memory", json!({"limit": 64 << 20, "swap": 32 << 20}));
    t.create_fails(&b);
}

/// -1 is unlimited.
fn memory_unlimited(t: &Test) {
    v1(t);
    let b = created(t, &[("memory", json!({"limit": -1}))]);
    assert!(number(&b, "memory", "memory.limit_in_bytes") > 1 << 60);
}

/// memory.swappiness is written where the kernel has it, or the create fails.
fn memory_swappiness(t: &Test) {
    v1(t);
    need(t, "memory", "memory.swappiness");
    let b = created(t, &[("memory", json!({"swappiness": 10}))]);
    assert_eq!(number(&b, "memory", "memory.swappiness"), 10);
    let mut b = t.bundle();
    b.set("linux.resources.memory", json!({"swappiness": 1000}));
    t.create_fails(&b).says("swappiness");
}

/// disableOOMKiller is the v1 control file.
fn memory_oom_killer(t: &Test) {
    v1(t);
    need(t, "memory", "memory.oom_control");
    let b = created(t, &[("memory", json!({"limit": 64 << 20, "disableOOMKiller": true}))]);
    assert!(b.cgroup_file("memory", "memory.oom_control").contains("oom_kill_disable 1"));
}

/// A child that takes more than the limit is killed, the container lives on.
fn memory_limit_is_enforced(t: &Test) {
    let mut b = t.bundle();
    b.set("linux.resources.memory", json!({"limit": 32 << 20, "swap": 32 << 20}));
    b.probe(&["alloc-fork", &(128 << 20).to_string(), ";", "print", "alive"]);
    let out = t.run(&b).ok();
    assert_eq!(out.fact(0)["died_of"], 9);
    assert_eq!(out.fact(1), "alive");
}

/// A limit below what the init needs is an error of create or start, not a hang.
fn memory_too_small_for_the_init_says_so(t: &Test) {
    v1(t);
    let mut b = t.bundle();
    b.set("linux.resources.memory", json!({"limit": 4096 * 10}));
    t.run_fails(&b);
}

/// shares, quota and period.
fn cpu_shares_quota_period(t: &Test) {
    v1(t);
    let b = created(t, &[("cpu", json!({"shares": 512, "quota": 20_000, "period": 50_000}))]);
    assert_eq!(number(&b, "cpu", "cpu.shares"), 512);
    assert_eq!(number(&b, "cpu", "cpu.cfs_quota_us"), 20_000);
    assert_eq!(number(&b, "cpu", "cpu.cfs_period_us"), 50_000);
    let b = created(t, &[("cpu", json!({"quota": 30_000}))]);
    assert_eq!(number(&b, "cpu", "cpu.cfs_quota_us"), 30_000);
    assert_eq!(number(&b, "cpu", "cpu.cfs_period_us"), 100_000);
}

/// idle makes the group run only when nobody else wants to.
fn cpu_idle(t: &Test) {
    v1(t);
    t.skip_on_peers("older than cpu.idle");
    need(t, "cpu", "cpu.idle");
    let b = created(t, &[("cpu", json!({"idle": 1}))]);
    assert_eq!(number(&b, "cpu", "cpu.idle"), 1);
}

/// burst is what may be saved up.
fn cpu_burst(t: &Test) {
    v1(t);
    t.skip_on_peers("older than cpu.burst");
    need(t, "cpu", "cpu.cfs_burst_us");
    let b = created(t, &[("cpu", json!({"quota": 50_000, "period": 100_000, "burst": 20_000}))]);
    assert_eq!(number(&b, "cpu", "cpu.cfs_burst_us"), 20_000);
}

/// A negative quota is no limit.
fn cpu_unlimited_quota(t: &Test) {
    v1(t);
    let b = created(t, &[("cpu", json!({"quota": -1, "period": 100_000}))]);
    assert_eq!(number(&b, "cpu", "cpu.cfs_quota_us"), -1);
}

/// What the kernel refuses fails the create with its errno.
fn cpu_bad_quota_is_refused(t: &Test) {
    for cpu in [json!({"quota": 1, "period": 100_000}), json!({"period": 1})] {
        let mut b = t.bundle();
        b.set("linux.resources.cpu", cpu);
        t.create_fails(&b).says("invalid argument");
    }
}

/// cpus and mems, as the kernel's list.
fn cpuset_cpus_and_mems(t: &Test) {
    v1(t);
    let b = created(t, &[("cpu", json!({"cpus": "0", "mems": "0"}))]);
    assert_eq!(b.cgroup_file("cpuset", "cpuset.cpus"), "0");
    assert_eq!(b.cgroup_file("cpuset", "cpuset.mems"), "0");
    t.start(&b.id).ok();
    let seen = t.exec(&b.id, &[], &["report", "sched"]).ok().fact(0);
    assert_eq!(seen["sched"]["affinity"], json!([0]));
}

/// v1 starts a group with empty sets, in which nothing can run: they are copied down.
fn cpuset_not_given_is_the_parents(t: &Test) {
    v1(t);
    let b = created(t, &[]);
    let root = fs::read_to_string(cgroups::directory("cpuset", "/").unwrap().join("cpuset.cpus"));
    assert_eq!(b.cgroup_file("cpuset", "cpuset.cpus"), root.unwrap().trim());
}

/// Processors that aren't there.
fn cpuset_of_absent_cpus_is_refused(t: &Test) {
    for cpus in ["4000", "nonsense"] {
        let mut b = t.bundle();
        b.set("linux.resources.cpu", json!({"cpus": cpus}));
        t.create_fails(&b);
    }
}

/// pids.limit.
fn pids_limit(t: &Test) {
    let b = created(t, &[("pids", json!({"limit": 20}))]);
    assert_eq!(number(&b, "pids", "pids.max"), 20);
}

/// A fork bomb ends at the limit.
fn pids_limit_is_enforced(t: &Test) {
    let mut b = t.bundle();
    b.set("linux.resources.pids", json!({"limit": 12})).probe(&["forks", "100"]);
    let fact = t.run(&b).ok().fact(0);
    assert_eq!(fact["errno"], "EAGAIN");
    let forked = fact["forked"].as_u64().unwrap();
    assert!((8..12).contains(&forked), "{fact}");
}

/// -1 is unlimited.
fn pids_unlimited(t: &Test) {
    let b = created(t, &[("pids", json!({"limit": -1}))]);
    assert_eq!(b.cgroup_file("pids", "pids.max"), "max");
}

/// A block device of this host.
fn disk(t: &Test) -> (u64, u64) {
    let table = fs::read_to_string("/proc/partitions").unwrap();
    let words = table.lines().skip(2).map(|l| l.split_whitespace().collect::<Vec<_>>());
    let found =
        words.filter(|w| w.len() == 4).find(|w| PathBuf::from("/sys/block").join(w[3]).exists());
    found.map_or_else(|| t.skip("no disk here"), |w| (w[0].parse().unwrap(), w[1].parse().unwrap()))
}

/// Throttling by bytes and operations, reading and writing.
fn blkio_throttle(t: &Test) {
    v1(t);
    need(t, "blkio", "blkio.throttle.read_bps_device");
    let (major, minor) = disk(t);
    let device = |rate: u64| json!([{"major": major, "minor": minor, "rate": rate}]);
    let b = created(
        t,
        &[(
            "blockIO",
            json!({
                "throttleReadBpsDevice": device(1_000_000), "throttleWriteBpsDevice": device(2_000_000),
                "throttleReadIOPSDevice": device(100), "throttleWriteIOPSDevice": device(200),
            }),
        )],
    );
    for (file, rate) in
        [("read_bps", 1_000_000), ("write_bps", 2_000_000), ("read_iops", 100), ("write_iops", 200)]
    {
        let text = b.cgroup_file("blkio", &format!("blkio.throttle.{file}_device"));
        assert_eq!(text, format!("{major}:{minor} {rate}"), "{file}");
    }
}

/// blkio weight 0 (Docker's default) is nothing; another one is written or is an error.
fn blkio_weight(t: &Test) {
    v1(t);
    let b = created(t, &[("blockIO", json!({"weight": 0}))]);
    t.force(&b.id).ok();
    need(t, "blkio", "blkio.weight");
    let b = created(t, &[("blockIO", json!({"weight": 300}))]);
    assert_eq!(number(&b, "blkio", "blkio.weight"), 300);
}

/// Huge pages of one size.
fn hugetlb_limit(t: &Test) {
    v1(t);
    need(t, "hugetlb", "hugetlb.2MB.limit_in_bytes");
    let b = created(t, &[("hugepageLimits", json!([{"pageSize": "2MB", "limit": 4 << 20}]))]);
    assert_eq!(number(&b, "hugetlb", "hugetlb.2MB.limit_in_bytes"), 4 << 20);
    if t.flavour == Flavour::Corten {
        assert_eq!(number(&b, "hugetlb", "hugetlb.2MB.rsvd.limit_in_bytes"), 4 << 20);
    }
    let mut b = t.bundle();
    b.set("linux.resources.hugepageLimits", json!([{"pageSize": "3MB", "limit": 1}]));
    t.create_fails(&b);
}

/// A container that can make device nodes.
fn with_mknod(t: &Test) -> Bundle {
    let mut b = t.bundle();
    b.add_capabilities(&["CAP_MKNOD"]);
    b
}

/// Devices that no rule allows can be made but not opened.
fn devices_denied_by_default(t: &Test) {
    let mut b = with_mknod(t);
    b.probe(&[
        "mknod",
        "/dev/kmsg2",
        "c:1:99",
        ";",
        "open",
        "/dev/kmsg2",
        ";",
        "mknod",
        "/dev/d",
        "b:7:0",
        ";",
        "open",
        "/dev/d",
    ]);
    let out = t.run(&b).ok();
    assert_eq!(out.fact(0)["ok"], true);
    assert_eq!(out.fact(1)["errno"], "EPERM");
    assert_eq!(out.fact(2)["ok"], true);
    assert_eq!(out.fact(3)["errno"], "EPERM");
}

/// The devices every container has can be used although everything is denied.
fn devices_default_list_is_allowed(t: &Test) {
    let mut b = t.bundle();
    b.probe(&[
        "open-rw",
        "/dev/null",
        ";",
        "open-rw",
        "/dev/zero",
        ";",
        "open-rw",
        "/dev/full",
        ";",
        "open",
        "/dev/random",
        ";",
        "open",
        "/dev/urandom",
        ";",
        "open-rw",
        "/dev/ptmx",
    ]);
    for fact in t.run(&b).ok().facts() {
        assert_eq!(fact["ok"], true, "{fact}");
    }
}

// No driver has the device 1:99: if the cgroup lets an open pass, it ends with ENXIO, else EPERM.

/// A later rule overrides an earlier one.
fn devices_rules_in_order(t: &Test) {
    let kmsg = |allow: bool| json!({"allow": allow, "type": "c", "major": 1, "minor": 99, "access": "rwm"});
    let steps = ["mknod", "/dev/k", "c:1:99", ";", "open", "/dev/k"];
    for (rules, ok) in
        [(vec![true], true), (vec![true, false], false), (vec![true, false, true], true)]
    {
        let mut b = with_mknod(t);
        for allow in rules {
            b.push("linux.resources.devices", kmsg(allow));
        }
        b.probe(&steps);
        let out = t.run(&b).ok();
        assert_eq!(out.fact(1)["errno"], if ok { "ENXIO" } else { "EPERM" }, "{out}");
    }
}

/// The v1 files take any number, so they all are there: the first, and no other. The verifier of a
/// v2 program takes thousands, but its time.
fn devices_of_any_number(t: &Test) {
    let mut b = with_mknod(t);
    let rule = |n: usize| json!({"allow": true, "type": "c", "major": 1, "minor": 99 + n, "access": "rwm"});
    let mut rules = vec![json!({"allow": false, "access": "rwm"})];
    rules.extend((0..if cgroups::is_v2() { 1000 } else { 5000 }).map(rule));
    b.set("linux.resources.devices", json!(rules));
    b.probe(&[
        "mknod", "/dev/k", "c:1:99", ";", "open", "/dev/k", ";", "mknod", "/dev/l", "c:1:98", ";",
        "open", "/dev/l",
    ]);
    let out = t.run(&b).ok();
    assert_eq!(out.fact(1)["errno"], "ENXIO", "{out}");
    assert_eq!(out.fact(3)["errno"], "EPERM", "{out}");
}

/// r, w and m are separate rights.
fn devices_access_letters(t: &Test) {
    let mut b = with_mknod(t);
    b.push(
        "linux.resources.devices",
        json!({"allow": true, "type": "c", "major": 1, "minor": 99, "access": "r"}),
    );
    b.probe(&["mknod", "/dev/k", "c:1:99", ";", "open", "/dev/k", ";", "open-rw", "/dev/k"]);
    let out = t.run(&b).ok();
    assert_eq!(out.fact(1)["errno"], "ENXIO", "{out}");
    assert_eq!(out.fact(2)["errno"], "EPERM", "{out}");
    t.skip_on(Flavour::Crun, "wildcards need a major number");
    let mut b = with_mknod(t);
    b.push(
        "linux.resources.devices",
        json!({"allow": true, "type": "c", "major": 1, "access": "rwm"}),
    );
    b.probe(&["mknod", "/dev/k", "c:1:99", ";", "open", "/dev/k"]);
    assert_eq!(t.run(&b).ok().fact(1)["errno"], "ENXIO");
}

/// Unknown types and letters are mistakes of the config.
fn devices_bad_rules_are_refused(t: &Test) {
    let mut b = t.bundle();
    b.push("linux.resources.devices", json!({"allow": true, "type": "x", "access": "rwm"}));
    t.create_fails(&b);
    t.skip_on(Flavour::Runc, "takes any letters");
    let mut b = t.bundle();
    b.push("linux.resources.devices", json!({"allow": true, "type": "c", "access": "rwz"}));
    t.create_fails(&b);
}

/// Without any rule the container is not open to all devices.
fn devices_absent_rules_allow_the_defaults(t: &Test) {
    let mut b = with_mknod(t);
    b.unset("linux.resources.devices").probe(&[
        "open-rw",
        "/dev/null",
        ";",
        "mknod",
        "/dev/k",
        "c:1:99",
        ";",
        "open",
        "/dev/k",
    ]);
    let out = t.run(&b).ok();
    assert_eq!(out.fact(0)["ok"], true, "{out}");
}

/// A config without linux.resources works, with a cgroup.
fn resources_absent(t: &Test) {
    let mut b = t.bundle();
    b.unset("linux.resources").probe(&["report", "cgroup"]);
    assert!(t.report(&b)["cgroup"].to_string().contains(b.cgroup()));
}

/// unified is for v2.
fn unified_on_v1_is_refused(t: &Test) {
    v1(t);
    t.skip_on(Flavour::Crun, "writes to the hybrid v2 hierarchy");
    let mut b = t.bundle();
    b.set("linux.resources.unified", json!({"memory.max": "1000000"}));
    t.create_fails(&b).says("unified");
}

/// Numbers out of range are refused, never wrapped.
fn negative_and_huge_numbers(t: &Test) {
    t.skip_on(Flavour::Crun, "wraps some");
    for (key, value) in [
        ("cpu", json!({"shares": -1})),
        ("cpu", json!({"period": -5})),
        ("pids", json!({"limit": 1e30})),
        ("memory", json!({"limit": "64m"})),
        ("memory", json!({"limit": 1.5})),
        ("blockIO", json!({"weight": 70_000})),
    ] {
        let mut b = t.bundle();
        b.set(&format!("linux.resources.{key}"), value);
        t.create_fails(&b);
    }
}

/// A process of the harness in the container's cgroup of one hierarchy.
fn occupied(t: &Test, b: &Bundle, controller: &str) -> corten_integration::driver::Running {
    occupied_at(t, &b.cgroup_dir(controller))
}

fn occupied_at(t: &Test, dir: &Path) -> corten_integration::driver::Running {
    fs::create_dir_all(dir).unwrap();
    let mut command = Command::new("/bin/sh");
    command
        .arg("-c")
        .arg(format!("echo $$ >{}/cgroup.procs; echo in; exec sleep 1000", dir.display()));
    let mut running = t.launch(command);
    running.wait_for("in");
    running
}

fn empty(b: &Bundle, controller: &str) {
    wait_until("the cgroup is empty", || b.cgroup_file(controller, "cgroup.procs").is_empty());
    fs::remove_dir(b.cgroup_dir(controller)).unwrap();
}

/// A group with processes in it is somebody's: refused, and left alone.
fn a_cgroup_with_processes_is_refused(t: &Test) {
    t.skip_on(Flavour::Crun, "doesn't look");
    t.skip_on(Flavour::Runc, "1.1 only warns");
    v1(t);
    let b = t.bundle();
    let mut stranger = occupied(t, &b, "pids");
    t.create(&b).fails().says("cgroup is not empty");
    stranger.wait_for("in");
    assert_eq!(b.cgroup_file("pids", "cgroup.procs"), stranger.pid().to_string());
    drop(stranger);
    empty(&b, "pids");
    assert!(!t.root().join(&b.id).exists());
}

/// A frozen group would freeze the init: refused, and left frozen.
fn a_frozen_cgroup_is_refused(t: &Test) {
    t.skip_on(Flavour::Crun, "hangs");
    v1(t);
    let b = t.bundle();
    let dir = b.cgroup_dir("freezer");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("freezer.state"), "FROZEN").unwrap();
    t.create(&b).fails().says("frozen");
    assert_eq!(b.cgroup_file("freezer", "freezer.state"), "FROZEN");
    fs::write(dir.join("freezer.state"), "THAWED").unwrap();
    fs::remove_dir(&dir).unwrap();
    t.nothing_left(&b);
}

/// An empty group that exists is used.
fn an_empty_existing_cgroup_is_fine(t: &Test) {
    let b = t.bundle();
    fs::create_dir_all(b.cgroup_dir("pids")).unwrap();
    t.run(&b).ok();
    cgroups::remove(&cgroups::tagged(&t.tag));
}

/// The second container with the same cgroup is refused; the first is unharmed.
fn two_containers_cannot_share_one(t: &Test) {
    t.skip_on_peers("only warn, or don't look");
    let mut b = t.bundle();
    t.sleeper(&mut b);
    let mut other = t.bundle();
    other.set("linux.cgroupsPath", json!(b.cgroup()));
    t.create(&other).fails().says("cgroup is not empty");
    assert_eq!(t.status(&b.id), "running");
    assert_eq!(number(&b, "pids", "pids.current"), 1);
}

/// A process in a group below the container's ends with `delete --force`, pid namespace or not.
fn kill_reaches_sub_cgroups(t: &Test) {
    let mut b = t.bundle();
    b.no_namespace("pid").probe(&["orphan", ";", "sleep"]);
    t.create(&b).ok();
    t.start(&b.id).ok();
    wait_until("the orphan lives", || b.cgroup_file("pids", "cgroup.procs").lines().count() == 2);
    let pid = t.pid(&b.id).to_string();
    let procs = b.cgroup_file("pids", "cgroup.procs");
    let orphan = procs.lines().find(|p| *p != pid).unwrap();
    for controller in ["pids", "memory", "freezer", "devices"] {
        let sub = b.cgroup_dir(controller).join("sub/sub");
        fs::create_dir_all(&sub).unwrap();
        fs::write(sub.join("cgroup.procs"), orphan).unwrap();
    }
    t.force(&b.id).ok();
    t.nothing_left(&b);
}

/// Groups that somebody made below the container's go with it.
fn delete_removes_sub_cgroups(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["exit", "0"]);
    t.create(&b).ok();
    for controller in ["pids", "memory", "cpu"] {
        fs::create_dir_all(b.cgroup_dir(controller).join("a/b/c")).unwrap();
    }
    t.start(&b.id).ok();
    t.wait_status(&b.id, "stopped");
    t.delete(&b.id).ok();
    t.nothing_left(&b);
}

/// pause freezes what is below as well.
fn pause_freezes_sub_cgroups(t: &Test) {
    v1(t);
    let mut b = t.bundle();
    t.sleeper(&mut b);
    let sub = b.cgroup_dir("freezer").join("sub");
    fs::create_dir(&sub).unwrap();
    t.call(&["pause", &b.id]).ok();
    assert_eq!(fs::read_to_string(sub.join("freezer.state")).unwrap().trim(), "FROZEN");
    t.call(&["resume", &b.id]).ok();
    assert_eq!(fs::read_to_string(sub.join("freezer.state")).unwrap().trim(), "THAWED");
}

/// The flags that managers and people use.
fn update_by_flags(t: &Test) {
    v1(t);
    let mut b = t.bundle();
    t.sleeper(&mut b);
    t.skip_on(Flavour::Crun, "takes no units");
    t.call(&[
        "update",
        "--memory",
        "64m",
        "--memory-reservation",
        "32m",
        "--cpu-share",
        "256",
        "--cpu-quota",
        "30000",
        "--cpu-period",
        "60000",
        "--pids-limit",
        "33",
        "--cpuset-cpus",
        "0",
        &b.id,
    ])
    .ok();
    assert_eq!(number(&b, "memory", "memory.limit_in_bytes"), 64 << 20);
    assert_eq!(number(&b, "memory", "memory.soft_limit_in_bytes"), 32 << 20);
    assert_eq!(number(&b, "cpu", "cpu.shares"), 256);
    assert_eq!(number(&b, "cpu", "cpu.cfs_quota_us"), 30_000);
    assert_eq!(number(&b, "cpu", "cpu.cfs_period_us"), 60_000);
    assert_eq!(number(&b, "pids", "pids.max"), 33);
    assert_eq!(b.cgroup_file("cpuset", "cpuset.cpus"), "0");
}

/// `--resources FILE` and `--resources -`, a bare LinuxResources.
fn update_by_file_and_stdin(t: &Test) {
    v1(t);
    let mut b = t.bundle();
    t.sleeper(&mut b);
    let file = t.dir.join("resources.json");
    fs::write(&file, json!({"pids": {"limit": 44}, "memory": {"limit": 80 << 20}}).to_string())
        .unwrap();
    t.call(&["update", "--resources", file.to_str().unwrap(), &b.id]).ok();
    assert_eq!(number(&b, "pids", "pids.max"), 44);
    assert_eq!(number(&b, "memory", "memory.limit_in_bytes"), 80 << 20);
    let line = format!(
        "echo '{{\"pids\":{{\"limit\":45}}}}' | $RUNTIME --root $ROOT update --resources=- {}",
        b.id
    );
    t.shell(&line).ok();
    assert_eq!(number(&b, "pids", "pids.max"), 45);
    fs::write(&file, "{").unwrap();
    t.call(&["update", "--resources", file.to_str().unwrap(), &b.id]).fails();
}

/// update works on created, running and paused containers.
fn update_in_every_status(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["sleep"]);
    t.create(&b).ok();
    let change = |limit: &str| {
        t.call(&["update", "--pids-limit", limit, &b.id]).ok();
        assert_eq!(b.cgroup_file("pids", "pids.max"), limit);
    };
    change("50");
    t.start(&b.id).ok();
    change("51");
    t.call(&["pause", &b.id]).ok();
    change("52");
    assert_eq!(t.status(&b.id), "paused");
    t.call(&["resume", &b.id]).ok();
}

/// What isn't named stays.
fn update_changes_only_what_is_given(t: &Test) {
    v1(t);
    let mut b = t.bundle();
    b.set("linux.resources.cpu", json!({"shares": 300, "quota": 40_000, "period": 80_000}))
        .set("linux.resources.memory", json!({"limit": 70 << 20}));
    t.sleeper(&mut b);
    t.call(&["update", "--cpu-share", "400", &b.id]).ok();
    assert_eq!(number(&b, "cpu", "cpu.shares"), 400);
    assert_eq!(number(&b, "cpu", "cpu.cfs_quota_us"), 40_000);
    assert_eq!(number(&b, "memory", "memory.limit_in_bytes"), 70 << 20);
    t.call(&["update", "--cpu-quota", "20000", &b.id]).ok();
    assert_eq!(number(&b, "cpu", "cpu.cfs_quota_us"), 20_000);
    assert_eq!(number(&b, "cpu", "cpu.cfs_period_us"), 80_000);
}

/// A value that the kernel refuses is an error and the old values hold.
fn update_that_fails_changes_nothing(t: &Test) {
    v1(t);
    t.skip_on_peers("don't roll back, or fail to");
    let mut b = t.bundle();
    b.set("linux.resources.cpu", json!({"shares": 300, "quota": 40_000, "period": 80_000}))
        .set("linux.resources.pids", json!({"limit": 40}));
    t.sleeper(&mut b);
    t.call(&["update", "--cpu-share", "555", "--pids-limit", "60", "--cpu-period", "1", &b.id])
        .fails();
    assert_eq!(number(&b, "cpu", "cpu.shares"), 300);
    assert_eq!(number(&b, "pids", "pids.max"), 40);
}

/// There is nothing to update.
fn update_of_an_unknown_container_fails(t: &Test) {
    t.call(&["update", "--pids-limit", "5", &format!("{}-absent", t.tag)])
        .fails()
        .says("does not exist");
}

/// A second update starts from what the first left.
fn update_is_remembered(t: &Test) {
    v1(t);
    let mut b = t.bundle();
    t.sleeper(&mut b);
    t.call(&["update", "--cpu-quota", "30000", "--cpu-period", "60000", &b.id]).ok();
    t.call(&["update", "--cpu-quota", "40000", &b.id]).ok();
    assert_eq!(number(&b, "cpu", "cpu.cfs_period_us"), 60_000);
    t.call(&["update", "--cpu-share", "77", &b.id]).ok();
    assert_eq!(number(&b, "cpu", "cpu.cfs_quota_us"), 40_000);
}
