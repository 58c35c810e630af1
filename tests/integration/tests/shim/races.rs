//! What comes in the wrong order or only in part: exits during a Start, workers that die or can't
//! be killed, descriptors that run out between a fork and its answer.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use containerd_shim_protos::api::{DeleteRequest, Status, WaitRequest};
use containerd_shim_protos::ttrpc::Code;
use corten_integration::cgroups;
use corten_integration::driver::patience;
use corten_integration::managers::{Stop, Verdict, check, command, eventually, same};
use corten_integration::shim::bootstrap;
use corten_integration::shim::leaks::processes;
use corten_integration::shim::raw::{self, Raw};
use corten_integration::shim::stdio;
use corten_integration::shim::task::{PATIENCE, V2, refused};
use corten_integration::shim::{Case, Task, World, request};
use corten_integration::shim_tests;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

pub(crate) const TESTS: &[Case] = shim_tests![
    an_exit_during_a_long_start,
    the_worker_of_a_start_is_killed,
    an_exec_is_deleted_with_its_container,
    no_descriptors_for_a_new_process,
    orphans_do_not_wait_for_workers,
    a_delete_that_cannot_be_killed,
    a_create_that_could_not_be_taken_back,
    ids_of_execs,
    waits_that_nobody_waits_for,
    a_bundle_is_used_again,
];

const OURS: &str = "this is about our own workers";

/// A container in the pod "pod" whose hook of this kind runs `hook`.
fn hooked(world: &World, script: &str, kind: &str, hook: &str) -> Result<Task, Stop> {
    let path = world.dir.join("hook");
    fs::write(&path, format!("#!/bin/busybox sh\n{hook}\n"))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    let mut bundle = world.bundle(script);
    bundle.set("hooks", json!({kind: [{"path": path}]}));
    bundle.set("annotations", json!({"io.kubernetes.cri.sandbox-id": "pod"}));
    world.task(bundle)
}

fn hook_runs() -> Verdict {
    eventually("the hook runs", PATIENCE, || {
        Ok(processes().iter().any(|(_, line)| line.contains("sleep 1234")))
    })
}

/// The shim's only worker.
fn worker(task: &Task) -> Result<i32, Stop> {
    let parent = format!(" {} ", task.shim.pid);
    let all = processes();
    let found = all.iter().find(|(_, line)| {
        let words = line.split_once("(corten:worker) ").map(|(_, rest)| rest);
        words.is_some_and(|rest| rest.chars().skip(1).collect::<String>().starts_with(&parent))
    });
    found.map(|(pid, _)| *pid).ok_or_else(|| Stop::Fail(format!("no worker: {all:#?}")))
}

/// An init that ends while its poststart hook runs, however long: its exit is told once, after its
/// start; and it can't be deleted below the Start.
fn an_exit_during_a_long_start(world: &World) -> Verdict {
    world.reference_deviates(OURS)?;
    // Longer than an exit waits for execs that don't end.
    let mut task = hooked(world, "exit 4", "poststart", "timeout 12 sleep 1234; exit 0")?;
    task.create()?;
    let starting = task.client.starting(&task.id, "");
    hook_runs()?;
    let id = task.id.clone();
    eventually("it has ended", PATIENCE, || Ok(task.status()? == Status::STOPPED))?;
    refused(task.client.delete(&id, ""), Code::FAILED_PRECONDITION, "being started")?;
    let wait = task.client.waiting(&id, "");
    same("pid", &starting.within(patience(Duration::from_secs(60)))?.pid, &task.pid)?;
    same("status", &wait.answer()?.exit_status, &4)?;
    world.events.exactly(&[
        format!("create {id}"),
        format!("start {id}"),
        format!("exit {id} {id} 4"),
    ])?;
    task.delete()
}

/// The worker of a Start is killed when the program runs: Start fails, so the program must end.
fn the_worker_of_a_start_is_killed(world: &World) -> Verdict {
    world.reference_deviates(OURS)?;
    let mut task = hooked(world, "sleep 1000", "poststart", "exec sleep 1234")?;
    task.create()?;
    let starting = task.client.starting(&task.id, "");
    hook_runs()?;
    kill(Pid::from_raw(worker(&task)?), Signal::SIGKILL)?;
    check(starting.answer().is_err_and(|refusal| refusal.code.is_some()), "Start fails")?;
    same("status", &task.wait()?.exit_status, &137)?;
    task.delete()
}

