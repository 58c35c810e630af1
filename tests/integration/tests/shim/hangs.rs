//! The shim never wedges: whatever hangs, it answers, and says at its deadline what it waited for.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use containerd_shim_protos::api::{CreateTaskRequest, DeleteRequest, StartRequest, Status};
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::ttrpc::Code;
use corten_integration::cgroups;
use corten_integration::driver::patience;
use corten_integration::managers::{Stop, Verdict, check, contains, eventually, same};
use corten_integration::shim::leaks::processes;
use corten_integration::shim::raw::{self, Raw};
use corten_integration::shim::task::{PATIENCE, TaskClient, V2, refused};
use corten_integration::shim::world::AT_ONCE;
use corten_integration::shim::{Case, Task, World, request};
use corten_integration::shim_tests;
use serde_json::json;

pub(crate) const TESTS: &[Case] = shim_tests![
    a_hook_of_create,
    a_hook_of_create_until_the_deadline,
    kill_ends_a_hanging_create,
    a_create_that_cannot_be_killed,
    a_hook_of_start,
    a_hook_of_delete,
    delete_until_the_deadline,
    a_frozen_container,
    a_stopped_container,
    an_exec_that_is_frozen,
    a_client_that_gives_up,
    a_neighbour_works,
];

const WHY: &str = "it runs the runtime with its lock held";

/// A container whose hook of this kind hangs; `script` instead of the sleep.
fn hooked(world: &World, kind: &str, script: &str) -> Result<Task, Stop> {
    let hook = world.dir.join("hook");
    fs::write(&hook, format!("#!/bin/busybox sh\n{script}\n"))?;
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755))?;
    let mut bundle = world.bundle("sleep 1000");
    bundle.set("hooks", json!({kind: [{"path": hook}]}));
    bundle.set("annotations", json!({"io.kubernetes.cri.sandbox-id": "pod"}));
    world.task(bundle)
}

/// The script of a hook that hangs for so long, longer on a slow machine.
fn for_seconds(seconds: u64) -> String {
    format!("timeout {} sleep 1234", patience(Duration::from_secs(seconds)).as_secs())
}

/// Waits until a hook is there, in the `sleep` of its script.
fn hook_runs() -> Verdict {
    eventually("the hook runs", PATIENCE, || {
        Ok(processes().iter().any(|(_, line)| line.contains("sleep 1234")))
    })
}

/// The call is answered at once; a busy machine gets three tries.
fn at_once<T>(name: &str, mut call: impl FnMut() -> T) -> Verdict {
    let mut best = Duration::MAX;
    for _ in 0..3 {
        let begun = Instant::now();
        call();
        best = best.min(begun.elapsed());
        if best < patience(AT_ONCE) {
            return Ok(());
        }
    }
    Err(Stop::Fail(format!("{name} took {best:?}")))
}

/// What must be answered whatever else goes on.
fn answers(client: &TaskClient, id: &str) -> Verdict {
    at_once("State", || client.state(id, ""))?;
    at_once("Pids", || client.pids(id))?;
    at_once("Connect", || client.connect(id))?;
    at_once("Stats", || client.stats(id))?;
    at_once("ResizePty", || client.resize(id, "", 80, 24))?;
    at_once("State of another", || client.state("nobody", ""))
}

/// A call with a deadline: its status and how long it took.
fn with_deadline(
    task: &Task,
    method: &str,
    message: &impl Message,
    deadline: Duration,
) -> Result<(Code, String, Duration), Stop> {
    let mut raw = Raw::connect(&task.shim.reply.address)?;
    let mut query = raw::request(V2, method, message);
    query.timeout_nano = i64::try_from(deadline.as_nanos())?;
    let begun = Instant::now();
    raw.request(1, &query)?;
    let status = raw.response(1)?.status.unwrap_or_default();
    Ok((status.code.enum_value_or_default(), status.message, begun.elapsed()))
}

