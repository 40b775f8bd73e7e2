//! Longest prefix match: the same compressed trie for IPv4 and IPv6.
//!
//! A table of 2^14 entries, in large tables of 2^18, answers for an address's first bits; below it, every node decides
//! six more. A node holds two bitmaps and two base indices, 24 bytes, and neighbouring children with the same answer
//! share one leaf, so that a whole Internet table stays a few MiB and a small one a few cache lines (after Asai and
//! Ohara, "Poptrie", SIGCOMM 2015). From the larger table on, the prefix of a /24 is at most three reads away.
//!
//! A batch is looked up level by level: while the first address's node is on its way from memory, those of the others
//! are asked for.
//!
//! It is built in one go, off the workers, from the prefixes flattened into disjoint ranges. Memory is bounded by
//! what is put in: a prefix adds at most two range ends, a range end at most one node on each of 19 levels.

use core::net::IpAddr;

use chainplane_dataplane::prefetch::prefetch;

/// An address, its first bit leftmost; IPv4 addresses are followed by zeros.
pub type Key = u128;

/// What is found where no prefix matches.
pub const NONE: u32 = 0;

/// Bits that the first table decides: few where it is to stay in the nearest cache, more where that saves a level.
const DIRECT_BITS: [u32; 2] = [14, 18];
/// From so many range ends on, the first table is the larger one.
const MANY: usize = 1 << 18;
/// Bytes up to which a table is near by itself, so that asking for it costs more than it brings.
const NEAR: usize = 256 << 10;
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
    direct_bits: u32,
    is_near: bool,
    direct: Vec<u32>,
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
    /// Compiles prefixes with what to answer for each, which is below 2^31; [`NONE`] makes a hole in what is around.
    /// Of several equal prefixes the last one counts.
    pub fn new(prefixes: impl IntoIterator<Item = (KeyPrefix, u32)>) -> Self {
        let mut prefixes: Vec<_> = prefixes.into_iter().collect();
        // Stable, so that the last of several equal ones is cut last.
        prefixes.sort_by_key(|(prefix, _)| *prefix);
        let cuts = flatten(&prefixes);
        Self::of_cuts(&cuts, DIRECT_BITS[usize::from(cuts.len() >= MANY)])
    }

    fn of_cuts(cuts: &[Cut], direct_bits: u32) -> Self {
        let mut table = Self {
            direct_bits,
            is_near: false,
            direct: Vec::with_capacity(1 << direct_bits),
            nodes: Vec::new(),
            answers: Vec::new(),
        };
        let part_bits = 128 - direct_bits;
        let parts = 1 << direct_bits;
        split(cuts, NONE, 0, part_bits, parts, |index, answer, inside| {
            if inside.is_empty() {
                table.direct.push(ANSWER | answer);
                return;
            }
            let number = table.nodes.len();
            table.nodes.push(Node::default());
            table.direct.push(number as u32);
            let start = (index as u128) << part_bits;
            table.fill(number, inside, answer, start, direct_bits);
        });
        table.is_near = table.bytes() <= NEAR;
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
        let mut entry = self.direct[(key >> (128 - self.direct_bits)) as usize];
        let mut depth = self.direct_bits;
        while entry & ANSWER == 0 {
            let child = ((key << depth) >> (128 - STRIDE)) as u32;
            match self.nodes[entry as usize].step(child) {
                Step::Node(next) => entry = next,
                Step::Answer(at) => return self.answers[at as usize],
            }
            depth += STRIDE;
        }
        entry & !ANSWER
    }

    /// The same for an IPv4 address, in a table of these.
    #[inline]
    pub fn lookup_v4(&self, address: u32) -> u32 {
        let mut entry = self.direct[self.first(address)];
        let mut depth = self.direct_bits;
        while entry & ANSWER == 0 {
            match self.nodes[entry as usize].step(child_v4(address, depth)) {
                Step::Node(next) => entry = next,
                Step::Answer(at) => return self.answers[at as usize],
            }
            depth += STRIDE;
        }
        entry & !ANSWER
    }

    /// Replaces IPv4 addresses, as many as a batch has packets, by what [`Lpm::lookup_v4`] answers for them.
    pub fn lookup_batch_v4(&self, batch: &mut [u32]) {
        if self.is_near {
            for slot in batch {
                *slot = self.lookup_v4(*slot);
            }
        } else {
            for some in batch.chunks_mut(LANES) {
                self.descend(some);
            }
        }
    }

    fn descend(&self, batch: &mut [u32]) {
        let mut entries = [0; LANES];
        // Those still on their way down, by their place in the batch.
        let (mut open, mut count) = ([0u8; LANES], 0);
        for &address in &*batch {
            prefetch(&self.direct[self.first(address)]);
        }
        for (place, (address, entry)) in batch.iter().zip(&mut entries).enumerate() {
            *entry = self.direct[self.first(*address)];
            open[count] = place as u8;
            if *entry & ANSWER == 0 {
                prefetch(&self.nodes[*entry as usize]);
                count += 1;
            }
        }
        let mut leaves = [0u8; LANES];
        let (mut depth, mut left) = (self.direct_bits, 0);
        while count > 0 {
            let mut deeper = 0;
            for at in 0..count {
                let place = usize::from(open[at]) % LANES;
                let node = &self.nodes[entries[place] as usize];
                match node.step(child_v4(batch[place], depth)) {
                    Step::Node(next) => {
                        prefetch(&self.nodes[next as usize]);
                        entries[place] = next;
                        open[deeper] = place as u8;
                        deeper += 1;
                    }
                    Step::Answer(answer) => {
                        prefetch(&self.answers[answer as usize]);
                        entries[place] = answer;
                        leaves[left % LANES] = place as u8;
                        left += 1;
                    }
                }
            }
            (count, depth) = (deeper, depth + STRIDE);
        }
        for &place in &leaves[..left.min(LANES)] {
            let entry = &mut entries[usize::from(place) % LANES];
            *entry = ANSWER | self.answers[*entry as usize];
        }
        for (slot, entry) in batch.iter_mut().zip(entries) {
            *slot = entry & !ANSWER;
        }
    }

    #[inline]
    fn first(&self, address: u32) -> usize {
        (address >> (32 - self.direct_bits)) as usize
    }

    /// Bytes of memory in use.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.direct) + size_of_val(&*self.nodes) + size_of_val(&*self.answers)
    }
}

