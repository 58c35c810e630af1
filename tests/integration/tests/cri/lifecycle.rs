//! A container from create to remove: states, codes and reasons, grace periods, failures, restarts.

use std::path::Path;
use std::time::{Duration, Instant};

use corten_integration::driver::patience;
use corten_integration::managers::command::Run;
use corten_integration::managers::cri::Cri;
use corten_integration::managers::cri::messages::number;
use corten_integration::managers::cri::pod::{Container, text};
use corten_integration::managers::{Verdict, check, contains, leaks, same};
use nix::sys::signal::{Signal, kill};
use serde_json::json;

pub(crate) const TESTS: &[(&str, crate::Test)] = &[
    ("states", states),
    ("exit_codes", exit_codes),
    ("reasons", reasons),
    ("killed_from_outside", killed_from_outside),
    ("out_of_memory", out_of_memory),
    ("out_of_memory_of_a_child", out_of_memory_of_a_child),
    ("stop_honoured", stop_honoured),
    ("stop_with_a_last_word", stop_with_a_last_word),
    ("stop_stubborn", stop_stubborn),
    ("stop_twice", stop_twice),
    ("stop_at_once", stop_at_once),
    ("start_twice", start_twice),
    ("no_such_command", no_such_command),
    ("not_executable", not_executable),
    ("no_such_directory", no_such_directory),
    ("remove_created", remove_created),
    ("remove_running", remove_running),
    ("restart_after_crash", restart_after_crash),
    ("short_lived", short_lived),
    ("parallel", parallel),
    ("orphans_end", orphans_end),
    ("environment_and_directory", environment_and_directory),
];

fn states(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let container = pod.create("sleep 600", json!({}))?;
    same("created", &container.state()?, "CONTAINER_CREATED")?;
    container.start()?;
    let status = container.status()?;
    same("started", &status["state"], "CONTAINER_RUNNING")?;
    check(number(&status["started_at"])? >= number(&status["created_at"])?, &status)?;
    check(Path::new(&format!("/proc/{}", container.pid()?)).exists(), "no process")?;
    container.stop(0)?;
    let status = container.status()?;
    same("stopped", &status["state"], "CONTAINER_EXITED")?;
    check(number(&status["finished_at"])? >= number(&status["started_at"])?, &status)?;
    container.remove()?;
    container.remove()?;
    let gone = cri.refused("ContainerStatus", &json!({"container_id": container.id}))?;
    same("removed", &gone.status, &5)
}

fn exit_codes(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    for (script, code) in
        [("exit 0", 0), ("exit 1", 1), ("exit 42", 42), ("exit 255", 255), ("kill -9 $$", 0)]
    {
        // A first process that kills itself survives: the kernel spares it.
        let more =
            json!({"linux": {"security_context": {"namespace_options": {"pid": "CONTAINER"}}}});
        same(script, &pod.container(script, more)?.wait()?, &code)?;
    }
    // In the pid namespace of the pod it dies of it.
    for (script, code) in [("kill -9 $$", 137), ("kill -15 $$", 143), ("kill -6 $$", 134)] {
        same(script, &pod.container(script, json!({}))?.wait()?, &code)?;
    }
    Ok(())
}

fn reasons(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    for (script, reason) in [("true", "Completed"), ("exit 3", "Error")] {
        let container = pod.container(script, json!({}))?;
        container.wait()?;
        same(script, &text(&container.status()?["reason"]), reason)?;
    }
    Ok(())
}

fn killed_from_outside(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let container = pod.container("sleep 600 & wait", json!({}))?;
    let started = Instant::now();
    kill(container.pid()?, Signal::SIGKILL)?;
    same("exit code", &container.wait()?, &137)?;
    check(started.elapsed() < patience(Duration::from_secs(5)), "the exit was told late")?;
    same("reason", &text(&container.status()?["reason"]), "Error")
}

/// What a container that eats memory answers.
fn eats(container: &Container) -> Verdict {
    same("exit code", &container.wait()?, &137)?;
    same("reason", &text(&container.status()?["reason"]), "OOMKilled")
}

