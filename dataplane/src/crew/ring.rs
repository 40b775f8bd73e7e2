//! Packets between two workers, as bytes in a bounded ring: each is a header and its frame, padded to a multiple of 16.
//!
//! A batch is published at once, or in a few pieces where it is large: the line on which the two meet is written that
//! often, rather than once a packet.

use arrayvec::ArrayVec;

use super::bell::Bell;
use crate::packet::{BURST, Batch, Gso, Offload, Packet, Pool};
use crate::tails::Lenders;

/// Bytes of a ring: room for a dozen of the largest frames, or for some hundred that fill an Ethernet frame.
pub(crate) const CAPACITY: usize = 1 << 20;
/// Bytes of a record in front of its frame.
const HEADER: usize = 16;
/// Bytes that are published at once, if it is not one large frame.
const PIECE: usize = 16 << 10;

const _: () = assert!(CAPACITY.is_multiple_of(HEADER) && CAPACITY >= 8 * crate::packet::LARGE);

/// What is wanted of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It came in by the port and is to be handled.
    Enter,
    /// It came in by the port, is handled by the sender, and may be learnt from.
    Listen,
    /// It is to be sent by the port.
    Leave,
}

/// Packets of one kind and port that came out of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// What is wanted of them.
    pub(crate) kind: Kind,
    /// The port.
    pub(crate) port: u16,
    /// How many they were.
    pub(crate) packets: usize,
    /// For how many of these no buffer was free.
    pub(crate) lost: usize,
}

/// A ring with both ends.
pub(crate) fn ring() -> (Sender, Receiver) {
    let (producer, consumer) = rtrb::RingBuffer::new(CAPACITY);
    (Sender(producer), Receiver(consumer))
}

/// The end that packets go into.
pub(crate) struct Sender(rtrb::Producer<u8>);

/// The end that they come out of.
pub(crate) struct Receiver(rtrb::Consumer<u8>);

/// Bytes that a packet takes in a ring.
fn size(packet: &Packet) -> usize {
    (HEADER + packet.len()).next_multiple_of(HEADER)
}

/// How many of these packets are published at once, of at most `limit` bytes, but one at least; and their bytes.
fn piece(packets: &[(Kind, &Packet)], limit: usize) -> (usize, usize) {
    let (mut count, mut bytes) = (0, 0);
    for (_, packet) in packets {
        let size = size(packet);
        if count > 0 && bytes + size > limit {
            break;
        }
        count += 1;
        bytes += size;
    }
    (count, bytes)
}

impl Sender {
    /// Copies packets of a port into the ring, in order, tails included, until one finds no room; tells how many went.
    pub(crate) fn send(
        &mut self,
        port: u16,
        packets: &[(Kind, &Packet)],
        lenders: Lenders<'_>,
    ) -> usize {
        let (mut sent, mut limit) = (0, PIECE);
        while sent < packets.len() {
            let (count, bytes) = piece(&packets[sent..], limit);
            match self.0.write_chunk(bytes) {
                Ok(mut chunk) => {
                    let (first, second) = chunk.as_mut_slices();
                    let mut room = Room { first, second };
                    for (kind, packet) in &packets[sent..sent + count] {
                        write(*kind, port, packet, lenders, &mut room);
                    }
                    chunk.commit_all();
                    sent += count;
                }
                Err(rtrb::chunks::ChunkError::TooFewSlots(left)) if count > 1 => limit = left,
                Err(_) => break,
            }
        }
        sent
    }

    /// Whether everything was taken out.
    pub(crate) fn is_drained(&self) -> bool {
        self.0.slots() == CAPACITY
    }
}

/// Bytes of a ring to be written, which may begin at its end and go on at its start.
struct Room<'a> {
    first: &'a mut [u8],
    second: &'a mut [u8],
}

impl<'a> Room<'a> {
    /// The next bytes.
    fn next(&mut self, count: usize) -> [&'a mut [u8]; 2] {
        let at = count.min(self.first.len());
        let (first, rest) = std::mem::take(&mut self.first).split_at_mut(at);
        self.first = rest;
        let (second, rest) = std::mem::take(&mut self.second).split_at_mut(count - at);
        self.second = rest;
        [first, second]
    }

    fn put(&mut self, bytes: &[u8]) {
        let [first, second] = self.next(bytes.len());
        let (start, end) = bytes.split_at(first.len());
        first.copy_from_slice(start);
        second.copy_from_slice(end);
    }
}

fn write(kind: Kind, port: u16, packet: &Packet, lenders: Lenders<'_>, room: &mut Room<'_>) {
    room.put(&header(kind, port, packet));
    room.put(packet.head());
    if let Some(tail) = packet.tail() {
        let mut offset = tail.offset();
        for part in room.next(tail.len()) {
            // Where the guest took its memory away the ring's zeros stand for it.
            if let Some(queue) = lenders.queue(&tail) {
                queue.read(tail.frame.into(), offset, part);
            }
            offset += part.len();
        }
    }
    room.next(size(packet) - HEADER - packet.len());
}

fn header(kind: Kind, port: u16, packet: &Packet) -> [u8; HEADER] {
    let offload = packet.offload();
    let flags = u8::from(offload.needs_checksum)
        | u8::from(offload.checksum_valid) << 1
        | u8::from(offload.ecn) << 2
        | match offload.gso {
            Gso::None => 0,
            Gso::Tcp4 => 1 << 3,
            Gso::Tcp6 => 2 << 3,
            Gso::Udp => 3 << 3,
        };
    let mut header = [0; HEADER];
    header[..4].copy_from_slice(&(packet.len() as u32).to_le_bytes());
    let words = [
        port,
        u16::from_le_bytes([kind as u8, flags]),
        offload.gso_size,
        offload.header_len,
        offload.checksum_start,
        offload.checksum_offset,
    ];
    for (place, word) in header[4..].chunks_exact_mut(2).zip(words) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    header
}

