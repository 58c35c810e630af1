//! Debian's Docker 20.10 runs real containers on the runtime under test.
//!
//! One containerd serves two daemons: an ordinary one, and one with `--userns-remap` and
//! `--live-restore`. Tests share them and run at the same time, as users do.

mod exec;
mod failures;
mod images;
mod isolation;
mod lifecycle;
mod limits;
mod network;
mod process;
mod security;
mod storage;
mod userns;

use std::process::ExitCode;
use std::sync::{Mutex, PoisonError, RwLock};

use corten_integration::managers::command::Run;
use corten_integration::managers::daemon::Daemon;
use corten_integration::managers::docker::{self, Docker, Test};
use corten_integration::managers::sandbox::{self, Sandbox, Suite, USER};
use corten_integration::managers::{Stop, image};
use libtest_mimic::Trial;
use nix::sys::signal::Signal;

/// A name, the daemon that the tests need, and the tests.
type Group = (&'static str, &'static RwLock<Option<Docker>>, &'static [(&'static str, Test)]);

static CONTAINERD: Mutex<Option<Daemon>> = Mutex::new(None);
/// The bridge of the ordinary daemon.
pub(crate) const BRIDGE: &str = "corten0";
/// The bridge of the daemon with `--userns-remap`.
const REMAP_BRIDGE: &str = "corten1";
/// The ordinary daemon.
static MAIN: RwLock<Option<Docker>> = RwLock::new(None);
/// The daemon with `--userns-remap`; the crash test takes it exclusively.
static REMAP: RwLock<Option<Docker>> = RwLock::new(None);

fn main() -> ExitCode {
    sandbox::main(&Suite { name: "docker", needs: docker::NEEDS, threads: 4, start, trials, stop })
}

fn start(sandbox: &Sandbox) -> Result<(), Stop> {
    let archive = image::archive(&sandbox.dir)?;
    *CONTAINERD.lock()? = Some(docker::containerd(sandbox)?);
    // Bridges of our own: a daemon without one deletes the default `docker0` of its neighbour.
    bridge(BRIDGE, "172.30.77.1/24")?;
    bridge(REMAP_BRIDGE, "172.30.78.1/24")?;
    *MAIN.write()? = Some(Docker::start(sandbox, "main", &["--bridge", BRIDGE], &archive)?);
    let remap = format!("--userns-remap={USER}");
    let options = [remap.as_str(), "--live-restore", "--bridge", REMAP_BRIDGE, "--iptables=false"];
    *REMAP.write()? = Some(Docker::start(sandbox, "remap", &options, &archive)?);
    Ok(())
}

fn bridge(name: &str, address: &str) -> Result<(), Stop> {
    let ip = |words: &[&str]| Run::new("ip").args(words).ok();
    ip(&["link", "add", name, "type", "bridge"])?;
    ip(&["addr", "add", address, "dev", name])?;
    ip(&["link", "set", name, "up"]).map(drop)
}

fn stop(_: &Sandbox) -> Result<(), Stop> {
    let mut all = Ok(());
    for daemon in [&MAIN, &REMAP] {
        if let Some(docker) = daemon.write().unwrap_or_else(PoisonError::into_inner).as_mut() {
            all = all.and(docker.stop());
        }
    }
    if let Some(containerd) = CONTAINERD.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
        all = all.and(containerd.stop(Signal::SIGTERM));
    }
    all
}

fn trials() -> Vec<Trial> {
    let groups: [Group; 11] = [
        ("process", &MAIN, process::TESTS),
        ("isolation", &MAIN, isolation::TESTS),
        ("security", &MAIN, security::TESTS),
        ("limits", &MAIN, limits::TESTS),
        ("storage", &MAIN, storage::TESTS),
        ("network", &MAIN, network::TESTS),
        ("exec", &MAIN, exec::TESTS),
        ("lifecycle", &MAIN, lifecycle::TESTS),
        ("images", &MAIN, images::TESTS),
        ("failures", &MAIN, failures::TESTS),
        ("userns", &REMAP, userns::TESTS),
    ];
    let mut all = Vec::new();
    for (group, daemon, tests) in groups {
        for &(name, test) in tests {
            all.push(corten_integration::managers::trial(group, name, move || {
                let daemon = daemon.read()?;
                test(daemon.as_ref().ok_or("the daemon is not running")?)
            }));
        }
    }
    all.push(corten_integration::managers::trial("userns", "survives_the_daemon", || {
        let mut daemon = REMAP.write()?;
        lifecycle::survives_the_daemon(daemon.as_mut().ok_or("the daemon is not running")?)
    }));
    all
}
