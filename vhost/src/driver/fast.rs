//! A driver for measurements: as little work a frame as can be, so that the back end is the limit.

use super::ring::DriverRing;
use super::{DriverPair, RingLayout};
use crate::net::NetHeader;

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
    /// Frames that the device delivered. Each takes one buffer.
    pub received: u32,
    /// The transmit ring was empty: the device was waiting for the driver.
    pub starved: bool,
}

/// A queue pair whose rings hold the same descriptors for ever: every frame that the device has
/// taken is sent again, every buffer that it filled is posted again.
///
/// It relies on a device that uses chains in the order in which they were made available, as all
/// network back ends do for frames that they copy.
#[derive(Debug)]
pub struct FastPair {
    receive: DriverRing,
    transmit: DriverRing,
    mode: FastMode,
    frame: Vec<u8>,
    scratch: Vec<u8>,
    burst: u16,
    /// Sum over received bytes, so that reading them is not in vain.
    pub checksum: u64,
}

impl FastPair {
    /// Frames of a poll and direction at most.
    pub const BURST: u16 = 64;

    /// Takes a pair over and fills its transmit ring with copies of `frame`.
    ///
    /// # Panics
    /// If the frame does not fit a transmit buffer of the pair.
    pub fn new(pair: DriverPair, mode: FastMode, frame: &[u8]) -> Self {
        let DriverPair { receive, transmit } = pair;
        let (receive, mut transmit) = (receive.ring, transmit.ring);
        let layout = transmit.layout;
        let header = NetHeader::len_for(transmit.features);
        let mut bytes = vec![0; header];
        bytes.extend_from_slice(frame);
        assert!(
            bytes.len() <= layout.buffer_size,
            "frame longer than a transmit buffer"
        );
        for index in 0..layout.size {
            let at = layout.buffer(index);
            transmit.memory.write(at, &bytes);
            transmit.describe(layout.desc, index, at, bytes.len() as u32, 0, 0);
            transmit.offer(index);
        }
        transmit.flush();
        let scratch = vec![0; receive.layout.buffer_size];
        Self {
            receive,
            transmit,
            mode,
            frame: bytes,
            scratch,
            burst: Self::BURST,
            checksum: 0,
        }
    }

    /// Where the two rings are in the front end's memory: receive, transmit.
    pub fn layouts(&self) -> [RingLayout; 2] {
        [self.receive.layout, self.transmit.layout]
    }

    /// Moves up to a burst in each direction.
    #[inline]
    pub fn poll(&mut self) -> Moved {
        let received = self.receive.used().min(self.burst);
        let used = self.transmit.used();
        let starved = used == self.transmit.layout.size;
        let sent = used.min(self.burst);
        if self.mode == FastMode::Rewrite {
            self.touch(received, sent);
        }
        if received > 0 {
            self.receive.recycle(received);
        }
        if sent > 0 {
            self.transmit.recycle(sent);
        }
        Moved {
            sent: sent.into(),
            received: received.into(),
            starved,
        }
    }

    /// Reads what was received, writes what will be sent.
    fn touch(&mut self, received: u16, sent: u16) {
        for ahead in 0..received {
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
            let id = id as u16 & (self.transmit.layout.size - 1);
            self.transmit
                .memory
                .write(self.transmit.layout.buffer(id), &self.frame);
        }
    }
}
