//! The life of a task: create, start, signals, pause, numbers, delete.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use containerd_shim_protos::api::{UpdateTaskRequest, WaitRequest, WaitResponse};
use containerd_shim_protos::protobuf::Message as _;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use corten_integration::driver::patience;
use corten_integration::managers::containerd::{Container, Containerd};
use corten_integration::managers::{
    Stop, Verdict, check, contains, eventually, image, lacks, same,
};
use serde_json::json;

pub(crate) const TESTS: &[(&str, crate::Test)] = &[
    ("create_and_start", create_and_start),
    ("start_in_the_foreground", start_in_the_foreground),
    ("again_in_the_same_container", again_in_the_same_container),
    ("one_task_only", one_task_only),
    ("delete_running", delete_running),
    ("delete_by_force", delete_by_force),
    ("delete_twice", delete_twice),
    ("signals", signals),
    ("signal_to_all", signal_to_all),
    ("kill_stopped", kill_stopped),
    ("pause_and_resume", pause_and_resume),
    ("kill_paused", kill_paused),
    ("processes", processes),
    ("metrics", metrics),
    ("wait", wait),
    ("wait_beyond_the_end", wait_beyond_the_end),
    ("update", update),
    ("update_refused", update_refused),
    ("checkpoint", checkpoint),
    ("oom_score", oom_score),
    ("two_namespaces", two_namespaces),
    ("unknown_task", unknown_task),
];

fn create_and_start(ctr: &Containerd) -> Verdict {
    let container = ctr.created(&[], &["sh", "-c", "sleep 0.3; exit 12"])?;
    same("no task yet", &container.status()?, "none")?;
    container.does("start", &["-d"])?;
    same("exit code", &container.ends()?, &12)?;
    same("no task any more", &container.status()?, "none")
}

fn start_in_the_foreground(ctr: &Containerd) -> Verdict {
    let container = ctr.created(&[], &["sh", "-c", "echo started; exit 4"])?;
    let ended = container.task("start", &[]).code(4)?;
    same("output", &ended.stdout, "started\n")
}

fn again_in_the_same_container(ctr: &Containerd) -> Verdict {
    let script = "echo run >> /count; wc -l < /count";
    let container = ctr.created(&[], &["sh", "-c", script])?;
    for turn in 1..=3 {
        let ended = container.task("start", &[]).code(0)?;
        same("the root file system stays", &ended.stdout, &format!("{turn}\n"))?;
    }
    Ok(())
}

fn one_task_only(ctr: &Containerd) -> Verdict {
    let container = ctr.background(&[], "sleep 600")?;
    let pid = container.pid()?;
    let refused = container.task("start", &["-d"]).code(1)?;
    contains("message", &refused.stderr, "already exists")?;
    same("the first lives", &container.pid()?, &pid)?;
    same("and works", &container.exec(&[], "echo yes")?, "yes")
}

fn delete_running(ctr: &Containerd) -> Verdict {
    let container = ctr.background(&[], "sleep 600")?;
    let refused = container.task("rm", &[]).code(1)?;
    contains("message", &refused.stderr, "must be stopped before deletion")?;
    same("it lives", &container.exec(&[], "echo yes")?, "yes")
}

fn delete_by_force(ctr: &Containerd) -> Verdict {
    let container = ctr.background(&[], "trap '' TERM INT HUP; while :; do sleep 0.05; done")?;
    let pid = container.pid()?;
    container.task("rm", &["--force"]).code(0)?;
    same("task", &container.status()?, "none")?;
    check(!corten_integration::managers::containerd::alive(pid), "its process lives")
}

fn delete_twice(ctr: &Containerd) -> Verdict {
    let container = ctr.background(&[], "exit 3")?;
    same("exit code", &container.ends()?, &3)?;
    let gone = container.task("rm", &[]).run()?;
    contains("message", &gone.stderr, "not found")
}

fn signals(ctr: &Containerd) -> Verdict {
    let script = "trap 'echo usr1 >> /seen' USR1; trap 'echo hup >> /seen' HUP; \
                  trap 'exit 5' TERM; touch /up; while :; do sleep 0.05; done";
    let container = ctr.background(&[], script)?;
    container.exec(&[], "until [ -e /up ]; do sleep 0.05; done")?;
    for (signal, word) in [("SIGUSR1", "usr1"), ("HUP", "hup"), ("10", "usr1.*usr1")] {
        container.does("kill", &["--signal", signal])?;
        let script = format!("until tr '\\n' ' ' < /seen | grep -q '{word}'; do sleep 0.05; done");
        container.exec(&[], &script)?;
    }
    same("status", &container.status()?, "RUNNING")?;
    // TERM is what `ctr` sends without a word.
    container.does("kill", &[])?;
    same("exit code", &container.ends()?, &5)
}

