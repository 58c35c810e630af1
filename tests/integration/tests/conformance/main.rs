//! The sentences of the runtime specification 1.3 that say MUST, each as a test named after it.
//!
//! `hooks_each`, `process`, `isolation` and `resources` go through every value, kind or form that a
//! sentence speaks of and quote it in their comments; `script` tests `scripts/conformance`.
//!
//! What only other platforms or hardware can show is left out (Windows, Solaris, zOS, resctrl).
//! One sentence is not held on purpose: "Attempting to delete a container that is not stopped MUST
//! have no effect" holds for running and paused containers; a created one is deleted, because
//! containerd relies on it.

mod config;
mod hooks;
mod hooks_each;
mod isolation;
mod linux;
mod process;
mod resources;
mod runtime;
mod script;

use std::process::ExitCode;

use corten_integration::suite;
use corten_integration::suite::Case;

fn main() -> ExitCode {
    let all: [&[Case]; 9] = [
        runtime::CASES,
        config::CASES,
        process::CASES,
        hooks::CASES,
        hooks_each::CASES,
        linux::CASES,
        isolation::CASES,
        resources::CASES,
        script::CASES,
    ];
    suite(&all.concat())
}
