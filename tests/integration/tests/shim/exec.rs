//! Processes beside the init.

use std::fs;
use std::io::Write;
use std::path::Path;

use containerd_shim_protos::api::Status;
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::shim::oci::ProcessDetails;
use containerd_shim_protos::ttrpc::Code;
use corten_integration::managers::{Stop, Verdict, check, eventually, same};
use corten_integration::shim::task::{PATIENCE, refused};
use corten_integration::shim::world::KILL;
use corten_integration::shim::{Case, World, request};
use corten_integration::shim_tests;
use serde_json::json;

pub(crate) const TESTS: &[Case] = shim_tests![
    life_of_an_exec,
    an_id_is_used_once,
    an_id_is_free_after_delete,
    exec_deleted_before_start,
    exec_in_a_created_container,
    exec_in_a_paused_container,
    exec_after_the_end,
    exec_ends_with_its_container,
    exec_that_cannot_start,
    exec_killed,
    exec_started_twice,
    exec_deleted_while_running,
    exec_ids_in_pids,
    exec_has_its_own_process,
    exec_environment,
    the_pid_of_one_that_has_ended,
];

/// Exec reserves, Start runs, Wait and State tell the status, Delete answers it again.
fn life_of_an_exec(world: &World) -> Verdict {
    let task = world.running("sleep 1000")?;
    let process = request::process("exit 5", false);
    task.client.exec(&request::exec(&task.id, "e", &process))?;
    let state = task.client.state(&task.id, "e")?;
    same("status", &state.status.enum_value_or_default(), &Status::CREATED)?;
    same("id", &state.id.as_str(), &"e")?;
    let wait = task.client.waiting(&task.id, "e");
    let pid = task.client.start(&task.id, "e")?;
    check(pid > 0 && pid != task.pid, "a pid of its own")?;
    same("exit status", &wait.answer()?.exit_status, &5)?;
    let state = task.client.state(&task.id, "e")?;
    same("status", &state.status.enum_value_or_default(), &Status::STOPPED)?;
    same("exit status", &state.exit_status, &5)?;
    same("pid", &state.pid, &pid)?;
    let deleted = task.client.delete(&task.id, "e")?;
    same("deleted", &(deleted.pid, deleted.exit_status), &(pid, 5))?;
    refused(task.client.state(&task.id, "e"), Code::NOT_FOUND, "")?;
    same("the init", &task.status()?, &Status::RUNNING)
}

/// A second Exec with an id that is in use is AlreadyExists, started or not.
fn an_id_is_used_once(world: &World) -> Verdict {
    let task = world.running("sleep 1000")?;
    let query = request::exec(&task.id, "e", &request::process("sleep 1000", false));
    task.client.exec(&query)?;
    refused(task.client.exec(&query), Code::ALREADY_EXISTS, "e")?;
    task.client.start(&task.id, "e")?;
    refused(task.client.exec(&query), Code::ALREADY_EXISTS, "e")?;
    task.client.kill(&task.id, "e", KILL, false)?;
    task.client.wait(&task.id, "e")?;
    refused(task.client.exec(&query), Code::ALREADY_EXISTS, "e")
}

/// After Delete an id can be used again, many times.
fn an_id_is_free_after_delete(world: &World) -> Verdict {
    let task = world.running("sleep 1000")?;
    for status in 1..6 {
        task.exec("e", &format!("exit {status}"))?;
        same("exit status", &task.client.wait(&task.id, "e")?.exit_status, &status)?;
        same("exit status", &task.client.delete(&task.id, "e")?.exit_status, &status)?;
    }
    Ok(())
}

/// An exec that was never started can be deleted.
fn exec_deleted_before_start(world: &World) -> Verdict {
    let task = world.running("sleep 1000")?;
    task.client.exec(&request::exec(&task.id, "e", &request::process("true", false)))?;
    task.client.delete(&task.id, "e")?;
    refused(task.client.start(&task.id, "e"), Code::NOT_FOUND, "")
}

