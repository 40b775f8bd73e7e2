//! A driver for measurements: as little work a frame as can be, so that the back end is the limit.

use super::ring::{DriverRing, Format, Piece, Used};
use super::{DriverPair, GUEST_BASE, RingLayout};
use crate::net::{NetHeader, feature};

/// How much of the frames the driver touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FastMode {
    /// Only moves indices; no payload line is ever touched.
    IndexOnly,
    /// Writes every buffer that it sends and reads every buffer that it receives, as applications
    /// do.
    Rewrite,
}

/// What one poll moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Frames that the device took.
    pub sent: u32,
    /// Frames that the device delivered, all of the length of those sent.
    pub received: u32,
    /// Everything sent was given back: the device was waiting for the driver.
    pub starved: bool,
}

/// The frames that are sent, in turn, each with its header; all of one length.
#[derive(Debug)]
struct Frames {
    bytes: Vec<u8>,
    /// Bytes of each.
    len: usize,
    count: usize,
    /// The one that is sent next, where that is not told by its buffer.
    next: usize,
}

impl Frames {
    fn get(&self, index: usize) -> &[u8] {
        &self.bytes[index % self.count * self.len..][..self.len]
    }

    /// The next one's number.
    #[inline]
    fn advance(&mut self) -> usize {
        let next = self.next;
        self.next = if next + 1 == self.count { 0 } else { next + 1 };
        next
    }
}

/// Frames in guest memory, side by side.
#[derive(Clone, Copy, Debug)]
struct Store {
    start: usize,
    stride: usize,
}

/// A queue pair whose rings hold the same descriptors for ever: every frame that the device has
/// taken is sent again, every buffer that it filled is posted again.
///
/// With more frames than the ring has entries they lie side by side in [spare memory](super::FrontEndConfig::spare_memory), and
/// the descriptors' addresses are moved on from one to the next; or each is written into the
/// ring's buffers, where the driver writes those.
///
/// A frame longer than a transmit buffer lies in several, as Linux sends large segments: behind an
/// indirect table where that was negotiated, in a chain otherwise. As many such frames are under
/// way as the ring has buffers for.
///
/// It relies on a device that uses chains in the order in which they were made available, as all
/// network back ends do for frames that they copy.
#[derive(Debug)]
pub struct FastPair {
    receive: DriverRing,
    transmit: DriverRing,
    mode: FastMode,
    frames: Frames,
    /// Where frames are that the ring's buffers have no room for.
    store: Option<Store>,
    scratch: Vec<u8>,
    /// Where the pieces of the frame in hand are.
    list: Vec<Piece>,
    burst: u16,
    /// Transmit buffers of a frame.
    pieces: u16,
    /// A frame's pieces are in a table.
    indirect: bool,
    /// Frames that can be under way.
    window: u16,
    /// A frame needs several receive buffers.
    merged: bool,
    /// Bytes received of a frame that is not complete.
    partial: usize,
    /// Sum over received bytes, so that reading them is not in vain.
    pub checksum: u64,
}

impl FastPair {
    /// Used entries of a poll and direction at most.
    pub const BURST: u16 = 64;

    /// Bytes of spare memory that so many frames of `len` bytes take where the ring has fewer entries.
    pub fn spare_memory(frames: usize, len: usize) -> usize {
        frames * Self::stride(len + NetHeader::LEN)
    }

    /// Frames do not share cache lines.
    fn stride(len: usize) -> usize {
        len.next_multiple_of(64)
    }

