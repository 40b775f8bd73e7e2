//! What the load balancer does with a packet.

use core::net::IpAddr;
use std::sync::Arc;

use chainplane_dataplane::function::{
    Build, Context, Descriptor, Function, Glimpse, INSIDE, Interface, OUTSIDE, SessionInfo, Verdict,
};
use chainplane_dataplane::indices;
use chainplane_dataplane::objects::{ObjectRange, Objects};
use chainplane_dataplane::packet::{Packet, tcp_flag};
use chainplane_dataplane::session::{Hashed, SessionId, SessionTable};
use chainplane_dataplane::time::Time;

use super::maglev::hash_of;
use super::quote::{self, End, Quote};
use super::session::{Client, Session, Side, State};
use super::states::Seen;
use super::{Tables, answer};

indices! {
    /// The load balancer's counters.
    pub enum Counter {
        /// Packets of clients sent on to a backend.
        ToBackends = "to-backends",
        /// Packets of backends sent on in the virtual address's name.
        ToClients = "to-clients",
        /// Connections given to a backend.
        Opened = "connections",
        /// Connections that were already under way when their first packet was seen; contained in `connections`.
        Resumed = "connections-resumed",
        /// Connections that ended because their backend was lost.
        Lost = "connections-lost",
        /// Times that a backend was lost.
        BackendsLost = "backends-lost",
        /// Pings of the virtual address that were answered.
        Echoes = "echo-replies",
        /// Questions for the virtual address's link-layer address that were answered.
        Neighbours = "neighbour-answers",
        /// ICMP errors about balanced connections, translated.
        Errors = "icmp-errors",
    }
}

indices! {
    /// Why the load balancer drops packets.
    pub enum Reason {
        /// To the virtual address, but not to its port and protocol.
        NoService = "no-service",
        /// No backend was up that takes new connections.
        NoBackend = "no-backend",
        /// A new connection while the session table was full.
        SessionsFull = "sessions-full",
        /// A fragment, which can't be told to which connection it belongs.
        Fragment = "fragment",
        /// To the virtual address, but to another station's link-layer address.
        WrongMac = "wrong-mac",
        /// An ICMP error to the virtual address about a connection that is not known.
        NoSession = "no-session",
    }
}

static DESCRIPTOR: Descriptor = Descriptor {
    kind: "load-balancer",
    counters: Counter::INFO,
    drops: Reason::INFO,
};

/// A load balancer, as one worker runs it.
pub struct Balancer {
    tables: Arc<Tables>,
    /// By client, whichever way a packet goes.
    sessions: SessionTable<Client, Session, 1>,
    /// An object for each backend, which moves on when the backend is lost: what was recorded for its connections
    /// ends at once, however many there are.
    backends: ObjectRange,
    seen: Seen,
    /// Whether it counts what all workers of a crew see.
    speaks_for_all: bool,
}

impl Balancer {
    pub(super) fn new(tables: Arc<Tables>, build: &mut Build<'_>) -> Self {
        let capacity = build.share.part_of(tables.capacity);
        let sessions = SessionTable::new(capacity, build.seed, build.objects);
        Self {
            sessions,
            speaks_for_all: build.share.index() == 0,
            backends: build.objects.reserve(tables.servers.len()),
            seen: Seen::new(tables.states.clone()),
            tables,
        }
    }

    fn inbound(&mut self, cx: &mut Context<'_>, mut packet: Packet) -> Verdict {
        let service = self.tables.service;
        let layers = *packet.layers();
        if !layers.is_ipv4() && !layers.is_ipv6() {
            if answer::arp(&mut packet, service.address, self.tables.mac) {
                cx.count(Counter::Neighbours);
                return Verdict::Leave(OUTSIDE, packet);
            }
            return pass(cx, packet, INSIDE);
        }
        if answer::solicitation(&mut packet, service.address, self.tables.mac) {
            cx.count(Counter::Neighbours);
            return Verdict::Leave(OUTSIDE, packet);
        }
        if packet.ip_dst() != service.address {
            return pass(cx, packet, INSIDE);
        }
        let mac = packet.mac_dst();
        if mac != self.tables.mac && self.tables.inside_mac != Some(mac) {
            return Verdict::drop(packet, Reason::WrongMac);
        }
        cx.guard_mac_dst(mac);
        if layers.is_fragment() {
            return Verdict::drop(packet, Reason::Fragment);
        }
        match packet.ports() {
            Some((from, port)) if layers.protocol == service.protocol && port == service.port => {
                let client = (packet.ip_src(), from);
                self.balance(cx, packet, client)
            }
            _ => self.other(cx, packet),
        }
    }

