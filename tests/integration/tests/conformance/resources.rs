//! config-linux.md: control groups and resources, by what the host reads in the cgroup.

use std::fs;

use corten_integration::Test;
use corten_integration::cgroups;
use corten_integration::suite::Case;
use serde_json::json;

/// The sentences.
pub const CASES: &[Case] = &[
    ("resources: the process is in cgroupsPath of every controller", cgroups_path_absolute),
    (
        "resources: a relative cgroupsPath MAY be relative to a runtime-determined location",
        cgroups_path_relative,
    ),
    (
        "resources: SHOULD NOT change the ownership of container cgroups on v1",
        cgroups_ownership_is_not_changed,
    ),
    (
        "resources: the allowed device list MUST be applied in the listed order",
        devices_allowed_in_order,
    ),
    ("resources: unset type, major and minor mean all", devices_unset_values_mean_all),
    ("resources: memory limit, reservation, swap, disableOOMKiller", memory_values),
    ("resources: blockIO throttling by device", block_io_values),
    ("resources: pids limit is the maximum number of tasks", pids_limit),
    ("resources: pids 0 is a valid limit and SHOULD be treated as such", pids_zero_is_a_limit),
    ("resources: hugepageLimits: pageSize and limit", hugepage_limits),
    ("resources: network classID and priorities", network_values),
    (
        "resources: unified with a controller that is not present MUST generate an error",
        unified_needs_its_controller,
    ),
    ("resources: resources need not be specified", resources_unset_change_nothing),
];

fn on_v1(t: &Test) {
    if cgroups::is_v2() {
        t.skip("the files' names below are cgroup v1's");
    }
}

/// Cgroups path: "In the case of an absolute path (starting with /), the runtime MUST take the
/// path to be relative to the cgroups mount point."
fn cgroups_path_absolute(t: &Test) {
    let mut b = t.bundle();
    let pid = t.sleeper(&mut b);
    for controller in ["memory", "pids", "cpu", "devices"] {
        let procs = fs::read_to_string(b.cgroup_dir(controller).join("cgroup.procs")).unwrap();
        assert_eq!(procs.trim(), pid.to_string(), "{controller}");
    }
}

/// Cgroups path: "In the case of a relative path (not starting with /), the runtime MAY interpret
/// the path relative to a runtime-determined location in the cgroups hierarchy."
fn cgroups_path_relative(t: &Test) {
    let mut b = t.bundle();
    let path = format!("{}/relative", b.id);
    b.set("linux.cgroupsPath", json!(path)).probe(&["report", "cgroup"]);
    let first = t.report(&b)["cgroup"].clone();
    let joined = |line: &serde_json::Value| line.as_str().unwrap().ends_with(&path);
    assert!(first.as_array().unwrap().iter().any(joined), "{first}");
    assert_eq!(t.report(&b)["cgroup"], first);
    let left = cgroups::tagged(&b.id);
    assert!(
        left.iter().all(|p| !p.ends_with("relative") && !p.join("relative").exists()),
        "{left:?}"
    );
    cgroups::remove(&left);
}

/// Cgroup ownership: "Runtimes SHOULD NOT change the ownership of container cgroups when cgroups
/// v1 is in use."
fn cgroups_ownership_is_not_changed(t: &Test) {
    use std::os::unix::fs::MetadataExt;
    on_v1(t);
    let mut b = t.bundle();
    b.set("process.user", json!({"uid": 1000, "gid": 1000})).namespace("cgroup", None);
    t.sleeper(&mut b);
    for file in ["", "cgroup.procs", "tasks"] {
        let meta = fs::metadata(b.cgroup_dir("memory").join(file)).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (0, 0), "{file}");
    }
}

/// Allowed device list: "The runtime MUST apply entries in the listed order."
fn devices_allowed_in_order(t: &Test) {
    let zero = |allow: bool| json!({"allow": allow, "type": "c", "major": 10, "minor": 229, "access": "rwm"});
    for (rules, opens) in [([zero(true), zero(false)], false), ([zero(false), zero(true)], true)] {
        let mut b = t.bundle();
        for rule in rules {
            b.push("linux.resources.devices", rule);
        }
        b.set(
            "linux.devices",
            json!([{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o666}]),
        );
        b.probe(&["open", "/dev/fuse"]);
        // The kernel may have no such driver; the cgroup's refusal comes before it looks.
        let fact = t.run(&b).ok().fact(0);
        assert_eq!(fact["errno"] != "EPERM", opens, "{fact}");
    }
}

/// Allowed device list: "Unset values mean "all"" for type, major and minor.
fn devices_unset_values_mean_all(t: &Test) {
    on_v1(t);
    let mut b = t.bundle();
    b.set("linux.resources.devices", json!([{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 10, "access": "r"}]));
    t.create(&b).ok();
    let list = b.cgroup_file("devices", "devices.list");
    assert!(list.contains("c 10:* r") && !list.contains("a *:*"), "{list}");
    let mut b = t.bundle();
    b.set("linux.resources.devices", json!([{"allow": true, "access": "rwm"}]));
    t.create(&b).ok();
    assert!(b.cgroup_file("devices", "devices.list").contains("a *:* rwm"));
}

