//! What both endpoints know together: it makes each packet that is sent, and judges each that comes.

use std::collections::VecDeque;

use chainplane_dataplane::packet::{Mac, tcp_flag};

use super::flows::Flows;
use super::latencies::Latencies;
use super::ledger::{Fault, Ledger};
use crate::bench::endpoint::neighbours::{Heard, hear};
use crate::bench::traffic::head::{Frame, HEAD};
use crate::bench::traffic::look::{self, Head, Seen, look};
use crate::bench::traffic::stamp::Stamp;
use crate::bench::traffic::{Cursor, Packets};

/// Control frames that wait to be sent at most.
const CONTROLS: usize = 64;
/// Packets of the second direction by which what is known of their flows is brought near beforehand.
const AHEAD: u64 = 16;
/// MAC addresses and hop counts that one end is seen to send with at most.
const VARIANTS: usize = 8;
/// Numbers of flows have as many bits as stamps have room for.
const MOST_FLOWS: u32 = (1 << 31) - 1;

/// What is known of the way to an endpoint.
#[derive(Default)]
struct Way {
    /// Where frames come from.
    sources: Vec<Mac>,
    /// Hops that are left.
    hops: Vec<u8>,
}

impl Way {
    fn learn(&mut self, source: Mac, hops: u8) {
        if self.sources.len() < VARIANTS && !self.sources.contains(&source) {
            self.sources.push(source);
        }
        if self.hops.len() < VARIANTS && !self.hops.contains(&hops) {
            self.hops.push(hops);
        }
    }

    #[inline]
    fn knows(&self, source: Mac, hops: u8) -> bool {
        self.sources.contains(&source) && self.hops.contains(&hops)
    }
}

/// The state of a measurement, but for the endpoints themselves.
pub struct Scene {
    pub packets: Packets,
    pub flows: Flows,
    pub ledgers: [Ledger; 2],
    pub latency: Latencies,
    /// Frames that answer for neighbours, with the endpoint that sends them.
    pub controls: VecDeque<(usize, Vec<u8>)>,
    /// What was told of neighbours.
    pub told: Vec<(usize, std::net::IpAddr, Mac)>,
    /// Flows whose openings have arrived and are to be answered.
    pub answers: VecDeque<u32>,
    /// Openings that did what they are for.
    pub opened: u64,
    /// Answers to openings that came back with other addresses than they must have, the first of them.
    pub misanswered: Option<String>,
    /// Where each side's frames go. The second one's may be known only once frames have come.
    pub next_hops: [Option<Mac>; 2],
    ways: [Way; 2],
    /// Each direction's next packet.
    cursors: [Cursor; 2],
    /// A later one of the second direction.
    ahead: Cursor,
    /// The number of the oldest flow.
    pub base: u32,
    /// The number of the next connection of a stateful trial.
    pub connections: u32,
    /// What `base` was when the trial began.
    oldest: u64,
    /// The tag of the trial, and, with another lowest bit, of its openings.
    tag: u16,
    /// The packets of an opening phase count, rather than those of a trial.
    pub opening: bool,
}

impl Scene {
    pub fn new(packets: Packets, next_hops: [Option<Mac>; 2], tag: u16) -> Self {
        let flows = Flows::new(packets.traffic.flows);
        Self {
            flows,
            ledgers: [Ledger::new(), Ledger::new()],
            latency: Latencies::new(),
            controls: VecDeque::with_capacity(CONTROLS),
            told: Vec::new(),
            answers: VecDeque::with_capacity(1024),
            opened: 0,
            misanswered: None,
            next_hops,
            ways: [Way::default(), Way::default()],
            cursors: [0, 1].map(|direction| packets.seek(direction, 0)),
            ahead: packets.seek(1, AHEAD),
            base: 0,
            connections: 0,
            oldest: 0,
            tag: tag & !1,
            opening: false,
            packets,
        }
    }

    /// Starts another trial: late packets of the last one are strangers, but for those that opened its flows.
    pub fn restart(&mut self, names: &[String; 2]) {
        self.tag = self.tag.wrapping_add(2);
        for (ledger, name) in self.ledgers.iter_mut().zip(names) {
            ledger.clear(name);
        }
        self.flows.restart();
        self.oldest = u64::from(self.base);
        self.latency.clear();
        self.opening = false;
    }

    /// Has flows end that have ended by `now`: so many a second, the oldest first.
    pub fn renew(&mut self, rate: f64, now: u64) {
        let ended = (rate * now as f64 / 1e9) as u64;
        self.base = ((self.oldest + ended) & u64::from(MOST_FLOWS)) as u32;
    }

