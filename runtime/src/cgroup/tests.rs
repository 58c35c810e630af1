//! Real groups on this machine, below `corten-cgroup-test-PID` in every hierarchy.
//!
//! They need root and a v1 or hybrid host; what v2 can do without controllers is tested in the
//! unified hierarchy of a hybrid one, and its files in a scratch directory.
#![allow(clippy::disallowed_methods, reason = "test processes are ordinary children")]

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use oci_spec::runtime::{Linux, LinuxResources};
use serde_json::{Value, json};

use super::dir::Dir;
use super::{Cgroup, Location, Options, Plan, Record, Version};
use crate::error::Error;
use crate::sys::process::{CloneArgs, Cloned, clone};

const PATIENCE: Duration = Duration::from_secs(10);
const UNIFIED: &str = "/sys/fs/cgroup/unified";

fn top() -> String {
    format!("corten-cgroup-test-{}", std::process::id())
}

fn plan_with(path: &str, resources: &Value) -> Plan {
    let json = json!({"cgroupsPath": format!("/{}/{path}", top()), "resources": resources});
    let linux: Linux = serde_json::from_value(json).unwrap();
    Plan::new(&linux, &Options { id: "unused", ..Options::default() }).unwrap()
}

fn docker() -> Value {
    serde_json::from_str(include_str!("../../testdata/docker-resources.json")).unwrap()
}

/// A group that is gone after the test, whatever the test does.
struct Own {
    cgroup: Cgroup,
    children: Vec<Child>,
}

impl Own {
    fn located(plan: &Plan) -> Self {
        Self { cgroup: Cgroup::locate(plan).unwrap(), children: Vec::new() }
    }

    fn create(path: &str, resources: &Value) -> (Self, Plan) {
        let plan = plan_with(path, resources);
        let mut own = Self::located(&plan);
        own.cgroup.create(&plan).unwrap();
        (own, plan)
    }

    /// The v2 side of a hybrid host, as if it were all.
    fn create_v2(path: &str) -> Option<Self> {
        if !std::path::Path::new(UNIFIED).join("cgroup.procs").exists() {
            return None;
        }
        let groups = vec![Location {
            controllers: String::new(),
            mount: UNIFIED.into(),
            path: format!("{}/{path}", top()).into(),
            existed: false,
        }];
        let record =
            Record { version: Version::V2, lenient: false, taken: true, unit: None, groups };
        let mut own = Self { cgroup: Cgroup::open(&record), children: Vec::new() };
        own.cgroup.create(&plan_with(path, &json!({}))).unwrap();
        Some(own)
    }

    fn shell(&mut self, script: &str) -> Pid {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("read go; {script}")]).stdin(Stdio::piped());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let pid = Pid::from_raw(child.id() as i32);
        self.cgroup.join(pid, false).unwrap();
        drop(child.stdin.take());
        self.children.push(child);
        pid
    }

    fn dir(&self, controller: &str) -> PathBuf {
        self.cgroup.group_of(controller).unwrap().path.clone()
    }

    fn file(&self, controller: &str, file: &str) -> String {
        std::fs::read_to_string(self.dir(controller).join(file)).unwrap().trim_end().to_owned()
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        drop(self.cgroup.kill_all(PATIENCE));
        for child in &mut self.children {
            drop(child.kill());
            drop(child.wait());
        }
        drop(self.cgroup.remove());
        for group in &self.cgroup.groups {
            // Only empty ones go: other tests are still in theirs.
            for above in group.at.path.ancestors().skip(1).filter(|p| !p.as_os_str().is_empty()) {
                drop(std::fs::remove_dir(group.at.mount.join(above)));
            }
        }
    }
}

fn not_here() -> bool {
    let here = nix::unistd::geteuid().is_root()
        && std::path::Path::new("/sys/fs/cgroup/devices/devices.list").exists();
    if !here {
        eprintln!("skipped: needs root and cgroup v1");
    }
    !here
}

fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !check() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_docker_container_lives_and_leaves_nothing() {
    if not_here() {
        return;
    }
    let plan = plan_with("docker/life", &docker());
    let mut own = Own::located(&plan);
    let journal = serde_json::to_string(&own.cgroup.record()).unwrap();
    own.cgroup.create(&plan).unwrap();
    own.cgroup.apply(&plan).unwrap();
    assert_eq!(own.file("memory", "memory.limit_in_bytes"), "268435456");
    assert_eq!(own.file("cpu", "cpu.cfs_quota_us"), "50000");
    assert_eq!(own.file("cpu", "cpu.cfs_period_us"), "100000");
    assert_eq!(own.file("cpu", "cpu.shares"), "1024");
    assert_eq!(own.file("pids", "pids.max"), "100");
    assert_eq!(own.file("devices", "devices.list").lines().count(), 12);

    let pid = own.shell("while :; do :; done");
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let outside = |line: &&str| !line.ends_with("/docker/life") && !line.contains(":name=");
    assert_eq!(groups.lines().find(outside), None, "{groups}");
    assert_eq!(own.cgroup.pids().unwrap(), [pid]);
    eventually("it uses the processor", || own.cgroup.stats().unwrap().cpu.usage.total > 1_000_000);
    let stats = own.cgroup.stats().unwrap();
    assert_eq!((stats.pids.current, stats.pids.limit), (1, 100));
    assert_eq!(stats.memory.usage.limit, 268_435_456);
    assert!(stats.cpuset.cpus.contains(&0));
    assert_eq!(own.cgroup.oom_kill_count().unwrap(), 0);

    // The rest is another command's, which has only the journal.
    let later = Cgroup::open(&serde_json::from_str(&journal).unwrap());
    later.freeze().unwrap();
    assert!(later.is_frozen().unwrap());
    later.thaw().unwrap();
    assert!(!later.is_frozen().unwrap());
    later.kill_all(PATIENCE).unwrap();
    assert!(!own.children.pop().unwrap().wait().unwrap().success());
    later.remove().unwrap();
    assert!(!later.exists().unwrap());
    later.remove().unwrap();
    later.kill_all(PATIENCE).unwrap();
    assert_eq!(later.pids().unwrap(), []);
}

#[test]
fn a_group_with_processes_or_below_a_frozen_one_is_refused() {
    if not_here() {
        return;
    }
    let (mut own, plan) = Own::create("busy", &json!({}));
    own.shell("exec sleep 100");
    let again = Cgroup::locate(&plan).unwrap().create(&plan).unwrap_err().to_string();
    // The shell and its sleep can both be seen for a moment.
    assert!(again.contains("container's cgroup is not empty: "), "{again}");
    assert!(again.contains(" process(es) found"), "{again}");

    own.cgroup.freeze().unwrap();
    let plan = plan_with("busy/below", &json!({}));
    let mut below = Cgroup::locate(&plan).unwrap();
    let frozen = below.create(&plan).unwrap_err().to_string();
    assert!(frozen.contains("unexpectedly frozen"), "{frozen}");
    assert!(!below.exists().unwrap(), "what was made is undone");
}

#[test]
fn a_crash_before_create_makes_no_other_group_ours() {
    if not_here() {
        return;
    }
    let (mut other, plan) = Own::create("other", &json!({}));
    let pid = other.shell("exec sleep 100");
    let mut late = Cgroup::locate(&plan).unwrap();
    let journal = late.record();
    assert!(late.create(&plan).is_err());
    for record in [journal, late.record()] {
        let cleaner = Cgroup::open(&record);
        cleaner.kill_all(PATIENCE).unwrap();
        cleaner.remove().unwrap();
    }
    assert_eq!(other.cgroup.pids().unwrap(), [pid]);
}

#[test]
fn an_empty_group_that_was_there_is_used_and_stays() {
    if not_here() {
        return;
    }
    let (own, plan) = Own::create("there", &json!({}));
    let mut second = Own::located(&plan);
    second.cgroup.create(&plan).unwrap();
    second.cgroup.apply(&plan).unwrap();
    std::fs::create_dir_all(second.dir("memory").join("a/b")).unwrap();
    second.cgroup.remove().unwrap();
    assert!(own.cgroup.exists().unwrap());
    assert!(!own.dir("memory").join("a").exists());
}

