//! From a checked model to what each worker runs: links between ports and functions, who stands beside whom, and
//! which worker takes what.
//!
//! What chains connect is a [`Part`]. It runs on one worker, which so owns every session in it; or on a *crew* of
//! workers, each of which has all of it under the same numbers; or in pieces, as the file says, with a [`Patch`] for
//! each link between two of them.

mod links;
mod parts;
mod told;
mod way;

use std::sync::Arc;

use chainplane_dataplane::crew::Owners;
use chainplane_dataplane::engine::Hop;
use chainplane_dataplane::function::Blueprint;
use chainplane_dataplane::packet::Mac;
use chainplane_nf::config::{ConfigError, Shape, Site};

use crate::spec::Model;
use crate::spec::model::Endpoint;
use links::{Links, Side, interface_names};

pub use parts::{Part, Place, WhyCrew, WhyOne};
pub use told::Told;
pub use way::Way;

/// What all workers run.
pub struct Plan {
    /// One for each worker of the model; a worker may have nothing to do.
    pub workers: Vec<WorkerPlan>,
    /// Workers that run the same together.
    pub crews: Vec<Crew>,
    /// Links between two workers.
    pub patches: Vec<Patch>,
    /// What is connected, and who runs it.
    pub parts: Vec<Part>,
    /// What there is to tell of it.
    pub told: Told,
}

/// What one worker runs.
#[derive(Clone, Default)]
pub struct WorkerPlan {
    /// Its ports. Members of a crew have the same under the same numbers.
    pub ports: Vec<PlannedPort>,
    /// Its functions. Members of a crew have the same under the same numbers.
    pub functions: Vec<PlannedFunction>,
}

/// Workers that run a part together.
pub struct Crew {
    /// Indices into [`Model::workers`].
    pub members: Vec<usize>,
    /// Who handles which packet.
    pub owners: Owners,
    /// Index into [`Plan::parts`].
    pub part: usize,
}

/// A link between two workers: a port at each, of which the one receives what the other sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch {
    /// The workers, by index into [`Model::workers`].
    pub workers: [usize; 2],
    /// What the port at each of them is called: what it links here and there.
    pub names: [String; 2],
}

/// Between the names of what a patch links; no other name has it.
const LINKS: char = '~';

/// Whether a port of this name links two workers, and is no end of a chain.
pub fn is_patch(name: &str) -> bool {
    name.contains(LINKS)
}

/// What a worker's port is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// One of the file's; an index into [`Model::ports`].
    Port(usize),
    /// An end, 0 or 1, of a [`Patch`]; an index into [`Plan::patches`].
    Patch(usize, usize),
}

/// A port of a worker.
#[derive(Clone, Debug)]
pub struct PlannedPort {
    /// What it is.
    pub source: Source,
    /// Its name.
    pub name: String,
    /// Where its packets go, in the worker's own numbers.
    pub link: Hop,
    /// Which way they go.
    pub way: Way,
}

