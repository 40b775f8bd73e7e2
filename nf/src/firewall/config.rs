//! The configuration: `firewall: { default: …, rules: … }`.

use core::fmt;
use std::borrow::Cow;

use chainplane_dataplane::function::Blueprint;
use chainplane_dataplane::packet::protocol;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{self, Deserializer};

use super::process;
use super::rules::Rules;
use crate::config::{ConfigError, Kind, OneOrMany, PathStep, PortRange, Prefix, Shape, Site};
use crate::track::{Timeouts, check_sessions};

/// More rules than anyone should have to read; the look-up is linear.
const MOST_RULES: usize = 4096;

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
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Defaults {
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
    pub default: Defaults,
    /// In order; the first that matches decides. At most 4096.
    #[serde(default)]
    pub rules: Vec<Rule>,
    /// Sessions at most; 65536 where absent.
    #[serde(default)]
    pub sessions: Option<u32>,
    /// How long sessions live in silence.
    #[serde(default)]
    pub timeouts: Timeouts,
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

/// What a rule is about: `any`, `tcp`, `udp`, `icmp`, or an IP protocol's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Any IP packet.
    Any,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP, and `ICMPv6` on IPv6.
    Icmp,
    /// Another protocol, by its number in the IP header (behind IPv6 extension headers).
    Number(u8),
}

impl Protocol {
    fn has_ports(self) -> bool {
        matches!(self, Self::Tcp | Self::Udp)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Tcp => f.write_str("tcp"),
            Self::Udp => f.write_str("udp"),
            Self::Icmp => f.write_str("icmp"),
            Self::Number(number) => write!(f, "protocol {number}"),
        }
    }
}

impl<'de> Deserialize<'de> for Protocol {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = Protocol;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`any`, `tcp`, `udp`, `icmp` or a protocol number from 0 to 255")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Protocol, E> {
                match text {
                    "any" => Ok(Protocol::Any),
                    "tcp" => Ok(Protocol::Tcp),
                    "udp" => Ok(Protocol::Udp),
                    "icmp" => Ok(Protocol::Icmp),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Protocol, E> {
                match u8::try_from(number) {
                    Ok(protocol::TCP) => Ok(Protocol::Tcp),
                    Ok(protocol::UDP) => Ok(Protocol::Udp),
                    Ok(number) => Ok(Protocol::Number(number)),
                    Err(_) => Err(E::invalid_value(de::Unexpected::Unsigned(number), &self)),
                }
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Protocol, E> {
                u64::try_from(number)
                    .map_err(|_| E::invalid_value(de::Unexpected::Signed(number), &self))
                    .and_then(|number| self.visit_u64(number))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for Protocol {
    fn schema_name() -> Cow<'static, str> {
        "Protocol".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            { "enum": ["any", "tcp", "udp", "icmp"] },
            { "type": "integer", "minimum": 0, "maximum": 255 }
        ] })
    }
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

impl Rule {
    /// What it does, and to which protocol; `None` unless it says exactly one of `allow` and `drop`.
    pub(super) fn decision(&self) -> Option<(Action, Protocol)> {
        match (self.allow, self.drop) {
            (Some(protocol), None) => Some((Action::Allow, protocol)),
            (None, Some(protocol)) => Some((Action::Drop, protocol)),
            _ => None,
        }
    }

    fn check(&self, index: usize) -> Vec<ConfigError> {
        let at = |key: &str, message: String| {
            let path: [PathStep; 3] = ["rules".into(), index.into(), key.into()];
            ConfigError::at(path, message)
        };
        let whole = |message: &str| ConfigError::at(["rules".into(), index.into()], message);
        let Some((_, protocol)) = self.decision() else {
            return vec![match self.allow {
                Some(_) => at("drop", "a rule says `allow` or `drop`, not both".into()),
                None => whole("the rule says neither `allow` nor `drop`")
                    .help("write `allow: tcp`, `drop: any` or the like"),
            }];
        };
        let mut errors = Vec::new();
        for (key, ports) in [("ports", &self.ports), ("source-ports", &self.source_ports)] {
            if !ports.is_empty() && !protocol.has_ports() {
                errors.push(
                    at(key, format!("`{protocol}` has no ports"))
                        .help("only `tcp` and `udp` have; write a rule for each"),
                );
            }
        }
        if !self.icmp_types.is_empty() && protocol != Protocol::Icmp {
            errors.push(at(
                "icmp-types",
                format!("`{protocol}` has no ICMP types; only `icmp` has"),
            ));
        }
        let prefixes = || self.from.iter().chain(self.to.iter());
        if prefixes().any(Prefix::is_ipv6) && !prefixes().all(Prefix::is_ipv6) {
            errors.push(
                whole("the rule's prefixes are of both IPv4 and IPv6")
                    .help("write one rule for each"),
            );
        }
        errors
    }
}

impl Kind for Config {
    fn check(&self) -> Vec<ConfigError> {
        let mut errors: Vec<_> = self
            .rules
            .iter()
            .enumerate()
            .flat_map(|(index, rule)| rule.check(index))
            .collect();
        if self.rules.len() > MOST_RULES {
            let message = format!("{} rules; at most {MOST_RULES}", self.rules.len());
            errors.push(ConfigError::at(["rules".into()], message));
        }
        errors.extend(check_sessions(self.sessions).err());
        errors.extend(self.timeouts.check());
        errors
    }

