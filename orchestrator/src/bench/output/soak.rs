//! A long run as the cells of a table, in any form of a report.

use super::record::{Case, NoiseRecord, Outcome, Soak};
use crate::bench::units::{nanoseconds, percent, pps};

/// The columns.
pub const COLUMNS: [&str; 12] = [
    "soak",
    "load",
    "p50",
    "p90",
    "p99",
    "p99.9",
    "p99.99",
    "max",
    "lost",
    "jumps of the clock above 20, 50, 100, 200 µs, 1 ms",
    "longest; steal",
    "marks",
];

/// A row for each soak of `cases`.
pub fn rows(cases: &[Case]) -> Vec<[String; COLUMNS.len()]> {
    let soaks = cases.iter().flat_map(|case| {
        let soaks = case.results.iter().filter_map(|outcome| match outcome {
            Outcome::Soak(soak) => Some(soak),
            _ => None,
        });
        soaks.map(|soak| row(&case.name, soak))
    });
    soaks.collect()
}

fn row(name: &str, soak: &Soak) -> [String; COLUMNS.len()] {
    let load = match soak.named_share() {
        Some(share) => format!("{} ({share})", pps(soak.offered)),
        None => pps(soak.offered),
    };
    let [p50, p90, p99, p999, p9999, max] = percentiles(soak);
    [
        name.to_owned(),
        load,
        p50,
        p90,
        p99,
        p999,
        p9999,
        max,
        percent(soak.loss_ratio),
        jumps(&soak.noise),
        format!(
            "{}; {}",
            nanoseconds(soak.noise.longest_gap_ns),
            nanoseconds(soak.noise.steal_ns)
        ),
        soak.quality.marks(),
    ]
}

/// Its named percentiles, with `~` where they may be the host's doing.
pub fn percentiles(soak: &Soak) -> [String; 6] {
    let Some(latency) = &soak.latency else {
        return std::array::from_fn(|_| "–".to_owned());
    };
    latency.percentiles().map(|(_, share, ns)| {
        let doubtful = 1.0 - share < soak.doubtful_share;
        format!("{}{}", if doubtful { "~" } else { "" }, nanoseconds(ns))
    })
}

/// How often the clock jumped by how much.
fn jumps(noise: &NoiseRecord) -> String {
    let counts = noise.jumps.named().map(|(_, count)| count.to_string());
    counts.join(", ")
}
