//! The result of a run, as it is written to JSON. `docs/bench-schema.json` is generated from here.
//!
//! Rates are packets a second of all directions together, unless a name says `load`: a load is what is offered in
//! each direction.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::host::Host;
use super::latency::Latency;
use crate::bench::method::Settings;
use crate::bench::method::mlr::Goal;
use crate::bench::stats::Estimate;
use crate::bench::trial::Jumps;

/// The version of the format.
pub const FORMAT: u32 = 1;

/// Results of `chainplane bench`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Results {
    /// Version of this format.
    pub chainplane_bench: u32,
    /// When the run began: RFC 3339, UTC.
    pub started: String,
    /// When it went on, where it was measured in several runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resumed: Vec<String>,
    /// How long it took, in seconds.
    pub elapsed_s: f64,
    /// Whether it was stopped before its end, so that results are missing.
    pub partial: bool,
    /// The command line.
    pub command: Vec<String>,
    /// The machine.
    pub host: Host,
    /// What was measured, in the order of the run.
    pub cases: Vec<Case>,
    /// Targets compared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub comparisons: Vec<Comparison>,
}

impl Results {
    /// In how many runs it was measured, where they are several.
    pub fn in_runs(&self) -> String {
        match self.resumed.len() {
            0 => String::new(),
            more => format!(", in {} runs", more + 1),
        }
    }
}

/// One target under one traffic.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Case {
    /// Its name.
    pub name: String,
    /// What was measured.
    pub target: TargetRecord,
    /// What was sent.
    pub traffic: TrafficRecord,
    /// How it was measured.
    pub settings: Settings,
    /// What came of it, method by method.
    pub results: Vec<Outcome>,
    /// Every trial, in order.
    pub trials: Vec<Trial>,
    /// Why it ended early, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A target.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct TargetRecord {
    /// The name under which it appears in plots.
    pub name: String,
    /// What it is.
    pub description: String,
    /// Functions of the chain, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain_length: Option<u32>,
    /// Where the generator was attached.
    pub endpoints: Vec<String>,
    /// Queues, rings, features, cores, versions.
    pub settings: BTreeMap<String, String>,
}

/// The traffic.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct TrafficRecord {
    /// In a line.
    pub description: String,
    /// Average frame length in bytes, without the frame check sequence.
    pub frame_bytes: f64,
    /// Whether frames have several lengths.
    pub mixed_sizes: bool,
    /// Flows at a time.
    pub flows: u32,
    /// New flows a second.
    pub new_flows: f64,
    /// Directions, 1 or 2.
    pub directions: u32,
    /// Everything else, by name.
    pub settings: BTreeMap<String, String>,
    /// Where everything random starts.
    pub seed: u64,
}

/// One trial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Trial {
    /// The method that asked for it.
    pub method: String,
    /// Packets a second offered in each direction; absent: as fast as the target takes them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<f64>,
    /// Frames of a burst in each direction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u64>,
    /// Seconds, as ordered.
    pub duration_s: f64,
    /// Seconds in which packets were sent.
    pub elapsed_s: f64,
    /// Packets received a second, all directions.
    pub rate: f64,
    /// The share of the packets due that did not come intact.
    pub loss_ratio: f64,
    /// By direction.
    pub directions: Vec<Counts>,
    /// What the host did meanwhile.
    pub noise: NoiseRecord,
    /// Share of the generator's polls that found nothing to do. Below 0.1 the generator was the limit.
    pub generator_idle: f64,
    /// Cycles the target was busy for a packet, where it tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cycles_per_packet: Option<f64>,
}

/// Packets of one direction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Counts {
    /// Where from and where to.
    pub name: String,
    /// Due.
    pub offered: u64,
    /// Taken by the target's queue.
    pub sent: u64,
    /// Came intact and as expected.
    pub received: u64,
    /// Never came.
    pub lost: u64,
    /// Came after a later one of the same flow.
    pub reordered: u64,
    /// Came again.
    pub duplicated: u64,
    /// Came with wrong bytes.
    pub corrupted: u64,
    /// Came with addresses or ports that are wrong for their flow.
    pub mistranslated: u64,
    /// Frames that belong to no packet sent.
    pub unexpected: u64,
}

/// What the host did during a trial.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct NoiseRecord {
    /// Time the hypervisor took, all processors, in nanoseconds.
    pub steal_ns: u64,
    /// Jumps of the generator's clock above 200 µs.
    pub gaps: u64,
    /// The longest, in nanoseconds.
    pub longest_gap_ns: u64,
    /// All above 20 µs, by length.
    #[serde(default)]
    pub jumps: Jumps,
    /// Times that the generator or a worker lost its processor.
    pub descheduled: u64,
    /// At most this share of the trial was lost to the host.
    pub share: f64,
}

