//! Behaviour, in a simulated worker.

use core::time::Duration;

use chainplane_dataplane::engine::Hop;
use chainplane_dataplane::function::{Build, Glimpse, INSIDE, OUTSIDE};
use chainplane_dataplane::objects::Objects;
use chainplane_dataplane::packet::tcp_flag::{ACK, FIN, RST, SYN};
use chainplane_dataplane::packet::{Mac, Offload, checksum, protocol};
use chainplane_dataplane::sim::{Sim, SimFunction};

use super::{Config, Forward, Transport};
use crate::config::{self, Kind, OneOrMany, Prefix, Site};
use crate::track::Endpoint;
use crate::track::testing::{
    INNER, OUTER, at, echo, endpoints, fragment, quoted, raw, tcp, udp, unreachable, v4, who_has,
    with_partial_inside,
};

/// Ports of the simulated worker.
pub(super) const IN: usize = 0;
pub(super) const OUT: usize = 1;
/// Where forwards lead, and the NAT's own address.
const HOST: Mac = Mac([0x02, 0, 0, 0, 0, 0x55]);
const OWN: Mac = Mac([0x02, 0, 0, 0, 0, 0x99]);

pub(super) fn prefixes(texts: &[&str]) -> OneOrMany<Prefix> {
    OneOrMany(texts.iter().map(|text| text.parse().unwrap()).collect())
}

pub(super) fn config() -> Config {
    Config {
        pool: prefixes(&["203.0.113.2"]),
        inside: prefixes(&["10.0.0.0/8"]),
        forwards: vec![Forward {
            protocol: Transport::Tcp,
            address: None,
            port: 2222,
            to: "10.0.0.5:22".parse().unwrap(),
        }],
        mac: Some(config::Mac(OWN)),
        inside_mac: Some(config::Mac(HOST)),
        sessions: Some(256),
        timeouts: crate::track::Timeouts::default(),
    }
}

pub(super) fn sim(config: &Config, flows: Option<usize>) -> Sim {
    let plan = config
        .compile(&Site::default())
        .expect("a good configuration");
    let function = SimFunction::inline("nat", &*plan, Hop::Port(0), Hop::Port(1));
    let mut sim = Sim::new(flows, &[function], 5);
    sim.add_port("in", Hop::Function(0, INSIDE));
    sim.add_port("out", Hop::Function(0, OUTSIDE));
    sim
}

/// What came out where, at most one frame.
pub(super) fn send(sim: &mut Sim, port: usize, frame: &[u8]) -> Option<(usize, Vec<u8>)> {
    let out = sim.exchange(port, frame);
    let mut frames = out
        .into_iter()
        .enumerate()
        .flat_map(|(port, frames)| frames.into_iter().map(move |frame| (port, frame)));
    let first = frames.next();
    assert!(frames.next().is_none(), "one frame became many");
    first
}

/// The endpoints of a frame that has to come out of `to`.
fn through(sim: &mut Sim, from: usize, to: usize, frame: &[u8]) -> (Endpoint, Endpoint) {
    let (port, out) = send(sim, from, frame).expect("not dropped");
    assert_eq!(port, to);
    endpoints(&out)
}

pub(super) fn value(sim: &mut Sim, name: &str) -> u64 {
    sim.snapshot().function("nat").unwrap().value(name)
}

#[test]
fn answers_come_home() {
    for flows in [None, Some(64)] {
        let mut sim = sim(&config(), flows);
        let (host, server) = (at("10.0.0.1:5000"), at("192.0.2.1:53"));
        for _ in 0..3 {
            let (src, dst) = through(&mut sim, IN, OUT, &udp(host, server));
            assert_eq!((src, dst), (at("203.0.113.2:5000"), server));
            let (port, frame) = send(&mut sim, OUT, &udp(server, src)).unwrap();
            assert_eq!((port, endpoints(&frame)), (IN, (server, host)));
            assert_eq!((&frame[..6], &frame[6..12]), (&INNER[..], &INNER[..]));
        }
        assert_eq!(value(&mut sim, "translated-outbound"), 3);
        assert_eq!(value(&mut sim, "translated-inbound"), 3);
        assert_eq!(value(&mut sim, "mappings-made"), 1);
    }
}

