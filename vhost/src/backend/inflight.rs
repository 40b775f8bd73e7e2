//! The memory in which rings tell what is in flight, made here and kept by the front end
//! (vhost-user, "Inflight I/O tracking").

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use vhost::vhost_user::Result;
use vhost::vhost_user::message::VhostUserInflight;

use super::session::{Session, refuse};
use crate::memory::{Mapping, RegionLayout};
use crate::net::feature;
use crate::ring::{MAX_QUEUE_SIZE, QueueRegion};

/// Largest area that is mapped, in bytes: twice what 64 pairs of queues of the largest size need.
const MAX_AREA: u64 = 256 << 20;

/// The area as the front end has shared it.
#[derive(Debug)]
pub(super) struct InflightArea {
    memory: Arc<Mapping>,
    queues: u16,
    /// Descriptors that each queue's region has room for.
    queue_size: u16,
}

impl InflightArea {
    /// Maps what the front end says to be one.
    ///
    /// # Errors
    /// A place that is not aligned, an absurd size, or a file that is shorter.
    fn map(said: &VhostUserInflight, file: File) -> std::result::Result<Self, String> {
        let VhostUserInflight {
            mmap_size,
            mmap_offset,
            num_queues,
            queue_size,
        } = *said;
        // The format is known for certain when a queue starts; the shorter one must fit at least.
        let least = QueueRegion::bytes(queue_size, false) as u64 * u64::from(num_queues);
        if mmap_size < least || mmap_size > MAX_AREA {
            return Err(format!(
                "in-flight area of {mmap_size} bytes for {num_queues} queues of {queue_size} entries"
            ));
        }
        if mmap_offset % 8 != 0 {
            return Err(format!(
                "in-flight area at offset {mmap_offset} is not aligned"
            ));
        }
        let layout = RegionLayout {
            guest_address: 0,
            user_address: 0,
            size: mmap_size,
            file_offset: mmap_offset,
        };
        let memory = Mapping::of_region(layout, &OwnedFd::from(file))
            .map_err(|error| format!("in-flight area: {error}"))?;
        Ok(Self {
            memory: Arc::new(memory),
            queues: num_queues,
            queue_size,
        })
    }

    /// The region of a queue, unless it is one that the front end wants no tracking of.
    ///
    /// # Errors
    /// A region that has no room for the queue.
    pub(super) fn region(
        &self,
        index: usize,
        size: u16,
        packed: bool,
    ) -> std::result::Result<Option<QueueRegion>, &'static str> {
        if index >= self.queues.into() {
            return Ok(None);
        }
        if size > self.queue_size {
            return Err("in-flight area is for smaller queues");
        }
        match QueueRegion::of_queue(&self.memory, index, self.queue_size, packed) {
            None => Err("in-flight area is too short for the format of the ring"),
            region => Ok(region),
        }
    }
}

impl Session {
    fn check_inflight(&self, asked: &VhostUserInflight) -> Result<()> {
        let (queues, size) = (usize::from(asked.num_queues), asked.queue_size);
        if queues == 0 || queues > self.queues.len() {
            let count = self.queues.len();
            return refuse(format!(
                "in-flight area for {queues} queues; there are {count}"
            ));
        }
        if size == 0 || size > MAX_QUEUE_SIZE {
            return refuse(format!("in-flight area for queues of {size} entries"));
        }
        Ok(())
    }

    /// Makes an area for the front end. Nothing of it is touched before a queue starts, and it
    /// takes no memory until then.
    pub(super) fn make_inflight_area(
        &self,
        asked: &VhostUserInflight,
    ) -> Result<(VhostUserInflight, File)> {
        self.check_inflight(asked)?;
        // Before the features are set it may become either; the larger one serves both.
        let packed = self.features == 0 || self.features & feature::RING_PACKED != 0;
        let bytes = QueueRegion::bytes(asked.queue_size, packed) as u64;
        let size = bytes * u64::from(asked.num_queues);
        let make = || -> rustix::io::Result<OwnedFd> {
            let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
            let fd = memfd_create("vhost-inflight", flags)?;
            ftruncate(&fd, size)?;
            let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
            fcntl_add_seals(&fd, seals)?;
            Ok(fd)
        };
        match make() {
            Ok(fd) => {
                let made = VhostUserInflight::new(size, 0, asked.num_queues, asked.queue_size);
                Ok((made, fd.into()))
            }
            Err(error) => refuse(format!("in-flight area can't be made: {error}")),
        }
    }

    /// Takes the area that rings which start from now on are to be tracked in.
    pub(super) fn set_inflight_area(&mut self, said: &VhostUserInflight, file: File) -> Result<()> {
        self.check_inflight(said)?;
        if self.queues.iter().any(|queue| queue.epoch != 0) {
            return refuse("queues run; the in-flight area can't change");
        }
        match InflightArea::map(said, file) {
            Ok(area) => {
                self.inflight = Some(area);
                Ok(())
            }
            Err(error) => refuse(error),
        }
    }

    /// Has the in-flight regions of queues that are stopped tell nothing any more: the device was
    /// reset, and the driver begins anew.
    pub(super) fn retire_inflight(&mut self) {
        for queue in &mut self.queues {
            if let Some(region) = queue.tracked.take() {
                region.clear();
            }
        }
    }
}
