//! The load balancer in a simulation: servers' side at port 0, clients' side at port 1.

use core::net::IpAddr;
use core::time::Duration;

use chainplane_dataplane::engine::Hop;
use chainplane_dataplane::function::{INSIDE, OUTSIDE};
use chainplane_dataplane::packet::Mac;
use chainplane_dataplane::sim::{Sim, SimFunction};
use etherparse::{Icmpv4Type, Icmpv6Type, PacketBuilder, PacketHeaders, TransportHeader, icmpv4};

use super::*;
use crate::config::{Kind, PathStep};

const CLIENT: [u8; 4] = [198, 51, 100, 7];
const VIRTUAL: [u8; 4] = [203, 0, 113, 10];
const ROUTER: [u8; 6] = [2, 0, 0, 0, 1, 1];
const PEER: [u8; 6] = [2, 0, 0, 0, 9, 9];
const SYN: u8 = 2;
const ACK: u8 = 16;
const FIN: u8 = 1;
const RST: u8 = 4;

fn backend(address: &str) -> Backend {
    Backend {
        address: address.parse().unwrap(),
        port: None,
        weight: None,
        mac: None,
    }
}

fn config() -> Config {
    Config {
        address: "203.0.113.10:80/tcp".to_owned(),
        backends: vec![
            backend("10.0.1.11"),
            Backend {
                port: Some(8080),
                ..backend("10.0.1.12")
            },
        ],
        mac: None,
        inside_mac: None,
        sessions: Some(64),
        timeouts: Timeouts::default(),
    }
}

fn site() -> Site {
    Site {
        name: "frontend".to_owned(),
        inside_mac: Some(Mac(ROUTER)),
        outside_mac: None,
    }
}

struct Bench {
    sim: Sim,
    states: BackendStates,
}

impl Bench {
    fn new(config: &Config) -> Self {
        let balancer = config.load_balancer(&site()).unwrap();
        let function = SimFunction::inline("frontend", &balancer, Hop::Port(0), Hop::Port(1));
        let mut sim = Sim::new(Some(64), &[function], 7);
        sim.add_port("servers", Hop::Function(0, INSIDE));
        sim.add_port("clients", Hop::Function(0, OUTSIDE));
        Self {
            sim,
            states: balancer.states(),
        }
    }

    /// What comes out of the other side for one frame.
    fn through(&mut self, port: usize, frame: &[u8]) -> Option<Vec<u8>> {
        let mut out = self.sim.exchange(port, frame);
        assert!(out[port].is_empty(), "the frame was turned round");
        out[1 - port].pop()
    }

    /// What comes back by the same side.
    fn answer(&mut self, port: usize, frame: &[u8]) -> Option<Vec<u8>> {
        let mut out = self.sim.exchange(port, frame);
        assert!(out[1 - port].is_empty(), "the frame went through");
        out[port].pop()
    }

    fn value(&mut self, name: &str) -> u64 {
        self.sim
            .snapshot()
            .function("frontend")
            .unwrap()
            .value(name)
    }

    /// Opens a connection and returns its backend's address and port.
    fn connect(&mut self, port: u16) -> (IpAddr, u16) {
        let seen = self.through(1, &to_virtual(port, SYN)).unwrap();
        let (_, to) = ends(&seen);
        let back = tcp(ROUTER, PEER, to, (CLIENT.into(), port), SYN | ACK);
        let answer = self.through(0, &back).unwrap();
        assert_eq!(ends(&answer).0, (VIRTUAL.into(), 80));
        self.through(1, &to_virtual(port, ACK)).unwrap();
        to
    }
}

fn own_mac() -> [u8; 6] {
    Mac::local("frontend").0
}

fn tcp(
    from_mac: [u8; 6],
    to_mac: [u8; 6],
    from: (IpAddr, u16),
    to: (IpAddr, u16),
    flags: u8,
) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2(from_mac, to_mac);
    let ip = match (from.0, to.0) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ethernet.ipv4(from.octets(), to.octets(), 61),
        (IpAddr::V6(from), IpAddr::V6(to)) => ethernet.ipv6(from.octets(), to.octets(), 61),
        _ => unreachable!(),
    };
    let mut builder = ip.tcp(from.1, to.1, 1000, 2000);
    if flags & SYN != 0 {
        builder = builder.syn();
    }
    if flags & ACK != 0 {
        builder = builder.ack(1);
    }
    if flags & FIN != 0 {
        builder = builder.fin();
    }
    if flags & RST != 0 {
        builder = builder.rst();
    }
    let mut frame = Vec::new();
    builder.write(&mut frame, b"hello").unwrap();
    frame
}

