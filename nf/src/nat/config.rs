//! The configuration: `nat: { pool: 203.0.113.2, inside: [10.0.0.0/8] }`.

use core::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::collections::HashSet;

use chainplane_dataplane::function::Blueprint;
use chainplane_dataplane::packet;
use schemars::JsonSchema;
use serde::Deserialize;

use super::forward::{Forwards, Static};
use super::pool::{Pool, bounds};
use super::process::Plan;
use crate::config::{
    Claim, ClaimRole, ConfigError, Kind, Mac, OneOrMany, PathStep, Prefix, Shape, Site,
};
use crate::track::{Endpoint, Timeouts, check_sessions};

/// More addresses than one function needs.
const LARGEST_POOL: u64 = 1 << 16;
/// More forwards, and more prefixes in `inside`, than anyone should have to read.
const MOST_FORWARDS: usize = 4096;
const MOST_INSIDE: usize = 1024;

/// A transport protocol with ports.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq, Hash)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Transport {
    fn number(self) -> u8 {
        match self {
            Self::Tcp => packet::protocol::TCP,
            Self::Udp => packet::protocol::UDP,
        }
    }
}

/// A port of the pool that leads to a host inside.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Forward {
    /// TCP or UDP.
    pub protocol: Transport,
    /// The pool's address; the first where absent.
    #[serde(default)]
    pub address: Option<Ipv4Addr>,
    /// The port outside.
    pub port: u16,
    /// The host inside, with its port: `10.0.0.5:22`.
    pub to: SocketAddrV4,
}

/// The configuration: `nat: { pool: 203.0.113.2, inside: [10.0.0.0/8] }`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// IPv4 addresses that inside hosts appear as; at most 65536.
    pub pool: OneOrMany<Prefix>,
    /// Sources to translate; everything from the inside where absent.
    #[serde(default)]
    pub inside: OneOrMany<Prefix>,
    /// Ports of the pool that lead inside.
    #[serde(default)]
    pub forwards: Vec<Forward>,
    /// The link-layer address by which it answers for the pool; made from the function's name where absent.
    #[serde(default)]
    pub mac: Option<Mac>,
    /// Where packets for forwards go, where no router's interface is at the inside.
    #[serde(default)]
    pub inside_mac: Option<Mac>,
    /// Sessions at most; 65536 where absent.
    #[serde(default)]
    pub sessions: Option<u32>,
    /// How long sessions live in silence.
    #[serde(default)]
    pub timeouts: Timeouts,
}

fn at<const N: usize>(path: [PathStep; N], message: impl Into<String>) -> ConfigError {
    ConfigError::at(path, message)
}

impl Config {
    fn check_pool(&self) -> Vec<ConfigError> {
        if self.pool.is_empty() {
            return vec![at(["pool".into()], "an empty pool")];
        }
        let mut errors = Vec::new();
        for (index, prefix) in self.pool.iter().enumerate() {
            let mut wrong = |message: String| {
                errors.push(at(["pool".into(), index.into()], message));
            };
            if prefix.is_ipv6() {
                wrong(format!("`{prefix}` is IPv6; NAT translates IPv4 only"));
            } else if let Some(reserved) = reserved(prefix) {
                wrong(format!("`{prefix}` has {reserved} addresses in it"));
            }
        }
        let sizes = self.pool.iter().filter_map(bounds);
        let size: u64 = sizes.map(|(first, last)| u64::from(last - first) + 1).sum();
        if size > LARGEST_POOL {
            let message = format!("a pool of {size} addresses; at most {LARGEST_POOL}");
            errors.push(at(["pool".into()], message));
        }
        errors.extend(self.check_overlaps());
        errors
    }

    /// Of two prefixes, one holds the other or they share nothing; in order, what overlaps stands side by side.
    fn check_overlaps(&self) -> Vec<ConfigError> {
        let mut order: Vec<_> = self.pool.iter().enumerate().collect();
        order.sort_by_key(|(index, prefix)| (prefix.address(), prefix.len(), *index));
        let pairs = order
            .windows(2)
            .filter(|pair| pair[0].1.overlaps(pair[1].1));
        let error = |pair: &[(usize, &Prefix)]| {
            let later = pair[0].0.max(pair[1].0);
            let message = format!("`{}` overlaps `{}`", pair[0].1, pair[1].1);
            at(["pool".into(), later.into()], message)
        };
        pairs.map(error).collect()
    }

    /// The first address of the pool as it is written.
    fn first_address(&self) -> Option<Ipv4Addr> {
        match self.pool.first()?.address() {
            IpAddr::V4(first) => Some(first),
            IpAddr::V6(_) => None,
        }
    }

