//! Random traffic: who sends what to whom, what is unusual about it, and what else happens meanwhile.

use std::net::IpAddr;

use proptest::prelude::*;

use crate::frame::{ACK, FIN, MacBytes, Quirk, RST, SYN, Spec, Transport};
use crate::host::Host;
use crate::site::{POOL, Plan, VIRTUAL};

/// Something that happens.
#[derive(Clone, Debug)]
pub enum Op {
    /// A host sends a packet of one of the known flows, from a source port so much higher.
    Send { flow: usize, how: Variation },
    /// A host opens a connection, is answered if it gets through, and sends a few packets.
    Connect {
        flow: usize,
        shift: u16,
        packets: usize,
        /// What happens then.
        meanwhile: Box<Op>,
        /// What it sends last, and how the answer to that comes back.
        odd: [Variation; 2],
    },
    /// A host asks for the link-layer address of somebody on its wire.
    Ask { host: usize, address: usize },
    /// The receiver of a packet seen on a port answers it.
    Answer {
        port: usize,
        nth: usize,
        flags: u8,
        payload: usize,
    },
    /// Somebody on the way of a packet seen on a port complains about it.
    Complain {
        port: usize,
        nth: usize,
        kind: usize,
        keep: usize,
    },
    /// Bytes without sense.
    Garbage { port: usize, bytes: Vec<u8> },
    /// Time passes.
    Wait { milliseconds: u64 },
    /// A host gets another link-layer address, and says so or not.
    Move { host: usize, mac: u8, tells: bool },
    /// A host stops answering for its addresses, or does so again.
    Silence { host: usize, answers: bool },
    /// A backend is lost or comes back.
    Backend { index: usize, up: bool },
    /// What was sent so far is forwarded.
    Run,
}

fn quirk() -> impl Strategy<Value = Quirk> {
    prop_oneof![
        30 => Just(Quirk::None),
        2 => prop_oneof![Just(0u8), Just(1), Just(2), Just(255)].prop_map(Quirk::Ttl),
        1 => Just(Quirk::FirstFragment),
        1 => Just(Quirk::LaterFragment),
        1 => Just(Quirk::Options),
        1 => Just(Quirk::BadIpChecksum),
        1 => prop_oneof![Just(0u16), Just(0xffff), any::<u16>()].prop_map(Quirk::BadTransportChecksum),
        1 => Just(Quirk::UdpWithoutChecksum),
        2 => Just(Quirk::DontFragment),
        4 => Just(Quirk::Partial),
        1 => Just(Quirk::PartialInside),
        1 => any::<u16>().prop_map(|at| Quirk::PartialAt(at % 200)),
        3 => prop_oneof![Just(600u16), Just(1360), Just(1448), Just(4000)].prop_map(Quirk::Gso),
        1 => prop_oneof![Just(0u16), Just(7)].prop_map(Quirk::Vlan),
        1 => prop_oneof![Just(0u16), Just(7)].prop_map(|inner| Quirk::TwoVlans(7, inner)),
        1 => any::<u8>().prop_map(Quirk::TypeOfService),
        1 => (0u16..80).prop_map(Quirk::Cut),
        1 => (1u8..40).prop_map(Quirk::Padded),
        2 => (any::<u16>(), any::<u8>()).prop_map(|(at, bits)| Quirk::Flipped(at % 80, bits)),
        1 => any::<u16>().prop_map(Quirk::LengthField),
    ]
}

fn flags() -> impl Strategy<Value = u8> {
    prop_oneof![
        4 => Just(SYN),
        16 => Just(ACK),
        2 => Just(SYN | ACK),
        2 => Just(FIN | ACK),
        1 => Just(RST),
        1 => Just(0),
        1 => any::<u8>(),
    ]
}

fn payload() -> impl Strategy<Value = usize> {
    prop_oneof![12 => 0usize..60, 3 => 1300usize..1480, 1 => 1480usize..9000]
}

fn how() -> impl Strategy<Value = Variation> {
    (shift(), flags(), payload(), quirk(), any::<u8>()).prop_map(
        |(shift, flags, payload, quirk, odd)| Variation {
            shift,
            flags,
            payload,
            quirk,
            wrong_mac: odd < 16,
        },
    )
}

/// Mostly a few ports, so that flows repeat; sometimes many, so that session tables fill.
fn shift() -> impl Strategy<Value = u16> {
    prop_oneof![12 => Just(0u16), 6 => 0u16..400]
}