fn to_virtual(port: u16, flags: u8) -> Vec<u8> {
    tcp(
        PEER,
        own_mac(),
        (CLIENT.into(), port),
        (VIRTUAL.into(), 80),
        flags,
    )
}

/// Source and destination, checksums verified.
fn ends(frame: &[u8]) -> ((IpAddr, u16), (IpAddr, u16)) {
    let headers = PacketHeaders::from_ethernet_slice(frame).unwrap();
    let (ip, transport) = (headers.net.unwrap(), headers.transport.unwrap());
    let payload = headers.payload.slice();
    let (from, to): (IpAddr, IpAddr) = match &ip {
        etherparse::NetHeaders::Ipv4(v4, _) => {
            assert_eq!(v4.header_checksum, v4.calc_header_checksum());
            (v4.source.into(), v4.destination.into())
        }
        etherparse::NetHeaders::Ipv6(v6, _) => (v6.source.into(), v6.destination.into()),
        etherparse::NetHeaders::Arp(_) => unreachable!(),
    };
    let (sum, wanted, ports) = match (&ip, &transport) {
        (etherparse::NetHeaders::Ipv4(ip, _), TransportHeader::Tcp(tcp)) => (
            tcp.checksum,
            tcp.calc_checksum_ipv4(ip, payload).unwrap(),
            (tcp.source_port, tcp.destination_port),
        ),
        (etherparse::NetHeaders::Ipv6(ip, _), TransportHeader::Tcp(tcp)) => (
            tcp.checksum,
            tcp.calc_checksum_ipv6(ip, payload).unwrap(),
            (tcp.source_port, tcp.destination_port),
        ),
        (etherparse::NetHeaders::Ipv4(ip, _), TransportHeader::Udp(udp)) => (
            udp.checksum,
            udp.calc_checksum_ipv4(ip, payload).unwrap(),
            (udp.source_port, udp.destination_port),
        ),
        (etherparse::NetHeaders::Ipv4(..), TransportHeader::Icmpv4(icmp)) => {
            (icmp.checksum, icmp.icmp_type.calc_checksum(payload), (0, 0))
        }
        (etherparse::NetHeaders::Ipv6(ip, _), TransportHeader::Icmpv6(icmp)) => (
            icmp.checksum,
            icmp.icmp_type
                .calc_checksum(ip.source, ip.destination, payload)
                .unwrap(),
            (0, 0),
        ),
        _ => unreachable!(),
    };
    assert_eq!(sum, wanted, "transport checksum");
    ((from, ports.0), (to, ports.1))
}

#[test]
fn a_connection_reaches_a_backend_and_comes_back() {
    let mut bench = Bench::new(&config());
    let mut backends = std::collections::BTreeMap::new();
    for port in 40_000..40_040 {
        let to = bench.connect(port);
        *backends.entry(to).or_insert(0) += 1;
        for _ in 0..3 {
            let frame = bench.through(1, &to_virtual(port, ACK)).unwrap();
            assert_eq!(ends(&frame), ((CLIENT.into(), port), to));
            assert_eq!(frame[..6], ROUTER);
        }
    }
    let known: Vec<_> = backends.keys().copied().collect();
    let expected: [(IpAddr, u16); 2] = [([10, 0, 1, 11].into(), 80), ([10, 0, 1, 12].into(), 8080)];
    assert_eq!(known, expected);
    assert!(backends.values().all(|count| *count > 8), "{backends:?}");
    assert_eq!(bench.value("connections"), 40);
    assert_eq!(bench.value("to-clients"), 40);
    let snapshot = bench.sim.snapshot();
    let slots = &snapshot.function("frontend").unwrap().slots;
    assert_eq!(slots[0].0, "10.0.1.11:80 connections");
    assert_eq!(slots[0].1 + slots[2].1, 40);
    assert_eq!(slots[1].1 + slots[3].1, 40 * 5);
}

