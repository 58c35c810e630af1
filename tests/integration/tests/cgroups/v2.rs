//! What the limits are on cgroup v2, where one group has all controllers.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use corten_integration::driver::wait_until;
use corten_integration::suite::Case;
use corten_integration::{Bundle, Test, cgroups, tests};
use serde_json::{Value, json};

use super::{created, disk};

/// The tests.
pub const CASES: &[Case] = tests![
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
    v2_devices_survive_update_and_hold_for_exec,
    v2_devices_of_an_existing_group_are_replaced,
    v2_a_group_with_processes_is_refused,
    v2_a_frozen_group_is_refused,
    v2_pause_freezes_sub_groups,
    v2_update_changes_what_is_given,
    v2_update_that_fails_changes_nothing,
    v2_the_namespace_hides_what_is_above,
    v2_the_mount_is_the_containers_group,
    v2_the_group_belongs_to_the_containers_root,
    v2_exec_follows_into_sub_groups,
    v2_exec_into_a_sub_group,
    v2_kill_ends_a_fork_bomb,
];

fn v2(t: &Test) {
    if !cgroups::is_v2() {
        t.skip("cgroup v2 only");
    }
}

fn file(b: &Bundle, name: &str) -> String {
    b.cgroup_file("", name)
}

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

// No driver has the device 1:99: if the cgroup lets an open pass, it ends with ENXIO, else EPERM.
const OPEN: [&str; 6] = ["mknod", "/dev/k", "c:1:99", ";", "open", "/dev/k"];

/// The program is on the group, so it holds for whatever comes into it, and an update of limits
/// leaves it alone.
fn v2_devices_survive_update_and_hold_for_exec(t: &Test) {
    v2(t);
    let mut b = t.bundle();
    b.add_capabilities(&["CAP_MKNOD"]);
    t.sleeper(&mut b);
    let errno = |n: &str| {
        let node = format!("/dev/k{n}");
        let steps = ["mknod", &node, "c:1:99", ";", "open", &node];
        t.exec(&b.id, &["--cap", "CAP_MKNOD"], &steps).ok().fact(1)["errno"].clone()
    };
    assert_eq!(errno("1"), "EPERM");
    t.call(&["update", "--pids-limit", "50", &b.id]).ok();
    assert_eq!(errno("2"), "EPERM");
}

/// An empty group that was there may have a program of whoever made it; ours decides.
fn v2_devices_of_an_existing_group_are_replaced(t: &Test) {
    v2(t);
    let mut first = t.bundle();
    first.add_capabilities(&["CAP_MKNOD"]).probe(&OPEN);
    fs::create_dir_all(first.cgroup_dir("")).unwrap();
    assert_eq!(t.run(&first).ok().fact(1)["errno"], "EPERM");
    let rule = json!({"allow": true, "type": "c", "major": 1, "minor": 99, "access": "rwm"});
    let mut second = t.bundle();
    second.add_capabilities(&["CAP_MKNOD"]).set("linux.cgroupsPath", json!(first.cgroup()));
    second.push("linux.resources.devices", rule).probe(&OPEN);
    if first.cgroup_dir("").exists() {
        assert_eq!(t.run(&second).ok().fact(1)["errno"], "ENXIO");
        let mut third = t.bundle();
        third.add_capabilities(&["CAP_MKNOD"]).set("linux.cgroupsPath", json!(first.cgroup()));
        third.set("linux.resources.devices", json!([{"allow": true, "access": "rwm"}]));
        third.probe(&OPEN);
        assert_eq!(t.run(&third).ok().fact(1)["errno"], "ENXIO");
    }
    cgroups::remove(&cgroups::tagged(&t.tag));
}

/// A group with processes in it, or below it, is somebody's: refused, and left alone.
fn v2_a_group_with_processes_is_refused(t: &Test) {
    v2(t);
    t.skip_on_peers("only warn, or don't look");
    for below in ["", "/below"] {
        let b = t.bundle();
        let path = format!("{}{below}", b.cgroup());
        let mut stranger = super::occupied_at(t, &cgroups::directory("", &path).unwrap());
        t.create(&b).fails().says("cgroup is not empty");
        stranger.wait_for("in");
        let dir = cgroups::directory("", &path).unwrap();
        let procs = fs::read_to_string(dir.join("cgroup.procs")).unwrap();
        assert_eq!(procs.trim(), stranger.pid().to_string());
        drop(stranger);
        wait_until("the group is empty", || fs::remove_dir(&dir).is_ok());
        assert!(!t.root().join(&b.id).exists());
        cgroups::remove(&cgroups::tagged(&b.id));
    }
}

