//! config-linux.md.

use std::fs;

use corten_integration::suite::Case;
use corten_integration::{Bundle, Flavour, Test, cgroups};
use serde_json::{Value, json};

fn ns(name: &str) -> Value {
    json!(fs::read_link(format!("/proc/self/ns/{name}")).unwrap())
}

fn with_user(b: &mut Bundle) {
    b.namespace("user", None)
        .set("linux.uidMappings", json!([{"containerID": 0, "hostID": 100_000, "size": 1000}]))
        .set("linux.gidMappings", json!([{"containerID": 0, "hostID": 100_000, "size": 1000}]));
    std::os::unix::fs::chown(b.rootfs(), Some(100_000), Some(100_000)).unwrap();
}

fn seccomp(b: &mut Bundle, rules: Value) {
    b.set("linux.seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}));
}

fn v1(t: &Test) {
    if cgroups::is_v2() {
        t.skip("reads cgroup v1 files");
    }
}

/// The sentences.
pub const CASES: &[Case] = &[
    ("linux: the default file systems SHOULD be available: /proc, /sys, /dev/pts, /dev/shm", |t| {
        let seen = t.report(&t.bundle());
        for (point, kind) in
            [("/proc", "proc"), ("/sys", "sysfs"), ("/dev/pts", "devpts"), ("/dev/shm", "tmpfs")]
        {
            let mounts = seen["mounts"].as_array().unwrap();
            assert!(mounts.iter().any(|m| m["point"] == point && m["type"] == kind), "{point}");
        }
    }),
    ("linux: the runtime MUST place the process in the namespace associated with path", |t| {
        let mut first = t.bundle();
        let pid = t.sleeper(&mut first);
        let mut b = t.bundle();
        b.namespace("network", Some(&format!("/proc/{pid}/ns/net")));
        let net = fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
        assert_eq!(t.report(&b)["ns"]["net"], json!(net));
    }),
    ("linux: a path that is not associated with a namespace of type MUST generate an error", |t| {
        let mut b = t.bundle();
        b.namespace("network", Some("/proc/self/ns/ipc"));
        t.create_fails(&b);
    }),
    ("linux: the value of path MUST be an absolute path", |t| {
        t.skip_on_peers("don't look");
        let mut b = t.bundle();
        b.namespace("network", Some("proc/self/ns/net"));
        t.create_fails(&b);
    }),
    ("linux: if path is not specified a new namespace MUST be created", |t| {
        let seen = t.report(&t.bundle());
        for name in ["pid", "net", "ipc", "uts", "mnt"] {
            assert_ne!(seen["ns"][name], ns(name), "{name}");
        }
    }),
    ("linux: a namespace type that is not specified MUST be inherited", |t| {
        let mut b = t.bundle();
        b.no_namespace("network").no_namespace("ipc").unmount("/dev/mqueue");
        let seen = t.report(&b);
        for name in ["net", "ipc", "user", "cgroup"] {
            assert_eq!(seen["ns"][name], ns(name), "{name}");
        }
    }),
    ("linux: duplicated namespaces with same type MUST generate an error", |t| {
        let mut b = t.bundle();
        b.push("linux.namespaces", json!({"type": "ipc"}));
        t.create_fails(&b);
    }),
    ("linux: uidMappings and gidMappings: containerID, hostID, size", |t| {
        let mut b = t.bundle();
        with_user(&mut b);
        let map = t.report(&b)["idmaps"]["uid"][0].as_str().unwrap().to_owned();
        assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", "100000", "1000"]);
    }),
    ("linux: timeOffsets: secs and nanosecs of monotonic and boottime", |t| {
        t.skip_on_peers("older");
        let mut b = t.bundle();
        b.namespace("time", None)
            .set("linux.timeOffsets", json!({"boottime": {"secs": 50_000, "nanosecs": 1}}));
        assert!(t.report(&b)["time"]["offsets"].to_string().contains("50000"));
    }),
    ("linux: devices lists devices that MUST be available in the container", |t| {
        let mut b = t.bundle();
        b.set("linux.devices", json!([{"path": "/dev/d", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 3, "gid": 4}]));
        let node = t.report(&b)["devices"]["d"].clone();
        assert_eq!(
            (&node["type"], &node["major"], &node["minor"]),
            (&json!("c"), &json!(1), &json!(5))
        );
        assert_eq!(
            (&node["mode"], &node["uid"], &node["gid"]),
            (&json!(0o640), &json!(3), &json!(4))
        );
    }),
    (
        "linux: a file at path that does not match the requested device MUST generate an error",
        |t| {
            t.skip_on_peers("keep it");
            let mut b = t.bundle();
            b.file("/d", "");
            b.set("linux.devices", json!([{"path": "/d", "type": "c", "major": 1, "minor": 5}]));
            t.create_fails(&b);
        },
    ),
    ("linux: major, minor REQUIRED unless type is p", |t| {
        t.skip_on_peers("take 0:0");
        let mut b = t.bundle();
        b.set("linux.devices", json!([{"path": "/dev/d", "type": "c"}]));
        t.create_fails(&b);
    }),
    (
        "linux: the runtime MUST also supply null zero full random urandom tty ptmx, console with a terminal",
        |t| {
            let seen = t.report(&t.bundle())["devices"].clone();
            for name in ["null", "zero", "full", "random", "urandom", "tty", "ptmx"] {
                assert!(seen[name].is_object(), "{name}");
            }
        },
    ),
    ("linux: an absolute cgroupsPath MUST be relative to the cgroups mount point", |t| {
        let b = t.bundle();
        t.create(&b).ok();
        assert!(b.cgroup_dir("pids").is_dir());
    }),
    (
        "linux: MUST consistently attach to the same place given the same value of cgroupsPath",
        |t| {
            let mut b = t.bundle();
            b.set("linux.cgroupsPath", json!(format!("{}-same", t.tag)))
                .probe(&["report", "cgroup"]);
            let first = t.report(&b);
            let second = t.report(&b);
            let sorted = |seen: &Value| {
                let mut lines: Vec<String> =
                    serde_json::from_value(seen["cgroup"].clone()).unwrap();
                lines.sort();
                lines
            };
            assert_eq!(sorted(&first), sorted(&second));
        },
    ),
    ("linux: device rules MUST be applied in the listed order", |t| {
        let mut b = t.bundle();
        b.add_capabilities(&["CAP_MKNOD"]);
        let rule = |allow: bool| json!({"allow": allow, "type": "c", "major": 1, "minor": 99, "access": "rwm"});
        b.push("linux.resources.devices", rule(true)).push("linux.resources.devices", rule(false));
        b.probe(&["mknod", "/dev/x", "c:1:99", ";", "open", "/dev/x"]);
        assert_eq!(t.run(&b).ok().fact(1)["errno"], "EPERM");
    }),
    ("linux: memory limit, reservation", |t| {
        v1(t);
        let mut b = t.bundle();
        b.set("linux.resources.memory", json!({"limit": 50 << 20, "reservation": 40 << 20}));
        t.create(&b).ok();
        assert_eq!(b.cgroup_file("memory", "memory.limit_in_bytes"), (50 << 20).to_string());
        assert_eq!(b.cgroup_file("memory", "memory.soft_limit_in_bytes"), (40 << 20).to_string());
    }),
    ("linux: cpu shares, quota, period, cpus, mems", |t| {
        v1(t);
        let mut b = t.bundle();
        b.set(
            "linux.resources.cpu",
            json!({"shares": 700, "quota": 60_000, "period": 90_000, "cpus": "0", "mems": "0"}),
        );
        t.create(&b).ok();
        assert_eq!(b.cgroup_file("cpu", "cpu.shares"), "700");
        assert_eq!(b.cgroup_file("cpu", "cpu.cfs_quota_us"), "60000");
        assert_eq!(b.cgroup_file("cpu", "cpu.cfs_period_us"), "90000");
        assert_eq!(b.cgroup_file("cpuset", "cpuset.cpus"), "0");
    }),
    ("linux: pids limit specifies the maximum number of tasks", |t| {
        let mut b = t.bundle();
        b.set("linux.resources.pids", json!({"limit": 21}));
        t.create(&b).ok();
        assert_eq!(b.cgroup_file("pids", "pids.max"), "21");
    }),
    ("linux: an error when the configuration refers to a controller that is not present", |t| {
        if cgroups::directory("net_cls", "/").is_some() || cgroups::is_v2() {
            t.skip("net_cls is here");
        }
        let mut b = t.bundle();
        b.set("linux.resources.network", json!({"classID": 5}));
        t.skip_on_peers("ignore it");
        t.create_fails(&b);
    }),
    ("linux: intelRdt without a mounted resctrl MUST generate an error", |t| {
        if fs::read_to_string("/proc/self/mountinfo").unwrap().contains(" - resctrl ") {
            t.skip("resctrl is mounted here");
        }
        t.skip_on_peers("ignore it");
        let mut b = t.bundle();
        b.set("linux.intelRdt", json!({"closID": "x", "l3CacheSchema": "L3:0=f"}));
        t.create_fails(&b);
    }),
    (
        "linux: a netDevice that does not exist, or without a network namespace, MUST generate an error",
        |t| {
            t.skip_on_peers("older than netDevices");
            let mut b = t.bundle();
            b.set("linux.netDevices", json!({"absent0": {}}));
            t.create_fails(&b);
        },
    ),
    ("linux: sysctl allows kernel parameters to be modified at runtime for the container", |t| {
        let mut b = t.bundle();
        b.set("linux.sysctl", json!({"net.ipv4.ip_forward": "1"}))
            .probe(&["read", "/proc/sys/net/ipv4/ip_forward"]);
        assert_eq!(t.run(&b).ok().fact(0)["value"], "1\n");
    }),
    ("linux: seccomp defaultAction (REQUIRED), names MUST contain at least one entry", |t| {
        t.skip_on_peers("take an empty list, or no action for no filter");
        let mut b = t.bundle();
        b.set("linux.seccomp", json!({"syscalls": []}));
        t.create_fails(&b);
        let mut b = t.bundle();
        seccomp(&mut b, json!([{"names": [], "action": "SCMP_ACT_ERRNO"}]));
        t.create_fails(&b);
    }),
    ("linux: errnoRet with an action that doesn't support an errno MUST fail", |t| {
        t.skip_on(Flavour::Runc, "ignores it");
        let mut b = t.bundle();
        seccomp(&mut b, json!([{"names": ["mkdir"], "action": "SCMP_ACT_KILL", "errnoRet": 1}]));
        t.create_fails(&b);
    }),
    ("linux: listenerMetadata MUST NOT be set if listenerPath is not set", |t| {
        t.skip_on_peers("don't look");
        let mut b = t.bundle();
        seccomp(&mut b, json!([{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}]));
        b.set("linux.seccomp.listenerMetadata", json!("x"));
        t.create_fails(&b);
    }),
    ("linux: if sending to the listener's socket fails the runtime MUST generate an error", |t| {
        let mut b = t.bundle();
        seccomp(&mut b, json!([{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]));
        b.set("linux.seccomp.listenerPath", json!("/absent/socket"));
        t.create_fails(&b);
    }),
    ("linux: seccomp rules match by name, index, value and op", |t| {
        let mut b = t.bundle();
        seccomp(
            &mut b,
            json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}]),
        );
        b.probe(&["mkdir", "/x"]);
        assert_eq!(t.run(&b).ok().fact(0)["errno"], "EOPNOTSUPP");
    }),
    ("linux: rootfsPropagation sets the rootfs's mount propagation", |t| {
        t.skip_on_peers("bind it after its parent became private");
        let mut b = t.bundle();
        b.set("linux.rootfsPropagation", json!("shared"));
        let seen = t.report(&b);
        let root =
            seen["mounts"].as_array().unwrap().iter().find(|m| m["point"] == "/").unwrap().clone();
        assert!(root["optional"].to_string().contains("shared:"), "{root}");
    }),
    ("linux: maskedPaths mask over the provided paths so that they cannot be read", |t| {
        let mut b = t.bundle();
        b.file("/secret", "x");
        b.set("linux.maskedPaths", json!(["/secret"])).probe(&["read", "/secret"]);
        assert_eq!(t.run(&b).ok().fact(0)["value"], "");
    }),
    ("linux: readonlyPaths set the provided paths as readonly", |t| {
        let mut b = t.bundle();
        b.file("/fixed", "x");
        b.set("linux.readonlyPaths", json!(["/fixed"])).probe(&["append", "/fixed", "y"]);
        assert_eq!(t.run(&b).ok().fact(0)["errno"], "EROFS");
    }),
    ("linux: maskedPaths and readonlyPaths MUST be absolute paths", |t| {
        t.skip_on_peers("don't look");
        for path in ["linux.maskedPaths", "linux.readonlyPaths"] {
            let mut b = t.bundle();
            b.set(path, json!(["proc/kcore"]));
            t.create_fails(&b);
        }
    }),
    ("linux: personality domain LINUX or LINUX32", |t| {
        t.skip_on(Flavour::Runc, "1.1 is older");
        let mut b = t.bundle();
        b.set("linux.personality", json!({"domain": "LINUX32"}));
        assert_eq!(t.report(&b)["personality"].as_i64().unwrap() & 0xff, 8);
    }),
    ("linux: memoryPolicy mode is applied or an error", |t| {
        t.skip_on_peers("older than memoryPolicy");
        let mut b = t.bundle();
        b.set("linux.memoryPolicy", json!({"mode": "MPOL_BIND", "nodes": "0", "flags": []}));
        let out = t.run(&b);
        if out.code == 0 {
            assert_eq!(out.fact(0)["extra"]["mempolicy"][0], 2, "{}", out.fact(0)["extra"]);
        } else {
            out.fails().says("memory policy|memoryPolicy|mempolicy|not implemented");
        }
        let mut b = t.bundle();
        b.set("linux.memoryPolicy", json!({"mode": "MPOL_COFFEE", "nodes": "0"}));
        t.create_fails(&b);
    }),
    (
        "linux: mountLabel on a host without SELinux is an error or without effect, never half applied",
        |t| {
            let mut b = t.bundle();
            b.set("linux.mountLabel", json!("system_u:object_r:svirt_sandbox_file_t:s0:c1,c2"));
            let out = t.run(&b);
            if out.code != 0 {
                out.fails();
            }
            t.nothing_left(&b);
        },
    ),
    ("linux: symbolic links in /dev to fd, stdin, stdout, stderr", |t| {
        let seen = t.report(&t.bundle())["devices"].clone();
        for (name, target) in
            [("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0"), ("stderr", "/proc/self/fd/2")]
        {
            assert_eq!(seen[name]["target"], target);
        }
    }),
];
