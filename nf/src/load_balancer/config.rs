//! The configuration, and what can be wrong with it.

use core::fmt;
use core::net::{IpAddr, SocketAddr};
use core::str::FromStr;
use core::time::Duration;
use std::collections::HashMap;

use chainplane_dataplane::function::Blueprint;
use chainplane_dataplane::packet;
use chainplane_dataplane::packet::protocol;
use chainplane_dataplane::time::to_ticks;
use schemars::JsonSchema;
use serde::Deserialize;

use super::LoadBalancer;
use super::maglev::MAX_BACKENDS;
use crate::config::{Claim, ClaimRole, ConfigError, Kind, Mac, PathStep, Prefix, Shape, Site};

/// Sessions where the configuration says nothing.
const DEFAULT_SESSIONS: u32 = 65_536;
/// Most sessions of one load balancer: some 100 bytes each.
const MAX_SESSIONS: u32 = 1 << 22;
/// Longest timeout in seconds: a week.
const MAX_TIMEOUT: u32 = 7 * 24 * 3600;

/// One server.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Backend {
    /// Its address.
    pub address: IpAddr,
    /// Its port; the virtual address's where absent.
    #[serde(default)]
    pub port: Option<u16>,
    /// Its share of connections, against the others'; 0 takes no new ones. 1 where absent.
    #[serde(default)]
    pub weight: Option<u16>,
    /// Its own link-layer address, where packets go straight to it and not through a router.
    #[serde(default)]
    pub mac: Option<Mac>,
}

/// How long a session lives when no packet of it is seen, in seconds.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// TCP before both sides have spoken; 30 where absent.
    pub opening: u32,
    /// TCP afterwards; 7440 where absent (RFC 5382, REQ-5).
    pub established: u32,
    /// TCP after a FIN or RST; 120 where absent.
    pub closing: u32,
    /// UDP; 120 where absent.
    pub udp: u32,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            opening: 30,
            established: 7440,
            closing: 120,
            udp: 120,
        }
    }
}

/// The configuration: `load-balancer: { address: "203.0.113.10:80/tcp", backends: [{ address: 10.0.1.11 }] }`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// The virtual address: `ADDRESS:PORT/tcp` or `/udp`; an IPv6 address in brackets.
    pub address: String,
    /// The servers.
    pub backends: Vec<Backend>,
    /// The link-layer address by which it answers for the virtual address; made from its name where absent.
    #[serde(default)]
    pub mac: Option<Mac>,
    /// Where packets for servers go, where no router's interface is at the inside.
    #[serde(default)]
    pub inside_mac: Option<Mac>,
    /// Sessions at most; 65536 where absent.
    #[serde(default)]
    pub sessions: Option<u32>,
    /// How long sessions live.
    #[serde(default)]
    pub timeouts: Timeouts,
}

/// What clients connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Service {
    pub address: IpAddr,
    pub port: u16,
    pub protocol: u8,
}

impl FromStr for Service {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WANTED: &str = "expected ADDRESS:PORT/tcp or ADDRESS:PORT/udp";
        let (socket, word) = text.rsplit_once('/').ok_or(WANTED)?;
        let protocol = match word {
            "tcp" => protocol::TCP,
            "udp" => protocol::UDP,
            _ => return Err("the protocol behind `/` is neither tcp nor udp"),
        };
        let socket: SocketAddr = socket.parse().map_err(|_| WANTED)?;
        if matches!(socket, SocketAddr::V6(v6) if v6.scope_id() != 0) {
            return Err("an address with a zone can't be a virtual address");
        }
        if socket.port() == 0 {
            return Err("port 0 can't be connected to");
        }
        check_unicast(socket.ip())?;
        Ok(Self {
            address: socket.ip(),
            port: socket.port(),
            protocol,
        })
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.protocol == protocol::TCP {
            "tcp"
        } else {
            "udp"
        };
        write!(f, "{}/{word}", SocketAddr::new(self.address, self.port))
    }
}

fn check_unicast(address: IpAddr) -> Result<(), &'static str> {
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    if address.is_unspecified() || address.is_multicast() || address.is_loopback() || broadcast {
        Err("not the address of a host")
    } else {
        Ok(())
    }
}

fn error(path: impl IntoIterator<Item = PathStep>, message: impl Into<String>) -> ConfigError {
    ConfigError::at(path, message)
}

