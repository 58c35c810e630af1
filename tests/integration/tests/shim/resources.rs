//! Pause, Update, Stats and the OOM event: the container's cgroup through the shim.

use std::time::{Duration, Instant};

use containerd_shim_protos::api::Status;
use containerd_shim_protos::cgroups::metrics::Metrics as V1;
use containerd_shim_protos::cgroups_v2::metrics::Metrics as V2;
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::ttrpc::Code;
use corten_integration::cgroups;
use corten_integration::driver::patience;
use corten_integration::managers::{Stop, Verdict, check, eventually, needs_controller, same};
use corten_integration::shim::stdio::moment;
use corten_integration::shim::task::{PATIENCE, refused};
use corten_integration::shim::{Case, Task, World};
use corten_integration::shim_tests;
use nix::sys::signal::Signal;
use serde_json::json;

pub(crate) const TESTS: &[Case] = shim_tests![
    pause_stops_the_clock,
    a_paused_container_is_killed,
    an_exec_of_a_paused_container,
    update_memory,
    update_before_start,
    update_of_nonsense,
    stats_are_true,
    stats_of_many_cgroups,
    stats_after_the_end,
    out_of_memory,
    out_of_memory_of_an_exec,
    out_of_memory_of_several,
    no_false_alarm,
];

/// A paused container makes no progress, a resumed one goes on.
fn pause_stops_the_clock(world: &World) -> Verdict {
    let script = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done";
    let (task, fifos) = world.piped(script)?;
    fifos.out().expect("5\n")?;
    task.client.pause(&task.id)?;
    same("status", &task.status()?, &Status::PAUSED)?;
    moment();
    let seen = fifos.out().bytes().len();
    moment();
    same("progress", &fifos.out().bytes().len(), &seen)?;
    task.client.resume(&task.id)?;
    same("status", &task.status()?, &Status::RUNNING)?;
    eventually("it goes on", PATIENCE, || Ok(fifos.out().bytes().len() > seen))
}

/// SIGKILL ends a paused container within a second.
fn a_paused_container_is_killed(world: &World) -> Verdict {
    let task = world.running("sleep 1000")?;
    task.client.pause(&task.id)?;
    let begun = Instant::now();
    task.kill(9)?;
    if world.flavour == corten_integration::shim::Flavour::Reference {
        // runc thaws on v1 only for `kill` of the init.
        task.client.resume(&task.id).ok();
    }
    same("status", &task.wait()?.exit_status, &137)?;
    check(begun.elapsed() < patience(Duration::from_secs(1)), format!("{:?}", begun.elapsed()))?;
    task.delete()
}

/// State of an exec says paused when the container is.
fn an_exec_of_a_paused_container(world: &World) -> Verdict {
    let task = world.running("sleep 1000")?;
    task.exec("e", "sleep 1000")?;
    task.client.pause(&task.id)?;
    same("paused", &task.exec_status("e")?, &Status::PAUSED)?;
    task.client.resume(&task.id)?;
    same("resumed", &task.exec_status("e")?, &Status::RUNNING)
}

fn limit(task: &Task) -> String {
    let file = if cgroups::is_v2() { "memory.max" } else { "memory.limit_in_bytes" };
    task.bundle.cgroup_file("memory", file)
}

/// Update sets a limit that the kernel shows.
fn update_memory(world: &World) -> Verdict {
    needs_controller("memory")?;
    let task = world.running("sleep 1000")?;
    for bytes in [67_108_864_u64, 134_217_728] {
        task.client.update(&task.id, &json!({"memory": {"limit": bytes}}))?;
        same("limit", &limit(&task), &bytes.to_string())?;
    }
    task.client.update(&task.id, &json!({"pids": {"limit": 33}, "cpu": {"shares": 512}}))?;
    same("pids", &task.bundle.cgroup_file("pids", "pids.max").as_str(), &"33")?;
    task.client.pause(&task.id)?;
    task.client.update(&task.id, &json!({"memory": {"limit": 67_108_864}}))?;
    same("limit", &limit(&task).as_str(), &"67108864")?;
    same("status", &task.status()?, &Status::PAUSED)
}

