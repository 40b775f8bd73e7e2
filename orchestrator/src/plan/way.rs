//! Which way a port's packets go: by flow records, or without.
//!
//! A record saves what the functions do; the look for it costs a key, a hash and two or three cache lines. Where a
//! function on the way keeps sessions or has rules to walk, the record is the shorter way. A router's own look-up, done
//! for a whole batch, is shorter than the one that would save it, for few flows and the more so for many.

use std::collections::VecDeque;

use chainplane_dataplane::function::Blueprint;

use super::{Links, Side};
use crate::spec::Model;

/// Ports that are named where many go the same way.
const NAMES: usize = 4;

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
    /// be reached counts.
    pub(super) fn from(
        first: Side,
        model: &Model,
        links: &Links,
        blueprints: &[Box<dyn Blueprint>],
    ) -> Self {
        let Side::Function(first, _) = first else {
            return Self::Direct;
        };
        if model.flow_table == 0 {
            return Self::NoTable;
        }
        let mut seen = vec![false; blueprints.len()];
        let mut next = VecDeque::from([first]);
        while let Some(function) = next.pop_front() {
            if std::mem::replace(&mut seen[function], true) {
                continue;
            }
            if blueprints[function].wants_records() {
                return Self::Records(function);
            }
            let sides = links.functions[function].iter().flatten();
            next.extend(sides.filter_map(|side| match side {
                Side::Function(function, _) => Some(*function),
                Side::Port(_) => None,
            }));
        }
        Self::Functions
    }

    /// The way and its reason, in a few words.
    fn explain(self, model: &Model) -> String {
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

/// A line for all ports whose packets go the same way, with the reason; direct ones need no words.
pub fn explain(model: &Model, ways: &[Option<Way>]) -> Vec<String> {
    let mut lines: Vec<(Way, Vec<&str>)> = Vec::new();
    for (port, way) in model.ports.iter().zip(ways) {
        let Some(way) = way.filter(|way| *way != Way::Direct) else {
            continue;
        };
        match lines.iter_mut().find(|(known, _)| *known == way) {
            Some((_, names)) => names.push(&port.name),
            None => lines.push((way, vec![&port.name])),
        }
    }
    let line = |(way, names): &(Way, Vec<&str>)| {
        let few = names.len().min(NAMES);
        let more = match names.len() - few {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let names = names[..few].join(", ");
        format!("from {names}{more}: {}", way.explain(model))
    };
    lines.iter().map(line).collect()
}
