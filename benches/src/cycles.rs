//! Cycles of the time stamp counter as criterion's unit. They pass at the counter's rate, whatever the core's own
//! clock does.

use criterion::Throughput;
use criterion::measurement::{Measurement, ValueFormatter};

/// The unit.
pub struct Cycles(pub quanta::Clock);

impl Measurement for Cycles {
    type Intermediate = u64;
    type Value = u64;

    fn start(&self) -> u64 {
        self.0.raw()
    }

    fn end(&self, start: u64) -> u64 {
        self.0.raw().saturating_sub(start)
    }

    fn add(&self, a: &u64, b: &u64) -> u64 {
        a + b
    }

    fn zero(&self) -> u64 {
        0
    }

    fn to_f64(&self, value: &u64) -> f64 {
        *value as f64
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        &Formatter
    }
}

struct Formatter;

impl ValueFormatter for Formatter {
    fn scale_values(&self, _typical: f64, _values: &mut [f64]) -> &'static str {
        "cycles"
    }

    fn scale_throughputs(
        &self,
        _typical: f64,
        throughput: &Throughput,
        values: &mut [f64],
    ) -> &'static str {
        let count = match throughput {
            Throughput::Elements(count) | Throughput::Bytes(count) => *count as f64,
            _ => 1.0,
        };
        for value in values {
            *value /= count;
        }
        "cycles/packet"
    }

    fn scale_for_machines(&self, _values: &mut [f64]) -> &'static str {
        "cycles"
    }
}
