//! Keys as a table keeps them.

use crate::hashing::folded;

/// A key as words. What both forms hold is the function's to say; equal keys are equal words, of one form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packed {
    /// A key that fits in 16 bytes, as those of IPv4 do. The last word's top bit is 0.
    Narrow([u32; 4]),
    /// A longer one, as those of IPv6 are. They lie in memory of their own, which is not touched before they come.
    Wide([u64; 5]),
}

/// What a session is found by.
pub trait Key: Copy + Eq {
    /// The key as words.
    fn pack(&self) -> Packed;
    /// The key that `packed` was made from.
    fn unpack(packed: &Packed) -> Self;
}

/// A key with its hash in one table, for who looks for it more than once.
#[derive(Clone, Copy, Debug)]
pub struct Hashed {
    pub(super) packed: Packed,
    pub(super) hash: u64,
    /// A look-up found no session with the key, not even a dead one.
    pub(super) is_new: bool,
}

impl Hashed {
    /// The hash, which another table with the same seed would give the key, too.
    #[inline]
    pub fn hash(&self) -> u64 {
        self.hash
    }
}

/// Hashes keys so that an outsider who does not know its seed can't steer it.
#[derive(Clone, Debug)]
pub struct KeyHasher([u64; 4]);

impl KeyHasher {
    /// A hasher; the same seed gives the same hashes.
    pub fn new(seed: u64) -> Self {
        Self(core::array::from_fn(|n| spread(seed, n as u64)))
    }

    /// A 64-bit hash.
    #[inline]
    pub fn hash(&self, key: &impl Key) -> u64 {
        self.of(&key.pack())
    }

    #[inline]
    pub(super) fn of(&self, key: &Packed) -> u64 {
        let seeds = &self.0;
        match key {
            Packed::Narrow(words) => {
                let (low, high) = halves(words);
                let both = folded(low ^ seeds[0], high ^ seeds[1]);
                folded(both ^ seeds[2], seeds[3])
            }
            Packed::Wide(words) => {
                let first = folded(words[0] ^ seeds[0], words[2] ^ seeds[1]);
                let second = folded(words[1] ^ seeds[2], words[3] ^ seeds[3]);
                folded(first ^ second ^ seeds[1], words[4] ^ seeds[2])
            }
        }
    }
}

/// One of the secrets that a seed gives (the finalizer of `SplitMix64`).
fn spread(seed: u64, number: u64) -> u64 {
    let step = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let word = seed.wrapping_add(step);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// What an entry holds of a key that lies elsewhere: its hash, and these words.
const ELSEWHERE: [u32; 2] = [0, 1 << 31];

impl Packed {
    /// Equal for equal keys, and seldom for others; for a narrow key, never.
    #[inline]
    pub(super) fn short(&self, hash: u64) -> [u32; 4] {
        match self {
            Self::Narrow(words) => *words,
            Self::Wide(_) => [hash as u32, (hash >> 32) as u32, ELSEWHERE[0], ELSEWHERE[1]],
        }
    }
}

/// Whether an entry's words stand for a key that lies elsewhere.
#[inline]
pub(super) fn is_elsewhere(short: &[u32; 4]) -> bool {
    short[3] & ELSEWHERE[1] != 0
}

#[inline]
fn halves(words: &[u32; 4]) -> (u64, u64) {
    let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    (pair(words[0], words[1]), pair(words[2], words[3]))
}
