//! Firewall: lets through what its rules allow, and the answers to it.

use chainplane_dataplane::function::Blueprint;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::{ConfigError, Kind, OneOrMany, PortRange, Prefix, Shape, Site};

/// What a rule, or the default, does.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Let it through.
    Allow,
    /// Drop it without a word.
    Drop,
}

/// What happens to a packet that no rule matches.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Default {
    /// From the inside to the outside.
    pub outbound: Action,
    /// From the outside to the inside.
    pub inbound: Action,
}

/// The configuration: `firewall: { default: …, rules: … }`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// Where no rule matches.
    pub default: Default,
    /// In order; the first that matches decides.
    #[serde(default)]
    pub rules: Vec<Rule>,
    /// Sessions at most.
    #[serde(default)]
    pub sessions: Option<u32>,
}

/// A direction along the chain.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Left to right.
    Outbound,
    /// Right to left.
    Inbound,
}

/// What a rule is about.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Any IP packet.
    Any,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP, and `ICMPv6` on IPv6.
    Icmp,
}

/// One rule: `{ allow: tcp, direction: inbound, to: 203.0.113.10, ports: [80, 443] }`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Rule {
    /// Lets this protocol through.
    #[serde(default)]
    pub allow: Option<Protocol>,
    /// Drops this protocol.
    #[serde(default)]
    pub drop: Option<Protocol>,
    /// One direction; both where absent.
    #[serde(default)]
    pub direction: Option<Direction>,
    /// Source prefixes; any where absent.
    #[serde(default)]
    pub from: OneOrMany<Prefix>,
    /// Destination prefixes; any where absent.
    #[serde(default)]
    pub to: OneOrMany<Prefix>,
    /// Destination ports; any where absent.
    #[serde(default)]
    pub ports: OneOrMany<PortRange>,
    /// Source ports; any where absent.
    #[serde(default)]
    pub source_ports: OneOrMany<PortRange>,
    /// ICMP types; any where absent.
    #[serde(default)]
    pub icmp_types: OneOrMany<u8>,
}

impl Kind for Config {
    fn check(&self) -> Vec<ConfigError> {
        Vec::new()
    }

    fn shape(&self, name: &str) -> Shape {
        let _ = name;
        Shape::Inline
    }

    fn compile(&self, _site: &Site) -> Result<Box<dyn Blueprint>, Vec<ConfigError>> {
        Err(vec![ConfigError::at([], "this function is not built yet")])
    }
}
