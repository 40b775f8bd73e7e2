//! A guest: the virtqueues of a vhost-user device, seen as a port.
//!
//! A burst is handled in phases, so that many cache misses are in flight at once: the ring parses all descriptors
//! first, then the packets are copied, then the buffers are given back and the index is published once.

mod crossing;

use std::os::fd::{AsRawFd, RawFd};

use arrayvec::ArrayVec;
use chainplane_vhost::backend::QueuePair;
use chainplane_vhost::net::{FLAG_NEEDS_CSUM, NetHeader, feature};
use chainplane_vhost::ring::{BURST_COST, Frame, FromGuest, Lent, Outgoing, ToGuest};

use self::crossing::Crossing;
use super::rarp;
use crate::offload;
use crate::packet::{BURST, Batch, HEAD, LONGEST_COPIED, Packet, Pool, Tail, may_leave_tail};
use crate::port::{Offloads, Passed, Port, PortContext, PortDrop, PortTally};
use crate::tails;

/// Queue pairs of a vhost-user device, all of them, or those that one worker polls.
pub struct VhostUser {
    pairs: Vec<QueuePair>,
    /// The pair that is polled first next time, so that none starves the others.
    next: usize,
    offloads: Offloads,
    /// Sums up the pairs' generations, to see when descriptors change.
    generation: u64,
    /// The MAC address of a guest that came from elsewhere and that the network shall learn of.
    announcement: Option<[u8; 6]>,
}

impl VhostUser {
    /// A port of the pairs that a device was started with.
    pub fn new(pairs: Vec<QueuePair>) -> Self {
        Self {
            pairs,
            next: 0,
            offloads: Offloads::default(),
            generation: 0,
            announcement: None,
        }
    }

    /// Adds the announcement of the guest, as if it had sent it, once there is room and a buffer.
    #[cold]
    fn announce(&mut self, mac: [u8; 6], cx: &mut PortContext<'_>, batch: &mut Batch) {
        if !batch.is_full()
            && let Some(mut packet) = cx.pool.take(rarp::LEN)
            && let Some(bytes) = packet.extend(rarp::LEN)
        {
            bytes.copy_from_slice(&rarp::announcement(mac));
            batch.push(packet);
            self.announcement = None;
        }
    }

    fn offloads_of(features: u64) -> Offloads {
        // Whatever is cut later has an unfinished checksum until then (virtio 1.2, 5.1.3.1).
        let checksum = features & feature::GUEST_CSUM != 0;
        let has = |bit: u64| checksum && features & bit != 0;
        Offloads {
            checksum,
            tcp4: has(feature::GUEST_TSO4),
            tcp6: has(feature::GUEST_TSO6),
            ecn: has(feature::GUEST_ECN),
            udp4: has(feature::GUEST_USO4),
            udp6: has(feature::GUEST_USO6),
        }
    }

    /// Sends a batch by one pair: the short way if every packet fits one buffer of the guest's.
    fn send_all(&mut self, pair: usize, cx: &PortContext<'_>, batch: &Batch) {
        let flags = self.header_flags();
        let frames = batch.iter().map(|packet| {
            let offload = packet.offload();
            let says = !offload.asks_nothing() || offload.checksum_valid;
            let rest = match packet.tail() {
                None => None,
                Some(tail) => Some(Lent {
                    ring: cx.lenders.queue(&tail)?,
                    frame: tail.frame.into(),
                    offset: tail.offset(),
                    len: tail.len(),
                }),
            };
            Some(Outgoing {
                header: says.then(|| told(packet, flags)),
                head: packet.head(),
                rest,
            })
        });
        let ring = &mut self.pairs[pair].to_guest;
        let Some(sent) = ring.put_burst(frames) else {
            return self.send_by(pair, cx, batch, |_| true);
        };
        let bytes: usize = batch[..sent].iter().map(Packet::len).sum();
        count_sent(
            cx.tally,
            ring,
            batch.len(),
            sent,
            (sent as u64, bytes as u64),
        );
    }

    /// What the guest's driver knows of a header's flags: one that takes no partial checksums does not know of checked
    /// ones either (virtio 1.2, 5.1.6.4.1).
    fn header_flags(&self) -> u8 {
        if self.offloads.checksum { 0xff } else { 0 }
    }

    /// Sends the packets of `batch` that `chosen` takes by one pair, in order.
    fn send_by(
        &mut self,
        pair: usize,
        cx: &PortContext<'_>,
        batch: &Batch,
        chosen: impl Fn(&Packet) -> bool,
    ) {
        let packets: ArrayVec<&Packet, BURST> =
            batch.iter().filter(|packet| chosen(packet)).collect();
        let lens: ArrayVec<u32, BURST> = packets.iter().map(|packet| packet.len() as u32).collect();
        let flags = self.header_flags();
        let ring = &mut self.pairs[pair].to_guest;
        let room = ring.reserve(&lens);
        let (mut sent, mut bytes) = (0, 0);
        for (slot, packet) in packets[..room].iter().enumerate() {
            let header = told(packet, flags);
            let filled = match packet.tail() {
                None => ring.fill(slot, header, packet.data()),
                Some(tail) => cx.lenders.queue(&tail).is_some_and(|from| {
                    let (frame, offset) = (tail.frame.into(), tail.offset());
                    ring.fill_from(slot, header, packet.head(), from, frame, offset)
                }),
            };
            if filled {
                sent += 1;
                bytes += packet.len() as u64;
            }
        }
        ring.publish();
        count_sent(cx.tally, ring, packets.len(), room, (sent, bytes));
    }
}

