//! containerd and dockerd of our own, and the client that talks to them.
//!
//! Everything is told by option: data, exec root, sockets, pid files and the runtime under test
//! as the default one. BuildKit looks for `runc` in `PATH`, so the daemon finds the runtime under
//! test by that name first. Docker's own test for a daemon that is ready is its `_ping` socket,
//! which the client asks for us.

use std::fs::{self, File};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::client::Client;
use super::command::{Run, spawn, wait};
use super::sandbox::Sandbox;
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
    client: Client,
    name: &'static str,
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
        let socket = format!("unix://{}", dir.join("sock").display());
        let home = dir.join("home").display().to_string();
        let client = Client {
            sandbox: sandbox.clone(),
            dir,
            words: vec![CLIENT.to_owned()],
            environment: vec![("DOCKER_HOST", socket), ("HOME", home)],
            always: Vec::new(),
            remove: &["rm", "--force", "--volumes"],
        };
        let mut docker = Self { client, name, options, daemon };
        docker.ready()?;
        docker
            .command(&["import", "--change", "CMD [\"sh\"]"])
            .arg(archive)
            .arg(image::NAME)
            .ok()?;
        Ok(docker)
    }

    fn ready(&mut self) -> Verdict {
        let socket = self.dir.join("sock");
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

    /// The daemon, for its log.
    pub fn daemon(&self) -> &Daemon {
        &self.daemon
    }
}

impl Deref for Docker {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
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
