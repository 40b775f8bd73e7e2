//! Runs packets to completion: from a port, by the flow table or the stages, to a port.
//!
//! `ingress` asks ports and hands batches on; `fast` looks up and replays; `walk` runs the stages; `egress` sends;
//! `batched` runs them without records, a batch at a time; `lending` is about large frames that stay with their sender
//! meanwhile; `handover` exchanges packets with the other members of a crew; `upkeep` is what the worker's thread does with an engine between polls.

mod batched;
mod egress;
#[cfg(test)]
mod fairness;
mod fast;
#[cfg(test)]
mod foresight;
mod handover;
mod ingress;
mod lending;
mod upkeep;
mod walk;

use std::time::Duration;

use crate::capture::Tap;
use crate::counters::Counters;
use crate::crew::Membership;
use crate::flow::{FlowTable, Paths, Recorder};
use crate::function::{Emitted, Function, Interface, Tally};
use crate::indices;
use crate::objects::Objects;
use crate::packet::{Batch, Pool};
use crate::port::{Port, PortTally};
use crate::rota::Rota;
use crate::tails::Lending;
use crate::time::Time;
use crate::worker::WakeHandle;

/// Polls from one publication of the gauges to the next.
const GAUGE_INTERVAL: u64 = 1024;
/// From one round of the functions' ticks to the next, at least. Polls that bring little are short, and sweeping a piece of every
/// session table in each of them would be most of what a lightly loaded worker does, in front of every packet.
const TICK_INTERVAL: Duration = Duration::from_micros(64);

/// Where a link leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hop {
    /// To a port, by index.
    Port(u16),
    /// To an interface of a function, by index.
    Function(u16, Interface),
}

indices! {
    /// A worker's own counters.
    pub enum EngineCounter {
        /// Packets that replayed a flow record.
        Hits = "flow-hits",
        /// Packets that could have, had there been a record.
        Misses = "flow-misses",
        /// Packets that are never replayed (fragments, TCP SYN and the like).
        Unkeyed = "flow-unkeyed",
        /// Packets of ports on whose way no function wants flow records.
        Recordless = "flow-not-needed",
        /// Packets of a recorded flow that a guard of the record sent through the stages.
        Guarded = "flow-guarded",
        /// Records dropped because something they relied on had changed.
        Stale = "flow-stale",
        /// Records installed.
        Installed = "flow-installed",
        /// Records that made room for others.
        Evicted = "flow-evicted",
        /// Packets whose payload stayed in the sender's buffers until it was sent.
        Lent = "payloads-lent",
        /// Packets of these whose payload was copied all the same, as a function or an egress had to have it.
        Fetched = "payloads-fetched",
        /// Packets handed to other workers of the crew, copies to learn from among them.
        HandedOver = "handed-over",
        /// Packets that other workers of the crew handed over.
        TakenOver = "taken-over",
        /// Copies made for the others to learn from.
        Copied = "copied",
        /// Copies to learn from, and what was created because of them, that reached a port and went no further.
        Heard = "heard",
        /// Polls of all ports.
        Polls = "polls",
        /// Polls that found nothing to do.
        EmptyPolls = "polls-empty",
        /// Times the worker slept.
        Sleeps = "sleeps",
        /// Sleeps that nobody ended although packets had come: a guest or the kernel did not notify.
        Overslept = "sleeps-late",
        /// Nanoseconds spent in polls that found something to do.
        BusyNanoseconds = "busy-ns",
        /// Records in the flow table.
        Records = "flow-records",
    }
}

/// A port with its link and what waits to be sent by it.
pub struct PortSlot {
    pub(crate) name: String,
    pub(crate) port: Box<dyn Port>,
    pub(crate) tally: PortTally,
    pub(crate) tap: Option<Tap>,
    pub(crate) lending: Lending,
    link: Hop,
    /// Its packets are looked up in the flow table.
    records: bool,
    queue: Batch,
}

/// A function with its links.
pub struct FunctionSlot {
    pub(crate) name: String,
    pub(crate) interfaces: Vec<String>,
    pub(crate) function: Box<dyn Function>,
    pub(crate) tally: Tally,
    links: Vec<Hop>,
}

