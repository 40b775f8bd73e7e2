//! A crew: workers that run the same ports and functions together, each with flows, sessions and queues of its own.
//!
//! Every packet has an *owner*, the one member that handles it, found from its headers alone so that both directions of
//! a connection have the same one. What functions translate would tear the two apart; so they *claim* addresses and
//! ports, see [`Claim`].
//!
//! Whoever receives a packet that belongs to another member copies it into a ring of bytes that only these two use, and
//! goes on; the owner takes it out in one of its next polls, is woken for that if it sleeps, and handles it as if it had
//! received it. What finds a ring full is dropped and counted by its port, so nobody waits for anybody. The same rings
//! bring packets to a member that can send by a port, and copies of what all members are to learn from.
//!
//! [`crew`] makes the memberships; [`Engine::join`](crate::engine::Engine::join) takes one.

pub(crate) mod bell;
mod claims;
mod elsewhere;
mod membership;
mod owners;
mod quoted;
pub(crate) mod ring;
mod share;
#[cfg(test)]
mod threads;

use std::net::IpAddr;

pub use elsewhere::Elsewhere;
pub(crate) use membership::Handed;
pub use membership::{Membership, crew};
pub use owners::{Owner, Owners};
pub use share::Share;

/// What a function says of addresses and ports whose packets must meet at one member. An endpoint is an address with a
/// port, or an echo's identifier.
///
/// The first of these that fits says who owns a packet; without any it is a symmetric hash of both endpoints.
/// 1. the destination: [`Forward`](Claim::Forward), then [`Service`](Claim::Service), then [`Pool`](Claim::Pool);
/// 2. the source: [`Server`](Claim::Server);
/// 3. [`Inside`](Claim::Inside), of one of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// What is sent here is translated and belongs to whom the endpoint that it is translated to belongs to.
    Forward {
        /// The address.
        address: IpAddr,
        /// The IP protocol.
        protocol: u8,
        /// The port.
        port: u16,
        /// The endpoint inside.
        to: (IpAddr, u16),
    },
    /// What is sent here belongs to whom its source endpoint belongs to.
    Service {
        /// The address.
        address: IpAddr,
        /// The IP protocol.
        protocol: u8,
        /// The port; all without.
        port: Option<u16>,
    },
    /// What is sent here belongs to the member in whose [`Share`] the destination's port is.
    Pool {
        /// The address.
        address: IpAddr,
    },
    /// What comes from here belongs to whom its destination endpoint belongs to: answers of a service's servers.
    Server {
        /// The address.
        address: IpAddr,
        /// The IP protocol.
        protocol: u8,
        /// The port; all without.
        port: Option<u16>,
    },
    /// An endpoint here decides alone, whomever it speaks with; but for two of them, which do together.
    Inside {
        /// The prefix's address.
        address: IpAddr,
        /// The prefix's length in bits.
        length: u8,
    },
}
