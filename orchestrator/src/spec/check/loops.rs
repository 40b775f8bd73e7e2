//! No packet may circle for ever: a loop of chains needs a junction that lowers the TTL.

use super::Checker;
use super::chains::{Chain, End};
use crate::diagnostic::Diagnostic;
use crate::yaml_path;

/// Reports each chain that closes a loop among junctions that don't lower the TTL.
pub fn check(checker: &mut Checker<'_>, chains: &[Chain]) {
    let circling: Vec<bool> = checker
        .facts
        .iter()
        .map(|facts| {
            let junction = facts.junction.as_ref();
            junction.is_some_and(|junction| !junction.decrements_ttl)
        })
        .collect();
    for closing in closing(&circling, chains) {
        let message = format!("chain `{}` closes a loop without a router", closing.name);
        checker.report(
            Diagnostic::at_key(yaml_path!["chains", &closing.name], message)
                .help("a packet could circle for ever: take the chain out, or put a router in"),
        );
    }
}

/// The chains that close a loop. Junctions are numbered as in `circling`, which says of each
/// whether a packet can pass it for ever; sets of joined ones are kept as a forest.
fn closing<'c>(circling: &[bool], chains: &'c [Chain]) -> Vec<&'c Chain> {
    let mut parent: Vec<usize> = (0..circling.len()).collect();
    let mut found = Vec::new();
    for chain in chains {
        let (End::Junction(left, _), End::Junction(right, _)) = (chain.left, chain.right) else {
            continue;
        };
        if !circling[left] || !circling[right] {
            continue;
        }
        let (left, right) = (top(&mut parent, left), top(&mut parent, right));
        if left == right {
            found.push(chain);
        } else {
            parent[left] = right;
        }
    }
    found
}

fn top(parent: &mut [usize], mut at: usize) -> usize {
    while parent[at] != at {
        parent[at] = parent[parent[at]];
        at = parent[at];
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(left: usize, right: usize) -> Chain {
        Chain {
            name: format!("{left}-{right}"),
            left: End::Junction(left, 0),
            middle: Vec::new(),
            right: End::Junction(right, 0),
        }
    }

    fn names(circling: &[bool], chains: &[Chain]) -> Vec<String> {
        let found = closing(circling, chains);
        found.iter().map(|chain| chain.name.clone()).collect()
    }

    #[test]
    fn a_ring_of_switches_is_a_loop_and_a_tree_is_none() {
        let ring = [chain(0, 1), chain(1, 2), chain(2, 0)];
        assert_eq!(names(&[true; 3], &ring), ["2-0"]);
        assert_eq!(names(&[true; 3], &ring[..2]), [""; 0]);
    }

    #[test]
    fn one_router_breaks_the_ring() {
        let ring = [chain(0, 1), chain(1, 2), chain(2, 0)];
        assert_eq!(names(&[true, false, true], &ring), [""; 0]);
    }

    #[test]
    fn a_switch_joined_to_itself_and_two_joined_twice_are_loops() {
        assert_eq!(names(&[true], &[chain(0, 0)]), ["0-0"]);
        assert_eq!(names(&[true; 2], &[chain(0, 1), chain(1, 0)]), ["1-0"]);
        assert_eq!(names(&[false], &[chain(0, 0)]), [""; 0]);
    }
}
