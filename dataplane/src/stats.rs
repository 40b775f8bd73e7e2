//! What operators see of a worker: read from outside, at any time, without disturbing it.

use std::fmt;

use crate::counters::{CounterReader, Info};
use crate::engine::{Engine, EngineCounter};
use crate::flow::PathReader;
use crate::function::{Descriptor, cell};
use crate::port::{PortCounter, PortDrop, PortTallyReader};

/// Handles to all counters of one worker.
#[derive(Clone, Debug)]
pub struct WorkerStats {
    functions: Vec<FunctionStats>,
    ports: Vec<(String, PortTallyReader)>,
    paths: PathReader,
    engine: CounterReader,
}

#[derive(Clone, Debug)]
struct FunctionStats {
    name: String,
    descriptor: &'static Descriptor,
    interfaces: Vec<String>,
    slots: Vec<String>,
    cells: CounterReader,
}

impl WorkerStats {
    /// Handles to an engine's counters, to be kept by whoever shows them.
    pub fn of(engine: &Engine) -> Self {
        let functions = engine.functions.iter().map(|slot| FunctionStats {
            name: slot.name.clone(),
            descriptor: slot.function.descriptor(),
            interfaces: slot.interfaces.clone(),
            slots: slot.function.slots(),
            cells: slot.tally.counters.reader(),
        });
        Self {
            functions: functions.collect(),
            ports: engine
                .ports
                .iter()
                .map(|slot| (slot.name.clone(), slot.tally.reader()))
                .collect(),
            paths: engine.paths.reader(),
            engine: engine.counters.reader(),
        }
    }

    /// All counters now. While packets move, those read last are a little ahead of those read first.
    pub fn snapshot(&self) -> Snapshot {
        let mut functions: Vec<_> = self.functions.iter().map(FunctionStats::snapshot).collect();
        for (steps, packets, bytes) in self.paths.iter() {
            for step in steps {
                functions[step.function as usize].add_path(step, packets, bytes);
            }
        }
        Snapshot {
            functions,
            ports: self
                .ports
                .iter()
                .map(|(name, tally)| PortSnapshot::of(name, tally))
                .collect(),
            engine: EngineCounter::INFO
                .iter()
                .enumerate()
                .map(|(index, info)| (*info, self.engine.get(index)))
                .collect(),
        }
    }
}

impl FunctionStats {
    fn snapshot(&self) -> FunctionSnapshot {
        let first_drop = cell::INTERFACES + self.interfaces.len() * cell::PER_INTERFACE;
        let first_own = first_drop + self.descriptor.drops.len();
        let first_slot = first_own + self.descriptor.counters.len();
        let named = |infos: &[Info], first: usize| {
            infos
                .iter()
                .enumerate()
                .map(|(i, info)| (*info, self.cells.get(first + i)))
                .collect()
        };
        let interface = |(index, name): (usize, &String)| {
            let at = cell::INTERFACES + index * cell::PER_INTERFACE;
            InterfaceSnapshot {
                name: name.clone(),
                in_packets: self.cells.get(at),
                in_bytes: self.cells.get(at + 1),
                out_packets: self.cells.get(at + 2),
                out_bytes: self.cells.get(at + 3),
            }
        };
        let slots = self.slots.iter().enumerate();
        FunctionSnapshot {
            name: self.name.clone(),
            kind: self.descriptor.kind,
            interfaces: self.interfaces.iter().enumerate().map(interface).collect(),
            created: self.cells.get(cell::CREATED),
            consumed: self.cells.get(cell::CONSUMED),
            held: self.cells.get(cell::HELD),
            sessions: self.cells.get(cell::SESSIONS),
            drops: named(self.descriptor.drops, first_drop),
            counters: named(self.descriptor.counters, first_own),
            slots: slots
                .map(|(i, name)| (name.clone(), self.cells.get(first_slot + i)))
                .collect(),
        }
    }
}

/// A worker's counters at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Every function, in the engine's order.
    pub functions: Vec<FunctionSnapshot>,
    /// Every port, in the engine's order.
    pub ports: Vec<PortSnapshot>,
    /// The worker's own counters.
    pub engine: Vec<(Info, u64)>,
}

/// A function's counters at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionSnapshot {
    /// The user's name for it.
    pub name: String,
    /// Its kind.
    pub kind: &'static str,
    /// Its interfaces, in order.
    pub interfaces: Vec<InterfaceSnapshot>,
    /// Packets it made.
    pub created: u64,
    /// Packets that were meant for itself.
    pub consumed: u64,
    /// Packets it keeps for now.
    pub held: u64,
    /// Sessions it has.
    pub sessions: u64,
    /// Packets dropped, by reason.
    pub drops: Vec<(Info, u64)>,
    /// Its own counters.
    pub counters: Vec<(Info, u64)>,
    /// Its named slots (rules, backends).
    pub slots: Vec<(String, u64)>,
}

