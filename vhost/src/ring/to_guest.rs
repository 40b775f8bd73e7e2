//! Frames that a guest receives: virtio-net's receive queues.

use std::sync::Arc;

use super::active::{Active, RingReport, Started};
use super::buffers::Chain;
use super::{
    BURST, BURST_DESCRIPTORS, FRAME_DESCRIPTORS, FromGuest, MAX_CHAIN, RingCounters, Segment,
};
use crate::copy;
use crate::event::Event;
use crate::net::{NetHeader, feature};

/// Bytes of a cache line.
const LINE: usize = 64;
/// Frames up to this have their lines asked for when their buffers are parsed.
const SHORT: u32 = 128;
/// Bytes of a buffer that are asked for ahead, at most: more would push one another out.
const LONGEST_EXPECTED: u32 = 2048;

/// A frame of the burst and the chains that will hold it.
#[derive(Clone, Copy, Debug)]
struct Slot {
    /// First of its chains.
    first: u16,
    /// Number of its chains; 0 when no buffer can hold the frame.
    chains: u16,
    /// Bytes of the frame, without header.
    len: u32,
}

/// The device side of a queue whose frames go to the guest.
///
/// [`reserve`](Self::reserve) finds buffers for a burst, [`fill`](Self::fill) copies its frames,
/// [`publish`](Self::publish) hands them to the guest.
#[derive(Debug)]
pub struct ToGuest {
    active: Active,
    header: u32,
    mergeable: bool,
    slots: Vec<Slot>,
    /// Chains of the burst that are in use.
    taken: usize,
}

impl ToGuest {
    pub(crate) fn new(report: Arc<RingReport>, alarm: Option<Arc<Event>>) -> Self {
        Self {
            active: Active::new(report, alarm),
            header: NetHeader::LEN as u32,
            mergeable: false,
            slots: Vec::with_capacity(BURST),
            taken: 0,
        }
    }

    pub(crate) fn install(&mut self, next: Option<Started>) -> Option<Started> {
        self.publish();
        if let Some(next) = &next {
            self.header = NetHeader::len_for(next.features) as u32;
            self.mergeable = next.features & feature::MRG_RXBUF != 0;
        }
        let before = self.active.install(next);
        self.look_ahead();
        before
    }

    /// Behind an IOMMU, finds out which translation the next frames will miss, so that it is there
    /// before they are: a frame does not wait for it.
    fn look_ahead(&mut self) {
        let translated = |s: &Started| s.ring.memory().is_translated();
        if self.active.started().is_some_and(translated) && self.active.look() {
            self.active.parse(BURST);
            if !self.active.burst.chains.is_empty() {
                // What is there can be used.
                self.active.go_on();
            }
            self.active.forget();
        }
    }

    pub(crate) fn started(&self) -> Option<&Started> {
        self.active.started()
    }

    /// Whether the front end has started and enabled the queue and it is not broken.
    #[inline]
    pub fn is_running(&self) -> bool {
        self.active.is_running()
    }

    /// Finds buffers for frames of these lengths, in order, [`BURST`] at most; tells for how many
    /// it went: the others find no room now. What the burst held before is published first.
    ///
    /// A frame longer than the guest's buffers can ever hold is counted, and [`fill`](Self::fill)
    /// refuses it; it does not hold up the others.
    #[inline]
    pub fn reserve(&mut self, lens: &[u32]) -> usize {
        self.publish();
        let lens = &lens[..lens.len().min(BURST)];
        if !self.active.is_running() || lens.is_empty() || !self.active.look() {
            return 0;
        }
        self.active.burst.budget = BURST_DESCRIPTORS.max(lens.len() as u32 * FRAME_DESCRIPTORS);
        for (i, &len) in lens.iter().enumerate() {
            if !self.place(len, lens.len() - i) {
                break;
            }
        }
        self.slots.len()
    }

