//! Which chains a world has, what stands in them, and which addresses there are.
//!
//! Routers stand in a row. Chain `c` has the subnets `10.c.0.0/24` and `fd00:c::/64`; what its NATs and load
//! balancers take for themselves is of `203.0.c.0/24`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::dice::Dice;
use crate::frame::MacBytes;
use crate::host::Host;

/// Functions of a world at most.
const MOST_FUNCTIONS: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Port(usize),
    Router(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inline {
    Firewall,
    Nat,
    Balancer,
}

/// One chain, from inside to outside.
#[derive(Clone, Debug)]
pub struct Chain {
    pub ends: [End; 2],
    pub inline: Vec<Inline>,
    pub ipv6: bool,
}

#[derive(Clone, Debug)]
pub struct Map {
    pub routers: usize,
    pub ports: usize,
    pub chains: Vec<Chain>,
}

impl Map {
    pub fn draw(dice: &mut Dice) -> Self {
        match dice.weighted(&[5, 7, 3, 1]) {
            0 => Self::bare(dice),
            routers => Self::routed(dice, routers),
        }
    }

    /// Ports joined by functions without a router between them.
    fn bare(dice: &mut Dice) -> Self {
        // Now and then a path that is longer than a record can hold.
        let count = if dice.chance(3) {
            dice.between(9, 20)
        } else {
            dice.between(0, MOST_FUNCTIONS)
        };
        let chain = Chain {
            ends: [End::Port(0), End::Port(1)],
            inline: inline(dice, count),
            ipv6: dice.chance(50),
        };
        Self {
            routers: 0,
            ports: 2,
            chains: vec![chain],
        }
    }

    fn routed(dice: &mut Dice, routers: usize) -> Self {
        let mut room = MOST_FUNCTIONS - routers;
        let mut map = Self {
            routers,
            ports: 0,
            chains: Vec::new(),
        };
        let ipv6 = dice.chance(60);
        for router in 1..routers {
            let ends = [End::Router(router - 1), End::Router(router)];
            map.add(dice, ends, 2, &mut room, ipv6);
        }
        for router in 0..routers {
            let least = if routers == 1 { 2 } else { 1 };
            for _ in 0..dice.between(least, 3) {
                let ends = [End::Router(router), End::Port(map.ports)];
                let ipv6 = ipv6 && dice.chance(80);
                map.ports += 1;
                map.add(dice, ends, 4, &mut room, ipv6);
            }
        }
        map
    }

    fn add(
        &mut self,
        dice: &mut Dice,
        mut ends: [End; 2],
        most: usize,
        room: &mut usize,
        ipv6: bool,
    ) {
        if dice.chance(30) {
            ends.reverse();
        }
        let count = dice.between(0, most.min(*room));
        *room -= count;
        self.chains.push(Chain {
            ends,
            inline: inline(dice, count),
            ipv6,
        });
    }

    /// The chains that end at a router, in order, which is that of its interfaces.
    pub fn of_router(&self, router: usize) -> impl Iterator<Item = (usize, &Chain)> {
        let numbered = self.chains.iter().enumerate();
        numbered.filter(move |(_, chain)| chain.ends.contains(&End::Router(router)))
    }

    pub fn chain_of_port(&self, port: usize) -> usize {
        let is_end = |chain: &Chain| chain.ends.contains(&End::Port(port));
        self.chains
            .iter()
            .position(is_end)
            .expect("every port is an end")
    }

    /// The hosts behind every port.
    pub fn hosts(&self, dice: &mut Dice) -> Vec<Host> {
        let mut hosts = Vec::new();
        for (index, chain) in self.chains.iter().enumerate() {
            for side in 0..2 {
                let End::Port(port) = chain.ends[side] else {
                    continue;
                };
                for number in 1..=dice.between(1, 3) as u8 {
                    let last = host_number(side) + number;
                    let mut addresses = vec![v4(index, last)];
                    if chain.ipv6 {
                        addresses.push(v6(index, last));
                    }
                    hosts.push(Host {
                        port,
                        addresses,
                        mac: [2, 0, 0, 0x20, index as u8, last],
                        answers: true,
                    });
                }
            }
        }
        hosts
    }
}

fn inline(dice: &mut Dice, count: usize) -> Vec<Inline> {
    const ALL: [Inline; 3] = [Inline::Firewall, Inline::Nat, Inline::Balancer];
    (0..count).map(|_| ALL[dice.weighted(&[4, 3, 3])]).collect()
}

impl Chain {
    pub fn side_of(&self, end: End) -> usize {
        usize::from(self.ends[0] != end)
    }
}

/// The chain by which a router reaches the next one in the row, up or down.
pub fn towards(router: usize, up: bool) -> usize {
    if up { router } else { router - 1 }
}

/// What host numbers of one side of a chain begin above.
pub fn host_number(side: usize) -> u8 {
    [10, 20][side]
}

pub fn v4(chain: usize, last: u8) -> IpAddr {
    Ipv4Addr::new(10, chain as u8, 0, last).into()
}

pub fn v6(chain: usize, last: u8) -> IpAddr {
    Ipv6Addr::new(0xfd00, chain as u16, 0, 0, 0, 0, 0, last.into()).into()
}

/// An address that a function takes for itself.
pub fn taken(chain: usize, last: u8) -> IpAddr {
    Ipv4Addr::new(203, 0, chain as u8, last).into()
}

/// The first host of a chain's side: what other networks are reached by.
pub fn gateway(chain: usize, side: usize, ipv6: bool) -> IpAddr {
    let last = host_number(side) + 1;
    if ipv6 {
        v6(chain, last)
    } else {
        v4(chain, last)
    }
}

pub fn router_mac(router: usize, chain: usize) -> MacBytes {
    [2, 0, 0, 0x10, router as u8, chain as u8]
}

/// A router's own address on a chain.
pub fn router_address(chain: usize, side: usize, ipv6: bool) -> IpAddr {
    let last = side as u8 + 1;
    if ipv6 {
        v6(chain, last)
    } else {
        v4(chain, last)
    }
}
