//! A source of made-up packets, and a sink that counts what is sent to it.
//!
//! A template is prepared when the port is made. What is left to do for a packet is a copy, and the flow's source
//! port with its share of the checksum.

use std::fmt;
use std::net::IpAddr;

use crate::packet::{
    Batch, Mac, Packet, Pseudo, Sum, checksum, ethertype, protocol, pseudo_header, tcp_flag,
};
use crate::port::{Port, PortContext};
use crate::time::Time;

const LINK_HEADER: usize = 14;

/// What generated packets carry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Traffic {
    /// UDP datagrams.
    #[default]
    Udp,
    /// TCP segments with data, of no connection: the ACK flag alone is set.
    Tcp,
    /// Echo requests of ICMP or `ICMPv6`.
    Echo,
}

/// How a generator is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GeneratorConfig {
    /// Packets to make; `None` makes them for ever, 0 makes the port a sink only.
    pub packets: Option<u64>,
    /// Packets a second; `None` makes them as fast as they are taken. Those that a late poll has missed are made
    /// up for.
    pub rate: Option<u64>,
    /// Bytes of a packet, Ethernet header included, frame check sequence not.
    pub size: u16,
    /// Flows that take turns, with successive source ports (identifiers of [`Traffic::Echo`]).
    pub flows: u32,
    /// Source and destination, of one family.
    pub from: IpAddr,
    /// See `from`.
    pub to: IpAddr,
    /// Source port of the first flow.
    pub from_port: u16,
    /// Destination port.
    pub to_port: u16,
    /// What the packets carry.
    pub traffic: Traffic,
    /// Source MAC address.
    pub from_mac: Mac,
    /// Destination MAC address.
    pub to_mac: Mac,
}

/// Why no packets can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GeneratorError {
    /// One address is IPv4, the other IPv6.
    Families,
    /// The packet is smaller than its headers, which take so many bytes.
    TooSmall(usize),
    /// No flows, or more than there are source ports from the first one on.
    Flows,
    /// A rate of 0.
    Rate,
}

impl fmt::Display for GeneratorError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Families => write!(out, "source and destination are of different families"),
            Self::TooSmall(headers) => write!(out, "the headers alone take {headers} bytes"),
            Self::Flows => write!(out, "there are not that many ports from the first one on"),
            Self::Rate => write!(
                out,
                "a rate of 0; to make no packets, let their number be 0"
            ),
        }
    }
}

impl std::error::Error for GeneratorError {}

/// A generator port.
pub struct Generator {
    template: Template,
    flows: u32,
    flow: u32,
    left: Option<u64>,
    pace: Option<Pace>,
}

impl Generator {
    /// Prepares the packets.
    ///
    /// # Errors
    /// There are no such packets.
    pub fn new(config: &GeneratorConfig) -> Result<Self, GeneratorError> {
        // Ports go up to the last one; identifiers begin anew behind it.
        let ports = match config.traffic {
            Traffic::Echo => 1 << 16,
            Traffic::Udp | Traffic::Tcp => (1 << 16) - u32::from(config.from_port),
        };
        if config.flows == 0 || config.flows > ports {
            return Err(GeneratorError::Flows);
        }
        if config.rate == Some(0) {
            return Err(GeneratorError::Rate);
        }
        Ok(Self {
            template: Template::new(config)?,
            flows: config.flows,
            flow: 0,
            left: config.packets,
            pace: config.rate.map(Pace::new),
        })
    }

    fn is_due(&self, now: Time) -> bool {
        self.left != Some(0) && self.pace.as_ref().is_none_or(|pace| pace.due <= now)
    }
}

impl Port for Generator {
    fn receive(&mut self, cx: &mut PortContext<'_>, batch: &mut Batch) {
        if let Some(pace) = &mut self.pace {
            pace.poll(cx.now);
        }
        while !batch.is_full() && self.is_due(cx.now) {
            // Without a free buffer the packet is made later.
            let Some(packet) = self.template.packet(cx, self.flow as u16) else {
                return;
            };
            batch.push(packet);
            self.flow = if self.flow + 1 == self.flows {
                0
            } else {
                self.flow + 1
            };
            self.left = self.left.map(|left| left - 1);
            if let Some(pace) = &mut self.pace {
                pace.advance();
            }
        }
    }

    fn send(&mut self, cx: &mut PortContext<'_>, batch: &mut Batch) {
        let bytes: usize = batch.iter().map(Packet::len).sum();
        cx.tally.sent(batch.len() as u64, bytes as u64);
        batch.clear();
    }

