//! Kubernetes' way to run containers: containerd's CRI plugin on the shim under test.
//!
//! One containerd serves all tests, which run at the same time; those that restart it take it
//! exclusively. Debian's is 1.6; `CONTAINERD_BIN=dir` takes the containerd in a directory, and the
//! tests of what only 2.x can do, the upgrade of a node among them, are skipped without it. For a run on containerd's own shim:
//! `SHIM=/usr/bin/containerd-shim-runc-v2 RUNTIME=runc` (or the shim in that directory).

mod exec;
mod lifecycle;
mod logs;
mod pods;
mod resources;
mod security;
mod storage;
mod survival;
mod userns;

use std::process::ExitCode;
use std::sync::{PoisonError, RwLock};

use corten_integration::managers::cri::{self, Cri};
use corten_integration::managers::sandbox::{self, Sandbox, Suite};
use corten_integration::managers::{Stop, Verdict, trial};
use libtest_mimic::Trial;

/// A test that shares containerd with others.
type Test = fn(&Cri) -> Verdict;
/// A test that has it for itself.
type Alone = fn(&mut Cri) -> Verdict;

static CRI: RwLock<Option<Cri>> = RwLock::new(None);

fn main() -> ExitCode {
    sandbox::main(&Suite { name: "cri", needs: cri::NEEDS, threads: 4, start, trials, stop })
}

fn start(sandbox: &Sandbox) -> Result<(), Stop> {
    *CRI.write()? = Some(Cri::start(sandbox)?);
    Ok(())
}

fn stop(_: &Sandbox) -> Result<(), Stop> {
    match CRI.write().unwrap_or_else(PoisonError::into_inner).as_mut() {
        Some(cri) => cri.stop(),
        None => Ok(()),
    }
}

fn trials() -> Vec<Trial> {
    let groups: [(&str, &[(&str, Test)]); 8] = [
        ("pods", pods::TESTS),
        ("lifecycle", lifecycle::TESTS),
        ("exec", exec::TESTS),
        ("logs", logs::TESTS),
        ("resources", resources::TESTS),
        ("security", security::TESTS),
        ("storage", storage::TESTS),
        ("userns", userns::TESTS),
    ];
    let mut all = Vec::new();
    for (group, tests) in groups {
        for &(name, test) in tests {
            all.push(trial(group, name, move || {
                let cri = CRI.read().unwrap_or_else(PoisonError::into_inner);
                test(cri.as_ref().ok_or("containerd is not running")?)
            }));
        }
    }
    for &(name, test) in survival::TESTS {
        all.push(trial("survival", name, move || {
            let mut cri = CRI.write().unwrap_or_else(PoisonError::into_inner);
            test(cri.as_mut().ok_or("containerd is not running")?)
        }));
    }
    all
}
