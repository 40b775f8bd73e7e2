//! The front end: connection, memory, negotiation.

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use vhost::vhost_user::message::{VhostUserHeaderFlag, VhostUserProtocolFeatures};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};

use super::inflight::InflightArea;
use super::iommu::PHYSICAL_BASE;
use super::layout::{GUEST_BASE, RingLayout, USER_BASE, lay_out};
use super::ring::DriverRing;
use super::{DriverPair, ReceiveQueue, TransmitQueue};
use crate::backend::Role;
use crate::memory::Mapping;
use crate::net::feature;
use crate::ring::{MAX_FRAME, MAX_QUEUE_SIZE};

/// Size of the huge pages that are asked for.
const HUGE_PAGE: usize = 2 << 20;

/// Configuration of a [`FrontEnd`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrontEndConfig {
    /// Path of the unix socket.
    pub socket: PathBuf,
    /// Who listens on it: as server we do, and a back end in client mode connects.
    pub role: Role,
    /// Pairs of queues to use.
    pub queue_pairs: u16,
    /// Entries of each ring: a power of two, unless the rings are packed.
    pub queue_size: u16,
    /// Features to ask for; what the back end does not offer is left out.
    pub features: u64,
    /// Bytes of each receive buffer. Without mergeable buffers it must hold the longest frame.
    pub receive_buffer: u32,
    /// Bytes of each transmit buffer; longer frames use several.
    pub transmit_buffer: u32,
    /// Where buffers begin behind a cache line's start, below 64: with 52, a frame begins behind its
    /// header of 12 bytes with a cache line.
    pub buffer_offset: u32,
    /// Bytes of memory besides what the queues need, for a guest that has code and tables there.
    pub spare_memory: usize,
    /// Whether to try 2 MiB pages; ordinary ones serve where there are none.
    pub huge_pages: bool,
    /// Whether to share the memory by adding a slot, as VMMs that plug memory do, where the back
    /// end can, and not by a table.
    pub memory_slots: bool,
    /// Whether to keep what the back end has in flight, where it can tell, so that packed rings
    /// survive it.
    pub inflight: bool,
    /// How long to wait for the other side of the socket.
    pub patience: Duration,
}

impl FrontEndConfig {
    /// Split rings and everything that back ends of this crate offer for them, but for
    /// [`feature::IN_ORDER`]; one queue pair of 256 entries, 2 KiB buffers, connecting to `socket`.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
            role: Role::Client,
            queue_pairs: 1,
            queue_size: 256,
            features: feature::VERSION_1
                | feature::MRG_RXBUF
                | feature::INDIRECT_DESC
                | feature::EVENT_IDX
                | feature::MQ
                | feature::CTRL_VQ
                | feature::OFFLOADS,
            receive_buffer: 2048,
            transmit_buffer: 2048,
            buffer_offset: 0,
            spare_memory: 0,
            huge_pages: false,
            memory_slots: false,
            inflight: false,
            patience: Duration::from_secs(10),
        }
    }

    fn check(&self) -> Result<(), DriverError> {
        let refuse = |text: &str| Err(DriverError::Config(text.into()));
        if self.queue_pairs == 0 || self.queue_pairs > 64 {
            return refuse("queue pairs must be 1 to 64");
        }
        if self.queue_size == 0 || self.queue_size > MAX_QUEUE_SIZE {
            return refuse("queue size must be 1 to 32768");
        }
        let packed = self.features & feature::RING_PACKED != 0;
        if !packed && !self.queue_size.is_power_of_two() {
            return refuse("the size of a split ring must be a power of two");
        }
        let sizes = 64..=1 << 20;
        if !sizes.contains(&self.receive_buffer) || !sizes.contains(&self.transmit_buffer) {
            return refuse("buffers must be of 64 bytes to 1 MiB");
        }
        if self.buffer_offset >= 64 {
            return refuse("buffers begin 0 to 63 bytes behind a cache line's start");
        }
        Ok(())
    }
}

/// Why a front end did not come up.
#[derive(Debug)]
pub enum DriverError {
    /// The configuration contradicts itself, or what was negotiated.
    Config(String),
    /// The kernel refused something.
    Io(io::Error),
    /// The protocol failed, or the back end refused a request.
    Protocol(vhost::Error),
}