#[test]
fn what_is_foreseen_of_new_flows_is_what_becomes_of_them() {
    let config = config();
    let plan = config
        .compile(&Site::default())
        .expect("a good configuration");
    let mut objects = Objects::default();
    let nat = plan.build(&mut Build {
        objects: &mut objects,
        seed: 5,
        share: chainplane_dataplane::crew::Share::WHOLE,
    });
    let mut sim = sim(&config, None);
    let server = at("192.0.2.1:53");
    let hosts = [
        "10.0.0.1:5000",
        "10.0.0.2:5001",
        "10.9.0.2:700",
        "11.0.0.1:5003",
    ]
    .map(at);
    let glimpse = |src: Endpoint, dst: Endpoint| Glimpse {
        vlan: 0,
        protocol: protocol::UDP,
        src: (src.address, src.port),
        dst: (dst.address, dst.port),
    };
    let mut coming = hosts.map(|host| glimpse(host, server));
    assert_eq!(nat.foresee(&mut coming, INSIDE, &objects), Some(OUTSIDE));
    for (host, coming) in hosts.into_iter().zip(coming) {
        let (src, dst) = through(&mut sim, IN, OUT, &udp(host, server));
        assert_eq!(glimpse(src, dst), coming);
    }
    // From outside they are left as they are.
    let mut coming = [glimpse(server, at("203.0.113.2:5000"))];
    let before = coming;
    assert_eq!(nat.foresee(&mut coming, OUTSIDE, &objects), Some(INSIDE));
    assert_eq!(coming, before);
}

#[test]
fn one_mapping_for_all_peers_and_no_port_for_two_hosts() {
    let mut sim = sim(&config(), Some(64));
    let server = at("192.0.2.1:53");
    let (first, _) = through(&mut sim, IN, OUT, &udp(at("10.0.0.1:5000"), server));
    let (again, _) = through(
        &mut sim,
        IN,
        OUT,
        &udp(at("10.0.0.1:5000"), at("192.0.2.9:9")),
    );
    let (other, _) = through(&mut sim, IN, OUT, &udp(at("10.0.0.2:5000"), server));
    assert_eq!(first, again);
    assert_ne!(first, other);
    assert!(other.port >= 1024);
    let (low, _) = through(&mut sim, IN, OUT, &udp(at("10.0.0.1:500"), server));
    assert_eq!(low.port, 500);
    let (low, _) = through(&mut sim, IN, OUT, &udp(at("10.0.0.2:500"), server));
    assert!((1..1024).contains(&low.port));
    // A stranger may not use a mapping.
    assert!(send(&mut sim, OUT, &udp(at("192.0.2.77:53"), first)).is_none());
    assert!(send(&mut sim, OUT, &udp(at("192.0.2.1:54"), first)).is_none());
    assert_eq!(value(&mut sim, "no-mapping"), 2);
}

#[test]
fn pings_are_translated_by_their_identifier() {
    let mut sim = sim(&config(), Some(64));
    let server = at("192.0.2.1:0");
    for host in ["10.0.0.1:7", "10.0.0.2:7"] {
        let host = at(host);
        for _ in 0..3 {
            let (src, dst) = through(&mut sim, IN, OUT, &echo(host, server));
            assert_eq!((v4(src.address).octets(), dst), ([203, 0, 113, 2], server));
            assert_eq!(
                through(&mut sim, OUT, IN, &echo(server, src)),
                (server, host)
            );
            // The server may not ask with the same identifier.
            let asks = Endpoint {
                port: src.port,
                ..server
            };
            assert!(send(&mut sim, OUT, &echo(asks, Endpoint { port: 0, ..src })).is_none());
        }
    }
}

