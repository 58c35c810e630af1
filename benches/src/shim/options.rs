//! The command line: `bench-shim --help` prints it.

use std::path::{Path, PathBuf};

use corten_bench::place::memory_directory;

const USAGE: &str = "usage: bench-shim [--rounds N] [--warm-up N] [--containers N] [--cycles N] [--shim FILE] [--other FILE] [--only NAME,NAME] [--json FILE] [--check]
  --rounds N      measured rounds of latency (40)
  --warm-up N     rounds that are not counted (2)
  --containers N  shims at once for memory (40)
  --cycles N      execs for growth (10000); a tenth of them for the Go shim
  --shim FILE     the shim to measure (bin/containerd-shim-corten-v2, or beside this program)
  --other FILE    another build of it, measured as `other`
  --only LIST     of corten, other, go+crun, go+runc (all that are installed)
  --json FILE     where the numbers go (target/bench-shim.json)
  --check         fail when an aim of SPECIFICATION.md is missed";

/// What to measure, and where.
#[derive(Debug)]
pub struct Options {
    /// Measured rounds of latency.
    pub rounds: usize,
    /// Rounds before them.
    pub warm_up: usize,
    /// Shims at once.
    pub containers: usize,
    /// Execs for growth.
    pub cycles: usize,
    /// The shim.
    pub shim: PathBuf,
    /// Another build of it.
    pub other: Option<PathBuf>,
    only: Option<Vec<String>>,
    /// Where the numbers go.
    pub json: PathBuf,
    /// Whether a missed aim is a failure.
    pub check: bool,
    /// Where bundles and the runtimes' state are: in memory, as containerd has them in `/run`.
    pub place: PathBuf,
    to_a_person: bool,
}

impl Options {
    /// Reads the command line; the error is the usage.
    pub fn parse() -> Result<Self, String> {
        let beside = std::env::current_exe()
            .ok()
            .and_then(|path| path.parent().map(Path::to_owned))
            .unwrap_or_default();
        let name = "containerd-shim-corten-v2";
        let built = [Path::new("bin").join(name), beside.join(name)];
        let own = format!("corten-bench-shim-{}", std::process::id());
        let mut options = Options {
            rounds: 40,
            warm_up: 2,
            containers: 40,
            cycles: 10_000,
            shim: built.into_iter().find(|path| path.exists()).unwrap_or_default(),
            other: None,
            only: None,
            json: PathBuf::from("target/bench-shim.json"),
            check: false,
            place: memory_directory().join(&own),
            to_a_person: std::io::IsTerminal::is_terminal(&std::io::stderr()),
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            if argument == "--check" {
                options.check = true;
                continue;
            }
            let value = arguments.next().ok_or(USAGE)?;
            options.set(&argument, value)?;
        }
        Ok(options)
    }

    fn set(&mut self, argument: &str, value: String) -> Result<(), String> {
        let number = || {
            let parsed = value.parse::<usize>();
            parsed.map_err(|_| format!("{argument} {value:?} is no number\n{USAGE}"))
        };
        match argument {
            "--rounds" => self.rounds = number()?,
            "--warm-up" => self.warm_up = number()?,
            "--containers" => self.containers = number()?,
            "--cycles" => self.cycles = number()?,
            "--json" => self.json = PathBuf::from(value),
            "--shim" => self.shim = PathBuf::from(value),
            "--other" => self.other = Some(PathBuf::from(value)),
            "--only" => self.only = Some(value.split(',').map(str::to_owned).collect()),
            _ => return Err(USAGE.to_owned()),
        }
        Ok(())
    }

    /// Whether to measure this one.
    pub fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only.iter().any(|one| one == name))
    }

    /// Says how far it is, to a person.
    pub fn progress(&self, words: &str) {
        if self.to_a_person {
            eprint!("\r\x1b[K{words}");
        }
    }
}
