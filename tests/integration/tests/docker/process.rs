//! The container's first process: streams, terminal, user, environment, exit code.

use std::time::Duration;

use corten_integration::managers::client::unique;
use corten_integration::managers::docker::{Docker, Test};
use corten_integration::managers::{Verdict, check, contains, eventually, image, lacks, same};
use nix::sys::signal::{Signal, kill};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("detached", detached),
    ("standard_streams", standard_streams),
    ("standard_input", standard_input),
    ("much_output", much_output),
    ("terminal", terminal),
    ("terminal_resize", terminal_resize),
    ("terminal_shell", terminal_shell),
    ("terminal_detached", terminal_detached),
    ("rm_leaves_nothing", rm_leaves_nothing),
    ("init", init),
    ("user", user),
    ("groups", groups),
    ("workdir", workdir),
    ("environment", environment),
    ("env_file", env_file),
    ("hostname", hostname),
    ("entrypoint", entrypoint),
    ("arguments", arguments),
    ("exit_codes", exit_codes),
    ("exit_125_126_127", exit_125_126_127),
    ("client_forwards_signals", client_forwards_signals),
    ("open_files", open_files),
    ("stdio_can_be_reopened", stdio_can_be_reopened),
    ("many_at_once", many_at_once),
];

fn detached(docker: &Docker) -> Verdict {
    let container = docker.background(&[], "echo started; exec sleep 600")?;
    check(
        container.id.len() == 64 && container.id.bytes().all(|byte| byte.is_ascii_hexdigit()),
        format!("not an id: {}", container.id),
    )?;
    container.says("started")?;
    same("status", &container.inspect("{{.State.Status}}")?, "running")?;
    same("runtime", &container.inspect("{{.HostConfig.Runtime}}")?, "under-test")?;
    let line = std::fs::read(format!("/proc/{}/cmdline", container.pid()?))?;
    same("command line of State.Pid", &line[..], &b"sleep\x00600\0"[..])
}

fn standard_streams(docker: &Docker) -> Verdict {
    let ended = docker.run(&[], &["sh", "-c", "echo out; echo err >&2; exit 3"]).code(3)?;
    same("stdout", &ended.stdout, "out\n")?;
    same("stderr", &ended.stderr, "err\n")
}

fn standard_input(docker: &Docker) -> Verdict {
    let text = "line one\nline two\n".repeat(5000);
    let ended = docker.run(&["-i"], &["cat"]).input(text.clone()).code(0)?;
    check(ended.stdout == text, format!("{} bytes came back", ended.stdout.len()))?;
    // Without -i the input is empty, not somebody else's.
    same("without -i", &docker.run(&[], &["cat"]).input("secret").ok()?, "")
}

fn much_output(docker: &Docker) -> Verdict {
    let script = "i=0; while [ $i -lt 20000 ]; do echo 0123456789012345678901234567890123456789; \
                  i=$((i+1)); done";
    let ended = docker.run(&[], &["sh", "-c", script]).code(0)?;
    same("bytes", &ended.stdout.len(), &(20000 * 41))
}

fn terminal(docker: &Docker) -> Verdict {
    let script = "tty; test -t 0 && test -t 1 && test -t 2 && echo all three; \
                  stat -c '%t:%T' /dev/console; exit 9";
    let words = ["run", "--rm", "-it", "--network", "none", image::NAME, "sh", "-c", script];
    let (code, screen) = docker.terminal(&words)?.finish()?;
    same("exit code", &code, &9)?;
    contains("screen", &screen, "/dev/")?;
    contains("screen", &screen, "all three")?;
    // /dev/console is the same pseudo terminal (major 136).
    contains("screen", &screen, "\n88:")
}

fn terminal_resize(docker: &Docker) -> Verdict {
    let script = "until [ \"$(stty size)\" = '33 77' ]; do sleep 0.05; done; echo first; \
                  until [ \"$(stty size)\" = '44 99' ]; do sleep 0.05; done; echo second";
    let words = ["run", "--rm", "-it", "--network", "none", image::NAME, "sh", "-c", script];
    let terminal = docker.terminal(&words)?;
    terminal.expect("first")?;
    terminal.resize(44, 99, "second")?;
    let (code, screen) = terminal.finish()?;
    same("exit code", &code, &0)?;
    contains("screen", &screen, "second")
}

fn terminal_shell(docker: &Docker) -> Verdict {
    let words = ["run", "--rm", "-it", "--network", "none", image::NAME];
    let mut terminal = docker.terminal(&words)?;
    terminal.expect("# ")?;
    terminal.send("echo $((6*7))-answer\n")?;
    terminal.expect("42-answer")?;
    // Job control works, so the terminal is the controlling one: ^C ends sleep, not the shell.
    terminal.send("sleep 600; echo code=$?\n")?;
    std::thread::sleep(Duration::from_millis(300));
    terminal.send("\x03")?;
    terminal.send("echo still $((1+1)) here\n")?;
    terminal.expect("still 2 here")?;
    lacks("screen", &terminal.screen(), "can't access tty")?;
    terminal.send("exit 5\n")?;
    same("exit code", &terminal.finish()?.0, &5)
}

