//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).

use core::net::{Ipv4Addr, Ipv6Addr};

/// A ones' complement sum in progress. Sums of differences work as well: adding a word's new value and
/// subtracting its old one yields what a checksum field must change by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// Adds a word.
    #[inline]
    #[must_use]
    pub fn plus(self, word: u16) -> Self {
        Self(self.0 + u64::from(word))
    }

    /// Adds two words at once.
    #[inline]
    #[must_use]
    pub fn plus_long(self, words: u32) -> Self {
        Self(self.0 + u64::from(words))
    }

    /// Adds what another sum holds.
    #[inline]
    #[must_use]
    pub fn plus_sum(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// Takes a word away.
    #[inline]
    #[must_use]
    pub fn minus(self, word: u16) -> Self {
        Self(self.0 + u64::from(!word))
    }

    /// Adds bytes as big-endian words; an odd last byte counts as the high half of a word.
    #[inline]
    #[must_use]
    pub fn plus_bytes(self, bytes: &[u8]) -> Self {
        // Wide native-order lanes, folded and swapped once: the sum is byte-order independent (RFC 1071, 2(B)).
        let mut lanes = 0u64;
        let mut chunks = bytes.chunks_exact(8);
        for chunk in &mut chunks {
            let word = u64::from_ne_bytes(chunk.try_into().unwrap_or_default());
            let (sum, carry) = lanes.overflowing_add(word);
            lanes = sum + u64::from(carry);
        }
        // A copy of so few bytes would cost a call.
        let mut tail = 0u64;
        let mut rest = chunks.remainder();
        if let Some((bytes, after)) = rest.split_first_chunk() {
            tail += u64::from(u32::from_ne_bytes(*bytes));
            rest = after;
        }
        if let Some((bytes, after)) = rest.split_first_chunk() {
            tail += u64::from(u16::from_ne_bytes(*bytes));
            rest = after;
        }
        if let Some(byte) = rest.first() {
            tail += u64::from(u16::from_ne_bytes([*byte, 0]));
        }
        let (sum, carry) = lanes.overflowing_add(tail);
        let native = sum + u64::from(carry);
        Self(self.0 + u64::from(u16::from_be_bytes(fold(native).to_ne_bytes())))
    }

    /// Takes bytes away, as [`Sum::plus_bytes`] adds them.
    #[inline]
    #[must_use]
    pub fn minus_bytes(self, bytes: &[u8]) -> Self {
        self.minus(Self::default().plus_bytes(bytes).folded())
    }

    /// The sum in 16 bits, not complemented.
    #[inline]
    pub fn folded(self) -> u16 {
        fold(self.0)
    }

    /// The checksum: the complement of the sum.
    #[inline]
    pub fn finish(self) -> u16 {
        !self.folded()
    }

    /// A checksum field's new value after the words it covers changed by this much (RFC 1624, equation 3).
    #[inline]
    pub fn apply(self, field: u16) -> u16 {
        !fold(u64::from(!field) + self.0)
    }
}

#[inline]
fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// The Internet checksum of `bytes`.
pub fn checksum(bytes: &[u8]) -> u16 {
    Sum::default().plus_bytes(bytes).finish()
}

/// Addresses of a pseudo-header.
#[derive(Clone, Copy, Debug)]
pub enum Pseudo {
    /// RFC 9293, section 3.1.
    V4(Ipv4Addr, Ipv4Addr),
    /// RFC 8200, section 8.1.
    V6(Ipv6Addr, Ipv6Addr),
}

/// The pseudo-header's sum for a transport header and payload of `len` bytes.
pub fn pseudo_header(addresses: Pseudo, protocol: u8, len: usize) -> Sum {
    let sum = match addresses {
        Pseudo::V4(from, to) => Sum::default()
            .plus_bytes(&from.octets())
            .plus_bytes(&to.octets()),
        Pseudo::V6(from, to) => Sum::default()
            .plus_bytes(&from.octets())
            .plus_bytes(&to.octets()),
    };
    sum.plus(u16::from(protocol))
        .plus((len >> 16) as u16)
        .plus(len as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn naive(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        }
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn example_of_rfc_1071() {
        assert_eq!(
            checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]),
            !0xddf2
        );
    }

    proptest! {
        #[test]
        fn agrees_with_the_naive_sum(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(checksum(&bytes), naive(&bytes));
        }

        #[test]
        fn incremental_update_agrees(mut bytes in proptest::collection::vec(any::<u8>(), 20..60), at in 0usize..8, word: u16) {
            // A header with something constant in it, as RFC 1624 needs: no all-zero sums.
            bytes[18] = 1;
            let before = checksum(&bytes);
            let old = u16::from_be_bytes([bytes[at * 2], bytes[at * 2 + 1]]);
            bytes[at * 2..at * 2 + 2].copy_from_slice(&word.to_be_bytes());
            prop_assert_eq!(Sum::default().minus(old).plus(word).apply(before), checksum(&bytes));
        }
    }
}
