//! Straight from guest to guest: one copy, from the buffers of the one into those of the other.
//!
//! Nobody reads the packets in between, so nothing of them is held in host memory but the virtio-net headers, which
//! are checked as for any packet. The sender's buffers go back to it within the same poll, whatever becomes of the
//! packets: a receiver without room costs a counted drop, never the sender's ring.

use arrayvec::ArrayVec;
use chainplane_vhost::backend::QueuePair;
use chainplane_vhost::net::NetHeader;
use chainplane_vhost::ring::{FromGuest, ToGuest};

use super::{header_of, queue_of, received};
use crate::offload;
use crate::packet::BURST;
use crate::port::{Offloads, PortDrop, PortTally};
use crate::ports::virtio_header::{DATA_VALID, NEEDS_CHECKSUM, VirtioHeader};

/// Queues to a guest, while a port's packets go there.
pub(super) struct Crossing<'a> {
    to: &'a mut [QueuePair],
    /// Those that run.
    running: ArrayVec<usize, 64>,
    able: Offloads,
    tally: &'a PortTally,
}

impl<'a> Crossing<'a> {
    pub(super) fn new(to: &'a mut [QueuePair], able: Offloads, tally: &'a PortTally) -> Self {
        let running = super::running(to);
        Self {
            to,
            running,
            able,
            tally,
        }
    }

    /// Carries the fetched burst over, if the receiver can take every packet as it is. False, and nothing done, if one
    /// has to be completed or refused first.
    pub(super) fn carry(&mut self, from: &FromGuest) -> bool {
        let mut headers: ArrayVec<NetHeader, BURST> = ArrayVec::new();
        for (frame, len) in from.frame_lens().enumerate() {
            let Some(header) = as_it_is(from.header(frame), len as usize, self.able) else {
                return false;
            };
            headers.push(header);
        }
        match self.running[..] {
            _ if headers.is_empty() => {}
            [] => self.tally.drop(PortDrop::Down, headers.len() as u64),
            [only] => {
                let frames = std::array::from_fn::<u8, BURST, _>(|frame| frame as u8);
                let frames = &frames[..headers.len()];
                carry_by(
                    &mut self.to[only].to_guest,
                    from,
                    frames,
                    &headers,
                    self.tally,
                );
            }
            _ => self.spread(from, &headers),
        }
        true
    }

    /// Gives each queue the packets of its flows.
    fn spread(&mut self, from: &FromGuest, headers: &[NetHeader]) {
        let mut queues = [0; BURST];
        for (frame, queue) in queues[..headers.len()].iter_mut().enumerate() {
            let mut start = [0; 64];
            let len = from.read(frame, 0, &mut start);
            *queue = queue_of(&start[..len], self.running.len());
        }
        for (turn, &pair) in self.running.iter().enumerate() {
            let frames: ArrayVec<u8, BURST> = (0..headers.len())
                .filter(|frame| queues[*frame] == turn)
                .map(|frame| frame as u8)
                .collect();
            carry_by(
                &mut self.to[pair].to_guest,
                from,
                &frames,
                headers,
                self.tally,
            );
        }
    }
}

/// Carries some frames of a burst over to a queue, in order.
fn carry_by(
    to: &mut ToGuest,
    from: &FromGuest,
    frames: &[u8],
    headers: &[NetHeader],
    tally: &PortTally,
) {
    let lens: ArrayVec<u32, BURST> = frames
        .iter()
        .map(|frame| from.frame_len(usize::from(*frame)) as u32)
        .collect();
    let room = to.reserve(&lens);
    let (mut sent, mut bytes) = (0, 0);
    for (slot, frame) in frames[..room].iter().enumerate() {
        let frame = usize::from(*frame);
        if to.carry(slot, headers[frame], from, frame) {
            sent += 1;
            bytes += u64::from(lens[slot]);
        }
    }
    to.publish();
    super::count_sent(tally, to, frames.len(), room, (sent, bytes));
}

/// The header that the receiver gets, if it can take the packet as it is and the request makes sense.
#[inline]
fn as_it_is(header: NetHeader, len: usize, able: Offloads) -> Option<NetHeader> {
    if header.flags & NEEDS_CHECKSUM == 0 && header.gso_type == 0 {
        return Some(NetHeader {
            flags: header.flags & DATA_VALID,
            ..NetHeader::default()
        });
    }
    let request = received(header).offload(len).ok()?;
    offload::is_ready(&request, able).then(|| header_of(VirtioHeader::of_offload(&request, 0)))
}
