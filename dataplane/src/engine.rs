//! Runs packets to completion: from a port, by the flow table or the stages, to a port.

use std::os::fd::RawFd;

use arrayvec::ArrayVec;

use crate::capture::Tap;
use crate::counters::Counters;
use crate::flow::{End, FlowKey, FlowTable, Paths, Record, Recorder, Stale, key_of};
use crate::function::{Context, Emitted, Function, Interface, SessionInfo, Tally, Verdict, cell};
use crate::indices;
use crate::objects::Objects;
use crate::offload;
use crate::packet::{BURST, Batch, Packet, Pool, parse};
use crate::port::{Passed, Port, PortContext, PortCounter, PortDrop, PortTally};
use crate::rota::Rota;
use crate::time::Time;
use crate::worker::WakeHandle;

/// Functions a packet may pass before it is dropped: more than any sensible path has.
const MAX_HOPS: usize = 64;
/// Polls from one publication of the gauges to the next.
const GAUGE_INTERVAL: u64 = 1024;

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
        /// Packets of a recorded flow that a guard of the record sent through the stages.
        Guarded = "flow-guarded",
        /// Records dropped because something they relied on had changed.
        Stale = "flow-stale",
        /// Records installed.
        Installed = "flow-installed",
        /// Records that made room for others.
        Evicted = "flow-evicted",
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
    link: Hop,
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
    flows: Option<FlowTable>,
    recorder: Recorder,
    emitted: Emitted,
    batch: Batch,
    rota: Rota,
    /// Ports with packets to send.
    waiting: Vec<u16>,
    /// Who tells that control threads left something; without, every poll looks for itself.
    changes: Option<WakeHandle>,
    /// A port has not picked up everything yet.
    behind: bool,
}

impl Engine {
    /// An engine without ports and functions. Without a flow table every packet runs the stages.
    pub fn new(pool: Pool, objects: Objects, flows: Option<FlowTable>) -> Self {
        Self {
            ports: Vec::new(),
            functions: Vec::new(),
            pool,
            objects,
            paths: Paths::default(),
            counters: Counters::new(EngineCounter::INFO.len()),
            flows,
            recorder: Recorder::default(),
            emitted: Emitted::new(),
            batch: Batch::new(),
            rota: Rota::default(),
            waiting: Vec::new(),
            changes: None,
            behind: true,
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
            link,
            queue: Batch::new(),
        });
        self.rota.add();
        self.waiting.reserve(self.ports.len());
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
        let mut received = 0;
        for index in 0..self.ports.len() {
            if self.rota.asks(index) {
                received += self.ask(index, now);
            }
        }
        for index in 0..self.functions.len() {
            self.with_function(index, now, |function, cx| function.tick(cx));
            self.drain_emitted(now);
        }
        self.flush_all(now);
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

    /// All before any is asked: what the first one passes on must find a guest that came to the last.
    #[inline]
    fn sync_ports(&mut self) {
        let changed = self.changes.as_ref().is_none_or(WakeHandle::take_changes);
        if changed || self.behind {
            self.behind = self
                .ports
                .iter_mut()
                .fold(false, |behind, slot| slot.port.sync() | behind);
            // Packets may have waited in a ring that was just handed over.
            self.rota.ask_everyone();
        }
    }

    #[inline]
    fn ask(&mut self, index: usize, now: Time) -> usize {
        let slot = &mut self.ports[index];
        let received = if slot.tap.is_none() && slot.port.is_quiet() {
            0
        } else {
            self.poll_port(index, now)
        };
        if received > 0 {
            self.rota.brought(index);
        } else {
            // What comes at a certain time is not to be late.
            let slot = &self.ports[index];
            self.rota
                .asked_in_vain(index, || slot.port.deadline().is_none());
        }
        received
    }

    fn poll_port(&mut self, index: usize, now: Time) -> usize {
        let passed = self.receive(index, now);
        let received = passed.packets as usize + self.batch.len();
        if received == 0 {
            return 0;
        }
        let slot = &mut self.ports[index];
        let bytes: usize = self.batch.iter().map(Packet::len).sum();
        slot.tally.add(PortCounter::RxPackets, received as u64);
        slot.tally
            .add(PortCounter::RxBytes, passed.bytes + bytes as u64);
        if self.batch.is_empty() {
            return received;
        }
        if let Some(tap) = &mut slot.tap {
            self.batch
                .iter()
                .for_each(|packet| tap.received(packet, now));
        }
        let mut batch = std::mem::take(&mut self.batch);
        match slot.link {
            Hop::Port(to) => batch
                .drain(..)
                .for_each(|packet| self.send(to, packet, now)),
            Hop::Function(..) => self.forward(index as u16, &mut batch, now),
        }
        self.batch = batch;
        received
    }

