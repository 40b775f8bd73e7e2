//! What a front end shares for live migration: the log of written pages.

use std::fs::File;
use std::sync::Arc;

use crate::dirty_log::DirtyLog;
use crate::event::Event;
use crate::memory::GuestMemory;
use crate::ring::RingLog;

/// The log as the front end has set it up; it is on while `LOG_ALL` is among the features.
#[derive(Debug, Default)]
pub(super) struct MigrationLog {
    pages: Option<Arc<DirtyLog>>,
    /// Where to tell that the log changed.
    pub(super) changed: Option<Arc<Event>>,
}

impl MigrationLog {
    /// Takes `size` bytes at `offset` of `file` as the log from now on; gives back the old one, to
    /// be kept until no worker marks pages in it.
    ///
    /// # Errors
    /// A log that can't be mapped, or has no bit for the end of the memory.
    pub(super) fn replace(
        &mut self,
        file: File,
        size: u64,
        offset: u64,
        memory: Option<&GuestMemory>,
    ) -> Result<Option<Arc<DirtyLog>>, String> {
        let pages = DirtyLog::new(&file.into(), size, offset)
            .map_err(|error| format!("log of written pages: {error}"))?;
        let end = memory.map_or(0, GuestMemory::end);
        if !pages.covers(end) {
            return Err(format!(
                "log of written pages has {size} bytes and does not cover memory up to {end:#x}"
            ));
        }
        Ok(self.pages.replace(Arc::new(pages)))
    }

    /// What a ring needs to mark its writes, if there is a log; `used` is the guest physical
    /// address by which its used ring is logged.
    pub(super) fn of_ring(&self, used: Option<u64>) -> Option<RingLog> {
        Some(RingLog {
            pages: self.pages.clone()?,
            used,
            changed: self.changed.clone(),
        })
    }
}
