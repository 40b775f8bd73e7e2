use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{IpFragOffset, IpNumber, Ipv4Extensions, PacketBuilder};
use proptest::prelude::*;

use super::*;
use crate::crew::Share;
use crate::packet::{HugePages, Pool, PoolConfig};

const TCP: u8 = protocol::TCP;
const UDP: u8 = protocol::UDP;
const ICMP: u8 = protocol::ICMP;

/// An address with a port.
type End = (IpAddr, u16);

/// A packet, as short as it can be said.
#[derive(Clone, Copy, Debug)]
struct Spec {
    from: End,
    to: End,
    protocol: u8,
    fragment: Fragment,
    /// Bytes of the IP packet that an ICMP error quotes, if it is one about this packet.
    quoted: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fragment {
    None,
    First,
    Later,
}

impl Spec {
    fn new(from: End, to: End, protocol: u8) -> Self {
        Self {
            from,
            to,
            protocol,
            fragment: Fragment::None,
            quoted: None,
        }
    }

    fn back(self) -> Self {
        Self {
            from: self.to,
            to: self.from,
            ..self
        }
    }

    fn is_ipv6(&self) -> bool {
        self.from.0.is_ipv6()
    }

    /// The transport header that the protocol has.
    fn transport(&self) -> Vec<u8> {
        let [a, b] = self.from.1.to_be_bytes();
        let [c, d] = self.to.1.to_be_bytes();
        match self.protocol {
            TCP => [
                &[a, b, c, d, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10][..],
                &[0; 6],
            ]
            .concat(),
            UDP => vec![a, b, c, d, 0, 8, 0, 0],
            ICMP if self.is_ipv6() => vec![128, 0, 0, 0, a, b, 0, 1],
            ICMP => vec![8, 0, 0, 0, a, b, 0, 1],
            _ => vec![a, b, c, d, 0, 0, 0, 0],
        }
    }

    fn ip(from: IpAddr, to: IpAddr, protocol: u8, fragment: Fragment, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        let link = PacketBuilder::ethernet2([2; 6], [4; 6]);
        match (from, to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let mut header = etherparse::Ipv4Header::new(
                    0,
                    9,
                    IpNumber(protocol),
                    from.octets(),
                    to.octets(),
                )
                .unwrap();
                header.more_fragments = fragment == Fragment::First;
                header.fragment_offset =
                    IpFragOffset::try_new(u16::from(fragment == Fragment::Later)).unwrap();
                link.ip(etherparse::IpHeaders::Ipv4(
                    header,
                    Ipv4Extensions::default(),
                ))
                .write(&mut frame, IpNumber(protocol), payload)
                .unwrap();
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let protocol = if protocol == ICMP {
                    protocol::ICMPV6
                } else {
                    protocol
                };
                link.ipv6(from.octets(), to.octets(), 9)
                    .write(&mut frame, IpNumber(protocol), payload)
                    .unwrap();
            }
            _ => unreachable!("one family"),
        }
        frame
    }

    fn frame(&self) -> Vec<u8> {
        let inner = Self::ip(
            self.from.0,
            self.to.0,
            self.protocol,
            self.fragment,
            &self.transport(),
        );
        let Some(quoted) = self.quoted else {
            return inner;
        };
        let mut error = if self.is_ipv6() {
            vec![3, 0]
        } else {
            vec![11, 0]
        };
        error.extend([0; 6]);
        error.extend(inner[14..].iter().take(quoted));
        let router = if self.is_ipv6() {
            "2001:db8:9::9"
        } else {
            "192.0.2.99"
        };
        Self::ip(
            router.parse().unwrap(),
            self.from.0,
            ICMP,
            Fragment::None,
            &error,
        )
    }

    fn owner(&self, owners: &Owners) -> Owner {
        owner_of_frame(&self.frame(), owners)
    }
}

/// A packet's owner, asked in both ways.
fn owner_of_frame(frame: &[u8], owners: &Owners) -> Owner {
    let config = PoolConfig {
        small: 2,
        large: 0,
        huge_pages: HugePages::Never,
    };
    let mut pool = Pool::new(config).unwrap();
    let mut packet = pool.copy_of(frame).unwrap();
    let received = owners.owner_of_received(&mut packet);
    parse(&mut packet).unwrap();
    assert_eq!(owners.owner_of(&packet), received);
    received
}