impl fmt::Display for DriverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(text) => f.write_str(text),
            Self::Io(error) => error.fmt(f),
            Self::Protocol(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for DriverError {}

impl From<io::Error> for DriverError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<vhost::Error> for DriverError {
    fn from(error: vhost::Error) -> Self {
        Self::Protocol(error)
    }
}

/// A connection to a back end, with the memory that both share. Dropping it disconnects.
pub struct FrontEnd {
    config: FrontEndConfig,
    frontend: Frontend,
    /// The same socket, for what the crate does not send.
    stream: UnixStream,
    /// Where the back end's requests come in.
    pub(super) requests: Option<UnixStream>,
    protocol: VhostUserProtocolFeatures,
    file: OwnedFd,
    memory: Arc<Mapping>,
    layouts: Vec<RingLayout>,
    /// Where the queues' memory ends.
    spare: usize,
    offered: u64,
    features: u64,
    running: bool,
    /// Memory goes by slots.
    slots: bool,
    /// The back end has the memory.
    shared: bool,
    /// Where the back end tells what is in flight.
    pub(super) inflight: Option<InflightArea>,
}

impl fmt::Debug for FrontEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrontEnd")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl FrontEnd {
    /// Connects (or, as server, waits for a connection), negotiates, and starts the queues.
    ///
    /// # Errors
    /// A contradictory configuration, a socket where nobody answers in time, a back end that
    /// refuses a request.
    pub fn connect(config: FrontEndConfig) -> Result<(Self, Vec<DriverPair>), DriverError> {
        config.check()?;
        let stream = open(&config)?;
        Self::from_stream(config, stream)
    }

    /// Connects anew after the back end has gone, as VMMs do, and goes on with the same memory and
    /// the same pairs. What the old back end had not given back is the new one's.
    ///
    /// # Errors
    /// As [`connect`](Self::connect), a back end that offers less than the old one, and packed
    /// rings of which nobody knows any more where the old one stood, since it told
    /// [nothing in flight](FrontEndConfig::inflight).
    pub fn reconnect(&mut self, pairs: &[DriverPair]) -> Result<(), DriverError> {
        let stream = open(&self.config)?;
        self.stream = stream.try_clone()?;
        self.frontend = Frontend::from_stream(stream, self.layouts.len() as u64);
        (self.running, self.shared) = (false, false);
        self.negotiate()?;
        if self.features & !self.offered != 0 {
            return Err(DriverError::Config(
                "the back end offers less than before".into(),
            ));
        }
        self.prepare()?;
        let tracked = self.share_inflight()?;
        let rings = pairs
            .iter()
            .flat_map(|p| [&p.receive.ring, &p.transmit.ring]);
        let start = DriverRing::base(self.features);
        let bases: Option<Vec<_>> = rings
            .map(|ring| ring.restored_base().or(tracked.then_some(start)))
            .collect();
        let bases = bases.ok_or_else(|| {
            DriverError::Config("where a packed ring stood is lost with its back end".into())
        })?;
        self.resume(pairs, &bases)?;
        self.finish()
    }

    /// As [`connect`](Self::connect), over a socket that is connected already.
    ///
    /// # Errors
    /// As there.
    pub fn from_stream(
        config: FrontEndConfig,
        stream: UnixStream,
    ) -> Result<(Self, Vec<DriverPair>), DriverError> {
        config.check()?;
        let (layouts, spare) = lay_out(&config);
        let len = spare + config.spare_memory;
        let (file, memory) = allocate(len, config.huge_pages)?;
        let ours = stream.try_clone()?;
        let frontend = Frontend::from_stream(stream, 2 * u64::from(config.queue_pairs));
        let mut front_end = Self {
            config,
            frontend,
            stream: ours,
            requests: None,
            protocol: VhostUserProtocolFeatures::empty(),
            file,
            memory,
            layouts,
            spare,
            offered: 0,
            features: 0,
            running: false,
            slots: false,
            shared: false,
            inflight: None,
        };
        front_end.negotiate()?;
        let wanted = front_end.config.features;
        let pairs = front_end.restart(wanted)?;
        Ok((front_end, pairs))
    }

    /// What comes once for a connection, up to the memory table.
    fn negotiate(&mut self) -> Result<(), DriverError> {
        self.frontend.set_owner()?;
        self.offered = self.frontend.get_features()?;
        if self.offered & feature::PROTOCOL_FEATURES != 0 {
            let mut known = VhostUserProtocolFeatures::MQ
                | VhostUserProtocolFeatures::LOG_SHMFD
                | VhostUserProtocolFeatures::RARP
                | VhostUserProtocolFeatures::REPLY_ACK
                | VhostUserProtocolFeatures::MTU
                | VhostUserProtocolFeatures::CONFIG
                | VhostUserProtocolFeatures::RESET_DEVICE
                | VhostUserProtocolFeatures::STATUS;
            known.set(
                VhostUserProtocolFeatures::BACKEND_REQ,
                self.config.features & feature::ACCESS_PLATFORM != 0,
            );
            known.set(
                VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS,
                self.config.memory_slots,
            );
            known.set(
                VhostUserProtocolFeatures::INFLIGHT_SHMFD,
                self.config.inflight,
            );
            let common = self.frontend.get_protocol_features()? & known;
            self.slots = common.contains(VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS);
            self.frontend.set_protocol_features(common)?;
            self.protocol = common;
            if common.contains(VhostUserProtocolFeatures::REPLY_ACK) {
                self.frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
            }
            if common.contains(VhostUserProtocolFeatures::BACKEND_REQ) {
                self.open_channel()?;
            }
            // The number of queues is not asked for: some peers count pairs there, others rings.
            if !common.contains(VhostUserProtocolFeatures::MQ) && self.config.queue_pairs > 1 {
                return Err(DriverError::Config(
                    "the back end has one queue pair only".into(),
                ));
            }
        }
        Ok(())
    }

    /// Stops the queues, if they run, and starts them again from nothing with other features, as
    /// a guest does that boots another driver. Pairs of an earlier start are dead.
    ///
    /// # Errors
    /// A back end that refuses, or receive buffers that are too small for what was negotiated.
    pub fn restart(&mut self, features: u64) -> Result<Vec<DriverPair>, DriverError> {
        if self.running {
            self.stop()?;
        }
        self.features = features & self.offered & !feature::PROTOCOL_FEATURES;
        self.check_buffers()?;
        if self.features & feature::RING_PACKED == 0 && !self.config.queue_size.is_power_of_two() {
            return Err(DriverError::Config(
                "without packed rings, the queue size must be a power of two".into(),
            ));
        }
        self.prepare()?;
        self.renew_inflight()?;
        let mut pairs: Vec<_> = (0..self.layouts.len() / 2)
            .map(|pair| self.make_pair(pair))
            .collect::<Result<_, _>>()?;
        for (index, pair) in pairs.iter_mut().enumerate() {
            self.start_pair(index, pair)?;
        }
        self.running = true;
        self.enable(true)?;
        self.finish()?;
        Ok(pairs)
    }

    /// What comes before queues are started: features and memory.
    fn prepare(&mut self) -> Result<(), DriverError> {
        if self.has_status() {
            self.begin_status()?;
        }
        let protocol = self.offered & feature::PROTOCOL_FEATURES;
        self.frontend.set_features(self.features | protocol)?;
        if !self.shared {
            self.share_memory()?;
            self.shared = true;
        }
        Ok(())
    }

    /// What comes after it.
    fn finish(&self) -> Result<(), DriverError> {
        if self.has_status() {
            self.end_status()?;
        }
        Ok(())
    }

    /// Whether the back end tells what is in flight.
    pub(super) fn has_inflight(&self) -> bool {
        self.protocol
            .contains(VhostUserProtocolFeatures::INFLIGHT_SHMFD)
    }

    fn has_status(&self) -> bool {
        self.protocol.contains(VhostUserProtocolFeatures::STATUS)
    }

    /// Stops one pair of queues and starts it again from nothing, as drivers do it with
    /// [`feature::RING_RESET`], while the others go on. The pair of before is dead.
    ///
    /// # Errors
    /// A back end that refuses.
    pub fn reset_pair(&mut self, index: usize) -> Result<DriverPair, DriverError> {
        for queue in [2 * index, 2 * index + 1] {
            self.frontend.set_vring_enable(queue, false)?;
            self.frontend.get_vring_base(queue)?;
        }
        let mut pair = self.make_pair(index)?;
        self.start_pair(index, &mut pair)?;
        for queue in [2 * index, 2 * index + 1] {
            self.frontend.set_vring_enable(queue, true)?;
        }
        Ok(pair)
    }

    /// Rings that nobody has used yet, of a pair that is stopped.
    fn make_pair(&self, index: usize) -> Result<DriverPair, DriverError> {
        let layouts = [self.layouts[2 * index], self.layouts[2 * index + 1]];
        for layout in layouts {
            // Whole pages from the descriptors up to the tables: the rings and nothing else.
            self.memory
                .write(layout.desc, &vec![0; layout.tables - layout.desc]);
        }
        let memory = &self.memory;
        Ok(DriverPair {
            receive: ReceiveQueue::new(memory.clone(), layouts[0], self.features)?,
            transmit: TransmitQueue::new(memory.clone(), layouts[1], self.features)?,
        })
    }

    fn start_pair(&self, index: usize, pair: &mut DriverPair) -> Result<(), DriverError> {
        let base = DriverRing::base(self.features);
        self.start_queue(2 * index, &pair.receive.ring, base)?;
        self.start_queue(2 * index + 1, &pair.transmit.ring, base)?;
        pair.receive.flush();
        Ok(())
    }

    fn check_buffers(&self) -> Result<(), DriverError> {
        let tso =
            feature::GUEST_TSO4 | feature::GUEST_TSO6 | feature::GUEST_USO4 | feature::GUEST_USO6;
        let needed = if self.features & tso == 0 {
            1514 + 12
        } else {
            MAX_FRAME as u32 + 12
        };
        if self.features & feature::MRG_RXBUF == 0 && self.config.receive_buffer < needed {
            return Err(DriverError::Config(format!(
                "receive buffers of {} bytes can't hold frames of {needed} without merging",
                self.config.receive_buffer
            )));
        }
        Ok(())
    }

    /// Shares the memory: sends the memory table, anew if it did before, or adds a slot.
    ///
    /// # Errors
    /// A back end that refuses it.
    pub fn share_memory(&self) -> Result<(), DriverError> {
        let region = VhostUserMemoryRegionInfo {
            guest_phys_addr: if self.is_translated() {
                PHYSICAL_BASE
            } else {
                GUEST_BASE
            },
            memory_size: self.memory.len() as u64,
            userspace_addr: USER_BASE,
            mmap_offset: 0,
            mmap_handle: self.file.as_raw_fd(),
        };
        if self.slots {
            self.frontend.clone().add_mem_region(&region)?;
        } else {
            self.frontend.set_mem_table(&[region])?;
        }
        Ok(())
    }

    fn start_queue(&self, index: usize, ring: &DriverRing, base: u32) -> Result<(), DriverError> {
        self.frontend.set_vring_num(index, ring.layout().size)?;
        // The lower half: both places of a packed ring are the same when it is stopped.
        self.frontend.set_vring_base(index, base as u16)?;
        self.set_addresses(index, ring, false)?;
        self.frontend.set_vring_call(index, &ring.call().share()?)?;
        self.frontend.set_vring_kick(index, &ring.kick().share()?)?;
        Ok(())
    }

    /// Tells where a queue's parts are, and whether writes of the used ring are to be logged.
    pub(super) fn set_addresses(
        &self,
        index: usize,
        ring: &DriverRing,
        log: bool,
    ) -> Result<(), DriverError> {
        let layout = ring.layout();
        let start = if self.is_translated() {
            GUEST_BASE
        } else {
            USER_BASE
        };
        let address = |offset: usize| start + offset as u64;
        let config = VringConfigData {
            queue_max_size: layout.size,
            queue_size: layout.size,
            flags: log.into(),
            desc_table_addr: address(layout.desc),
            used_ring_addr: address(layout.used),
            avail_ring_addr: address(layout.avail),
            log_addr: log.then_some(GUEST_BASE + layout.used as u64),
        };
        Ok(self.frontend.set_vring_addr(index, &config)?)
    }

    /// Enables or disables every queue.
    ///
    /// # Errors
    /// A back end that refuses.
    pub fn enable(&mut self, enable: bool) -> Result<(), DriverError> {
        if self.offered & feature::PROTOCOL_FEATURES != 0 {
            for index in 0..self.layouts.len() {
                self.frontend.set_vring_enable(index, enable)?;
            }
        }
        Ok(())
    }

    /// Stops every queue; tells where each stood.
    ///
    /// # Errors
    /// A back end that does not answer.
    pub fn stop(&mut self) -> Result<Vec<u32>, DriverError> {
        self.running = false;
        let stop = |index| Ok(self.frontend.get_vring_base(index)?);
        (0..self.layouts.len()).map(stop).collect()
    }

    /// Starts queues again that were stopped, with the same pairs, where they stood.
    ///
    /// # Errors
    /// A back end that refuses.
    pub fn resume(&mut self, pairs: &[DriverPair], bases: &[u32]) -> Result<(), DriverError> {
        let rings = pairs
            .iter()
            .flat_map(|p| [&p.receive.ring, &p.transmit.ring]);
        for (index, (ring, base)) in rings.zip(bases).enumerate() {
            self.start_queue(index, ring, *base)?;
        }
        self.running = true;
        self.enable(true)
    }

    fn is_translated(&self) -> bool {
        self.features & feature::ACCESS_PLATFORM != 0
    }

    pub(super) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Whether the back end acknowledges requests.
    pub(super) fn acknowledges(&self) -> bool {
        self.protocol.contains(VhostUserProtocolFeatures::REPLY_ACK)
    }

    /// Features that both sides agreed on.
    pub fn features(&self) -> u64 {
        self.features
    }

    /// Features that the back end offers.
    pub fn offered(&self) -> u64 {
        self.offered
    }

    /// The guest's memory: every byte can be read and written, for tests that misbehave.
    pub fn memory(&self) -> &Arc<Mapping> {
        &self.memory
    }

    /// The file behind the memory.
    pub fn memory_file(&self) -> &OwnedFd {
        &self.file
    }

    /// Where each queue is in the memory, in virtio's order.
    pub fn layouts(&self) -> &[RingLayout] {
        &self.layouts
    }

    /// Offset of the [spare memory](FrontEndConfig::spare_memory), on a page boundary.
    pub fn spare(&self) -> usize {
        self.spare
    }

    /// The protocol's messages, one by one, for tests that misbehave.
    pub fn messages(&self) -> Frontend {
        self.frontend.clone()
    }
}

