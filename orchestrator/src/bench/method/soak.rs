//! A long run at one load: does anything drift, leak or fail?

use std::time::Duration;

use hdrhistogram::Histogram;

use super::runner::{Runner, Stop, quality};
use super::{RATES, ceiling, reference, whole};
use crate::bench::output::latency::Latency;
use crate::bench::output::record::{NoiseRecord, Outcome, Slice, Soak};
use crate::bench::trial::{Load, Rate};

/// Slices that a soak is told in, and the shortest and longest of them.
const SLICES: u32 = 60;
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_mins(1);

/// The run, slice by slice. If it is stopped, or the target dies, what there is counts.
pub fn run(runner: &mut Runner<'_>, outcomes: &mut Vec<Outcome>) -> Result<(), Stop> {
    let (load, of) = load(runner, outcomes)?;
    let whole = runner.settings.soak;
    let slice = (whole / SLICES).clamp(SHORTEST, LONGEST).min(whole);
    let first = runner.trials.len();
    let mut slices: Vec<Slice> = Vec::new();
    let mut latency: Option<Histogram<u64>> = None;
    let mut end = Ok(());
    let mut at = Duration::ZERO;
    while at < whole {
        let duration = slice.min(whole.saturating_sub(at));
        runner.expect(whole.saturating_sub(at + duration));
        let order = Load {
            rate: Rate::PacketsPerSecond(load),
            duration,
            burst: None,
        };
        let sample = match runner.load("soak", &order) {
            Ok(sample) => sample,
            Err(stop) => {
                end = Err(stop);
                break;
            }
        };
        let here = Latency::of(&sample.latency);
        slices.push(Slice {
            at_s: at.as_secs_f64(),
            rate: sample.trial.rate,
            loss_ratio: sample.trial.loss_ratio,
            p50: here.as_ref().map(|latency| latency.p50),
            p99_9: here.as_ref().map(|latency| latency.p99_9),
            spoiled: sample.is_spoiled(0.0),
        });
        match &mut latency {
            // Both came from one target with one range; what does not fit is not worth a failure.
            Some(sum) => drop(sum.add(&sample.latency)),
            None => latency = Some(sample.latency),
        }
        at += duration;
    }
    runner.expect(Duration::ZERO);
    if slices.is_empty() {
        return end;
    }
    let trials = &runner.trials[first..];
    let counts = trials.iter().flat_map(|trial| &trial.directions);
    let (offered, received) = counts.fold((0, 0), |(o, r), c| (o + c.offered, r + c.received));
    let mut quality = quality(trials);
    quality.unfinished = end.is_err();
    quality.spoiled = slices.iter().any(|slice| slice.spoiled);
    let noise = NoiseRecord::of(trials);
    outcomes.push(Outcome::Soak(Soak {
        offered: load * f64::from(runner.directions()),
        reference: of.map(|(name, _)| name.to_owned()),
        share: of.map(|(_, share)| share),
        slices,
        latency: latency.as_ref().and_then(Latency::of),
        loss_ratio: (offered - received.min(offered)) as f64 / offered.max(1) as f64,
        noise,
        doubtful_share: noise.excuses(),
        quality,
    }));
    end
}

/// What a load is a share of, and which.
type Part = (&'static str, f64);

/// The load in each direction, and what it is a share of if it was not given.
fn load(runner: &mut Runner<'_>, outcomes: &[Outcome]) -> Result<(f64, Option<Part>), Stop> {
    if let Some(load) = runner.settings.load {
        return Ok((load, None));
    }
    if let Some(share) = runner.settings.load_share {
        let (name, rate) = whole(runner, outcomes, share)?;
        return Ok((rate * share, Some((name, share))));
    }
    let share = runner.settings.soak_share;
    match reference(runner, outcomes, &RATES) {
        Some((name, rate)) => Ok((rate * share, Some((name, share)))),
        None => Ok((ceiling(runner)? / super::HEADROOM * share / 2.0, None)),
    }
}
