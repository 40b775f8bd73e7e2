//! Traffic made ready: which flow and which length each packet has.

use std::net::IpAddr;

use super::divisor::Divisor;
use super::random::Random;
use super::tuple::{Tuple, widen};
use super::{IpVersions, Side, Sizes, Spread, Traffic, Transports, fill::Fill, head};
use crate::bench::trial::BenchError;

/// Most flows.
pub const MAX_FLOWS: u32 = 10_000_000;
/// Draws from a Zipf distribution before they come again.
const DRAWS: usize = 1 << 20;
/// Lengths of a mix before they come again, about.
const LENGTHS: usize = 4096;

/// Traffic made ready. Everything in it follows from the description.
pub struct Packets {
    /// What it was made from.
    pub traffic: Traffic,
    /// The bytes behind the stamps.
    pub fill: Fill,
    order: Order,
    lengths: Vec<u16>,
    /// Of each flow of a capture file: IPv6, TCP.
    kinds: Vec<(bool, bool)>,
    by: Divisors,
}

/// What numbers of flows are divided by.
struct Divisors {
    /// Different tuples that the two sides have, as far as flows have numbers.
    capacity: Divisor,
    flows: Divisor,
    /// Hosts and ports of the first side, and hosts of the second.
    hosts: Divisor,
    ports: Divisor,
    servers: Divisor,
}

impl Divisors {
    fn new(traffic: &Traffic) -> Self {
        let [a, b] = &traffic.sides;
        let capacity = capacity(traffic).min(u64::from(u32::MAX));
        Self {
            capacity: Divisor::new(capacity as u32),
            flows: Divisor::new(traffic.flows),
            hosts: Divisor::new(a.hosts),
            ports: Divisor::new(65_536 - u32::from(a.port)),
            servers: Divisor::new(b.hosts),
        }
    }
}

/// Different tuples that the two sides have.
fn capacity(traffic: &Traffic) -> u64 {
    let [a, b] = &traffic.sides;
    u64::from(a.hosts) * (65_536 - u64::from(a.port)) * u64::from(b.hosts)
}

/// Where a direction is in the order of its packets: what comes next is found without a division.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The packet's number.
    pub index: u64,
    /// The turn: a flow's place, the place of a draw or that of a packet of a capture.
    turn: u32,
    /// Where its length is.
    length: u32,
}

/// Which flow's turn it is.
enum Order {
    /// Each comes once before any comes again, as `(index * stride + start) % flows`.
    Turns { stride: u64, starts: [u64; 2] },
    /// Draws, which come again when they are over.
    Draws(Vec<u32>),
    /// Flows and lengths of a capture file's packets, of each direction.
    Replay([Vec<(u32, u16)>; 2]),
}

/// A capture file's packets: flow, length and direction of each; and of each flow, whether it is IPv6 and TCP.
pub struct Capture {
    /// Flow and length of the packets of each direction, in order.
    pub packets: [Vec<(u32, u16)>; 2],
    /// Of each flow: IPv6, TCP.
    pub flows: Vec<(bool, bool)>,
}

impl Packets {
    /// Checks a description and makes it ready. `capture` is what its file holds, if it names one.
    ///
    /// # Errors
    /// What contradicts itself, or is out of range.
    pub fn new(traffic: &Traffic, capture: Option<Capture>) -> Result<Self, BenchError> {
        check(traffic)?;
        let mut random = Random::new(traffic.seed);
        let mut this = Self {
            fill: Fill::new(traffic.seed),
            lengths: lengths(&traffic.sizes, &mut random),
            order: order(traffic, &mut random),
            kinds: Vec::new(),
            by: Divisors::new(traffic),
            traffic: traffic.clone(),
        };
        if let Some(capture) = capture {
            this.kinds = capture.flows;
            this.traffic.flows = this.kinds.len() as u32;
            this.order = Order::Replay(capture.packets);
        }
        this.by = Divisors::new(&this.traffic);
        let [a, b] = &this.traffic.sides;
        let capacity = capacity(&this.traffic);
        if capacity < u64::from(this.traffic.flows) {
            let (hosts, flows) = (a.hosts, this.traffic.flows);
            return Err(BenchError::Arguments(format!(
                "{hosts} hosts with ports from {} on, to {}, make {capacity} flows, and {flows} are wanted: \
                 more hosts on the first side make more",
                a.port, b.hosts
            )));
        }
        Ok(this)
    }

    /// The place of a direction's packet, by its number.
    pub fn seek(&self, direction: usize, index: u64) -> Cursor {
        let flows = u64::from(self.traffic.flows);
        let turn = match &self.order {
            Order::Turns { stride, starts } => (index % flows * stride + starts[direction]) % flows,
            Order::Draws(draws) => index % draws.len() as u64,
            Order::Replay(packets) => index % packets[direction].len().max(1) as u64,
        };
        Cursor {
            index,
            turn: turn as u32,
            length: (index % self.lengths.len() as u64) as u32,
        }
    }

