//! From create to shutdown, on the good path.

use containerd_shim_protos::api::Status;
use corten_integration::managers::{Verdict, check, eventually, same};
use corten_integration::shim::task::PATIENCE;
use corten_integration::shim::{Case, World};
use corten_integration::shim_tests;

pub(crate) const TESTS: &[Case] = shim_tests![whole_life, connect_knows_pids, pids_lists_all];

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
