//! Docker, Podman, `ctr` and the CRI with systemd making the cgroups. They need the machine's own
//! systemd and an ordinary user of it, so they run in the lab only, where `CORTEN_TEST_USER` names
//! that user: `make lab LAB_SUITES=systemd_managers`.

mod containerd;
mod cri;
mod docker;
mod podman;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::Duration;

use corten_integration::managers::command::Run;
use corten_integration::managers::sandbox::{self, Sandbox, Suite};
use corten_integration::managers::{Stop, Verdict, cri as kubelet, docker as moby, eventually};
use corten_integration::managers::{image, podman as libpod, same};
use libtest_mimic::Trial;
use nix::unistd::Pid;

/// The slice of the tests' containers, and its group.
pub(crate) const SLICE: &str = "corten-test.slice";
pub(crate) const GROUP: &str = "/corten.slice/corten-test.slice";

/// What all managers share.
#[derive(Debug)]
pub(crate) struct Lab {
    pub(crate) sandbox: Sandbox,
    /// The image.
    pub(crate) archive: PathBuf,
    /// The ordinary user.
    pub(crate) user: String,
}

static LAB: OnceLock<Lab> = OnceLock::new();

fn main() -> ExitCode {
    let needs: &[_] = if is_lab() { &NEEDS } else { &[] };
    let name = "systemd";
    sandbox::main_in_the_open(&Suite { name, needs, threads: 1, start, trials, stop })
}

const NEEDS: [(&str, &str); 3] = [moby::NEEDS[0], libpod::NEEDS[0], kubelet::NEEDS[0]];

fn is_lab() -> bool {
    Path::new("/run/systemd/private").exists() && std::env::var_os("CORTEN_TEST_USER").is_some()
}

fn start(sandbox: &Sandbox) -> Result<(), Stop> {
    if !is_lab() {
        return Ok(());
    }
    let archive = image::archive(&sandbox.dir)?;
    let user = std::env::var("CORTEN_TEST_USER")?;
    let lab = Lab { sandbox: sandbox.clone(), archive, user };
    LAB.set(lab).map_err(|_| "started twice".into())
}

pub(crate) fn lab() -> Result<&'static Lab, Stop> {
    LAB.get().ok_or_else(|| Stop::Skip("only in the lab, with systemd".to_owned()))
}

fn stop(_: &Sandbox) -> Result<(), Stop> {
    docker::stop().and(containerd::stop()).and(cri::stop()).and(podman::stop())
}

fn trials() -> Vec<Trial> {
    let all = [docker::trials(), containerd::trials(), cri::trials(), podman::trials()];
    all.into_iter().flatten().collect()
}

/// The group that a process is in.
pub(crate) fn group_of(pid: Pid) -> Result<String, Stop> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    Ok(text.trim_end().trim_start_matches("0::").to_owned())
}

/// A file of a group.
pub(crate) fn file(group: &str, name: &str) -> Result<String, Stop> {
    Ok(fs::read_to_string(format!("/sys/fs/cgroup{group}/{name}"))?.trim_end().to_owned())
}

pub(crate) fn systemctl(words: &[&str]) -> Result<String, Stop> {
    Run::new("systemctl").args(words).ok()
}

/// Checks properties of a unit.
pub(crate) fn properties(unit: &str, wanted: &[(&str, &str)]) -> Verdict {
    for (name, value) in wanted {
        same(name, &systemctl(&["show", "--value", "--property", name, unit])?, value)?;
    }
    Ok(())
}

/// Checks files of a group.
pub(crate) fn files(group: &str, wanted: &[(&str, &str)]) -> Verdict {
    for (name, value) in wanted {
        same(name, &file(group, name)?, value)?;
    }
    Ok(())
}

/// Waits until there is neither the unit nor the group.
pub(crate) fn gone(unit: &str, group: &str) -> Verdict {
    eventually(&format!("{unit} is gone"), Duration::from_secs(10), || {
        let state = systemctl(&["show", "--value", "--property", "LoadState", unit])?;
        Ok(state == "not-found" && !Path::new(&format!("/sys/fs/cgroup{group}")).exists())
    })
}
