//! Containers of the shim are ordinary containers of the runtime: its command line sees them, and
//! the shim sees what the command line does.

use std::path::PathBuf;
use std::process::Command;

use containerd_shim_protos::api::Status;
use containerd_shim_protos::shim::oci::Options;
use corten_integration::managers::{Stop, Verdict, check, contains, eventually, same};
use corten_integration::shim::task::PATIENCE;
use corten_integration::shim::{Case, Task, World, bootstrap, request, sandbox};
use corten_integration::shim_tests;
use serde_json::Value;

pub(crate) const TESTS: &[Case] = shim_tests![
    seen_by_state_and_list,
    exec_by_the_runtime,
    killed_by_the_runtime,
    deleted_by_the_runtime,
    paused_by_the_runtime,
    started_by_the_runtime,
];

fn container(world: &World, started: bool) -> Result<(Task, PathBuf), Stop> {
    let mut task = world.task(world.bundle("sleep 1000"))?;
    let root = world.dir.join("state");
    let mut query = task.request();
    let options = Options { root: root.display().to_string(), ..Options::default() };
    query.options = Some(request::runc_options(&options)).into();
    task.pid = task.client.create(&query)?;
    if started {
        task.start()?;
    }
    Ok((task, root.join(&world.namespace)))
}

/// The runtime's command line in the state directory of the namespace.
fn runtime(root: &PathBuf, words: &[&str]) -> Result<String, Stop> {
    let mut command = Command::new(&sandbox().runtime);
    command.arg("--root").arg(root).args(words).env_clear().env("PATH", "/usr/bin:/bin");
    let executed = bootstrap::run(command, &[], false)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let failed = format!("{words:?}: {} {}", executed.code, text(&executed.stderr));
    check(executed.code == 0, failed)?;
    Ok(text(&executed.stdout))
}

/// `state` and `list` tell what State tells.
fn seen_by_state_and_list(world: &World) -> Verdict {
    let (task, root) = container(world, true)?;
    let state: Value = serde_json::from_str(&runtime(&root, &["state", &task.id])?)?;
    same("status", &state["status"], &"running")?;
    same("pid", &state["pid"], &task.pid)?;
    same("bundle", &state["bundle"], &task.bundle.path())?;
    contains("list", &runtime(&root, &["list"])?, &task.id)?;
    task.client.pause(&task.id)?;
    let state: Value = serde_json::from_str(&runtime(&root, &["state", &task.id])?)?;
    same("status", &state["status"], &"paused")?;
    task.client.resume(&task.id)?;
    task.killed()?;
    let state: Value = serde_json::from_str(&runtime(&root, &["state", &task.id])?)?;
    same("status", &state["status"], &"stopped")
}

/// `exec` runs beside the shim.
fn exec_by_the_runtime(world: &World) -> Verdict {
    let (task, root) = container(world, true)?;
    let out = runtime(&root, &["exec", &task.id, "/bin/echo", "hello"])?;
    same("output", &out.as_str(), &"hello\n")?;
    same("status", &task.status()?, &Status::RUNNING)
}

/// `kill` is an exit like any other.
fn killed_by_the_runtime(world: &World) -> Verdict {
    let (task, root) = container(world, true)?;
    let wait = task.client.waiting(&task.id, "");
    runtime(&root, &["kill", &task.id, "KILL"])?;
    same("status", &wait.answer()?.exit_status, &137)?;
    same("event", &world.events.exit(&task.id, &task.id)?.exit_status, &137)
}

/// `delete --force` too; Delete is content with what it finds.
fn deleted_by_the_runtime(world: &World) -> Verdict {
    let (task, root) = container(world, true)?;
    let wait = task.client.waiting(&task.id, "");
    runtime(&root, &["delete", "--force", &task.id])?;
    same("status", &wait.answer()?.exit_status, &137)?;
    same("event", &world.events.exit(&task.id, &task.id)?.exit_status, &137)?;
    same("status", &task.client.delete(&task.id, "")?.exit_status, &137)?;
    world.events.find(&format!("delete {}", task.id)).map(drop)
}

/// `pause` is in State.
fn paused_by_the_runtime(world: &World) -> Verdict {
    world.reference_deviates("it knows only what it did itself")?;
    let (task, root) = container(world, true)?;
    runtime(&root, &["pause", &task.id])?;
    same("status", &task.status()?, &Status::PAUSED)?;
    runtime(&root, &["resume", &task.id])?;
    same("status", &task.status()?, &Status::RUNNING)
}

/// `start` of what the shim created: it runs, and its end is told.
fn started_by_the_runtime(world: &World) -> Verdict {
    let (task, root) = container(world, false)?;
    runtime(&root, &["start", &task.id])?;
    eventually("it runs", PATIENCE, || {
        let state: Value = serde_json::from_str(&runtime(&root, &["state", &task.id])?)?;
        Ok(state["status"] == "running")
    })?;
    task.kill(9)?;
    same("status", &task.wait()?.exit_status, &137)?;
    task.delete()
}
