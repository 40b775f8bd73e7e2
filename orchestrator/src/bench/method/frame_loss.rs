//! Frame loss rate after RFC 2544, section 26.3: from the highest load down, until nothing is lost twice in a row.

use std::time::Duration;

use super::ceiling;
use super::runner::{Runner, Stop, quality};
use crate::bench::output::record::{FrameLoss, LossPoint, Outcome};
use crate::bench::trial::{Load, Rate};

/// Steps of a tenth, as the RFC allows at most.
const STEPS: u32 = 10;

/// The curve.
pub fn run(runner: &mut Runner<'_>, outcomes: &mut Vec<Outcome>) -> Result<(), Stop> {
    let highest = ceiling(runner)?;
    let duration = runner.settings.rfc2544_trial;
    let first = runner.trials.len();
    let (mut points, mut end) = (Vec::<LossPoint>::new(), Ok(()));
    for step in (1..=STEPS).rev() {
        let share = f64::from(step) / f64::from(STEPS);
        runner.expect(duration * (step - 1));
        let load = Load {
            rate: Rate::PacketsPerSecond(highest * share),
            duration,
            burst: None,
        };
        let sample = match runner.clean_sample("frame-loss", &load, 0.0) {
            Ok(sample) => sample,
            Err(stop) => {
                end = Err(stop);
                break;
            }
        };
        points.push(LossPoint {
            offered: highest * share * f64::from(runner.directions()),
            share,
            loss_ratio: sample.trial.loss_ratio,
            spoiled: sample.is_spoiled(0.0),
        });
        if points
            .iter()
            .rev()
            .take(2)
            .filter(|point| point.loss_ratio == 0.0)
            .count()
            == 2
        {
            break;
        }
    }
    runner.expect(Duration::ZERO);
    if !points.is_empty() {
        let mut quality = quality(&runner.trials[first..]);
        quality.unfinished = end.is_err();
        outcomes.push(Outcome::FrameLoss(FrameLoss { points, quality }));
    }
    end
}
