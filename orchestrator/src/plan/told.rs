//! The plan in words: which way packets go, who runs what, and why.

use std::sync::Arc;

use chainplane_dataplane::function::Blueprint;

use super::{Part, Place, Source, Way, WhyCrew, WhyOne, WorkerPlan};
use crate::spec::Model;
use crate::spec::file::Port;

/// Names that are told where many are of the same kind.
const NAMES: usize = 4;
/// The same where somebody wants to know of each.
const MANY: usize = 12;

/// The plan in words, a line for all of which the same is true.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Which way packets of ports go; direct ones need no words.
    pub ways: Vec<String>,
    /// Which workers run what; nothing where there is only one.
    pub parts: Vec<String>,
}

impl Told {
    pub(super) fn of(
        model: &Model,
        parts: &[Part],
        workers: &[WorkerPlan],
        blueprints: &[Arc<dyn Blueprint>],
    ) -> Self {
        Self {
            ways: ways(model, workers),
            parts: places(model, parts, blueprints),
        }
    }
}

/// Names by what is told of them, in the order in which these are first met.
fn grouped<K: PartialEq>(told: impl IntoIterator<Item = (K, String)>) -> Vec<(K, Vec<String>)> {
    let mut groups: Vec<(K, Vec<String>)> = Vec::new();
    for (key, name) in told {
        match groups.iter_mut().find(|(known, _)| *known == key) {
            Some((_, names)) => names.push(name),
            None => groups.push((key, vec![name])),
        }
    }
    groups
}

/// A few names, and how many more there are.
fn few(names: &[String], most: usize) -> String {
    let few = names.len().min(most);
    match names.len() - few {
        0 => names.join(", "),
        more => format!("{} and {more} more", names[..few].join(", ")),
    }
}

fn ways(model: &Model, workers: &[WorkerPlan]) -> Vec<String> {
    let ports = workers.iter().flat_map(|worker| &worker.ports);
    let mut ports: Vec<_> = ports.collect();
    // In the order of the file; patches, of which it does not know, come last.
    ports.sort_by_key(|port| match port.source {
        Source::Port(index) => (0, index, 0),
        Source::Patch(patch, end) => (1, patch, end),
    });
    ports.dedup_by_key(|port| port.source);
    let told = ports.into_iter().filter(|port| port.way != Way::Direct);
    let told = told.map(|port| (port.way, port.name.clone()));
    let line = |(way, names): &(Way, Vec<String>)| {
        format!("from {}: {}", few(names, NAMES), way.explain(model))
    };
    grouped(told).iter().map(line).collect()
}

fn places(model: &Model, parts: &[Part], blueprints: &[Arc<dyn Blueprint>]) -> Vec<String> {
    if model.workers.len() < 2 {
        return Vec::new();
    }
    let mut told = Vec::new();
    let port = |index: &usize| model.ports[*index].name.clone();
    for part in parts {
        let (words, most) = match &part.place {
            Place::One(worker, why) => (format!("on worker {worker}, {}", one(*why)), NAMES),
            Place::Crew(members, why) => {
                let members: Vec<_> = members.iter().map(usize::to_string).collect();
                let (all, last) = members.split_at(members.len() - 1);
                let why = crew(model, *why);
                let who = owners(part, blueprints);
                let words = format!(
                    "on workers {} and {}, {why}; {who}",
                    all.join(", "),
                    last[0]
                );
                (words, NAMES)
            }
            Place::Named(ports, functions) => {
                let ports = part.ports.iter().map(port).zip(ports);
                let names = part.functions.iter();
                let names = names.map(|at| model.functions[*at].name.clone());
                for (name, worker) in ports.chain(names.zip(functions)) {
                    told.push(((MANY, format!("on worker {worker}, as `runs` says")), name));
                }
                continue;
            }
        };
        told.extend(
            part.ports
                .iter()
                .map(|at| ((most, words.clone()), port(at))),
        );
    }
    let line = |((most, words), names): &((usize, String), Vec<String>)| {
        format!("{}: {words}", few(names, *most))
    };
    grouped(told).iter().map(line).collect()
}

fn one(why: WhyOne) -> &'static str {
    match why {
        WhyOne::Only => "the only one",
        WhyOne::Never => "as `flows.spread` is `never`",
        WhyOne::SingleQueues => "as each has a single queue",
        WhyOne::Others => "as all others have something else to do",
    }
}

fn crew(model: &Model, why: WhyCrew) -> String {
    match why {
        WhyCrew::Queues(port) => {
            let port = &model.ports[port];
            let queues = match &port.config {
                Port::VhostUser(config) => config.queues,
                _ => 1,
            };
            format!("as `{}` has {queues} queue pairs", port.name)
        }
        WhyCrew::Always => "as `flows.spread` is `always`".to_owned(),
    }
}

/// Who handles a packet that one of them received.
fn owners(part: &Part, blueprints: &[Arc<dyn Blueprint>]) -> &'static str {
    let keeps =
        |at: &usize| blueprints[*at].wants_records() || !blueprints[*at].claims().is_empty();
    if part.functions.iter().any(keeps) {
        "each flow belongs to one of them"
    } else {
        "whoever gets a packet handles it"
    }
}
