//! Rounds: a whole life in each shim, every call timed at the socket.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use containerd_shim_protos::api::{
    PidsRequest, PidsResponse, StateRequest, StateResponse, StatsRequest, StatsResponse,
};
use containerd_shim_protos::ttrpc;
use corten_bench::bundle;
use corten_bench::numbers::{Random, Summary};
use protobuf::Message;

use crate::client::Client;
use crate::options::Options;
use crate::subject::{Log, Subject};

/// The rows in the order of the report.
pub const ROWS: [&str; 15] = [
    "boot",
    "create",
    "start",
    "create + start",
    "exec",
    "exec with FIFOs",
    "delete of exec",
    "state",
    "state, ttrpc crate",
    "pids",
    "stats",
    "kill",
    "delete",
    "shutdown",
    "whole life",
];

/// How often a round asks what is answered at once, and executes something.
const QUERIES: usize = 20;
const EXECS: usize = 4;

/// Milliseconds by shim and row.
#[derive(Debug, Default)]
pub struct Times(BTreeMap<(&'static str, &'static str), Vec<f64>>);

impl Times {
    fn add(&mut self, subject: &Subject, row: &'static str, milliseconds: f64) {
        self.0.entry((subject.name, row)).or_default().push(milliseconds);
    }

    fn timed<T>(
        &mut self,
        subject: &Subject,
        row: &'static str,
        work: impl FnOnce() -> Result<T, String>,
    ) -> Result<T, String> {
        let begun = Instant::now();
        let result = work().map_err(|error| format!("{}: {row}: {error}", subject.name))?;
        self.add(subject, row, begun.elapsed().as_secs_f64() * 1e3);
        Ok(result)
    }

    fn last(&self, subject: &Subject, row: &'static str) -> f64 {
        self.0.get(&(subject.name, row)).and_then(|all| all.last()).copied().unwrap_or(f64::NAN)
    }

    /// Statistics of one row.
    pub fn summary(&self, subject: &'static str, row: &'static str) -> Option<Summary> {
        Summary::of(self.0.get(&(subject, row))?.clone())
    }
}

/// All rounds, in an order that is new each time.
pub fn measure(subjects: &[Subject], options: &Options) -> Result<Times, String> {
    let mut placed = Vec::new();
    for subject in subjects {
        let name = format!("shim-{}", subject.name);
        placed.push((subject, bundle::write(&options.place, &name, &["/bin/sleep", "1000"])?));
    }
    let (mut times, mut random) = (Times::default(), Random::from_clock());
    for number in 0..options.warm_up + options.rounds {
        random.shuffle(&mut placed);
        for placed in &placed {
            let mut ignored = Times::default();
            let times = if number < options.warm_up { &mut ignored } else { &mut times };
            round(placed, number, times)?;
        }
        options.progress(&format!("round {} of {}", number + 1, options.warm_up + options.rounds));
    }
    Ok(times)
}

fn round(
    (subject, bundle): &(&Subject, PathBuf),
    number: usize,
    times: &mut Times,
) -> Result<(), String> {
    let id = format!("{}-{number}", subject.name);
    let begun = Instant::now();
    let log = Log::new(bundle)?;
    let address = times.timed(subject, "boot", || subject.start(bundle, &id))?;
    let mut shim = subject.connect(bundle, &id, &address, log)?;
    times.timed(subject, "create", || shim.create())?;
    times.timed(subject, "start", || shim.start())?;
    let both = times.last(subject, "create") + times.last(subject, "start");
    times.add(subject, "create + start", both);
    let paused = begun.elapsed();
    queries(subject, &mut shim.client, &id, times)?;
    foreign_state(subject, &address, &id, times)?;
    for exec in 0..EXECS {
        let exec_id = format!("e{exec}");
        times.timed(subject, "exec", || shim.exec(&exec_id, None))?;
        times.timed(subject, "delete of exec", || shim.delete(&exec_id))?;
        let fifos = crate::subject::Fifos::new(bundle)?;
        times.timed(subject, "exec with FIFOs", || shim.exec(&exec_id, fifos.streams()))?;
        shim.delete(&exec_id)?;
        fifos.close()?;
    }
    let resumed = Instant::now();
    times.timed(subject, "kill", || shim.kill())?;
    times.timed(subject, "delete", || shim.delete(""))?;
    times.timed(subject, "shutdown", || shim.shutdown())?;
    let life = (paused + resumed.elapsed()).as_secs_f64() * 1e3;
    times.add(subject, "whole life", life);
    Ok(())
}

fn queries(
    subject: &Subject,
    client: &mut Client,
    id: &str,
    times: &mut Times,
) -> Result<(), String> {
    let state = StateRequest { id: id.to_owned(), ..StateRequest::default() };
    let pids = PidsRequest { id: id.to_owned(), ..PidsRequest::default() };
    let stats = StatsRequest { id: id.to_owned(), ..StatsRequest::default() };
    for _ in 0..QUERIES {
        times.timed(subject, "state", || client.call::<_, StateResponse>("State", &state))?;
        times.timed(subject, "pids", || client.call::<_, PidsResponse>("Pids", &pids))?;
        times.timed(subject, "stats", || client.call::<_, StatsResponse>("Stats", &stats))?;
    }
    Ok(())
}

/// State once more, through a client that is not ours: its threads are part of the time.
fn foreign_state(
    subject: &Subject,
    address: &str,
    id: &str,
    times: &mut Times,
) -> Result<(), String> {
    let client = ttrpc::Client::connect(address).map_err(|error| error.to_string())?;
    let query = StateRequest { id: id.to_owned(), ..StateRequest::default() };
    let payload = query.write_to_bytes().map_err(|error| error.to_string())?;
    let request = ttrpc::Request {
        service: "containerd.task.v2.Task".to_owned(),
        method: "State".to_owned(),
        payload,
        ..ttrpc::Request::default()
    };
    for _ in 0..QUERIES {
        let request = request.clone();
        times.timed(subject, "state, ttrpc crate", || {
            client.request(request).map_err(|error| error.to_string())
        })?;
    }
    Ok(())
}
