//! Behaviour, in a simulated worker.

use core::time::Duration;

use chainplane_dataplane::engine::Hop;
use chainplane_dataplane::function::{INSIDE, OUTSIDE};
use chainplane_dataplane::packet::tcp_flag::{ACK, FIN, RST, SYN};
use chainplane_dataplane::sim::{Sim, SimFunction};

use super::{Action, Config, Defaults, Direction, Protocol, Rule};
use crate::config::{Kind, OneOrMany, Site};
use crate::track::testing::{at, echo, expired, fragment, frame, raw, tcp, udp, unreachable, v4};

/// Ports of the simulated worker.
const IN: usize = 0;
const OUT: usize = 1;

pub(super) fn rule(action: Action, protocol: Protocol) -> Rule {
    let (allow, drop) = match action {
        Action::Allow => (Some(protocol), None),
        Action::Drop => (None, Some(protocol)),
    };
    Rule {
        allow,
        drop,
        direction: None,
        from: OneOrMany::default(),
        to: OneOrMany::default(),
        ports: OneOrMany::default(),
        source_ports: OneOrMany::default(),
        icmp_types: OneOrMany::default(),
    }
}

pub(super) fn config(rules: Vec<Rule>) -> Config {
    Config {
        default: Defaults {
            outbound: Action::Allow,
            inbound: Action::Drop,
        },
        rules,
        sessions: Some(64),
        timeouts: crate::track::Timeouts::default(),
    }
}

pub(super) fn sim(config: &Config, flows: Option<usize>) -> Sim {
    let plan = config
        .compile(&Site::default())
        .expect("a good configuration");
    let function = SimFunction::inline("fw", &*plan, Hop::Port(0), Hop::Port(1));
    let mut sim = Sim::new(flows, &[function], 5);
    sim.add_port("in", Hop::Function(0, INSIDE));
    sim.add_port("out", Hop::Function(0, OUTSIDE));
    sim
}

/// Whether a frame that comes in by `port` leaves by the other one, unchanged.
fn passes(sim: &mut Sim, port: usize, frame: &[u8]) -> bool {
    let mut out = sim.exchange(port, frame);
    assert!(out[port].is_empty(), "a firewall sends nothing back");
    match &mut out[1 - port][..] {
        [] => false,
        [one] => {
            assert_eq!(one, frame);
            true
        }
        _ => panic!("one frame became many"),
    }
}

fn value(sim: &mut Sim, name: &str) -> u64 {
    sim.snapshot().function("fw").unwrap().value(name)
}

fn slot(sim: &mut Sim, name: &str) -> u64 {
    let snapshot = sim.snapshot();
    let slots = &snapshot.function("fw").unwrap().slots;
    slots
        .iter()
        .find(|slot| slot.0 == name)
        .expect("a slot of this name")
        .1
}

#[test]
fn answers_pass_and_strangers_do_not() {
    for flows in [None, Some(64)] {
        let mut sim = sim(&config(vec![]), flows);
        let (host, server) = (at("10.0.0.1:5000"), at("192.0.2.1:53"));
        assert!(!passes(&mut sim, OUT, &udp(server, host)));
        for _ in 0..3 {
            assert!(passes(&mut sim, IN, &udp(host, server)));
            assert!(passes(&mut sim, OUT, &udp(server, host)));
            assert!(!passes(&mut sim, OUT, &udp(at("192.0.2.2:53"), host)));
            assert!(!passes(&mut sim, OUT, &udp(server, at("10.0.0.1:5001"))));
        }
        assert_eq!(value(&mut sim, "denied-by-default"), 7);
        assert_eq!(slot(&mut sim, "default inbound"), 7);
        assert_eq!(slot(&mut sim, "default outbound"), 1);
        assert_eq!(value(&mut sim, "in-session"), 6);
        assert_eq!(value(&mut sim, "sessions-opened"), 1);
    }
}

