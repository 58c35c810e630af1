//! Exits are facts: each is told, once, to everybody who waits.

use std::time::Duration;

use corten_integration::driver::slowness;
use corten_integration::managers::{Verdict, check, same};
use corten_integration::shim::{Case, World, request};
use corten_integration::shim_tests;

pub(crate) const TESTS: &[Case] = shim_tests![
    status_of_signals,
    status_of_exits,
    many_waiters,
    wait_on_the_exited,
    a_waiter_that_left,
    a_thousand_execs,
    orphans_are_reaped,
    kill_all,
    shared_pid_namespace,
    exit_time_is_now,
];

/// A process that a signal ended has 128 + the signal's number.
fn status_of_signals(world: &World) -> Verdict {
    let task = world.running("sleep 1000")?;
    for signal in [1, 2, 9, 15, 6, 34] {
        let name = format!("e{signal}");
        task.exec(&name, "exec sleep 1000")?;
        task.client.kill(&task.id, &name, signal, false)?;
        let status = task.client.wait(&task.id, &name)?.exit_status;
        same(&name, &status, &(128 + signal))?;
        let event = world.events.exit(&task.id, &name)?;
        same(&name, &event.exit_status, &(128 + signal))?;
    }
    Ok(())
}

/// Exit codes come as they are.
fn status_of_exits(world: &World) -> Verdict {
    let task = world.running("sleep 1000")?;
    for status in [0, 1, 127, 128, 200, 255] {
        let name = format!("e{status}");
        task.exec(&name, &format!("exit {status}"))?;
        same(&name, &task.client.wait(&task.id, &name)?.exit_status, &status)?;
    }
    Ok(())
}

/// Any number of waiters on any number of connections gets the same answer.
fn many_waiters(world: &World) -> Verdict {
    let task = world.running("sleep 1000")?;
    let mut waiters = Vec::new();
    for _ in 0..10 {
        let client = task.shim.connect()?;
        waiters.extend((0..20).map(|_| client.waiting(&task.id, "")));
    }
    std::thread::sleep(Duration::from_millis(100));
    for waiter in &waiters {
        waiter.is_pending()?;
    }
    task.kill(9)?;
    let first = task.wait()?;
    same("status", &first.exit_status, &137)?;
    for waiter in &waiters {
        same("answer", &waiter.answer()?, &first)?;
    }
    Ok(())
}

/// Wait on what has ended answers at once, again and again.
fn wait_on_the_exited(world: &World) -> Verdict {
    let task = world.running("exit 6")?;
    let first = task.wait()?;
    same("status", &first.exit_status, &6)?;
    for _ in 0..5 {
        same("again", &task.wait()?, &first)?;
    }
    Ok(())
}

/// A waiter whose connection is gone is forgotten.
fn a_waiter_that_left(world: &World) -> Verdict {
    let task = world.running("sleep 1000")?;
    let query = corten_integration::shim::raw::request(
        "containerd.task.v2.Task",
        "Wait",
        &containerd_shim_protos::api::WaitRequest { id: task.id.clone(), ..Default::default() },
    );
    for _ in 0..20 {
        let mut raw = corten_integration::shim::raw::Raw::connect(&task.shim.reply.address)?;
        raw.request(1, &query)?;
    }
    task.killed()?;
    task.delete()
}

/// No exit is lost and none comes twice, however fast they are. (On a slow machine they are fewer.)
fn a_thousand_execs(world: &World) -> Verdict {
    let count = match world.flavour {
        corten_integration::shim::Flavour::Corten => 1000 / slowness() as usize,
        // It takes 30 ms for each.
        corten_integration::shim::Flavour::Reference => 100,
    };
    let task = world.running("sleep 1000")?;
    let mut process = request::process("", false);
    process["args"] = serde_json::json!(["/bin/true"]);
    for number in 0..count {
        let name = format!("e{number}");
        task.client.exec(&request::exec(&task.id, &name, &process))?;
        task.client.start(&task.id, &name)?;
        same(&name, &task.client.wait(&task.id, &name)?.exit_status, &0)?;
        task.client.delete(&task.id, &name)?;
    }
    world.events.count(2 + 3 * count)?;
    let mut exits: Vec<_> =
        world.events.lines().into_iter().filter(|line| line.starts_with("exit")).collect();
    exits.sort();
    let all = exits.len();
    exits.dedup();
    same("exits", &(all, exits.len()), &(count, count))
}

/// Processes that the container's init does not wait for are waited for by somebody.
fn orphans_are_reaped(world: &World) -> Verdict {
    let mut bundle = world.bundle("(sleep 0.01 &) ; (sleep 0.02 &) ; exec sleep 1000");
    // Without a pid namespace the orphans come to the shim.
    bundle.no_namespace("pid");
    let mut task = world.task(bundle)?;
    task.create()?;
    task.start()?;
    corten_integration::managers::eventually("no zombies", Duration::from_secs(5), || {
        let all = corten_integration::shim::leaks::processes();
        Ok(all.len() == 2)
    })
}

/// Kill with `all` reaches every process of the container.
fn kill_all(world: &World) -> Verdict {
    let mut bundle = world.bundle("trap '' TERM; sleep 1000 & sleep 1001 & wait");
    bundle.no_namespace("pid");
    let mut task = world.task(bundle)?;
    task.create()?;
    task.start()?;
    task.client.kill(&task.id, "", 9, true)?;
    same("status", &task.wait()?.exit_status, &137)?;
    corten_integration::managers::eventually("all are gone", Duration::from_secs(5), || {
        Ok(corten_integration::shim::leaks::processes().len() == 1)
    })
}

/// Without a pid namespace the end of the init is the end of all other processes.
fn shared_pid_namespace(world: &World) -> Verdict {
    let mut bundle = world.bundle("sleep 1000 & exec sleep 1001");
    bundle.no_namespace("pid");
    let mut task = world.task(bundle)?;
    task.create()?;
    task.start()?;
    task.exec("e", "sleep 1002")?;
    task.kill(9)?;
    same("status", &task.wait()?.exit_status, &137)?;
    same("exec", &task.client.wait(&task.id, "e")?.exit_status, &137)?;
    corten_integration::managers::eventually("all are gone", Duration::from_secs(5), || {
        Ok(corten_integration::shim::leaks::processes().len() == 1)
    })
}

/// The time of an exit is the time of the exit.
fn exit_time_is_now(world: &World) -> Verdict {
    let task = world.running("sleep 1000")?;
    let now = || {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map(|time| time.as_secs_f64()).unwrap_or_default()
    };
    let before = now();
    task.kill(9)?;
    let time = task.wait()?.exited_at.unwrap_or_default();
    let time = time.seconds as f64 + f64::from(time.nanos) / 1e9;
    check(time > before - 0.01 && time < now() + 0.01, format!("{before} < {time} < {}", now()))
}
