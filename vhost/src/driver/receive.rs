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

/// Frames that are copied out before the first of them is looked at.
const GROUP: usize = 8;

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
    /// Frames of one buffer each, and their lengths with the headers.
    slots: Vec<u8>,
    lens: [usize; GROUP],
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

/// A header, which is shorter in devices of old.
#[inline]
fn header_of(bytes: &[u8]) -> NetHeader {
    let mut whole = [0; NetHeader::LEN];
    whole[..bytes.len()].copy_from_slice(bytes);
    NetHeader::from_bytes(whole)
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
            slots: vec![0; GROUP * layout.buffer_size],
            lens: [0; GROUP],
            bad_used: 0,
        };
        for buffer in 0..layout.size {
            let piece = (layout.buffer(buffer), layout.buffer_size as u32);
            queue.ring.offer(&[buffer], &[piece], false);
        }
        Ok(queue)
    }

    /// Posts the buffers of the frame at hand again, not yet for the device to see.
    fn post(&mut self) {
        let layout = self.ring.layout();
        for buffer in self.buffers.drain(..) {
            let piece = (layout.buffer(buffer), layout.buffer_size as u32);
            self.ring.offer_again(buffer, &[piece], false);
        }
    }

    /// Shows the device the buffers that were posted, and kicks it if it asked for that.
    pub fn flush(&mut self) {
        self.ring.flush();
    }

    /// Hands up to `max` frames to `take` and posts their buffers again; tells how many.
    pub fn receive(&mut self, max: usize, take: impl FnMut(NetHeader, &[u8])) -> usize {
        self.receive_ahead(max, |_| {}, take)
    }

    /// As [`receive`](Self::receive); most frames are shown to `ahead` a few frames before, which can
    /// bring near what `take` will need.
    #[inline]
    pub fn receive_ahead(
        &mut self,
        max: usize,
        mut ahead: impl FnMut(&[u8]),
        mut take: impl FnMut(NetHeader, &[u8]),
    ) -> usize {
        let mut count = 0;
        while count < max {
            let copied = self.copy(max - count);
            if copied > 0 {
                let slots = self.slots.chunks_exact(self.ring.layout().buffer_size);
                let frames = slots.zip(&self.lens[..copied]);
                let frames = frames.map(|(slot, len)| slot[..*len].split_at(self.header));
                frames.clone().for_each(|(_, frame)| ahead(frame));
                frames.for_each(|(header, frame)| take(header_of(header), frame));
                count += copied;
                continue;
            }
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

    /// Copies up to `max` frames of one buffer each to the slots and posts their buffers again; tells
    /// how many.
    #[inline]
    fn copy(&mut self, max: usize) -> usize {
        let layout = self.ring.layout();
        let ready = self.ring.ready(2 * GROUP);
        for ahead in 0..ready {
            if let Some((id, _)) = self
                .ring
                .peek(ahead)
                .filter(|used| used.0 < layout.size.into())
            {
                let at = layout.buffer(id as u16);
                self.ring.common.memory.prefetch_read(at);
                self.ring
                    .common
                    .memory
                    .prefetch_read(at + layout.buffer_size.min(128) - 64);
            }
        }
        let mut count = 0;
        let slots = self.slots.chunks_exact_mut(layout.buffer_size);
        for (slot, held) in slots.zip(&mut self.lens).take(ready.min(max)) {
            let Some((id, len)) = self.ring.peek(0) else {
                break;
            };
            let (id, len) = (id.min(u32::from(u16::MAX)) as u16, len as usize);
            if id >= layout.size || !(self.header..=layout.buffer_size).contains(&len) {
                break;
            }
            let at = layout.buffer(id);
            self.ring.common.memory.read(at, &mut slot[..len]);
            if self.mergeable && header_of(&slot[..self.header]).num_buffers > 1 {
                break;
            }
            self.ring.take();
            let piece = (at, layout.buffer_size as u32);
            self.ring.offer_again(id, &[piece], false);
            *held = len;
            count += 1;
        }
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
            header = header_of(&self.frame[..self.header]);
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

    /// Brings near what the device will have written.
    #[inline]
    pub fn prefetch(&self) {
        self.ring.prefetch();
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