/// Delete of an exec whose output waits for a reader, and of the container below it: both are
/// answered.
fn an_exec_is_deleted_with_its_container(world: &World) -> Verdict {
    world.reference_deviates(OURS)?;
    let task = world.running("sleep 1000")?;
    let fifos = world.unread_fifos()?;
    let _reader = stdio::open(Path::new(&fifos.path("out")))?;
    // More than the FIFO holds, less than FIFO and pipe. In whole pages: splice(2) gives a smaller
    // write a whole one of the FIFO's 16 slots, or not, as it comes.
    let script = "dd if=/dev/zero bs=4096 count=25 2>/dev/null; exit 3";
    let mut query = request::exec(&task.id, "e", &request::process(script, false));
    fifos.exec(&mut query);
    task.client.exec(&query)?;
    task.client.start(&task.id, "e")?;
    same("status", &task.client.wait(&task.id, "e")?.exit_status, &3)?;
    task.killed()?;
    let exec = task.client.deleting(&task.id, "e");
    std::thread::sleep(Duration::from_millis(50));
    task.delete()?;
    match exec.answer() {
        Ok(answer) => same("status", &answer.exit_status, &3),
        Err(refusal) => refused::<()>(Err(refusal), Code::NOT_FOUND, ""),
    }
}

/// Sets the shim's limit of open files.
fn limit(task: &Task, files: usize) -> Verdict {
    let mut prlimit = Command::new("prlimit");
    prlimit.args([&format!("--pid={}", task.shim.pid), &format!("--nofile={files}:")]);
    let mut child = command::spawn(&mut prlimit)?;
    let status = command::wait(&mut child, PATIENCE)?;
    check(status.is_some_and(|status| status.success()), "prlimit")
}

/// Waits until no process has these words in its line.
fn all_end(what: &str, words: &str) -> Verdict {
    eventually(what, PATIENCE, || Ok(!processes().iter().any(|(_, line)| line.contains(words))))
}

/// Descriptors for a worker, but not for the process that it makes: the call fails, the process
/// ends, and what was taken is given back (H11).
fn no_descriptors_for_a_new_process(world: &World) -> Verdict {
    world.reference_deviates(OURS)?;
    let mut first = world.bundle("sleep 1000");
    first.set("annotations", json!({"io.kubernetes.cri.sandbox-id": "pod"}));
    let mut task = world.task(first)?;
    task.create()?;
    task.start()?;
    let mut second = world.bundle("sleep 1001");
    second.set("annotations", json!({"io.kubernetes.cri.sandbox-id": "pod"}));
    let mut other = world.task(second)?;
    same("shim", &other.shim.pid, &task.shim.pid)?;
    all_end("no worker is left", "(corten:")?;
    // So many that the workers, who start with none of them, have enough.
    let (path, few) = (task.shim.socket(), task.shim.descriptors().len());
    let clients: Vec<_> = (0..60).map(|_| UnixStream::connect(&path)).collect::<Result<_, _>>()?;
    eventually("they are served", PATIENCE, || Ok(task.shim.descriptors().len() >= few + 60))?;
    let before = task.shim.descriptors();
    for room in 3..8 {
        limit(&task, before.len() + room)?;
        let name = format!("e{room}");
        let fifos = world.fifos(false)?;
        let mut query = request::exec(&task.id, &name, &request::process("sleep 1002", false));
        fifos.exec(&mut query);
        task.client.exec(&query)?;
        let started = task.client.start(&task.id, &name);
        check(started.is_err_and(|refusal| refusal.code.is_some()), "Start of an exec fails")?;
        all_end("the exec ends", "sleep 1002")?;
        task.client.delete(&task.id, &name)?;
        let fifos = world.fifos(false)?;
        let mut query = other.request();
        fifos.create(&mut query);
        let created = other.client.create(&query);
        check(created.is_err_and(|refusal| refusal.code.is_some()), "Create fails")?;
        limit(&task, 1024)?;
        // It was taken back, or it can be deleted now that there are descriptors.
        if let Err(refusal) = other.client.delete(&other.id, "") {
            refused::<()>(Err(refusal), Code::NOT_FOUND, "")?;
        }
        all_end("the container ends", "(corten:")?;
        let what = format!("all descriptors are given back, with room for {room}");
        eventually(&what, PATIENCE, || Ok(task.shim.descriptors().len() <= before.len()))?;
    }
    other.create()?;
    drop(clients);
    same("exec", &task.shell(world, "echo fine")?, &(0, "fine\n".to_owned()))
}