/// Update of a container that is not started yet.
fn update_before_start(world: &World) -> Verdict {
    needs_controller("memory")?;
    let task = world.created("sleep 1000")?;
    task.client.update(&task.id, &json!({"memory": {"limit": 67_108_864}}))?;
    same("limit", &limit(&task).as_str(), &"67108864")?;
    task.start()?;
    same("limit", &limit(&task).as_str(), &"67108864")
}

/// Resources that are none are refused, and the old ones hold.
fn update_of_nonsense(world: &World) -> Verdict {
    needs_controller("memory")?;
    let task = world.running("sleep 1000")?;
    task.client.update(&task.id, &json!({"memory": {"limit": 67_108_864}}))?;
    let answer = task.client.update(&task.id, &json!({"memory": {"limit": "much"}}));
    check(answer.is_err_and(|refusal| refusal.code.is_some()), "it is refused")?;
    same("limit", &limit(&task).as_str(), &"67108864")?;
    same("status", &task.status()?, &Status::RUNNING)
}

/// What Stats tells of both kinds of hosts.
#[derive(Debug)]
struct Numbers {
    memory: u64,
    limit: u64,
    cpu_nanoseconds: u64,
    pids: u64,
    pids_limit: u64,
}

fn numbers(task: &Task) -> Result<Numbers, Stop> {
    let stats = task.client.stats(&task.id)?;
    let name = if cgroups::is_v2() {
        "io.containerd.cgroups.v2.Metrics"
    } else {
        "io.containerd.cgroups.v1.Metrics"
    };
    same("type", &stats.type_url.as_str(), &name)?;
    if cgroups::is_v2() {
        let all = V2::parse_from_bytes(&stats.value)?;
        return Ok(Numbers {
            memory: all.memory.usage,
            limit: all.memory.usage_limit,
            cpu_nanoseconds: all.cpu.usage_usec * 1000,
            pids: all.pids.current,
            pids_limit: all.pids.limit,
        });
    }
    let all = V1::parse_from_bytes(&stats.value)?;
    Ok(Numbers {
        memory: all.memory.usage.usage,
        limit: all.memory.usage.limit,
        cpu_nanoseconds: all.cpu.usage.total,
        pids: all.pids.current,
        pids_limit: all.pids.limit,
    })
}

/// The numbers of Stats are those of the cgroup's files.
fn stats_are_true(world: &World) -> Verdict {
    needs_controller("memory")?;
    let script = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; echo ready; exec sleep 1000";
    let mut bundle = world.bundle(script);
    bundle.set("linux.resources.memory", json!({"limit": 67_108_864}));
    bundle.set("linux.resources.pids", json!({"limit": 44}));
    let (task, fifos) = world.piped_with(bundle)?;
    fifos.out().expect("ready")?;
    let seen = numbers(&task)?;
    let v2 = cgroups::is_v2();
    let (file, controller, scale) =
        if v2 { ("cpu.stat", "cpu", 1000) } else { ("cpuacct.usage", "cpuacct", 1) };
    let cpu = task.bundle.cgroup_file(controller, file);
    let cpu = cpu.lines().next().and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    let cpu = cpu.ok_or("no cpu time")? * scale;
    check(seen.cpu_nanoseconds > 1_000_000, format!("cpu time: {seen:?}"))?;
    check(
        seen.cpu_nanoseconds <= cpu && cpu < seen.cpu_nanoseconds * 2,
        format!("{seen:?} {cpu}"),
    )?;
    let file = if v2 { "memory.current" } else { "memory.usage_in_bytes" };
    let memory: u64 = task.bundle.cgroup_file("memory", file).parse()?;
    check(
        seen.memory > 0 && memory.abs_diff(seen.memory) < 4_000_000,
        format!("{seen:?} {memory}"),
    )?;
    same("limit", &seen.limit, &67_108_864)?;
    same("pids", &(seen.pids, seen.pids_limit), &(1, 44))
}

