//! `ctr` with `SystemdCgroup` in runc's options, on the shim under test.

use std::fs;
use std::sync::{Mutex, PoisonError};

use corten_integration::managers::containerd::{Container, Containerd};
use corten_integration::managers::{Stop, Verdict, contains, image, same, trial};
use libtest_mimic::Trial;
use nix::sys::signal::{Signal, kill};

use crate::{GROUP, SLICE, file, files, gone, group_of, lab, properties};

type Test = fn(&Containerd) -> Verdict;

const TESTS: [(&str, Test); 5] = [
    ("task_is_a_scope", task_is_a_scope),
    ("exec_and_metrics", exec_and_metrics),
    ("oom", oom),
    ("oom_in_a_group_that_is_gone", oom_in_a_group_that_is_gone),
    ("oom_of_a_neighbour", oom_of_a_neighbour),
];

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

/// What a container runs that needs more memory than it may have.
const GREEDY: &str = "exec dd if=/dev/zero of=/dev/null bs=64M";

/// A container of 16 MB in its scope, and the scope.
fn small<'a>(
    containerd: &'a Containerd,
    name: &str,
    script: &str,
) -> Result<(Container<'a>, (String, String)), Stop> {
    let options = options(name);
    let mut words: Vec<&str> = options.iter().map(String::as_str).collect();
    words.extend(["--memory-limit", "16777216"]);
    Ok((containerd.background(&words, script)?, scope(name)))
}

/// The event comes although systemd takes the group away with its last process.
fn oom(containerd: &Containerd) -> Verdict {
    let start = containerd.log().len();
    for turn in 0..5 {
        let (container, (unit, group)) = small(containerd, &format!("oom{turn}"), GREEDY)?;
        same("the exit code", &container.ends()?, &137)?;
        gone(&unit, &group)?;
    }
    same("OOM kills that were told", &containerd.received("/tasks/oom", start), &5)
}

/// Has a container go on that waits for it, while its shim sees nothing, until systemd has removed
/// its group; answers its exit code.
fn ends_unseen(container: &Container<'_>, (unit, group): &(String, String)) -> Result<i32, Stop> {
    let (pid, shim) = (container.pid()?, container.shim()?);
    kill(shim, Signal::SIGSTOP)?;
    let written = fs::write(format!("/proc/{pid}/root/go"), "");
    let gone = gone(unit, group);
    kill(shim, Signal::SIGCONT)?;
    written?;
    gone?;
    container.ends()
}

const WAIT: &str = "while [ ! -e /go ]; do sleep 0.1; done;";

/// The shim is last to look: the group above still knows.
fn oom_in_a_group_that_is_gone(containerd: &Containerd) -> Verdict {
    let start = containerd.log().len();
    let (container, scope) = small(containerd, "late", &format!("{WAIT} {GREEDY}"))?;
    same("the exit code", &ends_unseen(&container, &scope)?, &137)?;
    same("OOM kills that were told", &containerd.received("/tasks/oom", start), &1)
}

/// A neighbour's OOM kill is not one of a container that ends at the same time.
fn oom_of_a_neighbour(containerd: &Containerd) -> Verdict {
    let start = containerd.log().len();
    let (calm, scope) = small(containerd, "calm", &format!("{WAIT} exit 3"))?;
    let (greedy, _) = small(containerd, "greedy", GREEDY)?;
    same("the neighbour's exit code", &greedy.ends()?, &137)?;
    same("the exit code", &ends_unseen(&calm, &scope)?, &3)?;
    same("OOM kills that were told", &containerd.received("/tasks/oom", start), &1)
}
