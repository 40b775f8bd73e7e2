//! NAT: lets many hosts inside share few addresses outside (NAPT, RFC 3022).
//!
//! ```yaml
//! egress:
//!   nat:
//!     pool: [203.0.113.2, 203.0.113.8/29]     # IPv4, up to 65536 addresses
//!     inside: [10.0.0.0/8]                    # sources to translate; all where absent
//!     forwards:
//!       - { protocol: tcp, address: 203.0.113.2, port: 2222, to: "10.0.0.5:22" }
//!     mac: "02:00:00:00:02:01"                # answers ARP for the pool; made from the function's name where absent
//!     inside-mac: "02:00:00:00:01:05"         # where forwards lead, unless a router's interface is at the inside
//!     sessions: 65536
//!     timeouts: { tcp-established: 7440, tcp-transitory: 240, udp: 300, icmp: 60 }    # seconds; these are the defaults
//! ```
//!
//! # What it does
//! * TCP, UDP and echoes from `inside` leave with an address of the pool. The mapping is endpoint-independent (RFC
//!   4787, REQ-1; RFC 5382, REQ-1): one inside address and port keeps one outside address and port, whomever it
//!   talks to, while any of its sessions lives. A host keeps its pool address (REQ-2) unless it has no port left.
//! * The source port is kept where it is free; otherwise a free one of the same range (below 1024, or not) is chosen
//!   at random (REQ-3; RFC 6056), of the same parity (REQ-4) unless 64 of those are taken. An endpoint whose mapping has
//!   ended gets the same port again while it is free.
//! * Filtering is address- and port-dependent towards the outside (REQ-8): in comes only what answers a session.
//!   Hosts inside reach each other's mappings without that.
//! * Hairpinning (REQ-9): a packet from `inside` to a pool address that has a mapping or a forward turns round, both
//!   addresses translated, with the NAT's own link-layer address as its source.
//! * A forward, whose host must be in `inside`, is a static mapping in both directions: what its inside host sends from that port leaves with the
//!   forward's address and port. Forwarded ports are never given to others.
//! * Only a TCP SYN opens a TCP session. Timeouts are those of the firewall, with RFC 5382's and RFC 5508's minima as
//!   defaults; packets of both directions keep a session and its mapping alive (REQ-6).
//! * ICMP errors about a session's packets are translated, with what they quote (RFC 5508, REQ-3 to REQ-6). They do
//!   not keep a session alive. An error from a router inside leaves with the session's pool address.
//! * It answers ARP requests for its pool that come from outside. All other ARP, IPv6 and frames that are not IP pass
//!   untouched, and so do IPv4 packets from other sources than `inside`, from inside to multicast or broadcast
//!   addresses, and from outside to other addresses than the pool's.
//! * What comes in goes to the link-layer address that the session's first packet from inside had as its source.
//!
//! # What it does not do yet
//! * Fragments to be translated are dropped, and other protocols than TCP, UDP and ICMP from `inside`.
//! * It does not answer pings to the pool, has no application-level gateways, no port blocks for each host, and
//!   does not translate IPv6.
//! * A session does not follow an inside host whose link-layer address changes; a new session has the new one.
//! * A TCP mapping that many connections share, one of which fell silent without FIN or RST, may live on for
//!   `tcp-established` after its last packet.
//!
//! # Many workers
//! Each worker of a crew has sessions and mappings of its own, up to its share of `sessions`, and gives away its share of
//! every pool address's ports and identifiers: a packet to one of them is that worker's. So the source port is kept only
//! where it is of the share. An inside endpoint belongs to one worker, whomever it speaks with, and a forward's packets
//! to their client's. All workers give a host the same pool address. There are three cases in which an endpoint gets
//! further mappings, one at another worker each:
//! * It sends to another host's mapping. That is at the other host's worker, which maps the sender as well: the other
//!   host sees it come from another port than hosts outside do, and what is sent there reaches it. Where the sender is a
//!   forwarded port, which appears as its forward, only the mapping that hosts outside see leads to an answer.
//! * Its peer is in `inside`, too, but is reached by the outside: the two decide together.
//! * It is a load balancer's server and opens connections from the port of its service: its peers decide.
//!
//! Without `inside`, private addresses (RFC 1918, RFC 6598) count as inside here; hosts with others have a mapping for each
//! worker that their peers belong to.
//!
//! # Counters
//! [`NatCounter`] and [`NatDrop`].

mod arp;
mod claims;
mod config;
mod error;
mod foresee;
mod forward;
mod mapping;
mod open;
mod pool;
mod ports;
mod process;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_of_crews;

pub use config::{Config, Forward, Transport};
pub use process::{NatCounter, NatDrop};
