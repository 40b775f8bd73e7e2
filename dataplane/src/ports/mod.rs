//! The kinds of port.

mod af_packet;
mod generator;
mod interface;
mod packet_ring;
mod patch;
mod pcap;
mod rarp;
mod tap;
pub(crate) mod vhost_user;

pub use af_packet::{AfPacket, AfPacketConfig};
pub use generator::{Generator, GeneratorConfig, GeneratorError, Traffic};
pub use patch::{Patch, patch};
pub use pcap::{Capture, Pcap, PcapConfig, Replay, Timing, capture_file};
pub use tap::{Tap, TapConfig};
pub use vhost_user::VhostUser;