    /// Goes on to a direction's next packet.
    #[inline]
    pub fn advance(&self, direction: usize, cursor: &mut Cursor) {
        let (step, turns) = match &self.order {
            Order::Turns { stride, .. } => (*stride as u32, self.traffic.flows),
            Order::Draws(draws) => (1, draws.len() as u32),
            Order::Replay(packets) => (1, packets[direction].len() as u32),
        };
        cursor.index += 1;
        cursor.turn += step;
        if cursor.turn >= turns {
            cursor.turn -= turns;
        }
        cursor.length += 1;
        if cursor.length as usize == self.lengths.len() {
            cursor.length = 0;
        }
    }

    /// The flow and length of a direction's packet; `base` is the number of the oldest flow there is.
    #[inline]
    pub fn packet(&self, direction: usize, cursor: Cursor, base: u32) -> (u32, u16) {
        let slot = match &self.order {
            Order::Turns { .. } => cursor.turn,
            Order::Draws(draws) => draws[cursor.turn as usize],
            Order::Replay(packets) => return packets[direction][cursor.turn as usize],
        };
        let first = self.place(base);
        let ahead = if slot >= first {
            slot - first
        } else {
            slot + self.traffic.flows - first
        };
        (
            base.wrapping_add(ahead),
            self.lengths[cursor.length as usize],
        )
    }

    /// Which of the flows that there are at a time a number stands for.
    #[inline]
    pub fn place(&self, flow: u32) -> u32 {
        self.by.flows.remainder(flow)
    }

    /// Whether a direction has packets at all.
    pub fn has(&self, direction: usize) -> bool {
        match &self.order {
            Order::Replay(packets) => !packets[direction].is_empty(),
            _ => direction == 0 || self.traffic.bidirectional,
        }
    }

    /// The tuple of a flow's packets as the first side sends them.
    #[inline(always)]
    pub fn tuple(&self, flow: u32) -> Tuple {
        let (v6, tcp) = self.kind(flow);
        let [a, b] = &self.traffic.sides;
        let number = self.by.capacity.remainder(flow);
        let (rest, host) = self.by.hosts.divide(number);
        let (round, port) = self.by.ports.divide(rest);
        // The servers take turns from flow to flow; each round of the ports starts at another. These are the digits of
        // the number, so that their sum is no greater.
        let server = self.by.servers.remainder(host + port + round);
        Tuple {
            v6,
            tcp,
            src: address(a, v6, host),
            dst: address(b, v6, server),
            src_port: a.port + port as u16,
            dst_port: b.port,
        }
    }

    /// Clients that differ in address or port.
    pub fn client_span(&self) -> u64 {
        let a = &self.traffic.sides[0];
        u64::from(a.hosts) * (65_536 - u64::from(a.port))
    }

    /// The tuple of a numbered TCP connection, as its client sends.
    pub fn connection(&self, number: u32) -> Tuple {
        Tuple {
            tcp: true,
            ..self.tuple(number)
        }
    }

    /// Which client, below [`Packets::client_span`], a packet is to.
    pub fn client(&self, tuple: &Tuple) -> Option<u64> {
        let side = &self.traffic.sides[0];
        let host = match tuple.destination() {
            IpAddr::V4(address) => u32::from(address).wrapping_sub(u32::from(side.v4)),
            IpAddr::V6(address) => {
                let host = u128::from(address).wrapping_sub(u128::from(side.v6));
                u32::try_from(host).ok()?
            }
        };
        let port = tuple.dst_port.checked_sub(side.port)?;
        let number = u64::from(host) + u64::from(side.hosts) * u64::from(port);
        (host < side.hosts).then_some(number)
    }

    /// Whether a flow is IPv6, and TCP.
    #[inline]
    pub fn kind(&self, flow: u32) -> (bool, bool) {
        if let Some(kind) = self.kinds.get(flow as usize) {
            return *kind;
        }
        let v6 = match self.traffic.ip {
            IpVersions::V4 => false,
            IpVersions::V6 => true,
            IpVersions::Mixed => flow & 1 == 1,
        };
        let tcp = match self.traffic.transport {
            Transports::Udp => false,
            Transports::Tcp => true,
            Transports::Mixed => flow & 2 == 2,
        };
        (v6, tcp)
    }

    /// Packets after which lengths come again.
    #[cfg(test)]
    pub fn lengths_len(&self) -> usize {
        self.lengths.len()
    }

