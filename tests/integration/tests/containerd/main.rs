//! Debian's containerd 1.6, and Docker 20.10 on it, run real containers on the shim under test.
//!
//! Tests of the shared containerd run at the same time, as users do. What ends, stops or counts a
//! daemon gets one of its own, and afterwards nothing may be left of that one. For a run on
//! containerd's own shim: `SHIM=/usr/bin/containerd-shim-runc-v2 RUNTIME=runc`.

mod config;
mod docker;
mod events;
mod exec;
mod failures;
mod many;
mod races;
mod restart;
mod run;
mod streams;
mod tasks;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{OnceLock, PoisonError, RwLock};

use corten_integration::managers::containerd::{self, Containerd};
use corten_integration::managers::sandbox::{self, Sandbox, Suite};
use corten_integration::managers::{Stop, Verdict, docker as dockers, image};
use libtest_mimic::Trial;

/// A test of one containerd.
type Test = fn(&Containerd) -> Verdict;
/// A name and its tests.
type Group = (&'static str, &'static [(&'static str, Test)]);

/// What the tests share: the run, and the image as `docker save` writes it.
static WORLD: OnceLock<(Sandbox, PathBuf)> = OnceLock::new();
/// The containerd of all tests that leave the daemon alone.
static SHARED: RwLock<Option<Containerd>> = RwLock::new(None);

fn main() -> ExitCode {
    let needs = [containerd::NEEDS, dockers::NEEDS].concat().leak();
    sandbox::main(&Suite { name: "containerd", needs, threads: 4, start, trials, stop })
}

fn start(sandbox: &Sandbox) -> Result<(), Stop> {
    let layer = image::archive(&sandbox.dir)?;
    let archive = image::docker_archive(&sandbox.dir, &layer)?;
    *SHARED.write()? = Some(Containerd::start(sandbox, "shared", &archive)?);
    WORLD.get_or_init(|| (sandbox.clone(), archive));
    docker::start(sandbox, &layer)
}

fn stop(_: &Sandbox) -> Result<(), Stop> {
    let docker = docker::stop();
    match SHARED.write().unwrap_or_else(PoisonError::into_inner).as_ref() {
        Some(containerd) => docker.and(containerd.finish()),
        None => docker,
    }
}

fn trials() -> Vec<Trial> {
    let shared: [Group; 6] = [
        ("run", run::TESTS),
        ("streams", streams::TESTS),
        ("config", config::TESTS),
        ("exec", exec::TESTS),
        ("tasks", tasks::TESTS),
        ("failures", failures::TESTS),
    ];
    let own: [Group; 4] = [
        ("events", events::TESTS),
        ("many", many::TESTS),
        ("restart", restart::TESTS),
        ("races", races::TESTS),
    ];
    let mut all = Vec::new();
    // The long ones first: they wait more than they work.
    for (group, tests) in own {
        for &(name, test) in tests {
            all.push(corten_integration::managers::trial(group, name, move || alone(name, test)));
        }
    }
    for (group, tests) in shared {
        for &(name, test) in tests {
            all.push(corten_integration::managers::trial(group, name, move || {
                let shared = SHARED.read()?;
                test(shared.as_ref().ok_or("containerd is not running")?)
            }));
        }
    }
    all.extend(docker::trials());
    all
}

/// Runs a test on a containerd of its own, of which nothing may be left.
fn alone(name: &str, test: Test) -> Verdict {
    let (sandbox, archive) = WORLD.get().ok_or("the suite has not started")?;
    let containerd = Containerd::start(sandbox, name, archive)?;
    let verdict = test(&containerd);
    let finished = containerd.finish();
    verdict.and(finished)
}