#[test]
fn ipv6_and_udp_work_alike() {
    let mut bench = Bench::new(&Config {
        address: "[2001:db8::10]:443/tcp".to_owned(),
        backends: vec![backend("fd00::11")],
        ..config()
    });
    let (client, vip) = (
        "2001:db8:9::7".parse::<IpAddr>().unwrap(),
        "2001:db8::10".parse::<IpAddr>().unwrap(),
    );
    let server = ("fd00::11".parse::<IpAddr>().unwrap(), 443);
    let out = bench
        .through(1, &tcp(PEER, own_mac(), (client, 5000), (vip, 443), SYN))
        .unwrap();
    assert_eq!(ends(&out), ((client, 5000), server));
    let back = bench
        .through(0, &tcp(ROUTER, PEER, server, (client, 5000), SYN | ACK))
        .unwrap();
    assert_eq!(ends(&back), ((vip, 443), (client, 5000)));

    let mut bench = Bench::new(&Config {
        address: "203.0.113.10:53/udp".to_owned(),
        ..config()
    });
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(PEER, own_mac())
        .ipv4(CLIENT, VIRTUAL, 9)
        .udp(5353, 53)
        .write(&mut frame, b"?")
        .unwrap();
    let to = ends(&bench.through(1, &frame).unwrap()).1;
    assert_eq!(ends(&bench.through(1, &frame).unwrap()).1, to);
    assert_eq!(bench.value("connections"), 1);
}

#[test]
fn what_is_no_connection_is_dropped_or_passes() {
    let mut bench = Bench::new(&config());
    let other_port = tcp(
        PEER,
        own_mac(),
        (CLIENT.into(), 1),
        (VIRTUAL.into(), 81),
        SYN,
    );
    assert_eq!(bench.through(1, &other_port), None);
    assert_eq!(bench.value("no-service"), 1);
    let mut other_station = to_virtual(1, SYN);
    other_station[5] ^= 1;
    assert_eq!(bench.through(1, &other_station), None);
    assert_eq!(bench.value("wrong-mac"), 1);
    let elsewhere = tcp(
        PEER,
        ROUTER,
        (CLIENT.into(), 1),
        ([192, 0, 2, 1].into(), 80),
        ACK,
    );
    assert_eq!(bench.through(1, &elsewhere).as_ref(), Some(&elsewhere));
    assert_eq!(bench.through(1, &elsewhere), Some(elsewhere));
    // A backend's packet that belongs to no connection goes as it is, until there is one.
    let direct = tcp(
        ROUTER,
        PEER,
        ([10, 0, 1, 11].into(), 80),
        (CLIENT.into(), 40_000),
        ACK,
    );
    assert_eq!(bench.through(0, &direct), Some(direct));
    let mut fragment = to_virtual(9, ACK);
    fragment[20] = 0x20;
    let sum = chainplane_dataplane::packet::checksum;
    fragment[24..26].fill(0);
    let field = sum(&fragment[14..34]).to_be_bytes();
    fragment[24..26].copy_from_slice(&field);
    assert_eq!(bench.through(1, &fragment), None);
    assert_eq!(bench.value("fragment"), 1);
}

#[test]
fn a_full_table_refuses_and_time_makes_room() {
    let mut bench = Bench::new(&Config {
        sessions: Some(2),
        ..config()
    });
    for port in 1..=2 {
        assert!(bench.through(1, &to_virtual(port, SYN)).is_some());
    }
    assert_eq!(bench.through(1, &to_virtual(3, SYN)), None);
    assert_eq!(bench.value("sessions-full"), 1);
    bench.sim.advance(Duration::from_secs(31));
    assert!(bench.through(1, &to_virtual(3, SYN)).is_some());
}

#[test]
fn a_connection_in_progress_finds_its_backend_after_a_restart() {
    let mut before = Bench::new(&config());
    let mut after = Bench::new(&config());
    for port in 40_000..40_020 {
        let to = before.connect(port);
        let frame = after.through(1, &to_virtual(port, ACK)).unwrap();
        assert_eq!(ends(&frame).1, to);
    }
    assert_eq!(after.value("connections-resumed"), 20);
    let reset = after.through(1, &to_virtual(50_000, RST)).unwrap();
    assert_eq!(reset[..6], ROUTER);
    assert_eq!(after.value("connections"), 20);
}

