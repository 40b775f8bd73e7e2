//! The firewall against a naive one: a list of sessions and rules read straight from the configuration.

use core::time::Duration;

use chainplane_dataplane::packet::tcp_flag::{ACK, FIN, RST, SYN};
use proptest::prelude::*;

use super::tests::{config, rule, sim};
use super::{Action, Config, Direction, Protocol, Rule};
use crate::config::{Kind, OneOrMany, PortRange};
use crate::track::Endpoint;
use crate::track::testing::{at, echo, tcp, udp};

/// A packet of a small world, so that packets meet each other's sessions.
#[derive(Clone, Copy, Debug)]
struct Sent {
    inbound: bool,
    protocol: Protocol,
    flags: u8,
    inner: Endpoint,
    outer: Endpoint,
    echo_reply: bool,
}

impl Sent {
    fn ends(&self) -> (Endpoint, Endpoint) {
        let (src, dst) = if self.inbound {
            (self.outer, self.inner)
        } else {
            (self.inner, self.outer)
        };
        match (self.protocol, self.echo_reply) {
            (Protocol::Icmp, false) => (src, Endpoint { port: 0, ..dst }),
            (Protocol::Icmp, true) => (Endpoint { port: 0, ..src }, dst),
            _ => (src, dst),
        }
    }

    fn frame(&self) -> Vec<u8> {
        let (src, dst) = self.ends();
        match self.protocol {
            Protocol::Tcp => tcp(src, dst, self.flags),
            Protocol::Udp => udp(src, dst),
            _ => echo(src, dst),
        }
    }
}

#[derive(Clone, Debug)]
enum Op {
    Send(Sent),
    Wait(u16),
}

fn op() -> impl Strategy<Value = Op> {
    let flags = prop_oneof![
        3 => Just(SYN), 2 => Just(SYN | ACK), 3 => Just(ACK), 1 => Just(FIN | ACK), 1 => Just(RST),
    ];
    let protocol = prop_oneof![
        Just(Protocol::Tcp),
        Just(Protocol::Udp),
        Just(Protocol::Icmp)
    ];
    let inner = prop_oneof![
        Just(at("10.0.0.1:7")),
        Just(at("10.0.0.2:7")),
        Just(at("10.0.0.2:8"))
    ];
    let outer = prop_oneof![Just(at("192.0.2.1:7")), Just(at("192.0.2.9:80"))];
    let sent = (any::<bool>(), protocol, flags, inner, outer, any::<bool>());
    prop_oneof![
        12 => sent.prop_map(|(inbound, protocol, flags, inner, outer, echo_reply)| Op::Send(Sent {
            inbound, protocol, flags, inner, outer, echo_reply,
        })),
        1 => prop_oneof![Just(30), Just(70), Just(250), Just(310), Just(8000)].prop_map(Op::Wait),
    ]
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let protocol = prop_oneof![
        Just(Protocol::Any),
        Just(Protocol::Tcp),
        Just(Protocol::Udp),
        Just(Protocol::Icmp),
        Just(Protocol::Number(1)),
    ];
    let prefix = prop_oneof![
        3 => Just(None), 1 => Just(Some("10.0.0.2")), 1 => Just(Some("10.0.0.0/8")),
        1 => Just(Some("192.0.2.0/29")), 1 => Just(Some("2001:db8::/32")),
    ];
    let direction = prop_oneof![
        Just(None),
        Just(Some(Direction::Inbound)),
        Just(Some(Direction::Outbound)),
    ];
    let conditions = (prefix.clone(), prefix, any::<[bool; 3]>());
    let rules = (any::<bool>(), protocol, direction, conditions).prop_map(
        |(allow, protocol, direction, (from, to, [ports, sources, types]))| {
            let list = |text: Option<&str>| {
                OneOrMany(text.map(|text| text.parse().unwrap()).into_iter().collect())
            };
            let range = |wanted: bool, first, last| {
                let tcp_or_udp = matches!(protocol, Protocol::Tcp | Protocol::Udp);
                let range = (wanted && tcp_or_udp).then_some(PortRange { first, last });
                OneOrMany(range.into_iter().collect())
            };
            let icmp_types = (types && protocol == Protocol::Icmp).then_some(8);
            Rule {
                direction,
                from: list(from),
                to: list(to),
                ports: range(ports, 7, 9),
                source_ports: range(sources, 8, 100),
                icmp_types: OneOrMany(icmp_types.into_iter().collect()),
                ..rule(if allow { Action::Allow } else { Action::Drop }, protocol)
            }
        },
    );
    // Not with prefixes of both families.
    rules.prop_filter("a good rule", |rule| {
        config(vec![rule.clone()]).check().is_empty()
    })
}

