//! What it shares with the container, and in which status it may enter.

use std::fs;
use std::path::Path;

use corten_integration::suite::Case;
use corten_integration::{Bundle, Flavour, Test, tests};
use serde_json::json;

use crate::container;

pub(crate) const TESTS: &[Case] = tests![
    exec_joins_every_namespace,
    exec_joins_the_cgroup,
    exec_inherits_what_the_container_was_given,
    exec_in_a_created_container,
    exec_in_a_stopped_container_is_refused,
    exec_in_a_paused_container_is_refused,
    exec_ignores_paused_if_told,
    exec_in_a_sub_cgroup,
    exec_cgroup_may_not_escape,
    exec_keeps_the_seccomp_filter,
    exec_in_a_user_namespace,
    exec_is_isolated_from_edits_of_the_config,
    exec_program_may_be_in_a_read_only_container,
];

/// All namespaces are the container's, those it shares with the host too.
fn exec_joins_every_namespace(t: &Test) {
    let mut b = t.bundle();
    b.namespace("cgroup", None);
    let pid = t.sleeper(&mut b);
    let seen = t.exec(&b.id, &[], &["report", "ns"]).ok().fact(0);
    for name in ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"] {
        let init = fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap();
        assert_eq!(seen["ns"][name], json!(init), "{name}");
    }
}

/// The program is in the container's cgroup of every hierarchy.
fn exec_joins_the_cgroup(t: &Test) {
    let (b, pid) = container(t);
    let init = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let seen = t.exec(&b.id, &[], &["report", "cgroup"]).ok().fact(0);
    let mut seen: Vec<String> = serde_json::from_value(seen["cgroup"].clone()).unwrap();
    let mut init: Vec<String> = init.lines().map(str::to_owned).collect();
    seen.sort();
    init.sort();
    assert_eq!(seen, init);
}

