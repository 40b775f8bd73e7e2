//! Back-to-back frames: the longest burst without loss, and the buffer that it means (RFC 9004).
//!
//! A virtqueue has no line rate. A burst is sent at twice the rate that comes through at most; this
//! rate stands where the RFC has the maximum theoretical frame rate. As the RFC's correction says,
//! frames that were forwarded while the burst went on did not need the buffer:
//! `corrected = burst / rate * (1 - throughput / rate)`.

use std::time::Duration;

use super::runner::{Runner, Stop, quality};
use super::{ceiling, reference};
use crate::bench::output::record::{BackToBack, Outcome, Quality};
use crate::bench::stats::Estimate;
use crate::bench::trial::{Load, Rate};

/// A burst's rate, as a multiple of the rate that comes through at most.
const FASTER: f64 = 2.0;
/// Seconds that a burst takes at most: the trial length of RFC 2544, section 26.4. What takes that long is no burst.
const LONGEST: f64 = 2.0;
/// Relative width at which a search for the longest burst ends, and the shortest step in frames.
const WIDTH: f64 = 0.02;

/// The longest burst, several times.
pub fn run(runner: &mut Runner<'_>, outcomes: &mut Vec<Outcome>) -> Result<(), Stop> {
    let highest = ceiling(runner)?;
    let rate = highest * FASTER;
    let throughput = reference(runner, outcomes, &["throughput", "ndr", "pdr", "mrr"]);
    // With nothing found before, what comes through at most is the best that is known.
    let (name, throughput) = throughput.unwrap_or(("probe", highest / super::HEADROOM));
    let first = runner.trials.len();
    let (mut bursts, mut spoiled, mut at_limit) = (Vec::new(), false, true);
    let mut end = Ok(());
    for _ in 0..runner.settings.repetitions.max(1) {
        let longest = match longest(runner, rate) {
            Ok(longest) => longest,
            Err(stop) => {
                end = Err(stop);
                break;
            }
        };
        spoiled |= longest.spoiled;
        at_limit &= longest.at_limit;
        bursts.push(longest.frames as f64);
        if runner.is_late() {
            break;
        }
    }
    let mut quality = Quality {
        spoiled,
        unfinished: end.is_err(),
        ..quality(&runner.trials[first..])
    };
    quality
        .remarks
        .push(format!("corrected by the {name} rate"));
    let Some(burst) = Estimate::of(&bursts) else {
        return end;
    };
    let implied_s = burst.mean / rate;
    outcomes.push(Outcome::BackToBack(BackToBack {
        burst_load: rate,
        throughput,
        implied_s,
        corrected_s: implied_s * (1.0 - throughput / rate).max(0.0),
        at_limit,
        quality,
        burst,
    }));
    end
}

struct Longest {
    frames: u64,
    spoiled: bool,
    at_limit: bool,
}

/// Doubles until frames are lost, then halves.
fn longest(runner: &mut Runner<'_>, rate: f64) -> Result<Longest, Stop> {
    let most = (rate * LONGEST) as u64;
    let most = most.min(runner.settings.longest_burst).max(1);
    let (mut good, mut bad, mut spoiled) = (0, None, false);
    let mut frames = 32.min(most);
    loop {
        let load = Load {
            rate: Rate::PacketsPerSecond(rate),
            // The burst ends the trial; this is for a generator that can't keep up.
            duration: Duration::from_secs_f64((frames as f64 / rate * 4.0).max(0.05)),
            burst: Some(frames),
        };
        let sample = runner.clean_sample("back-to-back", &load, 0.0)?;
        if sample.trial.loss_ratio == 0.0 {
            good = frames;
        } else {
            spoiled |= sample.is_spoiled(0.0);
            bad = Some(frames);
        }
        let width = ((good as f64 * WIDTH) as u64).max(1);
        frames = match bad {
            None if good >= most => break,
            None => (good * 2).min(most),
            Some(bad) if bad - good <= width => break,
            Some(bad) => good + (bad - good) / 2,
        };
    }
    Ok(Longest {
        frames: good,
        spoiled,
        at_limit: bad.is_none(),
    })
}