/// A record's header, read.
struct Label {
    len: usize,
    port: u16,
    kind: Kind,
    offload: Offload,
}

impl Label {
    fn of(header: [u8; HEADER]) -> Self {
        let word = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
        let [len @ .., kind, flags] = [
            header[0], header[1], header[2], header[3], header[6], header[7],
        ];
        Self {
            len: u32::from_le_bytes(len) as usize,
            port: word(4),
            kind: match kind {
                0 => Kind::Enter,
                1 => Kind::Listen,
                _ => Kind::Leave,
            },
            offload: Offload {
                needs_checksum: flags & 1 != 0,
                checksum_valid: flags & 2 != 0,
                ecn: flags & 4 != 0,
                gso: match flags >> 3 {
                    0 => Gso::None,
                    1 => Gso::Tcp4,
                    2 => Gso::Tcp6,
                    _ => Gso::Udp,
                },
                gso_size: word(8),
                header_len: word(10),
                checksum_start: word(12),
                checksum_offset: word(14),
            },
        }
    }
}

/// Bytes of a ring to be read.
#[derive(Clone, Copy)]
struct Bytes<'a> {
    first: &'a [u8],
    second: &'a [u8],
}

impl<'a> Bytes<'a> {
    fn len(&self) -> usize {
        self.first.len() + self.second.len()
    }

    /// The next bytes, as many as there are.
    fn next(&mut self, count: usize) -> [&'a [u8]; 2] {
        let (first, rest) = self.first.split_at(count.min(self.first.len()));
        self.first = rest;
        let at = (count - first.len()).min(self.second.len());
        let (second, rest) = self.second.split_at(at);
        self.second = rest;
        [first, second]
    }

    /// The next bytes, copied. `to` is of that length.
    fn copy(&mut self, to: &mut [u8]) {
        let [first, second] = self.next(to.len());
        let (start, end) = to.split_at_mut(first.len());
        start.copy_from_slice(first);
        end[..second.len()].copy_from_slice(second);
    }

    /// The next record's header; `None` at the end.
    fn label(&mut self) -> Option<Label> {
        let mut header = [0; HEADER];
        (self.len() >= HEADER).then(|| self.copy(&mut header))?;
        Some(Label::of(header))
    }
}

impl Receiver {
    /// Takes packets into an empty batch as long as they are of one kind and port, `limit` at most; `None` if nothing is
    /// there. What found no buffer is gone, and counted in the run.
    pub(crate) fn take(&mut self, limit: usize, pool: &mut Pool, batch: &mut Batch) -> Option<Run> {
        let there = self.0.slots();
        if there == 0 || limit == 0 {
            return None;
        }
        let chunk = self.0.read_chunk(there).ok()?;
        let (first, second) = chunk.as_slices();
        let mut bytes = Bytes { first, second };
        let mut run: Option<Run> = None;
        let mut read = 0;
        while run.is_none_or(|run| run.packets < limit.min(BURST)) {
            let Some(label) = bytes.label() else { break };
            let run = run.get_or_insert(Run {
                kind: label.kind,
                port: label.port,
                packets: 0,
                lost: 0,
            });
            if (label.kind, label.port) != (run.kind, run.port) {
                break;
            }
            run.packets += 1;
            if let Some(mut packet) = pool.take_filled(label.len) {
                bytes.copy(packet.data_mut());
                *packet.offload_mut() = label.offload;
                batch.push(packet);
            } else {
                bytes.next(label.len);
                run.lost += 1;
            }
            bytes.next((HEADER + label.len).next_multiple_of(HEADER) - HEADER - label.len);
            read = there - bytes.len();
        }
        chunk.commit(read);
        run
    }

    /// Whether nothing is there.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Both rings between two workers, as one of them sees them.
pub(crate) struct Rings {
    pub(crate) sender: Sender,
    pub(crate) receiver: Receiver,
    /// Something was sent since the other was last told.
    pub(crate) untold: bool,
}

/// Rings in both directions.
pub(crate) fn pair() -> [Rings; 2] {
    let [(to_b, from_a), (to_a, from_b)] = [ring(), ring()];
    [(to_b, from_b), (to_a, from_a)].map(|(sender, receiver)| Rings {
        sender,
        receiver,
        untold: false,
    })
}

impl Rings {
    /// As [`Sender::send`].
    pub(crate) fn send(
        &mut self,
        port: u16,
        packets: &[(Kind, &Packet)],
        lenders: Lenders<'_>,
    ) -> usize {
        let sent = self.sender.send(port, packets, lenders);
        self.untold |= sent > 0;
        sent
    }

    /// The same for a whole batch.
    pub(crate) fn send_all(
        &mut self,
        kind: Kind,
        port: u16,
        batch: &Batch,
        lenders: Lenders<'_>,
    ) -> usize {
        let packets: ArrayVec<(Kind, &Packet), BURST> =
            batch.iter().map(|packet| (kind, packet)).collect();
        self.send(port, &packets, lenders)
    }

    /// Wakes the other worker, if it sleeps and something was sent.
    #[inline]
    pub(crate) fn tell(&mut self, bell: &Bell) {
        if std::mem::take(&mut self.untold) {
            bell.call();
        }
    }

    /// Whether nothing is on its way in either direction.
    pub(crate) fn are_empty(&self) -> bool {
        self.receiver.is_empty() && self.sender.is_drained()
    }
}

#[cfg(test)]
mod tests;
