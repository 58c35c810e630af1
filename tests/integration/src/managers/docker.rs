//! containerd and dockerd of our own, and the client that talks to them.
//!
//! Everything is told by option: data, exec root, sockets, pid files and the runtime under test
//! as the default one. BuildKit looks for `runc` in `PATH`, so the daemon finds the runtime under
//! test by that name first. Docker's own test for a daemon that is ready is its `_ping` socket,
//! which the client asks for us.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::command::{Outcome, Run, spawn, wait};
use super::sandbox::Sandbox;
use super::terminal::Terminal;
use super::{Stop, Verdict, eventually, image};

/// Debian's client: another one may stand before it in `PATH`.
pub const CLIENT: &str = "/usr/bin/docker";
/// The name under which the daemons know the runtime under test.
pub const RUNTIME: &str = "under-test";
/// What must be installed.
pub const NEEDS: &[(&str, &str)] = &[
    (CLIENT, "docker.io"),
    ("dockerd", "docker.io"),
    ("docker-init", "docker.io"),
    ("docker-proxy", "docker.io"),
    ("containerd", "containerd"),
    ("containerd-shim-runc-v2", "containerd"),
    ("iptables", "iptables"),
];

/// A daemon process and its log.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    /// Where it writes both its streams.
    pub log: PathBuf,
}