/// An exec in a container that is not started yet.
fn exec_in_a_created_container(world: &World) -> Verdict {
    let task = world.created("sleep 1000")?;
    same("exec", &task.shell(world, "echo early")?, &(0, "early\n".to_owned()))?;
    same("status", &task.status()?, &Status::CREATED)?;
    task.start()
}

/// An exec in a paused container is refused at Start; after Resume it works.
fn exec_in_a_paused_container(world: &World) -> Verdict {
    let task = world.running("sleep 1000")?;
    task.client.pause(&task.id)?;
    // The refusal may come with Exec or with Start.
    let query = request::exec(&task.id, "e", &request::process("true", false));
    let answer = task.client.exec(&query).and_then(|()| task.client.start(&task.id, "e"));
    check(answer.is_err_and(|refusal| refusal.code.is_some()), "the exec is refused")?;
    task.client.resume(&task.id)?;
    same("exec", &task.shell(world, "echo late")?, &(0, "late\n".to_owned()))
}

/// An exec in a container whose init has ended is FailedPrecondition, at Exec or at Start.
fn exec_after_the_end(world: &World) -> Verdict {
    world.reference_deviates("1.6 answers the runtime's words as Unknown; 2.x knows the init")?;
    let task = world.running("sleep 1000")?;
    let process = request::process("true", false);
    task.client.exec(&request::exec(&task.id, "early", &process))?;
    task.killed()?;
    let words = "not running|stopped";
    refused(task.client.start(&task.id, "early"), Code::FAILED_PRECONDITION, words)?;
    let late = task.client.exec(&request::exec(&task.id, "late", &process));
    let late = late.and_then(|()| task.client.start(&task.id, "late"));
    check(late.is_err(), "the late exec is refused")?;
    task.delete()
}

/// The end of the init is the end of its execs, whose status is told too.
fn exec_ends_with_its_container(world: &World) -> Verdict {
    let task = world.running("sleep 1000")?;
    let pid = task.exec("e", "sleep 1000")?;
    let wait = task.client.waiting(&task.id, "e");
    task.killed()?;
    same("exit status", &wait.answer()?.exit_status, &137)?;
    same("exit status", &task.client.state(&task.id, "e")?.exit_status, &137)?;
    same("pid", &task.client.delete(&task.id, "e")?.pid, &pid)
}

/// A program that does not exist: Start says which; the container and the shim go on.
fn exec_that_cannot_start(world: &World) -> Verdict {
    let task = world.running("sleep 1000")?;
    let mut process = request::process("", false);
    process["args"] = json!(["/no/such/program"]);
    task.client.exec(&request::exec(&task.id, "e", &process))?;
    let answer = task.client.start(&task.id, "e");
    let words = answer.map_or_else(|refusal| refusal.message, |_| String::new());
    check(words.contains("no/such/program"), format!("the reason is told: {words}"))?;
    task.client.delete(&task.id, "e")?;
    same("exec", &task.shell(world, "echo next")?, &(0, "next\n".to_owned()))?;
    task.killed()?;
    same("exit", &world.events.exit(&task.id, &task.id)?.exit_status, &137)
}

/// Kill of an exec: before Start FailedPrecondition, running the signal, after the end NotFound.
fn exec_killed(world: &World) -> Verdict {
    let task = world.running("sleep 1000")?;
    let process = request::process("sleep 1000", false);
    task.client.exec(&request::exec(&task.id, "e", &process))?;
    let kill = || task.client.kill(&task.id, "e", 15, false);
    refused(kill(), Code::FAILED_PRECONDITION, "not created")?;
    task.client.start(&task.id, "e")?;
    kill()?;
    same("exit status", &task.client.wait(&task.id, "e")?.exit_status, &143)?;
    refused(kill(), Code::NOT_FOUND, "process already finished|no such process")?;
    same("the init", &task.status()?, &Status::RUNNING)
}

/// Start of an exec that runs, or has ended, is refused.
fn exec_started_twice(world: &World) -> Verdict {
    let task = world.running("sleep 1000")?;
    task.exec("e", "sleep 1000")?;
    check(task.client.start(&task.id, "e").is_err(), "refused while it runs")?;
    same("status", &task.exec_status("e")?, &Status::RUNNING)?;
    task.client.kill(&task.id, "e", KILL, false)?;
    task.client.wait(&task.id, "e")?;
    check(task.client.start(&task.id, "e").is_err(), "refused after its end")
}

