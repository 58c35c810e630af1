//! From create to rm: signals, pauses, restarts, health, events.

use std::time::{Duration, Instant};

use corten_integration::driver::patience;
use corten_integration::managers::docker::{Docker, Test};
use corten_integration::managers::{Verdict, check, contains, eventually, image, lacks, same};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("create_and_start", create_and_start),
    ("attach", attach),
    ("attach_terminal", attach_terminal),
    ("logs", logs),
    ("top", top),
    ("inspect_and_ps", inspect_and_ps),
    ("pause", pause),
    ("kill_signal", kill_signal),
    ("kill_paused", kill_paused),
    ("stop_graceful", stop_graceful),
    ("stop_stubborn", stop_stubborn),
    ("stop_signal", stop_signal),
    ("restart", restart),
    ("wait", wait),
    ("rename_and_rm", rename_and_rm),
    ("health", health),
    ("restart_on_failure", restart_on_failure),
    ("restart_always", restart_always),
    ("events", events),
    ("orphans_end", orphans_end),
];

fn create_and_start(docker: &Docker) -> Verdict {
    let container = docker.created(&["-i"], &["sh", "-c", "read line; echo got $line; exit 4"])?;
    same("created", &container.inspect("{{.State.Status}} {{.State.Pid}}")?, "created 0")?;
    let words = ["start", "-ai", &container.name];
    let ended = docker.command(&words).input("a line\n").code(4)?;
    same("output", &ended.stdout, "got a line\n")?;
    // The same container again, from the start.
    same("again", &docker.command(&words).input("two\n").code(4)?.stdout, "got two\n")
}

fn attach(docker: &Docker) -> Verdict {
    let script = "while read line; do echo got $line; [ $line = end ] && exit 8; done";
    let container = docker.background(&["-i"], script)?;
    // The daemon closes the client's output with its input, so what came back is in the log.
    docker.command(&["attach", &container.name]).input("one\nend\n").code(8)?;
    same("output", &container.logs()?.stdout, "got one\ngot end\n")
}

fn attach_terminal(docker: &Docker) -> Verdict {
    let container = docker.detached(&["-it"], &["sh"])?;
    let mut client = docker.terminal(&["attach", &container.name])?;
    client.send("echo $((40+2))\n")?;
    client.expect("42")?;
    // ^P ^Q leaves it running.
    client.send("\x10\x11")?;
    client.finish()?;
    same("running", &container.inspect("{{.State.Running}}")?, "true")?;
    let mut client = docker.terminal(&["attach", &container.name])?;
    client.send("exit 3\n")?;
    same("exit code", &client.finish()?.0, &3)
}

fn logs(docker: &Docker) -> Verdict {
    let container =
        docker.background(&[], "echo one; echo two >&2; echo three; sleep 1; echo four")?;
    let followed = docker.command(&["logs", "-f", &container.name]).code(0)?;
    same("followed", &followed.stdout, "one\nthree\nfour\n")?;
    same("stderr", &followed.stderr, "two\n")?;
    same("--tail", &container.with("logs", &["--tail", "1"])?, "four")?;
    contains("--timestamps", &container.with("logs", &["-t"])?, "T")
}

fn top(docker: &Docker) -> Verdict {
    let container = docker.background(&[], "sleep 501 & exec sleep 502")?;
    eventually("both processes", Duration::from_secs(10), || {
        let seen = container.does("top")?;
        Ok(seen.contains("sleep 501") && seen.contains("sleep 502"))
    })?;
    let words = ["top", &container.name, "-eo", "pid,comm"];
    same("lines", &docker.ok(&words)?.lines().count(), &3)
}

fn inspect_and_ps(docker: &Docker) -> Verdict {
    let container = docker.background(&["--label", "mark=inspect"], "sleep 600")?;
    let state = container.inspect("{{.State.Running}} {{.State.Paused}} {{.State.ExitCode}}")?;
    same("state", &state, "true false 0")?;
    let pid = container.pid()?;
    let parent = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    contains("State.Pid is alive", &parent, "(sleep)")?;
    let row = docker.ok(&[
        "ps",
        "--filter",
        "label=mark=inspect",
        "--format",
        "{{.Names}} {{.Status}}",
    ])?;
    contains("ps", &row, &format!("{} Up", container.name))
}

