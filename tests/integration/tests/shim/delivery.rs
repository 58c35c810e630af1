//! Events reach a daemon that is not there, that is slow, or that dies (H1 to H3).

use std::time::{Duration, Instant};

use corten_integration::driver::patience;
use corten_integration::managers::{Verdict, check, same};
use corten_integration::shim::stdio::moment;
use corten_integration::shim::world::AT_ONCE;
use corten_integration::shim::{Case, Task, World};
use corten_integration::shim_tests;

pub(crate) const TESTS: &[Case] = shim_tests![
    down_at_the_exit,
    down_from_the_beginning,
    stalled_for_ten_seconds,
    stalled_for_many_events,
    cut_in_the_middle,
    cut_again_and_again,
    restarted_often,
    drained_at_shutdown,
    a_daemon_that_never_comes_back,
];

fn life(task: &Task) -> Vec<String> {
    let lines = ["create ID", "start ID", "exit ID ID 3", "delete ID"];
    lines.iter().map(|line| line.replace("ID", &task.id)).collect()
}

/// The daemon is gone when the container exits; afterwards it is told, once, in order.
fn down_at_the_exit(world: &World) -> Verdict {
    let (task, fifos) = world.piped("read line; exit 3")?;
    world.events.count(2)?;
    world.events.stop()?;
    drop(fifos.write(b"go\n")?);
    same("status", &task.wait()?.exit_status, &3)?;
    std::thread::sleep(Duration::from_secs(1));
    task.delete()?;
    world.events.start()?;
    world.events.exactly(&life(&task))
}

/// The daemon is not there when the shim starts.
fn down_from_the_beginning(world: &World) -> Verdict {
    world.events.stop()?;
    let task = world.running("exit 3")?;
    task.wait()?;
    task.delete()?;
    std::thread::sleep(Duration::from_secs(1));
    world.events.start()?;
    world.events.exactly(&life(&task))
}

/// A daemon that takes an event and is silent for ten seconds is not told twice.
fn stalled_for_ten_seconds(world: &World) -> Verdict {
    world.reference_deviates("it repeats the event six times, then drops it (H3)")?;
    let (task, fifos) = world.piped("read line; exit 3")?;
    world.events.count(2)?;
    world.events.stall();
    drop(fifos.write(b"go\n")?);
    same("status", &task.wait()?.exit_status, &3)?;
    let begun = Instant::now();
    task.delete()?;
    task.status().err().ok_or("it is deleted")?;
    check(begun.elapsed() < patience(Duration::from_secs(2)), "calls are answered meanwhile")?;
    std::thread::sleep(Duration::from_secs(10));
    same("one in flight", &world.events.all().len(), &3)?;
    world.events.recover();
    world.events.exactly(&life(&task))
}

/// More events than anybody would queue; the calls do not wait for them.
fn stalled_for_many_events(world: &World) -> Verdict {
    world.reference_deviates("its calls wait when 128 events do (H3)")?;
    let task = world.running("sleep 1000")?;
    world.events.count(2)?;
    world.events.stall();
    let mut wanted = world.events.lines();
    for number in 0..100 {
        let name = format!("e{number}");
        task.exec(&name, "true")?;
        same(&name, &task.client.wait(&task.id, &name)?.exit_status, &0)?;
        task.client.delete(&task.id, &name)?;
        let id = &task.id;
        wanted.extend([
            format!("exec-added {id} {name}"),
            format!("exec-started {id} {name}"),
            format!("exit {id} {name} 0"),
        ]);
    }
    let begun = Instant::now();
    task.status()?;
    check(begun.elapsed() < patience(AT_ONCE * 5), format!("State took {:?}", begun.elapsed()))?;
    world.events.recover();
    world.events.exactly(&wanted)
}

/// The daemon dies with an event in its hands: at most this one comes again.
fn cut_in_the_middle(world: &World) -> Verdict {
    let (task, fifos) = world.piped("read line; exit 3")?;
    world.events.count(2)?;
    world.events.cut(1);
    drop(fifos.write(b"go\n")?);
    task.wait()?;
    task.delete()?;
    world.events.find(&format!("delete {}", task.id))?;
    moment();
    at_most_repeated(world, &task)
}

/// Every event came, in order; only what was not answered came again, and right away.
fn at_most_repeated(world: &World, task: &Task) -> Verdict {
    let all = world.events.all();
    let mut lines: Vec<_> = all.iter().map(corten_integration::shim::events::Event::line).collect();
    for pair in all.windows(2).filter(|pair| pair[0].line() == pair[1].line()) {
        check(!pair[0].answered, format!("{} was answered and repeated", pair[0].line()))?;
    }
    lines.dedup();
    same("events", &lines, &life(task))
}

/// The same, several times.
fn cut_again_and_again(world: &World) -> Verdict {
    world.reference_deviates("it gives up after five times (H3)")?;
    world.events.cut(8);
    let task = world.running("exit 3")?;
    task.wait()?;
    task.delete()?;
    world.events.find(&format!("delete {}", task.id))?;
    moment();
    at_most_repeated(world, &task)
}

/// A daemon that is restarted all the time gets everything, and the shim keeps no connection.
fn restarted_often(world: &World) -> Verdict {
    let task = world.running("sleep 1000")?;
    world.events.count(2)?;
    let before = task.shim.descriptors();
    for number in 0..10 {
        let name = format!("e{number}");
        world.events.stop()?;
        task.exec(&name, "true")?;
        world.events.start()?;
        task.client.wait(&task.id, &name)?;
        task.client.delete(&task.id, &name)?;
        world.events.find(&format!("exit {} {name} 0", task.id))?;
    }
    same("events", &world.events.all().len(), &32)?;
    task.shim.settles(&before)
}

/// What is not delivered at Shutdown is, before the shim leaves.
fn drained_at_shutdown(world: &World) -> Verdict {
    let (task, fifos) = world.piped("read line; exit 3")?;
    world.events.count(2)?;
    world.events.stall();
    drop(fifos.write(b"go\n")?);
    task.wait()?;
    task.delete()?;
    task.client.shutdown(&task.id, false)?;
    std::thread::sleep(Duration::from_millis(500));
    world.events.recover();
    task.shim.gone()?;
    same("events", &world.events.lines(), &life(&task))
}

/// A daemon that never comes back does not keep a shim whose work is done.
fn a_daemon_that_never_comes_back(world: &World) -> Verdict {
    let task = world.running("exit 3")?;
    world.events.stop()?;
    task.wait()?;
    task.delete()?;
    task.client.shutdown(&task.id, false)?;
    task.shim.gone()
}
