//! From create to shutdown, on the good path.

use containerd_shim_protos::api::Status;
use containerd_shim_protos::ttrpc::Code;
use corten_integration::managers::{Verdict, check, eventually, same};
use corten_integration::shim::stdio::moment;
use corten_integration::shim::task::{PATIENCE, V2, V3, refused};
use corten_integration::shim::world::KILL;
use corten_integration::shim::{Case, World};
use corten_integration::shim_tests;

pub(crate) const TESTS: &[Case] = shim_tests![
    whole_life,
    both_services,
    connect_knows_pids,
    pids_lists_all,
    created_is_killed,
    created_is_deleted,
    shutdown_waits_for_containers,
    files_in_the_bundle,
    state_of_an_exited_container,
    many_connections,
];

/// Create, Start, State, Wait, Kill, Delete and Shutdown answer what happened; the shim is gone.
fn whole_life(world: &World) -> Verdict {
    let script = "trap 'exit 3' TERM; echo ready; while :; do sleep 0.1; done";
    let mut task = world.task(world.bundle(script))?;
    let fifos = world.fifos(false)?;
    let mut query = task.request();
    fifos.create(&mut query);
    task.pid = task.client.create(&query)?;
    check(task.pid > 0, "Create answers a pid")?;
    let state = task.client.state(&task.id, "")?;
    same("status", &state.status.enum_value_or_default(), &Status::CREATED)?;
    same("id", &state.id, &task.id)?;
    same("bundle", &state.bundle.as_str(), &task.bundle.path())?;
    same("pid", &state.pid, &task.pid)?;
    same("streams", &[&state.stdin, &state.stdout], &[&query.stdin, &query.stdout])?;
    task.start()?;
    same("status", &task.status()?, &Status::RUNNING)?;
    let wait = task.client.waiting(&task.id, "");
    fifos.out().expect("ready")?;
    wait.is_pending()?;
    task.kill(15)?;
    same("status", &wait.answer()?.exit_status, &3)?;
    let state = task.client.state(&task.id, "")?;
    same("status", &state.status.enum_value_or_default(), &Status::STOPPED)?;
    same("exit status", &state.exit_status, &3)?;
    let deleted = task.client.delete(&task.id, "")?;
    same("exit status", &deleted.exit_status, &3)?;
    same("pid", &deleted.pid, &task.pid)?;
    check(deleted.exited_at.seconds > 1_600_000_000, "Delete answers the time")?;
    same("times", &deleted.exited_at, &state.exited_at)?;
    task.client.shutdown(&task.id, false)?;
    task.shim.gone()?;
    check(!task.shim.socket().exists(), "the socket is removed")
}

/// Connect answers the pids, 0 for a container that it does not know.
fn connect_knows_pids(world: &World) -> Verdict {
    let task = world.running("sleep 1000")?;
    let answer = task.client.connect(&task.id)?;
    same("shim", &(answer.shim_pid as i32), &task.shim.pid)?;
    same("task", &answer.task_pid, &task.pid)?;
    same("version", &answer.version.as_str(), &"")?;
    same("stranger", &task.client.connect("nobody")?.task_pid, &0)?;
    let cmdline = std::fs::read(format!("/proc/{}/cmdline", task.shim.pid))?;
    check(
        String::from_utf8_lossy(&cmdline).contains("containerd-shim"),
        "the shim's pid is a shim's",
    )
}

/// Pids lists the container's processes.
fn pids_lists_all(world: &World) -> Verdict {
    let task = world.running("sleep 1000 & sleep 1000")?;
    eventually("two processes", PATIENCE, || Ok(task.client.pids(&task.id)?.processes.len() == 2))?;
    let pids = task.client.pids(&task.id)?;
    check(pids.processes.iter().any(|process| process.pid == task.pid), "the init is listed")
}

/// v2 and v3 are the same service on the same socket.
fn both_services(world: &World) -> Verdict {
    world.reference_deviates("containerd 1.6 has v2 only")?;
    let mut task = world.task(world.bundle("sleep 1000"))?;
    task.client = task.client.service(V3);
    task.create()?;
    task.start()?;
    same("over v2", &task.shim.client.state(&task.id, "")?, &task.client.state(&task.id, "")?)?;
    task.killed()?;
    task.shim.client.service(V2).delete(&task.id, "").map(drop)?;
    refused(task.client.state(&task.id, ""), Code::NOT_FOUND, "")
}

/// A container that was never started can be killed.
fn created_is_killed(world: &World) -> Verdict {
    let task = world.created("true")?;
    let wait = task.client.waiting(&task.id, "");
    task.kill(KILL)?;
    same("status", &wait.answer()?.exit_status, &137)?;
    same("status", &task.status()?, &Status::STOPPED)?;
    same("exit status", &world.events.exit(&task.id, &task.id)?.exit_status, &137)?;
    same("exit status", &task.client.delete(&task.id, "")?.exit_status, &137)
}

/// A container that was never started can be deleted; its process is gone.
fn created_is_deleted(world: &World) -> Verdict {
    let task = world.created("true")?;
    task.delete()?;
    check(!process_exists(task.pid), "the process is gone")?;
    refused(task.client.state(&task.id, ""), Code::NOT_FOUND, "")
}

/// Shutdown answers and does nothing while there are containers, `now` or not.
fn shutdown_waits_for_containers(world: &World) -> Verdict {
    let task = world.running("sleep 1000")?;
    for now in [false, true] {
        task.client.shutdown(&task.id, now)?;
        moment();
        same("status", &task.status()?, &Status::RUNNING)?;
    }
    task.killed()?;
    // An exited container is a container until it is deleted.
    task.client.shutdown(&task.id, false)?;
    moment();
    same("status", &task.status()?, &Status::STOPPED)
}

/// What daemons and their users read in the bundle: the address, and the pid of the init.
fn files_in_the_bundle(world: &World) -> Verdict {
    let task = world.created("true")?;
    let read = |name: &str| std::fs::read_to_string(task.bundle.dir.join(name));
    same("address", &read("address")?.trim(), &task.shim.reply.address.as_str())?;
    same("init.pid", &read("init.pid")?.trim(), &task.pid.to_string().as_str())
}

/// State keeps the exit status, the time and the streams until Delete.
fn state_of_an_exited_container(world: &World) -> Verdict {
    let (task, fifos) = world.piped("exit 7")?;
    let wait = task.wait()?;
    fifos.out().end()?;
    let state = task.client.state(&task.id, "")?;
    same("exit status", &state.exit_status, &7)?;
    same("time", &state.exited_at, &wait.exited_at)?;
    same("stdout", &state.stdout, &fifos.path("out"))?;
    same("bundle", &state.bundle.as_str(), &task.bundle.path())?;
    same("status", &state.status.enum_value_or_default(), &Status::STOPPED)?;
    same("after Delete", &task.client.delete(&task.id, "")?.exited_at, &wait.exited_at)
}

/// Connections come and go; the container does not mind, and no descriptor stays.
fn many_connections(world: &World) -> Verdict {
    let task = world.running("sleep 1000")?;
    let before = task.shim.descriptors();
    for _ in 0..50 {
        same("status", &task.shim.connect()?.state(&task.id, "")?.pid, &task.pid)?;
    }
    task.shim.settles(&before)
}

fn process_exists(pid: u32) -> bool {
    std::path::Path::new("/proc").join(pid.to_string()).exists()
}
