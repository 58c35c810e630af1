//! The command lines that Docker and Podman share, and containers that clean up after themselves.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::unistd::Pid;

use super::command::{Outcome, Run};
use super::sandbox::Sandbox;
use super::terminal::Terminal;
use super::{Stop, Verdict, eventually, image};

/// A manager's client program with its global options and environment.
#[derive(Debug)]
pub struct Client {
    /// What it runs in.
    pub sandbox: Sandbox,
    /// A directory of its own.
    pub dir: PathBuf,
    /// The program and its global options.
    pub words: Vec<String>,
    /// Its environment beside `PATH`.
    pub environment: Vec<(&'static str, String)>,
    /// Options of every `run` and `create` outside of pods.
    pub always: Vec<String>,
    /// The words that remove a container at once, running or not.
    pub remove: &'static [&'static str],
}

impl Client {
    /// A new directory for a test's files.
    pub fn folder(&self, name: &str) -> Result<PathBuf, Stop> {
        let folder = self.dir.join("files").join(unique(name));
        fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    /// The client with these words.
    pub fn command<S: AsRef<str>>(&self, words: &[S]) -> Run {
        let mut all = self.words.iter();
        // conmon leaves a file `oom` in the directory that it was started from.
        let run = Run::new(all.next().map_or("false", String::as_str)).args(all).dir(&self.dir);
        let environment = self.environment.iter();
        environment
            .fold(run, |run, (name, value)| run.env(name, value))
            .args(words.iter().map(AsRef::as_ref))
    }

    /// The options that tests need not spell out. Without a word about the network a container
    /// gets none, which saves building one.
    fn defaults(&self, options: &[&str]) -> Vec<String> {
        let says = |word: &str| options.iter().any(|option| option.starts_with(word));
        if says("--pod") {
            return Vec::new();
        }
        let mut all = Vec::new();
        if !says("--cgroup-parent") {
            all.extend(self.always.iter().cloned());
        }
        if !says("--net") {
            all.extend(["--network".to_owned(), "none".to_owned()]);
        }
        all
    }

    /// Runs the client; its output, when it succeeds.
    pub fn ok<S: AsRef<str>>(&self, words: &[S]) -> Result<String, Stop> {
        self.command(words).ok()
    }

    /// `run --rm` with `options` and a shell script: what it printed.
    pub fn sh(&self, options: &[&str], script: &str) -> Result<String, Stop> {
        self.run(options, &["sh", "-c", script]).ok()
    }

    /// `run --rm` with `options` and a command.
    pub fn run(&self, options: &[&str], words: &[&str]) -> Run {
        self.command(&["run", "--rm"])
            .args(self.defaults(options))
            .args(options)
            .arg(image::NAME)
            .args(words)
    }

    /// Starts a detached container that runs a shell script.
    pub fn background(&self, options: &[&str], script: &str) -> Result<Container<'_>, Stop> {
        self.detached(options, &["sh", "-c", script])
    }

    /// Starts a detached container.
    pub fn detached(&self, options: &[&str], words: &[&str]) -> Result<Container<'_>, Stop> {
        self.container("run", &["-d"], options, words)
    }

    /// Creates a container without starting it.
    pub fn created(&self, options: &[&str], words: &[&str]) -> Result<Container<'_>, Stop> {
        self.container("create", &[], options, words)
    }

    fn container(
        &self,
        verb: &str,
        more: &[&str],
        options: &[&str],
        words: &[&str],
    ) -> Result<Container<'_>, Stop> {
        let name = unique("c");
        // Owned before it exists, so that a failed start is removed too.
        let mut container = Container { client: self, name, id: String::new() };
        let run = self.command(&[verb, "--name", &container.name]).args(more);
        container.id =
            run.args(self.defaults(options)).args(options).arg(image::NAME).args(words).ok()?;
        Ok(container)
    }

    /// Starts the client on a terminal of 33 rows and 77 columns.
    pub fn terminal(&self, words: &[&str]) -> Result<Terminal, Stop> {
        Terminal::start(self.command(words), 33, 77)
    }
}

/// A name that no other test has.
pub fn unique(stem: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    format!("{stem}{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A container that is removed when the test ends, however it ends.
#[derive(Debug)]
pub struct Container<'a> {
    client: &'a Client,
    /// Its name.
    pub name: String,
    /// Its full id.
    pub id: String,
}

impl Container<'_> {
    /// `VERB NAME`: its output.
    pub fn does(&self, verb: &str) -> Result<String, Stop> {
        self.client.ok(&[verb, &self.name])
    }

    /// `VERB WORDS… NAME`: its output.
    pub fn with(&self, verb: &str, words: &[&str]) -> Result<String, Stop> {
        self.client.command(&[verb]).args(words).arg(&self.name).ok()
    }

    /// `exec OPTIONS NAME sh -c SCRIPT`: its output.
    pub fn exec(&self, options: &[&str], script: &str) -> Result<String, Stop> {
        self.exec_raw(options, &["sh", "-c", script]).ok()
    }

    /// `exec OPTIONS NAME WORDS…`, not yet run.
    pub fn exec_raw(&self, options: &[&str], words: &[&str]) -> Run {
        self.client.command(&["exec"]).args(options).arg(&self.name).args(words)
    }

    /// `inspect` with a Go template.
    pub fn inspect(&self, template: &str) -> Result<String, Stop> {
        self.client.ok(&["inspect", "--format", template, &self.name])
    }

    /// Waits until `inspect` with a template answers `wanted`.
    pub fn becomes(&self, template: &str, wanted: &str) -> Verdict {
        let mut seen = String::new();
        let ended = eventually(template, Duration::from_secs(30), || {
            seen = self.inspect(template)?;
            Ok(seen == wanted)
        });
        ended.map_err(|_| {
            Stop::Fail(format!("{template} of {}: wanted {wanted}, saw {seen}", self.name))
        })
    }

    /// Waits until its log holds `text`.
    pub fn says(&self, text: &str) -> Verdict {
        let mut seen = String::new();
        let ended = eventually(text, Duration::from_secs(30), || {
            seen = self.logs()?.all();
            Ok(seen.contains(text))
        });
        ended.map_err(|_| Stop::Fail(format!("no {text:?} in the log of {}: {seen}", self.name)))
    }

    /// `logs`: both streams.
    pub fn logs(&self) -> Result<Outcome, Stop> {
        self.client.command(&["logs", &self.name]).code(0)
    }

    /// `wait`: the exit code.
    pub fn wait(&self) -> Result<i32, Stop> {
        Ok(self.does("wait")?.parse()?)
    }

    /// The pid of its first process in the sandbox.
    pub fn pid(&self) -> Result<Pid, Stop> {
        Ok(Pid::from_raw(self.inspect("{{.State.Pid}}")?.parse()?))
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        // Gone already is fine; whatever stays is found by the leak test.
        self.client.command(self.client.remove).arg(&self.name).run().ok();
    }
}
