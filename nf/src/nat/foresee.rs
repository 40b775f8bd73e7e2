//! What packets that come in a moment will need if they open sessions, and what they become.
//!
//! For all of them at once, step by step: what a step reads was asked for in the one before.

use arrayvec::ArrayVec;
use chainplane_dataplane::function::{Glimpse, INSIDE, Interface, OUTSIDE};
use chainplane_dataplane::objects::Objects;
use chainplane_dataplane::packet::BURST;

use super::mapping::Foreseen;
use super::process::Nat;
use crate::track::Tuple;

impl Nat {
    /// Brings near what packets that come in by `from` need if they open sessions, and foresees what they become.
    pub(super) fn foresee_sessions(
        &self,
        coming: &mut [Glimpse],
        from: Interface,
        objects: &Objects,
    ) {
        if from == OUTSIDE {
            let ours = coming.iter().filter(|at| self.pool.contains(at.dst.0));
            ours.for_each(|at| self.prefetch(&Tuple::foreseen(at, from), objects));
            return;
        }
        let mut foreseen = ArrayVec::<(&mut Glimpse, Foreseen), BURST>::new();
        for at in coming.iter_mut().take(BURST) {
            if !self.concerns_outbound(at.src.0, at.dst.0) {
                continue;
            }
            let tuple = Tuple::foreseen(at, INSIDE);
            self.prefetch(&tuple, objects);
            let mapping = self.mappings.foresee(tuple.vlan, tuple.protocol, tuple.src);
            foreseen.push((at, mapping));
        }
        for (_, mapping) in &mut foreseen {
            self.mappings.foresee_choice(mapping);
        }
        for (at, mapping) in foreseen {
            let outer = self.mappings.foresee_outer(&mapping);
            at.src = (outer.address, outer.port);
            self.prefetch(&Tuple::foreseen(at, INSIDE).answer(OUTSIDE), objects);
        }
    }

    fn prefetch(&self, tuple: &Tuple, objects: &Objects) {
        let key = self.sessions.hashed(tuple);
        self.sessions.prefetch(&key);
        self.absence.prefetch(key.hash(), objects);
    }
}
