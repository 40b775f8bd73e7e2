//! Firewall: lets through what its rules allow, and the answers to it.
//!
//! ```yaml
//! edge:
//!   firewall:
//!     default: { outbound: allow, inbound: drop }
//!     rules:
//!       - { allow: tcp, direction: inbound, to: 203.0.113.10, ports: [80, 443, "8000-8080"] }
//!       - { drop: udp, from: [10.0.0.0/8], ports: 53 }
//!       - { allow: icmp, direction: inbound, icmp-types: 8 }
//!       - { allow: 47 }                       # GRE, by its protocol number
//!     sessions: 65536
//!     timeouts: { tcp-established: 7440, tcp-transitory: 240, udp: 300, icmp: 60 }    # seconds; these are the defaults
//! ```
//!
//! # What it does
//! * `outbound` is from the inside (left in the chain) to the outside. Rules are tried in order and the first that
//!   matches decides; where none does, the direction's default. Every condition of a rule must hold; of a list, one
//!   item. `icmp` means `ICMPv6` on IPv6.
//! * A TCP SYN, a UDP packet and an echo request that are allowed open a session. Packets of a session pass in both
//!   directions, whatever the rules say. A TCP packet that is no SYN and belongs to no session is dropped before
//!   the rules are asked, so a connection that was there before the firewall has to begin anew.
//! * A connection's timeout is `tcp-transitory` until both sides have sent SYN and again after the first FIN or RST
//!   (RFC 5382, section 5). Every packet of a session, in either direction, starts its timeout anew.
//! * An ICMP error passes if it quotes a packet of a session and is addressed to that packet's sender (RFC 5508,
//!   RFC 4443). It does not keep the session alive. Other ICMP is judged by the rules, packet by packet, as is every
//!   other protocol: answers to them need a rule of their own.
//! * ARP passes, reverse ARP (by which a guest that was migrated is announced), and neighbour solicitations, neighbour
//!   advertisements, router solicitations and router advertisements that come from the link (RFC 4861: hop limit
//!   255). Any other frame that is not IP is dropped.
//! * Sessions of different VLANs are different sessions.
//! * With `sessions` in use, a new one is refused (`sessions-full`); those there are go on.
//!
//! # What it does not do yet
//! * Fragments are dropped, the first one too: later ones have no ports, and a rule can't be asked about half a
//!   packet (RFC 1858).
//! * Sequence numbers are not checked, nor checksums of the transport.
//! * There is no `reject`: a dropped packet's sender is told nothing.
//!
//! # Many workers
//! Each worker of a crew has sessions of its own, up to its share of `sessions`, so that one may refuse a session while
//! another has room. Discovery comes to all of them, and is counted by each.
//!
//! # Counters
//! [`FirewallCounter`] and [`FirewallDrop`]; and for each rule and default how many packets it decided on. The
//! packets of a session that was allowed are counted by `in-session` alone.

mod config;
mod process;
#[cfg(test)]
mod properties;
mod rules;
#[cfg(test)]
mod tests;

pub use config::{Action, Config, Defaults, Direction, Protocol, Rule};
pub use process::{FirewallCounter, FirewallDrop};
