//! `docker exec`: a second process in a running container.

use std::time::Duration;

use corten_integration::cgroups::is_v2;
use corten_integration::managers::docker::{Docker, Test, all_capabilities};
use corten_integration::managers::{Verdict, check, contains, eventually, same};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("streams_and_code", streams_and_code),
    ("standard_input", standard_input),
    ("terminal", terminal),
    ("terminal_resize", terminal_resize),
    ("shell", shell),
    ("user", user),
    ("environment", environment),
    ("workdir", workdir),
    ("joins_everything", joins_everything),
    ("same_restrictions", same_restrictions),
    ("privileged", privileged),
    ("detached", detached),
    ("missing_program", missing_program),
    ("not_running", not_running),
    ("paused", paused),
    ("ends_with_the_container", ends_with_the_container),
    ("many_at_once", many_at_once),
    ("open_files", open_files),
];

fn streams_and_code(docker: &Docker) -> Verdict {
    let container = docker.background(&[], "sleep 600")?;
    let words = ["sh", "-c", "echo out; echo err >&2; exit 3"];
    let ended = container.exec_raw(&[], &words).code(3)?;
    same("stdout", &ended.stdout, "out\n")?;
    same("stderr", &ended.stderr, "err\n")?;
    container.exec_raw(&[], &["sh", "-c", "kill -9 $$"]).code(137)?;
    container.exec_raw(&[], &["sh", "-c", "kill -15 $$"]).code(143).map(drop)
}

fn standard_input(docker: &Docker) -> Verdict {
    let container = docker.background(&[], "sleep 600")?;
    let text = "some text\n".repeat(20000);
    let ended = container.exec_raw(&["-i"], &["cat"]).input(text.clone()).code(0)?;
    check(ended.stdout == text, format!("{} bytes came back", ended.stdout.len()))
}

fn terminal(docker: &Docker) -> Verdict {
    let container = docker.background(&[], "sleep 600")?;
    let script = "tty; test -t 0 && test -t 2 && echo terminals; \
                  until [ \"$(stty size)\" = '33 77' ]; do sleep 0.05; done; echo sized; exit 4";
    let words = ["exec", "-it", &container.name, "sh", "-c", script];
    let (code, screen) = docker.terminal(&words)?.finish()?;
    same("exit code", &code, &4)?;
    contains("screen", &screen, "/dev/pts/")?;
    contains("screen", &screen, "terminals")?;
    contains("screen", &screen, "\nsized")
}

fn terminal_resize(docker: &Docker) -> Verdict {
    let container = docker.background(&[], "sleep 600")?;
    let script = "trap 'stty size' WINCH; echo ready; for i in $(seq 400); do sleep 0.05; done";
    let words = ["exec", "-it", &container.name, "sh", "-c", script];
    let mut terminal = docker.terminal(&words)?;
    terminal.expect("ready")?;
    terminal.resize(20, 111, "20 111")?;
    terminal.send("\x03")?;
    terminal.finish().map(drop)
}

fn shell(docker: &Docker) -> Verdict {
    let container = docker.background(&[], "sleep 600")?;
    let mut terminal = docker.terminal(&["exec", "-it", &container.name, "sh"])?;
    terminal.expect("# ")?;
    terminal.send("sleep 500; echo code=$?\n")?;
    std::thread::sleep(Duration::from_millis(300));
    terminal.send("\x03")?;
    terminal.send("echo alive $((2+3))\n")?;
    terminal.expect("alive 5")?;
    terminal.send("exit 6\n")?;
    same("exit code", &terminal.finish()?.0, &6)
}