/// User, capabilities, limits, environment, directory, umask and scores are the container's.
fn exec_inherits_what_the_container_was_given(t: &Test) {
    let mut b = t.bundle();
    b.set(
        "process.user",
        json!({"uid": 1000, "gid": 1000, "additionalGids": [5, 20], "umask": 63}),
    )
    .set("process.cwd", json!("/tmp"))
    .set("process.oomScoreAdj", json!(77))
    .push("process.env", json!("MARK=1"))
    .set("process.rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}]));
    t.sleeper(&mut b);
    let seen = t.exec(&b.id, &[], &["report"]).ok().fact(0);
    assert_eq!(seen["uid"], json!([1000, 1000, 1000]));
    assert_eq!(seen["gid"], json!([1000, 1000, 1000]));
    assert_eq!(seen["groups"], json!([5, 20]));
    assert_eq!(seen["cwd"], "/tmp");
    assert_eq!(seen["oom_score_adj"], 77);
    assert_eq!(seen["rlimits"]["RLIMIT_NOFILE"], json!([100, 200]));
    assert_eq!(seen["nnp"], 1);
    assert!(seen["env"].as_array().unwrap().contains(&json!("MARK=1")));
    if t.flavour == Flavour::Corten {
        assert_eq!(seen["umask"], 63, "umask of process.user");
    }
}

/// A created container may be entered before its program runs.
fn exec_in_a_created_container(t: &Test) {
    let mut b = t.bundle();
    b.probe(&["exit", "0"]);
    t.create(&b).ok();
    assert_eq!(t.exec(&b.id, &[], &["print", "early"]).ok().fact(0), "early");
    assert_eq!(t.status(&b.id), "created");
}

/// A stopped container can't be entered.
fn exec_in_a_stopped_container_is_refused(t: &Test) {
    let (b, _) = container(t);
    t.kill(&b.id, "KILL").ok();
    t.wait_status(&b.id, "stopped");
    let out = t.exec(&b.id, &[], &["report"]).fails().says("cannot exec in a stopped container");
    if t.flavour != Flavour::Crun {
        out.exits(255);
    }
}

/// A paused container would let the command hang: it is refused.
fn exec_in_a_paused_container_is_refused(t: &Test) {
    t.skip_on(Flavour::Crun, "other exit code");
    let (b, _) = container(t);
    t.call(&["pause", &b.id]).ok();
    t.exec(&b.id, &[], &["report"]).fails_with(255).says("cannot exec in a paused container");
    assert_eq!(t.status(&b.id), "paused");
}

/// `--ignore-paused` enters a paused container; the program runs after resume.
fn exec_ignores_paused_if_told(t: &Test) {
    t.skip_on(Flavour::Crun, "has no such flag");
    let (b, _) = container(t);
    t.call(&["pause", &b.id]).ok();
    let exec = t.spawn(&["exec", "--ignore-paused", &b.id, "/probe", "print", "thawed"]);
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert_eq!(exec.stdout(), "");
    t.call(&["resume", &b.id]).ok();
    assert_eq!(exec.wait().ok().fact(0), "thawed");
}

/// `--cgroup` puts the process into a group below the container's, for one controller or all.
fn exec_in_a_sub_cgroup(t: &Test) {
    t.skip_on(Flavour::Crun, "v2 only");
    let (b, _) = container(t);
    let sub = b.cgroup_dir("pids").join("sub");
    fs::create_dir(&sub).unwrap();
    t.exec(&b.id, &["--cgroup", "absent"], &["report"]).fails_with(255);
    if corten_integration::cgroups::is_v2() {
        // One group for all.
        let seen = t.exec(&b.id, &["--cgroup", "sub"], &["report", "cgroup"]).ok().fact(0);
        assert!(seen["cgroup"].to_string().contains(&format!("{}/sub", b.cgroup())), "{seen}");
        t.exec(&b.id, &["--cgroup", "pids:sub"], &["report"]).fails_with(255);
        return;
    }
    let seen = t.exec(&b.id, &["--cgroup", "pids:sub"], &["report", "cgroup"]).ok().fact(0);
    let lines: Vec<String> = serde_json::from_value(seen["cgroup"].clone()).unwrap();
    let of = |name: &str| lines.iter().find(|l| l.contains(&format!(":{name}:"))).unwrap().clone();
    assert!(of("pids").ends_with(&format!("{}/sub", b.cgroup())), "{lines:?}");
    assert!(of("memory").ends_with(b.cgroup()), "{lines:?}");
}

/// A sub-cgroup can't lead out of the container's.
fn exec_cgroup_may_not_escape(t: &Test) {
    t.skip_on(Flavour::Crun, "v2 only");
    let (b, _) = container(t);
    for path in ["..", "../..", "pids:../..", "a/../../.."] {
        t.exec(&b.id, &["--cgroup", path], &["report", "cgroup"]).fails_with(255);
    }
}

/// The seccomp filter holds for exec too.
fn exec_keeps_the_seccomp_filter(t: &Test) {
    let mut b = t.bundle();
    b.set(
        "linux.seccomp",
        json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
            "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}]}),
    );
    t.sleeper(&mut b);
    let out = t.exec(&b.id, &[], &["mkdir", "/new", ";", "report", "status"]).ok();
    assert_eq!(out.fact(0)["errno"], "EOPNOTSUPP");
    assert_eq!(out.fact(1)["status"]["Seccomp"], "2");
}

/// exec enters the user namespace as its root, or as the user asked for.
fn exec_in_a_user_namespace(t: &Test) {
    let mut b = t.bundle();
    b.namespace("user", None)
        .set("linux.uidMappings", json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]))
        .set("linux.gidMappings", json!([{"containerID": 0, "hostID": 200_000, "size": 65536}]));
    open_up(&b);
    t.sleeper(&mut b);
    let seen = t.exec(&b.id, &["--user", "5:6"], &["report"]).ok().fact(0);
    assert_eq!(seen["uid"], json!([5, 5, 5]));
    let map = seen["idmaps"]["uid"][0].as_str().unwrap();
    assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", "100000", "65536"]);
    t.exec(&b.id, &["--user", "70000"], &["report"])
        .fails()
        .says("invalid argument|unmapped user|not mapped");
}

fn open_up(b: &Bundle) {
    std::os::unix::fs::chown(b.rootfs(), Some(100_000), Some(200_000)).unwrap();
}

/// exec uses the config the container was created with, not what the bundle holds now.
fn exec_is_isolated_from_edits_of_the_config(t: &Test) {
    t.skip_on(Flavour::Runc, "reads the bundle's config.json again");
    let (mut b, _) = container(t);
    b.push("process.env", json!("EVIL=1")).set("process.cwd", json!("/tmp")).write();
    let seen = t.exec(&b.id, &[], &["report", "env", "cwd"]).ok().fact(0);
    assert!(!seen["env"].to_string().contains("EVIL"), "{seen}");
    assert_eq!(seen["cwd"], "/");
    fs::remove_file(Path::new(b.path()).join("config.json")).unwrap();
    t.exec(&b.id, &[], &["report", "pid"]).ok();
}

/// exec writes nothing into the root file system, so a read-only one is fine.
fn exec_program_may_be_in_a_read_only_container(t: &Test) {
    let mut b = t.bundle();
    b.set("root.readonly", json!(true));
    t.sleeper(&mut b);
    let out = t.exec(&b.id, &[], &["create", "/x", ""]).ok();
    assert_eq!(out.fact(0)["errno"], "EROFS");
}
