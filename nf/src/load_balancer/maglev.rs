//! Maglev's look-up table (Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016,
//! section 3.4), with weights.
//!
//! Each backend has its own permutation of the table's cells, and the backends take turns in claiming the next free
//! cell of their permutation; how often a backend's turn comes is its weight. When the set of backends changes in
//! the configuration, the table is built anew, and few of the cells that both tables have in common differ.
//!
//! A backend that is lost while the worker runs does not change the table. A flow that meets one of its cells is
//! hashed once more and looks at another cell, and so on: only the flows of the lost backend move, they spread over
//! the others by weight, they move back when it returns, and nothing has to be computed on the worker.

use core::net::IpAddr;

/// Cells in the table: a prime, more than 100 times [`MAX_BACKENDS`], so that shares are within a per cent or so.
pub const CELLS: usize = 65_537;
/// Most backends of one load balancer.
pub const MAX_BACKENDS: usize = 512;
/// Cells that a flow looks at before a backend is looked for among all of them. With half of the backends
/// lost, one flow in 65,536 comes that far.
const ATTEMPTS: u64 = 16;

/// The table.
#[derive(Debug)]
pub struct Maglev {
    cells: Box<[u16]>,
    weights: Box<[u16]>,
}

impl Maglev {
    /// Builds a table of `cells` (a prime) for backends known by an identity that does not depend on their order, each
    /// with its weight.
    pub fn new(backends: &[(u64, u16)], cells: usize) -> Self {
        let weights: Box<[u16]> = backends.iter().map(|(_, weight)| *weight).collect();
        let heaviest = u32::from(weights.iter().copied().max().unwrap_or(0));
        if heaviest == 0 {
            return Self {
                cells: Box::new([]),
                weights,
            };
        }
        Self {
            cells: populate(backends, heaviest, cells),
            weights,
        }
    }

    /// The backend for a flow with this hash, among those that are up; `None` if none with a weight is.
    pub fn choose(&self, hash: u64, is_up: impl Fn(usize) -> bool) -> Option<usize> {
        if self.cells.is_empty() {
            return None;
        }
        let cell = |attempt| {
            let hash = if attempt == 0 {
                hash
            } else {
                mix(hash ^ mix(attempt))
            };
            self.cells[(hash % self.cells.len() as u64) as usize] as usize
        };
        (0..ATTEMPTS)
            .map(cell)
            .find(|&backend| is_up(backend))
            .or_else(|| self.choose_among_all(mix(hash ^ mix(ATTEMPTS)), is_up))
    }

    fn choose_among_all(&self, hash: u64, is_up: impl Fn(usize) -> bool) -> Option<usize> {
        let shares = || {
            self.weights
                .iter()
                .enumerate()
                .filter(|(backend, _)| is_up(*backend))
                .map(|(backend, weight)| (backend, u64::from(*weight)))
        };
        let total: u64 = shares().map(|(_, weight)| weight).sum();
        let mut point = hash.checked_rem(total)?;
        for (backend, weight) in shares() {
            match point.checked_sub(weight) {
                Some(rest) => point = rest,
                None => return Some(backend),
            }
        }
        None
    }
}

/// A backend's way through the cells: it visits each once, as the number of cells is prime.
struct Permutation {
    at: usize,
    skip: usize,
    credit: u32,
}

fn populate(backends: &[(u64, u16)], heaviest: u32, cells: usize) -> Box<[u16]> {
    const FREE: u16 = u16::MAX;
    let mut table = vec![FREE; cells].into_boxed_slice();
    let mut permutations: Vec<_> = backends
        .iter()
        .map(|(identity, _)| Permutation {
            at: (mix(*identity) % cells as u64) as usize,
            skip: (mix(!*identity) % (cells as u64 - 1)) as usize + 1,
            credit: 0,
        })
        .collect();
    let mut free = cells;
    while free > 0 {
        for (backend, permutation) in permutations.iter_mut().enumerate() {
            permutation.credit += u32::from(backends[backend].1);
            if permutation.credit < heaviest || free == 0 {
                continue;
            }
            permutation.credit -= heaviest;
            while table[permutation.at] != FREE {
                permutation.at = (permutation.at + permutation.skip) % cells;
            }
            table[permutation.at] = backend as u16;
            free -= 1;
        }
    }
    table
}

