//! Random calls from many clients against the model of a container's life (H9): whatever the
//! schedule, each call is answered, the events are those of some life, and nothing stays.
//! `CORTEN_MODEL_SECONDS` sets how long, `CORTEN_MODEL_SEED` which schedule.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use containerd_shim_protos::api::CreateTaskRequest;
use containerd_shim_protos::ttrpc::Code;
use corten_integration::driver::patience;
use corten_integration::managers::{Stop, Verdict, check, eventually, same};
use corten_integration::shim::leaks::processes;
use corten_integration::shim::task::{Answer, PATIENCE, Refusal, TaskClient};
use corten_integration::shim::{Case, Task, World, request};
use corten_integration::shim_tests;
use serde_json::json;

pub(crate) const TESTS: &[Case] = shim_tests![
    the_model_knows_what_is_wrong,
    random_lives,
    large_requests,
    many_containers_of_one_shim,
];

/// How far a container has come, as its events say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Created,
    Started,
    Ended,
}

/// How far an exec has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exec {
    Added,
    Started,
    Ended,
}

/// The lives that the events told so far.
#[derive(Debug, Default)]
struct Model(BTreeMap<String, (Life, BTreeMap<String, Exec>)>);

impl Model {
    /// One more event; an error when it can't come now.
    fn hear(&mut self, line: &str) -> Result<(), String> {
        let words: Vec<&str> = line.split(' ').collect();
        let (verb, id) = (words[0], words[1]);
        let wrong = |what: &str| Err(format!("{line}: {what}"));
        if verb == "create" {
            let fresh = (Life::Created, BTreeMap::new());
            return self.0.insert(id.to_owned(), fresh).map_or(Ok(()), |_| wrong("exists"));
        }
        let Some((life, execs)) = self.0.get_mut(id) else { return wrong("does not exist") };
        match (verb, words.get(2).copied()) {
            ("start", _) if *life == Life::Created => *life = Life::Started,
            ("exec-added", Some(exec)) if *life != Life::Ended => {
                match execs.insert(exec.to_owned(), Exec::Added) {
                    Some(Exec::Started) => return wrong("runs already"),
                    _ => return Ok(()),
                }
            }
            ("exec-started", Some(exec)) if *life != Life::Ended => {
                match execs.insert(exec.to_owned(), Exec::Started) {
                    Some(Exec::Added) => return Ok(()),
                    _ => return wrong("was not added"),
                }
            }
            ("exit", Some(process)) if process == id => {
                if *life == Life::Ended {
                    return wrong("has ended already");
                }
                if execs.values().any(|exec| *exec == Exec::Started) {
                    return wrong("before its execs");
                }
                *life = Life::Ended;
            }
            ("exit", Some(exec)) => match execs.insert(exec.to_owned(), Exec::Ended) {
                Some(Exec::Started) => return Ok(()),
                _ => return wrong("was not started"),
            },
            ("delete", _) if *life == Life::Ended => drop(self.0.remove(id)),
            ("paused" | "resumed" | "oom", _) => {}
            _ => return wrong("not now"),
        }
        Ok(())
    }
}

/// The model itself: what the rules forbid.
fn the_model_knows_what_is_wrong(_: &World) -> Verdict {
    let good = ["create a", "start a", "exec-added a e", "exec-started a e", "exit a e 0"];
    let end = ["exit a a 137", "delete a", "create a"];
    let mut model = Model::default();
    good.iter().chain(&end).try_for_each(|line| model.hear(line))?;
    for wrong in ["start b", "create a", "exit a e 0", "delete a"] {
        check(model.hear(wrong).is_err(), wrong)?;
    }
    for wrong in [&["exit a a 0", "exit a a 0"][..], &["exit a a 0", "start a"]] {
        let mut model = Model::default();
        model.hear("create a")?;
        check(wrong.iter().try_for_each(|line| model.hear(line)).is_err(), format!("{wrong:?}"))?;
    }
    let mut model = Model::default();
    good[..4].iter().try_for_each(|line| model.hear(line))?;
    check(model.hear("exit a a 137").is_err(), "an init before its exec")
}

