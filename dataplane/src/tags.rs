//! Compares the tags of a bucket with one tag, all at once: for flow records and for sessions.

/// Ways of a bucket: as many 16-bit tags as the 128-bit registers hold that every `x86_64` processor has.
pub(crate) const WAYS: usize = 8;

/// The ways whose tags agree, from the first on.
#[derive(Clone, Debug)]
pub(crate) struct Ways(u32);

impl Ways {
    /// These, and a way behind those that were compared at once, if its tag agrees.
    #[inline]
    pub(crate) fn and(self, way: usize, agrees: bool) -> Self {
        Self(self.0 | (u32::from(agrees) * 3) << (way * 2))
    }
}

impl Iterator for Ways {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        // Two bits stand for each way.
        let way = self.0.trailing_zeros() as usize / 2;
        if self.0 == 0 {
            return None;
        }
        self.0 &= !(3 << (way * 2));
        Some(way)
    }
}

/// The ways of `tags` that hold `tag`.
#[inline]
pub(crate) fn ways_with(tags: &[u16; WAYS], tag: u16) -> Ways {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86_64 processor has SSE2, and the build's target says so.
    return Ways(unsafe { simd(tags, tag) });
    #[cfg(not(target_arch = "x86_64"))]
    return Ways(scalar(tags, tag));
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse2")]
#[inline]
fn simd(tags: &[u16; WAYS], tag: u16) -> u32 {
    use core::arch::x86_64::{_mm_cmpeq_epi16, _mm_movemask_epi8, _mm_set_epi64x, _mm_set1_epi16};
    let [low, high]: [i64; 2] = zerocopy::transmute!(*tags);
    let equal = _mm_cmpeq_epi16(_mm_set_epi64x(high, low), _mm_set1_epi16(tag as i16));
    _mm_movemask_epi8(equal) as u32
}

#[cfg(any(test, not(target_arch = "x86_64")))]
fn scalar(tags: &[u16; WAYS], tag: u16) -> u32 {
    let equal = |way: usize| if tags[way] == tag { 3 << (way * 2) } else { 0 };
    (0..WAYS).map(equal).sum()
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn both_forms_agree(tags: [u16; WAYS], pick in 0..WAYS, other: u16, copies in 0..WAYS) {
            let mut tags = tags;
            tags[copies] = tags[pick];
            for tag in [tags[pick], other] {
                // SAFETY: as above.
                prop_assert_eq!(unsafe { simd(&tags, tag) }, scalar(&tags, tag));
                let expected: Vec<usize> = (0..WAYS).filter(|way| tags[*way] == tag).collect();
                prop_assert_eq!(ways_with(&tags, tag).collect::<Vec<_>>(), expected);
            }
        }
    }
}
