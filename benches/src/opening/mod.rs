//! New connections through firewall, NAT, load balancer and router, in one thread and in memory: how many a second,
//! at how many cycles, and what becomes of those that do not arrive.

mod frames;
mod load;
mod wire;

use std::rc::Rc;
use std::time::Duration;

use chainplane_dataplane::engine::{Engine, Hop};
use chainplane_dataplane::flow::FlowTable;
use chainplane_dataplane::function::{Build, INSIDE, Interface, OUTSIDE};
use chainplane_dataplane::objects::Objects;
use chainplane_dataplane::packet::{HugePages, Pool, PoolConfig};
use chainplane_dataplane::stats::{Snapshot, WorkerStats};
use chainplane_dataplane::time::Time;
use chainplane_nf::FunctionConfig;
use chainplane_nf::config::{Shape, Site};
use serde_json::{Value, json};

pub use load::Kind;
use load::Load;
use wire::{End, Line};

const GATEWAY_IN: [u8; 6] = [2, 0, 0, 0, 1, 2];
const GATEWAY_OUT: [u8; 6] = [2, 0, 0, 0, 2, 2];
const ROUTER_IN: [u8; 6] = [2, 0, 0, 0, 1, 1];
const ROUTER_OUT: [u8; 6] = [2, 0, 0, 0, 2, 1];
const VIRTUAL: [u8; 4] = [203, 0, 113, 10];

/// Connections begun in one poll.
const GRANT: u32 = 32;

/// How large the tables are, and how long silence may last.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Sessions of each function.
    pub sessions: u32,
    /// Flow records.
    pub flows: usize,
    /// Every timeout, in seconds.
    pub timeout: u32,
}

/// An engine with the chain, and the two ends.
pub struct Opening {
    engine: Engine,
    line: Rc<Line>,
    clock: quanta::Clock,
    now: Time,
}

/// What a run brought.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Connections begun.
    pub begun: u64,
    /// Those whose first packet arrived.
    pub arrived: u64,
    /// Packets that arrived, answers included.
    pub packets: u64,
    /// How long it took.
    pub took: Duration,
    /// Cycles of the engine.
    pub cycles: u64,
}

impl Opening {
    /// A chain without connections.
    ///
    /// # Panics
    /// When the configuration is wrong or there is no memory.
    pub fn new(kind: Kind, size: Size) -> Self {
        let line = Rc::new(Line::default());
        let load = Rc::new(Load::new(kind));
        let clock = quanta::Clock::new();
        let mut engine = engine(kind, size);
        for (name, outside, link) in [
            ("a", false, Hop::Function(0, Interface(0))),
            ("b", true, Hop::Function(3, OUTSIDE)),
        ] {
            let end = End {
                line: Rc::clone(&line),
                load: Rc::clone(&load),
                outside,
                clock: clock.clone(),
            };
            engine.add_port(name, Box::new(end), link);
        }
        Self {
            engine,
            line,
            clock,
            now: Time(1 << 30),
        }
    }

    /// Opens `count` connections; the clock says that `rate` of them are opened a second.
    pub fn open(&mut self, count: u64, rate: u64) -> Outcome {
        let step = u64::from(GRANT) * 1_000_000_000 / rate;
        let last = self.line.opened().0 + count;
        self.run(|opening, _| {
            opening.now = opening.now + Duration::from_nanos(step);
            opening.line.opened().0 < last
        })
    }

    /// Opens connections for so long, by the real clock.
    pub fn open_for(&mut self, time: Duration) -> Outcome {
        let begin = self.now;
        self.run(|opening, elapsed| {
            opening.now = begin + elapsed;
            elapsed < time
        })
    }

    /// `more` moves the clock and says whether to go on.
    fn run(&mut self, more: impl Fn(&mut Self, Duration) -> bool) -> Outcome {
        let (start, cycles) = (self.clock.raw(), self.line.cycles());
        let ((begun, arrived), packets) = (self.line.opened(), self.line.packets());
        loop {
            let elapsed = self.clock.delta(start, self.clock.raw());
            let more = more(self, elapsed);
            if !more && self.line.waiting() == 0 {
                break;
            }
            self.line.grant(if more { GRANT } else { 0 });
            back_end(&mut self.engine, self.now);
        }
        let end = self.clock.raw();
        let now = self.line.opened();
        Outcome {
            begun: now.0 - begun,
            arrived: now.1 - arrived,
            packets: self.line.packets() - packets,
            took: self.clock.delta(start, end),
            cycles: (end - start) - (self.line.cycles() - cycles),
        }
    }