#[test]
fn cpusets_are_filled_from_above() {
    if not_here() {
        return;
    }
    let (mut own, plan) = Own::create("deep/a/b", &json!({"cpu": {"cpus": "0"}}));
    own.cgroup.apply(&plan).unwrap();
    assert_eq!(own.file("cpuset", "cpuset.cpus"), "0");
    assert_eq!(own.file("cpuset", "cpuset.mems"), "0");
    own.shell("exec sleep 100");
}

#[test]
fn a_kill_reaches_the_frozen_and_the_nested() {
    if not_here() {
        return;
    }
    let (mut own, _plan) = Own::create("nested", &json!({}));
    let pid = own.shell("exec sleep 100 & sleep 100 & wait");
    eventually("three processes", || own.cgroup.pids().unwrap().len() == 3);
    // v1 only: what can't be killed at once, frozen two levels down.
    let below = own.dir("freezer").join("x/y");
    std::fs::create_dir_all(&below).unwrap();
    std::fs::write(below.join("cgroup.procs"), pid.to_string()).unwrap();
    std::fs::write(below.join("freezer.state"), "FROZEN").unwrap();
    own.cgroup.freeze().unwrap();
    let start = Instant::now();
    own.cgroup.kill_all(PATIENCE).unwrap();
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    assert!(!own.cgroup.is_frozen().unwrap());
    own.cgroup.remove().unwrap();
    assert!(!own.cgroup.exists().unwrap());
}

/// Two commands take the same container away: the kernel drops what it has not told yet of a group
/// that is removed, and it tells nothing within 10 ms after the last time.
#[test]
fn a_kill_does_not_wait_for_a_group_that_another_command_has_removed() {
    if not_here() {
        return;
    }
    for round in 0..20 {
        let Some(mut own) = Own::create_v2(&format!("removed{round}")) else { return };
        own.shell("exec sleep 100");
        let record = own.cgroup.record();
        let kill = std::thread::spawn(move || {
            let start = Instant::now();
            (Cgroup::open(&record).kill_all(PATIENCE), start.elapsed())
        });
        own.children[0].wait().unwrap();
        own.cgroup.remove().unwrap();
        let (killed, took) = kill.join().unwrap();
        killed.unwrap();
        assert!(took < Duration::from_secs(2), "round {round}: {took:?}");
    }
}

#[test]
fn a_kill_without_cgroup_kill_ends_a_fork_bomb() {
    if not_here() {
        return;
    }
    let (mut own, plan) = Own::create("bomb", &json!({"pids": {"limit": 150}}));
    own.cgroup.apply(&plan).unwrap();
    // Without the v2 group there is no cgroup.kill.
    let mut without = own.cgroup.record();
    without.version = Version::V1;
    without.groups.retain(|group| !group.controllers.is_empty());
    let without = Cgroup::open(&without);
    // A shell would give up when the limit stops its fork.
    let pid = own.shell("exec perl -e 'while (1) { fork }'");
    eventually("it has spread", || own.cgroup.pids().unwrap().len() > 140);
    let start = Instant::now();
    without.kill_all(PATIENCE).unwrap();
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    assert!(nix::sys::signal::kill(pid, None).is_ok(), "unreaped, but dead");
    own.children.pop().unwrap().wait().unwrap();
}

#[test]
fn a_signal_reaches_all_and_leaves_a_paused_container_paused() {
    if not_here() {
        return;
    }
    let (mut own, _plan) = Own::create("signal", &json!({}));
    own.shell("trap '' TERM; (trap 'exit 3' TERM; sleep 100 & wait) & wait");
    eventually("three processes", || own.cgroup.pids().unwrap().len() == 3);
    own.cgroup.freeze().unwrap();
    own.cgroup.signal_all(nix::libc::SIGTERM).unwrap();
    assert!(own.cgroup.is_frozen().unwrap());
    own.cgroup.thaw().unwrap();
    eventually("the shell that traps it alone is left or gone", || {
        own.cgroup.pids().unwrap().len() <= 1
    });
}

