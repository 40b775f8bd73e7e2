//! Load balancer: spreads connections to one address over many servers.

use chainplane_dataplane::function::Blueprint;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::{Claim, ClaimRole, ConfigError, Kind, Mac, Prefix, Shape, Site};

/// One server.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Backend {
    /// Its address.
    pub address: core::net::IpAddr,
    /// Its port; the virtual address's where absent.
    #[serde(default)]
    pub port: Option<u16>,
    /// Its share of connections, against the others'; 0 takes no new ones.
    #[serde(default)]
    pub weight: Option<u16>,
}

/// The configuration: `load-balancer: { address: "203.0.113.10:80/tcp", backends: [{ address: 10.0.1.11 }] }`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// The virtual address: `ADDRESS:PORT/tcp` or `/udp`; an IPv6 address in brackets.
    pub address: String,
    /// The servers.
    pub backends: Vec<Backend>,
    /// The link-layer address by which it answers for the virtual address.
    #[serde(default)]
    pub mac: Option<Mac>,
    /// Where packets for servers go, where no router's interface is at the inside.
    #[serde(default)]
    pub inside_mac: Option<Mac>,
    /// Sessions at most.
    #[serde(default)]
    pub sessions: Option<u32>,
}

impl Kind for Config {
    fn check(&self) -> Vec<ConfigError> {
        Vec::new()
    }

    fn shape(&self, name: &str) -> Shape {
        let _ = name;
        Shape::Inline
    }

    fn claims(&self) -> Vec<Claim> {
        let address = self
            .address
            .rsplit_once(':')
            .and_then(|(address, _)| address.trim_matches(['[', ']']).parse().ok());
        let claim = |address| Claim {
            path: vec!["address".into()],
            prefix: Prefix::host(address),
            role: ClaimRole::Virtual,
        };
        address.map(claim).into_iter().collect()
    }

    fn compile(&self, _site: &Site) -> Result<Box<dyn Blueprint>, Vec<ConfigError>> {
        Err(vec![ConfigError::at([], "this function is not built yet")])
    }
}