/// Delete of a running exec is refused and changes nothing.
fn exec_deleted_while_running(world: &World) -> Verdict {
    let task = world.running("sleep 1000")?;
    task.exec("e", "sleep 1000")?;
    check(task.client.delete(&task.id, "e").is_err(), "refused while it runs")?;
    same("status", &task.exec_status("e")?, &Status::RUNNING)
}

/// Pids says which process is which exec.
fn exec_ids_in_pids(world: &World) -> Verdict {
    let task = world.running("sleep 1000")?;
    let pid = task.exec("my-exec", "sleep 1000")?;
    eventually("both are listed", PATIENCE, || {
        Ok(task.client.pids(&task.id)?.processes.len() == 2)
    })?;
    for process in task.client.pids(&task.id)?.processes {
        let details = process.info.into_option();
        if process.pid == pid {
            let details = details.ok_or("no details")?;
            check(details.type_url.ends_with("containerd.runc.v1.ProcessDetails"), "type")?;
            let details = ProcessDetails::parse_from_bytes(&details.value)?;
            same("exec id", &details.exec_id.as_str(), &"my-exec")?;
        } else {
            same("pid", &process.pid, &task.pid)?;
            check(details.is_none(), "the init has no details")?;
        }
    }
    Ok(())
}

/// An exec is in the container: its namespaces, its cgroup, its root.
fn exec_has_its_own_process(world: &World) -> Verdict {
    let task = world.running("sleep 1000")?;
    let pid = task.exec("e", "sleep 1000")?;
    for name in ["pid_for_children", "mnt", "net", "ipc", "uts"] {
        let link = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/{name}"));
        same(name, &link(pid)?, &link(task.pid)?)?;
    }
    let groups = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/cgroup"));
    same("cgroups", &groups(pid)?, &groups(task.pid)?)
}

/// The process of an exec is as its specification says.
fn exec_environment(world: &World) -> Verdict {
    let task = world.running("sleep 1000")?;
    let mut process = request::process("echo $WORD; pwd; id -u; id -g", false);
    process["env"] = json!(["PATH=/bin", "WORD=hello"]);
    process["cwd"] = json!("/tmp");
    process["user"] = json!({"uid": 1000, "gid": 1001});
    let fifos = world.fifos(false)?;
    let mut query = request::exec(&task.id, "e", &process);
    fifos.exec(&mut query);
    task.client.exec(&query)?;
    task.client.start(&task.id, "e")?;
    let state = task.client.state(&task.id, "e")?;
    same("stdout", &state.stdout, &fifos.path("out"))?;
    let out = fifos.out().end()?;
    same("output", &String::from_utf8_lossy(&out).as_ref(), &"hello\n/tmp\n1000\n1001\n")
}

/// The pid of an exec that has ended may be another process's: Pids does not give it the exec's name.
fn the_pid_of_one_that_has_ended(world: &World) -> Verdict {
    world.reference_deviates("this is about our own list")?;
    let last = Path::new("/proc/sys/kernel/ns_last_pid");
    if !last.exists() {
        return Err(Stop::Skip("the kernel has no ns_last_pid".to_owned()));
    }
    let (task, fifos) = world.piped("while read word; do sleep 1000 & echo done; done")?;
    let mut stdin = fifos.stdin()?;
    for number in 1..=20 {
        let name = format!("e{number}");
        let pid = task.exec(&name, "exit 3")?;
        same("status", &task.client.wait(&task.id, &name)?.exit_status, &3)?;
        fs::write(last, (pid - 1).to_string())?;
        stdin.write_all(b"go\n")?;
        eventually("a new process", PATIENCE, || Ok(fifos.out().text().lines().count() == number))?;
        let listed = task.client.pids(&task.id)?.processes;
        if let Some(process) = listed.iter().find(|process| process.pid == pid) {
            return check(process.info.is_none(), format!("{process:?}"));
        }
    }
    Err(Stop::Skip("others were always quicker".to_owned()))
}