#[test]
fn the_other_side_can_not_pretend_to_be_inside() {
    let mut sim = sim(&config(vec![]), Some(64));
    let (host, server) = (at("10.0.0.1:5000"), at("192.0.2.1:53"));
    assert!(passes(&mut sim, IN, &udp(host, server)));
    assert!(!passes(&mut sim, OUT, &udp(host, server)));
}

#[test]
fn tcp_needs_a_syn_first() {
    for flows in [None, Some(64)] {
        let mut sim = sim(&config(vec![]), flows);
        let (host, server) = (at("10.0.0.1:5000"), at("192.0.2.1:80"));
        for flags in [ACK, SYN | ACK, FIN | ACK, RST, 0] {
            assert!(!passes(&mut sim, IN, &tcp(host, server, flags)));
        }
        assert_eq!(value(&mut sim, "tcp-no-session"), 5);
        assert!(passes(&mut sim, IN, &tcp(host, server, SYN)));
        assert!(passes(&mut sim, OUT, &tcp(server, host, SYN | ACK)));
        assert!(passes(&mut sim, IN, &tcp(host, server, ACK)));
        assert!(passes(&mut sim, OUT, &tcp(server, host, ACK)));
        assert!(!passes(&mut sim, OUT, &tcp(server, host, SYN)));
        // Established: still there after two hours of silence, not after three.
        sim.advance(Duration::from_hours(2));
        assert!(passes(&mut sim, OUT, &tcp(server, host, ACK)));
        sim.advance(Duration::from_hours(3));
        assert!(!passes(&mut sim, OUT, &tcp(server, host, ACK)));
    }
}

#[test]
fn fin_and_rst_shorten_the_timeout() {
    for last in [FIN | ACK, RST] {
        let mut sim = sim(&config(vec![]), Some(64));
        let (host, server) = (at("10.0.0.1:5000"), at("192.0.2.1:80"));
        assert!(passes(&mut sim, IN, &tcp(host, server, SYN)));
        assert!(passes(&mut sim, OUT, &tcp(server, host, SYN | ACK)));
        assert!(passes(&mut sim, IN, &tcp(host, server, ACK)));
        assert!(passes(&mut sim, OUT, &tcp(server, host, last)));
        assert!(passes(&mut sim, IN, &tcp(host, server, ACK)));
        sim.advance(Duration::from_secs(200));
        assert!(passes(&mut sim, IN, &tcp(host, server, ACK)));
        // Nobody from outside reuses the ports; the host itself may.
        assert!(!passes(&mut sim, OUT, &tcp(server, host, SYN)));
        sim.advance(Duration::from_secs(250));
        assert!(!passes(&mut sim, IN, &tcp(host, server, ACK)));
    }
}

