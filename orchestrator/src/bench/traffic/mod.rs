//! What is sent: sizes, flows, addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use chainplane_dataplane::packet::Mac;

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
    /// The mix that the field calls IMIX: 7 of 64, 4 of 594 and 1 of 1518 bytes.
    pub fn imix() -> Self {
        Self::Mix(vec![(64, 7), (594, 4), (1518, 1)])
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
