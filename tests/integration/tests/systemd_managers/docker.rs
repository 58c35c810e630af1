//! dockerd with `native.cgroupdriver=systemd`: with the runtime under containerd's own shim, and
//! with our shim.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use corten_integration::managers::daemon::Daemon;
use corten_integration::managers::docker::{self, Docker};
use corten_integration::managers::{Stop, Verdict, check, contains, eventually, same, trial};
use libtest_mimic::Trial;
use nix::sys::signal::Signal;

use crate::{GROUP, SLICE, file, files, gone, group_of, lab, properties, systemctl};

type Test = fn(&Docker) -> Verdict;

const TESTS: [(&str, Test); 6] = [
    ("container_is_a_scope", container_is_a_scope),
    ("reload_keeps_limits_and_devices", reload_keeps_limits_and_devices),
    ("update", update),
    ("exec_is_in_the_scope", exec_is_in_the_scope),
    ("pause_and_stats", pause_and_stats),
    ("without_a_parent", without_a_parent),
];

struct Daemons {
    with_shim: bool,
    containerd: Daemon,
    docker: Docker,
}

/// One pair at a time: they share the place of their sockets.
static DAEMONS: Mutex<Option<Daemons>> = Mutex::new(None);

pub(crate) fn trials() -> Vec<Trial> {
    let mut all = Vec::new();
    for (group, with_shim) in [("docker", false), ("docker_shim", true)] {
        for (name, test) in TESTS {
            all.push(trial(group, name, move || with(with_shim, test)));
        }
    }
    // containerd's own shim loses such an event now and then, with runc as well.
    all.push(trial("docker_shim", "memory_exceeded", || with(true, memory_exceeded)));
    all
}

fn with(with_shim: bool, test: Test) -> Verdict {
    lab()?;
    let mut daemons = DAEMONS.lock().unwrap_or_else(PoisonError::into_inner);
    if daemons.as_ref().is_some_and(|daemons| daemons.with_shim != with_shim) {
        end(daemons.take())?;
    }
    if daemons.is_none() {
        *daemons = Some(start(with_shim)?);
    }
    test(&daemons.as_ref().ok_or("just started")?.docker)
}

fn start(with_shim: bool) -> Result<Daemons, Stop> {
    let lab = lab()?;
    let containerd = match with_shim {
        true => docker::containerd_with_shim(&lab.sandbox)?,
        false => docker::containerd(&lab.sandbox)?,
    };
    let name = if with_shim { "shim" } else { "main" };
    let options = ["--exec-opt", "native.cgroupdriver=systemd", "--cgroup-parent", SLICE];
    let options = [&options[..], &["--bridge", "none", "--iptables=false"]].concat();
    let docker = Docker::start(&lab.sandbox, name, &options, &lab.archive)?;
    Ok(Daemons { with_shim, containerd, docker })
}

fn end(daemons: Option<Daemons>) -> Verdict {
    let Some(mut daemons) = daemons else { return Ok(()) };
    daemons.docker.stop().and(daemons.containerd.stop(Signal::SIGTERM))
}

pub(crate) fn stop() -> Verdict {
    end(DAEMONS.lock().unwrap_or_else(PoisonError::into_inner).take())
}

fn scope(id: &str) -> (String, String) {
    (format!("docker-{id}.scope"), format!("{GROUP}/docker-{id}.scope"))
}

const LIMITS: &[&str] = &["--memory", "64m", "--pids-limit", "50", "--cpus", "0.5"];
const FILES: &[(&str, &str)] =
    &[("memory.max", "67108864"), ("pids.max", "50"), ("cpu.max", "50000 100000")];

fn container_is_a_scope(docker: &Docker) -> Verdict {
    same("the driver", &docker.ok(&["info", "--format", "{{.CgroupDriver}}"])?, "systemd")?;
    let container = docker.background(LIMITS, "sleep 600")?;
    let (unit, group) = scope(&container.id);
    same("the group", &group_of(container.pid()?)?, &group)?;
    files(&group, FILES)?;
    properties(
        &unit,
        &[
            ("Slice", SLICE),
            ("Delegate", "yes"),
            ("MemoryMax", "67108864"),
            ("TasksMax", "50"),
            ("CPUQuotaPerSecUSec", "500ms"),
            // Docker's rules are a list of what is allowed.
            ("DevicePolicy", "strict"),
        ],
    )?;
    container.does("kill")?;
    container.does("rm")?;
    gone(&unit, &group)
}

fn reload_keeps_limits_and_devices(docker: &Docker) -> Verdict {
    let container = docker.background(LIMITS, "mknod /tmp/kmsg c 1 11; sleep 600")?;
    let denied = || {
        let tried = container.exec_raw(&[], &["dd", "if=/tmp/kmsg", "count=0"]).run()?;
        check(tried.code != 0, "a device that nobody allowed")?;
        contains("the reason", &tried.all(), "not permitted")?;
        container.exec(&[], "echo x >/dev/null").map(drop)
    };
    denied()?;
    systemctl(&["daemon-reload"])?;
    systemctl(&["set-property", "--runtime", SLICE, "CPUWeight=200"])?;
    files(&scope(&container.id).1, FILES)?;
    denied()
}

fn update(docker: &Docker) -> Verdict {
    let container = docker.background(LIMITS, "sleep 600")?;
    let (unit, group) = scope(&container.id);
    let wanted = ["--memory", "32m", "--memory-swap", "64m", "--pids-limit", "20"];
    container.with("update", &wanted)?;
    files(&group, &[("memory.max", "33554432"), ("pids.max", "20")])?;
    properties(&unit, &[("MemoryMax", "33554432"), ("TasksMax", "20")])
}

fn exec_is_in_the_scope(docker: &Docker) -> Verdict {
    let container = docker.background(&[], "sleep 600")?;
    let group = scope(&container.id).1;
    let before = file(&group, "cgroup.procs")?.lines().count();
    container.exec_raw(&["-d"], &["sleep", "601"]).ok()?;
    eventually("the exec is in the group", Duration::from_secs(10), || {
        Ok(file(&group, "cgroup.procs")?.lines().count() == before + 1)
    })
}

fn pause_and_stats(docker: &Docker) -> Verdict {
    let container = docker.background(LIMITS, "sleep 600")?;
    container.does("pause")?;
    contains("cgroup.events", &file(&scope(&container.id).1, "cgroup.events")?, "frozen 1")?;
    container.does("unpause")?;
    let stats = container.with("stats", &["--no-stream", "--format", "{{.MemUsage}} {{.PIDs}}"])?;
    contains("stats", &stats, "/ 64MiB")
}

/// The reason for its end is known although systemd takes the scope away with its last process.
fn memory_exceeded(docker: &Docker) -> Verdict {
    for _ in 0..5 {
        let options = ["--memory", "16m", "--memory-swap", "16m"];
        let words = ["dd", "if=/dev/zero", "of=/dev/null", "bs=64M"];
        let container = docker.detached(&options, &words)?;
        same("the exit code", &container.wait()?, &137)?;
        same(
            "its OOM kill is known",
            &container.inspect("{{.State.OOMKilled}}")?.as_str(),
            &"true",
        )?;
    }
    Ok(())
}

fn without_a_parent(docker: &Docker) -> Verdict {
    let container = docker.background(&["--cgroup-parent", "system.slice"], "sleep 600")?;
    let unit = scope(&container.id).0;
    same("the group", &group_of(container.pid()?)?, &format!("/system.slice/{unit}"))?;
    let refused = docker.run(&["--cgroup-parent", "/somewhere"], &["true"]).run()?;
    check(refused.code != 0, "a parent that is no slice")
}