    /// A packet to the virtual address that is no connection's.
    fn other(&mut self, cx: &mut Context<'_>, mut packet: Packet) -> Verdict {
        if quote::is_error(&packet) {
            return self.error_inbound(cx, packet);
        }
        if answer::echo(&mut packet) {
            cx.count(Counter::Echoes);
            return Verdict::Leave(OUTSIDE, packet);
        }
        // An echo's key holds its type, so this holds for every packet of the flow.
        cx.replayable();
        Verdict::drop(packet, Reason::NoService)
    }

    fn balance(&mut self, cx: &mut Context<'_>, packet: Packet, client: (IpAddr, u16)) -> Verdict {
        let mut key = self.sessions.hashed(&Client(client.0, client.1));
        let found = self
            .find(cx, &mut key)
            .filter(|id| !self.begins_anew(cx, *id, &packet));
        if let Some(id) = found {
            return self.hand_to_backend(cx, packet, id);
        }
        let hash = hash_of(client.0, client.1);
        let seen = &self.seen;
        let Some(backend) = self.tables.maglev.choose(hash, |index| seen.is_up(index)) else {
            return Verdict::drop(packet, Reason::NoBackend);
        };
        let flags = packet.tcp_flags();
        if flags & tcp_flag::RST != 0 {
            // The end of a connection that was forgotten: its backend hears of it, and nothing is kept.
            return self.rewrite_inbound(cx, packet, backend);
        }
        let session = Session::new(
            self.tables.service.protocol,
            backend,
            self.seen.life(backend),
        );
        let now = cx.now();
        let timeout = session.timeout(&self.tables.ticks);
        let made = self
            .sessions
            .insert_hashed([key], session, timeout, cx.objects(), now);
        let Ok(id) = made else {
            return Verdict::drop(packet, Reason::SessionsFull);
        };
        cx.event(Counter::Opened);
        cx.event_slot(backend * 2);
        if session.state == State::Opening && flags & tcp_flag::SYN == 0 {
            cx.event(Counter::Resumed);
        }
        self.hand_to_backend(cx, packet, id)
    }

    /// The session of a client with this backend, as [`Balancer::find`] finds it.
    fn find_with(
        &mut self,
        cx: &mut Context<'_>,
        client: (IpAddr, u16),
        backend: usize,
    ) -> Option<SessionId> {
        let mut key = self.sessions.hashed(&Client(client.0, client.1));
        let id = self.find(cx, &mut key)?;
        let session = self.sessions.get(id)?;
        (session.backend as usize == backend).then_some(id)
    }

    /// A client's session, if it is alive and its backend was not lost since.
    fn find(&mut self, cx: &mut Context<'_>, client: &mut Hashed) -> Option<SessionId> {
        let (id, _) = self
            .sessions
            .find_hashed(client, cx.objects_ref(), cx.now())?;
        let session = self.sessions.get(id)?;
        if self.seen.life(session.backend as usize) == session.life {
            return Some(id);
        }
        self.sessions.remove(id, cx.objects());
        cx.event(Counter::Lost);
        None
    }

    /// Whether the packet starts a new connection where an old one was about to end; that one is then over.
    fn begins_anew(&mut self, cx: &mut Context<'_>, id: SessionId, packet: &Packet) -> bool {
        let closing = self
            .sessions
            .get(id)
            .is_some_and(|session| session.state == State::Closing);
        let anew = closing && packet.tcp_flags() & (tcp_flag::SYN | tcp_flag::ACK) == tcp_flag::SYN;
        if anew {
            self.sessions.remove(id, cx.objects());
        }
        anew
    }

