//! What connections send by: both endpoints.

use chainplane_dataplane::packet::Mac;

use super::segment;
use super::tcb::Segment;
use crate::bench::endpoint::Endpoint;
use crate::bench::traffic::Packets;
use crate::bench::traffic::head::{HEAD, header_len};
use crate::bench::traffic::tuple::Tuple;

/// Longest IP packet, as Ethernet has it.
const MTU: usize = 1500;

/// Both endpoints, and what frames need besides segments.
pub struct Wire<'a> {
    ends: &'a mut [Endpoint; 2],
    packets: &'a Packets,
    next_hops: [Option<Mac>; 2],
    head: [u8; HEAD],
    /// Frames were queued since the last flush.
    queued: [bool; 2],
    /// The last frame found no room.
    full: [bool; 2],
    /// Frames sent.
    pub sent: u64,
}

impl<'a> Wire<'a> {
    pub fn new(
        ends: &'a mut [Endpoint; 2],
        packets: &'a Packets,
        next_hops: [Option<Mac>; 2],
    ) -> Self {
        Self {
            ends,
            packets,
            next_hops,
            head: [0; HEAD],
            queued: [false; 2],
            full: [false; 2],
            sent: 0,
        }
    }

    /// Destination and source of an endpoint's frames; `learnt` is where the other side's come from.
    pub fn macs(&self, end: usize, learnt: Option<Mac>) -> [Mac; 2] {
        let to = self.next_hops[end].or(learnt).unwrap_or_default();
        [to, self.packets.traffic.sides[end].mac]
    }

    /// Bytes of a segment at most.
    pub fn most(&self, v6: bool) -> u32 {
        let longest = self.ends.iter().map(Endpoint::longest_frame).min();
        let frame = longest.unwrap_or(0).min(MTU + 14);
        frame.saturating_sub(header_len(v6, true)).max(1) as u32
    }

    /// Whether an endpoint had room when it was last asked.
    pub fn has_room(&self, end: usize) -> bool {
        !self.full[end]
    }

    /// Queues a segment; false if there is no room.
    #[inline]
    pub fn send(
        &mut self,
        end: usize,
        macs: [Mac; 2],
        tuple: &Tuple,
        segment: &Segment,
        selector: u32,
    ) -> bool {
        segment::write(macs, tuple, segment, &mut self.head, &self.packets.fill);
        let len = segment::frame_len(tuple, segment);
        let port = &mut self.ends[end];
        let queue = selector as usize % port.queues();
        let sent = port.send(queue, &self.head, len);
        self.full[end] = !sent;
        self.queued[end] |= sent;
        self.sent += u64::from(sent);
        sent
    }

    /// Shows the other sides what was queued.
    pub fn flush(&mut self) {
        for end in 0..2 {
            if std::mem::take(&mut self.queued[end]) {
                self.ends[end].flush();
            }
            self.full[end] = false;
        }
    }

    /// Sends any frame.
    pub fn send_whole(&mut self, end: usize, frame: &[u8]) {
        self.queued[end] |= self.ends[end].send_whole(frame);
    }

    /// Takes what has come to an endpoint into `inbox`, in which each frame has a buffer that is used again; tells how
    /// many.
    pub fn receive(&mut self, end: usize, inbox: &mut Inbox) -> usize {
        inbox.count = 0;
        self.ends[end].receive(64, |_| {}, |frame| inbox.push(frame))
    }

    /// Whether both other sides are still there.
    ///
    /// # Errors
    /// If not.
    pub fn check(&mut self) -> Result<(), crate::bench::trial::BenchError> {
        self.ends.iter_mut().try_for_each(Endpoint::check)
    }
}

/// Frames that came.
#[derive(Default)]
pub struct Inbox {
    frames: Vec<Vec<u8>>,
    count: usize,
}

impl Inbox {
    fn push(&mut self, frame: &[u8]) {
        if self.count == self.frames.len() {
            self.frames.push(Vec::with_capacity(2048));
        }
        let buffer = &mut self.frames[self.count];
        buffer.clear();
        buffer.extend_from_slice(frame);
        self.count += 1;
    }

    /// The frames.
    pub fn frames(&self) -> &[Vec<u8>] {
        &self.frames[..self.count]
    }
}