    /// Receives a batch, or passes packets straight on where the port's link leads to another port, nobody watches
    /// either of them and nothing waits there to be sent first.
    fn receive(&mut self, index: usize, now: Time) -> Passed {
        let slot = &mut self.ports[index];
        slot.tap.take_if(|tap| tap.is_abandoned());
        let (link, watched) = (slot.link, slot.tap.is_some());
        if let Hop::Port(to) = link
            && !watched
            && let Ok([slot, to]) = self.ports.get_disjoint_mut([index, to as usize])
            && to.tap.is_none()
            && to.queue.is_empty()
        {
            let mut cx = PortContext {
                pool: &mut self.pool,
                tally: &slot.tally,
                now,
            };
            let (port, batch) = (&mut slot.port, &mut self.batch);
            return port.receive_for(&mut cx, batch, &mut *to.port, &to.tally);
        }
        let slot = &mut self.ports[index];
        let mut cx = PortContext {
            pool: &mut self.pool,
            tally: &slot.tally,
            now,
        };
        slot.port.receive(&mut cx, &mut self.batch);
        Passed::default()
    }

    /// Parses and looks up the whole batch first, so that the table's memory is near when it is used; then handles
    /// the packets one after the other, in order.
    fn forward(&mut self, ingress: u16, batch: &mut Batch, now: Time) {
        let classified: ArrayVec<Classified, BURST> = batch
            .iter_mut()
            .map(|packet| self.classify(ingress, packet))
            .collect();
        if let Some(flows) = &self.flows {
            for (_, hash) in classified.iter().flatten().flatten() {
                flows.prefetch_record(*hash);
            }
        }
        for (packet, class) in batch.drain(..).zip(&classified) {
            match class {
                Err(reason) => self.ports[ingress as usize].tally.drop(*reason, 1),
                Ok(key) => self.handle(ingress, packet, key.as_ref(), now),
            }
        }
    }

    #[inline]
    fn classify(&self, ingress: u16, packet: &mut Packet) -> Classified {
        parse(packet).map_err(PortDrop::from)?;
        offload::check(packet)?;
        let Some(flows) = &self.flows else {
            return Ok(None);
        };
        Ok(key_of(packet, ingress).map(|key| {
            let hash = flows.hash(&key);
            flows.prefetch(hash);
            (key, hash)
        }))
    }

    #[inline]
    fn handle(&mut self, ingress: u16, packet: Packet, key: Option<&(FlowKey, u64)>, now: Time) {
        let Some((key, hash)) = key else {
            self.counters.add(EngineCounter::Unkeyed as usize, 1);
            self.recorder.begin(false);
            return self.run_stages(ingress, packet, None, now);
        };
        let Some(packet) = self.replay(packet, key, *hash, now) else {
            return;
        };
        self.recorder.begin(true);
        self.run_stages(ingress, packet, Some((key, *hash)), now);
    }

    /// Replays the packet's record; gives the packet back if the stages have to run.
    #[inline]
    fn replay(
        &mut self,
        mut packet: Packet,
        key: &FlowKey,
        hash: u64,
        now: Time,
    ) -> Option<Packet> {
        let flows = self.flows.as_mut()?;
        let Some(record) = flows.get(key, hash) else {
            self.counters.add(EngineCounter::Misses as usize, 1);
            return Some(packet);
        };
        match record.check(&packet, &self.objects, now) {
            Ok(()) => {}
            Err(Stale::Guard) => {
                self.counters.add(EngineCounter::Guarded as usize, 1);
                return Some(packet);
            }
            Err(Stale::Dependency) => {
                flows.remove(key, hash);
                self.counters.add(EngineCounter::Stale as usize, 1);
                return Some(packet);
            }
        }
        let functions = &self.functions;
        let done = record.replay(&mut packet, &mut self.objects, now, |function, slot| {
            functions[function as usize]
                .tally
                .counters
                .add(slot as usize, 1);
        });
        self.counters.add(EngineCounter::Hits as usize, 1);
        self.paths.count(done.path, packet.len());
        if let End::Port(port) = done.end {
            self.send(port, packet, now);
        }
        None
    }

