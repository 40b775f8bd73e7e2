//! A driver for measurements: as little work a frame as can be, so that the back end is the limit.

use super::ring::{DriverRing, Format, Piece, Used};
use super::{DriverPair, RingLayout};
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

/// A queue pair whose rings hold the same descriptors for ever: every frame that the device has
/// taken is sent again, every buffer that it filled is posted again.
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
    /// The frame with its header.
    frame: Vec<u8>,
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

    /// Takes a pair over and fills its transmit ring with copies of `frame`.
    ///
    /// # Panics
    /// If the frame does not fit the transmit buffers of the pair.
    pub fn new(pair: DriverPair, mode: FastMode, header: NetHeader, frame: &[u8]) -> Self {
        let DriverPair { receive, transmit } = pair;
        let (receive, transmit) = (receive.ring, transmit.ring);
        let (layout, features) = (transmit.layout(), transmit.common.features);
        let header = &header.to_bytes()[..NetHeader::len_for(features)];
        let frame = [header, frame].concat();
        let pieces = frame.len().div_ceil(layout.buffer_size);
        assert!(
            pieces <= usize::from(layout.size) && pieces <= layout.table_entries,
            "frame longer than the transmit buffers"
        );
        let posted = receive.layout().buffer_size;
        let mut made = Self {
            scratch: vec![0; posted],
            list: Vec::with_capacity(pieces),
            merged: frame.len() > posted,
            receive,
            transmit,
            mode,
            frame,
            burst: Self::BURST,
            pieces: pieces as u16,
            indirect: pieces > 1 && features & feature::INDIRECT_DESC != 0,
            window: layout.size / pieces as u16,
            partial: 0,
            checksum: 0,
        };
        for index in 0..made.window {
            let head = index * made.pieces;
            let ids: Vec<u16> = (head..head + made.pieces).collect();
            made.write(head);
            made.find(head);
            made.transmit.offer(&ids, &made.list, made.indirect);
        }
        made.transmit.flush();
        made
    }

    /// Lists where a frame is whose buffers have the numbers from `head` on.
    fn find(&mut self, head: u16) {
        let layout = self.transmit.layout();
        let chunks = (head..).zip(self.frame.chunks(layout.buffer_size));
        self.list.clear();
        self.list
            .extend(chunks.map(|(buffer, bytes)| (layout.buffer(buffer), bytes.len() as u32)));
    }

    /// Writes a frame into its buffers.
    fn write(&self, head: u16) {
        let layout = self.transmit.layout();
        for (buffer, bytes) in (head..).zip(self.frame.chunks(layout.buffer_size)) {
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
        let frames = self.partial / self.frame.len();
        self.partial %= self.frame.len();
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
                memory.prefetch_write(*buffer + (self.frame.len() - 1).min(64));
            }
            for buffer in buffers {
                self.transmit.common.memory.write(*buffer, &self.frame);
            }
        }
        self.transmit.recycle(sent, self.frame.len() as u32);
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
                self.write(head);
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