fn signal_to_all(ctr: &Containerd) -> Verdict {
    // The first process ends only when the other one has had its signal too.
    let script = "sh -c 'trap \"touch /child; exit\" USR1; touch /up; while :; do sleep 0.05; done' & \
                  trap 'until [ -e /child ]; do sleep 0.05; done; exit 6' USR1; \
                  while :; do sleep 0.05; done";
    let container = ctr.background(&[], script)?;
    container.exec(&[], "until [ -e /up ]; do sleep 0.05; done")?;
    container.does("kill", &["--all", "-s", "USR1"])?;
    same("exit code", &container.ends()?, &6)
}

fn kill_stopped(ctr: &Containerd) -> Verdict {
    let container = ctr.background(&[], "exit 7")?;
    container.becomes("STOPPED")?;
    let refused = container.task("kill", &["-s", "KILL"]).code(1)?;
    contains("message", &refused.stderr, "not found")?;
    same("exit code", &container.ends()?, &7)
}

fn counter(container: &Container<'_>) -> Result<String, Stop> {
    Ok(std::fs::read_to_string(format!("/proc/{}/root/n", container.pid()?))?)
}

fn pause_and_resume(ctr: &Containerd) -> Verdict {
    let script = "i=0; while :; do i=$((i+1)); echo $i > /n; sleep 0.02; done";
    let container = ctr.background(&[], script)?;
    container.exec(&[], "until [ -s /n ]; do sleep 0.05; done")?;
    container.does("pause", &[])?;
    same("status", &container.status()?, "PAUSED")?;
    let first = counter(&container)?;
    std::thread::sleep(Duration::from_millis(300));
    same("it stands still", &counter(&container)?, &first)?;
    let refused = container.task("pause", &[]).run()?;
    check(refused.code == 1, "paused twice")?;
    container.does("resume", &[])?;
    same("status", &container.status()?, "RUNNING")?;
    eventually("it goes on", Duration::from_secs(10), || {
        let now = counter(&container)?;
        Ok(!now.is_empty() && now != first)
    })?;
    let refused = container.task("resume", &[]).run()?;
    check(refused.code == 1, "resumed twice")
}

fn kill_paused(ctr: &Containerd) -> Verdict {
    let container = ctr.background(&[], "sleep 600")?;
    container.does("pause", &[])?;
    container.does("kill", &["-s", "KILL"])?;
    // containerd 1.6 asks the shim for the state, which is what the freezer says.
    container.does("resume", &[]).ok();
    same("exit code", &container.ends()?, &137)
}

/// `task ps`: the pids, with the exec ids that the shim tells.
fn rows(container: &Container<'_>) -> Result<BTreeMap<i32, String>, Stop> {
    let table = container.does("ps", &[])?;
    let mut all = BTreeMap::new();
    for line in table.lines().skip(1) {
        let (pid, info) = line.split_once(' ').unwrap_or((line, ""));
        all.insert(pid.parse()?, info.trim().to_owned());
    }
    Ok(all)
}

fn processes(ctr: &Containerd) -> Verdict {
    let container = ctr.background(&[], "sleep 501 & exec sleep 502")?;
    container.exec_raw(&["-d", "--exec-id", "named"], &["sleep", "503"]).ok()?;
    eventually("three processes", Duration::from_secs(10), || Ok(rows(&container)?.len() == 3))?;
    let rows = rows(&container)?;
    let command = |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/cmdline"));
    for (pid, info) in &rows {
        let words = command(pid)?.replace('\0', " ");
        match words.trim() {
            "sleep 503" => contains("the exec", info, "named")?,
            "sleep 501" | "sleep 502" => same("info", info.as_str(), "-")?,
            other => return Err(Stop::Fail(format!("{pid} is {other:?}"))),
        }
    }
    check(rows.contains_key(&container.pid()?.as_raw()), "the first process is missing")
}