fn member(spec: Spec, owners: &Owners) -> u16 {
    match spec.owner(owners) {
        Owner::Member(member) => member,
        other => panic!("{spec:?}: {other:?}"),
    }
}

/// Whom an endpoint alone belongs to: whatever it says to whoever is outside.
fn alone(end: End, members: u16) -> u16 {
    let length = 128;
    let inside = [Claim::Inside {
        address: end.0,
        length,
    }];
    let other = if end.0.is_ipv6() {
        "2001:db8:ffff::1"
    } else {
        "203.0.113.1"
    };
    let spec = Spec::new(end, (other.parse().unwrap(), 1), UDP);
    member(spec, &Owners::new(members, &inside))
}

fn contains(prefix: IpAddr, length: u8, address: IpAddr) -> bool {
    match (prefix, address) {
        (IpAddr::V4(prefix), IpAddr::V4(address)) => {
            let differ = prefix.to_bits() ^ address.to_bits();
            length == 0 || differ >> (32 - u32::from(length.min(32))) == 0
        }
        (IpAddr::V6(prefix), IpAddr::V6(address)) => {
            let differ = prefix.to_bits() ^ address.to_bits();
            length == 0 || differ >> (128 - u32::from(length.min(128))) == 0
        }
        _ => false,
    }
}

/// What the documentation of [`Claim`] says, word for word.
fn model(members: u16, claims: &[Claim], from: End, to: End, of: u8) -> u16 {
    let is_fixed = |end: End| {
        claims.contains(&Claim::Fixed {
            address: end.0,
            protocol: of,
            port: end.1,
        })
    };
    let of_pool = |end: End| !is_fixed(end) && claims.contains(&Claim::Pool { address: end.0 });
    let by_port = |end: End| Share::owner_of_port(end.1, members);
    let decides_alone = |end: End| {
        if of_pool(end) {
            by_port(end)
        } else {
            alone(end, members)
        }
    };
    let inside = |end: End| {
        claims.iter().any(|claim| {
            matches!(*claim, Claim::Inside { address, length } if contains(address, length, end.0))
        })
    };
    match (is_fixed(from), is_fixed(to)) {
        (true, true) => return 0,
        (true, false) => return decides_alone(to),
        (false, true) => return decides_alone(from),
        (false, false) => {}
    }
    match (of_pool(from), of_pool(to)) {
        (true, true) => return by_port(from).min(by_port(to)),
        (true, false) => return by_port(from),
        (false, true) => return by_port(to),
        (false, false) => {}
    }
    match (inside(from), inside(to)) {
        (true, false) => alone(from, members),
        (false, true) => alone(to, members),
        _ => member(Spec::new(from, to, UDP), &Owners::new(members, &[])),
    }
}

fn address(six: bool) -> impl Strategy<Value = IpAddr> {
    (0u8..4, 0u8..3).prop_map(move |(net, host)| {
        if six {
            IpAddr::V6(Ipv6Addr::new(
                0x2001,
                0xdb8,
                0,
                net.into(),
                0,
                0,
                0,
                host.into(),
            ))
        } else {
            IpAddr::V4(Ipv4Addr::new(10, 0, net, host))
        }
    })
}

fn any_protocol() -> impl Strategy<Value = u8> {
    prop_oneof![Just(TCP), Just(UDP), Just(ICMP), Just(47)]
}

fn claim() -> impl Strategy<Value = Claim> {
    (any::<bool>(), 0..3, any_protocol()).prop_flat_map(move |(six, kind, mut protocol)| {
        if six && protocol == ICMP {
            protocol = protocol::ICMPV6;
        }
        (address(six), 0u16..4, 20u8..=128).prop_map(move |(address, port, length)| match kind {
            0 => Claim::Fixed {
                address,
                protocol,
                port,
            },
            1 => Claim::Pool { address },
            _ => Claim::Inside { address, length },
        })
    })
}

fn spec() -> impl Strategy<Value = Spec> {
    let fragment = prop_oneof![
        3 => Just(Fragment::None),
        1 => Just(Fragment::First),
        1 => Just(Fragment::Later)
    ];
    let quoted = prop::option::of(prop_oneof![Just(500usize), 0usize..60]);
    let end = |six: bool| (address(six), 0u16..4);
    (any::<bool>(), any_protocol(), fragment, quoted).prop_flat_map(
        move |(six, protocol, fragment, quoted)| {
            (end(six), end(six)).prop_map(move |(from, mut to)| {
                if protocol == ICMP {
                    to.1 = from.1;
                }
                let fragment = if six { Fragment::None } else { fragment };
                Spec {
                    from,
                    to,
                    protocol,
                    fragment,
                    quoted,
                }
            })
        },
    )
}

