//! Podman with `cgroup_manager = "systemd"`, as root and as an ordinary user.

use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use corten_integration::managers::podman::Podman;
use corten_integration::managers::{Stop, Verdict, check, contains, eventually, same, trial};
use libtest_mimic::Trial;
use nix::unistd::User;

use crate::{file, files, group_of, lab, systemctl};

type Test = fn(&Podman) -> Verdict;

const TESTS: [(&str, Test); 5] = [
    ("container_is_a_scope", container_is_a_scope),
    ("exec_is_in_the_scope", exec_is_in_the_scope),
    ("pod_is_a_slice", pod_is_a_slice),
    ("reload_and_pause", reload_and_pause),
    ("memory_exceeded", memory_exceeded),
];

/// Root's and the user's.
static PODMAN: [Mutex<Option<Podman>>; 2] = [Mutex::new(None), Mutex::new(None)];

pub(crate) fn trials() -> Vec<Trial> {
    let mut all = Vec::new();
    for (group, rootless) in [("podman", false), ("podman_user", true)] {
        for (name, test) in TESTS {
            all.push(trial(group, name, move || with(rootless, test)));
        }
    }
    all
}

fn with(rootless: bool, test: Test) -> Verdict {
    let lab = lab()?;
    let mut podman = PODMAN[usize::from(rootless)].lock().unwrap_or_else(PoisonError::into_inner);
    if podman.is_none() {
        let user = rootless.then(|| manager_of(&lab.user)).transpose()?;
        *podman = Some(Podman::start_as(&lab.sandbox, user, "systemd", &lab.archive)?);
    }
    test(podman.as_ref().ok_or("just started")?)
}

/// The id of a user whose manager runs.
fn manager_of(name: &str) -> Result<u32, Stop> {
    let user = User::from_name(name)?.ok_or("no user")?.uid.as_raw();
    systemctl(&["start", &format!("user@{user}.service")])?;
    let bus = format!("/run/user/{user}/bus");
    eventually("the user's bus", Duration::from_secs(10), || Ok(Path::new(&bus).exists()))?;
    Ok(user)
}

pub(crate) fn stop() -> Verdict {
    let mut all = Ok(());
    for podman in &PODMAN {
        if let Some(podman) = podman.lock().unwrap_or_else(PoisonError::into_inner).take() {
            all = all.and(podman.stop());
        }
    }
    all
}

/// Where Podman puts containers.
fn slice(podman: &Podman) -> Result<String, Stop> {
    if !podman.is_rootless() {
        return Ok("/machine.slice".to_owned());
    }
    let user = User::from_name(&lab()?.user)?.ok_or("no user")?.uid;
    Ok(format!("/user.slice/user-{user}.slice/user@{user}.service/user.slice"))
}

fn is_gone(group: &str) -> Verdict {
    let path = format!("/sys/fs/cgroup{group}");
    eventually("the group is gone", Duration::from_secs(10), || Ok(!fs::exists(&path)?))
}

const LIMITS: &[&str] = &["--memory", "64m", "--pids-limit", "50"];
const FILES: &[(&str, &str)] = &[("memory.max", "67108864"), ("pids.max", "50")];

fn container_is_a_scope(podman: &Podman) -> Verdict {
    same("the driver", &podman.ok(&["info", "--format", "{{.Host.CgroupManager}}"])?, "systemd")?;
    let container = podman.background(LIMITS, "sleep 600")?;
    let group = format!("{}/libpod-{}.scope", slice(podman)?, container.id);
    same("the group", &group_of(container.pid()?)?, &group)?;
    files(&group, FILES)?;
    container.does("kill")?;
    container.does("rm")?;
    is_gone(&group)
}

fn exec_is_in_the_scope(podman: &Podman) -> Verdict {
    let container = podman.background(&[], "sleep 600")?;
    let group = group_of(container.pid()?)?;
    let before = file(&group, "cgroup.procs")?.lines().count();
    container.exec_raw(&["-d"], &["sleep", "601"]).ok()?;
    eventually("the exec is in the group", Duration::from_secs(10), || {
        Ok(file(&group, "cgroup.procs")?.lines().count() == before + 1)
    })
}

fn pod_is_a_slice(podman: &Podman) -> Verdict {
    let pod = podman.ok(&["pod", "create", "--network", "none", "--name", "p"])?;
    let container = podman.background(&["--pod", "p"], "sleep 600")?;
    let group = group_of(container.pid()?)?;
    contains(
        "the group",
        &group,
        &format!("libpod_pod_{pod}.slice/libpod-{}.scope", container.id),
    )?;
    podman.ok(&["pod", "rm", "--force", "--time", "0", "p"])?;
    is_gone(&group)
}

fn reload_and_pause(podman: &Podman) -> Verdict {
    let container = podman.background(LIMITS, "sleep 600")?;
    let group = group_of(container.pid()?)?;
    systemctl(&["daemon-reload"])?;
    files(&group, FILES)?;
    container.does("pause")?;
    contains("cgroup.events", &file(&group, "cgroup.events")?, "frozen 1")?;
    container.does("unpause")?;
    let stats = container.with("stats", &["--no-stream", "--format", "{{.MemUsage}}"])?;
    contains("stats", &stats, "67.11MB")
}

fn memory_exceeded(podman: &Podman) -> Verdict {
    let options = ["--memory", "16m", "--memory-swap", "16m"];
    let words = ["dd", "if=/dev/zero", "of=/dev/null", "bs=64M"];
    let container = podman.detached(&options, &words)?;
    same("the exit code", &container.wait()?, &137)?;
    let state = container.inspect("{{.State.Status}}")?;
    check(state == "exited", state)
}
