//! Maximum receive rate: what comes through when as much is sent as the target takes.

use std::time::Duration;

use super::runner::{MOST_NOISE, Runner, Sample, Stop, quality};
use crate::bench::output::record::{Mrr, Outcome, Trial};
use crate::bench::stats::Estimate;
use crate::bench::trial::Rate;

/// Trials at the highest rate. One that the host disturbed is made again, as many times as there are trials in all;
/// if too few quiet ones come together, all count and the result is marked.
pub fn run(runner: &mut Runner<'_>, outcomes: &mut Vec<Outcome>) -> Result<(), Stop> {
    let (wanted, time) = (runner.settings.mrr_trials.max(1), runner.settings.mrr_trial);
    let (mut trials, mut end) = (Vec::<Trial>::new(), Ok(()));
    let quiet = |trials: &[Trial]| trials.iter().filter(|t| is_quiet(t)).count();
    while quiet(&trials) < wanted && trials.len() < 2 * wanted {
        let missing = wanted - quiet(&trials);
        runner.expect(time * (missing - 1) as u32);
        match runner.sample("mrr", Rate::Max, time) {
            Ok(Sample { trial, .. }) => trials.push(trial),
            Err(stop) => {
                end = Err(stop);
                break;
            }
        }
    }
    runner.expect(Duration::ZERO);
    let spoiled = quiet(&trials) * 2 < wanted.min(trials.len());
    let counted: Vec<&Trial> = trials.iter().filter(|t| spoiled || is_quiet(t)).collect();
    let rates: Vec<f64> = counted.iter().map(|trial| trial.rate).collect();
    let cycles: Vec<f64> = counted.iter().filter_map(|t| t.cycles_per_packet).collect();
    let mut quality = quality(counted.iter().copied());
    quality.spoiled = spoiled;
    quality.unfinished = end.is_err();
    if let Some(rate) = Estimate::of(&rates) {
        outcomes.push(Outcome::Mrr(Mrr {
            rate,
            cycles_per_packet: Estimate::of(&cycles),
            quality,
        }));
    }
    end
}

fn is_quiet(trial: &Trial) -> bool {
    trial.noise.share <= MOST_NOISE
}
