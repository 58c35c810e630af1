//! Chapter 1.2: writes to the kernel's files that a container redirects, and files that pretend to be
//! the kernel's.

use std::fs;
use std::os::unix::fs::symlink;

use corten_integration::suite::Case;
use corten_integration::{Bundle, Test, tests};
use serde_json::{Value, json};

use crate::scene::{Canary, contained, race};

pub const TESTS: &[Case] =
    tests![x1_false_kernel_files, x1_proc_mounted_below_a_swapped_name, x5_release_agent,];

/// A tree that looks like /proc, to be mounted where it must not be.
fn fake(t: &Test) -> String {
    let dir = t.dir.join("fakeproc");
    for path in [
        "self/attr/current",
        "self/attr/exec",
        "self/oom_score_adj",
        "self/setgroups",
        "self/status",
        "sys/net/ipv4/ip_forward",
        "sys/kernel/hostname",
        "sys/kernel/shm_rmid_forced",
        "self/timens_offsets",
    ] {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "fake").unwrap();
    }
    dir.to_str().unwrap().to_owned()
}

/// Everything that is written through procfs, and where the truth can be read.
fn ask(b: &mut Bundle) {
    b.set("linux.sysctl", json!({"net.ipv4.ip_forward": "1", "kernel.shm_rmid_forced": "1"}));
    b.set("process.oomScoreAdj", json!(123));
    b.set("hostname", json!("truth"));
    b.probe(&["sleep"]);
}

/// Success means applied: read from the host side, through the container's own /proc/<pid>.
#[track_caller]
fn applied(t: &Test, b: &Bundle) {
    let pid = t.pid(&b.id);
    let read = |path: &str| fs::read_to_string(format!("/proc/{pid}/{path}")).unwrap();
    assert_eq!(read("oom_score_adj").trim(), "123");
    // The sysctl of its own network namespace, asked by a process that joins only that.
    let enter = |file: &str| {
        let line = format!("nsenter -t {pid} -n -i -u cat /proc/sys/{file}; true");
        t.shell(&line).stdout.trim().to_owned()
    };
    assert_eq!(enter("net/ipv4/ip_forward"), "1");
    assert_eq!(enter("kernel/shm_rmid_forced"), "1");
    assert_eq!(enter("kernel/hostname"), "truth");
}

/// X1, CVE-2025-52881 (and X2): false kernel files from a volume, by every way to get them below /proc.
/// Applied to the kernel or refused; never reported and not done.
fn x1_false_kernel_files(t: &Test) {
    t.skip_on_peers("affected");
    let canary = Canary::new(t);
    let fake = fake(t);
    let games: &[&[(&str, &str)]] = &[
        &[("/proc", "")],
        &[("/proc/sys", "/sys")],
        &[("/proc/self/attr/exec", "/self/attr/exec")],
        &[("/proc/self/oom_score_adj", "/self/oom_score_adj")],
        &[("/proc/self/setgroups", "/self/setgroups")],
        &[("/proc/thread-self/attr/current", "/self/attr/current")],
        &[("/link/sys", "/sys")],
        &[("/link/self/oom_score_adj", "/self/oom_score_adj")],
        &[("/vol", ""), ("/vol/../proc/sys", "/sys")],
    ];
    for game in games {
        let mut b = t.bundle();
        symlink("proc", b.rootfs().join("link")).unwrap();
        ask(&mut b);
        for (point, source) in *game {
            b.mount(point, "bind", &format!("{fake}{source}"), &["bind"]);
        }
        let out = t.create(&b);
        if out.code == 0 {
            t.start(&b.id).ok();
            t.wait_asleep(&b.id);
            applied(t, &b);
            t.force(&b.id).ok();
        } else {
            t.nothing_left(&b);
        }
        canary.unharmed();
        assert_eq!(fs::read_to_string(format!("{fake}/self/attr/exec")).unwrap(), "fake");
        assert_eq!(fs::read_to_string(format!("{fake}/self/oom_score_adj")).unwrap(), "fake");
        assert_eq!(fs::read_to_string(format!("{fake}/sys/net/ipv4/ip_forward")).unwrap(), "fake");
    }
    // Without any game everything is applied: the oracle can see it.
    let mut b = t.bundle();
    ask(&mut b);
    t.create(&b).ok();
    t.start(&b.id).ok();
    t.wait_asleep(&b.id);
    applied(t, &b);
}

/// X1 as a race: the directory below which /proc is mounted is swapped.
fn x1_proc_mounted_below_a_swapped_name(t: &Test) {
    let canary = Canary::new(t);
    let volume = t.dir.join("volume");
    fs::create_dir_all(volume.join("x/p")).unwrap();
    fs::create_dir_all(volume.join("y/p")).unwrap();
    fs::remove_dir_all(volume.join("y")).unwrap();
    symlink("/proc/self", volume.join("y")).unwrap();
    let mut b = t.bundle();
    b.mount("/vol", "bind", volume.to_str().unwrap(), &["rbind"]);
    b.mount("/vol/x/attr", "proc", "proc", &[]);
    b.set("linux.sysctl", json!({"net.ipv4.ip_forward": "1"}));
    b.probe(&["read", "/proc/sys/net/ipv4/ip_forward", ";", "report", "mounts"]);
    race(t, (&volume.join("x"), &volume.join("y")), 25, || {
        let out = contained(t, &canary, &b);
        if out.code == 0 {
            assert_eq!(out.fact(0)["value"], "1\n", "reported, but not applied: {out}");
        }
        out.code == 0
    });
}

/// X5, CVE-2022-0492: with default capabilities neither a cgroup mount nor release_agent is writable.
fn x5_release_agent(t: &Test) {
    let canary = Canary::new(t);
    let mut b = t.bundle();
    b.mount("/sys/fs/cgroup", "cgroup", "cgroup", &["ro", "nosuid", "noexec", "nodev"]);
    let mut steps = vec!["report", "mounts"];
    let files: Vec<String> = ["memory", "rdma", "systemd", "freezer", "pids"]
        .iter()
        .flat_map(|c| {
            ["release_agent", "notify_on_release", "cgroup.procs"]
                .map(|f| format!("/sys/fs/cgroup/{c}/{f}"))
        })
        .collect();
    for file in &files {
        steps.extend([";", "write", file.as_str(), "0"]);
    }
    steps.extend([";", "mkdir", "/sys/fs/cgroup/pids/new", ";", "mkdir", "/sys/fs/cgroup/new"]);
    b.probe(&steps);
    let out = contained(t, &canary, &b).ok();
    for fact in out.facts().iter().skip(1) {
        assert_eq!(fact["ok"], false, "{fact}");
    }
    let groups = out.fact(0)["mounts"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|m| m["type"].as_str().is_some_and(|kind| kind.starts_with("cgroup")))
        .cloned()
        .collect::<Vec<Value>>();
    assert!(!groups.is_empty());
    for mount in groups {
        assert!(mount["options"].as_array().unwrap().contains(&json!("ro")), "{mount}");
    }
}