#[test]
fn tcp_opens_by_syn_and_its_mapping_goes_with_it() {
    let mut sim = sim(&config(), Some(64));
    let (host, server) = (at("10.0.0.1:5000"), at("192.0.2.1:80"));
    for flags in [ACK, SYN | ACK, FIN, RST] {
        assert!(send(&mut sim, IN, &tcp(host, server, flags)).is_none());
    }
    assert_eq!(value(&mut sim, "tcp-no-session"), 4);
    let (outer, _) = through(&mut sim, IN, OUT, &tcp(host, server, SYN));
    through(&mut sim, OUT, IN, &tcp(server, outer, SYN | ACK));
    through(&mut sim, IN, OUT, &tcp(host, server, ACK));
    sim.advance(Duration::from_hours(2));
    through(&mut sim, OUT, IN, &tcp(server, outer, ACK));
    through(&mut sim, OUT, IN, &tcp(server, outer, FIN | ACK));
    sim.advance(Duration::from_secs(200));
    through(&mut sim, IN, OUT, &tcp(host, server, FIN | ACK));
    sim.advance(Duration::from_secs(250));
    assert!(send(&mut sim, OUT, &tcp(server, outer, ACK)).is_none());
    // The port is free again, for another host.
    let (other, _) = through(&mut sim, IN, OUT, &tcp(at("10.0.0.2:5000"), server, SYN));
    assert_eq!(other, outer);
}

#[test]
fn a_long_connection_keeps_a_mapping_that_short_ones_share() {
    let mut sim = sim(&config(), Some(64));
    let (host, long, short) = (at("10.0.0.1:5000"), at("192.0.2.1:80"), at("192.0.2.2:80"));
    let (outer, _) = through(&mut sim, IN, OUT, &tcp(host, long, SYN));
    through(&mut sim, OUT, IN, &tcp(long, outer, SYN | ACK));
    through(&mut sim, IN, OUT, &tcp(host, short, SYN));
    through(&mut sim, OUT, IN, &tcp(short, outer, RST));
    sim.advance(Duration::from_hours(1));
    assert_ne!(
        through(&mut sim, IN, OUT, &tcp(at("10.0.0.2:5000"), long, SYN)).0,
        outer
    );
    assert_eq!(through(&mut sim, IN, OUT, &tcp(host, long, ACK)).0, outer);
}

#[test]
fn forwards_lead_inside_and_back() {
    let mut sim = sim(&config(), Some(64));
    let (client, outer, inner) = (
        at("192.0.2.1:999"),
        at("203.0.113.2:2222"),
        at("10.0.0.5:22"),
    );
    let (port, frame) = send(&mut sim, OUT, &tcp(client, outer, SYN)).unwrap();
    assert_eq!((port, endpoints(&frame)), (IN, (client, inner)));
    assert_eq!(frame[..6], HOST.0);
    let (port, frame) = send(&mut sim, IN, &tcp(inner, client, SYN | ACK)).unwrap();
    assert_eq!((port, endpoints(&frame)), (OUT, (outer, client)));
    assert_eq!(frame[..6], OUTER);
    assert_eq!(
        through(&mut sim, OUT, IN, &tcp(client, outer, ACK)),
        (client, inner)
    );
    // From the forwarded port, the host appears as the forward; nobody else gets its port.
    let peer = at("192.0.2.50:80");
    assert_eq!(through(&mut sim, IN, OUT, &tcp(inner, peer, SYN)).0, outer);
    assert_ne!(
        through(&mut sim, IN, OUT, &tcp(at("10.0.0.9:2222"), peer, SYN)).0,
        outer
    );
    assert!(send(&mut sim, OUT, &udp(client, outer)).is_none());
}

