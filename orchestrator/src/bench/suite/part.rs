//! Suites that are measured in several runs: what earlier ones found is taken over, and a run can end after a time.

use std::path::Path;
use std::time::{Duration, Instant};

use super::plan::{CasePlan, ComparisonPlan, Plan, record};
use crate::bench::output::host::Host;
use crate::bench::output::record::{Case, Comparison, FORMAT, Results};

/// What a run takes over, and how long it may last.
#[derive(Default)]
pub struct Part {
    /// What earlier runs found.
    pub earlier: Option<Results>,
    /// After so long nothing is begun any more, nor what would last longer.
    pub time: Option<Duration>,
}

/// Results to go on from, if the file has any.
///
/// # Errors
/// What is no result of this program.
pub fn earlier(file: &Path) -> Result<Option<Results>, String> {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("can't read {}: {error}", file.display())),
    };
    if text.trim().is_empty() {
        return Ok(None);
    }
    let results: Results = serde_json::from_str(&text)
        .map_err(|error| format!("{} holds no results: {error}", file.display()))?;
    if results.chainplane_bench != FORMAT {
        let version = results.chainplane_bench;
        return Err(format!(
            "{} has results in format {version}; this program goes on from format {FORMAT}",
            file.display()
        ));
    }
    Ok(Some(results))
}

/// What is left to be measured.
pub struct Left {
    began: Instant,
    time: Option<Duration>,
    /// When earlier runs began, and how long they took in all.
    pub runs: Vec<String>,
    pub elapsed_s: f64,
    cases: Vec<Option<Case>>,
    comparisons: Vec<Option<Comparison>>,
    costs: [Vec<Duration>; 2],
    /// Something was begun in this run: each gets further.
    begun: bool,
}

impl Left {
    /// Of a plan, on this machine.
    pub fn new(plan: &Plan, part: Part, host: &Host) -> Self {
        let earlier = part.earlier.filter(|it| is_same_host(&it.host, host));
        let find = |case: &CasePlan| {
            let cases = &earlier.as_ref()?.cases;
            cases.iter().find(|it| is_result(it, case)).cloned()
        };
        let found = |comparison: &ComparisonPlan| {
            let all = &earlier.as_ref()?.comparisons;
            all.iter().find(|it| is_outcome(it, comparison)).cloned()
        };
        let cases: Vec<_> = plan.cases.iter().map(find).collect();
        let comparisons: Vec<_> = plan.comparisons.iter().map(found).collect();
        let cost = |known: bool, cost: Duration| if known { Duration::ZERO } else { cost };
        let costs = [
            plan.cases
                .iter()
                .zip(&cases)
                .map(|(case, found)| cost(found.is_some(), case.settings.whole_cost()))
                .collect(),
            plan.comparisons
                .iter()
                .zip(&comparisons)
                .map(|(comparison, found)| cost(found.is_some(), comparison.cost()))
                .collect(),
        ];
        let kept = cases.iter().any(Option::is_some) || comparisons.iter().any(Option::is_some);
        let earlier = earlier.filter(|_| kept);
        let (runs, elapsed_s) = earlier.map_or((Vec::new(), 0.0), |it| {
            let first = std::iter::once(it.started);
            (first.chain(it.resumed).collect(), it.elapsed_s)
        });
        Self {
            began: Instant::now(),
            time: part.time,
            runs,
            elapsed_s,
            cases,
            comparisons,
            costs,
            begun: false,
        }
    }

    /// What an earlier run found of a case.
    pub fn case(&mut self, index: usize) -> Option<Case> {
        self.cases[index].take()
    }

    /// What an earlier run found of a comparison.
    pub fn comparison(&mut self, index: usize) -> Option<Comparison> {
        self.comparisons[index].take()
    }

    /// Whether there is time for a case. The first one always has it.
    pub fn has_time_for_case(&mut self, index: usize) -> bool {
        self.has_time(self.costs[0][index])
    }

    /// Whether there is time for a comparison.
    pub fn has_time_for_comparison(&mut self, index: usize) -> bool {
        self.has_time(self.costs[1][index])
    }

    fn has_time(&mut self, cost: Duration) -> bool {
        let fits = self
            .time
            .is_none_or(|time| self.began.elapsed() + cost <= time);
        let begun = std::mem::replace(&mut self.begun, true);
        fits || !begun
    }

    /// About how long what follows a case takes.
    pub fn after_case(&self, index: usize) -> Duration {
        let [cases, comparisons] = &self.costs;
        cases[index + 1..].iter().chain(comparisons).sum()
    }

    /// About how long what follows a comparison takes.
    pub fn after_comparison(&self, index: usize) -> Duration {
        self.costs[1][index + 1..].iter().sum()
    }
}

/// Whether figures of both can stand in one report.
fn is_same_host(a: &Host, b: &Host) -> bool {
    let of = |host: &Host| {
        let Host { cpu, cpus, .. } = host.clone();
        (
            cpu,
            cpus,
            host.kernel.clone(),
            host.chainplane.clone(),
            host.build.clone(),
        )
    };
    of(a) == of(b)
}

/// Whether a case that was measured to its end is what the plan asks for.
fn is_result(found: &Case, plan: &CasePlan) -> bool {
    let asked = record(&plan.traffic.with(None));
    let of = |it: &crate::bench::output::record::TrafficRecord| {
        (
            it.flows,
            it.new_flows.to_bits(),
            it.frame_bytes.to_bits(),
            it.directions,
            it.seed,
        )
    };
    found.error.is_none()
        && found.name == plan.name
        && found.target.name == plan.target.name
        && found.settings == plan.settings
        && of(&found.traffic) == of(&asked)
}

/// Whether a comparison that was measured to its end is what the plan asks for.
fn is_outcome(found: &Comparison, plan: &ComparisonPlan) -> bool {
    !found.quality.unfinished
        && found.name == plan.name
        && [&found.a, &found.b] == [&plan.targets[0].name, &plan.targets[1].name]
        && found.measure == plan.measure.name()
        && found.traffic == record(&plan.traffic.with(None))
        && found.ratio.is_some()
}
