//! Podman containers from create to rm, and what is done to them between.

use std::fs;
use std::time::Duration;

use corten_integration::managers::podman::Podman;
use corten_integration::managers::{
    Stop, Verdict, check, contains, eventually, image, lacks, same,
};

pub(crate) const TESTS: &[(&str, crate::Test)] = &[
    ("exec", exec),
    ("exec_terminal", exec_terminal),
    ("exec_options", exec_options),
    ("exec_failures", exec_failures),
    ("exec_detached", exec_detached),
    ("exec_privileged", exec_privileged),
    ("create_start_attach", create_start_attach),
    ("logs", logs),
    ("top_and_ps", top_and_ps),
    ("stats", stats),
    ("pause", pause),
    ("signals", signals),
    ("stop", stop),
    ("restart", restart),
    ("restart_policy", restart_policy),
    ("update", update),
    ("health", health),
    ("commit_and_diff", commit_and_diff),
    ("copy", copy),
    ("export_and_import", export_and_import),
    ("rm_running", rm_running),
    ("failed_start", failed_start),
    ("layers_are_separate", layers_are_separate),
    ("many_at_once", many_at_once),
];

fn exec(podman: &Podman) -> Verdict {
    let container = podman.background(&["--memory", "64m"], "sleep 600")?;
    let words = ["sh", "-c", "echo out; echo err >&2; exit 3"];
    let ended = container.exec_raw(&[], &words).code(3)?;
    same("streams", &(ended.stdout + &ended.stderr), "out\nerr\n")?;
    let text = "x\n".repeat(50000);
    let ended = container.exec_raw(&["-i"], &["cat"]).input(text.clone()).code(0)?;
    check(ended.stdout == text, format!("{} bytes came back", ended.stdout.len()))?;
    let script = "for n in mnt pid net ipc uts user cgroup; do \
                  [ $(readlink /proc/1/ns/$n) = $(readlink /proc/self/ns/$n) ] || echo $n; done; \
                  grep -E '^(Seccomp|CapEff):' /proc/self/status";
    same("joined", &container.exec(&[], script)?, "CapEff:\t00000000a80425fb\nSeccomp:\t2")
}

fn exec_terminal(podman: &Podman) -> Verdict {
    let container = podman.background(&[], "sleep 600")?;
    let mut terminal = podman.terminal(&["exec", "-it", &container.name, "sh"])?;
    terminal.expect("# ")?;
    terminal
        .send("tty; until [ \"$(stty size)\" = '33 77' ]; do sleep 0.05; done; echo si''zed\n")?;
    terminal.expect("/dev/pts/")?;
    terminal.expect("sized")?;
    terminal.send("exit 4\n")?;
    same("exit code", &terminal.finish()?.0, &4)
}

fn exec_options(podman: &Podman) -> Verdict {
    let container = podman.background(&["-e", "A=1"], "sleep 600")?;
    let script = "id -un; pwd; echo $A$B; grep ^CapEff /proc/self/status";
    let options = ["--user", "alice", "--workdir", "/var/data", "--env", "B=2"];
    let seen = container.exec(&options, script)?;
    same("exec", &seen, "alice\n/var/data\n12\nCapEff:\t0000000000000000")
}

fn exec_failures(podman: &Podman) -> Verdict {
    let container = podman.background(&[], "sleep 600")?;
    let missing = container.exec_raw(&[], &["no-such-program"]).code(127)?;
    contains("message", &missing.stderr, "executable file")?;
    container.exec_raw(&[], &["/etc/greeting"]).code(126)?;
    container.does("pause")?;
    let paused = container.exec_raw(&[], &["true"]).run()?;
    container.does("unpause")?;
    check(paused.code != 0, "exec in a paused container")?;
    same("alive", &container.exec(&[], "echo yes")?, "yes")
}

fn exec_detached(podman: &Podman) -> Verdict {
    let container = podman.background(&[], "sleep 600")?;
    container.exec_raw(&["-d"], &["sh", "-c", "echo left > /tmp/note; sleep 555"]).ok()?;
    eventually("the process runs", Duration::from_secs(10), || {
        Ok(container.does("top")?.contains("sleep 555"))
    })?;
    same("note", &container.exec(&[], "cat /tmp/note")?, "left")
}

fn exec_privileged(podman: &Podman) -> Verdict {
    let container = podman.background(&[], "sleep 600")?;
    let ended = container.exec_raw(&["--privileged"], &["cat", "/proc/self/status"]).run()?;
    if podman.sandbox.is_runc() && ended.all().contains("unable to apply caps") {
        return Err(Stop::Skip("runc demands capabilities that this host's root lacks".into()));
    }
    let own = fs::read_to_string("/proc/self/status")?;
    let effective = own.lines().find(|line| line.starts_with("CapEff")).unwrap_or_default();
    contains("capabilities", &ended.stdout, effective)
}

