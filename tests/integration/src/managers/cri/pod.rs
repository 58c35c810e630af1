//! Pods and their containers, described by the parts of their JSON that a test cares about.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use nix::unistd::Pid;
use serde_json::{Value, json};

use super::messages::number;
use super::stream::Stream;
use super::{Cri, HANDLER, Refusal};
use crate::managers::client::unique;
use crate::managers::{Stop, Verdict, check, eventually, image, leaks};

/// A pod that is removed when the test ends, with its containers.
#[derive(Debug)]
pub struct Pod<'a> {
    /// The containerd that runs it.
    pub cri: &'a Cri,
    /// Its id.
    pub id: String,
    /// What it was made of.
    pub config: Value,
    name: String,
    left: bool,
}

/// A container of a pod.
#[derive(Debug)]
pub struct Container<'a> {
    cri: &'a Cri,
    /// Its id.
    pub id: String,
    /// Where its log is.
    pub log: PathBuf,
}

/// A line of a log in the CRI's format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// RFC 3339 with nanoseconds.
    pub time: String,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// `F` for a full line, `P` for a part of one.
    pub tag: String,
    /// What was written.
    pub text: String,
}

/// The end of a command that ran in a container.
#[derive(Debug)]
pub struct Ran {
    /// Its exit code.
    pub code: i64,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Cri {
    /// Runs a pod of the shim under test.
    pub fn pod(&self, more: Value) -> Result<Pod<'_>, Stop> {
        self.pod_by(HANDLER, more)
    }

    /// Runs a pod of a handler; `more` is added to an ordinary pod.
    pub fn pod_by(&self, handler: &str, more: Value) -> Result<Pod<'_>, Stop> {
        let mut pod = self.plan(more)?;
        let request = json!({"config": pod.config, "runtime_handler": handler});
        pod.id = text(&self.call("RunPodSandbox", &request)?["pod_sandbox_id"]);
        Ok(pod)
    }

    /// A pod that must be refused.
    pub fn pod_refused(&self, handler: &str, more: Value) -> Result<Refusal, Stop> {
        let pod = self.plan(more)?;
        let request = json!({"config": pod.config, "runtime_handler": handler});
        self.refused("RunPodSandbox", &request)
    }

    /// The handle of a pod that was [left](Pod::leave).
    pub fn known_pod(&self, id: &str) -> Result<Pod<'_>, Stop> {
        let status = self.call("PodSandboxStatus", &json!({"pod_sandbox_id": id}))?;
        let name = text(&status["status"]["metadata"]["name"]);
        let mut pod = self.plan_of(name, Value::Null)?;
        id.clone_into(&mut pod.id);
        Ok(pod)
    }

    /// The handle of a container.
    pub fn known_container(&self, id: &str) -> Result<Container<'_>, Stop> {
        let status = self.call("ContainerStatus", &json!({"container_id": id}))?;
        let log = PathBuf::from(text(&status["status"]["log_path"]));
        Ok(Container { cri: self, id: id.to_owned(), log })
    }

    fn plan(&self, more: Value) -> Result<Pod<'_>, Stop> {
        self.plan_of(unique("pod"), more)
    }

    /// Makes what the kubelet makes before it runs a pod: the directory of its logs and its cgroup.
    fn plan_of(&self, name: String, more: Value) -> Result<Pod<'_>, Stop> {
        let logs = self.dir.join("logs").join(&name);
        fs::create_dir_all(&logs)?;
        let group = format!("{}/{name}", self.sandbox.cgroup);
        for hierarchy in leaks::hierarchies()? {
            fs::create_dir_all(hierarchy.join(group.trim_start_matches('/')))?;
        }
        let mut config = json!({
            "metadata": {"name": name, "uid": name, "namespace": "tests", "attempt": 1},
            "hostname": name,
            "log_directory": logs,
            "linux": {"cgroup_parent": group, "security_context": {}},
        });
        merge(&mut config, more);
        Ok(Pod { cri: self, id: String::new(), config, name, left: false })
    }
}