fn may_open(own: &mut Own, device: &str) -> bool {
    own.shell(&format!("exec 3<{device} && echo yes"));
    let output = own.children.pop().unwrap().wait_with_output().unwrap();
    output.stdout == b"yes\n"
}

#[test]
fn devices_are_denied_on_both_versions() {
    if not_here() {
        return;
    }
    let (mut v1, _) = Own::create("devices", &json!({}));
    assert!(may_open(&mut v1, "/dev/kmsg"));
    v1.cgroup.apply(&plan_with("devices", &json!({}))).unwrap();
    assert!(!may_open(&mut v1, "/dev/kmsg"));
    assert!(may_open(&mut v1, "/dev/null"));

    let Some(mut v2) = Own::create_v2("devices2") else { return };
    let plan = |rules: Value| plan_with("devices2", &json!({"devices": rules}));
    assert!(may_open(&mut v2, "/dev/kmsg"));
    v2.cgroup.apply_devices(&plan(json!([]))).unwrap();
    assert!(!may_open(&mut v2, "/dev/kmsg"));
    assert!(may_open(&mut v2, "/dev/null"));
    // Replaced, not added: an added one could only forbid more.
    let kmsg = json!([{"allow": true, "type": "c", "major": 1, "minor": 11, "access": "r"}]);
    v2.cgroup.apply_devices(&plan(kmsg)).unwrap();
    assert!(may_open(&mut v2, "/dev/kmsg"));
    let dir = Dir::open(&v2.dir("")).unwrap();
    assert_eq!(crate::sys::bpf::device_programs(&dir).unwrap().len(), 1);
    // Large rule sets load, too.
    let many: Vec<Value> = (0..300)
        .map(|n| json!({"allow": n % 3 != 0, "type": "b", "major": n, "minor": n, "access": "rw"}))
        .collect();
    v2.cgroup.apply_devices(&plan(json!(many))).unwrap();
    assert!(!may_open(&mut v2, "/dev/kmsg"));
    // In a scope there is systemd's, which is not ours to replace.
    let mut scope = plan(json!([]));
    let path = std::path::Path::new("a.slice:b:c");
    scope.unit = Some(super::systemd::Plan::new(Some(path), "unused", None, false).unwrap());
    v2.cgroup.apply_devices(&scope).unwrap();
    assert_eq!(crate::sys::bpf::device_programs(&dir).unwrap().len(), 2);
}

#[test]
fn v2_freezes_kills_and_takes_the_newborn() {
    if not_here() {
        return;
    }
    let Some(mut own) = Own::create_v2("v2") else { return };
    assert!(own.cgroup.clone_fd().unwrap().is_some());
    let pid = own.shell("exec sleep 100 & wait");
    eventually("two processes", || own.cgroup.pids().unwrap().len() == 2);
    let below = own.dir("").join("x/y");
    std::fs::create_dir_all(&below).unwrap();
    std::fs::write(below.join("cgroup.procs"), pid.to_string()).unwrap();
    std::fs::write(below.join("cgroup.freeze"), "1").unwrap();
    own.cgroup.freeze().unwrap();
    assert!(own.cgroup.is_frozen().unwrap());
    own.cgroup.kill_all(PATIENCE).unwrap();
    assert!(!own.cgroup.is_frozen().unwrap());
    own.cgroup.remove().unwrap();
    assert!(!own.cgroup.exists().unwrap());
}

