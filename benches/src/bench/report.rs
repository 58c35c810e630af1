//! The table, the JSON and the aims of SPECIFICATION.md.

use std::fmt::Write;

use corten_bench::numbers::Summary;
use serde_json::{Value, json};

use crate::life::COMMANDS;
use crate::samples::Samples;
use crate::spawn::Cost;

/// The floor's phases in the order in which they happen.
const PHASES: [&str; 14] = [
    "total",
    "cgroup_make",
    "clone",
    "child_runs",
    "join",
    "network",
    "mounts",
    "devices",
    "masks",
    "pivot",
    "identity",
    "seccomp",
    "exec_to_exit",
    "cgroup_remove",
];

/// One aim: what was asked, what was measured.
#[derive(Debug)]
struct Aim {
    text: String,
    measured: f64,
    limit: f64,
}

#[derive(Debug)]
pub struct Report<'samples> {
    samples: &'samples Samples,
    aims: Vec<Aim>,
}

fn wall(cost: &Cost) -> f64 {
    cost.wall
}

fn memory(cost: &Cost) -> f64 {
    cost.memory
}

fn cpu(cost: &Cost) -> f64 {
    cost.cpu
}

impl<'samples> Report<'samples> {
    pub fn new(samples: &'samples Samples) -> Self {
        let mut report = Report { samples, aims: Vec::new() };
        for command in COMMANDS {
            if let (Some(corten), Some(crun)) =
                (report.median("corten", command), report.median("crun", command))
            {
                report.aims.push(Aim {
                    text: format!("{command}: at most half of crun's time (ms)"),
                    measured: corten,
                    limit: crun / 2.0,
                });
            }
        }
        if let (Some(life), Some(floor), Some(noop)) =
            (report.median("corten", "life"), report.phase("total"), report.median("floor", "noop"))
        {
            report.aims.push(Aim {
                text: "create + start + delete: at most 2 floors + 3 process starts (ms)"
                    .to_owned(),
                measured: life,
                limit: 2.0 * floor.median / 1e3 + 3.0 * noop,
            });
        }
        for command in COMMANDS {
            let peak =
                |subject| samples.summary(subject, command, memory).map(|summary| summary.median);
            if let (Some(corten), Some(crun)) = (peak("corten"), peak("crun")) {
                report.aims.push(Aim {
                    text: format!("{command}: at most crun's peak memory (KiB)"),
                    measured: corten,
                    limit: crun,
                });
            }
        }
        report
    }

    /// True when every aim that could be measured is met.
    pub fn aims_met(&self) -> bool {
        self.aims.iter().all(|aim| aim.measured <= aim.limit)
    }

    fn median(&self, subject: &str, command: &str) -> Option<f64> {
        self.samples.summary(subject, command, wall).map(|summary| summary.median)
    }

    fn phase(&self, name: &str) -> Option<Summary> {
        Summary::of(self.samples.phases.get(name)?.clone())
    }

    fn subjects(&self) -> impl Iterator<Item = &str> {
        ["corten", "crun", "runc"].into_iter().filter(|name| self.samples.costs.contains_key(*name))
    }

    pub fn table(&self) -> String {
        let mut out = String::new();
        self.times(&mut out);
        self.memories(&mut out);
        self.floor(&mut out);
        for aim in &self.aims {
            let verdict = if aim.measured <= aim.limit { "met   " } else { "MISSED" };
            put(
                &mut out,
                format!("{verdict} {}: {:.2}, limit {:.2}", aim.text, aim.measured, aim.limit),
            );
        }
        out
    }

    fn times(&self, out: &mut String) {
        let mut head = format!("{:8}", "ms");
        for subject in self.subjects() {
            head.push_str(&format!(" {subject:>8} {:>13} {:>6}", "p10-p90", "/crun"));
        }
        put(out, head);
        for command in COMMANDS {
            let mut row = format!("{command:8}");
            for subject in self.subjects() {
                let Some(time) = self.samples.summary(subject, command, wall) else { continue };
                let ratio =
                    self.median("crun", command).map_or(f64::NAN, |crun| time.median / crun);
                let spread = format!("{:.2}-{:.2}", time.low, time.high);
                row.push_str(&format!(" {:8.2} {spread:>13} {ratio:6.2}", time.median));
            }
            put(out, row);
        }
        put(out, "life = create + start + delete".to_owned());
    }

    fn memories(&self, out: &mut String) {
        let mut head = format!("\n{:8}", "KiB peak");
        for subject in self.subjects() {
            head.push_str(&format!(" {subject:>8}"));
        }
        put(out, head);
        for command in COMMANDS {
            let mut row = format!("{command:8}");
            for subject in self.subjects() {
                let peak = self
                    .samples
                    .summary(subject, command, memory)
                    .map_or(f64::NAN, |summary| summary.median);
                row.push_str(&format!(" {peak:8.0}"));
            }
            put(out, row);
        }
    }

    fn floor(&self, out: &mut String) {
        let Some(total) = self.phase("total") else { return };
        let milliseconds = |command| self.median("floor", command).unwrap_or(f64::NAN);
        put(
            out,
            format!(
                "\nfloor: a whole life {:.2} ms inside one program ({:.2} with its start); a process start {:.2} ms, {:.0} KiB",
                total.median / 1e3,
                milliseconds("run"),
                milliseconds("noop"),
                self.samples.summary("floor", "noop", memory).map_or(f64::NAN, |peak| peak.median)
            ),
        );
        let phases: Vec<String> = PHASES[1..]
            .iter()
            .filter_map(|name| Some(format!("{name} {:.0}", self.phase(name)?.median)))
            .collect();
        put(out, format!("floor by phase, µs: {}", phases.join(", ")));
        for subject in self.subjects() {
            if let Some(life) = self.median(subject, "life") {
                put(out, format!("{subject}: life is {:.2} floors", life * 1e3 / total.median));
            }
        }
        put(out, String::new());
    }

    pub fn json(&self) -> String {
        let statistics = |summary: Summary| json!({"p10": summary.low, "median": summary.median, "p90": summary.high});
        let mut subjects = serde_json::Map::new();
        for (subject, commands) in &self.samples.costs {
            let mut all = serde_json::Map::new();
            for (command, costs) in commands {
                let of = |measure| {
                    self.samples.summary(subject, command, measure).map_or(Value::Null, statistics)
                };
                all.insert(
                    command.clone(),
                    json!({
                        "samples": costs.len(),
                        "wall_ms": of(wall),
                        "cpu_ms": of(cpu),
                        "peak_kib": of(memory),
                        "ratio_to_crun": self.median("crun", command)
                            .zip(self.median(subject, command)).map(|(crun, own)| own / crun),
                    }),
                );
            }
            subjects.insert(subject.clone(), Value::Object(all));
        }
        let phases: serde_json::Map<String, Value> = PHASES
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), statistics(self.phase(name)?))))
            .collect();
        let aims: Vec<Value> = self
            .aims
            .iter()
            .map(|aim| json!({"aim": aim.text, "measured": aim.measured, "limit": aim.limit, "met": aim.measured <= aim.limit}))
            .collect();
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        json!({"kernel": kernel.trim(), "subjects": subjects, "floor_phases_us": phases, "aims": aims}).to_string()
    }
}

/// Adds a line.
fn put(out: &mut String, line: String) {
    // Writing to a String has no failure.
    let _infallible = writeln!(out, "{line}");
}
