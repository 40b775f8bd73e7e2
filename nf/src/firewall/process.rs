//! What becomes of a packet.

use chainplane_dataplane::function::{
    Blueprint, Build, Context, Descriptor, Function, Glimpse, INSIDE, Interface, SessionInfo,
    Verdict,
};
use chainplane_dataplane::indices;
use chainplane_dataplane::objects::Objects;
use chainplane_dataplane::packet::{Packet, ethertype, protocol};
use chainplane_dataplane::session::{Hashed, InsertError, SessionId, SessionTable, Way};
use chainplane_dataplane::time::Time;

use super::config::Action;
use super::rules::{Decision, Rules};
use crate::track::{Absence, Phase, Quote, TimeoutTicks, Tuple, is_icmp_error, opens, quote};

indices! {
    /// What a firewall counts beside the packets that each rule decided on.
    pub enum FirewallCounter {
        /// Packets of sessions, those that opened them included.
        InSession = "in-session",
        /// ICMP errors about packets of sessions.
        Related = "related",
        /// ARP, reverse ARP and neighbour discovery.
        Discovery = "discovery",
        /// Packets that a rule or default let through without a session (other protocols and ICMP messages).
        Untracked = "untracked",
        /// Sessions opened.
        Opened = "sessions-opened",
    }
}

indices! {
    /// Why a firewall drops a packet.
    pub enum FirewallDrop {
        /// A rule says so.
        Rule = "denied-by-rule",
        /// No rule matches, and the default says so.
        Default = "denied-by-default",
        /// TCP that is no SYN and belongs to no session.
        TcpNoSession = "tcp-no-session",
        /// It would open a session, and all of them are in use.
        SessionsFull = "sessions-full",
        /// A fragment, which does not show all that rules ask about.
        Fragment = "fragment",
        /// Neither IP nor ARP.
        Ethertype = "ethertype",
    }
}

static DESCRIPTOR: Descriptor = Descriptor {
    kind: "firewall",
    counters: FirewallCounter::INFO,
    drops: FirewallDrop::INFO,
};

/// The compiled configuration.
pub(super) struct Plan {
    pub rules: Rules,
    pub sessions: usize,
    pub timeouts: TimeoutTicks,
}

impl Blueprint for Plan {
    fn build(&self, build: &mut Build<'_>) -> Box<dyn Function> {
        Box::new(Firewall {
            rules: self.rules.clone(),
            timeouts: self.timeouts,
            sessions: SessionTable::new(
                build.share.part_of(self.sessions),
                build.seed,
                build.objects,
            ),
            absence: Absence::new(build.objects),
        })
    }
}

/// What is kept of a session.
#[derive(Clone, Copy)]
struct Session {
    phase: Phase,
    /// By which packets of the direction that opened it come in.
    opened_by: Interface,
}

/// A firewall, as one worker runs it.
struct Firewall {
    rules: Rules,
    timeouts: TimeoutTicks,
    /// By the tuple of the packets that come in by the inside, whichever side opened them.
    sessions: SessionTable<Tuple, Session, 1>,
    absence: Absence,
}

impl Function for Firewall {
    fn descriptor(&self) -> &'static Descriptor {
        &DESCRIPTOR
    }

    fn process(&mut self, cx: &mut Context<'_>, packet: Packet, from: Interface) -> Verdict {
        let layers = packet.layers();
        let resolves = matches!(layers.ethertype, ethertype::ARP | ethertype::RARP);
        if resolves || is_neighbour_discovery(&packet) {
            cx.count(FirewallCounter::Discovery);
            return Verdict::Leave(from.opposite(), packet);
        }
        if !layers.is_ipv4() && !layers.is_ipv6() {
            return Verdict::drop(packet, FirewallDrop::Ethertype);
        }
        if layers.is_fragment() {
            return Verdict::drop(packet, FirewallDrop::Fragment);
        }
        match Tuple::of(&packet, from) {
            Some(tuple) => self.tracked(cx, packet, &tuple),
            None => self.untracked(cx, packet, from),
        }
    }

    fn foresee(
        &self,
        coming: &mut [Glimpse],
        from: Interface,
        objects: &Objects,
    ) -> Option<Interface> {
        for at in coming {
            let key = Tuple::foreseen(at, from).seen_from(INSIDE);
            let key = self.sessions.hashed(&key);
            self.sessions.prefetch(&key);
            self.absence.prefetch(key.hash(), objects);
        }
        Some(from.opposite())
    }

    fn tick(&mut self, cx: &mut Context<'_>) {
        let now = cx.now();
        self.sessions.sweep(cx.objects(), now, |_| {});
    }

    fn slots(&self) -> Vec<String> {
        self.rules.slots()
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
        for (slot, id, [key], session) in self.sessions.iter_from(cursor, objects, now) {
            if out.len() == out.capacity() {
                return Some(slot);
            }
            let idle = objects.idle_ticks(self.sessions.object(id), now);
            out.push(SessionInfo {
                text: key
                    .seen_from(session.opened_by)
                    .describe(None, session.phase),
                idle_ms: (u64::from(idle) << 20) / 1_000_000,
            });
        }
        self.sessions.after(cursor)
    }
}

