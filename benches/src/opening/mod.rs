//! New connections through firewall, NAT, load balancer and router, in one thread and in memory: how many a second,
//! at how many cycles, and what becomes of those that do not arrive.

pub(crate) mod engine;
mod flood;
pub(crate) mod frames;
pub(crate) mod load;
mod tail;
mod times;
mod wire;

use std::rc::Rc;
use std::time::Duration;

use chainplane_dataplane::engine::Engine;
use chainplane_dataplane::stats::{Snapshot, WorkerStats};
use chainplane_dataplane::time::Time;

use engine::{ends_of, engine};
pub use flood::{Flood, Steady};
pub use load::Kind;
use load::Load;
pub use tail::Tail;
pub use times::{Samples, Spin};
use wire::{End, Line};

const GATEWAY_IN: [u8; 6] = [2, 0, 0, 0, 1, 2];
const GATEWAY_OUT: [u8; 6] = [2, 0, 0, 0, 2, 2];
const ROUTER_IN: [u8; 6] = [2, 0, 0, 0, 1, 1];
const ROUTER_OUT: [u8; 6] = [2, 0, 0, 0, 2, 1];

/// Connections begun in one poll.
const GRANT: u32 = 32;

/// How large the tables are, and how long silence may last.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Sessions of each function.
    pub sessions: u32,
    /// Flow records.
    pub flows: usize,
    /// Every timeout, in seconds.
    pub timeout: u32,
}

/// An engine with the chain, and the two ends.
pub struct Opening {
    engine: Engine,
    line: Rc<Line>,
    clock: quanta::Clock,
    now: Time,
}

/// What a run brought.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Connections begun.
    pub begun: u64,
    /// Those whose first packet arrived.
    pub arrived: u64,
    /// Packets that arrived, answers included.
    pub packets: u64,
    /// How long it took.
    pub took: Duration,
    /// Cycles of the engine.
    pub cycles: u64,
}

impl Opening {
    /// A chain without connections.
    ///
    /// # Panics
    /// When the configuration is wrong or there is no memory.
    pub fn new(kind: Kind, size: Size) -> Self {
        let line = Rc::new(Line::default());
        let load = Rc::new(Load::new(kind));
        let clock = quanta::Clock::new();
        let mut engine = engine(kind, size, 1);
        for (outside, link) in [false, true].into_iter().zip(ends_of(0)) {
            let end = End {
                line: Rc::clone(&line),
                load: Rc::clone(&load),
                outside,
                clock: clock.clone(),
            };
            let name = if outside { "outside" } else { "inside" };
            engine.add_port(name, Box::new(end), link);
        }
        Self {
            engine,
            line,
            clock,
            now: Time(1 << 30),
        }
    }

    /// Opens `count` connections; the clock says that `rate` of them are opened a second.
    pub fn open(&mut self, count: u64, rate: u64) -> Outcome {
        let step = u64::from(GRANT) * 1_000_000_000 / rate;
        let last = self.line.opened().0 + count;
        self.run(|opening, _| {
            opening.now = opening.now + Duration::from_nanos(step);
            opening.line.opened().0 < last
        })
    }

    /// Opens connections for so long, by the real clock.
    pub fn open_for(&mut self, time: Duration) -> Outcome {
        let begin = self.now;
        self.run(|opening, elapsed| {
            opening.now = begin + elapsed;
            elapsed < time
        })
    }

    /// `more` moves the clock and says whether to go on.
    fn run(&mut self, more: impl Fn(&mut Self, Duration) -> bool) -> Outcome {
        let (start, cycles) = (self.clock.raw(), self.line.cycles());
        let ((begun, arrived), packets) = (self.line.opened(), self.line.packets());
        loop {
            let elapsed = self.clock.delta(start, self.clock.raw());
            let more = more(self, elapsed);
            if !more && self.line.waiting() == 0 {
                break;
            }
            self.line.grant(if more { GRANT } else { 0 });
            back_end(&mut self.engine, self.now);
        }
        let end = self.clock.raw();
        let now = self.line.opened();
        Outcome {
            begun: now.0 - begun,
            arrived: now.1 - arrived,
            packets: self.line.packets() - packets,
            took: self.clock.delta(start, end),
            cycles: (end - start) - (self.line.cycles() - cycles),
        }
    }

    /// All counters, held against the conservation law.
    ///
    /// # Panics
    /// When it does not hold.
    pub fn snapshot(&mut self) -> Snapshot {
        self.engine.publish_gauges();
        let snapshot = WorkerStats::of(&self.engine).snapshot();
        snapshot
            .check_conservation()
            .unwrap_or_else(|error| panic!("{error}"));
        snapshot
    }
}

/// The engine's turn; a function of its own, so that callgrind can count what happens in it and nothing else.
#[inline(never)]
fn back_end(engine: &mut Engine, now: Time) {
    std::hint::black_box(engine.poll(std::hint::black_box(now)));
}
