//! From a checked model to what each worker runs: links between ports and functions, who stands beside whom, and
//! which worker takes what.
//!
//! Ports and functions that chains connect run on one worker, which so owns every session between them. Parts of
//! the configuration that are not connected are spread over the workers.

mod way;

use chainplane_dataplane::engine::Hop;
use chainplane_dataplane::function::{Blueprint, INSIDE, Interface, OUTSIDE};
use chainplane_dataplane::packet::Mac;
use chainplane_nf::config::{ConfigError, Shape, Site};

use crate::spec::Model;
use crate::spec::model::{Endpoint, Path};

pub use way::{Way, explain};

/// What all workers run.
pub struct Plan {
    /// One for each worker of the model; a worker may have nothing to do.
    pub workers: Vec<WorkerPlan>,
}

/// What one worker runs.
#[derive(Default)]
pub struct WorkerPlan {
    /// Its ports.
    pub ports: Vec<PlannedPort>,
    /// Its functions.
    pub functions: Vec<PlannedFunction>,
}

/// A port of a worker.
pub struct PlannedPort {
    /// Index into [`Model::ports`].
    pub index: usize,
    /// Where its packets go, in the worker's own numbers.
    pub link: Hop,
    /// Which way they go.
    pub way: Way,
}

/// A function of a worker.
pub struct PlannedFunction {
    /// Index into [`Model::functions`].
    pub index: usize,
    /// What builds it.
    pub blueprint: Box<dyn Blueprint>,
    /// Its interfaces and where each leads, in the worker's own numbers.
    pub interfaces: Vec<(String, Hop)>,
}

/// A configuration error of a function, found when it is compiled for where it stands.
#[derive(Debug)]
pub struct PlanError {
    /// Index into [`Model::functions`].
    pub function: usize,
    /// The error, its path relative to the function's body.
    pub error: ConfigError,
}

/// A side of a port or function that a chain connects.
#[derive(Clone, Copy)]
enum Side {
    Port(usize),
    Function(usize, Interface),
}

impl Plan {
    /// Plans a model.
    ///
    /// # Errors
    /// What functions have to say about where they stand.
    pub fn new(model: &Model) -> Result<Self, Vec<PlanError>> {
        let blueprints = compile(model)?;
        let links = Links::of(model);
        let homes = assign(model, &links);
        let locals = Locals::of(model, &homes);
        let mut workers: Vec<_> = model
            .workers
            .iter()
            .map(|_| WorkerPlan::default())
            .collect();
        for (index, side) in links.ports.iter().enumerate() {
            let Some(side) = *side else {
                continue;
            };
            workers[homes.ports[index]].ports.push(PlannedPort {
                index,
                link: locals.hop(side),
                way: Way::from(side, model, &links, &blueprints),
            });
        }
        for (index, (blueprint, sides)) in blueprints.into_iter().zip(&links.functions).enumerate()
        {
            let names = interface_names(model, index);
            // The model has every interface connected, so that none is left out here.
            let hops = sides.iter().flatten().map(|side| locals.hop(*side));
            let interfaces = names.into_iter().zip(hops).collect();
            let planned = PlannedFunction {
                index,
                blueprint,
                interfaces,
            };
            workers[homes.functions[index]].functions.push(planned);
        }
        Ok(Self { workers })
    }

    /// Which way each port's packets go, by the model's numbers; `None` for a port in no chain.
    pub fn ways(&self, model: &Model) -> Vec<Option<Way>> {
        let mut ways = vec![None; model.ports.len()];
        for port in self.workers.iter().flat_map(|worker| &worker.ports) {
            ways[port.index] = Some(port.way);
        }
        ways
    }
}

fn compile(model: &Model) -> Result<Vec<Box<dyn Blueprint>>, Vec<PlanError>> {
    let (mut blueprints, mut errors) = (Vec::new(), Vec::new());
    for (function, named) in model.functions.iter().enumerate() {
        match named.config.compile(&site(model, function)) {
            Ok(blueprint) => blueprints.push(blueprint),
            Err(found) => {
                errors.extend(found.into_iter().map(|error| PlanError { function, error }));
            }
        }
    }
    if errors.is_empty() {
        Ok(blueprints)
    } else {
        Err(errors)
    }
}

fn site(model: &Model, function: usize) -> Site {
    let path = model
        .paths
        .iter()
        .find(|path| path.stages.contains(&function));
    let mac = |endpoint: Option<Endpoint>| endpoint.and_then(|endpoint| mac(model, endpoint));
    Site {
        name: model.functions[function].name.clone(),
        inside_mac: mac(path.map(|path| path.left)),
        outside_mac: mac(path.map(|path| path.right)),
    }
}