/// Addresses that are looked up together.
const LANES: usize = 64;

/// The six bits of an address behind the first `depth`, which are fewer than 32; zeros follow the address.
#[inline]
fn child_v4(address: u32, depth: u32) -> u32 {
    ((u64::from(address) << (32 + depth)) >> (64 - STRIDE)) as u32
}

/// Where the way down goes on.
enum Step {
    /// At this node.
    Node(u32),
    /// Nowhere: this is the answer's place.
    Answer(u32),
}

impl Node {
    #[inline]
    fn step(&self, child: u32) -> Step {
        // Bits below the child's; its own decides which bitmap counts.
        let below = (1u64 << child) - 1;
        if self.inner >> child & 1 == 0 {
            let run = (self.runs & (below << 1 | 1)).count_ones();
            Step::Answer(self.answers_from + run - 1)
        } else {
            Step::Node(self.nodes_from + (self.inner & below).count_ones())
        }
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
                prop_assert_eq!(table.lookup_v4((key >> 96) as u32), naive(&prefixes, key));
            }
        }

        /// Both sizes of the first table, batches of any length, prefixes as crowded as real ones.
        #[test]
        fn a_batch_is_answered_as_its_addresses_are(
            seed in any::<u64>(),
            count in 0..500usize,
            bits in prop_oneof![Just(DIRECT_BITS[0]), Just(DIRECT_BITS[1])],
            spread in prop_oneof![Just(0xffff_ff00u32), Just(0x00ff_ffffu32), Just(u32::MAX)],
            keys in proptest::collection::vec(any::<u32>(), 0..200),
        ) {
            let mut state = seed;
            let mut random = || {
                state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
                (state >> 32) as u32
            };
            let prefixes: Vec<_> = (0..count).map(|_| {
                let len = (random() % 33) as u8;
                (prefix(u128::from(random() & spread) << 96, len.max(8)), 1 + random() % 99)
            }).collect();
            let mut sorted = prefixes.clone();
            sorted.sort_by_key(|(prefix, _)| *prefix);
            let table = Lpm::of_cuts(&flatten(&sorted), bits);
            let mut batch: Vec<u32> = keys.into_iter().map(|key| key & spread).collect();
            batch.extend(prefixes.iter().map(|(prefix, _)| (prefix.start >> 96) as u32).take(100));
            let single: Vec<_> = batch.iter().map(|key| table.lookup(u128::from(*key) << 96)).collect();
            let mut again = batch.clone();
            table.lookup_batch_v4(&mut batch);
            for some in again.chunks_mut(LANES) {
                table.descend(some);
            }
            prop_assert_eq!(&batch, &single);
            prop_assert_eq!(again, single);
        }
    }

    #[test]
    fn the_empty_table_and_the_default_route_need_no_nodes() {
        let empty = Lpm::new([]);
        assert_eq!((empty.lookup(0), empty.lookup(u128::MAX)), (NONE, NONE));
        let default = Lpm::new([(prefix(0, 0), 7)]);
        assert_eq!((default.lookup(0), default.lookup(u128::MAX)), (7, 7));
        assert_eq!(default.bytes(), 4 << DIRECT_BITS[0]);
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
