//! Order statistics, and a generator for the order of rounds.

/// Median and spread.
#[derive(Debug, Clone, Copy)]
pub struct Summary {
    /// The 10th percentile.
    pub low: f64,
    /// The 50th.
    pub median: f64,
    /// The 90th.
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
    /// Another order each time.
    pub fn from_clock() -> Self {
        let now =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Random(now.as_nanos() as u64 | 1)
    }

    /// Puts the items into a random order.
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
