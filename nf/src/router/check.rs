//! What can be wrong with a router's configuration.

use core::net::IpAddr;
use std::collections::BTreeMap;

use super::arp::is_unicast;
use super::config::{Config, Interface, Route};
use super::tables::{is_link_local, is_subnet_wide, special};
use crate::config::{ConfigError, InterfaceAddress, PathStep, Prefix};

/// Interfaces are numbered in 16 bits; nobody needs a hundredth of that.
const MAX_INTERFACES: usize = 1024;
/// What every IPv4 link carries in one piece to be of use (RFC 791), and the least IPv6 takes (RFC 8200, section 5).
const MIN_MTU: (u16, u16) = (576, 1280);

/// Everything that is wrong, in the order in which it is written.
pub fn check(config: &Config) -> Vec<ConfigError> {
    let mut errors = Vec::new();
    if config.interfaces.is_empty() {
        let error = ConfigError::at(["interfaces".into()], "a router needs an interface");
        errors.push(error.help("for example `interfaces: { lan: { address: 10.0.1.1/24 } }`"));
    }
    if config.interfaces.len() > MAX_INTERFACES {
        let message = format!("a router has at most {MAX_INTERFACES} interfaces");
        errors.push(ConfigError::at(["interfaces".into()], message));
    }
    let mut subnets = Subnets::default();
    for (name, interface) in &config.interfaces {
        let path =
            |rest: &[PathStep]| [&["interfaces".into(), name.as_str().into()], rest].concat();
        let mut report = |rest: &[PathStep], (message, help): Complaint| {
            let mut error = ConfigError::at(path(rest), message);
            error.help = help.map(str::to_owned);
            errors.push(error);
        };
        if !is_name(name) {
            let help = "use letters, digits, `-` and `_`, as chains name it like `core.lan`";
            report(&[], ("not a name for an interface".into(), Some(help)));
        }
        check_addresses(name, interface, &mut subnets, &mut report);
        check_link(interface, &mut report);
        check_neighbours(interface, &mut report);
    }
    check_routes(config, &mut errors);
    errors
}

/// A message, and what to do about it.
type Complaint = (String, Option<&'static str>);

/// Subnets seen so far, by their first address, with the interface and whose address it is.
#[derive(Default)]
struct Subnets<'a> {
    owners: BTreeMap<IpAddr, &'a str>,
    subnets: Vec<(Prefix, &'a str)>,
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .chars()
            .all(|c| c.is_alphanumeric() || matches!(c, '-' | '_'))
}

fn check_addresses<'a>(
    name: &'a str,
    interface: &Interface,
    seen: &mut Subnets<'a>,
    report: &mut impl FnMut(&[PathStep], Complaint),
) {
    if interface.address.is_empty() {
        report(
            &["address".into()],
            ("an interface needs an address".into(), None),
        );
    }
    for (index, own) in interface.address.iter().enumerate() {
        let path = ["address".into(), index.into()];
        if let Some(complaint) = unfit_address(*own) {
            report(&path, complaint);
            continue;
        }
        if let Some(owner) = seen.owners.insert(own.address, name) {
            let message = format!("{} is an address of interface `{owner}` too", own.address);
            report(&path, (message, None));
            continue;
        }
        let subnet = own.subnet();
        let other = |(prefix, owner): &&(Prefix, &str)| {
            prefix.overlaps(&subnet) && (*owner != name || *prefix != subnet)
        };
        if let Some((prefix, owner)) = seen.subnets.iter().find(other) {
            let message =
                format!("the subnet {subnet} overlaps with {prefix} of interface `{owner}`");
            report(&path, (message, None));
        }
        seen.subnets.push((subnet, name));
    }
}

/// Why an interface can't have this address.
fn unfit_address(own: InterfaceAddress) -> Option<Complaint> {
    let address = own.address;
    if is_link_local(address) {
        let help = "link-local addresses are made from the interface's MAC address";
        return Some((format!("{address} is a link-local address"), Some(help)));
    }
    if !is_host(address) {
        return Some((format!("{address} is no address for a host"), None));
    }
    if is_subnet_wide(own, address) {
        let what = match (address, address == own.subnet().address()) {
            (IpAddr::V6(_), _) => "the subnet-router anycast address",
            (_, true) => "the network's address",
            (_, false) => "the broadcast address",
        };
        let message = format!("{address} is {what} of {}", own.subnet());
        return Some((message, Some("choose an address of a single host")));
    }
    None
}

