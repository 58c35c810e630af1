//! `process`: user, capabilities, limits, environment, directory, scheduling, terminal, streams.

mod inherited;
mod limits;
mod program;
mod rights;
mod terminal;

use std::process::ExitCode;

use corten_integration::suite;

fn main() -> ExitCode {
    let groups = [program::TESTS, rights::TESTS, limits::TESTS, inherited::TESTS, terminal::TESTS];
    suite(&groups.concat())
}
