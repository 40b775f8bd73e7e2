//! Two hosts with several queue pairs at the ends of a chain, in memory: each asks and answers by pairs at random.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use chainplane_vhost::driver::{DriverPair, FrontEnd, FrontEndConfig};
use chainplane_vhost::net::NetHeader;
use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};

const INSIDE: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 11);
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const SERVICE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
const POOL: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);

/// Questions on their way at once: fewer than any ring holds.
const WINDOW: usize = 64;

/// A flow, by number, in each of the ways that addresses are translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flow {
    /// From outside to the load balancer's address.
    Balanced(u16),
    /// From inside to outside, through the NAT.
    Translated(u16),
    /// From outside to a port that the NAT forwards.
    Forwarded(u16),
}

impl Flow {
    /// All kinds of a number.
    pub fn all(number: u16) -> [Self; 3] {
        [
            Self::Balanced(number),
            Self::Translated(number),
            Self::Forwarded(number),
        ]
    }

    /// The host that asks, its port, and whom it asks.
    fn asks(self) -> (usize, u16, (Ipv4Addr, u16)) {
        match self {
            Self::Balanced(number) => (1, 10_000 + number, (SERVICE, 7000)),
            Self::Translated(number) => (0, 20_000 + number, (OUTSIDE, 9000)),
            Self::Forwarded(number) => (1, 30_000 + number, (POOL, 7001)),
        }
    }

    fn word(self) -> [u8; 3] {
        let (kind, number) = match self {
            Self::Balanced(number) => (0, number),
            Self::Translated(number) => (1, number),
            Self::Forwarded(number) => (2, number),
        };
        let [high, low] = number.to_be_bytes();
        [kind, high, low]
    }

    fn of(word: [u8; 3]) -> Self {
        let number = u16::from_be_bytes([word[1], word[2]]);
        Self::all(number)[usize::from(word[0])]
    }
}

/// Two hosts: inside and outside.
pub struct Hosts {
    ends: [Host; 2],
    /// Questions that are not answered yet.
    open: BTreeSet<Flow>,
    /// Questions that are not asked yet.
    queue: Vec<Flow>,
    random: u64,
}

struct Host {
    _front_end: FrontEnd,
    pairs: Vec<DriverPair>,
    mac: [u8; 6],
    address: Ipv4Addr,
    gateway: (Ipv4Addr, Option<[u8; 6]>),
}

impl Hosts {
    /// Attaches both with so many queue pairs.
    pub fn connect(directory: &Path, pairs: u16) -> Self {
        let connect = |name: &str, last: u8, address: Ipv4Addr, gateway: [u8; 4]| {
            let mut config = FrontEndConfig::new(directory.join(name));
            config.queue_pairs = pairs;
            let (front_end, pairs) = FrontEnd::connect(config).expect("a front end");
            Host {
                _front_end: front_end,
                pairs,
                mac: [2, 0, 0, 0, 0, last],
                address,
                gateway: (gateway.into(), None),
            }
        };
        Self {
            ends: [
                connect("inside.sock", 1, INSIDE, [10, 0, 1, 1]),
                connect("outside.sock", 2, OUTSIDE, [198, 51, 100, 2]),
            ],
            open: BTreeSet::new(),
            queue: Vec::new(),
            random: 0x9e37_79b9_7f4a_7c15,
        }
    }

    /// Asks for the gateways' MAC addresses until they have answered.
    pub fn find_gateways(&mut self, patience: Duration) {
        let deadline = Instant::now() + patience;
        while self.ends.iter().any(|host| host.gateway.1.is_none()) {
            assert!(Instant::now() < deadline, "a gateway does not answer");
            for at in 0..2 {
                let host = &self.ends[at];
                let request = arp(1, host.mac, host.address, [0xff; 6], host.gateway.0);
                self.send(at, &request);
            }
            let soon = Instant::now() + Duration::from_millis(200);
            while Instant::now() < soon {
                self.step();
            }
        }
    }

    /// Asks once, as soon as there is room.
    pub fn ask(&mut self, flow: Flow) {
        self.queue.push(flow);
    }

