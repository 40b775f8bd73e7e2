//! What a router's configuration is compiled to: its interfaces, and where each address leads.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::collections::HashMap;

use chainplane_dataplane::function::Interface;
use chainplane_dataplane::packet::Mac;

use super::lpm::{KeyPrefix, Lpm, key};
use crate::config::{InterfaceAddress, Prefix};

/// One interface.
#[derive(Clone, Debug)]
#[allow(
    clippy::struct_field_names,
    reason = "`local` would say something else"
)]
pub struct Link {
    pub mac: Mac,
    /// The longest IP packet, in bytes.
    pub mtu: u16,
    pub addresses: Vec<InterfaceAddress>,
    /// Made from the MAC address (RFC 4291, appendix A); `None` where the interface has no IPv6 address.
    pub link_local: Option<Ipv6Addr>,
    /// Whether it has addresses of IPv4, of IPv6.
    families: [bool; 2],
}

impl Link {
    pub fn new(mac: Mac, mtu: u16, addresses: Vec<InterfaceAddress>) -> Self {
        let has = |ipv6| addresses.iter().any(|own| own.address.is_ipv6() == ipv6);
        let families = [has(false), has(true)];
        Self {
            mac,
            mtu,
            addresses,
            link_local: families[1].then(|| link_local(mac)),
            families,
        }
    }

    /// Whether the interface speaks this family.
    #[inline]
    pub fn speaks(&self, ipv6: bool) -> bool {
        self.families[usize::from(ipv6)]
    }

    /// Whether it is an address of this very interface.
    pub fn owns(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|own| own.address == address)
            || self.link_local.is_some_and(|own| address == own)
    }

    /// Whether a neighbour may have this address: it is in one of the subnets, or link-local, and neither the
    /// interface's own nor one that stands for the whole subnet.
    pub fn is_neighbour(&self, address: IpAddr) -> bool {
        if self.owns(address) {
            return false;
        }
        if is_link_local(address) {
            return self.link_local.is_some();
        }
        self.addresses
            .iter()
            .any(|own| own.subnet().contains(address) && !is_subnet_wide(*own, address))
    }

    /// The own address to speak with to a neighbour.
    pub fn source_for(&self, neighbour: IpAddr) -> Option<IpAddr> {
        if is_link_local(neighbour) {
            return self.link_local.map(IpAddr::V6);
        }
        let mut own = self.addresses.iter();
        own.find(|own| own.subnet().contains(neighbour))
            .or_else(|| {
                let mut own = self.addresses.iter();
                own.find(|own| own.address.is_ipv6() == neighbour.is_ipv6())
            })
            .map(|own| own.address)
    }
}

/// An interface's link-local address with the identifier of RFC 4291, appendix A.
pub fn link_local(mac: Mac) -> Ipv6Addr {
    let [top, middle @ .., bottom] = mac.0;
    let mut octets = [
        0xfe,
        0x80,
        0,
        0,
        0,
        0,
        0,
        0,
        top ^ 2,
        0,
        0,
        0xff,
        0xfe,
        0,
        0,
        bottom,
    ];
    octets[9..11].copy_from_slice(&middle[..2]);
    octets[13..15].copy_from_slice(&middle[2..]);
    Ipv6Addr::from(octets)
}

/// Whether it is in `fe80::/10`.
pub fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// Whether `address` is the network's or the broadcast address of an IPv4 subnet (there is none in a /31, RFC 3021),
/// or the subnet-router anycast address of an IPv6 one (RFC 4291, section 2.6.1).
pub fn is_subnet_wide(own: InterfaceAddress, address: IpAddr) -> bool {
    let first = own.subnet().address();
    match (first, address) {
        (IpAddr::V4(first), IpAddr::V4(address)) if own.len < 31 => {
            let last = first.to_bits() | (u32::MAX >> own.len);
            address == first || address.to_bits() == last
        }
        (IpAddr::V6(first), IpAddr::V6(address)) if own.len < 127 => address == first,
        _ => false,
    }
}

