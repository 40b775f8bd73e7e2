//! The seam to `nf`: everything that the checks ask of a function, whatever its kind.

use chainplane_nf::FunctionConfig;
use chainplane_nf::config::{Claim, ConfigError, Mac, PathStep, Shape};
use schemars::JsonSchema;
use serde::Deserialize;

use super::file::GuestFunction;
use super::yaml::{self, Kind, NodeId, Tree};
use crate::diagnostic::{Diagnostic, Place, Step, YamlPath, suggestion};
use crate::yaml_path;

/// The word that chooses a guest function.
const GUEST: &str = "guest";

/// A function of the file.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(untagged)]
pub enum Function {
    /// One of `nf`'s.
    Network(FunctionConfig),
    /// One in a virtual machine.
    Guest(#[schemars(with = "GuestTag")] GuestFunction),
}

/// `guest: { … }`.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum GuestTag {
    /// A function that runs inside a virtual machine, between two ports.
    Guest(GuestFunction),
}

/// A function with named interfaces that end chains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Junction {
    /// Names of its interfaces, in the order of their numbers.
    pub interfaces: Vec<String>,
    /// Whether a packet that passes loses one of its hops.
    pub decrements_ttl: bool,
}

impl Function {
    /// Reads the function that stands at `value` under the name `key`.
    pub fn read(tree: &Tree, key: NodeId, value: NodeId) -> Result<Self, Vec<Diagnostic>> {
        if let Kind::Map(entries) = &tree.resolve(value).1.kind
            && let &[(tag, _)] = entries.as_slice()
        {
            let word = tree.text(tag);
            if word == GUEST {
                let GuestTag::Guest(guest) = yaml::read(tree, Some(key), value)?;
                return Ok(Self::Guest(guest));
            }
            if !FunctionConfig::KINDS.contains(&word) {
                let span = Place::Span(tree.node(tag).span.clone());
                let kinds = FunctionConfig::KINDS.iter().copied().chain([GUEST]);
                let message = format!("unknown kind of function `{word}`");
                return Err(vec![
                    Diagnostic::at(span, message).help(suggestion(word, kinds)),
                ]);
            }
        }
        yaml::read(tree, Some(key), value).map(Self::Network)
    }

    /// The kind as it is written in the file.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Network(config) => config.kind(),
            Self::Guest(_) => GUEST,
        }
    }

    /// Its interfaces, if it is a junction.
    pub fn junction(&self) -> Option<Junction> {
        let Self::Network(config) = self else {
            return None;
        };
        match config.shape("") {
            Shape::Inline => None,
            Shape::Junction {
                interfaces,
                decrements_ttl,
            } => Some(Junction {
                interfaces: interfaces.into_iter().map(|i| i.name).collect(),
                decrements_ttl,
            }),
        }
    }

    /// What is wrong with it by itself. `name` is its name in the file.
    pub fn check(&self, name: &str) -> Vec<Diagnostic> {
        let Self::Network(config) = self else {
            return Vec::new();
        };
        let errors = config.check().into_iter();
        errors
            .map(|error| diagnostic(name, config, error))
            .collect()
    }

    /// Addresses that it takes for itself, each with its place in the file.
    pub fn claims(&self, name: &str) -> Vec<(Claim, YamlPath)> {
        let Self::Network(config) = self else {
            return Vec::new();
        };
        let claims = config.claims().into_iter();
        claims
            .map(|claim| {
                let path = path(name, config, &claim.path);
                (claim, path)
            })
            .collect()
    }

    /// Link-layer addresses that it answers with, configured or made from names.
    pub fn macs(&self, name: &str) -> Vec<(Mac, YamlPath)> {
        let Self::Network(config) = self else {
            return Vec::new();
        };
        let body = yaml_path!["functions", name, self.kind()];
        let own = match config {
            FunctionConfig::Nat(nat) => nat.mac,
            FunctionConfig::LoadBalancer(balancer) => balancer.mac,
            FunctionConfig::Router(_) | FunctionConfig::Firewall(_) => None,
        };
        let mut macs: Vec<_> = own
            .map(|mac| (mac, mac_path(body.clone())))
            .into_iter()
            .collect();
        if let Shape::Junction { interfaces, .. } = config.shape(name) {
            for interface in interfaces {
                let mut path = body.clone();
                path.extend(yaml_path!["interfaces", &interface.name]);
                macs.extend(interface.mac.map(|mac| (Mac(mac), mac_path(path))));
            }
        }
        macs
    }

    /// Whether this and `other` are load balancers of different services, which may then share
    /// their address.
    pub fn serves_beside(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Network(FunctionConfig::LoadBalancer(this)),
                Self::Network(FunctionConfig::LoadBalancer(other)),
            ) => this.address != other.address,
            _ => false,
        }
    }
}

/// An error of the function `name`, in its place in the file.
pub fn diagnostic(name: &str, config: &FunctionConfig, error: ConfigError) -> Diagnostic {
    let path = path(name, config, &error.path);
    Diagnostic::at_value(path, error.message).help(error.help.unwrap_or_default())
}

/// A path within a function's body as a path within the file.
fn path(name: &str, config: &FunctionConfig, steps: &[PathStep]) -> YamlPath {
    let mut path = yaml_path!["functions", name, config.kind()];
    path.extend(steps.iter().map(|step| match step {
        PathStep::Key(key) => Step::Key(key.clone()),
        PathStep::Index(index) => Step::Index(*index),
    }));
    path
}

fn mac_path(mut path: YamlPath) -> YamlPath {
    path.push(Step::from("mac"));
    path
}
