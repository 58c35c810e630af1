//! The command line that managers rely on: the parser's rules P1 to P14, global options, logs,
//! `spec`, `features`, `--version`, and pid and console files, with real containers.

mod features;
mod globals;
mod log;
mod managers;
mod parser;

use std::process::ExitCode;

use corten_integration::suite;

fn main() -> ExitCode {
    let groups = [parser::TESTS, globals::TESTS, log::TESTS, features::TESTS, managers::TESTS];
    suite(&groups.concat())
}
