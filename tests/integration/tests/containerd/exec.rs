//! `ctr task exec`: a second process in a running container.

use std::time::Duration;

use corten_integration::managers::containerd::Containerd;
use corten_integration::managers::{Verdict, check, contains, eventually, lacks, same};

pub(crate) const TESTS: &[(&str, crate::Test)] = &[
    ("streams_and_code", streams_and_code),
    ("standard_input", standard_input),
    ("large_output", large_output),
    ("terminal", terminal),
    ("terminal_resize", terminal_resize),
    ("shell", shell),
    ("user", user),
    ("workdir", workdir),
    ("same_environment", same_environment),
    ("same_restrictions", same_restrictions),
    ("detached", detached),
    ("id_in_use", id_in_use),
    ("killed_by_id", killed_by_id),
    ("deleted_by_id", deleted_by_id),
    ("missing_program", missing_program),
    ("stopped", stopped),
    ("paused", paused),
    ("ends_with_the_container", ends_with_the_container),
    ("many_at_once", many_at_once),
    ("one_after_the_other", one_after_the_other),
];

fn streams_and_code(ctr: &Containerd) -> Verdict {
    let container = ctr.background(&[], "sleep 600")?;
    let words = ["sh", "-c", "echo out; echo err >&2; exit 3"];
    let ended = container.exec_raw(&[], &words).code(3)?;
    same("stdout", &ended.stdout, "out\n")?;
    same("stderr", &ended.stderr, "err\n")?;
    container.exec_raw(&[], &["sh", "-c", "kill -9 $$"]).code(137)?;
    container.exec_raw(&[], &["sh", "-c", "kill -15 $$"]).code(143)?;
    same("descriptors", &container.exec_raw(&[], &["ls", "/proc/self/fd"]).ok()?, "0\n1\n2\n3")
}

fn standard_input(ctr: &Containerd) -> Verdict {
    let container = ctr.background(&[], "sleep 600")?;
    let root = format!("/proc/{}/root", container.pid()?);
    let ready = std::path::PathBuf::from(root).join("ready");
    let run = container.exec_raw(&[], &["sh", "-c", "touch /ready; cat; echo end; exit 4"]);
    let ended = crate::streams::piped(&run, "seq 50000", &ready).code(4)?;
    check(ended.stdout.ends_with("\n49999\n50000\nend\n"), "the end is missing")?;
    same("lines", &ended.stdout.lines().count(), &50_001)
}

fn large_output(ctr: &Containerd) -> Verdict {
    let container = ctr.background(&[], "sleep 600")?;
    let seen = container.exec(&[], "seq 300000")?;
    same("lines", &seen.lines().count(), &300_000)?;
    check(seen.ends_with("\n299999\n300000"), "the end is missing")
}

fn terminal(ctr: &Containerd) -> Verdict {
    let container = ctr.background(&[], "sleep 600")?;
    let script = "tty; test -t 0 && test -t 2 && echo terminals; \
                  until [ \"$(stty size)\" = '33 77' ]; do sleep 0.05; done; echo sized; exit 4";
    let run = container.exec_raw(&["-t"], &["sh", "-c", script]);
    let (code, screen) = ctr.terminal(run)?.finish()?;
    for part in ["/dev/pts/", "terminals", "\nsized"] {
        contains("screen", &screen, part)?;
    }
    same("exit code", &code, &4)
}

fn terminal_resize(ctr: &Containerd) -> Verdict {
    let container = ctr.background(&[], "sleep 600")?;
    let script = "trap 'stty size' WINCH; echo ready; for i in $(seq 400); do sleep 0.05; done";
    let mut terminal = ctr.terminal(container.exec_raw(&["-t"], &["sh", "-c", script]))?;
    terminal.expect("ready")?;
    terminal.resize(20, 111, "20 111")?;
    terminal.send("\x03")?;
    terminal.finish().map(drop)
}

fn shell(ctr: &Containerd) -> Verdict {
    let container = ctr.background(&[], "sleep 600")?;
    let mut terminal = ctr.terminal(container.exec_raw(&["-t"], &["sh"]))?;
    terminal.expect("# ")?;
    terminal.send("sleep 500; echo code=$?\n")?;
    std::thread::sleep(Duration::from_millis(300));
    terminal.send("\x03")?;
    terminal.send("echo alive $((2+3))\n")?;
    terminal.expect("alive 5")?;
    terminal.send("exit 6\n")?;
    same("exit code", &terminal.finish()?.0, &6)
}

