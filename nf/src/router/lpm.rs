//! Longest prefix match: the same compressed trie for IPv4 and IPv6.
//!
//! A table of 2^14 entries answers for the first 14 bits; below it, every node decides six more. A node holds two
//! bitmaps and two base indices, 24 bytes, and neighbouring children with the same answer share one leaf, so that a
//! whole Internet table stays a few MiB and a small one a few cache lines (after Asai and Ohara, "Poptrie", SIGCOMM
//! 2015). 14 + 3 * 6 bits are an IPv4 address, 14 + 19 * 6 an IPv6 address.
//!
//! It is built in one go, off the workers, from the prefixes flattened into disjoint ranges. Memory is bounded by
//! what is put in: a prefix adds at most two range ends, a range end at most one node on each of 19 levels.

use core::net::IpAddr;

/// An address, its first bit leftmost; IPv4 addresses are followed by zeros.
pub type Key = u128;

/// What is found where no prefix matches.
pub const NONE: u32 = 0;

const DIRECT_BITS: u32 = 14;
const STRIDE: u32 = 6;
/// Marks an entry that is an answer, not a node's number.
const ANSWER: u32 = 1 << 31;

#[derive(Clone, Copy, Debug, Default)]
struct Node {
    /// Children that are nodes.
    inner: u64,
    /// Children with which a new run of equal answers starts.
    runs: u64,
    nodes_from: u32,
    answers_from: u32,
}

/// A compiled table of prefixes of one family.
#[derive(Clone, Debug)]
pub struct Lpm {
    direct: Box<[u32]>,
    nodes: Vec<Node>,
    answers: Vec<u32>,
}

/// A prefix of a [`Key`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyPrefix {
    /// Its lowest address; the bits behind `len` are zero.
    pub start: Key,
    /// Its length in bits, at most 128.
    pub len: u8,
}

impl KeyPrefix {
    fn last(self) -> Key {
        self.start
            | u128::MAX
                .checked_shr(u32::from(self.len))
                .unwrap_or_default()
    }
}

/// The key of an address.
#[inline]
pub fn key(address: IpAddr) -> Key {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()) << 96,
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// Where a range starts, and the answer from there to the next one.
type Cut = (Key, u32);

/// Flattens nested prefixes, sorted by start and length, into ranges that cover everything.
fn flatten(prefixes: &[(KeyPrefix, u32)]) -> Vec<Cut> {
    fn cut(cuts: &mut Vec<Cut>, at: Key, answer: u32) {
        match cuts.last_mut() {
            Some(last) if last.0 == at => last.1 = answer,
            _ => cuts.push((at, answer)),
        }
    }
    /// Ends the innermost open prefix: from behind it on, the one around it answers.
    fn close(cuts: &mut Vec<Cut>, open: &mut Vec<(Key, u32)>) {
        let Some((last, _)) = open.pop() else { return };
        if let Some(behind) = last.checked_add(1) {
            cut(cuts, behind, open.last().map_or(NONE, |around| around.1));
        }
    }
    let mut cuts = vec![(0, NONE)];
    let mut open: Vec<(Key, u32)> = Vec::new();
    for &(prefix, answer) in prefixes {
        while open.last().is_some_and(|(last, _)| *last < prefix.start) {
            close(&mut cuts, &mut open);
        }
        cut(&mut cuts, prefix.start, answer);
        open.push((prefix.last(), answer));
    }
    while !open.is_empty() {
        close(&mut cuts, &mut open);
    }
    cuts.dedup_by_key(|cut| cut.1);
    cuts
}