    /// Finds the chains of one frame, parsing `ahead` of them where it must; false without room.
    #[inline(always)]
    fn place(&mut self, len: u32, ahead: usize) -> bool {
        let first = self.taken;
        let mut left = len.saturating_add(self.header);
        loop {
            if self.taken == self.active.burst.chains.len() && !self.more(ahead) {
                self.taken = first.min(self.active.burst.chains.len());
                return false;
            }
            let chain = &mut self.active.burst.chains[self.taken];
            if left <= chain.total {
                chain.written = left;
                self.taken += 1;
                let chains = (self.taken - first) as u16;
                self.slots.push(Slot {
                    first: first as u16,
                    chains,
                    len,
                });
                return true;
            }
            if !self.mergeable {
                self.slots.push(Slot {
                    first: first as u16,
                    chains: 0,
                    len,
                });
                return true;
            }
            chain.written = chain.total;
            left -= chain.total;
            self.taken += 1;
        }
    }

    /// Parses more chains; false when there are none, or the burst can't hold more.
    #[inline(never)]
    fn more(&mut self, ahead: usize) -> bool {
        let parsed = self.active.burst.chains.len();
        let count = ahead.clamp(4, BURST);
        if parsed + count > MAX_CHAIN + BURST || self.active.burst.is_spent() {
            return false;
        }
        if !self.active.parse(count) {
            self.slots.clear();
            self.taken = 0;
            return false;
        }
        self.active.burst.chains.len() > parsed
    }

    /// Copies a frame into its buffers. `frame` must have the length it was reserved with; of
    /// another length, the smaller of the two is copied. False if no buffer can hold it.
    ///
    /// # Panics
    /// If no frame of that number was reserved.
    #[inline]
    pub fn fill(&mut self, slot: usize, header: NetHeader, frame: &[u8]) -> bool {
        let slot = self.slots[slot];
        if slot.chains == 0 {
            return false;
        }
        let frame = &frame[..frame.len().min(slot.len as usize)];
        let piece = self.active.burst.chains[usize::from(slot.first)].piece;
        let header = NetHeader {
            num_buffers: slot.chains,
            ..header
        }
        .to_bytes();
        let header = &header[..self.header as usize];
        if piece.len as usize >= header.len() + frame.len() {
            // SAFETY: just checked against the piece's length; its memory is mapped.
            unsafe {
                copy::copy(header.as_ptr(), piece.ptr, header.len());
                copy::copy(frame.as_ptr(), piece.ptr.add(header.len()), frame.len());
            }
        } else {
            let mut cursor = Cursor::new(self.segments(slot));
            cursor.put_bytes(header);
            cursor.put_bytes(frame);
        }
        true
    }

    /// Carries the frames of another guest's burst over, in order, as long as there is room, each with
    /// a header that says that nothing is left to be done, and publishes them; tells how many.
    ///
    /// This is the short way for frames that lie in one piece and fit one buffer. `None`, and
    /// nothing was published, where that is not so.
    #[inline]
    pub fn carry_burst(&mut self, from: &FromGuest) -> Option<usize> {
        const HEADER: u32 = NetHeader::LEN as u32;
        if from.header_len() != HEADER {
            return None;
        }
        let frames = from.chains();
        if !self.plain_buffers(frames.len())? {
            return Some(0);
        }
        let mut bytes = 0;
        let mut buffers = self.active.burst.chains.iter_mut();
        for frame in frames {
            let Some(buffer) = buffers.next() else { break };
            let (source, target) = (frame.piece, buffer.piece);
            if source.len != frame.total + HEADER || target.len < source.len {
                return None;
            }
            if source.len > SHORT {
                expect_like(buffers.as_slice(), source.len);
            }
            // The sender's header is copied along, which keeps both sides aligned, and then
            // overwritten: all zero, but for the number of buffers.
            // SAFETY: the target is at least as long as the source, which holds a header and more;
            // both are mapped by their rings.
            unsafe {
                copy::copy(source.ptr, target.ptr, source.len as usize);
                plain_header(target.ptr);
            }
            buffer.written = source.len;
            bytes += u64::from(frame.total);
        }
        self.publish_plain(frames.len(), bytes)
    }

