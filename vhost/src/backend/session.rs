//! What one front end has told us, and what follows for the rings.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight,
    VhostUserLog, VhostUserMemoryRegion, VhostUserProtocolFeatures, VhostUserShMemConfig,
    VhostUserSharedMsg, VhostUserSingleMemoryRegion, VhostUserVringAddrFlags, VhostUserVringState,
};
use vhost::vhost_user::{Error, GpuBackend, Result, VhostUserBackendReqHandlerMut};

use super::Shared;
use super::inflight::InflightArea;
use super::iommu::{Iommu, Miss};
use super::migration::MigrationLog;
use crate::event::Event;
use crate::memory::{GuestMemory, MAX_REGIONS, RegionLayout};
use crate::net::feature;
use crate::ring::{Areas, Direction, MAX_QUEUE_SIZE, QueueRegion, Ring, Started, Tracker};

/// How long a worker may take to its next poll boundary before we go on without it.
const PATIENCE: Duration = Duration::from_secs(2);
/// The same for a worker that has failed to come before.
const SHORT_PATIENCE: Duration = Duration::from_millis(20);

/// A queue as the front end describes it.
#[derive(Debug, Default)]
pub(super) struct Queue {
    size: u16,
    areas: Option<Areas>,
    /// Guest physical address by which writes of the used ring are logged, if they are to be.
    used_log: Option<u64>,
    /// Where the front end told us to start, or where the queue was stopped.
    base: Option<u32>,
    /// A kick was set, with or without an fd: the queue is started as soon as it can be.
    kicked: bool,
    kick: Option<Arc<Event>>,
    call: Option<Arc<Event>>,
    error: Option<Arc<Event>>,
    pub(super) enabled: bool,
    /// Which start this is; 0 while the queue is stopped.
    pub(super) epoch: u64,
    /// The translation without which it can't start.
    pub(super) missing: Option<Miss>,
    /// The in-flight region that it runs with, or ran with and was not told of where it stopped.
    pub(super) tracked: Option<QueueRegion>,
}

/// The state of one connection.
pub(super) struct Session {
    pub(super) shared: Arc<Shared>,
    pub(super) offered: u64,
    pub(super) features: u64,
    pub(super) protocol: u64,
    /// The virtio device status, as the driver set it.
    pub(super) device_status: u8,
    /// The features that the driver chose last were not accepted.
    pub(super) features_refused: bool,
    /// The MTU that the front end told us, in bytes.
    pub(super) mtu: Option<u16>,
    /// The MAC address that the driver wrote.
    pub(super) mac: Option<[u8; 6]>,
    pub(super) memory: Option<Arc<GuestMemory>>,
    /// The same as the rings see it, behind an IOMMU where there is one.
    view: Option<Arc<GuestMemory>>,
    pub(super) iommu: Iommu,
    /// Regions that were added again while they were there: QEMU 7.2 adds, and removes, each one once for
    /// every pair of queues.
    repeats: Vec<RegionLayout>,
    pub(super) queues: Vec<Queue>,
    log: MigrationLog,
    pub(super) inflight: Option<InflightArea>,
    /// Counts starts of queues, so that each has its own number.
    epochs: u64,
    patience: Duration,
}

