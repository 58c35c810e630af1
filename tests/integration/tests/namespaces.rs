//! `linux.namespaces`, `timeOffsets`, `uidMappings`, `gidMappings`, `sysctl`, hostname and domainname.

use std::fs;
use std::process::{Command, ExitCode};

use corten_integration::driver::Running;
use corten_integration::{Bundle, Flavour, Test, suite, tests};
use serde_json::{Value, json};

fn main() -> ExitCode {
    suite(tests![
        new_ones_differ_from_the_hosts,
        the_others_are_the_hosts,
        every_combination_works,
        network_has_loopback_up_and_nothing_else,
        pid_makes_the_program_pid_1,
        uts_hostname_and_domainname,
        hostname_without_uts_is_refused,
        cgroup_shows_the_container_as_root,
        ipc_is_empty,
        mount_is_needed_for_mounts,
        joined_by_path,
        joined_network_of_a_bind_mount,
        joined_pid_is_not_pid_1,
        joined_user,
        joined_user_with_other_namespaces_of_it,
        join_of_an_absent_path_is_refused,
        join_of_a_wrong_type_is_refused,
        join_of_no_namespace_is_refused,
        duplicates_are_refused,
        unknown_types_are_refused,
        time_is_new,
        time_offsets_shift_the_clocks,
        time_offsets_hold_for_exec,
        time_offsets_without_namespace_are_refused,
        time_offsets_with_a_path_are_refused,
        time_offsets_of_unknown_clocks_are_refused,
        time_joined_by_path,
        user_maps_are_written,
        user_maps_several_ranges,
        user_root_is_powerless_outside,
        user_files_belong_to_the_mapped_root,
        user_without_network_namespace_still_has_sys,
        user_process_may_be_anyone_mapped,
        user_process_unmapped_is_refused,
        user_namespace_without_mapping_is_refused,
        user_mapping_that_overlaps_is_refused,
        user_devices_work,
        user_default_capabilities,
        sysctl_is_written,
        sysctl_of_a_namespace_that_is_the_hosts_is_refused,
        sysctl_of_the_host_is_refused,
        sysctl_tricks_are_refused,
        sysctl_unknown_is_refused,
    ])
}

fn host_ns(name: &str) -> String {
    let link = fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
    link.to_string_lossy().into_owned()
}

/// The names of the specification and of /proc/self/ns.
const KINDS: [(&str, &str); 6] = [
    ("pid", "pid"),
    ("network", "net"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("mount", "mnt"),
    ("cgroup", "cgroup"),
];

fn with_user(b: &mut Bundle) {
    b.namespace("user", None)
        .set("linux.uidMappings", json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]))
        .set("linux.gidMappings", json!([{"containerID": 0, "hostID": 200_000, "size": 65536}]));
    std::os::unix::fs::chown(b.rootfs(), Some(100_000), Some(200_000)).unwrap();
}

/// Each namespace that is asked for is a new one.
fn new_ones_differ_from_the_hosts(t: &Test) {
    let mut b = t.bundle();
    b.namespace("cgroup", None);
    with_user(&mut b);
    let seen = t.report(&b);
    for (_, name) in KINDS {
        assert_ne!(seen["ns"][name], json!(host_ns(name)), "{name}");
    }
    assert_ne!(seen["ns"]["user"], json!(host_ns("user")));
}

/// What isn't asked for is shared with the runtime.
fn the_others_are_the_hosts(t: &Test) {
    let mut b = t.bundle();
    b.set("linux.namespaces", json!([{"type": "mount"}])).unset("hostname");
    b.unmount("/dev/mqueue");
    let seen = t.report(&b);
    for (_, name) in KINDS.iter().filter(|(kind, _)| *kind != "mount") {
        assert_eq!(seen["ns"][*name], json!(host_ns(name)), "{name}");
    }
    assert_eq!(seen["ns"]["user"], json!(host_ns("user")));
    assert_ne!(seen["ns"]["mnt"], json!(host_ns("mnt")));
}