/// Addresses that hosts ask for, the router's, the NAT's and the load balancer's among them.
pub const ASKED: &[&str] = &[
    "10.0.1.1",
    "10.0.2.1",
    "198.51.100.2",
    "203.0.113.2",
    "203.0.113.10",
    "10.0.1.12",
];

/// What happens beside traffic.
fn event() -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => prop_oneof![4 => 0u64..100, 2 => 900u64..70_000, 1 => Just(130_000), 1 => Just(8_000_000)].prop_map(|milliseconds| Op::Wait { milliseconds }),
        1 => (0usize..4, 0u8..3, any::<bool>()).prop_map(|(host, mac, tells)| Op::Move { host, mac, tells }),
        1 => (0usize..4, any::<u8>()).prop_map(|(host, odd)| Op::Silence { host, answers: odd > 80 }),
        3 => (0usize..2, any::<u8>()).prop_map(|(index, odd)| Op::Backend { index, up: odd > 150 }),
    ]
}

/// Any of the things that happen.
pub fn op() -> impl Strategy<Value = Op> {
    let send = (0..FLOWS.len(), how()).prop_map(|(flow, how)| Op::Send { flow, how });
    let connect = (0..FLOWS.len(), shift(), 0usize..6, event(), how(), how()).prop_map(
        |(flow, shift, packets, meanwhile, out, back)| Op::Connect {
            flow,
            shift,
            packets,
            meanwhile: Box::new(meanwhile),
            odd: [out, back],
        },
    );
    let seen = (0usize..3, 0usize..6);
    prop_oneof![
        24 => send,
        6 => connect,
        1 => (0usize..4, 0..ASKED.len()).prop_map(|(host, address)| Op::Ask { host, address }),
        10 => (seen.clone(), flags(), payload()).prop_map(|((port, nth), flags, payload)| Op::Answer { port, nth, flags, payload }),
        2 => (seen, 0usize..5, 20usize..120).prop_map(|((port, nth), kind, keep)| Op::Complain { port, nth, kind, keep }),
        1 => (0usize..3, proptest::collection::vec(any::<u8>(), 0..100)).prop_map(|(port, bytes)| Op::Garbage { port, bytes }),
        5 => event(),
        12 => Just(Op::Run),
    ]
}

