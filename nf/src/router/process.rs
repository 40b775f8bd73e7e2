//! What happens to a packet: martian checks, look-up, forwarding, and what the router itself answers.

use core::net::IpAddr;
use std::sync::Arc;

use chainplane_dataplane::function::{
    Blueprint, Build, Context, Descriptor, Exits, Function, Glimpse, Interface, Verdict,
};
use chainplane_dataplane::objects::Objects;
use chainplane_dataplane::packet::{Packet, ethertype, protocol};

use super::forward::Forwarder;
use super::icmp::{self, Limiter, Problem};
use super::names::{Counter, DESCRIPTOR, Drop};
use super::ndp;
use super::neighbours::{Neighbours, Place, Waiting};
use super::tables::{Source, Tables, Target, is_link_local};

/// Packets that wait for neighbours, all together, on all workers.
const MAX_WAITING: usize = 64;
/// Bytes of a link header without tags.
pub(super) const ETHERNET: usize = 14;

/// The compiled configuration.
pub struct RouterBlueprint(pub Arc<Tables>);

impl Blueprint for RouterBlueprint {
    fn build(&self, build: &mut Build<'_>) -> Box<dyn Function> {
        Box::new(Router {
            tables: Arc::clone(&self.0),
            neighbours: Neighbours::new(&self.0.neighbours, build.seed, build.objects, build.share),
            forwarder: Forwarder::new(&self.0),
            limiter: Limiter::new(build.share),
            most_waiting: build.share.part_of(MAX_WAITING),
            scratch: Vec::with_capacity(icmp::MAX_FRAME),
        })
    }

    fn wants_records(&self) -> bool {
        false
    }
}

/// A router, as one worker runs it.
pub struct Router {
    pub(super) tables: Arc<Tables>,
    pub(super) neighbours: Neighbours,
    pub(super) forwarder: Forwarder,
    limiter: Limiter,
    /// Packets that wait for neighbours, at most.
    pub(super) most_waiting: usize,
    /// Where ICMP errors are written; never grows.
    scratch: Vec<u8>,
}

impl Function for Router {
    fn descriptor(&self) -> &'static Descriptor {
        &DESCRIPTOR
    }

    fn process(&mut self, cx: &mut Context<'_>, packet: Packet, from: Interface) -> Verdict {
        let to = packet.mac_dst();
        if packet.layers().l3 as usize != ETHERNET {
            return Verdict::drop(packet, Drop::Tagged);
        }
        if to != self.tables.link(from).mac && !to.is_multicast() {
            return Verdict::drop(packet, Drop::OtherStation);
        }
        match packet.layers().ethertype {
            ethertype::ARP => self.arp(cx, packet, from),
            ethertype::IPV4 | ethertype::IPV6 => self.ip(cx, packet, from),
            _ => Verdict::drop(packet, Drop::UnknownProtocol),
        }
    }

    fn look_ahead(&mut self, batch: &[Packet], _from: Interface) {
        self.forwarder.look_ahead(&self.tables, batch);
    }

    fn pass(
        &mut self,
        cx: &mut Context<'_>,
        packets: &mut [Packet],
        place: usize,
        from: Interface,
        exits: &mut Exits,
    ) {
        self.pass_known(cx, packets, place, from, exits);
    }

    fn foresee(
        &self,
        coming: &mut [Glimpse],
        _from: Interface,
        _objects: &Objects,
    ) -> Option<Interface> {
        match self.tables.target(coming.first()?.dst.0) {
            Target::OnLink(out) | Target::Via(out, _) => Some(out),
            _ => None,
        }
    }

    fn tick(&mut self, cx: &mut Context<'_>) {
        self.attend_neighbours(cx);
    }
}

impl Router {
    fn ip(&mut self, cx: &mut Context<'_>, packet: Packet, from: Interface) -> Verdict {
        let link = self.tables.link(from);
        let (src, dst) = (packet.ip_src(), packet.ip_dst());
        if !link.speaks(dst.is_ipv6()) {
            return Verdict::drop(packet, Drop::FamilyOff);
        }
        let target = self.tables.target(dst);
        let for_link = matches!(
            target,
            Target::Local | Target::LinkLocal | Target::Multicast
        );
        if for_link && is_neighbour_discovery(&packet) {
            // It checks its source itself, which may be unspecified.
            return self.discovery(cx, packet, from);
        }
        match self.tables.source(src) {
            Source::Host => {}
            Source::LinkLocal if !link.owns(src) => {}
            _ => return Verdict::drop(packet, Drop::MartianSource),
        }
        match target {
            Target::Multicast => Verdict::drop(packet, Drop::Multicast),
            Target::Broadcast => Verdict::drop(packet, Drop::Broadcast),
            Target::Martian => Verdict::drop(packet, Drop::MartianDestination),
            // RFC 1812, section 5.3.4: what came to everyone on the link is nobody's to forward.
            _ if packet.mac_dst().is_multicast() => Verdict::drop(packet, Drop::LinkBroadcast),
            Target::LinkLocal if !link.owns(dst) => Verdict::drop(packet, Drop::LinkLocal),
            Target::Local | Target::LinkLocal => self.local(cx, packet, from),
            Target::OnLink(out) => self.forward(cx, packet, from, out, dst),
            Target::Via(out, next_hop) => self.forward(cx, packet, from, out, next_hop),
            Target::Nowhere => {
                self.report(cx, &packet, from, Problem::NoRoute);
                Verdict::drop(packet, Drop::NoRoute)
            }
        }
    }

