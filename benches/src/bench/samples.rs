//! The numbers: by subject and command, and their order statistics.

use std::collections::BTreeMap;

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

/// Median and spread.
#[derive(Debug, Clone, Copy)]
pub struct Summary {
    pub low: f64,
    pub median: f64,
    pub high: f64,
}

impl Summary {
    /// The 10th, 50th and 90th percentile; None without samples.
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let at =
            |part: f64| values.get(((values.len() as f64 - 1.0) * part).round() as usize).copied();
        Some(Summary { low: at(0.1)?, median: at(0.5)?, high: at(0.9)? })
    }
}

/// A small generator: the order of the rounds needs no quality, only no pattern.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    pub fn from_clock() -> Self {
        let now =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Random(now.as_nanos() as u64 | 1)
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            items.swap(last, (self.0 % (last as u64 + 1)) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples() {
        let summary = Summary::of((0..=100).rev().map(f64::from).collect())
            .map(|s| (s.low, s.median, s.high));
        assert_eq!(summary, Some((10.0, 50.0, 90.0)));
        assert!(Summary::of(Vec::new()).is_none());
    }

    #[test]
    fn a_shuffle_keeps_every_item() {
        let mut items = [1, 2, 3, 4, 5];
        Random(7).shuffle(&mut items);
        items.sort_unstable();
        assert_eq!(items, [1, 2, 3, 4, 5]);
    }
}
