//! Daemons and shims that go away: containers live on, exits are known and told once.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use corten_integration::managers::containerd::{Container, Containerd, alive};
use corten_integration::managers::events::Events;
use corten_integration::managers::{Stop, Verdict, check, contains, eventually, same};
use nix::sys::signal::{Signal, kill};

pub(crate) const TESTS: &[(&str, crate::Test)] = &[
    ("killed_while_running", killed_while_running),
    ("ended_while_running", ended_while_running),
    ("restarted_often", restarted_often),
    ("exits_while_killed", exits_while_killed),
    ("exits_while_ended", exits_while_ended),
    ("exits_while_down_for_long", exits_while_down_for_long),
    ("execs_exit_while_down", execs_exit_while_down),
    ("exits_while_stopped", exits_while_stopped),
    ("output_while_down", output_while_down),
    ("paused_while_down", paused_while_down),
    ("shim_killed", shim_killed),
    ("shim_killed_while_paused", shim_killed_while_paused),
    ("shim_killed_while_down", shim_killed_while_down),
    ("shim_ended", shim_ended),
];

/// Containers live through the daemon's end and all verbs work afterwards.
fn survives(ctr: &Containerd, signal: Signal) -> Verdict {
    let script = "trap 'exit 21' TERM; i=0; while :; do i=$((i+1)); echo $i > /n; sleep 0.05; done";
    let container = ctr.background(&[], script)?;
    container.exec_raw(&["-d", "--exec-id", "before"], &["sleep", "600"]).ok()?;
    let (pid, shim) = (container.pid()?, container.shim()?);
    ctr.down(signal)?;
    let counter = || fs::read_to_string(format!("/proc/{pid}/root/n"));
    let first = counter()?;
    eventually("it goes on", Duration::from_secs(10), || Ok(counter()? != first))?;
    ctr.up()?;
    let events = Events::start(ctr)?;
    same("pid", &container.pid()?, &pid)?;
    same("shim", &container.shim()?, &shim)?;
    same("exec", &container.exec(&[], "echo works")?, "works")?;
    contains("ps", &container.does("ps", &[])?, "before")?;
    container.does("pause", &[])?;
    same("status", &container.status()?, "PAUSED")?;
    container.does("resume", &[])?;
    contains("metrics", &container.does("metrics", &[])?, "pids.current")?;
    container.does("kill", &["--exec-id", "before", "-s", "KILL"])?;
    events.until(&container.id, "exit before 137")?;
    container.does("kill", &[])?;
    same("exit code", &container.ends()?, &21)?;
    let seen = events.until(&container.id, "delete 21")?;
    same("exits", &seen.iter().filter(|event| *event == "exit 21").count(), &1)?;
    eventually("its shim has ended", Duration::from_secs(10), || Ok(!alive(shim)))
}

fn killed_while_running(ctr: &Containerd) -> Verdict {
    survives(ctr, Signal::SIGKILL)
}

fn ended_while_running(ctr: &Containerd) -> Verdict {
    survives(ctr, Signal::SIGTERM)
}

/// Restarts cost the shim nothing that stays.
fn restarted_often(ctr: &Containerd) -> Verdict {
    let container = ctr.background(&[], "sleep 600")?;
    let files = format!("/proc/{}/fd", container.shim()?);
    let count = || -> Result<usize, Stop> { Ok(fs::read_dir(&files)?.count()) };
    container.exec_raw(&[], &["true"]).ok()?;
    let (before, mut now) = (count()?, 0);
    for turn in 0..8 {
        ctr.down(if turn % 2 == 0 { Signal::SIGKILL } else { Signal::SIGTERM })?;
        ctr.up()?;
        same("exec", &container.exec(&[], "echo works")?, "works")?;
    }
    let settled = eventually("as before", Duration::from_secs(10), || {
        now = count()?;
        Ok(now <= before)
    });
    settled.map_err(|_| format!("{before} descriptors, then {now}").into())
}

