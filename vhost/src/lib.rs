//! vhost-user protocol and virtqueues, device and driver side; knows no packets and no functions.
//!
//! # Map
//! | module | what it is | unsafe |
//! | --- | --- | --- |
//! | [`backend`] | a device: socket, control thread, protocol, the worker's [`QueuePair`](backend::QueuePair) | none |
//! | [`ring`] | virtqueues from the device's side, in bursts | `split.rs`, `packed.rs`, `buffers.rs`, `from_guest.rs`, `to_guest.rs` |
//! | [`driver`] | a front end with memory and virtqueues of its own: tests, embedded guests, measurements | none |
//! | [`memory`] | guest memory: mapping, checks, translation | `memory.rs` |
//! | [`iotlb`] | translations behind an IOMMU | none |
//! | [`net`] | virtio-net header and feature bits | none |
//! | [`event`] | eventfds for kicks and calls | `event.rs` |
//! | [`socket`] | listening unix sockets | none |
//! | `copy` | copies between host and guest memory | `copy.rs` |
//! | `dirty_log` | the log of written pages that live migration reads | none |
//! | `virtqueue` | what both sides of a ring agree on, and its ordering | none |
//! | `sigbus` | survives a guest that truncates its memory | `sigbus.rs` |
//!
//! # Invariants
//! - No reference into guest memory ever exists. Values are read once, by atomics and by copies
//!   that the compiler can't repeat, checked, and owned from then on.
//! - A pointer into guest memory and its validated length stay together ([`ring`]'s pieces), and
//!   the ring that holds them keeps the memory mapped.
//! - Rings and memory change under a worker at one place only: [`QueuePair::poll`](backend::QueuePair::poll).
//!   The control thread answers the front end after the worker has passed it, and unmaps itself.
//! - Between two polls a worker neither locks, allocates, logs nor makes a system call, but for
//!   the one that notifies a guest that asked for it.
//! - What a guest or a front end does wrong stops that device's ring or connection and nothing
//!   else; [`Device::status`](backend::Device::status) tells the reason.
//! - Whoever polls a queue pair owns it; the control thread never touches a ring that runs.
//!
//! # Both sides
//! ```
//! use chainplane_vhost::backend::{Device, DeviceConfig};
//! use chainplane_vhost::driver::{FrontEnd, FrontEndConfig};
//! use chainplane_vhost::net::NetHeader;
//!
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path().join("vm.sock");
//! // The device, and a worker that polls its one pair of queues and sends every frame back.
//! let (device, mut pairs) = Device::start(DeviceConfig::new(&path), Box::new(|| {}))?;
//! # let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
//! # let stopped = stop.clone();
//! let worker = std::thread::spawn(move || {
//!     let pair = &mut pairs[0];
//!     let mut frame = [0; 2048];
//!     while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
//!         pair.poll();
//!         for i in 0..pair.from_guest.fetch(64) {
//!             let len = pair.from_guest.read(i, 0, &mut frame);
//!             if pair.to_guest.reserve(&[len as u32]) == 1 {
//!                 pair.to_guest.fill(0, pair.from_guest.header(i), &frame[..len]);
//!                 pair.to_guest.publish();
//!             }
//!         }
//!         pair.from_guest.complete();
//!     }
//! });
//!
//! // A guest: it sends a frame and waits for the answer.
//! let (front_end, mut queues) = FrontEnd::connect(FrontEndConfig::new(&path))?;
//! queues[0].transmit.send(NetHeader::default(), b"hello, device; this is a frame");
//! queues[0].transmit.flush();
//! let mut answer = Vec::new();
//! while queues[0].receive.receive(64, |_, frame| answer = frame.to_vec()) == 0 {}
//! assert_eq!(answer, b"hello, device; this is a frame");
//! # stop.store(true, std::sync::atomic::Ordering::Relaxed);
//! # worker.join().unwrap();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod backend;
mod copy;
#[doc(hidden)]
pub mod crossfire;
mod dirty_log;
pub mod driver;
pub mod event;
#[doc(hidden)]
pub mod fuzzing;
pub mod iotlb;
pub mod memory;
pub mod net;
pub mod ring;
mod sigbus;
pub mod socket;
mod virtqueue;