fn out_of_memory(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let resources =
        json!({"memory_limit_in_bytes": 16 << 20, "memory_swap_limit_in_bytes": 16 << 20});
    let more = json!({"linux": {"resources": resources}});
    for _ in 0..3 {
        let script = "x=0123456789; while :; do x=$x$x; done";
        eats(&pod.container(script, more.clone())?)?;
    }
    Ok(())
}

fn out_of_memory_of_a_child(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let resources =
        json!({"memory_limit_in_bytes": 16 << 20, "memory_swap_limit_in_bytes": 16 << 20});
    let script = "(x=0123456789; while :; do x=$x$x; done); echo lived on; sleep 1; exit 9";
    let container = pod.container(script, json!({"linux": {"resources": resources}}))?;
    same("exit code", &container.wait()?, &9)?;
    contains("output", &container.output()?, "lived on")?;
    // containerd remembers the event, whoever was killed.
    same("reason", &text(&container.status()?["reason"]), "OOMKilled")
}

fn stop_honoured(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let script = "trap 'exit 33' TERM; echo ready; while :; do sleep 0.1; done";
    let container = pod.container(script, json!({}))?;
    container.says("ready")?;
    let started = Instant::now();
    container.stop(30)?;
    check(started.elapsed() < patience(Duration::from_secs(10)), "SIGTERM was honoured late")?;
    same("exit code", &container.wait()?, &33)
}

fn stop_with_a_last_word(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let script =
        "trap 'sleep 1; echo last words; exit 0' TERM; echo ready; while :; do sleep 0.1; done";
    let container = pod.container(script, json!({}))?;
    container.says("ready")?;
    container.stop(30)?;
    same("exit code", &container.wait()?, &0)?;
    contains("output", &container.output()?, "last words\n")
}

fn stop_stubborn(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let script = "trap 'echo no' TERM; echo ready; while :; do sleep 0.1; done";
    let container = pod.container(script, json!({}))?;
    container.says("ready")?;
    let started = Instant::now();
    container.stop(2)?;
    let took = started.elapsed();
    check(took >= Duration::from_secs(2), format!("killed after {took:?}"))?;
    check(took < patience(Duration::from_secs(8)), format!("stopped only after {took:?}"))?;
    same("exit code", &container.wait()?, &137)?;
    contains("output", &container.output()?, "no\n")
}

fn stop_twice(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let container = pod.container("exit 5", json!({}))?;
    same("exit code", &container.wait()?, &5)?;
    container.stop(10)?;
    container.stop(0)?;
    same("exit code after stops", &container.wait()?, &5)
}

fn stop_at_once(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    for _ in 0..5 {
        let container = pod.container("sleep 600", json!({}))?;
        let started = Instant::now();
        container.stop(0)?;
        check(
            started.elapsed() < patience(Duration::from_secs(5)),
            "a stop without grace took its time",
        )?;
        same("exit code", &container.wait()?, &137)?;
        container.remove()?;
    }
    Ok(())
}

fn start_twice(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let container = pod.container("sleep 600", json!({}))?;
    contains("message", &container.start_refused()?.message, "CONTAINER_RUNNING")?;
    same("state", &container.state()?, "CONTAINER_RUNNING")?;
    // One that has run to its end isn't started again either.
    let ended = pod.container("true", json!({}))?;
    ended.wait()?;
    contains("message", &ended.start_refused()?.message, "CONTAINER_EXITED")
}

/// A start that fails with these words, and leaves a container that says so.
fn fails_to_start(container: &Container, words: &[&str]) -> Verdict {
    let refusal = container.start_refused()?;
    for word in words {
        contains("message", &refusal.message, word)?;
    }
    let status = container.status()?;
    same("state", &status["state"], "CONTAINER_EXITED")?;
    same("exit code", &status["exit_code"], &128)?;
    same("reason", &status["reason"], "StartError")?;
    container.remove()
}

fn no_such_command(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let container = pod.create("", json!({"command": ["/nothing/here"]}))?;
    fails_to_start(&container, &["/nothing/here", "no such file or directory"])?;
    let container = pod.create("", json!({"command": ["nothing-in-path"]}))?;
    fails_to_start(&container, &["nothing-in-path", "executable file not found in $PATH"])?;
    // The pod is as good as before.
    same("next", &pod.sh("echo fine", json!({}))?, "fine")
}

