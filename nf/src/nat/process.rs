//! What becomes of a packet.

use core::net::IpAddr;

use chainplane_dataplane::crew::Claim;
use chainplane_dataplane::function::{
    Blueprint, Build, Context, Descriptor, Function, Glimpse, INSIDE, Interface, OUTSIDE,
    SessionInfo, Verdict,
};
use chainplane_dataplane::indices;
use chainplane_dataplane::objects::Objects;
use chainplane_dataplane::packet::{Mac, Packet, ethertype, protocol};
use chainplane_dataplane::session::{Hashed, InsertError, SessionId, SessionTable, Way};
use chainplane_dataplane::time::Time;

use super::forward::Forwards;
use super::mapping::Mappings;
use super::open::{Opening, Session};
use super::pool::Pool;
use super::{arp, claims};
use crate::config::Prefix;
use crate::track::{Absence, Phase, TimeoutTicks, Tuple, is_icmp_error};

indices! {
    /// What a NAT counts.
    pub enum NatCounter {
        /// Packets translated from the inside to the outside.
        Outbound = "translated-outbound",
        /// Packets translated from the outside to the inside.
        Inbound = "translated-inbound",
        /// Packets from the inside to the pool that were translated and turned round.
        Hairpinned = "hairpinned",
        /// ICMP errors translated, with what they quote.
        IcmpErrors = "icmp-errors",
        /// Packets that are none of the NAT's business.
        Untouched = "untouched",
        /// ARP requests for the pool that were answered.
        ArpAnswered = "arp-answered",
        /// Sessions opened.
        Opened = "sessions-opened",
        /// Mappings made.
        Mapped = "mappings-made",
    }
}

indices! {
    /// Why a NAT drops a packet.
    pub enum NatDrop {
        /// To an address of the pool, where nothing is mapped for it.
        NoMapping = "no-mapping",
        /// TCP that is no SYN and belongs to no session.
        TcpNoSession = "tcp-no-session",
        /// No port of the pool was found free.
        PoolExhausted = "pool-exhausted",
        /// It would open a session, and all of them are in use.
        SessionsFull = "sessions-full",
        /// Two outside ports lead to one inside port, and this peer uses both.
        Conflict = "conflict",
        /// A fragment, which does not have all that is to be translated.
        Fragment = "fragment",
        /// From inside, of a protocol or a kind of message that can't be translated.
        Protocol = "protocol",
        /// An ICMP error with a wrong checksum, or that does not quote a packet of whom it is sent to.
        BadQuote = "bad-quote",
    }
}

static DESCRIPTOR: Descriptor = Descriptor {
    kind: "nat",
    counters: NatCounter::INFO,
    drops: NatDrop::INFO,
};

/// The compiled configuration.
pub(super) struct Plan {
    pub pool: Pool,
    pub inside: Box<[Prefix]>,
    pub forwards: Forwards,
    pub mac: Mac,
    pub inside_mac: Mac,
    pub sessions: usize,
    pub timeouts: TimeoutTicks,
}

impl Blueprint for Plan {
    fn build(&self, build: &mut Build<'_>) -> Box<dyn Function> {
        let (pool, forwards) = (self.pool.clone(), self.forwards.clone());
        let sessions = build.share.part_of(self.sessions);
        Box::new(Nat {
            sessions: SessionTable::new(sessions, build.seed, build.objects),
            absence: Absence::new(build.objects),
            mappings: Mappings::new(pool, forwards, self.timeouts, sessions, build),
            pool: self.pool.clone(),
            inside: self.inside.clone(),
            forwards: self.forwards.clone(),
            mac: self.mac,
            inside_mac: self.inside_mac,
            timeouts: self.timeouts,
            sweeps_mappings: false,
        })
    }

    fn claims(&self) -> Vec<Claim> {
        let mut claims = claims::of_forwards(&self.forwards);
        claims.extend(claims::of_pool(&self.pool));
        claims.extend(claims::of_inside(&self.inside));
        claims
    }
}

/// A NAT, as one worker runs it.
pub(super) struct Nat {
    pub sessions: SessionTable<Tuple, Session>,
    pub absence: Absence,
    pub mappings: Mappings,
    pub pool: Pool,
    pub inside: Box<[Prefix]>,
    pub forwards: Forwards,
    pub mac: Mac,
    pub inside_mac: Mac,
    pub timeouts: TimeoutTicks,
    /// Whose turn it is to be swept, in every other tick.
    pub sweeps_mappings: bool,
}

