//! What every packet carries: which it is, and when it was due.

use chainplane_dataplane::packet::Sum;

use super::random::mix;

/// Who a packet is. 20 bytes at the start of the transport payload, in network order:
///
/// | bytes | what |
/// | --- | --- |
/// | 0..2 | tag of the trial |
/// | 2..6 | direction (highest bit) and flow |
/// | 6..10 | sequence number within the direction |
/// | 10..16 | when it was due, nanoseconds from the start of the trial |
/// | 16..20 | check over all that |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Tells trials apart.
    pub tag: u16,
    /// Sent by the second endpoint.
    pub backward: bool,
    /// The flow's number, below 2^31.
    pub flow: u32,
    /// Number within the direction, modulo 2^32.
    pub sequence: u32,
    /// Nanoseconds from the start of the trial, below 2^48 (78 hours).
    pub due: u64,
}

const BACKWARD: u32 = 1 << 31;
const DUE: u64 = (1 << 48) - 1;

impl Stamp {
    /// Bytes of a stamp.
    pub const LEN: usize = 20;

    /// The bytes.
    #[inline]
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        self.bytes_and_sum().0
    }

    /// The bytes, and the Internet checksum's sum of them.
    #[inline]
    pub fn bytes_and_sum(self) -> ([u8; Self::LEN], Sum) {
        let flow = self.flow & !BACKWARD | if self.backward { BACKWARD } else { 0 };
        let first =
            u64::from(self.tag) << 48 | u64::from(flow) << 16 | u64::from(self.sequence) >> 16;
        let second = u64::from(self.sequence) << 48 | self.due & DUE;
        let check = check(first, second);
        let mut bytes = [0; Self::LEN];
        bytes[..8].copy_from_slice(&first.to_be_bytes());
        bytes[8..16].copy_from_slice(&second.to_be_bytes());
        bytes[16..].copy_from_slice(&check.to_be_bytes());
        let sum = Sum::default()
            .plus_long((first >> 32) as u32)
            .plus_long(first as u32)
            .plus_long((second >> 32) as u32)
            .plus_long(second as u32)
            .plus_long(check);
        (bytes, sum)
    }

    /// The flow that a stamp at the start of `bytes` would have, unchecked.
    #[inline]
    pub fn flow_at(bytes: &[u8]) -> Option<u32> {
        let word = bytes.get(2..6)?.try_into().ok()?;
        Some(u32::from_be_bytes(word) & !BACKWARD)
    }

    /// The stamp at the start of `bytes`, if there is one and its check is right.
    #[inline]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let (first, rest) = bytes.split_first_chunk()?;
        let (second, rest) = rest.split_first_chunk()?;
        let (first, second) = (u64::from_be_bytes(*first), u64::from_be_bytes(*second));
        if u32::from_be_bytes(*rest.first_chunk()?) != check(first, second) {
            return None;
        }
        let flow = (first >> 16) as u32;
        Some(Self {
            tag: (first >> 48) as u16,
            backward: flow & BACKWARD != 0,
            flow: flow & !BACKWARD,
            sequence: (first << 16) as u32 | (second >> 48) as u32,
            due: second & DUE,
        })
    }
}

/// The check over the first 16 bytes.
#[inline]
fn check(first: u64, second: u64) -> u32 {
    (mix(mix(first) ^ second) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn stamps_come_back_and_a_changed_bit_shows(
            tag: u16, backward: bool, flow in 0u32..1 << 31, sequence: u32, due in 0u64..1 << 48, bit in 0usize..160,
        ) {
            let stamp = Stamp { tag, backward, flow, sequence, due };
            let mut bytes = stamp.to_bytes();
            prop_assert_eq!(Stamp::read(&bytes), Some(stamp));
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(Stamp::read(&bytes), None);
        }
    }
}