/// While one worker hangs, the children of a container without a pid namespace are reaped.
fn orphans_do_not_wait_for_workers(world: &World) -> Verdict {
    world.reference_deviates(OURS)?;
    let stuck = hooked(world, "true", "createRuntime", "exec sleep 1234")?;
    let creating = stuck.client.creating(&stuck.request());
    hook_runs()?;
    let mut bundle = world.bundle("for i in 1 2 3 4 5; do (sleep 0.2 &); done; exec sleep 1000");
    bundle.no_namespace("pid");
    bundle.set("annotations", json!({"io.kubernetes.cri.sandbox-id": "pod"}));
    let mut task = world.task(bundle)?;
    same("shim", &task.shim.pid, &stuck.shim.pid)?;
    task.create()?;
    task.start()?;
    std::thread::sleep(Duration::from_millis(500));
    eventually("no zombies", Duration::from_secs(5), || {
        Ok(!processes().iter().any(|(_, line)| line.contains(") Z ")))
    })?;
    creating.is_pending()?;
    stuck.client.kill(&stuck.id, "", 9, false)?;
    check(creating.answer().is_err(), "the create was ended")
}

/// A delete whose worker can't even be killed (here: in a frozen v1 group): whoever asks again is
/// told the same in time, and who asks last gets it when the worker can end.
fn a_delete_that_cannot_be_killed(world: &World) -> Verdict {
    world.reference_deviates(OURS)?;
    let Some(group) = cgroups::directory("freezer", &format!("{}/stuck", parent())) else {
        return Err(Stop::Skip("no v1 freezer".to_owned()));
    };
    if cgroups::is_v2() {
        return Err(Stop::Skip("a frozen v2 group holds nobody who is killed".to_owned()));
    }
    let mut task = hooked(world, "sleep 1000", "poststop", "exec sleep 1234")?;
    task.create()?;
    task.start()?;
    task.killed()?;
    let query = DeleteRequest { id: task.id.clone(), ..Default::default() };
    let mut query = raw::request(V2, "Delete", &query);
    query.timeout_nano = 1_500_000_000;
    let mut raw = Raw::connect(&task.shim.reply.address)?;
    raw.request(1, &query)?;
    hook_runs()?;
    fs::create_dir_all(&group)?;
    fs::write(group.join("cgroup.procs"), worker(&task)?.to_string())?;
    fs::write(group.join("freezer.state"), "FROZEN")?;
    let told = |raw: &mut Raw, stream| -> Result<Code, Stop> {
        Ok(raw.response(stream)?.status.unwrap_or_default().code.enum_value_or_default())
    };
    let first = told(&mut raw, 1)?;
    raw.request(3, &query)?;
    let second = told(&mut raw, 3)?;
    let last = task.client.deleting(&task.id, "");
    std::thread::sleep(Duration::from_millis(100));
    fs::write(world.dir.join("hook"), "#!/bin/busybox sh\nexit 0\n")?;
    fs::write(group.join("freezer.state"), "THAWED")?;
    same("first", &first, &Code::DEADLINE_EXCEEDED)?;
    same("second", &second, &Code::DEADLINE_EXCEEDED)?;
    same("last", &last.answer()?.exit_status, &137)?;
    eventually("the worker ends", PATIENCE, || Ok(fs::remove_dir(&group).is_ok()))
}

