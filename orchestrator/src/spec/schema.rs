//! The JSON Schema of the file, for editors.

use std::collections::BTreeMap;

use schemars::JsonSchema;

use super::file::{Control, Flows, Packets, Port, Workers};
use super::function::Function;

/// A Chainplane configuration: ports, functions, and the chains that join them.
#[derive(JsonSchema)]
#[schemars(rename = "Chainplane", deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used")]
struct Configuration {
    /// Version of this format.
    #[schemars(range(min = 1, max = 1))]
    version: u64,
    /// Polling threads. Without it: one, placed by the kernel.
    #[schemars(default)]
    workers: Vec<Workers>,
    /// The socket through which `chainplane show` and `capture` speak to the running program.
    #[schemars(default)]
    control: Control,
    /// The flow tables.
    #[schemars(default)]
    flows: Flows,
    /// The packet pools.
    #[schemars(default)]
    packets: Packets,
    /// Where packets enter and leave, by name.
    ports: BTreeMap<String, Port>,
    /// Network functions, by name.
    #[schemars(default)]
    functions: BTreeMap<String, Function>,
    /// Paths by name, each written from inside to outside: an endpoint (a port, or a junction's
    /// interface as `core.web`), inline functions in order, an endpoint.
    chains: BTreeMap<String, Vec<String>>,
}

/// The schema as JSON text that ends in a line break.
pub fn json() -> String {
    let schema = schemars::schema_for!(Configuration);
    let mut text = serde_json::to_string_pretty(&schema).unwrap_or_default();
    text.push('\n');
    text
}