#[test]
fn rules_decide_in_order_and_are_counted() {
    let prefix = |text: &str| OneOrMany(vec![text.parse().unwrap()]);
    let ports = |text: &str| OneOrMany(vec![text.parse().unwrap()]);
    let rules = vec![
        Rule {
            from: prefix("192.0.2.66"),
            ..rule(Action::Drop, Protocol::Any)
        },
        Rule {
            direction: Some(Direction::Inbound),
            to: prefix("10.0.0.80"),
            ports: ports("8000-8080"),
            ..rule(Action::Allow, Protocol::Tcp)
        },
        Rule {
            direction: Some(Direction::Inbound),
            icmp_types: OneOrMany(vec![8]),
            ..rule(Action::Allow, Protocol::Icmp)
        },
        Rule {
            direction: Some(Direction::Outbound),
            source_ports: ports("7"),
            ..rule(Action::Drop, Protocol::Udp)
        },
        rule(Action::Allow, Protocol::Number(47)),
    ];
    let mut sim = sim(&config(rules), Some(64));
    let (web, client) = (at("10.0.0.80:8000"), at("192.0.2.1:999"));
    assert!(passes(&mut sim, OUT, &tcp(client, web, SYN)));
    assert!(passes(&mut sim, IN, &tcp(web, client, SYN | ACK)));
    assert!(!passes(
        &mut sim,
        OUT,
        &tcp(client, at("10.0.0.80:8081"), SYN)
    ));
    assert!(!passes(
        &mut sim,
        OUT,
        &tcp(client, at("10.0.0.81:8000"), SYN)
    ));
    assert!(!passes(&mut sim, OUT, &tcp(at("192.0.2.66:1"), web, SYN)));
    assert!(passes(&mut sim, OUT, &echo(client, at("10.0.0.80:0"))));
    assert!(passes(&mut sim, IN, &echo(at("10.0.0.80:0"), client)));
    assert!(!passes(&mut sim, IN, &udp(at("10.0.0.80:7"), client)));
    assert!(passes(&mut sim, IN, &udp(at("10.0.0.80:8"), client)));
    let gre = raw(v4(client.address), v4(web.address), 47, &[0; 20]);
    assert!(passes(&mut sim, OUT, &gre));
    for (name, count) in [
        ("rule 0 drop any", 1),
        ("rule 1 allow tcp inbound", 1),
        ("rule 2 allow icmp inbound", 1),
        ("rule 3 drop udp outbound", 1),
        ("rule 4 allow protocol 47", 1),
        ("default inbound", 2),
        ("default outbound", 1),
    ] {
        assert_eq!(slot(&mut sim, name), count, "{name}");
    }
    assert_eq!(value(&mut sim, "denied-by-rule"), 2);
    assert_eq!(value(&mut sim, "denied-by-default"), 2);
    assert_eq!(value(&mut sim, "untracked"), 1);
}

#[test]
fn echoes_are_sessions_of_requests() {
    let mut sim = sim(&config(vec![]), Some(64));
    for (host, server) in [
        ("10.0.0.1:0", "192.0.2.1:0"),
        ("[2001:db8::1]:7", "[2001:db8::2]:0"),
    ] {
        let (mut host, server) = (at(host), at(server));
        host.port = 77;
        assert!(!passes(&mut sim, OUT, &echo(server, host)));
        assert!(passes(&mut sim, IN, &echo(host, server)));
        assert!(passes(&mut sim, OUT, &echo(server, host)));
        // The same identifier does not let the other end ask.
        let asks = crate::track::Endpoint { port: 77, ..server };
        let asked = crate::track::Endpoint { port: 0, ..host };
        assert!(!passes(&mut sim, OUT, &echo(asks, asked)));
    }
}

#[test]
fn icmp_errors_about_sessions_pass() {
    let mut sim = sim(&config(vec![]), Some(64));
    for (host, server, router) in [
        ("10.0.0.1:5000", "192.0.2.1:53", "198.51.100.1:0"),
        ("[2001:db8::1]:5000", "[2001:db8::2]:53", "[2001:db8::3]:0"),
    ] {
        let (host, server, router) = (at(host), at(server), at(router).address);
        let sent = udp(host, server);
        let error = unreachable(router, host.address, &sent, 500);
        assert!(!passes(&mut sim, OUT, &error));
        assert!(passes(&mut sim, IN, &sent));
        assert!(passes(&mut sim, OUT, &error));
        // What traceroute looks for.
        let expired = expired(router, host.address, &sent);
        assert!(passes(&mut sim, OUT, &expired));
        // About what was never sent, or not to whom sent it.
        let other = udp(host, at(&server.to_string().replace(":53", ":54")));
        assert!(!passes(
            &mut sim,
            OUT,
            &unreachable(router, host.address, &other, 500)
        ));
        assert!(!passes(
            &mut sim,
            OUT,
            &unreachable(router, server.address, &sent, 500)
        ));
    }
    assert_eq!(value(&mut sim, "related"), 4);
}

