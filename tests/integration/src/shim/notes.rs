//! What a soak has seen with its own eyes, and whether the daemon was told the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Instant;

use containerd_shim_protos::events::task::TaskExit;

use super::events::Event;

/// One container from Create to Delete.
#[derive(Debug)]
pub struct Life {
    /// In which shim it was.
    pub shim: usize,
    /// Its id.
    pub id: String,
    /// How its init ended.
    pub status: u32,
    execs: Vec<Exec>,
    count: u32,
}

/// One exec.
#[derive(Debug)]
struct Exec {
    id: String,
    /// How it ended; none if its Start was refused.
    status: Option<u32>,
    /// Whether the container's end can have come between its start and its program.
    certain: bool,
}

impl Life {
    /// A container whose init ends like this.
    pub fn new(shim: usize, id: &str, status: u32) -> Self {
        Self { shim, id: id.to_owned(), status, execs: Vec::new(), count: 0 }
    }

    /// The id of the next exec. The same few are used again in each container.
    pub fn next_exec(&mut self) -> String {
        self.count += 1;
        format!("e{}", self.count)
    }

    /// Notes an exec.
    pub fn exec(&mut self, id: &str, status: Option<u32>, certain: bool) {
        self.execs.push(Exec { id: id.to_owned(), status, certain });
    }

    /// How many exits must be told.
    pub fn told(&self) -> usize {
        1 + self.execs.iter().filter(|exec| exec.status.is_some()).count()
    }
}

/// When connections were cut.
#[derive(Debug, Clone, Copy)]
pub struct Outage {
    /// Its begin.
    pub from: Instant,
    /// Its end.
    pub to: Instant,
}

/// What came of it.
#[derive(Debug, Default, Clone)]
pub struct Tally {
    /// Exits that had to be told.
    pub exits: usize,
    /// Not told.
    pub lost: usize,
    /// Told at the wrong place.
    pub out_of_order: usize,
    /// Told twice without a lost connection between.
    pub twice: usize,
    /// Told with a wrong status, or of a process that never was.
    pub wrong: usize,
    /// Told once more after a lost connection, as they may be.
    pub repeats: usize,
    /// Lost connections, or daemons that were gone.
    pub outages: usize,
    /// Exits of a process with a pid that another process of its shim had had.
    pub reused: usize,
    /// The first few violations in words.
    pub words: Vec<String>,
}

impl Tally {
    /// How often a promise was broken.
    pub fn violations(&self) -> usize {
        self.lost + self.out_of_order + self.twice + self.wrong
    }

    /// Both together.
    pub fn add(&mut self, other: &Self) {
        self.exits += other.exits;
        self.lost += other.lost;
        self.out_of_order += other.out_of_order;
        self.twice += other.twice;
        self.wrong += other.wrong;
        self.repeats += other.repeats;
        self.outages += other.outages;
        self.reused += other.reused;
        self.words.extend(other.words.iter().cloned());
    }

