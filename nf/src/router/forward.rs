//! The short way: packets for neighbours that are known, a batch at a time. Anything else goes the long one, packet by
//! packet.

use core::net::IpAddr;

use chainplane_dataplane::function::{Context, Exits, Interface};
use chainplane_dataplane::packet::{BURST, MacPair, Packet};

use super::names::Counter;
use super::neighbours::{Neighbours, Place};
use super::process::{ETHERNET, Router};
use super::tables::{Link, Source, Tables, Target, TargetId};

/// A next hop, as the neighbour table had it.
#[derive(Clone, Copy)]
struct NextHop {
    /// The neighbour table's version by then.
    version: u64,
    macs: MacPair,
    out: Interface,
    mtu: u16,
}

impl NextHop {
    /// Of a version that never is.
    const UNKNOWN: u64 = u64::MAX;
}

/// What was found ahead for a batch, and the next hops of routes, by target.
pub struct Forwarder {
    ahead: [TargetId; BURST],
    hops: Box<[NextHop]>,
    /// The source seen last that is a host's: most packets of a port are from the one before.
    host: Option<IpAddr>,
}

impl Forwarder {
    pub fn new(tables: &Tables) -> Self {
        let unknown = NextHop {
            version: NextHop::UNKNOWN,
            macs: MacPair::default(),
            out: Interface(0),
            mtu: 0,
        };
        Self {
            ahead: [0; BURST],
            hops: vec![unknown; tables.target_count()].into(),
            host: None,
        }
    }

    /// Finds where a batch leads.
    pub fn look_ahead(&mut self, tables: &Tables, batch: &[Packet]) {
        let mut ipv6 = false;
        for (packet, slot) in batch.iter().zip(&mut self.ahead) {
            *slot = packet.ipv4_dst();
            ipv6 |= packet.layers().is_ipv6();
        }
        let count = batch.len().min(BURST);
        tables.targets_v4(&mut self.ahead[..count]);
        if ipv6 {
            for (packet, slot) in batch.iter().zip(&mut self.ahead) {
                if packet.layers().is_ipv6() {
                    *slot = tables.target_id(packet.ip_dst());
                }
            }
        }
    }

    #[inline]
    fn is_host(&mut self, tables: &Tables, source: IpAddr) -> bool {
        if self.host != Some(source) {
            if tables.source(source) != Source::Host {
                return false;
            }
            self.host = Some(source);
        }
        true
    }

    /// By which interface and with which addresses a packet leaves that came in by `link`; `None` if that takes more
    /// than a look.
    #[inline]
    fn exit(
        &mut self,
        (tables, neighbours, link): (&Tables, &mut Neighbours, &Link),
        packet: &Packet,
        target: TargetId,
    ) -> Option<(Interface, MacPair)> {
        let layers = packet.layers();
        let is_plain = layers.l3 as usize == ETHERNET
            && (layers.is_ipv4() || layers.is_ipv6())
            && packet.mac_dst() == link.mac
            && link.speaks(layers.is_ipv6())
            && packet.ttl() > 1
            && self.is_host(tables, packet.ip_src());
        if !is_plain {
            return None;
        }
        let known = self.hops.get(target as usize)?;
        if known.version == neighbours.version() {
            let fits = packet.wire_len() <= known.mtu as usize;
            return fits.then_some((known.out, known.macs));
        }
        let (out, address, is_route) = match tables.target_of(target) {
            Target::Via(out, next_hop) => (out, next_hop, true),
            Target::OnLink(out) => (out, packet.ip_dst(), false),
            _ => return None,
        };
        let mtu = tables.link(out).mtu;
        if packet.wire_len() > mtu as usize {
            return None;
        }
        let place = Place {
            interface: out,
            address,
        };
        let (_, mac) = neighbours.ready(&place)?;
        let macs = MacPair::new(mac, tables.link(out).mac);
        if is_route {
            self.hops[target as usize] = NextHop {
                version: neighbours.version(),
                macs,
                out,
                mtu,
            };
        }
        Some((out, macs))
    }
}

impl Router {
    /// See [`chainplane_dataplane::function::Function::pass`].
    pub(super) fn pass_known(
        &mut self,
        cx: &mut Context<'_>,
        packets: &mut [Packet],
        place: usize,
        from: Interface,
        exits: &mut Exits,
    ) {
        let tables = &*self.tables;
        let link = tables.link(from);
        for (packet, place) in packets.iter_mut().zip(place..BURST) {
            let target = self.forwarder.ahead[place];
            let view = (tables, &mut self.neighbours, link);
            let Some((out, macs)) = self.forwarder.exit(view, packet, target) else {
                break;
            };
            cx.forward(packet, &macs);
            exits.push(out);
        }
        cx.count_run(Counter::Forwarded, exits.len());
    }
}