impl Function for Nat {
    fn descriptor(&self) -> &'static Descriptor {
        &DESCRIPTOR
    }

    fn process(&mut self, cx: &mut Context<'_>, packet: Packet, from: Interface) -> Verdict {
        let layers = packet.layers();
        if layers.ethertype == ethertype::ARP && from == OUTSIDE {
            return arp::process(cx, packet, &self.pool, self.mac);
        }
        if !layers.is_ipv4() {
            return untouched(cx, packet, from);
        }
        if is_icmp_error(&packet) {
            return self.error(cx, packet, from);
        }
        if !self.concerns(&packet, from) {
            return untouched(cx, packet, from);
        }
        if layers.is_fragment() {
            return Verdict::drop(packet, NatDrop::Fragment);
        }
        let Some(tuple) = Tuple::of(&packet, from) else {
            return Verdict::drop(
                packet,
                if from == INSIDE {
                    NatDrop::Protocol
                } else {
                    NatDrop::NoMapping
                },
            );
        };
        let mut key = self.sessions.hashed(&tuple);
        match self
            .sessions
            .find_hashed(&mut key, cx.objects_ref(), cx.now())
        {
            Some((id, way)) => self.translate(cx, packet, &tuple, id, way),
            None => self.open(cx, packet, &tuple, key),
        }
    }

    fn foresee(
        &self,
        coming: &mut [Glimpse],
        from: Interface,
        objects: &Objects,
    ) -> Option<Interface> {
        self.foresee_sessions(coming, from, objects);
        Some(from.opposite())
    }

    fn tick(&mut self, cx: &mut Context<'_>) {
        let now = cx.now();
        self.sweeps_mappings = !self.sweeps_mappings;
        if self.sweeps_mappings {
            self.mappings.sweep(cx.objects(), now);
        } else {
            self.sessions.sweep(cx.objects(), now, |_| {});
        }
    }

    fn session_count(&self) -> usize {
        self.sessions.len()
    }

    fn sessions(
        &self,
        now: Time,
        objects: &Objects,
        cursor: usize,
        out: &mut Vec<SessionInfo>,
    ) -> Option<usize> {
        for (slot, id, [forward, answer], session) in self.sessions.iter_from(cursor, objects, now)
        {
            if out.len() == out.capacity() {
                return Some(slot);
            }
            let idle = objects.idle_ticks(self.sessions.object(id), now);
            let translated = answer.answer(forward.side);
            out.push(SessionInfo {
                text: forward.describe(Some(&translated), session.phase),
                idle_ms: (u64::from(idle) << 20) / 1_000_000,
            });
        }
        self.sessions.after(cursor)
    }
}

impl Nat {
    /// Whether an IPv4 packet is the NAT's to translate or refuse.
    pub(super) fn concerns(&self, packet: &Packet, from: Interface) -> bool {
        if from == OUTSIDE {
            return self.pool.contains(packet.ip_dst());
        }
        self.concerns_outbound(packet.ip_src(), packet.ip_dst())
    }

    /// Whether IPv4 packets from inside with these addresses are.
    pub(super) fn concerns_outbound(&self, src: IpAddr, dst: IpAddr) -> bool {
        let everyone = match dst {
            IpAddr::V4(dst) => dst.is_multicast() || dst.is_broadcast(),
            IpAddr::V6(_) => true,
        };
        !everyone
            && !src.is_unspecified()
            && (self.inside.is_empty() || self.inside.iter().any(|prefix| prefix.contains(src)))
    }

    /// Opens a session for the first packet of one.
    fn open(
        &mut self,
        cx: &mut Context<'_>,
        packet: Packet,
        tuple: &Tuple,
        key: Hashed,
    ) -> Verdict {
        if tuple.protocol == protocol::TCP && !crate::track::opens(packet.tcp_flags()) {
            self.absence.depend(cx, key.hash());
            cx.replayable();
            return Verdict::drop(packet, NatDrop::TcpNoSession);
        }
        let opened = if tuple.side == OUTSIDE {
            self.open_inbound(tuple)
        } else {
            self.open_outbound(cx, tuple, packet.mac_src())
        };
        match opened.and_then(|opening| self.insert(cx, tuple, key, opening)) {
            Ok(id) => self.translate(cx, packet, tuple, id, Way::Forward),
            Err(NatDrop::NoMapping) if tuple.side == OUTSIDE => {
                self.absence.depend(cx, key.hash());
                cx.replayable();
                Verdict::drop(packet, NatDrop::NoMapping)
            }
            Err(reason) => Verdict::drop(packet, reason),
        }
    }

