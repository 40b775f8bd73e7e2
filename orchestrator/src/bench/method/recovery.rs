//! System recovery after RFC 2544, section 26.5: overload at 110 % of the throughput, then half of that, without a
//! pause. The time from the change to the last lost packet is the result.

use std::time::Duration;

use super::runner::{MOST_NOISE, Runner, Stop, noise_share, quality};
use super::{ceiling, reference};
use crate::bench::output::record::{Outcome, Recovery};
use crate::bench::stats::Estimate;
use crate::bench::trial::{Load, Rate};

/// Overload, as a multiple of the throughput.
const OVER: f64 = 1.1;
/// The load after it, as a share of the overload.
const AFTER: f64 = 0.5;

/// Recovers several times.
pub fn run(runner: &mut Runner<'_>, outcomes: &mut Vec<Outcome>) -> Result<(), Stop> {
    let found = reference(runner, outcomes, &["throughput", "ndr", "pdr"]);
    let throughput = match found {
        Some((_, rate)) => rate,
        None => ceiling(runner)? / super::HEADROOM,
    };
    let (over, after) = (throughput * OVER, throughput * OVER * AFTER);
    let times = runner.settings.repetitions.max(1);
    let duration = runner.settings.rfc2544_trial;
    let first = runner.trials.len();
    let (mut quiet, mut all, mut end) = (Vec::new(), Vec::new(), Ok(()));
    for round in 0..times {
        runner.expect(duration * 2 * (times - round - 1) as u32);
        let load = |rate| Load {
            rate: Rate::PacketsPerSecond(rate),
            duration,
            burst: None,
        };
        let (result, recovered) = match runner.overload(&load(over), &load(after)) {
            Ok(found) => found,
            Err(stop) => {
                end = Err(stop);
                break;
            }
        };
        let seconds = recovered.as_secs_f64();
        all.push(seconds);
        if noise_share(&result.noise, result.elapsed.as_secs_f64()) <= MOST_NOISE {
            quiet.push(seconds);
        }
    }
    runner.expect(Duration::ZERO);
    let mut quality = quality(&runner.trials[first..]);
    quality.spoiled = quiet.len() * 2 < all.len();
    quality.unfinished = end.is_err();
    let lossless = runner.trials[first..]
        .iter()
        .all(|trial| trial.loss_ratio == 0.0);
    if lossless {
        quality.remarks.push("the overload lost nothing".into());
    }
    let Some(time_s) = Estimate::of(if quality.spoiled { &all } else { &quiet }) else {
        return end;
    };
    outcomes.push(Outcome::Recovery(Recovery {
        time_s,
        overload_load: over,
        after_load: after,
        quality,
    }));
    end
}
