//! Straight from guest to guest gives what the way through host memory gives: the same frames, headers and counters.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chainplane_vhost::backend::{Device, DeviceConfig};
use chainplane_vhost::driver::{DriverPair, FrontEnd, FrontEndConfig};
use chainplane_vhost::net::{FLAG_NEEDS_CSUM, GSO_TCPV4, NetHeader, feature};
use etherparse::PacketBuilder;
use proptest::prelude::*;

use super::super::VhostUser;
use crate::capture::{self, Watch};
use crate::engine::{Engine, Hop};
use crate::objects::Objects;
use crate::packet::{HugePages, Pool, PoolConfig};
use crate::stats::{PortSnapshot, WorkerStats};
use crate::time::Time;

const PLAIN: u64 = feature::VERSION_1 | feature::INDIRECT_DESC;

/// What the two guests are like.
#[derive(Clone, Debug)]
struct Setup {
    pairs: u16,
    queue_size: u16,
    /// Features of the receiver, beside the plain ones.
    features: u64,
    receive_buffer: u32,
    transmit_buffer: u32,
    split_header: bool,
}

/// Two guests joined by an engine.
struct Street {
    engine: Engine,
    guests: [Vec<DriverPair>; 2],
    ends: Vec<FrontEnd>,
    _devices: Vec<Device>,
    _directory: tempfile::TempDir,
}

impl Street {
    fn new(setup: &Setup) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let config = PoolConfig {
            small: 256,
            large: 128,
            huge_pages: HugePages::Never,
        };
        let pool = Pool::new(config).expect("a pool");
        let mut engine = Engine::new(pool, Objects::default(), None);
        let mut devices = Vec::new();
        let mut configs = Vec::new();
        for (index, features) in [feature::OFFLOADS | feature::MRG_RXBUF, setup.features]
            .into_iter()
            .enumerate()
        {
            let path = directory.path().join(index.to_string());
            let mut device = DeviceConfig::new(&path);
            device.queue_pairs = setup.pairs;
            let (device, pairs) = Device::start(device, Box::new(|| {})).expect("a device");
            devices.push(device);
            let port = Box::new(VhostUser::new(pairs));
            engine.add_port(&index.to_string(), port, Hop::Port(1 - index as u16));
            configs.push(FrontEndConfig {
                queue_pairs: setup.pairs,
                queue_size: [256, setup.queue_size][index],
                features: PLAIN | feature::MQ | feature::CTRL_VQ | features,
                receive_buffer: [2048, setup.receive_buffer][index],
                transmit_buffer: setup.transmit_buffer,
                ..FrontEndConfig::new(path)
            });
        }
        let (ends, [a, b]) = attach(&mut engine, configs);
        let mut guests = [a, b];
        for pair in &mut guests[0] {
            pair.transmit.split_header = setup.split_header;
        }
        Self {
            engine,
            guests,
            ends,
            _devices: devices,
            _directory: directory,
        }
    }

    /// Has the packets of the sender copied for a watcher, which takes them through host memory.
    fn watch(&mut self) -> Watch {
        let (tap, watch) = capture::tap(1 << 20);
        self.engine.watch(0, tap);
        watch
    }

    /// Sends frames by a queue and polls until all of them were taken.
    fn send(&mut self, queue: usize, frames: &[Sent]) {
        let queue = queue % self.guests[0].len();
        for frame in frames {
            let mut sent = false;
            for _ in 0..16 {
                let transmit = &mut self.guests[0][queue].transmit;
                sent = transmit.send(frame.header, &frame.bytes);
                transmit.flush();
                if sent {
                    break;
                }
                self.engine.poll(Time(0));
            }
            assert!(sent, "a frame without room");
        }
        for _ in 0..16 {
            self.engine.poll(Time(0));
        }
        let mut all = self.guests[0].iter_mut();
        assert!(all.all(|pair| pair.transmit.is_idle()), "a buffer is lost");
    }

    /// What the receiver finds in each queue.
    fn receive(&mut self) -> Vec<Vec<(NetHeader, Vec<u8>)>> {
        let drain = |pair: &mut DriverPair| {
            let mut got = Vec::new();
            let take = |header: NetHeader, frame: &[u8]| got.push((header, frame.to_vec()));
            pair.receive.receive(usize::MAX, take);
            got
        };
        self.guests[1].iter_mut().map(drain).collect()
    }

    fn counters(&self) -> Vec<PortSnapshot> {
        WorkerStats::of(&self.engine).snapshot().ports
    }
}

/// Attaches guests; the engine has to be polled meanwhile, and stays in its thread.
fn attach(
    engine: &mut Engine,
    configs: Vec<FrontEndConfig>,
) -> (Vec<FrontEnd>, [Vec<DriverPair>; 2]) {
    let done = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&done);
    let attaching = std::thread::spawn(move || {
        let connect = |config| FrontEnd::connect(config).expect("a guest that attaches");
        let attached: Vec<_> = configs.into_iter().map(connect).collect();
        flag.store(true, Ordering::Release);
        attached
    });
    while !done.load(Ordering::Acquire) && !attaching.is_finished() {
        engine.poll(Time(0));
        std::thread::yield_now();
    }
    let (ends, pairs): (Vec<_>, Vec<_>) = attaching.join().expect("guests").into_iter().unzip();
    engine.poll(Time(0));
    (ends, pairs.try_into().expect("two guests"))
}