    /// Forgets how the target rewrites flows, to learn it again.
    pub fn forget(&mut self) {
        self.flows.forget();
        self.ways = [Way::default(), Way::default()];
        self.answers.clear();
    }

    fn tag(&self) -> u16 {
        self.tag | u16::from(self.opening)
    }

    /// Whether a flow's opening has to be answered.
    pub fn is_answered(&self, flow: u32) -> bool {
        self.packets.kind(flow).1 || self.packets.has(1)
    }

    /// The flow and length of a direction's packet, by its number. What is asked for in order is found fastest.
    #[inline]
    pub fn next(&mut self, direction: usize, index: u64) -> Option<(u32, usize)> {
        if self.cursors[direction].index != index {
            self.cursors[direction] = self.packets.seek(direction, index);
            self.ahead = self.packets.seek(1, self.cursors[1].index + AHEAD);
        }
        let cursor = self.cursors[direction];
        let (flow, len) = self.packets.packet(direction, cursor, self.base);
        let known = direction == 0 || self.flows.is_open(flow, false);
        // Nothing has come of this flow yet, as it is new: another one has its turn.
        let flow = if known { flow } else { self.flows.any()? };
        Some((flow, len.into()))
    }

    /// Writes the head of such a packet; false if its addresses are not known.
    #[inline]
    pub fn write(
        &mut self,
        direction: usize,
        (flow, len): (u32, usize),
        due: u64,
        head: &mut [u8; HEAD],
    ) -> bool {
        let Some(macs) = self.macs(direction) else {
            return false;
        };
        let tuple = if direction == 0 {
            self.packets.tuple(flow)
        } else if let Some(tuple) = self.flows.arriving(flow, &self.packets) {
            tuple.answer()
        } else {
            return false;
        };
        let index = self.cursors[direction].index;
        let mut flags = 0;
        if tuple.tcp {
            let first = self.packets.traffic.new_flows > 0.0 && self.flows.begin(flow, direction);
            flags = tcp_flags(direction, first);
        }
        let stamp = Stamp {
            tag: self.tag(),
            backward: direction == 1,
            flow,
            sequence: index as u32,
            due,
        };
        let frame = Frame {
            macs,
            tuple,
            len,
            flags,
            stamp,
        };
        frame.write(head, &self.packets.fill);
        self.packets
            .advance(direction, &mut self.cursors[direction]);
        if direction == 1 {
            let (flow, _) = self.packets.packet(1, self.ahead, self.base);
            self.flows.prefetch(flow);
            self.packets.advance(1, &mut self.ahead);
        }
        true
    }

    /// Brings near what is known of a received frame's flow.
    #[inline]
    pub fn expect(&self, frame: &[u8]) {
        if let Some(flow) = look::flow(frame) {
            self.flows.prefetch(flow);
        }
    }

    /// Writes the head of a packet that opens a flow, or answers such a packet.
    pub fn write_opening(
        &mut self,
        direction: usize,
        flow: u32,
        head: &mut [u8; HEAD],
    ) -> Option<usize> {
        let sent = self.packets.tuple(flow);
        let tuple = if direction == 0 {
            sent
        } else {
            self.flows.arriving(flow, &self.packets)?.answer()
        };
        if tuple.tcp {
            self.flows.begin(flow, direction);
        }
        let len = self.packets.opening_len(flow);
        let stamp = Stamp {
            tag: self.tag(),
            backward: direction == 1,
            flow,
            sequence: 0,
            due: 0,
        };
        let frame = Frame {
            macs: self.macs(direction)?,
            tuple,
            len,
            flags: if tuple.tcp {
                tcp_flags(direction, true)
            } else {
                0
            },
            stamp,
        };
        frame.write(head, &self.packets.fill);
        Some(len)
    }

    /// Destination and source of a direction's frames. Answers go where the packets came from, if nothing else was
    /// said.
    #[inline]
    fn macs(&self, direction: usize) -> Option<[Mac; 2]> {
        let learnt = self.ways[1].sources.first().filter(|_| direction == 1);
        let to = self.next_hops[direction].or(learnt.copied())?;
        Some([to, self.packets.traffic.sides[direction].mac])
    }