fn metrics(ctr: &Containerd) -> Verdict {
    let script = "dd if=/dev/zero of=/dev/shm/fill bs=1M count=8 2>/dev/null; \
                  i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done; touch /full; sleep 600 & wait";
    let container = ctr.background(&["--memory-limit", "67108864"], script)?;
    container.exec(&[], "until [ -e /full ]; do sleep 0.05; done")?;
    let table = container.does("metrics", &[])?;
    let value = |names: &[&str]| -> Result<u64, Stop> {
        let row = |name: &str| {
            let mut lines = table.lines().map(str::split_whitespace);
            lines.find_map(|mut words| words.next().filter(|&key| key == name).and(words.next()))
        };
        let found = names.iter().find_map(|name| row(name));
        Ok(found.ok_or_else(|| format!("no {names:?} in {table}"))?.parse()?)
    };
    let between = |what: &str, value: u64, low: u64, high: u64| {
        check((low..=high).contains(&value), format!("{what}: {value} in {table}"))
    };
    let used = value(&["memory.usage_in_bytes", "memory.usage"])?;
    between("memory", used, 8 << 20, 40 << 20)?;
    same("limit", &value(&["memory.limit_in_bytes", "memory.usage_limit"])?, &67_108_864)?;
    let nanoseconds = match value(&["cpuacct.usage"]) {
        Ok(nanoseconds) => nanoseconds,
        Err(_) => value(&["cpu.usage_usec"])? * 1000,
    };
    between("processor time", nanoseconds, 1_000_000, 60_000_000_000)?;
    same("processes", &value(&["pids.current"])?, &2)
}

/// Calls containerd's task service, for what `ctr` has no verb.
fn call(ctr: &Containerd, name: &str, body: &[u8]) -> Result<Vec<u8>, Stop> {
    let reply = ctr.call(&format!("/containerd.services.tasks.v1.Tasks/{name}"), body)?;
    if reply.status == 0 { Ok(reply.body) } else { Err(Stop::Fail(reply.message)) }
}

fn wait_for(ctr: &Containerd, container: &Container<'_>) -> Result<(u32, i64), Stop> {
    // The fields have the numbers of the shim's own message.
    let request = WaitRequest { id: container.id.clone(), ..Default::default() };
    let reply = WaitResponse::parse_from_bytes(&call(ctr, "Wait", &request.write_to_bytes()?)?)?;
    Ok((reply.exit_status, reply.exited_at.seconds))
}

fn wait(ctr: &Containerd) -> Verdict {
    let container = ctr.background(&[], "sleep 1; exit 17")?;
    let start = Instant::now();
    let all: Result<Vec<_>, Stop> = std::thread::scope(|scope| {
        let one = || scope.spawn(|| wait_for(ctr, &container));
        let all: Vec<_> = (0..3).map(|_| one()).collect();
        all.into_iter().map(|one| one.join().map_err(|_| "a thread panicked")?).collect()
    });
    let all = all?;
    check(start.elapsed() < patience(Duration::from_secs(20)), "they waited too long")?;
    check(all.iter().all(|&seen| seen == all[0] && seen.0 == 17), format!("{all:?}"))?;
    same("again", &wait_for(ctr, &container)?, &all[0])
}

fn wait_beyond_the_end(ctr: &Containerd) -> Verdict {
    let container = ctr.background(&[], "exit 18")?;
    container.becomes("STOPPED")?;
    let first = wait_for(ctr, &container)?;
    same("code", &first.0, &18)?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    check(u64::try_from(first.1)?.abs_diff(now) < 60, format!("exited at {}", first.1))?;
    std::thread::sleep(Duration::from_millis(1100));
    same("the same end", &wait_for(ctr, &container)?, &first)
}

/// Changes limits of a running task.
fn change(ctr: &Containerd, id: &str, resources: &serde_json::Value) -> Result<(), Stop> {
    let mut request = UpdateTaskRequest { id: id.to_owned(), ..Default::default() };
    let any = Any {
        type_url: "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources".to_owned(),
        value: resources.to_string().into_bytes(),
        ..Default::default()
    };
    request.resources = Some(any).into();
    call(ctr, "Update", &request.write_to_bytes()?).map(drop)
}

