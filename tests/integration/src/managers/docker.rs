//! containerd and dockerd of our own, and the client that talks to them.
//!
//! Everything is told by option: data, exec root, sockets, pid files and the runtime under test
//! as the default one. BuildKit looks for `runc` in `PATH`, so the daemon finds the runtime under
//! test by that name first. Docker's own test for a daemon that is ready is its `_ping` socket,
//! which the client asks for us.

use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::client::Client;
use super::command::Run;
use super::daemon::Daemon;
use super::sandbox::Sandbox;
use super::{Stop, Verdict, containerd, eventually, image};

/// Debian's client: another one may stand before it in `PATH`.
pub const CLIENT: &str = "/usr/bin/docker";
/// Options of a container that may mount: Docker's AppArmor profile, where there is AppArmor, forbids it.
pub const MAY_MOUNT: [&str; 4] =
    ["--cap-add", "SYS_ADMIN", "--security-opt", "apparmor=unconfined"];
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

/// Starts the containerd that all Docker daemons of a run share; its socket is `containerd.sock`.
pub fn containerd(sandbox: &Sandbox) -> Result<Daemon, Stop> {
    containerd::serve(sandbox, &sandbox.dir.join("containerd"), &socket(sandbox))
}

/// The same with the shim under test in the place of containerd's own: Docker 20.10 knows no other
/// by name.
pub fn containerd_with_shim(sandbox: &Sandbox) -> Result<Daemon, Stop> {
    sandbox.shim()?;
    let dir = sandbox.dir.join("containerd");
    containerd::serve(&sandbox.with_shim_as_runc(), &dir, &socket(sandbox))
}

fn socket(sandbox: &Sandbox) -> PathBuf {
    sandbox.dir.join("containerd.sock")
}

/// A test of one daemon.
pub type Test = fn(&Docker) -> Verdict;

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
            ended = self.daemon.has_ended()?;
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
    let mut run = Run::new("dockerd").env("PATH", sandbox.path()).env("HOME", dir.join("home"));
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
        .arg(socket(sandbox))
        .arg("--add-runtime")
        .arg(format!("{RUNTIME}={}", sandbox.runtime.display()))
        .args(["--default-runtime", RUNTIME, "--oom-score-adjust", "0"])
        .args(["--containerd-namespace", name, "--containerd-plugins-namespace"])
        .arg(format!("{name}-plugins"))
        .arg("--cgroup-parent")
        .arg(&sandbox.cgroup)
        .args(options)
}

/// This root's capabilities, without those that are younger than Docker 20.10.
pub fn all_capabilities() -> Result<String, Stop> {
    let status = fs::read_to_string("/proc/self/status")?;
    let own = status.lines().find_map(|line| line.strip_prefix("CapEff:\t")).unwrap_or_default();
    Ok(format!("{:016x}", u64::from_str_radix(own, 16)? & ((1 << 38) - 1)))
}
