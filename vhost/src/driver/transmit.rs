//! The driver's transmit queue.

use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use super::layout::RingLayout;
use super::ring::{DriverRing, Piece};
use crate::event::Event;
use crate::memory::Mapping;
use crate::net::{NetHeader, feature};

/// Frames by which buffers are brought near before they are written.
const AHEAD: usize = 12;
/// No buffer follows in the chain.
const END: u16 = u16::MAX;

/// Sends frames to the device.
#[derive(Debug)]
pub struct TransmitQueue {
    pub(super) ring: DriverRing,
    header: usize,
    /// Descriptors, with the buffers of the same numbers, that are ours: the one that is longest so
    /// comes first.
    free: VecDeque<u16>,
    /// For each head of a chain under way, its buffers; 0 for others.
    held: Vec<u16>,
    /// For each buffer of a chain, the next one.
    next: Vec<u16>,
    /// The buffers and pieces of the chain that is being made.
    buffers: Vec<u16>,
    pieces: Vec<Piece>,
    /// A buffer's bytes, beginning with a header, where frames differ in their first bytes only.
    stencil: Vec<u8>,
    /// For each buffer, whether it holds the stencil, but for the first bytes of a frame.
    stenciled: Vec<bool>,
    /// Whether the header gets a descriptor of its own, as some drivers do it.
    pub split_header: bool,
    /// Used entries that named no chain of ours.
    pub bad_used: u64,
}

impl TransmitQueue {
    pub(crate) fn new(memory: Arc<Mapping>, layout: RingLayout, features: u64) -> io::Result<Self> {
        let size = usize::from(layout.size);
        Ok(Self {
            ring: DriverRing::new(memory, layout, features, 0)?,
            header: NetHeader::len_for(features),
            free: (0..layout.size).collect(),
            held: vec![0; size],
            next: vec![END; size],
            buffers: Vec::new(),
            pieces: Vec::new(),
            stencil: Vec::new(),
            stenciled: vec![false; size],
            split_header: false,
            bad_used: 0,
        })
    }

    /// Whether as many descriptors are free; looks for used ones if not.
    #[inline]
    fn has(&mut self, needed: usize) -> bool {
        self.free.len() >= needed || {
            self.reclaim();
            self.free.len() >= needed
        }
    }

    /// Queues a frame; false when there is no room now. The device sees it after
    /// [`flush`](Self::flush).
    pub fn send(&mut self, header: NetHeader, frame: &[u8]) -> bool {
        let (layout, features) = (self.ring.layout(), self.ring.common.features);
        let size = layout.buffer_size;
        let header = &header.to_bytes()[..self.header];
        let lead = usize::from(self.split_header);
        let bytes = frame.len() + if self.split_header { 0 } else { header.len() };
        let needed = lead + bytes.div_ceil(size).max(1);
        if !self.has(needed) {
            return false;
        }
        self.buffers.clear();
        self.buffers.extend(self.free.drain(..needed));
        self.pieces.clear();
        let mut rest = frame;
        for (i, &buffer) in self.buffers.iter().enumerate() {
            let at = layout.buffer(buffer);
            let mut len = 0;
            self.stenciled[usize::from(buffer)] = false;
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
            self.next[usize::from(buffer)] = self.buffers.get(i + 1).copied().unwrap_or(END);
        }
        let indirect =
            features & feature::INDIRECT_DESC != 0 && needed > 1 && needed <= layout.table_entries;
        self.ring.offer(&self.buffers, &self.pieces, indirect);
        self.held[usize::from(self.buffers[0])] = needed as u16;
        true
    }

    /// Says how all frames of [`send_head`](Self::send_head) go on behind their heads: as these bytes
    /// do, which are as many as the longest frame has. Headers of such frames are empty.
    pub fn set_stencil(&mut self, bytes: &[u8]) {
        self.stencil.clear();
        self.stencil.resize(self.header, 0);
        self.stencil.extend_from_slice(bytes);
        self.stenciled.fill(false);
    }

    /// Whether a frame of that length has room now.
    #[inline]
    pub fn has_room(&mut self, len: usize) -> bool {
        self.has((self.header + len).div_ceil(self.ring.layout().buffer_size))
    }

    /// Brings near what the first frames of [`send_head`](Self::send_head) are written to; later ones
    /// follow by themselves.
    #[inline]
    pub fn prepare(&mut self, frames: usize) {
        self.has(frames);
        for ahead in 0..frames.min(AHEAD) {
            self.prefetch_buffer(ahead, 0);
        }
    }

    /// Brings near the free buffer `ahead` of the next one, for a frame of that length.
    #[inline]
    fn prefetch_buffer(&self, ahead: usize, len: usize) {
        let Some(buffer) = self.free.get(ahead) else {
            return;
        };
        let at = self.ring.layout().buffer(*buffer) + self.header;
        let memory = &self.ring.common.memory;
        memory.prefetch_write(at);
        if len > 64 {
            memory.prefetch_write(at + 64);
        }
    }

    /// Queues a frame of `len` bytes that begins with `head` and goes on as the stencil does, in a
    /// buffer that holds the rest already; false when there is no room now.
    ///
    /// # Panics
    /// If the stencil is shorter than the frame.
    #[inline]
    pub fn send_head(&mut self, head: &[u8], len: usize) -> bool {
        let layout = self.ring.layout();
        if self.header + len > layout.buffer_size {
            return self.send_long(head, len);
        }
        if !self.has(1) {
            return false;
        }
        let Some(buffer) = self.free.pop_front() else {
            return false;
        };
        self.prefetch_buffer(AHEAD, len);
        let (at, index) = (layout.buffer(buffer), usize::from(buffer));
        let memory = &self.ring.common.memory;
        if !self.stenciled[index] {
            let whole = self.stencil.len().min(layout.buffer_size);
            memory.write(at, &self.stencil[..whole]);
            self.stenciled[index] = true;
        }
        memory.write(at + self.header, &head[..head.len().min(len)]);
        let piece = (at, (self.header + len) as u32);
        self.ring.offer(&[buffer], &[piece], false);
        (self.held[index], self.next[index]) = (1, END);
        true
    }

    /// A frame of several buffers is written whole.
    #[cold]
    fn send_long(&mut self, head: &[u8], len: usize) -> bool {
        let mut frame = self.stencil[self.header..self.header + len].to_vec();
        let head = &head[..head.len().min(len)];
        frame[..head.len()].copy_from_slice(head);
        self.send(NetHeader::default(), &frame)
    }

    /// Shows the device what was sent, and kicks it if it asked for that.
    pub fn flush(&mut self) {
        self.ring.flush();
    }

    /// Takes back what the device has used; tells how many frames that were.
    pub fn reclaim(&mut self) -> usize {
        let mut count = 0;
        while let Some((head, _)) = self.ring.take() {
            count += 1;
            let held = self.held.get_mut(head as usize).map(std::mem::take);
            let Some(held) = held.filter(|held| *held > 0) else {
                self.bad_used += 1;
                continue;
            };
            let mut buffer = head as u16;
            for _ in 0..held {
                self.free.push_back(buffer);
                buffer = self.next[usize::from(buffer)];
            }
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

    /// Brings near what the device will have written.
    #[inline]
    pub fn prefetch(&self) {
        self.ring.prefetch();
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
