//! Behaviour where several workers run the NAT together. Packets come in by the queue of any of them.

use std::collections::{HashMap, HashSet};

use chainplane_dataplane::engine::Hop;
use chainplane_dataplane::function::{INSIDE, OUTSIDE};
use chainplane_dataplane::packet::tcp_flag::{ACK, SYN};
use chainplane_dataplane::sim::{Crew, SimFunction};

use super::tests::{IN, OUT, config};
use super::{Config, Forward, Transport};
use crate::config::{Kind, Site};
use crate::track::Endpoint;
use crate::track::testing::{at, echo, endpoints, quoted, tcp, udp, unreachable};

/// A crew with one NAT, and which queue the next packet comes by.
struct Many {
    crew: Crew,
    turn: usize,
}

impl Many {
    fn new(config: &Config, members: u16) -> Self {
        let plan = config
            .compile(&Site::default())
            .expect("a good configuration");
        let function = SimFunction::inline("nat", &*plan, Hop::Port(0), Hop::Port(1));
        let mut crew = Crew::new(members, Some(64), &[function], 5);
        crew.add_port("in", Hop::Function(0, INSIDE));
        crew.add_port("out", Hop::Function(0, OUTSIDE));
        Self { crew, turn: 0 }
    }

    /// What came out where, at most one frame.
    fn send(&mut self, port: usize, frame: &[u8]) -> Option<(usize, Vec<u8>)> {
        self.turn += 1;
        let queue = self.turn % self.crew.members();
        self.crew.inject(port, queue, frame);
        self.crew.run();
        let mut out = Vec::new();
        for port in [IN, OUT] {
            let sent = self.crew.sent(port).into_iter();
            out.extend(sent.map(|frame| (port, frame.bytes)));
        }
        assert!(out.len() <= 1, "one frame became many");
        out.pop()
    }

    /// The endpoints of a frame that has to come out of `to`.
    fn through(&mut self, from: usize, to: usize, frame: &[u8]) -> (Endpoint, Endpoint) {
        let (port, out) = self.send(from, frame).expect("not dropped");
        assert_eq!(port, to);
        endpoints(&out)
    }

    /// A counter, of all members together.
    fn value(&mut self, name: &str) -> u64 {
        let snapshots = self.crew.snapshots();
        let values = snapshots.iter().map(|all| all.function("nat"));
        values.map(|nat| nat.expect("a NAT").value(name)).sum()
    }

    /// How many members a counter counts at.
    fn members_that_count(&mut self, name: &str) -> usize {
        let snapshots = self.crew.snapshots();
        let values = snapshots.iter().filter_map(|all| all.function("nat"));
        values.filter(|nat| nat.value(name) > 0).count()
    }
}

fn with_forwards() -> Config {
    let mut config = config();
    config.forwards.push(Forward {
        protocol: Transport::Udp,
        address: None,
        port: 7000,
        to: "10.0.0.6:7001".parse().unwrap(),
    });
    config.forwards.push(Forward {
        protocol: Transport::Udp,
        address: None,
        port: 7003,
        to: "10.0.0.7:7002".parse().unwrap(),
    });
    config
}

fn host(number: u16, port: u16) -> Endpoint {
    at(&format!("10.0.1.{number}:{port}"))
}

#[test]
fn answers_come_home_to_one_mapping_for_all_peers() {
    for members in 1..=5 {
        let mut many = Many::new(&config(), members);
        let mut given = HashMap::new();
        for number in 0..40 {
            let host = host(number % 8, 5000 + number / 8);
            for server in ["192.0.2.1:53", "192.0.2.1:80", "192.0.2.2:53"].map(at) {
                let (outer, dst) = many.through(IN, OUT, &udp(host, server));
                assert_eq!(dst, server);
                assert_eq!(*given.entry(outer).or_insert(host), host);
                assert_eq!(outer.port & 1, host.port & 1, "parity");
                assert_eq!(
                    many.through(OUT, IN, &udp(server, outer)),
                    (server, host),
                    "of {members}"
                );
                let error = udp(host, server);
                let (_, left) = many.send(IN, &error).unwrap();
                let error = unreachable(at("198.51.100.1:0").address, outer.address, &left, 40);
                let (port, got) = many.send(OUT, &error).expect("an error about a session");
                assert_eq!((port, endpoints(&got).1.address), (IN, host.address));
            }
            let server = at("192.0.2.1:0");
            let (outer, _) = many.through(IN, OUT, &echo(host, server));
            assert_eq!(many.through(OUT, IN, &echo(server, outer)), (server, host));
            // A stranger has no part in it.
            let stranger = udp(at("192.0.2.77:53"), outer);
            assert!(many.send(OUT, &stranger).is_none());
        }
        assert_eq!(given.len(), 40);
        assert_eq!(many.value("mappings-made"), 80);
        assert_eq!(many.members_that_count("mappings-made"), members as usize);
    }
}

