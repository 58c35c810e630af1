//! Commands and streams in a running container: ExecSync, Exec, Attach, PortForward.

use std::time::{Duration, Instant};

use corten_integration::cgroups::is_v2;
use corten_integration::driver::patience;
use corten_integration::managers::command::Run;
use corten_integration::managers::cri::Cri;
use corten_integration::managers::cri::pod::text;
use corten_integration::managers::cri::stream::Stream;
use corten_integration::managers::{Verdict, check, contains, eventually, lacks, same};
use serde_json::json;

pub(crate) const TESTS: &[(&str, crate::Test)] = &[
    ("sync", sync),
    ("sync_big_output", sync_big_output),
    ("sync_timeout", sync_timeout),
    ("sync_many", sync_many),
    ("sync_failures", sync_failures),
    ("sync_in_the_security_context", sync_in_the_security_context),
    ("ends_with_the_container", ends_with_the_container),
    ("leaves_a_child", leaves_a_child),
    ("stream", stream),
    ("stream_terminal", stream_terminal),
    ("stream_dropped", stream_dropped),
    ("attach", attach),
    ("attach_terminal", attach_terminal),
    ("attach_again", attach_again),
    ("attach_stdin_once", attach_stdin_once),
    ("attach_is_heard_by_two", attach_is_heard_by_two),
    ("port_forward", port_forward),
];

fn sync(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let container = pod.container("sleep 600", json!({}))?;
    let ran = container.exec_sync(&["sh", "-c", "echo out; echo err >&2; exit 17"], 10)?;
    same("code", &ran.code, &17)?;
    same("stdout", &ran.stdout, "out\n")?;
    same("stderr", &ran.stderr, "err\n")?;
    let ran = container.exec_sync(&["cat"], 10)?;
    same("without input", &(ran.code, ran.stdout), &(0, String::new()))?;
    same("signal", &container.exec_sync(&["sh", "-c", "kill -9 $$"], 10)?.code, &137)
}

fn sync_big_output(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let container = pod.container("sleep 600", json!({}))?;
    // 3 MB, twice what pipes and buffers hold on the way.
    let ran = container.exec_sync(&["sh", "-c", "yes 012345678 | head -n 300000"], 30)?;
    same("code", &ran.code, &0)?;
    same("bytes", &ran.stdout.len(), &3_000_000)?;
    check(ran.stdout.lines().all(|line| line == "012345678"), "the output is damaged")
}

fn sync_timeout(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let container = pod.container("sleep 600", json!({}))?;
    let started = Instant::now();
    let refusal = container.exec_refused(&["sleep", "4721"], 1)?;
    let took = started.elapsed();
    check(took >= Duration::from_secs(1), format!("given up after {took:?}"))?;
    check(took < patience(Duration::from_secs(10)), format!("given up only after {took:?}"))?;
    same("status", &refusal.status, &4)?;
    contains("message", &refusal.message, "timeout")?;
    eventually("the command was killed", Duration::from_secs(5), || {
        let seen = Run::new("/bin/busybox").args(["ps", "-o", "args"]).ok()?;
        Ok(!seen.contains("sleep 4721"))
    })?;
    same("the container", &container.exec("echo fine")?, "fine")
}

fn sync_many(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let container = pod.container("sleep 600", json!({}))?;
    let run = |number: usize| -> Verdict {
        for round in 0..5 {
            let script = format!("echo {number} {round}; exit {number}");
            let ran = container.exec_sync(&["sh", "-c", &script], 30)?;
            same("code", &ran.code, &i64::try_from(number)?)?;
            same("stdout", &ran.stdout, &format!("{number} {round}\n"))?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..6).map(|number| scope.spawn(move || run(number))).collect();
        all.into_iter().try_for_each(|one| match one.join() {
            Ok(verdict) => verdict,
            Err(_) => check(false, "a thread panicked"),
        })
    })
}

