//! What containers and their shim must survive: containerd's end, by order and by violence.

use std::fs;
use std::path::Path;
use std::time::Duration;

use corten_integration::managers::cri::Cri;
use corten_integration::managers::cri::messages::number;
use corten_integration::managers::cri::pod::{Container, Pod, text};
use corten_integration::managers::{Stop, Verdict, check, containerd, contains, eventually, same};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::pods::parent;

pub(crate) const TESTS: &[(&str, crate::Alone)] = &[
    ("restart", restart),
    ("crash", crash),
    ("exits_while_down", exits_while_down),
    ("memory_exceeded_while_down", memory_exceeded_while_down),
    ("output_while_down", output_while_down),
    ("created_over_a_restart", created_over_a_restart),
    ("stopped_pod_over_a_restart", stopped_pod_over_a_restart),
    ("killed_shim", killed_shim),
    ("killed_shim_of_own_pids", killed_shim_of_own_pids),
    ("killed_shim_while_down", killed_shim_while_down),
    ("many_restarts", many_restarts),
    ("upgraded", upgraded),
];

/// A pod that outlives the borrow of the containerd which a restart needs: plain names.
struct Names {
    pod: String,
    containers: Vec<String>,
}

/// Forgets the handles of a pod, so that a restart may have containerd for itself.
fn keep(pod: Pod, containers: &[Container]) -> Names {
    let names = Names {
        pod: pod.id.clone(),
        containers: containers.iter().map(|one| one.id.clone()).collect(),
    };
    pod.leave();
    names
}

/// The handles again.
fn back<'a>(cri: &'a Cri, names: &Names) -> Result<(Pod<'a>, Vec<Container<'a>>), Stop> {
    let pod = cri.known_pod(&names.pod)?;
    let all: Result<_, _> = names.containers.iter().map(|id| cri.known_container(id)).collect();
    Ok((pod, all?))
}

/// The processes of the two were not touched and everything works on them.
fn goes_on(cri: &mut Cri, signal: Signal) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let terminal = json!({"tty": true, "stdin": true});
    let all = [pod.container("sleep 600", json!({}))?, pod.container("exec sh", terminal)?];
    let pids = [pod.pid()?, all[0].pid()?, all[1].pid()?];
    let names = keep(pod, &all);
    cri.restart(signal, || Ok(()))?;
    let (pod, all) = back(cri, &names)?;
    same("processes", &[pod.pid()?, all[0].pid()?, all[1].pid()?], &pids)?;
    same("state", &all[0].state()?, "CONTAINER_RUNNING")?;
    same("exec", &all[0].exec("echo inside")?, "inside")?;
    let used = number(&all[0].stats()?["memory"]["working_set_bytes"])?;
    check(used > 0, "no statistics")?;
    let mut stream = all[1].attach(true, true)?;
    stream.send("echo at$((1))tached\n")?;
    stream.expect(1, "at1tached")?;
    // The same shim takes new containers.
    let new = pod.container("echo new; exit 3", json!({}))?;
    same("new one", &new.wait()?, &3)?;
    same("its shim", &parent(all[0].pid()?)?, &parent(pod.pid()?)?)?;
    all[0].stop(0)?;
    same("exit code", &all[0].wait()?, &137)
}

fn restart(cri: &mut Cri) -> Verdict {
    goes_on(cri, Signal::SIGTERM)
}

fn crash(cri: &mut Cri) -> Verdict {
    goes_on(cri, Signal::SIGKILL)
}

/// containerd from 1.7 on takes a shim that names no process for a leaked one and deletes it, with
/// what it knows about the exit. A shim can keep it from that; containerd's own doesn't.
fn keeps_exits(cri: &Cri) -> Verdict {
    if cri.major >= 2 && cri.sandbox.is_reference_shim() {
        return Err(Stop::Skip("this shim names no process after the exit: 255".into()));
    }
    Ok(())
}

/// containerd 2 cleans up behind a dead shim for the pod's own container alone.
fn forgets_members(cri: &Cri) -> Verdict {
    if cri.major >= 2 && cri.sandbox.is_reference_shim() {
        return Err(Stop::Skip("this shim leaves the pod's other containers as they are".into()));
    }
    Ok(())
}