    fn shape(&self, _name: &str) -> Shape {
        Shape::Inline
    }

    fn compile(&self, _site: &Site) -> Result<Box<dyn Blueprint>, Vec<ConfigError>> {
        let errors = self.check();
        match check_sessions(self.sessions) {
            Ok(sessions) if errors.is_empty() => Ok(Box::new(process::Plan {
                rules: Rules::compile(self),
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

    fn with_rules(rules: &Value) -> Config {
        let default = json!({ "outbound": "allow", "inbound": "drop" });
        from_value(json!({ "default": default, "rules": rules })).expect("well-formed")
    }

    /// The paths of what is wrong with a configuration.
    fn wrong(config: &Config) -> Vec<String> {
        let step = |step: &PathStep| match step {
            PathStep::Key(key) => key.clone(),
            PathStep::Index(index) => index.to_string(),
        };
        let path = |error: &ConfigError| error.path.iter().map(step).collect::<Vec<_>>().join(".");
        let errors = config.check();
        assert_eq!(
            config.compile(&Site::default()).is_err(),
            !errors.is_empty()
        );
        errors.iter().map(path).collect()
    }

    #[test]
    fn good_rules_are_good() {
        let config = with_rules(&json!([
            { "allow": "tcp", "direction": "inbound", "to": "203.0.113.10", "ports": [80, 443, "8000-8080"] },
            { "drop": "udp", "from": ["10.0.0.0/8", "192.0.2.1"], "source-ports": 53 },
            { "allow": "icmp", "from": "2001:db8::/32", "icmp-types": [128] },
            { "drop": 47 },
            { "allow": 6, "ports": 22 },
            { "allow": "any" },
        ]));
        assert_eq!(wrong(&config), [""; 0]);
        assert_eq!(config.rules[4].allow, Some(Protocol::Tcp));
    }

    #[test]
    fn every_mistake_is_told_where_it_is() {
        let config = with_rules(&json!([
            { "ports": 80 },
            { "allow": "tcp", "drop": "tcp" },
            { "allow": "icmp", "ports": 80 },
            { "allow": "any", "source-ports": 80 },
            { "drop": "tcp", "icmp-types": 8 },
            { "drop": 1, "icmp-types": 8 },
            { "allow": "any", "from": "10.0.0.0/8", "to": "2001:db8::1" },
        ]));
        let expected = [
            "rules.0",
            "rules.1.drop",
            "rules.2.ports",
            "rules.3.source-ports",
            "rules.4.icmp-types",
            "rules.5.icmp-types",
            "rules.6",
        ];
        assert_eq!(wrong(&config), expected);
    }

    #[test]
    fn sizes_and_times_have_bounds() {
        let mut config = with_rules(&json!([]));
        for sessions in [0, u32::MAX] {
            config.sessions = Some(sessions);
            assert_eq!(wrong(&config), ["sessions"]);
        }
        config.sessions = None;
        (config.timeouts.udp, config.timeouts.tcp_established) = (0, u32::MAX);
        assert_eq!(wrong(&config), ["timeouts.tcp-established", "timeouts.udp"]);
        config.timeouts = Timeouts::default();
        let rule = with_rules(&json!([{ "allow": "any" }])).rules.remove(0);
        config.rules = vec![rule; MOST_RULES + 1];
        assert_eq!(wrong(&config), ["rules"]);
    }

    #[test]
    fn unknown_words_are_refused() {
        for rule in [
            json!({ "allow": "sctp" }),
            json!({ "allow": 256 }),
            json!({ "allow": -1 }),
            json!({ "allow": "tcp", "port": 80 }),
            json!({ "allow": "tcp", "ports": "80-79" }),
            json!({ "allow": "icmp", "icmp-types": 300 }),
            json!({ "allow": "tcp", "direction": "up" }),
        ] {
            assert!(from_value::<Rule>(rule.clone()).is_err(), "{rule}");
        }
        assert!(from_value::<Timeouts>(json!({ "tcp": 5 })).is_err());
    }
}