impl NoiseRecord {
    /// What the host did in several trials together.
    pub fn of<'t>(trials: impl IntoIterator<Item = &'t Trial>) -> Self {
        let (mut all, mut time, mut taken) = (Self::default(), 0.0, 0.0);
        for Trial {
            noise, elapsed_s, ..
        } in trials
        {
            all.steal_ns += noise.steal_ns;
            all.gaps += noise.gaps;
            all.longest_gap_ns = all.longest_gap_ns.max(noise.longest_gap_ns);
            all.jumps.add(&noise.jumps);
            all.descheduled += noise.descheduled;
            time += elapsed_s;
            taken += noise.share * elapsed_s;
        }
        if time > 0.0 {
            all.share = taken / time;
        }
        all
    }

    /// How much of a loss ratio, or which share of the slowest packets, may be its doing: while nothing polls, queues
    /// fill and overflow, and it takes as long again until they are empty.
    pub fn excuses(&self) -> f64 {
        (2.0 * self.share).min(1.0)
    }
}

/// How far a figure can be quoted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Quality {
    /// The host's noise spoiled it: not to be quoted.
    pub spoiled: bool,
    /// The generator was the limit, not the target.
    pub generator_limited: bool,
    /// It was stopped before its end.
    pub unfinished: bool,
    /// What else a reader must know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<String>,
}

impl Quality {
    /// Marks in a few words; empty if it can be quoted.
    pub fn marks(&self) -> String {
        let marks = [
            (self.spoiled, "spoiled by noise"),
            (self.generator_limited, "generator was the limit"),
            (self.unfinished, "unfinished"),
        ];
        let marks = marks.iter().filter(|(on, _)| *on).map(|(_, text)| *text);
        marks.collect::<Vec<_>>().join(", ")
    }
}

/// What a method found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Maximum receive rate.
    Mrr(Mrr),
    /// A goal of an MLRsearch: NDR, PDR (RFC 9971).
    Goal(GoalOutcome),
    /// Throughput (RFC 2544, section 26.1).
    Throughput(Throughput),
    /// Frame loss rate (RFC 2544, section 26.3).
    FrameLoss(FrameLoss),
    /// Back-to-back frames (RFC 9004).
    BackToBack(BackToBack),
    /// System recovery (RFC 2544, section 26.5).
    Recovery(Recovery),
    /// Latency at loads.
    Latency(LatencyOutcome),
    /// A long run at one load.
    Soak(Soak),
    /// TCP connections (RFC 9411).
    Connections(Connections),
}

impl Results {
    /// Whether anything was found.
    pub fn has_figures(&self) -> bool {
        let compared = self.comparisons.iter().any(|it| !it.rounds.is_empty());
        compared || self.cases.iter().any(|case| !case.results.is_empty())
    }
}

/// Maximum receive rate: what comes through when as much is sent as the target takes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Mrr {
    /// Packets a second.
    pub rate: Estimate,
    /// Busy cycles of the target for a packet, where it tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cycles_per_packet: Option<Estimate>,
    /// How far to trust it.
    pub quality: Quality,
}

/// A goal's result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct GoalOutcome {
    /// The goal.
    pub goal: Goal,
    /// Relevant lower bound, packets a second: the result. With several searches, the mean of them.
    pub lower: Option<f64>,
    /// Relevant upper bound. With several searches, the mean of them.
    pub upper: Option<f64>,
    /// Conditional throughput at the lower bound. With several searches, the mean of them.
    pub conditional_throughput: Option<f64>,
    /// Lower bounds of several searches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub searches: Option<Estimate>,
    /// Whether the highest load met the goal, so that the true value may be higher.
    pub at_limit: bool,
    /// Busy cycles of the target for a packet at the lower bound, where it tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cycles_per_packet: Option<f64>,
    /// How far to trust it.
    pub quality: Quality,
}

/// The highest rate without loss, by halving.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Throughput {
    /// Packets a second; absent if every load lost packets.
    pub rate: Option<f64>,
    /// Repeated searches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub searches: Option<Estimate>,
    /// Seconds of a trial.
    pub trial_s: f64,
    /// How far to trust it.
    pub quality: Quality,
}

/// Loss by load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct FrameLoss {
    /// From the highest load down.
    pub points: Vec<LossPoint>,
    /// How far to trust it.
    pub quality: Quality,
}

/// Loss at one load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct LossPoint {
    /// Packets a second offered, all directions.
    pub offered: f64,
    /// Share of the highest load.
    pub share: f64,
    /// Loss ratio.
    pub loss_ratio: f64,
    /// Whether noise may be the cause.
    pub spoiled: bool,
}

