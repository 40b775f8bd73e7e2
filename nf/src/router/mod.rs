//! Router: forwards between its interfaces by destination address.
//!
//! # What it does
//! * Forwards IPv4 and IPv6 by the longest matching prefix: the interfaces' own subnets and static routes, the
//!   default route among them. Lowers the TTL or hop limit (RFC 1812, RFC 8200).
//! * Finds its neighbours by ARP (RFC 826) and neighbour discovery (RFC 4861), and keeps them found: one that is
//!   known is asked again after 30 s, three times with 1 s in between, and given up if it does not answer. Up to 3
//!   packets wait for one neighbour, 64 for all. 4096 neighbours are kept beside those in the configuration.
//! * Answers ARP, neighbour solicitations (address probes included) and ping on its own addresses. With an IPv6
//!   address an interface has a link-local one too, made from its MAC address.
//! * Sends ICMP errors (RFC 792, RFC 1812, RFC 4443): time exceeded, network and host (in IPv6: route and address)
//!   unreachable, fragmentation needed and packet too big with the MTU, protocol and port unreachable for its own
//!   addresses; never about ICMP errors, later fragments, or what did not come from and to a single host; up to 50
//!   at once and 100 a second.
//! * Packets with IPv4 options and fragments are forwarded as they are, but not by flow records.
//!
//! # Example
//! ```yaml
//! router:
//!   interfaces:
//!     web: { address: [10.0.1.1/24, "fd00:1::1/64"], mac: "02:00:00:00:01:01", mtu: 1500 }
//!     wan: { address: 198.51.100.2/30, neighbours: { 198.51.100.1: "02:00:00:00:09:01" } }
//!   routes:
//!     - { to: 0.0.0.0/0, via: 198.51.100.1 }
//! ```
//! A MAC address that is not given is made from the function's and the interface's name. An interface has an MTU of
//! at least 576, with IPv6 1280; subnets of two interfaces do not overlap; a next hop is in an interface's subnet.
//!
//! # Many workers
//! Each worker of a crew finds neighbours by itself, and asks again by itself whether they are still there, so that a
//! neighbour may be asked by each. Every ARP and neighbour discovery message comes to all of them and is counted by each,
//! but answered by one; all learn the same from it, an answer to another worker's question included. Who that question
//! was from can't be told, so an answer to one of the router's own addresses that nobody asked for makes a neighbour
//! known, too, as a question would. The ICMP errors that may be sent, the packets that may wait and the neighbours that may
//! be looked for are shared out; 3 packets may wait for a neighbour on each worker.
//!
//! # Counters
//! `names.rs` declares every counter and drop reason with its meaning; operators see them in `show`.
//!
//! # What it does not do
//! * VLANs: a tagged frame is dropped and counted.
//! * Fragmentation: an IPv4 packet that is longer than the next link's MTU and may be fragmented is dropped and
//!   counted. Reassembly: fragments to its own addresses are dropped.
//! * Multicast, directed broadcast, redirects, proxy ARP, source routes, router advertisements and solicitations,
//!   MLD, the subnet-router anycast address, duplicate address detection for its own addresses (it defends them),
//!   next hops given as link-local addresses, several routes for one prefix, a check of the source's way back.
//! * Dynamic routing.

mod arp;
mod check;
mod config;
mod forward;
mod icmp;
mod lpm;
mod names;
mod ndp;
mod neighbours;
mod process;
mod resolve;
mod tables;
#[cfg(test)]
mod tests;

pub use config::{Config, Interface, Route};