/// Hands the equal parts of a range to `part`, in order: their number, the answer at their start, and the cuts
/// inside of them.
fn split(
    cuts: &[Cut],
    mut answer: u32,
    start: Key,
    part_bits: u32,
    parts: usize,
    mut part: impl FnMut(usize, u32, &[Cut]),
) {
    let mut rest = cuts;
    for index in 0..parts {
        let first = start | (index as u128) << part_bits;
        let last = first | ((1u128 << part_bits) - 1);
        if let [(at, now), behind @ ..] = rest
            && *at == first
        {
            (answer, rest) = (*now, behind);
        }
        let count = rest.partition_point(|(at, _)| *at <= last);
        let (inside, behind) = rest.split_at(count);
        part(index, answer, inside);
        if let Some((_, last)) = inside.last() {
            answer = *last;
        }
        rest = behind;
    }
}

impl Lpm {
    /// Compiles prefixes with what to answer for each, which is above [`NONE`] and below 2^31. Of several equal
    /// prefixes the last one counts.
    pub fn new(prefixes: impl IntoIterator<Item = (KeyPrefix, u32)>) -> Self {
        let mut prefixes: Vec<_> = prefixes.into_iter().collect();
        // Stable, so that the last of several equal ones is cut last.
        prefixes.sort_by_key(|(prefix, _)| *prefix);
        let cuts = flatten(&prefixes);
        let mut table = Self {
            direct: Box::default(),
            nodes: Vec::new(),
            answers: Vec::new(),
        };
        let mut direct = Vec::with_capacity(1 << DIRECT_BITS);
        let part_bits = 128 - DIRECT_BITS;
        split(
            &cuts,
            NONE,
            0,
            part_bits,
            1 << DIRECT_BITS,
            |index, answer, inside| {
                if inside.is_empty() {
                    direct.push(ANSWER | answer);
                    return;
                }
                let number = table.nodes.len();
                table.nodes.push(Node::default());
                direct.push(number as u32);
                table.fill(
                    number,
                    inside,
                    answer,
                    (index as u128) << part_bits,
                    DIRECT_BITS,
                );
            },
        );
        table.direct = direct.into();
        table
    }

    /// Makes node `number`, whose range starts at `start` and is `depth` bits deep, from the cuts inside of it.
    fn fill(&mut self, number: usize, cuts: &[Cut], answer: u32, start: Key, depth: u32) {
        let part_bits = 128 - depth - STRIDE;
        let mut node = Node {
            answers_from: self.answers.len() as u32,
            nodes_from: self.nodes.len() as u32,
            ..Node::default()
        };
        let mut last_answer = None;
        split(
            cuts,
            answer,
            start,
            part_bits,
            1 << STRIDE,
            |index, answer, inside| {
                if !inside.is_empty() {
                    node.inner |= 1 << index;
                } else if last_answer != Some(answer) {
                    node.runs |= 1 << index;
                    self.answers.push(answer);
                    last_answer = Some(answer);
                }
            },
        );
        let mut child = self.nodes.len();
        self.nodes
            .resize(child + node.inner.count_ones() as usize, Node::default());
        self.nodes[number] = node;
        split(
            cuts,
            answer,
            start,
            part_bits,
            1 << STRIDE,
            |index, answer, inside| {
                if !inside.is_empty() {
                    let start = start | (index as u128) << part_bits;
                    self.fill(child, inside, answer, start, depth + STRIDE);
                    child += 1;
                }
            },
        );
    }

    /// The answer of the longest prefix that `key` is in; [`NONE`] if it is in none.
    #[inline]
    pub fn lookup(&self, key: Key) -> u32 {
        let mut entry = self.direct[(key >> (128 - DIRECT_BITS)) as usize];
        let mut depth = DIRECT_BITS;
        while entry & ANSWER == 0 {
            let node = &self.nodes[entry as usize];
            let child = ((key << depth) >> (128 - STRIDE)) as u32;
            if node.inner >> child & 1 == 0 {
                let run = (node.runs & (u64::MAX >> (63 - child))).count_ones();
                return self.answers[(node.answers_from + run - 1) as usize];
            }
            entry = node.nodes_from + (node.inner & ((1 << child) - 1)).count_ones();
            depth += STRIDE;
        }
        entry & !ANSWER
    }

