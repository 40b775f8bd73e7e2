//! What firewalls on the way let begin, so that traffic fits them where the user says nothing of it.

use chainplane_nf::firewall::{self, Action, Direction, Protocol};

use super::derive;
use crate::bench::traffic::{Side, Transports};

/// Whether a firewall lets no flow of TCP or UDP begin.
pub fn is_closed(firewall: &firewall::Config, outbound: bool) -> bool {
    drops(firewall, outbound) && opened(firewall, outbound).is_none()
}

/// Whether a firewall drops what no rule is about.
fn drops(firewall: &firewall::Config, outbound: bool) -> bool {
    let default = firewall.default;
    let action = if outbound {
        default.outbound
    } else {
        default.inbound
    };
    action == Action::Drop
}

/// The rule by which a firewall that drops by default lets flows begin: the first that allows TCP or UDP.
pub fn opened(firewall: &firewall::Config, outbound: bool) -> Option<&firewall::Rule> {
    let direction = if outbound {
        Direction::Outbound
    } else {
        Direction::Inbound
    };
    let allows = |rule: &&firewall::Rule| {
        let known = matches!(
            rule.allow,
            Some(Protocol::Any | Protocol::Tcp | Protocol::Udp)
        );
        known && rule.direction.is_none_or(|only| only == direction)
    };
    let mut rules = firewall.rules.iter();
    rules.find(allows).filter(|_| drops(firewall, outbound))
}

/// Moves what is `free` of the sides to where a firewall's rule lets it through; tells what IP then carries.
pub fn fit(
    rule: &firewall::Rule,
    sides: &mut [Side; 2],
    free: [bool; 2],
    transport: Transports,
) -> Transports {
    let prefixes = [&rule.from, &rule.to];
    for (end, prefix) in prefixes.map(|all| all.first()).into_iter().enumerate() {
        if let Some(prefix) = prefix.filter(|prefix| free[end] && !prefix.is_ipv6()) {
            derive::within(&mut sides[end], prefix);
            if end == 1 {
                sides[1].hosts = 1;
            }
        }
    }
    // Whoever serves is known already, and the rule is for it, or for others.
    if !free[1] {
        return transport;
    }
    if let Some(port) = rule.ports.first() {
        sides[1].port = port.first.max(1);
    }
    match rule.allow {
        Some(Protocol::Tcp) => Transports::Tcp,
        _ => transport,
    }
}
