//! Which load to try next.

use std::collections::BTreeMap;

use super::goal::{Class, Evidence, Goal, Side};

/// Phases before the goal's own.
const PRECEDING: u32 = 2;
/// Spoiled trials at one load after which no more are made there.
const MOST_SPOILED: usize = 6;

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Next {
    /// A trial at this load for so many seconds.
    Trial {
        /// Load, in the unit of the search's limits.
        load: f64,
        /// Trial duration in seconds.
        duration: f64,
    },
    /// Nothing: every goal has its result.
    Done,
}

/// A load that bounds a result.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bound {
    /// The load.
    pub load: f64,
    /// Trials there.
    pub trials: usize,
}

/// How a goal's search ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Both bounds are there and near enough.
    Regular,
    /// The highest load that can be offered meets the goal.
    AtLimit,
    /// The lowest load that was tried fails it.
    AtLeast,
    /// The search was stopped before its end.
    Stopped,
    /// The upper bound stands on trials that the host's noise spoiled.
    Spoiled,
}

/// What was found for a goal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Found {
    /// Relevant Lower Bound.
    pub lower: Option<Bound>,
    /// Relevant Upper Bound.
    pub upper: Option<Bound>,
    /// Conditional Throughput at the lower bound.
    pub throughput: Option<f64>,
    /// How it ended.
    pub status: Status,
}

/// A search for several goals between two loads.
#[derive(Debug)]
pub struct Search {
    goals: Vec<Goal>,
    grid: Grid,
    trials: BTreeMap<usize, Vec<Evidence>>,
}

/// Loads in geometric steps downwards: index 0 is the highest.
#[derive(Clone, Copy, Debug)]
struct Grid {
    highest: f64,
    /// Logarithm of one step, below 0.
    step: f64,
    last: usize,
}

impl Grid {
    fn load(&self, index: usize) -> f64 {
        self.highest * (self.step * index as f64).exp()
    }

    /// The index of the highest load that is not above `load`.
    fn index(&self, load: f64) -> usize {
        if load >= self.highest {
            return 0;
        }
        let steps = (load.max(f64::MIN_POSITIVE) / self.highest).ln() / self.step;
        ((steps - 1e-6).ceil() as usize).min(self.last)
    }
}

/// What decides about a load in one phase.
#[derive(Clone, Copy, Debug)]
struct Phase {
    duration: f64,
    sum: f64,
    /// Widest distance of the bounds, in steps of the grid.
    width: usize,
}

/// Bounds by index; a larger index is a lower load.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Bounds {
    upper: Option<usize>,
    lower: Option<usize>,
}

impl Search {
    /// A search for `goals` from `lowest` to `highest`, both above 0.
    pub fn new(goals: Vec<Goal>, lowest: f64, highest: f64) -> Self {
        let finest = goals.iter().map(|goal| goal.width).fold(0.5, f64::min);
        let step = (1.0 - finest.max(1e-5)).ln();
        let last = ((lowest / highest).ln() / step).floor().max(0.0) as usize;
        Self {
            goals,
            grid: Grid {
                highest,
                step,
                last,
            },
            trials: BTreeMap::new(),
        }
    }

    /// The goals.
    pub fn goals(&self) -> &[Goal] {
        &self.goals
    }

    /// Moves the highest load up by about `factor`, above 1, and keeps what was found: the old loads stay points of the
    /// grid.
    pub fn raise(&mut self, factor: f64) {
        let steps = (-factor.ln() / self.grid.step).ceil().max(1.0) as usize;
        self.grid.highest *= (-self.grid.step * steps as f64).exp();
        self.grid.last += steps;
        let trials = std::mem::take(&mut self.trials);
        self.trials = trials
            .into_iter()
            .map(|(index, all)| (index + steps, all))
            .collect();
    }

    /// The highest load.
    pub fn highest(&self) -> f64 {
        self.grid.highest
    }

    /// What the trial that [`Search::next`] asked for at `load` gave.
    pub fn add(&mut self, load: f64, evidence: Evidence) {
        // `load` came from the grid: the nearest point is the point itself.
        let index = self.grid.index(load);
        self.trials.entry(index).or_default().push(evidence);
    }

    /// The next trial.
    pub fn next(&self) -> Next {
        for number in 0..=PRECEDING {
            for goal in &self.goals {
                if let Some(index) = self.candidate(goal, number) {
                    let load = self.grid.load(index);
                    let duration = self.phase(goal, number).duration;
                    return Next::Trial { load, duration };
                }
            }
        }
        Next::Done
    }

    /// Seconds of trials that are left, roughly: as if no load needed more than its sum of durations.
    pub fn remaining(&self) -> f64 {
        let mut seconds = 0.0;
        for goal in &self.goals {
            let mut bounds = Bounds::default();
            for number in 0..=PRECEDING {
                let phase = self.phase(goal, number);
                let here = self.bounds(goal, phase);
                let again =
                    f64::from(u8::from(here.lower.is_none()) + u8::from(here.upper.is_none()));
                bounds = Bounds {
                    upper: here.upper.or(bounds.upper),
                    lower: here.lower.or(bounds.lower),
                };
                if here.lower == Some(0) {
                    continue;
                }
                let distance = match (number, bounds.upper, bounds.lower) {
                    // The phases before leave the interval twice as wide.
                    (1.., ..) if again > 0.0 => 2 * phase.width,
                    (_, Some(u), Some(l)) if l > u => l - u,
                    _ => 16 * phase.width,
                };
                let halvings = (distance as f64 / phase.width as f64).log2().max(0.0);
                seconds += (halvings + again) * phase.sum.max(phase.duration);
            }
        }
        // Several goals share trials.
        seconds / (self.goals.len() as f64).sqrt().max(1.0)
    }