pub(super) fn refuse<T>(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Result<T> {
    Err(Error::ReqHandlerError(io::Error::new(
        io::ErrorKind::InvalidInput,
        error,
    )))
}

fn unsupported<T>(what: &'static str) -> Result<T> {
    refuse(format!("{what} is not supported"))
}

impl Session {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let queues = (0..2 * shared.pairs.len())
            .map(|_| Queue::default())
            .collect();
        let offered = shared.config.features();
        Self {
            shared,
            offered,
            features: 0,
            protocol: 0,
            device_status: 0,
            features_refused: false,
            mtu: None,
            mac: None,
            memory: None,
            view: None,
            iommu: Iommu::default(),
            repeats: Vec::new(),
            queues,
            log: MigrationLog::default(),
            inflight: None,
            epochs: 0,
            patience: PATIENCE,
        }
    }

    /// Ends the connection: stops every queue and lets go of the memory.
    pub(super) fn close(&mut self) {
        self.stop_all();
        (self.memory, self.view) = (None, None);
        self.forget_translations();
        self.repeats.clear();
        self.log = MigrationLog::default();
        self.inflight = None;
        self.features = 0;
        self.protocol = 0;
        self.shared.update(|status| {
            status.connected = false;
            status.features = 0;
            status.protocol_features = 0;
            (status.device_status, status.mtu, status.mac) = (0, None, None);
        });
    }

    fn stop_all(&mut self) {
        for queue in &mut self.queues {
            *queue = Queue {
                call: queue.call.take(),
                error: queue.error.take(),
                // Where it is stopped may still be asked for.
                epoch: queue.epoch,
                tracked: queue.tracked.take(),
                ..Queue::default()
            };
        }
        // Nothing can fail to start where everything stops.
        let _ = self.refresh_all();
    }

    fn is_packed(&self) -> bool {
        self.features & feature::RING_PACKED != 0
    }

    fn queue(&mut self, index: u32) -> Result<&mut Queue> {
        let count = self.queues.len();
        match self.queues.get_mut(index as usize) {
            Some(queue) => Ok(queue),
            None => refuse(format!("queue {index} does not exist; there are {count}")),
        }
    }

    /// Builds what the worker needs for one queue, if it can run.
    fn started(&mut self, index: usize) -> std::result::Result<Option<Started>, &'static str> {
        let failed = self.has_failed();
        let can_log = self
            .protocol()
            .contains(VhostUserProtocolFeatures::LOG_SHMFD);
        let queue = &mut self.queues[index];
        queue.missing = None;
        let (Some(memory), Some(areas)) = (&self.view, queue.areas) else {
            return Ok(None);
        };
        if !queue.kicked || queue.size == 0 || failed {
            return Ok(None);
        }
        let mut log = None;
        if self.features & feature::LOG_ALL != 0 {
            log = self.log.of_ring(queue.used_log);
            // A queue that starts in the middle of a migration waits for the log, which follows.
            if log.is_none() && queue.epoch == 0 && can_log {
                return Ok(None);
            }
        }
        if memory.is_translated() {
            queue.missing = Self::missing(memory, &areas.parts(queue.size, self.features));
            if queue.missing.is_some() {
                return Ok(None);
            }
        }
        let direction = [Direction::Writable, Direction::Readable][index % 2];
        let (size, packed) = (queue.size, self.features & feature::RING_PACKED != 0);
        let mut ring = Ring::open(memory, size, areas, queue.base, direction, self.features)?;
        let area = self.inflight.as_ref();
        let region = area.map_or(Ok(None), |area| area.region(index, size, packed))?;
        let inflight = match region {
            Some(region) if queue.epoch == 0 => {
                let tracker = Tracker::start(region.clone(), &mut ring)?;
                if let Some(log) = &log {
                    ring.mark_taken_up(log);
                }
                queue.tracked = Some(region);
                Some(tracker)
            }
            region => region.map(Tracker::attach),
        };
        if queue.epoch == 0 {
            self.epochs += 1;
            queue.epoch = self.epochs;
            self.shared.pairs[index / 2]
                .report(index % 2)
                .set_stopped(ring.state());
        }
        Ok(Some(Started {
            ring,
            epoch: queue.epoch,
            features: self.features,
            enabled: queue.enabled || self.features & feature::PROTOCOL_FEATURES == 0,
            kick: queue.kick.clone(),
            call: queue.call.clone(),
            error: queue.error.clone(),
            log,
            inflight,
        }))
    }

    /// Hands a pair's rings to its worker as they now shall be.
    fn refresh(&mut self, pair: usize) -> Result<()> {
        let mut failed = None;
        let mut setup = [None, None];
        let mut stopped = [false; 2];
        for (side, place) in setup.iter_mut().enumerate() {
            let index = 2 * pair + side;
            *place = self.started(index).unwrap_or_else(|reason| {
                failed = Some(format!("queue {index} can't start: {reason}"));
                None
            });
            if place.is_none() {
                let epoch = std::mem::take(&mut self.queues[index].epoch);
                stopped[side] = epoch != 0;
            }
            let queue = &self.queues[index];
            let (started, enabled, size) = (place.is_some(), queue.enabled, queue.size);
            self.shared.update(|status| {
                let status = &mut status.queues[index];
                (status.started, status.enabled, status.size) = (started, enabled, size);
            });
        }
        let shared = &self.shared;
        if shared.pairs[pair].hand_over(setup, &shared.waker, self.patience) {
            self.patience = PATIENCE;
        } else {
            self.patience = SHORT_PATIENCE;
            shared.report(format!("the worker of queue pair {pair} does not poll"));
        }
        let packed = self.is_packed();
        for side in (0..2).filter(|side| stopped[*side]) {
            let state = self.shared.pairs[pair].report(side).stopped();
            self.queues[2 * pair + side].base = Some(state.base(packed));
        }
        failed.map_or(Ok(()), refuse)
    }

    /// As [`refresh`](Self::refresh), for a queue that runs or now may.
    fn refresh_queue(&mut self, index: u32) -> Result<()> {
        let queue = &self.queues[index as usize];
        if queue.epoch == 0 && !queue.kicked {
            Ok(())
        } else {
            self.refresh(index as usize / 2)
        }
    }

    pub(super) fn refresh_all(&mut self) -> Result<()> {
        let mut result = Ok(());
        for pair in 0..self.shared.pairs.len() {
            let queues = &self.queues[2 * pair..2 * pair + 2];
            let running = queues.iter().any(|q| q.epoch != 0 || q.kicked);
            if running || self.shared.pairs[pair].is_held() {
                result = result.and(self.refresh(pair));
            }
        }
        result
    }

    /// Puts another memory map in place; the old one goes once no worker uses it.
    fn set_memory(&mut self, memory: Option<Arc<GuestMemory>>) -> Result<()> {
        let old = std::mem::replace(&mut self.memory, memory);
        let result = self.show_memory();
        drop(old);
        result
    }

    /// Takes the event by which the front end wants to be told that the log changed.
    pub(super) fn set_log_event(&mut self, event: OwnedFd) -> Result<()> {
        self.log.changed = Self::adopt(Some(event.into()))?;
        self.refresh_all()
    }

    /// Hands the memory, as it is seen now, to all rings.
    pub(super) fn show_memory(&mut self) -> Result<()> {
        let view = self.view();
        if let Some(view) = view.as_ref().filter(|view| view.is_translated()) {
            self.settle_misses(view);
        }
        self.view = view;
        self.refresh_all()
    }

    fn adopt(file: Option<File>) -> Result<Option<Arc<Event>>> {
        match file.map(Event::adopt).transpose() {
            Ok(event) => Ok(event.map(Arc::new)),
            Err(error) => refuse(error),
        }
    }
}

