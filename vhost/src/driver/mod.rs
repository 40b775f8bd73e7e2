//! The driver side: a front end with guest memory and virtqueues of its own.
//!
//! It plays a VM for tests, for embedded guests and for measurements, against any vhost-user back
//! end. [`FrontEnd::connect`] negotiates and starts the queues; each [`DriverPair`] then goes to
//! the thread that plays the guest.

mod fast;
mod front_end;
mod inflight;
mod iommu;
mod layout;
mod migration;
mod packed;
mod receive;
mod requests;
mod ring;
mod split;
mod transmit;

pub use fast::{FastMode, FastPair, Moved};
pub use front_end::{DriverError, FrontEnd, FrontEndConfig};
pub use layout::{GUEST_BASE, RingLayout, USER_BASE};
pub use migration::PageLog;
pub use receive::ReceiveQueue;
pub use transmit::TransmitQueue;

/// One pair of queues from the driver's side.
#[derive(Debug)]
pub struct DriverPair {
    /// Frames from the device.
    pub receive: ReceiveQueue,
    /// Frames to the device.
    pub transmit: TransmitQueue,
}