/// Back-to-back frames.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct BackToBack {
    /// Frames of the longest burst without loss, in each direction.
    pub burst: Estimate,
    /// Packets a second of a burst, in each direction: what stands for the maximum theoretical frame rate.
    pub burst_load: f64,
    /// The throughput that corrects the buffer time, in each direction.
    pub throughput: f64,
    /// Implied buffer time: burst / burst rate, in seconds.
    pub implied_s: f64,
    /// Corrected buffer time: less what was forwarded meanwhile (RFC 9004, section 4).
    pub corrected_s: f64,
    /// Whether the longest burst that was tried lost nothing.
    pub at_limit: bool,
    /// How far to trust it.
    pub quality: Quality,
}

/// Recovery from overload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Recovery {
    /// Seconds from the end of the overload to the last lost packet.
    pub time_s: Estimate,
    /// Overload, packets a second in each direction.
    pub overload_load: f64,
    /// The load after it.
    pub after_load: f64,
    /// How far to trust it.
    pub quality: Quality,
}

/// Latency at several loads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct LatencyOutcome {
    /// What the loads are shares of: `ndr`, `pdr`, `mrr`, `throughput`, `rate`.
    pub reference: String,
    /// By load, the lowest first.
    pub points: Vec<LatencyPoint>,
}

/// Latency at one load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct LatencyPoint {
    /// Packets a second offered, all directions.
    pub offered: f64,
    /// Share of the reference.
    pub share: f64,
    /// The latency.
    pub latency: Latency,
    /// Loss ratio meanwhile.
    pub loss_ratio: f64,
    /// The share of packets, the slowest ones, whose latency may be the host's doing.
    pub doubtful_share: f64,
    /// How far to trust it.
    pub quality: Quality,
}

/// A long run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Soak {
    /// Packets a second offered, all directions.
    pub offered: f64,
    /// What the load is a share of: `ndr`, `throughput`, `pdr`; absent where it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// That share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<f64>,
    /// Slice by slice.
    pub slices: Vec<Slice>,
    /// Latency of the whole run.
    pub latency: Option<Latency>,
    /// Loss ratio of the whole run.
    pub loss_ratio: f64,
    /// What the host did in the whole run.
    #[serde(default)]
    pub noise: NoiseRecord,
    /// The share of packets, the slowest ones, whose latency may be the host's doing.
    #[serde(default)]
    pub doubtful_share: f64,
    /// How far to trust it.
    pub quality: Quality,
}

/// A part of a long run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Slice {
    /// Seconds since the beginning.
    pub at_s: f64,
    /// Packets a second received.
    pub rate: f64,
    /// Loss ratio.
    pub loss_ratio: f64,
    /// Median latency in nanoseconds.
    pub p50: Option<u64>,
    /// 99.9th percentile in nanoseconds.
    pub p99_9: Option<u64>,
    /// Whether noise may be the cause of its loss.
    pub spoiled: bool,
}

/// TCP connections.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Connections {
    /// What was searched for: `connections-per-second`, `concurrent-connections`, `transactions`.
    pub method: String,
    /// The result: connections a second, connections, transactions a second.
    pub value: f64,
    /// Whether the highest that was tried still succeeded.
    pub at_limit: bool,
    /// Bytes of requests and answers a second at the result.
    pub goodput_bytes: f64,
    /// Failed connections at the result.
    pub failed: u64,
    /// From SYN due to established.
    pub connect: Option<Latency>,
    /// From request to the end of the answer.
    pub transaction: Option<Latency>,
    /// What was tried: value and share of connections that failed.
    pub steps: Vec<(f64, f64)>,
    /// How far to trust it.
    pub quality: Quality,
}

/// Two targets, measured in turn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Comparison {
    /// Its name.
    pub name: String,
    /// The first target.
    pub a: String,
    /// The second.
    pub b: String,
    /// What is compared: `mrr`, `pdr`, `ndr`.
    pub measure: String,
    /// The traffic.
    pub traffic: TrafficRecord,
    /// Rates of each round, packets a second: of the first target and of the second.
    pub rounds: Vec<(f64, f64)>,
    /// The ratio first / second: geometric mean of the rounds and its interval.
    pub ratio: Option<Estimate>,
    /// The ratio that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_least: Option<f64>,
    /// Whether it was reached with confidence: the interval's lower end is not below it. Absent if none was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reached: Option<bool>,
    /// How far to trust it.
    pub quality: Quality,
}

impl Outcome {
    /// How far to trust it.
    pub fn quality(&self) -> Quality {
        match self {
            Self::Mrr(found) => found.quality.clone(),
            Self::Goal(found) => found.quality.clone(),
            Self::Throughput(found) => found.quality.clone(),
            Self::FrameLoss(found) => found.quality.clone(),
            Self::BackToBack(found) => found.quality.clone(),
            Self::Recovery(found) => found.quality.clone(),
            Self::Soak(found) => found.quality.clone(),
            Self::Connections(found) => found.quality.clone(),
            Self::Latency(found) => {
                let mut all = Quality::default();
                for point in &found.points {
                    all.spoiled |= point.quality.spoiled;
                    all.generator_limited |= point.quality.generator_limited;
                }
                all
            }
        }
    }
}