/// All combinations of pid, network, ipc, uts, cgroup and user with the mount namespace.
fn every_combination_works(t: &Test) {
    let kinds = ["pid", "network", "ipc", "uts", "cgroup", "user"];
    for choice in 0..1_u32 << kinds.len() {
        let mut b = t.bundle();
        b.set("linux.namespaces", json!([{"type": "mount"}])).probe(&["report", "ns", "pid"]);
        b.unset("hostname");
        let asked = |kind: &str| {
            kinds.iter().position(|k| *k == kind).is_some_and(|n| choice >> n & 1 == 1)
        };
        for kind in kinds.iter().filter(|kind| asked(kind)) {
            b.namespace(kind, None);
        }
        if asked("user") {
            with_user(&mut b);
            if !asked("ipc") {
                b.unmount("/dev/mqueue");
            }
            if !asked("network") {
                b.unmount("/sys");
            }
            if !asked("pid") {
                // The kernel refuses a new proc of the host's pid namespace in there.
                b.unmount("/proc").mount("/proc", "bind", "/proc", &["rbind"]);
                b.set("linux.maskedPaths", json!([])).set("linux.readonlyPaths", json!([]));
            }
        }
        let seen = t.report(&b);
        for (kind, name) in KINDS {
            let new = seen["ns"][name] != json!(host_ns(name));
            assert_eq!(new, kind == "mount" || asked(kind), "{kind} of {choice:06b}: {seen}");
        }
        assert_eq!(seen["ns"]["user"] != json!(host_ns("user")), asked("user"), "{choice:06b}");
        t.nothing_left(&b);
    }
}

/// A new network namespace has its loopback up and no other interface up.
fn network_has_loopback_up_and_nothing_else(t: &Test) {
    let seen = t.report(&t.bundle());
    assert_eq!(seen["extra"]["lo"].as_i64().unwrap() & 1, 1);
    let names: Vec<String> = serde_json::from_value(seen["extra"]["interfaces"].clone()).unwrap();
    assert!(
        names.iter().all(|n| n == "lo"
            || n.contains("tunl")
            || n.contains("sit")
            || n.contains("ip6")
            || n.contains("gre")),
        "{names:?}"
    );
}

/// The program is the first process.
fn pid_makes_the_program_pid_1(t: &Test) {
    let seen = t.report(&t.bundle());
    assert_eq!(seen["pid"], 1);
    assert_eq!(seen["ppid"], 0);
    let mut b = t.bundle();
    b.no_namespace("pid");
    assert_ne!(t.report(&b)["pid"], 1);
}

/// hostname and domainname are those of the config.
fn uts_hostname_and_domainname(t: &Test) {
    let mut b = t.bundle();
    b.set("hostname", json!("a-name.example"));
    assert_eq!(t.report(&b)["uname"]["hostname"], "a-name.example");
    t.skip_on(Flavour::Runc, "1.1 is older than domainname");
    let mut b = t.bundle();
    b.set("domainname", json!("dom.example"));
    assert_eq!(t.report(&b)["uname"]["domainname"], "dom.example");
}

/// A name for the host's own uts namespace is an error, and the host keeps its name.
fn hostname_without_uts_is_refused(t: &Test) {
    let mut b = t.bundle();
    b.no_namespace("uts");
    t.create_fails(&b).says("hostname|uts");
    t.skip_on_peers("older than domainname, or without this check");
    let mut b = t.bundle();
    b.no_namespace("uts").unset("hostname").set("domainname", json!("x"));
    t.create_fails(&b).says("domainname|uts");
}

/// With a cgroup namespace every path in /proc/self/cgroup is "/".
fn cgroup_shows_the_container_as_root(t: &Test) {
    let mut b = t.bundle();
    b.namespace("cgroup", None);
    let seen = t.report(&b);
    for line in seen["cgroup"].as_array().unwrap() {
        assert!(line.as_str().unwrap().ends_with(":/"), "{seen}", seen = seen["cgroup"]);
    }
}

/// Nothing of the host's System V objects is visible.
fn ipc_is_empty(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["read", "/proc/sysvipc/shm"]);
    let text = t.run(&b).ok().fact(0)["value"].as_str().unwrap().to_owned();
    assert_eq!(text.lines().count(), 1, "{text}");
}