#[test]
fn hairpins_by_forward_and_by_mapping() {
    for flows in [None, Some(64)] {
        let mut sim = sim(&config(), flows);
        let (host, forward, inner) = (
            at("10.0.0.1:5000"),
            at("203.0.113.2:2222"),
            at("10.0.0.5:22"),
        );
        let (port, frame) = send(&mut sim, IN, &tcp(host, forward, SYN)).unwrap();
        let as_seen = at("203.0.113.2:5000");
        assert_eq!((port, endpoints(&frame)), (IN, (as_seen, inner)));
        assert_eq!((&frame[..6], &frame[6..12]), (&HOST.0[..], &OWN.0[..]));
        for flags in [SYN | ACK, ACK, ACK] {
            let (port, frame) = send(&mut sim, IN, &tcp(inner, as_seen, flags)).unwrap();
            assert_eq!((port, endpoints(&frame)), (IN, (forward, host)));
            assert_eq!((&frame[..6], &frame[6..12]), (&INNER[..], &OWN.0[..]));
        }
        // By a mapping: one host has sent something out, another one sends to where it appears.
        let (one, two) = (at("10.0.0.7:700"), at("10.0.0.8:800"));
        assert!(send(&mut sim, IN, &udp(two, at("203.0.113.2:700"))).is_none());
        let (seen_one, _) = through(&mut sim, IN, OUT, &udp(one, at("192.0.2.1:53")));
        let (seen_two, dst) = through(&mut sim, IN, IN, &udp(two, seen_one));
        assert_eq!(
            (dst, v4(seen_two.address).octets()),
            (one, [203, 0, 113, 2])
        );
        assert_eq!(
            through(&mut sim, IN, IN, &udp(one, seen_two)),
            (seen_one, two)
        );
        assert_eq!(value(&mut sim, "hairpinned"), 6);
    }
}

#[test]
fn what_is_not_its_business_passes_untouched() {
    let mut sim = sim(&config(), Some(64));
    let untouched = [
        (IN, udp(at("172.16.0.1:5"), at("192.0.2.1:53"))),
        (IN, udp(at("10.0.0.1:5"), at("224.0.0.5:53"))),
        (IN, udp(at("[2001:db8::1]:5"), at("[2001:db8::2]:53"))),
        (OUT, udp(at("192.0.2.1:53"), at("10.0.0.1:5"))),
        (OUT, udp(at("192.0.2.1:53"), at("203.0.113.3:5"))),
        (
            IN,
            who_has("10.0.0.1".parse().unwrap(), "203.0.113.2".parse().unwrap()),
        ),
        (
            OUT,
            who_has("10.0.0.1".parse().unwrap(), "203.0.113.3".parse().unwrap()),
        ),
        (
            OUT,
            who_has(
                "203.0.113.2".parse().unwrap(),
                "203.0.113.2".parse().unwrap(),
            ),
        ),
    ];
    for (port, frame) in untouched {
        assert_eq!(send(&mut sim, port, &frame), Some((1 - port, frame)));
    }
}

#[test]
fn answers_arp_for_its_pool_outside() {
    let mut sim = sim(&config(), Some(64));
    let router = "203.0.113.1".parse().unwrap();
    let request = who_has(router, "203.0.113.2".parse().unwrap());
    let (port, reply) = send(&mut sim, OUT, &request).unwrap();
    assert_eq!(port, OUT);
    assert_eq!((&reply[..6], &reply[6..12]), (&INNER[..], &OWN.0[..]));
    let mut body = vec![0, 1, 8, 0, 6, 4, 0, 2];
    body.extend(OWN.0);
    body.extend([203, 0, 113, 2]);
    body.extend(INNER);
    body.extend([203, 0, 113, 1]);
    assert_eq!(reply[14..], body);
    // Too short to be one: passes, as everything that is not understood does.
    for len in 14..request.len() {
        assert_eq!(send(&mut sim, OUT, &request[..len]).unwrap().0, IN);
    }
}

#[test]
fn refuses_what_it_can_not_translate() {
    let mut sim = sim(&config(), Some(64));
    let (host, server) = (at("10.0.0.1:5000"), at("192.0.2.1:53"));
    let gre = raw(v4(host.address), v4(server.address), 47, &[0; 20]);
    assert!(send(&mut sim, IN, &gre).is_none());
    assert!(send(&mut sim, IN, &echo(at("10.0.0.1:0"), at("192.0.2.1:9"))).is_none());
    assert!(send(&mut sim, IN, &fragment(udp(host, server), 0)).is_none());
    assert!(send(&mut sim, IN, &fragment(udp(host, server), 9)).is_none());
    assert!(
        send(
            &mut sim,
            OUT,
            &fragment(udp(server, at("203.0.113.2:5")), 9)
        )
        .is_none()
    );
    let gre = raw(
        v4(server.address),
        "203.0.113.2".parse().unwrap(),
        47,
        &[0; 20],
    );
    assert!(send(&mut sim, OUT, &gre).is_none());
    assert_eq!(value(&mut sim, "protocol"), 2);
    assert_eq!(value(&mut sim, "fragment"), 3);
    assert_eq!(value(&mut sim, "no-mapping"), 1);
}

