//! A world: compiled functions, where they lead, and who lives there.

use chainplane_dataplane::engine::Hop;
use chainplane_dataplane::function::{Blueprint, INSIDE, Interface, OUTSIDE};
use chainplane_dataplane::packet::Mac;
use chainplane_dataplane::port::Offloads;
use chainplane_dataplane::sim::{Crew, Sim, SimFunction};
use chainplane_nf::FunctionConfig;
use chainplane_nf::config::Site;
use chainplane_nf::load_balancer::BackendStates;
use serde_json::Value;

use super::config::{Draw, Service};
use super::dice::Dice;
use super::map::{End, Map, router_mac};
use crate::frame::MacBytes;
use crate::host::Host;

struct Part {
    name: String,
    blueprint: Box<dyn Blueprint>,
    links: Vec<(String, Hop)>,
}

pub struct World {
    pub map: Map,
    pub hosts: Vec<Host>,
    pub services: Vec<Service>,
    pub timeouts: Vec<u64>,
    pub states: Vec<BackendStates>,
    /// As one would write them.
    pub configs: Vec<(String, Value)>,
    /// Records of the flow table.
    pub records: usize,
    parts: Vec<Part>,
    ports: Vec<(Hop, Offloads)>,
    pub seed: u64,
}

impl World {
    pub fn draw(seed: u64) -> Self {
        Self::draw_changed(seed, |_, _| {})
    }

    /// One whose configurations are changed before they are compiled.
    pub fn draw_changed(seed: u64, change: impl Fn(&Map, &mut Value)) -> Self {
        let mut dice = Dice::new(seed, u64::MAX);
        let map = Map::draw(&mut dice);
        let hosts = map.hosts(&mut dice);
        let records = dice.pick(&[8, 16, 64, 1024, 1024]);
        let offloads = (0..map.ports)
            .map(|_| offloads(&mut dice))
            .collect::<Vec<_>>();
        let mut draw = Draw {
            dice,
            map: &map,
            hosts: &hosts,
            services: Vec::new(),
            timeouts: vec![1, 5, 30],
        };
        let mut configs = configs(&mut draw);
        for placed in &mut configs {
            change(&map, &mut placed.config);
        }
        let (services, timeouts) = (draw.services, draw.timeouts);
        let mut states = Vec::new();
        let mut parts = Vec::new();
        for Placed {
            name,
            config,
            site,
            links,
        } in configs.iter().cloned()
        {
            let (blueprint, backends) = compile(config, &site);
            states.extend(backends);
            parts.push(Part {
                name,
                blueprint,
                links,
            });
        }
        let ports = (0..map.ports).zip(offloads).map(|(port, offloads)| {
            let chain = map.chain_of_port(port);
            let side = map.chains[chain].side_of(End::Port(port));
            (from_end(&map, chain, side), offloads)
        });
        Self {
            ports: ports.collect(),
            configs: configs
                .into_iter()
                .map(|placed| (placed.name, placed.config))
                .collect(),
            hosts,
            services,
            timeouts,
            states,
            records,
            parts,
            seed,
            map,
        }
    }

    fn sim_functions(&self) -> Vec<SimFunction<'_>> {
        let parts = self.parts.iter().map(|part| SimFunction {
            name: &part.name,
            blueprint: &*part.blueprint,
            links: part
                .links
                .iter()
                .map(|(name, hop)| (name.as_str(), *hop))
                .collect(),
        });
        parts.collect()
    }

    pub fn sim(&self, records: Option<usize>) -> Sim {
        let mut sim = Sim::new(records, &self.sim_functions(), self.seed);
        for (port, (link, offloads)) in self.ports.iter().enumerate() {
            sim.add_port_with(&format!("p{port}"), *link, *offloads);
        }
        sim
    }

    /// The same run by so many workers, of which some have queues of each port.
    pub fn crew(&self, members: u16, records: Option<usize>, queues: &[Vec<u16>]) -> Crew {
        let mut crew = Crew::new(members, records, &self.sim_functions(), self.seed);
        for (port, (link, offloads)) in self.ports.iter().enumerate() {
            crew.add_port_at(&format!("p{port}"), *link, *offloads, &queues[port]);
        }
        crew
    }

    pub fn functions(&self) -> usize {
        self.parts.len()
    }

    /// The station that a host at this end of a chain hands packets to, unless it knows better.
    pub fn door(&self, chain: usize, side: usize, dice: &mut Dice) -> MacBytes {
        match self.map.chains[chain].ends[1 - side] {
            End::Router(router) => router_mac(router, chain),
            End::Port(port) => {
                let there: Vec<_> = self.hosts.iter().filter(|host| host.port == port).collect();
                there[dice.below(there.len())].mac
            }
        }
    }
}