/// The ends that count and the protocol; `None` if an error quotes too little for an IP header.
fn counting(spec: &Spec) -> Option<(End, End, u8)> {
    let six = spec.is_ipv6();
    let header = if six { 40 } else { 20 };
    let seen = spec
        .quoted
        .map_or(usize::MAX, |quoted| quoted.saturating_sub(header));
    let has_ports = match spec.protocol {
        TCP | UDP => seen >= 4,
        ICMP => seen >= 6,
        _ => false,
    };
    let cut = match spec.fragment {
        Fragment::None => false,
        // A router that cuts a packet quotes the first piece of it.
        Fragment::First => spec.quoted.is_none(),
        Fragment::Later => true,
    };
    let with = |end: End| (end.0, if has_ports && !cut { end.1 } else { 0 });
    let (mut from, mut to) = (with(spec.from), with(spec.to));
    if let Some(quoted) = spec.quoted {
        if quoted < header {
            return None;
        }
        std::mem::swap(&mut from, &mut to);
    }
    let protocol = if six && spec.protocol == ICMP {
        protocol::ICMPV6
    } else {
        spec.protocol
    };
    Some((from, to, protocol))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn owners_are_those_of_the_model(
        members in 1u16..9,
        claims in prop::collection::vec(claim(), 0..12),
        spec in spec(),
    ) {
        let owners = Owners::new(members, &claims);
        let found = member(spec, &owners);
        prop_assert!(found < members);
        if let Some((from, to, protocol)) = counting(&spec) {
            prop_assert_eq!(found, model(members, &claims, from, to, protocol));
        }
    }

    /// Whoever speaks with whom, and whatever is said of them: answers, and errors about either, go where the question
    /// went.
    #[test]
    fn both_directions_belong_to_one(
        members in 1u16..9,
        claims in prop::collection::vec(claim(), 0..12),
        mut spec in spec(),
    ) {
        let owners = Owners::new(members, &claims);
        spec.quoted = None;
        let owner = member(spec, &owners);
        prop_assert_eq!(member(spec.back(), &owners), owner);
        if spec.fragment == Fragment::None {
            let about = Spec { quoted: Some(500), ..spec };
            prop_assert_eq!(member(about, &owners), owner);
            prop_assert_eq!(member(about.back(), &owners), owner);
        }
    }

    /// What a NAT, its forwards and a load balancer make of a connection stays with the member that had it before.
    #[test]
    fn translated_directions_belong_to_one(
        members in 1u16..9,
        host: u8,
        port: u16,
        remote: u16,
        pick: u16,
    ) {
        let v4 = |text: &str| text.parse::<IpAddr>().unwrap();
        let (pool, service) = (v4("192.0.2.1"), v4("192.0.2.2"));
        let (behind, backend) = ((v4("10.0.0.7"), 8080), (v4("10.1.0.1"), 8443));
        let fixed = |(address, port)| Claim::Fixed { address, protocol: TCP, port };
        let claims = [
            Claim::Inside { address: v4("10.0.0.0"), length: 24 },
            Claim::Pool { address: pool },
            fixed((pool, 80)),
            fixed(behind),
            fixed((service, 443)),
            fixed(backend),
        ];
        let owners = Owners::new(members, &claims);
        let client = (IpAddr::V4(Ipv4Addr::new(10, 0, 0, host)), port);
        let server = (v4("198.51.100.1"), remote);
        // Out by the pool: the owner picks a port of its own.
        let out = member(Spec::new(client, server, TCP), &owners);
        let own = (1024..=u16::MAX).filter(|port| Share::new(out, members).has_port(*port));
        let own: Vec<_> = own.collect();
        let public = (pool, own[usize::from(pick) % own.len()]);
        prop_assert_eq!(member(Spec::new(server, public, TCP), &owners), out);
        let about = Spec { quoted: Some(28), ..Spec::new(public, server, TCP) };
        prop_assert_eq!(member(about, &owners), out);
        // In by the forward.
        let into = member(Spec::new(server, (pool, 80), TCP), &owners);
        prop_assert_eq!(member(Spec::new(behind, server, TCP), &owners), into);
        // To the service, from outside and from inside by the pool.
        let to = member(Spec::new(server, (service, 443), TCP), &owners);
        prop_assert_eq!(member(Spec::new(backend, server, TCP), &owners), to);
        let to = member(Spec::new(client, (service, 443), TCP), &owners);
        prop_assert_eq!(to, out);
        prop_assert_eq!(member(Spec::new(backend, public, TCP), &owners), out);
    }
}

