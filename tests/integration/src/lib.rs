//! Black-box tests of an OCI runtime: a real binary, real containers, the real kernel.
//!
//! The runtime is a parameter (`RUNTIME=/usr/sbin/runc make test-integration SUITE=lifecycle`), so
//! every test is first seen to pass against a packaged runtime. A suite is a file in `tests/`, a
//! test a function that takes a [`Test`]; its comment is the promise it holds the runtime to. What
//! a container sees is reported by the probe (`tests/probe`), and after every test the leak oracle
//! ([`oracle`]) looks for whatever the runtime left behind.

pub mod bundle;
#[cfg(test)]
mod catalogue;
pub mod cgroups;
pub mod console;
pub mod driver;
pub mod journal;
pub mod managers;
pub mod oracle;
pub mod reaper;
pub mod shim;
#[cfg(test)]
mod specification;
pub mod suite;

pub use bundle::Bundle;
pub use driver::{Flavour, Output, Test};
pub use suite::suite;