impl<'a> Pod<'a> {
    /// Creates and starts a container that runs a shell script.
    pub fn container(&self, script: &str, more: Value) -> Result<Container<'a>, Stop> {
        let container = self.create(script, more)?;
        container.start()?;
        Ok(container)
    }

    /// Creates a container that runs a shell script; `more` is added to an ordinary one.
    pub fn create(&self, script: &str, more: Value) -> Result<Container<'a>, Stop> {
        let (request, log) = self.request(script, more);
        let id = text(&self.cri.call("CreateContainer", &request)?["container_id"]);
        Ok(Container { cri: self.cri, id, log })
    }

    /// A container that must be refused when it is created.
    pub fn create_refused(&self, script: &str, more: Value) -> Result<Refusal, Stop> {
        self.cri.refused("CreateContainer", &self.request(script, more).0)
    }

    fn request(&self, script: &str, more: Value) -> (Value, PathBuf) {
        let name = unique("c");
        let log = format!("{name}.log");
        let mut config = json!({
            "metadata": {"name": name, "attempt": 1},
            "image": {"image": image::REFERENCE},
            "command": ["sh", "-c", script],
            "log_path": log,
            "linux": {"resources": {}, "security_context": {}},
        });
        merge(&mut config, more);
        let request =
            json!({"pod_sandbox_id": self.id, "config": config, "sandbox_config": self.config});
        (request, self.cri.dir.join("logs").join(&self.name).join(log))
    }

    /// Runs a shell script in a container of its own to the end: what it printed.
    pub fn sh(&self, script: &str, more: Value) -> Result<String, Stop> {
        let container = self.container(script, more)?;
        let code = container.wait()?;
        let log = container.output()?;
        check(code == 0, format!("{script}: exit code {code}\n{log}"))?;
        container.remove()?;
        Ok(log.trim_end().to_owned())
    }

    /// `PodSandboxStatus`.
    pub fn status(&self) -> Result<Value, Stop> {
        let request = json!({"pod_sandbox_id": self.id, "verbose": true});
        self.cri.call("PodSandboxStatus", &request)
    }

    /// The pid of its own container.
    pub fn pid(&self) -> Result<Pid, Stop> {
        pid(&self.status()?)
    }

    /// Its address.
    pub fn ip(&self) -> Result<String, Stop> {
        Ok(text(&self.status()?["status"]["network"]["ip"]))
    }

    /// Its cgroup, as an absolute path.
    pub fn cgroup(&self) -> String {
        text(&self.config["linux"]["cgroup_parent"])
    }

    /// Keeps the pod when the handle goes; [`Cri::known_pod`] makes a new one.
    pub fn leave(mut self) {
        self.left = true;
    }

    /// `StopPodSandbox`.
    pub fn stop(&self) -> Verdict {
        self.cri.call("StopPodSandbox", &json!({"pod_sandbox_id": self.id})).map(drop)
    }

    /// `RemovePodSandbox`.
    pub fn remove(&self) -> Verdict {
        self.cri.call("RemovePodSandbox", &json!({"pod_sandbox_id": self.id})).map(drop)
    }
}

impl Drop for Pod<'_> {
    fn drop(&mut self) {
        if self.left {
            return;
        }
        // Removed already is fine; whatever stays is found by the leak test.
        if !self.id.is_empty() {
            self.stop().ok();
            self.remove().ok();
        }
        // Only the pod's own group: one of a container that is still in it was forgotten.
        let group = format!("{}/{}", self.cri.sandbox.cgroup, self.name);
        for hierarchy in leaks::hierarchies().unwrap_or_default() {
            let group = hierarchy.join(group.trim_start_matches('/'));
            let gone = || Ok(fs::remove_dir(&group).is_ok() || !group.exists());
            eventually("the pod's cgroup is empty", Duration::from_secs(5), gone).ok();
        }
        fs::remove_dir_all(self.cri.dir.join("logs").join(&self.name)).ok();
    }
}