/// A container that waits for a file of the host before it exits.
fn waiting<'a>(ctr: &'a Containerd, code: i32) -> Result<(Container<'a>, PathBuf), Stop> {
    let folder = ctr.folder("go")?;
    let mount = format!("type=bind,src={},dst=/go,options=rbind:rw", folder.display());
    let script = format!("until [ -e /go/{code} ]; do sleep 0.05; done; exit {code}");
    Ok((ctr.background(&["--mount", &mount], &script)?, folder.join(code.to_string())))
}

/// The exit of a container whose daemon was down at that time is known and told once.
fn exits_unseen(ctr: &Containerd, signal: Signal, down: Duration) -> Verdict {
    let (container, go) = waiting(ctr, 23)?;
    let (other, other_go) = waiting(ctr, 0)?;
    let pid = container.pid()?;
    ctr.down(signal)?;
    fs::write(go, "")?;
    fs::write(other_go, "")?;
    eventually("its end", Duration::from_secs(20), || Ok(!alive(pid)))?;
    std::thread::sleep(down);
    let before = ctr.log().len();
    let events = back(ctr)?;
    same("status", &container.status()?, "STOPPED")?;
    same("status", &other.status()?, "STOPPED")?;
    received(ctr, &events, before, 2)?;
    same("exit code", &container.ends()?, &23)?;
    same("exit code", &other.ends()?, &0)?;
    // Long enough for a second delivery.
    std::thread::sleep(Duration::from_secs(6));
    same("exits", &exits(ctr, &events, before), &2)?;
    for (id, code) in [(&container.id, 23), (&other.id, 0)] {
        let seen = events.of(id);
        let wanted = [format!("exit {code}"), format!("delete {code}")];
        // A client may be later than the shim.
        check(wanted.ends_with(&seen) && !seen.is_empty(), format!("{seen:?}"))?;
    }
    Ok(())
}

/// Starts the daemon again, and a client that listens as soon as it can.
fn back(ctr: &Containerd) -> Result<Events, Stop> {
    fs::remove_file(ctr.socket()).ok();
    let events = Events::early(ctr)?;
    ctr.up()?;
    Ok(events)
}

/// How many exits the daemon has got since a place in its log. A client may be later than the shim,
/// but containerd 2 does not log them.
fn exits(ctr: &Containerd, events: &Events, since: usize) -> usize {
    ctr.received("/tasks/exit", since).max(events.count("/tasks/exit"))
}

/// Waits until the daemon has got so many exits.
fn received(ctr: &Containerd, events: &Events, since: usize, count: usize) -> Verdict {
    eventually("exits", Duration::from_secs(20), || Ok(exits(ctr, events, since) >= count))
}

fn exits_while_killed(ctr: &Containerd) -> Verdict {
    exits_unseen(ctr, Signal::SIGKILL, Duration::from_secs(1))
}

fn exits_while_ended(ctr: &Containerd) -> Verdict {
    exits_unseen(ctr, Signal::SIGTERM, Duration::from_secs(1))
}

fn exits_while_down_for_long(ctr: &Containerd) -> Verdict {
    if ctr.sandbox.is_reference_shim() {
        return Err(Stop::Skip("containerd's shim tries five times within 15 seconds".into()));
    }
    exits_unseen(ctr, Signal::SIGKILL, Duration::from_secs(25))
}

fn execs_exit_while_down(ctr: &Containerd) -> Verdict {
    let container = ctr.background(&[], "sleep 600")?;
    let script = "until [ -e /go ]; do sleep 0.05; done; exit 31";
    container.exec_raw(&["-d", "--exec-id", "unseen"], &["sh", "-c", script]).ok()?;
    let root = format!("/proc/{}/root", container.pid()?);
    ctr.down(Signal::SIGKILL)?;
    fs::write(PathBuf::from(root).join("go"), "")?;
    std::thread::sleep(Duration::from_secs(1));
    let before = ctr.log().len();
    let events = back(ctr)?;
    received(ctr, &events, before, 1)?;
    container.task("rm", &["--exec-id", "unseen"]).code(31)?;
    same("it works", &container.exec(&[], "echo works")?, "works")?;
    // The other is of the exec that has just worked.
    received(ctr, &events, before, 2)?;
    same("exits", &exits(ctr, &events, before), &2)?;
    let seen = events.of(&container.id);
    check(seen.iter().filter(|event| *event == "exit unseen 31").count() <= 1, format!("{seen:?}"))
}

