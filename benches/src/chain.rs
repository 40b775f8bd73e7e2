//! Chains of so many functions between two guests, as YAML.
//!
//! Guest `a` plays clients, guest `b` servers. Every function works on every packet: of four, the firewall keeps a
//! session, the NAT translates the client, the router forwards, the load balancer translates the service; and so back.

use std::fmt::Write;
use std::net::Ipv4Addr;
use std::path::Path;

use chainplane::spec::{self, Environment, Model};

use crate::case::Case;

/// What stands between the guests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Functions {
    /// Nothing: port to port.
    None,
    /// A firewall.
    One,
    /// Firewall, NAT, router and load balancer.
    Four,
    /// Two of each of the four.
    Eight,
    /// A router with 64 routes, and no state.
    Router,
}

impl Functions {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::None, Self::One, Self::Four, Self::Eight, Self::Router];

    /// What it is called on command lines.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::One => "one",
            Self::Four => "four",
            Self::Eight => "eight",
            Self::Router => "router",
        }
    }
}

/// Guest `a`, and the router that it sends to.
pub const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 1, 2];
/// See there.
pub const GATEWAY_MAC: [u8; 6] = [2, 0, 0, 0, 1, 1];
/// The service that clients connect to.
pub const SERVICE: (Ipv4Addr, u16) = (Ipv4Addr::new(198, 19, 0, 10), 80);

/// What a configuration is made of.
#[derive(Clone, Copy, Debug)]
pub struct Setup<'a> {
    /// What is between the guests.
    pub functions: Functions,
    /// Whether the service is one of TCP, or of UDP.
    pub tcp: bool,
    /// Flows that there will be.
    pub flows: usize,
    /// Ports besides `a` and `b`, in pairs.
    pub idle: usize,
    /// Where sockets are.
    pub directory: &'a Path,
    /// The one worker, as YAML.
    pub worker: &'a str,
}

impl<'a> Setup<'a> {
    /// A case's.
    pub fn of(case: &Case, directory: &'a Path, worker: &'a str) -> Self {
        Self {
            functions: case.functions,
            tcp: case.traffic().is_tcp(),
            flows: case.flows,
            idle: case.idle,
            directory,
            worker,
        }
    }

    /// The configuration.
    ///
    /// # Panics
    /// When it is wrong, which is a mistake here.
    pub fn model(&self) -> Model {
        let path = self.directory.join("bench.yaml");
        spec::parse(&self.yaml(), &path, &Environment::here())
            .unwrap_or_else(|report| panic!("{}", report.render(false)))
    }

    /// The configuration's text: guests `a` and `b`, and `idle0` and following.
    pub fn yaml(&self) -> String {
        let sockets = self.directory.display();
        let idle = (0..self.idle).map(|n| format!("idle{n}"));
        let names = ["a".into(), "b".into()].into_iter().chain(idle);
        let mut text = format!(
            "version: 1\nworkers: [{}]\ncontrol: {{ socket: {sockets}/control.sock }}\nflows: {{ table: {} }}\nports:\n",
            self.worker,
            (4 * self.flows).next_power_of_two().max(1 << 16),
        );
        for name in names {
            let _ = writeln!(
                text,
                "  {name}: {{ vhost-user: {{ socket: {sockets}/{name}.sock }} }}"
            );
        }
        text += &self.chains();
        for n in (0..self.idle).step_by(2) {
            let _ = writeln!(text, "  idle{n}: [idle{n}, idle{}]", n + 1);
        }
        text
    }

    /// Functions, and what connects `a` and `b`; the list of chains is the last.
    fn chains(&self) -> String {
        match self.functions {
            Functions::None => "chains:\n  direct: [a, b]\n".to_owned(),
            Functions::One => {
                let wall = firewall("wall", self.sessions());
                format!("functions:\n{wall}chains:\n  only: [a, wall, b]\n")
            }
            Functions::Four => self.four(),
            Functions::Eight => self.eight(),
            Functions::Router => router(),
        }
    }

    fn sessions(&self) -> usize {
        65_536.max(self.flows * 9 / 8)
    }

    fn four(&self) -> String {
        let (sessions, protocol) = (self.sessions(), self.protocol());
        let mut text = "functions:\n".to_owned();
        text += &firewall("wall", sessions);
        text += &nat(
            "egress",
            "[192.0.2.64/26, 192.0.2.128/26]",
            "198.18.0.0/16",
            sessions,
        );
        text += &balancer("service", "198.19.0.10:80", protocol, sessions, SERVERS);
        text += "  core:\n    router:\n      interfaces:\n        \
            in: { address: [198.18.0.1/16, 192.0.2.1/24], mac: \"02:00:00:00:01:01\", mtu: 1600 }\n        \
            out: { address: 198.19.0.1/16, mac: \"02:00:00:00:02:01\", mtu: 1600 }\n\
            chains:\n  clients: [a, wall, egress, core.in]\n  servers: [b, service, core.out]\n";
        text
    }

