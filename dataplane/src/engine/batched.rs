//! The way without flow records: a port's whole batch goes from function to function, where none keeps state.

use super::walk::{MAX_HOPS, Walked};
use super::{Engine, EngineCounter, Hop};
use crate::function::{Exits, Interface};
use crate::offload;
use crate::packet::{Batch, Packet, parse};
use crate::port::PortDrop;
use crate::time::Time;

/// Where a batch is on its way.
#[derive(Clone, Copy)]
struct Stage {
    ingress: u16,
    function: u16,
    by: Interface,
    hops: usize,
}

impl Engine {
    /// Has the packets of a port go through the functions without a look for flow records: the shorter way where none
    /// of the functions on it wants records (see [`crate::function::Blueprint::wants_records`]). What comes out is the
    /// same.
    pub fn go_without_records(&mut self, port: usize) {
        if let Some(slot) = self.ports.get_mut(port) {
            slot.records = false;
        }
    }

    /// Takes a port's batch through the functions.
    pub(super) fn forward_batch(
        &mut self,
        ingress: u16,
        (function, by): (u16, Interface),
        batch: &mut Batch,
        now: Time,
    ) {
        let tally = &self.ports[ingress as usize].tally;
        batch.retain(|packet| match check(packet) {
            Ok(()) => true,
            Err(reason) => {
                tally.drop(reason, 1);
                false
            }
        });
        let valid = batch.len() as u64;
        self.counters.add(EngineCounter::Recordless as usize, valid);
        self.recorder.begin(false);
        let stage = Stage {
            ingress,
            function,
            by,
            hops: 0,
        };
        self.run_batch(stage, batch, now);
    }

    /// Takes a batch that comes into a function to where it goes, in order.
    fn run_batch(&mut self, stage: Stage, batch: &mut Batch, now: Time) {
        let Stage { function, by, .. } = stage;
        if stage.hops == MAX_HOPS {
            let tally = &self.ports[stage.ingress as usize].tally;
            tally.drop(PortDrop::Loop, batch.len() as u64);
            return batch.clear();
        }
        let count = batch.len();
        let slot = &mut self.functions[function as usize];
        slot.function.look_ahead(batch, by);
        while !batch.is_empty() {
            let mut exits = Exits::new();
            let place = count - batch.len();
            self.with_function(function as usize, now, |function, cx| {
                function.pass(cx, batch, place, by, &mut exits);
            });
            self.leave(stage, batch, &exits, now);
            if !batch.is_empty() {
                let packet = batch.remove(0);
                self.run_alone(stage, packet, now);
            }
        }
    }

    /// Sends on the first packets of a batch, each by its exit.
    fn leave(&mut self, stage: Stage, batch: &mut Batch, exits: &[Interface], now: Time) {
        for same in exits.chunk_by(|a, b| a == b) {
            let bytes = batch[..same.len()].iter().map(Packet::len).sum();
            let slot = &self.functions[stage.function as usize];
            slot.tally.enter_many(stage.by, same.len(), bytes);
            slot.tally.leave_many(same[0], same.len(), bytes);
            let packets = batch.drain(..same.len());
            match slot.links[same[0].0 as usize] {
                Hop::Port(port) => packets.for_each(|packet| self.send(port, packet, now)),
                Hop::Function(function, by) => {
                    let mut next: Batch = packets.collect();
                    let stage = Stage {
                        function,
                        by,
                        hops: stage.hops + 1,
                        ..stage
                    };
                    self.run_batch(stage, &mut next, now);
                }
            }
        }
    }

    /// Takes a packet to its end alone, whole, and what the functions emit because of it.
    fn run_alone(&mut self, stage: Stage, packet: Packet, now: Time) {
        let Some(packet) = self.whole(stage.ingress, packet) else {
            return;
        };
        self.staged += 1;
        match self.walk(Hop::Function(stage.function, stage.by), packet, now) {
            Walked::Reached(port, packet) => self.send(port, packet, now),
            Walked::Looped => {
                let tally = &self.ports[stage.ingress as usize].tally;
                tally.drop(PortDrop::Loop, 1);
            }
            Walked::Dropped(_) | Walked::Gone => {}
        }
        self.drain_emitted(now);
    }
}

#[inline]
fn check(packet: &mut Packet) -> Result<(), PortDrop> {
    parse(packet).map_err(PortDrop::from)?;
    offload::check(packet)?;
    Ok(())
}