    /// Copies frames into buffers, in order, as long as there is room, and publishes them; tells how many.
    ///
    /// This is the short way for up to [`BURST`] frames that fit one buffer each, and of which another guest's part is in
    /// one piece. `None`, and nothing was published, where that is not so, or one of the frames is none.
    #[inline]
    pub fn put_burst<'a>(
        &mut self,
        frames: impl ExactSizeIterator<Item = Option<Outgoing<'a>>>,
    ) -> Option<usize> {
        let wanted = frames.len();
        if !self.plain_buffers(wanted)? {
            return Some(0);
        }
        let mut bytes = 0;
        let mut buffers = self.active.burst.chains.iter_mut();
        for frame in frames {
            let Some(buffer) = buffers.next() else { break };
            let (Outgoing { header, head, rest }, target) = (frame?, buffer.piece);
            let rest = match rest {
                None => Segment::EMPTY,
                Some(lent) => lent.ring.one_piece(lent.frame, lent.offset, lent.len)?,
            };
            let len = head.len() + rest.len as usize;
            if (target.len as usize) < NetHeader::LEN + len {
                return None;
            }
            if len > SHORT as usize {
                expect_like(buffers.as_slice(), len as u32);
            }
            // SAFETY: the target holds header, head and rest, as just checked, and the source the rest; both are mapped by
            // their rings.
            unsafe {
                let into = target.ptr.add(NetHeader::LEN);
                copy::copy(head.as_ptr(), into, head.len());
                if rest.len > 0 {
                    copy::copy(rest.ptr, into.add(head.len()), rest.len as usize);
                }
                match header {
                    None => plain_header(target.ptr),
                    Some(header) => one_buffer_header(target.ptr, header),
                }
            }
            buffer.written = (NetHeader::LEN + len) as u32;
            bytes += len as u64;
        }
        self.publish_plain(wanted, bytes)
    }

    /// Finds buffers for so many frames of one buffer each; false if there are none now, `None` where the short way is
    /// none.
    #[inline]
    fn plain_buffers(&mut self, wanted: usize) -> Option<bool> {
        self.publish();
        if self.header != NetHeader::LEN as u32 {
            return None;
        }
        if !self.active.is_running() || !self.active.look() {
            return Some(false);
        }
        self.active.burst.budget = BURST_DESCRIPTORS.max(wanted as u32 * FRAME_DESCRIPTORS);
        Some(self.active.parse(wanted))
    }

    /// Publishes the burst's buffers for so many frames; tells for how many there were.
    #[inline]
    fn publish_plain(&mut self, wanted: usize, bytes: u64) -> Option<usize> {
        let count = wanted.min(self.active.burst.chains.len());
        if count < wanted && self.active.burst.is_spent() {
            return None;
        }
        self.active.counters.frames += count as u64;
        self.active.counters.bytes += bytes;
        self.active.publish(count);
        Some(count)
    }

    /// Copies another guest's frame straight into its buffers, behind `header`. The frame must have
    /// the length that the slot was reserved with; of another length, the smaller of the two is
    /// copied. False if no buffer can hold it.
    ///
    /// # Panics
    /// If no frame of that number was reserved, or `from` has no such frame in its burst.
    #[inline]
    pub fn carry(
        &mut self,
        slot: usize,
        header: NetHeader,
        from: &FromGuest,
        frame: usize,
    ) -> bool {
        let slot = self.slots[slot];
        if slot.chains == 0 {
            return false;
        }
        let into = self.active.burst.chains[usize::from(slot.first)].piece;
        let Some((piece, lead)) = from.single_piece(frame) else {
            return self.carry_pieces(slot, header, from, frame);
        };
        if lead != self.header || into.len < piece.len || slot.len + lead != piece.len {
            return self.carry_pieces(slot, header, from, frame);
        }
        let num_buffers = slot.chains;
        let header = NetHeader {
            num_buffers,
            ..header
        }
        .to_bytes();
        // The sender's header is copied along, which keeps both sides aligned, and then overwritten.
        // SAFETY: the target is at least as long as the source, of which the header is a part; both
        // are mapped by their rings.
        unsafe {
            copy::copy(piece.ptr, into.ptr, piece.len as usize);
            copy::copy(header.as_ptr(), into.ptr, lead as usize);
        }
        true
    }

    #[inline(never)]
    fn carry_pieces(&self, slot: Slot, header: NetHeader, from: &FromGuest, frame: usize) -> bool {
        self.fill_pieces(slot, header, &[], from, frame, 0)
    }

    /// Copies a frame that starts with `head` and goes on with what another guest's frame has
    /// from `offset` on, straight from one guest's memory into the other's.
    ///
    /// # Panics
    /// If no frame of that number was reserved, or `from` has no such frame in its burst.
    pub fn fill_from(
        &mut self,
        slot: usize,
        header: NetHeader,
        head: &[u8],
        from: &FromGuest,
        frame: usize,
        offset: usize,
    ) -> bool {
        let slot = self.slots[slot];
        if slot.chains == 0 {
            return false;
        }
        let into = self.active.burst.chains[usize::from(slot.first)].piece;
        let head = &head[..head.len().min(slot.len as usize)];
        let rest = slot.len as usize - head.len();
        let len = self.header as usize + head.len() + rest;
        let Some(source) = from.one_piece(frame, offset, rest) else {
            return self.fill_pieces(slot, header, head, from, frame, offset);
        };
        if len > into.len as usize {
            return self.fill_pieces(slot, header, head, from, frame, offset);
        }
        let num_buffers = slot.chains;
        let header = NetHeader {
            num_buffers,
            ..header
        }
        .to_bytes();
        let header = &header[..self.header as usize];
        // SAFETY: the target holds header, head and rest, as just checked, and the source the rest; both are mapped by their
        // rings.
        unsafe {
            copy::copy(header.as_ptr(), into.ptr, header.len());
            let into = into.ptr.add(header.len());
            copy::copy(head.as_ptr(), into, head.len());
            copy::copy(source.ptr, into.add(head.len()), rest);
        }
        true
    }

    fn fill_pieces(
        &self,
        slot: Slot,
        header: NetHeader,
        head: &[u8],
        from: &FromGuest,
        frame: usize,
        offset: usize,
    ) -> bool {
        if slot.chains == 0 {
            return false;
        }
        let header = NetHeader {
            num_buffers: slot.chains,
            ..header
        }
        .to_bytes();
        let mut cursor = Cursor::new(self.segments(slot));
        cursor.put_bytes(&header[..self.header as usize]);
        let head = &head[..head.len().min(slot.len as usize)];
        cursor.put_bytes(head);
        let mut left = slot.len as usize - head.len();
        for piece in from.pieces(frame, offset) {
            let step = left.min(piece.len as usize);
            // SAFETY: `step` is at most the piece's length, and its ring keeps it mapped.
            unsafe { cursor.put(piece.ptr, step) };
            left -= step;
        }
        true
    }

    /// The pieces of a frame's chains, which lie one after the other.
    #[inline]
    fn segments(&self, slot: Slot) -> &[Segment] {
        let first = usize::from(self.active.burst.chains[usize::from(slot.first)].first);
        let last = self.active.burst.chains[usize::from(slot.first + slot.chains - 1)];
        &self.active.burst.segments[first..usize::from(last.first) + usize::from(last.count)]
    }

    /// Hands the reserved frames to the guest and notifies it if it asked for that. Every one of
    /// them should have been filled: of one that was not, the guest sees its own old bytes.
    #[inline]
    pub fn publish(&mut self) {
        if self.slots.is_empty() {
            return;
        }
        let counters = &mut self.active.counters;
        for slot in &self.slots {
            let sent = u64::from(slot.chains > 0);
            counters.frames += sent;
            counters.bytes += sent * u64::from(slot.len);
            counters.oversize += 1 - sent;
        }
        self.active.publish(self.taken);
        self.slots.clear();
        self.taken = 0;
    }

    /// Asks the guest to kick when it posts buffers; true if there are any. Of use only to one
    /// who waits for room.
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