impl Config {
    pub(super) fn service(&self) -> Result<Service, &'static str> {
        self.address.parse()
    }

    /// The backend as packets reach it, its port filled in.
    pub(super) fn server(&self, backend: &Backend) -> (IpAddr, u16) {
        let default = self.service().map_or(0, |service| service.port);
        (backend.address, backend.port.unwrap_or(default))
    }

    pub(super) fn capacity(&self) -> usize {
        self.sessions.unwrap_or(DEFAULT_SESSIONS) as usize
    }

    /// What packets go to, in place of the virtual address: the servers' own link-layer addresses, or `inside`.
    pub(super) fn server_macs(
        &self,
        inside: Option<packet::Mac>,
    ) -> Result<Vec<packet::Mac>, ConfigError> {
        let inside = self.inside_mac.map(|mac| mac.0).or(inside);
        let known = self
            .backends
            .iter()
            .map(|backend| backend.mac.map(|mac| mac.0).or(inside));
        known.collect::<Option<_>>().ok_or_else(|| {
            error([], "nothing says which link-layer address packets for the servers go to").help(
                "end the chain at a router's interface on the left, or write `inside-mac: 02:…` for the servers' \
                 router, or `mac: 02:…` with each backend",
            )
        })
    }

    /// Compiles it to a type of its own, through which the backends' states are set.
    ///
    /// # Errors
    /// What does not fit where it stands.
    pub fn load_balancer(&self, site: &Site) -> Result<LoadBalancer, Vec<ConfigError>> {
        let errors = self.check();
        if !errors.is_empty() {
            return Err(errors);
        }
        LoadBalancer::new(self, site).map_err(|error| vec![error])
    }

    fn check_address(&self, errors: &mut Vec<ConfigError>) {
        if let Err(message) = self.service() {
            errors.push(
                error(["address".into()], format!("`{}`: {message}", self.address))
                    .help("write it like \"203.0.113.10:80/tcp\" or \"[2001:db8::10]:80/tcp\""),
            );
        }
    }

    fn check_backends(&self, errors: &mut Vec<ConfigError>) {
        let path = || "backends".into();
        if self.backends.is_empty() {
            errors.push(error(
                [path()],
                "a load balancer needs at least one backend",
            ));
        } else if self.backends.len() > MAX_BACKENDS {
            let message = format!(
                "{} backends; at most {MAX_BACKENDS} are possible",
                self.backends.len()
            );
            errors.push(error([path()], message));
        } else if self
            .backends
            .iter()
            .all(|backend| backend.weight == Some(0))
        {
            errors.push(
                error(
                    [path()],
                    "every backend has weight 0, so nobody takes connections",
                )
                .help("give at least one of them a weight of 1 or more"),
            );
        }
        let mut known = HashMap::new();
        for (index, backend) in self.backends.iter().enumerate() {
            self.check_backend(index, backend, errors);
            if let Some(first) = known.insert(self.server(backend), index) {
                let message = format!("the same server as backend {}", first + 1);
                errors.push(
                    error([path(), index.into()], message)
                        .help("raise the first one's `weight` if it is to have a larger share"),
                );
            }
        }
    }

    fn check_backend(&self, index: usize, backend: &Backend, errors: &mut Vec<ConfigError>) {
        let at = |key: &str| ["backends".into(), index.into(), key.into()];
        if let Err(message) = check_unicast(backend.address) {
            errors.push(error(
                at("address"),
                format!("`{}`: {message}", backend.address),
            ));
        }
        if backend.port == Some(0) {
            errors.push(error(at("port"), "port 0 can't be connected to"));
        }
        if let Some(mac) = backend.mac {
            check_mac(mac, at("mac"), errors);
        }
        let Ok(service) = self.service() else { return };
        if service.address.is_ipv4() != backend.address.is_ipv4() {
            let message = format!(
                "`{}` is of another IP version than the virtual address `{}`",
                backend.address, service.address
            );
            errors.push(
                error(at("address"), message)
                    .help("addresses are rewritten within one IP version only"),
            );
        }
        if service.address == backend.address {
            errors.push(error(
                at("address"),
                format!("`{}` is the virtual address itself", backend.address),
            ));
        }
    }

    fn check_numbers(&self, errors: &mut Vec<ConfigError>) {
        if self
            .sessions
            .is_some_and(|sessions| !(1..=MAX_SESSIONS).contains(&sessions))
        {
            let message = format!("the number of sessions must be 1 to {MAX_SESSIONS}");
            errors.push(error(["sessions".into()], message));
        }
        let timeouts = &self.timeouts;
        for (key, seconds) in [
            ("opening", timeouts.opening),
            ("established", timeouts.established),
            ("closing", timeouts.closing),
            ("udp", timeouts.udp),
        ] {
            if !(1..=MAX_TIMEOUT).contains(&seconds) {
                let message = format!("a timeout must be 1 to {MAX_TIMEOUT} seconds");
                errors.push(error(["timeouts".into(), key.into()], message));
            }
        }
    }
}

fn check_mac(mac: Mac, path: impl IntoIterator<Item = PathStep>, errors: &mut Vec<ConfigError>) {
    if mac.0.is_multicast() || mac.0 == packet::Mac::default() {
        errors.push(error(
            path,
            format!("`{}` is not the address of one station", mac.0),
        ));
    }
}

/// [`Timeouts`] as sessions use them, in ticks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticks {
    pub opening: u32,
    pub established: u32,
    pub closing: u32,
    pub udp: u32,
}

impl From<&Timeouts> for Ticks {
    fn from(timeouts: &Timeouts) -> Self {
        let ticks = |seconds: u32| to_ticks(Duration::from_secs(u64::from(seconds)));
        Self {
            opening: ticks(timeouts.opening),
            established: ticks(timeouts.established),
            closing: ticks(timeouts.closing),
            udp: ticks(timeouts.udp),
        }
    }
}

impl Kind for Config {
    fn check(&self) -> Vec<ConfigError> {
        let mut errors = Vec::new();
        self.check_address(&mut errors);
        self.check_backends(&mut errors);
        self.check_numbers(&mut errors);
        for (key, mac) in [("mac", self.mac), ("inside-mac", self.inside_mac)] {
            if let Some(mac) = mac {
                check_mac(mac, [key.into()], &mut errors);
            }
        }
        errors
    }

    fn shape(&self, _name: &str) -> Shape {
        Shape::Inline
    }

    fn claims(&self) -> Vec<Claim> {
        let claim = |service: Service| Claim {
            path: vec!["address".into()],
            prefix: Prefix::host(service.address),
            role: ClaimRole::Virtual,
        };
        self.service().map(claim).into_iter().collect()
    }

    fn compile(&self, site: &Site) -> Result<Box<dyn Blueprint>, Vec<ConfigError>> {
        Ok(Box::new(self.load_balancer(site)?))
    }
}