#[test]
fn a_lost_backends_connections_move_and_others_stay() {
    let mut bench = Bench::new(&config());
    let before: Vec<_> = (1..=40).map(|port| (port, bench.connect(port))).collect();
    bench.states.set(0, false);
    bench.sim.advance(Duration::from_millis(1));
    assert_eq!(bench.value("backends-lost"), 1);
    let lost: IpAddr = [10, 0, 1, 11].into();
    let of_lost = before.iter().filter(|(_, to)| to.0 == lost).count() as u64;
    for (port, to) in &before {
        let now = ends(&bench.through(1, &to_virtual(*port, ACK)).unwrap()).1;
        assert_ne!(now.0, lost);
        assert!(to.0 == lost || now == *to);
    }
    assert_eq!(bench.value("connections-lost"), of_lost);
    bench.states.set(1, false);
    bench.sim.advance(Duration::from_millis(1));
    assert_eq!(bench.through(1, &to_virtual(1, SYN)), None);
    assert_eq!(bench.value("no-backend"), 1);
    bench.states.set(0, true);
    bench.sim.advance(Duration::from_millis(1));
    let back = bench.through(1, &to_virtual(1, SYN)).unwrap();
    assert_eq!(ends(&back).1.0, lost);
}

#[test]
fn a_backend_of_weight_0_takes_no_new_connections() {
    let mut drained = config();
    drained.backends[0].weight = Some(0);
    let mut bench = Bench::new(&drained);
    for port in 1..=30 {
        assert_eq!(bench.connect(port).1, 8080);
    }
}

#[test]
fn a_closed_connections_port_may_be_used_again() {
    let mut bench = Bench::new(&config());
    let to = bench.connect(4000);
    bench.through(1, &to_virtual(4000, FIN | ACK)).unwrap();
    bench.through(1, &to_virtual(4000, ACK)).unwrap();
    assert_eq!(bench.value("connections"), 1);
    assert_eq!(bench.connect(4000), to);
    assert_eq!(bench.value("connections"), 2);
}

#[test]
fn arp_and_ping_are_answered() {
    let mut bench = Bench::new(&config());
    let mut request = vec![0xff; 6];
    request.extend(PEER);
    request.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    request.extend(PEER);
    request.extend(CLIENT);
    request.extend([0; 6]);
    request.extend(VIRTUAL);
    request.resize(60, 0);
    let reply = bench.answer(1, &request).unwrap();
    assert_eq!((&reply[..6], &reply[6..12]), (&PEER[..], &own_mac()[..]));
    assert_eq!(reply[20..22], [0, 2]);
    assert_eq!(
        (&reply[22..28], &reply[28..32]),
        (&own_mac()[..], &VIRTUAL[..])
    );
    assert_eq!((&reply[32..38], &reply[38..42]), (&PEER[..], &CLIENT[..]));
    request[41] ^= 1;
    assert_eq!(bench.through(1, &request), Some(request.clone()));

    let mut ping = Vec::new();
    PacketBuilder::ethernet2(PEER, own_mac())
        .ipv4(CLIENT, VIRTUAL, 3)
        .icmpv4_echo_request(77, 1)
        .write(&mut ping, b"ping")
        .unwrap();
    let pong = bench.answer(1, &ping).unwrap();
    assert_eq!(ends(&pong).1.0, IpAddr::from(CLIENT));
    assert_eq!((pong[22], pong[34]), (64, 0));
    assert_eq!((&pong[..6], &pong[6..12]), (&PEER[..], &own_mac()[..]));
}

