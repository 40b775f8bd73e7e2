//! Runs trials for methods: repeats what noise spoiled, records everything.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::settings::Settings;
use crate::bench::output::record::{Counts, NoiseRecord, Quality, Trial};
use crate::bench::trial::{
    BenchError, Load, Noise, Progress, Rate, StatefulLoad, StatefulResult, StatefulTarget, Target,
    TrialResult,
};
use crate::bench::units;

/// Below this share of idle polls the generator was the limit.
pub const LEAST_IDLE: f64 = 0.1;
/// A trial that lost more than this share of its time to the host does not count for rates.
pub const MOST_NOISE: f64 = 0.02;
/// What a processor taken away is taken to cost, where nothing tells: seconds.
const DESCHEDULED: f64 = 0.000_2;

/// The warm-up after one in which nothing came through.
const LONGER_WARM_UP: Duration = Duration::from_millis(300);

/// A direction of which nothing came through.
fn silent(trial: &Trial) -> Option<&Counts> {
    let mut directions = trial.directions.iter();
    directions.find(|counts| counts.received == 0)
}

/// Something to be measured that may also carry connections.
pub trait Subject: Target {
    /// As a carrier of connections, where it can.
    fn stateful(&mut self) -> Option<&mut dyn StatefulTarget>;

    /// Adds to an error what the target knows of its cause.
    fn explain(&self, error: BenchError) -> BenchError {
        error
    }

    /// A trial at `over`, which goes on without a pause at `after`. Tells how long after the change the last packet
    /// was due that was lost; zero if none was.
    ///
    /// # Errors
    /// As [`Target::trial`].
    fn overload(
        &mut self,
        over: &Load,
        after: &Load,
        progress: &dyn Progress,
    ) -> Result<(TrialResult, Duration), BenchError>;
}

/// Who watches a run: a display, and whoever may stop it.
pub trait Watch: Progress {
    /// A trial begins: what it is, how long it takes, and about how long the case will take after it.
    fn trial(&self, what: &str, takes: Duration, left: Duration);

    /// Something worth a line.
    fn tell(&self, line: &str);
}

/// Why methods stop early.
#[derive(Debug)]
pub enum Stop {
    /// The user wants it.
    Cancelled,
    /// The target can't be measured any more.
    Failed(BenchError),
}

impl From<BenchError> for Stop {
    fn from(error: BenchError) -> Self {
        match error {
            BenchError::Cancelled => Self::Cancelled,
            error => Self::Failed(error),
        }
    }
}

/// A trial's record and its latencies.
#[derive(Debug)]
pub struct Sample {
    /// The record.
    pub trial: Trial,
    /// Latencies in nanoseconds.
    pub latency: Histogram<u64>,
}

impl Sample {
    /// How much of the loss ratio the host may have caused.
    pub fn excused(&self) -> f64 {
        self.trial.noise.excuses()
    }

    /// Whether noise may be the cause of losing more than `allowed`.
    pub fn is_spoiled(&self, allowed: f64) -> bool {
        let loss = self.trial.loss_ratio;
        loss > allowed && loss - self.excused() <= allowed
    }
}

/// Runs trials on a target.
pub struct Runner<'a> {
    /// How.
    pub settings: &'a Settings,
    /// Every trial so far.
    pub trials: Vec<Trial>,
    /// About how long what comes after this case takes.
    pub later: Duration,
    /// About how long the methods take that come after the one that runs.
    pub(super) rest: Duration,
    /// Highest load worth trying, in each direction, once it is known.
    pub(super) ceiling: Option<f64>,
    target: &'a mut dyn Subject,
    watch: &'a dyn Watch,
    began: Instant,
    /// About how much time the method that runs still needs, by itself.
    left: Duration,
}

impl<'a> Runner<'a> {
    /// A runner on a target whose traffic is set.
    pub fn new(target: &'a mut dyn Subject, settings: &'a Settings, watch: &'a dyn Watch) -> Self {
        Self {
            settings,
            trials: Vec::new(),
            later: Duration::ZERO,
            rest: settings.whole_cost(),
            ceiling: None,
            target,
            watch,
            began: Instant::now(),
            left: Duration::ZERO,
        }
    }