/// A createRuntime hook that hangs: everything else is answered; then Create is, too.
fn a_hook_of_create(world: &World) -> Verdict {
    world.reference_deviates(WHY)?;
    let task = hooked(world, "createRuntime", &for_seconds(3))?;
    let creating = task.client.creating(&task.request());
    hook_runs()?;
    answers(&task.client, &task.id)?;
    creating.is_pending()?;
    let query = creating.answer();
    check(query.is_err_and(|refusal| refusal.code.is_some()), "the hook failed")?;
    refused(task.client.state(&task.id, ""), Code::NOT_FOUND, "")
}

/// At its deadline Create is DeadlineExceeded, names the process that it waited for, and nothing
/// stays.
fn a_hook_of_create_until_the_deadline(world: &World) -> Verdict {
    world.reference_deviates(WHY)?;
    let task = hooked(world, "createRuntime", "exec sleep 1234")?;
    let deadline = patience(Duration::from_millis(700));
    let (code, words, took) = with_deadline(&task, "Create", &task.request(), deadline)?;
    same("code", &code, &Code::DEADLINE_EXCEEDED)?;
    contains("what it waited for", &words, "sleep")?;
    contains("the reason", &words, "hook")?;
    // The answer comes a little before the caller stops listening.
    check(took >= deadline * 9 / 10 && took < deadline * 3, format!("{took:?}"))?;
    eventually("nothing stays", PATIENCE, || Ok(processes().len() == 1))?;
    refused(task.client.state(&task.id, ""), Code::NOT_FOUND, "")?;
    same("groups", &cgroups::tagged(&task.id).len(), &0)?;
    let mut again: CreateTaskRequest = task.request();
    task.bundle.write_raw(&serde_json::to_vec(&without_hooks(&task))?);
    again.stdin.clear();
    task.client.create(&again)?;
    Ok(())
}

fn without_hooks(task: &Task) -> serde_json::Value {
    let mut config = task.bundle.config.clone();
    config.as_object_mut().map(|object| object.remove("hooks"));
    config
}

/// Kill during a Create that hangs is answered at once; it may also end the Create.
fn kill_ends_a_hanging_create(world: &World) -> Verdict {
    world.reference_deviates(WHY)?;
    let task = hooked(world, "createRuntime", &for_seconds(2))?;
    let creating = task.client.creating(&task.request());
    hook_runs()?;
    at_once("Kill", || task.client.kill(&task.id, "", 9, true))?;
    at_once("Delete", || {
        task.client.deleting(&task.id, "").within(patience(AT_ONCE)).map(drop).or_else(|refusal| {
            // It may wait for the create, but the others may not.
            if refusal.code.is_none() { Ok(()) } else { Err(refusal) }
        })
    })
    .ok();
    answers(&task.client, &task.id)?;
    let answer = creating.answer();
    check(answer.is_err_and(|refusal| refusal.code.is_some()), "Create fails")?;
    eventually("nothing stays", PATIENCE, || Ok(processes().len() == 1))
}

/// A create that was to be ended and can't even be killed (here: in a frozen v1 group): whoever waits
/// for its end by a Delete is told so in time.
fn a_create_that_cannot_be_killed(world: &World) -> Verdict {
    world.reference_deviates(WHY)?;
    let parent = &corten_integration::shim::sandbox().cgroup;
    let Some(group) = cgroups::directory("freezer", &format!("{parent}/stuck")) else {
        return Err(Stop::Skip("no v1 freezer".to_owned()));
    };
    if cgroups::is_v2() {
        return Err(Stop::Skip("a frozen v2 group holds nobody who is killed".to_owned()));
    }
    let task = hooked(world, "createRuntime", "exec sleep 1234")?;
    let creating = task.client.creating(&task.request());
    hook_runs()?;
    let all = processes();
    let worker = all.iter().find(|(_, line)| line.contains("(corten:worker) "));
    fs::create_dir_all(&group)?;
    fs::write(group.join("cgroup.procs"), worker.ok_or("no worker")?.0.to_string())?;
    fs::write(group.join("freezer.state"), "FROZEN")?;
    let query = DeleteRequest { id: task.id.clone(), ..Default::default() };
    let deadline = patience(Duration::from_millis(1500));
    let first = with_deadline(&task, "Delete", &query, deadline);
    let second = with_deadline(&task, "Delete", &query, deadline);
    let last = task.client.deleting(&task.id, "");
    std::thread::sleep(Duration::from_millis(100));
    fs::write(group.join("freezer.state"), "THAWED")?;
    for (name, told) in [("first", first?), ("second", second?)] {
        same(name, &told.0, &Code::DEADLINE_EXCEEDED)?;
        check(told.2 < deadline * 2, format!("{name}: {:?}", told.2))?;
    }
    same("last", &last.answer()?.exit_status, &137)?;
    check(creating.answer().is_err_and(|refusal| refusal.code.is_some()), "Create fails")?;
    eventually("the worker ends", PATIENCE, || Ok(fs::remove_dir(&group).is_ok()))
}

