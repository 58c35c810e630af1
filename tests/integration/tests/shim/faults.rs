//! Calls and deaths at any moment: whatever comes between, the rules hold and nothing stays.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use containerd_shim_protos::api::Status;
use containerd_shim_protos::ttrpc::Code;
use corten_integration::cgroups;
use corten_integration::managers::{Stop, Verdict, check, eventually, same};
use corten_integration::shim::bootstrap::{self, Boot};
use corten_integration::shim::leaks::processes;
use corten_integration::shim::task::{PATIENCE, Refusal, TaskClient};
use corten_integration::shim::{Case, Flavour, Task, World, request};
use corten_integration::shim_tests;
use nix::sys::signal::Signal;
use serde_json::json;

pub(crate) const TESTS: &[Case] = shim_tests![
    sigkill_at_any_moment,
    sigkill_in_a_delete,
    execs_race_the_exit,
    forty_execs_at_once,
    the_same_calls_at_once,
    any_calls_at_once,
    a_hundred_lives,
    the_binary_is_replaced,
    exit_while_the_daemon_is_away,
    checkpoint_that_fails,
    restore_of_nothing,
];

/// A sequence of numbers that is the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % sides
    }
}

/// What is there of a container, besides its bundle.
fn traces(world: &World, id: &str) -> Vec<String> {
    let mut all: Vec<_> = processes().into_iter().map(|(_, line)| line).collect();
    all.extend(cgroups::tagged(id).iter().map(|group| group.display().to_string()));
    for runtime in ["corten", "runc"] {
        let state = format!("/run/containerd/{runtime}/{}/{id}", world.namespace);
        all.extend(fs::exists(&state).unwrap_or_default().then_some(state));
    }
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    all.extend(table.lines().filter(|line| line.contains(id)).map(str::to_owned));
    all
}

/// After the shim's death `delete` leaves nothing.
fn cleaned(world: &World, task: &Task) -> Verdict {
    task.shim.signal(Signal::SIGKILL)?;
    task.shim.gone()?;
    bootstrap::delete(world, &task.bundle.dir, &task.id)?;
    let mut left = Vec::new();
    let clean = eventually("nothing stays", Duration::from_secs(5), || {
        left = traces(world, &task.id);
        Ok(left.is_empty())
    });
    clean.map_err(|_| Stop::Fail(format!("left: {left:#?}")))?;
    same("socket", &task.shim.socket().exists(), &false)
}

/// H4: the shim is killed at any moment of a container's beginning.
fn sigkill_at_any_moment(world: &World) -> Verdict {
    world.reference_deviates("the runtime goes on alone, and the socket stays (H4)")?;
    for round in 0..30 {
        let bundle = world.bundle("sleep 1000");
        let image = world.dir.join(format!("image{round}"));
        fs::rename(bundle.rootfs(), &image)?;
        fs::create_dir(bundle.rootfs())?;
        let task = world.task(bundle)?;
        let mut query = task.request();
        let source = image.display().to_string();
        query.rootfs = vec![request::mount("bind", &source, "", &["rbind", "rw"])];
        let (client, id) = (task.client.clone(), task.id.clone());
        let life = std::thread::spawn(move || -> Result<(), Refusal> {
            client.create(&query)?;
            client.start(&id, "")?;
            client.exec(&request::exec(&id, "e", &request::process("sleep 1000", false)))?;
            client.start(&id, "e")?;
            Ok(())
        });
        std::thread::sleep(Duration::from_millis(round * 3));
        let verdict = cleaned(world, &task);
        life.join().map_err(|_| "a panic")?.ok();
        verdict.map_err(|stop| Stop::Fail(format!("after {} ms: {stop:?}", round * 3)))?;
    }
    Ok(())
}

/// H4: the shim is killed at any moment of a container's end.
fn sigkill_in_a_delete(world: &World) -> Verdict {
    world.reference_deviates("the socket stays (H4)")?;
    for round in 0..15 {
        let task = world.running("sleep 1000")?;
        task.exec("e", "sleep 1000")?;
        let (client, id) = (task.client.clone(), task.id.clone());
        let end = std::thread::spawn(move || -> Result<(), Refusal> {
            client.kill(&id, "", 9, true)?;
            client.wait(&id, "")?;
            client.delete(&id, "")?;
            Ok(())
        });
        std::thread::sleep(Duration::from_millis(round));
        let verdict = cleaned(world, &task);
        end.join().map_err(|_| "a panic")?.ok();
        verdict.map_err(|stop| Stop::Fail(format!("after {round} ms: {stop:?}")))?;
    }
    Ok(())
}

