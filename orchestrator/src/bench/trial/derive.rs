//! What a configuration says of the traffic that can pass it: which ports are its ends, and which addresses fit there.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use chainplane_nf::FunctionConfig;
use chainplane_nf::config::{InterfaceAddress, Prefix};

use super::{BenchError, admit};
use crate::bench::traffic::{IpVersions, NextHop, Side, Transports};
use crate::spec::Model;
use crate::spec::model::{Endpoint, Path};

/// Hosts of a side at most.
const MOST_HOSTS: u32 = 4096;

/// What follows from a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Derived {
    /// The two sides, the one that opens flows first.
    pub sides: [Side; 2],
    /// Versions of IP that both sides have addresses of.
    pub ip: IpVersions,
    /// What a load balancer on the way serves, or UDP.
    pub transport: Transports,
    /// Functions on the way.
    pub functions: usize,
}

impl Derived {
    /// What follows from `model`, between these ports or those that would be chosen.
    ///
    /// # Errors
    /// As for [`super::Chain::start`].
    pub fn of(model: &Model, between: Option<&[String; 2]>) -> Result<Self, BenchError> {
        derive(model, ends(model, between)?)
    }
}

/// The ports to measure between.
///
/// # Errors
/// Names that no port has, or nothing that would do without names.
pub fn ends(model: &Model, between: Option<&[String; 2]>) -> Result<[usize; 2], BenchError> {
    if let Some([from, to]) = between {
        let ends = [named(model, from)?, named(model, to)?];
        if ends[0] == ends[1] {
            return Err(BenchError::Arguments(format!(
                "`{from}` can't be both ends: a measurement needs two ports"
            )));
        }
        return Ok(ends);
    }
    for from in &model.paths {
        let Some(left) = port(from.left).or_else(|| port(from.right)) else {
            continue;
        };
        // The way that is longest counts: to the last chain that can be reached.
        let others = model
            .paths
            .iter()
            .rev()
            .flat_map(|path| [path.right, path.left]);
        let reached = others
            .filter_map(port)
            .find(|right| *right != left && way(model, [left, *right]).is_some());
        if let Some(right) = reached {
            let balanced = way(model, [left, right]).is_some_and(|way| {
                way.iter()
                    .any(|step| service(model, step.function).is_some())
            });
            // Whoever asks a load balancer is outside.
            let [first, second] = if balanced {
                [[right, left], [left, right]]
            } else {
                [[left, right], [right, left]]
            };
            let is_closed = is_closed(model, first) && !is_closed(model, second);
            return Ok(if is_closed { second } else { first });
        }
    }
    Err(BenchError::Arguments(
        "no two ports of this configuration are connected".into(),
    ))
}

/// Whether a firewall on the way lets no flow of TCP or UDP begin.
fn is_closed(model: &Model, ends: [usize; 2]) -> bool {
    way(model, ends).is_none_or(|steps| {
        steps
            .iter()
            .any(|step| match &model.functions[step.function].config {
                FunctionConfig::Firewall(firewall) => admit::is_closed(firewall, step.by == [0, 1]),
                _ => false,
            })
    })
}

fn named(model: &Model, name: &str) -> Result<usize, BenchError> {
    let found = model.ports.iter().position(|port| port.name == name);
    found.ok_or_else(|| {
        let names: Vec<_> = model.ports.iter().map(|port| port.name.as_str()).collect();
        let names = names.join(", ");
        BenchError::Arguments(format!("there is no port `{name}`; there are {names}"))
    })
}

fn port(endpoint: Endpoint) -> Option<usize> {
    match endpoint {
        Endpoint::Port(port) => Some(port),
        Endpoint::Junction { .. } => None,
    }
}

/// A function on the way, and the interfaces by which packets of the first side come in and go out: 0 is an inline
/// function's inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Step {
    function: usize,
    by: [usize; 2],
}

/// The functions from one port to another.
fn way(model: &Model, ends: [usize; 2]) -> Option<Vec<Step>> {
    let start = Endpoint::Port(ends[0]);
    let mut seen = vec![start];
    let mut queue = VecDeque::from([(start, Vec::new())]);
    while let Some((at, steps)) = queue.pop_front() {
        for path in &model.paths {
            let Some((far, inside_first)) = far_end(path, at) else {
                continue;
            };
            let mut steps: Vec<Step> = steps.clone();
            let by = if inside_first { [0, 1] } else { [1, 0] };
            let inline = path.stages.iter().map(|&function| Step { function, by });
            if inside_first {
                steps.extend(inline);
            } else {
                steps.extend(inline.rev());
            }
            match far {
                Endpoint::Port(port) if port == ends[1] => return Some(steps),
                Endpoint::Port(_) => {}
                Endpoint::Junction {
                    function,
                    interface,
                } => {
                    for out in 0..model.functions[function].interfaces.len() {
                        let next = Endpoint::Junction {
                            function,
                            interface: out,
                        };
                        if out == interface || seen.contains(&next) {
                            continue;
                        }
                        seen.push(next);
                        let mut steps = steps.clone();
                        steps.push(Step {
                            function,
                            by: [interface, out],
                        });
                        queue.push_back((next, steps));
                    }
                }
            }
        }
    }
    None
}