/// A daemon that does not answer for long is not told twice.
fn exits_while_stopped(ctr: &Containerd) -> Verdict {
    if ctr.sandbox.is_reference_shim() {
        return Err(Stop::Skip("containerd's shim repeats what was not answered in time".into()));
    }
    let events = Events::start(ctr)?;
    let container = ctr.background(&[], "sleep 600")?;
    let mut wanted = vec!["create".to_owned(), "start".to_owned()];
    for number in 1..=4 {
        let script = format!("until [ -e /go{number} ]; do sleep 0.05; done; exit {number}");
        let id = format!("e{number}");
        container.exec_raw(&["-d", "--exec-id", &id], &["sh", "-c", &script]).ok()?;
        wanted.extend([format!("exec-added {id}"), format!("exec-started {id}")]);
    }
    let (pid, root) = (container.pid()?, format!("/proc/{}/root", container.pid()?));
    ctr.signal(Signal::SIGSTOP)?;
    let told = (|| -> Verdict {
        for number in 1..=4 {
            fs::write(PathBuf::from(&root).join(format!("go{number}")), "")?;
            wanted.push(format!("exit e{number} {number}"));
            std::thread::sleep(Duration::from_millis(1500));
        }
        kill(pid, Signal::SIGKILL)?;
        wanted.push("exit 137".to_owned());
        std::thread::sleep(Duration::from_secs(6));
        Ok(())
    })();
    ctr.signal(Signal::SIGCONT)?;
    told?;
    events.until(&container.id, "exit 137")?;
    std::thread::sleep(Duration::from_secs(6));
    same("events", &events.of(&container.id), &wanted)?;
    same("exit code", &container.ends()?, &137)
}

/// The log of a container does not need the daemon.
fn output_while_down(ctr: &Containerd) -> Verdict {
    let file = ctr.folder("log")?.join("log");
    let uri = format!("file://{}", file.display());
    let script = "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.05; done";
    let container = ctr.background(&["--log-uri", &uri], script)?;
    let lines = || Ok::<_, Stop>(fs::read_to_string(&file)?.lines().count());
    eventually("output", Duration::from_secs(10), || Ok(lines()? > 1))?;
    ctr.down(Signal::SIGKILL)?;
    let before = lines()?;
    eventually("more output", Duration::from_secs(10), || Ok(lines()? > before + 3))?;
    ctr.up()?;
    let before = lines()?;
    eventually("more output", Duration::from_secs(10), || Ok(lines()? > before + 3))?;
    same("status", &container.status()?, "RUNNING")
}

fn paused_while_down(ctr: &Containerd) -> Verdict {
    let container = ctr.background(&[], "sleep 600")?;
    container.does("pause", &[])?;
    ctr.down(Signal::SIGKILL)?;
    ctr.up()?;
    same("status", &container.status()?, "PAUSED")?;
    container.does("resume", &[])?;
    same("exec", &container.exec(&[], "echo works")?, "works")
}

/// The socket of a container's shim, as containerd knows it.
fn socket(container: &Container<'_>) -> Result<PathBuf, Stop> {
    let address = fs::read_to_string(container.bundle().join("address"))?;
    Ok(PathBuf::from(address.trim().trim_start_matches("unix://")))
}

