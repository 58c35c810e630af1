//! With nothing to do the shim waits, whatever a container or its streams do; it neither spins nor
//! leaves while somebody may need it.

use std::time::Duration;

use corten_integration::bundle::Bundle;
use corten_integration::managers::{Verdict, check, eventually, same};
use corten_integration::shim::leaks::processes;
use corten_integration::shim::task::PATIENCE;
use corten_integration::shim::world::KILL;
use corten_integration::shim::{Case, World};
use corten_integration::shim_tests;
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::json;

pub(crate) const TESTS: &[Case] = shim_tests![
    a_zombie_that_is_traced,
    a_client_that_takes_its_time,
    a_start_while_the_shim_leaves,
];

const OURS: &str = "this is about our own loop";

/// A process that has ended below a tracer can't be waited for: the shim waits until the tracer lets
/// go of it, and then tells the exit.
fn a_zombie_that_is_traced(world: &World) -> Verdict {
    world.reference_deviates(OURS)?;
    let task = world.running("sleep 1000")?;
    let pid = Pid::from_raw(task.exec("traced", "exec sleep 1001")?.cast_signed());
    // Its shell has become the program that is looked for below.
    eventually("it sleeps", PATIENCE, || Ok(is(pid, "(sleep) S")))?;
    ptrace::seize(pid, ptrace::Options::empty())?;
    let wait = task.client.waiting(&task.id, "traced");
    task.client.kill(&task.id, "traced", KILL, false)?;
    eventually("it is a zombie", PATIENCE, || Ok(is(pid, "(sleep) Z")))?;
    task.shim.rests(Duration::from_secs(1))?;
    wait.is_pending()?;
    let seen = WaitStatus::Signaled(pid, Signal::SIGKILL, false);
    same("what the tracer sees", &waitpid(pid, None)?, &seen)?;
    same("status", &wait.answer()?.exit_status, &137)?;
    same("event", &world.events.exit(&task.id, "traced")?.exit_status, &137)
}

fn is(pid: Pid, state: &str) -> bool {
    let start = format!("process {pid} {state}");
    processes().iter().any(|(_, line)| line.starts_with(&start))
}

/// A shim without containers stays for who is connected: a create may be on its way for long.
fn a_client_that_takes_its_time(world: &World) -> Verdict {
    world.reference_deviates("it stays for ever")?;
    let mut task = world.task(world.bundle("sleep 1000"))?;
    std::thread::sleep(Duration::from_secs(12));
    task.create()?;
    task.start()
}

fn in_a_pod(world: &World) -> Bundle {
    let mut bundle = world.bundle("sleep 1000");
    bundle.set("annotations", json!({"io.kubernetes.cri.sandbox-id": "pod"}));
    bundle
}

/// A shim that leaves, but still has something to tell, takes no new containers: `start` makes a
/// new shim at once, and the old one does not take its socket along.
fn a_start_while_the_shim_leaves(world: &World) -> Verdict {
    world.reference_deviates(OURS)?;
    let mut first = world.task(in_a_pod(world))?;
    first.create()?;
    first.start()?;
    world.events.stall();
    first.killed()?;
    first.delete()?;
    first.client.shutdown(&first.id, false)?;
    check(first.shim.is_alive(), "it has something to tell")?;
    let mut second = world.task(in_a_pod(world))?;
    check(second.shim.pid != first.shim.pid, "another shim")?;
    second.create()?;
    second.start()?;
    first.client.connect(&first.id)?;
    first.shim.gone()?;
    world.events.recover();
    second.shim.connect()?.connect(&second.id)?;
    second.killed()?;
    second.delete()
}
