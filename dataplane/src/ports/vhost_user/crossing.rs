//! Straight from guest to guest: one copy, from the buffers of the one into those of the other.
//!
//! Nobody reads the packets in between, so nothing of them is held in host memory but what has to be checked: the
//! virtio-net headers, and the packet headers of what is to be cut. The sender's buffers go back to it within the same
//! poll, whatever becomes of the packets: a receiver without room costs a counted drop, never the sender's ring.

use arrayvec::ArrayVec;
use chainplane_vhost::backend::QueuePair;
use chainplane_vhost::net::{FLAG_NEEDS_CSUM, GSO_NONE, NetHeader};
use chainplane_vhost::ring::{FromGuest, ToGuest};

use super::{count_sent, queue_of, running};
use crate::offload;
use crate::packet::{BURST, Gso, Packet, Pool};
use crate::port::{Offloads, PortDrop, PortTally};

/// Bytes of a packet that are looked at where it is to be cut: more than its headers take, or it goes another way.
const HEAD: usize = 192;

/// Queues to a guest, while a port's packets go there.
pub(super) struct Crossing<'a> {
    to: &'a mut [QueuePair],
    able: Offloads,
    tally: &'a PortTally,
}

/// What goes in front of the packets of a burst.
#[derive(Default)]
struct Headers {
    net: ArrayVec<NetHeader, BURST>,
    /// The beginnings of those that were looked at, with the numbers of their frames, in order.
    heads: ArrayVec<(u8, Packet), BURST>,
}

impl<'a> Crossing<'a> {
    pub(super) fn new(to: &'a mut [QueuePair], able: Offloads, tally: &'a PortTally) -> Self {
        Self { to, able, tally }
    }

    /// Carries the fetched burst over, if the receiver can take every packet as it is. False, and nothing done, if one
    /// has to be completed or refused first.
    pub(super) fn carry(&mut self, from: &FromGuest, pool: &mut Pool) -> bool {
        if from.count() == 0 {
            return true;
        }
        let running = running(self.to);
        if let [only] = running[..]
            && from.is_complete()
            && let Some(sent) = self.to[only].to_guest.carry_burst(from)
        {
            let bytes = if sent == from.count() {
                from.bytes()
            } else {
                from.frame_lens().take(sent).map(u64::from).sum()
            };
            let queue = &self.to[only].to_guest;
            count_sent(self.tally, queue, from.count(), sent, (sent as u64, bytes));
            return true;
        }
        let Some(headers) = Headers::of(from, self.able, pool) else {
            return false;
        };
        match running[..] {
            [] => self.tally.drop(PortDrop::Down, headers.net.len() as u64),
            [only] => {
                let frames = std::array::from_fn::<u8, BURST, _>(|frame| frame as u8);
                let frames = &frames[..headers.net.len()];
                carry_by(
                    &mut self.to[only].to_guest,
                    from,
                    frames,
                    &headers,
                    self.tally,
                );
            }
            _ => self.spread(&running, from, &headers),
        }
        true
    }

    /// Gives each of the queues that run the packets of its flows.
    fn spread(&mut self, running: &[usize], from: &FromGuest, headers: &Headers) {
        let mut queues = [0; BURST];
        for (frame, queue) in queues[..headers.net.len()].iter_mut().enumerate() {
            let mut start = [0; 64];
            let len = from.read(frame, 0, &mut start);
            *queue = queue_of(&start[..len], running.len());
        }
        for (turn, &pair) in running.iter().enumerate() {
            let frames: ArrayVec<u8, BURST> = (0..headers.net.len())
                .filter(|frame| queues[*frame] == turn)
                .map(|frame| frame as u8)
                .collect();
            let to = &mut self.to[pair].to_guest;
            carry_by(to, from, &frames, headers, self.tally);
        }
    }
}

impl Headers {
    /// `None` if the receiver can't take one of the packets as it is, or should not.
    #[inline]
    fn of(from: &FromGuest, able: Offloads, pool: &mut Pool) -> Option<Self> {
        let mut headers = Self::default();
        for (frame, len) in from.frame_lens().enumerate() {
            let header = from.header(frame);
            // What a driver says of sums that it found right counts for nothing: see `believed`.
            let header = if header.flags & FLAG_NEEDS_CSUM == 0 && header.gso_type == GSO_NONE {
                NetHeader::default()
            } else {
                headers.requested(&header, from, frame, len as usize, able, pool)?
            };
            headers.net.push(header);
        }
        Some(headers)
    }

    /// The header of a packet that something is left undone in.
    #[cold]
    fn requested(
        &mut self,
        header: &NetHeader,
        from: &FromGuest,
        frame: usize,
        len: usize,
        able: Offloads,
        pool: &mut Pool,
    ) -> Option<NetHeader> {
        let offload = offload::from_header(&super::believed(*header), len).ok()?;
        if offload.gso == Gso::None {
            return able.checksum.then(|| offload::header_of(&offload, 0));
        }
        // The rest of the packet stays where it is: nothing behind the headers is looked at.
        let mut packet = pool.take(len)?;
        let head = len.min(HEAD);
        from.read(frame, 0, &mut packet.extend(len)?[..head]);
        *packet.offload_mut() = offload;
        offload::examine(&mut packet).ok()?;
        let headers = packet.layers().payload as usize;
        let looked_at = headers > 0 && headers <= head && packet.len() == len;
        if !looked_at || !offload::is_ready(&packet, able) {
            return None;
        }
        let header = offload::to_header(&packet);
        packet.truncate(head);
        self.heads.push((frame as u8, packet));
        Some(header)
    }

    /// What of a frame was looked at, and must be what is sent.
    #[inline]
    fn head(&self, frame: u8) -> &[u8] {
        let found = self.heads.iter().find(|(of, _)| *of == frame);
        found.map_or(&[], |(_, packet)| packet.data())
    }
}

/// Carries some frames of a burst over to a queue, in order.
fn carry_by(
    to: &mut ToGuest,
    from: &FromGuest,
    frames: &[u8],
    headers: &Headers,
    tally: &PortTally,
) {
    let lens: ArrayVec<u32, BURST> = frames
        .iter()
        .map(|frame| from.frame_len(usize::from(*frame)) as u32)
        .collect();
    let room = to.reserve(&lens);
    let (mut sent, mut bytes) = (0, 0);
    for (slot, &frame) in frames[..room].iter().enumerate() {
        let (header, number) = (headers.net[usize::from(frame)], usize::from(frame));
        let filled = if header.gso_type == GSO_NONE {
            to.carry(slot, header, from, number)
        } else {
            let head = headers.head(frame);
            to.fill_from(slot, header, head, from, number, head.len())
        };
        if filled {
            sent += 1;
            bytes += u64::from(lens[slot]);
        }
    }
    to.publish();
    count_sent(tally, to, frames.len(), room, (sent, bytes));
}

#[cfg(test)]
mod tests;