fn not_executable(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let container = pod.create("", json!({"command": ["/etc/greeting"]}))?;
    fails_to_start(&container, &["/etc/greeting", "permission denied"])?;
    let container = pod.create("", json!({"command": ["/etc"]}))?;
    fails_to_start(&container, &["/etc"])
}

fn no_such_directory(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    // A working directory that is missing is made; one that is a file cannot be.
    same("made", &pod.sh("pwd", json!({"working_dir": "/not/yet"}))?, "/not/yet")?;
    let container = pod.create("pwd", json!({"working_dir": "/etc/greeting"}))?;
    fails_to_start(&container, &["etc/greeting", "not a directory"])
}

fn remove_created(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let container = pod.create("sleep 600", json!({}))?;
    container.remove()?;
    let gone = cri.refused("ContainerStatus", &json!({"container_id": container.id}))?;
    same("removed", &gone.status, &5)
}

fn remove_running(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let container = pod.container("trap '' TERM; while :; do sleep 1; done", json!({}))?;
    let process = format!("/proc/{}", container.pid()?);
    container.remove()?;
    check(!Path::new(&process).exists(), "its process lives")?;
    for hierarchy in leaks::hierarchies()? {
        let group = hierarchy.join(pod.cgroup().trim_start_matches('/')).join(&container.id);
        check(!group.exists(), format!("{} is left", group.display()))?;
    }
    Ok(())
}

fn restart_after_crash(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let steady = pod.container("sleep 600", json!({}))?;
    let before = steady.pid()?;
    for attempt in 0..4 {
        // The kubelet's restart: the same name, the next attempt, a new container.
        let metadata = json!({"metadata": {"name": "crashes", "attempt": attempt}});
        let container = pod.container("echo alive; kill -11 $$", metadata)?;
        same("exit code", &container.wait()?, &139)?;
        same("output", &container.output()?, "alive\n")?;
    }
    same("its neighbour", &steady.pid()?, &before)?;
    same("its neighbour", &steady.exec("echo fine")?, "fine")
}

fn short_lived(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    for number in 0..15 {
        // Over before the start is answered: neither the exit nor the output may be lost.
        let container = pod.container("echo done; exit 7", json!({}))?;
        same("exit code", &container.wait()?, &7)?;
        same(&format!("output of {number}"), &container.output()?, "done\n")?;
        container.remove()?;
    }
    Ok(())
}

fn parallel(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let run = |number: usize| -> Verdict {
        let container = pod.container(&format!("echo {number}; exit {number}"), json!({}))?;
        same("exit code", &container.wait()?, &i64::try_from(number)?)?;
        same("output", &container.output()?, &format!("{number}\n"))?;
        container.remove()
    };
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..8).map(|number| scope.spawn(move || run(number))).collect();
        all.into_iter().try_for_each(|one| match one.join() {
            Ok(verdict) => verdict,
            Err(_) => check(false, "a thread panicked"),
        })
    })
}

fn orphans_end(cri: &Cri) -> Verdict {
    // With the pid namespace of the pod, what a container left behind has to be found and ended.
    let pod = cri.pod(json!({}))?;
    let script = "setsid sleep 4711 & (sleep 4712 &) ; sleep 0.2; exit 0";
    let more = json!({"linux": {"security_context": {"namespace_options": {"pid": "POD"}}}});
    let container = pod.container(script, more)?;
    same("exit code", &container.wait()?, &0)?;
    let left = Run::new("/bin/busybox").args(["ps", "-o", "args"]).ok()?;
    check(!left.contains("sleep 471"), format!("left:\n{left}"))
}

fn environment_and_directory(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let more = json!({
        "envs": [{"key": "GREETING", "value": "good day"}, {"key": "EMPTY", "value": ""}],
        "working_dir": "/var/data",
    });
    let seen = pod.sh("echo $GREETING-$EMPTY-$PATH; pwd; cat seed", more)?;
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    same("seen", &seen, &format!("good day--{path}\n/var/data\nfrom the image"))
}