/// The rules of the order of one container's events; the first that is broken.
fn ordered(lines: &[String], id: &str) -> Verdict {
    let mut seen: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut init_has_exited = false;
    for line in lines {
        let words: Vec<_> = line.split(' ').collect();
        if words[1] != id {
            continue;
        }
        let process = words.get(2).copied().unwrap_or(id);
        let before = seen.entry(process).or_default();
        let wanted: &[&str] = match words[0] {
            "create" | "exec-added" => &[],
            "start" => &["create"],
            "exec-started" => &["exec-added"],
            "exit" if process == id => &["create", "start"],
            "exit" => &["exec-added", "exec-started"],
            "delete" => &["create", "start", "exit"],
            other => return Err(Stop::Fail(format!("unexpected {other}"))),
        };
        check(before == wanted, format!("{line} after {before:?} in {lines:#?}"))?;
        let late = init_has_exited && matches!(words[0], "exit" | "exec-started");
        check(!late, format!("{line} after the exit of the init in {lines:#?}"))?;
        init_has_exited |= words[0] == "exit" && process == id;
        before.push(words[0]);
    }
    let lost = seen.iter().find(|(_, events)| events.last() == Some(&"exec-started"));
    check(lost.is_none(), format!("no exit of {lost:?} in {lines:#?}"))
}

/// H9: execs are started while the init ends.
fn execs_race_the_exit(world: &World) -> Verdict {
    let rounds = if world.flavour == Flavour::Corten { 15 } else { 4 };
    for round in 0..rounds {
        let task = world.running("sleep 1000")?;
        let (client, id) = (task.client.clone(), task.id.clone());
        let execs = std::thread::spawn(move || -> Result<(), Refusal> {
            for number in 0..40 {
                let name = format!("e{number}");
                let process = request::process("true", false);
                client.exec(&request::exec(&id, &name, &process))?;
                client.start(&id, &name)?;
            }
            Ok(())
        });
        std::thread::sleep(Duration::from_millis(5 + round * 9));
        task.killed()?;
        let answer = execs.join().map_err(|_| "a panic")?;
        if let Err(refusal) = answer {
            check(refusal.code.is_some(), refusal)?;
        }
        world.events.exit(&task.id, &task.id)?;
        task.delete()?;
        world.events.find(&format!("delete {}", task.id))?;
        ordered(&world.events.lines(), &task.id)?;
        task.shim.end()?;
    }
    Ok(())
}

/// H8: a storm of exits.
fn forty_execs_at_once(world: &World) -> Verdict {
    world.reference_deviates("1.6 answers no Start any more when many come at once")?;
    let task = world.running("sleep 1000")?;
    let threads: Vec<_> = (0..40)
        .map(|number| {
            let (client, id) = (task.client.clone(), task.id.clone());
            std::thread::spawn(move || -> Result<u32, Refusal> {
                let name = format!("e{number}");
                let process = request::process(&format!("exit {number}"), false);
                client.exec(&request::exec(&id, &name, &process))?;
                client.start(&id, &name)?;
                let status = client.wait(&id, &name)?.exit_status;
                client.delete(&id, &name)?;
                Ok(status)
            })
        })
        .collect();
    for (number, thread) in threads.into_iter().enumerate() {
        let status = thread.join().map_err(|_| "a panic")??;
        same("status", &status, &(number as u32))?;
    }
    world.events.count(2 + 3 * 40)?;
    ordered(&world.events.lines(), &task.id)
}

/// Calls the same thing from many threads; how many were answered, and the refusals.
fn at_once(
    client: &TaskClient,
    call: impl Fn(&TaskClient) -> Result<(), Refusal> + Clone + Send + 'static,
) -> Result<(usize, Vec<Refusal>), Stop> {
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let (client, call) = (client.clone(), call.clone());
            std::thread::spawn(move || call(&client))
        })
        .collect();
    let mut refusals = Vec::new();
    for thread in threads {
        refusals.extend(thread.join().map_err(|_| "a panic")?.err());
    }
    Ok((8 - refusals.len(), refusals))
}