/// Asks for the lines of the next buffer for writing, as its frame is likely to be as long as the one at hand. A store to a
/// line that another core has waits for it, and few stores wait at once; the loads of the copy overlap by themselves. With
/// cores far apart a copy of 1518 bytes so takes two thirds of the time.
#[inline(never)]
fn expect_like(buffers: &[Chain], len: u32) {
    if let Some(next) = buffers.first() {
        let bytes = len.min(next.piece.len).min(LONGEST_EXPECTED) as usize;
        // The first line was asked for when the buffer was parsed.
        copy::prefetch_write_run(
            next.piece.ptr.wrapping_add(LINE),
            bytes.saturating_sub(LINE),
        );
    }
}

/// A frame to be sent.
#[derive(Clone, Copy)]
pub struct Outgoing<'a> {
    /// What is left to be done, if anything is.
    pub header: Option<NetHeader>,
    /// The frame, or its beginning.
    pub head: &'a [u8],
    /// The rest of it.
    pub rest: Option<Lent<'a>>,
}

/// A part of another guest's frame, in its buffers.
#[derive(Clone, Copy)]
pub struct Lent<'a> {
    /// The queue in whose burst the frame is.
    pub ring: &'a FromGuest,
    /// The frame's number there.
    pub frame: usize,
    /// Where the part begins.
    pub offset: usize,
    /// Its length in bytes.
    pub len: usize,
}