#[test]
fn an_update_happens_as_a_whole_or_not_at_all() {
    if not_here() {
        return;
    }
    let before = json!({"memory": {"limit": 64 << 20, "swap": 64 << 20}, "cpu": {"shares": 100}});
    let (own, plan) = Own::create("update", &before);
    own.cgroup.apply(&plan).unwrap();
    let resources = |json: Value| serde_json::from_value::<LinuxResources>(json).unwrap();
    // Up beyond the old swap, and down below the old memory: both orders of writing.
    let up = json!({"memory": {"limit": 128 << 20, "swap": 256 << 20}, "pids": {"limit": 9}});
    let update = |old: &LinuxResources, new: Value| {
        let mut saved = LinuxResources::default();
        let done = own.cgroup.update(old, &resources(new), |merged| {
            saved = merged.clone();
            Ok(())
        });
        done.map(|()| saved)
    };
    let saved = update(&plan.resources, up).unwrap();
    assert_eq!(own.file("memory", "memory.memsw.limit_in_bytes"), (256 << 20).to_string());
    assert_eq!(own.file("pids", "pids.max"), "9");
    let down = json!({"memory": {"limit": 32 << 20, "swap": 32 << 20}});
    let saved = update(&saved, down).unwrap();
    assert_eq!(own.file("memory", "memory.memsw.limit_in_bytes"), (32 << 20).to_string());
    let bad = json!({"cpu": {"shares": 500, "cpus": "0,4000"}, "pids": {"limit": 7}});
    let error = update(&saved, bad).unwrap_err().to_string();
    assert!(error.starts_with("linux.resources.cpu.cpus: write"), "{error}");
    assert_eq!(own.file("cpu", "cpu.shares"), "100");
    assert_eq!(own.file("pids", "pids.max"), "9");
    // One that can't be written down is not in force.
    let full = |_: &LinuxResources| Err(Error::sys("write", Errno::ENOSPC));
    let other = resources(json!({"cpu": {"shares": 500}, "pids": {"limit": 7}}));
    let error = own.cgroup.update(&saved, &other, full).unwrap_err();
    assert_eq!(error.errno(), Some(Errno::ENOSPC));
    assert_eq!(
        (own.file("cpu", "cpu.shares"), own.file("pids", "pids.max")),
        ("100".into(), "9".into())
    );
    let unlimited = json!({"memory": {"limit": -1}, "pids": {"limit": -1}});
    update(&saved, unlimited).unwrap();
    assert_eq!(own.file("pids", "pids.max"), "max");
    assert!(own.file("memory", "memory.memsw.limit_in_bytes").starts_with("9223"));
}

#[test]
fn what_this_host_lacks_is_an_error_before_anything_is_made() {
    if not_here() {
        return;
    }
    for (resources, words) in [
        (json!({"unified": {"memory.high": "1"}}), "linux.resources.unified: needs cgroup v2"),
        (
            json!({"rdma": {"mlx5_1": {"hcaHandles": 3}}}),
            "linux.resources.rdma[\"mlx5_1\"]: cgroup controller rdma is not mounted",
        ),
    ] {
        let plan = plan_with("lacks", &resources);
        let mut own = Own::located(&plan);
        let error = own.cgroup.create(&plan).unwrap_err().to_string();
        assert!(error.starts_with(words), "{error}");
        assert!(!own.cgroup.exists().unwrap());
    }
    let (own, plan) =
        Own::create("sizes", &json!({"hugepageLimits": [{"pageSize": "3MB", "limit": 0}]}));
    let error = own.cgroup.apply(&plan).unwrap_err().to_string();
    assert!(error.contains("hugepageLimits[0]"), "{error}");
}

#[test]
fn a_child_enters_by_itself() {
    if not_here() {
        return;
    }
    for born in [false, true] {
        let (own, _plan) = Own::create(if born { "born" } else { "enter" }, &json!({}));
        let fd = own.cgroup.clone_fd().unwrap();
        let cgroup = fd.as_ref().map(AsFd::as_fd).filter(|_| born);
        let seats = own.cgroup.seats(born && cgroup.is_some()).unwrap();
        match clone(&CloneArgs { cgroup, ..CloneArgs::default() }).unwrap() {
            Cloned::Child => {
                drop(seats.take());
                loop {
                    std::thread::park();
                }
            }
            Cloned::Parent(pid, _fd) => {
                let file = format!("/proc/{pid}/cgroup");
                let ours = |line: &str| line.contains("corten-cgroup-test");
                let foreign = |line: &str| line.contains(":name=") && !line.contains("systemd");
                eventually("it is in all groups", || {
                    let groups = std::fs::read_to_string(&file).unwrap();
                    groups.lines().all(|line| ours(line) || foreign(line))
                });
                own.cgroup.kill_all(PATIENCE).unwrap();
                nix::sys::wait::waitpid(pid, None).unwrap();
            }
        }
    }
}

