//! Marks what a ring writes in the log of written pages, while a migration runs.

use std::sync::Arc;

use super::{Chain, Segment};
use crate::dirty_log::DirtyLog;
use crate::event::Event;
use crate::memory::GuestMemory;

/// The log that a ring's writes are marked in.
#[derive(Clone, Debug)]
pub(crate) struct RingLog {
    pub(crate) pages: Arc<DirtyLog>,
    /// Guest physical address by which the used ring is logged, if it is to be.
    pub(crate) used: Option<u64>,
    /// Where to tell that the log changed, if somebody wants to know.
    pub(crate) changed: Option<Arc<Event>>,
}

impl RingLog {
    /// Marks what was written into the buffers of `chains`.
    pub(crate) fn mark_buffers(
        &self,
        memory: &GuestMemory,
        chains: &[Chain],
        segments: &[Segment],
    ) {
        for chain in chains {
            let mut left = u64::from(chain.written);
            for segment in &segments[chain.first as usize..][..usize::from(chain.count)] {
                let written = left.min(segment.len.into());
                if let Some(address) = memory.guest_address(segment.ptr) {
                    self.pages.mark(address, written);
                }
                left -= written;
            }
        }
    }

    /// Marks `len` bytes of the used ring, `offset` bytes from its start.
    pub(crate) fn mark_used(&self, offset: u64, len: u64) {
        if let Some(used) = self.used {
            self.pages.mark(used.saturating_add(offset), len);
        }
    }

    /// Marks `len` bytes, `offset` bytes from `start`, of a ring that the front end gave no address
    /// of its own for: the one that it logs by is the device area's.
    pub(crate) fn mark_ring(&self, memory: &GuestMemory, start: *mut u8, offset: u64, len: u64) {
        if self.used.is_some()
            && let Some(address) = memory.guest_address(start)
        {
            self.pages.mark(address.saturating_add(offset), len);
        }
    }

    /// Tells whoever wants to know that the log changed.
    pub(crate) fn tell(&self) {
        if let Some(changed) = &self.changed {
            changed.signal();
        }
    }
}
