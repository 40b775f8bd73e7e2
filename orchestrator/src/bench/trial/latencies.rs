//! How long packets were under way.

use hdrhistogram::Histogram;

/// The longest latency that is told apart, in nanoseconds.
const LONGEST: u64 = 100_000_000_000;

/// A histogram, and the last values while they are the same: packets of a burst that are sent and found together.
pub struct Latencies {
    histogram: Histogram<u64>,
    value: u64,
    count: u64,
}

impl Latencies {
    /// None.
    pub fn new() -> Self {
        let mut histogram = Histogram::new_with_bounds(1, LONGEST, 3)
            .unwrap_or_else(|error| unreachable!("constant bounds: {error}"));
        histogram.auto(false);
        Self {
            histogram,
            value: 1,
            count: 0,
        }
    }

    /// Adds one, in nanoseconds.
    #[inline]
    pub fn record(&mut self, value: u64) {
        if value != self.value {
            if self.count > 0 {
                self.histogram.saturating_record_n(self.value, self.count);
            }
            (self.value, self.count) = (value, 0);
        }
        self.count += 1;
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.histogram.reset();
        (self.value, self.count) = (1, 0);
    }

    /// The longest, 1 if there is none.
    pub fn longest(&self) -> u64 {
        self.histogram.max().max(self.value)
    }

    /// All of them.
    pub fn all(&self) -> Histogram<u64> {
        let mut all = self.histogram.clone();
        if self.count > 0 {
            all.saturating_record_n(self.value, self.count);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_one_counts() {
        let (mut ours, mut plain) = (Latencies::new(), Latencies::new().all());
        for round in 0..2 {
            ours.clear();
            plain.reset();
            for value in [5, 5, 5, 7, 5, 1, 1, 9000, 9000, LONGEST * 2, 3, 3 + round] {
                ours.record(value);
                plain.saturating_record(value);
                assert_eq!(ours.all(), plain);
            }
        }
    }
}
