//! Ends that nobody planned: the `delete` action after the shim's death, and signals.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use containerd_shim_protos::api::{DeleteResponse, Status};
use containerd_shim_protos::ttrpc::Code;
use corten_integration::cgroups;
use corten_integration::managers::{Stop, Verdict, check, eventually, same};
use corten_integration::shim::bootstrap;
use corten_integration::shim::leaks::processes;
use corten_integration::shim::stdio::{self, moment};
use corten_integration::shim::task::PATIENCE;
use corten_integration::shim::{Case, Task, World, request};
use corten_integration::shim_tests;
use nix::sys::signal::Signal;
use serde_json::json;

pub(crate) const TESTS: &[Case] = shim_tests![
    delete_after_sigkill,
    delete_of_a_created_container,
    delete_of_a_paused_container,
    delete_after_the_end,
    delete_of_nothing,
    delete_twice,
    delete_unmounts,
    delete_knows_the_root,
    delete_ends_execs_and_orphans,
    delete_without_a_config,
    a_log_that_nobody_reads,
    sigterm_without_containers,
    sigterm_with_a_container,
    harmless_signals,
    sigusr1_dumps,
    the_log_reader_leaves,
    the_bundle_is_removed,
    the_bundle_stays_away,
    the_bundle_is_full,
    the_runtime_was_killed,
];

/// SIGKILL of the shim; waits for its end.
fn killed(task: &Task) -> Verdict {
    task.shim.signal(Signal::SIGKILL)?;
    task.shim.gone()
}

fn delete(world: &World, task: &Task) -> Result<DeleteResponse, Stop> {
    bootstrap::delete(world, &task.bundle.dir, &task.id)
}

/// `delete` needs the bundle only: the container is ended and nothing of it stays, the socket
/// included.
fn delete_after_sigkill(world: &World) -> Verdict {
    let (task, _fifos) = world.piped("sleep 1000")?;
    killed(&task)?;
    let answer = delete(world, &task)?;
    same("exit status", &answer.exit_status, &137)?;
    check(answer.exited_at.seconds > 1_600_000_000, "a time")?;
    same("pid", &answer.pid, &task.pid)?;
    eventually("the container is gone", PATIENCE, || Ok(processes().is_empty()))?;
    reference_leaves_its_socket(world, &task);
    Ok(())
}

/// Known of the reference (H4): the daemon's next start of the same id takes it away.
fn reference_leaves_its_socket(world: &World, task: &Task) {
    if world.flavour == corten_integration::shim::Flavour::Reference {
        fs::remove_file(task.shim.socket()).ok();
    }
}

/// A container that was created only.
fn delete_of_a_created_container(world: &World) -> Verdict {
    let task = world.created("true")?;
    killed(&task)?;
    same("pid", &delete(world, &task)?.pid, &task.pid)?;
    reference_leaves_its_socket(world, &task);
    Ok(())
}

/// A paused container is no obstacle.
fn delete_of_a_paused_container(world: &World) -> Verdict {
    let task = world.running("sleep 1000")?;
    task.client.pause(&task.id)?;
    killed(&task)?;
    same("exit status", &delete(world, &task)?.exit_status, &137)?;
    reference_leaves_its_socket(world, &task);
    Ok(())
}

/// A container that ended while the shim lived has its true status.
fn delete_after_the_end(world: &World) -> Verdict {
    let task = world.running("exit 3")?;
    let wait = task.wait()?;
    killed(&task)?;
    let answer = delete(world, &task)?;
    reference_leaves_its_socket(world, &task);
    world.reference_deviates("it always says 137")?;
    same("exit status", &answer.exit_status, &3)?;
    same("time", &answer.exited_at, &wait.exited_at)
}

/// A bundle that no container came from.
fn delete_of_nothing(world: &World) -> Verdict {
    world.reference_deviates("it wants the file `runtime`")?;
    let bundle = world.bundle("true");
    bundle.write();
    let answer = bootstrap::delete(world, &bundle.dir, &bundle.id)?;
    same("exit status", &answer.exit_status, &137)
}

/// A second `delete` finds nothing and is content.
fn delete_twice(world: &World) -> Verdict {
    let task = world.running("sleep 1000")?;
    killed(&task)?;
    delete(world, &task)?;
    same("exit status", &delete(world, &task)?.exit_status, &137)?;
    reference_leaves_its_socket(world, &task);
    Ok(())
}

