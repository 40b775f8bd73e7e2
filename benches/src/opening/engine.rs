//! The engine with its chains.

use chainplane_dataplane::crew::{Owners, Share};
use chainplane_dataplane::engine::{Engine, Hop};
use chainplane_dataplane::flow::FlowTable;
use chainplane_dataplane::function::{Blueprint, Build, Function, INSIDE, Interface, OUTSIDE};
use chainplane_dataplane::objects::Objects;
use chainplane_dataplane::packet::{HugePages, Pool, PoolConfig};
use chainplane_nf::FunctionConfig;
use chainplane_nf::config::{Shape, Site};
use serde_json::{Value, json};

use super::{Kind, Size};

/// Functions of a chain.
const FUNCTIONS: u16 = 4;
/// Backends of a load balancer, and further routes of a router, where there is a crowd.
const CROWD_BACKENDS: u16 = 512;
const CROWD_ROUTES: u16 = 10_000;

fn config(value: Value) -> FunctionConfig {
    let config: FunctionConfig = serde_json::from_value(value).expect("a configuration");
    let errors = config.check();
    assert!(errors.is_empty(), "{errors:?}");
    config
}

/// A server behind the load balancer.
fn backend(kind: Kind, number: u16) -> Value {
    let [more, last] = [number / 240, number % 240 + 11];
    let address = if kind.ipv6 {
        format!("fd00:1::{more}:{last}")
    } else {
        format!("10.1.{}.{last}", more + 1)
    };
    json!({ "address": address })
}