#[test]
fn sub_groups_of_an_exec_stay_inside() {
    if not_here() {
        return;
    }
    let (own, _plan) = Own::create("exec", &json!({}));
    std::fs::create_dir(own.dir("memory").join("sub")).unwrap();
    let sub = own.cgroup.sub_groups(&["memory:sub"]).unwrap();
    assert!(sub.record().groups.iter().any(|group| group.path.ends_with("exec/sub")));
    for bad in ["../x", "memory:../..", "nosuch:sub", "memory:missing", "sub"] {
        assert!(own.cgroup.sub_groups(&[bad]).is_err(), "{bad}");
    }
}

/// The files of a v2 group with all controllers, which this machine has not.
#[test]
fn v2_limits_reach_their_files() {
    let tmp = tempfile::tempdir().unwrap();
    let leaf = tmp.path().join("leaf");
    std::fs::create_dir(&leaf).unwrap();
    for (file, text) in [
        ("cpu.max", ""),
        ("cpu.weight", ""),
        ("memory.max", ""),
        ("memory.swap.max", ""),
        ("pids.max", ""),
        ("io.weight", ""),
        ("cpuset.cpus", ""),
        ("cpuset.cpus.effective", "0-1\n"),
        ("cgroup.controllers", "cpu memory pids io cpuset\n"),
        ("cgroup.type", "domain\n"),
    ] {
        std::fs::write(leaf.join(file), text).unwrap();
    }
    let groups = vec![Location {
        controllers: String::new(),
        mount: tmp.path().to_owned(),
        path: "leaf".into(),
        existed: false,
    }];
    let cgroup = Cgroup::open(&Record {
        version: Version::V2,
        lenient: false,
        taken: true,
        unit: None,
        groups,
    });
    let plan = |resources: Value| plan_with("x", &resources);
    cgroup
        .apply_limits(&plan(json!({
            "cpu": {"shares": 1024, "quota": 50000, "period": 100_000, "cpus": "0-3"},
            "memory": {"limit": 1000, "swap": 3000}, "pids": {"limit": 7},
            "blockIO": {"weight": 500},
        })))
        .unwrap();
    for (file, text) in [
        ("cpu.max", "50000 100000"),
        ("cpu.weight", "100"),
        ("memory.max", "1000"),
        ("memory.swap.max", "2000"),
        ("pids.max", "7"),
        ("io.weight", "4950"),
    ] {
        assert_eq!(std::fs::read_to_string(leaf.join(file)).unwrap(), text, "{file}");
    }
    for (resources, words) in [
        (json!({"cpu": {"cpus": "4-7"}}), "has none of those available here"),
        (
            json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 0}]}),
            "cgroup controller hugetlb is not available",
        ),
        (
            json!({"unified": {"memory.nosuch": "1"}}),
            "linux.resources.unified[\"memory.nosuch\"]: write",
        ),
    ] {
        let error = cgroup.apply_limits(&plan(resources)).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn without_permission_only_what_was_not_asked_for_is_left_out() {
    if not_here() {
        return;
    }
    let me = std::env::current_exe().unwrap();
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(me)
        .args(["--exact", "cgroup::tests::as_nobody", "--ignored"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("1 passed"), "{said} {output:?}");
}

#[test]
#[ignore = "run by without_permission_only_what_was_not_asked_for_is_left_out"]
fn as_nobody() {
    let attempt = |linux: Value| -> crate::Result<Cgroup> {
        let linux: Linux = serde_json::from_value(linux).unwrap();
        let options = Options { id: "corten-cgroup-nobody", rootless: true, ..Options::default() };
        let plan = Plan::new(&linux, &options)?;
        let mut cgroup = Cgroup::locate(&plan)?;
        cgroup.create(&plan)?;
        cgroup.apply(&plan)?;
        cgroup.join(nix::unistd::getpid(), false)?;
        Ok(cgroup)
    };
    let cgroup = attempt(json!({})).unwrap();
    assert_eq!((cgroup.version(), cgroup.record().groups.len()), (Version::None, 0));
    cgroup.remove().unwrap();
    assert!(!cgroup.is_frozen().unwrap() && cgroup.pids().unwrap().is_empty());
    let error = attempt(json!({"resources": {"pids": {"limit": 5}}})).unwrap_err().to_string();
    assert_eq!(error, "cannot set pids limit: container could not join or create cgroup");
    let error = attempt(json!({"cgroupsPath": "/corten-cgroup-nobody"})).unwrap_err();
    assert!(error.to_string().ends_with("permission denied"), "{error}");
}

#[test]
fn an_exec_can_follow_the_first_process_into_its_own_group() {
    if not_here() {
        return;
    }
    let (mut own, _plan) = Own::create("moved", &json!({}));
    let pid = own.shell("exec sleep 100");
    let sub = own.dir("pids").join("inner");
    std::fs::create_dir(&sub).unwrap();
    std::fs::write(sub.join("cgroup.procs"), pid.to_string()).unwrap();
    let follow = own.cgroup.of_process(pid).unwrap().record();
    for group in follow.groups {
        let inner = group.path.ends_with("moved/inner");
        assert_eq!(inner, group.controllers == "pids", "{group:?}");
    }
}

/// `cargo test --release -- --ignored --nocapture measure`
#[test]
#[ignore = "a measurement"]
fn measure() {
    let resources = docker();
    let mut times: Vec<(&str, Vec<Duration>)> = Vec::new();
    let mut note = |name: &'static str, since: Instant| {
        let took = since.elapsed();
        match times.iter_mut().find(|(known, _)| *known == name) {
            Some((_, list)) => list.push(took),
            None => times.push((name, vec![took])),
        }
    };
    // Docker's parent is always there.
    let _parent = Own::create("keeper", &json!({}));
    let gap = std::env::var("GAP").ok().and_then(|ms| ms.parse().ok()).unwrap_or(1);
    for round in 0..100 {
        let start = Instant::now();
        let plan = plan_with(&format!("measure{round}"), &resources);
        note("plan", start);
        let mut child = Command::new("sleep").arg("100").spawn().unwrap();
        let pid = Pid::from_raw(child.id() as i32);
        std::thread::sleep(Duration::from_millis(gap));
        let start = Instant::now();
        let mut own = Own::located(&plan);
        note("locate", start);
        let start = Instant::now();
        own.cgroup.create(&plan).unwrap();
        note("create", start);
        let start = Instant::now();
        own.cgroup.apply_limits(&plan).unwrap();
        note("limits", start);
        let start = Instant::now();
        own.cgroup.apply_devices(&plan).unwrap();
        note("devices", start);
        let start = Instant::now();
        if std::env::var_os("JOIN").is_some() {
            own.cgroup.join(pid, false).unwrap();
        }
        note("join", start);
        for (name, born, enter) in [
            ("clone", false, false),
            ("clone, enter", false, true),
            ("clone into v2, enter", true, true),
        ] {
            let fd = own.cgroup.clone_fd().unwrap();
            let cgroup = fd.as_ref().map(AsFd::as_fd).filter(|_| born);
            let start = Instant::now();
            let seats = own.cgroup.seats(born).unwrap();
            match clone(&CloneArgs { cgroup, ..CloneArgs::default() }).unwrap() {
                Cloned::Child => {
                    let entered = if enter { seats.take().is_ok() } else { true };
                    // The copy of a test process must not run what a test does when it ends.
                    let signal = if entered { Signal::SIGKILL } else { Signal::SIGABRT };
                    nix::sys::signal::kill(nix::unistd::getpid(), signal).unwrap();
                    unreachable!()
                }
                Cloned::Parent(pid, _fd) => {
                    let status = nix::sys::wait::waitpid(pid, None).unwrap();
                    assert!(format!("{status:?}").contains("SIGKILL"), "{status:?}");
                    note(name, start);
                }
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let start = Instant::now();
        own.cgroup.remove().unwrap();
        note("remove", start);
    }
    for (name, mut list) in times {
        list.sort_unstable();
        let at = |part: usize| list[(list.len() - 1) * part / 100].as_secs_f64() * 1e6;
        println!("{name:20} median {:7.1} us, p10 {:7.1}, p90 {:7.1}", at(50), at(10), at(90));
    }
}
