//! The sentences of the runtime specification 1.3 that say MUST, each as a test named after it.
//!
//! What only other platforms or hardware can show is left out (Windows, Solaris, zOS, resctrl).
//! One sentence is not held on purpose: "Attempting to delete a container that is not stopped MUST
//! have no effect" holds for running and paused containers; a created one is deleted, because
//! containerd relies on it.

mod config;
mod hooks;
mod linux;
mod runtime;

use std::process::ExitCode;

use corten_integration::suite;
use corten_integration::suite::Case;

fn main() -> ExitCode {
    let all: Vec<Case> = [runtime::CASES, config::CASES, hooks::CASES, linux::CASES].concat();
    suite(&all)
}