    /// A length for the packets that open flows: the shortest that any has.
    pub fn opening_len(&self, flow: u32) -> usize {
        let (v6, tcp) = self.kind(flow);
        head::shortest(v6, tcp).max(64)
    }
}

#[inline]
fn address(side: &Side, v6: bool, host: u32) -> [u8; 16] {
    if v6 {
        (u128::from(side.v6).wrapping_add(u128::from(host))).to_be_bytes()
    } else {
        widen(u32::from(side.v4).wrapping_add(host).into())
    }
}

impl Traffic {
    /// The shortest frame in bytes that holds what every packet carries: 64 for UDP over IPv4, 74 for TCP, and 20
    /// more over IPv6.
    pub fn shortest_frame(&self) -> u16 {
        let v6 = self.ip != IpVersions::V4;
        let tcp = self.transport != Transports::Udp;
        head::shortest(v6, tcp).max(64) as u16
    }
}

fn check(traffic: &Traffic) -> Result<(), BenchError> {
    let refuse = |text: String| Err(BenchError::Arguments(text));
    if traffic.flows == 0 || traffic.flows > MAX_FLOWS {
        return refuse(format!(
            "{} flows; 1 to {MAX_FLOWS} are possible",
            traffic.flows
        ));
    }
    let (shortest, longest) = (traffic.shortest_frame(), super::fill::MAX_FRAME as u16);
    let sizes: Vec<u16> = match &traffic.sizes {
        Sizes::Fixed(size) => vec![*size],
        Sizes::Mix(mix) => mix.iter().map(|(size, _)| *size).collect(),
    };
    if let Sizes::Mix(mix) = &traffic.sizes
        && mix
            .iter()
            .map(|(_, weight)| u64::from(*weight))
            .sum::<u64>()
            == 0
    {
        return refuse("a mix of frame lengths needs a weight above 0".into());
    }
    for size in sizes {
        if size < shortest {
            return refuse(format!(
                "frames of {size} bytes can't hold a sequence number and a timestamp behind these headers; \
                 {shortest} bytes are the least (UDP over IPv4 64, TCP 74, and 20 more over IPv6)"
            ));
        }
        if size > longest {
            return refuse(format!("frames of {size} bytes; {longest} are the most"));
        }
    }
    if let Spread::Zipf(s) = traffic.spread
        && !(s > 0.0 && s <= 10.0)
    {
        return refuse(format!(
            "a Zipf exponent of {s}; above 0 up to 10 is possible"
        ));
    }
    if !(0.0..=1e7).contains(&traffic.new_flows) {
        return refuse(format!(
            "{} new flows a second; 0 to 10 million are possible",
            traffic.new_flows
        ));
    }
    let ports = traffic.sides.iter().any(|side| side.port == 0);
    if ports || traffic.sides.iter().any(|side| side.hosts == 0) {
        return refuse("each side needs a host and a port above 0".into());
    }
    Ok(())
}

/// Lengths in turn: each as often as its weight says, shuffled.
fn lengths(sizes: &Sizes, random: &mut Random) -> Vec<u16> {
    let mix = match sizes {
        Sizes::Fixed(size) => return vec![*size],
        Sizes::Mix(mix) => mix,
    };
    let total: u64 = mix.iter().map(|(_, weight)| u64::from(*weight)).sum();
    let mut lengths = Vec::new();
    // As many whole rounds as fit, or shares of one round that is too long.
    let rounds = (LENGTHS as u64 / total).max(1);
    for (size, weight) in mix {
        let share = if total <= LENGTHS as u64 {
            u64::from(*weight) * rounds
        } else {
            (u64::from(*weight) * LENGTHS as u64).div_ceil(total)
        };
        lengths.extend((0..share).map(|_| *size));
    }
    random.shuffle(&mut lengths);
    lengths
}

fn order(traffic: &Traffic, random: &mut Random) -> Order {
    let flows = u64::from(traffic.flows);
    match traffic.spread {
        Spread::Uniform => {
            let mut stride = random.below(flows).max(1);
            while gcd(stride, flows) != 1 {
                stride = stride % flows + 1;
            }
            let starts = [random.below(flows), random.below(flows)];
            Order::Turns { stride, starts }
        }
        Spread::Zipf(s) => Order::Draws(zipf(traffic.flows, s, random)),
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Draws by the sums of the shares: the flow under which a random part of the whole falls.
fn zipf(flows: u32, s: f64, random: &mut Random) -> Vec<u32> {
    let mut total = 0.0;
    let sums: Vec<f64> = (1..=flows)
        .map(|rank| {
            total += f64::from(rank).powf(-s);
            total
        })
        .collect();
    (0..DRAWS)
        .map(|_| {
            let part = random.fraction() * total;
            (sums.partition_point(|sum| *sum <= part) as u32).min(flows - 1)
        })
        .collect()
}