fn pause(docker: &Docker) -> Verdict {
    let container =
        docker.background(&[], "i=0; while :; do i=$((i+1)); echo $i > /n; sleep 0.02; done")?;
    container.exec(&[], "until [ -s /n ]; do sleep 0.05; done")?;
    container.does("pause")?;
    same("state", &container.inspect("{{.State.Status}}")?, "paused")?;
    let counter = format!("/proc/{}/root/n", container.pid()?);
    let first = std::fs::read_to_string(&counter)?;
    std::thread::sleep(Duration::from_millis(300));
    same("it stands still", &std::fs::read_to_string(&counter)?, &first)?;
    container.does("unpause")?;
    same("state", &container.inspect("{{.State.Status}}")?, "running")?;
    eventually("it goes on", Duration::from_secs(10), || {
        let now = std::fs::read_to_string(&counter)?;
        Ok(!now.is_empty() && now != first)
    })
}

fn kill_signal(docker: &Docker) -> Verdict {
    let script =
        "trap 'echo usr1' USR1; trap 'echo hup' HUP; echo ready; while :; do sleep 0.05; done";
    let container = docker.background(&[], script)?;
    container.says("ready")?;
    container.with("kill", &["-s", "USR1"])?;
    container.says("usr1")?;
    container.with("kill", &["--signal", "1"])?;
    container.says("hup")?;
    same("running", &container.inspect("{{.State.Running}}")?, "true")?;
    container.does("kill")?;
    same("exit code", &container.wait()?, &137)
}

fn kill_paused(docker: &Docker) -> Verdict {
    let container = docker.background(&[], "sleep 600")?;
    container.does("pause")?;
    container.with("rm", &["-f"])?;
    lacks("ps", &docker.ok(&["ps", "-aq", "--no-trunc"])?, &container.id)
}

fn stop_graceful(docker: &Docker) -> Verdict {
    let script = "trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.05; done";
    let container = docker.background(&[], script)?;
    container.says("ready")?;
    let start = Instant::now();
    container.with("stop", &["-t", "30"])?;
    check(
        start.elapsed() < patience(Duration::from_secs(20)),
        "stop waited for its whole timeout",
    )?;
    same("exit code", &container.inspect("{{.State.ExitCode}}")?, "5")?;
    contains("log", &container.logs()?.stdout, "bye")
}

fn stop_stubborn(docker: &Docker) -> Verdict {
    let container =
        docker.background(&[], "trap '' TERM; echo ready; while :; do sleep 0.05; done")?;
    container.says("ready")?;
    container.with("stop", &["-t", "1"])?;
    same("exit code", &container.inspect("{{.State.ExitCode}}")?, "137")
}

fn stop_signal(docker: &Docker) -> Verdict {
    let script = "trap 'exit 6' USR2; echo ready; while :; do sleep 0.05; done";
    let container = docker.background(&["--stop-signal", "SIGUSR2"], script)?;
    container.says("ready")?;
    container.with("stop", &["-t", "30"])?;
    same("exit code", &container.inspect("{{.State.ExitCode}}")?, "6")
}

fn restart(docker: &Docker) -> Verdict {
    let container = docker.background(&[], "echo run >> /count; exec sleep 600")?;
    let first = container.pid()?;
    container.exec(&[], "until [ -s /count ]; do sleep 0.05; done")?;
    container.with("restart", &["-t", "0"])?;
    check(container.pid()? != first, "the same process")?;
    container.exec(&[], "until [ $(wc -l < /count) = 2 ]; do sleep 0.05; done")?;
    container.with("stop", &["-t", "0"])?;
    container.does("start")?;
    container.exec(&[], "until [ $(wc -l < /count) = 3 ]; do sleep 0.05; done").map(drop)
}

fn wait(docker: &Docker) -> Verdict {
    let container = docker.background(&[], "sleep 0.5; exit 17")?;
    same("while running", &container.wait()?, &17)?;
    same("afterwards", &container.wait()?, &17)
}

fn rename_and_rm(docker: &Docker) -> Verdict {
    let mut container = docker.background(&[], "sleep 600")?;
    let name = format!("{}-renamed", container.name);
    docker.ok(&["rename", &container.name, &name])?;
    container.name = name;
    let denied = docker.command(&["rm", &container.name]).code(1)?;
    contains("message", &denied.stderr, "cannot remove a running container")?;
    container.with("rm", &["-f"])?;
    lacks("ps", &docker.ok(&["ps", "-a"])?, &container.name)
}