fn user(docker: &Docker) -> Verdict {
    let container = docker.background(&[], "sleep 600")?;
    let ids = "grep -E '^(Uid|Gid|Groups|CapEff|CapBnd)' /proc/self/status | tr -s '\\t\\n ' ' '";
    let alice = container.exec(&["--user", "alice"], ids)?;
    contains(
        "alice",
        &alice,
        "Uid: 1000 1000 1000 1000 Gid: 1000 1000 1000 1000 Groups: 1000 2000",
    )?;
    contains("no capabilities", &alice, "CapEff: 0000000000000000 CapBnd: 00000000a80425fb")?;
    contains("numbers", &container.exec(&["-u", "7:8"], ids)?, "Uid: 7 7 7 7 Gid: 8 8 8 8")?;
    let other = docker.background(&["--user", "alice"], "sleep 600")?;
    contains("inherited", &other.exec(&[], ids)?, "Uid: 1000")?;
    contains("root again", &other.exec(&["-u", "0"], ids)?, "CapEff: 00000000a80425fb")
}

fn environment(docker: &Docker) -> Verdict {
    let container =
        docker.background(&["-e", "A=1", "-e", "B=2", "--hostname", "h"], "sleep 600")?;
    let mut seen: Vec<String> = container
        .exec_raw(&["-e", "B=3", "-e", "C=4"], &["env"])
        .ok()?
        .lines()
        .map(str::to_owned)
        .collect();
    seen.sort();
    let wanted = [
        "A=1",
        "B=3",
        "C=4",
        "HOME=/root",
        "HOSTNAME=h",
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ];
    same("environment", &seen[..], &wanted[..])
}

fn workdir(docker: &Docker) -> Verdict {
    let container = docker.background(&["--workdir", "/home"], "sleep 600")?;
    same("inherited", &container.exec(&[], "pwd")?, "/home")?;
    same("--workdir", &container.exec(&["--workdir", "/var/data"], "pwd")?, "/var/data")?;
    let denied = container.exec_raw(&["--workdir", "/nowhere"], &["pwd"]).run()?;
    check([126, 127].contains(&denied.code), denied.all())?;
    contains("message", &denied.all(), "no such file or directory")
}

fn joins_everything(docker: &Docker) -> Verdict {
    let container = docker.background(&["--memory", "64m"], "sleep 600")?;
    let script = "for n in mnt pid net ipc uts user cgroup; do \
                  [ $(readlink /proc/1/ns/$n) = $(readlink /proc/self/ns/$n) ] || echo $n; done; \
                  readlink /proc/self/root; cat /proc/self/cgroup | cut -d: -f2- | grep -v -F \
                  \"$(cut -d: -f2- < /proc/1/cgroup)\"; true";
    same("differences", &container.exec(&[], script)?, "/")?;
    // The group of the process really is the container's: its id is in every path, or, in the cgroup
    // namespace that Docker makes on v2, it is the root of what the container sees.
    let groups = container.exec(&[], "cat /proc/self/cgroup")?;
    let root = is_v2().then_some("0::/");
    let own = |line: &&str| line.contains(&container.id) || root == Some(line);
    let others: Vec<_> = groups.lines().filter(|line| !own(line)).collect();
    same("other groups", &others[..], &[] as &[&str])
}

fn same_restrictions(docker: &Docker) -> Verdict {
    let options = [
        "--security-opt",
        "no-new-privileges",
        "--ulimit",
        "nofile=111:222",
        "--cap-drop",
        "CHOWN",
        "--oom-score-adj",
        "55",
    ];
    let container = docker.background(&options, "sleep 600")?;
    let script = "grep -E '^(NoNewPrivs|Seccomp|CapEff|CapBnd|CapInh):' /proc/self/status; \
                  ulimit -Sn; ulimit -Hn; cat /proc/self/oom_score_adj";
    let inner = docker.sh(&options, script)?;
    same("exec and init", &container.exec(&[], script)?, &inner)?;
    contains("limits", &inner, "NoNewPrivs:\t1\nSeccomp:\t2\n111\n222\n55")?;
    contains("capabilities", &inner, "CapEff:\t00000000a80425fa")
}

