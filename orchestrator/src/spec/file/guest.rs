//! Embedded guests: what they are and what they do.

use std::net::{IpAddr, SocketAddr};

use chainplane_dataplane::packet;
use chainplane_nf::config::{InterfaceAddress, Mac, OneOrMany};
use schemars::JsonSchema;
use serde::Deserialize;

/// A guest inside this process.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct EmbeddedGuest {
    /// Its address with prefix length, or several.
    pub address: OneOrMany<InterfaceAddress>,
    /// Its default gateway, or one of IPv4 and one of IPv6.
    #[serde(default)]
    pub gateway: OneOrMany<IpAddr>,
    /// Its MAC address; made from the port's name without it.
    pub mac: Option<Mac>,
    /// TCP ports on which it answers: one line with its name and the client's address, then as
    /// many bytes as the request asks for.
    #[serde(default)]
    pub serve: Vec<u16>,
    /// What it does, one after the other; then it only serves.
    #[serde(default)]
    pub tasks: Vec<Task>,
}

impl EmbeddedGuest {
    /// The MAC address of the guest at the port `name`.
    pub fn mac(&self, name: &str) -> packet::Mac {
        self.mac
            .map_or_else(|| packet::Mac::local(name), |mac| mac.0)
    }
}

/// One thing that an embedded guest does.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum Task {
    /// ICMP echo requests.
    Ping(Ping),
    /// TCP connections to a guest that serves.
    Fetch(Fetch),
}

/// What should become of a ping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Reached {
    /// Every request is answered.
    #[default]
    Answered,
    /// None is.
    Unanswered,
}

/// What should become of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Expected {
    /// Every one is answered in full.
    #[default]
    Answered,
    /// None comes about.
    Denied,
}

fn thrice() -> u32 {
    3
}

fn once() -> u32 {
    1
}

fn one_kib() -> u64 {
    1024
}

/// ICMP echo requests.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Ping {
    /// Whom.
    pub to: IpAddr,
    /// How many.
    #[serde(default = "thrice")]
    #[schemars(range(min = 1, max = 100_000))]
    pub count: u32,
    /// Milliseconds from the start of one to the start of the next, at least; one follows the other
    /// without it.
    #[serde(default)]
    #[schemars(range(min = 0, max = 60_000))]
    pub interval_ms: u32,
    /// What should become of them.
    #[serde(default)]
    pub expect: Reached,
}

/// TCP connections, one after the other.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Fetch {
    /// Address and port, as `203.0.113.10:80`.
    #[schemars(with = "String")]
    pub from: SocketAddr,
    /// How many.
    #[serde(default = "once")]
    #[schemars(range(min = 1, max = 100_000))]
    pub count: u32,
    /// Bytes that each asks for.
    #[serde(default = "one_kib")]
    #[schemars(range(min = 1, max = 1_073_741_824))]
    pub bytes: u64,
    /// Milliseconds from the start of one to the start of the next, at least; one follows the other
    /// without it.
    #[serde(default)]
    #[schemars(range(min = 0, max = 60_000))]
    pub interval_ms: u32,
    /// What should become of them.
    #[serde(default)]
    pub expect: Expected,
    /// Embedded guests of which each shall have served at least one of them.
    #[serde(default)]
    pub served_by: OneOrMany<String>,
    /// The address that servers shall see them come from.
    #[serde(default)]
    pub seen_as: Option<IpAddr>,
}
