//! The tables, the JSON and the aims of SPECIFICATION.md.

use serde_json::{Value, json};

use crate::latency::{ROWS, Times};
use crate::memory::{Crowd, Growth, Held};

/// The one that the aims are about, and the one that they compare with.
const OURS: &str = "corten";
const PEER: &str = "go+crun";

/// More PSS than this, in KiB, after all execs is growth: a page or two come and go.
const NOISE: f64 = 16.0;

/// One aim: what was asked, what was measured.
#[derive(Debug)]
struct Aim {
    text: String,
    measured: f64,
    limit: f64,
}

/// Everything that was measured.
#[derive(Debug)]
pub struct Report {
    subjects: Vec<&'static str>,
    times: Times,
    crowds: Vec<Crowd>,
    growths: Vec<Growth>,
    aims: Vec<Aim>,
}

/// What a row may cost: a part of the peer's time, or milliseconds.
fn limit(row: &str, peer: Option<f64>) -> Option<(&'static str, f64)> {
    match row {
        "create + start" => Some(("half of go+crun", peer? / 2.0)),
        "exec" => Some(("a third of go+crun", peer? / 3.0)),
        "state" | "pids" => Some(("0.2 ms", 0.2)),
        _ => None,
    }
}

impl Report {
    /// Finds out which aims are met.
    pub fn new(
        subjects: Vec<&'static str>,
        times: Times,
        crowds: Vec<Crowd>,
        growths: Vec<Growth>,
    ) -> Self {
        let mut aims = Vec::new();
        let mut aim = |text: String, measured, limit| aims.push(Aim { text, measured, limit });
        for row in ROWS {
            let median = |subject| times.summary(subject, row).map(|all| all.median);
            if let (Some(ours), Some((words, limit))) = (median(OURS), limit(row, median(PEER))) {
                aim(format!("{row}: at most {words} (ms)"), ours, limit);
            }
        }
        for crowd in crowds.iter().filter(|crowd| crowd.subject == OURS) {
            let count = crowd.count;
            aim(format!("PSS of each of {count} shims, started (KiB)"), crowd.fresh.pss, 400.0);
            aim(format!("PSS of each of {count} shims, after execs (KiB)"), crowd.used.pss, 400.0);
            aim(format!("threads of each of {count} shims"), crowd.used.threads, 1.0);
        }
        for growth in growths.iter().filter(|growth| growth.subject == OURS) {
            let of = format!("after {} execs {}", growth.cycles, streams(growth));
            let more = |field: fn(&Held) -> f64| field(&growth.after) - field(&growth.before);
            aim(format!("more PSS {of} (KiB, {NOISE} is noise)"), more(|held| held.pss), NOISE);
            aim(format!("more fds {of}"), more(|held| held.fds), 0.0);
            aim(format!("more threads {of}"), more(|held| held.threads), 0.0);
        }
        Self { subjects, times, crowds, growths, aims }
    }

    /// True when every aim that could be measured is met.
    pub fn aims_met(&self) -> bool {
        self.aims.iter().all(|aim| aim.measured <= aim.limit)
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut lines = self.latencies();
        lines.extend(self.memories());
        lines.extend(self.growths());
        lines.push(String::new());
        for aim in &self.aims {
            let verdict = if aim.measured <= aim.limit { "met   " } else { "MISSED" };
            lines.push(format!(
                "{verdict} {}: {:.3}, limit {:.3}",
                aim.text, aim.measured, aim.limit
            ));
        }
        lines.join("\n") + "\n"
    }

