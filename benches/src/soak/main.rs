//! `soak`: 100,000 exits in a few shims while containerd's event service is stopped, restarted,
//! silent and killed at random; see `corten_integration::shim::soak`.
//!
//! Round by round, each in a world of its own that must be clean when it is over. It prints what
//! came of each and of all, and fails if a promise was broken.

use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use corten_integration::managers::sandbox::{self, Suite};
use corten_integration::managers::{Verdict, check, trial};
use corten_integration::shim::notes::Tally;
use corten_integration::shim::soak::{self, Plan};
use corten_integration::shim::{self, World};
use libtest_mimic::Trial;

const USAGE: &str = "usage: soak [EXITS [SEED]]   (100000, the time)";
/// What the command line says, for the processes of the sandbox.
const EXITS: &str = "CORTEN_SOAK_EXITS";
const SEED: &str = "CORTEN_SOAK_SEED";
/// Exits of one round.
const ROUND: usize = 4000;
const SHIMS: usize = 4;

/// All rounds together.
static TOTAL: Mutex<Option<Tally>> = Mutex::new(None);
static NEXT: AtomicU64 = AtomicU64::new(0);

fn main() -> ExitCode {
    if std::env::var_os(EXITS).is_none() {
        return outside();
    }
    let needs = &[("prlimit", "util-linux"), ("/bin/busybox", "busybox-static")];
    let stop = |_: &sandbox::Sandbox| Ok(());
    let suite = Suite { name: "soak", needs, threads: 1, start: shim::enter, trials, stop };
    let code = sandbox::main(&suite);
    if let Ok(Some(total)) = TOTAL.lock().as_deref() {
        println!("soak: {total}");
    }
    code
}

/// Puts the arguments where every process of the sandbox finds them.
fn outside() -> ExitCode {
    let now = std::time::UNIX_EPOCH.elapsed().map_or(1, |since| since.as_secs());
    let words: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, usual: u64| words.get(at).map_or(Ok(usual), |word| word.parse());
    let (Ok(exits), Ok(seed), None) = (number(0, 100_000), number(1, now), words.get(2)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    println!("soak: {exits} exits, seed {seed}");
    let again = std::env::current_exe().and_then(|exe| {
        Command::new(exe).env(EXITS, exits.to_string()).env(SEED, seed.to_string()).status()
    });
    match again {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("soak: {error}");
            ExitCode::FAILURE
        }
    }
}

fn setting(name: &str) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(1)
}

fn trials() -> Vec<Trial> {
    let rounds = (setting(EXITS) as usize).div_ceil(ROUND);
    let name = |number: usize| format!("round {} of {rounds}", number + 1);
    (0..rounds).map(|number| trial("soak", &name(number), || World::run(round))).collect()
}

fn round(world: &World) -> Verdict {
    let exits = ROUND.min(setting(EXITS) as usize);
    let seed = setting(SEED).wrapping_mul(1000) + NEXT.fetch_add(1, Ordering::Relaxed);
    let tally = soak::run(world, &Plan { exits, shims: SHIMS, seed })?;
    println!("seed {seed}: {tally}");
    if let Ok(mut total) = TOTAL.lock() {
        total.get_or_insert_default().add(&tally);
    }
    check(tally.violations() == 0, format!("{tally}"))
}