    /// Directions of the traffic, once a trial has shown them.
    pub fn directions(&self) -> u32 {
        self.trials
            .last()
            .map_or(1, |trial| trial.directions.len() as u32)
    }

    /// Says how much time the method still needs after its next trial.
    pub fn expect(&mut self, left: Duration) {
        self.left = left;
    }

    /// About how long everything takes that comes after the next trial.
    fn left(&self) -> Duration {
        self.left + self.rest + self.later
    }

    /// Whether the time for searches is used up.
    pub fn is_late(&self) -> bool {
        self.settings
            .limit
            .is_some_and(|limit| self.began.elapsed() >= limit)
    }

    /// Traffic that does not count, so that caches, tables and frequencies are as in the middle of a run.
    ///
    /// # Errors
    /// As [`Runner::load`].
    pub fn warm_up(&mut self) -> Result<(), Stop> {
        if self
            .settings
            .methods
            .iter()
            .all(|method| method.is_stateful())
        {
            return Ok(());
        }
        let mut time = self.settings.warm_up;
        for _ in 0..2 {
            let sample = self.sample("warm-up", Rate::Max, time)?;
            if silent(&sample.trial).is_none() {
                return Ok(());
            }
            // So short a time may have fallen into a pause of the host.
            time = time.max(LONGER_WARM_UP);
        }
        let trial = self.trials.last();
        let Some(counts) = trial.and_then(silent) else {
            return Ok(());
        };
        let error = BenchError::Blocked {
            direction: counts.name.clone(),
            reason: format!(
                "its flows open, but none of {} packets of the load came through",
                counts.offered
            ),
            hint: Some("are the frames longer than the target's MTU?".into()),
        };
        Err(Stop::Failed(self.target.explain(error)))
    }

    /// One trial.
    ///
    /// # Errors
    /// As [`Runner::load`].
    pub fn sample(&mut self, method: &str, rate: Rate, duration: Duration) -> Result<Sample, Stop> {
        self.load(
            method,
            &Load {
                rate,
                duration,
                burst: None,
            },
        )
    }

    /// One trial, again if noise may be the cause of its loss: at most [`Settings::retries`] times.
    ///
    /// # Errors
    /// As [`Runner::load`].
    pub fn clean_sample(
        &mut self,
        method: &str,
        load: &Load,
        allowed: f64,
    ) -> Result<Sample, Stop> {
        let mut sample = self.load(method, load)?;
        for _ in 0..self.settings.retries {
            if !sample.is_spoiled(allowed) {
                break;
            }
            sample = self.load(method, load)?;
        }
        Ok(sample)
    }

    /// One trial at `load`.
    ///
    /// # Errors
    /// A user who gives up, a target that can't be measured any more.
    pub fn load(&mut self, method: &str, load: &Load) -> Result<Sample, Stop> {
        self.watch
            .trial(&describe(method, load), load.duration, self.left());
        if self.watch.cancelled() {
            return Err(Stop::Cancelled);
        }
        let result = self.target.trial(load, self.watch)?;
        let trial = record(method, load, &result);
        self.trials.push(trial.clone());
        Ok(Sample {
            trial,
            latency: result.latency,
        })
    }

    /// An overload, and what follows it: see [`Subject::overload`].
    ///
    /// # Errors
    /// As [`Runner::load`].
    pub fn overload(&mut self, over: &Load, after: &Load) -> Result<(TrialResult, Duration), Stop> {
        let takes = over.duration + after.duration;
        self.watch
            .trial(&describe("recovery", over), takes, self.left());
        if self.watch.cancelled() {
            return Err(Stop::Cancelled);
        }
        let (result, recovered) = self.target.overload(over, after, self.watch)?;
        self.trials.push(record("recovery", over, &result));
        Ok((result, recovered))
    }