    fn note(&mut self, words: String) {
        if self.words.len() < 20 {
            self.words.push(words);
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { exits, lost, out_of_order, twice, wrong, repeats, outages, reused, words } =
            self;
        write!(
            f,
            "{exits} exits: {lost} lost, {out_of_order} out of order, {twice} twice, {wrong} wrong; \
             {repeats} events repeated over {outages} outages, {reused} pids reused"
        )?;
        words.iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

/// Holds what was told against what was seen.
pub fn audit(lives: &[Life], events: &[Event], outages: &[Outage]) -> Tally {
    let mut tally = Tally { outages: outages.len(), ..Tally::default() };
    let mut by_shim: BTreeMap<usize, Vec<&Event>> = BTreeMap::new();
    let shims: BTreeMap<&str, usize> = lives.iter().map(|life| (&*life.id, life.shim)).collect();
    for event in events {
        let line = event.line();
        let container = line.split(' ').nth(1).unwrap_or_default();
        match shims.get(container) {
            Some(shim) => by_shim.entry(*shim).or_default().push(event),
            None => {
                tally.wrong += 1;
                tally.note(format!("of no container: {line}"));
            }
        }
    }
    let mut told: BTreeMap<String, Vec<(usize, String)>> = BTreeMap::new();
    for events in by_shim.into_values() {
        for (at, event) in without_repeats(events, outages, &mut tally).into_iter().enumerate() {
            let line = event.line();
            let container = line.split(' ').nth(1).unwrap_or_default().to_owned();
            told.entry(container).or_default().push((at, line));
        }
    }
    for life in lives {
        check(life, told.get(&life.id).map_or(&[], Vec::as_slice), &mut tally);
    }
    tally
}

/// One shim's events in order; what was repeated after a lost connection is counted and dropped.
fn without_repeats<'a>(
    events: Vec<&'a Event>,
    outages: &[Outage],
    tally: &mut Tally,
) -> Vec<&'a Event> {
    let mut all: Vec<&Event> = Vec::new();
    let mut pids = BTreeSet::new();
    for event in events {
        if let Some(last) = all.last() {
            let same =
                (&last.topic, &last.stamp, &last.body) == (&event.topic, &event.stamp, &event.body);
            let cut = !last.answered
                || outages.iter().any(|outage| outage.from <= event.at && outage.to >= last.at);
            if same && cut {
                tally.repeats += 1;
                continue;
            }
            let stamp = |event: &Event| (event.stamp.seconds, event.stamp.nanos);
            if stamp(event) < stamp(last) {
                tally.out_of_order += 1;
                tally.note(format!("older than {}: {}", last.line(), event.line()));
            }
        }
        if event.topic == "/tasks/exit"
            && let Ok(exit) = event.decode::<TaskExit>()
        {
            tally.reused += usize::from(!pids.insert(exit.pid));
        }
        all.push(event);
    }
    all
}

/// One container: what was told of it, with each event's place among its shim's.
fn check(life: &Life, told: &[(usize, String)], tally: &mut Tally) {
    let id = &life.id;
    let place = |words: &str, exact: bool, wanted: bool, tally: &mut Tally| {
        let fits = |line: &str| if exact { line == words } else { line.starts_with(words) };
        let mut found = told.iter().filter(|(_, line)| fits(line)).map(|(at, _)| *at);
        let first = found.next();
        let more = found.count();
        if more > 0 {
            tally.twice += more;
            tally.note(format!("{} times: {words}", more + 1));
        }
        if wanted && first.is_none() {
            tally.lost += 1;
            tally.note(format!("lost: {words}"));
        }
        first
    };
    let mut order = vec![place(&format!("create {id}"), true, true, tally)];
    order.push(place(&format!("start {id}"), true, true, tally));
    let init = place(&format!("exit {id} {id} "), false, true, tally);
    for exec in &life.execs {
        let name = &exec.id;
        let wanted = exec.status.is_some();
        let added = place(&format!("exec-added {id} {name}"), true, true, tally);
        let started = place(&format!("exec-started {id} {name}"), true, wanted, tally);
        let ended = place(&format!("exit {id} {name} "), false, wanted, tally);
        in_order(&[order[1], added, started, ended, init], id, name, tally);
        let words = exec.status.map(|status| format!("exit {id} {name} {status}"));
        right(words.filter(|_| exec.certain), ended, told, tally);
    }
    right(Some(format!("exit {id} {id} {}", life.status)), init, told, tally);
    order.extend([init, place(&format!("delete {id}"), true, true, tally)]);
    in_order(&order, id, "", tally);
    tally.exits += life.told();
}

fn in_order(places: &[Option<usize>], id: &str, exec: &str, tally: &mut Tally) {
    if !places.iter().flatten().is_sorted() {
        tally.out_of_order += 1;
        tally.note(format!("out of order: {id} {exec}: {places:?}"));
    }
}

fn right(words: Option<String>, at: Option<usize>, told: &[(usize, String)], tally: &mut Tally) {
    let line = told.iter().find(|(place, _)| Some(*place) == at).map(|(_, line)| line);
    if let (Some(words), Some(line)) = (words, line)
        && words != *line
    {
        tally.wrong += 1;
        tally.note(format!("wanted {words}: {line}"));
    }
}