    fn arm(&mut self) -> bool {
        self.is_due(self.pace.as_ref().map_or(Time(0), |pace| pace.now))
    }

    fn deadline(&self) -> Option<Time> {
        let due = self.pace.as_ref().map_or(Time(0), |pace| pace.due);
        (self.left != Some(0)).then_some(due)
    }

    fn is_finished(&self) -> bool {
        self.left == Some(0)
    }
}

/// When packets are due: the n-th, n/rate seconds after the first poll, without an error that adds up.
struct Pace {
    rate: u64,
    due: Time,
    /// What `due` is short of, in 1/rate nanoseconds.
    fraction: u64,
    started: bool,
    now: Time,
}

impl Pace {
    fn new(rate: u64) -> Self {
        Self {
            rate,
            due: Time(0),
            fraction: 0,
            started: false,
            now: Time(0),
        }
    }

    fn poll(&mut self, now: Time) {
        self.now = now;
        if !self.started {
            (self.started, self.due) = (true, now);
        }
    }

    fn advance(&mut self) {
        const SECOND: u64 = 1_000_000_000;
        let mut step = SECOND / self.rate;
        self.fraction += SECOND % self.rate;
        if self.fraction >= self.rate {
            self.fraction -= self.rate;
            step += 1;
        }
        self.due = Time(self.due.0.saturating_add(step));
    }
}

/// A packet whose source port is 0.
struct Template {
    bytes: Vec<u8>,
    first_port: u16,
    /// Where the source port, or the identifier, is.
    port_at: usize,
    checksum_at: usize,
}

impl Template {
    fn new(config: &GeneratorConfig) -> Result<Self, GeneratorError> {
        let (ip_header, kind) = match (config.from, config.to) {
            (IpAddr::V4(_), IpAddr::V4(_)) => (20, ethertype::IPV4),
            (IpAddr::V6(_), IpAddr::V6(_)) => (40, ethertype::IPV6),
            _ => return Err(GeneratorError::Families),
        };
        let l4 = LINK_HEADER + ip_header;
        let (header, port, checksum) = match config.traffic {
            Traffic::Udp => (8, 0, 6),
            Traffic::Tcp => (20, 0, 16),
            Traffic::Echo => (8, 4, 2),
        };
        let size = config.size as usize;
        if size < l4 + header {
            return Err(GeneratorError::TooSmall(l4 + header));
        }
        let mut bytes = vec![0; size];
        bytes[..6].copy_from_slice(&config.to_mac.0);
        bytes[6..12].copy_from_slice(&config.from_mac.0);
        bytes[12..14].copy_from_slice(&kind.to_be_bytes());
        for (index, byte) in bytes[l4 + header..].iter_mut().enumerate() {
            *byte = index as u8;
        }
        write_transport(&mut bytes[l4..], config);
        let sum = write_ip(&mut bytes[LINK_HEADER..], config);
        let checksum_at = l4 + checksum;
        let sum = sum.plus_bytes(&bytes[l4..]).finish();
        bytes[checksum_at..checksum_at + 2].copy_from_slice(&sum.to_be_bytes());
        Ok(Self {
            bytes,
            first_port: config.from_port,
            port_at: l4 + port,
            checksum_at,
        })
    }

    #[inline]
    fn packet(&self, cx: &mut PortContext<'_>, flow: u16) -> Option<Packet> {
        let mut packet = cx.pool.copy_of(&self.bytes)?;
        let data = packet.data_mut();
        let port = self.first_port.wrapping_add(flow);
        data[self.port_at..self.port_at + 2].copy_from_slice(&port.to_be_bytes());
        let field = &mut data[self.checksum_at..self.checksum_at + 2];
        let sum = u16::from_be_bytes([field[0], field[1]]);
        // 0 would mean "none" in UDP; 0xffff stands for the same number everywhere (RFC 768).
        let sum = match Sum::default().plus(port).apply(sum) {
            0 => 0xffff,
            sum => sum,
        };
        field.copy_from_slice(&sum.to_be_bytes());
        Some(packet)
    }
}

/// Writes the fields of a transport header that are not 0, all but source port and checksum.
fn write_transport(bytes: &mut [u8], config: &GeneratorConfig) {
    match config.traffic {
        Traffic::Udp => {
            let len = bytes.len() as u16;
            bytes[2..4].copy_from_slice(&config.to_port.to_be_bytes());
            bytes[4..6].copy_from_slice(&len.to_be_bytes());
        }
        Traffic::Tcp => {
            bytes[2..4].copy_from_slice(&config.to_port.to_be_bytes());
            bytes[12] = 5 << 4;
            bytes[13] = tcp_flag::ACK;
            bytes[14..16].copy_from_slice(&u16::MAX.to_be_bytes());
        }
        Traffic::Echo => bytes[0] = if config.from.is_ipv4() { 8 } else { 128 },
    }
}

