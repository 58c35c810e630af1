//! `bench`: corten beside the packaged crun and runc on one Docker-like bundle.
//!
//! Every round takes the runtimes in a new random order and gives each one a whole life of
//! `/bin/true` by create, state, start, delete; one by `run`; and exec, state and kill on a
//! running container. Each command is spawned directly (`posix_spawn`, no shell), timed on the
//! monotonic clock from the spawn to the end that `wait4` reports, and its peak memory is what
//! the kernel accounts to it. Between the rounds runs `floor`, which makes the same system
//! calls with no runtime.
//!
//! The result is a table on stdout and a JSON file with every statistic. Nothing on the host
//! changes but `/sys/fs/cgroup/*/corten-bench` and, where crun 1.8 needs it, a mount for each
//! controller that version 2 still holds; both are removed at the end.

mod life;
mod options;
mod report;
mod samples;
mod spawn;

use std::process::ExitCode;

use corten_bench::host::Host;
use corten_bench::numbers::Random;

/// The groups that the subjects make.
const GROUPS: [&str; 4] = ["corten-", "crun-", "runc-", "floor"];

fn main() -> ExitCode {
    let options = match options::Options::parse() {
        Ok(options) => options,
        Err(usage) => {
            eprintln!("{usage}");
            return ExitCode::from(2);
        }
    };
    match bench(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("bench: {message}");
            ExitCode::FAILURE
        }
    }
}

/// The whole benchmark; true when the aims are met or nobody asked for them (`--check`).
fn bench(options: &options::Options) -> Result<bool, String> {
    let mut host = Host::prepare(&[&options.work, &options.state], &GROUPS)?;
    let result = rounds(options);
    host.restore();
    let samples = result?;
    let report = report::Report::new(&samples);
    print!("{}", report.table());
    std::fs::write(&options.json, report.json())
        .map_err(|error| format!("write {:?}: {error}", options.json))?;
    println!("written: {}", options.json.display());
    Ok(!options.check || report.aims_met())
}

/// Warm-up and measured rounds.
fn rounds(options: &options::Options) -> Result<samples::Samples, String> {
    let mut subjects = life::subjects(options)?;
    let mut samples = samples::Samples::default();
    let mut random = Random::from_clock();
    for round in 0..options.warm_up + options.rounds {
        random.shuffle(&mut subjects);
        for subject in &subjects {
            let mut ignored = samples::Samples::default();
            subject.round(if round < options.warm_up { &mut ignored } else { &mut samples })?;
        }
        if options.progress {
            eprint!("\rround {} of {}", round + 1, options.warm_up + options.rounds);
        }
    }
    if options.progress {
        eprintln!();
    }
    Ok(samples)
}