/// What crossed one interface of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceSnapshot {
    /// Its name.
    pub name: String,
    /// Packets into the function.
    pub in_packets: u64,
    /// Bytes into the function.
    pub in_bytes: u64,
    /// Packets out of it.
    pub out_packets: u64,
    /// Bytes out of it.
    pub out_bytes: u64,
}

/// A port's counters at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortSnapshot {
    /// The user's name for it.
    pub name: String,
    /// Its counters.
    pub counters: Vec<(Info, u64)>,
    /// Packets dropped, by reason.
    pub drops: Vec<(Info, u64)>,
}

impl FunctionSnapshot {
    fn add_path(&mut self, step: &crate::flow::Step, packets: u64, bytes: u64) {
        let came = &mut self.interfaces[step.came_by as usize];
        came.in_packets += packets;
        came.in_bytes += bytes;
        if let Some(reason) = step.dropped() {
            self.drops[reason].1 += packets;
        } else {
            let left = &mut self.interfaces[step.left_by as usize];
            left.out_packets += packets;
            left.out_bytes += bytes;
        }
        for (index, counter) in self.counters.iter_mut().enumerate() {
            counter.1 += if step.counted & (1 << index) != 0 {
                packets
            } else {
                0
            };
        }
    }

    /// A counter's or drop reason's value by name; 0 if there is none.
    pub fn value(&self, name: &str) -> u64 {
        find(&self.counters, name) + find(&self.drops, name)
    }

    fn sum(&self, of: impl Fn(&InterfaceSnapshot) -> u64) -> u64 {
        self.interfaces.iter().map(of).sum()
    }
}

impl PortSnapshot {
    fn of(name: &str, tally: &PortTallyReader) -> Self {
        let count = PortCounter::INFO.len();
        Self {
            name: name.to_owned(),
            counters: PortCounter::INFO
                .iter()
                .enumerate()
                .map(|(i, info)| (*info, tally.at(i)))
                .collect(),
            drops: PortDrop::INFO
                .iter()
                .enumerate()
                .map(|(i, info)| (*info, tally.at(count + i)))
                .collect(),
        }
    }

    /// A counter's or drop reason's value by name; 0 if there is none.
    pub fn value(&self, name: &str) -> u64 {
        find(&self.counters, name) + find(&self.drops, name)
    }
}

fn find(values: &[(Info, u64)], name: &str) -> u64 {
    values
        .iter()
        .find(|(info, _)| info.name == name)
        .map_or(0, |(_, value)| *value)
}

/// A place where packets appeared or disappeared: the conservation law does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unbalanced {
    /// Where: a function's name, or the worker.
    pub place: String,
    /// Packets in, and created.
    pub entered: u64,
    /// Packets out, dropped, consumed, and held.
    pub left: u64,
}

impl fmt::Display for Unbalanced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            place,
            entered,
            left,
        } = self;
        write!(
            f,
            "{place}: {entered} packets in and created, {left} out, dropped, consumed and held"
        )
    }
}

impl Snapshot {
    /// Holds the counters against the conservation law, for each function and for the worker: in + created = out +
    /// drops + consumed + held. What other workers of a crew hand over comes in, with the copies that are made for these;
    /// what goes to them goes out, and what of theirs was only heard ends. It is exact between polls.
    ///
    /// # Errors
    /// The first place where it does not hold.
    pub fn check_conservation(&self) -> Result<(), Unbalanced> {
        let drops = |drops: &[(Info, u64)]| drops.iter().map(|(_, count)| count).sum::<u64>();
        let check = |place: &str, entered: u64, left: u64| {
            let place = place.to_owned();
            if entered == left {
                Ok(())
            } else {
                Err(Unbalanced {
                    place,
                    entered,
                    left,
                })
            }
        };
        let mut entered = self.value("taken-over") + self.value("copied");
        let mut left = self.value("handed-over") + self.value("heard");
        for function in &self.functions {
            let ends = drops(&function.drops) + function.consumed + function.held;
            let into = function.sum(|interface| interface.in_packets);
            let out = function.sum(|interface| interface.out_packets);
            check(&function.name, into + function.created, out + ends)?;
            entered += function.created;
            left += ends;
        }
        for port in &self.ports {
            entered += port.value("rx-packets") + port.value("created");
            left += port.value("tx-packets") + drops(&port.drops) + port.value("consumed");
        }
        check("worker", entered, left)
    }

    /// One of the worker's own counters by name; 0 if there is none.
    pub fn value(&self, name: &str) -> u64 {
        find(&self.engine, name)
    }

    /// A function by name.
    pub fn function(&self, name: &str) -> Option<&FunctionSnapshot> {
        self.functions.iter().find(|function| function.name == name)
    }

    /// A port by name.
    pub fn port(&self, name: &str) -> Option<&PortSnapshot> {
        self.ports.iter().find(|port| port.name == name)
    }
}
