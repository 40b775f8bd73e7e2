//! The chain of the tests: three subnets on a router, and a firewall, a NAT and a load balancer between it and the
//! uplink.
//!
//! ```text
//! web ── core.web    core.wan ── frontend ── egress ── edge ── uplink
//! db  ── core.db
//! ```

use chainplane_dataplane::engine::Hop;
use chainplane_dataplane::function::{Blueprint, INSIDE, Interface, OUTSIDE};
use chainplane_dataplane::packet::Mac;
use chainplane_dataplane::port::Offloads;
use chainplane_dataplane::sim::{Sim, SimFunction};
use chainplane_nf::FunctionConfig;
use chainplane_nf::config::{Shape, Site};
use chainplane_nf::load_balancer::{self, BackendStates, LoadBalancer};
use serde_json::{Value, json};

use crate::frame::MacBytes;
use crate::host::Host;

pub const WEB: usize = 0;
pub const DB: usize = 1;
pub const UPLINK: usize = 2;
pub const PORTS: usize = 3;

pub const VIRTUAL: [u8; 4] = [203, 0, 113, 10];
pub const POOL: [u8; 4] = [203, 0, 113, 2];
pub const GATEWAY_MAC: MacBytes = [2, 0, 0, 0, 9, 1];

const CORE: u16 = 0;
const FRONTEND: u16 = 1;
const EGRESS: u16 = 2;
const EDGE: u16 = 3;

/// The compiled configuration, from which any number of simulations is built.
pub struct Plan {
    core: Box<dyn Blueprint>,
    frontend: LoadBalancer,
    egress: Box<dyn Blueprint>,
    edge: Box<dyn Blueprint>,
    interfaces: Vec<String>,
    macs: Vec<Mac>,
}

fn config(value: Value) -> FunctionConfig {
    let config: FunctionConfig = serde_json::from_value(value).expect("a configuration");
    let errors = config.check();
    assert!(errors.is_empty(), "{errors:?}");
    config
}

fn router() -> FunctionConfig {
    config(json!({ "router": {
        "interfaces": {
            "web": { "address": ["10.0.1.1/24", "fd00:1::1/64"], "mac": "02:00:00:00:01:01" },
            "db": { "address": ["10.0.2.1/24", "fd00:2::1/64"] },
            "wan": {
                "address": ["198.51.100.2/30", "fd00:9::2/64"],
                "mtu": 1400,
                "neighbours": { "198.51.100.1": "02:00:00:00:09:01", "fd00:9::1": "02:00:00:00:09:01" },
            },
        },
        "routes": [{ "to": "0.0.0.0/0", "via": "198.51.100.1" }, { "to": "::/0", "via": "fd00:9::1" }],
    } }))
}

fn firewall(sessions: u32) -> FunctionConfig {
    config(json!({ "firewall": {
        "default": { "outbound": "allow", "inbound": "drop" },
        "rules": [
            { "drop": "tcp", "direction": "outbound", "ports": 25 },
            { "allow": "tcp", "direction": "inbound", "to": "203.0.113.10", "ports": ["80", 443] },
            { "allow": "icmp", "direction": "inbound", "to": "203.0.113.10", "icmp-types": 8 },
            { "allow": "tcp", "direction": "inbound", "to": "203.0.113.2", "ports": [2222] },
        ],
        "sessions": sessions,
    } }))
}

fn nat(sessions: u32) -> FunctionConfig {
    config(json!({ "nat": {
        "pool": "203.0.113.2",
        "inside": ["10.0.0.0/8"],
        "forwards": [{ "protocol": "tcp", "port": 2222, "to": "10.0.2.5:22" }],
        "sessions": sessions,
    } }))
}

fn balancer(sessions: u32) -> load_balancer::Config {
    serde_json::from_value(json!({
        "address": "203.0.113.10:80/tcp",
        "backends": [{ "address": "10.0.1.11" }, { "address": "10.0.1.12", "port": 8080, "weight": 2 }],
        "sessions": sessions,
    }))
    .expect("a configuration")
}

