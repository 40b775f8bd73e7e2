//! How results are found: the methods of the field, each a short file.
//!
//! A method orders trials from a [`Runner`], which knows the target, repeats what noise spoiled,
//! and keeps a record of everything; it returns an [`Outcome`]. Methods know neither packets nor
//! sockets, so that a simulated target tests them (`sim`).

mod back_to_back;
mod connections;
mod frame_loss;
mod latency;
pub mod mlr;
mod mrr;
mod rates;
mod recovery;
mod runner;
mod settings;
#[cfg(test)]
pub(crate) mod sim;
mod soak;
#[cfg(test)]
mod tests;
mod throughput;

pub use runner::{MOST_NOISE, Runner, Sample, Stop, Subject, Watch};
pub use settings::{Effort, Method, Settings, with_rate};

use super::output::record::{Outcome, Quality, Trial};
use super::trial::{BenchError, Rate};
use super::units::percent;

/// Runs all methods that the runner's settings name, in an order in which later ones can use what earlier ones found.
/// What was found before a stop is kept in `outcomes`.
///
/// # Errors
/// Why it stopped early.
pub fn run(runner: &mut Runner<'_>, outcomes: &mut Vec<Outcome>) -> Result<(), Stop> {
    runner.warm_up()?;
    let methods = runner.settings.methods.clone();
    for (index, &method) in methods.iter().enumerate() {
        runner.rest = methods[index + 1..]
            .iter()
            .map(|&later| runner.settings.cost(later))
            .sum();
        match method {
            Method::Mrr => mrr::run(runner, outcomes)?,
            Method::Ndr | Method::Pdr => rates::run(runner, outcomes)?,
            Method::Throughput => throughput::run(runner, outcomes)?,
            Method::FrameLoss => frame_loss::run(runner, outcomes)?,
            Method::BackToBack => back_to_back::run(runner, outcomes)?,
            Method::Recovery => recovery::run(runner, outcomes)?,
            Method::Latency => latency::run(runner, outcomes)?,
            Method::Soak => soak::run(runner, outcomes)?,
            Method::ConnectionsPerSecond | Method::ConcurrentConnections | Method::Transactions => {
                connections::run(runner, method, outcomes)?;
            }
        }
    }
    Ok(())
}

/// A rate that was found before, in packets a second in each direction, and its name: what other methods take as
/// their measure. The strictest comes first; a spoiled one is passed over where another is not.
fn reference(
    runner: &Runner<'_>,
    outcomes: &[Outcome],
    wanted: &[&'static str],
) -> Option<(&'static str, f64)> {
    let find = |name: &str, spoiled: bool| {
        outcomes
            .iter()
            .find_map(|outcome| found(outcome, name, spoiled))
    };
    let directions = f64::from(runner.directions().max(1));
    [false, true].into_iter().find_map(|spoiled| {
        let mut named = wanted.iter().map(|&name| (name, find(name, spoiled)));
        named.find_map(|(name, rate)| Some((name, rate? / directions)))
    })
}

/// The rates of which loads are shares, the strictest first.
const RATES: [&str; 3] = ["ndr", "throughput", "pdr"];

/// The rate of which a load is to be `share`, and its name.
fn whole(
    runner: &Runner<'_>,
    outcomes: &[Outcome],
    share: f64,
) -> Result<(&'static str, f64), Stop> {
    reference(runner, outcomes, &RATES).ok_or_else(|| {
        Stop::Failed(BenchError::Arguments(format!(
            "no rate was found of which the load could be {}: give the search more time (limit), or the load in packets a second",
            percent(share)
        )))
    })
}

/// The rate that `outcome` gives under the name `name`, if its being spoiled is as asked.
fn found(outcome: &Outcome, name: &str, spoiled: bool) -> Option<f64> {
    let (rate, quality): (Option<f64>, &Quality) = match outcome {
        Outcome::Goal(goal) if goal.goal.name == name => (goal.lower, &goal.quality),
        Outcome::Throughput(found) if name == "throughput" => (found.rate, &found.quality),
        Outcome::Mrr(mrr) if name == "mrr" => (Some(mrr.rate.median), &mrr.quality),
        _ => return None,
    };
    (quality.spoiled == spoiled).then_some(rate)?
}

/// The load that a method starts from when nothing was found before: what comes through at most.
fn ceiling(runner: &mut Runner<'_>) -> Result<f64, Stop> {
    if let Some(limit) = runner.settings.highest {
        return Ok(limit);
    }
    if let Some(found) = runner.ceiling {
        return Ok(found);
    }
    if runner.trials.iter().all(|trial| trial.load.is_some()) {
        runner.sample("probe", Rate::Max, runner.settings.probe)?;
    }
    // The best of all such trials: what disturbs one makes it slower, never faster.
    let closed = runner.trials.iter().filter(|trial| trial.load.is_none());
    let rate = |trial: &Trial| {
        let most = trial.directions.iter().map(|d| d.received).max();
        most.unwrap_or(0) as f64 / trial.elapsed_s.max(1e-9)
    };
    let received = closed.map(rate).fold(0.0, f64::max);
    // An open loop may get more through than a closed one, whose packets wait for room.
    let found = (received * HEADROOM).max(MIN_LOAD * 2.0);
    runner.ceiling = Some(found);
    Ok(found)
}

/// How far above the rate of a closed loop searches begin.
const HEADROOM: f64 = 1.25;
/// The lowest load that is tried, packets a second in each direction.
const MIN_LOAD: f64 = 100.0;
