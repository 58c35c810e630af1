//! The numbers, by subject and command.

use std::collections::BTreeMap;

use corten_bench::numbers::Summary;

use crate::spawn::Cost;

/// Every cost, by subject, then by command.
#[derive(Debug, Default)]
pub struct Samples {
    pub costs: BTreeMap<String, BTreeMap<String, Vec<Cost>>>,
    /// The floor's phases in microseconds.
    pub phases: BTreeMap<String, Vec<f64>>,
}

impl Samples {
    pub fn add(&mut self, subject: &str, command: &str, cost: Cost) {
        self.costs
            .entry(subject.to_owned())
            .or_default()
            .entry(command.to_owned())
            .or_default()
            .push(cost);
    }

    /// Statistics of one measure of one command.
    pub fn summary(
        &self,
        subject: &str,
        command: &str,
        measure: fn(&Cost) -> f64,
    ) -> Option<Summary> {
        Summary::of(self.costs.get(subject)?.get(command)?.iter().map(measure).collect())
    }
}