/// Stats again and again: no descriptor stays.
fn stats_of_many_cgroups(world: &World) -> Verdict {
    let task = world.running("sleep 1000")?;
    task.client.stats(&task.id)?;
    let before = task.shim.descriptors();
    for _ in 0..50 {
        task.client.stats(&task.id)?;
    }
    task.shim.settles(&before)
}

/// After the end Stats answers or is NotFound; it is no crash.
fn stats_after_the_end(world: &World) -> Verdict {
    let task = world.running("true")?;
    task.wait()?;
    if let Err(refusal) = task.client.stats(&task.id) {
        refused::<()>(Err(refusal), Code::NOT_FOUND, "cgroup")?;
    }
    task.delete()
}

/// Uses more memory than 16 MB, in the shell itself.
const GREEDY: &str = "x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done";

fn small(world: &World, script: &str) -> Result<Task, Stop> {
    needs_controller("memory")?;
    let mut bundle = world.bundle(script);
    bundle.set("linux.resources.memory", json!({"limit": 16_777_216, "swap": 16_777_216}));
    let mut task = world.task(bundle)?;
    task.create()?;
    Ok(task)
}

/// OOM is told once, before the exit.
fn out_of_memory(world: &World) -> Verdict {
    let task = small(world, GREEDY)?;
    task.start()?;
    same("status", &task.wait()?.exit_status, &137)?;
    world.events.exit(&task.id, &task.id)?;
    moment();
    let all = world.events.lines();
    let place = |start: &str| all.iter().position(|line| line.starts_with(start));
    same("ooms", &all.iter().filter(|line| line.starts_with("oom")).count(), &1)?;
    check(place("oom") < place("exit"), format!("before the exit: {all:#?}"))
}

/// OOM of an exec: the container lives on; a second OOM is told too.
fn out_of_memory_of_an_exec(world: &World) -> Verdict {
    let task = small(world, "exec sleep 1000")?;
    task.start()?;
    for name in ["e", "f"] {
        task.exec(name, GREEDY)?;
        same("status", &task.client.wait(&task.id, name)?.exit_status, &137)?;
        world.events.exit(&task.id, name)?;
    }
    moment();
    let ooms = world.events.lines().iter().filter(|line| line.starts_with("oom")).count();
    same("ooms", &ooms, &2)?;
    same("status", &task.status()?, &Status::RUNNING)
}

/// Kills that are seen at the same time are told once.
fn out_of_memory_of_several(world: &World) -> Verdict {
    world.reference_deviates("it tells each notice of the kernel")?;
    let task = small(world, "exec sleep 1000")?;
    task.start()?;
    task.exec("e", &format!("sleep 0.3; for i in 1 2 3; do ({GREEDY}); done; sleep 1000"))?;
    task.shim.signal(Signal::SIGSTOP)?;
    let file = if cgroups::is_v2() { "memory.events" } else { "memory.oom_control" };
    let killed = || task.bundle.cgroup_file("memory", file).contains("oom_kill 3");
    let ended = eventually("three are killed", PATIENCE, || Ok(killed()));
    task.shim.signal(Signal::SIGCONT)?;
    ended?;
    moment();
    let ooms = world.events.lines().iter().filter(|line| line.starts_with("oom")).count();
    same("ooms", &ooms, &1)
}

/// A container that ends by itself, or by SIGKILL, is no OOM.
fn no_false_alarm(world: &World) -> Verdict {
    needs_controller("memory")?;
    let task = small(world, "exec sleep 1000")?;
    task.start()?;
    task.killed()?;
    task.delete()?;
    let wanted = ["create ID", "start ID", "exit ID ID 137", "delete ID"];
    world.events.exactly(&wanted.map(|line| line.replace("ID", &task.id)))
}
