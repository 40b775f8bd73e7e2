//! Two guests that an engine joins, for tests.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chainplane_vhost::backend::{Device, DeviceConfig};
use chainplane_vhost::driver::{DriverPair, FrontEnd, FrontEndConfig};
use chainplane_vhost::net::{FLAG_NEEDS_CSUM, NetHeader, feature};
use etherparse::PacketBuilder;
use proptest::prelude::*;

use super::VhostUser;
use crate::capture::{self, Watch};
use crate::engine::{Engine, Hop};
use crate::flow::FlowTable;
use crate::objects::Objects;
use crate::packet::{HugePages, Pool, PoolConfig};
use crate::stats::{PortSnapshot, WorkerStats};
use crate::time::Time;

pub(crate) const PLAIN: u64 = feature::VERSION_1 | feature::INDIRECT_DESC;

/// What the two guests are like.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) pairs: u16,
    pub(crate) queue_size: u16,
    /// Features of the receiver, beside the plain ones.
    pub(crate) features: u64,
    pub(crate) receive_buffer: u32,
    pub(crate) transmit_buffer: u32,
    pub(crate) split_header: bool,
}

/// Two guests joined by an engine.
pub(crate) struct Street {
    pub(crate) engine: Engine,
    pub(crate) guests: [Vec<DriverPair>; 2],
    pub(crate) ends: Vec<FrontEnd>,
    _devices: Vec<Device>,
    _directory: tempfile::TempDir,
}

impl Street {
    /// A chain without functions.
    pub(crate) fn new(setup: &Setup) -> Self {
        Self::by(setup, None, [Hop::Port(1), Hop::Port(0)])
    }

    /// What the guests send goes where `links` say, and is replayed if there is a flow table.
    pub(crate) fn by(setup: &Setup, flows: Option<FlowTable>, links: [Hop; 2]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let config = PoolConfig {
            small: 256,
            large: 128,
            huge_pages: HugePages::Never,
        };
        let pool = Pool::new(config).expect("a pool");
        let mut engine = Engine::new(pool, Objects::default(), flows);
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
            engine.add_port(&index.to_string(), port, links[index]);
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
    pub(crate) fn watch(&mut self) -> Watch {
        let (tap, watch) = capture::tap(1 << 20);
        self.engine.watch(0, tap);
        watch
    }

    /// Sends frames by a queue and polls until all of them were taken.
    pub(crate) fn send(&mut self, queue: usize, frames: &[Sent]) {
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
    pub(crate) fn receive(&mut self) -> Vec<Vec<(NetHeader, Vec<u8>)>> {
        self.receive_at(1)
    }

    /// What one of the guests finds in each queue.
    pub(crate) fn receive_at(&mut self, guest: usize) -> Vec<Vec<(NetHeader, Vec<u8>)>> {
        let drain = |pair: &mut DriverPair| {
            let mut got = Vec::new();
            let take = |header: NetHeader, frame: &[u8]| got.push((header, frame.to_vec()));
            pair.receive.receive(usize::MAX, take);
            got
        };
        self.guests[guest].iter_mut().map(drain).collect()
    }

    pub(crate) fn counters(&self) -> Vec<PortSnapshot> {
        WorkerStats::of(&self.engine).snapshot().ports
    }
}

/// Attaches guests; the engine has to be polled meanwhile, and stays in its thread.
pub(crate) fn attach(
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
pub(crate) struct Sent {
    pub(crate) header: NetHeader,
    pub(crate) bytes: Vec<u8>,
}

pub(crate) fn segment(payload: usize, size: u16, port: u16) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
        .tcp(port, 80, 1, size)
        .ack(1);
    let mut bytes = Vec::new();
    let payload: Vec<u8> = (0..payload).map(|at| (at * 7) as u8).collect();
    builder.write(&mut bytes, &payload).expect("a frame");
    bytes
}

pub(crate) fn checksummed() -> NetHeader {
    NetHeader {
        flags: FLAG_NEEDS_CSUM,
        csum_start: 34,
        csum_offset: 16,
        ..NetHeader::default()
    }
}

pub(crate) fn any_setup() -> impl Strategy<Value = Setup> {
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

pub(crate) fn setup() -> Setup {
    Setup {
        pairs: 1,
        queue_size: 16,
        features: feature::OFFLOADS | feature::MRG_RXBUF,
        receive_buffer: 4096,
        transmit_buffer: 2048,
        split_header: false,
    }
}

pub(crate) fn plain(bytes: &[u8]) -> Sent {
    Sent {
        header: NetHeader::default(),
        bytes: bytes.to_vec(),
    }
}
