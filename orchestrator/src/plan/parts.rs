//! What chains connect with each other, and which workers run it.
//!
//! A *part* runs on one worker, on a *crew* of workers that run all of it together, or cut to pieces where the file
//! says which worker runs what. A crew is made of workers that would have nothing else to do.

use std::cmp::Reverse;

use super::links::{Element, Links, elements};
use crate::spec::Model;
use crate::spec::file::{Port, Spread};

/// Ports and functions that chains connect with each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its ports, by the model's numbers, in order.
    pub ports: Vec<usize>,
    /// Its functions, by the model's numbers, in order.
    pub functions: Vec<usize>,
    /// Who runs it.
    pub place: Place,
}

/// Who runs a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A worker, all of it.
    One(usize, WhyOne),
    /// Several workers, each all of it.
    Crew(Vec<usize>, WhyCrew),
    /// As `runs` says: a worker for each port and for each function, in order.
    Named(Vec<usize>, Vec<usize>),
}

/// Why one worker runs a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhyOne {
    /// There is no other.
    Only,
    /// The file says so.
    Never,
    /// Each of its ports has a single queue.
    SingleQueues,
    /// All others have something else to do.
    Others,
}

/// Why several workers run a part together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhyCrew {
    /// This port has two queue pairs or more.
    Queues(usize),
    /// The file says so.
    Always,
}

impl Part {
    /// The ports and functions that a worker runs of this part.
    pub(super) fn at(&self, worker: usize) -> (Vec<usize>, Vec<usize>) {
        let all = || (self.ports.clone(), self.functions.clone());
        match &self.place {
            Place::One(one, _) if *one == worker => all(),
            Place::Crew(members, _) if members.contains(&worker) => all(),
            Place::One(..) | Place::Crew(..) => (Vec::new(), Vec::new()),
            Place::Named(ports, functions) => {
                let here = |all: &[usize], homes: &[usize]| {
                    let homes = all.iter().zip(homes);
                    let here = homes.filter(|(_, home)| **home == worker);
                    here.map(|(index, _)| *index).collect()
                };
                (here(&self.ports, ports), here(&self.functions, functions))
            }
        }
    }

    /// The member of a crew that has a queue pair of a port: ports begin with different members, so that those of one
    /// pair are spread, too.
    pub fn member_of_pair(&self, port: usize, pair: usize, members: usize) -> usize {
        let number = self.ports.iter().position(|known| *known == port);
        (pair + number.unwrap_or(0)) % members.max(1)
    }
}

/// Queue pairs of a port.
fn pairs(model: &Model, port: usize) -> usize {
    match &model.ports[port].config {
        Port::VhostUser(config) => config.queues.into(),
        _ => 1,
    }
}

/// All parts, the largest first, and who runs each.
pub(super) fn place(model: &Model, links: &Links) -> Vec<Part> {
    let mut parts = connected(model, links);
    let named = |element: &Element| match *element {
        Element::Port(port) => model.runs.ports[port],
        Element::Function(function) => model.runs.functions[function],
    };
    let mut busy = vec![false; model.workers.len()];
    let mut load = vec![0; model.workers.len()];
    let named_workers = model.runs.ports.iter().chain(&model.runs.functions);
    named_workers
        .flatten()
        .for_each(|worker| busy[*worker] = true);
    let mut free = Vec::new();
    for (at, part) in parts.iter_mut().enumerate() {
        if let Some(homes) = follow(model, part, named) {
            let Place::Named(ports, _) = &homes else {
                continue;
            };
            for worker in ports {
                load[*worker] += 1;
            }
            part.place = homes;
        } else {
            free.push(at);
        }
    }
    let mut workers: Vec<usize> = (0..busy.len()).filter(|worker| !busy[*worker]).collect();
    let spare = workers.len().saturating_sub(free.len());
    if workers.is_empty() {
        workers = (0..busy.len()).collect();
    }
    let sizes = sizes(model, &parts, &free, spare);
    for (at, size) in free.into_iter().zip(sizes) {
        let part = &mut parts[at];
        let mut least = workers.clone();
        least.sort_by_key(|worker| load[*worker]);
        least.truncate(size);
        least.sort_unstable();
        for worker in &least {
            load[*worker] += part.ports.len();
        }
        part.place = reason(model, part, least);
    }
    parts
}

/// How many workers run each of the parts `free`, where so many more are there than parts.
fn sizes(model: &Model, parts: &[Part], free: &[usize], spare: usize) -> Vec<usize> {
    let mut sizes = vec![1; free.len()];
    let weight = |part: &Part| -> usize { part.ports.iter().map(|port| pairs(model, *port)).sum() };
    let most = |part: &Part| match model.spread {
        Spread::Never => 1,
        Spread::Always => usize::MAX,
        Spread::Auto if widest(model, part).1 < 2 => 1,
        Spread::Auto => weight(part),
    };
    for _ in 0..spare {
        // Whoever has most queue pairs for a worker gets the next one; of those that have as many, the first.
        let hungry = (0..free.len())
            .filter(|at| sizes[*at] < most(&parts[free[*at]]))
            .max_by(|a, b| {
                let of = |at: usize| (weight(&parts[free[at]]), sizes[at]);
                let ((a_weight, a_size), (b_weight, b_size)) = (of(*a), of(*b));
                (a_weight * b_size).cmp(&(b_weight * a_size)).then(b.cmp(a))
            });
        let Some(hungry) = hungry else {
            break;
        };
        sizes[hungry] += 1;
    }
    sizes
}