fn update(ctr: &Containerd) -> Verdict {
    let container = ctr.background(&["--memory-limit", "67108864"], "sleep 600")?;
    let pid = container.pid()?;
    let memory = || crate::config::group_file(&pid, "memory.limit_in_bytes", "memory.max");
    change(ctr, &container.id, &json!({"memory": {"limit": 134_217_728}}))?;
    same("memory", &memory()?, "134217728")?;
    change(ctr, &container.id, &json!({"pids": {"limit": 33}}))?;
    same("pids", &crate::config::group_file(&pid, "pids.max", "pids.max")?, "33")?;
    same("memory kept", &memory()?, "134217728")?;
    container.does("pause", &[])?;
    change(ctr, &container.id, &json!({"pids": {"limit": 44}}))?;
    same("while paused", &container.status()?, "PAUSED")?;
    container.does("resume", &[])?;
    same("pids", &crate::config::group_file(&pid, "pids.max", "pids.max")?, "44")
}

fn update_refused(ctr: &Containerd) -> Verdict {
    let container = ctr.background(&["--memory-limit", "67108864"], "sleep 600")?;
    let refused = change(ctr, &container.id, &json!({"cpu": {"cpus": "4000"}}));
    let Err(Stop::Fail(message)) = refused else {
        return Err(Stop::Fail("processor 4000 was taken".to_owned()));
    };
    contains("message", &message, "cpuset")?;
    let Err(Stop::Fail(message)) = change(ctr, "no-such-task", &json!({})) else {
        return Err(Stop::Fail("a task that is not there was changed".to_owned()));
    };
    contains("message", &message, "not found")?;
    same("it lives", &container.exec(&[], "echo yes")?, "yes")
}

fn checkpoint(ctr: &Containerd) -> Verdict {
    let container = ctr.background(&[], "sleep 600")?;
    let refused = container.task("checkpoint", &[]).code(1)?;
    if !ctr.sandbox.is_reference_shim() {
        contains("message", &refused.stderr, "can't checkpoint")?;
    }
    same("status", &container.status()?, "RUNNING")?;
    same("it lives", &container.exec(&[], "echo yes")?, "yes")?;
    let images = ctr.ok(&["image", "ls", "-q"])?;
    lacks("images", &images, "checkpoint")
}

/// A shim is killed before its daemon, and a container that asks for nothing like its shim.
fn oom_score(ctr: &Containerd) -> Verdict {
    let container = ctr.background(&[], "sleep 600")?;
    let score = |pid| -> Result<i32, Stop> {
        Ok(std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj"))?.trim().parse()?)
    };
    same("the shim's", &score(container.shim()?)?, &(score(ctr.pid()?)? + 1))?;
    same("the container's", &score(container.pid()?)?, &score(container.shim()?)?)
}

/// The same id in two containerd namespaces is two containers.
fn two_namespaces(ctr: &Containerd) -> Verdict {
    let first = ctr.background(&[], "sleep 600")?;
    let other = format!("{}-other", ctr.namespace);
    let archive = ctr.sandbox.dir.join("docker-archive.tar");
    ctr.ctr_of(&other, &["image", "import"]).arg(archive).ok()?;
    let group = format!("{}/{}-other", ctr.sandbox.cgroup, first.id);
    let run = ctr.ctr_of(&other, &["run", "-d", "--runtime", &ctr.runtime, "--cgroup", &group]);
    let script = "echo second > /which; sleep 600";
    let run = run.args([image::REFERENCE, &first.id, "sh", "-c", script]);
    let words = |words: &[&str]| ctr.ctr_of(&other, words);
    let tested = run.ok().and_then(|_| {
        let script = "until [ -s /which ]; do sleep 0.05; done; cat /which";
        let exec = ["task", "exec", "--exec-id", "look", &first.id, "sh", "-c", script];
        same("the second", &words(&exec).ok()?, "second")?;
        same("the first", &first.exec(&[], "cat /which 2>/dev/null || echo first")?, "first")
    });
    words(&["task", "rm", "--force", &first.id]).run()?;
    words(&["container", "rm", &first.id]).run()?;
    words(&["image", "rm", image::REFERENCE]).run()?;
    tested?;
    same("the first lives", &first.exec(&[], "echo yes")?, "yes")
}

fn unknown_task(ctr: &Containerd) -> Verdict {
    for verb in ["kill", "pause", "resume", "ps", "metrics", "rm"] {
        let refused = ctr.ctr(&["task", verb, "no-such-task"]).code(1)?;
        contains(verb, &refused.stderr, "not found")?;
    }
    Ok(())
}
