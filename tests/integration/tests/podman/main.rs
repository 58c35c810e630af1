//! Debian's Podman 4.3 and buildah run real containers on the runtime under test, as root and as
//! an ordinary user.

mod build;
mod lifecycle;
mod pods;
mod rootless;
mod run;
mod userns;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::Duration;

use corten_integration::managers::podman::{self, Podman};
use corten_integration::managers::sandbox::{self, Sandbox, Suite};
use corten_integration::managers::{Stop, Verdict, eventually, image, leaks, trial};
use libtest_mimic::Trial;

/// A test with the Podman of its group.
type Test = fn(&Podman) -> Verdict;
/// The tests of one module.
type Group = (&'static str, &'static OnceLock<Podman>, &'static [(&'static str, Test)]);

static ROOT: OnceLock<Podman> = OnceLock::new();
static USER: OnceLock<Podman> = OnceLock::new();

fn main() -> ExitCode {
    sandbox::main(&Suite { name: "podman", needs: podman::NEEDS, threads: 4, start, trials, stop })
}

/// The parent group that Podman makes when nobody names one, as `kube play` cannot. It stands
/// beside ours, so it is removed where it was not there before.
static PARENTS: OnceLock<Vec<PathBuf>> = OnceLock::new();

fn start(sandbox: &Sandbox) -> Result<(), Stop> {
    let parents = leaks::hierarchies()?.into_iter().map(|place| place.join("libpod_parent"));
    PARENTS
        .set(parents.filter(|parent| !parent.exists()).collect())
        .map_err(|_| "started twice")?;
    let archive = image::archive(&sandbox.dir)?;
    for (place, rootless) in [(&ROOT, false), (&USER, true)] {
        let podman = Podman::start(sandbox, rootless, &archive)?;
        place.set(podman).map_err(|_| "started twice")?;
    }
    Ok(())
}

fn stop(_: &Sandbox) -> Result<(), Stop> {
    let mut all = Ok(());
    for podman in [&ROOT, &USER].into_iter().filter_map(|place| place.get()) {
        all = all.and(podman.stop());
    }
    for parent in PARENTS.get().into_iter().flatten() {
        // Its conmon sees the end of its container a moment after everybody else.
        all = all.and(eventually("libpod_parent is empty", Duration::from_secs(10), || {
            leaks::remove_groups(parent);
            Ok(!parent.exists())
        }));
    }
    all
}

fn trials() -> Vec<Trial> {
    let groups: [Group; 6] = [
        ("run", &ROOT, run::TESTS),
        ("lifecycle", &ROOT, lifecycle::TESTS),
        ("pods", &ROOT, pods::TESTS),
        ("userns", &ROOT, userns::TESTS),
        ("build", &ROOT, build::TESTS),
        ("rootless", &USER, rootless::TESTS),
    ];
    let mut all = Vec::new();
    for (group, place, tests) in groups {
        for &(name, test) in tests {
            all.push(trial(group, name, move || test(place.get().ok_or("Podman did not start")?)));
        }
    }
    all
}