/// The port of a part that has most queue pairs, and how many.
fn widest(model: &Model, part: &Part) -> (usize, usize) {
    let ports = part.ports.iter().map(|port| (*port, pairs(model, *port)));
    ports
        .max_by_key(|(port, pairs)| (*pairs, Reverse(*port)))
        .unwrap_or((0, 0))
}

fn reason(model: &Model, part: &Part, workers: Vec<usize>) -> Place {
    let (port, pairs) = widest(model, part);
    match (workers[..].first(), workers.len(), model.spread) {
        (Some(_), 2.., Spread::Always) => Place::Crew(workers, WhyCrew::Always),
        (Some(_), 2.., _) => Place::Crew(workers, WhyCrew::Queues(port)),
        (only, _, spread) => {
            let why = match spread {
                _ if model.workers.len() == 1 => WhyOne::Only,
                Spread::Never => WhyOne::Never,
                Spread::Auto if pairs < 2 => WhyOne::SingleQueues,
                Spread::Auto | Spread::Always => WhyOne::Others,
            };
            Place::One(only.copied().unwrap_or(0), why)
        }
    }
}

/// Finds what is connected, the part with most ports first.
fn connected(model: &Model, links: &Links) -> Vec<Part> {
    let ports = model.ports.len();
    let node = |element: Element| match element {
        Element::Port(port) => port,
        Element::Function(function) => ports + function,
    };
    let mut parent: Vec<usize> = (0..ports + model.functions.len()).collect();
    for (near, far) in links.all() {
        let (a, b) = (
            root(&mut parent, node(near.element())),
            root(&mut parent, node(far.element())),
        );
        parent[a] = b;
    }
    let mut parts: Vec<(usize, Part)> = Vec::new();
    let mut part_of = vec![None; parent.len()];
    for index in 0..parent.len() {
        if index < ports && links.ports[index].is_none() {
            continue;
        }
        let root = root(&mut parent, index);
        let at = *part_of[root].get_or_insert_with(|| {
            let place = Place::One(0, WhyOne::Only);
            let part = Part {
                ports: Vec::new(),
                functions: Vec::new(),
                place,
            };
            parts.push((root, part));
            parts.len() - 1
        });
        let part = &mut parts[at].1;
        match index.checked_sub(ports) {
            None => part.ports.push(index),
            Some(function) => part.functions.push(function),
        }
    }
    parts.sort_by_key(|(root, part)| (Reverse(part.ports.len()), *root));
    parts.into_iter().map(|(_, part)| part).collect()
}

fn root(parent: &mut [usize], mut index: usize) -> usize {
    while parent[index] != index {
        parent[index] = parent[parent[index]];
        index = parent[index];
    }
    index
}

/// Where a part runs of which `named` says where some of it does. The rest runs with its neighbour in the chain: the one
/// before it, if that has a worker, else the one behind it.
fn follow(model: &Model, part: &Part, named: impl Fn(&Element) -> Option<usize>) -> Option<Place> {
    let mut homes = Homes {
        ports: part
            .ports
            .iter()
            .map(|port| named(&Element::Port(*port)))
            .collect(),
        functions: part
            .functions
            .iter()
            .map(|function| named(&Element::Function(*function)))
            .collect(),
        part,
    };
    if homes
        .ports
        .iter()
        .chain(&homes.functions)
        .all(Option::is_none)
    {
        return None;
    }
    let paths = model.paths.iter().map(elements);
    let paths: Vec<_> = paths
        .filter(|path| homes.place(path[0]).is_some())
        .collect();
    let back = paths.iter().map(|path| path.iter().rev().copied());
    let back: Vec<Vec<_>> = back.map(Iterator::collect).collect();
    while homes.spread(&paths) || homes.spread(&back) {}
    let all = |homes: Vec<Option<usize>>| homes.into_iter().map(Option::unwrap_or_default);
    Some(Place::Named(
        all(homes.ports).collect(),
        all(homes.functions).collect(),
    ))
}

/// The workers of a part's ports and functions, as far as they are known.
struct Homes<'a> {
    part: &'a Part,
    ports: Vec<Option<usize>>,
    functions: Vec<Option<usize>>,
}

impl Homes<'_> {
    /// Where it stands what the worker of an element is, if that is of this part.
    fn place(&mut self, element: Element) -> Option<&mut Option<usize>> {
        let (list, homes, index) = match element {
            Element::Port(port) => (&self.part.ports, &mut self.ports, port),
            Element::Function(function) => (&self.part.functions, &mut self.functions, function),
        };
        let at = list.binary_search(&index).ok()?;
        homes.get_mut(at)
    }

    /// Gives everything without a worker that of the one before it in its path; whether any was given.
    fn spread(&mut self, paths: &[Vec<Element>]) -> bool {
        let mut changed = false;
        for path in paths {
            let mut before = None;
            for element in path {
                let Some(home) = self.place(*element) else {
                    continue;
                };
                if home.is_none() && before.is_some() {
                    *home = before;
                    changed = true;
                }
                before = *home;
            }
        }
        changed
    }
}
