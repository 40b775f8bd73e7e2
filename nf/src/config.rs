//! What the configurations of all functions share: addresses, ranges, errors that know where they belong.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::str::FromStr;
use std::borrow::Cow;

use chainplane_dataplane::function::Blueprint;
use chainplane_dataplane::packet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer};

/// One step from a document's root towards a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathStep {
    /// A mapping's key.
    Key(String),
    /// A sequence's index, from 0.
    Index(usize),
}

impl From<&str> for PathStep {
    fn from(key: &str) -> Self {
        Self::Key(key.to_owned())
    }
}

impl From<String> for PathStep {
    fn from(key: String) -> Self {
        Self::Key(key)
    }
}

impl From<usize> for PathStep {
    fn from(index: usize) -> Self {
        Self::Index(index)
    }
}

/// Something wrong with a configuration, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The way to the offending value, from the function's body.
    pub path: Vec<PathStep>,
    /// What is wrong: one line, lower case, no full stop.
    pub message: String,
    /// What to do about it, if that helps.
    pub help: Option<String>,
}

impl ConfigError {
    /// An error at a path: `ConfigError::at(["rules".into(), 3.into()], "…")`.
    pub fn at(path: impl IntoIterator<Item = PathStep>, message: impl Into<String>) -> Self {
        Self {
            path: path.into_iter().collect(),
            message: message.into(),
            help: None,
        }
    }

    /// With a hint.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// How a function stands in chains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Between two neighbours of one chain; interface 0 is its inside (left), 1 its outside (right).
    Inline,
    /// At the ends of chains.
    Junction {
        /// Its interfaces, in the order of their numbers.
        interfaces: Vec<JunctionInterface>,
        /// Whether packets get older on the way through, so that a loop ends by itself.
        decrements_ttl: bool,
    },
}

/// A junction's interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JunctionInterface {
    /// The word behind the dot in a chain.
    pub name: String,
    /// Its link-layer address, if it has one.
    pub mac: Option<packet::Mac>,
}

/// Addresses that a function takes for itself; two functions may not take the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Where in the function's body it is written.
    pub path: Vec<PathStep>,
    /// The addresses.
    pub prefix: Prefix,
    /// For what.
    pub role: ClaimRole,
}

/// What an address is claimed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimRole {
    /// A router interface's own address.
    Interface,
    /// The subnet behind a router interface.
    Subnet,
    /// Addresses that a NAT translates to.
    Pool,
    /// A load balancer's virtual address.
    Virtual,
}

/// Where a function stands.
#[derive(Clone, Debug, Default)]
pub struct Site {
    /// The user's name for it.
    pub name: String,
    /// For an inline function: the link-layer address of the junction interface at the inner end of its chain, with
    /// only inline functions in between; none if a port is there.
    pub inside_mac: Option<packet::Mac>,
    /// The same for the outer end.
    pub outside_mac: Option<packet::Mac>,
}

/// A function's configuration.
pub trait Kind {
    /// Everything that is wrong with it by itself.
    fn check(&self) -> Vec<ConfigError>;
    /// How it stands in chains; `name` is the user's name for it.
    fn shape(&self, name: &str) -> Shape;
    /// Addresses it takes for itself.
    fn claims(&self) -> Vec<Claim> {
        Vec::new()
    }
    /// Compiles it.
    ///
    /// # Errors
    /// What does not fit where it stands.
    fn compile(&self, site: &Site) -> Result<Box<dyn Blueprint>, Vec<ConfigError>>;
}

/// Implements `Deserialize` and `JsonSchema` for a type written as text in YAML.
macro_rules! text_type {
    ($type:ty, $name:literal, $pattern:literal, $example:literal) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = Cow::<'_, str>::deserialize(deserializer)?;
                text.parse().map_err(|error| de::Error::custom(format!("`{text}`: {error}")))
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern, "examples": [$example] })
            }
        }
    };
}

/// An Ethernet address: `02:00:00:00:01:01`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mac(pub packet::Mac);