    /// Bytes of memory in use.
    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.direct) + size_of_val(&*self.nodes) + size_of_val(&*self.answers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn prefix(bits: u128, len: u8) -> KeyPrefix {
        let mask = u128::MAX
            .checked_shl(128 - u32::from(len))
            .unwrap_or_default();
        KeyPrefix {
            start: bits & mask,
            len,
        }
    }

    fn naive(prefixes: &[(KeyPrefix, u32)], key: Key) -> u32 {
        let matching = prefixes
            .iter()
            .filter(|(prefix, _)| (prefix.start..=prefix.last()).contains(&key));
        // Of equal lengths, `max_by_key` gives the last.
        matching
            .max_by_key(|(prefix, _)| prefix.len)
            .map_or(NONE, |(_, answer)| *answer)
    }

    /// Few distinct bits, so that prefixes nest, touch and repeat.
    fn crowded() -> impl Strategy<Value = u128> {
        let bytes = prop_oneof![
            Just(0u8),
            Just(0xff),
            Just(0x80),
            Just(0x7f),
            Just(1),
            any::<u8>()
        ];
        proptest::array::uniform16(bytes).prop_map(u128::from_be_bytes)
    }

    proptest! {
        #[test]
        fn agrees_with_trying_every_prefix(
            prefixes in proptest::collection::vec((crowded(), 0u8..=128, 1u32..20), 0..60),
            keys in proptest::collection::vec(crowded(), 50),
        ) {
            let prefixes: Vec<_> = prefixes.into_iter().map(|(bits, len, answer)| (prefix(bits, len), answer)).collect();
            let table = Lpm::new(prefixes.iter().copied());
            let edges = prefixes.iter().flat_map(|(prefix, _)| {
                [prefix.start, prefix.start.wrapping_sub(1), prefix.last(), prefix.last().wrapping_add(1)]
            });
            for key in keys.into_iter().chain(edges) {
                prop_assert_eq!(table.lookup(key), naive(&prefixes, key), "key {:x}", key);
            }
        }

        #[test]
        fn agrees_for_ipv4(
            prefixes in proptest::collection::vec((any::<u32>(), 0u8..=32, 1u32..20), 0..200),
            keys in proptest::collection::vec(any::<u32>(), 50),
        ) {
            let prefixes: Vec<_> =
                prefixes.into_iter().map(|(bits, len, answer)| (prefix(u128::from(bits) << 96, len), answer)).collect();
            let table = Lpm::new(prefixes.iter().copied());
            for key in keys.into_iter().map(|bits| u128::from(bits) << 96).chain(prefixes.iter().map(|(prefix, _)| prefix.start)) {
                prop_assert_eq!(table.lookup(key), naive(&prefixes, key));
            }
        }
    }

    #[test]
    fn the_empty_table_and_the_default_route_need_no_nodes() {
        let empty = Lpm::new([]);
        assert_eq!((empty.lookup(0), empty.lookup(u128::MAX)), (NONE, NONE));
        let default = Lpm::new([(prefix(0, 0), 7)]);
        assert_eq!((default.lookup(0), default.lookup(u128::MAX)), (7, 7));
        assert_eq!(default.bytes(), 4 << DIRECT_BITS);
    }

    #[test]
    fn many_routes_take_little_memory() {
        // Every other /24 of 10.0.0.0/8 and 11.0.0.0/8, with alternating answers: nothing can be merged.
        let prefixes = (0..1u128 << 16).map(|index| {
            let bits = (0x0a00_0000 + (index << 9)) << 96;
            (prefix(bits, 24), 1 + (index % 7) as u32)
        });
        let table = Lpm::new(prefixes);
        assert!(table.bytes() < 1 << 20, "{} bytes", table.bytes());
        assert_eq!(table.lookup(0x0a00_0203 << 96), 2);
        assert_eq!(table.lookup(0x0a00_0103 << 96), NONE);
    }
}
