//! Latency at the load: trials at shares of the rate that was found, or at a load that the user gives.

use std::time::Duration;

use super::runner::{MOST_NOISE, Runner, Sample, Stop, quality};
use super::{RATES, ceiling, reference, whole};
use crate::bench::output::latency::Latency;
use crate::bench::output::record::{LatencyOutcome, LatencyPoint, Outcome};
use crate::bench::trial::{Load, Rate};

/// Share of what comes through at most that stands for the NDR where none was searched for: a closed loop's rate
/// is no load at which to measure latency.
const OF_PROBE: f64 = 0.5;

/// Latency at each load, the lowest first.
pub fn run(runner: &mut Runner<'_>, outcomes: &mut Vec<Outcome>) -> Result<(), Stop> {
    let (name, full, loads) = loads(runner, outcomes)?;
    let duration = runner.settings.latency_trial;
    let (mut points, mut end) = (Vec::new(), Ok(()));
    for (index, &share) in loads.iter().enumerate() {
        runner.expect(duration * (loads.len() - index - 1) as u32);
        let load = Load {
            rate: Rate::PacketsPerSecond(full * share),
            duration,
            burst: None,
        };
        let sample = match quiet(runner, &load) {
            Ok(sample) => sample,
            Err(stop) => {
                end = Err(stop);
                break;
            }
        };
        let Some(latency) = Latency::of(&sample.latency) else {
            continue;
        };
        let mut quality = quality([&sample.trial]);
        quality.spoiled = sample.trial.noise.share > MOST_NOISE;
        points.push(LatencyPoint {
            offered: full * share * f64::from(runner.directions()),
            share,
            latency,
            loss_ratio: sample.trial.loss_ratio,
            doubtful_share: sample.excused(),
            quality,
        });
    }
    runner.expect(Duration::ZERO);
    if !points.is_empty() {
        outcomes.push(Outcome::Latency(LatencyOutcome {
            reference: name.to_owned(),
            points,
        }));
    }
    end
}

/// A trial, again while the host disturbs it.
fn quiet(runner: &mut Runner<'_>, load: &Load) -> Result<Sample, Stop> {
    let mut sample = runner.load("latency", load)?;
    for _ in 0..runner.settings.retries {
        if sample.trial.noise.share <= MOST_NOISE {
            break;
        }
        sample = runner.load("latency", load)?;
    }
    Ok(sample)
}

/// The name of the reference, its load in each direction, and the shares of it that are measured.
fn loads(
    runner: &mut Runner<'_>,
    outcomes: &[Outcome],
) -> Result<(&'static str, f64, Vec<f64>), Stop> {
    if let Some(load) = runner.settings.load {
        return Ok(("load that was asked for", load, vec![1.0]));
    }
    if let Some(share) = runner.settings.load_share {
        let (name, full) = whole(runner, outcomes, share)?;
        return Ok((name, full, vec![share]));
    }
    let mut shares = runner.settings.latency_loads.clone();
    shares.sort_by(f64::total_cmp);
    let found = reference(runner, outcomes, &RATES);
    let (name, full) = match found {
        Some(found) => found,
        None => (
            "half of the probe",
            ceiling(runner)? / super::HEADROOM * OF_PROBE,
        ),
    };
    Ok((name, full, shares))
}
