//! A member's part of what can't be shared.

/// A member's place in its crew, and with that its part of ports and capacities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    index: u16,
    of: u16,
}

impl Default for Share {
    fn default() -> Self {
        Self::WHOLE
    }
}

impl Share {
    /// Everything, for a worker alone.
    pub const WHOLE: Self = Self { index: 0, of: 1 };

    /// The part of member `index` of `of`.
    ///
    /// # Panics
    /// When there is no such member.
    pub const fn new(index: u16, of: u16) -> Self {
        assert!(index < of);
        Self { index, of }
    }

    /// Which member it is.
    pub const fn index(self) -> u16 {
        self.index
    }

    /// How many members there are.
    pub const fn of(self) -> u16 {
        self.of
    }

    /// The member to which a port or echo identifier of a pool belongs. Pairs stay together, an even port and the odd one
    /// above it, as RFC 4787 (section 4.2.2) wants of translations of RTP and RTCP.
    pub const fn owner_of_port(port: u16, of: u16) -> u16 {
        (port >> 1) % of
    }

    /// Whether a port or echo identifier of a pool belongs to this member.
    pub const fn has_port(self, port: u16) -> bool {
        Self::owner_of_port(port, self.of) == self.index
    }

    /// This member's part of a capacity or a rate; at least 1 of what is not 0.
    pub const fn part_of(self, total: usize) -> usize {
        total.div_ceil(self.of as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_port_belongs_to_one_member_and_pairs_stay_together() {
        for of in 1..=7 {
            for port in 0..=u16::MAX {
                let owners = (0..of).filter(|index| Share::new(*index, of).has_port(port));
                assert_eq!(owners.count(), 1);
                assert_eq!(
                    Share::owner_of_port(port, of),
                    Share::owner_of_port(port ^ 1, of)
                );
            }
        }
    }

    #[test]
    fn parts_cover_the_whole() {
        for of in 1..=7 {
            for total in 0..50 {
                let sum: usize = (0..of)
                    .map(|index| Share::new(index, of).part_of(total))
                    .sum();
                assert!(sum >= total);
            }
        }
    }
}