fn offloads(dice: &mut Dice) -> Offloads {
    if dice.chance(40) {
        return Offloads::ALL;
    }
    Offloads {
        checksum: dice.chance(70),
        tcp4: dice.chance(50),
        tcp6: dice.chance(50),
        ecn: dice.chance(50),
        udp4: dice.chance(50),
        udp6: dice.chance(50),
    }
}

/// A function's configuration and where it stands.
#[derive(Clone)]
struct Placed {
    name: String,
    config: Value,
    site: Site,
    links: Vec<(String, Hop)>,
}

fn configs(draw: &mut Draw<'_>) -> Vec<Placed> {
    let map = draw.map;
    let mut all = Vec::new();
    for router in 0..map.routers {
        let name = format!("r{router}");
        let links = map.of_router(router).map(|(chain, plan)| {
            let side = plan.side_of(End::Router(router));
            (format!("i{chain:02}"), from_end(map, chain, side))
        });
        all.push(Placed {
            site: Site {
                name: name.clone(),
                ..Site::default()
            },
            config: draw.router(router),
            links: links.collect(),
            name,
        });
    }
    for (chain, plan) in map.chains.iter().enumerate() {
        let end_mac = |side: usize| match plan.ends[side] {
            End::Router(router) => Some(Mac(router_mac(router, chain))),
            End::Port(_) => None,
        };
        for place in 0..plan.inline.len() {
            let name = format!("c{chain}-{place}");
            let mac = [2, 0, 0, 0x30, chain as u8, place as u8];
            all.push(Placed {
                config: draw.inline(chain, place, mac),
                site: Site {
                    name: name.clone(),
                    inside_mac: end_mac(0),
                    outside_mac: end_mac(1),
                },
                links: vec![
                    (
                        "inside".to_owned(),
                        place.checked_sub(1).map_or_else(
                            || to_end(map, chain, 0),
                            |place| at(map, chain, place, OUTSIDE),
                        ),
                    ),
                    (
                        "outside".to_owned(),
                        if place + 1 < plan.inline.len() {
                            at(map, chain, place + 1, INSIDE)
                        } else {
                            to_end(map, chain, 1)
                        },
                    ),
                ],
                name,
            });
        }
    }
    all
}

/// An interface of the function at one place of a chain.
fn at(map: &Map, chain: usize, place: usize, by: Interface) -> Hop {
    let before: usize = map.chains[..chain]
        .iter()
        .map(|chain| chain.inline.len())
        .sum();
    Hop::Function((map.routers + before + place) as u16, by)
}

/// What comes first for packets that enter a chain at one of its ends.
fn from_end(map: &Map, chain: usize, side: usize) -> Hop {
    match map.chains[chain].inline.len() {
        0 => to_end(map, chain, 1 - side),
        _ if side == 0 => at(map, chain, 0, INSIDE),
        count => at(map, chain, count - 1, OUTSIDE),
    }
}

fn to_end(map: &Map, chain: usize, side: usize) -> Hop {
    match map.chains[chain].ends[side] {
        End::Port(port) => Hop::Port(port as u16),
        End::Router(router) => {
            let number = map.of_router(router).position(|(other, _)| other == chain);
            let number = number.expect("the chain ends there");
            Hop::Function(router as u16, Interface(number as u16))
        }
    }
}

fn compile(config: Value, site: &Site) -> (Box<dyn Blueprint>, Option<BackendStates>) {
    let shown = config.to_string();
    let config: FunctionConfig =
        serde_json::from_value(config).unwrap_or_else(|error| panic!("{shown}: {error}"));
    let errors = config.check();
    assert!(errors.is_empty(), "{shown}: {errors:?}");
    let wrong = |errors| panic!("{shown}: {errors:?}");
    match &config {
        FunctionConfig::LoadBalancer(balancer) => {
            let balancer = balancer.load_balancer(site).unwrap_or_else(wrong);
            let states = balancer.states();
            (Box::new(balancer), Some(states))
        }
        _ => match config.compile(site) {
            Ok(blueprint) => (blueprint, None),
            Err(errors) => panic!("{shown}: {errors:?}"),
        },
    }
}