/// Writes an IP header, and returns the sum of what the transport checksum covers of it.
fn write_ip(bytes: &mut [u8], config: &GeneratorConfig) -> Sum {
    const TTL: u8 = 64;
    let protocol = match (config.traffic, config.from) {
        (Traffic::Udp, _) => protocol::UDP,
        (Traffic::Tcp, _) => protocol::TCP,
        (Traffic::Echo, IpAddr::V4(_)) => protocol::ICMP,
        (Traffic::Echo, IpAddr::V6(_)) => protocol::ICMPV6,
    };
    match (config.from, config.to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let len = bytes.len() as u16;
            bytes[0] = 0x45;
            bytes[2..4].copy_from_slice(&len.to_be_bytes());
            // Not to be fragmented, so that the identification may be 0 (RFC 6864).
            bytes[6] = 0x40;
            (bytes[8], bytes[9]) = (TTL, protocol);
            bytes[12..16].copy_from_slice(&from.octets());
            bytes[16..20].copy_from_slice(&to.octets());
            let sum = checksum(&bytes[..20]);
            bytes[10..12].copy_from_slice(&sum.to_be_bytes());
            if protocol == protocol::ICMP {
                return Sum::default();
            }
            pseudo_header(Pseudo::V4(from, to), protocol, bytes.len() - 20)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let len = bytes.len() - 40;
            bytes[0] = 0x60;
            bytes[4..6].copy_from_slice(&(len as u16).to_be_bytes());
            (bytes[6], bytes[7]) = (protocol, TTL);
            bytes[8..24].copy_from_slice(&from.octets());
            bytes[24..40].copy_from_slice(&to.octets());
            pseudo_header(Pseudo::V6(from, to), protocol, len)
        }
        // Refused before.
        _ => Sum::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{HugePages, Pool, PoolConfig, parse};
    use crate::port::{PortCounter, PortTally};
    use proptest::prelude::*;

    fn config() -> GeneratorConfig {
        GeneratorConfig {
            packets: None,
            rate: None,
            size: 64,
            flows: 1,
            from: [10, 0, 0, 1].into(),
            to: [10, 0, 0, 2].into(),
            from_port: 1024,
            to_port: 9,
            traffic: Traffic::Udp,
            from_mac: Mac([2, 0, 0, 0, 0, 1]),
            to_mac: Mac([2, 0, 0, 0, 0, 2]),
        }
    }

    struct Bench {
        port: Generator,
        pool: Pool,
        tally: PortTally,
    }

    impl Bench {
        fn new(config: &GeneratorConfig) -> Self {
            let (small, large, huge_pages) = (80, 80, HugePages::Never);
            Self {
                port: Generator::new(config).unwrap(),
                pool: Pool::new(PoolConfig {
                    small,
                    large,
                    huge_pages,
                })
                .unwrap(),
                tally: PortTally::default(),
            }
        }

        fn receive(&mut self, now: u64) -> Batch {
            let Self { port, pool, tally } = self;
            let (mut batch, now) = (Batch::new(), Time(now));
            port.receive(&mut PortContext::new(pool, tally, now), &mut batch);
            batch
        }
    }

    /// The sum of all that a transport checksum covers, with the checksum: 0xffff if it is right.
    fn transport_sum(packet: &Packet) -> u16 {
        let layers = packet.layers();
        let transport = &packet.data()[layers.l4 as usize..];
        let sum = match (packet.ip_src(), packet.ip_dst()) {
            (_, IpAddr::V4(_)) if layers.protocol == protocol::ICMP => Sum::default(),
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                pseudo_header(Pseudo::V4(from, to), layers.protocol, transport.len())
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                pseudo_header(Pseudo::V6(from, to), layers.protocol, transport.len())
            }
            other => panic!("{other:?}"),
        };
        sum.plus_bytes(transport).folded()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn packets_are_whole_and_flows_take_turns(
            v6: bool, kind in 0usize..3, size in 74u16..9300, flows in 1u32..20, from_port in 0u16..65_500, to_port: u16,
        ) {
            let traffic = [Traffic::Udp, Traffic::Tcp, Traffic::Echo][kind];
            let mut config = GeneratorConfig { size, flows, from_port, to_port, traffic, ..config() };
            if v6 {
                (config.from, config.to) = ([0xfd; 16].into(), [0xfc; 16].into());
            }
            let batch = Bench::new(&config).receive(0);
            prop_assert_eq!(batch.len(), 64);
            for (index, mut packet) in batch.into_iter().enumerate() {
                prop_assert_eq!(packet.len(), size as usize);
                prop_assert_eq!(parse(&mut packet), Ok(()));
                prop_assert_eq!(packet.len(), size as usize);
                prop_assert_eq!((packet.ip_src(), packet.ip_dst()), (config.from, config.to));
                prop_assert_eq!(transport_sum(&packet), 0xffff);
                let port = from_port + (index as u32 % flows) as u16;
                let ports = if traffic == Traffic::Echo { (port, port) } else { (port, to_port) };
                prop_assert_eq!(packet.ports(), Some(ports));
                prop_assert_eq!((packet.mac_src(), packet.mac_dst()), (config.from_mac, config.to_mac));
            }
        }
    }

    #[test]
    fn another_implementation_finds_the_checksums_right() {
        let mut bench = Bench::new(&GeneratorConfig {
            flows: 64,
            ..config()
        });
        for packet in bench.receive(0) {
            let sliced = etherparse::SlicedPacket::from_ethernet(packet.data()).unwrap();
            let Some(etherparse::NetSlice::Ipv4(ip)) = &sliced.net else {
                panic!()
            };
            let Some(etherparse::TransportSlice::Udp(udp)) = &sliced.transport else {
                panic!()
            };
            let sum = udp
                .to_header()
                .calc_checksum_ipv4(&ip.header().to_header(), udp.payload());
            assert_eq!(sum.unwrap(), udp.checksum());
        }
    }

    #[test]
    fn the_rate_is_kept_on_average() {
        let mut bench = Bench::new(&GeneratorConfig {
            rate: Some(3),
            packets: Some(7),
            ..config()
        });
        assert_eq!(bench.receive(1000).len(), 1);
        assert_eq!(bench.port.deadline(), Some(Time(333_334_333)));
        assert!(!bench.port.arm());
        assert_eq!(bench.receive(333_334_332).len(), 0);
        // A late poll is made up for, and thirds of a second do not add up to a wrong whole.
        assert_eq!(bench.receive(1_000_001_000).len(), 3);
        assert_eq!(bench.receive(9_000_000_000).len(), 3);
        assert!(bench.port.is_finished() && !bench.port.arm());
        assert_eq!(bench.port.deadline(), None);
    }

    #[test]
    fn without_buffers_packets_are_made_later() {
        let mut bench = Bench::new(&GeneratorConfig {
            packets: Some(100),
            ..config()
        });
        let first = bench.receive(0);
        assert_eq!((first.len(), bench.receive(0).len()), (64, 16));
        assert!(bench.port.arm() && !bench.port.is_finished());
        drop(first);
        assert_eq!(bench.receive(0).len(), 20);
        assert!(bench.port.is_finished());
    }

    #[test]
    fn a_sink_counts() {
        let mut source = Bench::new(&config());
        let mut batch = source.receive(0);
        let mut sink = Generator::new(&GeneratorConfig {
            packets: Some(0),
            ..config()
        })
        .unwrap();
        assert!(sink.is_finished());
        let (pool, tally, now) = (&mut source.pool, &source.tally, Time(0));
        sink.send(&mut PortContext::new(pool, tally, now), &mut batch);
        let tally = source.tally.reader();
        assert_eq!(tally.get(PortCounter::TxPackets), 64);
        assert_eq!(tally.get(PortCounter::TxBytes), 64 * 64);
        assert_eq!(source.pool.free(), [80, 80]);
    }

    #[test]
    fn impossible_packets_are_refused() {
        let error = |config| Generator::new(&config).err().unwrap();
        let to = [0xfd; 16].into();
        assert_eq!(
            error(GeneratorConfig { to, ..config() }),
            GeneratorError::Families
        );
        let small = GeneratorConfig {
            size: 60,
            from: to,
            to,
            traffic: Traffic::Tcp,
            ..config()
        };
        assert_eq!(error(small), GeneratorError::TooSmall(74));
        for flows in [0, 64_513] {
            assert_eq!(
                error(GeneratorConfig { flows, ..config() }),
                GeneratorError::Flows
            );
        }
        let identifiers = GeneratorConfig {
            flows: 65_536,
            traffic: Traffic::Echo,
            ..config()
        };
        assert!(Generator::new(&identifiers).is_ok());
        assert_eq!(
            error(GeneratorConfig {
                rate: Some(0),
                ..config()
            }),
            GeneratorError::Rate
        );
    }
}
