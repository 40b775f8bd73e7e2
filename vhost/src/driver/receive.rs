//! The driver's receive queue.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use super::layout::RingLayout;
use super::ring::DriverRing;
use crate::event::Event;
use crate::memory::Mapping;
use crate::net::{NetHeader, feature};
use crate::virtqueue::DESC_WRITE;

/// Receives frames from the device. All its buffers are posted from the start.
#[derive(Debug)]
pub struct ReceiveQueue {
    pub(super) ring: DriverRing,
    header: usize,
    mergeable: bool,
    /// The frame that is being handed out.
    frame: Vec<u8>,
    /// Buffers of the frame, to be posted again.
    buffers: Vec<u16>,
    /// Used entries that named no descriptor, or lengths that no frame has.
    pub bad_used: u64,
}

/// What was found in the used chains.
enum Gathered {
    /// No frame, or one of whose buffers some are still to come.
    Nothing,
    /// Chains that hold no frame.
    Bad,
    /// A frame.
    Frame(NetHeader),
}

impl ReceiveQueue {
    pub(crate) fn new(memory: Arc<Mapping>, layout: RingLayout, features: u64) -> io::Result<Self> {
        let ring = DriverRing::new(memory, layout, features, DESC_WRITE)?;
        let mut queue = Self {
            ring,
            header: NetHeader::len_for(features),
            mergeable: features & feature::MRG_RXBUF != 0,
            frame: Vec::new(),
            buffers: Vec::new(),
            bad_used: 0,
        };
        queue.buffers.extend(0..layout.size);
        queue.post();
        Ok(queue)
    }

    /// Posts the buffers of the frame at hand again, not yet for the device to see.
    fn post(&mut self) {
        let layout = self.ring.layout();
        for buffer in self.buffers.drain(..) {
            let piece = (layout.buffer(buffer), layout.buffer_size as u32);
            self.ring.offer(&[buffer], &[piece], false);
        }
    }

    /// Shows the device the buffers that were posted, and kicks it if it asked for that.
    pub fn flush(&mut self) {
        self.ring.flush();
    }

    /// Hands up to `max` frames to `take` and posts their buffers again; tells how many.
    pub fn receive(&mut self, max: usize, mut take: impl FnMut(NetHeader, &[u8])) -> usize {
        let mut count = 0;
        while count < max {
            match self.gather() {
                Gathered::Nothing => break,
                Gathered::Bad => {}
                Gathered::Frame(header) => {
                    take(header, &self.frame[self.header..]);
                    count += 1;
                }
            }
            self.post();
        }
        self.ring.flush();
        count
    }

    /// Gathers one frame from the used chains.
    fn gather(&mut self) -> Gathered {
        self.frame.clear();
        let Some((first, len)) = self.ring.peek(0) else {
            return Gathered::Nothing;
        };
        let good = self.append(first, len) && self.frame.len() >= self.header;
        let mut header = NetHeader::default();
        if good {
            let mut bytes = [0; NetHeader::LEN];
            bytes[..self.header].copy_from_slice(&self.frame[..self.header]);
            header = NetHeader::from_bytes(bytes);
        }
        let chains = if good && self.mergeable {
            header.num_buffers.max(1)
        } else {
            1
        };
        if chains > self.ring.layout().size {
            self.bad_used += 1;
            self.ring.take();
            return Gathered::Bad;
        }
        if self.ring.peek(usize::from(chains) - 1).is_none() {
            self.buffers.clear();
            return Gathered::Nothing;
        }
        let mut whole = good;
        self.ring.take();
        for _ in 1..chains {
            if let Some((id, len)) = self.ring.take() {
                whole &= self.append(id, len);
            }
        }
        self.bad_used += u64::from(!whole);
        if whole {
            Gathered::Frame(header)
        } else {
            Gathered::Bad
        }
    }

    /// Appends what one used entry holds to the frame.
    fn append(&mut self, id: u32, len: u32) -> bool {
        let layout = self.ring.layout();
        let Some(id) = u16::try_from(id).ok().filter(|id| *id < layout.size) else {
            return false;
        };
        self.buffers.push(id);
        if len as usize > layout.buffer_size {
            return false;
        }
        let start = self.frame.len();
        self.frame.resize(start + len as usize, 0);
        self.ring
            .common
            .memory
            .read(layout.buffer(id), &mut self.frame[start..]);
        true
    }

    /// Whether the device has given something back that was not received yet.
    pub fn has_work(&mut self) -> bool {
        self.ring.peek(0).is_some()
    }

    /// Asks for a call when frames come; true if some came meanwhile.
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

    /// Where the ring's parts are in the front end's memory.
    pub fn layout(&self) -> RingLayout {
        self.ring.layout()
    }
}