/// Where an address leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// Nowhere.
    Nowhere,
    /// To the router itself.
    Local,
    /// To a neighbour on this interface.
    OnLink(Interface),
    /// To this neighbour on this interface, which knows further.
    Via(Interface, IpAddr),
    /// To everyone on a subnet.
    Broadcast,
    /// To a group.
    Multicast,
    /// To someone on the link where the packet is, and never further.
    LinkLocal,
    /// Nobody may have this address (RFC 6890).
    Martian,
}

impl Target {
    /// What a packet is that claims to come from such an address.
    fn as_source(self) -> Source {
        match self {
            Self::Nowhere | Self::OnLink(_) | Self::Via(..) => Source::Host,
            Self::LinkLocal => Source::LinkLocal,
            Self::Local | Self::Broadcast | Self::Multicast | Self::Martian => Source::Martian,
        }
    }
}

/// What a source address says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A host's, as far as one can see.
    Host,
    /// One that is not to leave its link.
    LinkLocal,
    /// Nobody's, or the router's own.
    Martian,
}

/// The number of a [`Target`] in its table.
pub type TargetId = u32;

/// A route whose next hop's interface is known.
#[derive(Clone, Copy, Debug)]
pub struct CompiledRoute {
    pub to: Prefix,
    pub interface: Interface,
    pub via: IpAddr,
}

/// A neighbour whose link-layer address is fixed.
#[derive(Clone, Copy, Debug)]
pub struct StaticNeighbour {
    pub interface: Interface,
    pub address: IpAddr,
    pub mac: Mac,
}

/// A router's compiled configuration, shared by all workers and never changed.
#[derive(Debug)]
pub struct Tables {
    pub links: Vec<Link>,
    pub neighbours: Vec<StaticNeighbour>,
    /// Each once, however many prefixes lead there.
    targets: Vec<Target>,
    v4: Family,
    v6: Family,
}

/// The tables of one family of addresses.
#[derive(Debug)]
struct Family {
    destinations: Lpm,
    /// What prefixes say of sources, which is the same for nearly all: so this one is small and stays near.
    sources: Lpm,
}

impl Tables {
    pub fn new(
        links: Vec<Link>,
        routes: &[CompiledRoute],
        neighbours: Vec<StaticNeighbour>,
    ) -> Self {
        let mut entries = special();
        for route in routes {
            entries.push((route.to, Target::Via(route.interface, route.via)));
        }
        let numbered = || (0..).map(Interface).zip(&links);
        for (interface, link) in numbered() {
            for own in &link.addresses {
                entries.push((own.subnet(), Target::OnLink(interface)));
                if let (IpAddr::V4(first), true) = (own.subnet().address(), own.len < 31) {
                    let last = Ipv4Addr::from_bits(first.to_bits() | (u32::MAX >> own.len));
                    entries.push((Prefix::host(first.into()), Target::Broadcast));
                    entries.push((Prefix::host(last.into()), Target::Broadcast));
                }
            }
        }
        for (_, link) in numbered() {
            for own in &link.addresses {
                entries.push((Prefix::host(own.address), Target::Local));
            }
        }
        let mut targets = Distinct::default();
        let entries: Vec<_> = entries
            .into_iter()
            .map(|(prefix, target)| (prefix, targets.number(target), target.as_source()))
            .collect();
        Self {
            links,
            neighbours,
            v4: Family::compile(&entries, false),
            v6: Family::compile(&entries, true),
            targets: targets.list,
        }
    }

    /// Where an address leads.
    #[inline]
    pub fn target(&self, address: IpAddr) -> Target {
        self.target_of(self.target_id(address))
    }

