//! What a histogram of latencies comes down to.

use hdrhistogram::Histogram;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Latency in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Latency {
    /// Packets (or connections, or transactions) measured.
    pub count: u64,
    /// The shortest.
    pub min: u64,
    /// The average.
    pub mean: f64,
    /// Half took at most this.
    pub p50: u64,
    /// 90 % took at most this.
    pub p90: u64,
    /// 99 %.
    pub p99: u64,
    /// 99.9 %.
    pub p99_9: u64,
    /// 99.99 %.
    pub p99_99: u64,
    /// The longest.
    pub max: u64,
    /// The distribution: pairs of a percentile and the latency that it does not exceed, denser towards 100.
    pub curve: Vec<(f64, u64)>,
}

/// Points of the curve for each halving of what is above.
const POINTS: u32 = 4;

impl Latency {
    /// Of `histogram`; `None` if it is empty.
    pub fn of(histogram: &Histogram<u64>) -> Option<Self> {
        if histogram.is_empty() {
            return None;
        }
        let at = |percentile| {
            histogram
                .value_at_percentile(percentile)
                .min(histogram.max())
        };
        Some(Self {
            count: histogram.len(),
            min: histogram.min(),
            mean: histogram.mean(),
            p50: at(50.0),
            p90: at(90.0),
            p99: at(99.0),
            p99_9: at(99.9),
            p99_99: at(99.99),
            max: histogram.max(),
            curve: curve(histogram),
        })
    }

    /// The named percentiles, lowest first, as (name, share of the packets, nanoseconds).
    pub fn percentiles(&self) -> [(&'static str, f64, u64); 6] {
        [
            ("p50", 0.5, self.p50),
            ("p90", 0.9, self.p90),
            ("p99", 0.99, self.p99),
            ("p99.9", 0.999, self.p99_9),
            ("p99.99", 0.9999, self.p99_99),
            ("max", 1.0, self.max),
        ]
    }
}

fn curve(histogram: &Histogram<u64>) -> Vec<(f64, u64)> {
    let mut points: Vec<(f64, u64)> = Vec::new();
    for step in 0..24 * POINTS {
        let above = 0.5_f64.powf(f64::from(step) / f64::from(POINTS));
        // Below one packet there is nothing to tell.
        if above * (histogram.len() as f64) < 1.0 {
            break;
        }
        let percentile = 100.0 * (1.0 - above);
        points.push((
            percentile,
            histogram
                .value_at_percentile(percentile)
                .min(histogram.max()),
        ));
    }
    points.push((100.0, histogram.max()));
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_values() {
        let mut histogram = Histogram::<u64>::new(3).unwrap();
        for value in 1..=100_000_u64 {
            histogram.record(value).unwrap();
        }
        let latency = Latency::of(&histogram).unwrap();
        for (_, share, ns) in latency.percentiles() {
            let exact = share * 100_000.0;
            assert!((ns as f64 - exact).abs() <= exact * 2e-3, "{share}: {ns}");
        }
        assert!(
            latency
                .curve
                .windows(2)
                .all(|w| w[0].0 < w[1].0 && w[0].1 <= w[1].1)
        );
        assert_eq!(latency.curve.last(), Some(&(100.0, latency.max)));
        assert_eq!(Latency::of(&Histogram::<u64>::new(3).unwrap()), None);
    }
}