    fn check_forwards(&self) -> Vec<ConfigError> {
        let mut errors = Vec::new();
        if self.forwards.len() > MOST_FORWARDS {
            let message = format!("{} forwards; at most {MOST_FORWARDS}", self.forwards.len());
            return vec![at(["forwards".into()], message)];
        }
        let pool = Pool::new(&self.pool);
        let in_pool = |address: Ipv4Addr| pool.contains(address.into());
        let mut seen = HashSet::new();
        for (index, forward) in self.forwards.iter().enumerate() {
            let mut wrong = |key: &str, message: String| {
                errors.push(at(["forwards".into(), index.into(), key.into()], message));
            };
            if let Some(address) = forward.address.filter(|address| !in_pool(*address)) {
                wrong("address", format!("{address} is not in the pool"));
            }
            if forward.port == 0 {
                wrong("port", "port 0 can't be forwarded".into());
            }
            if forward.to.port() == 0 {
                wrong("to", "port 0 can't be forwarded to".into());
            }
            if in_pool(*forward.to.ip()) {
                wrong("to", format!("{} is in the pool itself", forward.to.ip()));
            }
            let host = IpAddr::V4(*forward.to.ip());
            if !self.inside.is_empty() && !self.inside.iter().any(|p| p.contains(host)) {
                wrong(
                    "to",
                    format!("{host} is not in `inside`, so its answers would not be translated"),
                );
            }
            let address = forward.address.or_else(|| self.first_address());
            if !seen.insert((forward.protocol, address, forward.port)) {
                wrong(
                    "port",
                    format!("port {} is forwarded already", forward.port),
                );
            }
        }
        errors
    }

    fn check_macs(&self) -> Vec<ConfigError> {
        let macs = [("mac", self.mac), ("inside-mac", self.inside_mac)];
        let group = macs
            .into_iter()
            .filter_map(|(key, mac)| Some((key, mac?.0)))
            .filter(|(_, mac)| mac.is_multicast() || *mac == packet::Mac::default());
        group
            .map(|(key, mac)| {
                at(
                    [key.into()],
                    format!("{mac} is not the address of one station"),
                )
            })
            .collect()
    }

    fn statics(&self) -> Vec<Static> {
        let first = self.first_address();
        let forwards = self.forwards.iter().filter_map(|forward| {
            Some(Static {
                protocol: forward.protocol.number(),
                outer: Endpoint::new(forward.address.or(first)?, forward.port),
                inner: Endpoint::new(*forward.to.ip(), forward.to.port()),
            })
        });
        forwards.collect()
    }
}

/// What kind of addresses a prefix has that no host can have.
fn reserved(prefix: &Prefix) -> Option<&'static str> {
    let kinds = [
        ("0.0.0.0/8", "unspecified"),
        ("127.0.0.0/8", "loopback"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
    ];
    kinds.into_iter().find_map(|(range, kind)| {
        let range: Prefix = range.parse().ok()?;
        range.overlaps(prefix).then_some(kind)
    })
}

impl Kind for Config {
    fn check(&self) -> Vec<ConfigError> {
        let mut errors = self.check_pool();
        if self.inside.len() > MOST_INSIDE {
            let message = format!("{} prefixes; at most {MOST_INSIDE}", self.inside.len());
            errors.push(at(["inside".into()], message));
            return errors;
        }
        for (index, prefix) in self.inside.iter().enumerate() {
            if prefix.is_ipv6() {
                let message = format!("`{prefix}` is IPv6, which passes NAT untouched");
                errors.push(at(["inside".into(), index.into()], message));
            }
        }
        if errors.is_empty() {
            // They are held against the pool and the inside, which have to be sound for that.
            errors.extend(self.check_forwards());
        }
        errors.extend(self.check_macs());
        errors.extend(check_sessions(self.sessions).err());
        errors.extend(self.timeouts.check());
        errors
    }