impl Container<'_> {
    fn named(&self) -> Value {
        json!({"container_id": self.id})
    }

    /// `StartContainer`.
    pub fn start(&self) -> Verdict {
        self.cri.call("StartContainer", &self.named()).map(drop)
    }

    /// A start that must be refused.
    pub fn start_refused(&self) -> Result<Refusal, Stop> {
        self.cri.refused("StartContainer", &self.named())
    }

    /// `StopContainer` with a grace period in seconds.
    pub fn stop(&self, seconds: i64) -> Verdict {
        let request = json!({"container_id": self.id, "timeout": seconds});
        self.cri.call("StopContainer", &request).map(drop)
    }

    /// `RemoveContainer`.
    pub fn remove(&self) -> Verdict {
        self.cri.call("RemoveContainer", &self.named()).map(drop)
    }

    /// `ContainerStatus`, verbose.
    pub fn inspect(&self) -> Result<Value, Stop> {
        self.cri.call("ContainerStatus", &json!({"container_id": self.id, "verbose": true}))
    }

    /// The status in `ContainerStatus`.
    pub fn status(&self) -> Result<Value, Stop> {
        Ok(self.inspect()?["status"].take())
    }

    /// Its state, such as `CONTAINER_RUNNING`.
    pub fn state(&self) -> Result<String, Stop> {
        Ok(text(&self.status()?["state"]))
    }

    /// The pid of its first process.
    pub fn pid(&self) -> Result<Pid, Stop> {
        pid(&self.inspect()?)
    }

    /// Waits until it has ended: its exit code.
    pub fn wait(&self) -> Result<i64, Stop> {
        self.becomes("CONTAINER_EXITED")?;
        number(&self.status()?["exit_code"])
    }

    /// Waits until it is in that state.
    pub fn becomes(&self, state: &str) -> Verdict {
        let mut seen = Value::Null;
        let ended = eventually(state, Duration::from_secs(40), || {
            seen = self.status()?;
            Ok(seen["state"] == state)
        });
        ended.map_err(|_| Stop::Fail(format!("wanted {state}, saw {seen}")))
    }

    /// Its log as it is on the disk.
    pub fn raw_log(&self) -> Result<String, Stop> {
        let log =
            fs::read(&self.log).map_err(|error| format!("{}: {error}", self.log.display()))?;
        Ok(String::from_utf8_lossy(&log).into_owned())
    }

    /// The lines of its log; one that is not in the CRI's format is an error.
    pub fn lines(&self) -> Result<Vec<Line>, Stop> {
        parse(&self.raw_log()?)
    }

    /// What it wrote on both streams.
    pub fn output(&self) -> Result<String, Stop> {
        let lines = self.lines()?;
        let end = |line: &Line| if line.tag == "F" { "\n" } else { "" };
        Ok(lines.iter().map(|line| format!("{}{}", line.text, end(line))).collect())
    }

    /// Waits until it has written `part`.
    pub fn says(&self, part: &str) -> Verdict {
        let mut seen = String::new();
        let said = eventually(part, Duration::from_secs(30), || {
            seen = self.output()?;
            Ok(seen.contains(part))
        });
        said.map_err(|why| {
            let last: Vec<&str> = seen.lines().rev().take(20).collect();
            Stop::Fail(format!("no {part:?} in the log of {}: {why:?}; {last:?}", self.id))
        })
    }

    /// `ExecSync` of a shell script that must succeed: its standard output.
    pub fn exec(&self, script: &str) -> Result<String, Stop> {
        let Ran { code, stdout, stderr } = self.exec_sync(&["sh", "-c", script], 0)?;
        check(code == 0, format!("{script}: exit code {code}\n{stdout}{stderr}"))?;
        Ok(stdout.trim_end().to_owned())
    }

    /// `ExecSync` with a limit in seconds, 0 for none.
    pub fn exec_sync(&self, words: &[&str], limit: i64) -> Result<Ran, Stop> {
        let request = json!({"container_id": self.id, "cmd": words, "timeout": limit});
        let reply = self.cri.call("ExecSync", &request)?;
        let code = number(&reply["exit_code"])?;
        Ok(Ran { code, stdout: text(&reply["stdout"]), stderr: text(&reply["stderr"]) })
    }

    /// An `ExecSync` that must be refused.
    pub fn exec_refused(&self, words: &[&str], limit: i64) -> Result<Refusal, Stop> {
        let request = json!({"container_id": self.id, "cmd": words, "timeout": limit});
        self.cri.refused("ExecSync", &request)
    }

    /// `Exec`: a command with streams.
    pub fn exec_stream(&self, words: &[&str], tty: bool) -> Result<Stream, Stop> {
        let request = json!({
            "container_id": self.id, "cmd": words, "tty": tty,
            "stdin": true, "stdout": true, "stderr": !tty,
        });
        Stream::open(&text(&self.cri.call("Exec", &request)?["url"]))
    }

    /// `Attach`: the streams of its first process.
    pub fn attach(&self, stdin: bool, tty: bool) -> Result<Stream, Stop> {
        let request = json!({
            "container_id": self.id, "tty": tty, "stdin": stdin, "stdout": true, "stderr": !tty,
        });
        Stream::open(&text(&self.cri.call("Attach", &request)?["url"]))
    }

    /// `UpdateContainerResources`.
    pub fn update(&self, resources: &Value) -> Verdict {
        let request = json!({"container_id": self.id, "linux": resources});
        self.cri.call("UpdateContainerResources", &request).map(drop)
    }

    /// `ContainerStats`.
    pub fn stats(&self) -> Result<Value, Stop> {
        Ok(self.cri.call("ContainerStats", &self.named())?["stats"].take())
    }
}

/// Reads a log in the CRI's format; a last line that is just being written is left out.
pub fn parse(log: &str) -> Result<Vec<Line>, Stop> {
    let line = |line: &str| {
        let mut words = line.splitn(4, ' ').map(str::to_owned);
        let (time, stream, tag) = (words.next()?, words.next()?, words.next()?);
        let text = words.next()?;
        let good = time.len() >= 20 && time.contains('T');
        let good = good && ["stdout", "stderr"].contains(&stream.as_str());
        (good && ["F", "P"].contains(&tag.as_str())).then_some(Line { time, stream, tag, text })
    };
    let one = |text: &str| line(text).ok_or_else(|| Stop::Fail(format!("no CRI log line: {text}")));
    let whole = log.rfind('\n').map_or("", |end| &log[..end]);
    whole.split('\n').filter(|line| !line.is_empty()).map(one).collect()
}

/// A JSON string without its quotes.
pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// The pid in the verbose part of a status.
fn pid(status: &Value) -> Result<Pid, Stop> {
    let info: Value = serde_json::from_str(status["info"]["info"].as_str().unwrap_or("null"))?;
    Ok(Pid::from_raw(i32::try_from(number(&info["pid"])?)?))
}

/// Adds the fields of `more` to `base`, deeply; lists and single values replace.
fn merge(base: &mut Value, more: Value) {
    match (base, more) {
        (Value::Object(base), Value::Object(more)) => {
            for (key, value) in more {
                merge(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (_, Value::Null) => {}
        (base, more) => *base = more,
    }
}