    /// Takes over a pair all of whose frames were received and given back, and fills its transmit
    /// ring with `frames`, which are of one length. `spare` is where [spare memory](Self::spare_memory) begins.
    ///
    /// # Panics
    /// If a frame does not fit the transmit buffers of the pair, or all of them the memory.
    pub fn new(
        pair: DriverPair,
        mode: FastMode,
        header: NetHeader,
        frames: &[Vec<u8>],
        spare: usize,
    ) -> Self {
        let DriverPair { receive, transmit } = pair;
        let (receive, transmit) = (receive.ring, transmit.ring);
        let (layout, features) = (transmit.layout(), transmit.common.features);
        let header = &header.to_bytes()[..NetHeader::len_for(features)];
        let len = header.len() + frames.first().map_or(0, Vec::len);
        let mut bytes = Vec::with_capacity(frames.len() * len);
        for frame in frames {
            bytes.extend_from_slice(header);
            bytes.extend_from_slice(frame);
        }
        assert_eq!(bytes.len(), frames.len() * len, "frames of several lengths");
        let pieces = len.div_ceil(layout.buffer_size);
        assert!(
            pieces <= usize::from(layout.size) && pieces <= layout.table_entries,
            "frame longer than the transmit buffers"
        );
        let window = layout.size / pieces as u16;
        let stored = pieces == 1 && frames.len() > window.into() && mode == FastMode::IndexOnly;
        let posted = receive.layout().buffer_size;
        let mut made = Self {
            scratch: vec![0; posted],
            list: Vec::with_capacity(pieces),
            merged: len > posted,
            receive,
            transmit,
            mode,
            frames: Frames {
                bytes,
                len,
                count: frames.len(),
                next: 0,
            },
            store: stored.then_some(Store {
                start: spare,
                stride: Self::stride(len),
            }),
            burst: Self::BURST,
            pieces: pieces as u16,
            indirect: pieces > 1 && features & feature::INDIRECT_DESC != 0,
            window,
            partial: 0,
            checksum: 0,
        };
        made.fill();
        made
    }

    /// Offers the whole transmit ring.
    fn fill(&mut self) {
        if let Some(store) = self.store {
            for index in 0..self.frames.count {
                let at = store.start + index * store.stride;
                self.transmit
                    .common
                    .memory
                    .write(at, self.frames.get(index));
            }
            self.frames.bytes = Vec::new();
        }
        // Where every chain is one descriptor, an entry of the ring names the descriptor of its own number.
        let first = if self.pieces == 1 {
            self.transmit.next_slot()
        } else {
            0
        };
        for index in 0..self.window {
            let head = (first + index) % self.window * self.pieces;
            let ids: Vec<u16> = (head..head + self.pieces).collect();
            let frame = self.frames.advance();
            if let Some(store) = self.store {
                let at = store.start + frame * store.stride;
                self.list.clear();
                self.list.push((at, self.frames.len as u32));
            } else {
                self.write(head, frame);
                self.find(head);
            }
            self.transmit.offer(&ids, &self.list, self.indirect);
        }
        self.transmit.flush();
    }

    /// Lists where a frame is whose buffers have the numbers from `head` on.
    fn find(&mut self, head: u16) {
        let (layout, mut rest) = (self.transmit.layout(), self.frames.len);
        self.list.clear();
        for buffer in head..head + self.pieces {
            let len = rest.min(layout.buffer_size);
            self.list.push((layout.buffer(buffer), len as u32));
            rest -= len;
        }
    }

    /// Writes a frame into its buffers.
    fn write(&self, head: u16, frame: usize) {
        let layout = self.transmit.layout();
        let frame = self.frames.get(frame);
        for (buffer, bytes) in (head..).zip(frame.chunks(layout.buffer_size)) {
            let at = layout.buffer(buffer);
            self.transmit.common.memory.write(at, bytes);
        }
    }

    /// Where the two rings are in the front end's memory: receive, transmit.
    pub fn layouts(&self) -> [RingLayout; 2] {
        [self.receive.layout(), self.transmit.layout()]
    }

    /// Moves up to a burst in each direction.
    #[inline]
    pub fn poll(&mut self) -> Moved {
        let filled = self.receive.used_up_to(self.burst);
        if self.mode == FastMode::Rewrite {
            self.read(filled);
        }
        let received = if self.merged {
            self.count_merged(filled)
        } else {
            filled.into()
        };
        if filled > 0 {
            self.receive.recycle(filled, self.scratch.len() as u32);
        }
        let (sent, starved) = if self.pieces == 1 {
            self.send_short()
        } else {
            self.send_long()
        };
        Moved {
            sent: sent.into(),
            received,
            starved,
        }
    }

    /// Frames that end in the next used entries of the receive ring.
    fn count_merged(&mut self, filled: u16) -> u32 {
        for ahead in 0..filled {
            self.partial += self.receive.used_entry(ahead).1 as usize;
        }
        let frames = self.partial / self.frames.len;
        self.partial %= self.frames.len;
        frames as u32
    }