    /// One trial with connections.
    ///
    /// # Errors
    /// As [`Runner::load`]; a target that does not carry connections.
    pub fn connect(&mut self, what: &str, load: &StatefulLoad) -> Result<StatefulResult, Stop> {
        self.watch.trial(what, load.duration, self.left());
        if self.watch.cancelled() {
            return Err(Stop::Cancelled);
        }
        let Some(target) = self.target.stateful() else {
            let text =
                "this target does not carry TCP connections; leave the methods of RFC 9411 out";
            return Err(Stop::Failed(BenchError::Arguments(text.into())));
        };
        let result = target.stateful(load, self.watch);
        result.map_err(|error| self.target.explain(error).into())
    }

    /// Says something worth a line.
    pub fn tell(&self, line: &str) {
        self.watch.tell(line);
    }
}

fn describe(method: &str, load: &Load) -> String {
    let rate = match load.rate {
        Rate::Max => "all that goes".to_owned(),
        Rate::PacketsPerSecond(rate) => units::pps(rate),
    };
    match load.burst {
        Some(frames) => format!("{method}: a burst of {frames} frames"),
        None => format!("{method}: {rate} for {}", units::span(load.duration)),
    }
}

/// The share of `elapsed` seconds that the host took at most.
pub fn noise_share(noise: &Noise, elapsed: f64) -> f64 {
    let gaps = noise.gaps as f64 * noise.longest_gap_ns as f64 / 1e9;
    let taken = noise.steal_ns as f64 / 1e9 + noise.descheduled as f64 * DESCHEDULED;
    // A gap is often a processor that was taken away: what is larger counts, not both.
    (gaps.max(taken) / elapsed.max(1e-9)).min(1.0)
}

/// A trial as results keep it.
fn record(method: &str, load: &Load, result: &TrialResult) -> Trial {
    let elapsed_s = result.elapsed.as_secs_f64();
    let received: u64 = result.directions.iter().map(|d| d.received).sum();
    let counts = result.directions.iter().map(|d| Counts {
        name: d.name.clone(),
        offered: d.offered,
        sent: d.sent,
        received: d.received,
        lost: d.lost,
        reordered: d.reordered,
        duplicated: d.duplicated,
        corrupted: d.corrupted,
        mistranslated: d.mistranslated,
        unexpected: d.unexpected,
    });
    Trial {
        method: method.to_owned(),
        load: match load.rate {
            Rate::Max => None,
            Rate::PacketsPerSecond(rate) => Some(rate),
        },
        burst: load.burst,
        duration_s: load.duration.as_secs_f64(),
        elapsed_s,
        rate: received as f64 / elapsed_s.max(1e-9),
        loss_ratio: result.loss_ratio(),
        directions: counts.collect(),
        noise: NoiseRecord {
            steal_ns: result.noise.steal_ns,
            gaps: result.noise.gaps,
            longest_gap_ns: result.noise.longest_gap_ns,
            jumps: result.noise.jumps,
            descheduled: result.noise.descheduled,
            share: noise_share(&result.noise, elapsed_s),
        },
        generator_idle: result.generator_idle,
        cycles_per_packet: result.cycles_per_packet,
    }
}

/// What `trials` together say about the quality of a figure that stands on them.
pub fn quality<'t>(trials: impl IntoIterator<Item = &'t Trial>) -> Quality {
    let mut quality = Quality::default();
    let (mut corrupted, mut mistranslated, mut duplicated, mut reordered) = (0, 0, 0, 0);
    for trial in trials {
        quality.generator_limited |= trial.generator_idle < LEAST_IDLE;
        for counts in &trial.directions {
            corrupted += counts.corrupted;
            mistranslated += counts.mistranslated;
            duplicated += counts.duplicated;
            reordered += counts.reordered;
        }
    }
    let seen = [
        (corrupted, "came corrupted"),
        (mistranslated, "came with wrong addresses or ports"),
        (duplicated, "came twice"),
        (reordered, "came out of order"),
    ];
    let seen = seen.iter().filter(|(count, _)| *count > 0);
    quality.remarks = seen
        .map(|(count, what)| format!("{count} packets {what}"))
        .collect();
    quality
}