    /// Runs the stages, and installs what they recorded.
    fn run_stages(
        &mut self,
        ingress: u16,
        packet: Packet,
        key: Option<(&FlowKey, u64)>,
        now: Time,
    ) {
        let first = self.ports[ingress as usize].link;
        match self.walk(first, packet, now) {
            Walked::Reached(port, packet) => {
                self.install(key, &packet, End::Port(port), now);
                self.send(port, packet, now);
            }
            Walked::Dropped(packet) => self.install(key, &packet, End::Drop, now),
            Walked::Gone => {}
            Walked::Looped => self.ports[ingress as usize].tally.drop(PortDrop::Loop, 1),
        }
        self.drain_emitted(now);
    }

    fn install(&mut self, key: Option<(&FlowKey, u64)>, packet: &Packet, end: End, now: Time) {
        let (Some((key, hash)), Some(flows)) = (key, &mut self.flows) else {
            return;
        };
        if !self.recorder.is_complete() {
            return;
        }
        let Some(record) = Record::finish(&self.recorder, key, packet, end, &mut self.paths, now)
        else {
            return;
        };
        let evicted = flows.insert(record, hash);
        self.counters.add(EngineCounter::Installed as usize, 1);
        self.counters
            .add(EngineCounter::Evicted as usize, u64::from(evicted));
    }

    /// Takes a packet from function to function until it reaches a port or its end.
    fn walk(&mut self, first: Hop, mut packet: Packet, now: Time) -> Walked {
        let mut hop = first;
        for _ in 0..MAX_HOPS {
            let (index, by) = match hop {
                Hop::Port(port) => return Walked::Reached(port, packet),
                Hop::Function(index, by) => (index, by),
            };
            self.functions[index as usize].tally.enter(by, packet.len());
            self.recorder.enter(index, by);
            let verdict = self.with_function(index as usize, now, |function, cx| {
                function.process(cx, packet, by)
            });
            let slot = &self.functions[index as usize];
            match verdict {
                Verdict::Leave(by, left) => {
                    slot.tally.leave(by, left.len());
                    self.recorder.left(by);
                    hop = slot.links[by.0 as usize];
                    packet = left;
                }
                Verdict::Drop(dropped, reason) => {
                    slot.tally
                        .counters
                        .add(slot.tally.first_drop() + reason.0 as usize, 1);
                    self.recorder.dropped(reason.0);
                    return Walked::Dropped(dropped);
                }
                Verdict::Consume(_) => {
                    slot.tally.counters.add(cell::CONSUMED, 1);
                    return Walked::Gone;
                }
                Verdict::Held => return Walked::Gone,
            }
        }
        Walked::Looped
    }

