//! A trial: traffic at a load for a time, and what became of every packet.
//!
//! This page is what methods are written against; they know nothing else of how packets move.

mod admit;
mod attached;
mod chain;
#[cfg(test)]
mod chain_tests;
mod derive;
mod engine;
mod flows;
mod generator;
mod latencies;
mod ledger;
mod noise;
mod opening;
mod overload;
mod pace;
mod scene;
mod stateful;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::traffic::Traffic;

pub use attached::{Attached, GeneratorOptions};
pub use chain::{Chain, ChainOptions};
pub use derive::Derived;
pub(in crate::bench) use engine::Engine;
pub(in crate::bench) use generator::Control;
pub use noise::Jumps;
pub(in crate::bench) use noise::{Gaps, Observed};
pub(in crate::bench) use scene::Scene;
pub use stateful::{Pace, StatefulLoad, StatefulResult, StatefulTarget};

/// How much is sent, and for how long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// How fast, in each direction.
    pub rate: Rate,
    /// How long packets are sent. What is under way then is waited for and counted.
    pub duration: Duration,
    /// Ends the trial after so many frames a direction, sent back to back at the rate.
    pub burst: Option<u64>,
}

/// How fast packets are sent in each direction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// As fast as the target takes them.
    Max,
    /// Packets a second, by the clock, whatever the target does (open loop).
    PacketsPerSecond(f64),
}

/// What became of a trial's packets.
#[derive(Clone, Debug)]
pub struct TrialResult {
    /// The direction from the first endpoint to the second, then, if the traffic is bidirectional, the other one.
    pub directions: Vec<Direction>,
    /// The time in which packets were sent.
    pub elapsed: Duration,
    /// Nanoseconds from when a packet was due to be sent, not from when there was room for it, to when it was found
    /// at the other end. So a target that stalls can't hide behind packets that were not sent (coordinated omission).
    /// With [`Rate::Max`] a packet is due when it is sent. Packets received intact, of both directions.
    pub latency: Histogram<u64>,
    /// What the host did to the trial.
    pub noise: Noise,
    /// The fraction of the generator's polls that found nothing to do: nothing received, and nothing due or no room
    /// for it. Under a tenth means that the generator was the limit.
    pub generator_idle: f64,
    /// Cycles of the time stamp counter that the target was busy for each packet it forwarded, where it tells.
    pub cycles_per_packet: Option<f64>,
}

/// One direction of a trial. Every packet offered is in exactly one of received, lost, corrupted and mistranslated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Direction {
    /// Where from and where to.
    pub name: String,
    /// Packets that were due.
    pub offered: u64,
    /// Packets that the target's queue had room for. What was due and never found room counts as lost.
    pub sent: u64,
    /// Packets that came intact and rewritten as expected, each counted once.
    pub received: u64,
    /// Packets that never came.
    pub lost: u64,
    /// Received packets that came after a later one of the same flow (RFC 4737).
    pub reordered: u64,
    /// Copies of packets that had come before.
    pub duplicated: u64,
    /// Packets that came with wrong bytes or a wrong checksum.
    pub corrupted: u64,
    /// Intact packets with other addresses or ports than the flow's earlier ones, or than those that the answers
    /// to a translated flow must have.
    pub mistranslated: u64,
    /// Frames that are no packets of this trial's direction: of an earlier one, or of somebody else. ARP, neighbour
    /// discovery and the like are not counted.
    pub unexpected: u64,
    /// Bytes of the packets sent.
    pub sent_bytes: u64,
    /// Bytes of the packets received.
    pub received_bytes: u64,
}

impl Direction {
    /// The fraction of offered packets that did not come intact.
    pub fn loss_ratio(&self) -> f64 {
        (self.offered.saturating_sub(self.received)) as f64 / (self.offered.max(1)) as f64
    }
}

impl TrialResult {
    /// The fraction of offered packets of all directions that did not come intact.
    pub fn loss_ratio(&self) -> f64 {
        let sum = |of: fn(&Direction) -> u64| self.directions.iter().map(of).sum::<u64>();
        let (offered, received) = (sum(|d| d.offered), sum(|d| d.received));
        offered.saturating_sub(received) as f64 / offered.max(1) as f64
    }
}

