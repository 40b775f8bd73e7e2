//! The addresses that inside hosts appear as.

use core::net::{IpAddr, Ipv4Addr};

use crate::config::Prefix;

/// A set of IPv4 addresses, numbered from 0.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    /// First and last address of each prefix, and the number of its first, in ascending order.
    ranges: Box<[(u32, u32, u32)]>,
    len: u32,
}

impl Pool {
    /// The addresses of these prefixes, which do not overlap; those of IPv6 do not count.
    pub fn new(prefixes: &[Prefix]) -> Self {
        let mut bounds: Vec<_> = prefixes.iter().filter_map(bounds).collect();
        bounds.sort_unstable();
        let mut len = 0;
        let number = |(first, last): (u32, u32)| {
            let range = (first, last, len);
            len += last - first + 1;
            range
        };
        let ranges = bounds.into_iter().map(number).collect();
        Self { ranges, len }
    }

    /// How many addresses it has.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether it has this address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let IpAddr::V4(address) = address else {
            return false;
        };
        let address = address.to_bits();
        let above = self.ranges.partition_point(|range| range.0 <= address);
        above > 0 && address <= self.ranges[above - 1].1
    }

    /// The address with this number, counted round.
    pub fn nth(&self, number: u32) -> Option<Ipv4Addr> {
        let number = number.checked_rem(self.len)?;
        let above = self.ranges.partition_point(|range| range.2 <= number);
        let (first, _, from) = self.ranges.get(above.checked_sub(1)?)?;
        Some(Ipv4Addr::from_bits(first + (number - from)))
    }
}

/// The first and the last address of an IPv4 prefix.
pub(super) fn bounds(prefix: &Prefix) -> Option<(u32, u32)> {
    let IpAddr::V4(first) = prefix.address() else {
        return None;
    };
    let host = u32::MAX.checked_shr(prefix.len().into()).unwrap_or(0);
    Some((first.to_bits(), first.to_bits() | host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_has_a_number_and_no_other_has() {
        let prefixes = ["203.0.113.8/30", "198.51.100.1", "203.0.113.255"];
        let prefixes: Vec<Prefix> = prefixes.iter().map(|text| text.parse().unwrap()).collect();
        let pool = Pool::new(&prefixes);
        assert_eq!(pool.len(), 6);
        let all: Vec<_> = (0..6).filter_map(|n| pool.nth(n)).collect();
        for address in &all {
            assert!(
                prefixes
                    .iter()
                    .any(|prefix| prefix.contains((*address).into()))
            );
            assert!(pool.contains((*address).into()));
        }
        assert_eq!(
            all.iter().collect::<std::collections::HashSet<_>>().len(),
            6
        );
        assert_eq!(pool.nth(6), pool.nth(0));
        for other in [
            "198.51.100.0",
            "198.51.100.2",
            "203.0.113.12",
            "0.0.0.0",
            "255.255.255.255",
            "::1",
        ] {
            assert!(!pool.contains(other.parse().unwrap()), "{other}");
        }
        assert_eq!(Pool::new(&[]).nth(3), None);
    }
}