fn terminal_detached(docker: &Docker) -> Verdict {
    let container = docker.background(&["-dt"], "tty; exec sleep 600")?;
    container.says("/dev/")?;
    same("a terminal", &container.inspect("{{.Config.Tty}}")?, "true")?;
    contains("fd 0", &container.exec(&[], "readlink /proc/1/fd/0")?, "/dev/pts/")
}

fn rm_leaves_nothing(docker: &Docker) -> Verdict {
    let name = unique("rm");
    docker.ok(&["run", "--rm", "--name", &name, "--network", "none", image::NAME, "true"])?;
    eventually("the container is removed", Duration::from_secs(10), || {
        Ok(docker.ok(&["ps", "-aq", "--filter", &format!("name={name}")])?.is_empty())
    })
}

fn init(docker: &Docker) -> Verdict {
    let container = docker.background(&["--init"], "(sleep 0.1 &); exec sleep 600")?;
    same("pid 1", &container.exec(&[], "cat /proc/1/comm")?, "docker-init")?;
    // The orphan of the shell is reaped: no zombie stays.
    eventually("no zombie", Duration::from_secs(10), || {
        Ok(!container.exec(&[], "cat /proc/[0-9]*/status")?.contains("Z (zombie)"))
    })?;
    // And TERM reaches a program that has no handler of its own.
    container.with("stop", &["-t", "20"])?;
    same("exit code", &container.wait()?, &143)
}

fn user(docker: &Docker) -> Verdict {
    let ids = "grep -E '^(Uid|Gid)' /proc/self/status | tr -s '\\t\\n' ' '; echo $HOME";
    let cases = [
        ("5:6", "Uid: 5 5 5 5 Gid: 6 6 6 6 /"),
        ("alice", "Uid: 1000 1000 1000 1000 Gid: 1000 1000 1000 1000 /home/alice"),
        ("alice:extra", "Uid: 1000 1000 1000 1000 Gid: 2000 2000 2000 2000 /home/alice"),
        ("1000", "Uid: 1000 1000 1000 1000 Gid: 1000 1000 1000 1000 /home/alice"),
        ("4242", "Uid: 4242 4242 4242 4242 Gid: 0 0 0 0 /"),
    ];
    for (name, wanted) in cases {
        same(name, &docker.sh(&["--user", name], ids)?, wanted)?;
    }
    let denied = docker.run(&["--user", "carol"], &["true"]).code(125)?;
    contains("unknown user", &denied.stderr, "carol")
}

fn groups(docker: &Docker) -> Verdict {
    let script = "grep ^Groups /proc/self/status | tr -s '\\t ' ' '";
    // Both from the image's /etc/group and from the command line.
    same("alice", docker.sh(&["--user", "alice"], script)?.trim_end(), "Groups: 1000 2000")?;
    let more = docker.sh(&["--user", "alice", "--group-add", "77"], script)?;
    for group in ["2000", "77"] {
        contains("groups", &more, group)?;
    }
    Ok(())
}

fn workdir(docker: &Docker) -> Verdict {
    same("existing", &docker.sh(&["--workdir", "/home/alice"], "pwd")?, "/home/alice")?;
    // One that is missing is made, also deep, also through a link.
    same(
        "missing",
        &docker.sh(&["--workdir", "/new/deep/one"], "pwd; ls -d /new/deep")?,
        "/new/deep/one\n/new/deep",
    )?;
    let made = docker.sh(&["--workdir", "/absolute/below"], "pwd -P; ls -d /var/data/below")?;
    same("through a link", &made, "/var/data/below\n/var/data/below")
}

fn environment(docker: &Docker) -> Verdict {
    let options = ["--env", "A=one two", "-e", "EMPTY=", "-e", "LINES=a=b=c", "--hostname", "h1"];
    let mut seen: Vec<String> =
        docker.run(&options, &["env"]).ok()?.lines().map(str::to_owned).collect();
    seen.sort();
    // Exactly these: nothing of the manager's or the runtime's own environment comes along.
    let wanted = [
        "A=one two",
        "EMPTY=",
        "HOME=/root",
        "HOSTNAME=h1",
        "LINES=a=b=c",
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ];
    same("environment", &seen[..], &wanted[..])
}

fn env_file(docker: &Docker) -> Verdict {
    let folder = docker.folder("env")?;
    let file = folder.join("list");
    std::fs::write(&file, "# comment\nB=2\nC=three four\n")?;
    let file = file.display().to_string();
    same("--env-file", &docker.sh(&["--env-file", &file], "echo $B-$C")?, "2-three four")
}

fn hostname(docker: &Docker) -> Verdict {
    let options = ["--hostname", "steel", "--domainname", "example.org"];
    let seen = docker.sh(&options, "hostname; cat /proc/sys/kernel/domainname /etc/hostname")?;
    same("names", &seen, "steel\nexample.org\nsteel")?;
    let container = docker.background(&[], "sleep 600")?;
    same("default", &container.exec(&[], "hostname")?, &container.id[..12])
}