fn privileged(docker: &Docker) -> Verdict {
    let container = docker.background(&[], "sleep 600")?;
    let words = ["cat", "/proc/self/status"];
    let ended = container.exec_raw(&["--privileged"], &words).run()?;
    if docker.sandbox.is_runc() && ended.all().contains("unable to apply caps") {
        let why = "runc demands every capability, this host's root lacks some";
        return Err(corten_integration::managers::Stop::Skip(why.into()));
    }
    let wanted = all_capabilities()?;
    contains("capabilities", &ended.stdout, &format!("CapEff:\t{wanted}"))?;
    // The filter stays the container's, so something that it lets through.
    let words = ["ip", "link", "set", "lo", "down"];
    container.exec_raw(&[], &words).code(2)?;
    container.exec_raw(&["--privileged"], &words).code(0)?;
    contains("init is as before", &container.exec(&[], "cat /proc/1/status")?, "a80425fb")
}

fn detached(docker: &Docker) -> Verdict {
    let container = docker.background(&[], "sleep 600")?;
    let words = ["sh", "-c", "echo left > /tmp/note; exec sleep 555"];
    same("output", &container.exec_raw(&["-d"], &words).ok()?, "")?;
    eventually("the process runs", Duration::from_secs(10), || {
        Ok(container.does("top")?.contains("sleep 555"))
    })?;
    same("note", &container.exec(&[], "cat /tmp/note")?, "left")
}

fn missing_program(docker: &Docker) -> Verdict {
    let container = docker.background(&[], "sleep 600")?;
    for (program, codes, message) in [
        ("no-such-program", [126, 127], "executable file not found in $PATH"),
        ("/no/such", [126, 127], "no such file or directory"),
        ("/etc/greeting", [126, 126], "permission denied"),
    ] {
        let ended = container.exec_raw(&[], &[program]).run()?;
        check(
            codes.contains(&ended.code),
            format!("{program}: code {}: {}", ended.code, ended.all()),
        )?;
        contains(program, &ended.all(), message)?;
    }
    // The container has not suffered.
    same("alive", &container.exec(&[], "echo yes")?, "yes")
}

fn not_running(docker: &Docker) -> Verdict {
    let container = docker.background(&[], "true")?;
    container.wait()?;
    let denied = container.exec_raw(&[], &["true"]).code(1)?;
    contains("message", &denied.stderr, "is not running")
}

fn paused(docker: &Docker) -> Verdict {
    let container = docker.background(&[], "sleep 600")?;
    container.does("pause")?;
    let denied = container.exec_raw(&[], &["true"]).run()?;
    container.does("unpause")?;
    check(denied.code != 0, "exec in a paused container")?;
    contains("message", &denied.stderr, "is paused")?;
    same("afterwards", &container.exec(&[], "echo yes")?, "yes")
}

fn ends_with_the_container(docker: &Docker) -> Verdict {
    let container = docker.background(&[], "sleep 600")?;
    let client =
        docker.terminal(&["exec", "-t", &container.name, "sh", "-c", "echo in; sleep 600"])?;
    client.expect("in")?;
    container.does("kill")?;
    same("exit code of exec", &client.finish()?.0, &137)
}

fn many_at_once(docker: &Docker) -> Verdict {
    let container = docker.background(&[], "sleep 600")?;
    let container = &container;
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..10)
            .map(|number| {
                scope.spawn(move || {
                    container
                        .exec_raw(&[], &["sh", "-c", &format!("echo {number}; exit {number}")])
                        .code(number)
                })
            })
            .collect();
        for (number, one) in all.into_iter().enumerate() {
            let seen = one.join().map_err(|_| "a thread panicked")??;
            same("output", &seen.stdout, &format!("{number}\n"))?;
        }
        Ok(())
    })
}

fn open_files(docker: &Docker) -> Verdict {
    let container = docker.background(&[], "sleep 600")?;
    same("descriptors", &container.exec_raw(&[], &["ls", "/proc/self/fd"]).ok()?, "0\n1\n2\n3")
}
