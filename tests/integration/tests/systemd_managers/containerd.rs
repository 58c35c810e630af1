//! `ctr` with `SystemdCgroup` in runc's options, on the shim under test.

use std::sync::{Mutex, PoisonError};

use corten_integration::managers::containerd::Containerd;
use corten_integration::managers::{Stop, Verdict, check, contains, image, same, trial};
use libtest_mimic::Trial;

use crate::{GROUP, SLICE, file, files, gone, group_of, lab, properties};

type Test = fn(&Containerd) -> Verdict;

const TESTS: [(&str, Test); 3] =
    [("task_is_a_scope", task_is_a_scope), ("exec_and_metrics", exec_and_metrics), ("oom", oom)];

static CONTAINERD: Mutex<Option<Containerd>> = Mutex::new(None);

pub(crate) fn trials() -> Vec<Trial> {
    let one = |(name, test): (&str, Test)| trial("containerd", name, move || with(test));
    TESTS.into_iter().map(one).collect()
}

fn with(test: Test) -> Verdict {
    let lab = lab()?;
    let mut containerd = CONTAINERD.lock().unwrap_or_else(PoisonError::into_inner);
    if containerd.is_none() {
        let archive = image::docker_archive(&lab.sandbox.dir, &lab.archive)?;
        *containerd = Some(Containerd::start(&lab.sandbox, "systemd", &archive)?);
    }
    test(containerd.as_ref().ok_or("just started")?)
}

pub(crate) fn stop() -> Verdict {
    let containerd = CONTAINERD.lock().unwrap_or_else(PoisonError::into_inner).take();
    containerd.map_or(Ok(()), |containerd| containerd.finish())
}

/// The options of a scope called `ctr-NAME`. Only runc's shim gets options of that form from `ctr`.
fn options(name: &str) -> Vec<String> {
    let cgroup = format!("{SLICE}:ctr:{name}");
    let words =
        ["--runtime", "io.containerd.runc.v2", "--runc-systemd-cgroup", "--cgroup", &cgroup];
    words.map(str::to_owned).to_vec()
}

fn scope(name: &str) -> (String, String) {
    (format!("ctr-{name}.scope"), format!("{GROUP}/ctr-{name}.scope"))
}

fn task_is_a_scope(containerd: &Containerd) -> Result<(), Stop> {
    let options = options("task");
    let mut words: Vec<&str> = options.iter().map(String::as_str).collect();
    words.extend(["--memory-limit", "67108864"]);
    let container = containerd.background(&words, "sleep 600")?;
    let (unit, group) = scope("task");
    same("the group", &group_of(container.pid()?)?, &group)?;
    files(&group, &[("memory.max", "67108864")])?;
    properties(&unit, &[("Slice", SLICE), ("Delegate", "yes"), ("MemoryMax", "67108864")])?;
    container.does("kill", &["--signal", "KILL"])?;
    same("the exit code", &container.ends()?, &137)?;
    gone(&unit, &group)
}

fn exec_and_metrics(containerd: &Containerd) -> Verdict {
    let options = options("exec");
    let words: Vec<&str> = options.iter().map(String::as_str).collect();
    let container = containerd.background(&words, "sleep 600")?;
    let group = scope("exec").1;
    let before = file(&group, "cgroup.procs")?.lines().count();
    container.exec_raw(&["--detach"], &["sleep", "601"]).ok()?;
    same("processes", &file(&group, "cgroup.procs")?.lines().count(), &(before + 1))?;
    contains("metrics", &container.does("metrics", &[])?, "memory.usage")?;
    container.does("pause", &[])?;
    container.becomes("PAUSED")?;
    container.does("resume", &[])?;
    container.becomes("RUNNING")
}

/// The event comes although systemd takes the group away with its last process: mostly, see Docker's.
fn oom(containerd: &Containerd) -> Verdict {
    let start = containerd.log().len();
    for turn in 0..5 {
        let name = format!("oom{turn}");
        let options = options(&name);
        let mut words: Vec<&str> = options.iter().map(String::as_str).collect();
        words.extend(["--memory-limit", "16777216"]);
        let script = "exec dd if=/dev/zero of=/dev/null bs=64M";
        let container = containerd.background(&words, script)?;
        same("the exit code", &container.ends()?, &137)?;
        let (unit, group) = scope(&name);
        gone(&unit, &group)?;
    }
    let told = containerd.received("/tasks/oom", start);
    check((3..=5).contains(&told), format!("{told} of 5 OOM kills were told"))
}