    #[inline]
    fn forward(
        &mut self,
        cx: &mut Context<'_>,
        mut packet: Packet,
        from: Interface,
        out: Interface,
        next_hop: IpAddr,
    ) -> Verdict {
        if is_link_local(packet.ip_src()) {
            return Verdict::drop(packet, Drop::LinkLocal);
        }
        if packet.ttl() <= 1 {
            self.report(cx, &packet, from, Problem::TimeExceeded);
            return Verdict::drop(packet, Drop::TtlExceeded);
        }
        let (own, mtu) = (self.tables.link(out).mac, self.tables.link(out).mtu);
        if packet.wire_len() > mtu as usize {
            if !may_be_fragmented(&packet) {
                self.report(cx, &packet, from, Problem::TooLong(mtu));
            }
            return Verdict::drop(packet, Drop::TooLong);
        }
        let place = Place {
            interface: out,
            address: next_hop,
        };
        let Some((slot, mac)) = self.neighbours.ready(&place) else {
            let forwarded = true;
            return self.hold(cx, place, Waiting { packet, forwarded });
        };
        cx.guard_mac_dst(self.tables.link(from).mac);
        cx.guard_wire_len(mtu as usize);
        cx.depend(self.neighbours.object(slot));
        cx.decrement_ttl(&mut packet);
        cx.set_macs(&mut packet, own, mac);
        cx.count(Counter::Forwarded);
        cx.replayable();
        Verdict::Leave(out, packet)
    }

    /// A packet to one of the router's own addresses.
    fn local(&mut self, cx: &mut Context<'_>, mut packet: Packet, from: Interface) -> Verdict {
        let layers = *packet.layers();
        let ipv6 = layers.is_ipv6();
        if let Some(kind) = packet.icmp_type_code() {
            let request = kind == (if ipv6 { 128 } else { 8 }, 0);
            if !request || !icmp::is_answerable(&packet) {
                return Verdict::drop(packet, Drop::NotServed);
            }
            let to = packet.ip_src();
            icmp::answer_echo(&mut packet);
            cx.event(Counter::EchoReplies);
            return self.dispatch(cx, packet, to, from);
        }
        // An error about an unknown protocol points at its field, which behind extension headers is not looked for.
        let reportable = !(layers.is_fragment() || ipv6 && layers.has_options());
        if reportable {
            let problem = match layers.protocol {
                protocol::TCP | protocol::UDP => Problem::PortUnreachable,
                _ => Problem::ProtocolUnreachable,
            };
            self.report(cx, &packet, from, problem);
        }
        Verdict::drop(packet, Drop::NotServed)
    }

    /// Sends one of the router's own packets.
    fn dispatch(
        &mut self,
        cx: &mut Context<'_>,
        mut packet: Packet,
        to: IpAddr,
        from: Interface,
    ) -> Verdict {
        let Some((out, address)) = self.tables.towards(to, from) else {
            return Verdict::drop(packet, Drop::NoRoute);
        };
        let link = self.tables.link(out);
        if packet.len() > link.mtu as usize + ETHERNET {
            return Verdict::drop(packet, Drop::TooLong);
        }
        let place = Place {
            interface: out,
            address,
        };
        match self.neighbours.ready(&place) {
            Some((_, mac)) => {
                cx.set_macs(&mut packet, self.tables.link(out).mac, mac);
                Verdict::Leave(out, packet)
            }
            None => self.hold(
                cx,
                place,
                Waiting {
                    packet,
                    forwarded: false,
                },
            ),
        }
    }

    /// Tells a packet's source why it gets no further, if that is to be told and was not told too often.
    pub(super) fn report(
        &mut self,
        cx: &mut Context<'_>,
        about: &Packet,
        from: Interface,
        problem: Problem,
    ) {
        let to = about.ip_src();
        let Some((out, next_hop)) = self.tables.towards(to, from) else {
            return;
        };
        let source = match problem {
            Problem::PortUnreachable | Problem::ProtocolUnreachable => Some(about.ip_dst()),
            _ => self.tables.link(out).source_for(next_hop),
        };
        let Some(source) = source.filter(|_| icmp::may_report(about)) else {
            return;
        };
        if !self.limiter.allow(cx.now()) {
            return cx.event(Counter::IcmpLimited);
        }
        icmp::error(&mut self.scratch, problem, about, source);
        let Some(packet) = cx.create(&self.scratch) else {
            return cx.event(Counter::NoBuffer);
        };
        cx.event(Counter::IcmpErrors);
        match self.dispatch(cx, packet, to, from) {
            Verdict::Leave(by, packet) => cx.emit(by, packet),
            Verdict::Drop(packet, reason) => {
                cx.hold();
                cx.discard(packet, reason.0);
            }
            Verdict::Consume(_) | Verdict::Held => {}
        }
    }
}

fn is_neighbour_discovery(packet: &Packet) -> bool {
    packet.layers().is_ipv6()
        && matches!(packet.icmp_type_code(), Some((kind, _)) if ndp::is_neighbour_discovery(kind))
}

/// Whether it is IPv4 without "don't fragment". No error may say that it is too long, as its sender asked for it to
/// be cut instead.
fn may_be_fragmented(packet: &Packet) -> bool {
    let layers = packet.layers();
    let flags = packet.data().get(layers.l3 as usize + 6);
    layers.is_ipv4() && flags.is_some_and(|flags| flags & 0x40 == 0)
}