#[test]
fn neighbour_solicitations_are_answered() {
    let mut bench = Bench::new(&Config {
        address: "[2001:db8::10]:80/tcp".to_owned(),
        backends: vec![backend("fd00::11")],
        ..config()
    });
    let (vip, asker): (core::net::Ipv6Addr, core::net::Ipv6Addr) = (
        "2001:db8::10".parse().unwrap(),
        "2001:db8::1".parse().unwrap(),
    );
    let group: core::net::Ipv6Addr = "ff02::1:ff00:10".parse().unwrap();
    let solicit = |from: core::net::Ipv6Addr, hops| {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2(PEER, Mac::of_ipv6_multicast(group).0)
            .ipv6(from.octets(), group.octets(), hops)
            .icmpv6(Icmpv6Type::Unknown {
                type_u8: 135,
                code_u8: 0,
                bytes5to8: [0; 4],
            })
            .write(&mut frame, &vip.octets())
            .unwrap();
        frame
    };
    let answer = bench.answer(1, &solicit(asker, 255)).unwrap();
    assert_eq!(ends(&answer).1.0, IpAddr::V6(asker));
    assert_eq!((answer[54], answer[58], answer[21]), (136, 0x60, 255));
    assert_eq!(answer[62..78], vip.octets());
    assert_eq!(answer[78..80], [2, 1]);
    assert_eq!(answer[80..86], own_mac());
    let probe = bench
        .answer(1, &solicit(core::net::Ipv6Addr::UNSPECIFIED, 255))
        .unwrap();
    assert_eq!(ends(&probe).1.0, "ff02::1".parse::<IpAddr>().unwrap());
    assert_eq!(
        (&probe[..6], probe[58]),
        (&[0x33, 0x33, 0, 0, 0, 1][..], 0x20)
    );
    // From beyond a router it is a forgery.
    assert!(bench.through(1, &solicit(asker, 254)).is_some());
}

/// An ICMP "packet too big" about a packet that was sent.
fn too_big(from: [u8; 4], to: [u8; 4], macs: ([u8; 6], [u8; 6]), about: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    let kind = icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 1400 };
    PacketBuilder::ethernet2(macs.0, macs.1)
        .ipv4(from, to, 60)
        .icmpv4(Icmpv4Type::DestinationUnreachable(kind))
        .write(&mut frame, &about[14..])
        .unwrap();
    frame
}

#[test]
fn errors_about_connections_reach_both_ends() {
    let mut bench = Bench::new(&config());
    let middle = [192, 0, 2, 99];
    let client: (IpAddr, u16) = (CLIENT.into(), 4321);
    let server = bench.connect(client.1);
    let IpAddr::V4(server_address) = server.0 else {
        unreachable!()
    };
    // A router among the clients refuses what the server sent.
    let sent = bench
        .through(0, &tcp(ROUTER, PEER, server, client, ACK))
        .unwrap();
    let error = bench
        .through(1, &too_big(middle, VIRTUAL, (PEER, own_mac()), &sent))
        .unwrap();
    assert_eq!(ends(&error).1.0, server.0);
    assert_eq!(error[..6], ROUTER);
    let quoted = [&error[..14], &error[42..]].concat();
    assert_eq!(ends(&quoted), (server, client));
    // A router among the servers refuses what the client sent.
    let sent = bench.through(1, &to_virtual(client.1, ACK)).unwrap();
    let error = bench
        .through(
            0,
            &too_big(server_address.octets(), CLIENT, (ROUTER, PEER), &sent),
        )
        .unwrap();
    assert_eq!(ends(&error), ((VIRTUAL.into(), 0), (CLIENT.into(), 0)));
    let quoted = [&error[..14], &error[42..]].concat();
    assert_eq!(ends(&quoted), (client, (VIRTUAL.into(), 80)));
    assert_eq!(bench.value("icmp-errors"), 2);
    // One about nothing known.
    let stray = tcp(PEER, PEER, (VIRTUAL.into(), 80), (CLIENT.into(), 1), ACK);
    let stray = too_big(middle, VIRTUAL, (PEER, own_mac()), &stray);
    assert_eq!(bench.through(1, &stray), None);
    assert_eq!(bench.value("no-session"), 1);
    // Cut behind the ports, as the least that a host has to quote.
    let short = too_big(middle, VIRTUAL, (PEER, own_mac()), &{
        let sent = bench
            .through(0, &tcp(ROUTER, PEER, server, client, ACK))
            .unwrap();
        sent[..14 + 28].to_vec()
    });
    assert_eq!(ends(&bench.through(1, &short).unwrap()).1.0, server.0);
}

#[test]
fn sessions_are_listed_in_pieces() {
    let mut bench = Bench::new(&config());
    let (_, port) = bench.connect(4000);
    bench.through(1, &to_virtual(4001, SYN));
    bench.sim.advance(Duration::from_secs(2));
    let mut page = Vec::with_capacity(1);
    let next = bench.sim.sessions(0, 0, &mut page).unwrap();
    assert_eq!(page.len(), 1);
    let text = &page[0].text;
    assert!(
        text.starts_with("198.51.100.7:4000 -> 203.0.113.10:80/tcp -> 10.0.1.1"),
        "{text}"
    );
    assert!(text.ends_with(&format!(":{port} established")), "{text}");
    assert!((1990..2010).contains(&page[0].idle_ms));
    page.clear();
    assert_eq!(bench.sim.sessions(0, next, &mut page), None);
    assert!(page[0].text.ends_with("opening"));
}