/// A sequence of numbers that its seed makes.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % sides
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// A container of the pod, not yet created.
fn member(world: &World, script: &str, own_pids: bool) -> Result<Task, Stop> {
    let mut bundle = world.bundle(script);
    bundle.set("annotations", json!({"io.kubernetes.cri.sandbox-id": "pod"}));
    if !own_pids {
        bundle.no_namespace("pid");
    }
    world.task(bundle)
}

/// One random call for one of the containers.
fn any_call(client: &TaskClient, dice: &mut Dice, all: &[CreateTaskRequest]) -> Answer<()> {
    let query = &all[dice.roll(all.len() as u64) as usize];
    let id = query.id.as_str();
    let exec = format!("e{}", dice.roll(3));
    let scripts = ["exit 3", "sleep 0.05", "sleep 1000", "(sleep 0.1 &); exec sleep 1000"];
    match dice.roll(16) {
        0..=2 => client.create(query).map(drop),
        3..=4 => client.start(id, "").map(drop),
        5..=7 => {
            let process = request::process(scripts[dice.roll(4) as usize], false);
            client.exec(&request::exec(id, &exec, &process)).ok();
            client.start(id, &exec).map(drop)
        }
        8 => client.kill(id, &exec, 9, false),
        9 => client.kill(id, "", 9, dice.roll(2) == 0),
        10..=11 => client.delete(id, &exec).map(drop),
        12..=13 => client.delete(id, "").map(drop),
        14 => client.pause(id),
        _ => client.resume(id),
    }
}

/// The container's end, whatever it is doing.
fn ended(client: &TaskClient, id: &str) -> Verdict {
    eventually(&format!("{id} can be deleted"), PATIENCE, || {
        let unanswered = |refusal: &Refusal| refusal.code.is_none();
        client.resume(id).ok();
        client.kill(id, "", 9, true).ok();
        match client.delete(id, "") {
            Ok(_) => Ok(true),
            Err(refusal) if unanswered(&refusal) => Err(refusal.into()),
            Err(refusal) => Ok(refusal.code == Some(Code::NOT_FOUND)),
        }
    })
}

fn random_lives(world: &World) -> Verdict {
    world.reference_deviates("calls wait for each other, and some for ever")?;
    let anchor = member(world, "sleep 1000", true)?;
    let scripts = [("sleep 1000", true), ("sleep 0.3; exit 4", true), ("sleep 1000", false)];
    let mut all = Vec::new();
    for (script, own_pids) in scripts {
        all.push(member(world, script, own_pids)?.request());
    }
    let time = patience(Duration::from_secs(setting("CORTEN_MODEL_SECONDS", 6)));
    let end = Instant::now() + time;
    let seed = setting("CORTEN_MODEL_SEED", 1);
    let threads: Vec<_> = (1..=5)
        .map(|thread| {
            let (client, all) = (anchor.shim.connect(), all.clone());
            std::thread::spawn(move || -> Result<u32, String> {
                let client = client.map_err(|stop| format!("{stop:?}"))?;
                let mut dice = Dice(u64::wrapping_mul(seed * 8 + thread, 0x9e37_79b9_7f4a_7c15));
                let mut done = 0;
                while Instant::now() < end {
                    let begun = Instant::now();
                    match any_call(&client, &mut dice, &all) {
                        Err(refusal) if refusal.code.is_none() => return Err(refusal.to_string()),
                        answer => done += u32::from(answer.is_ok()),
                    }
                    // Ten seconds are the limit of many things: somebody waited it out.
                    if begun.elapsed() > patience(Duration::from_secs(8)) {
                        return Err(format!("a call took {:?}", begun.elapsed()));
                    }
                }
                Ok(done)
            })
        })
        .collect();
    let mut done = 0;
    for thread in threads {
        done += thread.join().map_err(|_| "a panic")??;
    }
    check(done > 20, format!("{done} calls did something"))?;
    all.iter().try_for_each(|query| ended(&anchor.client, &query.id))?;
    eventually("only the shim is left", PATIENCE, || Ok(processes().len() == 1))?;
    lives_are_complete(world)
}

