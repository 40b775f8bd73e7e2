//! The rules, compiled: one flat table that is walked from the top.

use chainplane_dataplane::function::{INSIDE, Interface, OUTSIDE};
use chainplane_dataplane::packet::{self, Packet};

use super::config::{Action, Config, Direction, Protocol, Rule};
use crate::config::{PortRange, Prefix};

/// A compiled rule. An empty list is no condition.
#[derive(Clone, Debug)]
struct Compiled {
    action: Action,
    side: Option<Interface>,
    protocol: Protocol,
    from: Box<[Prefix]>,
    to: Box<[Prefix]>,
    ports: Box<[PortRange]>,
    source_ports: Box<[PortRange]>,
    icmp_types: Box<[u8]>,
}

/// What decided on a packet, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Decision {
    /// Whether it passes.
    pub action: Action,
    /// The number of the rule's slot; those of the defaults follow those of the rules.
    pub slot: usize,
    /// Whether it was no rule but a default.
    pub by_default: bool,
}

/// The compiled rules with their defaults.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    rules: Box<[Compiled]>,
    /// By side.
    defaults: [Action; 2],
}

impl Rules {
    /// Compiles a configuration that was checked.
    pub fn compile(config: &Config) -> Self {
        Self {
            rules: config.rules.iter().filter_map(compile).collect(),
            defaults: [config.default.outbound, config.default.inbound],
        }
    }

    /// Names for what may decide: the rules, then the defaults.
    pub fn slots(&self) -> Vec<String> {
        let rules = self.rules.iter().enumerate().map(|(index, rule)| {
            let direction = match rule.side {
                Some(INSIDE) => " outbound",
                Some(_) => " inbound",
                None => "",
            };
            let action = match rule.action {
                Action::Allow => "allow",
                Action::Drop => "drop",
            };
            format!("rule {index} {action} {}{direction}", rule.protocol)
        });
        let defaults = ["default outbound", "default inbound"].map(str::to_owned);
        rules.chain(defaults).collect()
    }

    /// Decides on an IP packet that came in by `side`.
    pub fn decide(&self, packet: &Packet, side: Interface) -> Decision {
        let subject = Subject::of(packet, side);
        match self.rules.iter().position(|rule| subject.matches(rule)) {
            Some(slot) => Decision {
                action: self.rules[slot].action,
                slot,
                by_default: false,
            },
            None => Decision {
                action: self.defaults[usize::from(side == OUTSIDE)],
                slot: self.rules.len() + usize::from(side == OUTSIDE),
                by_default: true,
            },
        }
    }
}

fn compile(rule: &Rule) -> Option<Compiled> {
    let (action, protocol) = rule.decision()?;
    Some(Compiled {
        action,
        side: rule.direction.map(|direction| match direction {
            Direction::Outbound => INSIDE,
            Direction::Inbound => OUTSIDE,
        }),
        protocol,
        from: rule.from.0.clone().into(),
        to: rule.to.0.clone().into(),
        ports: rule.ports.0.clone().into(),
        source_ports: rule.source_ports.0.clone().into(),
        icmp_types: rule.icmp_types.0.clone().into(),
    })
}

/// What the rules are asked about, read from the packet once.
struct Subject {
    side: Interface,
    protocol: u8,
    src: core::net::IpAddr,
    dst: core::net::IpAddr,
    ports: Option<(u16, u16)>,
    icmp_type: Option<u8>,
}

impl Subject {
    fn of(packet: &Packet, side: Interface) -> Self {
        let icmp_type = packet.icmp_type_code().map(|(kind, _)| kind);
        Self {
            side,
            protocol: packet.layers().protocol,
            src: packet.ip_src(),
            dst: packet.ip_dst(),
            ports: packet.ports().filter(|_| icmp_type.is_none()),
            icmp_type,
        }
    }

    fn matches(&self, rule: &Compiled) -> bool {
        rule.side.is_none_or(|side| side == self.side)
            && self.is_of(rule.protocol)
            && any_or(&rule.from, |prefix| prefix.contains(self.src))
            && any_or(&rule.to, |prefix| prefix.contains(self.dst))
            && any_or(&rule.source_ports, |range| {
                self.ports.is_some_and(|(from, _)| range.contains(from))
            })
            && any_or(&rule.ports, |range| {
                self.ports.is_some_and(|(_, to)| range.contains(to))
            })
            && any_or(&rule.icmp_types, |kind| self.icmp_type == Some(*kind))
    }

    fn is_of(&self, protocol: Protocol) -> bool {
        match protocol {
            Protocol::Any => true,
            Protocol::Tcp => self.protocol == packet::protocol::TCP,
            Protocol::Udp => self.protocol == packet::protocol::UDP,
            Protocol::Icmp if self.src.is_ipv6() => self.protocol == packet::protocol::ICMPV6,
            Protocol::Icmp => self.protocol == packet::protocol::ICMP,
            Protocol::Number(number) => self.protocol == number,
        }
    }
}

/// An empty list is no condition.
fn any_or<T>(list: &[T], holds: impl Fn(&T) -> bool) -> bool {
    list.is_empty() || list.iter().any(holds)
}
