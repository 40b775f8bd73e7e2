//! Frames that a guest sends: virtio-net's transmit queues.

use std::sync::Arc;

use super::active::{Active, RingReport, Started};
use super::{BURST, Chain, MAX_FRAME, RingCounters, Segment};
use crate::copy;
use crate::event::Event;
use crate::net::{FLAG_NEEDS_CSUM, NetHeader};

/// The device side of a queue whose frames come from the guest.
///
/// [`fetch`](Self::fetch) parses a burst; its frames can be read until
/// [`complete`](Self::complete) gives their buffers back.
#[derive(Debug)]
pub struct FromGuest {
    active: Active,
    /// Bytes of the virtio-net header.
    header: u32,
    /// What the last burst costs.
    cost: u64,
    /// Bytes of the burst's frames.
    bytes: u64,
    /// Counts bursts.
    number: u16,
}

impl FromGuest {
    pub(crate) fn new(report: Arc<RingReport>, alarm: Option<Arc<Event>>) -> Self {
        Self {
            active: Active::new(report, alarm),
            header: NetHeader::LEN as u32,
            cost: 0,
            bytes: 0,
            number: 0,
        }
    }

    pub(crate) fn install(&mut self, next: Option<Started>) -> Option<Started> {
        self.complete();
        if let Some(next) = &next {
            self.header = NetHeader::len_for(next.features) as u32;
        }
        self.active.install(next)
    }

    pub(crate) fn started(&self) -> Option<&Started> {
        self.active.started()
    }

    /// Whether the front end has started and enabled the queue and it is not broken.
    #[inline]
    pub fn is_running(&self) -> bool {
        self.active.is_running()
    }

    /// Whether the guest has made chains available that were not fetched yet: one look at its index. A
    /// queue that does not run has none.
    #[inline]
    pub fn look(&mut self) -> bool {
        self.active.look()
    }

    /// Parses up to `max` frames, [`BURST`] at most; tells how many there are. Large frames, and
    /// frames in many pieces, make a burst shorter: see [`cost`](Self::cost).
    ///
    /// A burst that is still open is completed first. Chains that hold no frame are counted and
    /// given back with the others.
    #[inline]
    pub fn fetch(&mut self, max: usize) -> usize {
        self.complete();
        self.number = self.number.wrapping_add(1);
        self.cost = 0;
        let count = max.min(BURST);
        if count == 0 || !self.active.look() || !self.active.parse(count) {
            return 0;
        }
        self.cost = self.active.burst.cost();
        let limits = self.header + 1..=self.header + MAX_FRAME as u32;
        let enabled = self.active.started().is_some_and(|s| s.enabled);
        let chains = &self.active.burst.chains;
        let fit = |fit, chain: &Chain| fit & limits.contains(&chain.total);
        if !chains.iter().fold(enabled, fit) {
            self.reject(enabled);
        }
        self.bytes = 0;
        for chain in &mut self.active.burst.chains {
            chain.total -= self.header;
            self.bytes += u64::from(chain.total);
        }
        if self.active.burst.chains.is_empty() {
            self.complete();
        }
        self.active.burst.chains.len()
    }

    /// Sorts out the chains that hold no frame, or all while the queue is disabled. They are given
    /// back with the others, in their order.
    #[cold]
    fn reject(&mut self, enabled: bool) {
        let Self { active, header, .. } = self;
        let (burst, counters) = (&mut active.burst, &mut active.counters);
        burst.whole.clone_from(&burst.chains);
        burst.chains.retain(|chain| {
            if !enabled {
                counters.disabled += 1;
            } else if chain.total <= *header {
                counters.short += 1;
            } else if chain.total - *header > MAX_FRAME as u32 {
                counters.oversize += 1;
            } else {
                return true;
            }
            false
        });
    }

    /// What the last [`fetch`](Self::fetch) costs, in bytes to copy: those of its chains, and
    /// [`DESCRIPTOR_COST`](super::DESCRIPTOR_COST) for each descriptor that was followed. Either
    /// is at most [`BURST_COST`](super::BURST_COST) and that of one chain more.
    pub fn cost(&self) -> u64 {
        self.cost
    }