#[test]
fn icmp_errors_are_translated_with_what_they_quote() {
    for quote_len in [28, 40, 200] {
        let mut sim = sim(&config(), Some(64));
        let (host, other) = (at("10.0.0.1:5000"), at("10.0.0.2:5000"));
        let (server, router) = (at("192.0.2.1:53"), at("198.51.100.1:0").address);
        through(&mut sim, IN, OUT, &udp(host, server));
        let frames = [
            udp(other, server),
            tcp(other, server, SYN),
            echo(other, at("192.0.2.1:0")),
        ];
        for sent in frames {
            // From outside, about what a host sent.
            let (_, left) = send(&mut sim, IN, &sent).unwrap();
            let outer = endpoints(&left).0;
            let error = unreachable(router, outer.address, &left, quote_len);
            let (port, got) = send(&mut sim, OUT, &error).unwrap();
            assert_eq!((port, &got[..6]), (IN, &INNER[..]));
            assert_eq!(endpoints(&got).0.address, router);
            assert_eq!(endpoints(&got).1.address, other.address);
            let quote = quoted(&got);
            assert_eq!(
                quote[14..],
                sent[14..][..quote.len() - 14],
                "as the host sent it"
            );
            // From inside, about what came back, by the host and by a router.
            let (peer, mapped) = (endpoints(&left).1, endpoints(&left).0);
            let back = match sent[23] {
                1 => echo(peer, mapped),
                6 => tcp(peer, mapped, SYN | ACK),
                _ => udp(peer, mapped),
            };
            let (_, came) = send(&mut sim, OUT, &back).unwrap();
            for sender in [other.address, at("10.9.9.9:0").address] {
                let error = unreachable(sender, peer.address, &came, quote_len);
                let (port, got) = send(&mut sim, IN, &error).unwrap();
                assert_eq!((port, endpoints(&got).0.address), (OUT, mapped.address));
                let quote = quoted(&got);
                assert_eq!(quote[14..], back[14..][..quote.len() - 14]);
            }
        }
        assert_eq!(value(&mut sim, "icmp-errors"), 9);
    }
}

#[test]
fn an_error_that_covers_a_sum_still_to_be_computed_keeps_its_own_right() {
    let mut sim = sim(&config(), None);
    let (host, server) = (at("10.0.0.1:5000"), at("192.0.2.1:53"));
    let (_, left) = send(&mut sim, IN, &udp(host, server)).unwrap();
    let error = unreachable(
        server.address,
        endpoints(&left).0.address,
        &left,
        left.len(),
    );
    let (error, offload) = with_partial_inside(error, 34);
    sim.inject_with(OUT, &error, offload);
    sim.run();
    // The port completes nothing, so that the engine has computed what was left.
    let got = &sim.sent(IN)[0].bytes;
    assert_eq!(endpoints(got).1.address, host.address);
    assert_eq!(checksum(&got[34..]), 0);
}

#[test]
fn icmp_errors_of_hairpins_are_translated_twice() {
    let mut sim = sim(&config(), Some(64));
    let (host, forward, inner) = (
        at("10.0.0.1:5000"),
        at("203.0.113.2:2222"),
        at("10.0.0.5:22"),
    );
    let sent = tcp(host, forward, SYN);
    let (_, came) = send(&mut sim, IN, &sent).unwrap();
    let seen = endpoints(&came).0;
    let error = unreachable(inner.address, seen.address, &came, 200);
    let (port, got) = send(&mut sim, IN, &error).unwrap();
    let (src, dst) = endpoints(&got);
    assert_eq!(
        (port, src.address, dst.address),
        (IN, forward.address, host.address)
    );
    assert_eq!(quoted(&got)[14..], sent[14..]);
}

