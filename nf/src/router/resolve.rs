//! Finding neighbours and keeping them known: ARP, neighbour discovery, the packets that wait.

use core::net::IpAddr;

use chainplane_dataplane::function::{Context, Interface, Verdict};
use chainplane_dataplane::packet::{Mac, Packet};

use super::arp::{Arp, is_unicast};
use super::icmp::Problem;
use super::names::{Counter, Drop};
use super::ndp::{self, Message};
use super::neighbours::{Evidence, FIRST_REFRESH, Learnt, Place, Slot, State, Waiting};
use super::process::Router;

/// Neighbours asked or given up in one poll; each may tell three senders, and a poll has room for 64 packets.
const DUE_PER_TICK: usize = 8;
/// Neighbours looked at in one poll.
const SWEEP_PER_TICK: usize = 64;

impl Router {
    /// Lets a packet wait for its neighbour, and asks for it if nobody has yet.
    pub(super) fn hold(&mut self, cx: &mut Context<'_>, place: Place, waiting: Waiting) -> Verdict {
        let now = cx.now();
        let slot = if let Some(slot) = self.neighbours.find(&place) {
            slot
        } else {
            let Some(slot) = self.neighbours.want(place, cx.objects(), now) else {
                return Verdict::drop(waiting.packet, Drop::NeighboursFull);
            };
            self.ask(cx, slot);
            slot
        };
        if self.neighbours.waiting() >= self.most_waiting {
            return Verdict::drop(waiting.packet, Drop::Unresolved);
        }
        cx.hold();
        if let Some(oldest) = self.neighbours.wait(slot, waiting) {
            cx.discard(oldest.packet, Drop::Unresolved);
        }
        Verdict::Held
    }

    /// Asks for a neighbour's link-layer address: everyone, or the neighbour alone where it is known.
    fn ask(&mut self, cx: &mut Context<'_>, slot: Slot) {
        let place = self.neighbours.place(slot);
        let known = match self.neighbours.state(slot) {
            State::Known { mac, .. } => Some(mac),
            _ => None,
        };
        let link = self.tables.link(place.interface);
        let (sent, counter) = match (link.source_for(place.address), place.address) {
            (Some(IpAddr::V4(sender)), IpAddr::V4(target)) => {
                let request = Arp {
                    request: true,
                    sender_mac: link.mac,
                    sender,
                    target_mac: Mac::default(),
                    target,
                };
                let frame = request.frame(known.unwrap_or(Mac::BROADCAST));
                (cx.create(&frame), Counter::ArpRequests)
            }
            (_, IpAddr::V6(target)) => {
                let Some(source) = link.link_local else {
                    return;
                };
                let frame = ndp::solicitation((link.mac, source), target, known);
                (cx.create(&frame), Counter::Solicitations)
            }
            _ => return,
        };
        let Some(packet) = sent else {
            return cx.event(Counter::NoBuffer);
        };
        cx.event(counter);
        cx.emit(place.interface, packet);
    }

    pub(super) fn arp(&mut self, cx: &mut Context<'_>, packet: Packet, from: Interface) -> Verdict {
        let Some(arp) = Arp::parse(packet.data()) else {
            return Verdict::drop(packet, Drop::BadArp);
        };
        let link = self.tables.link(from);
        let (own, to_us) = (link.mac, link.owns(arp.target.into()));
        if link.owns(arp.sender.into()) {
            cx.event(Counter::Conflicts);
            return Verdict::Consume(packet);
        }
        // A sender beyond the subnet is answered, as some hosts ask with another of their addresses (RFC 826 does
        // not mind), but it is no neighbour.
        if link.is_neighbour(arp.sender.into()) {
            let evidence = match (to_us, arp.request) {
                (true, false) => Evidence::Answer,
                (true, true) => Evidence::Announced,
                (false, _) => Evidence::Overheard,
            };
            let address = arp.sender.into();
            let place = Place {
                interface: from,
                address,
            };
            self.learn(cx, place, arp.sender_mac, evidence);
        }
        if to_us && arp.request {
            let reply = Arp {
                request: false,
                sender_mac: own,
                sender: arp.target,
                target_mac: arp.sender_mac,
                target: arp.sender,
            };
            answer(cx, from, &reply.frame(arp.sender_mac), Counter::ArpReplies);
        }
        if to_us || arp.sender == arp.target {
            Verdict::Consume(packet)
        } else {
            Verdict::drop(packet, Drop::NotAsked)
        }
    }

    /// A neighbour solicitation or advertisement.
    pub(super) fn discovery(
        &mut self,
        cx: &mut Context<'_>,
        packet: Packet,
        from: Interface,
    ) -> Verdict {
        match ndp::parse(&packet) {
            Some(Message::Solicitation { target, mac }) => {
                self.solicited(cx, packet, from, target, mac)
            }
            Some(message @ Message::Advertisement { .. }) => {
                self.advertised(cx, packet, from, message)
            }
            None => Verdict::drop(packet, Drop::BadDiscovery),
        }
    }