/// What the host did while a trial ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Noise {
    /// Time that the hypervisor gave to others, over all processors of this machine, in nanoseconds.
    pub steal_ns: u64,
    /// Times that the generator's clock jumped by more than [`Noise::GAP`] with no more between than 64 packets received
    /// or sent.
    pub gaps: u64,
    /// The longest such jump, in nanoseconds.
    pub longest_gap_ns: u64,
    /// All such jumps above 20 µs, by length. The shortest may be the generator's own where its packets are far away.
    pub jumps: Jumps,
    /// Times that the kernel took the processor away from the generator, or from a worker of a target in this
    /// process.
    pub descheduled: u64,
}

impl Noise {
    /// The shortest jump of the clock that counts.
    pub const GAP: Duration = Duration::from_micros(200);

    /// Whether nothing is known to have disturbed the trial.
    pub fn is_quiet(&self) -> bool {
        self.steal_ns == 0 && self.gaps == 0 && self.descheduled == 0
    }
}

/// What is measured, for reports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetDescription {
    /// What the target is, in a line.
    pub name: String,
    /// Where the generator is attached, first endpoint and second.
    pub endpoints: Vec<String>,
    /// Everything else that a reader needs to repeat it, by name: queues, ring sizes, features, cores.
    pub settings: BTreeMap<String, String>,
}

/// Something to be measured.
pub trait Target {
    /// What it is.
    fn describe(&self) -> TargetDescription;

    /// Decides what the following trials send.
    ///
    /// # Errors
    /// Traffic that contradicts itself or that the target can't carry.
    fn set_traffic(&mut self, traffic: &Traffic) -> Result<(), BenchError>;

    /// Opens the flows, sends, waits for what is under way, counts.
    ///
    /// # Errors
    /// A target that dies, or that lets nothing through; [`BenchError::Cancelled`] if `progress` says so.
    fn trial(&mut self, load: &Load, progress: &dyn Progress) -> Result<TrialResult, BenchError>;
}

/// Told how a trial goes, from the thread that called.
pub trait Progress {
    /// The fraction of the trial that is over.
    fn tick(&self, fraction: f64);

    /// Whether to give up.
    fn cancelled(&self) -> bool;
}

/// Tells nobody, and never gives up.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn tick(&self, _fraction: f64) {}

    fn cancelled(&self) -> bool {
        false
    }
}

/// Why there is no result.
#[derive(Debug)]
pub enum BenchError {
    /// The arguments contradict themselves or ask for what can't be.
    Arguments(String),
    /// An endpoint could not be attached: which, why.
    Attach {
        /// The socket or interface.
        endpoint: String,
        /// What was tried and what came of it.
        reason: String,
        /// What may help.
        hint: Option<String>,
    },
    /// The chain to be measured did not start.
    Start(String),
    /// The target disconnected or ended in the middle of a trial.
    Died {
        /// The socket or interface.
        endpoint: String,
        /// What was seen.
        reason: String,
    },
    /// Packets were sent and none, or not all flows, came through.
    Blocked {
        /// From where to where.
        direction: String,
        /// What was sent and what came.
        reason: String,
        /// What may help.
        hint: Option<String>,
    },
    /// The user gave up.
    Cancelled,
    /// The kernel refused something.
    Io(std::io::Error),
}

impl fmt::Display for BenchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Arguments(text) | Self::Start(text) => f.write_str(text),
            Self::Attach {
                endpoint, reason, ..
            } => write!(f, "can't attach to {endpoint}: {reason}"),
            Self::Died { endpoint, reason } => write!(f, "{endpoint}: {reason}"),
            Self::Blocked {
                direction, reason, ..
            } => write!(f, "{direction}: {reason}"),
            Self::Cancelled => f.write_str("cancelled"),
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl BenchError {
    /// What may help.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Attach { hint, .. } | Self::Blocked { hint, .. } => hint.as_deref(),
            _ => None,
        }
    }
}

impl std::error::Error for BenchError {}

impl From<std::io::Error> for BenchError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}
