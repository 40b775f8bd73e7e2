//! Axes of plots: which values to label, and where a value stands.

/// An axis from its lowest to its highest value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Axis {
    low: f64,
    high: f64,
    logarithmic: bool,
}

impl Axis {
    /// An axis from 0 to a round value above all of `values`.
    pub fn from_zero(values: impl IntoIterator<Item = f64>) -> Self {
        let most = values.into_iter().fold(0.0, f64::max);
        let step = step(most.max(f64::MIN_POSITIVE));
        Self {
            low: 0.0,
            high: ((most / step - 1e-9).ceil() * step).max(step),
            logarithmic: false,
        }
    }

    /// An axis over the powers of ten that hold all of `values`; what is not above 0 is left out.
    pub fn powers(values: impl IntoIterator<Item = f64>) -> Self {
        let values = values.into_iter().filter(|value| *value > 0.0);
        let (low, high) = values.fold((f64::MAX, f64::MIN_POSITIVE), |(low, high), value| {
            (low.min(value), high.max(value))
        });
        let low = 10_f64.powf((low.min(high).log10() + 1e-9).floor());
        let high = 10_f64.powf((high.log10() - 1e-9).ceil()).max(low * 10.0);
        Self {
            low,
            high,
            logarithmic: true,
        }
    }

    /// Where `value` stands: 0 at the low end, 1 at the high end.
    pub fn at(&self, value: f64) -> f64 {
        let share = if self.logarithmic {
            (value.max(f64::MIN_POSITIVE) / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        share.clamp(0.0, 1.0)
    }

    /// The values to label.
    pub fn ticks(&self) -> Vec<f64> {
        if self.logarithmic {
            let (first, last) = (
                self.low.log10().round() as i32,
                self.high.log10().round() as i32,
            );
            return (first..=last).map(|power| 10_f64.powi(power)).collect();
        }
        let step = step(self.high - self.low);
        let count = ((self.high - self.low) / step + 1e-9).floor() as u32;
        (0..=count)
            .map(|n| self.low + f64::from(n) * step)
            .collect()
    }
}

/// A round step (1, 2 or 5 times a power of ten) that divides `range` into three to six parts.
fn step(range: f64) -> f64 {
    let power = 10_f64.powf(range.log10().floor());
    let share = range / power;
    let part = match share {
        ..1.500_001 => 0.25,
        ..3.000_001 => 0.5,
        ..6.000_001 => 1.0,
        _ => 2.0,
    };
    part * power
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_few() {
        for most in [0.013, 1.0, 1.4, 2.9, 7.7, 14.88, 99.0, 12_345.0] {
            let axis = Axis::from_zero([most]);
            let ticks = axis.ticks();
            assert!((3..=7).contains(&ticks.len()), "{most}: {ticks:?}");
            assert!(*ticks.last().unwrap() >= most && axis.at(most) <= 1.0);
            assert!(axis.at(most) > 0.6, "{most}: {ticks:?}");
        }
        assert_eq!(
            Axis::powers([90.0, 2e6]).ticks(),
            [10.0, 100.0, 1e3, 1e4, 1e5, 1e6, 1e7]
        );
        assert_eq!(Axis::powers([]).ticks().len(), 2);
    }
}