/// A frozen group would freeze the init: refused, and left frozen. So does one above it.
fn v2_a_frozen_group_is_refused(t: &Test) {
    v2(t);
    t.skip_on_peers("hang");
    for below in ["", "/below"] {
        let mut b = t.bundle();
        let dir = b.cgroup_dir("");
        let path = format!("{}{below}", b.cgroup());
        b.set("linux.cgroupsPath", json!(path));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("cgroup.freeze"), "1").unwrap();
        t.create(&b).fails().says("frozen");
        assert_eq!(fs::read_to_string(dir.join("cgroup.freeze")).unwrap(), "1\n");
        fs::write(dir.join("cgroup.freeze"), "0").unwrap();
        fs::remove_dir(&dir).unwrap();
        t.nothing_left(&b);
    }
}

/// pause freezes what is below as well.
fn v2_pause_freezes_sub_groups(t: &Test) {
    v2(t);
    let mut b = t.bundle();
    t.sleeper(&mut b);
    let sub = b.cgroup_dir("").join("sub");
    fs::create_dir(&sub).unwrap();
    let frozen = || fs::read_to_string(sub.join("cgroup.events")).unwrap().contains("frozen 1");
    t.call(&["pause", &b.id]).ok();
    wait_until("the sub-group is frozen", frozen);
    t.call(&["resume", &b.id]).ok();
    wait_until("the sub-group is thawed", || !frozen());
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

fn in_namespace(t: &Test, options: &[&str]) -> Bundle {
    let mut b = t.bundle();
    b.namespace("cgroup", None).mount("/sys/fs/cgroup", "cgroup", "cgroup", options);
    b
}

const RO: [&str; 4] = ["nosuid", "noexec", "nodev", "ro"];
const RW: [&str; 4] = ["nosuid", "noexec", "nodev", "rw"];

/// In a cgroup namespace the container's group is the top.
fn v2_the_namespace_hides_what_is_above(t: &Test) {
    v2(t);
    let mut b = in_namespace(t, &RO);
    b.probe(&["report", "cgroup"]);
    assert_eq!(t.report(&b)["cgroup"], json!(["0::/"]));
}

/// A mount of type cgroup is cgroup2, read-only if asked. In a namespace its root is the container's
/// group, without one the host's; the host's own mount keeps its options, which all mounts share
/// (a new one without a namespace takes nsdelegate from them, and the container's limits are its own).
fn v2_the_mount_is_the_containers_group(t: &Test) {
    v2(t);
    let options_of_the_host = || {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let line = table.lines().find(|line| line.contains(" /sys/fs/cgroup ")).unwrap();
        line.split_once(" - ").unwrap().1.to_owned()
    };
    let before = options_of_the_host();
    let steps = [
        "read",
        "/sys/fs/cgroup/pids.max",
        ";",
        "mkdir",
        "/sys/fs/cgroup/new",
        ";",
        "rmdir",
        "/sys/fs/cgroup/new",
        ";",
        "report",
        "mounts",
    ];
    for (namespace, options, writable) in
        [(true, RO, false), (true, RW, true), (false, RO, false), (false, RW, true)]
    {
        let mut b = in_namespace(t, &options);
        if !namespace {
            b.no_namespace("cgroup");
        }
        b.set("linux.resources.pids", json!({"limit": 77})).probe(&steps);
        let out = t.run(&b).ok();
        if namespace {
            assert_eq!(out.fact(0)["value"], "77\n", "{out}");
        } else {
            // Only the top has no limits.
            assert_eq!(out.fact(0)["errno"], "ENOENT", "{out}");
        }
        let made = &out.fact(1);
        // The host's top belongs to nobody who has no CAP_DAC_OVERRIDE.
        let refused = if writable { "EACCES" } else { "EROFS" };
        assert!(made["errno"] == refused || (writable && made["ok"] == true), "{made}");
        let seen = out.fact(3);
        let mounts: &Vec<Value> = seen["mounts"].as_array().unwrap();
        let own: Vec<_> = mounts.iter().filter(|m| m["type"] == "cgroup2").collect();
        assert_eq!(own.len(), 1, "{seen}");
        assert_eq!(own[0]["point"], "/sys/fs/cgroup");
        if t.flavour == corten_integration::Flavour::Corten {
            assert_eq!(options_of_the_host(), before);
        }
    }
}

/// What systemd does in a container: a sub-group for itself, and controllers for more of them.
const MAKES_GROUPS: [&str; 11] = [
    "mkdir",
    "/sys/fs/cgroup/init",
    ";",
    "write",
    "/sys/fs/cgroup/init/cgroup.procs",
    "0",
    ";",
    "write",
    "/sys/fs/cgroup/cgroup.subtree_control",
    "+pids",
    ";",
];

/// With a namespace and a writable mount the group is the user's who is root in the container, and
/// its limits are not.
fn v2_the_group_belongs_to_the_containers_root(t: &Test) {
    v2(t);
    t.skip_on_peers("other rules");
    let mut b = in_namespace(t, &RW);
    b.namespace("user", None)
        .set("linux.uidMappings", json!([{"containerID": 0, "hostID": 100_000, "size": 1000}]))
        .set("linux.gidMappings", json!([{"containerID": 0, "hostID": 100_000, "size": 1000}]));
    std::os::unix::fs::chown(b.rootfs(), Some(100_000), Some(100_000)).unwrap();
    b.set("linux.resources.pids", json!({"limit": 77}));
    let limits = ["write", "/sys/fs/cgroup/pids.max", "max", ";", "sleep"];
    b.probe(&[&MAKES_GROUPS[..], &limits[..]].concat());
    t.create(&b).ok();
    let owner = |name: &str| fs::metadata(b.cgroup_dir("").join(name)).unwrap().uid();
    assert_eq!(["", "cgroup.procs", "cgroup.subtree_control"].map(owner), [100_000; 3]);
    assert_eq!(["pids.max", "memory.max", "cpu.weight"].map(owner), [0; 3]);
    t.start(&b.id).ok();
    t.wait_asleep(&b.id);
    assert_eq!(file(&b, "cgroup.subtree_control"), "pids");
    assert_eq!(file(&b, "pids.max"), "77");
    t.force(&b.id).ok();
    t.nothing_left(&b);
    // Read-only: nothing is given away.
    let mut b = in_namespace(t, &RO);
    b.probe(&["sleep"]);
    t.create(&b).ok();
    assert_eq!(fs::metadata(b.cgroup_dir("")).unwrap().uid(), 0);
}

/// An init that made sub-groups with controllers (systemd) leaves no place for processes beside
/// them: exec goes where the init is.
fn v2_exec_follows_into_sub_groups(t: &Test) {
    v2(t);
    let mut b = in_namespace(t, &RW);
    b.probe(&[&MAKES_GROUPS[..], &["sleep"]].concat());
    t.create(&b).ok();
    t.start(&b.id).ok();
    t.wait_asleep(&b.id);
    let seen = t.exec(&b.id, &[], &["report", "cgroup"]).ok().fact(0);
    assert_eq!(seen["cgroup"], json!(["0::/init"]));
    t.call(&["pause", &b.id]).ok();
    assert!(b.is_frozen());
    t.call(&["resume", &b.id]).ok();
    t.force(&b.id).ok();
    t.nothing_left(&b);
}

/// `exec --cgroup` names a group below the container's.
fn v2_exec_into_a_sub_group(t: &Test) {
    v2(t);
    let mut b = in_namespace(t, &RO);
    t.sleeper(&mut b);
    fs::create_dir(b.cgroup_dir("").join("sub")).unwrap();
    let seen = t.exec(&b.id, &["--cgroup", "sub"], &["report", "cgroup"]).ok().fact(0);
    assert_eq!(seen["cgroup"], json!(["0::/sub"]));
    t.exec(&b.id, &["--cgroup", "absent"], &["report", "cgroup"]).fails();
    t.exec(&b.id, &["--cgroup", "../.."], &["report", "cgroup"]).fails();
}

/// cgroup.kill reaches everything at once, also in sub-groups, also when frozen.
fn v2_kill_ends_a_fork_bomb(t: &Test) {
    v2(t);
    let mut b = t.busybox();
    b.set("linux.resources.pids", json!({"limit": 200})).no_namespace("pid");
    b.set("process.args", json!(["/bin/sh", "-c", "f() { f | f & }; while :; do f; done"]));
    t.create(&b).ok();
    t.start(&b.id).ok();
    let many = || file(&b, "pids.current").parse::<u32>().unwrap() > 50;
    wait_until("it has forked", many);
    t.force(&b.id).ok();
    t.nothing_left(&b);
}