    /// Takes note of a packet in its session, and says what replaying it relies on. Returns the backend.
    fn note(
        &mut self,
        cx: &mut Context<'_>,
        packet: &Packet,
        id: SessionId,
        from: Side,
    ) -> Option<usize> {
        let session = self.sessions.get_mut(id)?;
        session.note(packet, from);
        let backend = session.backend as usize;
        cx.touch(
            self.sessions.object(id),
            self.sessions.get(id)?.timeout(&self.tables.ticks),
        );
        cx.depend(self.backends.at(backend));
        if self.sessions.get(id)?.is_steady() {
            cx.replayable();
        }
        Some(backend)
    }

    fn hand_to_backend(&mut self, cx: &mut Context<'_>, packet: Packet, id: SessionId) -> Verdict {
        match self.note(cx, &packet, id, Side::Client) {
            Some(backend) => self.rewrite_inbound(cx, packet, backend),
            None => Verdict::drop(packet, Reason::NoSession),
        }
    }

    fn rewrite_inbound(&self, cx: &mut Context<'_>, mut packet: Packet, backend: usize) -> Verdict {
        let server = &self.tables.servers[backend];
        cx.set_mac_dst(&mut packet, server.mac);
        packet.set_ip_dst(server.address);
        packet.set_port_dst(server.port);
        cx.count(Counter::ToBackends);
        cx.count_slot(backend * 2 + 1);
        Verdict::Leave(INSIDE, packet)
    }

    fn outbound(&mut self, cx: &mut Context<'_>, packet: Packet) -> Verdict {
        if quote::is_error(&packet) {
            return self.error_outbound(cx, packet);
        }
        let (service, layers) = (self.tables.service, *packet.layers());
        let Some((port, to)) = packet.ports() else {
            return pass(cx, packet, OUTSIDE);
        };
        let backend = self.tables.backend(packet.ip_src(), port);
        let Some(backend) = backend.filter(|_| layers.protocol == service.protocol) else {
            return pass(cx, packet, OUTSIDE);
        };
        let client = (packet.ip_dst(), to);
        let Some(id) = self.find_with(cx, client, backend) else {
            // Not a balanced connection's, at least not yet: never replayed, as a session would change that.
            return Verdict::Leave(OUTSIDE, packet);
        };
        if layers.is_fragment() {
            return Verdict::drop(packet, Reason::Fragment);
        }
        self.hand_to_client(cx, packet, id)
    }

    fn hand_to_client(
        &mut self,
        cx: &mut Context<'_>,
        mut packet: Packet,
        id: SessionId,
    ) -> Verdict {
        if self.note(cx, &packet, id, Side::Server).is_none() {
            return Verdict::drop(packet, Reason::NoSession);
        }
        packet.set_ip_src(self.tables.service.address);
        packet.set_port_src(self.tables.service.port);
        cx.count(Counter::ToClients);
        Verdict::Leave(OUTSIDE, packet)
    }

    /// An error from the clients' side about a packet that a backend sent in the virtual address's name.
    fn error_inbound(&mut self, cx: &mut Context<'_>, mut packet: Packet) -> Verdict {
        let service = self.tables.service;
        let about = quote::quoted(&packet).filter(|quote| {
            quote.protocol == service.protocol && quote.src == (service.address, service.port)
        });
        let found = about.and_then(|quote| {
            let mut key = self.sessions.hashed(&Client(quote.dst.0, quote.dst.1));
            Some((quote, self.find(cx, &mut key)?))
        });
        let Some((quote, id)) = found else {
            return Verdict::drop(packet, Reason::NoSession);
        };
        let Some(session) = self.sessions.get(id) else {
            return Verdict::drop(packet, Reason::NoSession);
        };
        let server = &self.tables.servers[session.backend as usize];
        cx.set_mac_dst(&mut packet, server.mac);
        packet.set_ip_dst(server.address);
        quote::rewrite(&mut packet, &quote, End::Src, (server.address, server.port));
        cx.count(Counter::Errors);
        Verdict::Leave(INSIDE, packet)
    }

