//! The step of which keyed hashes are made.

/// Multiplies to 128 bits and folds the halves together: every input bit reaches every output bit.
#[inline]
pub(crate) fn folded(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}