/// A poststart hook that hangs: the container runs, and everything is answered.
fn a_hook_of_start(world: &World) -> Verdict {
    world.reference_deviates(WHY)?;
    let mut task = hooked(world, "poststart", "exec sleep 1234")?;
    task.create()?;
    let wait = task.client.waiting(&task.id, "");
    let query = StartRequest { id: task.id.clone(), ..Default::default() };
    let deadline = patience(Duration::from_millis(900));
    let (asked, client, id) = (Instant::now(), task.client.clone(), task.id.clone());
    let other = std::thread::spawn(move || {
        std::thread::sleep(patience(Duration::from_millis(300)));
        answers(&client, &id).map_err(|stop| format!("{stop:?}"))
    });
    let (code, words, _) = with_deadline(&task, "Start", &query, deadline)?;
    check(asked.elapsed() < deadline * 3, "Start is answered at its deadline")?;
    other.join().map_err(|_| "a panic")??;
    if code == Code::DEADLINE_EXCEEDED {
        contains("what it waited for", &words, "sleep")?;
    }
    // The container may run, or be ended by now or soon: whichever it is, it can be deleted then.
    if let Err(refusal) = task.kill(9) {
        contains("the kill", &format!("{refusal:?}"), "already finished")?;
    }
    same("status", &wait.answer()?.exit_status, &137)?;
    task.delete()
}

/// A poststop hook that is slow: Delete waits for it, whoever else asks is answered at once.
fn a_hook_of_delete(world: &World) -> Verdict {
    world.reference_deviates(WHY)?;
    let mut task = hooked(world, "poststop", &for_seconds(2))?;
    task.create()?;
    task.start()?;
    task.killed()?;
    let deleting = task.client.deleting(&task.id, "");
    hook_runs()?;
    answers(&task.client, &task.id)?;
    let second = task.client.deleting(&task.id, "");
    deleting.is_pending()?;
    same("exit status", &deleting.answer()?.exit_status, &137)?;
    // It asked for the same.
    if let Err(refusal) = second.answer() {
        refused::<()>(Err(refusal), Code::NOT_FOUND, "")?;
    }
    refused(task.client.state(&task.id, ""), Code::NOT_FOUND, "")
}

/// At its deadline Delete is DeadlineExceeded and names the process that it waited for; a later
/// one does the rest.
fn delete_until_the_deadline(world: &World) -> Verdict {
    world.reference_deviates(WHY)?;
    let mut task = hooked(world, "poststop", "[ -e $0.was ] && exit; >$0.was; exec sleep 1234")?;
    task.create()?;
    task.start()?;
    task.killed()?;
    let query = DeleteRequest { id: task.id.clone(), ..Default::default() };
    let deadline = patience(Duration::from_millis(900));
    let (code, words, took) = with_deadline(&task, "Delete", &query, deadline)?;
    same("code", &code, &Code::DEADLINE_EXCEEDED)?;
    contains("what it waited for", &words, "sleep")?;
    check(took < deadline * 3, format!("Delete took {took:?}"))?;
    same("status", &task.client.delete(&task.id, "")?.exit_status, &137)?;
    eventually("nothing stays", PATIENCE, || Ok(processes().len() == 1))
}

/// Freezes or thaws the container behind the shim's back.
fn freeze(task: &Task, frozen: bool) -> Verdict {
    let dir = task.bundle.cgroup_dir("freezer");
    if cgroups::is_v2() {
        fs::write(dir.join("cgroup.freeze"), if frozen { "1" } else { "0" })?;
    } else {
        fs::write(dir.join("freezer.state"), if frozen { "FROZEN" } else { "THAWED" })?;
    }
    Ok(())
}

