use super::super::interface::testing::{in_namespace, ip};
use super::*;
use crate::offload::complete_and_send;
use crate::packet::{Gso, HugePages, Offload, Pool, PoolConfig};
use crate::port::PortTally;
use etherparse::PacketBuilder;
use std::time::Instant;

fn open(interface: String) -> io::Result<AfPacket> {
    AfPacket::open(&AfPacketConfig {
        interface,
        offloads: Offloads::ALL,
    })
}

struct Bench {
    ports: [AfPacket; 2],
    pool: Pool,
    tally: PortTally,
    now: Time,
}

impl Bench {
    /// A port on each end of a pair of interfaces.
    fn new() -> Self {
        ip("link add left type veth peer name right");
        ip("link set left up");
        ip("link set right up");
        let huge_pages = HugePages::Never;
        let (small, large) = (256, 8);
        let pool = Pool::new(PoolConfig {
            small,
            large,
            huge_pages,
        })
        .unwrap();
        let ports = ["left", "right"].map(|interface| {
            let interface = interface.to_owned();
            open(interface).unwrap()
        });
        let mut bench = Self {
            ports,
            pool,
            tally: PortTally::default(),
            now: Time(0),
        };
        bench.settle();
        bench
    }

    fn send(&mut self, from: usize, packets: &[(Vec<u8>, Offload)]) {
        let mut batch = Batch::new();
        for (bytes, offload) in packets {
            let mut packet = self.pool.copy_of(bytes).unwrap();
            *packet.offload_mut() = *offload;
            batch.push(packet);
        }
        let Self {
            ports,
            pool,
            tally,
            now,
        } = self;
        let mut cx = PortContext::new(pool, tally, *now);
        complete_and_send(&mut ports[from], &mut cx, &mut batch);
        assert!(batch.is_empty());
    }

    /// Waits until packets cross from the left to the right: the kernel says that an interface is up before it is.
    fn settle(&mut self) {
        for number in 0..2000u16 {
            let probe = udp(None, &number.to_be_bytes());
            self.send(0, &[whole(probe.clone())]);
            std::thread::sleep(Duration::from_millis(10));
            let last = std::iter::from_fn(|| self.try_receive(1).pop()).last();
            if last.is_some_and(|packet| packet.data() == probe) {
                return;
            }
        }
        panic!("nothing crosses");
    }

    fn try_receive(&mut self, to: usize) -> Batch {
        let Self {
            ports,
            pool,
            tally,
            now,
        } = self;
        let mut cx = PortContext::new(pool, tally, *now);
        let mut batch = Batch::new();
        ports[to].receive(&mut cx, &mut batch);
        batch
    }

    /// Waits until `count` packets have come.
    fn receive(&mut self, to: usize, count: usize) -> Vec<Packet> {
        let mut got = Vec::new();
        let until = Instant::now() + Duration::from_secs(20);
        while got.len() < count {
            assert!(Instant::now() < until, "{} of {count} packets", got.len());
            got.extend(self.try_receive(to));
        }
        got
    }

    /// Lets the time pass after which ports look at their interfaces.
    fn look(&mut self) {
        self.now = self.now + LOOK_INTERVAL;
        for port in 0..2 {
            assert!(self.try_receive(port).is_empty());
        }
    }

    fn drops(&self, reason: PortDrop) -> u64 {
        self.tally
            .reader()
            .at(PortCounter::INFO.len() + reason as usize)
    }
}

fn udp(vlan: Option<u16>, payload: &[u8]) -> Vec<u8> {
    let link = PacketBuilder::ethernet2([2; 6], [2; 6]);
    let mut bytes = Vec::new();
    let (from, to) = ([10, 0, 0, 1], [10, 0, 0, 2]);
    if let Some(id) = vlan {
        let id = id.try_into().unwrap();
        let network = link.single_vlan(id).ipv4(from, to, 64);
        network.udp(5, 6).write(&mut bytes, payload).unwrap();
    } else {
        link.ipv4(from, to, 64)
            .udp(5, 6)
            .write(&mut bytes, payload)
            .unwrap();
    }
    bytes
}