fn exits_while_down(cri: &mut Cri) -> Verdict {
    keeps_exits(cri)?;
    let pod = cri.pod(json!({}))?;
    let script = "until [ -e /dev/shm/go ]; do sleep 0.05; done; exit ";
    let all = [
        pod.container(&format!("{script} 21"), json!({}))?,
        pod.container(&format!("{script} 0"), json!({}))?,
        pod.container("sleep 600", json!({}))?,
    ];
    let pids = [all[0].pid()?, all[1].pid()?, all[2].pid()?];
    // /dev/shm is the pod's and can be reached through any of its processes.
    let go = format!("/proc/{}/root/dev/shm/go", pids[0]);
    let names = keep(pod, &all);
    cri.restart(Signal::SIGKILL, || {
        fs::write(go, "")?;
        kill(pids[2], Signal::SIGUSR1)?;
        eventually("they have ended", Duration::from_secs(20), || {
            Ok(pids.iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists()))
        })
    })?;
    let (_pod, all) = back(cri, &names)?;
    for (container, code) in all.iter().zip([21, 0, 138]) {
        same("exit code", &container.wait()?, &code)?;
    }
    Ok(())
}

fn memory_exceeded_while_down(cri: &mut Cri) -> Verdict {
    keeps_exits(cri)?;
    let pod = cri.pod(json!({}))?;
    let resources =
        json!({"memory_limit_in_bytes": 16 << 20, "memory_swap_limit_in_bytes": 16 << 20});
    let script = "until [ -e /dev/shm/go ]; do sleep 0.05; done; \
                  x=0123456789; while :; do x=$x$x; done";
    let container = pod.container(script, json!({"linux": {"resources": resources}}))?;
    let pid = container.pid()?;
    let names = keep(pod, &[container]);
    cri.restart(Signal::SIGTERM, || {
        fs::write(format!("/proc/{pid}/root/dev/shm/go"), "")?;
        eventually("it has ended", Duration::from_secs(20), || {
            Ok(!Path::new(&format!("/proc/{pid}")).exists())
        })
    })?;
    let (_pod, all) = back(cri, &names)?;
    same("exit code", &all[0].wait()?, &137)
}

fn output_while_down(cri: &mut Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    // More than a pipe holds: the container waits for a reader, and nothing is lost.
    let script = "until [ -e /dev/shm/go ]; do sleep 0.05; done; seq 1 40000; sleep 600";
    let container = pod.container(script, json!({}))?;
    let pid = container.pid()?;
    let names = keep(pod, &[container]);
    cri.restart(Signal::SIGKILL, || {
        fs::write(format!("/proc/{pid}/root/dev/shm/go"), "")?;
        std::thread::sleep(Duration::from_millis(700));
        check(Path::new(&format!("/proc/{pid}")).exists(), "a full pipe killed the container")
    })?;
    let (_pod, all) = back(cri, &names)?;
    all[0].says("\n40000\n")?;
    let wanted: String = (1..=40000).map(|number: u32| format!("{number}\n")).collect();
    check(all[0].output()? == wanted, "lines were lost or damaged")
}

fn created_over_a_restart(cri: &mut Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let container = pod.create("echo at last; exit 6", json!({}))?;
    let names = keep(pod, &[container]);
    cri.restart(Signal::SIGTERM, || Ok(()))?;
    let (_pod, all) = back(cri, &names)?;
    same("state", &all[0].state()?, "CONTAINER_CREATED")?;
    all[0].start()?;
    same("exit code", &all[0].wait()?, &6)?;
    same("output", &all[0].output()?, "at last\n")
}

fn stopped_pod_over_a_restart(cri: &mut Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let container = pod.container("exit 44", json!({}))?;
    container.wait()?;
    pod.stop()?;
    let names = keep(pod, &[container]);
    cri.restart(Signal::SIGTERM, || Ok(()))?;
    let (pod, all) = back(cri, &names)?;
    same("pod", &text(&pod.status()?["status"]["state"]), "SANDBOX_NOTREADY")?;
    same("exit code", &all[0].wait()?, &44)
}

/// What remains of a pod whose shim was killed: nothing runs, and everything can be removed.
fn is_cleaned(pod: &Pod, container: &Container, pids: &[Pid]) -> Verdict {
    container.becomes("CONTAINER_EXITED")?;
    same("exit code", &container.wait()?, &137)
        .or_else(|_| same("exit code", &container.wait()?, &255))?;
    eventually("nothing of it runs", Duration::from_secs(20), || {
        Ok(pids.iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists()))
    })?;
    container.remove()?;
    pod.stop()?;
    pod.remove()
}

