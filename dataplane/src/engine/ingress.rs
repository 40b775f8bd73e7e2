//! From ports: which are asked, and what becomes of what they bring.

use super::{Engine, Hop};
use crate::packet::{Batch, Packet};
use crate::port::{Passed, PortContext, PortCounter};
use crate::time::Time;
use crate::worker::WakeHandle;

impl Engine {
    /// All before any is asked: what the first one passes on must find a guest that came to the last.
    #[inline]
    pub(super) fn sync_ports(&mut self) {
        let changed = self.changes.as_ref().is_none_or(WakeHandle::take_changes);
        if changed || self.behind {
            self.behind = self
                .ports
                .iter_mut()
                .fold(false, |behind, slot| slot.port.sync() | behind);
            self.note_reachable();
            // Packets may have waited in a ring that was just handed over.
            self.rota.ask_everyone();
        }
    }

    /// Asks those whose turn it is; those that sit out only if nobody else brings anything. Returns how many packets came.
    pub(super) fn ask_ports(&mut self, now: Time) -> usize {
        let (mut received, mut sat_out) = (0, false);
        for index in 0..self.ports.len() {
            if !self.rota.asks(index) {
                continue;
            }
            if self.rota.sits_out(index) {
                sat_out = true;
            } else {
                received += self.ask(index, now);
            }
        }
        if self.crew.is_some() {
            let (taken, peers_sat_out) = self.ask_peers(now);
            received += taken;
            sat_out |= peers_sat_out;
        }
        if received == 0 && sat_out {
            for index in 0..self.ports.len() {
                if self.rota.forgive(index) {
                    received += self.ask(index, now);
                }
            }
            received += self.ask_forgiven_peers(now);
        }
        received
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
            let mut staged = std::mem::take(&mut self.staged);
            if let Some(crew) = &self.crew {
                staged = staged.saturating_add(crew.staged_elsewhere(index));
            }
            self.rota.charge(index, staged);
            self.rota.brought(index);
        } else {
            // What comes at a certain time is not to be late.
            let slot = &self.ports[index];
            self.rota
                .asked_in_vain(index, || slot.port.deadline().is_none());
        }
        received
    }

    pub(super) fn poll_port(&mut self, index: usize, now: Time) -> usize {
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
        if self.crew.is_some() {
            let slot = &self.ports[index];
            // Where there are records, these are looked for first.
            self.fresh = slot.records
                && self.objects.flows.is_some()
                && matches!(slot.link, Hop::Function(..));
            if !self.fresh {
                self.hand_over(index, &mut batch);
            }
        }
        self.enter(index, &mut batch, now);
        self.batch = batch;
        received
    }

    /// Takes a batch that came in by a port to where it goes.
    #[inline]
    pub(super) fn enter(&mut self, index: usize, batch: &mut Batch, now: Time) {
        let slot = &self.ports[index];
        match slot.link {
            Hop::Port(to) => batch
                .drain(..)
                .for_each(|packet| self.send(to, packet, now)),
            Hop::Function(..) if slot.records => self.forward(index as u16, batch, now),
            Hop::Function(to, by) => self.forward_batch(index as u16, (to, by), batch, now),
        }
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
            && (self.crew.is_none() || to.port.is_reachable())
        {
            let mut cx = PortContext::new(&mut self.pool, &slot.tally, now);
            let (port, batch) = (&mut slot.port, &mut self.batch);
            return port.receive_for(&mut cx, batch, &mut *to.port, &to.tally);
        }
        self.receive_batch(index, now);
        Passed::default()
    }
}