    /// Sends frames of one buffer again; tells how many, and whether the device had none left.
    #[inline]
    fn send_short(&mut self) -> (u16, bool) {
        let sent = self.transmit.used_up_to(self.burst);
        if sent == 0 {
            return (0, false);
        }
        let starved = self.transmit.is_drained();
        if self.mode == FastMode::Rewrite {
            let mut buffers = [0; Self::BURST as usize];
            let buffers = &mut buffers[..usize::from(sent.min(Self::BURST))];
            for (ahead, buffer) in (0..).zip(&mut *buffers) {
                let (id, _) = self.transmit.used_entry(ahead);
                *buffer = self
                    .transmit
                    .layout()
                    .buffer((id as u16).min(self.window - 1));
                let memory = &self.transmit.common.memory;
                memory.prefetch_write(*buffer);
                memory.prefetch_write(*buffer + (self.frames.len - 1).min(64));
            }
            for buffer in buffers {
                let frame = self.frames.advance();
                self.transmit
                    .common
                    .memory
                    .write(*buffer, self.frames.get(frame));
            }
        }
        if let Some(store) = self.store {
            for ahead in 0..sent {
                let at = store.start + self.frames.advance() * store.stride;
                self.transmit.aim(ahead, at);
            }
        }
        self.transmit.recycle(sent, self.frames.len as u32);
        (sent, starved)
    }

    /// The same for frames of several buffers.
    fn send_long(&mut self) -> (u16, bool) {
        let waiting = self.transmit.waiting();
        // As many descriptors as are looked at on the other ring, so that neither gets ahead.
        let sent = waiting.min((self.burst / self.pieces).max(1).into());
        for _ in 0..sent {
            let Some((head, _)) = self.transmit.take() else {
                break;
            };
            let head = (head as u16).min(self.pieces * (self.window - 1));
            if self.mode == FastMode::Rewrite {
                let frame = self.frames.advance();
                self.write(head, frame);
            }
            self.find(head);
            self.transmit.offer_again(head, &self.list, self.indirect);
        }
        self.transmit.flush();
        (sent as u16, waiting == usize::from(self.window))
    }

    /// Reads what was received.
    fn read(&mut self, filled: u16) {
        let receive = &self.receive;
        let (layout, memory) = (receive.layout(), &receive.common.memory);
        let into = &mut self.scratch[..];
        let mut entries = [(0, 0); Self::BURST as usize];
        let entries = &mut entries[..usize::from(filled.min(Self::BURST))];
        for (ahead, entry) in (0..).zip(&mut *entries) {
            let (id, len) = receive.used_entry(ahead);
            let at = layout.buffer((id as u16).min(layout.size - 1));
            *entry = (at, (len as usize).min(into.len()));
            memory.prefetch_read(at);
            memory.prefetch_read(at + entry.1.saturating_sub(1).min(64));
        }
        for &mut (at, len) in entries {
            memory.read(at, &mut into[..len]);
            self.checksum = self
                .checksum
                .wrapping_add(into[len.saturating_sub(1)].into());
        }
    }
}

/// Rings that hold the same chains for ever, each of one descriptor.
impl DriverRing {
    /// Used chains, up to `max`.
    #[inline]
    fn used_up_to(&self, max: u16) -> u16 {
        match &self.format {
            Format::Split(ring) => ring.used(&self.common).min(max),
            Format::Packed(ring) => ring.used(&self.common, max).min(max),
        }
    }

    /// Whether the device has used everything.
    #[inline]
    fn is_drained(&self) -> bool {
        match &self.format {
            Format::Split(ring) => ring.used(&self.common) == self.common.layout.size,
            Format::Packed(ring) => ring.is_drained(&self.common),
        }
    }

    /// The used chain `ahead` of the next one.
    #[inline]
    fn used_entry(&self, ahead: u16) -> Used {
        match &self.format {
            Format::Split(ring) => ring.entry(&self.common, ahead),
            Format::Packed(ring) => ring.entry(&self.common, ahead),
        }
    }

    /// The entry of the ring that is offered next.
    fn next_slot(&self) -> u16 {
        match &self.format {
            Format::Split(ring) => ring.next_slot(&self.common),
            Format::Packed(ring) => ring.next_slot(),
        }
    }

    /// Lets the descriptor of the chain `ahead` of the next one to be offered point elsewhere.
    #[inline]
    fn aim(&self, ahead: u16, offset: usize) {
        let slot = self.next_slot() + ahead;
        let slot = slot % self.common.layout.size;
        let at = self.common.layout.desc + 16 * usize::from(slot);
        self.common.memory.store_u64(at, GUEST_BASE + offset as u64);
    }

    /// Offers the next `count` chains again, each of `len` bytes.
    #[inline]
    fn recycle(&mut self, count: u16, len: u32) {
        match &mut self.format {
            Format::Split(ring) => ring.recycle(count),
            Format::Packed(ring) => ring.recycle(&self.common, count, len),
        }
        self.flush();
    }
}