/// The other end of a path that starts at `at`, and whether `at` is its inside.
fn far_end(path: &Path, at: Endpoint) -> Option<(Endpoint, bool)> {
    if path.left == at {
        Some((path.right, true))
    } else if path.right == at {
        Some((path.left, false))
    } else {
        None
    }
}

/// Finds what traffic between two ports can be like.
///
/// # Errors
/// No way between them.
pub fn derive(model: &Model, ends: [usize; 2]) -> Result<Derived, BenchError> {
    let Some(steps) = way(model, ends) else {
        let names = ends.map(|port| model.ports[port].name.as_str());
        return Err(BenchError::Arguments(format!(
            "no chain leads from `{}` to `{}`; a guest function in between has to be measured with its machine, by \
             attaching to both ports",
            names[0], names[1]
        )));
    };
    let mut sides = [Side::plain(1), Side::plain(2)];
    let mut versions = [[true; 2]; 2];
    // The routers nearest to each end.
    let routers = [steps.first_router(model), steps.last_router(model)];
    for (end, router) in routers.into_iter().enumerate() {
        if let Some(addresses) = router {
            versions[end] = place(&mut sides[end], addresses, end == 0);
        }
    }
    let mut transport = Transports::Udp;
    for step in &steps {
        match &model.functions[step.function].config {
            FunctionConfig::Nat(nat) if step.by == [0, 1] && routers[0].is_none() => {
                if let Some(prefix) = nat.inside.iter().find(|prefix| !prefix.is_ipv6()) {
                    within(&mut sides[0], prefix);
                }
                versions[0][1] = false;
            }
            FunctionConfig::LoadBalancer(_) if step.by == [1, 0] => {
                if let Some((address, port, tcp)) = service(model, step.function) {
                    transport = if tcp {
                        Transports::Tcp
                    } else {
                        Transports::Udp
                    };
                    versions[1] = [address.is_ipv4(), address.is_ipv6()];
                    (sides[1].hosts, sides[1].port) = (1, port);
                    match address {
                        IpAddr::V4(address) => sides[1].v4 = address,
                        IpAddr::V6(address) => sides[1].v6 = address,
                    }
                }
            }
            FunctionConfig::Firewall(firewall) => {
                if let Some(rule) = admit::opened(firewall, step.by == [0, 1]) {
                    let outside = routers[1].is_none() && sides[1] == Side::plain(2);
                    transport =
                        admit::fit(rule, &mut sides, [routers[0].is_none(), outside], transport);
                }
            }
            _ => {}
        }
    }
    let common = [0, 1].map(|version| versions.iter().all(|side| side[version]));
    let ip = match common {
        [true, _] => IpVersions::V4,
        [false, true] => IpVersions::V6,
        [false, false] => {
            return Err(BenchError::Arguments(
                "the two ports have addresses of different versions of IP".into(),
            ));
        }
    };
    if ip == IpVersions::V6
        && let Some(hop) = &mut sides[0].next_hop
        && let Some(router) = routers[0]
        && let Some(address) = router.iter().find(|a| a.address.is_ipv6())
    {
        *hop = NextHop::Router(address.address);
    }
    Ok(Derived {
        sides,
        ip,
        transport,
        functions: steps.len(),
    })
}

trait Steps {
    fn first_router<'m>(&self, model: &'m Model) -> Option<&'m [InterfaceAddress]>;
    fn last_router<'m>(&self, model: &'m Model) -> Option<&'m [InterfaceAddress]>;
}

impl Steps for Vec<Step> {
    fn first_router<'m>(&self, model: &'m Model) -> Option<&'m [InterfaceAddress]> {
        self.iter()
            .find_map(|step| addresses(model, step.function, step.by[0]))
    }

    fn last_router<'m>(&self, model: &'m Model) -> Option<&'m [InterfaceAddress]> {
        self.iter()
            .rev()
            .find_map(|step| addresses(model, step.function, step.by[1]))
    }
}

/// Addresses of a router's interface.
fn addresses(model: &Model, function: usize, interface: usize) -> Option<&[InterfaceAddress]> {
    let named = &model.functions[function];
    let FunctionConfig::Router(router) = &named.config else {
        return None;
    };
    let name = named.interfaces.get(interface)?;
    Some(&router.interfaces.get(name)?.address)
}