    /// All counters, held against the conservation law.
    ///
    /// # Panics
    /// When it does not hold.
    pub fn snapshot(&mut self) -> Snapshot {
        self.engine.publish_gauges();
        let snapshot = WorkerStats::of(&self.engine).snapshot();
        snapshot
            .check_conservation()
            .unwrap_or_else(|error| panic!("{error}"));
        snapshot
    }
}

/// The engine's turn; a function of its own, so that callgrind can count what happens in it and nothing else.
#[inline(never)]
fn back_end(engine: &mut Engine, now: Time) {
    std::hint::black_box(engine.poll(std::hint::black_box(now)));
}

fn config(value: Value) -> FunctionConfig {
    let config: FunctionConfig = serde_json::from_value(value).expect("a configuration");
    let errors = config.check();
    assert!(errors.is_empty(), "{errors:?}");
    config
}

/// Router, load balancer, NAT and firewall, from inside to outside.
fn functions(kind: Kind, size: Size) -> [(&'static str, FunctionConfig); 4] {
    let Size {
        sessions, timeout, ..
    } = size;
    let tcp = kind.protocol == chainplane_dataplane::packet::protocol::TCP;
    let service = format!("203.0.113.10:80/{}", if tcp { "tcp" } else { "udp" });
    let timeouts = json!({
        "tcp-established": timeout, "tcp-transitory": timeout, "udp": timeout, "icmp": timeout
    });
    let balanced =
        json!({ "opening": timeout, "established": timeout, "closing": timeout, "udp": timeout });
    let backends: Vec<Value> = (11..15)
        .map(|n| json!({ "address": format!("10.1.1.{n}") }))
        .collect();
    [
        (
            "core",
            json!({ "router": {
                "interfaces": {
                    "in": { "address": "10.0.1.1/24", "mac": "02:00:00:00:01:01", "neighbours": { "10.0.1.2": "02:00:00:00:01:02" } },
                    "out": { "address": "198.51.100.1/24", "mac": "02:00:00:00:02:01", "neighbours": { "198.51.100.2": "02:00:00:00:02:02" } },
                },
                "routes": [{ "to": "10.0.0.0/8", "via": "10.0.1.2" }, { "to": "0.0.0.0/0", "via": "198.51.100.2" }],
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
                "rules": [{ "allow": if tcp { "tcp" } else { "udp" }, "direction": "inbound", "to": "203.0.113.10", "ports": [80, 443] }],
                "sessions": sessions, "timeouts": timeouts,
            } }),
        ),
    ]
    .map(|(name, value)| (name, config(value)))
}

fn engine(kind: Kind, size: Size) -> Engine {
    let pool = PoolConfig {
        small: 4096,
        large: 16,
        huge_pages: HugePages::Auto,
    };
    let pool = Pool::new(pool).expect("memory for a packet pool");
    let mut objects = Objects::default();
    let configs = functions(kind, size);
    let Shape::Junction { interfaces, .. } = configs[0].1.shape("core") else {
        panic!("a router is a junction");
    };
    let number = |name: &str| {
        let found = interfaces.iter().position(|at| at.name == name);
        Interface(found.expect("an interface of that name") as u16)
    };
    assert_eq!(number("in"), Interface(0));
    let mut built = Vec::new();
    for (seed, (name, config)) in configs.iter().enumerate() {
        let inside_mac = interfaces[number("out").0 as usize].mac;
        let site = Site {
            name: (*name).to_owned(),
            inside_mac: inside_mac.filter(|_| seed > 0),
            outside_mac: None,
        };
        let blueprint = config
            .compile(&site)
            .unwrap_or_else(|errors| panic!("{name}: {errors:?}"));
        let function = blueprint.build(&mut Build {
            objects: &mut objects,
            seed: seed as u64,
        });
        built.push((*name, function));
    }
    let table = (size.flows > 0).then(|| {
        FlowTable::new(size.flows, &objects, [7, 1, 2, 3]).expect("memory for the flow table")
    });
    let mut engine = Engine::new(pool, objects, table);
    for (index, (name, function)) in built.into_iter().enumerate() {
        let index = index as u16;
        let links = if index == 0 {
            let link = |name: &str| match name {
                "in" => Hop::Port(0),
                _ => Hop::Function(1, INSIDE),
            };
            interfaces
                .iter()
                .map(|at| (at.name.clone(), link(&at.name)))
                .collect()
        } else {
            let inside = match index {
                1 => Hop::Function(0, number("out")),
                _ => Hop::Function(index - 1, OUTSIDE),
            };
            let outside = match index {
                3 => Hop::Port(1),
                _ => Hop::Function(index + 1, INSIDE),
            };
            vec![
                ("inside".to_owned(), inside),
                ("outside".to_owned(), outside),
            ]
        };
        engine.add_function(name, function, links);
    }
    engine
}
