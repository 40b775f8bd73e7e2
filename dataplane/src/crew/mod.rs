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

/// What a function says of addresses and ports whose packets must meet at one member.
///
/// An endpoint is an address with a port, or, at the side that asks, with an echo's identifier. A packet has two, and
/// which of them sent it makes no difference:
/// 1. A [fixed](Claim::Fixed) endpoint has no say, as it is known under several names; the other one decides alone, by
///    its port if it is of a pool, otherwise by its hash. Two fixed ones belong to the first member.
/// 2. One of a [pool](Claim::Pool) belongs to the member in whose [`Share`] its port is; of two, the lower member has it.
/// 3. One that is [inside](Claim::Inside) decides alone, by its hash.
/// 4. Two that are inside, or of which nobody says anything, decide together, by a hash in which they may change places.
///
/// So a connection whose source a function translates comes back to the function that chose one of its own ports for it,
/// and one whose destination is translated is where its client says, under whatever name its server is known. An ICMP
/// error belongs to whom the packet that it quotes belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// An endpoint that the configuration translates, or translates to: a service's address, its servers, both ends of a
    /// forward.
    Fixed {
        /// The address.
        address: IpAddr,
        /// The IP protocol.
        protocol: u8,
        /// The port.
        port: u16,
    },
    /// An address whose ports, and echo identifiers, the members share among them. A fixed endpoint of it is no part of
    /// this.
    Pool {
        /// The address.
        address: IpAddr,
    },
    /// Addresses of hosts that appear under one address and port whomever they speak with.
    Inside {
        /// The prefix's address.
        address: IpAddr,
        /// The prefix's length in bits.
        length: u8,
    },
}
