//! The program that the tests put into their containers.
//!
//! `probe STEP [ARG...] [';' STEP ...]` executes the steps in order. Every step prints one line of
//! JSON on standard output, so a test reads facts and never parses prose. `report` prints all that
//! a process can learn about itself without any other program; the other steps try one thing and
//! tell the errno, or play a part (a sleeper, a fork bomb, a hook, a seccomp agent).
//!
//! It must run in an empty root file system, without /proc, under any user and filter: so it is
//! static, allocates little and treats whatever it can't read as `null`, never as a failure.

mod agent;
mod attack;
mod files;
mod report;
mod steps;
mod sys;

use serde_json::Value;

fn main() {
    let args: Vec<String> =
        std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned()).collect();
    // What follows is another program's.
    let whole = args.first().is_some_and(|verb| verb == "deny");
    for step in args.split(|arg| arg == ";" && !whole) {
        let Some((verb, rest)) = step.split_first() else { continue };
        let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
        match steps::run(verb, &rest) {
            Ok(Value::Null) => {}
            Ok(fact) => steps::say(&fact),
            Err(why) => {
                eprintln!("probe: {verb}: {why}");
                std::process::exit(99);
            }
        }
    }
}
