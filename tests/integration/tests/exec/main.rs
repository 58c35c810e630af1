//! `exec`: a second process in a running container, with the container's restrictions.

mod container;
mod process;
mod program;
mod streams;

use std::process::ExitCode;

use corten_integration::{Bundle, Test, suite};

fn main() -> ExitCode {
    let groups = [program::TESTS, process::TESTS, container::TESTS, streams::TESTS];
    suite(&groups.concat())
}

/// A sleeping container; returns the pid of its first process.
pub(crate) fn container(t: &Test) -> (Bundle, i32) {
    let mut b = t.bundle();
    let pid = t.sleeper(&mut b);
    (b, pid)
}