#[test]
fn lying_quotes_are_dropped() {
    let mut sim = sim(&config(), Some(64));
    let (host, server) = (at("10.0.0.1:5000"), at("192.0.2.1:53"));
    let (_, left) = send(&mut sim, IN, &udp(host, server)).unwrap();
    let outer = endpoints(&left).0;
    for len in 0..28 {
        let error = unreachable(server.address, outer.address, &left, len);
        assert!(send(&mut sim, OUT, &error).is_none(), "{len} bytes");
    }
    assert_eq!(value(&mut sim, "bad-quote"), 28);
    let error = unreachable(server.address, outer.address, &left, 28);
    for (at, wrong) in [
        (14 + 20 + 2, 1),
        (14 + 28, 0x4f),
        (14 + 28 + 10, 1),
        (14 + 28 + 12, 9),
    ] {
        let mut lying = error.clone();
        lying[at] ^= wrong;
        assert!(send(&mut sim, OUT, &lying).is_none(), "byte {at}");
    }
    assert!(send(&mut sim, OUT, &error).is_some());
    // Errors keep nothing alive.
    sim.advance(Duration::from_secs(200));
    assert!(send(&mut sim, OUT, &error).is_some());
    sim.advance(Duration::from_secs(200));
    assert!(send(&mut sim, OUT, &error).is_none());
}

#[test]
fn checksums_that_are_absent_or_unfinished_stay_so() {
    for flows in [None, Some(64)] {
        let mut sim = sim(&config(), flows);
        let (host, server) = (at("10.0.0.2:5000"), at("192.0.2.1:53"));
        send(&mut sim, IN, &udp(at("10.0.0.1:5000"), server)).unwrap();
        for _ in 0..3 {
            let mut absent = udp(host, server);
            absent[40..42].fill(0);
            let (_, got) = send(&mut sim, IN, &absent).unwrap();
            endpoints(&got);
            assert_eq!(got[40..42], [0, 0]);
            // The port completes it: what comes out has to be right.
            let whole = udp(host, server);
            let mut unfinished = whole.clone();
            let pseudo = chainplane_dataplane::packet::pseudo_header(
                chainplane_dataplane::packet::Pseudo::V4(v4(host.address), v4(server.address)),
                17,
                whole.len() - 34,
            );
            unfinished[40..42].copy_from_slice(&pseudo.folded().to_be_bytes());
            let offload = Offload {
                needs_checksum: true,
                checksum_start: 34,
                checksum_offset: 6,
                ..Offload::default()
            };
            sim.inject_with(IN, &unfinished, offload);
            sim.run();
            let got = sim.sent(OUT).remove(0);
            let (src, dst) = endpoints(&got.bytes);
            assert_ne!(src.port, host.port);
            assert_eq!((dst, &got.bytes[42..]), (server, &whole[42..]));
        }
    }
}

#[test]
fn a_full_table_and_an_exhausted_pool_are_counted() {
    let mut config = config();
    config.sessions = Some(2000);
    let mut sim = sim(&config, Some(64));
    let server = at("192.0.2.1:53");
    let mut drops = 0;
    for host in 0..1100u16 {
        let [high, low] = host.to_be_bytes();
        let frame = udp(at(&format!("10.0.{high}.{low}:99")), server);
        drops += u64::from(send(&mut sim, IN, &frame).is_none());
    }
    // 1023 low ports, of which the last few may not be found.
    assert!((77..400).contains(&drops), "{drops}");
    assert_eq!(value(&mut sim, "pool-exhausted"), drops);
    for port in 0..2000u16 {
        send(
            &mut sim,
            IN,
            &udp(at(&format!("10.0.0.1:{}", 2000 + port)), server),
        );
    }
    assert!(value(&mut sim, "sessions-full") > 0);
}

#[test]
fn a_forward_to_nowhere_is_an_error_that_says_what_to_write() {
    let mut config = config();
    config.inside_mac = None;
    let errors = config.compile(&Site::default()).err().expect("an error");
    assert!(errors[0].help.as_ref().unwrap().contains("inside-mac"));
    let site = Site {
        inside_mac: Some(HOST),
        ..Site::default()
    };
    assert!(config.compile(&site).is_ok());
}
