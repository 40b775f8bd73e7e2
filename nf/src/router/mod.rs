//! Router: forwards between its interfaces by destination address.

use std::collections::BTreeMap;

use chainplane_dataplane::function::Blueprint;
use chainplane_dataplane::packet;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::{
    Claim, ClaimRole, ConfigError, InterfaceAddress, JunctionInterface, Kind, Mac, OneOrMany,
    Prefix, Shape, Site,
};

/// One interface.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Interface {
    /// Its addresses, each with its subnet's length.
    pub address: OneOrMany<InterfaceAddress>,
    /// Its link-layer address; made from its name where absent.
    #[serde(default)]
    pub mac: Option<Mac>,
    /// The longest IP packet it sends, in bytes; 1500 where absent.
    #[serde(default)]
    pub mtu: Option<u16>,
    /// Neighbours whose link-layer address is fixed.
    #[serde(default)]
    pub neighbours: BTreeMap<core::net::IpAddr, Mac>,
}

/// One route.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Destinations.
    pub to: Prefix,
    /// The next hop, in one of the interfaces' subnets.
    pub via: core::net::IpAddr,
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
}

impl Kind for Config {
    fn check(&self) -> Vec<ConfigError> {
        Vec::new()
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

    fn compile(&self, _site: &Site) -> Result<Box<dyn Blueprint>, Vec<ConfigError>> {
        Err(vec![ConfigError::at([], "this function is not built yet")])
    }
}
