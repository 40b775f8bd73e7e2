//! Simulation: an engine with ports that are queues in memory, under a clock that the caller moves. The same
//! functions and the same engine as in production, without threads, and repeatable.

mod crew;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use crate::crew::Share;
use crate::engine::{Engine, Hop};
use crate::flow::FlowTable;
use crate::function::{Blueprint, Build, SessionInfo};
use crate::objects::Objects;
use crate::packet::{Batch, HugePages, Offload, Pool, PoolConfig};
use crate::port::{Offloads, Port, PortContext};
use crate::stats::{Snapshot, WorkerStats};
use crate::time::Time;

pub use crew::Crew;

/// A frame on a simulated wire, with what its sender left undone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// What is left to do.
    pub offload: Offload,
}

/// Both ends of a simulated port.
#[derive(Clone, Debug, Default)]
pub struct Wire {
    to_engine: Rc<RefCell<VecDeque<Frame>>>,
    from_engine: Rc<RefCell<VecDeque<Frame>>>,
    offloads: Offloads,
}

impl Port for Wire {
    fn receive(&mut self, cx: &mut PortContext<'_>, batch: &mut Batch) {
        let mut waiting = self.to_engine.borrow_mut();
        while !batch.is_full() {
            let Some(frame) = waiting.pop_front() else {
                break;
            };
            let Some(mut packet) = cx.pool.copy_of(&frame.bytes) else {
                waiting.push_front(frame);
                break;
            };
            *packet.offload_mut() = frame.offload;
            batch.push(packet);
        }
    }

    fn send(&mut self, cx: &mut PortContext<'_>, batch: &mut Batch) {
        for packet in batch.drain(..) {
            cx.tally.sent(1, packet.len() as u64);
            let frame = Frame {
                bytes: packet.data().to_vec(),
                offload: *packet.offload(),
            };
            self.from_engine.borrow_mut().push_back(frame);
        }
    }

    fn offloads(&self) -> Offloads {
        self.offloads
    }
}

/// A simulated worker.
pub struct Sim {
    engine: Engine,
    wires: Vec<Wire>,
    /// The clock.
    pub now: Time,
}

