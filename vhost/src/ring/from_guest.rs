//! Frames that a guest sends: virtio-net's transmit queues.

use std::sync::Arc;

use super::active::{Active, RingReport, Started};
use super::{BURST, Chain, Direction, MAX_FRAME, Ring, RingCounters, Segment};
use crate::copy;
use crate::event::Event;
use crate::net::NetHeader;

/// The device side of a queue whose frames come from the guest.
///
/// [`fetch`](Self::fetch) parses a burst; its frames can be read until
/// [`complete`](Self::complete) gives their buffers back.
#[derive(Debug)]
pub struct FromGuest {
    active: Active,
    /// Bytes of the virtio-net header.
    header: u32,
    /// Chains of the burst that hold no frame but must be given back.
    rejected: Vec<u16>,
}

impl FromGuest {
    pub(crate) fn new(report: Arc<RingReport>, alarm: Option<Arc<Event>>) -> Self {
        Self {
            active: Active::new(Direction::Readable, report, alarm),
            header: NetHeader::LEN as u32,
            rejected: Vec::with_capacity(BURST),
        }
    }

    pub(crate) fn install(&mut self, next: Option<Started>) -> Option<Started> {
        self.complete();
        if let Some(next) = &next {
            self.header = NetHeader::len_for(next.features) as u32;
        }
        self.rejected.clear();
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

    /// Parses up to `max` frames, [`BURST`] at most; tells how many there are.
    ///
    /// A burst that is still open is completed first. Chains that hold no frame are counted and
    /// given back with the others.
    #[inline]
    pub fn fetch(&mut self, max: usize) -> usize {
        self.complete();
        let pending = self.active.pending();
        let count = usize::from(pending).min(max).min(BURST);
        if count == 0 || !self.active.parse(0, count as u16) {
            return 0;
        }
        let limits = self.header + 1..=self.header + MAX_FRAME as u32;
        let enabled = self.active.started().is_some_and(|s| s.enabled);
        if !enabled
            || self
                .active
                .chains
                .iter()
                .any(|c| !limits.contains(&c.total))
        {
            self.reject(enabled);
        }
        for chain in &mut self.active.chains {
            chain.total -= self.header;
        }
        if self.active.chains.is_empty() {
            self.complete();
        }
        self.active.chains.len()
    }

    /// Sorts out the chains that hold no frame, or all while the queue is disabled.
    #[cold]
    fn reject(&mut self, enabled: bool) {
        let Self {
            active: Active {
                chains, counters, ..
            },
            rejected,
            header,
        } = self;
        chains.retain(|chain| {
            if !enabled {
                counters.disabled += 1;
            } else if chain.total <= *header {
                counters.short += 1;
            } else if chain.total - *header > MAX_FRAME as u32 {
                counters.oversize += 1;
            } else {
                return true;
            }
            rejected.push(chain.head);
            false
        });
    }

    /// Number of frames in the burst.
    #[inline]
    pub fn count(&self) -> usize {
        self.active.chains.len()
    }

    /// Bytes of a frame of the burst, its virtio-net header not counted.
    ///
    /// # Panics
    /// If the burst has no such frame; so do the other methods that take its number.
    #[inline]
    pub fn frame_len(&self, frame: usize) -> usize {
        self.active.chains[frame].total as usize
    }

    /// The virtio-net header of a frame, copied out.
    #[inline]
    pub fn header(&self, frame: usize) -> NetHeader {
        let chain = self.active.chains[frame];
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
        let chain = self.active.chains[frame];
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
        let chain = self.active.chains[frame];
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
    fn segments(&self, chain: Chain) -> &[Segment] {
        &self.active.segments[chain.first as usize..][..usize::from(chain.count)]
    }

    /// Gives the burst's buffers back to the guest and notifies it if it asked for that.
    #[inline]
    pub fn complete(&mut self) {
        let Self {
            active, rejected, ..
        } = self;
        if active.chains.is_empty() && rejected.is_empty() {
            return;
        }
        let mut bytes = 0;
        let count = active.chains.len() + rejected.len();
        let frames = active.chains.len() as u64;
        let heads = std::mem::take(&mut active.chains);
        if let Some(Started {
            ring: Ring::Split(ring),
            ..
        }) = active.ready()
        {
            for (i, chain) in heads.iter().enumerate() {
                ring.put_used(i as u16, chain.head, 0);
                bytes += u64::from(chain.total);
            }
            for (i, head) in rejected.iter().enumerate() {
                ring.put_used((heads.len() + i) as u16, *head, 0);
            }
        }
        active.chains = heads;
        active.counters.frames += frames;
        active.counters.bytes += bytes;
        active.publish(count as u16);
        active.forget();
        rejected.clear();
    }

    /// Asks the guest to kick when it sends; true if frames came meanwhile, so that one must not
    /// sleep yet. A queue that does not run never keeps anybody awake.
    pub fn arm(&mut self) -> bool {
        let Some(Started {
            ring: Ring::Split(ring),
            ..
        }) = self.active.ready()
        else {
            return false;
        };
        ring.arm()
    }

    /// Tells the guest that it need not kick.
    pub fn disarm(&mut self) {
        if let Some(Started {
            ring: Ring::Split(ring),
            ..
        }) = self.active.ready()
        {
            ring.disarm();
        }
    }

    /// What the queue counted.
    pub fn counters(&self) -> RingCounters {
        self.active.counters
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
