//! The events of tasks: each once, in the order of what happened.

use corten_integration::managers::containerd::Containerd;
use corten_integration::managers::events::Events;
use corten_integration::managers::{Stop, Verdict, check, contains, same};

pub(crate) const TESTS: &[(&str, crate::Test)] = &[
    ("life", life),
    ("short_lives", short_lives),
    ("execs", execs),
    ("pause", pause),
    ("failed_start", failed_start),
    ("failed_exec", failed_exec),
    ("out_of_memory", out_of_memory),
    ("out_of_memory_of_exec", out_of_memory_of_exec),
];

fn life(ctr: &Containerd) -> Verdict {
    let events = Events::start(ctr)?;
    let container = ctr.created(&[], &["sh", "-c", "exit 5"])?;
    container.does("start", &["-d"])?;
    same("exit code", &container.ends()?, &5)?;
    events.are(&container.id, &["create", "start", "exit 5", "delete 5"])
}

/// The start of a process that ends at once is told before its end.
fn short_lives(ctr: &Containerd) -> Verdict {
    let events = Events::start(ctr)?;
    let mut all = Vec::new();
    for _ in 0..12 {
        let container = ctr.background(&[], "exit 0")?;
        container.ends()?;
        all.push(container);
    }
    all.iter().try_for_each(|container| {
        events.are(&container.id, &["create", "start", "exit 0", "delete 0"])
    })
}

fn execs(ctr: &Containerd) -> Verdict {
    let events = Events::start(ctr)?;
    let container = ctr.background(&[], "sleep 600")?;
    for turn in ["a", "b"] {
        container.exec_raw(&["--exec-id", turn], &["sh", "-c", "exit 9"]).code(9)?;
        // Alive when the container ends: its exit comes first.
        let id = format!("left-{turn}");
        container.exec_raw(&["-d", "--exec-id", &id], &["sleep", "600"]).ok()?;
    }
    container.does("kill", &["-s", "KILL"])?;
    same("exit code", &container.ends()?, &137)?;
    let seen = events.until(&container.id, "delete 137")?;
    let position = |wanted: &str| {
        let found = seen.iter().position(|event| event == wanted);
        found.ok_or_else(|| Stop::Fail(format!("no {wanted:?} in {seen:?}")))
    };
    let (exit, delete) = (position("exit 137")?, position("delete 137")?);
    let mut last = position("start")?;
    for turn in ["a", "b"] {
        for event in ["exec-added a", "exec-started a", "exit a 9"] {
            let event = event.replace(" a", &format!(" {turn}"));
            let now = position(&event)?;
            check(last < now, format!("{event} too early in {seen:?}"))?;
            last = now;
        }
        let left = position(&format!("exit left-{turn} 137"))?;
        check(left < exit, format!("left-{turn} ends after its container: {seen:?}"))?;
    }
    check(exit < delete, format!("{seen:?}"))?;
    same("no other event", &seen.len(), &(4 + 4 * 3))
}

fn pause(ctr: &Containerd) -> Verdict {
    let events = Events::start(ctr)?;
    let container = ctr.background(&[], "sleep 600")?;
    container.does("pause", &[])?;
    container.does("resume", &[])?;
    container.does("kill", &["-s", "KILL"])?;
    container.ends()?;
    let wanted = ["create", "start", "paused", "resumed", "exit 137", "delete 137"];
    events.are(&container.id, &wanted)
}

fn failed_start(ctr: &Containerd) -> Verdict {
    let events = Events::start(ctr)?;
    let container = ctr.created(&[], &["/no/such/program"])?;
    container.task("start", &["-d"]).code(1)?;
    // A container after it, whose events show that all of the first have come.
    let other = ctr.background(&[], "exit 0")?;
    other.ends()?;
    events.until(&other.id, "delete 0")?;
    let seen = events.of(&container.id);
    check(!seen.iter().any(|event| event == "start"), format!("{seen:?}"))
}

fn failed_exec(ctr: &Containerd) -> Verdict {
    let events = Events::start(ctr)?;
    let container = ctr.background(&[], "sleep 600")?;
    container.exec_raw(&["--exec-id", "bad"], &["/no/such/program"]).code(1)?;
    container.exec_raw(&["--exec-id", "good"], &["true"]).code(0)?;
    container.does("kill", &["-s", "KILL"])?;
    // The failed one does not hold the end of the container back.
    same("exit code", &container.ends()?, &137)?;
    let seen = events.until(&container.id, "delete 137")?;
    check(!seen.contains(&"exec-started bad".to_owned()), format!("{seen:?}"))?;
    contains("events", &seen.join(", "), "exec-started good, exit good 0, exit 137, delete 137")
}

const GROW: &str = "x=0123456789; while :; do x=$x$x; done";

fn out_of_memory(ctr: &Containerd) -> Verdict {
    let events = Events::start(ctr)?;
    let container = ctr.background(&["--memory-limit", "16777216"], GROW)?;
    same("exit code", &container.ends()?, &137)?;
    let seen = events.until(&container.id, "delete 137")?;
    let wanted = ["create", "start", "oom", "exit 137", "delete 137"];
    if ctr.sandbox.is_reference_shim() {
        // It sends this event past the queue of the others.
        return contains("events", &seen.join(", "), "oom");
    }
    same("events", &seen[..], &wanted[..])
}

fn out_of_memory_of_exec(ctr: &Containerd) -> Verdict {
    let events = Events::start(ctr)?;
    let container = ctr.background(&["--memory-limit", "16777216"], "sleep 600")?;
    container.exec_raw(&["--exec-id", "big"], &["sh", "-c", GROW]).code(137)?;
    let seen = events.until(&container.id, "exit big 137")?;
    if !ctr.sandbox.is_reference_shim() {
        contains("events", &seen.join(", "), "oom, exit big 137")?;
    }
    events.until(&container.id, "oom")?;
    same("the container lives", &container.exec(&[], "echo yes")?, "yes")
}