    fn latencies(&self) -> Vec<String> {
        let mut head = format!("{:18} {:18}", "ms", "aim");
        for subject in &self.subjects {
            head.push_str(&format!(" {subject:>8} {:>15}", "p10-p90"));
            if *subject != PEER {
                head.push_str(&format!(" {:>8}", "/go+crun"));
            }
        }
        let mut lines = vec![head];
        for row in ROWS {
            let peer = self.times.summary(PEER, row).map(|all| all.median);
            let aim = limit(row, peer.or(Some(f64::NAN))).map_or("", |(words, _)| words);
            let mut line = format!("{row:18} {aim:18}");
            for subject in &self.subjects {
                let Some(time) = self.times.summary(subject, row) else { continue };
                let spread = format!("{:.3}-{:.3}", time.low, time.high);
                line.push_str(&format!(" {:8.3} {spread:>15}", time.median));
                if *subject != PEER {
                    let ratio = peer.map_or(f64::NAN, |peer| time.median / peer);
                    line.push_str(&format!(" {ratio:8.2}"));
                }
            }
            lines.push(line);
        }
        lines.push("exec = Exec + Start until Wait answers; kill = until Wait answers; shutdown = until the shim has ended".to_owned());
        lines
    }

    fn memories(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let names = ["PSS KiB", "of it anon", "dirty KiB", "threads", "fds", "PSS used", "most"];
        for crowd in &self.crowds {
            if lines.is_empty() {
                lines.push(String::new());
                lines.push(format!(
                    "{} shims{}",
                    crowd.count,
                    names.map(|name| format!(" {name:>10}")).concat()
                ));
                lines.push(format!("{:9}{:>11}{:>44}", "aim", "400", "1"));
            }
            let Held { pss, anonymous, private_dirty, threads, fds } = crowd.fresh;
            let values = [pss, anonymous, private_dirty, threads, fds, crowd.used.pss, crowd.most];
            let values = values.map(|value| format!(" {value:10.1}")).concat();
            lines.push(format!("{:8}{values}", crowd.subject));
        }
        lines
    }

    fn growths(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for growth in &self.growths {
            let (before, after, [first, last]) = (growth.before, growth.after, growth.pace);
            if lines.is_empty() {
                lines.push(String::new());
            }
            lines.push(format!(
                "{:8} {} execs {}: PSS {:.0} -> {:.0} KiB, anon {:.0} -> {:.0}, fds {} -> {}, threads {} -> {}, a cycle {first:.2} -> {last:.2} ms",
                growth.subject, growth.cycles, streams(growth), before.pss, after.pss,
                before.anonymous, after.anonymous, before.fds, after.fds, before.threads,
                after.threads,
            ));
        }
        lines
    }

    /// For programs.
    pub fn json(&self) -> String {
        let mut times = serde_json::Map::new();
        for subject in &self.subjects {
            let rows: serde_json::Map<String, Value> = ROWS
                .iter()
                .filter_map(|row| Some((row, self.times.summary(subject, row)?)))
                .map(|(row, all)| {
                    let value = json!({"p10": all.low, "median": all.median, "p90": all.high});
                    ((*row).to_owned(), value)
                })
                .collect();
            times.insert((*subject).to_owned(), Value::Object(rows));
        }
        let held = |held: &Held| {
            json!({"pss_kib": held.pss, "anonymous_kib": held.anonymous,
                "private_dirty_kib": held.private_dirty, "threads": held.threads, "fds": held.fds})
        };
        let crowds = self.crowds.iter().map(|crowd| {
            json!({"subject": crowd.subject, "count": crowd.count, "fresh": held(&crowd.fresh),
                "used": held(&crowd.used)})
        });
        let growths = self.growths.iter().map(|growth| {
            json!({"subject": growth.subject, "fifos": growth.fifos, "cycles": growth.cycles,
                "before": held(&growth.before), "after": held(&growth.after)})
        });
        let aims = self.aims.iter().map(|aim| {
            json!({"aim": aim.text, "measured": aim.measured, "limit": aim.limit,
                "met": aim.measured <= aim.limit})
        });
        json!({
            "milliseconds": times,
            "crowds": crowds.collect::<Vec<_>>(),
            "growths": growths.collect::<Vec<_>>(),
            "aims": aims.collect::<Vec<_>>(),
        })
        .to_string()
    }
}

fn streams(growth: &Growth) -> &'static str {
    if growth.fifos { "with FIFOs" } else { "without streams" }
}