/// The events are those of whole lives.
fn lives_are_complete(world: &World) -> Verdict {
    let mut open = Vec::new();
    let told = eventually("all ends are told", PATIENCE, || {
        let mut model = Model::default();
        world.events.lines().iter().try_for_each(|line| model.hear(line))?;
        open = model.0.keys().cloned().collect();
        Ok(open.is_empty())
    });
    told.map_err(|stop| Stop::Fail(format!("{stop:?}: {open:?}")))
}

/// An environment of 1 MB, arguments of 100 kB, two thousand mounts of 1 kB: refused or done, and the
/// next is served.
fn large_requests(world: &World) -> Verdict {
    world.reference_deviates("this is about our own tasks")?;
    let mut task = member(world, "sleep 1000", true)?;
    let mut query = task.request();
    let option = "x".repeat(1000);
    query.rootfs =
        (0..2000).map(|_| request::mount("bind", "/nowhere", "", &["rbind", &option])).collect();
    let created = task.client.create(&query);
    check(created.is_err_and(|refusal| refusal.code.is_some()), "it is refused")?;
    task.create()?;
    task.start()?;
    let mut process = request::process("test ${#V7} = 100000", false);
    let variable = |number| format!("V{number}={}", "y".repeat(100_000));
    let variables: Vec<_> = (0..10).map(variable).collect();
    process["env"] = json!(variables);
    process["args"] = json!(["/bin/sh", "-c", "test ${#V7} = 100000", "z".repeat(100_000)]);
    task.client.exec(&request::exec(&task.id, "e", &process))?;
    task.client.start(&task.id, "e")?;
    same("status", &task.client.wait(&task.id, "e")?.exit_status, &0)?;
    // More than execve takes: an error of this exec only.
    process["args"] = json!(["/bin/sh", "-c", "true", "z".repeat(200_000)]);
    task.client.exec(&request::exec(&task.id, "f", &process))?;
    let started = task.client.start(&task.id, "f");
    check(started.is_err_and(|refusal| refusal.code.is_some()), "E2BIG is an error")?;
    same("exec", &task.shell(world, "echo fine")?, &(0, "fine\n".to_owned()))
}

/// Many containers in one shim, all at once; `CORTEN_MODEL_CONTAINERS` says how many.
fn many_containers_of_one_shim(world: &World) -> Verdict {
    world.reference_deviates("this is about our own workers")?;
    let count = setting("CORTEN_MODEL_CONTAINERS", 24);
    let mut tasks = Vec::new();
    for _ in 0..count {
        tasks.push(member(world, "exec sleep 1000", true)?);
    }
    let creating: Vec<_> = tasks.iter().map(|task| task.client.creating(&task.request())).collect();
    let limit = patience(Duration::from_secs(20 + count));
    for creating in creating {
        creating.within(limit)?;
    }
    let starting: Vec<_> = tasks.iter().map(|task| task.client.starting(&task.id, "")).collect();
    for starting in starting {
        starting.within(limit)?;
    }
    let waiting: Vec<_> = tasks.iter().map(|task| task.client.waiting(&task.id, "")).collect();
    tasks.iter().try_for_each(|task| task.kill(9))?;
    for waiting in waiting {
        same("status", &waiting.within(limit)?.exit_status, &137)?;
    }
    let deleting: Vec<_> = tasks.iter().map(|task| task.client.deleting(&task.id, "")).collect();
    for deleting in deleting {
        deleting.within(limit)?;
    }
    lives_are_complete(world)
}