    /// Judges a frame that endpoint `end` received at `now`, in nanoseconds from the start of the trial.
    #[inline]
    pub fn take(&mut self, end: usize, frame: &[u8], now: u64) {
        let direction = 1 - end;
        let macs = look::macs(frame);
        match look(frame, &self.packets.fill) {
            Seen::Intact(stamp, head) if self.is_ours(stamp, direction) => {
                self.judge(end, stamp, &head, macs, frame.len(), now);
            }
            Seen::Damaged(stamp) if self.is_ours(stamp, direction) => {
                // The accounts are cleared when the openings are over.
                let fault = Some(Fault::Damaged);
                self.ledgers[direction].enter(stamp.sequence, frame.len(), fault);
            }
            // Tried again by a generator that took the first one for lost.
            Seen::Intact(stamp, _) if self.is_late_opening(stamp) => {}
            Seen::Control => self.control(end, frame),
            Seen::Broken if self.is_from_here(end, macs) => {
                self.ledgers[direction].enter_nameless();
            }
            // Whatever else is sent to a group keeps a network going.
            _ if macs[0].0[0] & 1 == 0 => self.ledgers[direction].counts.unexpected += 1,
            _ => {}
        }
    }

    #[inline]
    fn is_ours(&self, stamp: Stamp, direction: usize) -> bool {
        stamp.tag == self.tag() && stamp.backward == (direction == 1)
    }

    /// Whether it is from an opening phase that is over, of this or the last few trials.
    fn is_late_opening(&self, stamp: Stamp) -> bool {
        const LATELY: u16 = 0x1000;
        stamp.tag & 1 == 1 && self.tag.wrapping_sub(stamp.tag) < LATELY
    }

    /// Whether a frame has an address that frames to this endpoint have.
    fn is_from_here(&self, end: usize, macs: [Mac; 2]) -> bool {
        macs[0] == self.packets.traffic.sides[end].mac || self.ways[end].sources.contains(&macs[1])
    }

    #[inline]
    fn judge(
        &mut self,
        end: usize,
        stamp: Stamp,
        head: &Head,
        macs: [Mac; 2],
        len: usize,
        now: u64,
    ) {
        let direction = 1 - end;
        let own = self.packets.traffic.sides[end].mac;
        if self.opening {
            if macs[0] == own {
                self.judge_opening(end, stamp, head, macs[1]);
            }
            return;
        }
        let fault = if macs[0] != own || !self.ways[end].knows(macs[1], head.hops) {
            Some(Fault::Damaged)
        } else if !self.is_expected(end, stamp.flow, head) {
            Some(Fault::Mistranslated)
        } else {
            None
        };
        if self.ledgers[direction].enter(stamp.sequence, len, fault) {
            if self
                .flows
                .is_reordered(stamp.flow, direction, stamp.sequence)
            {
                self.ledgers[direction].counts.reordered += 1;
            }
            self.latency.record(now.saturating_sub(stamp.due).max(1));
        }
    }

    /// Whether a packet has the addresses and ports that it must have.
    #[inline]
    fn is_expected(&mut self, end: usize, flow: u32, head: &Head) -> bool {
        if end == 0 {
            return head.tuple == self.packets.tuple(flow).answer();
        }
        if let Some(expected) = self.flows.arriving(flow, &self.packets) {
            return head.tuple == expected;
        }
        // The first packet of a new flow; or one that was overtaken by its successor's.
        let sent = self.packets.tuple(flow);
        self.flows.learn(flow, &sent, &head.tuple);
        true
    }

    #[cold]
    fn judge_opening(&mut self, end: usize, stamp: Stamp, head: &Head, source: Mac) {
        let flow = stamp.flow;
        let sent = self.packets.tuple(flow);
        self.ways[end].learn(source, head.hops);
        if end == 1 {
            let fresh = self.flows.learn(flow, &sent, &head.tuple);
            if !self.is_answered(flow) {
                self.opened += u64::from(fresh);
            } else if self.answers.len() < self.answers.capacity() {
                self.answers.push_back(flow);
            }
        } else if head.tuple == sent.answer() {
            self.opened += u64::from(self.flows.confirm(flow));
        } else if self.misanswered.is_none() {
            let (got, wanted) = (head.tuple, sent.answer());
            self.misanswered = Some(format!("the answer came as {got} instead of {wanted}"));
        }
    }

    #[cold]
    fn control(&mut self, end: usize, frame: &[u8]) {
        match hear(frame, self.packets.traffic.sides[end].mac) {
            Heard::Asked(answer) if self.controls.len() < CONTROLS => {
                self.controls.push_back((end, answer));
            }
            Heard::Told(address, mac) if self.told.len() < CONTROLS => {
                self.told.push((end, address, mac));
            }
            _ => {}
        }
    }
}

#[inline]
fn tcp_flags(direction: usize, first: bool) -> u8 {
    match (first, direction) {
        (true, 0) => tcp_flag::SYN,
        (true, _) => tcp_flag::SYN | tcp_flag::ACK,
        (false, _) => tcp_flag::ACK | tcp_flag::PSH,
    }
}