/// A container that somebody else froze: all answers, and SIGKILL is its end.
fn a_frozen_container(world: &World) -> Verdict {
    world.reference_deviates("its kill waits for the thaw")?;
    let task = world.running("sleep 1000")?;
    freeze(&task, true)?;
    answers(&task.client, &task.id)?;
    let begun = Instant::now();
    task.kill(9)?;
    same("status", &task.wait()?.exit_status, &137)?;
    check(begun.elapsed() < patience(Duration::from_secs(1)), format!("{:?}", begun.elapsed()))?;
    task.delete()
}

/// A container under SIGSTOP is a running container.
fn a_stopped_container(world: &World) -> Verdict {
    let task = world.running("while :; do sleep 0.1; done")?;
    task.kill(19)?;
    answers(&task.client, &task.id)?;
    same("status", &task.status()?, &Status::RUNNING)?;
    task.kill(18)?;
    task.killed()
}

/// An exec in a container that somebody froze hangs; nothing else does, and it ends with a reason
/// or with the thaw.
fn an_exec_that_is_frozen(world: &World) -> Verdict {
    world.reference_deviates(WHY)?;
    let task = world.running("sleep 1000")?;
    freeze(&task, true)?;
    let process = request::process("exit 5", false);
    let exec = task.client.exec(&request::exec(&task.id, "e", &process));
    if exec.is_ok() {
        let query =
            StartRequest { id: task.id.clone(), exec_id: "e".to_owned(), ..Default::default() };
        let deadline = patience(Duration::from_millis(700));
        let (code, words, took) = with_deadline(&task, "Start", &query, deadline)?;
        check(code != Code::OK, "Start cannot succeed")?;
        check(!words.is_empty(), "it says why")?;
        check(took < deadline * 3, format!("Start took {took:?}"))?;
        answers(&task.client, &task.id)?;
        task.client.delete(&task.id, "e").ok();
    }
    freeze(&task, false)?;
    same("exec", &task.shell(world, "echo fine")?, &(0, "fine\n".to_owned()))
}

/// A client that leaves in the middle of a Create: the container is there or it is not, and what
/// is there can be deleted.
fn a_client_that_gives_up(world: &World) -> Verdict {
    world.reference_deviates(WHY)?;
    let task = hooked(world, "createRuntime", &format!("{}; exit 0", for_seconds(1)))?;
    let mut raw = Raw::connect(&task.shim.reply.address)?;
    raw.request(1, &raw::request(V2, "Create", &task.request()))?;
    hook_runs()?;
    drop(raw);
    eventually("the create ends", PATIENCE, || {
        Ok(!processes().iter().any(|(_, line)| line.contains("sleep 1234")))
    })?;
    eventually("it is created or gone", PATIENCE, || {
        Ok(match task.client.state(&task.id, "") {
            Ok(state) => state.status.enum_value_or_default() == Status::CREATED,
            Err(refusal) => refusal.code == Some(Code::NOT_FOUND),
        })
    })
}

/// While one container hangs in every way, its neighbour in the same shim lives a whole life.
fn a_neighbour_works(world: &World) -> Verdict {
    world.reference_deviates(WHY)?;
    let stuck = hooked(world, "createRuntime", &for_seconds(4))?;
    let creating = stuck.client.creating(&stuck.request());
    hook_runs()?;
    let mut bundle = world.bundle("sleep 1000");
    bundle.set("annotations", json!({"io.kubernetes.cri.sandbox-id": "pod"}));
    let mut task = world.task(bundle)?;
    same("shim", &task.shim.pid, &stuck.shim.pid)?;
    let begun = Instant::now();
    task.create()?;
    task.start()?;
    same("exec", &task.shell(world, "echo fine")?, &(0, "fine\n".to_owned()))?;
    task.killed()?;
    task.delete()?;
    check(begun.elapsed() < patience(Duration::from_secs(3)), format!("{:?}", begun.elapsed()))?;
    creating.is_pending()?;
    creating.answer().err().ok_or("the hook failed, but Create did not")?;
    Ok(())
}