impl FromStr for Mac {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

text_type!(
    Mac,
    "Mac",
    "^[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}$",
    "02:00:00:00:01:01"
);

/// An address prefix, `10.0.0.0/8`, host bits zero; an address without a length is a prefix of one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    address: IpAddr,
    len: u8,
}

impl Prefix {
    /// A prefix; host bits of `address` are cleared. `None` if `len` is longer than the address.
    pub fn new(address: IpAddr, len: u8) -> Option<Self> {
        if len > width(address) {
            return None;
        }
        Some(Self {
            address: mask(address, len),
            len,
        })
    }

    /// A prefix of one address.
    pub fn host(address: IpAddr) -> Self {
        Self {
            address,
            len: width(address),
        }
    }

    /// Its lowest address.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Its length in bits.
    pub fn len(&self) -> u8 {
        self.len
    }

    /// Whether it covers every address of its family.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether it is IPv6.
    pub fn is_ipv6(&self) -> bool {
        self.address.is_ipv6()
    }

    /// Whether `address` lies inside.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.is_ipv6() == address.is_ipv6() && mask(address, self.len) == self.address
    }

    /// Whether the two share an address.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.address) || other.contains(self.address)
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn mask(address: IpAddr, len: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX
                .checked_shl(32 - u32::from(len.min(32)))
                .unwrap_or(0);
            Ipv4Addr::from_bits(v4.to_bits() & mask).into()
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX
                .checked_shl(128 - u32::from(len.min(128)))
                .unwrap_or(0);
            Ipv6Addr::from_bits(v6.to_bits() & mask).into()
        }
    }
}

fn split_len(text: &str) -> Result<(IpAddr, Option<u8>), &'static str> {
    let (address, len) = match text.split_once('/') {
        Some((address, len)) => (
            address,
            Some(
                len.parse()
                    .map_err(|_| "the length behind `/` is not a number")?,
            ),
        ),
        None => (text, None),
    };
    let address: IpAddr = address.parse().map_err(|_| "not an IPv4 or IPv6 address")?;
    match len {
        Some(len) if len > width(address) => {
            Err("the length behind `/` is longer than the address")
        }
        len => Ok((address, len)),
    }
}

impl FromStr for Prefix {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (address, len) = split_len(text)?;
        let len = len.unwrap_or(width(address));
        if mask(address, len) != address {
            return Err("bits are set behind the prefix's length");
        }
        Ok(Self { address, len })
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.len == width(self.address) {
            self.address.fmt(f)
        } else {
            write!(f, "{}/{}", self.address, self.len)
        }
    }
}

text_type!(
    Prefix,
    "Prefix",
    "^[0-9a-fA-F.:]+(/[0-9]{1,3})?$",
    "10.0.0.0/8"
);

/// An interface's own address with the length of its subnet: `10.0.1.1/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InterfaceAddress {
    /// The address.
    pub address: IpAddr,
    /// The subnet's length in bits.
    pub len: u8,
}

impl InterfaceAddress {
    /// The subnet that the address is in.
    pub fn subnet(&self) -> Prefix {
        Prefix {
            address: mask(self.address, self.len),
            len: self.len,
        }
    }
}

impl FromStr for InterfaceAddress {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (address, len) = split_len(text)?;
        let len =
            len.ok_or("expected an address with the length of its subnet, like 10.0.1.1/24")?;
        Ok(Self { address, len })
    }
}

impl fmt::Display for InterfaceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.len)
    }
}

text_type!(
    InterfaceAddress,
    "InterfaceAddress",
    "^[0-9a-fA-F.:]+/[0-9]{1,3}$",
    "10.0.1.1/24"
);

/// A list in YAML of which a single item may be written without brackets: `ports: 80`, `ports: [80, 443]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OneOrMany<T>(pub Vec<T>);