    fn with_function<R>(
        &mut self,
        index: usize,
        now: Time,
        call: impl FnOnce(&mut dyn Function, &mut Context<'_>) -> R,
    ) -> R {
        let slot = &mut self.functions[index];
        let mut cx = Context {
            now,
            pool: &mut self.pool,
            objects: &mut self.objects,
            recorder: &mut self.recorder,
            emitted: &mut self.emitted,
            tally: &slot.tally,
            function: index as u16,
        };
        call(&mut *slot.function, &mut cx)
    }

    /// Sends on what functions emitted, and what they emit because of that. What comes out of it is bounded: a
    /// packet that a function created is not a reason for another one more than `MAX_HOPS` times.
    fn drain_emitted(&mut self, now: Time) {
        let mut budget = MAX_HOPS * BURST;
        while let Some((function, by, packet)) = self.emitted.pop_at(0) {
            self.recorder.begin(false);
            let slot = &self.functions[function as usize];
            slot.tally.leave(by, packet.len());
            let mut packet = packet;
            let parsed = parse(&mut packet);
            let link = slot.links[by.0 as usize];
            budget = budget.saturating_sub(1);
            match self.walk(link, packet, now) {
                Walked::Reached(port, packet) => self.send(port, packet, now),
                Walked::Looped => self.ports[0].tally.drop(PortDrop::Loop, 1),
                Walked::Dropped(_) | Walked::Gone => {}
            }
            debug_assert!(parsed.is_ok(), "a function emitted a malformed packet");
            if budget == 0 {
                self.ports[0]
                    .tally
                    .drop(PortDrop::Loop, self.emitted.len() as u64);
                self.emitted.drain(..).for_each(|(function, by, packet)| {
                    self.functions[function as usize]
                        .tally
                        .leave(by, packet.len());
                });
            }
        }
    }

    #[inline]
    fn send(&mut self, port: u16, packet: Packet, now: Time) {
        let queue = &self.ports[port as usize].queue;
        if queue.is_empty() {
            self.waiting.push(port);
        } else if queue.is_full() {
            self.flush(port as usize, now);
        }
        // The queue has room: a flush empties it.
        let _ = self.ports[port as usize].queue.try_push(packet);
    }

    fn flush_all(&mut self, now: Time) {
        let mut waiting = std::mem::take(&mut self.waiting);
        for port in waiting.drain(..) {
            self.flush(port.into(), now);
        }
        self.waiting = waiting;
    }

    fn flush(&mut self, port: usize, now: Time) {
        let slot = &mut self.ports[port];
        if slot.queue.is_empty() {
            return;
        }
        if let Some(tap) = &mut slot.tap {
            slot.queue.iter().for_each(|packet| tap.sent(packet, now));
        }
        let mut cx = PortContext {
            pool: &mut self.pool,
            tally: &slot.tally,
            now,
        };
        offload::complete_and_send(&mut *slot.port, &mut cx, &mut slot.queue);
        debug_assert!(
            slot.queue.is_empty(),
            "a port sends or drops the whole batch"
        );
        slot.queue.clear();
    }

    /// Publishes the gauges, which need not be exact at every moment.
    pub fn publish_gauges(&mut self) {
        if let Some(flows) = &self.flows {
            self.counters
                .set(EngineCounter::Records as usize, flows.len() as u64);
        }
        for slot in &self.functions {
            slot.tally
                .counters
                .set(cell::SESSIONS, slot.function.session_count() as u64);
        }
    }

    /// Ends the packets that wait: held ones stay counted as held, queued ones are sent or dropped by their port.
    pub(crate) fn shut_down(&mut self, now: Time) {
        self.flush_all(now);
        self.publish_gauges();
    }

    /// Copies a port's packets to `tap` from now on.
    pub(crate) fn watch(&mut self, port: usize, tap: Tap) {
        if let Some(slot) = self.ports.get_mut(port) {
            slot.tap = Some(tap);
        }
    }

    pub(crate) fn sessions(
        &self,
        function: usize,
        now: Time,
        cursor: usize,
        out: &mut Vec<SessionInfo>,
    ) -> Option<usize> {
        let slot = self.functions.get(function)?;
        slot.function.sessions(now, &self.objects, cursor, out)
    }

    /// Asks every port for notifications; true if packets are there already. The next poll asks every port.
    pub(crate) fn arm(&mut self) -> bool {
        self.rota.ask_everyone();
        // Every port is armed, also when the first has packets: disarming is done for all.
        self.ports
            .iter_mut()
            .fold(false, |ready, slot| slot.port.arm() | ready)
    }

    pub(crate) fn disarm(&mut self) {
        self.ports.iter_mut().for_each(|slot| slot.port.disarm());
    }

    /// The descriptors to sleep on, and a number that changes whenever they do.
    pub(crate) fn wakeups(&self, descriptors: &mut Vec<RawFd>) -> u64 {
        self.ports.iter().fold(1, |generation, slot| {
            generation
                .wrapping_mul(31)
                .wrapping_add(slot.port.wakeups(descriptors))
        })
    }

    pub(crate) fn deadline(&self) -> Option<Time> {
        self.ports
            .iter()
            .filter_map(|slot| slot.port.deadline())
            .min()
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.ports.iter().all(|slot| slot.port.is_finished())
    }

    /// Has the next poll ask every port, also those that rest.
    pub(crate) fn ask_everyone(&mut self) {
        self.rota.ask_everyone();
    }

    /// Replaces the flow table; every flow runs the stages once more.
    pub fn replace_flows(&mut self, table: Option<FlowTable>) {
        self.flows = table;
    }
}

/// A packet's key and hash if it may be replayed, or why it is dropped.
type Classified = Result<Option<(FlowKey, u64)>, PortDrop>;

enum Walked {
    Reached(u16, Packet),
    Dropped(Packet),
    Gone,
    Looped,
}
