//! `bench-shim`: corten's shim beside containerd's Go shim with crun and runc, at the ttrpc socket.
//!
//! Each round takes the shims in a new random order and gives each a whole life: `start`, Create,
//! Start, queries, execs, Kill, Delete, Shutdown. The client is ours and does next to nothing
//! ([`client`]); State is asked through the `ttrpc` crate's client too. Then come as many shims at
//! once as a busy node has, and very many execs in one.
//!
//! The result is a table on stdout and a JSON file. What changes on the host is what `bench`
//! changes, and sockets in `/run/containerd/s` for as long as a shim lives.

mod client;
mod latency;
mod memory;
mod options;
mod report;
mod subject;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use corten_bench::host::Host;
use corten_integration::shim::daemon::Daemon;

use crate::options::Options;
use crate::report::Report;
use crate::subject::Subject;

fn main() -> ExitCode {
    let options = match Options::parse() {
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
            eprintln!("bench-shim: {message}");
            ExitCode::FAILURE
        }
    }
}

/// The whole benchmark; true when the aims are met or nobody asked for them (`--check`).
fn bench(options: &Options) -> Result<bool, String> {
    // Daemons that `start` leaves become ours, so that they can be reaped.
    nix::sys::prctl::set_child_subreaper(true).map_err(|errno| errno.to_string())?;
    let mut host = Host::prepare(&[&options.place], &["shim-"])?;
    let result = measure(options);
    options.progress("");
    host.restore();
    let report = result?;
    print!("{}", report.table());
    std::fs::write(&options.json, report.json())
        .map_err(|error| format!("write {:?}: {error}", options.json))?;
    println!("written: {}", options.json.display());
    Ok(!options.check || report.aims_met())
}

fn measure(options: &Options) -> Result<Report, String> {
    let address = options.place.join("ttrpc");
    // Its threads take every event at once, for as long as this lives.
    let _containerd = Daemon::new(&address).map_err(|error| format!("{address:?}: {error:?}"))?;
    let subjects = subjects(options, &address)?;
    let times = latency::measure(&subjects, options)?;
    let crowds = if options.containers > 0 { memory::crowds(&subjects, options)? } else { vec![] };
    let mut growths = Vec::new();
    for subject in subjects.iter().filter(|subject| subject.name != "go+runc") {
        let ours = !subject.name.starts_with("go");
        let cycles = if ours { options.cycles } else { options.cycles / 10 };
        for fifos in [false, true] {
            if cycles > 0 {
                growths.push(memory::growth(subject, options, fifos, cycles)?);
            }
        }
    }
    let names = subjects.iter().map(|subject| subject.name).collect();
    Ok(Report::new(names, times, crowds, growths))
}

/// Every shim that is installed and wanted.
fn subjects(options: &Options, address: &Path) -> Result<Vec<Subject>, String> {
    let go = PathBuf::from("/usr/bin/containerd-shim-runc-v2");
    let programs = [
        ("corten", Some(options.shim.clone()), ""),
        ("other", options.other.clone(), ""),
        ("go+crun", Some(go.clone()), "crun"),
        ("go+runc", Some(go), "runc"),
    ];
    let mut subjects = Vec::new();
    for (name, program, runtime) in programs {
        let Some(program) = program.filter(|_| options.wants(name)) else { continue };
        match program.canonicalize() {
            Ok(path) => {
                subjects.push(Subject::new(name, path, runtime, &options.place, address)?);
            }
            Err(error) => eprintln!("bench-shim: {name} is left out: {program:?}: {error}"),
        }
    }
    Ok(subjects)
}
