//! Calls in the wrong order or with wrong words: the code that the daemon acts on, and a reason.

use containerd_shim_protos::api::Status;
use containerd_shim_protos::ttrpc::Code;
use corten_integration::managers::{Verdict, check, same};
use corten_integration::shim::task::{Answer, TaskClient, refused};
use corten_integration::shim::world::KILL;
use corten_integration::shim::{Case, Flavour, World, request};
use corten_integration::shim_tests;
use serde_json::json;

pub(crate) const TESTS: &[Case] = shim_tests![
    unknown_container,
    unknown_exec,
    created_twice,
    started_twice,
    deleted_while_running,
    deleted_while_paused,
    deleted_twice,
    killed_after_the_end,
    killed_after_delete,
    killed_with_a_wrong_signal,
    exec_of_nothing,
    resumed_without_pause,
    paused_twice,
    paused_before_start,
    create_fails_cleanly,
    create_without_a_config,
    start_fails_cleanly,
];

fn everything(client: &TaskClient, id: &str, exec: &str) -> Vec<(&'static str, Answer<()>)> {
    let resources = json!({"memory": {"limit": 1_000_000}});
    let process = request::process("true", false);
    let mut calls = vec![
        ("State", client.state(id, exec).map(drop)),
        ("Start", client.start(id, exec).map(drop)),
        ("Wait", client.wait(id, exec).map(drop)),
        ("Kill", client.kill(id, exec, KILL, false)),
        ("Delete", client.delete(id, exec).map(drop)),
        ("ResizePty", client.resize(id, exec, 80, 24)),
        ("CloseIO", client.close_stdin(id, exec)),
    ];
    if exec.is_empty() {
        calls.extend([
            ("Pids", client.pids(id).map(drop)),
            ("Stats", client.stats(id).map(drop)),
            ("Pause", client.pause(id)),
            ("Resume", client.resume(id)),
            ("Exec", client.exec(&request::exec(id, "e", &process))),
            ("Update", client.update(id, &resources)),
            ("Checkpoint", client.checkpoint(id, "/nowhere")),
        ]);
    }
    calls
}

/// Every call for a container that does not exist is NotFound.
fn unknown_container(world: &World) -> Verdict {
    let task = world.created("true")?;
    for (name, answer) in everything(&task.client, "nobody", "") {
        refused(answer, Code::NOT_FOUND, "").map_err(|stop| named(name, stop))?;
    }
    Ok(())
}

/// Every call for an exec that does not exist is NotFound.
fn unknown_exec(world: &World) -> Verdict {
    let task = world.running("sleep 1000")?;
    for (name, answer) in everything(&task.client, &task.id, "nothing") {
        // The reference forgets to map this one.
        if world.flavour == Flavour::Reference && name == "CloseIO" {
            continue;
        }
        refused(answer, Code::NOT_FOUND, "").map_err(|stop| named(name, stop))?;
    }
    Ok(())
}

fn named(
    name: &str,
    stop: corten_integration::managers::Stop,
) -> corten_integration::managers::Stop {
    corten_integration::managers::Stop::Fail(format!("{name}: {stop:?}"))
}

/// An id that exists is AlreadyExists, and the container goes on.
fn created_twice(world: &World) -> Verdict {
    world.reference_deviates("it runs the runtime, whose error is Unknown")?;
    let task = world.running("sleep 1000")?;
    refused(task.client.create(&task.request()), Code::ALREADY_EXISTS, &task.id)?;
    same("status", &task.status()?, &Status::RUNNING)?;
    same("pid", &task.client.state(&task.id, "")?.pid, &task.pid)
}

/// Start of what runs, or has run, is refused.
fn started_twice(world: &World) -> Verdict {
    let task = world.running("sleep 1000")?;
    refused_at_all(task.client.start(&task.id, ""), "start")?;
    same("status", &task.status()?, &Status::RUNNING)?;
    task.killed()?;
    refused_at_all(task.client.start(&task.id, ""), "start")?;
    task.delete()
}

/// The daemon cares that it failed; the code is FailedPrecondition or Unknown.
fn refused_at_all<T: std::fmt::Debug>(answer: Answer<T>, words: &str) -> Verdict {
    match answer {
        Ok(answer) => check(false, format!("was answered {answer:?}")),
        Err(refusal) => check(
            matches!(refusal.code, Some(Code::FAILED_PRECONDITION | Code::UNKNOWN))
                && refusal.message.contains(words),
            format!("wanted {words:?}, saw {refusal}"),
        ),
    }
}

/// Delete of a running container is refused and changes nothing.
fn deleted_while_running(world: &World) -> Verdict {
    let task = world.running("sleep 1000")?;
    let answer = task.client.delete(&task.id, "");
    refused_at_all(answer, "cannot delete a running process")?;
    same("status", &task.status()?, &Status::RUNNING)
}

/// Delete of a paused container is refused and changes nothing.
fn deleted_while_paused(world: &World) -> Verdict {
    let task = world.running("sleep 1000")?;
    task.client.pause(&task.id)?;
    refused_at_all(task.client.delete(&task.id, ""), "cannot delete a paused process")?;
    same("status", &task.status()?, &Status::PAUSED)
}

