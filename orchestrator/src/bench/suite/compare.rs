//! Two targets in turn: A B, B A, A B, … so that whatever the host does in the long run does to both.

use std::time::Duration;

use super::open::derived;
use super::plan::{ComparisonPlan, TrafficPlan, alike, record};
use super::run::Targets;
use crate::bench::method::{self, Runner, Stop, Watch};
use crate::bench::output::Figure;
use crate::bench::output::record::{Comparison, Outcome, Quality};
use crate::bench::stats::Estimate;
use crate::bench::trial::Target as _;
use crate::bench::units::pps;

/// Rounds beyond those asked for, to make up for ones that noise spoiled: as many again.
const EXTRA: usize = 2;

/// One round: the figures of both.
type Round = [Option<Figure>; 2];

/// Compares; what was found before a stop is in the result.
pub fn run(
    plan: &ComparisonPlan,
    targets: &mut Targets<'_>,
    later: Duration,
    watch: &dyn Watch,
) -> (Comparison, Result<(), Stop>) {
    let mut rounds: Vec<Round> = Vec::new();
    let mut end = Ok(());
    let known = [0, 1].map(|index| derived(&plan.targets[index]));
    let [a, b] = &known;
    let traffic = alike(&plan.traffic, [a.as_ref(), b.as_ref()]);
    while good(&rounds).count() < plan.rounds && rounds.len() < EXTRA * plan.rounds {
        match round(plan, &traffic, rounds.len(), targets, later, watch) {
            Ok(round) => rounds.push(round),
            Err(stop) => {
                targets.clear();
                end = Err(stop);
                break;
            }
        }
    }
    let mut found = conclude(plan, &rounds, end.is_err());
    found.traffic = record(&traffic.with(a.as_ref().or(b.as_ref())));
    (found, end)
}

/// Measures both, the second first in every other round.
fn round(
    plan: &ComparisonPlan,
    traffic: &TrafficPlan,
    number: usize,
    targets: &mut Targets<'_>,
    later: Duration,
    watch: &dyn Watch,
) -> Result<Round, Stop> {
    let mut figures = [None, None];
    let order = if number.is_multiple_of(2) {
        [0, 1]
    } else {
        [1, 0]
    };
    for index in order {
        let target = targets.get(&plan.targets[index])?;
        let traffic = traffic.with(target.derived());
        target.set_traffic(&traffic)?;
        let mut runner = Runner::new(target, &plan.settings, watch);
        let each = plan.cost() / plan.rounds.max(1) as u32;
        runner.later = later + each * plan.rounds.saturating_sub(number + 1) as u32;
        let mut outcomes = Vec::new();
        method::run(&mut runner, &mut outcomes)?;
        figures[index] = outcomes.iter().find_map(Outcome::figure);
    }
    if let [Some(a), Some(b)] = &figures {
        let mark = |figure: &Figure| if figure.is_quotable() { "" } else { "~" };
        let ratio = if b.rate > 0.0 {
            format!("ratio {:.3}", a.rate / b.rate)
        } else {
            "no ratio".into()
        };
        watch.tell(&format!(
            "round {}: {}{} and {}{}, {ratio}",
            number + 1,
            mark(a),
            pps(a.rate),
            mark(b),
            pps(b.rate)
        ));
    }
    Ok(figures)
}

/// Rounds in which both figures can be quoted.
fn good(rounds: &[Round]) -> impl Iterator<Item = (&Figure, &Figure)> {
    rounds.iter().filter_map(|[a, b]| {
        let quotable = |figure: &Option<Figure>| {
            let figure = figure.as_ref();
            figure.is_some_and(|figure| figure.is_quotable() && figure.rate > 0.0)
        };
        (quotable(a) && quotable(b)).then_some(())?;
        a.as_ref().zip(b.as_ref())
    })
}

fn conclude(plan: &ComparisonPlan, rounds: &[Round], stopped: bool) -> Comparison {
    let good: Vec<(&Figure, &Figure)> = good(rounds).collect();
    let all = rounds
        .iter()
        .filter_map(|[a, b]| a.as_ref().zip(b.as_ref()))
        .filter(|(a, b)| a.rate > 0.0 && b.rate > 0.0);
    // Of a run that was stopped, what there is counts.
    let spoiled = good.len() * 2 < plan.rounds.min(rounds.len());
    let counted: Vec<(&Figure, &Figure)> = if spoiled { all.collect() } else { good.clone() };
    let pairs: Vec<(f64, f64)> = counted.iter().map(|(a, b)| (a.rate, b.rate)).collect();
    let limited = |figure: &Figure| figure.quality.generator_limited;
    let mut quality = Quality {
        spoiled,
        generator_limited: counted.iter().any(|(a, b)| limited(a) || limited(b)),
        unfinished: stopped,
        remarks: Vec::new(),
    };
    let left_out = rounds.len() - counted.len();
    if left_out > 0 {
        quality.remarks.push(format!(
            "{left_out} rounds were spoiled by noise and left out"
        ));
    }
    let ratio = Estimate::of_ratios(&pairs);
    // Without an interval nothing is reached with confidence, and what is spoiled proves nothing.
    let low = ratio
        .as_ref()
        .and_then(|ratio| ratio.low)
        .filter(|_| !spoiled);
    Comparison {
        name: plan.name.clone(),
        a: plan.targets[0].name.clone(),
        b: plan.targets[1].name.clone(),
        measure: plan.measure.name(),
        traffic: record(&plan.traffic.with(None)),
        rounds: pairs,
        at_least: plan.at_least,
        reached: plan
            .at_least
            .map(|least| low.is_some_and(|low| low >= least)),
        ratio,
        quality,
    }
}
