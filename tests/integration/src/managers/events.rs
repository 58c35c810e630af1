//! `ctr events`: what a containerd tells its clients, in the order that it does.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::client::unique;
use super::command::{Run, spawn};
use super::containerd::Containerd;
use super::{Stop, Verdict, eventually};

/// A running `ctr events`.
#[derive(Debug)]
pub struct Events {
    child: Child,
    file: PathBuf,
}

impl Events {
    /// Subscribes, and waits until it works. A daemon that is not up yet is waited for by `ctr`
    /// itself, from the moment its socket is there: see [`Events::early`].
    pub fn start(containerd: &Containerd) -> Result<Self, Stop> {
        let events = Self::early(containerd)?;
        // An event of our own says that the subscription stands.
        let mark = unique("mark");
        eventually("the subscription", Duration::from_secs(20), || {
            containerd.ok(&["namespace", "create", &mark])?;
            containerd.ok(&["namespace", "rm", &mark])?;
            Ok(events.text().contains(&mark))
        })?;
        Ok(events)
    }

    /// Subscribes as soon as the daemon listens.
    pub fn early(containerd: &Containerd) -> Result<Self, Stop> {
        let file = containerd.dir.join(unique("events"));
        let listen = containerd.ctr(&["--connect-timeout", "60s", "events"]);
        // `ctr` of containerd 2 does not wait for a socket.
        let script = "until [ -S \"$0\" ]; do sleep 0.01; done; exec \"$@\"";
        let run = Run::new("sh").args(["-c", script]).arg(containerd.socket());
        let mut command = run.args(listen.words()).into_command();
        command.stdin(Stdio::null()).stdout(File::create(&file)?).stderr(Stdio::null());
        Ok(Self { child: spawn(&mut command)?, file })
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.file).unwrap_or_default()
    }

    /// The task events of one container, each in a few words: `create`, `start`, `exec-added ID`,
    /// `exec-started ID`, `exit CODE`, `exit ID CODE` of an exec, `delete CODE`, `oom`…
    pub fn of(&self, id: &str) -> Vec<String> {
        self.text().lines().filter_map(|line| words(line, id)).collect()
    }

    /// How many events of a topic there were.
    pub fn count(&self, topic: &str) -> usize {
        let topic = format!(" {topic} ");
        self.text().lines().filter(|line| line.contains(&topic)).count()
    }

    /// Waits for an event of a container and answers all that came until then.
    pub fn until(&self, id: &str, last: &str) -> Result<Vec<String>, Stop> {
        let mut seen = Vec::new();
        let came = eventually(last, Duration::from_secs(30), || {
            seen = self.of(id);
            Ok(seen.iter().any(|event| event == last))
        });
        came.map_err(|_| Stop::Fail(format!("no {last:?} of {id}, only {seen:?}")))?;
        Ok(seen)
    }

    /// Fails unless exactly these came, in this order.
    pub fn are(&self, id: &str, wanted: &[&str]) -> Verdict {
        self.until(id, wanted.last().copied().unwrap_or_default())?;
        super::same("events", &self.of(id)[..], wanted)
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A line of `ctr events`: time, namespace, topic, JSON.
fn words(line: &str, id: &str) -> Option<String> {
    let (_, rest) = line.split_once(" /tasks/")?;
    let (topic, data) = rest.split_once(' ')?;
    let data: Value = serde_json::from_str(data).ok()?;
    let text = |key: &str| data[key].as_str().unwrap_or_default();
    if text("container_id") != id {
        return None;
    }
    let code = data["exit_status"].as_u64().unwrap_or_default();
    Some(match topic {
        "exit" if text("id") == id => format!("exit {code}"),
        "exit" => format!("exit {} {code}", text("id")),
        "delete" => format!("delete {code}"),
        "exec-added" | "exec-started" => format!("{topic} {}", text("exec_id")),
        _ => topic.to_owned(),
    })
}