/// The second Delete is NotFound.
fn deleted_twice(world: &World) -> Verdict {
    let task = world.running("true")?;
    task.wait()?;
    task.delete()?;
    refused(task.client.delete(&task.id, ""), Code::NOT_FOUND, "")
}

/// Kill of an exited container is NotFound: the daemon takes that for success.
fn killed_after_the_end(world: &World) -> Verdict {
    let task = world.running("true")?;
    task.wait()?;
    let kill = |all| task.client.kill(&task.id, "", KILL, all);
    let words = "process already finished|no such process|not running|does not exist";
    refused(kill(false), Code::NOT_FOUND, words)?;
    // There may have been others, which are gone now.
    if let Err(refusal) = kill(true) {
        refused::<()>(Err(refusal), Code::NOT_FOUND, words)?;
    }
    Ok(())
}

/// Kill of a deleted container is NotFound.
fn killed_after_delete(world: &World) -> Verdict {
    let task = world.running("true")?;
    task.wait()?;
    task.delete()?;
    refused(task.client.kill(&task.id, "", KILL, false), Code::NOT_FOUND, "")
}

/// A signal that does not exist is refused, with its number.
fn killed_with_a_wrong_signal(world: &World) -> Verdict {
    world.reference_deviates("the runtime's words, without a code")?;
    let task = world.running("sleep 1000")?;
    for signal in [65, 4096, u32::MAX] {
        let answer = task.client.kill(&task.id, "", signal, false);
        refused(answer, Code::INVALID_ARGUMENT, &signal.to_string())?;
    }
    same("status", &task.status()?, &Status::RUNNING)
}

/// An exec without a specification, or with one that is none, is InvalidArgument.
fn exec_of_nothing(world: &World) -> Verdict {
    world.reference_deviates("it ends with a Go error, without a code")?;
    let task = world.running("sleep 1000")?;
    let mut query = request::exec(&task.id, "e", &request::process("true", false));
    query.spec.clear();
    refused(task.client.exec(&query), Code::INVALID_ARGUMENT, "process")?;
    let wrong = request::any(request::PROCESS, b"{\"args\": 7".to_vec());
    query.spec = Some(wrong).into();
    refused(task.client.exec(&query), Code::INVALID_ARGUMENT, "")?;
    let good = request::json(request::PROCESS, &request::process("true", false));
    query.spec = Some(good).into();
    query.exec_id.clear();
    refused(task.client.exec(&query), Code::INVALID_ARGUMENT, "")
}

/// Resume of what is not paused is refused.
fn resumed_without_pause(world: &World) -> Verdict {
    let task = world.running("sleep 1000")?;
    refused_at_all(task.client.resume(&task.id), "resume")?;
    same("status", &task.status()?, &Status::RUNNING)
}

/// Pause of what is paused is refused.
fn paused_twice(world: &World) -> Verdict {
    let task = world.running("sleep 1000")?;
    task.client.pause(&task.id)?;
    refused_at_all(task.client.pause(&task.id), "pause")?;
    same("status", &task.status()?, &Status::PAUSED)
}

/// Pause before Start is refused.
fn paused_before_start(world: &World) -> Verdict {
    let task = world.created("true")?;
    refused_at_all(task.client.pause(&task.id), "pause")
}

/// A config that the runtime refuses: its words are in the answer, nothing is left, and the shim
/// takes the next one.
fn create_fails_cleanly(world: &World) -> Verdict {
    let mut task = world.task(world.bundle("sleep 1000"))?;
    task.bundle.set("root.path", json!("no-such-directory")).write();
    let answer = task.client.create(&task.request());
    check(answer.as_ref().is_err_and(|refusal| refusal.code.is_some()), "Create is refused")?;
    let words = answer.err().map(|refusal| refusal.message).unwrap_or_default();
    check(words.contains("no-such-directory"), format!("the reason is told: {words}"))?;
    refused(task.client.state(&task.id, ""), Code::NOT_FOUND, "")?;
    task.bundle.set("root.path", json!("rootfs")).write();
    task.create()?;
    task.start()
}

/// A bundle without a config is an error, not a crash.
fn create_without_a_config(world: &World) -> Verdict {
    let task = world.task(world.bundle("true"))?;
    std::fs::remove_file(task.bundle.dir.join("config.json"))?;
    let answer = task.client.create(&task.request());
    let words = answer.err().map(|refusal| refusal.to_string()).unwrap_or_default();
    check(words.contains("config.json"), format!("the reason is told: {words}"))
}

/// A program that does not exist fails at Start (or at Create, which looks it up); after Delete
/// nothing is left.
fn start_fails_cleanly(world: &World) -> Verdict {
    let mut bundle = world.bundle("true");
    bundle.args(&["/no/such/program"]);
    let mut task = world.task(bundle)?;
    let words = match task.client.create(&task.request()) {
        Err(refusal) => refusal.message,
        Ok(pid) => {
            task.pid = pid;
            let words =
                task.client.start(&task.id, "").map_or_else(|r| r.message, |_| String::new());
            task.wait()?;
            task.delete()?;
            words
        }
    };
    check(words.contains("/no/such/program"), format!("the reason is told: {words}"))?;
    refused(task.client.state(&task.id, ""), Code::NOT_FOUND, "")
}
