//! The frames that guests send, and how flows are opened: as clients and servers would, so that whatever translates
//! addresses on their way is taken into account.

use std::fmt;
use std::time::{Duration, Instant};

use chainplane_vhost::driver::DriverPair;
use chainplane_vhost::net::NetHeader;
use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};

use crate::chain::{CLIENT_MAC, GATEWAY_MAC, SERVICE};

/// The longest frame that is not a large segment.
pub const LONGEST_PLAIN: usize = 1518;

/// Clients; each has as many ports as there are flows for.
const HOSTS: usize = 256;
/// Frames that are under way while flows are opened.
const BURST: usize = 64;
/// How long they may be: the first may wait for address resolution, and machines may be slow.
const PATIENCE: Duration = Duration::from_millis(300);
/// How often what did not arrive is sent again.
const ATTEMPTS: usize = 20;

/// TCP's flags, as they stand in the header.
const SYN: u8 = 2;
const ACK: u8 = 16;

/// From whom to whom a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Way {
    macs: [[u8; 6]; 2],
    hosts: [[u8; 4]; 2],
    ports: [u16; 2],
}

/// What a frame is.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Datagram,
    Segment(u8),
}

impl Way {
    /// A client's to the service.
    fn of_flow(index: usize) -> Self {
        let (host, port) = (index % HOSTS, 1024 + index / HOSTS);
        Self {
            macs: [CLIENT_MAC, GATEWAY_MAC],
            hosts: [[198, 18, 1, host as u8], SERVICE.0.octets()],
            ports: [port as u16, SERVICE.1],
        }
    }

    fn back(self) -> Self {
        let turn = |pair: [u16; 2]| [pair[1], pair[0]];
        Self {
            macs: [self.macs[1], self.macs[0]],
            hosts: [self.hosts[1], self.hosts[0]],
            ports: turn(self.ports),
        }
    }

    /// The way of a frame, and the number of the flow that it bears.
    fn read(frame: &[u8]) -> Option<(Self, usize)> {
        let packet = SlicedPacket::from_ethernet(frame).ok()?;
        let Some(NetSlice::Ipv4(ip)) = packet.net else {
            return None;
        };
        let (ports, number) = match packet.transport? {
            TransportSlice::Udp(udp) => {
                let number = udp
                    .payload()
                    .first_chunk()
                    .map(|b| u32::from_be_bytes(*b))?;
                ([udp.source_port(), udp.destination_port()], number)
            }
            TransportSlice::Tcp(tcp) => (
                [tcp.source_port(), tcp.destination_port()],
                tcp.sequence_number(),
            ),
            _ => return None,
        };
        let mac = |at: usize| frame[at..].first_chunk().copied();
        let way = Self {
            macs: [mac(6)?, mac(0)?],
            hosts: [ip.header().source(), ip.header().destination()],
            ports,
        };
        Some((way, number as usize))
    }

    /// A frame of `size` bytes. One longer than [`LONGEST_PLAIN`] has a checksum of its pseudo header only.
    fn frame(self, kind: Kind, number: usize, size: usize) -> Vec<u8> {
        let builder = PacketBuilder::ethernet2(self.macs[0], self.macs[1]);
        let builder = builder.ipv4(self.hosts[0], self.hosts[1], 64);
        let mut frame = Vec::with_capacity(size);
        let number = number as u32;
        let written = match kind {
            Kind::Datagram => {
                let mut payload = vec![0xa5; size - 42];
                payload[..4].copy_from_slice(&number.to_be_bytes());
                let builder = builder.udp(self.ports[0], self.ports[1]);
                builder.write(&mut frame, &payload)
            }
            Kind::Segment(flags) => {
                let mut builder = builder.tcp(self.ports[0], self.ports[1], number, 0xffff);
                if flags & SYN != 0 {
                    builder = builder.syn();
                }
                if flags & ACK != 0 {
                    builder = builder.ack(number);
                }
                builder.write(&mut frame, &vec![0xa5; size - 54])
            }
        };
        written.expect("a frame in memory");
        if size > LONGEST_PLAIN {
            let sum = self.pseudo_header(6, size - 34);
            frame[50..52].copy_from_slice(&sum.to_be_bytes());
        }
        frame
    }

    /// The sum that a checksum begins with.
    fn pseudo_header(self, protocol: u32, len: usize) -> u16 {
        let words = self.hosts.as_flattened().chunks(2);
        let words = words.map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
        let mut sum = words.sum::<u32>() + protocol + len as u32;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }
}

/// A client's frame and its answer, where nothing translates them.
pub fn frames(size: usize) -> [Vec<u8>; 2] {
    let way = Way::of_flow(0);
    [way, way.back()].map(|way| way.frame(Kind::Datagram, 0, size))
}