/// The link-layer address that a flow's first packet goes to.
#[derive(Clone, Copy, Debug)]
pub enum To {
    /// The router's, on this interface.
    Router(&'static str),
    /// The load balancer's.
    Virtual,
    /// The NAT's.
    Pool,
}

/// A flow that somebody opens: the host that sends, the addresses, where the frame goes, what it carries.
pub type Flow = (usize, &'static str, &'static str, To, Transport);

const fn tcp(from: u16, to: u16) -> Transport {
    Transport::Tcp { from, to, flags: 0 }
}

const fn udp(from: u16, to: u16) -> Transport {
    Transport::Udp { from, to }
}

const ECHO: Transport = Transport::Echo {
    id: 77,
    reply: false,
};

const REPLY: Transport = Transport::Echo {
    id: 77,
    reply: true,
};

/// Hosts by their places in [`crate::site::hosts`]. The clients are behind the gateway.
const WEB1: usize = 0;
const WEB2: usize = 1;
const DATA: usize = 2;
const GATE: usize = 3;

const WEB_SIDE: To = To::Router("web");
const DB_SIDE: To = To::Router("db");
const WAN_SIDE: To = To::Router("wan");

/// The known flows.
#[rustfmt::skip]
pub const FLOWS: &[Flow] = &[
    (GATE, "192.0.2.7", "203.0.113.10", To::Virtual, tcp(40_000, 80)),
    (GATE, "192.0.2.7", "203.0.113.10", To::Virtual, tcp(40_001, 80)),
    (GATE, "192.0.2.8", "203.0.113.10", WAN_SIDE, tcp(40_000, 80)),
    (GATE, "192.0.2.9", "203.0.113.10", To::Virtual, tcp(40_002, 80)),
    (GATE, "192.0.2.9", "203.0.113.10", To::Virtual, tcp(40_003, 443)),
    (GATE, "192.0.2.9", "203.0.113.10", To::Virtual, ECHO),
    (GATE, "192.0.2.9", "203.0.113.2", To::Pool, tcp(40_004, 2222)),
    (GATE, "192.0.2.9", "203.0.113.2", To::Pool, tcp(40_005, 23)),
    (GATE, "192.0.2.9", "203.0.113.2", To::Pool, ECHO),
    (GATE, "192.0.2.9", "198.51.100.2", WAN_SIDE, ECHO),
    (GATE, "192.0.2.9", "10.0.1.11", WAN_SIDE, tcp(40_006, 80)),
    (GATE, "2001:db8::50", "fd00:1::11", WAN_SIDE, tcp(40_006, 443)),
    (WEB1, "10.0.1.11", "192.0.2.50", WEB_SIDE, tcp(50_000, 443)),
    (WEB1, "10.0.1.11", "192.0.2.50", WEB_SIDE, udp(5353, 53)),
    (WEB1, "10.0.1.11", "192.0.2.50", WEB_SIDE, ECHO),
    (WEB1, "10.0.1.11", "192.0.2.50", WEB_SIDE, REPLY),
    (WEB1, "10.0.1.11", "203.0.113.2", WEB_SIDE, tcp(50_002, 2222)),
    (WEB1, "10.0.1.11", "192.0.2.7", WEB_SIDE, tcp(80, 40_000)),
    (WEB2, "10.0.1.12", "192.0.2.50", WEB_SIDE, tcp(50_000, 443)),
    (WEB2, "10.0.1.12", "192.0.2.50", WEB_SIDE, ECHO),
    (WEB2, "10.0.1.12", "192.0.2.50", WEB_SIDE, Transport::Other(47)),
    (WEB2, "10.0.1.12", "192.0.2.51", WEB_SIDE, tcp(50_001, 25)),
    (DATA, "10.0.2.5", "10.0.1.11", DB_SIDE, tcp(6000, 22)),
    (DATA, "10.0.2.5", "10.0.1.12", DB_SIDE, udp(6000, 514)),
    (DATA, "10.0.2.5", "10.0.2.1", DB_SIDE, ECHO),
    (DATA, "10.0.2.5", "10.0.2.1", DB_SIDE, REPLY),
    (GATE, "192.0.2.9", "203.0.113.10", To::Virtual, REPLY),
    (DATA, "10.0.2.5", "10.0.1.99", DB_SIDE, ECHO),
    (DATA, "10.0.2.5", "172.16.0.1", DB_SIDE, udp(6000, 514)),
    (DATA, "fd00:2::5", "fd00:1::11", DB_SIDE, tcp(6000, 22)),
    (DATA, "fd00:2::5", "fd00:1::12", DB_SIDE, udp(6000, 514)),
    (DATA, "fd00:2::5", "fd00:2::1", DB_SIDE, ECHO),
    (WEB1, "fd00:1::11", "2001:db8::50", WEB_SIDE, tcp(50_000, 443)),
    (WEB1, "fd00:1::11", "2001:db8::50", WEB_SIDE, ECHO),
];

/// How one packet of a flow differs from another.
#[derive(Clone, Copy, Debug)]
pub struct Variation {
    /// What is added to the source port.
    pub shift: u16,
    /// TCP's flags.
    pub flags: u8,
    /// Bytes of payload.
    pub payload: usize,
    /// What is odd about it.
    pub quirk: Quirk,
    /// Whether it goes to another station.
    pub wrong_mac: bool,
}

/// A packet of a flow.
pub fn spec(flow: &Flow, plan: &Plan, hosts: &[Host], how: Variation) -> Spec {
    let (host, src, dst, to, transport) = *flow;
    let mut mac: MacBytes = match to {
        To::Router(interface) => plan.router_mac(interface),
        To::Virtual => Plan::virtual_mac(),
        To::Pool => Plan::pool_mac(),
    };
    mac[5] ^= u8::from(how.wrong_mac);
    let transport = match transport {
        Transport::Tcp { from, to, .. } => Transport::Tcp {
            from: from + how.shift,
            to,
            flags: how.flags,
        },
        Transport::Udp { from, to } => udp(from + how.shift, to),
        other => other,
    };
    let address = |text: &str| text.parse::<IpAddr>().expect("an address");
    Spec {
        macs: (hosts[host].mac, mac),
        src: address(src),
        dst: address(dst),
        transport,
        payload: how.payload,
        quirk: how.quirk,
        salt: 0,
    }
}

/// Keeps the flows above in step with the site.
#[test]
fn flows_are_of_the_site() {
    let text = |octets: [u8; 4]| IpAddr::from(octets).to_string();
    assert!(FLOWS.iter().any(|flow| flow.2 == text(VIRTUAL)));
    assert!(FLOWS.iter().any(|flow| flow.2 == text(POOL)));
    for (host, src, ..) in FLOWS.iter().filter(|flow| flow.0 != GATE) {
        let address: IpAddr = src.parse().expect("an address");
        assert!(crate::site::hosts()[*host].addresses.contains(&address));
    }
}
