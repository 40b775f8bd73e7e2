//! The router's configuration and how it is compiled.

use core::net::IpAddr;
use std::collections::BTreeMap;
use std::sync::Arc;

use chainplane_dataplane::function::{self, Blueprint};
use chainplane_dataplane::packet;
use schemars::JsonSchema;
use serde::Deserialize;

use super::check;
use super::process::RouterBlueprint;
use super::tables::{CompiledRoute, Link, StaticNeighbour, Tables};
use crate::config::{
    Claim, ClaimRole, ConfigError, InterfaceAddress, JunctionInterface, Kind, Mac, OneOrMany,
    Prefix, Shape, Site,
};

/// Where the configuration says nothing (RFC 894, RFC 2464).
const DEFAULT_MTU: u16 = 1500;

/// One interface.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Interface {
    /// Its addresses, each with its subnet's length.
    pub address: OneOrMany<InterfaceAddress>,
    /// Its link-layer address; made from its name where absent.
    #[serde(default)]
    pub mac: Option<Mac>,
    /// The longest IP packet it sends, in bytes: 576 or more, with IPv6 1280 or more; 1500 where absent.
    #[serde(default)]
    pub mtu: Option<u16>,
    /// Neighbours whose link-layer address is fixed.
    #[serde(default)]
    pub neighbours: BTreeMap<IpAddr, Mac>,
}

/// One route.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Destinations.
    pub to: Prefix,
    /// The next hop, in one of the interfaces' subnets.
    pub via: IpAddr,
}

/// The configuration: `router: { interfaces: …, routes: … }`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// By name.
    pub interfaces: BTreeMap<String, Interface>,
    /// Beside the interfaces' own subnets.
    #[serde(default)]
    pub routes: Vec<Route>,
}

impl Config {
    fn mac(&self, function: &str, interface: &str) -> packet::Mac {
        let configured = self
            .interfaces
            .get(interface)
            .and_then(|interface| interface.mac);
        configured.map_or_else(
            || packet::Mac::local(&format!("{function}.{interface}")),
            |mac| mac.0,
        )
    }

    /// The compiled tables of a router of this name.
    pub(super) fn tables(&self, name: &str) -> Tables {
        let links: Vec<_> = self
            .interfaces
            .iter()
            .map(|(interface, config)| {
                let mtu = config.mtu.unwrap_or(DEFAULT_MTU);
                Link::new(self.mac(name, interface), mtu, config.address.0.clone())
            })
            .collect();
        let numbered = || (0..).map(function::Interface);
        let routes: Vec<_> = self
            .routes
            .iter()
            .filter_map(|route| {
                let mut links = numbered().zip(&links);
                let (interface, _) = links.find(|(_, link)| link.is_neighbour(route.via))?;
                Some(CompiledRoute {
                    to: route.to,
                    interface,
                    via: route.via,
                })
            })
            .collect();
        let neighbours = numbered()
            .zip(self.interfaces.values())
            .flat_map(|(interface, config)| {
                config
                    .neighbours
                    .iter()
                    .map(move |(address, mac)| StaticNeighbour {
                        interface,
                        address: *address,
                        mac: mac.0,
                    })
            })
            .collect();
        Tables::new(links, &routes, neighbours)
    }
}

impl Kind for Config {
    fn check(&self) -> Vec<ConfigError> {
        check::check(self)
    }

    fn shape(&self, name: &str) -> Shape {
        let interface = |interface: &String| JunctionInterface {
            name: interface.clone(),
            mac: Some(self.mac(name, interface)),
        };
        Shape::Junction {
            interfaces: self.interfaces.keys().map(interface).collect(),
            decrements_ttl: true,
        }
    }

    fn claims(&self) -> Vec<Claim> {
        let mut claims = Vec::new();
        for (name, interface) in &self.interfaces {
            for (index, address) in interface.address.iter().enumerate() {
                let path = vec![
                    "interfaces".into(),
                    name.as_str().into(),
                    "address".into(),
                    index.into(),
                ];
                let own = Prefix::host(address.address);
                claims.push(Claim {
                    path: path.clone(),
                    prefix: own,
                    role: ClaimRole::Interface,
                });
                claims.push(Claim {
                    path,
                    prefix: address.subnet(),
                    role: ClaimRole::Subnet,
                });
            }
        }
        claims
    }

    fn compile(&self, site: &Site) -> Result<Box<dyn Blueprint>, Vec<ConfigError>> {
        let errors = self.check();
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(Box::new(RouterBlueprint(Arc::new(self.tables(&site.name)))))
    }
}
