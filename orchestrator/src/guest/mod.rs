//! Embedded guests: small machines inside this process, to try a configuration with nothing else at hand.
//!
//! To the dataplane an embedded guest is a guest like any other. It connects to its port's vhost-user socket as a
//! front end, has virtqueues in a memory file of its own, and runs a TCP/IP stack (smoltcp) in a thread that sleeps
//! until its card calls. It serves TCP ports and does tasks, as its configuration says; `protocol` is what guests
//! say to each other, `task` what becomes of a task.

mod card;
mod fetch;
mod greeting;
mod group;
mod ping;
mod protocol;
mod server;
mod stack;
mod task;
#[cfg(test)]
mod tests;
mod thread;
mod virtio;
mod wire;

use std::net::IpAddr;

use chainplane_dataplane::packet::Mac;
use chainplane_nf::config::InterfaceAddress;

pub use group::Guests;
pub use server::Served;
pub use task::TaskResult;
pub use thread::{Event, Guest};

use crate::spec::file::{EmbeddedGuest, Task};

/// Everything that makes a guest.
#[derive(Clone, Debug)]
pub struct GuestSpec {
    /// Its name, the port's.
    pub name: String,
    /// Its MAC address.
    pub mac: Mac,
    /// Its addresses, each with its subnet's length.
    pub addresses: Vec<InterfaceAddress>,
    /// Default gateways, one for each IP version at most.
    pub gateways: Vec<IpAddr>,
    /// TCP ports on which it answers.
    pub serve: Vec<u16>,
    /// What it does, in order.
    pub tasks: Vec<Task>,
    /// Whether TCP checksums are left to the other side where it can do them.
    pub offload_checksums: bool,
}

impl GuestSpec {
    /// The guest behind the port `name` of a checked configuration.
    pub fn new(name: &str, config: &EmbeddedGuest) -> Self {
        Self {
            name: name.to_owned(),
            mac: config.mac.map_or_else(|| Mac::local(name), |mac| mac.0),
            addresses: config.address.0.clone(),
            gateways: config.gateway.0.clone(),
            serve: config.serve.clone(),
            tasks: config.tasks.clone(),
            offload_checksums: true,
        }
    }
}
