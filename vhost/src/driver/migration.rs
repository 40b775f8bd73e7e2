//! The front end's half of live migration: the log of pages that the back end writes.

use std::io;
use std::os::fd::AsRawFd;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use vhost::{VhostBackend, VhostUserDirtyLogRegion};

use super::DriverPair;
use super::front_end::{DriverError, FrontEnd};
use super::layout::GUEST_BASE;
use crate::memory::Mapping;
use crate::net::feature;

/// Bytes of guest memory that one bit of the log stands for.
const PAGE: usize = 0x1000;

/// A log of written pages, as its reader has it.
#[derive(Debug)]
pub struct PageLog {
    bits: Mapping,
}

impl PageLog {
    /// Takes the pages that were written since the last time out of the log: offsets of 4 KiB
    /// pages in the front end's memory, in order.
    pub fn take(&self) -> Vec<usize> {
        let mut pages = Vec::new();
        for at in (0..self.bits.len()).step_by(8) {
            let word = self.bits.take_u64(at);
            let set = (0..64).filter(|bit| word >> bit & 1 == 1);
            pages.extend(set.map(|bit| (8 * at + bit) * PAGE - GUEST_BASE as usize));
        }
        pages
    }
}

impl FrontEnd {
    /// Shares a log and asks the back end to mark every page that it writes, while the queues run
    /// on.
    ///
    /// # Errors
    /// A back end that can't log, or refuses.
    pub fn start_log(&mut self, pairs: &[DriverPair]) -> Result<PageLog, DriverError> {
        let pages = (GUEST_BASE as usize + self.memory().len()).div_ceil(PAGE);
        let size = pages.div_ceil(64) * 8;
        let fd = memfd_create("page-log", MemfdFlags::CLOEXEC).map_err(io::Error::from)?;
        ftruncate(&fd, size as u64).map_err(io::Error::from)?;
        let bits = Mapping::of_file(&fd, size)?;
        let region = VhostUserDirtyLogRegion {
            mmap_size: size as u64,
            mmap_offset: 0,
            mmap_handle: fd.as_raw_fd(),
        };
        self.messages().set_log_base(0, Some(region))?;
        self.log_writes(pairs, true)?;
        Ok(PageLog { bits })
    }

    /// Ends what [`start_log`](Self::start_log) began.
    ///
    /// # Errors
    /// A back end that refuses.
    pub fn stop_log(&mut self, pairs: &[DriverPair]) -> Result<(), DriverError> {
        self.log_writes(pairs, false)
    }

    fn log_writes(&mut self, pairs: &[DriverPair], on: bool) -> Result<(), DriverError> {
        let log = if on { feature::LOG_ALL } else { 0 };
        let protocol = self.offered() & feature::PROTOCOL_FEATURES;
        self.messages()
            .set_features(self.features() | protocol | log)?;
        let rings = pairs
            .iter()
            .flat_map(|p| [&p.receive.ring, &p.transmit.ring]);
        for (index, ring) in rings.enumerate() {
            self.set_addresses(index, ring, on)?;
        }
        Ok(())
    }
}
