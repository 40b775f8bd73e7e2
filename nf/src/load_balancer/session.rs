//! What the load balancer knows of a connection.

use core::net::{IpAddr, Ipv4Addr};

use chainplane_dataplane::packet::{Packet, protocol, tcp_flag};
use chainplane_dataplane::session::{Key, Packed};

use super::config::Ticks;
use crate::track::{ipv6_of, words};

/// A connection's client, which has no other connection to the virtual address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client(pub IpAddr, pub u16);

impl Key for Client {
    #[inline]
    fn pack(&self) -> Packed {
        match self.0 {
            IpAddr::V4(address) => Packed::Narrow([address.to_bits(), self.1.into(), 0, 0]),
            address @ IpAddr::V6(_) => {
                let [high, low] = words(address);
                Packed::Wide([high, low, self.1.into(), 0, 0])
            }
        }
    }

    #[inline]
    fn unpack(packed: &Packed) -> Self {
        match *packed {
            Packed::Narrow([address, port, ..]) => {
                Self(Ipv4Addr::from_bits(address).into(), port as u16)
            }
            Packed::Wide([high, low, port, ..]) => Self(ipv6_of([high, low]), port as u16),
        }
    }
}

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// TCP: the client has spoken.
    Opening,
    /// TCP: the server has answered.
    Answered,
    /// TCP: the client has answered that.
    Established,
    /// TCP: one side has ended it.
    Closing,
    /// UDP.
    Datagrams,
}

/// Who sent a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The client.
    Client,
    /// The backend.
    Server,
}

/// A connection.
#[derive(Clone, Copy, Debug)]
pub struct Session {
    /// Its backend's index.
    pub backend: u16,
    /// Which of the backend's lives it belongs to.
    pub life: u32,
    /// How far it has come.
    pub state: State,
}

impl Session {
    /// A connection to this backend.
    pub fn new(protocol: u8, backend: usize, life: u32) -> Self {
        Self {
            backend: backend as u16,
            life,
            state: if protocol == protocol::TCP {
                State::Opening
            } else {
                State::Datagrams
            },
        }
    }

    /// Takes note of a packet of the connection.
    pub fn note(&mut self, packet: &Packet, from: Side) {
        let flags = packet.tcp_flags();
        let ends = flags & (tcp_flag::FIN | tcp_flag::RST) != 0;
        self.state = match (self.state, from) {
            (State::Datagrams, _) => State::Datagrams,
            _ if ends => State::Closing,
            (State::Opening, Side::Server) => State::Answered,
            (State::Answered, Side::Client) if flags & tcp_flag::SYN == 0 => State::Established,
            (state, _) => state,
        };
    }

    /// Whether a packet that may be replayed at all leaves it as it is.
    pub fn is_steady(self) -> bool {
        matches!(
            self.state,
            State::Established | State::Closing | State::Datagrams
        )
    }

    /// How long it lives from now on when nothing is seen of it.
    pub fn timeout(self, ticks: &Ticks) -> u32 {
        match self.state {
            State::Opening | State::Answered => ticks.opening,
            State::Established => ticks.established,
            State::Closing => ticks.closing,
            State::Datagrams => ticks.udp,
        }
    }
}
