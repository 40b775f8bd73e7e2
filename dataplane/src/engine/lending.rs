//! Large frames whose payload stays with their sender until the end of the poll: from a port that lends to one that takes
//! tails, while every packet is replayed or passed on by its headers. Stages, watchers and other ports get whole packets.

use super::{Engine, EngineCounter, Hop};
use crate::packet::Packet;
use crate::port::{PortContext, PortDrop};
use crate::tails::Lenders;
use crate::time::Time;

impl Engine {
    /// Receives a batch; of large frames, where flows may be replayed or batches passed, what is not read on the way stays where it is.
    #[inline]
    pub(super) fn receive_batch(&mut self, index: usize, now: Time) {
        let slot = &mut self.ports[index];
        let forwards = matches!(slot.link, Hop::Function(..));
        let stays = self.objects.flows.is_some() || !slot.records;
        let may_lend = stays && forwards && slot.tap.is_none();
        let mut cx = PortContext::new(&mut self.pool, &slot.tally, now);
        cx.lend_as = (may_lend && slot.lending.wanted()).then_some(index as u16);
        slot.port.receive(&mut cx, &mut self.batch);
        let lent = cx.lent;
        if lent > 0 {
            slot.lending.lend(lent);
            self.lenders.push(index as u16);
        }
    }

    /// Gives the guests back what they lent in this poll.
    #[inline]
    pub(super) fn take_back(&mut self) {
        for port in self.lenders.drain(..) {
            let slot = &mut self.ports[usize::from(port)];
            slot.port.take_back();
            let [lent, fetched] = slot.lending.settle();
            self.counters.add(EngineCounter::Lent as usize, lent);
            self.counters.add(EngineCounter::Fetched as usize, fetched);
        }
    }

    /// The packet with all of its bytes; without a buffer for them it is dropped, and counted by `port`.
    #[inline]
    pub(super) fn whole(&mut self, port: u16, packet: Packet) -> Option<Packet> {
        let packet = Lenders::all(&self.ports).whole(packet, &mut self.pool);
        if packet.is_none() {
            let tally = &self.ports[usize::from(port)].tally;
            tally.drop(PortDrop::NoBuffer, 1);
        }
        packet
    }

    /// A packet with a tail as a port can send it: whole, if the port does not reach other guests' memory, if the tail is
    /// with the port itself, or if somebody watches.
    #[inline(never)]
    pub(super) fn reachable(&mut self, port: u16, packet: Packet) -> Option<Packet> {
        let slot = &self.ports[usize::from(port)];
        let own = packet.tail().is_some_and(|tail| tail.port == port);
        if slot.port.takes_tails() && !own && slot.tap.is_none() {
            Some(packet)
        } else {
            self.whole(port, packet)
        }
    }
}