fn user(ctr: &Containerd) -> Verdict {
    let container = ctr.background(&[], "sleep 600")?;
    let ids = "grep -E '^(Uid|Gid|Groups|CapEff)' /proc/self/status | tr -s '\\t\\n ' ' '";
    let alice = container.exec(&["--user", "alice"], ids)?;
    contains("alice", &alice, "Uid: 1000 1000 1000 1000 Gid: 1000 1000 1000 1000")?;
    contains("numbers", &container.exec(&["--user", "7:8"], ids)?, "Uid: 7 7 7 7 Gid: 8 8 8 8")?;
    let root = container.exec(&[], ids)?;
    contains("root", &root, "Uid: 0 0 0 0")?;
    lacks("root's capabilities", &root, "CapEff: 0000000000000000")
}

fn workdir(ctr: &Containerd) -> Verdict {
    let container = ctr.background(&["--cwd", "/home"], "sleep 600")?;
    same("inherited", &container.exec(&[], "pwd")?, "/home")?;
    same("--cwd", &container.exec(&["--cwd", "/var/data"], "pwd")?, "/var/data")
}

fn same_environment(ctr: &Containerd) -> Verdict {
    let container = ctr.background(&["--env", "A=1", "--env", "B=two words"], "sleep 600")?;
    same("environment", &container.exec(&[], "echo $A $B")?, "1 two words")
}

fn same_restrictions(ctr: &Containerd) -> Verdict {
    let options = ["--seccomp", "--cap-drop", "CAP_CHOWN", "--memory-limit", "33554432"];
    let container = ctr.background(&options, "sleep 600")?;
    let status = |place: &str| {
        let script = format!(
            "grep -E '^(NoNewPrivs|Seccomp|CapEff|CapBnd|CapInh):' /proc/{place}/status; \
             sed 's/^[0-9]*://' /proc/{place}/cgroup; for n in mnt pid net ipc uts; do \
             readlink /proc/{place}/ns/$n; done"
        );
        container.exec(&[], &script)
    };
    let own = status("self")?;
    same("exec and init", &own, &status("1")?)?;
    contains("filter", &own, "Seccomp:\t2")?;
    contains("no new privileges", &own, "NoNewPrivs:\t1")
}

fn detached(ctr: &Containerd) -> Verdict {
    let container = ctr.background(&[], "sleep 600")?;
    let words = ["sh", "-c", "echo left > /tmp/note; exec sleep 555"];
    same("output", &container.exec_raw(&["-d", "--exec-id", "quiet"], &words).ok()?, "")?;
    eventually("the process runs", Duration::from_secs(10), || {
        Ok(container.exec(&[], "cat /tmp/note 2>/dev/null || true")? == "left")
    })?;
    let table = container.does("ps", &[])?;
    same("processes", &table.lines().skip(1).count(), &2)?;
    contains("exec id", &table, "quiet")
}

fn id_in_use(ctr: &Containerd) -> Verdict {
    let container = ctr.background(&[], "sleep 600")?;
    container.exec_raw(&["-d", "--exec-id", "taken"], &["sleep", "555"]).ok()?;
    let refused = container.exec_raw(&["--exec-id", "taken"], &["true"]).code(1)?;
    contains("message", &refused.stderr, "already exists")?;
    container.does("kill", &["--exec-id", "taken", "-s", "KILL"])?;
    eventually("its end", Duration::from_secs(10), || {
        Ok(container.task("rm", &["--exec-id", "taken"]).run()?.code == 137)
    })?;
    // Free again.
    let again = container.exec_raw(&["--exec-id", "taken"], &["echo", "again"]);
    same("output", &again.ok()?, "again")
}

fn killed_by_id(ctr: &Containerd) -> Verdict {
    let container = ctr.background(&[], "sleep 600")?;
    let script = "trap 'exit 11' USR1; touch /up; while :; do sleep 0.05; done";
    container.exec_raw(&["-d", "--exec-id", "one"], &["sh", "-c", script]).ok()?;
    container.exec_raw(&["-d", "--exec-id", "two"], &["sleep", "555"]).ok()?;
    container.exec(&[], "until [ -e /up ]; do sleep 0.05; done")?;
    container.does("kill", &["--exec-id", "one", "-s", "USR1"])?;
    eventually("its end", Duration::from_secs(10), || {
        Ok(container.task("rm", &["--exec-id", "one"]).run()?.code == 11)
    })?;
    let table = container.does("ps", &[])?;
    contains("the other", &table, "two")?;
    lacks("the one", &table, "one")?;
    same("container", &container.status()?, "RUNNING")
}

