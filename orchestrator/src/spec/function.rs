//! The seam to `nf`: everything that the checks ask of a function, whatever its kind.

use std::fmt;
use std::net::IpAddr;

use chainplane_nf::FunctionConfig;
use schemars::JsonSchema;
use serde::Deserialize;

use super::address::Mac;
use super::file::GuestFunction;
use super::yaml::{self, NodeId, Tree};
use crate::diagnostic::{Diagnostic, YamlPath, near_miss};
use crate::yaml_path;

/// A function of the file.
#[derive(Debug, Clone, JsonSchema)]
#[serde(untagged)]
pub enum Function {
    /// One of `nf`'s.
    Network(FunctionConfig),
    /// One in a virtual machine.
    #[schemars(with = "GuestTag")]
    Guest(GuestFunction),
}

/// `guest: { … }`.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum GuestTag {
    /// A function that runs inside a virtual machine, between two ports.
    Guest(GuestFunction),
}

/// How a function is connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shape {
    /// Two sides: it stands in the middle of one chain.
    Inline,
    /// A machine with two ports in the middle of one chain.
    Guest,
    /// Named interfaces that end chains.
    Junction {
        /// Their names.
        interfaces: Vec<String>,
        /// Whether a packet that passes loses one of its hops.
        decrements_ttl: bool,
    },
}