/// After the end of its shim a container is gone, as one that was killed.
fn cleaned_up(ctr: &Containerd, container: &Container<'_>, events: &Events, last: &str) -> Verdict {
    let seen = events.until(&container.id, last)?;
    same("exits", &seen.iter().filter(|event| *event == "exit 137").count(), &1)?;
    container.becomes("none")?;
    ctr.forget_streams(&container.id)?;
    // The container can be started again: nothing is in its way.
    container.does("start", &["-d"])?;
    same("alive again", &container.exec(&[], "echo yes")?, "yes")?;
    same("others work", &ctr.sh(&[], "echo yes")?, "yes")
}

fn shim_killed(ctr: &Containerd) -> Verdict {
    let events = Events::start(ctr)?;
    let container = ctr.background(&[], "sleep 600 & exec sleep 600")?;
    container.exec_raw(&["-d", "--exec-id", "other"], &["sleep", "600"]).ok()?;
    let (pid, shim, path) = (container.pid()?, container.shim()?, socket(&container)?);
    check(UnixStream::connect(&path).is_ok(), format!("{} does not answer", path.display()))?;
    kill(shim, Signal::SIGKILL)?;
    events.until(&container.id, "exit 137")?;
    check(!alive(pid), "its process lives")?;
    if ctr.sandbox.is_reference_shim() {
        // It leaves its socket.
        fs::remove_file(&path).ok();
    }
    eventually("the socket is gone", Duration::from_secs(10), || Ok(!path.exists()))?;
    cleaned_up(ctr, &container, &events, "delete 137")
}

fn shim_killed_while_paused(ctr: &Containerd) -> Verdict {
    let events = Events::start(ctr)?;
    let container = ctr.background(&[], "sleep 600")?;
    let (pid, shim, path) = (container.pid()?, container.shim()?, socket(&container)?);
    container.does("pause", &[])?;
    // containerd may remove the bundle while `delete` works: the socket is found without its note.
    fs::remove_file(container.bundle().join("address")).ok();
    kill(shim, Signal::SIGKILL)?;
    events.until(&container.id, "exit 137")?;
    eventually("its process is gone", Duration::from_secs(10), || Ok(!alive(pid)))?;
    if ctr.sandbox.is_reference_shim() {
        fs::remove_file(&path).ok();
    }
    eventually("the socket is gone", Duration::from_secs(10), || Ok(!path.exists()))?;
    cleaned_up(ctr, &container, &events, "delete 137")
}

fn shim_killed_while_down(ctr: &Containerd) -> Verdict {
    let container = ctr.background(&[], "sleep 600")?;
    let (pid, shim, path) = (container.pid()?, container.shim()?, socket(&container)?);
    ctr.down(Signal::SIGKILL)?;
    kill(shim, Signal::SIGKILL)?;
    eventually("its end", Duration::from_secs(10), || Ok(!alive(shim)))?;
    ctr.up()?;
    container.becomes("none")?;
    ctr.forget_streams(&container.id)?;
    eventually("its process is gone", Duration::from_secs(10), || Ok(!alive(pid)))?;
    if ctr.sandbox.is_reference_shim() {
        fs::remove_file(&path).ok();
    }
    ctr.forget_streams(&container.id)?;
    container.does("start", &["-d"])?;
    same("alive again", &container.exec(&[], "echo yes")?, "yes")
}

/// A shim that is asked to end takes its container along: nothing runs that nobody watches.
fn shim_ended(ctr: &Containerd) -> Verdict {
    let events = Events::start(ctr)?;
    let container = ctr.background(&[], "sleep 600")?;
    let (pid, shim, path) = (container.pid()?, container.shim()?, socket(&container)?);
    kill(shim, Signal::SIGTERM)?;
    let ended = eventually("its end", Duration::from_secs(8), || Ok(!alive(shim)));
    if ended.is_err() {
        // It stays as long as it has a container: as good, if it works.
        same("exec", &container.exec(&[], "echo works")?, "works")?;
        return Ok(());
    }
    eventually("its process is gone", Duration::from_secs(10), || Ok(!alive(pid)))?;
    if ctr.sandbox.is_reference_shim() {
        fs::remove_file(&path).ok();
    }
    cleaned_up(ctr, &container, &events, "delete 137")
}