    /// The number of what [`Tables::target`] says.
    #[inline]
    pub fn target_id(&self, address: IpAddr) -> TargetId {
        match address {
            IpAddr::V4(v4) => self.v4.destinations.lookup_v4(v4.to_bits()),
            IpAddr::V6(_) => self.v6.destinations.lookup(key(address)),
        }
    }

    /// Replaces IPv4 addresses, as many as a batch has packets, by the numbers of where they lead.
    pub fn targets_v4(&self, addresses: &mut [u32]) {
        self.v4.destinations.lookup_batch_v4(addresses);
    }

    /// The target of a number.
    #[inline]
    pub fn target_of(&self, id: TargetId) -> Target {
        self.targets[id as usize]
    }

    /// How many targets there are.
    pub fn target_count(&self) -> usize {
        self.targets.len()
    }

    /// What a source address says.
    #[inline]
    pub fn source(&self, address: IpAddr) -> Source {
        let class = match address {
            IpAddr::V4(v4) => self.v4.sources.lookup_v4(v4.to_bits()),
            IpAddr::V6(_) => self.v6.sources.lookup(key(address)),
        };
        match class {
            HOST => Source::Host,
            LINK_LOCAL => Source::LinkLocal,
            _ => Source::Martian,
        }
    }

    /// The interface and neighbour by which the router itself reaches an address; for a link-local one that is
    /// `from`, where it was seen.
    pub fn towards(&self, address: IpAddr, from: Interface) -> Option<(Interface, IpAddr)> {
        match self.target(address) {
            Target::OnLink(interface) => Some((interface, address)),
            Target::Via(interface, next_hop) => Some((interface, next_hop)),
            Target::LinkLocal => Some((from, address)),
            _ => None,
        }
    }

    pub fn link(&self, interface: Interface) -> &Link {
        &self.links[interface.0 as usize]
    }
}

/// Answers of [`Family::sources`].
const HOST: u32 = super::lpm::NONE;
const LINK_LOCAL: u32 = 1;
const MARTIAN: u32 = 2;

/// Numbers targets; `Nowhere`, which is what no prefix says, is number 0.
struct Distinct {
    list: Vec<Target>,
    numbers: HashMap<Target, TargetId>,
}

impl Default for Distinct {
    fn default() -> Self {
        Self {
            list: vec![Target::Nowhere],
            numbers: HashMap::from([(Target::Nowhere, super::lpm::NONE)]),
        }
    }
}

impl Distinct {
    fn number(&mut self, target: Target) -> TargetId {
        *self.numbers.entry(target).or_insert_with(|| {
            self.list.push(target);
            (self.list.len() - 1) as u32
        })
    }
}

impl Family {
    fn compile(entries: &[(Prefix, TargetId, Source)], ipv6: bool) -> Self {
        let own = || {
            let own = entries.iter().filter(|entry| entry.0.is_ipv6() == ipv6);
            own.map(|(prefix, target, source)| {
                let prefix = KeyPrefix {
                    start: key(prefix.address()),
                    len: prefix.len(),
                };
                (prefix, *target, *source)
            })
        };
        let class = |source| match source {
            Source::Host => HOST,
            Source::LinkLocal => LINK_LOCAL,
            Source::Martian => MARTIAN,
        };
        Self {
            destinations: Lpm::new(own().map(|(prefix, target, _)| (prefix, target))),
            sources: Lpm::new(own().map(|(prefix, _, source)| (prefix, class(source)))),
        }
    }
}

