//! What the worker's thread does with an engine between polls: gauges, sleep, capture, questions.

use std::os::fd::RawFd;

use super::{Engine, EngineCounter};
use crate::capture::Tap;
use crate::flow::FlowTable;
use crate::function::{SessionInfo, cell};
use crate::time::Time;

impl Engine {
    /// Publishes the gauges, which need not be exact at every moment.
    pub fn publish_gauges(&mut self) {
        if let Some(flows) = &mut self.objects.flows {
            self.counters
                .set(EngineCounter::Records as usize, flows.len() as u64);
            self.counters
                .add(EngineCounter::Stale as usize, flows.take_gone());
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

    /// A few sessions of a function from `cursor` on, until `out` is full or a part of the table was looked at, and where
    /// to go on; see [`crate::function::Function::sessions`].
    pub fn sessions(
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
        let handed = self.crew.as_ref().is_some_and(|crew| crew.arm());
        // Every port is armed, also when the first has packets: disarming is done for all.
        self.ports
            .iter_mut()
            .fold(handed, |ready, slot| slot.port.arm() | ready)
    }

    pub(crate) fn disarm(&mut self) {
        if let Some(crew) = &self.crew {
            crew.disarm();
        }
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
        let ports = self.ports.iter().all(|slot| slot.port.is_finished());
        ports && self.crew.as_ref().is_none_or(|crew| crew.is_idle())
    }

    /// Has the next poll ask every port, also those that rest.
    pub(crate) fn ask_everyone(&mut self) {
        self.rota.ask_everyone();
    }

    /// Replaces the flow table by an empty one of so many records; every flow runs the stages once more.
    ///
    /// # Errors
    /// There is not so much memory.
    pub fn replace_flows(&mut self, records: usize, seeds: [u64; 4]) -> std::io::Result<()> {
        let table = FlowTable::new(records, &self.objects, seeds)?;
        self.objects.adopt(Some(table));
        Ok(())
    }
}