/// H16: a client that asks again because it gave up waiting; of each only one is done.
fn the_same_calls_at_once(world: &World) -> Verdict {
    world.reference_deviates("the runtime's errors have no code")?;
    let task = world.task(world.bundle("sleep 1000"))?;
    let query = task.request();
    let (done, refusals) = at_once(&task.client, move |client| client.create(&query).map(drop))?;
    same("creates", &done, &1)?;
    let code = |refusal: &Refusal| refusal.code;
    check(refusals.iter().all(|r| code(r) == Some(Code::ALREADY_EXISTS)), "AlreadyExists")?;
    let id = task.id.clone();
    let (done, refusals) = at_once(&task.client, move |client| client.start(&id, "").map(drop))?;
    same("starts", &done, &1)?;
    check(refusals.iter().all(|r| code(r) == Some(Code::FAILED_PRECONDITION)), "Precondition")?;
    let query = request::exec(&task.id, "e", &request::process("sleep 1000", false));
    let (done, refusals) = at_once(&task.client, move |client| client.exec(&query))?;
    same("execs", &done, &1)?;
    check(refusals.iter().all(|r| code(r) == Some(Code::ALREADY_EXISTS)), "AlreadyExists")?;
    task.client.kill(&task.id, "", 9, true)?;
    task.client.wait(&task.id, "")?;
    let id = task.id.clone();
    let (done, refusals) = at_once(&task.client, move |client| client.delete(&id, "").map(drop))?;
    check(done >= 1, "one delete at least")?;
    check(refusals.iter().all(|r| code(r) == Some(Code::NOT_FOUND)), "NotFound")?;
    world.events.find(&format!("delete {}", task.id))?;
    ordered(&world.events.lines(), &task.id)
}

/// One call of any kind to any of the containers.
fn any_call(
    client: &TaskClient,
    dice: &mut Dice,
    tasks: &[(String, String)],
) -> Result<(), Refusal> {
    let (id, bundle) = &tasks[dice.roll(tasks.len() as u64) as usize];
    let exec = ["", "", "e", "f"][dice.roll(4) as usize];
    match dice.roll(16) {
        0 | 1 => {
            let mut query = containerd_shim_protos::api::CreateTaskRequest::new();
            query.id.clone_from(id);
            query.bundle.clone_from(bundle);
            client.create(&query).map(drop)
        }
        2..=4 => client.start(id, exec).map(drop),
        5 | 6 => client.exec(&request::exec(id, exec, &request::process("sleep 0.05", false))),
        7 => client.kill(id, exec, 9, dice.roll(2) == 0),
        8 | 9 => client.delete(id, exec).map(drop),
        10 => client.pause(id),
        11 | 12 => client.resume(id),
        13 => client.state(id, exec).map(drop),
        14 => client.pids(id).map(drop),
        _ => client.update(id, &json!({"pids": {"limit": 100}})),
    }
}

/// Any calls in any order from several clients: each is answered, and in the end everything can
/// be ended.
fn any_calls_at_once(world: &World) -> Verdict {
    world.reference_deviates("calls wait for each other, and some for ever")?;
    let mut first = world.bundle("sleep 1000");
    first.set("annotations", json!({"io.kubernetes.cri.sandbox-id": "pod"}));
    let task = world.task(first)?;
    let mut tasks = vec![(task.id.clone(), task.bundle.path().to_owned())];
    for _ in 0..2 {
        let mut bundle = world.bundle("sleep 0.2");
        bundle.set("annotations", json!({"io.kubernetes.cri.sandbox-id": "pod"}));
        let other = world.task(bundle)?;
        tasks.push((other.id.clone(), other.bundle.path().to_owned()));
    }
    let threads: Vec<_> = (1..=4)
        .map(|seed| {
            let (client, tasks) = (task.shim.connect(), tasks.clone());
            std::thread::spawn(move || -> Result<(), String> {
                let client = client.map_err(|stop| format!("{stop:?}"))?;
                let mut dice = Dice(u64::wrapping_mul(seed, 0x9e37_79b9_7f4a_7c15));
                for _ in 0..150 {
                    match any_call(&client, &mut dice, &tasks) {
                        Err(refusal) if refusal.code.is_none() => return Err(refusal.to_string()),
                        _ => {}
                    }
                }
                Ok(())
            })
        })
        .collect();
    for thread in threads {
        thread.join().map_err(|_| "a panic")??;
    }
    check(task.shim.is_alive(), "the shim lives")?;
    let lines = world.events.lines();
    let exits = lines.iter().filter(|line| line.starts_with("exit")).count();
    check(exits >= 2, format!("something has happened: {lines:#?}"))
}

/// H12: a hundred containers, one after the other in one shim: it is as it was.
fn a_hundred_lives(world: &World) -> Verdict {
    let (rounds, warm) = if world.flavour == Flavour::Corten { (100, 20) } else { (10, 5) };
    let mut bundle = world.bundle("sleep 1000");
    bundle.set("annotations", json!({"io.kubernetes.cri.sandbox-id": "pod"}));
    let mut pause = world.task(bundle)?;
    pause.create()?;
    pause.start()?;
    let mut before = (Vec::new(), 0);
    for round in 0..rounds {
        let mut bundle = world.bundle("echo word; exit 3");
        bundle.set("annotations", json!({"io.kubernetes.cri.sandbox-id": "pod"}));
        let (task, fifos) = world.piped_with(bundle)?;
        same("status", &task.wait()?.exit_status, &3)?;
        task.delete()?;
        same("output", &fifos.out().end()?, b"word\n")?;
        fs::remove_dir_all(&task.bundle.dir)?;
        if round == warm {
            before = (pause.shim.descriptors(), memory(&pause)?);
        }
    }
    let after = memory(&pause)?;
    pause.shim.settles(&before.0)?;
    if world.flavour == Flavour::Corten {
        let threads = fs::read_dir(format!("/proc/{}/task", pause.shim.pid))?.count();
        same("threads", &threads, &1)?;
        check(after < before.1 + 256, format!("{} KiB, then {after} KiB", before.1))?;
    }
    Ok(())
}

