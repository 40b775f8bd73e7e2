//! Frames that ports lend: whose [tails](crate::packet::Tail) stay in the buffers of the guest that sent them until the end
//! of a poll.

use std::cell::Cell;

use chainplane_vhost::ring::FromGuest;

use crate::engine::PortSlot;
use crate::packet::{Packet, Pool, Tail};

/// Times in a row that most of what a port lent had to be fetched before it stops lending for a while.
const PATIENCE: u8 = 16;
/// Batches that such a port copies whole before it tries again.
const REST: u16 = 255;

/// What became of the frames that a port lends.
#[derive(Debug, Default)]
pub(crate) struct Lending {
    /// Frames whose tails stayed, in this poll.
    lent: u32,
    /// How many of those somebody had to have whole.
    fetched: Cell<u32>,
    /// Polls in a row in which most were fetched.
    vain: u8,
    /// Batches of which nothing is lent.
    rest: u16,
}

impl Lending {
    /// Whether to lend in this poll.
    pub(crate) fn wanted(&mut self) -> bool {
        let rests = self.rest > 0;
        self.rest = self.rest.saturating_sub(1);
        !rests
    }

    pub(crate) fn lend(&mut self, frames: u32) {
        self.lent += frames;
    }

    /// Ends the poll; tells how many frames were lent, and how many of those fetched. Copying a frame in two steps costs
    /// more than in one, so where most are fetched nothing is lent for a while.
    pub(crate) fn settle(&mut self) -> [u64; 2] {
        let (lent, fetched) = (std::mem::take(&mut self.lent), self.fetched.take());
        self.vain = if fetched * 2 > lent { self.vain + 1 } else { 0 };
        if self.vain == PATIENCE {
            (self.vain, self.rest) = (0, REST);
        }
        [lent.into(), fetched.into()]
    }
}

/// The ports of a worker, seen as those where the tails of packets are.
#[derive(Clone, Copy, Default)]
pub struct Lenders<'a> {
    /// The first of them.
    before: &'a [PortSlot],
    /// Those behind the port that is being used otherwise.
    after: &'a [PortSlot],
}

impl<'a> Lenders<'a> {
    /// All ports but the one of this number, which is returned beside them.
    pub(crate) fn beside(ports: &'a mut [PortSlot], port: usize) -> (Self, &'a mut PortSlot) {
        let (before, rest) = ports.split_at_mut(port);
        let (slot, after) = rest.split_first_mut().expect("a port of that number");
        (Self { before, after }, slot)
    }

    /// All ports.
    pub(crate) fn all(ports: &'a [PortSlot]) -> Self {
        Self {
            before: ports,
            after: &[],
        }
    }

    #[inline]
    fn slot(self, port: u16) -> Option<&'a PortSlot> {
        let port = usize::from(port);
        match port.checked_sub(self.before.len()) {
            None => self.before.get(port),
            Some(behind) => self.after.get(behind.checked_sub(1)?),
        }
    }

    /// The queue that lent the frame in which a tail is. `None` for a port that is not among these, or after the frame
    /// was given back, which happens to nobody who keeps no tail longer than a poll.
    #[inline]
    pub fn queue(self, tail: &Tail) -> Option<&'a FromGuest> {
        let queue = self.slot(tail.port)?.port.lent(tail.pair);
        let queue = queue.filter(|queue| queue.burst() == tail.burst);
        debug_assert!(queue.is_some(), "a tail that nobody lends: {tail:?}");
        queue
    }

    /// The packet with all of its bytes in host memory. `None`, and the packet is gone, if there is no buffer for them.
    #[inline]
    pub fn whole(self, packet: Packet, pool: &mut Pool) -> Option<Packet> {
        match packet.tail() {
            None => Some(packet),
            Some(tail) => self.fetch(packet, &tail, pool),
        }
    }

    #[inline(never)]
    fn fetch(self, packet: Packet, tail: &Tail, pool: &mut Pool) -> Option<Packet> {
        let fetched = &self.slot(tail.port)?.lending.fetched;
        fetched.set(fetched.get() + 1);
        fetch(packet, self.queue(tail)?, pool)
    }
}

/// Copies a packet's tail, which is in the burst of this queue, behind its head; into another buffer where it must.
pub(crate) fn fetch(mut packet: Packet, from: &FromGuest, pool: &mut Pool) -> Option<Packet> {
    let tail = packet.take_tail();
    if packet.extend(tail.len()).is_none() {
        let mut larger = pool.take(packet.len() + tail.len())?;
        larger.extend(packet.len())?.copy_from_slice(packet.data());
        *larger.layers_mut() = *packet.layers();
        *larger.offload_mut() = *packet.offload();
        larger.extend(tail.len())?;
        packet = larger;
    }
    let held = packet.len() - tail.len();
    let rest = packet.data_mut().get_mut(held..)?;
    (from.read(tail.frame.into(), tail.offset(), rest) == tail.len()).then_some(packet)
}

#[cfg(test)]
mod tests;