/// What a load balancer serves: address, port, whether by TCP.
fn service(model: &Model, function: usize) -> Option<(IpAddr, u16, bool)> {
    let FunctionConfig::LoadBalancer(config) = &model.functions[function].config else {
        return None;
    };
    let (socket, protocol) = config.address.rsplit_once('/')?;
    let socket: std::net::SocketAddr = socket.parse().ok()?;
    Some((socket.ip(), socket.port(), protocol == "tcp"))
}

/// Gives a side addresses in the subnets of the router's interface there; tells which versions it has then.
fn place(side: &mut Side, addresses: &[InterfaceAddress], first: bool) -> [bool; 2] {
    let mut has = [false; 2];
    let mut hosts = MOST_HOSTS;
    for address in addresses {
        let Some((start, count)) = run(address) else {
            continue;
        };
        match start {
            IpAddr::V4(start) if !has[0] => side.v4 = start,
            IpAddr::V6(start) if !has[1] => side.v6 = start,
            _ => continue,
        }
        hosts = hosts.min(count);
        has[usize::from(start.is_ipv6())] = true;
        if first && side.next_hop.is_none() {
            side.next_hop = Some(NextHop::Router(address.address));
        }
    }
    side.hosts = if first { hosts } else { 1 };
    has
}

/// The longest run of host addresses in a subnet without the interface's own: its start and length.
fn run(own: &InterfaceAddress) -> Option<(IpAddr, u32)> {
    let subnet = own.subnet();
    match (own.address, subnet.address()) {
        (IpAddr::V4(own), IpAddr::V4(start)) => {
            let (own, start) = (u32::from(own), u32::from(start));
            let size = 1u64.checked_shl(32 - u32::from(subnet.len()))?;
            // Network and broadcast address are no hosts, but where there are only two addresses (RFC 3021).
            let (low, high) = if size > 2 {
                (u64::from(start) + 1, u64::from(start) + size - 2)
            } else {
                (u64::from(start), u64::from(start) + size - 1)
            };
            let (start, count) = longer(low, high, u64::from(own))?;
            Some((Ipv4Addr::from(start as u32).into(), count))
        }
        (IpAddr::V6(own), IpAddr::V6(start)) => {
            // As many as are ever used.
            let (own, start) = (u128::from(own), u128::from(start));
            let size = 1u128.checked_shl(128 - u32::from(subnet.len()));
            let size = size.unwrap_or(u128::MAX).min(1 << 20) as u64;
            let own = u64::try_from(own - start).unwrap_or(u64::MAX);
            let (from, count) = longer(1, size.max(2) - 1, own)?;
            Some((Ipv6Addr::from(start + u128::from(from)).into(), count))
        }
        _ => None,
    }
}

/// The longer part of `low..=high` that `own` leaves.
fn longer(low: u64, high: u64, own: u64) -> Option<(u64, u32)> {
    let parts = if (low..=high).contains(&own) {
        [(low, own.saturating_sub(low)), (own + 1, high - own)]
    } else {
        [(low, high + 1 - low), (low, 0)]
    };
    let (start, count) = parts.into_iter().max_by_key(|(_, count)| *count)?;
    (count > 0).then_some((start, count.min(u64::from(MOST_HOSTS)) as u32))
}

/// Moves a side's hosts into a prefix.
pub(super) fn within(side: &mut Side, prefix: &Prefix) {
    let own = InterfaceAddress {
        address: prefix.address(),
        len: prefix.len(),
    };
    if let Some((IpAddr::V4(start), count)) = run(&own) {
        (side.v4, side.hosts) = (start, count);
    } else if let IpAddr::V4(only) = own.address {
        (side.v4, side.hosts) = (only, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_of(text: &str) -> (String, u32) {
        let (start, count) = run(&text.parse().unwrap()).unwrap();
        (start.to_string(), count)
    }

    #[test]
    fn hosts_are_where_the_router_is_not() {
        assert_eq!(run_of("10.0.1.1/24"), ("10.0.1.2".into(), 253));
        assert_eq!(run_of("10.0.1.254/24"), ("10.0.1.1".into(), 253));
        assert_eq!(run_of("198.51.100.2/30"), ("198.51.100.1".into(), 1));
        assert_eq!(run_of("10.0.0.0/31"), ("10.0.0.1".into(), 1));
        assert_eq!(run_of("10.0.0.1/8"), ("10.0.0.2".into(), 4096));
        assert_eq!(run_of("fd00:1::1/64"), ("fd00:1::2".into(), 4096));
        assert!(run(&"10.0.0.1/32".parse().unwrap()).is_none());
    }
}