fn errors(change: impl FnOnce(&mut Config)) -> Vec<(String, String)> {
    let mut config = config();
    change(&mut config);
    let path = |path: &[PathStep]| {
        let step = |step: &PathStep| match step {
            PathStep::Key(key) => key.clone(),
            PathStep::Index(index) => index.to_string(),
        };
        path.iter().map(step).collect::<Vec<_>>().join(".")
    };
    let errors = config.check();
    assert_eq!(
        errors.is_empty(),
        config.load_balancer(&site()).is_ok(),
        "compiling checks as well"
    );
    errors
        .iter()
        .map(|error| (path(&error.path), error.message.clone()))
        .collect()
}

#[test]
fn mistakes_are_named_where_they_are() {
    type Change = fn(&mut Config);
    let cases: [(Change, &str, &str); 18] = [
        (
            |c| c.address = "203.0.113.10:80".into(),
            "address",
            "expected ADDRESS:PORT/tcp",
        ),
        (
            |c| c.address = "203.0.113.10:80/sctp".into(),
            "address",
            "neither tcp nor udp",
        ),
        (
            |c| c.address = "203.0.113.10:0/tcp".into(),
            "address",
            "port 0",
        ),
        (
            |c| c.address = "224.0.0.1:80/tcp".into(),
            "address",
            "not the address of a host",
        ),
        (
            |c| c.address = "2001:db8::1:80/tcp".into(),
            "address",
            "expected ADDRESS",
        ),
        (
            |c| c.address = "[fe80::1%2]:80/tcp".into(),
            "address",
            "zone",
        ),
        (|c| c.backends.clear(), "backends", "at least one"),
        (
            |c| c.backends = vec![backend("10.0.1.1"); 1000],
            "backends",
            "at most",
        ),
        (
            |c| c.backends.iter_mut().for_each(|b| b.weight = Some(0)),
            "backends",
            "weight 0",
        ),
        (
            |c| c.backends.push(backend("10.0.1.11")),
            "backends.2",
            "the same server as backend 1",
        ),
        (
            |c| c.backends.push(backend("fd00::1")),
            "backends.2.address",
            "another IP version",
        ),
        (
            |c| c.backends.push(backend("203.0.113.10")),
            "backends.2.address",
            "the virtual address itself",
        ),
        (
            |c| c.backends.push(backend("0.0.0.0")),
            "backends.2.address",
            "not the address of a host",
        ),
        (
            |c| c.backends[1].port = Some(0),
            "backends.1.port",
            "port 0",
        ),
        (|c| c.sessions = Some(0), "sessions", "must be 1 to"),
        (|c| c.sessions = Some(u32::MAX), "sessions", "must be 1 to"),
        (|c| c.timeouts.udp = 0, "timeouts.udp", "must be 1 to"),
        (
            |c| c.inside_mac = Some("01:00:00:00:00:01".parse().unwrap()),
            "inside-mac",
            "not the address of one station",
        ),
    ];
    for (change, path, message) in cases {
        let found = errors(change);
        assert!(
            found
                .iter()
                .any(|(at, text)| at == path && text.contains(message)),
            "{path}: {message}: {found:?}"
        );
    }
    assert!(errors(|_| {}).is_empty());
}

#[test]
fn without_a_way_to_the_servers_it_says_what_to_write() {
    let nowhere = Site {
        name: "frontend".to_owned(),
        ..Site::default()
    };
    let error = config().load_balancer(&nowhere).unwrap_err().remove(0);
    assert!(error.help.unwrap().contains("inside-mac"));
    let mut direct = config();
    for backend in &mut direct.backends {
        backend.mac = Some("02:00:00:00:00:11".parse().unwrap());
    }
    assert!(direct.load_balancer(&nowhere).is_ok());
}

#[test]
fn it_claims_its_address() {
    let claims = config().claims();
    assert_eq!(claims[0].prefix.to_string(), "203.0.113.10");
}