/// Makes a memfd and maps it, with huge pages where wanted and possible.
fn allocate(len: usize, huge: bool) -> io::Result<(OwnedFd, Arc<Mapping>)> {
    let make = |flags: MemfdFlags, len: usize| -> io::Result<(OwnedFd, Arc<Mapping>)> {
        let fd = memfd_create("guest-memory", MemfdFlags::CLOEXEC | flags)?;
        ftruncate(&fd, len as u64)?;
        let mapping = Mapping::of_file(&fd, len)?;
        Ok((fd, Arc::new(mapping)))
    };
    if huge {
        let flags = MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB;
        if let Ok(made) = make(flags, len.next_multiple_of(HUGE_PAGE)) {
            return Ok(made);
        }
    }
    make(MemfdFlags::empty(), len.next_multiple_of(4096))
}

fn open(config: &FrontEndConfig) -> io::Result<UnixStream> {
    match config.role {
        Role::Client => dial(&config.socket, config.patience),
        Role::Server => answer(&config.socket, config.patience),
    }
}

/// Connects, again and again while nobody listens.
fn dial(path: &Path, patience: Duration) -> io::Result<UnixStream> {
    let deadline = Instant::now() + patience;
    loop {
        match UnixStream::connect(path) {
            Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(2)),
            result => return result,
        }
    }
}

/// Listens for one connection.
fn answer(path: &Path, patience: Duration) -> io::Result<UnixStream> {
    let listener = UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    let deadline = Instant::now() + patience;
    let result = loop {
        match listener.accept() {
            Ok((stream, _)) => break stream.set_nonblocking(false).map(|()| stream),
            Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
            Err(error) => break Err(error),
        }
    };
    let _ = std::fs::remove_file(path);
    result
}