fn health(docker: &Docker) -> Verdict {
    let options = [
        "--health-cmd",
        "test -e /tmp/well",
        "--health-interval",
        "300ms",
        "--health-retries",
        "2",
        "--health-timeout",
        "10s",
    ];
    let container = docker.background(&options, "touch /tmp/well; sleep 600")?;
    container.becomes("{{.State.Health.Status}}", "healthy")?;
    container.exec(&[], "rm /tmp/well")?;
    container.becomes("{{.State.Health.Status}}", "unhealthy")?;
    let log = container.inspect("{{(index .State.Health.Log 0).ExitCode}}")?;
    check(["0", "1"].contains(&log.as_str()), log)
}

fn restart_on_failure(docker: &Docker) -> Verdict {
    let container = docker.background(&["--restart", "on-failure:2"], "echo try; exit 3")?;
    container.becomes("{{.State.Status}} {{.RestartCount}} {{.State.ExitCode}}", "exited 2 3")?;
    same("tries", &container.logs()?.stdout, "try\ntry\ntry\n")
}

fn restart_always(docker: &Docker) -> Verdict {
    let container = docker.background(&["--restart", "always"], "sleep 0.2; exit 0")?;
    eventually("it is restarted", Duration::from_secs(20), || {
        Ok(container.inspect("{{.RestartCount}}")?.parse::<u32>()? >= 2)
    })?;
    container.with("stop", &["-t", "0"])?;
    same("stopped for good", &container.inspect("{{.State.Running}}")?, "false")
}

fn events(docker: &Docker) -> Verdict {
    let start = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let container = docker.background(&[], "sleep 0.2; exit 2")?;
    container.wait()?;
    let id = container.id.clone();
    drop(container);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let time = |at: Duration| format!("{}.{:09}", at.as_secs(), at.subsec_nanos());
    let words = [
        "events",
        "--since",
        &time(start),
        "--until",
        &time(now),
        "--filter",
        &format!("container={id}"),
        "--format",
        "{{.Action}} {{.Actor.Attributes.exitCode}}",
    ];
    let seen = docker.ok(&words)?;
    let actions: Vec<&str> = seen
        .lines()
        .map(|line| line.trim_end_matches(" <no value>").trim())
        .filter(|line| !["attach", "resize"].contains(line))
        .collect();
    same("order", &actions[..], &["create", "start", "die 2", "destroy"][..])
}

fn orphans_end(docker: &Docker) -> Verdict {
    // Processes that left the session still end with pid 1.
    let script =
        "setsid sleep 777 & setsid sh -c 'trap \"\" TERM HUP; sleep 778' & sleep 0.3; exit 0";
    let container = docker.detached(&[], &["sh", "-c", script])?;
    same("exit code", &container.wait()?, &0)?;
    eventually("no orphan", Duration::from_secs(10), || {
        for entry in std::fs::read_dir("/proc")?.flatten() {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            if line == b"sleep\x00777\0" || line == b"sleep\x00778\0" {
                return Ok(false);
            }
        }
        Ok(true)
    })?;
    let again = docker.ok(&["run", "--rm", "--network", "none", image::NAME, "echo", "fine"])?;
    same("the daemon is fine", &again, "fine")
}

/// With `--live-restore` containers outlive a daemon that is killed, and their end is not lost.
pub(crate) fn survives_the_daemon(docker: &mut Docker) -> Verdict {
    let name = "survivor";
    let run = [
        "run",
        "-d",
        "--name",
        name,
        "--network",
        "none",
        "bb",
        "sh",
        "-c",
        // The exec that made it ends first.
        "until [ -e /go ]; do sleep 0.05; done; sleep 2; exit 23",
    ];
    docker.ok(&run)?;
    let pid = docker.ok(&["inspect", "-f", "{{.State.Pid}}", name])?;
    docker.crash_and_restart()?;
    let again = docker.ok(&["inspect", "-f", "{{.State.Pid}} {{.State.Running}}", name])?;
    same("still running", &again, &format!("{pid} true"))?;
    check(std::fs::exists(format!("/proc/{pid}"))?, "its process is gone")?;
    docker.ok(&["exec", name, "touch", "/go"])?;
    same("exit code", &docker.ok(&["wait", name])?, "23")?;
    docker.ok(&["rm", name]).map(drop)
}
