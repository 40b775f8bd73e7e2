//! Measures what a plan says, and keeps what was found whatever happens.

use super::compare;
use super::open::{Open, open};
use super::part::{Left, Part};
use super::plan::{CasePlan, Plan, TargetPlan, record};
use crate::bench::method::{self, Runner, Stop, Watch};
use crate::bench::output::host::{Host, now};
use crate::bench::output::record::{Case, FORMAT, Results, TargetRecord};
use crate::bench::trial::{BenchError, GeneratorOptions, Target as _};
use std::time::{Duration, Instant};

/// A run's results, and how it ended.
pub struct Finished {
    /// What was found.
    pub results: Results,
    /// Whether the user stopped it.
    pub cancelled: bool,
    /// Cases and comparisons that were not begun.
    pub left: usize,
    /// Cases that ended early, with their errors.
    pub failures: Vec<(String, BenchError)>,
    /// Whether every ratio that was asked for was reached.
    pub reached: bool,
}

/// What brings targets up, one at a time. The one that is up is kept while it is wanted.
pub struct Targets<'w> {
    generator: GeneratorOptions,
    watch: &'w dyn Watch,
    up: Option<(TargetPlan, Open)>,
}

impl<'w> Targets<'w> {
    fn new(generator: GeneratorOptions, watch: &'w dyn Watch) -> Self {
        Self {
            generator,
            watch,
            up: None,
        }
    }

    /// The target that `plan` describes, up. Whatever else was up is taken down first: two targets that poll would
    /// share a core.
    ///
    /// # Errors
    /// What does not come up.
    pub fn get(&mut self, plan: &TargetPlan) -> Result<&mut Open, BenchError> {
        if self.up.as_ref().is_none_or(|(up, _)| up != plan) {
            self.up = None;
            self.up = Some((plan.clone(), open(plan, self.generator, self.watch)?));
        }
        match &mut self.up {
            Some((_, open)) => Ok(open),
            None => Err(BenchError::Start("the target did not come up".into())),
        }
    }

    /// Takes down what is up: after an error nothing is known of it.
    pub fn clear(&mut self) {
        self.up = None;
    }
}

/// Runs the plan, or the part of it that is left; `command` is how it was asked for.
pub fn run(plan: &Plan, command: Vec<String>, part: Part, watch: &dyn Watch) -> Finished {
    let began = Instant::now();
    let host = Host::here();
    let mut left = Left::new(plan, part, &host);
    let mut runs = std::mem::take(&mut left.runs);
    runs.push(now());
    let mut finished = Finished {
        results: Results {
            chainplane_bench: FORMAT,
            started: runs.remove(0),
            resumed: runs,
            elapsed_s: 0.0,
            partial: false,
            command,
            host,
            cases: Vec::new(),
            comparisons: Vec::new(),
        },
        cancelled: false,
        left: 0,
        failures: Vec::new(),
        reached: true,
    };
    let mut targets = Targets::new(plan.generator, watch);
    cases(plan, &mut left, &mut finished, &mut targets, watch);
    comparisons(plan, &mut left, &mut finished, &mut targets, watch);
    let whole = !finished.cancelled && finished.failures.is_empty() && finished.left == 0;
    finished.results.partial = !whole;
    finished.results.elapsed_s = left.elapsed_s + began.elapsed().as_secs_f64();
    finished
}

fn cases(
    plan: &Plan,
    left: &mut Left,
    finished: &mut Finished,
    targets: &mut Targets<'_>,
    watch: &dyn Watch,
) {
    let several = plan.cases.len() + plan.comparisons.len();
    for (index, case) in plan.cases.iter().enumerate() {
        if let Some(found) = left.case(index) {
            finished.results.cases.push(found);
            continue;
        }
        if finished.cancelled || !left.has_time_for_case(index) {
            finished.left += 1;
            continue;
        }
        if several > 1 {
            watch.tell(&format!("case {} of {several}: {}", index + 1, case.name));
        }
        let (case, stop) = measure(case, targets, left.after_case(index), watch);
        finished.note(&case.name, stop);
        finished.results.cases.push(case);
    }
}

fn comparisons(
    plan: &Plan,
    left: &mut Left,
    finished: &mut Finished,
    targets: &mut Targets<'_>,
    watch: &dyn Watch,
) {
    for (index, comparison) in plan.comparisons.iter().enumerate() {
        if let Some(found) = left.comparison(index) {
            finished.reached &= found.reached != Some(false);
            finished.results.comparisons.push(found);
            continue;
        }
        if finished.cancelled || !left.has_time_for_comparison(index) {
            finished.left += 1;
            continue;
        }
        watch.tell(&format!("comparison: {}", comparison.name));
        let later = left.after_comparison(index);
        let (found, stop) = compare::run(comparison, targets, later, watch);
        finished.reached &= found.reached != Some(false);
        finished.note(&found.name, stop);
        finished.results.comparisons.push(found);
    }
}

impl Finished {
    fn note(&mut self, name: &str, stop: Result<(), Stop>) {
        match stop {
            Ok(()) => {}
            Err(Stop::Cancelled) => self.cancelled = true,
            Err(Stop::Failed(error)) => self.failures.push((name.to_owned(), error)),
        }
    }
}

/// One case; what was found before a stop is in it.
fn measure(
    plan: &CasePlan,
    targets: &mut Targets<'_>,
    later: Duration,
    watch: &dyn Watch,
) -> (Case, Result<(), Stop>) {
    let mut case = Case {
        name: plan.name.clone(),
        target: TargetRecord {
            name: plan.target.name.clone(),
            chain_length: plan.target.chain_length,
            ..TargetRecord::default()
        },
        traffic: record(&plan.traffic.with(None)),
        settings: plan.settings.clone(),
        results: Vec::new(),
        trials: Vec::new(),
        error: None,
    };
    let end = fill(&mut case, plan, targets, later, watch);
    if let Err(stop) = &end {
        targets.clear();
        case.error = Some(match stop {
            Stop::Cancelled => "stopped by the user".to_owned(),
            Stop::Failed(error) => error.to_string(),
        });
    }
    (case, end)
}

fn fill(
    case: &mut Case,
    plan: &CasePlan,
    targets: &mut Targets<'_>,
    later: Duration,
    watch: &dyn Watch,
) -> Result<(), Stop> {
    let target = targets.get(&plan.target)?;
    case.target = target.record().clone();
    let traffic = plan.traffic.with(target.derived());
    case.traffic = record(&traffic);
    target.set_traffic(&traffic)?;
    let mut runner = Runner::new(target, &plan.settings, watch);
    runner.later = later;
    let end = method::run(&mut runner, &mut case.results);
    case.trials = runner.trials;
    end
}
