//! The command line: `bench --help` prints it.

use std::path::{Path, PathBuf};

use corten_bench::place::memory_directory;

const USAGE: &str = "usage: bench [--rounds N] [--warm-up N] [--json FILE] [--corten FILE] [--only NAME,NAME] [--check]
  --rounds N     measured rounds (60)
  --warm-up N    rounds that are not counted (3)
  --json FILE    where the numbers go (target/bench.json)
  --corten FILE  the corten to measure (bin/corten, or beside this program)
  --only LIST    of corten, crun, runc, floor (all that are installed)
  --check        fail when an aim of SPECIFICATION.md is missed";

#[derive(Debug)]
pub struct Options {
    pub rounds: usize,
    pub warm_up: usize,
    pub json: PathBuf,
    pub corten: Option<PathBuf>,
    pub floor: PathBuf,
    pub only: Option<Vec<String>>,
    pub check: bool,
    pub progress: bool,
    /// Where bundles live.
    pub work: PathBuf,
    /// Where the runtimes keep their state: memory, as `/run` is.
    pub state: PathBuf,
}

impl Options {
    pub fn parse() -> Result<Self, String> {
        let beside = std::env::current_exe()
            .ok()
            .and_then(|path| path.parent().map(Path::to_owned))
            .unwrap_or_default();
        let mut options = Options {
            rounds: 60,
            warm_up: 3,
            json: PathBuf::from("target/bench.json"),
            corten: [PathBuf::from("bin/corten"), beside.join("corten")]
                .into_iter()
                .find(|path| path.exists()),
            floor: beside.join("floor"),
            only: None,
            check: false,
            progress: std::io::IsTerminal::is_terminal(&std::io::stderr()),
            state: memory_directory().join(format!("corten-bench-{}", std::process::id())),
            work: std::env::temp_dir().join(format!("corten-bench-{}", std::process::id())),
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            if argument == "--check" {
                options.check = true;
                continue;
            }
            let value = arguments.next().ok_or(USAGE)?;
            let number = || {
                value
                    .parse::<usize>()
                    .map_err(|_| format!("{argument} {value:?} is no number\n{USAGE}"))
            };
            match argument.as_str() {
                "--rounds" => options.rounds = number()?.max(1),
                "--warm-up" => options.warm_up = number()?,
                "--json" => options.json = PathBuf::from(value),
                "--corten" => options.corten = Some(PathBuf::from(value)),
                "--only" => options.only = Some(value.split(',').map(str::to_owned).collect()),
                _ => return Err(USAGE.to_owned()),
            }
        }
        Ok(options)
    }

    pub fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only.iter().any(|one| one == name))
    }
}
