//! What shims hold: forty of them at once, and one before and after very many execs.

use std::path::Path;
use std::time::Duration;

use corten_bench::bundle;
use corten_bench::numbers::Summary;

use crate::options::Options;
use crate::subject::{Fifos, Shim, Subject};

/// What one process holds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Held {
    /// Its proportional share of memory, in KiB.
    pub pss: f64,
    /// Of that, what is not backed by a file.
    pub anonymous: f64,
    /// What it has written and nobody shares, in KiB.
    pub private_dirty: f64,
    /// Its threads.
    pub threads: f64,
    /// Its open descriptors.
    pub fds: f64,
}

impl Held {
    /// Of the process with this number.
    pub fn by(pid: i32) -> Result<Self, String> {
        let proc = Path::new("/proc").join(pid.to_string());
        let path = proc.join("smaps_rollup");
        let text = std::fs::read_to_string(&path).map_err(|error| format!("{path:?}: {error}"))?;
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            line.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(f64::NAN)
        };
        let entries = |name: &str| {
            let entries = std::fs::read_dir(proc.join(name)).map(Iterator::count);
            entries.map(|count| count as f64).map_err(|error| format!("{proc:?}/{name}: {error}"))
        };
        Ok(Self {
            pss: field("Pss:"),
            anonymous: field("Pss_Anon:"),
            private_dirty: field("Private_Dirty:"),
            threads: entries("task")?,
            fds: entries("fd")?,
        })
    }

    /// The mean of each.
    fn mean(all: &[Self]) -> Self {
        let mean = |of: fn(&Self) -> f64| all.iter().map(of).sum::<f64>() / all.len() as f64;
        Self {
            pss: mean(|held| held.pss),
            anonymous: mean(|held| held.anonymous),
            private_dirty: mean(|held| held.private_dirty),
            threads: mean(|held| held.threads),
            fds: mean(|held| held.fds),
        }
    }
}

/// Many shims of one kind, one container in each.
#[derive(Debug)]
pub struct Crowd {
    /// Which shim.
    pub subject: &'static str,
    /// How many.
    pub count: usize,
    /// The mean, when all containers have been started.
    pub fresh: Held,
    /// The mean, when each has had execs and queries.
    pub used: Held,
    /// The shim that holds most then.
    pub most: f64,
}

/// Measures a crowd of each subject, one after the other.
pub fn crowds(subjects: &[Subject], options: &Options) -> Result<Vec<Crowd>, String> {
    subjects.iter().map(|subject| crowd(subject, options)).collect()
}

fn crowd(subject: &Subject, options: &Options) -> Result<Crowd, String> {
    let mut shims = Vec::new();
    let mut bundles = Vec::new();
    for number in 0..options.containers {
        let name = format!("shim-{}-{number}", subject.name);
        let bundle = bundle::write(&options.place, &name, &["/bin/sleep", "1000"])?;
        let mut shim = subject.boot(&bundle, &format!("{}-m{number}", subject.name))?;
        shim.create()?;
        shim.start()?;
        shims.push(shim);
        bundles.push(bundle);
        options.progress(&format!("{} {} of {}", subject.name, number + 1, options.containers));
    }
    let fresh = settled(&shims)?;
    for shim in &mut shims {
        for exec in 0..3 {
            let exec_id = format!("e{exec}");
            shim.exec(&exec_id, None)?;
            shim.delete(&exec_id)?;
        }
    }
    let used = settled(&shims)?;
    for shim in shims {
        shim.end()?;
    }
    for bundle in bundles {
        std::fs::remove_dir_all(&bundle).map_err(|error| format!("{bundle:?}: {error}"))?;
    }
    let most = used.iter().map(|held| held.pss).fold(0.0, f64::max);
    let (fresh, used) = (Held::mean(&fresh), Held::mean(&used));
    Ok(Crowd { subject: subject.name, count: options.containers, fresh, used, most })
}

/// What each holds when it has had a second of rest.
fn settled(shims: &[Shim]) -> Result<Vec<Held>, String> {
    std::thread::sleep(Duration::from_secs(1));
    shims.iter().map(|shim| Held::by(shim.pid)).collect()
}

/// One shim before and after execs.
#[derive(Debug)]
pub struct Growth {
    /// Which shim.
    pub subject: &'static str,
    /// With FIFOs, or without streams.
    pub fifos: bool,
    /// How many execs came between.
    pub cycles: usize,
    /// After the first hundred.
    pub before: Held,
    /// After all.
    pub after: Held,
    /// Milliseconds of a cycle, in the first and the last tenth.
    pub pace: [f64; 2],
}

/// The first of these fill caches.
const WARM_UP: usize = 100;

/// Executes `cycles` processes in one container of a new shim.
pub fn growth(
    subject: &Subject,
    options: &Options,
    fifos: bool,
    cycles: usize,
) -> Result<Growth, String> {
    let name = format!("shim-{}-growth", subject.name);
    let bundle = bundle::write(&options.place, &name, &["/bin/sleep", "100000"])?;
    let mut shim = subject.boot(&bundle, &format!("{}-growth", subject.name))?;
    shim.create()?;
    shim.start()?;
    let mut times = Vec::new();
    let mut before = Held::default();
    for cycle in 0..WARM_UP + cycles {
        if cycle == WARM_UP {
            before = settled(std::slice::from_ref(&shim))?[0];
        }
        let begun = std::time::Instant::now();
        let exec_id = format!("e{cycle}");
        let streams = if fifos { Some(Fifos::new(&bundle)?) } else { None };
        shim.exec(&exec_id, streams.as_ref().and_then(Fifos::streams))?;
        shim.delete(&exec_id)?;
        streams.map_or(Ok(()), Fifos::close)?;
        times.push(begun.elapsed().as_secs_f64() * 1e3);
        if cycle % 100 == 0 {
            options.progress(&format!("{} exec {cycle} of {cycles}", subject.name));
        }
    }
    let after = settled(std::slice::from_ref(&shim))?[0];
    shim.end()?;
    std::fs::remove_dir_all(&bundle).map_err(|error| format!("{bundle:?}: {error}"))?;
    let times = &times[WARM_UP..];
    let tenth = (times.len() / 10).max(1);
    let median = |part: &[f64]| Summary::of(part.to_vec()).map_or(f64::NAN, |all| all.median);
    let pace = [median(&times[..tenth]), median(&times[times.len() - tenth..])];
    Ok(Growth { subject: subject.name, fifos, cycles, before, after, pace })
}
