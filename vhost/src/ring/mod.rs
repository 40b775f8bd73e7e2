//! The device side of a virtqueue.
//!
//! A [`FromGuest`] ring carries frames that the guest sends (virtio-net's transmit queues), a
//! [`ToGuest`] ring those that it receives. Both work in bursts with the same three beats: parse
//! descriptors ([`FromGuest::fetch`], [`ToGuest::reserve`]), copy ([`FromGuest::read`],
//! [`ToGuest::fill`]), and publish the used entries once, with one decision about a notification
//! ([`FromGuest::complete`], [`ToGuest::publish`]). Between the beats nothing borrows the ring, so
//! one frame can go straight from one guest's ring to another's.
//!
//! | file | what it is |
//! | --- | --- |
//! | `from_guest`, `to_guest` | the queues: frames, headers, copies |
//! | `active` | what both directions share: start and stop, publishing, breaking |
//! | `format` | the enum of formats |
//! | `split`, `packed` | one format each |
//! | `buffers` | what formats share: descriptors become chains of checked pieces |
//! | `log`, `inflight` | what others are to know of a ring: pages written, chains in flight |

mod active;
mod buffers;
mod format;
mod from_guest;
mod inflight;
mod log;
#[cfg(test)]
mod naive;
#[cfg(test)]
mod oracle;
mod packed;
mod split;
mod to_guest;

use std::fmt;

pub use from_guest::{Frame, FromGuest};
pub use to_guest::{Lent, Outgoing, ToGuest};

pub(crate) use active::{RingReport, Started};
pub(crate) use buffers::{Burst, Chain, Segment};
pub(crate) use format::{Areas, Ring};
pub(crate) use inflight::{QueueRegion, Tracker};
pub(crate) use log::RingLog;

/// Frames in one burst at most.
pub const BURST: usize = 64;

/// Descriptors in one chain at most. Linux needs 19 for the largest frame, QEMU's own bound is
/// 1024 too.
pub const MAX_CHAIN: usize = 1024;

/// Bytes of frames that one burst takes from a guest, and one frame more at most. With frames of
/// 64 KiB a burst would else keep a worker, and all its other ports, for as long as it takes to
/// copy 4 MiB.
pub const BURST_BYTES: u32 = 256 << 10;

/// Descriptors that one burst follows on a ring from a guest, and one chain more at most.
pub const BURST_DESCRIPTORS: u32 = MAX_CHAIN as u32;

/// Descriptors that a burst follows on a ring to a guest for each frame that is to be sent, but
/// [`BURST_DESCRIPTORS`] at least, and one chain more at most. The largest frame takes 44 buffers
/// of the smallest size that Linux posts.
pub const FRAME_DESCRIPTORS: u32 = 64;

/// What following a descriptor counts in the [cost](FromGuest::cost) of a burst, in bytes to copy.
pub const DESCRIPTOR_COST: u64 = (BURST_BYTES / BURST_DESCRIPTORS) as u64;

/// The [cost](FromGuest::cost) of bursts after which a port with several queues should leave the
/// rest to the next poll.
pub const BURST_COST: u64 = BURST_BYTES as u64;

/// Longest frame taken from a guest, in bytes, without its virtio-net header: the largest IP
/// packet, an Ethernet header and two VLAN tags, rounded up.
pub const MAX_FRAME: usize = 65_536 + 64;

/// Largest queue size that virtio 1.2 allows.
pub const MAX_QUEUE_SIZE: u16 = 32_768;

/// What a guest did to a ring that made us stop it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[non_exhaustive]
pub enum RingError {
    /// The available index ran ahead by more than the queue's size.
    AvailableJump = 1,
    /// A descriptor's index is outside its table.
    DescriptorIndex,
    /// A chain is longer than the queue or than [`MAX_CHAIN`], or runs in a circle.
    ChainTooLong,
    /// A buffer or table is not within the guest's memory.
    OutsideMemory,
    /// A buffer to read comes after one to write, or of the wrong kind for the queue.
    Direction,
    /// An indirect table that was not negotiated, is empty, nested, chained or of a wrong length.
    Indirect,
    /// A chain that offers 4 GiB or more.
    Length,
    /// The file behind the guest's memory was truncated.
    MemoryTruncated,
    /// A translation that the front end has to be asked for is missing. The ring goes on once it
    /// is there; this never stops one for good.
    Untranslated,
}

impl RingError {
    const ALL: [Self; 9] = [
        Self::AvailableJump,
        Self::DescriptorIndex,
        Self::ChainTooLong,
        Self::OutsideMemory,
        Self::Direction,
        Self::Indirect,
        Self::Length,
        Self::MemoryTruncated,
        Self::Untranslated,
    ];

    /// The error that a number stands for; the inverse of `as u8`.
    pub(crate) fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|e| *e as u8 == code)
    }
}

impl fmt::Display for RingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AvailableJump => "available index jumped beyond the queue's size",
            Self::DescriptorIndex => "descriptor index outside the table",
            Self::ChainTooLong => "descriptor chain too long or circular",
            Self::OutsideMemory => "buffer outside guest memory",
            Self::Direction => "buffer of the wrong direction",
            Self::Indirect => "bad indirect descriptor",
            Self::Length => "descriptor chain of 4 GiB or more",
            Self::MemoryTruncated => "guest memory file was truncated while mapped",
            Self::Untranslated => "address is not translated yet",
        })
    }
}

impl std::error::Error for RingError {}

/// Where a ring stands: plain data, so that it can be saved, checked and taken up again.
///
/// In a split ring these are free-running indices. In a packed one they are places of descriptors,
/// with the wrap counter in bit 15.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingState {
    /// Next entry of the available ring, or descriptor, to read.
    pub next_avail: u16,
    /// Next entry of the used ring, or descriptor, to write.
    pub next_used: u16,
}

impl RingState {
    /// As vhost-user tells it: of a split ring the available index, of a packed one both places.
    pub(crate) fn base(self, packed: bool) -> u32 {
        let used = if packed { self.next_used } else { 0 };
        u32::from(self.next_avail) | u32::from(used) << 16
    }
}

/// What a ring counts; written by its worker alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingCounters {
    /// Frames that passed.
    pub frames: u64,
    /// Bytes of those frames, virtio-net headers not counted.
    pub bytes: u64,
    /// Chains too short to hold a virtio-net header and a byte.
    pub short: u64,
    /// Frames longer than [`MAX_FRAME`], or than any buffer the guest offers.
    pub oversize: u64,
    /// Frames the guest sent while its ring was disabled.
    pub disabled: u64,
    /// Notifications sent to the guest.
    pub notifications: u64,
    /// Times that the ring broke.
    pub breaks: u64,
    /// Descriptors that were followed, those of indirect tables and of chains without a frame
    /// included.
    pub descriptors: u64,
}

/// Which way a queue's buffers go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// The guest wrote them, we read.
    Readable,
    /// We write them, the guest reads.
    Writable,
}