/// Frames of `size` bytes that two guests send.
#[derive(Clone, Copy, Debug)]
pub struct Traffic {
    /// Bytes of a frame; those longer than [`LONGEST_PLAIN`] are TCP's.
    pub size: usize,
    /// Flows.
    pub flows: usize,
    /// Frames that a guest sends before it begins anew: a multiple of the flows, in random order.
    pub frames: usize,
}

/// Why flows could not be opened.
#[derive(Debug)]
pub struct NotOpened {
    missing: usize,
    of: usize,
    step: &'static str,
}

impl fmt::Display for NotOpened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { missing, of, step } = self;
        write!(f, "{missing} of {of} flows did not get through ({step})")
    }
}

impl std::error::Error for NotOpened {}

impl Traffic {
    /// Whether it is TCP's.
    pub fn is_tcp(&self) -> bool {
        self.size > LONGEST_PLAIN
    }

    /// Opens the flows between clients at the first pair and servers at the second, and tells what each sends from then
    /// on.
    ///
    /// # Errors
    /// Flows that do not get through.
    pub fn open(&self, [a, b]: [&mut DriverPair; 2]) -> Result<[Vec<Vec<u8>>; 2], NotOpened> {
        let clients: Vec<Way> = (0..self.flows).map(Way::of_flow).collect();
        let back = |seen: Vec<Way>| seen.into_iter().map(Way::back).collect::<Vec<_>>();
        let (kind, servers) = if self.is_tcp() {
            let servers = back(exchange(a, b, &clients, Kind::Segment(SYN), "SYN")?);
            exchange(b, a, &servers, Kind::Segment(SYN | ACK), "SYN, ACK")?;
            exchange(a, b, &clients, Kind::Segment(ACK), "ACK")?;
            (Kind::Segment(ACK), servers)
        } else {
            let servers = back(exchange(a, b, &clients, Kind::Datagram, "request")?);
            exchange(b, a, &servers, Kind::Datagram, "answer")?;
            (Kind::Datagram, servers)
        };
        let order = shuffled(self.frames.max(self.flows));
        let frames = |ways: &[Way]| {
            let numbers = order.iter().map(|number| number % self.flows);
            numbers
                .map(|number| ways[number].frame(kind, number, self.size))
                .collect()
        };
        Ok([frames(&clients), frames(&servers)])
    }
}

/// Numbers below `count` in an order that is random, and always the same.
fn shuffled(count: usize) -> Vec<usize> {
    let (mut order, mut state) = ((0..count).collect::<Vec<_>>(), 0x9e37_79b9_7f4a_7c15_u64);
    for last in (1..count).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        order.swap(last, (state % (last as u64 + 1)) as usize);
    }
    order
}

/// Sends one small frame a flow until each has arrived; tells how each looked there.
fn exchange(
    from: &mut DriverPair,
    to: &mut DriverPair,
    ways: &[Way],
    kind: Kind,
    step: &'static str,
) -> Result<Vec<Way>, NotOpened> {
    let mut seen: Vec<Option<Way>> = vec![None; ways.len()];
    for _ in 0..ATTEMPTS {
        let missing: Vec<usize> = (0..ways.len()).filter(|n| seen[*n].is_none()).collect();
        for burst in missing.chunks(BURST) {
            send(from, to, &mut seen, burst, |number| {
                ways[number].frame(kind, number, 64)
            });
        }
        if seen.iter().all(Option::is_some) {
            break;
        }
    }
    let missing = seen.iter().filter(|way| way.is_none()).count();
    if missing > 0 {
        let of = ways.len();
        return Err(NotOpened { missing, of, step });
    }
    Ok(seen.into_iter().flatten().collect())
}

/// Sends a burst, and waits until it has arrived and everything was given back; not for ever.
fn send(
    from: &mut DriverPair,
    to: &mut DriverPair,
    seen: &mut [Option<Way>],
    burst: &[usize],
    frame: impl Fn(usize) -> Vec<u8>,
) {
    for &number in burst {
        from.transmit.send(NetHeader::default(), &frame(number));
    }
    from.transmit.flush();
    let (start, mut left) = (Instant::now(), burst.len());
    while (left > 0 || !from.transmit.is_idle()) && start.elapsed() < PATIENCE {
        to.receive.receive(BURST, |_, bytes| {
            let Some((way, number)) = Way::read(bytes) else {
                return;
            };
            if let Some(place) = seen.get_mut(number) {
                left = left.saturating_sub(place.is_none().into());
                *place = Some(way);
            }
        });
        // Whatever the other side is sent meanwhile, resolution of addresses above all, is not for it.
        from.receive.receive(BURST, |_, _| {});
        std::thread::yield_now();
    }
}
