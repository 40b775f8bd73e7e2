//! The driver's transmit queue.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use super::layout::RingLayout;
use super::ring::{DriverRing, Piece};
use crate::event::Event;
use crate::memory::Mapping;
use crate::net::{NetHeader, feature};

/// Sends frames to the device.
#[derive(Debug)]
pub struct TransmitQueue {
    pub(super) ring: DriverRing,
    /// Descriptors, with the buffers of the same numbers, that are ours.
    free: Vec<u16>,
    /// For each head, the buffers of its chain.
    held: Vec<Vec<u16>>,
    /// The pieces of the chain that is being made.
    pieces: Vec<Piece>,
    /// Whether the header gets a descriptor of its own, as some drivers do it.
    pub split_header: bool,
    /// Used entries that named no chain of ours.
    pub bad_used: u64,
}

impl TransmitQueue {
    pub(crate) fn new(memory: Arc<Mapping>, layout: RingLayout, features: u64) -> io::Result<Self> {
        Ok(Self {
            ring: DriverRing::new(memory, layout, features, 0)?,
            free: (0..layout.size).rev().collect(),
            pieces: Vec::new(),
            held: vec![Vec::new(); usize::from(layout.size)],
            split_header: false,
            bad_used: 0,
        })
    }

    /// Queues a frame; false when there is no room now. The device sees it after
    /// [`flush`](Self::flush).
    pub fn send(&mut self, header: NetHeader, frame: &[u8]) -> bool {
        let (layout, features) = (self.ring.layout(), self.ring.common.features);
        let size = layout.buffer_size;
        let header = &header.to_bytes()[..NetHeader::len_for(features)];
        let lead = usize::from(self.split_header);
        let bytes = frame.len() + if self.split_header { 0 } else { header.len() };
        let needed = lead + bytes.div_ceil(size).max(1);
        if self.free.len() < needed {
            self.reclaim();
        }
        if self.free.len() < needed {
            return false;
        }
        let buffers = self.free.split_off(self.free.len() - needed);
        self.pieces.clear();
        let mut rest = frame;
        for (i, &buffer) in buffers.iter().enumerate() {
            let at = layout.buffer(buffer);
            let mut len = 0;
            if i == 0 {
                self.ring.common.memory.write(at, header);
                len = header.len();
            }
            if i >= lead {
                let (part, after) = rest.split_at(rest.len().min(size - len));
                self.ring.common.memory.write(at + len, part);
                len += part.len();
                rest = after;
            }
            self.pieces.push((at, len as u32));
        }
        let indirect =
            features & feature::INDIRECT_DESC != 0 && needed > 1 && needed <= layout.table_entries;
        self.ring.offer(&buffers, &self.pieces, indirect);
        let head = usize::from(buffers[0]);
        self.held[head] = buffers;
        true
    }

    /// Shows the device what was sent, and kicks it if it asked for that.
    pub fn flush(&mut self) {
        self.ring.flush();
    }

    /// Takes back what the device has used; tells how many frames that were.
    pub fn reclaim(&mut self) -> usize {
        let mut count = 0;
        while let Some((head, _)) = self.ring.take() {
            match self.held.get_mut(head as usize) {
                Some(buffers) if !buffers.is_empty() => self.free.append(buffers),
                _ => self.bad_used += 1,
            }
            count += 1;
        }
        count
    }

    /// Descriptors that are free, after a reclaim.
    pub fn room(&self) -> usize {
        self.free.len()
    }

    /// Whether the device has used everything that was sent.
    pub fn is_idle(&mut self) -> bool {
        self.reclaim();
        self.free.len() == usize::from(self.ring.layout().size)
    }

    /// Asks for a call when the device has used something; true if it has already.
    pub fn arm(&mut self) -> bool {
        self.ring.arm()
    }

    /// Asks for no calls.
    pub fn disarm(&mut self) {
        self.ring.disarm();
    }

    /// Becomes readable when the device calls.
    pub fn call_fd(&self) -> BorrowedFd<'_> {
        self.ring.call_fd()
    }

    /// The event by which the device calls.
    pub fn call(&self) -> &Event {
        self.ring.call()
    }

    /// The event by which the device is kicked.
    pub fn kick(&self) -> &Event {
        self.ring.kick()
    }

    /// Kicks sent so far.
    pub fn kicks(&self) -> u64 {
        self.ring.kicks
    }

    /// Where the ring's parts are in the front end's memory.
    pub fn layout(&self) -> RingLayout {
        self.ring.layout()
    }
}