fn sync_failures(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let container = pod.container("sleep 600", json!({}))?;
    let refusal = container.exec_refused(&["/nothing/here"], 10)?;
    contains("message", &refusal.message, "no such file or directory")?;
    let refusal = container.exec_refused(&["nothing-in-path"], 10)?;
    contains("message", &refusal.message, "executable file not found in $PATH")?;
    let refusal = container.exec_refused(&["/etc/greeting"], 10)?;
    contains("message", &refusal.message, "permission denied")?;
    same("afterwards", &container.exec("echo fine")?, "fine")?;
    container.stop(0)?;
    let refusal = container.exec_refused(&["true"], 10)?;
    contains("stopped", &refusal.message, "not running")
        .or_else(|_| contains("stopped", &refusal.message, "CONTAINER_EXITED"))?;
    let created = pod.create("sleep 600", json!({}))?;
    contains("created", &created.exec_refused(&["true"], 10)?.message, "CONTAINER_CREATED")
}

fn sync_in_the_security_context(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let security = json!({
        "run_as_user": {"value": 1000}, "run_as_group": {"value": 1000},
        "supplemental_groups": [7001], "no_new_privs": true,
        "capabilities": {"drop_capabilities": ["ALL"]},
    });
    let more = json!({
        "envs": [{"key": "GREETING", "value": "good day"}], "working_dir": "/tmp",
        "linux": {"security_context": security},
    });
    let container = pod.container("sleep 600", more)?;
    let seen = container.exec("id -u; id -g; id -G; pwd; echo $GREETING; cat /proc/self/status")?;
    check(seen.starts_with("1000\n1000\n1000 "), &seen)?;
    for part in ["7001", "\n/tmp\ngood day\n", "NoNewPrivs:\t1", "CapBnd:\t0000000000000000"] {
        contains("context", &seen, part)?;
    }
    // In a cgroup namespace, which containerd makes on v2, the container's group is the root.
    let pid = container.pid()?;
    let seen = container.exec("cat /proc/self/cgroup; readlink /proc/self/ns/cgroup")?;
    if is_v2() {
        let namespace = std::fs::read_link(format!("/proc/{pid}/ns/cgroup"))?;
        return same("cgroup", &seen, &format!("0::/\n{}", namespace.display()));
    }
    for line in std::fs::read_to_string(format!("/proc/{pid}/cgroup"))?.lines() {
        contains("cgroup", &seen, line)?;
    }
    Ok(())
}

fn ends_with_the_container(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let container = pod.container("sleep 600", json!({}))?;
    let mut running = container.exec_stream(&["sh", "-c", "echo on; sleep 600"], false)?;
    running.expect(1, "on\n")?;
    container.stop(0)?;
    same("code", &running.finish()?.0, &137)
}

fn leaves_a_child(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let container = pod.container("sleep 600", json!({}))?;
    // A background child that closed its output must not keep the answer waiting.
    let started = Instant::now();
    let script = "sleep 4731 >/dev/null 2>&1 & echo away";
    same("output", &container.exec(script)?, "away")?;
    check(started.elapsed() < patience(Duration::from_secs(10)), "the answer came late")?;
    let seen = container.exec("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")?;
    contains("the child", &seen, "sleep 4731")
}

fn stream(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let container = pod.container("sleep 600", json!({}))?;
    let script = "read line; echo got $line; echo problem >&2; exit 9";
    let mut stream = container.exec_stream(&["sh", "-c", script], false)?;
    stream.send("something\n")?;
    let (code, stream) = stream.finish()?;
    same("code", &code, &9)?;
    same("stdout", &stream.text(1), "got something\n")?;
    same("stderr", &stream.text(2), "problem\n")?;
    let (code, stream) = container.exec_stream(&["sh", "-c", "test -t 0"], false)?.finish()?;
    same("no terminal", &code, &1)?;
    same("stdout", &stream.text(1), "")
}

fn stream_terminal(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let container = pod.container("sleep 600", json!({}))?;
    let mut stream = container.exec_stream(&["sh"], true)?;
    stream.resize(33, 77)?;
    stream.send("until [ \"$(stty size)\" = '33 77' ]; do sleep 0.1; done; tty; stty size\n")?;
    stream.expect(1, "/dev/pts/")?;
    stream.expect(1, "33 77\n")?;
    stream.resize(22, 66)?;
    stream
        .send("until [ \"$(stty size)\" = '22 66' ]; do sleep 0.1; done; echo re$((1))sized\n")?;
    stream.expect(1, "re1sized")?;
    // ^C reaches the foreground process, not the shell.
    stream.send("echo ru$((1))ns; sleep 4741\n")?;
    stream.expect(1, "ru1ns")?;
    std::thread::sleep(Duration::from_millis(300));
    stream.send("\x03")?;
    stream.send("exit 6\n")?;
    let (code, stream) = stream.finish()?;
    same("code", &code, &6)?;
    same("stderr", &stream.text(2), "")
}

