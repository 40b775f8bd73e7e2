//! Measures what a plan says, and keeps what was found whatever happens.

use super::compare;
use super::open::{Open, open};
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

/// Runs the plan; `command` is how it was asked for.
pub fn run(plan: &Plan, command: Vec<String>, watch: &dyn Watch) -> Finished {
    let began = Instant::now();
    let mut finished = Finished {
        results: Results {
            chainplane_bench: FORMAT,
            started: now(),
            elapsed_s: 0.0,
            partial: false,
            command,
            host: Host::here(),
            cases: Vec::new(),
            comparisons: Vec::new(),
        },
        cancelled: false,
        failures: Vec::new(),
        reached: true,
    };
    let mut targets = Targets::new(plan.generator, watch);
    let several = plan.cases.len() + plan.comparisons.len();
    for (index, case) in plan.cases.iter().enumerate() {
        if several > 1 {
            watch.tell(&format!("case {} of {several}: {}", index + 1, case.name));
        }
        let (case, stop) = measure(case, &mut targets, plan.cost_from(index + 1, 0), watch);
        finished.note(&case.name, stop);
        finished.results.cases.push(case);
        if finished.cancelled {
            break;
        }
    }
    for (index, comparison) in plan.comparisons.iter().enumerate() {
        if finished.cancelled {
            break;
        }
        watch.tell(&format!("comparison: {}", comparison.name));
        let (found, stop) = compare::run(
            comparison,
            &mut targets,
            plan.cost_from(usize::MAX, index + 1),
            watch,
        );
        finished.reached &= found.reached != Some(false);
        finished.note(&found.name, stop);
        finished.results.comparisons.push(found);
    }
    finished.results.partial = finished.cancelled || !finished.failures.is_empty();
    finished.results.elapsed_s = began.elapsed().as_secs_f64();
    finished
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