fn deleted_by_id(ctr: &Containerd) -> Verdict {
    let container = ctr.background(&[], "sleep 600")?;
    container.exec_raw(&["-d", "--exec-id", "runs"], &["sleep", "555"]).ok()?;
    let refused = container.task("rm", &["--exec-id", "runs"]).code(1)?;
    contains("message", &refused.stderr, "must be stopped before deletion")?;
    container.does("kill", &["--exec-id", "runs", "-s", "INT"])?;
    eventually("its end", Duration::from_secs(10), || {
        Ok(container.task("rm", &["--exec-id", "runs"]).run()?.code == 130)
    })?;
    let gone = container.task("rm", &["--exec-id", "runs"]).code(1)?;
    contains("message", &gone.stderr, "not found")
}

fn missing_program(ctr: &Containerd) -> Verdict {
    let container = ctr.background(&[], "sleep 600")?;
    for (program, message) in [
        ("no-such-program", "executable file not found in $PATH"),
        ("/no/such", "no such file or directory"),
        ("/etc/greeting", "permission denied"),
    ] {
        for _ in 0..2 {
            // The same id: a failed start leaves nothing that stands in its way.
            let failed = container.exec_raw(&["--exec-id", "bad"], &[program]).code(1)?;
            contains(program, &failed.stderr, message)?;
            lacks(program, &failed.stderr, "already exists")?;
        }
    }
    same("alive", &container.exec(&["--exec-id", "bad"], "echo yes")?, "yes")
}

fn stopped(ctr: &Containerd) -> Verdict {
    let container = ctr.background(&[], "true")?;
    container.becomes("STOPPED")?;
    let refused = container.exec_raw(&[], &["true"]).code(1)?;
    check(
        ["not running", "stopped", "not found"].iter().any(|word| refused.stderr.contains(word)),
        refused.stderr,
    )?;
    same("exit code", &container.ends()?, &0)
}

fn paused(ctr: &Containerd) -> Verdict {
    let container = ctr.background(&[], "sleep 600")?;
    container.does("pause", &[])?;
    let refused = container.exec_raw(&[], &["true"]).run()?;
    container.does("resume", &[])?;
    check(refused.code != 0, "exec in a paused container")?;
    contains("message", &refused.stderr, "paused")?;
    same("afterwards", &container.exec(&[], "echo yes")?, "yes")
}

fn ends_with_the_container(ctr: &Containerd) -> Verdict {
    let container = ctr.background(&[], "sleep 600")?;
    let run = container.exec_raw(&["-t"], &["sh", "-c", "echo in; sleep 600"]);
    let client = ctr.terminal(run)?;
    client.expect("in")?;
    container.does("kill", &["-s", "KILL"])?;
    let (code, screen) = client.finish()?;
    check(code == 137, format!("exit code {code} of exec: {screen}"))?;
    same("exit code", &container.ends()?, &137)
}

fn many_at_once(ctr: &Containerd) -> Verdict {
    let container = ctr.background(&[], "sleep 600")?;
    let container = &container;
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..10)
            .map(|number| {
                let script = format!("echo {number}; exit {number}");
                scope.spawn(move || container.exec_raw(&[], &["sh", "-c", &script]).code(number))
            })
            .collect();
        for (number, one) in all.into_iter().enumerate() {
            let seen = one.join().map_err(|_| "a thread panicked")??;
            same("output", &seen.stdout, &format!("{number}\n"))?;
        }
        Ok(())
    })
}

/// Many execs cost the shim nothing that stays: descriptors, children.
fn one_after_the_other(ctr: &Containerd) -> Verdict {
    let container = ctr.background(&[], "sleep 600")?;
    let shim = container.shim()?;
    let count = || -> Result<(usize, usize), corten_integration::managers::Stop> {
        let files = std::fs::read_dir(format!("/proc/{shim}/fd"))?.count();
        let children = std::fs::read_to_string(format!("/proc/{shim}/task/{shim}/children"))?;
        Ok((files, children.split_whitespace().count()))
    };
    let some = |times| -> Verdict {
        for _ in 0..times {
            container.exec_raw(&[], &["true"]).ok()?;
        }
        Ok(())
    };
    some(3)?;
    let (before, mut now) = (count()?, (0, 0));
    some(25)?;
    let settled = eventually("as before", Duration::from_secs(10), || {
        now = count()?;
        Ok(now.0 <= before.0 && now.1 <= before.1)
    });
    settled.map_err(|_| format!("descriptors and children: {before:?}, then {now:?}").into())
}
