//! A cable between two workers: two ports, each in one of them, of which the one receives what the other sends. Packets
//! are copied, with what their senders left undone, and wait in a bounded ring: what finds it full is dropped.

use std::sync::Arc;

use crate::crew::bell::Bell;
use crate::crew::ring::{self, Kind, Rings};
use crate::packet::{Batch, Packet};
use crate::port::{Offloads, Port, PortContext, PortDrop};
use crate::worker::WakeHandle;

/// One end of a [`patch`].
pub struct Patch {
    rings: Rings,
    own: Arc<Bell>,
    others: Arc<Bell>,
}

/// Two ports that are joined; `wakes` are those of the workers that poll them, in order. It costs nothing to be woken by
/// one's own.
pub fn patch(wakes: [WakeHandle; 2]) -> (Patch, Patch) {
    let [a, b] = wakes.map(|wake| Arc::new(Bell::new(wake)));
    let [of_a, of_b] = ring::pair();
    let end = |rings, own: &Arc<Bell>, others: &Arc<Bell>| Patch {
        rings,
        own: Arc::clone(own),
        others: Arc::clone(others),
    };
    (end(of_a, &a, &b), end(of_b, &b, &a))
}

impl Port for Patch {
    fn receive(&mut self, cx: &mut PortContext<'_>, batch: &mut Batch) {
        let room = batch.remaining_capacity();
        if let Some(run) = self.rings.receiver.take(room, cx.pool, batch) {
            (0..run.lost).for_each(|_| cx.tally.refuse(PortDrop::NoBuffer, 0));
        }
    }

    fn send(&mut self, cx: &mut PortContext<'_>, batch: &mut Batch) {
        let sent = self.rings.send_all(Kind::Enter, 0, batch, cx.lenders);
        let bytes: usize = batch[..sent].iter().map(Packet::len).sum();
        cx.tally.sent(sent as u64, bytes as u64);
        cx.tally.drop(PortDrop::Full, (batch.len() - sent) as u64);
        self.rings.tell(&self.others);
        cx.pool.recycle(batch);
    }

    fn offloads(&self) -> Offloads {
        Offloads::ALL
    }

    fn takes_tails(&self) -> bool {
        true
    }

    #[inline]
    fn is_quiet(&mut self) -> bool {
        self.rings.receiver.is_empty()
    }

    fn arm(&mut self) -> bool {
        self.own.lie_down();
        !self.rings.receiver.is_empty()
    }

    fn disarm(&mut self) {
        self.own.get_up();
    }

    fn is_finished(&self) -> bool {
        self.rings.are_empty()
    }
}

#[cfg(test)]
mod tests;
