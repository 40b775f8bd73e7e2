//! Where everything leads.

use std::collections::VecDeque;

use chainplane_dataplane::function::{INSIDE, Interface, OUTSIDE};

use crate::spec::Model;
use crate::spec::model::{Endpoint, Path};

/// A side of a port or function that a chain connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Port(usize),
    Function(usize, Interface),
}

impl Side {
    /// What it is a side of.
    pub fn element(self) -> Element {
        match self {
            Self::Port(port) => Element::Port(port),
            Self::Function(function, _) => Element::Function(function),
        }
    }

    /// As a chain has it.
    pub fn name(self, model: &Model) -> String {
        match self {
            Self::Port(port) => model.ports[port].name.clone(),
            Self::Function(function, by) => {
                let function = &model.functions[function];
                match function.interfaces.get(by.0 as usize) {
                    Some(interface) => format!("{}.{interface}", function.name),
                    None => function.name.clone(),
                }
            }
        }
    }
}

/// A port or a function, in the model's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Element {
    Port(usize),
    Function(usize),
}

impl From<Endpoint> for Side {
    fn from(endpoint: Endpoint) -> Self {
        match endpoint {
            Endpoint::Port(port) => Self::Port(port),
            Endpoint::Junction {
                function,
                interface,
            } => Self::Function(function, Interface(interface as u16)),
        }
    }
}

/// What a path is made of, from left to right.
pub(super) fn elements(path: &Path) -> Vec<Element> {
    let ends = [path.left, path.right].map(|end| Side::from(end).element());
    let stages = path.stages.iter().map(|stage| Element::Function(*stage));
    let [left, right] = ends;
    [left].into_iter().chain(stages).chain([right]).collect()
}

/// Where everything leads, in the model's numbers.
pub(super) struct Links {
    /// By port; `None` for one in no chain.
    pub ports: Vec<Option<Side>>,
    /// By function and interface.
    pub functions: Vec<Vec<Option<Side>>>,
}

impl Links {
    pub fn of(model: &Model) -> Self {
        let interfaces = (0..model.functions.len())
            .map(|function| vec![None; interface_names(model, function).len()]);
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
        let mut left = path.left.into();
        for &stage in &path.stages {
            self.connect(left, Side::Function(stage, INSIDE));
            left = Side::Function(stage, OUTSIDE);
        }
        self.connect(left, path.right.into());
    }

    fn connect(&mut self, a: Side, b: Side) {
        for (from, to) in [(a, b), (b, a)] {
            match from {
                Side::Port(port) => self.ports[port] = Some(to),
                Side::Function(function, by) => self.functions[function][by.0 as usize] = Some(to),
            }
        }
    }

    /// Where a side of a port or function leads.
    pub fn far(&self, side: Side) -> Option<Side> {
        match side {
            Side::Port(port) => self.ports[port],
            Side::Function(function, by) => *self.functions[function].get(by.0 as usize)?,
        }
    }

    /// All sides of ports and functions that chains connect, with where each leads.
    pub fn all(&self) -> impl Iterator<Item = (Side, Side)> {
        let ports = self.ports.iter().enumerate();
        let ports = ports.filter_map(|(port, far)| Some((Side::Port(port), (*far)?)));
        let functions = self.functions.iter().enumerate().flat_map(|(index, fars)| {
            fars.iter().enumerate().filter_map(move |(by, far)| {
                Some((Side::Function(index, Interface(by as u16)), (*far)?))
            })
        });
        ports.chain(functions)
    }

    /// Functions that packets to `first` can reach, nearest first, through those alone that are `here`.
    pub fn reach(&self, first: usize, here: impl Fn(usize) -> bool) -> Vec<usize> {
        let mut seen = vec![false; self.functions.len()];
        let (mut reached, mut next) = (Vec::new(), VecDeque::from([first]));
        while let Some(function) = next.pop_front() {
            if !here(function) || std::mem::replace(&mut seen[function], true) {
                continue;
            }
            reached.push(function);
            next.extend(
                self.functions[function]
                    .iter()
                    .flatten()
                    .filter_map(|side| match side.element() {
                        Element::Function(function) => Some(function),
                        Element::Port(_) => None,
                    }),
            );
        }
        reached
    }
}

/// Names of a function's interfaces, as operators see them.
pub(super) fn interface_names(model: &Model, function: usize) -> Vec<String> {
    let named = &model.functions[function];
    if named.interfaces.is_empty() {
        vec!["inside".to_owned(), "outside".to_owned()]
    } else {
        named.interfaces.clone()
    }
}
