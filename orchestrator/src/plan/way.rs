//! Which way a port's packets go: by flow records, or without.
//!
//! A record saves what the functions do; the look for it costs a key, a hash and two or three cache lines. Where a
//! function on the way keeps sessions or has rules to walk, the record is the shorter way. A router's own look-up, done
//! for a whole batch, is shorter than the one that would save it, for few flows and the more so for many.

use std::sync::Arc;

use chainplane_dataplane::function::Blueprint;

use super::links::{Links, Side};
use crate::spec::Model;

/// Which way the packets of a port go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To another port, with nothing between.
    Direct,
    /// By flow records, for the sake of this function; an index into [`Model::functions`].
    Records(usize),
    /// Through the functions, batch by batch, as none of them wants records.
    Functions,
    /// Through the functions, as the configuration has no flow table.
    NoTable,
}

impl Way {
    /// The way of packets that enter at `first`. They may leave a function by any of its interfaces, so all that can
    /// be reached counts, as far as it is `here`, at the same worker.
    pub(super) fn from(
        first: Side,
        model: &Model,
        links: &Links,
        blueprints: &[Arc<dyn Blueprint>],
        here: impl Fn(usize) -> bool,
    ) -> Self {
        let Side::Function(first, _) = first else {
            return Self::Direct;
        };
        let reached = links.reach(first, here);
        if reached.is_empty() {
            return Self::Direct;
        }
        if model.flow_table == 0 {
            return Self::NoTable;
        }
        let wanting = reached
            .into_iter()
            .find(|at| blueprints[*at].wants_records());
        wanting.map_or(Self::Functions, Self::Records)
    }

    /// The way and its reason, in a few words.
    pub(super) fn explain(self, model: &Model) -> String {
        match self {
            Self::Direct => "straight to the other port".to_owned(),
            Self::Records(function) => {
                let name = &model.functions[function].name;
                format!("by flow records, as `{name}` keeps state")
            }
            Self::Functions => "through functions, which keep no state, without records".into(),
            Self::NoTable => "through functions, as `flows.table` is 0".to_owned(),
        }
    }
}
