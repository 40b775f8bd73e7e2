//! What is sent: sizes, flows, addresses.

mod divisor;
pub mod fill;
pub mod head;
pub mod look;
mod packets;
pub mod random;
pub mod replay;
pub mod stamp;
#[cfg(test)]
pub mod tests;
mod text;
pub mod tuple;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use chainplane_dataplane::packet::Mac;

pub use divisor::Divisor;
pub use packets::{Capture, Cursor, MAX_FLOWS, Packets};

/// Everything that makes the packets of a trial. The same description gives the same packets.
#[derive(Clone, Debug, PartialEq)]
pub struct Traffic {
    /// Lengths of the frames.
    pub sizes: Sizes,
    /// Versions of IP.
    pub ip: IpVersions,
    /// What IP carries.
    pub transport: Transports,
    /// Flows at a time: 1 to 10 million.
    pub flows: u32,
    /// How packets are spread over the flows.
    pub spread: Spread,
    /// Flows a second that end, each with a new one in its place. 0 keeps the same for ever.
    pub new_flows: f64,
    /// Whether the second endpoint sends as well: on each flow, what a server would answer.
    pub bidirectional: bool,
    /// The two sides: who opens flows, and who answers.
    pub sides: [Side; 2],
    /// A capture file whose packets' lengths, protocols and flows are sent instead, with the addresses and ports of
    /// `sides`.
    pub replay: Option<PathBuf>,
    /// Where everything random starts.
    pub seed: u64,
}

/// Lengths of frames, in bytes with the Ethernet header and without the frame check sequence, which no virtqueue
/// carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sizes {
    /// All of one length.
    Fixed(u16),
    /// Several lengths, each with its weight; they take turns in an order that the seed decides.
    Mix(Vec<(u16, u32)>),
}

impl Sizes {
    /// The mix that the field calls IMIX: 7 of 64, 4 of 594 and 1 of 1514 bytes, which is 1518 with
    /// its check sequence and fills an MTU of 1500.
    pub fn imix() -> Self {
        Self::Mix(vec![(64, 7), (594, 4), (1514, 1)])
    }

    /// The longest.
    pub fn longest(&self) -> Option<u16> {
        match self {
            Self::Fixed(size) => Some(*size),
            Self::Mix(mix) => mix.iter().map(|(size, _)| *size).max(),
        }
    }

    /// The same, with every length of a mix at least `shortest`.
    pub fn raise(&mut self, shortest: u16) {
        if let Self::Mix(mix) = self {
            for (size, _) in mix {
                *size = (*size).max(shortest);
            }
        }
    }

    /// Average length in bytes.
    pub fn mean(&self) -> f64 {
        match self {
            Self::Fixed(size) => f64::from(*size),
            Self::Mix(mix) => {
                let weight: f64 = mix.iter().map(|(_, weight)| f64::from(*weight)).sum();
                let bytes = mix.iter().map(|(s, w)| f64::from(*s) * f64::from(*w));
                bytes.sum::<f64>() / weight.max(1.0)
            }
        }
    }
}

/// Versions of IP in the traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpVersions {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
    /// Every other flow is IPv6.
    Mixed,
}

/// What IP carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transports {
    /// UDP datagrams.
    Udp,
    /// TCP segments: a handshake opens each flow, the rest are segments of the connection.
    Tcp,
    /// Every other flow is TCP.
    Mixed,
}

/// How packets are spread over flows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Spread {
    /// Each flow has its turn.
    Uniform,
    /// Flow `n` of 1, 2, … gets a share in proportion to `n^-s`.
    Zipf(f64),
}

/// An endpoint's place in the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Side {
    /// The MAC address of all hosts here.
    pub mac: Mac,
    /// First IPv4 address of the hosts here.
    pub v4: Ipv4Addr,
    /// First IPv6 address of the hosts here.
    pub v6: Ipv6Addr,
    /// Hosts of each version: consecutive addresses.
    pub hosts: u32,
    /// First port. The first side takes as many as the flows need from it on, the second serves this one only.
    pub port: u16,
    /// Where frames go first; `None` sends them straight to the other side's MAC address.
    pub next_hop: Option<NextHop>,
}

/// Where the frames of a side go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextHop {
    /// To this MAC address.
    Mac(Mac),
    /// To the router that has this address; it is resolved by ARP or neighbour discovery.
    Router(IpAddr),
    /// To whoever has the destination's address on this link; resolved by ARP or neighbour discovery.
    OnLink,
}

impl Default for Traffic {
    /// 64 bytes, UDP over IPv4, one flow each way, straight from one side to the other.
    fn default() -> Self {
        Self {
            sizes: Sizes::Fixed(64),
            ip: IpVersions::V4,
            transport: Transports::Udp,
            flows: 1,
            spread: Spread::Uniform,
            new_flows: 0.0,
            bidirectional: true,
            sides: [Side::plain(1), Side::plain(2)],
            replay: None,
            seed: 1,
        }
    }
}

impl Side {
    /// Side 1 or 2 of a link with nothing but bridges in between, in the networks for benchmarks: 198.18.0.0/15
    /// (RFC 2544, appendix C) and `2001:2::/48` (RFC 5180, section 8).
    pub fn plain(number: u8) -> Self {
        Self {
            mac: Mac([0x02, 0, 0, 0, 0xbe, number]),
            v4: Ipv4Addr::new(198, 17 + number, 0, 2),
            v6: Ipv6Addr::new(0x2001, 2, 0, number.into(), 0, 0, 0, 2),
            hosts: if number == 1 { 4096 } else { 1 },
            port: if number == 1 { 1024 } else { 9 },
            next_hop: None,
        }
    }
}
