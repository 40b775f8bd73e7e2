//! Load balancer: spreads connections to one address over many servers.
//!
//! Clients connect to a *virtual address* (address, port, TCP or UDP) on the outside, the right of the chain; the
//! servers are on its inside. A connection's first packet chooses a backend from a [Maglev table](maglev) by the
//! client's address and port, and the connection stays with it. The destination of its packets becomes the
//! backend's address and port; answers leave with the virtual address as their source. Nothing else changes, so
//! servers see the real client, and answers must come back through the load balancer: it belongs on the servers'
//! way out.
//!
//! ```yaml
//! functions:
//!   frontend:
//!     load-balancer:
//!       address: "203.0.113.10:80/tcp"      # or "[2001:db8::10]:80/tcp"
//!       backends:
//!         - { address: 10.0.1.11 }                      # port 80, as the virtual address
//!         - { address: 10.0.1.12, port: 8080, weight: 2 }
//!         - { address: 10.0.1.13, weight: 0 }           # keeps its connections, takes no new ones
//!       inside-mac: "02:00:00:00:01:01"     # the servers' router; not needed where the chain ends at a router
//!       sessions: 65536
//!       timeouts: { opening: 30, established: 7440, closing: 120, udp: 120 }   # seconds without a packet
//! ```
//!
//! # What it does with what
//! * **A packet to the virtual address's port** goes to its connection's backend. It must be addressed to the load
//!   balancer's link-layer address or to the router's behind it; a frame for another station is dropped (`wrong-mac`).
//! * **TCP in the middle of a connection that is not known** (after a restart, or a time-out) gets the backend that
//!   the table gives its client. As the table depends on the configuration alone, that is the one it had before,
//!   unless backends changed. A RST is passed on the same way, without keeping anything. The price of a choice that
//!   survives restarts is that it has no secret: a client can choose its ports so as to meet one backend.
//! * **ARP and neighbour solicitations** for the virtual address are answered on the outside with the load balancer's
//!   own link-layer address (`mac:`, or one made from its name). Others pass.
//! * **Ping** to the virtual address is answered by the load balancer itself, whatever its backends' state.
//! * **Other packets to the virtual address** are dropped (`no-service`), as are fragments (`fragment`) and whatever
//!   finds no backend that is up (`no-backend`).
//! * **ICMP errors about balanced connections** reach the backend or the client with the packet they quote
//!   rewritten as its sender knew it, so that path MTU discovery works (RFC 792, RFC 1191, RFC 4443; RFC 5508 says the
//!   same for NAT). One that comes to the virtual address about anything else is dropped (`no-session`).
//! * **Everything else passes untouched**, a backend's packets that belong to no balanced connection included.
//!
//! # A lost backend
//! [`LoadBalancer::states`] is a handle by which an operator or a health checker sets a backend up or down at any
//! time. When the function next looks after its timers, some 64 µs later, the backend's connections are over (one epoch moves on, however many there are),
//! their clients' next packets choose among the rest, and other connections stay where they are. See [`maglev`] for
//! why no table is computed for that.
//!
//! # Many workers
//! Each worker of a crew has its share of `sessions`, and a connection is that worker's to whom its client belongs. All of
//! them choose from the same table, and by nothing that differs among them: which backend a client gets does not depend on
//! how many workers there are, nor on what they saw before. A server that speaks with a client around the load balancer is
//! where that client is; servers that speak with each other from the ports of their services share one worker.
//!
//! # What it does not do
//! It has one virtual address; several are several load balancers in one chain. It doesn't check the backends' health
//! by itself. Clients on the inside are not served. There is no direct server return and no source translation.
//! Fragmented datagrams are not balanced.
//!
//! Counters and drop reasons are those of [`Counter`] and [`Reason`]; each backend has its connections and the packets
//! sent to it. Paper: Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016.

mod answer;
mod config;
pub mod maglev;
mod process;
mod quote;
mod session;
mod states;
#[cfg(test)]
mod tests;

use core::fmt;
use core::net::{IpAddr, SocketAddr};
use std::collections::HashMap;
use std::sync::Arc;

use chainplane_dataplane::crew::Claim;
use chainplane_dataplane::function::{Blueprint, Build, Function};
use chainplane_dataplane::packet::Mac;
use foldhash::fast::FixedState;

pub use config::{Backend, Config, Timeouts};
pub use process::{Counter, Reason};
pub use states::BackendStates;

use crate::config::{ConfigError, Site};
use config::{Service, Ticks};
use maglev::Maglev;

/// A backend as packets reach it.
#[derive(Debug)]
struct Server {
    address: IpAddr,
    port: u16,
    mac: Mac,
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SocketAddr::new(self.address, self.port).fmt(f)
    }
}

/// What all workers share.
#[derive(Debug)]
struct Tables {
    service: Service,
    mac: Mac,
    inside_mac: Option<Mac>,
    servers: Vec<Server>,
    /// The backend that has this address and port. Its keys come from the configuration, so its hash needs no secret.
    by_address: HashMap<(IpAddr, u16), u16, FixedState>,
    maglev: Maglev,
    states: BackendStates,
    capacity: usize,
    ticks: Ticks,
}

impl Tables {
    fn backend(&self, address: IpAddr, port: u16) -> Option<usize> {
        self.by_address
            .get(&(address, port))
            .map(|index| *index as usize)
    }
}

/// A compiled load balancer.
#[derive(Clone, Debug)]
pub struct LoadBalancer(Arc<Tables>);

impl LoadBalancer {
    fn new(config: &Config, site: &Site) -> Result<Self, ConfigError> {
        let service = config
            .service()
            .map_err(|message| ConfigError::at(["address".into()], message))?;
        let macs = config.server_macs(site.inside_mac)?;
        let servers: Vec<_> = config
            .backends
            .iter()
            .zip(macs)
            .map(|(backend, mac)| {
                let (address, port) = config.server(backend);
                Server { address, port, mac }
            })
            .collect();
        let weights: Vec<_> = config
            .backends
            .iter()
            .zip(&servers)
            .map(|(backend, server)| {
                let identity = maglev::hash_of(server.address, server.port);
                (identity, backend.weight.unwrap_or(1))
            })
            .collect();
        let by_address = servers
            .iter()
            .enumerate()
            .map(|(index, server)| ((server.address, server.port), index as u16));
        Ok(Self(Arc::new(Tables {
            service,
            mac: config
                .mac
                .map_or_else(|| Mac::local(&site.name), |mac| mac.0),
            inside_mac: config.inside_mac.map(|mac| mac.0).or(site.inside_mac),
            by_address: by_address.collect(),
            maglev: Maglev::new(&weights, maglev::CELLS),
            states: BackendStates::new(servers.len()),
            servers,
            capacity: config.capacity(),
            ticks: Ticks::from(&config.timeouts),
        })))
    }

    /// By what a backend is set up or down, in the order of the configuration. It stays connected to every worker's
    /// load balancer built from this one.
    pub fn states(&self) -> BackendStates {
        self.0.states.clone()
    }
}

impl Blueprint for LoadBalancer {
    fn build(&self, build: &mut Build<'_>) -> Box<dyn Function> {
        Box::new(process::Balancer::new(Arc::clone(&self.0), build))
    }

    fn claims(&self) -> Vec<Claim> {
        let Service {
            address,
            port,
            protocol,
        } = self.0.service;
        let servers = self.0.servers.iter();
        let servers = servers.map(|server| (server.address, server.port));
        let fixed = servers.chain([(address, port)]);
        let claim = |(address, port)| Claim::Fixed {
            address,
            protocol,
            port,
        };
        fixed.map(claim).collect()
    }
}
