//! Logs in the CRI's format, which containerd writes from the streams of the shim.

use std::fs;
use std::time::Duration;

use corten_integration::driver::patience;
use corten_integration::managers::cri::Cri;
use corten_integration::managers::cri::pod::parse;
use corten_integration::managers::{Verdict, check, same};
use serde_json::json;

pub(crate) const TESTS: &[(&str, crate::Test)] = &[
    ("format", format),
    ("long_lines", long_lines),
    ("without_a_newline", without_a_newline),
    ("big", big),
    ("terminal", terminal),
    ("reopen", reopen),
    ("none", none),
    ("after_the_end", after_the_end),
];

fn format(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let container = pod.container("echo one; echo two >&2; echo; echo '  four  '", json!({}))?;
    container.wait()?;
    let lines = container.lines()?;
    let of = |stream: &str| -> Vec<String> {
        let own = lines.iter().filter(|line| line.stream == stream && line.tag == "F");
        own.map(|line| line.text.clone()).collect()
    };
    same("stdout", &of("stdout"), &["one", "", "  four  "].as_slice())?;
    same("stderr", &of("stderr"), &["two"].as_slice())?;
    // The times are RFC 3339 with a fraction, and they do not go back.
    for pair in lines.windows(2) {
        check(pair[0].time[..19] <= pair[1].time[..19], format!("{pair:?}"))?;
    }
    Ok(())
}

fn long_lines(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let script = format!("head -c 40000 /dev/zero | tr '\\0' x; echo; echo end; {}", in_time(cri));
    let container = pod.container(&script, json!({}))?;
    container.wait()?;
    let lines = container.lines()?;
    let tags: String = lines.iter().map(|line| line.tag.as_str()).collect();
    same("tags", &tags, "PPFF")?;
    same("lengths", &lines[0].text.len(), &16384)?;
    same("all", &container.output()?, &format!("{}\nend\n", "x".repeat(40000)))
}

fn without_a_newline(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let container = pod.container("echo -n unfinished", json!({}))?;
    container.wait()?;
    let lines = container.lines()?;
    same("lines", &lines.len(), &1)?;
    same("text", &lines[0].text, "unfinished")
}

/// What a script that has written much does at last. containerd 1.6 closes its end of the streams
/// as soon as it hears of the exit, with whatever is still in them, so there it waits a little.
fn in_time(cri: &Cri) -> String {
    let little = if cri.major < 2 { patience(Duration::from_secs(1)) } else { Duration::ZERO };
    format!("sleep {}", little.as_secs())
}

fn big(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let script = format!("seq 1 60000; echo end >&2; {}", in_time(cri));
    let container = pod.container(&script, json!({}))?;
    same("exit code", &container.wait()?, &0)?;
    let lines = container.lines()?;
    let numbers = lines.iter().filter(|line| line.stream == "stdout").map(|line| &line.text);
    check(numbers.eq((1..=60000).map(|n: u32| n.to_string()).collect::<Vec<_>>().iter()), "lost")
}

fn terminal(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let container =
        pod.container("test -t 1 && echo a terminal; echo err >&2", json!({"tty": true}))?;
    container.wait()?;
    let lines = container.lines()?;
    let all: Vec<_> =
        lines.iter().map(|line| (line.stream.as_str(), line.text.trim_end())).collect();
    same("lines", &all, &[("stdout", "a terminal"), ("stdout", "err")].as_slice())
}

fn reopen(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let script = "echo before; until [ -e /tmp/go ]; do sleep 0.1; done; echo after; sleep 600";
    let container = pod.container(script, json!({}))?;
    container.says("before")?;
    let rotated = container.log.with_extension("old");
    fs::rename(&container.log, &rotated)?;
    cri.call("ReopenContainerLog", &json!({"container_id": container.id}))?;
    container.exec("touch /tmp/go")?;
    container.says("after")?;
    same("the new one", &container.output()?, "after\n")?;
    let old = parse(&fs::read_to_string(rotated)?)?;
    same(
        "the old one",
        &old.iter().map(|line| line.text.as_str()).collect::<Vec<_>>(),
        &["before"].as_slice(),
    )?;
    container.stop(0)?;
    let refusal = cri.refused("ReopenContainerLog", &json!({"container_id": container.id}))?;
    check(refusal.message.contains("not running"), refusal.message)
}

fn none(cri: &Cri) -> Verdict {
    let pod = cri.pod(json!({}))?;
    let container = pod.container("seq 1 20000; exit 2", json!({"log_path": ""}))?;
    same("exit code", &container.wait()?, &2)
}

fn after_the_end(cri: &Cri) -> Verdict {
    // What a container writes at its very end is in the log when its exit is known.
    let pod = cri.pod(json!({}))?;
    for _ in 0..5 {
        let script = format!("seq 1 5000; echo the end; {}; exit 1", in_time(cri));
        let container = pod.container(&script, json!({}))?;
        same("exit code", &container.wait()?, &1)?;
        check(container.output()?.ends_with("the end\n"), "the end is missing")?;
        container.remove()?;
    }
    Ok(())
}
