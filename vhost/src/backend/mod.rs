//! The back end: a device that a VMM's front end connects to over a vhost-user socket.
//!
//! [`Device::start`] opens the socket, starts the device's control thread and returns one
//! [`QueuePair`] for each pair of queues, to be moved to the worker that will poll it. The control
//! thread speaks the protocol; what changes on a ring it hands to the worker through a mailbox, of
//! which the worker sees one atomic load a poll.

mod config;
mod connection;
mod control;
pub(crate) mod fuzzing;
mod handover;
mod inflight;
mod iommu;
mod messages;
mod migration;
mod pair;
mod session;
mod socket;
mod status;

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

pub use config::{ConfigError, DeviceConfig, Role};
pub use pair::QueuePair;
pub use status::device_status;

use crate::event::Event;
use crate::ring::{RingCounters, RingError};
use control::Control;
use handover::PairShared;
use session::Session;

/// Wakes the worker that polls the device, so that it passes a poll boundary soon.
pub type Waker = Box<dyn Fn() + Send + Sync>;

/// Why a device did not start.
#[derive(Debug)]
pub enum StartError {
    /// The configuration contradicts itself.
    Config(ConfigError),
    /// The socket can't be opened; the text names the path and the reason.
    Socket(String),
    /// The kernel refused a thread or an eventfd.
    Io(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::Socket(text) => f.write_str(text),
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for StartError {}

impl From<io::Error> for StartError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// State of one queue, as an operator wants to see it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueStatus {
    /// The front end has started it.
    pub started: bool,
    /// The front end has enabled it.
    pub enabled: bool,
    /// Entries of its ring.
    pub size: u16,
    /// Why it was stopped by us, if it was.
    pub broken: Option<RingError>,
    /// What its worker counted, since the device started.
    pub counters: RingCounters,
}

/// State of a device, as an operator wants to see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceStatus {
    /// A front end is connected.
    pub connected: bool,
    /// Front ends that connected since the device started.
    pub connections: u64,
    /// Feature bits negotiated with the driver (see [`crate::net::feature`]).
    pub features: u64,
    /// Protocol feature bits negotiated with the front end.
    pub protocol_features: u64,
    /// The virtio device status that the front end told us ([`device_status`]).
    pub device_status: u8,
    /// The MTU in bytes that the front end told us.
    pub mtu: Option<u16>,
    /// The MAC address that the driver wrote to the configuration space.
    pub mac: Option<[u8; 6]>,
    /// Queues in virtio's order: to the guest, from the guest, and so on for each pair.
    pub queues: Vec<QueueStatus>,
    /// The last thing that went wrong.
    pub last_error: Option<String>,
}

/// What the control thread and the handle share.
pub(crate) struct Shared {
    pub(crate) config: DeviceConfig,
    pub(crate) status: Mutex<DeviceStatus>,
    pub(crate) pairs: Vec<Arc<PairShared>>,
    pub(crate) waker: Waker,
    pub(crate) stop: AtomicBool,
    /// Wakes the control thread: to stop, or to look at a ring that broke.
    pub(crate) wake: Arc<Event>,
}

impl Shared {
    fn new(config: DeviceConfig, waker: Waker) -> io::Result<Arc<Self>> {
        let pairs: Vec<_> = (0..config.queue_pairs).map(|_| PairShared::new()).collect();
        let queues = vec![QueueStatus::default(); 2 * pairs.len()];
        let status = DeviceStatus {
            queues,
            ..DeviceStatus::default()
        };
        Ok(Arc::new(Self {
            config,
            status: Mutex::new(status),
            pairs,
            waker,
            stop: AtomicBool::new(false),
            wake: Arc::new(Event::new()?),
        }))
    }

    /// The workers' sides of the pairs.
    fn workers(&self) -> Vec<QueuePair> {
        let worker = |pair: &Arc<PairShared>| QueuePair::new(pair.clone(), self.wake.clone());
        self.pairs.iter().map(worker).collect()
    }

    fn status(&self) -> DeviceStatus {
        let mut status = self
            .status
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        for (index, queue) in status.queues.iter_mut().enumerate() {
            let report = self.pairs[index / 2].report(index % 2);
            queue.broken = report.broken();
            queue.counters = report.counters();
        }
        status
    }

    /// Changes the status.
    pub(crate) fn update(&self, change: impl FnOnce(&mut DeviceStatus)) {
        change(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Notes an error for operators and logs it.
    pub(crate) fn report(&self, error: String) {
        tracing::warn!(socket = %self.config.socket.display(), "{error}");
        self.update(|status| status.last_error = Some(error));
    }
}

/// The control handle of a running device. Dropping it stops the device.
pub struct Device {
    shared: Arc<Shared>,
    connection: Arc<Mutex<Option<std::os::unix::net::UnixStream>>>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device")
            .field("socket", &self.shared.config.socket)
            .finish_non_exhaustive()
    }
}

impl Device {
    /// Opens the socket and starts the control thread.
    ///
    /// `waker` is called from the control thread whenever something changed for the workers.
    ///
    /// # Errors
    /// A configuration that contradicts itself, a socket path that can't be used, or no thread.
    pub fn start(config: DeviceConfig, waker: Waker) -> Result<(Self, Vec<QueuePair>), StartError> {
        config.check().map_err(StartError::Config)?;
        let endpoint = socket::Endpoint::open(&config)?;
        let shared = Shared::new(config, waker)?;
        let workers = shared.workers();
        let connection = Arc::new(Mutex::new(None));
        let control = Control::new(shared.clone(), endpoint, connection.clone());
        let thread = std::thread::Builder::new()
            .name("vhost-control".into())
            .spawn(move || control.run())?;
        Ok((
            Self {
                shared,
                connection,
                thread: Some(thread),
            },
            workers,
        ))
    }

    /// The device's state.
    pub fn status(&self) -> DeviceStatus {
        self.shared.status()
    }

    /// The configuration that the device was started with.
    pub fn config(&self) -> &DeviceConfig {
        &self.shared.config
    }

    /// Disconnects the front end, removes the socket and ends the control thread. The worker-side
    /// pairs may be dropped before or after.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.wake.signal();
        // A control thread that waits for the rest of a message, or for room for an answer, goes on.
        let connection = self
            .connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(stream) = connection.as_ref() {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
        drop(connection);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.end();
    }
}