/// Memory: limit, reservation, swap ("limit of memory + swap"), in bytes; disableOOMKiller.
fn memory_values(t: &Test) {
    on_v1(t);
    let mut b = t.bundle();
    b.set("linux.resources.memory", json!({"limit": 64 << 20, "reservation": 32 << 20, "swap": 128 << 20, "disableOOMKiller": true}));
    t.create(&b).ok();
    assert_eq!(b.cgroup_file("memory", "memory.limit_in_bytes"), (64 << 20).to_string());
    assert_eq!(b.cgroup_file("memory", "memory.soft_limit_in_bytes"), (32 << 20).to_string());
    if b.cgroup_dir("memory").join("memory.memsw.limit_in_bytes").exists() {
        assert_eq!(b.cgroup_file("memory", "memory.memsw.limit_in_bytes"), (128 << 20).to_string());
    }
    assert!(b.cgroup_file("memory", "memory.oom_control").contains("oom_kill_disable 1"));
}

/// Block IO: throttleReadBpsDevice and its like: "major, minor", "rate in bytes per second".
fn block_io_values(t: &Test) {
    on_v1(t);
    let Some((major, minor)) = block_device() else { t.skip("no block device") };
    let mut b = t.bundle();
    let rate = |rate: u64| json!([{"major": major, "minor": minor, "rate": rate}]);
    b.set(
        "linux.resources.blockIO",
        json!({"throttleReadBpsDevice": rate(1 << 20), "throttleWriteIOPSDevice": rate(77)}),
    );
    t.create(&b).ok();
    assert_eq!(
        b.cgroup_file("blkio", "blkio.throttle.read_bps_device"),
        format!("{major}:{minor} {}", 1 << 20)
    );
    assert_eq!(
        b.cgroup_file("blkio", "blkio.throttle.write_iops_device"),
        format!("{major}:{minor} 77")
    );
}

/// A whole disk of the host.
fn block_device() -> Option<(u64, u64)> {
    let entry = fs::read_dir("/sys/block").ok()?.flatten().next()?;
    let text = fs::read_to_string(entry.path().join("dev")).ok()?;
    let (major, minor) = text.trim().split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// PIDs: "limit - specifies the maximum number of tasks in the cgroup".
fn pids_limit(t: &Test) {
    let mut b = t.bundle();
    b.set("linux.resources.pids", json!({"limit": 5})).probe(&["forks", "20"]);
    let fact = t.run(&b).ok().fact(0);
    assert_eq!((&fact["forked"], &fact["errno"]), (&json!(4), &json!("EAGAIN")));
}

/// PIDs: "0 is a valid limit value for the pids cgroup controller from the kernel's perspective
/// and SHOULD be treated as such by runtimes."
fn pids_zero_is_a_limit(t: &Test) {
    t.skip_on_peers("take 0 as no limit");
    let mut b = t.bundle();
    b.set("linux.resources.pids", json!({"limit": 0})).probe(&["forks", "5"]);
    let fact = t.run(&b).ok().fact(0);
    assert_eq!((&fact["forked"], &fact["errno"]), (&json!(0), &json!("EAGAIN")));
}

/// Huge page limits: "pageSize - hugepage size", "limit - limit in bytes of hugepagesize HugeTLB
/// usage".
fn hugepage_limits(t: &Test) {
    on_v1(t);
    let mut b = t.bundle();
    if !cgroups::directory("hugetlb", "/").is_some_and(|dir| {
        dir.join("hugetlb.2MB.limit_in_bytes").exists()
            || fs::read_dir(&dir).is_ok_and(|mut all| {
                all.any(|e| {
                    e.is_ok_and(|e| e.file_name().to_string_lossy().starts_with("hugetlb.2MB"))
                })
            })
    }) {
        t.skip("no hugetlb controller with pages of 2 MB");
    }
    b.set("linux.resources.hugepageLimits", json!([{"pageSize": "2MB", "limit": 4 << 20}]));
    t.create(&b).ok();
    assert_eq!(b.cgroup_file("hugetlb", "hugetlb.2MB.limit_in_bytes"), (4 << 20).to_string());
}

/// Network: "classID - is the network class identifier the cgroup's network packets will be tagged
/// with", "priorities [...] name, priority".
fn network_values(t: &Test) {
    on_v1(t);
    if cgroups::directory("net_cls", "/").is_none() || cgroups::directory("net_prio", "/").is_none()
    {
        t.skip("no net_cls and net_prio");
    }
    let mut b = t.bundle();
    b.set(
        "linux.resources.network",
        json!({"classID": 1_048_577, "priorities": [{"name": "lo", "priority": 500}]}),
    );
    t.create(&b).ok();
    assert_eq!(b.cgroup_file("net_cls", "net_cls.classid"), "1048577");
    assert!(b.cgroup_file("net_prio", "net_prio.ifpriomap").contains("lo 500"));
}

/// Unified: "The runtime MUST generate an error when the configuration refers to a cgroup
/// controller that is not present or that cannot be enabled."
fn unified_needs_its_controller(t: &Test) {
    for file in ["nosuchcontroller.max", "memory.high"] {
        if file == "memory.high" && cgroups::is_v2() {
            continue;
        }
        let mut b = t.bundle();
        b.set("linux.resources.unified", json!({file: "1000000000"}));
        t.create_fails(&b);
    }
}

/// Control groups: "to run a new process in an existing container without updating limits,
/// resources need not be specified": a cgroup's limits stay what they were.
fn resources_unset_change_nothing(t: &Test) {
    on_v1(t);
    let mut b = t.bundle();
    b.unset("linux.resources");
    t.create(&b).ok();
    assert_eq!(b.cgroup_file("pids", "pids.max"), "max");
    assert_eq!(b.cgroup_file("cpu", "cpu.cfs_quota_us"), "-1");
}