fn entrypoint(docker: &Docker) -> Verdict {
    same("--entrypoint", &docker.run(&["--entrypoint", "/bin/echo"], &["a", "b"]).ok()?, "a b")
}

fn arguments(docker: &Docker) -> Verdict {
    let odd = ["", "two words", "$HOME", "quo\"te", "line\nbreak", "тест", "-x", "\\"];
    let mut words = vec!["sh", "-c", "for word; do printf '[%s]' \"$word\"; done", "sh"];
    words.extend(odd);
    let wanted: String = odd.iter().map(|word| format!("[{word}]")).collect();
    same("arguments", &docker.run(&[], &words).ok()?, &wanted)
}

fn exit_codes(docker: &Docker) -> Verdict {
    for (script, wanted) in
        [("exit 0", 0), ("exit 42", 42), ("exit 255", 255), ("kill -9 $$", 0), ("false", 1)]
    {
        // pid 1 cannot kill itself; a child of it can, with any signal.
        docker.run(&[], &["sh", "-c", script]).code(wanted)?;
    }
    docker.run(&[], &["sh", "-c", "(kill -TERM $(exec sh -c 'echo $PPID')); true"]).code(0)?;
    docker.run(&[], &["sh", "-c", "sh -c 'kill -KILL $$'; exit $?"]).code(137)?;
    let container = docker.background(&[], "sleep 600")?;
    container.does("kill")?;
    same("killed", &container.wait()?, &137)?;
    same("state", &container.inspect("{{.State.ExitCode}} {{.State.OOMKilled}}")?, "137 false")
}

fn exit_125_126_127(docker: &Docker) -> Verdict {
    docker.run(&["--no-such-option"], &["true"]).code(125)?;
    let missing = docker.run(&[], &["no-such-program"]).code(127)?;
    contains("message", &missing.stderr, "executable file not found in $PATH")?;
    let missing = docker.run(&[], &["/no/such/program"]).code(127)?;
    contains("message", &missing.stderr, "no such file or directory")?;
    for program in ["/etc/greeting", "/etc", "/bin/not-a-program"] {
        let denied = docker.run(&[], &[program]).code(126)?;
        check(
            denied.stderr.contains("permission denied") || denied.stderr.contains("is a directory"),
            format!("{program}: {}", denied.stderr),
        )?;
    }
    // The failed ones are containers in state "created" until removed; --rm did that.
    let name = unique("failed");
    docker
        .command(&["run", "--name", &name, "--network", "none", image::NAME, "nope"])
        .code(127)?;
    same("state", &docker.ok(&["inspect", "-f", "{{.State.Status}}", &name])?, "created")?;
    docker.ok(&["rm", &name]).map(drop)
}

fn client_forwards_signals(docker: &Docker) -> Verdict {
    let script = "trap 'echo caught; exit 21' USR1; echo ready; while :; do sleep 0.05; done";
    let words = ["run", "--rm", "-t", "--network", "none", image::NAME, "sh", "-c", script];
    let client = docker.terminal(&words)?;
    client.expect("ready")?;
    kill(client.pid(), Signal::SIGUSR1)?;
    let (code, screen) = client.finish()?;
    contains("screen", &screen, "caught")?;
    same("exit code", &code, &21)
}

fn open_files(docker: &Docker) -> Verdict {
    // 3 is the directory that ls reads.
    same("descriptors", &docker.run(&[], &["ls", "/proc/self/fd"]).ok()?, "0\n1\n2\n3")?;
    same("pid", &docker.sh(&[], "echo $$")?, "1")?;
    let state = docker.sh(&[], "grep -E '^(SigBlk|SigIgn)' /proc/self/status")?;
    contains("signals", &state, "SigBlk:\t0000000000000000")?;
    // A runtime in Rust ignores SIGPIPE itself; a shell pipeline in the container must not.
    let ignored = state.rsplit('\t').next().unwrap_or_default();
    check(u64::from_str_radix(ignored, 16)? & 1 << 12 == 0, format!("SIGPIPE is ignored: {state}"))
}

fn stdio_can_be_reopened(docker: &Docker) -> Verdict {
    // Ordinary users write to /dev/stderr, which opens the pipe again by name.
    let ended = docker
        .run(&["--user", "1000"], &["sh", "-c", "echo one > /dev/stdout; echo two > /dev/stderr"])
        .code(0)?;
    same("streams", &(ended.stdout + &ended.stderr), "one\ntwo\n")
}

fn many_at_once(docker: &Docker) -> Verdict {
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..8)
            .map(|number| scope.spawn(move || docker.sh(&[], &format!("echo {number}; hostname"))))
            .collect();
        for (number, one) in all.into_iter().enumerate() {
            let seen = one.join().map_err(|_| "a thread panicked")??;
            contains("output", &seen, &format!("{number}\n"))?;
        }
        Ok(())
    })
}
