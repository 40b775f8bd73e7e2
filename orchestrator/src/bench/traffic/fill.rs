//! The bytes of frames behind their stamps.

use chainplane_dataplane::packet::Sum;

use super::random::Random;

/// The longest frame, in bytes.
pub const MAX_FRAME: usize = 9216;

/// Bytes that depend on the seed and on their place in the frame alone. So a buffer that held one packet's holds any
/// other's, and a receiver compares instead of summing.
#[derive(Clone)]
pub struct Fill {
    bytes: Vec<u8>,
    /// The folded sum of all words before each.
    sums: Vec<u16>,
}

impl Fill {
    /// The bytes of a seed.
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x6669_6c6c);
        let mut bytes: Vec<u8> = Vec::with_capacity(MAX_FRAME);
        while bytes.len() < MAX_FRAME {
            bytes.extend_from_slice(&random.number().to_le_bytes());
        }
        let mut sum = Sum::default();
        let mut sums = vec![0];
        for pair in bytes.chunks_exact(2) {
            sum = Sum::default().plus(sum.plus_bytes(pair).folded());
            sums.push(sum.folded());
        }
        Self { bytes, sums }
    }

    /// All bytes of a longest frame.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The Internet checksum's sum of the bytes from `from`, an even place, up to `to`.
    #[inline]
    pub fn sum(&self, from: usize, to: usize) -> Sum {
        let mut sum = Sum::default()
            .plus(self.sums[to / 2])
            .minus(self.sums[from / 2]);
        if to % 2 == 1 {
            sum = sum.plus(u16::from(self.bytes[to - 1]) << 8);
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn sums_are_those_of_the_bytes(from in 0usize..100, len in 0usize..9000) {
            let fill = Fill::new(7);
            let (from, to) = (2 * from, 2 * from + len);
            let plain = Sum::default().plus_bytes(&fill.bytes()[from..to]);
            // One ones' complement zero is as good as the other, in a sum that goes on.
            prop_assert_eq!(fill.sum(from, to).plus(1).folded(), plain.plus(1).folded());
        }
    }
}
