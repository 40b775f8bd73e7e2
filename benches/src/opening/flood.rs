//! A flood of new flows through one chain, beside established flows through another one of the same worker.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use chainplane_dataplane::engine::Engine;
use chainplane_dataplane::packet::{BURST, Batch};
use chainplane_dataplane::port::{Port, PortContext, PortDrop};
use chainplane_dataplane::time::Time;

use super::engine::{ends_of, engine};
use super::frames::Frame;
use super::load::Load;
use super::{Kind, Size};

/// Frames that wait for the engine at most, as in a ring.
const RING: usize = 1024;

/// What became of the established flows' packets.
#[derive(Clone, Copy, Debug)]
pub struct Steady {
    /// Packets offered.
    pub offered: u64,
    /// Packets that did not find room in the ring.
    pub refused: u64,
    /// Packets that arrived.
    pub arrived: u64,
    /// Packets of the flood that the engine took.
    pub flood: u64,
}

/// A port that sends what is in its ring, and counts what it is sent.
#[derive(Clone, Default)]
struct Ring {
    waiting: Rc<RefCell<VecDeque<Frame>>>,
    taken: Rc<Cell<u64>>,
    arrived: Rc<Cell<u64>>,
}

impl Port for Ring {
    fn receive(&mut self, cx: &mut PortContext<'_>, batch: &mut Batch) {
        let mut waiting = self.waiting.borrow_mut();
        let count = waiting.len().min(BURST);
        for frame in waiting.drain(..count) {
            match cx.pool.copy_of(&frame) {
                Some(packet) => batch.push(packet),
                None => cx.tally.refuse(PortDrop::NoBuffer, frame.len()),
            }
        }
        self.taken.set(self.taken.get() + count as u64);
    }

    fn send(&mut self, cx: &mut PortContext<'_>, batch: &mut Batch) {
        self.arrived.set(self.arrived.get() + batch.len() as u64);
        for packet in batch.drain(..) {
            cx.tally.sent(1, packet.len() as u64);
        }
    }
}

/// Two chains on one worker.
pub struct Flood {
    engine: Engine,
    /// Inside and outside of the established flows' chain, then of the flood's.
    rings: [Ring; 4],
    load: Load,
    clock: quanta::Clock,
    now: Time,
    next: u64,
}

impl Flood {
    /// Chains of `kind`, without flows.
    pub fn new(kind: Kind, size: Size) -> Self {
        let mut engine = engine(kind, size, 2);
        let rings: [Ring; 4] = core::array::from_fn(|_| Ring::default());
        let links = (0..2).flat_map(ends_of);
        for (ring, link) in rings.iter().zip(links) {
            engine.add_port("ring", Box::new(ring.clone()), link);
        }
        Self {
            engine,
            rings,
            load: Load::new(kind),
            clock: quanta::Clock::new(),
            now: Time(1 << 30),
            next: 0,
        }
    }

    /// Offers `rate` packets a second of `flows` established flows for so long; with `attack`, new flows on the other
    /// chain as fast as the engine takes them.
    pub fn run(&mut self, time: Duration, flows: u64, rate: u64, attack: bool) -> Steady {
        let (begin, start) = (self.now, self.clock.raw());
        let before = [self.rings[1].arrived.get(), self.rings[2].taken.get()];
        let (mut offered, mut refused) = (0, 0);
        loop {
            let elapsed = self.clock.delta(start, self.clock.raw());
            self.now = begin + elapsed;
            let due = (elapsed.min(time).as_nanos() * u128::from(rate) / 1_000_000_000) as u64;
            let mut ring = self.rings[0].waiting.borrow_mut();
            while offered < due {
                if ring.len() < RING {
                    ring.push_back(self.load.frame(offered % flows));
                } else {
                    refused += 1;
                }
                offered += 1;
            }
            let done = ring.is_empty() && elapsed >= time;
            drop(ring);
            if attack {
                self.fill_up(flows);
            }
            self.engine.poll(self.now);
            if done {
                break;
            }
        }
        self.rings[2].waiting.borrow_mut().clear();
        Steady {
            offered,
            refused,
            arrived: self.rings[1].arrived.get() - before[0],
            flood: self.rings[2].taken.get() - before[1],
        }
    }

    /// New flows for the engine's next poll, none of which is one of the established ones.
    fn fill_up(&mut self, flows: u64) {
        let mut ring = self.rings[2].waiting.borrow_mut();
        while ring.len() < BURST {
            self.next += 1;
            ring.push_back(self.load.frame(flows + self.next % (Load::TUPLES - flows)));
        }
    }
}