/// Addresses with a meaning of their own (RFC 6890, RFC 4291).
pub fn special() -> Vec<(Prefix, Target)> {
    let prefix = |address: IpAddr, len| Prefix::new(address, len);
    let v4 = |a, b, c, d| IpAddr::V4(Ipv4Addr::new(a, b, c, d));
    let v6 = |first| IpAddr::V6(Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, 0));
    [
        (prefix(v4(0, 0, 0, 0), 8), Target::Martian),
        (prefix(v4(127, 0, 0, 0), 8), Target::Martian),
        (prefix(v4(224, 0, 0, 0), 4), Target::Multicast),
        (prefix(v4(240, 0, 0, 0), 4), Target::Martian),
        (prefix(v4(255, 255, 255, 255), 32), Target::Broadcast),
        (prefix(v6(0), 128), Target::Martian),
        (
            prefix(IpAddr::V6(Ipv6Addr::LOCALHOST), 128),
            Target::Martian,
        ),
        (
            prefix(Ipv4Addr::UNSPECIFIED.to_ipv6_mapped().into(), 96),
            Target::Martian,
        ),
        (prefix(v6(0xfe80), 10), Target::LinkLocal),
        (prefix(v6(0xff00), 8), Target::Multicast),
    ]
    .into_iter()
    .filter_map(|(prefix, target)| Some((prefix?, target)))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables() -> Tables {
        let link = |addresses: &[&str]| {
            Link::new(
                Mac::local(addresses[0]),
                1500,
                addresses.iter().map(|text| text.parse().unwrap()).collect(),
            )
        };
        let route = |to: &str, via: &str| CompiledRoute {
            to: to.parse().unwrap(),
            interface: Interface(1),
            via: via.parse().unwrap(),
        };
        Tables::new(
            vec![
                link(&["10.0.1.1/24", "fd00:1::1/64"]),
                link(&["198.51.100.2/31"]),
            ],
            &[
                route("0.0.0.0/0", "198.51.100.3"),
                route("10.0.1.128/25", "198.51.100.3"),
            ],
            Vec::new(),
        )
    }

    #[test]
    fn the_longest_prefix_decides_and_special_addresses_stay_special() {
        let tables = tables();
        let via = Target::Via(Interface(1), "198.51.100.3".parse().unwrap());
        for (address, target) in [
            ("10.0.1.1", Target::Local),
            ("10.0.1.2", Target::OnLink(Interface(0))),
            ("10.0.1.129", via),
            ("10.0.1.255", Target::Broadcast),
            ("10.0.1.0", Target::Broadcast),
            ("198.51.100.2", Target::Local),
            ("198.51.100.3", Target::OnLink(Interface(1))),
            ("8.8.8.8", via),
            ("127.0.0.1", Target::Martian),
            ("0.0.0.0", Target::Martian),
            ("224.0.0.1", Target::Multicast),
            ("250.0.0.1", Target::Martian),
            ("255.255.255.255", Target::Broadcast),
            ("fd00:1::2", Target::OnLink(Interface(0))),
            ("fd00:2::2", Target::Nowhere),
            ("fe80::1", Target::LinkLocal),
            ("ff02::1", Target::Multicast),
            ("::", Target::Martian),
            ("::1", Target::Martian),
            ("::ffff:10.0.1.2", Target::Martian),
        ] {
            let address = address.parse().unwrap();
            assert_eq!(tables.target(address), target, "{address}");
            assert_eq!(tables.source(address), target.as_source(), "{address}");
        }
    }

    #[test]
    fn neighbours_are_on_the_subnet_and_not_all_of_it() {
        let tables = tables();
        let is =
            |link: usize, address: &str| tables.links[link].is_neighbour(address.parse().unwrap());
        assert!(is(0, "10.0.1.2") && is(0, "fd00:1::2") && is(0, "fe80::2"));
        assert!(is(1, "198.51.100.3"));
        for none in [
            "10.0.1.1",
            "10.0.1.0",
            "10.0.1.255",
            "10.0.2.1",
            "fd00:1::",
            "fd00:1::1",
            "fd00:2::1",
            "224.0.0.1",
        ] {
            assert!(!is(0, none), "{none}");
        }
        assert!(!is(1, "fe80::2"), "an interface without IPv6");
        assert_eq!(
            link_local(Mac([0x02, 0, 0, 0, 1, 1])),
            "fe80::ff:fe00:101".parse::<Ipv6Addr>().unwrap()
        );
    }
}
