//! A driver for measurements: as little work a frame as can be, so that the back end is the limit.

use super::ring::{DriverRing, INDIRECT, NEXT};
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
    burst: u16,
    /// Transmit buffers of a frame.
    pieces: u16,
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
        let layout = transmit.layout;
        let header = &header.to_bytes()[..NetHeader::len_for(transmit.features)];
        let frame = [header, frame].concat();
        let pieces = frame.len().div_ceil(layout.buffer_size);
        assert!(
            pieces <= usize::from(layout.size) && pieces <= layout.table_entries,
            "frame longer than the transmit buffers"
        );
        let mut made = Self {
            scratch: vec![0; receive.layout.buffer_size],
            merged: frame.len() > receive.layout.buffer_size,
            receive,
            transmit,
            mode,
            frame,
            burst: Self::BURST,
            pieces: pieces as u16,
            window: layout.size / pieces as u16,
            partial: 0,
            checksum: 0,
        };
        for index in 0..made.window {
            let head = index * made.pieces;
            made.describe(head);
            made.write(head);
            made.transmit.offer(head);
        }
        made.transmit.flush();
        made
    }

    /// Describes the chain of a frame, whose buffers have the numbers from `head` on.
    fn describe(&self, head: u16) {
        let RingLayout {
            desc, buffer_size, ..
        } = self.transmit.layout;
        let indirect = self.pieces > 1 && self.transmit.features & feature::INDIRECT_DESC != 0;
        let table = self.transmit.layout.table(head);
        for (piece, bytes) in (0..self.pieces).zip(self.frame.chunks(buffer_size)) {
            let at = self.transmit.layout.buffer(head + piece);
            let (table, place) = if indirect {
                (table, piece)
            } else {
                (desc, head + piece)
            };
            let (flags, next) = if piece + 1 < self.pieces {
                (NEXT, place + 1)
            } else {
                (0, 0)
            };
            self.transmit
                .describe(table, place, at, bytes.len() as u32, flags, next);
        }
        if indirect {
            let len = 16 * u32::from(self.pieces);
            self.transmit.describe(desc, head, table, len, INDIRECT, 0);
        }
    }

    /// Writes a frame into its buffers.
    fn write(&self, head: u16) {
        let layout = self.transmit.layout;
        for (piece, bytes) in (0..self.pieces).zip(self.frame.chunks(layout.buffer_size)) {
            let at = layout.buffer(head + piece);
            self.transmit.memory.write(at, bytes);
        }
    }

    /// Where the two rings are in the front end's memory: receive, transmit.
    pub fn layouts(&self) -> [RingLayout; 2] {
        [self.receive.layout, self.transmit.layout]
    }

    /// Moves up to a burst in each direction.
    #[inline]
    pub fn poll(&mut self) -> Moved {
        let filled = self.receive.used().min(self.burst);
        let used = self.transmit.used();
        let starved = used == self.window;
        let sent = used.min(self.burst);
        if self.mode == FastMode::Rewrite {
            self.touch(filled, sent);
        }
        let received = if self.merged {
            self.count_merged(filled)
        } else {
            filled.into()
        };
        if filled > 0 {
            self.receive.recycle(filled);
        }
        if sent > 0 {
            self.send_again(sent);
        }
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

    fn send_again(&mut self, count: u16) {
        if self.pieces == 1 {
            return self.transmit.recycle(count);
        }
        for _ in 0..count {
            let (head, _) = self.transmit.take();
            self.transmit.offer(head as u16);
        }
        self.transmit.flush();
    }

    /// Reads what was received, writes what will be sent.
    fn touch(&mut self, filled: u16, sent: u16) {
        for ahead in 0..filled {
            let (id, len) = self.receive.used_entry(ahead);
            let id = id as u16 & (self.receive.layout.size - 1);
            let into = &mut self.scratch[..];
            let len = (len as usize).min(into.len());
            self.receive
                .memory
                .read(self.receive.layout.buffer(id), &mut into[..len]);
            self.checksum = self
                .checksum
                .wrapping_add(into[len.saturating_sub(1)].into());
        }
        for ahead in 0..sent {
            let (id, _) = self.transmit.used_entry(ahead);
            let head = (id as u16).min(self.pieces * (self.window - 1));
            self.write(head);
        }
    }
}