/// Mounts without a mount namespace would be the host's.
fn mount_is_needed_for_mounts(t: &Test) {
    t.skip_on(Flavour::Crun, "mounts into the host's namespace");
    let mut b = t.bundle();
    b.no_namespace("mount");
    t.create_fails(&b);
}

/// Each kind can be joined by the path of a process that is in it.
fn joined_by_path(t: &Test) {
    for (kind, name) in [("network", "net"), ("ipc", "ipc"), ("uts", "uts"), ("cgroup", "cgroup")] {
        let mut first = t.bundle();
        first.namespace("cgroup", None);
        let pid = t.sleeper(&mut first);
        let path = format!("/proc/{pid}/ns/{name}");
        let mut b = t.bundle();
        b.namespace(kind, Some(&path));
        if kind == "uts" {
            b.unset("hostname");
        }
        let seen = t.report(&b);
        assert_eq!(seen["ns"][name], json!(fs::read_link(&path).unwrap()), "{kind}");
        if kind == "uts" {
            assert_eq!(seen["uname"]["hostname"], "probe");
        }
    }
}

/// A namespace kept by a bind mount (what CNI does) can be joined and stays.
fn joined_network_of_a_bind_mount(t: &Test) {
    let file = t.dir.join("netns");
    fs::write(&file, "").unwrap();
    let mut unshare = Command::new("unshare");
    unshare.arg(format!("--net={}", file.display())).arg("true");
    t.execute(unshare).ok();
    let mut b = t.bundle();
    b.namespace("network", file.to_str());
    let first = t.report(&b)["ns"]["net"].clone();
    let mut b = t.bundle();
    b.namespace("network", file.to_str());
    assert_eq!(t.report(&b)["ns"]["net"], first);
    let mut umount = Command::new("umount");
    umount.arg(&file);
    t.execute(umount).ok();
}

/// A joined pid namespace has a first process already; the program isn't it.
fn joined_pid_is_not_pid_1(t: &Test) {
    let mut first = t.bundle();
    let pid = t.sleeper(&mut first);
    let path = format!("/proc/{pid}/ns/pid");
    let mut b = t.bundle();
    b.namespace("pid", Some(&path));
    let seen = t.report(&b);
    assert_eq!(seen["ns"]["pid"], json!(fs::read_link(&path).unwrap()));
    assert_ne!(seen["pid"], 1);
    t.force(&b.id).ok();
    assert_eq!(t.status(&first.id), "running");
}

/// A namespace holder outside of any container.
fn holder(t: &Test, unshare: &str) -> (Running, i32) {
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(format!("{unshare} sh -c 'echo held; exec sleep 1000'"));
    let mut running = t.launch(command);
    running.wait_for("held");
    let pid = running.pid();
    if unshare.contains("--user") {
        for (file, host) in [("uid_map", 100_000), ("gid_map", 200_000)] {
            fs::write(format!("/proc/{pid}/{file}"), format!("0 {host} 65536")).unwrap();
        }
    }
    (running, pid)
}

/// A user namespace can be joined; the mappings are those it has.
fn joined_user(t: &Test) {
    t.skip_on(Flavour::Runc, "1.1 wants mappings too and then writes them");
    let (_held, pid) = holder(t, "exec unshare --user");
    let path = format!("/proc/{pid}/ns/user");
    let mut b = t.bundle();
    b.namespace("user", Some(&path));
    std::os::unix::fs::chown(b.rootfs(), Some(100_000), Some(200_000)).unwrap();
    let seen = t.report(&b);
    assert_eq!(seen["ns"]["user"], json!(fs::read_link(&path).unwrap()));
    assert_eq!(seen["uid"], json!([0, 0, 0]));
    assert!(seen["idmaps"]["uid"][0].as_str().unwrap().contains("100000"));
}