    /// An error from the servers' side about a packet that a client sent to the virtual address.
    fn error_outbound(&mut self, cx: &mut Context<'_>, mut packet: Packet) -> Verdict {
        let Some(quote) = self.quoted_to_backend(cx, &packet) else {
            return Verdict::Leave(OUTSIDE, packet);
        };
        let service = self.tables.service;
        if packet.ip_src() == quote.dst.0 {
            packet.set_ip_src(service.address);
        }
        quote::rewrite(
            &mut packet,
            &quote,
            End::Dst,
            (service.address, service.port),
        );
        cx.count(Counter::Errors);
        Verdict::Leave(OUTSIDE, packet)
    }

    fn quoted_to_backend(&mut self, cx: &mut Context<'_>, packet: &Packet) -> Option<Quote> {
        let quote =
            quote::quoted(packet).filter(|quote| quote.protocol == self.tables.service.protocol)?;
        let backend = self.tables.backend(quote.dst.0, quote.dst.1)?;
        self.find_with(cx, quote.src, backend)?;
        Some(quote)
    }

    fn describe(&self, client: Client, session: Session) -> String {
        let server = &self.tables.servers[session.backend as usize];
        let client = core::net::SocketAddr::new(client.0, client.1);
        let word = match session.state {
            State::Opening => "opening",
            State::Answered => "answered",
            State::Established => "established",
            State::Closing => "closing",
            State::Datagrams => "datagrams",
        };
        format!("{client} -> {} -> {server} {word}", self.tables.service)
    }
}

fn pass(cx: &mut Context<'_>, packet: Packet, to: Interface) -> Verdict {
    cx.replayable();
    Verdict::Leave(to, packet)
}

impl Function for Balancer {
    fn descriptor(&self) -> &'static Descriptor {
        &DESCRIPTOR
    }

    fn process(&mut self, cx: &mut Context<'_>, packet: Packet, from: Interface) -> Verdict {
        if from == OUTSIDE {
            self.inbound(cx, packet)
        } else {
            self.outbound(cx, packet)
        }
    }

    fn foresee(
        &self,
        coming: &mut [Glimpse],
        from: Interface,
        _objects: &Objects,
    ) -> Option<Interface> {
        let service = self.tables.service;
        for at in coming {
            if from == OUTSIDE
                && at.dst == (service.address, service.port)
                && at.protocol == service.protocol
            {
                let key = self.sessions.hashed(&Client(at.src.0, at.src.1));
                self.sessions.prefetch(&key);
                // Which of them does not matter to those behind: they are on one side.
                let server = self.tables.servers.first();
                at.dst = server.map_or(at.dst, |server| (server.address, server.port));
            }
        }
        Some(from.opposite())
    }

    fn tick(&mut self, cx: &mut Context<'_>) {
        let (backends, counts) = (self.backends, self.speaks_for_all);
        self.seen.refresh(|backend| {
            cx.objects().invalidate(backends.at(backend));
            if counts {
                cx.event(Counter::BackendsLost);
            }
        });
        let (seen, now) = (&self.seen, cx.now());
        let mut lost = 0;
        self.sessions.sweep_unless(
            cx.objects(),
            now,
            |session| seen.life(session.backend as usize) != session.life,
            |session| {
                lost += u64::from(seen.life(session.backend as usize) != session.life);
            },
        );
        (0..lost).for_each(|_| cx.event(Counter::Lost));
    }

    fn slots(&self) -> Vec<String> {
        let names =
            |server: &super::Server| [format!("{server} connections"), format!("{server} packets")];
        self.tables.servers.iter().flat_map(names).collect()
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
            if self.seen.life(session.backend as usize) != session.life {
                continue;
            }
            if out.len() == out.capacity() {
                return Some(slot);
            }
            let ticks = objects.idle_ticks(self.sessions.object(id), now);
            out.push(SessionInfo {
                text: self.describe(key, *session),
                idle_ms: (u64::from(ticks) << 20) / 1_000_000,
            });
        }
        self.sessions.after(cursor)
    }
}