/// Everything one worker owns but its thread.
pub struct Engine {
    pub(crate) ports: Vec<PortSlot>,
    pub(crate) functions: Vec<FunctionSlot>,
    pub(crate) pool: Pool,
    pub(crate) objects: Objects,
    pub(crate) paths: Paths,
    pub(crate) counters: Counters,
    recorder: Recorder,
    emitted: Emitted,
    batch: Batch,
    rota: Rota,
    /// Packets of the port in hand that ran the stages.
    staged: u32,
    /// When functions are next due for what time makes necessary.
    next_round: Time,
    /// The functions, the last ones, whose turn is still to come in this round.
    turns: usize,
    /// Ports with packets to send.
    waiting: Vec<u16>,
    /// Ports that lent frames in this poll.
    lenders: Vec<u16>,
    /// Who tells that control threads left something; without, every poll looks for itself.
    changes: Option<WakeHandle>,
    /// A port has not picked up everything yet.
    behind: bool,
    /// The worker's place among those that run the same ports and functions together.
    crew: Option<Box<Membership>>,
    /// The packets in hand are another worker's, to learn from.
    listening: bool,
    /// The packets in hand came in just now, and what belongs to other workers is still among them.
    fresh: bool,
}

impl Engine {
    /// An engine without ports and functions. Without a flow table every packet runs the stages.
    pub fn new(pool: Pool, mut objects: Objects, flows: Option<FlowTable>) -> Self {
        objects.adopt(flows);
        Self {
            ports: Vec::new(),
            functions: Vec::new(),
            pool,
            objects,
            paths: Paths::default(),
            counters: Counters::new(EngineCounter::INFO.len()),
            recorder: Recorder::default(),
            emitted: Emitted::new(),
            batch: Batch::new(),
            rota: Rota::default(),
            staged: 0,
            next_round: Time::default(),
            turns: 0,
            waiting: Vec::new(),
            lenders: Vec::new(),
            changes: None,
            behind: true,
            crew: None,
            listening: false,
            fresh: false,
        }
    }

    /// Has the ports pick up what control threads left only when these say so by `wake`, rather than in every poll.
    /// Everything that changes a port from outside must call it.
    pub fn heed(&mut self, wake: WakeHandle) {
        self.changes = Some(wake);
    }

    /// Adds a port whose packets go to `link`; ports are numbered in the order they are added.
    pub fn add_port(&mut self, name: &str, port: Box<dyn Port>, link: Hop) {
        self.ports.push(PortSlot {
            name: name.to_owned(),
            port,
            tally: PortTally::default(),
            tap: None,
            lending: Lending::default(),
            link,
            records: true,
            queue: Batch::new(),
        });
        self.rota.add();
        self.waiting.reserve(self.ports.len());
        self.lenders.reserve(self.ports.len());
    }

    /// Puts another port in the place of one that was added.
    pub(crate) fn replace_port(&mut self, index: usize, port: Box<dyn Port>) {
        if let Some(slot) = self.ports.get_mut(index) {
            slot.port = port;
        }
    }

    /// Adds a function; what leaves by its interface `n` goes to the link of `interfaces[n]`, of which the name
    /// is what operators see. Functions are numbered in the order they are added.
    pub fn add_function(
        &mut self,
        name: &str,
        function: Box<dyn Function>,
        interfaces: Vec<(String, Hop)>,
    ) {
        let tally = Tally::new(
            interfaces.len(),
            function.descriptor(),
            function.slots().len(),
        );
        let (interfaces, links) = interfaces.into_iter().unzip();
        self.functions.push(FunctionSlot {
            name: name.to_owned(),
            interfaces,
            function,
            tally,
            links,
        });
    }

    /// Asks the ports whose turn it is for packets, does a piece of what time makes necessary, and sends what is ready.
    /// Returns how many packets came in.
    pub fn poll(&mut self, now: Time) -> usize {
        self.sync_ports();
        self.rota.begin(now);
        let received = self.ask_ports(now);
        self.tick(now);
        self.flush_all(now);
        self.take_back();
        if let Some(crew) = &mut self.crew {
            crew.tell();
        }
        self.counters.add(EngineCounter::Polls as usize, 1);
        if received == 0 {
            self.counters.add(EngineCounter::EmptyPolls as usize, 1);
        }
        if self
            .counters
            .get(EngineCounter::Polls as usize)
            .is_multiple_of(GAUGE_INTERVAL)
        {
            self.publish_gauges();
        }
        received
    }

    /// One function in a poll: what all of them have to do would be more than a packet should wait for.
    #[inline]
    fn tick(&mut self, now: Time) {
        if !self.has_turns() && now >= self.next_round {
            self.next_round = now + TICK_INTERVAL;
            self.turns = self.functions.len();
        }
        if self.has_turns() {
            let index = self.functions.len() - self.turns;
            self.turns -= 1;
            self.with_function(index, now, |function, cx| function.tick(cx));
            self.drain_emitted(now);
        }
    }

    /// Whether functions are still to have their turn in a round that has begun.
    #[inline]
    pub(crate) fn has_turns(&self) -> bool {
        self.turns > 0
    }
}