/// A pod: user and network of one process together, everything else new.
fn joined_user_with_other_namespaces_of_it(t: &Test) {
    t.skip_on(Flavour::Runc, "1.1 wants mappings too and then writes them");
    let (_held, pid) = holder(t, "exec unshare --user --net --uts");
    let mut b = t.bundle();
    for (kind, name) in [("user", "user"), ("network", "net"), ("uts", "uts")] {
        b.namespace(kind, Some(&format!("/proc/{pid}/ns/{name}")));
    }
    b.unset("hostname");
    std::os::unix::fs::chown(b.rootfs(), Some(100_000), Some(200_000)).unwrap();
    let seen = t.report(&b);
    for name in ["user", "net", "uts"] {
        let path = format!("/proc/{pid}/ns/{name}");
        assert_eq!(seen["ns"][name], json!(fs::read_link(path).unwrap()), "{name}");
    }
}

/// A path that isn't there is an error.
fn join_of_an_absent_path_is_refused(t: &Test) {
    for kind in ["network", "ipc", "uts", "pid"] {
        let mut b = t.bundle();
        b.namespace(kind, Some("/proc/self/ns/absent"));
        t.create_fails(&b).says("no such file or directory");
    }
}

/// "The runtime MUST generate an error if path is not associated with a namespace of type type."
fn join_of_a_wrong_type_is_refused(t: &Test) {
    let mut first = t.bundle();
    let pid = t.sleeper(&mut first);
    for (kind, other) in [("network", "uts"), ("ipc", "net"), ("uts", "ipc"), ("pid", "net")] {
        let mut b = t.bundle();
        b.namespace(kind, Some(&format!("/proc/{pid}/ns/{other}")));
        t.create_fails(&b);
    }
}

/// A plain file is no namespace.
fn join_of_no_namespace_is_refused(t: &Test) {
    let mut b = t.bundle();
    b.namespace("network", Some("/etc/passwd"));
    t.create_fails(&b);
    t.skip_on_peers("don't look at it");
    let mut b = t.bundle();
    b.namespace("network", Some("relative/path"));
    t.create_fails(&b).says("namespaces");
}

/// "If the namespaces field contains duplicated namespaces ... the runtime MUST generate an error."
fn duplicates_are_refused(t: &Test) {
    for kind in ["pid", "network", "mount", "ipc", "uts"] {
        let mut b = t.bundle();
        b.push("linux.namespaces", json!({"type": kind}));
        t.create_fails(&b).says("namespace|duplicated ns");
    }
}

/// A kind that doesn't exist is an error.
fn unknown_types_are_refused(t: &Test) {
    for kind in ["", "net", "PID", "nope"] {
        let mut b = t.bundle();
        b.push("linux.namespaces", json!({"type": kind}));
        t.create_fails(&b).says("namespace");
    }
}

/// A new time namespace.
fn time_is_new(t: &Test) {
    t.skip_on(Flavour::Runc, "1.1 knows no time namespace");
    t.skip_on(Flavour::Crun, "1.8 has it without offsets only");
    let mut b = t.bundle();
    b.namespace("time", None);
    assert_ne!(t.report(&b)["ns"]["time"], json!(host_ns("time")));
}

fn now(clock: nix::time::ClockId) -> i64 {
    nix::time::clock_gettime(clock).unwrap().tv_sec()
}

/// monotonic and boottime are shifted by secs and nanosecs.
fn time_offsets_shift_the_clocks(t: &Test) {
    t.skip_on_peers("1.1 knows no time namespace, 1.8 no offsets");
    let mut b = t.bundle();
    b.namespace("time", None).set(
        "linux.timeOffsets",
        json!({"monotonic": {"secs": 100_000, "nanosecs": 5}, "boottime": {"secs": -1}}),
    );
    let before = now(nix::time::ClockId::CLOCK_MONOTONIC);
    let seen = t.report(&b);
    let monotonic = seen["time"]["monotonic"].as_i64().unwrap();
    assert!((100_000..100_120).contains(&(monotonic - before)), "{seen}", seen = seen["time"]);
    let offsets = seen["time"]["offsets"].to_string();
    assert!(offsets.contains("100000") && offsets.contains("-1"), "{offsets}");
}