/// Whether a single host can have this address.
fn is_host(address: IpAddr) -> bool {
    !special()
        .iter()
        .any(|(special, _)| special.contains(address))
}

fn check_link(interface: &Interface, report: &mut impl FnMut(&[PathStep], Complaint)) {
    if let Some(mac) = interface.mac.filter(|mac| !is_unicast(mac.0)) {
        let message = format!("{} is no address of a single station", mac.0);
        report(&["mac".into()], (message, None));
    }
    let ipv6 = interface.address.iter().any(|own| own.address.is_ipv6());
    let least = if ipv6 { MIN_MTU.1 } else { MIN_MTU.0 };
    if let Some(mtu) = interface.mtu.filter(|mtu| *mtu < least) {
        let version = if ipv6 { "IPv6" } else { "IPv4" };
        let message = format!("an MTU of {mtu} is too small: {version} needs at least {least}");
        report(&["mtu".into()], (message, None));
    }
}

fn check_neighbours(interface: &Interface, report: &mut impl FnMut(&[PathStep], Complaint)) {
    for (address, mac) in &interface.neighbours {
        let path = ["neighbours".into(), address.to_string().into()];
        if !is_unicast(mac.0) {
            let message = format!("{} is no address of a single station", mac.0);
            report(&path, (message, None));
        }
        if let Some(complaint) = unfit_neighbour(interface, *address) {
            report(&path, complaint);
        }
    }
}

/// Why nobody beside an interface can have this address.
fn unfit_neighbour(interface: &Interface, address: IpAddr) -> Option<Complaint> {
    let ipv6 = interface.address.iter().any(|own| own.address.is_ipv6());
    if is_link_local(address) && ipv6 {
        return None;
    }
    let mut own = interface.address.iter();
    let Some(own) = own.find(|own| own.subnet().contains(address)) else {
        return Some((
            format!("{address} is in none of the interface's subnets"),
            None,
        ));
    };
    if interface.address.iter().any(|own| own.address == address) {
        return Some((format!("{address} is the interface's own address"), None));
    }
    is_subnet_wide(*own, address).then(|| {
        (
            format!("{address} is no single host of {}", own.subnet()),
            None,
        )
    })
}

fn check_routes(config: &Config, errors: &mut Vec<ConfigError>) {
    let mut seen: BTreeMap<Prefix, usize> = BTreeMap::new();
    for (index, route) in config.routes.iter().enumerate() {
        let path = |key: &str| ["routes".into(), index.into(), key.into()];
        if let Some(first) = seen.insert(route.to, index) {
            let message = format!("{} has a route already, number {}", route.to, first + 1);
            errors.push(ConfigError::at(path("to"), message));
        } else if let Some(message) = unfit_destination(config, route.to) {
            errors.push(ConfigError::at(path("to"), message));
        }
        if let Err((message, help)) = check_next_hop(config, route) {
            let mut error = ConfigError::at(path("via"), message);
            error.help = help.map(str::to_owned);
            errors.push(error);
        }
    }
}

/// Why these destinations can't have a route.
fn unfit_destination(config: &Config, to: Prefix) -> Option<String> {
    let within = |special: &Prefix| special.len() <= to.len() && special.contains(to.address());
    if special().iter().any(|(special, _)| within(special)) {
        return Some(format!(
            "{to} can't be routed to: no host beyond a link may have such an address"
        ));
    }
    for (name, interface) in &config.interfaces {
        for own in interface.address.iter() {
            if own.subnet() == to {
                return Some(format!("{to} is the subnet of interface `{name}`"));
            }
            if Prefix::host(own.address) == to {
                return Some(format!("{to} is the address of interface `{name}`"));
            }
        }
    }
    None
}

fn check_next_hop(config: &Config, route: &Route) -> Result<(), Complaint> {
    let via = route.via;
    if route.to.is_ipv6() != via.is_ipv6() {
        return Err((
            format!("{via} is not of the IP version of {}", route.to),
            None,
        ));
    }
    if is_link_local(via) {
        let help = "name the next hop by an address in one of the interfaces' subnets";
        return Err((
            format!("the link-local address {via} does not say by which interface"),
            Some(help),
        ));
    }
    let on_link = config.interfaces.values().find(|interface| {
        let mut own = interface.address.iter();
        own.any(|own| own.subnet().contains(via))
    });
    match on_link {
        None => Err((
            format!("the next hop {via} is in no interface's subnet"),
            Some("a next hop is a neighbour of one of the router's interfaces"),
        )),
        Some(interface) => unfit_neighbour(interface, via).map_or(Ok(()), Err),
    }
}