#[test]
fn what_tells_of_neighbours_is_everyones() {
    let owners = Owners::new(4, &[]);
    let end = |text: &str| (text.parse().unwrap(), 5);
    let plain = Spec::new(end("10.0.0.1"), end("10.0.0.2"), UDP);
    // What else goes to many may open sessions, of which there is to be one.
    let group = Spec::new(end("10.0.0.1"), end("224.0.0.5"), UDP);
    assert_ne!(group.owner(&owners), Owner::Everyone);
    let mut frame = plain.frame();
    assert_eq!(owner_of_frame(&frame, &Owners::anyone()), Owner::Anyone);
    frame[0] |= 1;
    assert_eq!(owner_of_frame(&frame, &owners), plain.owner(&owners));
    // ARP, also from one station to another, and neighbour discovery.
    let mut arp = vec![2; 60];
    arp[12..14].copy_from_slice(&ethertype::ARP.to_be_bytes());
    assert_eq!(owner_of_frame(&arp, &owners), Owner::Everyone);
    arp[12..14].copy_from_slice(&[0x88, 0xcc]);
    assert_eq!(owner_of_frame(&arp, &owners), Owner::Anyone);
    for kind in 130..=140 {
        let (from, to) = (end("2001:db8::1").0, end("2001:db8::2").0);
        let message = [&[kind, 0, 0, 0][..], &[0; 20]].concat();
        let frame = Spec::ip(from, to, ICMP, Fragment::None, &message);
        let is = owner_of_frame(&frame, &owners) == Owner::Everyone;
        assert_eq!(is, (133..=137).contains(&kind), "{kind}");
    }
}

#[test]
fn parts_are_even() {
    const FLOWS: u16 = 20_000;
    let end = |address: u32, port| (IpAddr::V4(address.into()), port);
    for members in [2, 3, 8] {
        let inside = [Claim::Inside {
            address: end(0x0a00_0000, 0).0,
            length: 8,
        }];
        for claims in [&[][..], &inside] {
            let owners = Owners::new(members, claims);
            // Many addresses, and many ports of one.
            for wide in [false, true] {
                let mut parts = vec![0; usize::from(members)];
                for flow in 0..FLOWS {
                    let (host, port) = if wide { (flow, 1000) } else { (1, flow) };
                    let spec = Spec::new(
                        end(0x0a00_0000 + u32::from(host), port),
                        end(0xc000_0201, 80),
                        TCP,
                    );
                    parts[usize::from(member(spec, &owners))] += 1;
                }
                let even = f64::from(FLOWS) / f64::from(members);
                let uneven = |part: &i32| (f64::from(*part) / even - 1.0).abs() > 0.1;
                assert!(!parts.iter().any(uneven), "{parts:?}");
            }
        }
    }
}

#[test]
fn functions_that_keep_nothing_need_no_owner() {
    struct Plain(bool, Vec<Claim>);
    impl Blueprint for Plain {
        fn build(&self, _: &mut crate::function::Build<'_>) -> Box<dyn crate::function::Function> {
            unreachable!("not built")
        }
        fn wants_records(&self) -> bool {
            self.0
        }
        fn claims(&self) -> Vec<Claim> {
            self.1.clone()
        }
    }
    let pool = Claim::Pool {
        address: "192.0.2.1".parse().unwrap(),
    };
    let spec = Spec::new(
        ("10.0.0.1".parse().unwrap(), 1),
        ("10.0.0.2".parse().unwrap(), 2),
        TCP,
    );
    for (records, claims, anyones) in [
        (false, vec![], true),
        (true, vec![], false),
        (false, vec![pool], false),
    ] {
        let plain = Plain(false, Vec::new());
        let other = Plain(records, claims);
        let owners = Owners::of(2, [&plain as &dyn Blueprint, &other]);
        assert_eq!(spec.owner(&owners) == Owner::Anyone, anyones);
    }
}
