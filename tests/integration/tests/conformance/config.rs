//! config.md and bundle.md, without the hooks.

use std::fs;

use corten_integration::Flavour;
use corten_integration::suite::Case;
use serde_json::json;

/// The options of a mount in the container, per mount and of the file system.
fn options(seen: &serde_json::Value, point: &str) -> String {
    let mounts = seen["mounts"].as_array().unwrap();
    let mount = mounts.iter().rfind(|m| m["point"] == point);
    let mount = mount.unwrap_or_else(|| panic!("no mount at {point}"));
    format!("{} {} {}", mount["options"], mount["super"], mount["optional"])
}

/// The sentences.
pub const CASES: &[Case] = &[
    ("bundle: config.json MUST reside in the root of the bundle directory", |t| {
        let b = t.bundle();
        t.call(&["create", "--bundle", b.path(), &b.id]).fails();
    }),
    ("config: ociVersion MUST be in SemVer v2.0.0 format", |t| {
        t.skip_on_peers("don't look");
        for bad in ["1", "1.0", "v1.0.0", "one"] {
            let mut b = t.bundle();
            b.set("ociVersion", json!(bad));
            t.create_fails(&b);
        }
    }),
    ("config: a directory MUST exist at the path declared by root.path", |t| {
        let mut b = t.bundle();
        b.set("root.path", json!("absent"));
        t.create_fails(&b);
    }),
    ("config: root.readonly true MUST be read-only inside the container, defaults to false", |t| {
        let mut b = t.bundle();
        b.set("root.readonly", json!(true)).probe(&["create", "/x", ""]);
        assert_eq!(t.run(&b).ok().fact(0)["errno"], "EROFS");
        let mut b = t.bundle();
        b.unset("root.readonly").probe(&["create", "/x", ""]);
        assert_eq!(t.run(&b).ok().fact(0)["ok"], true);
    }),
    ("config: the runtime MUST mount entries in the listed order", |t| {
        let mut b = t.bundle();
        b.mount("/a", "tmpfs", "one", &[]).mount("/a/b", "tmpfs", "two", &[]).mount(
            "/a",
            "tmpfs",
            "three",
            &[],
        );
        b.probe(&["report", "mounts", ";", "ls", "/a/b"]);
        let out = t.run(&b).ok();
        assert_eq!(out.fact(1)["errno"], "ENOENT", "the third covers the second");
    }),
    ("config: a relative destination MUST be interpreted as relative to /", |t| {
        let mut b = t.bundle();
        b.mount("rel", "tmpfs", "x", &[]);
        options(&t.report(&b), "/rel");
    }),
    ("config: MUST implement the options of the table for Linux", |t| {
        t.skip_on_peers("lack some");
        let all = [
            "async",
            "atime",
            "defaults",
            "dev",
            "diratime",
            "dirsync",
            "exec",
            "iversion",
            "lazytime",
            "loud",
            "noatime",
            "nodev",
            "nodiratime",
            "noexec",
            "noiversion",
            "nolazytime",
            "norelatime",
            "nostrictatime",
            "nosuid",
            "relatime",
            "ro",
            "rw",
            "silent",
            "strictatime",
            "suid",
            "sync",
        ];
        let mut b = t.bundle();
        for option in all {
            b.mount(&format!("/o/{option}"), "tmpfs", "tmpfs", &[option]);
        }
        for option in [
            "bind",
            "rbind",
            "private",
            "rprivate",
            "shared",
            "rshared",
            "slave",
            "rslave",
            "unbindable",
            "runbindable",
        ] {
            b.mount(&format!("/o/{option}"), "bind", "/usr/share", &["rbind", option]);
        }
        b.mount("/r", "tmpfs", "tmpfs", &[]).mount("/r", "tmpfs", "tmpfs", &["remount", "ro"]);
        let seen = t.report(&b);
        for shown in [
            "dirsync",
            "lazytime",
            "noatime",
            "nodev",
            "nodiratime",
            "noexec",
            "nosuid",
            "relatime",
            "ro",
            "sync",
        ] {
            assert!(
                options(&seen, &format!("/o/{shown}")).contains(&format!("\"{shown}\"")),
                "{shown}"
            );
        }
        assert!(options(&seen, "/o/shared").contains("shared:"));
        assert!(options(&seen, "/o/unbindable").contains("unbindable"));
        assert!(options(&seen, "/r").contains("\"ro\""), "{}", options(&seen, "/r"));
    }),
    ("config: tmpcopyup copies up the contents to a tmpfs", |t| {
        let mut b = t.bundle();
        b.mount("/etc", "tmpfs", "tmpfs", &["tmpcopyup"]).probe(&["read", "/etc/group"]);
        assert!(t.run(&b).ok().fact(0)["value"].as_str().unwrap().contains("root"));
    }),
    ("config: if uidMappings or gidMappings are specified for the mount they MUST be used", |t| {
        t.skip_on_peers("older than idmapped mounts");
        let dir = t.dir.join("d");
        fs::create_dir(&dir).unwrap();
        let mut b = t.bundle();
        let map = json!([{"containerID": 0, "hostID": 777, "size": 1000}]);
        b.push(
            "mounts",
            json!({"destination": "/d", "type": "bind", "source": dir, "options": ["bind", "idmap"],
            "uidMappings": map, "gidMappings": map}),
        );
        b.probe(&["stat", "/d"]);
        assert_eq!(t.run(&b).ok().fact(0)["value"]["uid"], 777);
    }),
    (
        "config: idmap without mappings and without a user namespace: an error MUST be returned",
        |t| {
            t.skip_on_peers("older than idmapped mounts");
            let mut b = t.bundle();
            b.mount("/d", "bind", "/usr/share", &["bind", "idmap"]);
            t.create_fails(&b);
        },
    ),
    ("config: uidMappings MUST be specified along with gidMappings", |t| {
        t.skip_on_peers("older than idmapped mounts");
        let mut b = t.bundle();
        b.push(
            "mounts",
            json!({"destination": "/d", "type": "bind", "source": "/usr/share", "options": ["bind"],
            "uidMappings": [{"containerID": 0, "hostID": 777, "size": 1000}]}),
        );
        t.create_fails(&b);
    }),
    ("config: runtimes MUST ignore consoleSize if terminal is false or unset", |t| {
        let mut b = t.bundle();
        b.set("process.consoleSize", json!({"height": 5, "width": 5})).probe(&["exit", "0"]);
        t.run(&b).ok();
    }),
    ("config: cwd MUST be an absolute path", |t| {
        let mut b = t.bundle();
        b.set("process.cwd", json!("tmp"));
        t.create_fails(&b);
    }),
    ("config: env has the same semantics as environ", |t| {
        let mut b = t.bundle();
        b.set("process.env", json!(["PATH=/", "X=1=2"]));
        assert!(t.report(&b)["env"].as_array().unwrap().contains(&json!("X=1=2")));
    }),
    ("config: args, at least one entry is REQUIRED, semantics of execvp's file", |t| {
        let mut b = t.bundle();
        b.args(&[]);
        t.create_fails(&b);
        let mut b = t.bundle();
        b.set("process.env", json!(["PATH=/nowhere:/"])).args(&["probe", "print", "found"]);
        assert_eq!(t.run(&b).ok().fact(0), "found");
    }),
    (
        "config: an error for any rlimit type which cannot be mapped to a relevant kernel interface",
        |t| {
            let mut b = t.bundle();
            b.push("process.rlimits", json!({"type": "RLIMIT_COFFEE", "soft": 1, "hard": 1}));
            t.create_fails(&b);
        },
    ),
    ("config: rlim_cur and rlim_max MUST match the configured values", |t| {
        let mut b = t.bundle();
        b.set("process.rlimits", json!([{"type": "RLIMIT_CORE", "soft": 5, "hard": 9}]));
        assert_eq!(t.report(&b)["rlimits"]["RLIMIT_CORE"], json!([5, 9]));
    }),
    ("config: rlimits with duplicated entries of one type MUST generate an error", |t| {
        t.skip_on_peers("take the last");
        let mut b = t.bundle();
        b.push("process.rlimits", json!({"type": "RLIMIT_NOFILE", "soft": 1, "hard": 1}));
        t.create_fails(&b);
    }),
    ("config: noNewPrivileges true prevents the process from gaining additional privileges", |t| {
        assert_eq!(t.report(&t.bundle())["nnp"], 1);
    }),
    ("config: a capability that cannot be granted MUST be logged as a warning", |t| {
        t.skip_on(Flavour::Crun, "refuses it");
        let mut b = t.bundle();
        b.capabilities(&["CAP_KILL", "CAP_COFFEE"]).probe(&["exit", "0"]);
        assert!(t.run(&b).ok().stderr.contains("CAP_COFFEE"));
    }),
    ("config: if oomScoreAdj is set the runtime MUST set oom_score_adj", |t| {
        let mut b = t.bundle();
        b.set("process.oomScoreAdj", json!(42));
        assert_eq!(t.report(&b)["oom_score_adj"], 42);
    }),
    ("config: if oomScoreAdj is not set the runtime MUST NOT change oom_score_adj", |t| {
        let b = t.bundle();
        b.write();
        let line = format!(
            "echo 17 >/proc/self/oom_score_adj; $RUNTIME --root $ROOT run -b {} {}",
            b.path(),
            b.id
        );
        assert_eq!(t.shell(&line).ok().fact(0)["oom_score_adj"], 17);
    }),
    ("config: user.uid and user.gid are ids in the container namespace", |t| {
        let mut b = t.bundle();
        b.set("process.user", json!({"uid": 12, "gid": 34, "additionalGids": [56]}));
        let seen = t.report(&b);
        assert_eq!(
            (&seen["uid"][0], &seen["gid"][0], &seen["groups"]),
            (&json!(12), &json!(34), &json!([56]))
        );
    }),
    ("config: hostname is the container's hostname as seen inside", |t| {
        let mut b = t.bundle();
        b.set("hostname", json!("here"));
        assert_eq!(t.report(&b)["uname"]["hostname"], "here");
    }),
    ("config: annotation keys MUST NOT be an empty string", |t| {
        t.skip_on_peers("don't look");
        let mut b = t.bundle();
        b.set("annotations", json!({"": "x"}));
        t.create_fails(&b);
    }),
    ("config: annotation values MUST be strings", |t| {
        let mut b = t.bundle();
        b.set("annotations", json!({"x": 1}));
        t.create_fails(&b);
    }),
    ("config: unknown properties MUST be ignored, unknown annotations too", |t| {
        let mut b = t.bundle();
        b.set("of.tomorrow", json!([1])).set("process.tomorrow", json!(true));
        b.set("annotations", json!({"org.opencontainers.tomorrow": "x"})).probe(&["exit", "0"]);
        t.run(&b).ok();
    }),
    ("config: an error when invalid or unsupported values are encountered", |t| {
        for (path, value) in [
            ("linux.rootfsPropagation", json!("sideways")),
            ("process.terminal", json!("yes")),
            ("linux.seccomp", json!({"defaultAction": "SCMP_ACT_COFFEE"})),
        ] {
            let mut b = t.bundle();
            b.set(path, value);
            t.create_fails(&b);
        }
    }),
];
