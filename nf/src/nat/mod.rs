//! NAT: lets many hosts inside share few addresses outside.

use chainplane_dataplane::function::Blueprint;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::{Claim, ClaimRole, ConfigError, Kind, Mac, OneOrMany, Prefix, Shape, Site};

/// A transport protocol with ports.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A port of the pool that leads to a host inside.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Forward {
    /// TCP or UDP.
    pub protocol: Transport,
    /// The pool's address; the first where absent.
    #[serde(default)]
    pub address: Option<core::net::Ipv4Addr>,
    /// The port outside.
    pub port: u16,
    /// The host inside, with its port: `10.0.0.5:22`.
    pub to: core::net::SocketAddrV4,
}

/// The configuration: `nat: { pool: 203.0.113.2, inside: [10.0.0.0/8] }`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// Addresses that inside hosts appear as.
    pub pool: OneOrMany<Prefix>,
    /// Sources to translate; everything from the inside where absent.
    #[serde(default)]
    pub inside: OneOrMany<Prefix>,
    /// Ports of the pool that lead inside.
    #[serde(default)]
    pub forwards: Vec<Forward>,
    /// The link-layer address by which it answers for the pool.
    #[serde(default)]
    pub mac: Option<Mac>,
    /// Where packets for forwards go, where no router's interface is at the inside.
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
        let claim = |(index, prefix): (usize, &Prefix)| Claim {
            path: vec!["pool".into(), index.into()],
            prefix: *prefix,
            role: ClaimRole::Pool,
        };
        self.pool.iter().enumerate().map(claim).collect()
    }

    fn compile(&self, _site: &Site) -> Result<Box<dyn Blueprint>, Vec<ConfigError>> {
        Err(vec![ConfigError::at([], "this function is not built yet")])
    }
}