/// A create whose worker was killed, and that could not be taken back (a mount is in the way): Kill
/// tries it again.
fn a_create_that_could_not_be_taken_back(world: &World) -> Verdict {
    world.reference_deviates(OURS)?;
    let task = hooked(world, "sleep 1000", "createRuntime", "exec sleep 1234")?;
    let creating = task.client.creating(&task.request());
    hook_runs()?;
    let state = format!("/run/containerd/corten/{}/{}", world.namespace, task.id);
    let none = None::<&str>;
    mount(Some(state.as_str()), state.as_str(), none, MsFlags::MS_BIND, none)?;
    kill(Pid::from_raw(worker(&task)?), Signal::SIGKILL)?;
    let answer = creating.answer();
    let tried = task.shim.log.expect(&format!("delete container {}", task.id));
    let stays = task.status();
    umount2(state.as_str(), MntFlags::MNT_DETACH)?;
    check(answer.is_err_and(|refusal| refusal.code.is_some()), "Create fails")?;
    tried?;
    same("status", &stays?, &Status::UNKNOWN)?;
    task.kill(9)?;
    let gone = || task.client.state(&task.id, "").is_err_and(|it| it.code == Some(Code::NOT_FOUND));
    eventually("it is taken back", PATIENCE, || Ok(gone()))
}

fn parent() -> &'static str {
    corten_integration::shim::sandbox().cgroup.as_str()
}

/// An exec's id is a file name; which one does not matter.
fn ids_of_execs(world: &World) -> Verdict {
    world.reference_deviates("it takes every id")?;
    let task = world.running("sleep 1000")?;
    for id in ["../x", "a/b", ".", "..", "a b", "\0", "\n"] {
        let query = request::exec(&task.id, id, &request::process("exit 3", false));
        refused(task.client.exec(&query), Code::INVALID_ARGUMENT, "id")?;
    }
    let long = "x".repeat(200);
    for id in ["init", "exit", "0", long.as_str(), task.id.as_str()] {
        task.exec(id, "exit 3")?;
        same(id, &task.client.wait(&task.id, id)?.exit_status, &3)?;
        let record = task.bundle.dir.join("exits").join(format!("{id}.json"));
        check(record.exists(), format!("the record of {id}"))?;
        task.client.delete(&task.id, id)?;
        check(!record.exists(), format!("the record of {id} is gone"))?;
    }
    same("status", &task.status()?, &Status::RUNNING)
}

/// Somebody asks with a deadline, again and again: the connection is as good as before.
fn waits_that_nobody_waits_for(world: &World) -> Verdict {
    world.reference_deviates("this is about our own limit of calls")?;
    let task = world.running("sleep 1000")?;
    let query = WaitRequest { id: task.id.clone(), ..Default::default() };
    let mut query = raw::request(V2, "Wait", &query);
    query.timeout_nano = 1;
    let mut raw = Raw::connect(&task.shim.reply.address)?;
    let last = 2 * 5000 + 1;
    for stream in (1..last).step_by(2) {
        raw.request(stream, &query)?;
        if stream > 1 {
            let status = raw.response(stream - 2)?.status.unwrap_or_default();
            same("code", &status.code.enum_value_or_default(), &Code::DEADLINE_EXCEEDED)?;
        }
    }
    query.timeout_nano = 0;
    raw.request(last, &query)?;
    raw.response(last - 2)?;
    task.killed()?;
    same("code", &raw.response(last)?.status.code.enum_value_or_default(), &Code::OK)
}

/// What an earlier container of the same bundle ended with is not said of the next.
fn a_bundle_is_used_again(world: &World) -> Verdict {
    world.reference_deviates("it always says 137")?;
    let mut bundle = world.bundle("exit 3");
    bundle.set("annotations", json!({"io.kubernetes.cri.sandbox-id": "pod"}));
    let mut task = world.task(bundle)?;
    task.create()?;
    task.start()?;
    same("status", &task.wait()?.exit_status, &3)?;
    task.delete()?;
    task.bundle.script("sleep 1000");
    task.bundle.write();
    task.create()?;
    task.start()?;
    task.shim.signal(Signal::SIGKILL)?;
    task.shim.gone()?;
    same("status", &bootstrap::delete(world, &task.bundle.dir, &task.id)?.exit_status, &137)
}