fn layout(region: &VhostUserMemoryRegion) -> RegionLayout {
    RegionLayout {
        guest_address: region.guest_phys_addr,
        user_address: region.user_addr,
        size: region.memory_size,
        file_offset: region.mmap_offset,
    }
}

impl VhostUserBackendReqHandlerMut for Session {
    fn set_owner(&mut self) -> Result<()> {
        Ok(())
    }

    fn reset_owner(&mut self) -> Result<()> {
        self.stop_all();
        Ok(())
    }

    fn reset_device(&mut self) -> Result<()> {
        self.stop_all();
        self.retire_inflight();
        self.features = 0;
        (self.device_status, self.features_refused, self.mac) = (0, false, None);
        self.shared.update(|status| {
            (status.features, status.device_status, status.mac) = (0, 0, None);
        });
        Ok(())
    }

    fn get_features(&mut self) -> Result<u64> {
        Ok(self.offered)
    }

    fn set_features(&mut self, features: u64) -> Result<()> {
        self.judge_features(features)?;
        let before = self.is_translated();
        self.features = features;
        if self.is_translated() != before {
            self.forget_translations();
        }
        self.shared.update(|status| status.features = features);
        self.show_memory()
    }

    fn set_mem_table(
        &mut self,
        regions: &[VhostUserMemoryRegion],
        files: Vec<File>,
        _: Option<bool>,
    ) -> Result<Option<Vec<u64>>> {
        let regions = regions
            .iter()
            .map(layout)
            .zip(files.into_iter().map(OwnedFd::from));
        match GuestMemory::new(regions.collect()) {
            Ok(memory) => {
                self.repeats.clear();
                self.set_memory(Some(Arc::new(memory))).map(|()| None)
            }
            Err(error) => refuse(error),
        }
    }

