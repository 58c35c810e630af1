//! Docker 20.10 on the shim under test: the tests of the suite `docker` that a shim takes part in.
//!
//! This Docker knows no shim but containerd's own, by name, and tells it the runtime in options of
//! runc's form. So the shim under test stands under that name before the other in the `PATH` of
//! Docker's containerd, as an administrator would do it.

#[path = "../docker/exec.rs"]
mod exec;
#[path = "../docker/failures.rs"]
mod failures;
#[path = "../docker/lifecycle.rs"]
mod lifecycle;
#[path = "../docker/limits.rs"]
mod limits;
#[path = "../docker/process.rs"]
mod process;

use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError, RwLock};

use corten_integration::managers::daemon::Daemon;
use corten_integration::managers::docker::{self, Docker, Test};
use corten_integration::managers::sandbox::Sandbox;
use corten_integration::managers::{Stop, Verdict, check, same, trial};
use libtest_mimic::Trial;
use nix::sys::signal::Signal;

static CONTAINERD: Mutex<Option<Daemon>> = Mutex::new(None);
/// The ordinary daemon.
static MAIN: RwLock<Option<Docker>> = RwLock::new(None);
/// The daemon that may be killed.
static RESTORED: RwLock<Option<Docker>> = RwLock::new(None);

const TESTS: &[(&str, Test)] = &[("shim", shim), ("copy", copy)];

/// Starts a containerd and two daemons, and imports the image.
pub(crate) fn start(sandbox: &Sandbox, archive: &Path) -> Result<(), Stop> {
    *CONTAINERD.lock()? = Some(docker::containerd_with_shim(sandbox)?);
    let plain = ["--bridge", "none", "--iptables=false"];
    *MAIN.write()? = Some(Docker::start(sandbox, "main", &plain, archive)?);
    let restored = [&plain[..], &["--live-restore"]].concat();
    *RESTORED.write()? = Some(Docker::start(sandbox, "restored", &restored, archive)?);
    Ok(())
}

/// Stops what [`start`] has started.
pub(crate) fn stop() -> Verdict {
    let mut all = Ok(());
    for daemon in [&MAIN, &RESTORED] {
        if let Some(docker) = daemon.write().unwrap_or_else(PoisonError::into_inner).as_mut() {
            all = all.and(docker.stop());
        }
    }
    if let Some(containerd) = CONTAINERD.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
        all = all.and(containerd.stop(Signal::SIGTERM));
    }
    all
}

pub(crate) fn trials() -> Vec<Trial> {
    let groups =
        [TESTS, process::TESTS, exec::TESTS, lifecycle::TESTS, limits::TESTS, failures::TESTS];
    let mut all = Vec::new();
    for &(name, test) in groups.into_iter().flatten() {
        all.push(trial("docker", name, move || {
            let daemon = MAIN.read()?;
            test(daemon.as_ref().ok_or("the daemon is not running")?)
        }));
    }
    all.push(trial("docker", "survives_the_daemon", || {
        let mut daemon = RESTORED.write()?;
        lifecycle::survives_the_daemon(daemon.as_mut().ok_or("the daemon is not running")?)
    }));
    all
}

/// It really is the shim under test that these tests test.
fn shim(docker: &Docker) -> Verdict {
    let container = docker.background(&[], "sleep 600")?;
    let stat = fs::read_to_string(format!("/proc/{}/stat", container.pid()?))?;
    let parent = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1));
    let shim = parent.ok_or("no parent in stat")?;
    let seen = fs::metadata(format!("/proc/{shim}/exe"))?.len();
    same("size of its program", &seen, &fs::metadata(docker.sandbox.shim()?)?.len())
}

fn copy(docker: &Docker) -> Verdict {
    let container = docker.background(&["--tmpfs", "/memory"], "sleep 600")?;
    let folder = docker.folder("copy")?;
    fs::write(folder.join("in"), "to and fro\n")?;
    let inside = |path: &str| format!("{}:{path}", container.name);
    let outside = |name: &str| folder.join(name).display().to_string();
    docker.ok(&["cp", &outside("in"), &inside("/file")])?;
    same("inside", &container.exec(&[], "cat /file")?, "to and fro")?;
    docker.ok(&["cp", &inside("/file"), &outside("out")])?;
    check(fs::read(folder.join("out"))? == b"to and fro\n", "it came back changed")
}