fn create_start_attach(podman: &Podman) -> Verdict {
    let container = podman.created(&["-i"], &["sh", "-c", "read line; echo got $line; exit 4"])?;
    same("state", &container.inspect("{{.State.Status}}")?, "created")?;
    let words = ["start", "-ai", &container.name];
    let ended = podman.command(&words).input("a line\n").code(4)?;
    same("output", &ended.stdout, "got a line\n")?;
    // Initialized but not started: created by the runtime, its program not run yet.
    let waiting = podman.created(&[], &["sh", "-c", "echo ran > /ran; sleep 600"])?;
    waiting.does("init")?;
    same("state", &waiting.inspect("{{.State.Status}}")?, "initialized")?;
    waiting.does("start")?;
    waiting.exec(&[], "until [ -s /ran ]; do sleep 0.05; done").map(drop)
}

fn logs(podman: &Podman) -> Verdict {
    let container = podman.background(&[], "echo one; echo two >&2; sleep 0.5; echo three")?;
    let followed = podman.command(&["logs", "-f", &container.name]).code(0)?;
    same("stdout", &followed.stdout, "one\nthree\n")?;
    same("stderr", &followed.stderr, "two\n")?;
    same("--tail", &container.with("logs", &["--tail", "1"])?, "three")
}

fn top_and_ps(podman: &Podman) -> Verdict {
    let container = podman.background(&[], "sleep 501 & exec sleep 502")?;
    eventually("both processes", Duration::from_secs(10), || {
        let seen = container.does("top")?;
        Ok(seen.contains("sleep 501") && seen.contains("sleep 502"))
    })?;
    let row = podman.ok(&[
        "ps",
        "--filter",
        &format!("name={}", container.name),
        "--format",
        "{{.Status}}",
    ])?;
    contains("ps", &row, "Up")?;
    let line = fs::read(format!("/proc/{}/cmdline", container.pid()?))?;
    same("State.Pid", &line[..], &b"sleep\x00502\0"[..])
}

fn stats(podman: &Podman) -> Verdict {
    let container = podman.background(&["--memory", "64m", "--network", "bridge"], "sleep 600")?;
    let words = ["--no-stream", "--format", "{{.PIDs}} {{.MemUsage}}"];
    let seen = container.with("stats", &words)?;
    check(seen.starts_with("1 "), format!("pids: {seen}"))?;
    contains("limit", &seen, "67.11MB")
}

fn pause(podman: &Podman) -> Verdict {
    let container =
        podman.background(&[], "i=0; while :; do i=$((i+1)); echo $i > /n; sleep 0.02; done")?;
    container.exec(&[], "until [ -s /n ]; do sleep 0.05; done")?;
    container.does("pause")?;
    same("state", &container.inspect("{{.State.Status}}")?, "paused")?;
    let counter = format!("/proc/{}/root/n", container.pid()?);
    let first = fs::read_to_string(&counter)?;
    std::thread::sleep(Duration::from_millis(300));
    same("it stands still", &fs::read_to_string(&counter)?, &first)?;
    container.does("unpause")?;
    eventually("it goes on", Duration::from_secs(10), || {
        let now = fs::read_to_string(&counter)?;
        Ok(!now.is_empty() && now != first)
    })
}

fn signals(podman: &Podman) -> Verdict {
    let script =
        "trap 'echo usr1' USR1; trap 'echo hup' HUP; echo ready; while :; do sleep 0.05; done";
    let container = podman.background(&[], script)?;
    container.says("ready")?;
    container.with("kill", &["-s", "USR1"])?;
    container.says("usr1")?;
    container.with("kill", &["-s", "HUP"])?;
    container.says("hup")
}

fn stop(podman: &Podman) -> Verdict {
    let polite =
        podman.background(&[], "trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done")?;
    polite.says("ready")?;
    polite.with("stop", &["-t", "30"])?;
    same("exit code", &polite.wait()?, &5)?;
    let stubborn =
        podman.background(&[], "trap '' TERM; echo ready; while :; do sleep 0.05; done")?;
    stubborn.says("ready")?;
    stubborn.with("stop", &["-t", "1"])?;
    same("exit code", &stubborn.wait()?, &137)
}

fn restart(podman: &Podman) -> Verdict {
    let container = podman.background(&[], "echo run >> /count; exec sleep 600")?;
    container.exec(&[], "until [ -s /count ]; do sleep 0.05; done")?;
    container.with("restart", &["-t", "0"])?;
    container.exec(&[], "until [ $(wc -l < /count) = 2 ]; do sleep 0.05; done")?;
    container.with("stop", &["-t", "0"])?;
    container.does("start")?;
    container.exec(&[], "until [ $(wc -l < /count) = 3 ]; do sleep 0.05; done").map(drop)
}

fn restart_policy(podman: &Podman) -> Verdict {
    let options = ["--restart", "on-failure:2"];
    let container = podman.background(&options, "echo try >> /tries; exit 3")?;
    container.becomes("{{.State.Status}} {{.RestartCount}}", "exited 2")
}

fn update(podman: &Podman) -> Verdict {
    let container = podman.background(&["--memory", "64m"], "sleep 600")?;
    container.with("update", &["--memory", "128m", "--cpus", "0.5", "--cpuset-cpus", "0"])?;
    let script = "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes cpu/cpu.cfs_quota_us \
                  2>/dev/null || { cat memory.max; cut -d' ' -f1 cpu.max; }; grep ^Cpus_allowed_list /proc/1/status";
    same("limits", &container.exec(&[], script)?, "134217728\n50000\nCpus_allowed_list:\t0")
}