    fn solicited(
        &mut self,
        cx: &mut Context<'_>,
        packet: Packet,
        from: Interface,
        target: core::net::Ipv6Addr,
        mac: Option<Mac>,
    ) -> Verdict {
        let link = self.tables.link(from);
        let own = link.mac;
        let (IpAddr::V6(src), true) = (packet.ip_src(), link.owns(target.into())) else {
            return Verdict::drop(packet, Drop::NotAsked);
        };
        if src.is_unspecified() {
            // Someone is about to take the address: everyone is told that it is taken (RFC 4862, section 5.4.3).
            let to = (Mac::of_ipv6_multicast(ndp::ALL_NODES), ndp::ALL_NODES);
            let frame = ndp::advertisement(own, to, target, false);
            answer(cx, from, &frame, Counter::Advertisements);
            return Verdict::Consume(packet);
        }
        let back = mac.unwrap_or(packet.mac_src());
        if !link.is_neighbour(src.into()) || !is_unicast(back) {
            return Verdict::drop(packet, Drop::NotAsked);
        }
        if let Some(mac) = mac {
            let place = Place {
                interface: from,
                address: src.into(),
            };
            self.learn(cx, place, mac, Evidence::Announced);
        }
        let frame = ndp::advertisement(own, (back, src), target, true);
        answer(cx, from, &frame, Counter::Advertisements);
        Verdict::Consume(packet)
    }

    /// RFC 4861, section 7.2.5.
    fn advertised(
        &mut self,
        cx: &mut Context<'_>,
        packet: Packet,
        from: Interface,
        message: Message,
    ) -> Verdict {
        let Message::Advertisement {
            target,
            mac,
            solicited,
            overriding,
        } = message
        else {
            return Verdict::drop(packet, Drop::BadDiscovery);
        };
        let address = target.into();
        if self.tables.link(from).owns(address) {
            cx.event(Counter::Conflicts);
            return Verdict::Consume(packet);
        }
        let place = Place {
            interface: from,
            address,
        };
        let evidence = if solicited {
            Evidence::Answer
        } else {
            Evidence::Overheard
        };
        let Some(slot) = self.neighbours.find(&place) else {
            if let Some(mac) = mac.filter(|_| self.is_new_to_us(place, evidence)) {
                self.learn(cx, place, mac, evidence);
                return Verdict::Consume(packet);
            }
            return Verdict::drop(packet, Drop::NotAsked);
        };
        let known = match self.neighbours.state(slot) {
            State::Known { mac, .. } => Some(mac),
            _ => None,
        };
        match (known, mac.or(known)) {
            (Some(old), Some(new)) if old != new && !overriding => {
                self.neighbours.doubt(slot, cx.now());
            }
            (_, Some(mac)) => self.learn(cx, place, mac, evidence),
            (_, None) => {}
        }
        Verdict::Consume(packet)
    }

    /// Whether a neighbour that this worker did not ask for may be one that another worker asked for.
    fn is_new_to_us(&self, place: Place, evidence: Evidence) -> bool {
        let link = self.tables.link(place.interface);
        self.neighbours.is_others(evidence) && link.is_neighbour(place.address)
    }

    fn learn(&mut self, cx: &mut Context<'_>, place: Place, mac: Mac, evidence: Evidence) {
        // Our own address as someone else's would send its packets back to us.
        if mac == self.tables.link(place.interface).mac {
            return;
        }
        let now = cx.now();
        let slot = match self
            .neighbours
            .learn(place, mac, evidence, cx.objects(), now)
        {
            Learnt::Ignored => return,
            Learnt::Full => return cx.event(Counter::NotLearnt),
            Learnt::Same(slot) => slot,
            Learnt::New(slot) => {
                cx.event(Counter::Learnt);
                slot
            }
            Learnt::Changed(slot) => {
                cx.event(Counter::Changed);
                slot
            }
        };
        self.release(cx, slot, mac);
    }

    /// Sends what waited for a neighbour, in order. What a full poll leaves goes with the next one.
    fn release(&mut self, cx: &mut Context<'_>, slot: Slot, mac: Mac) {
        if !self.neighbours.has_waiting(slot) {
            return;
        }
        let out = self.neighbours.place(slot).interface;
        let own = self.tables.link(out).mac;
        for mut waiting in self.neighbours.take_waiting(slot) {
            if !cx.can_release() {
                self.neighbours.wait(slot, waiting);
                continue;
            }
            if waiting.forwarded {
                cx.decrement_ttl(&mut waiting.packet);
                cx.event(Counter::Forwarded);
            }
            cx.set_macs(&mut waiting.packet, own, mac);
            // There is room, so that it does not come back.
            let _ = cx.release(out, waiting.packet);
        }
        if self.neighbours.has_waiting(slot) {
            self.neighbours.schedule(slot, cx.now());
        }
    }

    /// Asks again for neighbours that are due, and gives those up that do not answer.
    pub(super) fn attend_neighbours(&mut self, cx: &mut Context<'_>) {
        let (now, mut budget) = (cx.now(), SWEEP_PER_TICK);
        for _ in 0..DUE_PER_TICK {
            let Some(slot) = self.neighbours.due(now, &mut budget) else {
                break;
            };
            match self.neighbours.state(slot) {
                State::Known { mac, .. } if self.neighbours.has_waiting(slot) => {
                    self.neighbours.schedule(slot, now + FIRST_REFRESH);
                    self.release(cx, slot, mac);
                }
                _ if self.neighbours.ask_again(slot, now) => self.ask(cx, slot),
                _ => self.give_up(cx, slot),
            }
        }
    }

    fn give_up(&mut self, cx: &mut Context<'_>, slot: Slot) {
        let from = self.neighbours.place(slot).interface;
        cx.event(Counter::Lost);
        for waiting in self.neighbours.remove(slot, cx.objects()) {
            if waiting.forwarded {
                self.report(cx, &waiting.packet, from, Problem::HostUnreachable);
            }
            cx.discard(waiting.packet, Drop::Unresolved);
        }
    }
}

fn answer(cx: &mut Context<'_>, by: Interface, frame: &[u8], counter: Counter) {
    let Some(packet) = cx.create(frame) else {
        return cx.event(Counter::NoBuffer);
    };
    cx.event(counter);
    cx.emit(by, packet);
}