/// Writes a header for a frame in one buffer.
///
/// # Safety
/// As many bytes as a header has are writable at `at`.
#[inline]
unsafe fn one_buffer_header(at: *mut u8, header: NetHeader) {
    let num_buffers = 1;
    let header = NetHeader {
        num_buffers,
        ..header
    }
    .to_bytes();
    // SAFETY: the caller's promise.
    unsafe { copy::copy(header.as_ptr(), at, NetHeader::LEN) }
}

/// Writes a header that says that nothing is left to be done, in one buffer.
///
/// # Safety
/// As many bytes as a header has are writable at `at`.
#[inline(always)]
unsafe fn plain_header(at: *mut u8) {
    // SAFETY: the caller's promise.
    unsafe {
        copy::store8(at, 0);
        copy::store4(at.add(8), 0x1_0000_u32.to_le());
    }
}

/// Writes into pieces, one after the other.
struct Cursor<'a> {
    segments: &'a [Segment],
    /// Bytes of the first piece that are written.
    offset: usize,
}

impl<'a> Cursor<'a> {
    fn new(segments: &'a [Segment]) -> Self {
        Self {
            segments,
            offset: 0,
        }
    }

    fn put_bytes(&mut self, bytes: &[u8]) {
        // SAFETY: the slice is readable for its length.
        unsafe { self.put(bytes.as_ptr(), bytes.len()) }
    }

    /// Copies `len` bytes from `from`, which is host memory or a piece of another guest's; stops
    /// where the pieces end.
    ///
    /// # Safety
    /// `len` bytes at `from` are readable.
    unsafe fn put(&mut self, mut from: *const u8, mut len: usize) {
        while len > 0
            && let Some(segment) = self.segments.first()
        {
            let step = len.min(segment.len as usize - self.offset);
            // SAFETY: `step` is within the rest of the piece and of the source.
            unsafe {
                copy::copy(from, segment.ptr.add(self.offset), step);
                from = from.add(step);
            }
            len -= step;
            self.offset += step;
            if self.offset == segment.len as usize {
                self.segments = &self.segments[1..];
                self.offset = 0;
            }
        }
    }
}
