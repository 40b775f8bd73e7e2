//! Division by numbers that are known beforehand, without a division instruction.

/// A number that is divided by again and again: one multiplication each time (Lemire, Kaser, Kurz, "Faster remainder by
/// direct computation", 2019).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Divisor {
    by: u32,
    /// 2^64 / `by`, rounded up; 0 for 1.
    reciprocal: u64,
}

impl Divisor {
    /// Of a number that is not 0.
    pub fn new(by: u32) -> Self {
        let by = by.max(1);
        Self {
            by,
            reciprocal: (u64::MAX / u64::from(by)).wrapping_add(1),
        }
    }

    /// Quotient and remainder.
    #[inline]
    pub fn divide(self, number: u32) -> (u32, u32) {
        if self.by == 1 {
            return (number, 0);
        }
        let quotient = ((u128::from(self.reciprocal) * u128::from(number)) >> 64) as u32;
        (quotient, number - quotient * self.by)
    }

    /// The remainder.
    #[inline]
    pub fn remainder(self, number: u32) -> u32 {
        self.divide(number).1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn agrees_with_division(by in 1u32.., near in 0u32..64, number: u32) {
            for by in [by, 1 + near, u32::MAX - near, 1 << (near % 32)] {
                let multiple = number / by * by;
                for number in [number, multiple, multiple.wrapping_sub(1), u32::MAX] {
                    prop_assert_eq!(Divisor::new(by).divide(number), (number / by, number % by));
                }
            }
        }
    }
}