impl Firewall {
    /// TCP, UDP and echoes.
    fn tracked(&mut self, cx: &mut Context<'_>, packet: Packet, tuple: &Tuple) -> Verdict {
        let bare_syn = opens(packet.tcp_flags());
        let mut key = self.sessions.hashed(&tuple.seen_from(INSIDE));
        let found = self.find(cx, &mut key, tuple.side);
        match found {
            Some((id, way)) if !(bare_syn && self.asks_anew(id, way)) => {
                self.pass(cx, packet, id, way, tuple)
            }
            None if tuple.protocol == protocol::TCP && !bare_syn => {
                self.absence.depend(cx, key.hash());
                cx.replayable();
                Verdict::drop(packet, FirewallDrop::TcpNoSession)
            }
            found => {
                let decision = self.rules.decide(&packet, tuple.side);
                match decision.action {
                    Action::Drop => {
                        self.absence.depend(cx, key.hash());
                        cx.replayable();
                        cx.count_slot(decision.slot);
                        denied(packet, decision)
                    }
                    Action::Allow => {
                        cx.event_slot(decision.slot);
                        self.open(cx, packet, (tuple, key), found.map(|(id, _)| id))
                    }
                }
            }
        }
    }

    /// The session of a packet with this key that comes in by `side`, and whether it goes the way of the one that opened it.
    fn find(
        &self,
        cx: &Context<'_>,
        key: &mut Hashed,
        side: Interface,
    ) -> Option<(SessionId, Way)> {
        let (id, _) = self.sessions.find_hashed(key, cx.objects_ref(), cx.now())?;
        let way = if self.sessions.get(id)?.opened_by == side {
            Way::Forward
        } else {
            Way::Return
        };
        Some((id, way))
    }

    fn phase(&self, id: SessionId) -> Option<Phase> {
        self.sessions.get(id).map(|session| session.phase)
    }

    /// Whether a SYN that meets a session against its direction asks for a connection of its own, which the rules
    /// have to decide on: anything but both sides opening at once (RFC 9293, section 3.5).
    fn asks_anew(&self, id: SessionId, way: Way) -> bool {
        way == Way::Return && self.phase(id) != Some(Phase::Opening)
    }

    /// Opens a session for an allowed packet, unless it is an echo reply that nobody asked for.
    fn open(
        &mut self,
        cx: &mut Context<'_>,
        packet: Packet,
        (tuple, key): (&Tuple, Hashed),
        old: Option<SessionId>,
    ) -> Verdict {
        if tuple.echo_reply {
            return untracked(cx, packet, tuple.side);
        }
        if let Some(old) = old {
            if self.phase(old) != Some(Phase::Closing) {
                // The other side will refuse it, or let its own side know that it is out of step (RFC 5961).
                return untracked(cx, packet, tuple.side);
            }
            self.sessions.remove(old, cx.objects());
        }
        let timeout = self.timeouts.of(tuple.protocol, Phase::Opening);
        let now = cx.now();
        let session = Session {
            phase: Phase::Opening,
            opened_by: tuple.side,
        };
        let made = self
            .sessions
            .insert_hashed([key], session, timeout, cx.objects(), now);
        match made {
            Ok(id) => {
                self.absence.filled(key.hash(), cx.objects());
                cx.event(FirewallCounter::Opened);
                self.pass(cx, packet, id, Way::Forward, tuple)
            }
            Err(InsertError::Full | InsertError::Exists) => {
                Verdict::drop(packet, FirewallDrop::SessionsFull)
            }
        }
    }

    /// A packet of a session.
    fn pass(
        &mut self,
        cx: &mut Context<'_>,
        packet: Packet,
        id: SessionId,
        way: Way,
        tuple: &Tuple,
    ) -> Verdict {
        let phase = match self.sessions.get_mut(id) {
            Some(session) => {
                session.phase = session.phase.after(packet.tcp_flags(), way);
                session.phase
            }
            None => Phase::Opening,
        };
        let timeout = self.timeouts.of(tuple.protocol, phase);
        cx.touch(self.sessions.object(id), timeout);
        cx.count(FirewallCounter::InSession);
        cx.replayable();
        Verdict::Leave(tuple.side.opposite(), packet)
    }

    /// IP packets that open no session.
    fn untracked(&mut self, cx: &mut Context<'_>, packet: Packet, from: Interface) -> Verdict {
        if self.is_related(cx, &packet, from) {
            cx.count(FirewallCounter::Related);
            return Verdict::Leave(from.opposite(), packet);
        }
        let decision = self.rules.decide(&packet, from);
        cx.event_slot(decision.slot);
        match decision.action {
            Action::Allow => untracked(cx, packet, from),
            Action::Drop => denied(packet, decision),
        }
    }

    /// Whether it is an ICMP error about a packet of a session, sent to that packet's sender.
    fn is_related(&self, cx: &Context<'_>, packet: &Packet, from: Interface) -> bool {
        if !is_icmp_error(packet) {
            return false;
        }
        let Some(Quote { answer, .. }) = quote(packet, from) else {
            return false;
        };
        let mut key = self.sessions.hashed(&answer.seen_from(INSIDE));
        let known = self.find(cx, &mut key, answer.side);
        answer.dst.address == packet.ip_dst() && known.is_some()
    }
}

fn untracked(cx: &mut Context<'_>, packet: Packet, from: Interface) -> Verdict {
    cx.count(FirewallCounter::Untracked);
    Verdict::Leave(from.opposite(), packet)
}

fn denied(packet: Packet, decision: Decision) -> Verdict {
    let reason = if decision.by_default {
        FirewallDrop::Default
    } else {
        FirewallDrop::Rule
    };
    Verdict::drop(packet, reason)
}

/// Neighbour and router solicitations and advertisements, which only a node on the link can have sent (RFC 4861,
/// sections 6.1 and 7.1).
fn is_neighbour_discovery(packet: &Packet) -> bool {
    packet.layers().protocol == protocol::ICMPV6
        && packet.ttl() == 255
        && !packet.layers().is_fragment()
        && matches!(packet.icmp_type_code(), Some((133..=136, 0)))
}