    fn insert(
        &mut self,
        cx: &mut Context<'_>,
        tuple: &Tuple,
        key: Hashed,
        opening: Opening,
    ) -> Result<SessionId, NatDrop> {
        let Opening {
            answer,
            session,
            fresh,
        } = opening;
        let timeout = self.timeouts.of(tuple.protocol, Phase::Opening);
        let now = cx.now();
        let answer = self.sessions.hashed(&answer);
        let made = self
            .sessions
            .insert_hashed([key, answer], session, timeout, cx.objects(), now);
        match (made, fresh) {
            (Ok(id), _) => {
                for key in [key, answer] {
                    self.absence.filled(key.hash(), cx.objects());
                }
                cx.event(NatCounter::Opened);
                if fresh.is_some() {
                    cx.event(NatCounter::Mapped);
                }
                Ok(id)
            }
            (Err(error), fresh) => {
                if let Some(mapping) = fresh {
                    self.mappings.forget(mapping, cx.objects());
                }
                Err(match error {
                    InsertError::Full => NatDrop::SessionsFull,
                    InsertError::Exists => NatDrop::Conflict,
                })
            }
        }
    }

    /// A packet of a session.
    fn translate(
        &mut self,
        cx: &mut Context<'_>,
        mut packet: Packet,
        tuple: &Tuple,
        id: SessionId,
        way: Way,
    ) -> Verdict {
        let (Some(other), Some(session)) =
            (self.sessions.opposite(id, way), self.sessions.get_mut(id))
        else {
            return Verdict::drop(packet, NatDrop::NoMapping);
        };
        let before = session.phase;
        session.phase = before.after(packet.tcp_flags(), way);
        let (phase, mac) = (session.phase, session.macs[way as usize]);
        for mapping in session.mappings.into_iter().flatten() {
            if phase != before {
                self.mappings.moved(mapping, before, phase);
            }
            self.mappings.touch(mapping, tuple.protocol, cx);
        }
        let timeout = self.timeouts.of(tuple.protocol, phase);
        cx.touch(self.sessions.object(id), timeout);
        rewrite(&mut packet, tuple, &other);
        cx.count(match (tuple.side, other.side) {
            (_, OUTSIDE) => NatCounter::Outbound,
            (OUTSIDE, _) => NatCounter::Inbound,
            _ => NatCounter::Hairpinned,
        });
        cx.replayable();
        self.leave(cx, packet, [tuple.side, other.side], mac)
    }

    /// Sends a translated packet on.
    pub(super) fn leave(
        &self,
        cx: &mut Context<'_>,
        mut packet: Packet,
        [from, to]: [Interface; 2],
        mac: Mac,
    ) -> Verdict {
        match (from, to) {
            (_, OUTSIDE) => {}
            (OUTSIDE, _) => cx.set_mac_dst(&mut packet, mac),
            _ => cx.set_macs(&mut packet, self.mac, mac),
        }
        Verdict::Leave(to, packet)
    }
}

/// Gives a packet the endpoints of the tuple that `other` answers.
fn rewrite(packet: &mut Packet, tuple: &Tuple, other: &Tuple) {
    let (src, dst) = (other.dst, other.src);
    if src.address != tuple.src.address {
        packet.set_ip_src(src.address);
    }
    if dst.address != tuple.dst.address {
        packet.set_ip_dst(dst.address);
    }
    // An echo has one identifier, at the side that asked.
    if src.port != tuple.src.port {
        packet.set_port_src(src.port);
    }
    if dst.port != tuple.dst.port {
        packet.set_port_dst(dst.port);
    }
}

/// Lets pass what is none of the NAT's business. Whether it is can be told from addresses alone.
pub(super) fn untouched(cx: &mut Context<'_>, packet: Packet, from: Interface) -> Verdict {
    cx.count(NatCounter::Untouched);
    cx.replayable();
    Verdict::Leave(from.opposite(), packet)
}