fn killed_shim(cri: &mut Cri) -> Verdict {
    forgets_members(cri)?;
    let pod = cri.pod(json!({}))?;
    let container = pod.container("sleep 600", json!({}))?;
    let pids = [pod.pid()?, container.pid()?];
    kill(Pid::from_raw(parent(pids[0])?), Signal::SIGKILL)?;
    is_cleaned(&pod, &container, &pids)
}

fn killed_shim_of_own_pids(cri: &mut Cri) -> Verdict {
    forgets_members(cri)?;
    // Nothing of the pod takes this container along.
    let own = json!({"linux": {"security_context": {"namespace_options": {"pid": "CONTAINER"}}}});
    let pod = cri.pod(own.clone())?;
    let container = pod.container("sleep 600", own)?;
    let pids = [pod.pid()?, container.pid()?];
    kill(Pid::from_raw(parent(pids[0])?), Signal::SIGKILL)?;
    is_cleaned(&pod, &container, &pids)
}

fn killed_shim_while_down(cri: &mut Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let container = pod.container("sleep 600", json!({}))?;
    let pids = [pod.pid()?, container.pid()?];
    let shim = Pid::from_raw(parent(pids[0])?);
    let names = keep(pod, &[container]);
    cri.restart(Signal::SIGKILL, || Ok(kill(shim, Signal::SIGKILL)?))?;
    let (pod, all) = back(cri, &names)?;
    is_cleaned(&pod, &all[0], &pids)
}

fn many_restarts(cri: &mut Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let script = "while :; do echo tick; sleep 0.2; done";
    let all = [pod.container(script, json!({}))?, pod.container("sleep 600", json!({}))?];
    let names = keep(pod, &all);
    for _ in 0..3 {
        cri.restart(Signal::SIGKILL, || Ok(()))?;
    }
    let (_pod, all) = back(cri, &names)?;
    let before = all[0].lines()?.len();
    eventually("it goes on", Duration::from_secs(10), || Ok(all[0].lines()?.len() > before + 3))?;
    contains("exec", &all[1].exec("echo fine")?, "fine")
}

/// The installed containerd, as an operator has it before the upgrade.
const INSTALLED: &str = "/usr/bin/containerd";

fn upgraded(cri: &mut Cri) -> Verdict {
    cri.since(2, "an upgrade")?;
    if cri.sandbox.is_reference_shim() {
        return Err(Stop::Skip("a shim of containerd 2 can't be started by an older one".into()));
    }
    let installed = Path::new(INSTALLED);
    if !installed.exists() || containerd::major(installed)? >= 2 {
        return Err(Stop::Skip("the installed containerd is not an old one".into()));
    }
    let mut old = Cri::start_by(&cri.sandbox, installed, "old")?;
    let verdict = upgrade(&mut old);
    old.stop().and(verdict)
}

fn upgrade(cri: &mut Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let script = "until [ -e /dev/shm/go ]; do sleep 0.05; done; exit 21";
    let all = [
        pod.container("while :; do echo tick; sleep 0.2; done", json!({}))?,
        pod.container(script, json!({}))?,
        pod.create("exit 6", json!({}))?,
    ];
    let before = [pod.pid()?, all[0].pid()?];
    let (shim, ends) = (parent(before[0])?, all[1].pid()?);
    let names = keep(pod, &all);
    cri.upgrade(&cri.sandbox.containerd("containerd"), || {
        fs::write(format!("/proc/{ends}/root/dev/shm/go"), "")?;
        eventually("it has ended", Duration::from_secs(20), || {
            Ok(!Path::new(&format!("/proc/{ends}")).exists())
        })
    })?;
    let (pod, all) = back(cri, &names)?;
    same("processes", &[pod.pid()?, all[0].pid()?], &before)?;
    same("exec", &all[0].exec("echo inside")?, "inside")?;
    check(number(&all[0].stats()?["memory"]["working_set_bytes"])? > 0, "no statistics")?;
    all[2].start()?;
    same("created before", &all[2].wait()?, &6)?;
    // The old shim takes new containers.
    let new = pod.container("sleep 600", json!({}))?;
    same("its shim", &parent(new.pid()?)?, &shim)?;
    all[0].stop(0)?;
    same("exit code", &all[0].wait()?, &137)?;
    same("ended meanwhile", &all[1].wait()?, &21)
}