impl Daemon {
    fn start(run: Run, log: PathBuf) -> Result<Self, Stop> {
        let line = run.line();
        let mut command = run.into_command();
        let file = File::options().create(true).append(true).open(&log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = spawn(&mut command).map_err(|error| format!("{line}: {error}"))?;
        Ok(Self { child, log })
    }

    /// Its pid.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Sends `signal` and waits for its end.
    pub fn stop(&mut self, signal: Signal) -> Verdict {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        kill(self.pid(), signal)?;
        match wait(&mut self.child, Duration::from_secs(40))? {
            Some(_) => Ok(()),
            None => Err(Stop::Fail(format!("{} did not stop", self.log.display()))),
        }
    }

    /// The end of its log, for messages.
    pub fn tail(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

/// Starts the containerd that all Docker daemons of a run share; its socket is `containerd.sock`.
pub fn containerd(sandbox: &Sandbox) -> Result<Daemon, Stop> {
    let dir = sandbox.dir.join("containerd");
    fs::create_dir(&dir)?;
    let socket = sandbox.dir.join("containerd.sock");
    let config = format!(
        "version = 2\nroot = '{0}/root'\nstate = '{0}/state'\noom_score = 0\n\
         disabled_plugins = ['io.containerd.grpc.v1.cri', 'io.containerd.snapshotter.v1.btrfs', \
         'io.containerd.snapshotter.v1.zfs', 'io.containerd.snapshotter.v1.devmapper', \
         'io.containerd.snapshotter.v1.aufs']\n[grpc]\naddress = '{1}'\n",
        dir.display(),
        socket.display()
    );
    let file = dir.join("config.toml");
    fs::write(&file, config)?;
    let run = Run::new("containerd").arg("--config").arg(&file);
    let daemon = Daemon::start(run, dir.join("log"))?;
    eventually("containerd's socket", Duration::from_secs(30), || Ok(socket.exists()))?;
    Ok(daemon)
}

/// One dockerd and its client.
#[derive(Debug)]
pub struct Docker {
    /// What it was started in.
    pub sandbox: Sandbox,
    name: &'static str,
    dir: PathBuf,
    options: Vec<String>,
    daemon: Daemon,
}

impl Docker {
    /// Starts a dockerd with `options` beside the usual ones and imports the image.
    pub fn start(
        sandbox: &Sandbox,
        name: &'static str,
        options: &[&str],
        archive: &Path,
    ) -> Result<Self, Stop> {
        let dir = sandbox.dir.join("docker").join(name);
        fs::create_dir_all(dir.join("home"))?;
        fs::write(dir.join("daemon.json"), "{}")?;
        let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
        let daemon = Daemon::start(server(sandbox, name, &dir, &options), dir.join("log"))?;
        let mut docker = Self { sandbox: sandbox.clone(), name, dir, options, daemon };
        docker.ready()?;
        docker
            .command(&["import", "--change", "CMD [\"sh\"]"])
            .arg(archive)
            .arg(image::NAME)
            .ok()?;
        Ok(docker)
    }

    fn ready(&mut self) -> Verdict {
        let socket = self.socket();
        let mut ended = false;
        let answered = eventually("dockerd answers", Duration::from_secs(60), || {
            ended = self.daemon.child.try_wait()?.is_some();
            Ok(ended || (socket.exists() && self.command(&["version"]).run()?.code == 0))
        });
        if ended || answered.is_err() {
            return Err(Stop::Fail(format!("dockerd did not start:\n{}", self.daemon.tail())));
        }
        Ok(())
    }

    /// Kills the daemon (its containers live on in their shims) and starts it again.
    pub fn crash_and_restart(&mut self) -> Verdict {
        self.daemon.stop(Signal::SIGKILL)?;
        fs::remove_file(self.dir.join("pid"))?;
        let run = server(&self.sandbox, self.name, &self.dir, &self.options);
        self.daemon = Daemon::start(run, self.dir.join("log"))?;
        self.ready()
    }

    /// Removes every container and stops the daemon.
    pub fn stop(&mut self) -> Verdict {
        let all = self.command(&["ps", "-aq"]).ok()?;
        if !all.is_empty() {
            self.command(&["rm", "-fv"]).args(all.lines()).run()?;
        }
        self.daemon.stop(Signal::SIGTERM)
    }

    /// The path of the daemon's socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("sock")
    }

    /// The daemon, for its log.
    pub fn daemon(&self) -> &Daemon {
        &self.daemon
    }

    /// A new directory for a test's files.
    pub fn folder(&self, name: &str) -> Result<PathBuf, Stop> {
        let folder = self.dir.join("files").join(unique(name));
        fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    /// The client with these words.
    pub fn command<S: AsRef<str>>(&self, words: &[S]) -> Run {
        Run::new(CLIENT)
            .env("DOCKER_HOST", format!("unix://{}", self.socket().display()))
            .env("HOME", self.dir.join("home"))
            .args(words.iter().map(AsRef::as_ref))
    }

    /// Runs the client; its output, when it succeeds.
    pub fn ok<S: AsRef<str>>(&self, words: &[S]) -> Result<String, Stop> {
        self.command(words).ok()
    }

    /// `docker run --rm` with `options` and a shell script: what it printed.
    pub fn sh(&self, options: &[&str], script: &str) -> Result<String, Stop> {
        self.run(options, &["sh", "-c", script]).ok()
    }

    /// `docker run --rm` with `options` and a command. Without a word about the network it gets
    /// none, which saves building one.
    pub fn run(&self, options: &[&str], words: &[&str]) -> Run {
        self.command(&["run", "--rm"])
            .args(network(options))
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
        let mut container = Container { docker: self, name, id: String::new() };
        let run = self.command(&[verb, "--name", &container.name]).args(more);
        container.id =
            run.args(network(options)).args(options).arg(image::NAME).args(words).ok()?;
        Ok(container)
    }

    /// Starts the client on a terminal of 33 rows and 77 columns.
    pub fn terminal(&self, words: &[&str]) -> Result<Terminal, Stop> {
        Terminal::start(self.command(words), 33, 77)
    }
}

/// The command line of a dockerd.
fn server(sandbox: &Sandbox, name: &str, dir: &Path, options: &[String]) -> Run {
    let path = sandbox.dir.join("path");
    let path = format!("{}:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin", path.display());
    let mut run = Run::new("dockerd").env("PATH", path).env("HOME", dir.join("home"));
    for (option, file) in [
        ("--config-file", "daemon.json"),
        ("--data-root", "data"),
        ("--exec-root", "exec"),
        ("--pidfile", "pid"),
    ] {
        run = run.arg(option).arg(dir.join(file));
    }
    run.arg("--host")
        .arg(format!("unix://{}", dir.join("sock").display()))
        .arg("--containerd")
        .arg(sandbox.dir.join("containerd.sock"))
        .arg("--add-runtime")
        .arg(format!("{RUNTIME}={}", sandbox.runtime.display()))
        .args(["--default-runtime", RUNTIME, "--oom-score-adjust", "0"])
        .args(["--containerd-namespace", name, "--containerd-plugins-namespace"])
        .arg(format!("{name}-plugins"))
        .arg("--cgroup-parent")
        .arg(&sandbox.cgroup)
        .args(options)
}

fn network<'a>(options: &[&str]) -> &'a [&'a str] {
    if options.iter().any(|option| option.starts_with("--net")) {
        &[]
    } else {
        &["--network", "none"]
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
    docker: &'a Docker,
    /// Its name.
    pub name: String,
    /// Its full id.
    pub id: String,
}

impl Container<'_> {
    /// `docker VERB NAME`: its output.
    pub fn does(&self, verb: &str) -> Result<String, Stop> {
        self.docker.ok(&[verb, &self.name])
    }

    /// `docker VERB WORDS… NAME`: its output.
    pub fn with(&self, verb: &str, words: &[&str]) -> Result<String, Stop> {
        self.docker.command(&[verb]).args(words).arg(&self.name).ok()
    }

    /// `docker exec OPTIONS NAME sh -c SCRIPT`: its output.
    pub fn exec(&self, options: &[&str], script: &str) -> Result<String, Stop> {
        self.exec_raw(options, &["sh", "-c", script]).ok()
    }

    /// `docker exec OPTIONS NAME WORDS…`, not yet run.
    pub fn exec_raw(&self, options: &[&str], words: &[&str]) -> Run {
        self.docker.command(&["exec"]).args(options).arg(&self.name).args(words)
    }

    /// `docker inspect` with a Go template.
    pub fn inspect(&self, template: &str) -> Result<String, Stop> {
        self.docker.ok(&["inspect", "--format", template, &self.name])
    }

    /// Waits until `docker inspect` with a template answers `wanted`.
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

    /// `docker logs`: both streams.
    pub fn logs(&self) -> Result<Outcome, Stop> {
        self.docker.command(&["logs", &self.name]).code(0)
    }

    /// `docker wait`: the exit code.
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
        self.docker.command(&["rm", "-fv", &self.name]).run().ok();
    }
}