/// A process that enters later has the same clocks.
fn time_offsets_hold_for_exec(t: &Test) {
    t.skip_on_peers("1.1 knows no time namespace, 1.8 no offsets");
    let mut b = t.bundle();
    b.namespace("time", None).set("linux.timeOffsets", json!({"monotonic": {"secs": 100_000}}));
    t.sleeper(&mut b);
    let before = now(nix::time::ClockId::CLOCK_MONOTONIC);
    let seen = t.exec(&b.id, &[], &["report", "time"]).ok().fact(0);
    assert!((100_000..100_120).contains(&(seen["time"]["monotonic"].as_i64().unwrap() - before)));
}

/// Offsets belong to a new time namespace.
fn time_offsets_without_namespace_are_refused(t: &Test) {
    t.skip_on_peers("1.1 knows no time namespace, 1.8 no offsets");
    let mut b = t.bundle();
    b.set("linux.timeOffsets", json!({"monotonic": {"secs": 1}}));
    t.create_fails(&b).says("timeOffsets|time");
}

/// A joined namespace has its offsets already.
fn time_offsets_with_a_path_are_refused(t: &Test) {
    t.skip_on_peers("1.1 knows no time namespace, 1.8 no offsets");
    let mut b = t.bundle();
    b.namespace("time", Some("/proc/self/ns/time"))
        .set("linux.timeOffsets", json!({"monotonic": {"secs": 1}}));
    t.create_fails(&b).says("timeOffsets|time");
}

/// There are two clocks only.
fn time_offsets_of_unknown_clocks_are_refused(t: &Test) {
    t.skip_on_peers("1.1 knows no time namespace, 1.8 no offsets");
    let mut b = t.bundle();
    b.namespace("time", None).set("linux.timeOffsets", json!({"realtime": {"secs": 1}}));
    t.create_fails(&b).says("timeOffsets|realtime");
}

/// A time namespace can be joined by path.
fn time_joined_by_path(t: &Test) {
    t.skip_on_peers("1.1 knows no time namespace, 1.8 no offsets");
    let mut first = t.bundle();
    first.namespace("time", None).set("linux.timeOffsets", json!({"monotonic": {"secs": 100_000}}));
    let pid = t.sleeper(&mut first);
    let path = format!("/proc/{pid}/ns/time");
    let mut b = t.bundle();
    b.namespace("time", Some(&path));
    let seen = t.report(&b);
    assert_eq!(seen["ns"]["time"], json!(fs::read_link(&path).unwrap()));
    assert!(seen["time"]["monotonic"].as_i64().unwrap() > 100_000);
}

fn map_of(seen: &Value, kind: &str) -> Vec<Vec<u64>> {
    let lines = seen["idmaps"][kind].as_array().unwrap();
    let numbers = |line: &Value| {
        line.as_str().unwrap().split_whitespace().map(|n| n.parse().unwrap()).collect()
    };
    lines.iter().map(numbers).collect()
}

/// The maps are those of the config, and setgroups works.
fn user_maps_are_written(t: &Test) {
    let mut b = t.bundle();
    with_user(&mut b);
    b.set("process.user.additionalGids", json!([7, 8]));
    let seen = t.report(&b);
    assert_eq!(map_of(&seen, "uid"), [[0, 100_000, 65536]]);
    assert_eq!(map_of(&seen, "gid"), [[0, 200_000, 65536]]);
    assert_eq!(seen["idmaps"]["setgroups"], "allow");
    assert_eq!(seen["groups"], json!([7, 8]));
    assert_eq!(seen["uid"], json!([0, 0, 0]));
}

/// Several ranges, up to the kernel's 340.
fn user_maps_several_ranges(t: &Test) {
    for count in [3_u64, 340] {
        let mut b = t.bundle();
        with_user(&mut b);
        let ranges: Vec<Value> = (0..count)
            .map(|n| json!({"containerID": n, "hostID": 1000 + n * 2, "size": 1}))
            .collect();
        b.set("linux.uidMappings", json!(ranges));
        assert_eq!(map_of(&t.report(&b), "uid").len() as u64, count);
    }
    let mut b = t.bundle();
    with_user(&mut b);
    let ranges: Vec<Value> = (0..341_u64)
        .map(|n| json!({"containerID": n, "hostID": 1000 + n * 2, "size": 1}))
        .collect();
    b.set("linux.uidMappings", json!(ranges));
    t.create_fails(&b);
}