    /// Waits until all questions are answered; those that are not in time.
    pub fn wait(&mut self, patience: Duration) -> Vec<Flow> {
        let deadline = Instant::now() + patience;
        while !(self.open.is_empty() && self.queue.is_empty()) && Instant::now() < deadline {
            while self.open.len() < WINDOW
                && let Some(flow) = self.queue.pop()
            {
                self.open.insert(flow);
                let (at, port, to) = flow.asks();
                let host = &self.ends[at];
                let mut payload = b"ask ".to_vec();
                payload.extend(flow.word());
                let from = (host.mac, host.address, port);
                let frame = udp(from, host.gateway.1.expect("a gateway"), to, &payload);
                self.send(at, &frame);
            }
            self.step();
        }
        let missing = std::mem::take(&mut self.open);
        self.queue.clear();
        missing.into_iter().collect()
    }

    /// Sends a frame by a pair at random.
    fn send(&mut self, at: usize, frame: &[u8]) {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let pairs = &mut self.ends[at].pairs;
        let count = pairs.len() as u64;
        let queue = &mut pairs[(self.random >> 20) as usize % count as usize].transmit;
        queue.reclaim();
        assert!(queue.send(NetHeader::default(), frame), "a full ring");
        queue.flush();
    }

    /// Receives what is there, and answers.
    fn step(&mut self) {
        let mut received = Vec::new();
        for (at, host) in self.ends.iter_mut().enumerate() {
            for pair in &mut host.pairs {
                let mut take = |_: NetHeader, frame: &[u8]| received.push((at, frame.to_vec()));
                pair.receive.receive(64, &mut take);
                pair.receive.flush();
            }
        }
        if received.is_empty() {
            std::thread::sleep(Duration::from_micros(50));
        }
        for (at, frame) in received {
            if let Some(answer) = self.answer(at, &frame) {
                self.send(at, &answer);
            }
        }
    }

    fn answer(&mut self, at: usize, frame: &[u8]) -> Option<Vec<u8>> {
        let host = &mut self.ends[at];
        let sender: [u8; 6] = frame[6..12].try_into().ok()?;
        if frame[12..14] == [8, 6] {
            let word = |at: usize| {
                Ipv4Addr::from([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]])
            };
            let (operation, from, to) = (frame[21], word(28), word(38));
            if operation == 2 && from == host.gateway.0 {
                host.gateway.1 = Some(sender);
            }
            let asked = operation == 1 && to == host.address;
            return asked.then(|| arp(2, host.mac, host.address, sender, from));
        }
        let packet = SlicedPacket::from_ethernet(frame).expect("a good packet");
        let Some(NetSlice::Ipv4(ip)) = packet.net else {
            return None;
        };
        let Some(TransportSlice::Udp(segment)) = packet.transport else {
            return None;
        };
        assert_eq!(ip.header().destination_addr(), host.address, "for another");
        let payload = segment.payload();
        let flow = Flow::of(payload[4..7].try_into().expect("a word"));
        let from = (ip.header().source_addr(), segment.source_port());
        if &payload[..4] == b"ask " {
            let mut answer = b"told".to_vec();
            answer.extend(flow.word());
            let own = (host.mac, host.address, segment.destination_port());
            return Some(udp(own, sender, from, &answer));
        }
        let (asker, port, whom) = flow.asks();
        assert_eq!((asker, port), (at, segment.destination_port()), "{flow:?}");
        assert_eq!(whom, from, "{flow:?} was answered by another");
        assert!(self.open.remove(&flow), "{flow:?} was answered twice");
        None
    }
}

fn udp(
    (mac, address, port): ([u8; 6], Ipv4Addr, u16),
    to_mac: [u8; 6],
    to: (Ipv4Addr, u16),
    payload: &[u8],
) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(mac, to_mac)
        .ipv4(address.octets(), to.0.octets(), 64)
        .udp(port, to.1)
        .write(&mut frame, payload)
        .expect("a packet");
    frame.resize(frame.len().max(60), 0);
    frame
}

fn arp(operation: u8, mac: [u8; 6], ip: Ipv4Addr, to_mac: [u8; 6], to: Ipv4Addr) -> Vec<u8> {
    let mut frame = to_mac.to_vec();
    frame.extend(mac);
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, operation]);
    frame.extend(mac);
    frame.extend(ip.octets());
    frame.extend(to_mac);
    frame.extend(to.octets());
    frame.resize(60, 0);
    frame
}