/// What a guest is told of a packet, whose driver knows these flags.
#[inline]
fn told(packet: &Packet, flags: u8) -> NetHeader {
    let mut header = offload::to_header(packet);
    header.flags &= flags;
    header
}

/// Counts what became of `wanted` packets, for `room` of which a queue had room, and of which it took so many with so
/// many bytes.
fn count_sent(tally: &PortTally, ring: &ToGuest, wanted: usize, room: usize, sent: (u64, u64)) {
    tally.sent(sent.0, sent.1);
    if wanted as u64 == sent.0 {
        return;
    }
    tally.drop(PortDrop::TooLong, room as u64 - sent.0);
    let reason = if ring.is_running() {
        PortDrop::Full
    } else {
        PortDrop::Down
    };
    tally.drop(reason, (wanted - room) as u64);
}

/// The pairs to whose guest packets can go.
fn running(pairs: &[QueuePair]) -> ArrayVec<usize, 64> {
    (0..pairs.len())
        .filter(|pair| pairs[*pair].to_guest.is_running())
        .take(64)
        .collect()
}

/// Copies a burst of frames of a pair's ring into packets, or what has to be copied of each; tells what it cost.
fn gather(ring: &mut FromGuest, pair: usize, cx: &mut PortContext<'_>, batch: &mut Batch) -> u64 {
    ring.fetch(batch.remaining_capacity());
    let cost = ring.cost();
    gather_fetched(ring, pair, cx, batch);
    cost
}

fn gather_fetched(ring: &mut FromGuest, pair: usize, cx: &mut PortContext<'_>, batch: &mut Batch) {
    let place = cx.lend_as.map(|port| Tail {
        port,
        burst: ring.burst(),
        pair: pair as u8,
        ..Tail::default()
    });
    let mut lent = 0;
    for (number, frame) in ring.frames().enumerate() {
        let len = frame.len();
        let taken = match place {
            Some(place) if len > LONGEST_COPIED => lend(ring, number, place, cx.pool),
            _ => copy_whole(&frame, cx.pool),
        };
        let Some(mut packet) = taken else {
            cx.tally.refuse(PortDrop::NoBuffer, len);
            continue;
        };
        lent += u32::from(!packet.is_whole());
        if let Some(header) = frame.request() {
            let Ok(offload) = offload::from_header(&believed(header), len) else {
                cx.tally.refuse(PortDrop::BadOffload, len);
                continue;
            };
            *packet.offload_mut() = offload;
        }
        batch.push(packet);
    }
    cx.lent += lent;
    if lent == 0 {
        ring.complete();
    }
}

#[inline]
fn copy_whole(frame: &Frame<'_>, pool: &mut Pool) -> Option<Packet> {
    let mut packet = pool.take_filled(frame.len())?;
    let copied = frame.read(packet.data_mut());
    debug_assert_eq!(copied, frame.len(), "the ring told the frame's length");
    Some(packet)
}

/// Copies the beginning of a frame and leaves the rest where it is, if nobody will look at that.
#[inline]
fn lend(ring: &FromGuest, frame: usize, place: Tail, pool: &mut Pool) -> Option<Packet> {
    let mut packet = pool.take(HEAD)?;
    ring.read(frame, 0, packet.extend(HEAD)?);
    let number = frame as u8;
    let place = Tail {
        frame: number,
        ..place
    };
    packet.leave_tail(ring.frame_len(frame), place);
    if may_leave_tail(packet.head()) {
        Some(packet)
    } else {
        tails::fetch(packet, ring, pool)
    }
}

/// What a guest's header may say. That a checksum was found right is for a device to say, not for a driver (virtio
/// 1.2, section 5.1.6.2.1): its peer would not check what it claims.
#[inline]
fn believed(header: NetHeader) -> NetHeader {
    NetHeader {
        flags: header.flags & FLAG_NEEDS_CSUM,
        ..header
    }
}