#[test]
fn truncated_and_lying_quotes_are_not_related() {
    let mut sim = sim(&config(vec![]), Some(64));
    let (host, server) = (at("10.0.0.1:5000"), at("192.0.2.1:53"));
    let sent = udp(host, server);
    assert!(passes(&mut sim, IN, &sent));
    for quoted in 0..28 {
        let error = unreachable(server.address, host.address, &sent, quoted);
        assert!(!passes(&mut sim, OUT, &error), "{quoted} bytes");
    }
    let error = unreachable(server.address, host.address, &sent, 28);
    assert!(passes(&mut sim, OUT, &error));
    // Header length beyond the end, wrong version, a later fragment.
    for (at, byte) in [(0, 0x4f), (0, 0x44), (0, 0x65), (7, 1)] {
        let mut lying = sent.clone();
        lying[14 + at] = byte;
        let error = unreachable(server.address, host.address, &lying, 28);
        assert!(!passes(&mut sim, OUT, &error), "byte {at} is {byte}");
    }
}

#[test]
fn what_is_on_the_link_passes_and_the_rest_is_counted() {
    let mut sim = sim(&config(vec![]), Some(64));
    assert!(passes(&mut sim, OUT, &frame(0x0806, &[0; 28])));
    assert!(passes(&mut sim, IN, &frame(0x8035, &[0; 46])));
    assert!(!passes(&mut sim, OUT, &frame(0x88cc, &[0; 28])));
    let whole = udp(at("10.0.0.1:5000"), at("192.0.2.1:53"));
    assert!(!passes(&mut sim, IN, &fragment(whole.clone(), 0)));
    assert!(!passes(&mut sim, IN, &fragment(whole, 1)));
    assert_eq!(value(&mut sim, "ethertype"), 1);
    assert_eq!(value(&mut sim, "fragment"), 2);
    assert_eq!(value(&mut sim, "discovery"), 2);
    // A neighbour solicitation, from the link and from afar.
    let solicitation = |hops: u8| {
        let mut frame = echo(at("[2001:db8::1]:7"), at("[2001:db8::2]:0"));
        frame.extend([0; 12]);
        frame[14 + 5] += 12;
        frame[14 + 7] = hops;
        frame[14 + 40] = 135;
        frame
    };
    assert!(passes(&mut sim, OUT, &solicitation(255)));
    assert!(!passes(&mut sim, OUT, &solicitation(254)));
}

#[test]
fn a_full_table_refuses_new_sessions_only() {
    let mut sim = sim(&config(vec![]), Some(64));
    let server = at("192.0.2.1:53");
    let host = |port: u16| at(&format!("10.0.0.1:{port}"));
    for port in 1..=64 {
        assert!(passes(&mut sim, IN, &udp(host(port), server)));
    }
    assert!(!passes(&mut sim, IN, &udp(host(65), server)));
    assert_eq!(value(&mut sim, "sessions-full"), 1);
    assert!(passes(&mut sim, OUT, &udp(server, host(64))));
    sim.advance(Duration::from_secs(301));
    assert!(passes(&mut sim, IN, &udp(host(65), server)));
    assert!(!passes(&mut sim, OUT, &udp(server, host(64))));
}

#[test]
fn a_replayed_drop_ends_when_a_session_is_made() {
    let mut sim = sim(&config(vec![]), Some(64));
    let (host, server) = (at("10.0.0.1:5000"), at("192.0.2.1:53"));
    for _ in 0..3 {
        assert!(!passes(&mut sim, OUT, &udp(server, host)));
    }
    let hits = |sim: &mut Sim| {
        let engine = sim.snapshot().engine;
        engine
            .iter()
            .find(|(info, _)| info.name == "flow-hits")
            .unwrap()
            .1
    };
    assert_eq!(hits(&mut sim), 2);
    assert!(passes(&mut sim, IN, &udp(host, server)));
    assert!(passes(&mut sim, OUT, &udp(server, host)));
    assert_eq!(hits(&mut sim), 2);
}