/// Router, load balancer, NAT and firewall, from inside to outside.
fn functions(kind: Kind, size: Size, crowd: bool) -> [(&'static str, FunctionConfig); 4] {
    let Size {
        sessions, timeout, ..
    } = size;
    let tcp = kind.protocol == chainplane_dataplane::packet::protocol::TCP;
    let at = std::net::SocketAddr::new(kind.service(), 80);
    let service = format!("{at}/{}", if tcp { "tcp" } else { "udp" });
    let timeouts = json!({
        "tcp-established": timeout, "tcp-transitory": timeout, "udp": timeout, "icmp": timeout
    });
    let balanced =
        json!({ "opening": timeout, "established": timeout, "closing": timeout, "udp": timeout });
    let backends = 0..if crowd { CROWD_BACKENDS } else { 4 };
    let backends: Vec<Value> = backends.map(|number| backend(kind, number)).collect();
    let mut routes = vec![
        json!({ "to": "10.0.0.0/8", "via": "10.0.1.2" }),
        json!({ "to": "0.0.0.0/0", "via": "198.51.100.2" }),
        json!({ "to": "fd00::/16", "via": "fd00:9::2" }),
        json!({ "to": "::/0", "via": "2001:db8:9::2" }),
    ];
    let more = 0..if crowd { CROWD_ROUTES } else { 0 };
    routes.extend(more.map(|n| {
        let to = format!("20.{}.{}.0/24", n / 256, n % 256);
        json!({ "to": to, "via": "198.51.100.2" })
    }));
    let link = if crowd { "10.0.1.1/16" } else { "10.0.1.1/24" };
    [
        (
            "core",
            json!({ "router": {
                "interfaces": {
                    "in": {
                        "address": [link, "fd00:9::1/64"], "mac": "02:00:00:00:01:01",
                        "neighbours": { "10.0.1.2": "02:00:00:00:01:02", "fd00:9::2": "02:00:00:00:01:02" },
                    },
                    "out": {
                        "address": ["198.51.100.1/24", "2001:db8:9::1/64"], "mac": "02:00:00:00:02:01",
                        "neighbours": { "198.51.100.2": "02:00:00:00:02:02", "2001:db8:9::2": "02:00:00:00:02:02" },
                    },
                },
                "routes": routes,
            } }),
        ),
        (
            "frontend",
            json!({ "load-balancer": { "address": service, "backends": backends, "sessions": sessions, "timeouts": balanced } }),
        ),
        (
            "egress",
            json!({ "nat": { "pool": "203.0.113.64/26", "inside": ["10.0.0.0/8"], "sessions": sessions, "timeouts": timeouts } }),
        ),
        (
            "edge",
            json!({ "firewall": {
                "default": { "outbound": "allow", "inbound": "drop" },
                "rules": [{ "allow": if tcp { "tcp" } else { "udp" }, "direction": "inbound", "to": kind.service().to_string(), "ports": [80, 443] }],
                "sessions": sessions, "timeouts": timeouts,
            } }),
        ),
    ]
    .map(|(name, value)| (name, config(value)))
}

/// Where packets of a chain's two ports go.
pub(crate) fn ends_of(chain: u16) -> [Hop; 2] {
    let first = chain * FUNCTIONS;
    [
        Hop::Function(first, Interface(0)),
        Hop::Function(first + FUNCTIONS - 1, OUTSIDE),
    ]
}

/// An engine with so many chains, whose ports are to be added: two for each, from inside to outside.
pub(super) fn engine(kind: Kind, size: Size, chains: u16) -> Engine {
    engine_of(kind, size, chains, (false, Share::WHOLE), &|function| {
        function
    })
}

/// The same for one of several workers that run the chains together; with `crowd`, routers have many routes and room for
/// many neighbours, load balancers many backends. Every function goes through `wrap`.
pub(crate) fn engine_of(
    kind: Kind,
    size: Size,
    chains: u16,
    (crowd, share): (bool, Share),
    wrap: &dyn Fn(Box<dyn Function>) -> Box<dyn Function>,
) -> Engine {
    let pool = PoolConfig {
        small: 4096,
        large: 16,
        huge_pages: HugePages::Auto,
    };
    let pool = Pool::new(pool).expect("memory for a packet pool");
    let mut objects = Objects::default();
    let mut built = Vec::new();
    for chain in 0..chains {
        let blueprints = blueprints(kind, size, crowd);
        build(chain, blueprints, share, &mut objects, &mut built);
    }
    let table = (size.flows > 0).then(|| {
        FlowTable::new(size.flows, &objects, [7, 1, 2, 3]).expect("memory for the flow table")
    });
    let mut engine = Engine::new(pool, objects, table);
    for (name, function, links) in built {
        engine.add_function(name, wrap(function), links);
    }
    engine
}

/// A function's name, itself, and its interfaces with what they lead to.
type Built = (&'static str, Box<dyn Function>, Vec<(String, Hop)>);
/// Functions' names, and what each is built from.
type Blueprints = Vec<(&'static str, Box<dyn Blueprint>)>;

/// Who owns what of a chain, among so many workers that run it together.
pub(crate) fn owners(kind: Kind, size: Size, members: u16) -> Owners {
    let blueprints = blueprints(kind, size, false);
    Owners::of(
        members,
        blueprints.iter().map(|(_, blueprint)| blueprint.as_ref()),
    )
}

/// What the functions are built from, from inside to outside.
fn blueprints(kind: Kind, size: Size, crowd: bool) -> Blueprints {
    let configs = functions(kind, size, crowd);
    let Shape::Junction { interfaces, .. } = configs[0].1.shape("core") else {
        panic!("a router is a junction");
    };
    let out = interfaces.iter().position(|at| at.name == "out");
    let out = out.expect("an interface of that name");
    assert_eq!(out, 1);
    let compile = |(index, (name, config)): (usize, (&'static str, FunctionConfig))| {
        let site = Site {
            name: name.to_owned(),
            inside_mac: interfaces[out].mac.filter(|_| index > 0),
            outside_mac: None,
        };
        let blueprint = config
            .compile(&site)
            .unwrap_or_else(|errors| panic!("{name}: {errors:?}"));
        (name, blueprint)
    };
    configs.into_iter().enumerate().map(compile).collect()
}

fn build(
    chain: u16,
    blueprints: Blueprints,
    share: Share,
    objects: &mut Objects,
    built: &mut Vec<Built>,
) {
    let first = chain * FUNCTIONS;
    for (index, (name, blueprint)) in (first..).zip(blueprints) {
        let function = blueprint.build(&mut Build {
            objects,
            seed: index.into(),
            share,
        });
        // A router's interfaces are numbered as an inline function's sides.
        let before = match index - first {
            0 => Hop::Port(2 * chain),
            _ => Hop::Function(index - 1, OUTSIDE),
        };
        let after = match index - first {
            3 => Hop::Port(2 * chain + 1),
            _ => Hop::Function(index + 1, INSIDE),
        };
        let links = vec![("inside".to_owned(), before), ("outside".to_owned(), after)];
        built.push((name, function, links));
    }
}
