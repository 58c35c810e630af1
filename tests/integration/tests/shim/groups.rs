//! A pod's containers in one shim.

use containerd_shim_protos::api::Status;
use containerd_shim_protos::ttrpc::Code;
use corten_integration::bundle::Bundle;
use corten_integration::managers::{Stop, Verdict, check, eventually, same};
use corten_integration::shim::bootstrap;
use corten_integration::shim::leaks::processes;
use corten_integration::shim::stdio::moment;
use corten_integration::shim::task::{PATIENCE, refused};
use corten_integration::shim::{Case, Flavour, Task, World};
use corten_integration::shim_tests;
use nix::sys::signal::Signal;
use serde_json::json;

pub(crate) const TESTS: &[Case] = shim_tests![
    two_share_a_shim,
    by_the_group_annotation,
    groups_are_told_apart,
    a_failure_is_one_containers,
    one_is_killed,
    many_containers,
    the_first_may_leave_first,
    delete_takes_the_group_along,
    delete_spares_the_group_of_a_living_shim,
];

fn member(world: &World, annotation: &str, group: &str, script: &str) -> Bundle {
    let mut bundle = world.bundle(script);
    bundle.set("annotations", json!({annotation: group}));
    bundle
}

fn pod(world: &World, script: &str) -> Result<Task, Stop> {
    let mut task = world.task(member(world, "io.kubernetes.cri.sandbox-id", "pod", script))?;
    task.create()?;
    task.start()?;
    Ok(task)
}

/// Containers of one sandbox have one shim, which leaves with the last of them.
fn two_share_a_shim(world: &World) -> Verdict {
    let first = pod(world, "sleep 1000")?;
    let second = pod(world, "exit 4")?;
    same("shim", &second.shim.pid, &first.shim.pid)?;
    same("status", &second.wait()?.exit_status, &4)?;
    same("first", &first.status()?, &Status::RUNNING)?;
    second.delete()?;
    second.client.shutdown(&second.id, false)?;
    moment();
    same("first", &first.status()?, &Status::RUNNING)?;
    refused(first.client.state(&second.id, ""), Code::NOT_FOUND, "")?;
    first.killed()?;
    first.delete()?;
    first.client.shutdown(&first.id, false)?;
    first.shim.gone()?;
    check(!first.shim.socket().exists(), "the socket is removed")
}

/// The annotation of runc's own shim.
fn by_the_group_annotation(world: &World) -> Verdict {
    let name = "io.containerd.runc.v2.group";
    let first = world.shim(&member(world, name, "group", "true"))?;
    let second = world.shim(&member(world, name, "group", "true"))?;
    same("shim", &second.pid, &first.pid)
}

/// Other groups have other shims.
fn groups_are_told_apart(world: &World) -> Verdict {
    let name = "io.kubernetes.cri.sandbox-id";
    let first = world.shim(&member(world, name, "one", "true"))?;
    let second = world.shim(&member(world, name, "two", "true"))?;
    check(second.pid != first.pid, "two shims")
}

/// A container that cannot be created does not touch the others.
fn a_failure_is_one_containers(world: &World) -> Verdict {
    let first = pod(world, "sleep 1000")?;
    let mut bundle = member(world, "io.kubernetes.cri.sandbox-id", "pod", "true");
    bundle.set("root.path", json!("no-such-directory"));
    let second = world.task(bundle)?;
    check(second.client.create(&second.request()).is_err(), "Create fails")?;
    second.client.shutdown(&second.id, false)?;
    same("exec", &first.shell(world, "echo fine")?, &(0, "fine\n".to_owned()))
}

/// Kill of one is the end of that one.
fn one_is_killed(world: &World) -> Verdict {
    let (first, second) = (pod(world, "sleep 1000")?, pod(world, "sleep 1000")?);
    first.exec("e", "sleep 1000")?;
    second.exec("e", "sleep 1000")?;
    first.killed()?;
    world.events.exit(&first.id, &first.id)?;
    same("second", &second.status()?, &Status::RUNNING)?;
    same("its exec", &second.exec_status("e")?, &Status::RUNNING)?;
    same("exec", &second.shell(world, "echo fine")?, &(0, "fine\n".to_owned()))
}

/// Thirty containers come and go; the shim is as it was.
fn many_containers(world: &World) -> Verdict {
    let count = if world.flavour == Flavour::Corten { 30 } else { 8 };
    let pause = pod(world, "sleep 1000")?;
    let last = pod(world, "true")?;
    last.wait()?;
    last.delete()?;
    let before = pause.shim.descriptors();
    let tasks: Vec<_> = (0..count).map(|_| pod(world, "sleep 1000")).collect::<Result<_, _>>()?;
    for task in &tasks {
        same("status", &task.status()?, &Status::RUNNING)?;
    }
    for task in &tasks {
        task.killed()?;
        task.delete()?;
    }
    pause.shim.settles(&before)
}

/// The container that the shim was started for may leave before the others, its bundle too.
fn the_first_may_leave_first(world: &World) -> Verdict {
    let (first, second) = (pod(world, "sleep 1000")?, pod(world, "sleep 1000")?);
    first.killed()?;
    first.delete()?;
    std::fs::remove_dir_all(&first.bundle.dir)?;
    same("exec", &second.shell(world, "echo fine")?, &(0, "fine\n".to_owned()))?;
    let third = pod(world, "exit 6")?;
    same("shim", &third.shim.pid, &first.shim.pid)?;
    same("status", &third.wait()?.exit_status, &6)
}

/// A pod's own container, whose id is the group's, and another of the pod.
fn leader_and_member(world: &World) -> Result<[Task; 2], Stop> {
    let name = "io.kubernetes.cri.sandbox-id";
    let mut own = world.bundle("sleep 1000");
    let group = own.id.clone();
    own.set("annotations", json!({name: group}));
    let mut both = [world.task(own)?, world.task(member(world, name, &group, "sleep 1000"))?];
    for task in &mut both {
        task.create()?;
        task.start()?;
    }
    Ok(both)
}

/// containerd 2 executes `delete` for the pod's own container alone.
fn delete_takes_the_group_along(world: &World) -> Verdict {
    world.reference_deviates("it leaves the others as they are")?;
    let [leader, member] = leader_and_member(world)?;
    leader.shim.signal(Signal::SIGKILL)?;
    leader.shim.gone()?;
    bootstrap::delete(world, &leader.bundle.dir, &leader.id)?;
    eventually("both are gone", PATIENCE, || Ok(processes().is_empty()))?;
    // Its own `delete`, which 1.6 executes, still knows how it ended.
    let answer = bootstrap::delete(world, &member.bundle.dir, &member.id)?;
    same("member", &(answer.pid, answer.exit_status), &(member.pid, 137))
}

/// One that is cleaned up while the shim lives is cleaned up alone.
fn delete_spares_the_group_of_a_living_shim(world: &World) -> Verdict {
    let [leader, member] = leader_and_member(world)?;
    bootstrap::delete(world, &leader.bundle.dir, &leader.id)?;
    moment();
    same("member", &member.shell(world, "echo fine")?, &(0, "fine\n".to_owned()))
}
