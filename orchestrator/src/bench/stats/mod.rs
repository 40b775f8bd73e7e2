//! What several trials say together: mean, spread, confidence interval, ratios of pairs.
//!
//! Intervals are Student's t for the mean: few trials are the rule here, and resampling five
//! values (a bootstrap) promises more than five values hold. Ratios are taken pair by pair and
//! averaged as logarithms, so that A/B and B/A say the same.

mod student;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use student::quantile as t_quantile;

/// Share of intervals that hold the true value.
pub const CONFIDENCE: f64 = 0.95;

/// Several values of one thing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Estimate {
    /// The mean of the values; of ratios, the geometric mean.
    pub mean: f64,
    /// The median.
    pub median: f64,
    /// The lowest value.
    pub lowest: f64,
    /// The highest value.
    pub highest: f64,
    /// Lower end of the 95 % confidence interval of the mean (Student's t); absent for one value.
    pub low: Option<f64>,
    /// Its upper end.
    pub high: Option<f64>,
    /// How many values.
    pub count: usize,
}

impl Estimate {
    /// The estimate of `values`; `None` where there are none.
    pub fn of(values: &[f64]) -> Option<Self> {
        let sorted = sorted(values)?;
        let mean = mean(values);
        let half = half_width(values, mean);
        Some(Self {
            mean,
            median: median(&sorted),
            lowest: sorted[0],
            highest: sorted[sorted.len() - 1],
            low: half.map(|half| mean - half),
            high: half.map(|half| mean + half),
            count: values.len(),
        })
    }

    /// The estimate of the ratio `a / b` over pairs. Pairs with a value that is not above 0 say nothing and are
    /// left out.
    pub fn of_ratios(pairs: &[(f64, f64)]) -> Option<Self> {
        let usable = pairs.iter().filter(|(a, b)| *a > 0.0 && *b > 0.0);
        let logs: Vec<f64> = usable.map(|(a, b)| (a / b).ln()).collect();
        let log = Self::of(&logs)?;
        Some(Self {
            mean: log.mean.exp(),
            median: log.median.exp(),
            lowest: log.lowest.exp(),
            highest: log.highest.exp(),
            low: log.low.map(f64::exp),
            high: log.high.map(f64::exp),
            count: log.count,
        })
    }

    /// Half the interval's width as a share of the mean; `None` for one value or a mean of 0.
    pub fn relative_half_width(&self) -> Option<f64> {
        let (low, high) = (self.low?, self.high?);
        (self.mean != 0.0).then(|| (high - low) / 2.0 / self.mean.abs())
    }
}

fn sorted(values: &[f64]) -> Option<Vec<f64>> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    (!sorted.is_empty()).then_some(sorted)
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 {
        sorted[middle]
    } else {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    }
}

/// Half the width of the confidence interval of the mean.
fn half_width(values: &[f64], mean: f64) -> Option<f64> {
    let freedom = values.len().checked_sub(1).filter(|&f| f > 0)?;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let error = (squares / freedom as f64 / values.len() as f64).sqrt();
    Some(t_quantile(0.5 + CONFIDENCE / 2.0, freedom) * error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-3 * b.abs().max(1e-9)
    }

    /// The interval of five values, by hand: mean 10, s = 1.5811, t(0.975, 4) = 2.7764.
    #[test]
    fn an_interval_is_as_by_hand() {
        let estimate = Estimate::of(&[8.0, 9.0, 10.0, 11.0, 12.0]).unwrap();
        assert!(close(estimate.mean, 10.0) && close(estimate.median, 10.0));
        assert!(close(estimate.low.unwrap(), 10.0 - 1.963));
        assert!(close(estimate.high.unwrap(), 10.0 + 1.963));
        assert!(close(estimate.relative_half_width().unwrap(), 0.1963));
    }

    #[test]
    fn one_value_has_no_interval_and_none_no_estimate() {
        let one = Estimate::of(&[3.0]).unwrap();
        assert_eq!((one.low, one.high, one.count), (None, None, 1));
        assert_eq!(Estimate::of(&[]), None);
        assert_eq!(Estimate::of_ratios(&[(0.0, 1.0)]), None);
    }

    #[test]
    fn a_ratio_and_its_inverse_agree() {
        let pairs = [(2.0, 1.0), (3.0, 2.0), (5.0, 4.0)];
        let swapped = pairs.map(|(a, b)| (b, a));
        let (ab, ba) = (
            Estimate::of_ratios(&pairs).unwrap(),
            Estimate::of_ratios(&swapped).unwrap(),
        );
        assert!(close(ab.mean, 1.0 / ba.mean));
        assert!(close(ab.low.unwrap(), 1.0 / ba.high.unwrap()));
        assert!(close(ab.mean, (2.0 * 1.5 * 1.25_f64).cbrt()));
    }

    /// Of many samples of a known distribution about 95 % of the intervals hold the mean.
    #[test]
    fn intervals_hold_the_mean_as_often_as_they_say() {
        let mut state = 88_172_645_463_325_252_u64;
        let mut uniform = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) as f64 / (1_u64 << 53) as f64
        };
        let held = (0..4000).filter(|_| {
            let sample: Vec<f64> = (0..6)
                .map(|_| (0..12).map(|_| uniform()).sum::<f64>())
                .collect();
            let estimate = Estimate::of(&sample).unwrap();
            (estimate.low.unwrap()..estimate.high.unwrap()).contains(&6.0)
        });
        let share = held.count() as f64 / 4000.0;
        assert!((0.935..0.965).contains(&share), "{share}");
    }
}