impl Sim {
    /// An engine without ports and functions; `flows` is the flow table's size, `None` runs every packet through the
    /// stages. Functions are built with `seed`.
    ///
    /// # Panics
    /// When there is no memory for the packet pool or the flow table.
    pub fn new(flows: Option<usize>, functions: &[SimFunction<'_>], seed: u64) -> Self {
        Self::with_share(flows, functions, seed, Share::WHOLE)
    }

    /// The same for one of several that run the functions together.
    fn with_share(
        flows: Option<usize>,
        functions: &[SimFunction<'_>],
        seed: u64,
        share: Share,
    ) -> Self {
        let config = PoolConfig {
            small: 1024,
            large: 64,
            huge_pages: HugePages::Never,
        };
        let pool = Pool::new(config).expect("memory for a small packet pool");
        let mut objects = Objects::default();
        let built: Vec<_> = functions
            .iter()
            .map(|function| {
                function.blueprint.build(&mut Build {
                    objects: &mut objects,
                    seed,
                    share,
                })
            })
            .collect();
        let table = flows.map(|capacity| {
            FlowTable::new(capacity, &objects, [seed, 1, 2, 3])
                .expect("memory for a small flow table")
        });
        let mut engine = Engine::new(pool, objects, table);
        for (function, built) in functions.iter().zip(built) {
            let interfaces = function
                .links
                .iter()
                .map(|(name, hop)| ((*name).to_owned(), *hop));
            engine.add_function(function.name, built, interfaces.collect());
        }
        Self {
            engine,
            wires: Vec::new(),
            now: Time(1 << 30),
        }
    }

    /// Adds a port, numbered from 0 in order, that completes nothing itself.
    pub fn add_port(&mut self, name: &str, link: Hop) {
        self.add_port_with(name, link, Offloads::default());
    }

    /// Adds a port that takes packets with these things undone.
    pub fn add_port_with(&mut self, name: &str, link: Hop, offloads: Offloads) {
        let wire = Wire {
            offloads,
            ..Wire::default()
        };
        self.wires.push(wire.clone());
        self.engine.add_port(name, Box::new(wire), link);
    }

    /// Has every port's packets go through the functions without flow records, in batches.
    pub fn without_records(&mut self) {
        (0..self.wires.len()).for_each(|port| self.engine.go_without_records(port));
    }

    /// Puts a frame on a port's wire, for the next poll.
    pub fn inject(&mut self, port: usize, bytes: &[u8]) {
        self.inject_with(port, bytes, Offload::default());
    }

    /// Puts a frame on a port's wire of which something is left to do.
    pub fn inject_with(&mut self, port: usize, bytes: &[u8], offload: Offload) {
        self.wires[port].to_engine.borrow_mut().push_back(Frame {
            bytes: bytes.to_vec(),
            offload,
        });
    }

    /// Polls until nothing comes in any more and every function had its turn, and holds the counters against the conservation law.
    ///
    /// # Panics
    /// When the law does not hold.
    pub fn run(&mut self) {
        while self.engine.poll(self.now) > 0 || self.engine.has_turns() {}
        self.snapshot()
            .check_conservation()
            .unwrap_or_else(|error| panic!("{error}"));
    }

    /// Moves the clock and polls.
    pub fn advance(&mut self, by: core::time::Duration) {
        self.now = self.now + by;
        self.run();
    }

    /// What a port has sent since the last call.
    pub fn sent(&mut self, port: usize) -> Vec<Frame> {
        self.wires[port]
            .from_engine
            .borrow_mut()
            .drain(..)
            .collect()
    }

    /// Runs one frame through and returns what came out of each port.
    pub fn exchange(&mut self, port: usize, bytes: &[u8]) -> Vec<Vec<Vec<u8>>> {
        self.inject(port, bytes);
        self.run();
        (0..self.wires.len())
            .map(|port| {
                self.sent(port)
                    .into_iter()
                    .map(|frame| frame.bytes)
                    .collect()
            })
            .collect()
    }

    /// All counters.
    pub fn snapshot(&mut self) -> Snapshot {
        self.engine.publish_gauges();
        WorkerStats::of(&self.engine).snapshot()
    }

    /// A function's sessions from `cursor` on, until `out` is full; see [`crate::function::Function::sessions`].
    pub fn sessions(
        &self,
        function: usize,
        cursor: usize,
        out: &mut Vec<SessionInfo>,
    ) -> Option<usize> {
        self.engine.sessions(function, self.now, cursor, out)
    }

    /// The engine itself.
    pub fn engine(&mut self) -> &mut Engine {
        &mut self.engine
    }
}

/// A function to put into a simulation.
pub struct SimFunction<'a> {
    /// Its name.
    pub name: &'a str,
    /// What builds it.
    pub blueprint: &'a dyn Blueprint,
    /// Its interfaces' names and where each leads.
    pub links: Vec<(&'a str, Hop)>,
}

impl<'a> SimFunction<'a> {
    /// An inline function.
    pub fn inline(name: &'a str, blueprint: &'a dyn Blueprint, inside: Hop, outside: Hop) -> Self {
        Self {
            name,
            blueprint,
            links: vec![("inside", inside), ("outside", outside)],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::function::{Context, Descriptor, Function, Interface, Verdict};
    use crate::packet::Packet;
    use crate::rota::LONGEST_REST;
    use crate::worker::WakeHandle;
    use core::time::Duration;
    use std::cell::Cell;
    use std::rc::Rc;

    #[test]
    fn a_port_that_rests_is_asked_soon_enough_and_often_again() {
        let mut sim = Sim::new(None, &[], 0);
        for port in 0..3 {
            sim.add_port("port", Hop::Port(2 - port));
        }
        sim.engine().heed(WakeHandle::new().unwrap());
        let now = sim.now;
        for rest in 0..100 {
            for _ in 0..1000 + rest {
                assert_eq!(sim.engine().poll(now), 0);
            }
            sim.inject(0, &[1; 60]);
            let asked = (0..LONGEST_REST).position(|_| sim.engine().poll(now) > 0);
            assert!(asked.is_some());
            sim.inject(0, &[2; 60]);
            assert_eq!(sim.engine().poll(now), 1, "it is asked in every turn");
            assert_eq!(sim.sent(2).len(), 2);
        }
    }

    /// Counts how often it is asked to look after its timers.
    struct Clockwork(Rc<Cell<u32>>);

    impl Function for Clockwork {
        fn descriptor(&self) -> &'static Descriptor {
            const {
                &Descriptor {
                    kind: "clockwork",
                    counters: &[],
                    drops: &[],
                }
            }
        }

        fn process(&mut self, _cx: &mut Context<'_>, packet: Packet, _from: Interface) -> Verdict {
            Verdict::Consume(packet)
        }

        fn tick(&mut self, _cx: &mut Context<'_>) {
            self.0.set(self.0.get() + 1);
        }
    }

    #[test]
    fn timers_cost_polls_little_and_one_function_in_each() {
        let mut sim = Sim::new(None, &[], 0);
        let ticks: Vec<_> = (0..3).map(|_| Rc::new(Cell::new(0))).collect();
        for ticks in &ticks {
            let clockwork = Box::new(Clockwork(Rc::clone(ticks)));
            sim.engine()
                .add_function("clockwork", clockwork, Vec::new());
        }
        let sum = || ticks.iter().map(|ticks| ticks.get()).sum::<u32>();
        for _ in 0..10_000 {
            let (now, before) = (sim.now + Duration::from_nanos(100), sum());
            sim.now = now;
            sim.engine().poll(now);
            assert!(sum() - before <= 1);
        }
        // 1 ms in steps of 64 µs, and the first poll's.
        assert!(ticks.iter().all(|ticks| ticks.get() == 1 + 1000 / 64));
    }
}
