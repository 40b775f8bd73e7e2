//! The tree of a file to its specification: section by section, so that an error in one hides none
//! in the others.

use serde::de::DeserializeOwned;

use super::file::{Control, Flows, Packets, Port, Word, Workers};
use super::function::Function;
use super::yaml::{self, Kind, NodeId, Tree};
use crate::diagnostic::{Diagnostic, ENOUGH, Place, suggestion};

/// The keys at the top of the file.
const SECTIONS: [&str; 8] = [
    "version",
    "workers",
    "control",
    "flows",
    "packets",
    "ports",
    "functions",
    "chains",
];

/// The versions of the format that are understood.
const VERSION: u64 = 1;

/// Most ports, functions or chains.
const MOST: usize = 1024;

/// What a file says. An entry that could not be read is `None`: its name still counts.
#[derive(Debug, Default)]
pub struct Spec {
    /// `workers`.
    pub workers: Vec<Workers>,
    /// `control`.
    pub control: Control,
    /// `flows`.
    pub flows: Flows,
    /// `packets`.
    pub packets: Packets,
    /// `ports`, in the order of the file.
    pub ports: Vec<(String, Option<Port>)>,
    /// `functions`, in the order of the file.
    pub functions: Vec<(String, Option<Function>)>,
    /// `chains`, in the order of the file.
    pub chains: Vec<(String, Option<Vec<Word>>)>,
}

/// Reads the whole tree; errors beside what could be read.
pub fn read(tree: &Tree) -> (Spec, Vec<Diagnostic>) {
    let mut reader = Reader {
        tree,
        errors: Vec::new(),
    };
    let spec = reader.spec();
    (spec, reader.errors)
}

struct Reader<'t> {
    tree: &'t Tree,
    errors: Vec<Diagnostic>,
}

impl Reader<'_> {
    fn spec(&mut self) -> Spec {
        let mut spec = Spec::default();
        let tree = self.tree;
        let root = tree.root();
        if !matches!(tree.resolve(root).1.kind, Kind::Map(_)) {
            let message = "expected a mapping at the top of the file";
            self.error(root, message, &suggestion("", SECTIONS));
            return spec;
        }
        let mut found = Vec::new();
        for (section, key, value) in tree.entries(root) {
            found.push(section);
            match section {
                "version" => self.version(key, value),
                "workers" => spec.workers = self.list(key, value),
                "control" => spec.control = self.value(key, value).unwrap_or_default(),
                "flows" => spec.flows = self.value(key, value).unwrap_or_default(),
                "packets" => spec.packets = self.value(key, value).unwrap_or_default(),
                "ports" => spec.ports = self.named(value, Self::value),
                "functions" => spec.functions = self.named(value, Self::function),
                "chains" => spec.chains = self.named(value, Self::value),
                other => {
                    let help = suggestion(other, SECTIONS);
                    self.error(key, &format!("unknown key `{other}`"), &help);
                }
            }
        }
        for needed in ["version", "ports", "chains"] {
            if !found.contains(&needed) {
                let help = if needed == "version" {
                    "begin with `version: 1`"
                } else {
                    ""
                };
                let message = format!("`{needed}` is missing");
                let start = tree.node(root).span.start;
                let place = Place::Span(start..start);
                self.errors.push(Diagnostic::at(place, message).help(help));
            }
        }
        spec
    }

    fn error(&mut self, at: NodeId, message: &str, help: &str) {
        let span = self.tree.node(at).span.clone();
        self.errors
            .push(Diagnostic::at(Place::Span(span), message).help(help));
    }

    fn version(&mut self, key: NodeId, value: NodeId) {
        if let Some(version) = self.value::<u64>(key, value)
            && version != VERSION
        {
            self.error(
                value,
                &format!("version {version} is not known"),
                "write `version: 1`",
            );
        }
    }

    fn value<T: DeserializeOwned>(&mut self, key: NodeId, value: NodeId) -> Option<T> {
        if self.errors.len() >= ENOUGH {
            return None;
        }
        match yaml::read(self.tree, Some(key), value) {
            Ok(value) => Some(value),
            Err(errors) => {
                self.errors.extend(errors);
                None
            }
        }
    }

    fn list<T: DeserializeOwned>(&mut self, key: NodeId, value: NodeId) -> Vec<T> {
        self.value(key, value).unwrap_or_default()
    }

    /// A mapping from names to what `read` reads.
    fn named<T>(
        &mut self,
        section: NodeId,
        read: impl Fn(&mut Self, NodeId, NodeId) -> Option<T>,
    ) -> Vec<(String, Option<T>)> {
        let tree = self.tree;
        if !matches!(tree.resolve(section).1.kind, Kind::Map(_)) {
            self.error(section, "expected a mapping from names", "as `name: { … }`");
            return Vec::new();
        }
        if tree.entries(section).count() > MOST {
            self.error(section, &format!("more than {MOST} entries"), "");
            return Vec::new();
        }
        tree.entries(section)
            .map(|(name, key, value)| (name.to_owned(), read(self, key, value)))
            .collect()
    }

    fn function(&mut self, key: NodeId, value: NodeId) -> Option<Function> {
        if self.errors.len() >= ENOUGH {
            return None;
        }
        match Function::read(self.tree, key, value) {
            Ok(function) => Some(function),
            Err(errors) => {
                self.errors.extend(errors);
                None
            }
        }
    }
}
