//! What every packet carries: which it is, and when it was due.

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

impl Stamp {
    /// Bytes of a stamp.
    pub const LEN: usize = 20;

    /// The bytes.
    #[inline]
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let flow = self.flow & !BACKWARD | if self.backward { BACKWARD } else { 0 };
        let mut bytes = [0; Self::LEN];
        bytes[..2].copy_from_slice(&self.tag.to_be_bytes());
        bytes[2..6].copy_from_slice(&flow.to_be_bytes());
        bytes[6..10].copy_from_slice(&self.sequence.to_be_bytes());
        bytes[10..16].copy_from_slice(&self.due.to_be_bytes()[2..]);
        let check = check(&bytes);
        bytes[16..].copy_from_slice(&check.to_be_bytes());
        bytes
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
        let bytes: &[u8; Self::LEN] = bytes.get(..Self::LEN)?.try_into().ok()?;
        if check(bytes).to_be_bytes() != bytes[16..] {
            return None;
        }
        let word = |at: usize| u32::from_be_bytes([0, 1, 2, 3].map(|i| bytes[at + i]));
        let flow = word(2);
        Some(Self {
            tag: u16::from_be_bytes([bytes[0], bytes[1]]),
            backward: flow & BACKWARD != 0,
            flow: flow & !BACKWARD,
            sequence: word(6),
            due: u64::from(u16::from_be_bytes([bytes[10], bytes[11]])) << 32 | u64::from(word(12)),
        })
    }
}

/// The check over the first 16 bytes.
#[inline]
fn check(bytes: &[u8; Stamp::LEN]) -> u32 {
    let half = |at: usize| u64::from_be_bytes([0, 1, 2, 3, 4, 5, 6, 7].map(|i| bytes[at + i]));
    (mix(mix(half(0)) ^ half(8)) >> 32) as u32
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
