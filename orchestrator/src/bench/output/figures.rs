//! The figures of a case that plots, tables and comparisons quote.

use super::record::{Case, LatencyOutcome, Outcome, Quality, Soak};
use crate::bench::units;

/// A rate that was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// What it is: `mrr`, `ndr`, `pdr`, `throughput`.
    pub name: String,
    /// Packets a second, all directions.
    pub rate: f64,
    /// The confidence interval, or the bounds of a single search.
    pub interval: Option<(f64, f64)>,
    /// Busy cycles of the target for a packet, where it tells.
    pub cycles: Option<f64>,
    /// Whether the true value may be higher.
    pub at_limit: bool,
    /// How far to trust it.
    pub quality: Quality,
}

impl Figure {
    /// Whether it can be quoted.
    pub fn is_quotable(&self) -> bool {
        !self.quality.spoiled && !self.quality.unfinished
    }

    /// The rate as text, with `≥` where it may be higher and `~` where it is not to be quoted.
    pub fn text(&self) -> String {
        if self.rate == 0.0 {
            return "not found".into();
        }
        let sign = match (self.is_quotable(), self.at_limit) {
            (false, _) => "~",
            (true, true) => "≥ ",
            (true, false) => "",
        };
        format!("{sign}{}", units::pps(self.rate))
    }
}

impl Outcome {
    /// The rate that it quotes, if it is one.
    pub fn figure(&self) -> Option<Figure> {
        match self {
            Self::Mrr(mrr) => Some(Figure {
                name: "mrr".into(),
                rate: mrr.rate.median,
                interval: mrr.rate.low.zip(mrr.rate.high),
                cycles: mrr.cycles_per_packet.as_ref().map(|cycles| cycles.median),
                at_limit: false,
                quality: mrr.quality.clone(),
            }),
            Self::Goal(goal) => Some(Figure {
                name: goal.goal.name.clone(),
                rate: goal.lower.unwrap_or(0.0),
                interval: goal
                    .searches
                    .as_ref()
                    .and_then(|searches| searches.low.zip(searches.high))
                    .or(goal.lower.zip(goal.upper)),
                cycles: goal.cycles_per_packet,
                at_limit: goal.at_limit,
                quality: goal.quality.clone(),
            }),
            Self::Throughput(found) => Some(Figure {
                name: "throughput".into(),
                rate: found.rate.unwrap_or(0.0),
                interval: found.searches.as_ref().and_then(|s| s.low.zip(s.high)),
                cycles: None,
                at_limit: false,
                quality: found.quality.clone(),
            }),
            _ => None,
        }
    }
}

impl LatencyOutcome {
    /// What its loads are shares of, as it is written in texts.
    pub fn named_reference(&self) -> String {
        written(&self.reference)
    }
}

impl Soak {
    /// What its load is a share of, as it is written in texts: `70 % of the PDR`. `None` where the load was given.
    pub fn named_share(&self) -> Option<String> {
        let (share, reference) = (self.share?, self.reference.as_deref()?);
        Some(format!(
            "{} of the {}",
            units::percent(share),
            written(reference)
        ))
    }
}

/// The name of a rate as it is written in texts.
fn written(name: &str) -> String {
    match name {
        short @ ("ndr" | "pdr" | "mrr") => short.to_uppercase(),
        long => long.to_owned(),
    }
}

impl Case {
    /// All rates that were found.
    pub fn figures(&self) -> impl Iterator<Item = Figure> {
        self.results.iter().filter_map(Outcome::figure)
    }

    /// The rate called `name`.
    pub fn figure(&self, name: &str) -> Option<Figure> {
        self.figures().find(|figure| figure.name == name)
    }

    /// The latency, if it was measured.
    pub fn latency(&self) -> Option<&LatencyOutcome> {
        self.results.iter().find_map(|outcome| match outcome {
            Outcome::Latency(latency) => Some(latency),
            _ => None,
        })
    }

    /// Bits a second on a wire at `rate`: the frame, its check sequence, preamble and gap (24 bytes) as RFC 2544 counts
    /// them.
    pub fn wire_bits(&self, rate: f64) -> f64 {
        rate * (self.traffic.frame_bytes + 24.0) * 8.0
    }

    /// Bits a second of the frames at `rate`.
    pub fn bits(&self, rate: f64) -> f64 {
        rate * self.traffic.frame_bytes * 8.0
    }

    /// Busy cycles a packet, from the rate that was measured at the highest load.
    pub fn cycles(&self) -> Option<f64> {
        ["mrr", "pdr", "ndr"]
            .iter()
            .find_map(|name| self.figure(name)?.cycles)
    }

    /// The line in plots that this case belongs to: targets whose names differ in a number at the end only, as
    /// `chain-1` and `chain-4`, are one where the chain's length is the axis.
    pub fn family(&self) -> &str {
        let name = &self.target.name;
        let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
        match stem.strip_suffix(['-', '_', ' ']) {
            Some(stem) if self.target.chain_length.is_some() && !stem.is_empty() => stem,
            _ => name,
        }
    }
}
