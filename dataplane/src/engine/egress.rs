//! To ports: packets wait in a port's queue until it is full or the poll ends.

use super::Engine;
use crate::offload;
use crate::packet::Packet;
use crate::port::PortContext;
use crate::tails::Lenders;
use crate::time::Time;

impl Engine {
    #[inline(always)]
    pub(super) fn send(&mut self, port: u16, mut packet: Packet, now: Time) {
        if !packet.is_whole() {
            let Some(reachable) = self.reachable(port, packet) else {
                return;
            };
            packet = reachable;
        }
        let queue = &self.ports[port as usize].queue;
        if queue.is_empty() || queue.is_full() {
            self.make_room(port, now);
        }
        // The queue has room now.
        let _ = self.ports[port as usize].queue.try_push(packet);
    }

    /// Once a batch: the port begins to wait, or what waits there has to go first.
    #[inline(never)]
    fn make_room(&mut self, port: u16, now: Time) {
        if self.ports[port as usize].queue.is_empty() {
            self.waiting.push(port);
        } else {
            self.flush(port as usize, now);
        }
    }

    pub(super) fn flush_all(&mut self, now: Time) {
        let mut waiting = std::mem::take(&mut self.waiting);
        for port in waiting.drain(..) {
            self.flush(port.into(), now);
        }
        self.waiting = waiting;
    }

    fn flush(&mut self, port: usize, now: Time) {
        if self.crew.is_some() {
            self.divert(port);
        }
        let (lenders, slot) = Lenders::beside(&mut self.ports, port);
        if slot.queue.is_empty() {
            return;
        }
        if let Some(tap) = &mut slot.tap {
            slot.queue.iter().for_each(|packet| tap.sent(packet, now));
        }
        let mut cx = PortContext::new(&mut self.pool, &slot.tally, now);
        cx.lenders = lenders;
        offload::complete_and_send(&mut *slot.port, &mut cx, &mut slot.queue);
        debug_assert!(
            slot.queue.is_empty(),
            "a port sends or drops the whole batch"
        );
        slot.queue.clear();
    }
}