impl<T> Default for OneOrMany<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> core::ops::Deref for OneOrMany<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<T>(core::marker::PhantomData<T>);

        impl<'de, T: Deserialize<'de>> de::Visitor<'de> for Visitor<T> {
            type Value = OneOrMany<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value or a list of values")
            }

            fn visit_seq<A: de::SeqAccess<'de>>(
                self,
                mut items: A,
            ) -> Result<Self::Value, A::Error> {
                let mut many = Vec::new();
                while let Some(item) = items.next_element()? {
                    many.push(item);
                }
                Ok(OneOrMany(many))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                T::deserialize(de::value::StrDeserializer::new(text))
                    .map(|one| OneOrMany(vec![one]))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
                T::deserialize(de::value::U64Deserializer::new(number))
                    .map(|one| OneOrMany(vec![one]))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Self::Value, E> {
                T::deserialize(de::value::I64Deserializer::new(number))
                    .map(|one| OneOrMany(vec![one]))
            }
        }

        deserializer.deserialize_any(Visitor(core::marker::PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for OneOrMany<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("OneOrMany{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [one, { "type": "array", "items": one }] })
    }
}

/// A range of ports, both ends included: `443` or `"8000-8080"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortRange {
    /// The lowest.
    pub first: u16,
    /// The highest.
    pub last: u16,
}

impl PortRange {
    /// Whether `port` lies inside.
    pub fn contains(&self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

impl FromStr for PortRange {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WANTED: &str = "expected a port from 0 to 65535, or a range like 8000-8080";
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let number = |text: &str| text.trim().parse::<u16>().map_err(|_| WANTED);
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            Err("the range's first port is above its last")
        } else {
            Ok(Self { first, last })
        }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            self.first.fmt(f)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

impl<'de> Deserialize<'de> for PortRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = PortRange;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a port from 0 to 65535, or a range like \"8000-8080\"")
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<PortRange, E> {
                let port = u16::try_from(number)
                    .map_err(|_| E::invalid_value(de::Unexpected::Unsigned(number), &self))?;
                Ok(PortRange {
                    first: port,
                    last: port,
                })
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<PortRange, E> {
                u64::try_from(number)
                    .map_err(|_| E::invalid_value(de::Unexpected::Signed(number), &self))
                    .and_then(|number| self.visit_u64(number))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<PortRange, E> {
                text.parse()
                    .map_err(|error| E::custom(format!("`{text}`: {error}")))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for PortRange {
    fn schema_name() -> Cow<'static, str> {
        "PortRange".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            { "type": "integer", "minimum": 0, "maximum": 65535 },
            { "type": "string", "pattern": "^[0-9]{1,5}(-[0-9]{1,5})?$" }
        ] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_parse_print_and_contain() {
        let net: Prefix = "10.0.0.0/8".parse().unwrap();
        assert!(net.contains("10.255.0.1".parse().unwrap()));
        assert!(!net.contains("11.0.0.0".parse().unwrap()));
        assert!(!net.contains("::1".parse().unwrap()));
        assert_eq!(net.to_string(), "10.0.0.0/8");
        assert_eq!(
            "192.0.2.1".parse::<Prefix>().unwrap().to_string(),
            "192.0.2.1"
        );
        let all: Prefix = "::/0".parse().unwrap();
        assert!(all.contains("2001:db8::1".parse().unwrap()));
        for bad in [
            "10.0.0.1/8",
            "10.0.0.0/33",
            "10.0.0/8",
            "x",
            "::1/129",
            "1.2.3.4/",
        ] {
            assert!(bad.parse::<Prefix>().is_err(), "{bad}");
        }
    }

    #[test]
    fn port_ranges_parse() {
        assert_eq!(
            "80".parse(),
            Ok(PortRange {
                first: 80,
                last: 80
            })
        );
        assert_eq!(
            "8000-8080".parse(),
            Ok(PortRange {
                first: 8000,
                last: 8080
            })
        );
        for bad in ["", "-", "80-", "9-8", "65536", "http"] {
            assert!(bad.parse::<PortRange>().is_err(), "{bad}");
        }
    }
}
