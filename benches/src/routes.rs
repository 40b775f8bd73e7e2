//! Routes and destinations for a router alone: a few, or as many as the Internet has.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;

/// Next hops on either side.
pub const NEXT_HOPS: u32 = 32;
/// The directory with data for tests and benchmarks; where it is absent, data of the same shape is generated.
const DATA: (&str, &str) = ("CHAINPLANE_DATA", "../shared/data");
/// Prefixes of the Internet, as many as are generated.
const MANY: usize = 1_070_000;

/// Which routes there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routes {
    /// Few: a peer's tables hold no more than about a thousand.
    Few,
    /// Those of the Internet, nested as they are.
    Internet,
}

/// A side of the router; guest `a` is on the first, `b` on the second.
pub type Side = usize;

/// A route: prefix, its length, and a number that chooses the next hop: its lowest bit the side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The prefix's first address.
    pub first: u32,
    /// The prefix's length.
    pub len: u8,
    /// Chooses the next hop.
    pub choice: u32,
}

impl Route {
    /// Where it leads.
    pub fn side(&self) -> Side {
        (self.choice & 1) as Side
    }

    /// The number of its next hop on that side.
    pub fn next_hop(&self) -> u32 {
        (self.choice >> 1) % NEXT_HOPS
    }

    /// The last address.
    pub fn last(&self) -> u32 {
        self.first | u32::MAX.checked_shr(self.len.into()).unwrap_or(0)
    }
}

/// A small generator of numbers (xorshift64*), the same each time.
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn number(&mut self) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    }
}

impl Routes {
    /// The routes, with a word on where they are from.
    pub fn list(self) -> (Vec<Route>, &'static str) {
        match self {
            Self::Few => (few(), "64 routes"),
            Self::Internet => match from_file() {
                Some(routes) => (routes, "prefixes of the Internet"),
                None => (generated(), "generated prefixes, in the Internet's shape"),
            },
        }
    }
}

/// 32 on either side, from /16 to /24.
fn few() -> Vec<Route> {
    let route = |number: u32| Route {
        first: 0x2000_0000 | number << 20,
        len: 16 + (number % 9) as u8,
        choice: number,
    };
    (0..64).map(route).collect()
}

/// Whether a router takes a route to it: hosts may have such addresses, and our own subnets are elsewhere.
fn is_usable(first: u32, len: u8) -> bool {
    let top = first >> 24;
    len >= 8 && !matches!(top, 0 | 127 | 224..) && first >> 16 != 0xc612 && first >> 16 != 0xc613
}

fn from_file() -> Option<Vec<Route>> {
    let directory = std::env::var_os(DATA.0).map_or_else(
        || {
            PathBuf::from(env!("CARGO_MANIFEST_DIR"))
                .join("..")
                .join(DATA.1)
        },
        PathBuf::from,
    );
    let file = directory.join("prefixes/ipv4.txt.gz");
    let output = Command::new("gzip").arg("-dc").arg(file).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let routes: Vec<_> = text.lines().filter_map(line).collect();
    (routes.len() > MANY / 2).then_some(routes)
}

/// `prefix/len asn`: neighbouring prefixes of one network have one next hop, as they have in real tables.
fn line(line: &str) -> Option<Route> {
    let (prefix, asn) = line.split_once(' ')?;
    let (address, len) = prefix.split_once('/')?;
    let address: Ipv4Addr = address.parse().ok()?;
    let (first, len) = (address.to_bits(), len.parse().ok()?);
    let asn: u32 = asn.trim().parse().ok()?;
    let choice = asn.wrapping_mul(0x9e37_79b1) >> 16;
    is_usable(first, len).then_some(Route { first, len, choice })
}

/// Lengths in the shares that they have in the Internet, nested by chance.
fn generated() -> Vec<Route> {
    let (mut random, mut seen) = (Random(7), std::collections::BTreeMap::new());
    while seen.len() < MANY {
        let len = match random.number() % 100 {
            0..58 => 24,
            58..69 => 22,
            69..79 => 23,
            79..85 => 21,
            85..90 => 20,
            90..94 => 19,
            94..99 => 16 + (random.number() % 3) as u8,
            _ => 8 + (random.number() % 8) as u8,
        };
        let first = random.number() & u32::MAX << (32 - u32::from(len));
        if is_usable(first, len) {
            seen.insert((first, len), random.number());
        }
    }
    seen.into_iter()
        .map(|((first, len), choice)| Route { first, len, choice })
        .collect()
}

/// Random addresses out of the routed space whose longest prefix leads to `side`.
pub fn destinations(routes: &[Route], side: Side, count: usize) -> Vec<u32> {
    let mut sorted = routes.to_vec();
    sorted.sort_by_key(|route| (route.first, route.len));
    let (mut random, mut found) = (Random(11 + side as u64), Vec::with_capacity(count));
    while found.len() < count {
        let route = sorted[random.number() as usize % sorted.len()];
        let hosts = u64::from(route.last() - route.first) + 1;
        let address = route.first + ((u64::from(random.number()) * hosts) >> 32) as u32;
        if longest(&sorted, address).is_some_and(|route| route.side() == side) {
            found.push(address);
        }
    }
    found
}

/// The longest of sorted prefixes that holds an address: the last one that begins before and still does.
fn longest(sorted: &[Route], address: u32) -> Option<&Route> {
    let mut candidates = sorted[..sorted.partition_point(|route| route.first <= address)].iter();
    // Nested prefixes begin no later than what is in them; a gap of many siblings is possible, so all the way back.
    candidates.rfind(|route| route.last() >= address)
}