fn health(podman: &Podman) -> Verdict {
    let options = [
        "--health-cmd",
        "test -e /tmp/well",
        "--health-interval",
        "disable",
        "--health-retries",
        "1",
    ];
    let container = podman.background(&options, "touch /tmp/well; sleep 600")?;
    container.exec(&[], "until [ -e /tmp/well ]; do sleep 0.05; done")?;
    podman.ok(&["healthcheck", "run", &container.name])?;
    container.exec(&[], "rm /tmp/well")?;
    podman.command(&["healthcheck", "run", &container.name]).code(1).map(drop)
}

fn commit_and_diff(podman: &Podman) -> Verdict {
    let script = "echo kept > /kept; rm /etc/greeting; echo ready; sleep 600";
    let container = podman.background(&[], script)?;
    container.says("ready")?;
    let diff = container.does("diff")?;
    for wanted in ["A /kept", "D /etc/greeting"] {
        contains("diff", &diff, wanted)?;
    }
    podman.ok(&["commit", "-q", &container.name, "committed"])?;
    let words = [
        "run",
        "--rm",
        "--network",
        "none",
        "committed",
        "sh",
        "-c",
        "cat /kept; ls /etc/greeting 2>&1",
    ];
    let seen = podman.command(&words).run();
    podman.ok(&["rmi", "committed"])?;
    let seen = seen?.stdout;
    contains("written", &seen, "kept\n")?;
    contains("removed", &seen, "No such file")
}

fn copy(podman: &Podman) -> Verdict {
    let folder = podman.folder("copy")?;
    fs::write(folder.join("file"), "copied")?;
    let container = podman.background(&["--tmpfs", "/t"], "sleep 600")?;
    let from = folder.join("file").display().to_string();
    // Also into a tmpfs of the running container, and through a link that climbs.
    for target in ["/home/alice/f", "/t/f", "/climb/f"] {
        podman.ok(&["cp", &from, &format!("{}:{target}", container.name)])?;
        same(target, &container.exec(&[], &format!("cat {target}"))?, "copied")?;
    }
    check(!fs::exists("/etc/f")?, "the link led out of the container")?;
    let back = folder.join("back").display().to_string();
    podman.ok(&["cp", &format!("{}:/t/f", container.name), &back])?;
    same("out", &fs::read_to_string(&back)?, "copied")
}

fn export_and_import(podman: &Podman) -> Verdict {
    let archive = podman.folder("export")?.join("export.tar").display().to_string();
    let container = podman.background(&[], "echo 1 > /exported; echo ready; sleep 600")?;
    container.says("ready")?;
    podman.ok(&["export", "-o", &archive, &container.name])?;
    podman.ok(&["import", "-q", &archive, "imported"])?;
    let seen = podman.ok(&["run", "--rm", "--network", "none", "imported", "cat", "/exported"]);
    podman.ok(&["rmi", "imported"])?;
    same("content", &seen?, "1")
}

fn rm_running(podman: &Podman) -> Verdict {
    let container = podman.background(&[], "trap '' TERM; sleep 600")?;
    podman.command(&["rm", &container.name]).code(2)?;
    container.does("pause")?;
    container.with("rm", &["-f", "-t", "0"])?;
    lacks("ps", &podman.ok(&["ps", "-aq", "--no-trunc"])?, &container.id)
}

fn failed_start(podman: &Podman) -> Verdict {
    let folder = podman.folder("failed")?;
    let option = format!("{}:/tools", folder.display());
    let container = podman.created(&["-v", &option], &["/tools/busybox", "true"])?;
    for _ in 0..2 {
        let failed = podman.command(&["start", &container.name]).run()?;
        check(failed.code != 0, "it started")?;
        contains("message", &failed.stderr, "no such file or directory")
            .or_else(|_| contains("message", &failed.stderr, "executable file"))?;
    }
    fs::copy("/bin/busybox", folder.join("busybox"))?;
    container.does("start")?;
    same("exit code", &container.wait()?, &0)
}

fn layers_are_separate(podman: &Podman) -> Verdict {
    let first = podman.background(&[], "echo one > /etc/greeting; sleep 600")?;
    let second = podman.background(&[], "sleep 600")?;
    first.exec(&[], "until [ $(cat /etc/greeting) = one ]; do sleep 0.05; done")?;
    same("second", &second.exec(&[], "cat /etc/greeting")?, "hello from the image")
}

fn many_at_once(podman: &Podman) -> Verdict {
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..6)
            .map(|number| scope.spawn(move || podman.sh(&[], &format!("echo {number}"))))
            .collect();
        for (number, one) in all.into_iter().enumerate() {
            same("output", &one.join().map_err(|_| "a thread panicked")??, &number.to_string())?;
        }
        same("afterwards", &podman.run(&[], &["echo", image::NAME]).ok()?, image::NAME)
    })
}