/// Which of `count` queues a frame goes to, of which 58 bytes are enough: always the same for one flow, so that its
/// packets stay in order.
#[inline]
fn queue_of(frame: &[u8], count: usize) -> usize {
    // Addresses and ports of IPv4 and IPv6 behind a plain link header, or whatever is there instead: the choice
    // only has to be the same for all packets of a flow.
    let is_ipv6 = frame.get(12..14) == Some(&[0x86, 0xdd]);
    let from = if is_ipv6 { 22 } else { 26 };
    let to = (from + if is_ipv6 { 36 } else { 12 }).min(frame.len());
    let sum = frame
        .get(from..to)
        .unwrap_or_default()
        .iter()
        .fold(0u32, |hash, byte| {
            (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
        });
    (sum >> 8) as usize % count
}

impl Port for VhostUser {
    fn sync(&mut self) -> bool {
        let (mut changed, mut more) = (false, false);
        for pair in &mut self.pairs {
            if pair.poll() {
                changed = true;
                self.announcement = pair.take_announcement().or(self.announcement);
            }
            more |= pair.is_behind();
        }
        if changed {
            self.generation = self.generation.wrapping_add(1);
            let features = self
                .pairs
                .iter()
                .map(QueuePair::features)
                .find(|features| *features != 0);
            self.offloads = Self::offloads_of(features.unwrap_or(0));
        }
        more
    }

    #[inline]
    fn is_quiet(&mut self) -> bool {
        self.announcement.is_none() && self.pairs.iter_mut().all(|pair| !pair.from_guest.look())
    }

    fn receive(&mut self, cx: &mut PortContext<'_>, batch: &mut Batch) {
        if let Some(mac) = self.announcement {
            self.announce(mac, cx, batch);
        }
        let count = self.pairs.len();
        let mut cost = 0;
        for turn in 0..count {
            let pair = (self.next + turn) % count;
            cost += gather(&mut self.pairs[pair].from_guest, pair, cx, batch);
            if batch.is_full() || cost >= BURST_COST {
                break;
            }
        }
        self.next = (self.next + 1) % count.max(1);
    }

    fn receive_for(
        &mut self,
        cx: &mut PortContext<'_>,
        batch: &mut Batch,
        to: &mut dyn Port,
        tally: &PortTally,
    ) -> Passed {
        let able = to.offloads();
        let Some(queues) = to.guest_queues().filter(|_| self.announcement.is_none()) else {
            self.receive(cx, batch);
            return Passed::default();
        };
        let mut crossing = Crossing::new(queues, able, tally);
        let count = self.pairs.len();
        let (mut passed, mut cost) = (Passed::default(), 0);
        for turn in 0..count {
            let pair = (self.next + turn) % count;
            let from = &mut self.pairs[pair].from_guest;
            let room = batch.remaining_capacity() - passed.packets as usize;
            from.fetch(room);
            cost += from.cost();
            // What an earlier queue left in the batch leaves later, but a flow stays with its queue.
            if crossing.carry(from, cx.pool) {
                passed.packets += from.count() as u64;
                passed.bytes += from.bytes();
                from.complete();
            } else {
                gather_fetched(from, pair, cx, batch);
            }
            if passed.packets as usize + batch.len() == BURST || cost >= BURST_COST {
                break;
            }
        }
        self.next = (self.next + 1) % count.max(1);
        passed
    }

    fn lent(&self, pair: u8) -> Option<&FromGuest> {
        self.pairs
            .get(usize::from(pair))
            .map(|pair| &pair.from_guest)
    }

    fn take_back(&mut self) {
        for pair in &mut self.pairs {
            pair.from_guest.complete();
        }
    }

    fn takes_tails(&self) -> bool {
        true
    }

    fn guest_queues(&mut self) -> Option<&mut [QueuePair]> {
        Some(&mut self.pairs)
    }

    fn send(&mut self, cx: &mut PortContext<'_>, batch: &mut Batch) {
        let running = running(&self.pairs);
        match running[..] {
            [] => cx.tally.drop(PortDrop::Down, batch.len() as u64),
            [only] => self.send_all(only, cx, batch),
            _ => {
                for (turn, pair) in running.iter().enumerate() {
                    self.send_by(*pair, cx, batch, |packet| {
                        queue_of(packet.head(), running.len()) == turn
                    });
                }
            }
        }
        cx.pool.recycle(batch);
    }

    fn is_reachable(&self) -> bool {
        self.pairs.iter().any(|pair| pair.to_guest.is_running())
    }

    fn offloads(&self) -> Offloads {
        self.offloads
    }

    fn wakeups(&self, descriptors: &mut Vec<RawFd>) -> u64 {
        for pair in &self.pairs {
            // A guest that posts receive buffers gives no work; only what it sends does.
            let [_, from_guest] = pair.kick_fds();
            descriptors.extend(from_guest.map(|kick| kick.as_raw_fd()));
        }
        self.generation
    }

    fn arm(&mut self) -> bool {
        self.pairs
            .iter_mut()
            .fold(self.announcement.is_some(), |ready, pair| {
                pair.from_guest.arm() | ready
            })
    }

    fn disarm(&mut self) {
        for pair in &mut self.pairs {
            pair.from_guest.disarm();
        }
    }
}

#[cfg(test)]
pub(crate) mod street;
#[cfg(test)]
mod tests;
