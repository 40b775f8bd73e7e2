//! A router alone between two ports in memory, in one thread: what it costs by itself, with flow records and without.

use std::hint::black_box;
use std::net::Ipv4Addr;

use chainplane_dataplane::crew::Share;
use chainplane_dataplane::engine::{Engine, Hop};
use chainplane_dataplane::flow::FlowTable;
use chainplane_dataplane::function::{Build, Interface};
use chainplane_dataplane::objects::Objects;
use chainplane_dataplane::packet::{BURST, Batch, Pool, PoolConfig};
use chainplane_dataplane::port::{Port, PortContext};
use chainplane_dataplane::time::Time;
use chainplane_nf::FunctionConfig;
use chainplane_nf::config::{Prefix, Site};
use etherparse::PacketBuilder;

use crate::routes::{NEXT_HOPS, Route, destinations};

/// Bytes of a frame.
const SIZE: usize = 64;

/// The configuration of a router with these routes; guest `a` is on the first interface, `b` on the second.
///
/// # Panics
/// When it is wrong, which is a mistake here.
pub fn router(routes: &[Route]) -> FunctionConfig {
    let interface = |side: u32| {
        let hops = (0..NEXT_HOPS).map(|hop| {
            format!(
                "\"{}\": \"02:00:00:0{side}:01:{hop:02x}\"",
                next_hop(side, hop)
            )
        });
        let hops = hops.collect::<Vec<_>>().join(", ");
        format!(
            r#"{{ "address": "198.{}.0.1/24", "mac": "02:00:00:0{side}:00:01", "neighbours": {{ {hops} }} }}"#,
            18 + side
        )
    };
    let text = format!(
        r#"{{ "router": {{ "interfaces": {{ "a": {}, "b": {} }} }} }}"#,
        interface(0),
        interface(1)
    );
    let mut config = serde_json::from_str(&text).expect("a configuration");
    if let FunctionConfig::Router(config) = &mut config {
        config.routes = routes.iter().map(configured).collect();
    }
    config
}

fn next_hop(side: u32, number: u32) -> Ipv4Addr {
    Ipv4Addr::new(198, 18 + side as u8, 0, 2 + number as u8)
}

fn configured(route: &Route) -> chainplane_nf::router::Route {
    chainplane_nf::router::Route {
        to: Prefix::new(Ipv4Addr::from_bits(route.first).into(), route.len).expect("a prefix"),
        via: next_hop(route.side() as u32, route.next_hop()).into(),
    }
}

/// A frame from a host on `side` to an address.
pub fn frame(side: usize, dst: u32) -> Vec<u8> {
    let macs = [[2, 0, 0, side as u8, 1, 0], [2, 0, 0, side as u8, 0, 1]];
    let src = [198, 18 + side as u8, 0, 2];
    let builder = PacketBuilder::ethernet2(macs[0], macs[1])
        .ipv4(src, dst.to_be_bytes(), 64)
        .udp(1000, 2000);
    let mut frame = Vec::with_capacity(SIZE);
    builder
        .write(&mut frame, &[0xa5; SIZE - 42])
        .expect("a frame in memory");
    frame
}

/// A port that brings frames which differ in their destination, and forgets what it is to send.
struct Source {
    template: Vec<u8>,
    /// Destination and header checksum of each, as they stand in the frame.
    heads: Vec<([u8; 4], [u8; 2])>,
    next: usize,
}

impl Source {
    fn new(side: usize, destinations: &[u32]) -> Self {
        let head = |dst: &u32| {
            let frame = frame(side, *dst);
            (dst.to_be_bytes(), [frame[24], frame[25]])
        };
        Self {
            template: frame(side, 0),
            heads: destinations.iter().map(head).collect(),
            next: 0,
        }
    }
}

impl Port for Source {
    fn receive(&mut self, cx: &mut PortContext<'_>, batch: &mut Batch) {
        for _ in 0..BURST {
            let Some(mut packet) = cx.pool.copy_of(&self.template) else {
                return;
            };
            let (dst, sum) = self.heads[self.next];
            self.next = if self.next + 1 == self.heads.len() {
                0
            } else {
                self.next + 1
            };
            let data = packet.data_mut();
            data[24..26].copy_from_slice(&sum);
            data[30..34].copy_from_slice(&dst);
            batch.push(packet);
        }
    }

    fn send(&mut self, cx: &mut PortContext<'_>, batch: &mut Batch) {
        cx.tally.sent(batch.len() as u64, 0);
        batch.clear();
    }
}

/// Which way packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// By flow records.
    Records,
    /// Through the functions, a batch at a time.
    Functions,
    /// Through the functions, packet by packet.
    Stages,
}

/// The router, its ports, and their packets.
pub struct InMemory {
    engine: Engine,
    now: Time,
}

impl InMemory {
    /// A router whose ports bring packets of so many destinations a side.
    ///
    /// # Panics
    /// If there is no memory.
    pub fn new(routes: &[Route], flows: usize, by: By) -> Self {
        let mut objects = Objects::default();
        let blueprint = router(routes).compile(&Site::default()).expect("a router");
        let function = blueprint.build(&mut Build {
            objects: &mut objects,
            seed: 1,
            share: Share::WHOLE,
        });
        let table = (by == By::Records).then(|| {
            FlowTable::new(flows * 4, &objects, [1, 2, 3, 4]).expect("memory for the flow table")
        });
        let pool = Pool::new(PoolConfig::default()).expect("a pool");
        let mut engine = Engine::new(pool, objects, table);
        let links = [("a", 0), ("b", 1)].map(|(name, port)| (name.to_owned(), Hop::Port(port)));
        engine.add_function("core", function, links.into());
        for side in 0..2 {
            let source = Source::new(side, &destinations(routes, 1 - side, flows));
            let link = Hop::Function(0, Interface(side as u16));
            engine.add_port(["a", "b"][side], Box::new(source), link);
            if by == By::Functions {
                engine.go_without_records(side);
            }
        }
        Self {
            engine,
            now: Time(1 << 30),
        }
    }

    /// Forwards at least so many packets; tells how many.
    pub fn forward(&mut self, packets: u64) -> u64 {
        let mut done = 0;
        while done < packets {
            self.now = Time(self.now.0 + 10_000);
            done += poll(&mut self.engine, self.now) as u64;
        }
        done
    }
}

/// A function of its own, so that callgrind can count what happens in it and nothing else.
#[inline(never)]
pub fn poll(engine: &mut Engine, now: Time) -> usize {
    black_box(engine.poll(black_box(now)))
}
