//! The log of written pages that live migration reads (vhost-user, "Migration").
//!
//! One bit for each 4 KiB page of guest physical addresses, in memory that the front end shares
//! and clears while we set. It is not trusted: a page beyond its end is not marked, and a file
//! that shrinks under it harms nobody.

use std::os::fd::OwnedFd;

use crate::memory::{Mapping, MemoryError, RegionLayout};

/// Bytes of guest memory that one bit stands for (vhost-user, `VHOST_LOG_PAGE`).
pub const PAGE: u64 = 0x1000;

/// Largest log that is mapped, in bytes: enough for 8 TiB of guest addresses.
pub const MAX_LOG: u64 = 256 << 20;

/// A mapped log.
#[derive(Debug)]
pub struct DirtyLog {
    bits: Mapping,
}

impl DirtyLog {
    /// Maps `size` bytes of the log's file from `offset`, both as the front end says.
    ///
    /// # Errors
    /// A size of 0 or above [`MAX_LOG`], a file that is too short or none, a refused mapping.
    pub fn new(fd: &OwnedFd, size: u64, offset: u64) -> Result<Self, MemoryError> {
        let layout = RegionLayout {
            guest_address: 0,
            user_address: 0,
            size,
            file_offset: offset,
        };
        if size == 0 || size > MAX_LOG {
            return Err(MemoryError::Range(layout));
        }
        let bits = Mapping::of_region(layout, fd)?;
        Ok(Self { bits })
    }

    /// Whether there is a bit for the page of every address below `end`.
    pub fn covers(&self, end: u64) -> bool {
        end.div_ceil(PAGE).div_ceil(8) <= self.bits.len() as u64
    }

    /// Marks the pages of `len` bytes at a guest physical address. Call it after the bytes were
    /// written: a page that is marked first could be read, and its bit cleared, in between.
    pub fn mark(&self, address: u64, len: u64) {
        let Some(last) = len.checked_sub(1) else {
            return;
        };
        for page in address / PAGE..=address.saturating_add(last) / PAGE {
            match usize::try_from(page / 8) {
                Ok(byte) if byte < self.bits.len() => self.bits.or_u8(byte, 1 << (page % 8)),
                _ => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

    use super::*;

    fn file(len: u64) -> OwnedFd {
        let fd = memfd_create("log", MemfdFlags::CLOEXEC).expect("memfd");
        ftruncate(&fd, len).expect("size");
        fd
    }

    proptest! {
        /// The bits set are those of the pages touched, and nothing before or behind the log changes.
        #[test]
        fn pages_touched_are_the_pages_marked(
            offset in 0u64..9000,
            size in 1u64..40,
            writes in proptest::collection::vec((0u64..1_500_000, 0u64..20_000), 0..8),
        ) {
            let fd = file(offset + size + 5000);
            let log = DirtyLog::new(&fd, size, offset).expect("maps");
            let mut pages = BTreeSet::new();
            for (address, len) in writes {
                log.mark(address, len);
                pages.extend((address..address + len).step_by(1).map(|byte| byte / PAGE));
            }
            let mut bytes = vec![0; (offset + size + 5000) as usize];
            rustix::io::pread(&fd, &mut bytes, 0).expect("reads");
            for (at, byte) in bytes.iter().enumerate() {
                for bit in 0..8 {
                    let inside = (offset..offset + size).contains(&(at as u64));
                    let page = (at as u64).wrapping_sub(offset).wrapping_mul(8) + bit;
                    let marked = byte >> bit & 1 == 1;
                    prop_assert_eq!(marked, inside && pages.contains(&page), "byte {} bit {}", at, bit);
                }
            }
        }
    }

    #[test]
    fn extreme_addresses_and_sizes() {
        let log = DirtyLog::new(&file(4096), 2, 0).expect("maps");
        log.mark(u64::MAX, u64::MAX);
        log.mark(0, 0);
        log.mark(15 * PAGE, u64::MAX);
        assert!(log.covers(16 * PAGE) && !log.covers(16 * PAGE + 1) && !log.covers(u64::MAX));
        assert!(DirtyLog::new(&file(4096), 0, 0).is_err());
        assert!(DirtyLog::new(&file(4096), MAX_LOG + 1, 0).is_err());
        assert!(DirtyLog::new(&file(4096), 4096, 1).is_err());
        assert!(DirtyLog::new(&file(4096), 1, u64::MAX).is_err());
    }
}
