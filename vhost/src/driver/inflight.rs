//! The front end's half of in-flight tracking: it keeps the memory in which the back end tells what
//! is in flight, and gives it to the next one.

use std::fs::File;
use std::os::fd::AsRawFd;

use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::VhostUserInflight;

use super::front_end::{DriverError, FrontEnd};

/// The memory, as the back end described it.
pub(super) struct InflightArea {
    said: VhostUserInflight,
    file: File,
}

impl FrontEnd {
    /// Gets an area of its own for queues that begin anew, and shares it.
    pub(super) fn renew_inflight(&mut self) -> Result<(), DriverError> {
        self.inflight = None;
        if self.has_inflight() {
            let (queues, size) = (self.layouts().len() as u16, self.layouts()[0].size);
            let asked = VhostUserInflight::new(0, 0, queues, size);
            let (said, file) = self.messages().get_inflight_fd(&asked)?;
            self.inflight = Some(InflightArea { said, file });
            self.share_inflight()?;
        }
        Ok(())
    }

    /// Gives the back end the area that was kept; whether there is one.
    pub(super) fn share_inflight(&mut self) -> Result<bool, DriverError> {
        let Some(area) = self.inflight.as_ref().filter(|_| self.has_inflight()) else {
            return Ok(false);
        };
        self.messages()
            .set_inflight_fd(&area.said, area.file.as_raw_fd())?;
        Ok(true)
    }

    /// The memory in which the back end tells what is in flight, for tests that look or misbehave:
    /// its file, bytes, and where it begins.
    pub fn inflight_file(&self) -> Option<(&File, u64, u64)> {
        let area = self.inflight.as_ref()?;
        Some((&area.file, area.said.mmap_size, area.said.mmap_offset))
    }
}
