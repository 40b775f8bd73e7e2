//! Search goals, and what the trials at one load say about them (RFC 9971, appendices A and B).

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::bench::units::seconds;

/// What is searched for: the attributes of RFC 9971, section "Search Goal".
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Goal {
    /// Its name: `ndr`, `pdr`.
    pub name: String,
    /// Goal Loss Ratio: the largest share of frames that may be lost, 0 to below 1.
    pub loss_ratio: f64,
    /// Goal Exceed Ratio: the share of the time at a load that may lose more, 0 to below 1.
    pub exceed_ratio: f64,
    /// Goal Width: the widest relative distance of the bounds, above 0 and below 1.
    pub width: f64,
    /// Goal Initial Trial Duration: of the first trials, in seconds.
    #[serde(with = "seconds")]
    #[schemars(with = "f64")]
    pub initial_trial: Duration,
    /// Goal Final Trial Duration: of full-length trials, in seconds.
    #[serde(with = "seconds")]
    #[schemars(with = "f64")]
    pub final_trial: Duration,
    /// Goal Duration Sum: time of trials that decides about a load, in seconds.
    #[serde(with = "seconds")]
    #[schemars(with = "f64")]
    pub duration_sum: Duration,
}

/// A finished trial, as the search sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evidence {
    /// Trial Duration, in seconds, as it was ordered.
    pub duration: f64,
    /// Trial Effective Duration, in seconds: what it took with its overhead.
    pub effective: f64,
    /// Trial Loss Ratio.
    pub loss: f64,
    /// How much of the loss ratio the host's noise can have caused.
    pub excused: f64,
}

/// What a trial says about a goal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// It lost no more than the goal allows.
    Low,
    /// It lost more, and not by the host's noise.
    High,
    /// It lost more, but the host's noise may be the cause.
    Spoiled,
}

/// What a load is for a goal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// A lower bound: the goal is met here.
    Lower,
    /// An upper bound: it is not.
    Upper,
    /// More trials are needed.
    Undecided,
    /// So many trials were spoiled that no more are made. The search goes on below, and its result is marked.
    Spoiled,
}

/// Sums of trial durations at one load, in seconds.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    full_low: f64,
    full_high: f64,
    short_low: f64,
    short_high: f64,
    spoiled: usize,
}

impl Goal {
    /// What `trial` says.
    pub fn side(&self, trial: &Evidence) -> Side {
        if trial.loss <= self.loss_ratio {
            Side::Low
        } else if trial.loss - trial.excused > self.loss_ratio {
            Side::High
        } else {
            Side::Spoiled
        }
    }

    fn sums(&self, trials: &[Evidence], full: f64) -> Sums {
        let mut sums = Sums::default();
        for trial in trials {
            let time = match (self.side(trial), trial.duration >= full * (1.0 - 1e-9)) {
                (Side::Low, true) => &mut sums.full_low,
                (Side::High, true) => &mut sums.full_high,
                (Side::Low, false) => &mut sums.short_low,
                (Side::High, false) => &mut sums.short_high,
                (Side::Spoiled, _) => {
                    sums.spoiled += 1;
                    continue;
                }
            };
            *time += trial.effective;
        }
        sums
    }

    /// Classifies a load by its trials, where those of `full` seconds are full-length and `duration_sum` seconds of
    /// them decide (appendix A). `most_spoiled` trials that noise spoiled end the wait for better ones.
    pub fn classify(
        &self,
        trials: &[Evidence],
        full: f64,
        duration_sum: f64,
        most_spoiled: usize,
    ) -> Class {
        let sums = self.sums(trials, full);
        let balancing = sums.short_low * self.exceed_ratio / (1.0 - self.exceed_ratio);
        let high = sums.full_high + (sums.short_high - balancing).max(0.0);
        let whole = (sums.full_low + high).max(duration_sum);
        let quantile = whole * self.exceed_ratio;
        // Sums of many durations are a little off; so little decides nothing.
        let within = |seconds: f64| seconds <= quantile + whole * 1e-9;
        match (within(whole - sums.full_low), within(high)) {
            (true, true) => Class::Lower,
            (false, false) => Class::Upper,
            _ if sums.spoiled >= most_spoiled => Class::Spoiled,
            _ => Class::Undecided,
        }
    }

    /// Conditional throughput of `load` (appendix B): the forwarding rate in the worst trial that the exceed ratio
    /// does not excuse. `None` without a full-length trial.
    pub fn conditional_throughput(&self, load: f64, trials: &[Evidence]) -> Option<f64> {
        let full = self.final_trial.as_secs_f64() * (1.0 - 1e-9);
        let counts =
            |trial: &&Evidence| trial.duration >= full && self.side(trial) != Side::Spoiled;
        let mut trials: Vec<&Evidence> = trials.iter().filter(counts).collect();
        trials.sort_by(|a, b| a.loss.total_cmp(&b.loss));
        let time: f64 = trials.iter().map(|trial| trial.effective).sum();
        let whole = time.max(self.duration_sum.as_secs_f64());
        let mut remaining = whole * (1.0 - self.exceed_ratio);
        let mut loss = trials.first()?.loss;
        for trial in trials {
            if remaining <= whole * 1e-9 {
                break;
            }
            loss = trial.loss;
            remaining -= trial.effective;
        }
        if remaining > whole * 1e-9 {
            loss = 1.0;
        }
        Some(load * (1.0 - loss))
    }
}