    fn set_vring_num(&mut self, index: u32, num: u32) -> Result<()> {
        let packed = self.is_packed();
        let queue = self.queue(index)?;
        let size = u16::try_from(num).unwrap_or(0);
        if size == 0 || size > MAX_QUEUE_SIZE || !(packed || size.is_power_of_two()) {
            return refuse(format!(
                "queue size {num} is not a power of two up to {MAX_QUEUE_SIZE}"
            ));
        }
        if queue.epoch != 0 && queue.size != size {
            return refuse(format!("queue {index} runs; its size can't change"));
        }
        queue.size = size;
        Ok(())
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        flags: VhostUserVringAddrFlags,
        desc: u64,
        used: u64,
        avail: u64,
        log: u64,
    ) -> Result<()> {
        let queue = self.queue(index)?;
        let areas = Some(Areas {
            desc,
            driver: avail,
            device: used,
        });
        let logged = flags.contains(VhostUserVringAddrFlags::VHOST_VRING_F_LOG);
        let used_log = logged.then_some(log);
        if (queue.areas, queue.used_log) != (areas, used_log) {
            (queue.areas, queue.used_log) = (areas, used_log);
            self.refresh_queue(index)?;
        }
        Ok(())
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> Result<()> {
        let packed = self.is_packed();
        let queue = self.queue(index)?;
        if !packed && base > u16::MAX.into() {
            return refuse(format!("queue {index} can't start at {base}"));
        }
        if queue.epoch != 0 {
            return refuse(format!("queue {index} runs; its base can't change"));
        }
        queue.base = Some(base);
        Ok(())
    }

    fn get_vring_base(&mut self, index: u32) -> Result<VhostUserVringState> {
        let queue = self.queue(index)?;
        let ran = queue.epoch != 0;
        queue.kicked = false;
        queue.kick = None;
        if ran {
            self.refresh(index as usize / 2)?;
        }
        // Where it stands is told now, whatever becomes of us.
        if let Some(region) = self.queue(index)?.tracked.take() {
            region.retire();
        }
        // A front end tells of no translation that is taken back while nothing runs.
        if self.is_translated() && self.queues.iter().all(|queue| !queue.kicked) {
            self.forget_translations();
            self.view = self.view();
        }
        Ok(VhostUserVringState::new(
            index,
            self.queues[index as usize].base.unwrap_or(0),
        ))
    }

    fn set_vring_kick(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        let event = Self::adopt(fd)?;
        let queue = self.queue(index.into())?;
        queue.kick = event;
        queue.kicked = true;
        self.refresh_queue(index.into())
    }

    fn set_vring_call(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        let event = Self::adopt(fd)?;
        self.queue(index.into())?.call = event;
        self.refresh_queue(index.into())
    }

    fn set_vring_err(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        let event = Self::adopt(fd)?;
        self.queue(index.into())?.error = event;
        self.refresh_queue(index.into())
    }

    fn get_protocol_features(&mut self) -> Result<VhostUserProtocolFeatures> {
        let mut bits = VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::RARP
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::MTU
            | VhostUserProtocolFeatures::BACKEND_REQ
            | VhostUserProtocolFeatures::RESET_DEVICE
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
            | VhostUserProtocolFeatures::LOG_SHMFD
            | VhostUserProtocolFeatures::INFLIGHT_SHMFD
            | VhostUserProtocolFeatures::STATUS;
        bits.set(
            VhostUserProtocolFeatures::CONFIG,
            self.shared.config.has_space(),
        );
        Ok(bits)
    }

    fn set_protocol_features(&mut self, features: u64) -> Result<()> {
        let unknown = features & !self.get_protocol_features()?.bits();
        if unknown != 0 {
            return refuse(format!("protocol features {unknown:#x} were not offered"));
        }
        let before = self.is_translated();
        self.protocol = features;
        self.shared
            .update(|status| status.protocol_features = features);
        if self.is_translated() == before {
            return Ok(());
        }
        self.forget_translations();
        self.show_memory()
    }

    fn get_queue_num(&mut self) -> Result<u64> {
        // Some front ends count pairs here, others rings. The larger number suits both: none asks
        // for more queues than it was configured with.
        Ok(self.queues.len() as u64)
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<()> {
        let queue = self.queue(index)?;
        if queue.enabled != enable {
            queue.enabled = enable;
            self.refresh_queue(index)?;
            self.shared
                .update(|status| status.queues[index as usize].enabled = enable);
        }
        Ok(())
    }

    fn get_config(&mut self, offset: u32, size: u32, _: VhostUserConfigFlags) -> Result<Vec<u8>> {
        // Front ends ask for the whole structure of their own virtio version: the rest is zero.
        let space = self.space();
        let at = |i: usize| space.get(offset as usize + i).copied().unwrap_or(0);
        Ok((0..size.min(256) as usize).map(at).collect())
    }

    fn set_config(&mut self, offset: u32, bytes: &[u8], _: VhostUserConfigFlags) -> Result<()> {
        self.write_space(offset, bytes)
    }

    fn set_gpu_socket(&mut self, _: GpuBackend) -> Result<()> {
        unsupported("a GPU socket")
    }

    fn get_shared_object(&mut self, _: VhostUserSharedMsg) -> Result<File> {
        unsupported("sharing objects")
    }

    fn get_inflight_fd(&mut self, asked: &VhostUserInflight) -> Result<(VhostUserInflight, File)> {
        self.make_inflight_area(asked)
    }

    fn set_inflight_fd(&mut self, said: &VhostUserInflight, file: File) -> Result<()> {
        self.set_inflight_area(said, file)
    }

    fn get_max_mem_slots(&mut self) -> Result<u64> {
        Ok(MAX_REGIONS as u64)
    }

    fn add_mem_region(
        &mut self,
        region: &VhostUserSingleMemoryRegion,
        file: File,
        _: Option<bool>,
    ) -> Result<Option<u64>> {
        let (layout, fd) = (layout(region), OwnedFd::from(file));
        let known = self.memory.as_ref().is_some_and(|m| m.has_region(layout));
        if known && self.repeats.len() < self.shared.pairs.len() * MAX_REGIONS {
            self.repeats.push(layout);
            return Ok(None);
        }
        let memory = match &self.memory {
            Some(memory) => memory.with_region(layout, &fd),
            None => GuestMemory::new(vec![(layout, fd)]),
        };
        match memory {
            Ok(memory) => self.set_memory(Some(Arc::new(memory))).map(|()| None),
            Err(error) => refuse(error),
        }
    }

    fn remove_mem_region(&mut self, region: &VhostUserSingleMemoryRegion) -> Result<()> {
        let Some(memory) = &self.memory else {
            return refuse("there is no memory to remove");
        };
        let layout = layout(region);
        if let Some(repeat) = self.repeats.iter().position(|r| r.is_at(&layout)) {
            self.repeats.swap_remove(repeat);
            return Ok(());
        }
        match memory.without_region(layout) {
            Ok(memory) if memory.region_count() == 0 => self.set_memory(None),
            Ok(memory) => self.set_memory(Some(Arc::new(memory))),
            Err(error) => refuse(error),
        }
    }

    fn set_device_state_fd(
        &mut self,
        _: VhostTransferStateDirection,
        _: VhostTransferStatePhase,
        _: File,
    ) -> Result<Option<File>> {
        unsupported("moving device state")
    }

    fn check_device_state(&mut self) -> Result<()> {
        unsupported("moving device state")
    }

    fn get_shmem_config(&mut self) -> Result<VhostUserShMemConfig> {
        unsupported("shared memory regions")
    }

    fn set_log_base(&mut self, log: &VhostUserLog, file: File) -> Result<()> {
        let memory = self.memory.as_deref();
        match self
            .log
            .replace(file, log.mmap_size, log.mmap_offset, memory)
        {
            Ok(old) => {
                let result = self.refresh_all();
                drop(old);
                result
            }
            Err(error) => refuse(error),
        }
    }
}