    /// Clients are translated twice, and so is the service: the outer one's server is the inner one.
    fn eight(&self) -> String {
        let (sessions, protocol) = (self.sessions(), self.protocol());
        let mut text = "functions:\n".to_owned();
        text += &firewall("wall", sessions);
        text += &firewall("wall-2", sessions);
        text += &nat(
            "egress",
            "[192.0.2.64/26, 192.0.2.128/26]",
            "198.18.0.0/16",
            sessions,
        );
        text += &nat(
            "egress-2",
            "[203.0.113.64/26, 203.0.113.128/26]",
            "192.0.2.0/24",
            sessions,
        );
        text += &balancer(
            "service",
            "198.19.0.10:80",
            protocol,
            sessions,
            "[{ address: 198.19.0.20, port: 8080, mac: \"02:00:00:00:03:01\" }]",
        );
        text += &balancer("service-2", "198.19.0.20:8080", protocol, sessions, SERVERS);
        text += "  core:\n    router:\n      interfaces:\n        \
            in: { address: [198.18.0.1/16, 192.0.2.1/24], mac: \"02:00:00:00:01:01\", mtu: 1600 }\n        \
            out: { address: 10.0.1.1/24, mac: \"02:00:00:00:02:01\", mtu: 1600 }\n      \
            routes: [{ to: 198.19.0.0/16, via: 10.0.1.2 }]\n  \
            core-2:\n    router:\n      interfaces:\n        \
            in: { address: [10.0.1.2/24, 203.0.113.1/24], mac: \"02:00:00:00:02:02\", mtu: 1600 }\n        \
            out: { address: 198.19.0.1/16, mac: \"02:00:00:00:02:03\", mtu: 1600 }\n\
            chains:\n  clients: [a, wall, egress, core.in]\n  \
            between: [core.out, wall-2, egress-2, core-2.in]\n  \
            servers: [b, service-2, service, core-2.out]\n";
        text
    }

    fn protocol(&self) -> &'static str {
        if self.tcp { "tcp" } else { "udp" }
    }
}

const SERVERS: &str = "[{ address: 198.19.1.11 }, { address: 198.19.1.12 }, { address: 198.19.1.13 }, { address: 198.19.1.14 }]";

fn firewall(name: &str, sessions: usize) -> String {
    format!(
        "  {name}:\n    firewall:\n      default: {{ outbound: allow, inbound: drop }}\n      rules:\n        \
         - {{ drop: udp, to: 198.19.0.0/16, ports: 53 }}\n        \
         - {{ drop: tcp, to: 198.19.0.0/16, ports: [25, 445] }}\n        \
         - {{ allow: icmp, direction: inbound }}\n      sessions: {sessions}\n"
    )
}

fn nat(name: &str, pool: &str, inside: &str, sessions: usize) -> String {
    format!("  {name}: {{ nat: {{ pool: {pool}, inside: [{inside}], sessions: {sessions} }} }}\n")
}

/// Its servers' link-layer address is guest `b`'s; that of its own is the one that the other balancer knows.
fn balancer(name: &str, service: &str, protocol: &str, sessions: usize, servers: &str) -> String {
    format!(
        "  {name}:\n    load-balancer:\n      address: \"{service}/{protocol}\"\n      backends: {servers}\n      \
         mac: \"{}\"\n      inside-mac: \"02:00:00:00:02:02\"\n      sessions: {sessions}\n",
        if name == "service" {
            "02:00:00:00:03:00"
        } else {
            "02:00:00:00:03:01"
        }
    )
}

/// 64 routes with those to the clients and the servers, of 16 to 24 bits.
fn router() -> String {
    let mut text = "functions:\n  core:\n    router:\n      interfaces:\n        \
        in: { address: 10.0.0.1/24, mac: \"02:00:00:00:01:01\", mtu: 1600, neighbours: { 10.0.0.2: \"02:00:00:00:01:02\" } }\n        \
        out: { address: 10.0.1.1/24, mac: \"02:00:00:00:02:01\", mtu: 1600, neighbours: { 10.0.1.2: \"02:00:00:00:02:02\" } }\n      \
        routes:\n        - { to: 198.18.0.0/16, via: 10.0.0.2 }\n        - { to: 198.19.0.0/16, via: 10.0.1.2 }\n"
        .to_owned();
    for n in 0..62 {
        let _ = writeln!(
            text,
            "        - {{ to: 10.{}.0.0/{}, via: 10.0.1.2 }}",
            100 + n,
            16 + n % 9
        );
    }
    text + "chains:\n  in: [a, core.in]\n  out: [core.out, b]\n"
}