/// A 64-bit finalizer (`SplitMix64`'s): written out here, as what it yields must be the same in every version and in
/// every process, or else connections would change their backends at an update.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// A number for an address with a port: a flow's client, or a backend's identity.
pub fn hash_of(address: IpAddr, port: u16) -> u64 {
    let (high, low) = match address {
        IpAddr::V4(v4) => (4, u64::from(v4.to_bits())),
        IpAddr::V6(v6) => ((v6.to_bits() >> 64) as u64, v6.to_bits() as u64),
    };
    mix(mix(mix(high) ^ low) ^ u64::from(port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn identities(weights: &[u16]) -> Vec<(u64, u16)> {
        let identity = |index: usize| hash_of(IpAddr::from([10, 0, 1, index as u8]), 80);
        weights
            .iter()
            .enumerate()
            .map(|(i, w)| (identity(i), *w))
            .collect()
    }

    fn shares(table: &Maglev, backends: usize) -> Vec<usize> {
        let mut counts = vec![0; backends];
        table
            .cells
            .iter()
            .for_each(|&backend| counts[backend as usize] += 1);
        counts
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn cells_are_shared_by_weight(weights in proptest::collection::vec(0u16..20, 1..20)) {
            prop_assume!(weights.iter().any(|w| *w > 0));
            let table = Maglev::new(&identities(&weights), 4093);
            let total: usize = weights.iter().map(|w| *w as usize).sum();
            for (count, weight) in shares(&table, weights.len()).into_iter().zip(&weights) {
                let exact = 4093.0 * f64::from(*weight) / total as f64;
                // Turns are handed out by credit: each backend lacks less than one turn, which the others share by
                // weight, and the table's end may cut the last round short.
                let bound = 2.0 + weights.len() as f64 * f64::from(*weight) / total as f64;
                prop_assert!((count as f64 - exact).abs() <= bound, "{count} cells of {exact}");
            }
        }

        #[test]
        fn a_backend_taken_from_the_table_disturbs_few_others(count in 3usize..20, gone in 0usize..20) {
            let gone = gone % count;
            let all = identities(&vec![1; count]);
            let mut rest = all.clone();
            rest[gone].1 = 0;
            let (before, after) = (Maglev::new(&all, 4093), Maglev::new(&rest, 4093));
            let moved = before.cells.iter().zip(&after.cells).filter(|(b, a)| **b as usize != gone && a != b).count();
            // The paper measures a few per cent; a naive `hash % backends` moves nearly all.
            prop_assert!(moved < 4093 / 4, "{moved} cells of other backends moved");
            prop_assert!(after.cells.iter().all(|backend| *backend as usize != gone));
        }

        #[test]
        fn a_lost_backend_moves_only_its_own_flows(weights in proptest::collection::vec(0u16..5, 2..12), lost in 0usize..12, seed: u64) {
            let lost = lost % weights.len();
            let table = Maglev::new(&identities(&weights), 1021);
            for flow in 0..500u64 {
                let hash = mix(seed ^ flow);
                let before = table.choose(hash, |_| true);
                let after = table.choose(hash, |backend| backend != lost);
                if before == Some(lost) {
                    let left = weights.iter().enumerate().any(|(i, w)| i != lost && *w > 0);
                    prop_assert_eq!(after.is_some(), left);
                    prop_assert_ne!(after, Some(lost));
                } else {
                    prop_assert_eq!(before, after);
                }
            }
        }
    }

    #[test]
    fn flows_of_lost_backends_spread_by_weight() {
        let table = Maglev::new(&identities(&[1, 1, 2, 4]), CELLS);
        let mut counts = [0; 4];
        for flow in 0..40_000 {
            let chosen = table.choose(mix(flow), |backend| backend >= 2).unwrap();
            counts[chosen] += 1;
        }
        assert_eq!(counts[..2], [0, 0]);
        let ratio = f64::from(counts[3]) / f64::from(counts[2]);
        assert!((1.9..2.1).contains(&ratio), "{counts:?}");
    }

    #[test]
    fn the_last_backend_of_many_is_found() {
        let weights = vec![1; MAX_BACKENDS];
        let table = Maglev::new(&identities(&weights), CELLS);
        for flow in 0..100 {
            assert_eq!(table.choose(mix(flow), |backend| backend == 17), Some(17));
            assert_eq!(table.choose(mix(flow), |_| false), None);
        }
        let none = Maglev::new(&identities(&[0, 0]), CELLS);
        assert_eq!(none.choose(1, |_| true), None);
    }

    #[test]
    fn the_choice_stays_the_same_across_versions() {
        // Connections without a session rely on it; whoever changes these numbers breaks them at an update.
        let table = Maglev::new(&identities(&[1, 2, 3]), CELLS);
        let chosen: Vec<_> = (0..12)
            .map(|flow| {
                table
                    .choose(hash_of(IpAddr::from([198, 51, 100, flow]), 40_000), |_| {
                        true
                    })
                    .unwrap()
            })
            .collect();
        assert_eq!(chosen, [1, 2, 1, 2, 1, 0, 2, 1, 0, 2, 2, 2]);
    }
}