/// The container's root can't use the host's files that only root may use.
fn user_root_is_powerless_outside(t: &Test) {
    use std::os::unix::fs::PermissionsExt;
    let mut b = t.bundle();
    with_user(&mut b);
    let secret = b.file("/secret", "s");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    b.probe(&["read", "/secret", ";", "stat", "/secret"]);
    let out = t.run(&b).ok();
    assert_eq!(out.fact(0)["errno"], "EACCES");
    assert_eq!(out.fact(1)["value"]["uid"], 65534);
}

/// What the container's root creates belongs to its mapped id.
fn user_files_belong_to_the_mapped_root(t: &Test) {
    use std::os::unix::fs::MetadataExt;
    let mut b = t.bundle();
    with_user(&mut b);
    b.probe(&["create", "/made", "x"]);
    t.run(&b).ok();
    let meta = fs::metadata(b.rootfs().join("made")).unwrap();
    assert_eq!((meta.uid(), meta.gid()), (100_000, 200_000));
}

/// The kernel refuses sysfs for a user namespace over the host's network; /sys is bound instead.
fn user_without_network_namespace_still_has_sys(t: &Test) {
    t.skip_on(Flavour::Runc, "1.1 fails");
    let mut b = t.bundle();
    with_user(&mut b);
    b.no_namespace("network").probe(&["ls", "/sys/class", ";", "report", "mounts"]);
    let out = t.run(&b).ok();
    assert_eq!(out.fact(0)["ok"], true);
    let report = out.fact(1);
    let sys = report["mounts"].as_array().unwrap().iter().find(|m| m["point"] == "/sys").unwrap();
    assert!(sys["options"].as_array().unwrap().contains(&json!("ro")), "{sys}");
}

/// process.user is an id inside.
fn user_process_may_be_anyone_mapped(t: &Test) {
    let mut b = t.bundle();
    with_user(&mut b);
    b.set("process.user", json!({"uid": 1000, "gid": 65535, "additionalGids": [3]}));
    let seen = t.report(&b);
    assert_eq!(seen["uid"], json!([1000, 1000, 1000]));
    assert_eq!(seen["gid"], json!([65535, 65535, 65535]));
}

/// An id that isn't mapped can't be taken.
fn user_process_unmapped_is_refused(t: &Test) {
    for (field, value) in
        [("uid", json!(70_000)), ("gid", json!(70_000)), ("additionalGids", json!([70_000]))]
    {
        let mut b = t.bundle();
        with_user(&mut b);
        b.set(&format!("process.user.{field}"), value);
        t.run_fails(&b);
    }
}

/// A new user namespace without mappings would have nobody in it.
fn user_namespace_without_mapping_is_refused(t: &Test) {
    t.skip_on(Flavour::Crun, "makes mappings up");
    let mut b = t.bundle();
    b.namespace("user", None);
    t.create_fails(&b).says("mapping");
}

/// Overlapping ranges are the kernel's EINVAL or our own word.
fn user_mapping_that_overlaps_is_refused(t: &Test) {
    let mut b = t.bundle();
    with_user(&mut b);
    b.push("linux.uidMappings", json!({"containerID": 5, "hostID": 300_000, "size": 10}));
    t.create_fails(&b);
    let mut b = t.bundle();
    with_user(&mut b);
    b.set("linux.uidMappings", json!([{"containerID": 0, "hostID": 100_000, "size": 0}]));
    t.create_fails(&b);
}