impl Plan {
    /// With session tables of a few entries, or of as many as the tests can need.
    pub fn new(small: bool) -> Self {
        let sessions = |few| if small { few } else { 1024 };
        let core = router();
        let Shape::Junction { interfaces, .. } = core.shape("core") else {
            panic!("a router is a junction");
        };
        let mac = |name: &str| {
            let found = interfaces.iter().find(|interface| interface.name == name);
            found.and_then(|interface| interface.mac)
        };
        let site = |name: &str| Site {
            name: name.to_owned(),
            inside_mac: mac("wan"),
            outside_mac: None,
        };
        let compile = |config: &FunctionConfig, site: &Site| {
            config
                .compile(site)
                .unwrap_or_else(|errors| panic!("{}: {errors:?}", site.name))
        };
        let nowhere = Site {
            name: "core".to_owned(),
            ..Site::default()
        };
        Self {
            core: compile(&core, &nowhere),
            frontend: balancer(sessions(1))
                .load_balancer(&site("frontend"))
                .unwrap(),
            egress: compile(&nat(sessions(10)), &site("egress")),
            edge: compile(&firewall(sessions(24)), &site("edge")),
            macs: interfaces.iter().filter_map(|at| at.mac).collect(),
            interfaces: interfaces.into_iter().map(|at| at.name).collect(),
        }
    }

    fn interface(&self, name: &str) -> usize {
        self.interfaces
            .iter()
            .position(|known| known == name)
            .expect("an interface of that name")
    }

    /// The router's link-layer address on one of its interfaces.
    pub fn router_mac(&self, name: &str) -> MacBytes {
        self.macs[self.interface(name)].0
    }

    /// What the load balancer answers ARP with.
    pub fn virtual_mac() -> MacBytes {
        Mac::local("frontend").0
    }

    /// What the NAT answers ARP with.
    pub fn pool_mac() -> MacBytes {
        Mac::local("egress").0
    }

    pub fn states(&self) -> BackendStates {
        self.frontend.states()
    }

    /// A simulation with a flow table of this size, or without one.
    pub fn sim(&self, flows: Option<usize>, seed: u64) -> Sim {
        let wan = Interface(self.interface("wan") as u16);
        let link = |name: &String| match name.as_str() {
            "web" => Hop::Port(WEB as u16),
            "db" => Hop::Port(DB as u16),
            _ => Hop::Function(FRONTEND, INSIDE),
        };
        let core = SimFunction {
            name: "core",
            blueprint: &*self.core,
            links: self
                .interfaces
                .iter()
                .map(|name| (name.as_str(), link(name)))
                .collect(),
        };
        let frontend = SimFunction::inline(
            "frontend",
            &self.frontend,
            Hop::Function(CORE, wan),
            Hop::Function(EGRESS, INSIDE),
        );
        let egress = SimFunction::inline(
            "egress",
            &*self.egress,
            Hop::Function(FRONTEND, OUTSIDE),
            Hop::Function(EDGE, INSIDE),
        );
        let edge = SimFunction::inline(
            "edge",
            &*self.edge,
            Hop::Function(EGRESS, OUTSIDE),
            Hop::Port(UPLINK as u16),
        );
        let mut sim = Sim::new(flows, &[core, frontend, egress, edge], seed);
        let junction = |name: &str| Hop::Function(CORE, Interface(self.interface(name) as u16));
        sim.add_port("web", junction("web"));
        let able = Offloads {
            checksum: true,
            tcp4: true,
            ..Offloads::default()
        };
        sim.add_port_with("db", junction("db"), able);
        sim.add_port_with("uplink", Hop::Function(EDGE, OUTSIDE), able);
        sim
    }
}

/// The two web servers, the database, and the gateway on the uplink.
pub fn hosts() -> Vec<Host> {
    let host = |port, last: u8, addresses: &[&str]| Host {
        port,
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        mac: [2, 0, 0, 0, 0x20, last],
        answers: true,
    };
    let mut gateway = host(UPLINK, 0, &["198.51.100.1", "fd00:9::1"]);
    gateway.mac = GATEWAY_MAC;
    vec![
        host(WEB, 11, &["10.0.1.11", "fd00:1::11"]),
        host(WEB, 12, &["10.0.1.12", "fd00:1::12"]),
        host(DB, 5, &["10.0.2.5", "fd00:2::5"]),
        gateway,
    ]
}