/// The shim's own memory in KiB.
fn memory(task: &Task) -> Result<u64, Stop> {
    let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", task.shim.pid))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Private_Dirty:"));
    Ok(line.ok_or("no number")?.trim().trim_end_matches(" kB").parse()?)
}

/// H13: the binary is replaced by an upgrade; the shim that runs does its work to the end.
fn the_binary_is_replaced(world: &World) -> Verdict {
    let copy = world.dir.join(world.shim.file_name().ok_or("no name")?);
    fs::copy(&world.shim, &copy)?;
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))?;
    let boot = Boot { program: Some(copy.clone()), ..Boot::default() };
    let mut task = world.task_with(world.bundle("exec sleep 1000"), &boot)?;
    let next = world.dir.join("next");
    fs::write(&next, "#!/bin/busybox sh\nexit 99\n")?;
    fs::set_permissions(&next, fs::Permissions::from_mode(0o755))?;
    fs::rename(&next, &copy)?;
    task.create()?;
    task.start()?;
    same("exec", &task.shell(world, "echo fine")?, &(0, "fine\n".to_owned()))?;
    task.client.pause(&task.id)?;
    task.client.resume(&task.id)?;
    task.killed()?;
    task.delete()
}

/// H2: the container ends while nobody is there; a daemon that comes learns everything.
fn exit_while_the_daemon_is_away(world: &World) -> Verdict {
    let (task, fifos) = world.piped("read line; exit 5")?;
    world.events.count(2)?;
    let stdin = fifos.stdin()?;
    world.events.stop()?;
    let address = task.shim.reply.address.clone();
    std::io::Write::write_all(&mut &stdin, b"go\n")?;
    drop(stdin);
    std::thread::sleep(Duration::from_millis(500));
    world.events.start()?;
    let client = TaskClient::connect_to(&address)?;
    same("connect", &client.connect(&task.id)?.task_pid, &task.pid)?;
    let state = client.state(&task.id, "")?;
    same("status", &state.status.enum_value_or_default(), &Status::STOPPED)?;
    same("exit status", &state.exit_status, &5)?;
    same("wait", &client.wait(&task.id, "")?.exit_status, &5)?;
    // A daemon that loads a shim asks for Pids, and deletes the shim when there are none.
    if world.flavour == Flavour::Corten {
        let pids = client.pids(&task.id)?.processes;
        check(pids.iter().any(|process| process.pid == task.pid), format!("{pids:?}"))?;
    }
    same("exit", &world.events.exit(&task.id, &task.id)?.exit_status, &5)?;
    same("delete", &client.delete(&task.id, "")?.exit_status, &5)
}

/// H17: Checkpoint without CRIU, or to nowhere: an error, and the container goes on.
fn checkpoint_that_fails(world: &World) -> Verdict {
    let task = world.running("while :; do sleep 0.1; done")?;
    let answer = task.client.checkpoint(&task.id, "/proc/nowhere/at/all");
    check(answer.is_err_and(|refusal| refusal.code.is_some()), "an error")?;
    same("status", &task.status()?, &Status::RUNNING)?;
    same("exec", &task.shell(world, "echo fine")?, &(0, "fine\n".to_owned()))
}

/// Create from a checkpoint that is none: an error at Create or at Start, and nothing stays.
fn restore_of_nothing(world: &World) -> Verdict {
    let mut task = world.task(world.bundle("sleep 1000"))?;
    let mut query = task.request();
    query.checkpoint = world.dir.join("no-checkpoint").display().to_string();
    match task.client.create(&query) {
        Err(refusal) => check(refusal.code.is_some(), refusal)?,
        Ok(pid) => {
            task.pid = pid;
            let answer = task.client.start(&task.id, "");
            check(answer.is_err_and(|refusal| refusal.code.is_some()), "Start is refused")?;
            task.client.delete(&task.id, "").ok();
        }
    }
    eventually("nothing stays", PATIENCE, || Ok(processes().len() == 1))
}