/// mknod is impossible there, so the default devices are bound from the host and work.
fn user_devices_work(t: &Test) {
    let mut b = t.bundle();
    with_user(&mut b);
    b.probe(&[
        "report",
        "devices",
        ";",
        "write",
        "/dev/null",
        "x",
        ";",
        "read-some",
        "/dev/urandom",
        "8",
    ]);
    let out = t.run(&b).ok();
    for (name, minor) in [("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9)] {
        let node = &out.fact(0)["devices"][name];
        assert_eq!(
            (&node["type"], &node["major"], &node["minor"]),
            (&json!("c"), &json!(1), &json!(minor))
        );
    }
    assert_eq!(out.fact(1)["ok"], true);
    assert_eq!(out.fact(2)["value"], 8);
}

/// The capabilities are those of the config, valid inside.
fn user_default_capabilities(t: &Test) {
    let mut b = t.bundle();
    with_user(&mut b);
    b.capabilities(&["CAP_SYS_ADMIN", "CAP_CHOWN"]);
    let seen = t.report(&b);
    assert_eq!(seen["caps"]["effective"], 1 << 21 | 1);
    assert_eq!(seen["caps"]["bounding"], 1 << 21 | 1);
}

/// Namespaced settings are written, with dots or slashes.
fn sysctl_is_written(t: &Test) {
    let mut b = t.bundle();
    b.set(
        "linux.sysctl",
        json!({"net.ipv4.ip_forward": "1", "kernel.shmmax": "12345678", "kernel.msgmax": "4321", "fs.mqueue.msg_max": "7"}),
    );
    b.probe(&[
        "read",
        "/proc/sys/net/ipv4/ip_forward",
        ";",
        "read",
        "/proc/sys/kernel/shmmax",
        ";",
        "read",
        "/proc/sys/kernel/msgmax",
        ";",
        "read",
        "/proc/sys/fs/mqueue/msg_max",
    ]);
    let out = t.run(&b).ok();
    for (n, value) in ["1\n", "12345678\n", "4321\n", "7\n"].iter().enumerate() {
        assert_eq!(out.fact(n)["value"], *value);
    }
    t.skip_on_peers("dots only, or not this one");
    let mut b = t.bundle();
    b.set("linux.sysctl", json!({"net/ipv4/ip_forward": "1"}));
    b.probe(&["read", "/proc/sys/net/ipv4/ip_forward"]);
    assert_eq!(t.run(&b).ok().fact(0)["value"], "1\n");
}

/// Without its own namespace a setting would be the host's.
fn sysctl_of_a_namespace_that_is_the_hosts_is_refused(t: &Test) {
    for (kind, key) in [
        ("network", "net.ipv4.ip_forward"),
        ("ipc", "kernel.msgmax"),
        ("ipc", "fs.mqueue.msg_max"),
        ("uts", "kernel.domainname"),
    ] {
        let mut b = t.bundle();
        b.no_namespace(kind).set("linux.sysctl", json!({key: "1"}));
        if kind == "uts" {
            b.unset("hostname");
        }
        if kind == "ipc" {
            b.unmount("/dev/mqueue");
        }
        t.create_fails(&b).says("sysctl");
    }
}

/// CVE-2022-0811: settings that no namespace owns are refused.
fn sysctl_of_the_host_is_refused(t: &Test) {
    for key in [
        "kernel.core_pattern",
        "vm.swappiness",
        "fs.file-max",
        "kernel.panic",
        "kernel.hostname",
        "dev.cdrom.info",
    ] {
        let mut b = t.bundle();
        b.set("linux.sysctl", json!({key: "0"}));
        t.create_fails(&b).says("sysctl");
    }
}

/// Names that lead elsewhere are refused.
fn sysctl_tricks_are_refused(t: &Test) {
    let before = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    for key in [
        "net/../kernel/core_pattern",
        "net.ipv4/../../kernel/core_pattern",
        "net..kernel.core_pattern",
        "kernel.shm_rmid_forced+kernel.core_pattern",
        "",
        "net.",
        "net.ipv4.ip_forward ",
        "/kernel/core_pattern",
    ] {
        let mut b = t.bundle();
        b.set("linux.sysctl", json!({key: "|/bin/x"}));
        t.create_fails(&b);
    }
    assert_eq!(fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap(), before);
}

/// A setting that isn't there, or a value that the kernel refuses, fails the create.
fn sysctl_unknown_is_refused(t: &Test) {
    for (key, value) in [("net.ipv4.absent", "1"), ("net.ipv4.ip_forward", "many")] {
        let mut b = t.bundle();
        b.set("linux.sysctl", json!({key: value}));
        t.create_fails(&b);
    }
}
