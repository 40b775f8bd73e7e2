//! Between the members of a crew: what belongs to another one goes to it, what others hand over is handled.

use super::{Engine, EngineCounter, Hop};
use crate::crew::ring::{Kind, Run};
use crate::crew::{Handed, Membership};
use crate::packet::{BURST, Batch, Packet};
use crate::port::PortDrop;
use crate::tails::Lenders;
use crate::time::Time;

impl Engine {
    /// Makes the worker a member of a crew, once it has all of its ports and functions. What has come in by a port so
    /// far is not asked for its owner.
    pub fn join(&mut self, membership: Membership) {
        self.crew = Some(Box::new(membership));
        self.note_reachable();
    }

    /// Tells the others by which ports this member can send.
    pub(super) fn note_reachable(&mut self) {
        if let Some(crew) = &self.crew {
            for (port, slot) in self.ports.iter().enumerate() {
                if crew.has_port(port) {
                    crew.note_reachable(port, slot.port.is_reachable());
                }
            }
        }
    }

    /// Of what came in by a port, hands over what others handle, and copies of what they are to learn. What goes from port
    /// to port is handled by whoever receives it.
    #[inline(never)]
    pub(super) fn hand_over(&mut self, index: usize, batch: &mut Batch) {
        let Some(crew) = &mut self.crew else { return };
        if !crew.has_port(index) || matches!(self.ports[index].link, Hop::Port(_)) {
            return;
        }
        let handed = crew.divide(index as u16, batch, Lenders::all(&self.ports));
        self.count_handed(index, handed);
    }

    /// The packet, which came in by a port, if it is this member's to handle; otherwise it is handed over.
    #[cold]
    pub(super) fn keep_if_own(&mut self, port: u16, packet: Packet) -> Option<Packet> {
        if self.crew.is_none() {
            return Some(packet);
        }
        let mut batch = Batch::new();
        batch.push(packet);
        self.hand_over(port.into(), &mut batch);
        batch.pop()
    }

    pub(super) fn count_handed(&self, port: usize, handed: Handed) {
        if handed == Handed::default() {
            return;
        }
        let count = |counter: EngineCounter, packets: usize| {
            self.counters.add(counter as usize, packets as u64);
        };
        count(EngineCounter::Copied, handed.copies);
        count(EngineCounter::HandedOver, handed.packets);
        let tally = &self.ports[port].tally;
        tally.drop(PortDrop::Crowded, handed.lost as u64);
    }

    /// Before a port's queue is sent: discards what was only heard, and hands all of it to a member that can send if this
    /// one can't.
    #[inline(never)]
    pub(super) fn divert(&mut self, port: usize) {
        let Some(crew) = &mut self.crew else { return };
        let (lenders, slot) = Lenders::beside(&mut self.ports, port);
        if slot.queue.iter().any(Packet::is_heard) {
            let before = slot.queue.len();
            slot.queue.retain(|packet| !packet.is_heard());
            let heard = (before - slot.queue.len()) as u64;
            self.counters.add(EngineCounter::Heard as usize, heard);
        }
        let elsewhere = crew.has_port(port) && !slot.port.is_reachable();
        if elsewhere
            && !slot.queue.is_empty()
            && let Some(handed) = crew.send_elsewhere(port as u16, &mut slot.queue, lenders)
        {
            self.count_handed(port, handed);
        }
    }

    /// Handles what others handed over, a burst of each, but for those that sit out as their packets took the stages' time.
    /// Tells how many packets that were, and whether somebody sat out.
    #[inline(never)]
    pub(super) fn ask_peers(&mut self, now: Time) -> (usize, bool) {
        let peers = self.crew.as_ref().map_or(0, |crew| crew.peers());
        let (mut taken, mut sat_out) = (0, false);
        for peer in 0..peers {
            if self
                .crew
                .as_mut()
                .is_some_and(|crew| crew.rota.sits_out(peer))
            {
                sat_out = true;
            } else {
                taken += self.take_over(peer, now);
            }
        }
        (taken, sat_out)
    }

    /// Nobody brought anything: asks those who sat out.
    pub(super) fn ask_forgiven_peers(&mut self, now: Time) -> usize {
        let peers = self.crew.as_ref().map_or(0, |crew| crew.peers());
        let mut taken = 0;
        for peer in 0..peers {
            if self
                .crew
                .as_mut()
                .is_some_and(|crew| crew.rota.forgive(peer))
            {
                taken += self.take_over(peer, now);
            }
        }
        taken
    }

    fn take_over(&mut self, peer: usize, now: Time) -> usize {
        let mut batch = std::mem::take(&mut self.batch);
        let (mut taken, mut staged) = (0, 0);
        while let Some(crew) = &mut self.crew
            && let Some(run) = crew.take(peer, BURST - taken, &mut self.pool, &mut batch)
        {
            self.take_run(run, &mut batch, now);
            taken += run.packets;
            let count = std::mem::take(&mut self.staged);
            staged += count;
            if let Some(crew) = &self.crew {
                // The port that brought them owes it where it is.
                crew.note_staged(peer, run.port, count);
            }
        }
        self.batch = batch;
        if let Some(crew) = &mut self.crew {
            crew.rota.charge(peer, staged);
        }
        taken
    }

    fn take_run(&mut self, run: Run, batch: &mut Batch, now: Time) {
        let packets = run.packets as u64;
        self.counters
            .add(EngineCounter::TakenOver as usize, packets);
        let port = usize::from(run.port);
        if run.lost > 0 {
            let tally = &self.ports[port].tally;
            tally.drop(PortDrop::NoBuffer, run.lost as u64);
        }
        match run.kind {
            Kind::Enter => self.enter(port, batch, now),
            Kind::Listen => {
                batch.iter_mut().for_each(Packet::set_heard);
                self.listening = true;
                self.enter(port, batch, now);
                self.listening = false;
            }
            Kind::Leave => batch
                .drain(..)
                .for_each(|packet| self.send(run.port, packet, now)),
        }
    }
}

#[cfg(test)]
mod tests;
