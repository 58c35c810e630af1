//! What the daemon is told, and in which order.

use std::time::Duration;

use containerd_shim_protos::events::task::{TaskCreate, TaskDelete, TaskExit, TaskStart};
use corten_integration::managers::{Verdict, check, same};
use corten_integration::shim::{Case, Task, World, request};
use corten_integration::shim_tests;

pub(crate) const TESTS: &[Case] = shim_tests![
    a_life_in_events,
    what_events_carry,
    pause_and_resume,
    an_exec_in_events,
    the_init_exits_last,
    a_fast_init_starts_first,
    fast_execs_start_first,
    a_failed_exec_does_not_hold_the_exit,
    a_failed_create_says_nothing,
];

fn lines(task: &Task, words: &[&str]) -> Vec<String> {
    words.iter().map(|line| line.replace("ID", &task.id)).collect()
}

/// create, start, exit, delete: each once, in this order.
fn a_life_in_events(world: &World) -> Verdict {
    let task = world.running("sleep 1000")?;
    task.killed()?;
    task.delete()?;
    world.events.exactly(&lines(&task, &["create ID", "start ID", "exit ID ID 137", "delete ID"]))
}

/// Events carry the namespace, a time, and the facts that the calls answered.
fn what_events_carry(world: &World) -> Verdict {
    let mut task = world.task(world.bundle("exit 9"))?;
    let fifos = world.fifos(false)?;
    let mut query = task.request();
    fifos.create(&mut query);
    task.pid = task.client.create(&query)?;
    task.start()?;
    let wait = task.wait()?;
    let deleted = task.client.delete(&task.id, "")?;
    world.events.find(&format!("delete {}", task.id))?;
    let all = world.events.all();
    for event in &all {
        same("namespace", &event.namespace, &world.namespace)?;
        check(event.stamp.seconds > 1_600_000_000, "a time stamp")?;
        check(event.body.type_url.starts_with("containerd.events.Task"), &event.body.type_url)?;
    }
    let create: TaskCreate = all[0].decode()?;
    same("bundle", &create.bundle.as_str(), &task.bundle.path())?;
    same("pid", &create.pid, &task.pid)?;
    let io = create.io.unwrap_or_default();
    same("stdout", &io.stdout, &query.stdout)?;
    same("stdin", &io.stdin, &query.stdin)?;
    same("start", &all[1].decode::<TaskStart>()?.pid, &task.pid)?;
    let exit: TaskExit = all[2].decode()?;
    same("exit", &(exit.pid, exit.exit_status), &(task.pid, 9))?;
    same("time of exit", &exit.exited_at, &wait.exited_at)?;
    let delete: TaskDelete = all[3].decode()?;
    same("delete", &(delete.pid, delete.exit_status), &(task.pid, 9))?;
    same("time in delete", &delete.exited_at, &deleted.exited_at)
}

/// paused and resumed.
fn pause_and_resume(world: &World) -> Verdict {
    let task = world.running("sleep 1000")?;
    task.client.pause(&task.id)?;
    task.client.resume(&task.id)?;
    world.events.exactly(&lines(&task, &["create ID", "start ID", "paused ID", "resumed ID"]))
}

/// exec-added, exec-started, exit; Delete of an exec is no event.
fn an_exec_in_events(world: &World) -> Verdict {
    let task = world.running("sleep 1000")?;
    task.exec("e", "exit 4")?;
    task.client.wait(&task.id, "e")?;
    task.client.delete(&task.id, "e")?;
    let wanted = ["create ID", "start ID", "exec-added ID e", "exec-started ID e", "exit ID e 4"];
    world.events.exactly(&lines(&task, &wanted))
}

/// The exits of all execs come before the exit of the init.
fn the_init_exits_last(world: &World) -> Verdict {
    let task = world.running("sleep 1000")?;
    let names: Vec<_> = (0..20).map(|number| format!("e{number}")).collect();
    for name in &names {
        task.exec(name, "sleep 1000")?;
    }
    task.killed()?;
    world.events.count(2 + 3 * names.len() + 1)?;
    let all = world.events.lines();
    same("last", &all.last(), &Some(&format!("exit {0} {0} 137", task.id)))?;
    for name in &names {
        let line = format!("exit {} {name} 137", task.id);
        same(&line, &all.iter().filter(|words| **words == line).count(), &1)?;
    }
    Ok(())
}

/// An init that ends at once: its exit comes after its start all the same.
fn a_fast_init_starts_first(world: &World) -> Verdict {
    for _ in 0..10 {
        let task = world.running("true")?;
        task.wait()?;
        task.delete()?;
        world.events.find(&format!("delete {}", task.id))?;
        let wanted = lines(&task, &["create ID", "start ID", "exit ID ID 0", "delete ID"]);
        let all = world.events.lines();
        let mine: Vec<_> = all.into_iter().filter(|line| line.contains(&task.id)).collect();
        same("order", &mine, &wanted)?;
        task.shim.end()?;
    }
    Ok(())
}

/// Execs that end at once: each exit comes after its exec-started.
fn fast_execs_start_first(world: &World) -> Verdict {
    let task = world.running("sleep 1000")?;
    for number in 0..30 {
        task.exec(&format!("e{number}"), "true")?;
    }
    for number in 0..30 {
        world.events.find(&format!("exit {} e{number} 0", task.id))?;
    }
    let all = world.events.lines();
    let place = |line: String| all.iter().position(|words| *words == line);
    for number in 0..30 {
        let added = place(format!("exec-added {} e{number}", task.id));
        let started = place(format!("exec-started {} e{number}", task.id));
        let exit = place(format!("exit {} e{number} 0", task.id));
        check(added < started && started < exit, format!("order of e{number}: {all:#?}"))?;
    }
    Ok(())
}

/// An exec whose Start failed does not hold back the exit of the init.
fn a_failed_exec_does_not_hold_the_exit(world: &World) -> Verdict {
    let task = world.running("sleep 1000")?;
    for name in ["never", "failed"] {
        let mut process = request::process("", false);
        process["args"] = serde_json::json!(["/no/such/program"]);
        task.client.exec(&request::exec(&task.id, name, &process))?;
    }
    check(task.client.start(&task.id, "failed").is_err(), "the start fails")?;
    task.killed()?;
    world.events.exit(&task.id, &task.id).map(drop)
}

/// A Create that failed is no event.
fn a_failed_create_says_nothing(world: &World) -> Verdict {
    let task = world.task(world.bundle("true"))?;
    std::fs::remove_file(task.bundle.dir.join("config.json"))?;
    check(task.client.create(&task.request()).is_err(), "Create fails")?;
    std::thread::sleep(Duration::from_millis(100));
    world.events.exactly(&[])
}
