//! Ends at any time: of shims and daemons in the middle of a call, of a container under its execs.

use std::fs;
use std::thread;
use std::time::Duration;

use corten_integration::managers::containerd::{Container, Containerd};
use corten_integration::managers::events::Events;
use corten_integration::managers::{Stop, Verdict, check, eventually, image, same};
use nix::sys::signal::{Signal, kill};

pub(crate) const TESTS: &[(&str, crate::Test)] = &[
    ("shim_killed_at_any_time", shim_killed_at_any_time),
    ("daemon_killed_at_any_time", daemon_killed_at_any_time),
    ("client_killed_at_any_time", client_killed_at_any_time),
    ("exec_and_the_end", exec_and_the_end),
    ("all_verbs_at_once", all_verbs_at_once),
];

/// `run -d` in a thread while `fault` happens; how it ended does not matter.
fn during_run(ctr: &Containerd, id: &str, fault: impl FnOnce() -> Verdict) -> Verdict {
    let options = ["run", "-d", "--runtime", &ctr.runtime, image::REFERENCE, id, "sleep", "600"];
    thread::scope(|scope| {
        let run = scope.spawn(|| ctr.ctr(&options).run());
        let verdict = fault();
        run.join().map_err(|_| "a thread panicked")??;
        verdict
    })
}

/// Removes what a run may have left to the client: the next of the same name must succeed.
fn clear(ctr: &Containerd, id: &str) -> Verdict {
    let gone = |words: &[&str], left: &[&str]| {
        ctr.ctr(words).run()?;
        Ok::<_, Stop>(!ctr.ok(left)?.lines().any(|line| line == id))
    };
    // containerd may still be busy with the end of the shim.
    eventually("no task", Duration::from_secs(20), || {
        gone(&["task", "rm", "--force", id], &["task", "ls", "-q"])
    })?;
    eventually("no container", Duration::from_secs(20), || {
        gone(&["container", "rm", id], &["container", "ls", "-q"])
    })?;
    ctr.ctr(&["snapshot", "rm", id]).run()?;
    ctr.forget_streams(id)
}

fn shim_killed_at_any_time(ctr: &Containerd) -> Verdict {
    if ctr.sandbox.is_reference_shim() {
        return Err(Stop::Skip("containerd's shim leaves sockets and groups".into()));
    }
    let id = ctr.id()?;
    for turn in 0..16 {
        during_run(ctr, &id, || {
            thread::sleep(Duration::from_millis(40 + turn * 5));
            for shim in ctr.shims()? {
                let words = fs::read_to_string(format!("/proc/{shim}/cmdline")).unwrap_or_default();
                // Whoever kills what cleans up has to clean up; and behind a `start` that was killed
                // nobody does, containerd knows of no shim then.
                if !words.ends_with("\0delete\0") && !words.ends_with("\0start\0") {
                    kill(shim, Signal::SIGKILL).ok();
                }
            }
            Ok(())
        })?;
        clear(ctr, &id)?;
    }
    same("it works", &ctr.sh(&[], "echo yes")?, "yes")
}

fn daemon_killed_at_any_time(ctr: &Containerd) -> Verdict {
    if ctr.sandbox.is_reference_shim() {
        return Err(Stop::Skip("containerd's shim stays when nobody knows of it".into()));
    }
    let id = ctr.id()?;
    for turn in 0..8 {
        during_run(ctr, &id, || {
            thread::sleep(Duration::from_millis(40 + turn * 12));
            ctr.down(Signal::SIGKILL)
        })?;
        ctr.up()?;
        clear(ctr, &id)?;
    }
    same("it works", &ctr.sh(&[], "echo yes")?, "yes")
}

fn client_killed_at_any_time(ctr: &Containerd) -> Verdict {
    let id = ctr.id()?;
    let options = ["run", "--rm", "--runtime", &ctr.runtime, image::REFERENCE, &id, "sleep", "600"];
    for turn in 0..8 {
        let mut command = ctr.ctr(&options).into_command();
        command.stdin(std::process::Stdio::null());
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let mut child = corten_integration::managers::command::spawn(&mut command)?;
        thread::sleep(Duration::from_millis(30 + turn * 20));
        child.kill()?;
        child.wait()?;
        clear(ctr, &id)?;
    }
    same("it works", &ctr.sh(&[], "echo yes")?, "yes")
}

/// An exec that starts while its container ends has an end too, and it is told before the other.
fn exec_and_the_end(ctr: &Containerd) -> Verdict {
    let events = Events::start(ctr)?;
    for turn in 0..10 {
        let container = ctr.background(&[], "sleep 600")?;
        let pid = container.pid()?;
        thread::scope(|scope| -> Verdict {
            let exec = |name| container.exec_raw(&["--exec-id", name], &["sleep", "600"]).run();
            let all = ["one", "two", "three"].map(|name| scope.spawn(move || exec(name)));
            thread::sleep(Duration::from_millis(turn * 8));
            kill(pid, Signal::SIGKILL)?;
            for one in all {
                let ended = one.join().map_err(|_| "a thread panicked")??;
                check(ended.code != 0, format!("exit code 0: {}", ended.all()))?;
            }
            Ok(())
        })?;
        same("exit code", &container.ends()?, &137)?;
        let seen = events.until(&container.id, "delete 137")?;
        let started = seen.iter().filter(|event| event.starts_with("exec-started")).count();
        let ended = seen.iter().filter(|event| event.starts_with("exit ")).count();
        same("ends", &ended, &(started + 1))?;
        let last = [String::from("exit 137"), String::from("delete 137")];
        check(seen.ends_with(&last), format!("{seen:?}"))?;
    }
    Ok(())
}

/// Everything at the same time on one container: each call is answered, and the container is well.
fn all_verbs_at_once(ctr: &Containerd) -> Verdict {
    if ctr.sandbox.is_runc() {
        return Err(Stop::Skip("runc's exec hangs in a group that is being frozen".into()));
    }
    let container = &ctr.background(&[], "trap : USR1; while :; do sleep 0.05; done")?;
    type Call = fn(&Container<'_>) -> Verdict;
    // Refusals are in order, a paused container has no exec; no answer would be an error.
    let calls: [Call; 6] = [
        |container| container.exec_raw(&[], &["true"]).run().map(drop),
        |container| container.task("kill", &["-s", "USR1"]).run().map(drop),
        |container| container.task("pause", &[]).run().map(drop),
        |container| container.task("resume", &[]).run().map(drop),
        |container| container.task("ps", &[]).run().map(drop),
        |container| container.task("metrics", &[]).run().map(drop),
    ];
    thread::scope(|scope| {
        let one = |call: Call| scope.spawn(move || (0..15).try_for_each(|_| call(container)));
        let all = calls.map(one);
        all.into_iter().try_for_each(|one| one.join().map_err(|_| "a thread panicked")?)
    })?;
    container.task("resume", &[]).run()?;
    same("status", &container.status()?, "RUNNING")?;
    same("it works", &container.exec(&[], "echo yes")?, "yes")?;
    container.does("kill", &["-s", "KILL"])?;
    same("exit code", &container.ends()?, &137)
}
