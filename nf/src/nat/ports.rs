//! Which ports and echo identifiers one worker may give to an inside port.

use chainplane_dataplane::crew::Share;
use chainplane_dataplane::packet::protocol;

/// Ports that may be chosen for one inside port: those of its range that are of the worker's share. They come in pairs,
/// an even port and the odd one above it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Choice {
    share: Share,
    /// The inside port.
    wanted: u16,
    /// The first port of the range.
    first: u16,
    /// The first pair that is the worker's, and how many there are.
    first_pair: u32,
    pairs: u32,
}

impl Choice {
    /// What may be chosen for a port, or an echo's identifier; `None` where that is nothing, as there are more workers
    /// than pairs.
    pub fn of(share: Share, protocol: u8, wanted: u16) -> Option<Self> {
        let (first, last) = range_of(protocol, wanted);
        let (low, high) = (u32::from(first >> 1), u32::from(last >> 1));
        let (index, of) = (u32::from(share.index()), u32::from(share.of()));
        let first_pair = low + (index + of - low % of) % of;
        Some(Self {
            share,
            wanted,
            first,
            first_pair,
            pairs: high.checked_sub(first_pair)? / of + 1,
        })
    }

    /// The inside port itself, where that may be chosen.
    pub fn same(&self) -> Option<u16> {
        let may_be = self.wanted >= self.first && self.share.has_port(self.wanted);
        may_be.then_some(self.wanted)
    }

    /// A port by a random number: an even one for an even one and an odd one for an odd one, unless `any` will do.
    pub fn by(&self, random: u64, any: bool) -> u16 {
        let pair = (random >> 1) % u64::from(self.pairs);
        let pair = self.first_pair + pair as u32 * u32::from(self.share.of());
        let odd = if any { random as u16 } else { self.wanted } & 1;
        // No TCP or UDP port is 0.
        (pair as u16 * 2 + odd).max(self.first)
    }
}

/// The first and the last of the ports among which one is chosen for this one (RFC 4787, REQ-3; RFC 5508, REQ-1 knows
/// no such ranges for identifiers).
fn range_of(protocol: u8, port: u16) -> (u16, u16) {
    match (protocol, port) {
        (protocol::ICMP, _) => (0, u16::MAX),
        (_, 0..1024) => (1, 1023),
        _ => (1024, u16::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Everything that can be chosen for a port.
    fn all(choice: &Choice, any: bool) -> BTreeSet<u16> {
        (0..1 << 17).map(|random| choice.by(random, any)).collect()
    }

    #[test]
    fn the_workers_share_out_every_port_of_a_range() {
        for of in [1, 2, 3, 5, 7] {
            for (protocol, wanted, range) in [
                (protocol::ICMP, 9, 0..=u16::MAX),
                (protocol::UDP, 9, 1..=1023),
                (protocol::TCP, 1024, 1024..=u16::MAX),
            ] {
                let mut given = BTreeSet::new();
                for index in 0..of {
                    let share = Share::new(index, of);
                    let choice = Choice::of(share, protocol, wanted).expect("enough ports");
                    for port in all(&choice, true) {
                        assert!(share.has_port(port) && range.contains(&port));
                        assert!(given.insert(port), "{port} is nobody else's");
                    }
                    assert_eq!(choice.same().is_some(), share.has_port(wanted));
                }
                assert_eq!(given.len(), range.len());
            }
        }
    }

    #[test]
    fn parity_is_kept_as_long_as_it_matters() {
        for wanted in [1, 2, 4000, 4001, u16::MAX] {
            let choice = Choice::of(Share::new(1, 3), protocol::UDP, wanted).expect("enough ports");
            let wrong = all(&choice, false)
                .into_iter()
                .filter(|port| port & 1 != wanted & 1);
            assert_eq!(wrong.count(), 0, "for {wanted}");
        }
        // Port 0 is no port, so its pair has an odd one only.
        let choice = Choice::of(Share::WHOLE, protocol::UDP, 2).expect("enough ports");
        assert!(all(&choice, false).is_superset(&(2..1023).step_by(2).collect()));
    }

    #[test]
    fn more_workers_than_pairs_leave_some_without() {
        let choice = |index| Choice::of(Share::new(index, 600), protocol::TCP, 80);
        assert!(
            choice(511).is_some_and(|choice| all(&choice, true) == BTreeSet::from([1022, 1023]))
        );
        assert!(choice(512).is_none());
    }
}