/// The mounts of Create go too.
fn delete_unmounts(world: &World) -> Verdict {
    let bundle = world.bundle("sleep 1000");
    let image = world.dir.join("image");
    fs::rename(bundle.rootfs(), &image)?;
    fs::create_dir(bundle.rootfs())?;
    let mut task = world.task(bundle)?;
    let mut query = task.request();
    let source = image.display().to_string();
    query.rootfs = vec![request::mount("bind", &source, "", &["rbind", "rw"])];
    task.pid = task.client.create(&query)?;
    task.start()?;
    killed(&task)?;
    delete(world, &task)?;
    reference_leaves_its_socket(world, &task);
    same("files", &fs::read_dir(task.bundle.rootfs())?.count(), &0)
}

/// Where the state is was an option of Create; `delete` gets no options.
fn delete_knows_the_root(world: &World) -> Verdict {
    let root = world.dir.join("state");
    let mut task = world.task(world.bundle("sleep 1000"))?;
    let mut query = task.request();
    let options = containerd_shim_protos::shim::oci::Options {
        root: root.display().to_string(),
        ..Default::default()
    };
    query.options = Some(request::runc_options(&options)).into();
    task.pid = task.client.create(&query)?;
    task.start()?;
    killed(&task)?;
    delete(world, &task)?;
    reference_leaves_its_socket(world, &task);
    check(!root.join(&world.namespace).join(&task.id).exists(), "the state is gone")
}

/// Everything in the container's cgroup is ended, whoever its parent is.
fn delete_ends_execs_and_orphans(world: &World) -> Verdict {
    let mut bundle = world.bundle("(sleep 1001 &); exec sleep 1000");
    bundle.no_namespace("pid");
    let mut task = world.task(bundle)?;
    task.create()?;
    task.start()?;
    task.exec("e", "trap '' TERM; while :; do sleep 1; done")?;
    killed(&task)?;
    delete(world, &task)?;
    reference_leaves_its_socket(world, &task);
    eventually("all are gone", PATIENCE, || Ok(processes().is_empty()))
}

/// A config that was damaged since is no obstacle.
fn delete_without_a_config(world: &World) -> Verdict {
    let task = world.running("sleep 1000")?;
    killed(&task)?;
    fs::write(task.bundle.dir.join("config.json"), "{")?;
    delete(world, &task)?;
    reference_leaves_its_socket(world, &task);
    eventually("the container is gone", PATIENCE, || Ok(processes().is_empty()))
}