fn whole(bytes: Vec<u8>) -> (Vec<u8>, Offload) {
    (bytes, Offload::default())
}

#[test]
fn packets_cross_in_order_and_tagged() {
    in_namespace(|| {
        let mut bench = Bench::new();
        let sent: Vec<_> = (0..200)
            .map(|i| {
                udp(
                    (i % 3 == 0).then_some(i + 1),
                    &vec![i as u8; 7 * i as usize],
                )
            })
            .collect();
        for chunk in sent.chunks(50) {
            let chunk: Vec<_> = chunk.iter().cloned().map(whole).collect();
            bench.send(0, &chunk);
        }
        let got = bench.receive(1, sent.len());
        for (index, (got, sent)) in got.iter().zip(&sent).enumerate() {
            assert_eq!(got.data(), sent, "packet {index}");
        }
        drop(got);
        assert_eq!(bench.pool.free(), [256, 8]);
        assert!(
            !bench.ports[0].arm(),
            "what a port sends does not come back to it"
        );
        bench.look();
        assert_eq!(bench.tally.reader().get(PortCounter::Missed), 0);
    });
}

#[test]
fn large_segments_stay_whole() {
    in_namespace(|| {
        let mut bench = Bench::new();
        for tagged in [false, true] {
            let tag = if tagged { 4 } else { 0 };
            let mut bytes = Vec::new();
            PacketBuilder::ethernet2([2; 6], [2; 6])
                .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
                .tcp(5, 6, 7, 8)
                .write(&mut bytes, &vec![9; 60_000])
                .unwrap();
            if tagged {
                bytes.splice(12..12, [0x81, 0, 0, 5]);
            }
            let offload = Offload {
                needs_checksum: true,
                gso: Gso::Tcp4,
                gso_size: 1448,
                header_len: 54 + tag,
                checksum_start: 34 + tag,
                checksum_offset: 16,
                ..Offload::default()
            };
            bench.send(0, &[(bytes.clone(), offload), whole(udp(None, b"after"))]);
            let got = bench.receive(1, 2);
            assert_eq!(got[0].data(), bytes);
            assert_eq!(*got[0].offload(), offload);
            assert_eq!(got[1].data(), udp(None, b"after"));
        }
    });
}

#[test]
fn what_does_not_fit_is_dropped_alone() {
    in_namespace(|| {
        let mut bench = Bench::new();
        let good = || whole(udp(None, b"good"));
        let long = whole(udp(None, &[0; 3000]));
        bench.send(0, &[good(), long, whole(vec![1; 6]), good()]);
        assert_eq!(bench.receive(1, 2).len(), 2);
        assert_eq!(
            (
                bench.drops(PortDrop::TooLong),
                bench.drops(PortDrop::Refused)
            ),
            (1, 1)
        );
    });
}

#[test]
fn a_port_outlives_its_interface() {
    in_namespace(|| {
        let mut bench = Bench::new();
        let packet = [whole(udp(None, b"again"))];
        ip("link set left down");
        bench.send(0, &packet);
        assert_eq!(bench.drops(PortDrop::Down), 1);
        ip("link set left up");
        bench.look();
        bench.settle();

        ip("link delete left");
        bench.look();
        let drops = bench.drops(PortDrop::Down);
        bench.send(0, &packet);
        assert_eq!(bench.drops(PortDrop::Down), drops + 1);
        ip("link add left type veth peer name right");
        ip("link set left up");
        ip("link set right up");
        bench.look();
        bench.settle();
        bench.send(0, &packet);
        assert_eq!(bench.receive(1, 1)[0].data(), packet[0].0);
    });
}

#[test]
fn an_interface_that_is_not_there_is_named() {
    in_namespace(|| {
        let interface = "nonsense-0".to_owned();
        let error = open(interface).err().unwrap();
        assert_eq!(error.to_string(), "there is no interface `nonsense-0`");
    });
}
