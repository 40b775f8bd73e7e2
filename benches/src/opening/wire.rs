//! Both ends of the chain, in memory: they open connections as fast as the engine takes them, and answer.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use chainplane_dataplane::packet::{Batch, protocol, tcp_flag};
use chainplane_dataplane::port::{Port, PortContext, PortDrop};

use super::frames::{self, Frame};
use super::load::Load;

/// What the two ends have in common.
#[derive(Default)]
pub(super) struct Line {
    /// Frames that answer what came by each end.
    answers: [RefCell<VecDeque<Frame>>; 2],
    /// Connections that may be opened in this poll.
    granted: Cell<u32>,
    /// The number of the next connection.
    next: Cell<u64>,
    /// Connections whose first packet reached the other end.
    arrived: Cell<u64>,
    /// Packets that reached either end.
    packets: Cell<u64>,
    /// Cycles spent here rather than in the engine.
    cycles: Cell<u64>,
}

impl Line {
    /// Lets so many connections be opened.
    pub fn grant(&self, count: u32) {
        self.granted.set(count);
    }

    /// Has an end send this frame, as if it were an answer.
    pub fn inject(&self, outside: bool, frame: Frame) {
        self.answers[usize::from(outside)]
            .borrow_mut()
            .push_back(frame);
    }

    /// Goes on with the connection of this number, which may have been opened before.
    pub fn go_on_from(&self, number: u64) {
        self.next.set(number);
    }

    /// Connections begun, and those whose first packet arrived.
    pub fn opened(&self) -> (u64, u64) {
        (self.next.get(), self.arrived.get())
    }

    /// Packets that reached either end.
    pub fn packets(&self) -> u64 {
        self.packets.get()
    }

    /// Cycles spent in making and taking frames.
    pub fn cycles(&self) -> u64 {
        self.cycles.get()
    }

    /// Answers that wait.
    pub fn waiting(&self) -> usize {
        self.answers.iter().map(|queue| queue.borrow().len()).sum()
    }
}

/// One of the ends.
pub(super) struct End {
    pub line: Rc<Line>,
    pub load: Rc<Load>,
    /// Whether this is the outside's.
    pub outside: bool,
    pub clock: quanta::Clock,
}

impl End {
    fn opens(&self) -> bool {
        self.load.kind.inbound == self.outside
    }

    fn queue(&self) -> &RefCell<VecDeque<Frame>> {
        &self.line.answers[usize::from(self.outside)]
    }

    /// What this end sends back, if anything.
    fn answer(&self, frame: &Frame) -> Option<Frame> {
        if !self.load.kind.answers {
            return None;
        }
        let mut back = frames::turned_round(frame);
        if self.load.kind.protocol == protocol::UDP {
            return (!self.opens()).then_some(back);
        }
        let flags = match (self.opens(), frames::tcp_flags(frame)) {
            (false, tcp_flag::SYN) => tcp_flag::SYN | tcp_flag::ACK,
            (true, flags) if flags & tcp_flag::SYN != 0 => tcp_flag::ACK,
            _ => return None,
        };
        frames::set_tcp_flags(&mut back, flags);
        Some(back)
    }
}

impl Port for End {
    fn receive(&mut self, cx: &mut PortContext<'_>, batch: &mut Batch) {
        let start = self.clock.raw();
        let mut push = |frame: &Frame| match cx.pool.copy_of(frame) {
            Some(packet) => batch.push(packet),
            None => cx.tally.refuse(PortDrop::NoBuffer, frame.len()),
        };
        let mut queue = self.queue().borrow_mut();
        let mut room = chainplane_dataplane::packet::BURST;
        while room > 0
            && let Some(frame) = queue.pop_front()
        {
            push(&frame);
            room -= 1;
        }
        while room > 0 && self.opens() && self.line.granted.get() > 0 {
            push(&self.load.frame(self.line.next.get()));
            self.line.next.set(self.line.next.get() + 1);
            self.line.granted.set(self.line.granted.get() - 1);
            room -= 1;
        }
        self.line
            .cycles
            .set(self.line.cycles.get() + self.clock.raw() - start);
    }

    fn send(&mut self, cx: &mut PortContext<'_>, batch: &mut Batch) {
        let start = self.clock.raw();
        for packet in batch.drain(..) {
            cx.tally.sent(1, packet.len() as u64);
            self.line.packets.set(self.line.packets.get() + 1);
            let Some(frame) = packet.data().first_chunk() else {
                continue;
            };
            if !self.opens() && frames::begins(frame) {
                self.line.arrived.set(self.line.arrived.get() + 1);
            }
            if let Some(back) = self.answer(frame) {
                self.queue().borrow_mut().push_back(back);
            }
        }
        self.line
            .cycles
            .set(self.line.cycles.get() + self.clock.raw() - start);
    }
}