    fn shape(&self, _name: &str) -> Shape {
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

    fn compile(&self, site: &Site) -> Result<Box<dyn Blueprint>, Vec<ConfigError>> {
        let mut errors = self.check();
        let inside_mac = self.inside_mac.map(|mac| mac.0).or(site.inside_mac);
        if inside_mac.is_none() && !self.forwards.is_empty() {
            let message = "forwards lead to a link without a router, and so to an unknown station";
            errors.push(at(["forwards".into()], message).help(
                "write the link-layer address of the host or router inside: `inside-mac: \"02:00:00:00:01:05\"`",
            ));
        }
        match check_sessions(self.sessions) {
            Ok(sessions) if errors.is_empty() => Ok(Box::new(Plan {
                pool: Pool::new(&self.pool),
                inside: self.inside.0.clone().into(),
                forwards: Forwards::new(&self.statics()),
                mac: self
                    .mac
                    .map_or_else(|| packet::Mac::local(&site.name), |mac| mac.0),
                inside_mac: inside_mac.unwrap_or_default(),
                sessions,
                timeouts: self.timeouts.ticks(),
            })),
            _ => Err(errors),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, from_value, json};

    /// The paths of what is wrong with a configuration, and the first message.
    fn wrong(config: &Value) -> (Vec<String>, String) {
        let config: Config = from_value(config.clone()).expect("well-formed");
        let step = |step: &PathStep| match step {
            PathStep::Key(key) => key.clone(),
            PathStep::Index(index) => index.to_string(),
        };
        let path = |error: &ConfigError| error.path.iter().map(step).collect::<Vec<_>>().join(".");
        let errors = config.check();
        assert!(errors.is_empty() || config.compile(&Site::default()).is_err());
        let message = errors.first().map(|error| error.message.clone());
        (
            errors.iter().map(path).collect(),
            message.unwrap_or_default(),
        )
    }

    #[test]
    fn good_configurations_are_good() {
        for config in [
            json!({ "pool": "203.0.113.2", "inside": ["10.0.0.0/8"] }),
            json!({ "pool": ["203.0.113.0/24", "198.51.100.1"], "timeouts": { "udp": 120 } }),
            json!({ "pool": "203.0.0.0/16", "inside-mac": "02:00:00:00:00:01", "forwards": [
                { "protocol": "tcp", "port": 22, "to": "10.0.0.1:22" },
                { "protocol": "udp", "port": 22, "to": "10.0.0.1:22" },
                { "protocol": "tcp", "address": "203.0.0.9", "port": 22, "to": "10.0.0.1:22" },
            ] }),
        ] {
            assert_eq!(wrong(&config).0, [""; 0], "{config}");
            let config: Config = from_value(config).unwrap();
            assert!(config.compile(&Site::default()).is_ok());
            assert_eq!(config.claims().len(), config.pool.len());
        }
    }

    #[test]
    fn pools_have_bounds() {
        for (pool, path, part) in [
            (json!([]), "pool", "empty"),
            (json!("2001:db8::/64"), "pool.0", "IPv6"),
            (json!("10.0.0.0/15"), "pool", "131072 addresses"),
            (json!("224.0.0.1"), "pool.0", "multicast"),
            (json!("0.0.0.0"), "pool.0", "unspecified"),
            (json!("255.255.255.255"), "pool.0", "reserved"),
            (
                json!(["203.0.113.9", "198.51.100.1", "203.0.113.8/29"]),
                "pool.2",
                "overlaps",
            ),
            (json!(["203.0.113.9", "203.0.113.9"]), "pool.1", "overlaps"),
        ] {
            let (paths, message) = wrong(&json!({ "pool": pool }));
            assert_eq!(paths, [path], "{pool}");
            assert!(message.contains(part), "{message}");
        }
        assert!(
            wrong(&json!({ "pool": "0.0.0.0/0" }))
                .0
                .contains(&"pool".to_owned())
        );
    }

    #[test]
    fn forwards_and_the_rest_are_checked() {
        let forward = |forward: Value| {
            let config = json!({
                "pool": "203.0.113.2", "inside": "10.0.0.0/8", "inside-mac": "02:00:00:00:00:01",
                "forwards": [{ "protocol": "tcp", "port": 22, "to": "10.0.0.1:22" }, forward],
            });
            wrong(&config).0
        };
        let with = |key: &str, value: Value| {
            let mut forward = json!({ "protocol": "tcp", "port": 23, "to": "10.0.0.1:23" });
            forward[key] = value;
            forward
        };
        assert_eq!(forward(with("port", json!(23))), [""; 0]);
        for (key, value) in [
            ("port", json!(22)),
            ("port", json!(0)),
            ("to", json!("10.0.0.1:0")),
            ("to", json!("192.0.2.1:23")),
            ("address", json!("203.0.113.3")),
        ] {
            assert_eq!(forward(with(key, value)), [format!("forwards.1.{key}")]);
        }
        assert!(forward(with("to", json!("203.0.113.2:23"))).contains(&"forwards.1.to".to_owned()));
        for (key, value) in [
            ("inside", json!("2001:db8::/32")),
            ("mac", json!("01:00:00:00:00:01")),
            ("inside-mac", json!("00:00:00:00:00:00")),
            ("sessions", json!(0)),
            ("timeouts", json!({ "icmp": 0 })),
        ] {
            let mut config = json!({ "pool": "203.0.113.2" });
            config[key] = value;
            let paths = wrong(&config).0;
            assert!(
                paths.len() == 1 && paths[0].starts_with(key),
                "{key}: {paths:?}"
            );
        }
    }
}