/// A frame as the sender sends it.
#[derive(Clone, Debug)]
struct Sent {
    header: NetHeader,
    bytes: Vec<u8>,
}

fn segment(payload: usize, size: u16, port: u16) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
        .tcp(port, 80, 1, size)
        .ack(1);
    let mut bytes = Vec::new();
    let payload: Vec<u8> = (0..payload).map(|at| (at * 7) as u8).collect();
    builder.write(&mut bytes, &payload).expect("a frame");
    bytes
}

fn checksummed() -> NetHeader {
    NetHeader {
        flags: FLAG_NEEDS_CSUM,
        csum_start: 34,
        csum_offset: 16,
        ..NetHeader::default()
    }
}

fn any_frame() -> impl Strategy<Value = Sent> {
    let bytes = prop::collection::vec(any::<u8>(), 14..200);
    let plain = (bytes, 0usize..9000).prop_map(|(mut bytes, more)| {
        bytes.resize(bytes.len() + more * usize::from(more % 3 == 0), 7);
        (NetHeader::default(), bytes)
    });
    let undone = (0usize..3000, any::<u16>())
        .prop_map(|(payload, port)| (checksummed(), segment(payload, 1, port)));
    let large = (1usize..65_000, 500u16..1460, any::<u16>()).prop_map(|(payload, size, port)| {
        let header = NetHeader {
            gso_type: GSO_TCPV4,
            gso_size: size,
            hdr_len: 54,
            ..checksummed()
        };
        (header, segment(payload, size, port))
    });
    let lie = (0usize..300, any::<[u8; 12]>()).prop_map(|(payload, header)| {
        let header = NetHeader::from_bytes(header);
        (header, segment(payload, 1, 1))
    });
    let frame = prop_oneof![6 => plain, 2 => undone, 2 => large, 1 => lie];
    frame.prop_map(|(header, bytes)| Sent { header, bytes })
}

fn any_setup() -> impl Strategy<Value = Setup> {
    let able = prop_oneof![
        Just(0),
        Just(feature::GUEST_CSUM),
        Just(feature::GUEST_CSUM | feature::GUEST_TSO4),
    ];
    let buffers = prop_oneof![Just(200u32), Just(1500), Just(2048), Just(65_700)];
    (
        1u16..=3,
        4u32..8,
        able,
        buffers,
        prop_oneof![Just(300u32), Just(2048), Just(65_700)],
        any::<bool>(),
    )
        .prop_map(
            |(pairs, size, able, receive_buffer, transmit_buffer, split)| {
                // A driver that merges no buffers posts such as hold any frame.
                let merging = receive_buffer < 65_700;
                Setup {
                    pairs,
                    queue_size: 1 << size,
                    features: able | if merging { feature::MRG_RXBUF } else { 0 },
                    receive_buffer,
                    transmit_buffer,
                    split_header: split,
                }
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn straight_or_through_host_memory(
        setup in any_setup(),
        rounds in prop::collection::vec(prop::collection::vec(any_frame(), 1..8), 1..4),
    ) {
        let [mut straight, mut watched] = [(); 2].map(|()| Street::new(&setup));
        let _watch = watched.watch();
        // There is no order between what comes from different queues of the sender.
        for (queue, frames) in rounds.iter().enumerate() {
            straight.send(queue, frames);
            watched.send(queue, frames);
            prop_assert_eq!(straight.counters(), watched.counters());
        }
        prop_assert!(straight.receive() == watched.receive(), "other frames");
    }
}

fn setup() -> Setup {
    Setup {
        pairs: 1,
        queue_size: 16,
        features: feature::OFFLOADS | feature::MRG_RXBUF,
        receive_buffer: 4096,
        transmit_buffer: 2048,
        split_header: false,
    }
}

fn plain(bytes: &[u8]) -> Sent {
    Sent {
        header: NetHeader::default(),
        bytes: bytes.to_vec(),
    }
}

#[test]
fn no_packet_buffer_is_needed() {
    let mut street = Street::new(&setup());
    let hoard: Vec<_> = std::iter::from_fn(|| street.engine.pool.take(64)).collect();
    assert_eq!(hoard.len(), 256);
    street.send(0, &[plain(&[1; 60]), plain(&[2; 1500])]);
    let got: Vec<_> = street.receive().concat();
    assert_eq!(got.len(), 2);
    assert!(got[0].1 == [1; 60] && got[1].1 == [2; 1500]);
}

#[test]
fn what_finds_no_room_is_dropped_and_the_sender_goes_on() {
    let mut street = Street::new(&setup());
    for _ in 0..3 {
        street.send(0, &vec![plain(&[3; 64]); 20]);
    }
    let drops = |ports: Vec<PortSnapshot>, name: &str| {
        let found = ports[1].drops.iter().find(|(info, _)| info.name == name);
        found.map(|(_, count)| *count)
    };
    assert_eq!(drops(street.counters(), "full"), Some(60 - 16));
    assert_eq!(street.receive().concat().len(), 16);
    let end = &mut street.ends[1];
    let flag = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            end.enable(false).expect("a back end that answers");
            flag.store(true, Ordering::Release);
        });
        while !flag.load(Ordering::Acquire) {
            street.engine.poll(Time(0));
        }
    });
    street.send(0, &vec![plain(&[4; 64]); 5]);
    assert_eq!(drops(street.counters(), "down"), Some(5));
    assert_eq!(street.receive().concat().len(), 0);
}
