//! What the load balancer knows of a connection.

use core::net::IpAddr;

use chainplane_dataplane::packet::{Packet, protocol, tcp_flag};

use super::config::Ticks;

/// A connection's client, and which server its packets go to or come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// The client.
    pub client: (IpAddr, u16),
    /// A backend's index, or [`Key::VIRTUAL`].
    server: u16,
}

impl Key {
    const VIRTUAL: u16 = u16::MAX;

    /// A packet from the client to the virtual address.
    pub fn forward(client: (IpAddr, u16)) -> Self {
        Self {
            client,
            server: Self::VIRTUAL,
        }
    }

    /// A packet from a backend to the client.
    pub fn reverse(client: (IpAddr, u16), backend: usize) -> Self {
        Self {
            client,
            server: backend as u16,
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
