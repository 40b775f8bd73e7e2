//! NDR and PDR: an MLRsearch run against a target.

use std::time::Duration;

use super::mlr::{Bound, Evidence, Found, Goal, Next, Search, Status};
use super::runner::{Runner, Stop, quality};
use super::{MIN_LOAD, ceiling};
use crate::bench::output::record::{GoalOutcome, Outcome, Quality, Trial};
use crate::bench::stats::Estimate;
use crate::bench::trial::{Load, Rate};

/// By how much the highest load is raised that turns out too low, and how often.
const RAISE: f64 = 1.6;
const MOST_RAISED: u32 = 12;

/// What one search found for one goal, in packets a second of all directions.
struct Searched {
    lower: Option<f64>,
    upper: Option<f64>,
    throughput: Option<f64>,
    cycles: Option<f64>,
    status: Status,
    quality: Quality,
}

/// All goals in one search, as often as the settings say. Adds an outcome a goal.
pub fn run(runner: &mut Runner<'_>, outcomes: &mut Vec<Outcome>) -> Result<(), Stop> {
    let highest = ceiling(runner)?;
    let goals = runner.settings.goals.clone();
    let mut searches: Vec<Vec<Searched>> = Vec::new();
    let mut stopped = Ok(());
    for _ in 0..runner.settings.searches.max(1) {
        let (results, end) = search(runner, &goals, highest);
        searches.push(results);
        stopped = end;
        if stopped.is_err() || runner.is_late() {
            break;
        }
    }
    for (index, goal) in goals.iter().enumerate() {
        let results: Vec<&Searched> = searches.iter().map(|search| &search[index]).collect();
        // A search that was cut off before it found anything adds nothing to those before.
        if results
            .iter()
            .any(|r| r.lower.is_some() || r.upper.is_some())
        {
            outcomes.push(Outcome::Goal(outcome(goal, &results)));
        }
    }
    stopped
}

fn search(
    runner: &mut Runner<'_>,
    goals: &[Goal],
    highest: f64,
) -> (Vec<Searched>, Result<(), Stop>) {
    let lowest = MIN_LOAD.max(highest * 1e-4).min(highest);
    let mut search = Search::new(goals.to_vec(), lowest, highest);
    let first = runner.trials.len();
    let mut end = Ok(());
    let mut raised = 0;
    while end.is_ok() && !runner.is_late() {
        match search.next() {
            Next::Trial { load, duration } => end = trial(runner, &mut search, load, duration),
            // The highest load was a guess, and too low.
            Next::Done if raised < MOST_RAISED && is_guess(runner) && meets(&search) => {
                raised += 1;
                search.raise(RAISE);
                runner.ceiling = Some(search.highest());
            }
            Next::Done => break,
        }
    }
    runner.expect(Duration::ZERO);
    let trials = &runner.trials[first..];
    let found = search.found();
    let results = found.iter().map(|found| result(found, trials));
    (results.collect(), end)
}

/// Whether the highest load was not given by the user.
fn is_guess(runner: &Runner<'_>) -> bool {
    runner.settings.highest.is_none()
}

/// Whether some goal is met at the highest load.
fn meets(search: &Search) -> bool {
    search
        .found()
        .iter()
        .any(|found| found.status == Status::AtLimit)
}

/// One trial of the search.
fn trial(
    runner: &mut Runner<'_>,
    search: &mut Search,
    load: f64,
    duration: f64,
) -> Result<(), Stop> {
    let left = (search.remaining() - duration).max(0.0);
    runner.expect(Duration::from_secs_f64(left));
    let order = Load {
        rate: Rate::PacketsPerSecond(load),
        duration: Duration::from_secs_f64(duration),
        burst: None,
    };
    let sample = runner.load(&name(search.goals()), &order)?;
    let evidence = Evidence {
        duration,
        effective: sample.trial.elapsed_s.max(duration),
        loss: sample.trial.loss_ratio,
        excused: sample.excused(),
    };
    search.add(load, evidence);
    Ok(())
}

fn name(goals: &[Goal]) -> String {
    let names: Vec<&str> = goals.iter().map(|goal| goal.name.as_str()).collect();
    names.join("+")
}

fn result(found: &Found, trials: &[Trial]) -> Searched {
    let directions = trials.first().map_or(1, |trial| trial.directions.len()) as f64;
    let at = |bound: Option<Bound>| -> Vec<&Trial> {
        let load = bound.map(|bound| bound.load);
        let same = |trial: &&Trial| trial.load.is_some() && trial.load == load;
        trials.iter().filter(same).collect()
    };
    let lower = at(found.lower);
    let cycles: Vec<f64> = lower
        .iter()
        .filter_map(|trial| trial.cycles_per_packet)
        .collect();
    let mut quality = quality(lower.iter().chain(&at(found.upper)).copied());
    quality.spoiled = found.status == Status::Spoiled;
    quality.unfinished = found.status == Status::Stopped;
    if found.status == Status::AtLeast {
        quality
            .remarks
            .push("every load that was tried lost too much".into());
    }
    Searched {
        lower: found.lower.map(|bound| bound.load * directions),
        upper: found.upper.map(|bound| bound.load * directions),
        throughput: found.throughput.map(|rate| rate * directions),
        cycles: Estimate::of(&cycles).map(|cycles| cycles.median),
        status: found.status,
        quality,
    }
}

/// Several searches as one outcome.
fn outcome(goal: &Goal, results: &[&Searched]) -> GoalOutcome {
    let all = |of: fn(&Searched) -> Option<f64>| {
        results.iter().filter_map(|&r| of(r)).collect::<Vec<f64>>()
    };
    let mean = |of| Estimate::of(&all(of)).map(|estimate| estimate.mean);
    let mut quality = Quality::default();
    for result in results {
        quality.spoiled |= result.quality.spoiled;
        quality.unfinished |= result.quality.unfinished;
        quality.generator_limited |= result.quality.generator_limited;
        for remark in &result.quality.remarks {
            if !quality.remarks.contains(remark) {
                quality.remarks.push(remark.clone());
            }
        }
    }
    let at_limit = results
        .iter()
        .all(|result| result.status == Status::AtLimit);
    if at_limit {
        quality
            .remarks
            .push("the highest load that was offered met the goal".into());
    }
    GoalOutcome {
        goal: goal.clone(),
        lower: mean(|result| result.lower),
        upper: mean(|result| result.upper),
        conditional_throughput: mean(|result| result.throughput),
        searches: (results.len() > 1)
            .then(|| Estimate::of(&all(|result| result.lower)))
            .flatten(),
        at_limit,
        cycles_per_packet: mean(|result| result.cycles),
        quality,
    }
}