fn mac(model: &Model, endpoint: Endpoint) -> Option<Mac> {
    let Endpoint::Junction {
        function,
        interface,
    } = endpoint
    else {
        return None;
    };
    let named = &model.functions[function];
    match named.config.shape(&named.name) {
        Shape::Inline => None,
        Shape::Junction { interfaces, .. } => interfaces.get(interface)?.mac,
    }
}

fn interface_names(model: &Model, function: usize) -> Vec<String> {
    let named = &model.functions[function];
    if named.interfaces.is_empty() {
        vec!["inside".to_owned(), "outside".to_owned()]
    } else {
        named.interfaces.clone()
    }
}

/// Where everything leads, in the model's numbers.
struct Links {
    ports: Vec<Option<Side>>,
    functions: Vec<Vec<Option<Side>>>,
}

impl Links {
    fn of(model: &Model) -> Self {
        let interfaces =
            (0..model.functions.len()).map(|f| vec![None; interface_names(model, f).len()]);
        let mut links = Self {
            ports: vec![None; model.ports.len()],
            functions: interfaces.collect(),
        };
        for path in &model.paths {
            links.add(path);
        }
        links
    }

    fn add(&mut self, path: &Path) {
        let mut left = side(path.left);
        for &stage in &path.stages {
            self.connect(left, Side::Function(stage, INSIDE));
            left = Side::Function(stage, OUTSIDE);
        }
        self.connect(left, side(path.right));
    }

    fn connect(&mut self, a: Side, b: Side) {
        for (from, to) in [(a, b), (b, a)] {
            match from {
                Side::Port(port) => self.ports[port] = Some(to),
                Side::Function(function, by) => self.functions[function][by.0 as usize] = Some(to),
            }
        }
    }
}

fn side(endpoint: Endpoint) -> Side {
    match endpoint {
        Endpoint::Port(port) => Side::Port(port),
        Endpoint::Junction {
            function,
            interface,
        } => Side::Function(function, Interface(interface as u16)),
    }
}

/// Which worker runs what.
struct Homes {
    ports: Vec<usize>,
    functions: Vec<usize>,
}

/// Finds what is connected, and gives each connected part, the largest first, to the worker with the fewest ports.
fn assign(model: &Model, links: &Links) -> Homes {
    let ports = model.ports.len();
    let node = |side: &Side| match *side {
        Side::Port(port) => port,
        Side::Function(function, _) => ports + function,
    };
    let mut part: Vec<usize> = (0..ports + model.functions.len()).collect();
    let of_port = links
        .ports
        .iter()
        .enumerate()
        .filter_map(|(port, side)| Some((port, side.as_ref()?)));
    let of_function = links
        .functions
        .iter()
        .enumerate()
        .flat_map(|(function, sides)| {
            sides
                .iter()
                .flatten()
                .map(move |side| (ports + function, side))
        });
    for (a, side) in of_port.chain(of_function) {
        let (a, b) = (root(&mut part, a), root(&mut part, node(side)));
        part[a] = b;
    }
    let roots: Vec<_> = (0..part.len())
        .map(|index| root(&mut part, index))
        .collect();
    let mut sizes: Vec<(usize, usize)> = roots
        .iter()
        .enumerate()
        .filter(|(index, root)| index == *root)
        .map(|(index, _)| {
            (
                roots[..ports].iter().filter(|root| **root == index).count(),
                index,
            )
        })
        .collect();
    sizes.sort_by_key(|&(size, index)| (std::cmp::Reverse(size), index));
    let mut load = vec![0; model.workers.len()];
    let mut home = vec![0; part.len()];
    for (size, root) in sizes {
        let least = (0..load.len())
            .min_by_key(|&worker| load[worker])
            .unwrap_or(0);
        load[least] += size;
        home[root] = least;
    }
    let of = |index: usize| home[roots[index]];
    Homes {
        ports: (0..ports).map(of).collect(),
        functions: (ports..part.len()).map(of).collect(),
    }
}

fn root(part: &mut [usize], mut index: usize) -> usize {
    while part[index] != index {
        part[index] = part[part[index]];
        index = part[index];
    }
    index
}

/// The numbers that ports and functions have within their worker.
struct Locals {
    ports: Vec<u16>,
    functions: Vec<u16>,
}

impl Locals {
    fn of(model: &Model, homes: &Homes) -> Self {
        let number = |homes: &[usize]| {
            let mut next = vec![0; model.workers.len()];
            homes
                .iter()
                .map(|&worker| {
                    next[worker] += 1;
                    next[worker] - 1
                })
                .collect()
        };
        Self {
            ports: number(&homes.ports),
            functions: number(&homes.functions),
        }
    }

    fn hop(&self, side: Side) -> Hop {
        match side {
            Side::Port(port) => Hop::Port(self.ports[port]),
            Side::Function(function, by) => Hop::Function(self.functions[function], by),
        }
    }
}