fn stream_dropped(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let container = pod.container("sleep 600", json!({}))?;
    // A client that vanishes takes the input with it, as the hang-up of a terminal.
    let mut stream = container.exec_stream(&["sh", "-c", "echo on; cat; exec sleep 0.1"], false)?;
    stream.expect(1, "on\n")?;
    drop(stream);
    eventually("the command has ended", Duration::from_secs(20), || {
        Ok(!container.exec("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")?.contains("echo on; cat; "))
    })
}

fn attach(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let script = "while read line; do echo got $line; echo also $line >&2; \
                  [ $line = end ] && exit 8; done";
    let container = pod.container(script, json!({"stdin": true}))?;
    let mut stream = container.attach(true, false)?;
    stream.send("one\n")?;
    stream.expect(1, "got one\n")?;
    stream.expect(2, "also one\n")?;
    stream.send("end\n")?;
    stream.expect(1, "got end\n")?;
    stream.until_closed()?;
    same("exit code", &container.wait()?, &8)?;
    contains("log", &container.output()?, "got one\n")
}

fn attach_terminal(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let container = pod.container("exec sh", json!({"stdin": true, "tty": true}))?;
    let mut stream = container.attach(true, true)?;
    stream.resize(31, 71)?;
    stream.send("until [ \"$(stty size)\" = '31 71' ]; do sleep 0.1; done; echo si$((1))ze\n")?;
    stream.expect(1, "si1ze")?;
    stream.send("tty; exit 4\n")?;
    stream.expect(1, "/dev/pts/0")?;
    same("exit code", &container.wait()?, &4)?;
    contains("log", &container.output()?, "si1ze")
}

fn attach_again(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let container = pod.container("cat", json!({"stdin": true}))?;
    for word in ["first\n", "second\n", "third\n"] {
        let mut stream = container.attach(true, false)?;
        stream.send(word)?;
        stream.expect(1, word)?;
    }
    same("state", &container.state()?, "CONTAINER_RUNNING")?;
    same("log", &container.output()?, "first\nsecond\nthird\n")
}

fn attach_stdin_once(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let more = json!({"stdin": true, "stdin_once": true});
    let container = pod.container("cat; echo input ended; exit 3", more)?;
    let mut stream = container.attach(true, false)?;
    stream.send("only once\n")?;
    stream.expect(1, "only once\n")?;
    drop(stream);
    // The client left, so the container's input ends.
    same("exit code", &container.wait()?, &3)?;
    same("log", &container.output()?, "only once\ninput ended\n")
}

fn attach_is_heard_by_two(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let container =
        pod.container("while read line; do echo got $line; done", json!({"stdin": true}))?;
    // A stream without input ends at once by WebSocket, so both have one.
    let (mut one, mut two) = (container.attach(true, false)?, container.attach(true, false)?);
    // Each is heard by both once both are attached.
    one.send("from one\n")?;
    one.expect(1, "got from one\n")?;
    two.send("from two\n")?;
    two.expect(1, "got from two\n")?;
    one.expect(1, "got from two\n")
}

fn port_forward(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let script = "while :; do echo from the port | nc -l -p 8081; done";
    let server = pod.container(script, json!({}))?;
    eventually("the server listens", Duration::from_secs(10), || {
        Ok(server.exec("cat /proc/net/tcp*")?.contains(":1F91"))
    })?;
    let request = json!({"pod_sandbox_id": pod.id, "port": [8081]});
    let url = text(&cri.call("PortForward", &request)?["url"]);
    // Channel 0 is the data and 1 the errors of the first port; both begin with its number.
    let mut stream = Stream::open(&format!("{url}?port=8081"))?;
    stream.expect(0, "from the port\n")?;
    lacks("errors", &stream.text(1), "error")
}
