//! Throughput after RFC 2544, section 26.1: the highest rate at which no frame of a trial is lost.

use std::time::Duration;

use super::runner::{Runner, Stop, quality};
use super::{MIN_LOAD, ceiling};
use crate::bench::output::record::{Outcome, Quality, Throughput, Trial};
use crate::bench::stats::Estimate;
use crate::bench::trial::{Load, Rate};

/// A search's result: the rate in each direction and the trial it stands on, and whether noise decided anything.
struct Halved {
    best: Option<Trial>,
    spoiled: bool,
    late: bool,
}

/// Halves between what lost frames and what did not, as often as the settings say.
pub fn run(runner: &mut Runner<'_>, outcomes: &mut Vec<Outcome>) -> Result<(), Stop> {
    let highest = ceiling(runner)?;
    let (mut searches, mut end) = (Vec::new(), Ok(()));
    for _ in 0..runner.settings.searches.max(1) {
        let (search, ended) = halve(runner, highest);
        // One that was cut off before it found anything adds nothing to those before.
        if ended.is_ok() || (searches.is_empty() && search.best.is_some()) {
            searches.push(search);
        }
        end = ended;
        if end.is_err() || runner.is_late() {
            break;
        }
    }
    if searches.is_empty() {
        return end;
    }
    runner.expect(Duration::ZERO);
    let directions = f64::from(runner.directions());
    let best: Vec<&Trial> = searches
        .iter()
        .filter_map(|search| search.best.as_ref())
        .collect();
    let rates: Vec<f64> = best
        .iter()
        .filter_map(|trial| trial.load)
        .map(|load| load * directions)
        .collect();
    let estimate = Estimate::of(&rates);
    let quality = Quality {
        spoiled: searches.iter().any(|search| search.spoiled),
        unfinished: end.is_err() || searches.iter().any(|search| search.late),
        ..quality(best)
    };
    outcomes.push(Outcome::Throughput(Throughput {
        rate: estimate.as_ref().map(|estimate| estimate.mean),
        searches: estimate.filter(|estimate| estimate.count > 1),
        trial_s: runner.settings.rfc2544_trial.as_secs_f64(),
        quality,
    }));
    end
}

/// One search; what it found before a stop is in it.
fn halve(runner: &mut Runner<'_>, highest: f64) -> (Halved, Result<(), Stop>) {
    let (width, duration) = (
        runner.settings.rfc2544_width.clamp(1e-4, 0.5),
        runner.settings.rfc2544_trial,
    );
    let mut halved = Halved {
        best: None,
        spoiled: false,
        late: false,
    };
    let (mut low, mut high, mut rate) = (0.0_f64, highest, highest);
    loop {
        let steps = ((high - low).max(1.0) / (high * width))
            .log2()
            .max(0.0)
            .ceil();
        runner.expect(duration.mul_f64(steps));
        let load = Load {
            rate: Rate::PacketsPerSecond(rate),
            duration,
            burst: None,
        };
        let sample = match runner.clean_sample("throughput", &load, 0.0) {
            Ok(sample) => sample,
            Err(stop) => return (halved, Err(stop)),
        };
        if sample.trial.loss_ratio == 0.0 {
            low = rate;
            halved.best = Some(sample.trial);
            // An upper bound that noise set may be wrong, but what is found below it is not.
            if rate >= highest {
                return (halved, Ok(()));
            }
        } else {
            halved.spoiled |= sample.is_spoiled(0.0);
            high = rate;
        }
        if high - low <= high * width || high <= MIN_LOAD {
            return (halved, Ok(()));
        }
        if runner.is_late() {
            halved.late = true;
            return (halved, Ok(()));
        }
        rate = f64::midpoint(low, high);
    }
}
