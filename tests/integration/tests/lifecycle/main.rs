//! The life of a container: create, start, state, kill, delete, run, in and out of order.

mod bundle;
mod create;
mod delete;
mod run;
mod signals;
mod state;

use std::process::ExitCode;

use corten_integration::suite;

fn main() -> ExitCode {
    let groups =
        [run::TESTS, create::TESTS, state::TESTS, signals::TESTS, delete::TESTS, bundle::TESTS];
    suite(&groups.concat())
}
