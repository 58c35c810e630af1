//! A containerd made of tests: everything that a shim sees of its daemon, played exactly.
//!
//! [`World`] is the place of one test: a namespace, short paths, an events server. It makes bundles,
//! executes `start` in the dialect of a chosen containerd ([`bootstrap`]), talks to the shim with
//! the client of the independent `ttrpc` crate ([`task`]) or with raw bytes ([`raw`]), reads and
//! writes the FIFOs ([`stdio`]) and records the events ([`events`]). When the test is over the world
//! looks for everything that should be gone; a suite runs inside the namespaces of
//! [`crate::managers::sandbox`], so this is exact: each process, mount, socket and cgroup is ours.
//!
//! The shim under test is a parameter (`SHIM`), by default `bin/containerd-shim-corten-v2`. All
//! tests are first seen to pass with Debian's `containerd-shim-runc-v2`; where that one is known to
//! be wrong a test says so with [`World::reference_deviates`].

#[macro_use]
pub mod request;

pub mod bootstrap;
pub mod daemon;
pub mod events;
pub mod leaks;
pub mod notes;
pub mod raw;
pub mod soak;
pub mod stdio;
pub mod task;
pub mod world;

use std::sync::OnceLock;

use libtest_mimic::Trial;

use crate::managers::sandbox::Sandbox;
use crate::managers::{Stop, Verdict};

pub use world::{Task, World};

/// Which shim is under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// This project's.
    Corten,
    /// containerd's own for runc, task API v2.
    Reference,
}

/// A test and its name, as [`shim_tests!`](crate::shim_tests) makes them.
pub type Case = (&'static str, fn(&World) -> Verdict);

/// Lists test functions.
#[macro_export]
macro_rules! shim_tests {
    ($($name:ident),* $(,)?) => { &[$((stringify!($name), $name)),*] };
}

static SANDBOX: OnceLock<Sandbox> = OnceLock::new();

/// Remembers the sandbox for the tests: the `start` of a suite.
pub fn enter(sandbox: &Sandbox) -> Result<(), Stop> {
    sandbox.shim()?;
    SANDBOX.set(sandbox.clone()).map_err(|_| Stop::Fail("a second sandbox".to_owned()))
}

/// The sandbox of this run.
pub fn sandbox() -> &'static Sandbox {
    SANDBOX.get().expect("a test runs in the sandbox")
}

/// Makes the trials of one subject.
pub fn trials(group: &str, cases: &[Case]) -> Vec<Trial> {
    let trial =
        |&(name, case): &Case| crate::managers::trial(group, name, move || World::run(case));
    cases.iter().map(trial).collect()
}
