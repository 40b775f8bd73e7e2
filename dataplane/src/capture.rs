//! Copies of a port's packets for whoever watches, over a bounded ring of bytes: a slow watcher misses packets, and
//! the worker never waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::packet::Packet;
use crate::time::Time;

/// Bytes of a packet that are copied, at most.
pub const SNAP_LEN: usize = 65_535;
const HEADER: usize = 24;

/// The worker's side.
pub struct Tap {
    ring: rtrb::Producer<u8>,
    missed: Arc<AtomicU64>,
}

/// The watcher's side.
pub struct Watch {
    ring: rtrb::Consumer<u8>,
    missed: Arc<AtomicU64>,
}

/// A copied packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// When, on the worker's clock.
    pub time: Time,
    /// Sent by the port, as opposed to received.
    pub sent: bool,
    /// Its whole length.
    pub len: u32,
    /// Its bytes, [`SNAP_LEN`] at most.
    pub bytes: Vec<u8>,
}

/// A tap and its watch, with room for `bytes` of packets in between.
pub fn tap(bytes: usize) -> (Tap, Watch) {
    let (producer, consumer) = rtrb::RingBuffer::new(bytes.max(2 * (SNAP_LEN + HEADER)));
    let missed = Arc::new(AtomicU64::new(0));
    (
        Tap {
            ring: producer,
            missed: Arc::clone(&missed),
        },
        Watch {
            ring: consumer,
            missed,
        },
    )
}

impl Tap {
    pub(crate) fn received(&mut self, packet: &Packet, now: Time) {
        self.copy(packet, now, false);
    }

    pub(crate) fn sent(&mut self, packet: &Packet, now: Time) {
        self.copy(packet, now, true);
    }

    /// Whether nobody watches any more.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.ring.is_abandoned()
    }

    /// Copies a packet; false if the ring was full.
    pub(crate) fn copy(&mut self, packet: &Packet, now: Time, sent: bool) -> bool {
        let bytes = &packet.data()[..packet.len().min(SNAP_LEN)];
        let Ok(mut chunk) = self.ring.write_chunk(HEADER + bytes.len()) else {
            self.missed.fetch_add(1, Relaxed);
            return false;
        };
        let mut header = [0; HEADER];
        header[..8].copy_from_slice(&now.0.to_le_bytes());
        header[8..12].copy_from_slice(&(packet.len() as u32).to_le_bytes());
        header[12..16].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
        header[16] = u8::from(sent);
        let (first, second) = chunk.as_mut_slices();
        scatter(&header, bytes, first, second);
        chunk.commit_all();
        true
    }
}

/// Writes header and bytes into the two parts of a ring's chunk.
fn scatter(header: &[u8], bytes: &[u8], first: &mut [u8], second: &mut [u8]) {
    let parts = [first, second];
    let (mut part, mut at) = (0, 0);
    for mut source in [header, bytes] {
        while !source.is_empty() && part < 2 {
            let room = parts[part].len() - at;
            let count = room.min(source.len());
            parts[part][at..at + count].copy_from_slice(&source[..count]);
            source = &source[count..];
            at += count;
            if at == parts[part].len() {
                (part, at) = (part + 1, 0);
            }
        }
    }
}

impl Watch {
    /// The next packet, if one is there.
    pub fn next_packet(&mut self) -> Option<Captured> {
        let header: [u8; HEADER] = self.take(HEADER)?.try_into().ok()?;
        let word = |at: usize| {
            u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let bytes = self.take(word(12) as usize)?;
        let time = u64::from(word(0)) | u64::from(word(4)) << 32;
        Some(Captured {
            time: Time(time),
            sent: header[16] != 0,
            len: word(8),
            bytes,
        })
    }

    fn take(&mut self, count: usize) -> Option<Vec<u8>> {
        let chunk = self.ring.read_chunk(count).ok()?;
        let (first, second) = chunk.as_slices();
        let bytes = [first, second].concat();
        chunk.commit_all();
        Some(bytes)
    }

    /// Packets that were not copied because the ring was full.
    pub fn missed(&self) -> u64 {
        self.missed.load(Relaxed)
    }

    /// Whether the worker has gone and everything was read.
    pub fn is_over(&self) -> bool {
        self.ring.is_abandoned() && self.ring.is_empty()
    }
}