/// What the rules say of a packet.
fn allowed(config: &Config, sent: &Sent) -> bool {
    let (src, dst) = sent.ends();
    for rule in &config.rules {
        let (allow, protocol) = match (rule.allow, rule.drop) {
            (Some(protocol), _) => (true, protocol),
            (_, Some(protocol)) => (false, protocol),
            _ => unreachable!(),
        };
        let same_protocol = match protocol {
            Protocol::Any => true,
            Protocol::Number(1) => sent.protocol == Protocol::Icmp,
            protocol => sent.protocol == protocol,
        };
        let same_direction = match rule.direction {
            None => true,
            Some(Direction::Inbound) => sent.inbound,
            Some(Direction::Outbound) => !sent.inbound,
        };
        let from = rule.from.0.is_empty() || rule.from.0.iter().any(|p| p.contains(src.address));
        let to = rule.to.0.is_empty() || rule.to.0.iter().any(|p| p.contains(dst.address));
        let ports = rule.ports.0.is_empty() || rule.ports.0[0].contains(dst.port);
        let sources = rule.source_ports.0.is_empty() || rule.source_ports.0[0].contains(src.port);
        let types = rule.icmp_types.0.is_empty() || !sent.echo_reply;
        if same_protocol && same_direction && from && to && ports && sources && types {
            return allow;
        }
    }
    let default = if sent.inbound {
        config.default.inbound
    } else {
        config.default.outbound
    };
    default == Action::Allow
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Stage {
    Opening,
    Open,
    Closing,
}

#[derive(Debug)]
struct Known {
    opened: Sent,
    stage: Stage,
    idle: u64,
}

impl Known {
    fn limit(&self) -> u64 {
        match (self.opened.protocol, self.stage) {
            (Protocol::Tcp, Stage::Open) => 7440,
            (Protocol::Tcp, _) => 240,
            (Protocol::Udp, _) => 300,
            _ => 60,
        }
    }

    /// Whether a packet is of this session, and goes the way of the one that opened it.
    fn has(&self, sent: &Sent) -> Option<bool> {
        let forward = sent.inbound == self.opened.inbound;
        let (src, dst) = sent.ends();
        let ends = if forward { (src, dst) } else { (dst, src) };
        let kind = sent.protocol != Protocol::Icmp || sent.echo_reply != forward;
        let same = sent.protocol == self.opened.protocol && ends == self.opened.ends();
        (same && kind).then_some(forward)
    }
}

fn naive(config: &Config, known: &mut Vec<Known>, sent: &Sent) -> bool {
    let tcp = sent.protocol == Protocol::Tcp;
    let bare_syn = tcp && sent.flags == SYN;
    let found = known.iter().position(|session| session.has(sent).is_some());
    if let Some(index) = found {
        let session = &mut known[index];
        let forward = session.has(sent).unwrap();
        if !bare_syn || forward || session.stage == Stage::Opening {
            session.idle = 0;
            if tcp {
                session.stage = match session.stage {
                    _ if sent.flags & (FIN | RST) != 0 => Stage::Closing,
                    Stage::Opening if sent.flags & SYN != 0 && !forward => Stage::Open,
                    Stage::Closing if bare_syn && forward => Stage::Opening,
                    stage => stage,
                };
            }
            return true;
        }
    } else if tcp && !bare_syn {
        return false;
    }
    if !allowed(config, sent) {
        return false;
    }
    if let Some(index) = found {
        if known[index].stage != Stage::Closing {
            return true;
        }
        known.remove(index);
    }
    if !(sent.protocol == Protocol::Icmp && sent.echo_reply) {
        known.push(Known {
            opened: *sent,
            stage: Stage::Opening,
            idle: 0,
        });
    }
    true
}

proptest! {
    #[test]
    fn decides_as_a_naive_firewall(
        rules in proptest::collection::vec(any_rule(), 0..4),
        ops in proptest::collection::vec(op(), 1..60),
    ) {
        let config = config(rules);
        let mut known: Vec<Known> = Vec::new();
        let (mut staged, mut replayed) = (sim(&config, None), sim(&config, Some(16)));
        for op in ops {
            match op {
                Op::Wait(seconds) => {
                    let pause = Duration::from_secs(seconds.into());
                    staged.advance(pause);
                    replayed.advance(pause);
                    for session in &mut known {
                        session.idle += u64::from(seconds);
                    }
                    known.retain(|session| session.idle <= session.limit());
                }
                Op::Send(sent) => {
                    let (port, frame) = (usize::from(sent.inbound), sent.frame());
                    let expected = naive(&config, &mut known, &sent);
                    let out = staged.exchange(port, &frame);
                    prop_assert_eq!(out[1 - port].len(), usize::from(expected), "{:?}", sent);
                    prop_assert_eq!(replayed.exchange(port, &frame), out);
                }
            }
        }
        prop_assert_eq!(staged.snapshot().functions, replayed.snapshot().functions);
    }
}
