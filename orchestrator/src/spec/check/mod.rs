//! The checks that no type makes: names, chains, addresses, sockets, cores.

mod addresses;
mod chains;
mod guests;
mod loops;
mod names;
mod ports;
mod runs;
mod settings;

use std::collections::HashMap;
use std::path::{Path as FilePath, PathBuf};

use chainplane_nf::config::Claim;

use super::file::{GuestSide, Port};
use super::function::{Function, Junction};
use super::model::{Model, NamedFunction, NamedPort};
use super::read::Spec;
use crate::diagnostic::{Diagnostic, ENOUGH, Place, Step, YamlPath};

/// What the checks need to know of the machine and the file's place.
#[derive(Debug, Clone)]
pub struct Environment {
    /// Cores that a worker can be pinned to.
    pub cores: Vec<u32>,
    /// Where control sockets go that the file does not place.
    pub socket_directory: PathBuf,
}

impl Environment {
    /// This machine, this user.
    pub fn here() -> Self {
        Self {
            cores: settings::online_cores(),
            socket_directory: settings::socket_directory(),
        }
    }
}

/// Collects errors while the specification is walked.
struct Checker<'s> {
    spec: &'s Spec,
    environment: &'s Environment,
    /// Directory of the YAML file.
    directory: &'s FilePath,
    /// What each function of the specification says of itself.
    facts: &'s [Facts],
    errors: Vec<Diagnostic>,
}

/// What the checks ask of a function again and again.
#[derive(Default)]
struct Facts {
    junction: Option<Junction>,
    claims: Vec<(Claim, YamlPath)>,
}

impl Facts {
    fn of(name: &str, function: Option<&Function>) -> Self {
        Self {
            junction: function.and_then(Function::junction),
            claims: function.map(|f| f.claims(name)).unwrap_or_default(),
        }
    }

    /// Names of a junction's interfaces.
    fn interfaces(&self) -> &[String] {
        self.junction.as_ref().map_or(&[], |j| &j.interfaces)
    }
}

impl Checker<'_> {
    fn report(&mut self, diagnostic: Diagnostic) {
        if self.errors.len() < ENOUGH {
            self.errors.push(diagnostic);
        }
    }

    /// Reports `message` at the value that `path` leads to.
    fn value(&mut self, path: YamlPath, message: impl Into<String>) {
        self.report(Diagnostic::at_value(path, message));
    }

    /// Reports a number outside its range.
    fn range<T: PartialOrd + Copy + std::fmt::Display>(
        &mut self,
        path: YamlPath,
        value: T,
        range: std::ops::RangeInclusive<T>,
    ) {
        if !range.contains(&value) {
            let (low, high) = (range.start(), range.end());
            self.value(path, format!("`{value}` is not from {low} to {high}"));
        }
    }
}

/// Things of which each stands once in the file: sockets, interfaces, addresses.
struct Once<K> {
    what: &'static str,
    seen: HashMap<K, YamlPath>,
}

impl<K: std::hash::Hash + Eq> Once<K> {
    fn new(what: &'static str) -> Self {
        Self {
            what,
            seen: HashMap::new(),
        }
    }

    fn add(&mut self, checker: &mut Checker<'_>, key: K, shown: &str, path: YamlPath) {
        if let Some(first) = self.seen.get(&key) {
            checker.report(
                Diagnostic::at_value(path, format!("{} `{shown}` is used twice", self.what))
                    .related(Place::Value(first.clone()), "the first"),
            );
        } else {
            self.seen.insert(key, path);
        }
    }
}

/// Adds `step` to a copy of `path`.
fn join(path: &YamlPath, step: impl Into<Step>) -> YamlPath {
    let mut path = path.clone();
    path.push(step.into());
    path
}

/// Checks `spec`, read from `file`. The model where there is no error.
pub fn check(
    spec: &Spec,
    file: &FilePath,
    environment: &Environment,
) -> (Option<Model>, Vec<Diagnostic>) {
    let functions = spec.functions.iter();
    let facts: Vec<_> = functions
        .map(|(name, function)| Facts::of(name, function.as_ref()))
        .collect();
    let mut checker = Checker {
        spec,
        facts: &facts,
        environment,
        directory: file.parent().unwrap_or(FilePath::new("")),
        errors: Vec::new(),
    };
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    names::check(&mut checker);
    let workers = settings::workers(&mut checker);
    let control = settings::control(&mut checker, &stem);
    let named = runs::check(&mut checker);
    let (flow_table, buffers) = settings::sizes(&mut checker);
    ports::check(&mut checker, &control.path);
    for (name, function) in &spec.functions {
        if let Some(function) = function {
            for error in function.check(name) {
                checker.report(error);
            }
        }
    }
    let chains = chains::resolve(&mut checker);
    loops::check(&mut checker, &chains);
    addresses::check(&mut checker, &chains);
    if !checker.errors.is_empty() {
        return (None, checker.errors);
    }
    let (ports, functions, network, sides) = numbered(&checker);
    let paths = chains::cut(&checker, &chains, &network, &sides);
    let model = Model {
        name: stem.into_owned(),
        workers,
        runs: runs::numbered(&named, (ports.len(), functions.len()), &network, &sides),
        spread: spec.flows.spread,
        control,
        flow_table,
        buffers,
        huge_pages: spec.packets.huge_pages,
        ports,
        functions,
        paths,
    };
    (Some(model), Vec::new())
}

type Numbered = (
    Vec<NamedPort>,
    Vec<NamedFunction>,
    HashMap<usize, usize>,
    HashMap<usize, (usize, usize)>,
);

/// The model's ports and functions, and where the specification's functions have gone.
fn numbered(checker: &Checker<'_>) -> Numbered {
    let mut ports = Vec::new();
    for (name, port) in &checker.spec.ports {
        let Some(mut config) = port.clone() else {
            continue;
        };
        if let Port::Pcap(pcap) = &mut config {
            pcap.replay = pcap.replay.take().map(|file| checker.directory.join(file));
        }
        ports.push(NamedPort {
            name: name.clone(),
            config,
        });
    }
    let (mut functions, mut network, mut sides) = (Vec::new(), HashMap::new(), HashMap::new());
    for (index, (name, function)) in checker.spec.functions.iter().enumerate() {
        match function {
            Some(Function::Network(config)) => {
                network.insert(index, functions.len());
                functions.push(NamedFunction {
                    name: name.clone(),
                    config: config.clone(),
                    interfaces: checker.facts[index].interfaces().to_vec(),
                });
            }
            Some(Function::Guest(guest)) => {
                sides.insert(index, (ports.len(), ports.len() + 1));
                for (side, which) in [(&guest.inside, "inside"), (&guest.outside, "outside")] {
                    let GuestSide::VhostUser(config) = side;
                    ports.push(NamedPort {
                        name: format!("{name}.{which}"),
                        config: Port::VhostUser(config.clone()),
                    });
                }
            }
            None => {}
        }
    }
    (ports, functions, network, sides)
}