#[test]
fn an_endpoint_gets_its_port_again() {
    for members in 1..=3 {
        let mut many = Many::new(&config(), members);
        let (one, server) = (host(1, 5001), at("192.0.2.1:53"));
        let (first, _) = many.through(IN, OUT, &udp(one, server));
        many.crew.advance(core::time::Duration::from_secs(1000));
        for number in 2..20 {
            many.through(IN, OUT, &udp(host(number, 6000 + number), server));
        }
        assert_eq!(many.through(IN, OUT, &udp(one, server)).0, first);
    }
}

#[test]
fn both_ends_of_a_hairpin_reach_each_other_whoever_opens() {
    for members in 1..=4 {
        let mut many = Many::new(&config(), members);
        let mut split = 0;
        for number in 0..24 {
            let (one, two) = (host(1, 4000 + number), host(2, 5000 + number));
            let server = at("192.0.2.1:80");
            let seen_one = many.through(IN, OUT, &tcp(one, server, SYN)).0;
            let seen_two = many.through(IN, OUT, &tcp(two, server, SYN)).0;
            for (client, serving, there) in [(one, two, seen_two), (two, one, seen_one)] {
                let (client_as, dst) = many.through(IN, IN, &tcp(client, there, SYN));
                assert_eq!((client_as.address, dst), (there.address, serving));
                split += usize::from(client_as != seen_one && client_as != seen_two);
                for flags in [SYN | ACK, ACK, ACK] {
                    let answer = many.through(IN, IN, &tcp(serving, client_as, flags));
                    assert_eq!(answer, (there, client));
                    let again = many.through(IN, IN, &tcp(client, there, ACK));
                    assert_eq!(again, (client_as, serving));
                }
                // An error about it is translated on both sides, too.
                let sent = tcp(client, there, ACK);
                let (_, came) = many.send(IN, &sent).unwrap();
                let error = unreachable(serving.address, client_as.address, &came, 200);
                let (port, got) = many.send(IN, &error).expect("an error about a session");
                assert_eq!((port, endpoints(&got).1.address), (IN, client.address));
                assert_eq!(quoted(&got)[14..], sent[14..]);
            }
        }
        assert_eq!(
            split == 0,
            members == 1,
            "another mapping at the other's member"
        );
    }
}

#[test]
fn forwards_serve_clients_outside_and_inside_and_each_other() {
    for members in 1..=4 {
        let mut many = Many::new(&with_forwards(), members);
        let (outer, inner) = (at("203.0.113.2:7000"), at("10.0.0.6:7001"));
        for number in 0..40 {
            let client = at(&format!("192.0.2.9:{}", 4000 + number));
            assert_eq!(many.through(OUT, IN, &udp(client, outer)), (client, inner));
            assert_eq!(many.through(IN, OUT, &udp(inner, client)), (outer, client));
            // A client inside is seen as everyone outside sees it.
            let client = host(3, 4000 + number);
            let (seen, _) = many.through(IN, OUT, &udp(client, at("192.0.2.1:53")));
            assert_eq!(many.through(IN, IN, &udp(client, outer)), (seen, inner));
            assert_eq!(many.through(IN, IN, &udp(inner, seen)), (outer, client));
            // The forwarded port speaks first.
            let client = host(4, 4000 + number);
            let (seen, _) = many.through(IN, OUT, &udp(client, at("192.0.2.1:53")));
            assert_eq!(many.through(IN, IN, &udp(inner, seen)), (outer, client));
            assert_eq!(many.through(IN, IN, &udp(client, outer)), (seen, inner));
        }
        assert_eq!(
            many.members_that_count("translated-inbound"),
            members as usize,
            "a forward's clients are spread"
        );
        let (other_outer, other_inner) = (at("203.0.113.2:7003"), at("10.0.0.7:7002"));
        assert_eq!(
            many.through(IN, IN, &udp(inner, other_outer)),
            (outer, other_inner)
        );
        assert_eq!(
            many.through(IN, IN, &udp(other_inner, outer)),
            (other_outer, inner)
        );
    }
}

#[test]
fn a_pool_is_shared_out_and_no_port_is_given_twice() {
    for members in [1, 3, 4] {
        let mut config = config();
        config.sessions = Some(4096);
        let mut many = Many::new(&config, members);
        let (mut given, mut refused) = (HashSet::new(), 0);
        for number in 0..1100 {
            let host = at(&format!("10.0.{}.{}:99", number / 250, number % 250));
            match many.send(IN, &udp(host, at("192.0.2.1:53"))) {
                Some((_, frame)) => assert!(given.insert(endpoints(&frame).0)),
                None => refused += 1,
            }
        }
        // Of 1023 low ports; the last few of a share may not be found, and hosts are not spread evenly.
        assert!((77..400).contains(&refused), "{refused} of {members}");
        assert_eq!(many.value("pool-exhausted"), refused);
    }
}