/// A function of a worker.
#[derive(Clone)]
pub struct PlannedFunction {
    /// Index into [`Model::functions`].
    pub index: usize,
    /// What builds it.
    pub blueprint: Arc<dyn Blueprint>,
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

impl Plan {
    /// Plans a model.
    ///
    /// # Errors
    /// What functions have to say about where they stand.
    pub fn new(model: &Model) -> Result<Self, Vec<PlanError>> {
        let blueprints = compile(model)?;
        let links = Links::of(model);
        let parts = parts::place(model, &links);
        let mut planner = Planner {
            model,
            links: &links,
            blueprints: &blueprints,
            patches: Vec::new(),
            ends: Vec::new(),
        };
        let lists: Vec<_> = (0..model.workers.len())
            .map(|worker| Numbers::of(worker, &parts))
            .collect();
        planner.patch(&lists);
        let workers: Vec<_> = lists
            .iter()
            .map(|numbers| planner.worker(numbers))
            .collect();
        let patches = planner.patches;
        let crews = crews(&parts, &blueprints);
        Ok(Self {
            told: Told::of(model, &parts, &workers, &blueprints),
            workers,
            crews,
            patches,
            parts,
        })
    }
}

fn compile(model: &Model) -> Result<Vec<Arc<dyn Blueprint>>, Vec<PlanError>> {
    let (mut blueprints, mut errors) = (Vec::new(), Vec::new());
    for (function, named) in model.functions.iter().enumerate() {
        match named.config.compile(&site(model, function)) {
            Ok(blueprint) => blueprints.push(blueprint.into()),
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

/// The crews, each with the owners that its functions need.
fn crews(parts: &[Part], blueprints: &[Arc<dyn Blueprint>]) -> Vec<Crew> {
    let crew = |(part, of): (usize, &Part)| {
        let Place::Crew(members, _) = &of.place else {
            return None;
        };
        let functions = of.functions.iter().map(|at| blueprints[*at].as_ref());
        let owners = Owners::of(members.len() as u16, functions);
        Some(Crew {
            members: members.clone(),
            owners,
            part,
        })
    };
    parts.iter().enumerate().filter_map(crew).collect()
}

/// What a worker runs, by the model's numbers; its own are the places in these lists. Patches come behind its ports.
struct Numbers {
    worker: usize,
    ports: Vec<usize>,
    functions: Vec<usize>,
}

impl Numbers {
    fn of(worker: usize, parts: &[Part]) -> Self {
        let mut numbers = Self {
            worker,
            ports: Vec::new(),
            functions: Vec::new(),
        };
        for part in parts {
            let (ports, functions) = part.at(worker);
            numbers.ports.extend(ports);
            numbers.functions.extend(functions);
        }
        numbers.ports.sort_unstable();
        numbers.functions.sort_unstable();
        numbers
    }

    /// A side in the worker's own numbers, if it is here.
    fn hop(&self, side: Side) -> Option<Hop> {
        Some(match side {
            Side::Port(port) => Hop::Port(self.ports.binary_search(&port).ok()? as u16),
            Side::Function(function, by) => {
                Hop::Function(self.functions.binary_search(&function).ok()? as u16, by)
            }
        })
    }
}

/// An end of a patch.
struct End {
    worker: usize,
    /// What it is linked with at this worker.
    near: Side,
    /// Index into [`Plan::patches`], and which end of that.
    patch: (usize, usize),
}

struct Planner<'a> {
    model: &'a Model,
    links: &'a Links,
    blueprints: &'a [Arc<dyn Blueprint>],
    patches: Vec<Patch>,
    ends: Vec<End>,
}

impl Planner<'_> {
    /// Makes a patch of every link between two workers.
    fn patch(&mut self, workers: &[Numbers]) {
        let home = |side| workers.iter().find(|numbers| numbers.hop(side).is_some());
        for (near, far) in self.links.all() {
            let (Some(a), Some(b)) = (home(near), home(far)) else {
                continue;
            };
            // A link is listed from both its sides.
            let is_known = self.ends.iter().any(|end| end.near == near);
            if a.worker == b.worker || is_known {
                continue;
            }
            let names = [near, far].map(|side| side.name(self.model));
            let patch = self.patches.len();
            for (end, (worker, near)) in [(a.worker, near), (b.worker, far)].into_iter().enumerate()
            {
                self.ends.push(End {
                    worker,
                    near,
                    patch: (patch, end),
                });
            }
            let [this, that] = &names;
            self.patches.push(Patch {
                workers: [a.worker, b.worker],
                names: [
                    format!("{this}{LINKS}{that}"),
                    format!("{that}{LINKS}{this}"),
                ],
            });
        }
    }

    fn worker(&self, numbers: &Numbers) -> WorkerPlan {
        let ends: Vec<_> = self
            .ends
            .iter()
            .filter(|end| end.worker == numbers.worker)
            .collect();
        let leads = |near: Side| {
            let far = numbers.hop(self.links.far(near)?);
            far.or_else(|| {
                let end = ends.iter().position(|end| end.near == near)?;
                Some(Hop::Port((numbers.ports.len() + end) as u16))
            })
        };
        let way = |first: Side| {
            let here = |function| numbers.functions.binary_search(&function).is_ok();
            Way::from(first, self.model, self.links, self.blueprints, here)
        };
        let ports = numbers.ports.iter().filter_map(|&port| {
            Some(PlannedPort {
                source: Source::Port(port),
                name: self.model.ports[port].name.clone(),
                link: leads(Side::Port(port))?,
                way: way(self.links.ports[port]?),
            })
        });
        let patches = ends.iter().filter_map(|end| {
            let (patch, side) = end.patch;
            Some(PlannedPort {
                source: Source::Patch(patch, side),
                name: self.patches[patch].names[side].clone(),
                link: numbers.hop(end.near)?,
                way: way(end.near),
            })
        });
        let functions = numbers.functions.iter().map(|&index| {
            let names = interface_names(self.model, index).into_iter().enumerate();
            // The model has every interface connected, so that none is left out here.
            let interfaces = names.filter_map(|(by, name)| {
                let near =
                    Side::Function(index, chainplane_dataplane::function::Interface(by as u16));
                Some((name, leads(near)?))
            });
            PlannedFunction {
                index,
                blueprint: Arc::clone(&self.blueprints[index]),
                interfaces: interfaces.collect(),
            }
        });
        WorkerPlan {
            ports: ports.chain(patches).collect(),
            functions: functions.collect(),
        }
    }
}