    /// The number of the burst, for whoever notes a frame's and comes back to it: if it is another by then, the frame
    /// was given back. Numbers come round after 65,536 bursts.
    #[inline]
    pub fn burst(&self) -> u16 {
        self.number
    }

    /// Number of frames in the burst.
    #[inline]
    pub fn count(&self) -> usize {
        self.active.burst.chains.len()
    }

    /// Bytes of a frame of the burst, its virtio-net header not counted.
    ///
    /// # Panics
    /// If the burst has no such frame; so do the other methods that take its number.
    #[inline]
    pub fn frame_len(&self, frame: usize) -> usize {
        self.active.burst.chains[frame].total as usize
    }

    /// Bytes of all frames of the burst together.
    #[inline]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of the frames of the burst, one after the other.
    #[inline]
    pub fn frame_lens(&self) -> impl ExactSizeIterator<Item = u32> {
        self.active.burst.chains.iter().map(|chain| chain.total)
    }

    /// Whether no frame of the burst has a checksum to be completed or is to be cut, as far as the
    /// headers told when this looked. It tells no lie, but a frame in pieces it does not vouch for.
    pub fn is_complete(&self) -> bool {
        let asks = u32::from(FLAG_NEEDS_CSUM) | 0xff00;
        let mut asked = 0;
        for chain in &self.active.burst.chains {
            if chain.piece.len < NetHeader::LEN as u32 {
                return false;
            }
            // SAFETY: the piece has more bytes than these four, and its memory is mapped.
            asked |= u32::from_le(unsafe { copy::load4(chain.piece.ptr) });
        }
        asked & asks == 0
    }

    /// The chains of the burst's frames, of which `total` is a frame's length.
    #[inline]
    pub(super) fn chains(&self) -> &[Chain] {
        &self.active.burst.chains
    }

    /// Bytes of the header before each frame.
    #[inline]
    pub(super) fn header_len(&self) -> u32 {
        self.header
    }

    /// The virtio-net header and the whole frame, if they lie in one piece; and how long the header is.
    #[inline]
    pub(super) fn single_piece(&self, frame: usize) -> Option<(Segment, u32)> {
        let chain = &self.active.burst.chains[frame];
        (chain.piece.len == chain.total + self.header).then_some((chain.piece, self.header))
    }

    /// `len` bytes of a frame from `offset` on, if the frame has so many and they lie in its first piece.
    #[inline]
    pub(super) fn one_piece(&self, frame: usize, offset: usize, len: usize) -> Option<Segment> {
        let chain = &self.active.burst.chains[frame];
        let start = self.header as usize + offset;
        let end = start.checked_add(len)?;
        if end > chain.piece.len as usize {
            return None;
        }
        // SAFETY: `start` is within the piece, as its end was just found to be.
        let ptr = unsafe { chain.piece.ptr.add(start) };
        let len = len as u32;
        Some(Segment { ptr, len })
    }