    /// What was found, goal by goal.
    pub fn found(&self) -> Vec<Found> {
        self.goals.iter().map(|goal| self.result(goal)).collect()
    }

    fn result(&self, goal: &Goal) -> Found {
        let phase = self.phase(goal, PRECEDING);
        let Bounds { upper, lower } = self.bounds(goal, phase);
        let bound = |index| Bound {
            load: self.grid.load(index),
            trials: self.trials[&index].len(),
        };
        let status = match (upper, lower) {
            (_, Some(0)) => Status::AtLimit,
            (Some(u), _) if self.class(goal, phase, u) == Class::Spoiled => Status::Spoiled,
            (Some(u), None) if u == self.grid.last => Status::AtLeast,
            (Some(u), Some(l)) if l - u <= phase.width => Status::Regular,
            _ => Status::Stopped,
        };
        let throughput = lower.and_then(|index| {
            goal.conditional_throughput(self.grid.load(index), &self.trials[&index])
        });
        Found {
            lower: lower.map(bound),
            upper: upper.map(bound),
            throughput,
            status,
        }
    }

    /// Phase `number` of `goal`: durations and sums grow and the width shrinks to the goal's own.
    fn phase(&self, goal: &Goal, number: u32) -> Phase {
        let (first, last) = (
            goal.initial_trial.as_secs_f64(),
            goal.final_trial.as_secs_f64(),
        );
        let share = f64::from(number) / f64::from(PRECEDING);
        let between = |from: f64, to: f64| from * (to / from).powf(share);
        let width = ((1.0 - goal.width).ln() / self.grid.step + 1e-6).floor() as usize;
        Phase {
            duration: between(first.min(last), last),
            sum: between(first.min(last), goal.duration_sum.as_secs_f64()),
            width: width.max(1) << (PRECEDING - number),
        }
    }

    fn class(&self, goal: &Goal, phase: Phase, index: usize) -> Class {
        let trials = self.trials.get(&index).map_or(&[][..], Vec::as_slice);
        goal.classify(trials, phase.duration, phase.sum, MOST_SPOILED)
    }

    /// Relevant bounds: the lowest load that fails, and the highest below it that does not.
    fn bounds(&self, goal: &Goal, phase: Phase) -> Bounds {
        let mut bounds = Bounds::default();
        for &index in self.trials.keys() {
            match self.class(goal, phase, index) {
                Class::Upper | Class::Spoiled => {
                    bounds = Bounds {
                        upper: Some(index),
                        lower: None,
                    }
                }
                Class::Lower if bounds.lower.is_none() => bounds.lower = Some(index),
                Class::Lower | Class::Undecided => {}
            }
        }
        bounds
    }

    /// The load that `goal` needs tried next in phase `number`; `None` where the phase is done.
    fn candidate(&self, goal: &Goal, number: u32) -> Option<usize> {
        let phase = self.phase(goal, number);
        let before = match number {
            0 => Bounds::default(),
            _ => self.bounds(goal, self.phase(goal, number - 1)),
        };
        let Bounds { upper, lower } = self.bounds(goal, phase);
        // Bounds of the phase before are looked at again, the lower one first.
        if lower.is_none() && below(before.lower, upper) {
            return before.lower;
        }
        if upper.is_none() && before.upper.is_some() && below(lower, before.upper) {
            return before.upper;
        }
        match (Bounds { upper, lower }) {
            Bounds { lower: Some(0), .. } => None,
            Bounds {
                upper: None,
                lower: None,
            } => Some(0),
            Bounds {
                upper: None,
                lower: Some(lower),
            } => Some(lower.saturating_sub(self.stride(lower, phase))),
            Bounds {
                upper: Some(upper),
                lower: None,
            } => self.downwards(goal, phase, upper),
            Bounds {
                upper: Some(upper),
                lower: Some(lower),
            } => (lower - upper > phase.width).then(|| upper + (lower - upper) / 2),
        }
    }

    /// A load below `upper`: what was forwarded there is a good guess of what can be.
    fn downwards(&self, goal: &Goal, phase: Phase, upper: usize) -> Option<usize> {
        let last = self.grid.last;
        if upper >= last {
            return None;
        }
        let lost = |trial: &Evidence| (goal.side(trial) == Side::High).then_some(trial.loss);
        let losses = self.trials[&upper].iter().filter_map(lost);
        let loss = losses.fold(0.0, f64::max);
        let allowed = self.grid.load(upper) * (1.0 - loss) / (1.0 - goal.loss_ratio);
        let guess = self.grid.index(allowed);
        if guess > upper + phase.width {
            return Some(guess);
        }
        Some((upper + self.stride(upper, phase)).min(last))
    }

    /// How far to step from `from` to look for the missing bound: twice as far as the last step, which the
    /// distance to the nearest other load that was tried shows; the phase's width at first.
    fn stride(&self, from: usize, phase: Phase) -> usize {
        let others = self.trials.keys().filter(|&&index| index != from);
        let nearest = others.map(|index| index.abs_diff(from)).min();
        nearest.map_or(phase.width, |steps| {
            (2 * steps).clamp(phase.width, 64 * phase.width)
        })
    }
}

/// Whether the load at index `lower` is there and below the load at index `upper`, where there is one.
fn below(lower: Option<usize>, upper: Option<usize>) -> bool {
    match (lower, upper) {
        (Some(lower), Some(upper)) => lower > upper,
        (Some(_), None) => true,
        (None, _) => false,
    }
}