/// A daemon that does not read the log (SIGSTOP) does not hold the shim.
fn a_log_that_nobody_reads(world: &World) -> Verdict {
    world.reference_deviates("it writes the log and waits")?;
    let task = world.running("sleep 1000")?;
    // Somebody has it open, nobody reads.
    let _reader = stdio::open(&task.bundle.dir.join("log"))?;
    task.shim.log.stop();
    for _ in 0..1000 {
        task.shim.signal(Signal::SIGUSR1)?;
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    same("status", &task.status()?, &Status::RUNNING)?;
    same("exec", &task.shell(world, "echo fine")?, &(0, "fine\n".to_owned()))
}

/// SIGTERM ends a shim without containers, with its socket.
fn sigterm_without_containers(world: &World) -> Verdict {
    let shim = world.shim(&world.bundle("true"))?;
    shim.signal(Signal::SIGTERM)?;
    shim.gone()?;
    check(!shim.socket().exists(), "the socket is removed")
}

/// SIGTERM with a running container: the shim stays, or the daemon's `delete` leaves nothing.
fn sigterm_with_a_container(world: &World) -> Verdict {
    let task = world.running("sleep 1000")?;
    task.shim.signal(Signal::SIGTERM)?;
    std::thread::sleep(std::time::Duration::from_secs(1));
    if task.shim.is_alive() {
        return same("status", &task.status()?, &Status::RUNNING);
    }
    delete(world, &task)?;
    reference_leaves_its_socket(world, &task);
    eventually("the container is gone", PATIENCE, || Ok(processes().is_empty()))
}

/// Signals that mean nothing to a shim.
fn harmless_signals(world: &World) -> Verdict {
    let task = world.running("sleep 1000")?;
    let signals = [Signal::SIGPIPE, Signal::SIGCHLD, Signal::SIGCONT, Signal::SIGWINCH];
    for signal in signals {
        task.shim.signal(signal)?;
    }
    moment();
    same("status", &task.status()?, &Status::RUNNING)
}

/// SIGUSR1: what the shim knows goes to the log, and it lives.
fn sigusr1_dumps(world: &World) -> Verdict {
    let task = world.running("sleep 1000")?;
    let before = task.shim.log.text().len();
    task.shim.signal(Signal::SIGUSR1)?;
    eventually("a dump", PATIENCE, || Ok(task.shim.log.text().len() > before + 50))?;
    if world.flavour == corten_integration::shim::Flavour::Corten {
        task.shim.log.expect(&task.id)?;
    }
    same("status", &task.status()?, &Status::RUNNING)
}

/// The reader of the log may leave: a daemon that restarts.
fn the_log_reader_leaves(world: &World) -> Verdict {
    let bundle = world.bundle("sleep 1000");
    let mut task = world.task(bundle)?;
    // A second reader would keep the FIFO readable; the world's own is the only one.
    let shim = std::rc::Rc::clone(&task.shim);
    shim.log.stop();
    for _ in 0..3 {
        shim.signal(Signal::SIGUSR1)?;
        moment();
    }
    task.create()?;
    task.start()?;
    same("exec", &task.shell(world, "echo fine")?, &(0, "fine\n".to_owned()))
}

/// The bundle is removed below a running container (H15): Kill and Delete work.
fn the_bundle_is_removed(world: &World) -> Verdict {
    world.reference_deviates("runc's log is in the bundle (H15)")?;
    // The shell itself stays: its programs are about to go.
    let (task, fifos) = world.piped("echo ready; while read line; do :; done")?;
    fifos.out().expect("ready")?;
    fs::remove_dir_all(&task.bundle.dir)?;
    task.killed()?;
    task.delete()
}

/// A bundle that stays away: its container is deleted, and a shim without containers leaves.
fn the_bundle_stays_away(world: &World) -> Verdict {
    world.reference_deviates("it stays for ever")?;
    let task = world.running("sleep 1000")?;
    fs::remove_dir_all(&task.bundle.dir)?;
    eventually("the container is gone", PATIENCE, || {
        Ok(task
            .client
            .state(&task.id, "")
            .is_err_and(|refusal| refusal.code == Some(Code::NOT_FOUND)))
    })?;
    same("groups", &cgroups::tagged(&task.id).len(), &0)?;
    eventually("the shim is gone", PATIENCE, || Ok(!task.shim.is_alive()))
}

/// The disk is full (H15): the exit is told all the same, and Delete works.
fn the_bundle_is_full(world: &World) -> Verdict {
    world.reference_deviates("runc's log is in the bundle (H15)")?;
    let task = world.running("sleep 1000")?;
    // As good as full: nothing can be written where the bundle is.
    let dir = fs::File::open(&task.bundle.dir)?;
    let none = None::<&str>;
    let read_only = nix::mount::MsFlags::MS_BIND | nix::mount::MsFlags::MS_RDONLY;
    let flags = nix::mount::MsFlags::MS_REMOUNT | read_only;
    let path = &task.bundle.dir;
    nix::mount::mount(Some(path), path, none, nix::mount::MsFlags::MS_BIND, none)?;
    nix::mount::mount(none, path, none, flags, none)?;
    drop(dir);
    let ended = task.killed().and_then(|()| world.events.exit(&task.id, &task.id).map(drop));
    let deleted = task.delete();
    nix::mount::umount2(path, nix::mount::MntFlags::MNT_DETACH)?;
    ended.and(deleted)
}

/// The process that creates a container is killed in the middle (H6): Create fails, nothing
/// stays, the shim goes on.
fn the_runtime_was_killed(world: &World) -> Verdict {
    let mut task = world.task(world.bundle("sleep 1000"))?;
    let hook = world.dir.join("hook");
    fs::write(&hook, "#!/bin/busybox sh\nexec sleep 1000\n")?;
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755))?;
    let hooks = json!({"createRuntime": [{"path": hook}]});
    task.bundle.set("hooks", hooks).write();
    let creating = task.client.creating(&task.request());
    let child = |name: &str| {
        let all = processes();
        all.iter().find(|(_, line)| line.contains(name)).map(|(pid, _)| *pid)
    };
    eventually("the hook runs", PATIENCE, || Ok(child("(sleep)").is_some()))?;
    let hook = child("(sleep)").ok_or("no hook")?;
    let parent = |pid: i32| -> Result<i32, Stop> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let word = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1));
        Ok(word.ok_or("no parent")?.parse()?)
    };
    // Whoever runs the hook; it is not the shim itself.
    let mut worker = hook;
    while parent(worker)? != task.shim.pid {
        worker = parent(worker)?;
        check(worker > 1, "the hook is the shim's descendant")?;
    }
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(worker), Signal::SIGKILL)?;
    let answer = creating.answer();
    check(answer.as_ref().is_err_and(|refusal| refusal.code.is_some()), format!("{answer:?}"))?;
    world.reference_deviates("the hook, the init and the cgroup stay")?;
    eventually("nothing stays", PATIENCE, || Ok(processes().len() == 1))?;
    task.bundle.unset("hooks").write();
    task.create()?;
    task.start()
}