    /// The frames of the burst, one after the other.
    #[inline]
    pub fn frames(&self) -> impl ExactSizeIterator<Item = Frame<'_>> {
        let chains = self.active.burst.chains.iter();
        chains.map(|chain| Frame { chain, ring: self })
    }

    /// The virtio-net header of a frame, copied out.
    #[inline]
    pub fn header(&self, frame: usize) -> NetHeader {
        self.header_of(&self.active.burst.chains[frame])
    }

    #[inline]
    fn header_of(&self, chain: &Chain) -> NetHeader {
        let mut bytes = [0; NetHeader::LEN];
        if chain.piece.len as usize >= NetHeader::LEN {
            // SAFETY: the piece has at least as many bytes, and its memory is mapped.
            unsafe { copy::copy(chain.piece.ptr, bytes.as_mut_ptr(), NetHeader::LEN) };
        } else {
            let into = &mut bytes[..self.header as usize];
            read(self.segments(chain), 0, into);
        }
        if (self.header as usize) < NetHeader::LEN {
            bytes[self.header as usize..].fill(0);
        }
        NetHeader::from_bytes(bytes)
    }

    /// Copies bytes of a frame out, from `offset` on; tells how many there were.
    #[inline]
    pub fn read(&self, frame: usize, offset: usize, into: &mut [u8]) -> usize {
        self.read_chain(&self.active.burst.chains[frame], offset, into)
    }

    #[inline(always)]
    fn read_chain(&self, chain: &Chain, offset: usize, into: &mut [u8]) -> usize {
        let len = (chain.total as usize)
            .saturating_sub(offset)
            .min(into.len());
        let start = self.header as usize + offset;
        if start + len <= chain.piece.len as usize {
            // SAFETY: just checked against the piece's length; its memory is mapped, and `into`
            // is at least `len` long.
            unsafe { copy::copy(chain.piece.ptr.add(start), into.as_mut_ptr(), len) };
        } else {
            read(self.segments(chain), start, &mut into[..len]);
        }
        len
    }

    /// The pieces that hold a frame from `offset` on, for a copy into another guest's buffers.
    pub(super) fn pieces(&self, frame: usize, offset: usize) -> impl Iterator<Item = Segment> {
        let chain = &self.active.burst.chains[frame];
        let mut skip = self.header as usize + offset;
        self.segments(chain).iter().filter_map(move |segment| {
            let step = skip.min(segment.len as usize);
            skip -= step;
            // SAFETY: `step` is at most the piece's length.
            let ptr = unsafe { segment.ptr.add(step) };
            let len = segment.len - step as u32;
            (len > 0).then_some(Segment { ptr, len })
        })
    }

    #[inline]
    fn segments(&self, chain: &Chain) -> &[Segment] {
        &self.active.burst.segments[usize::from(chain.first)..][..usize::from(chain.count)]
    }

    /// Gives the burst's buffers back to the guest and notifies it if it asked for that.
    #[inline]
    pub fn complete(&mut self) {
        let Active {
            burst, counters, ..
        } = &mut self.active;
        let count = burst.taken().len();
        if count == 0 {
            return;
        }
        counters.frames += burst.chains.len() as u64;
        counters.bytes += std::mem::take(&mut self.bytes);
        self.active.publish(count);
    }

    /// Asks the guest to kick when it sends; true if frames came meanwhile, so that one must not
    /// sleep yet. A queue that does not run never keeps anybody awake.
    pub fn arm(&mut self) -> bool {
        self.active.arm()
    }

    /// Tells the guest that it need not kick.
    pub fn disarm(&mut self) {
        self.active.disarm();
    }

    /// What the queue counted.
    pub fn counters(&self) -> RingCounters {
        self.active.counters
    }
}

/// A frame of the burst.
pub struct Frame<'a> {
    chain: &'a Chain,
    ring: &'a FromGuest,
}

impl Frame<'_> {
    /// Bytes, the virtio-net header not counted.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "no frame is empty")]
    pub fn len(&self) -> usize {
        self.chain.total as usize
    }

    /// Copies its first bytes out; tells how many there were.
    #[inline]
    pub fn read(&self, into: &mut [u8]) -> usize {
        self.ring.read_chain(self.chain, 0, into)
    }

    /// The virtio-net header, copied out, if it asks for anything when this looks: a checksum to be completed, or a
    /// segment to be cut. A header that is not in one piece always counts as one that does.
    #[inline]
    pub fn request(&self) -> Option<NetHeader> {
        let asks = u32::from(FLAG_NEEDS_CSUM) | 0xff00;
        if self.chain.piece.len >= NetHeader::LEN as u32 {
            // SAFETY: the piece has more bytes than these four, and its memory is mapped.
            let start = u32::from_le(unsafe { copy::load4(self.chain.piece.ptr) });
            if start & asks == 0 {
                return None;
            }
        }
        // It is looked at anew, as a whole.
        Some(self.ring.header_of(self.chain))
    }
}

/// Copies from pieces, skipping `start` bytes of them.
#[cold]
#[inline(never)]
fn read(segments: &[Segment], mut start: usize, mut into: &mut [u8]) {
    for segment in segments {
        let len = segment.len as usize;
        if start >= len {
            start -= len;
            continue;
        }
        let step = (len - start).min(into.len());
        // SAFETY: `start + step` is within the piece, whose memory is mapped, and `step` within
        // the target.
        unsafe { copy::copy(segment.ptr.add(start), into.as_mut_ptr(), step) };
        into = &mut into[step..];
        start = 0;
        if into.is_empty() {
            return;
        }
    }
}
