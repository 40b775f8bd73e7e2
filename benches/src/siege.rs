//! A hostile guest beside well-behaved ones on the same worker: what it can cost them in one poll.
//!
//! Guests `a` and `b` send to each other without end. Guest `c` sends to the hostile guest `h` and receives from it. The
//! worker's engine is polled by the caller, one poll at a time, and everybody moves in between: so what is counted is the
//! same in each run.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use chainplane::instance::Detached;
use chainplane::spec::{self, Environment, Model};
use chainplane_dataplane::engine::Engine;
use chainplane_dataplane::time::Time;
use chainplane_vhost::backend::DeviceStatus;
use chainplane_vhost::driver::{
    DriverError, DriverPair, FastMode, FastPair, FrontEnd, FrontEndConfig, GUEST_BASE, RingLayout,
};
use chainplane_vhost::net::{FLAG_NEEDS_CSUM, GSO_TCPV4, NetHeader, feature};
use chainplane_vhost::ring::{MAX_CHAIN, MAX_FRAME, RingCounters};

use crate::traffic::frames;

/// Frames that a good guest can move in one poll and direction.
pub const FULL: u64 = FastPair::BURST as u64;

const NEXT: u64 = 1 << 32;
const WRITE: u64 = 2 << 32;
const INDIRECT: u64 = 4 << 32;
/// Entries of the hostile guest's rings.
const RING: u16 = 1024;

/// What the hostile guest's rings hold, again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attack {
    /// Nothing: what a poll costs without it.
    None,
    /// Chains by indirect tables of the largest size, each buffer of one byte.
    Crumbs,
    /// The same of empty buffers, which hold no frame.
    Nothings,
    /// Chains through the ring's own table, of as many buffers of one byte as a chain may have.
    Direct,
    /// The largest frames.
    Giants,
    /// Chains of nearly 4 GiB, the same 16 MiB again and again.
    Oversize,
    /// Segments for a receiver that can't cut them, of as many pieces as a segment may have.
    Shreds,
}

impl Attack {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::None,
        Self::Crumbs,
        Self::Nothings,
        Self::Direct,
        Self::Giants,
        Self::Oversize,
        Self::Shreds,
    ];
}

/// Guests `a` and `b`, and `c` and `h`, on one worker, with their sockets in a directory.
///
/// # Panics
/// When the configuration is wrong, which is a mistake here.
pub fn model(directory: &Path, worker: &str) -> Model {
    let at = |name| directory.join(name).display().to_string();
    let ports: String = ["a", "b", "c", "h"]
        .map(|name| format!("  {name}: {{ vhost-user: {{ socket: {} }} }}\n", at(name)))
        .concat();
    let text = format!(
        "version: 1\nworkers: [{worker}]\ncontrol: {{ socket: {} }}\nports:\n{ports}\
         chains: {{ good: [a, b], bad: [c, h] }}\n",
        at("control"),
    );
    spec::parse(&text, &directory.join("siege.yaml"), &Environment::here())
        .unwrap_or_else(|report| panic!("{}", report.render(false)))
}

/// The worker and its guests.
pub struct Siege {
    engine: Engine,
    devices: Detached,
    now: Time,
    good: [FastPair; 3],
    hostile: Option<Hostile>,
    directory: tempfile::TempDir,
    _ends: Vec<FrontEnd>,
}

/// The hostile guest.
pub struct Hostile {
    /// Its front end.
    pub end: FrontEnd,
    attack: Attack,
    _pair: DriverPair,
}

/// What one poll did.
#[derive(Clone, Copy, Debug)]
pub struct Polled {
    /// Frames that arrived at `a` and at `b`.
    pub received: [u64; 2],
    /// What the ring from the hostile guest cost.
    pub descriptors: u64,
    /// Bytes of the frames taken from it.
    pub bytes: u64,
    /// What the poll took.
    pub time: Duration,
}

impl Siege {
    /// Attaches everybody; the hostile guest has its rings as `attack` says.
    ///
    /// # Panics
    /// If an engine or a guest can't be had.
    pub fn new(attack: Attack) -> Self {
        let directory = tempfile::tempdir().expect("a directory for sockets");
        let sockets = directory.path();
        let model = model(sockets, "{}");
        let (engine, devices) = Detached::open(&model).expect("an engine");
        let [there, back] = frames(64);
        let mut ends = Vec::new();
        let good = [("a", &there), ("b", &back), ("c", &there)].map(|(name, frame)| {
            let (end, pair) = attach(&sockets.join(name), 256);
            ends.push(end);
            FastPair::new(
                pair,
                FastMode::IndexOnly,
                NetHeader::default(),
                std::slice::from_ref(frame),
                0,
            )
        });
        let mut made = Self {
            engine,
            devices,
            now: Time(0),
            good,
            hostile: None,
            directory,
            _ends: ends,
        };
        made.hostile = Some(Hostile::attach(&made.socket(), attack));
        // From the first poll on, everybody has something to do.
        for _ in 0..20 {
            made.poll();
        }
        made
    }

    /// Everybody moves, and the engine is polled once.
    pub fn poll(&mut self) -> Polled {
        if let Some(hostile) = &self.hostile {
            hostile.refill();
        }
        let before = self.taken();
        self.now = Time(self.now.0 + 10_000);
        let start = Instant::now();
        self.engine.poll(self.now);
        let time = start.elapsed();
        let after = self.taken();
        let [a, b, _] = self.good.each_mut().map(|guest| guest.poll().received);
        Polled {
            received: [a, b].map(u64::from),
            descriptors: after.descriptors - before.descriptors,
            bytes: after.bytes - before.bytes,
            time,
        }
    }

    /// Where the hostile guest attaches.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("h")
    }

    /// Takes the hostile guest out, to be driven by somebody else. From then on only the good ones move.
    pub fn release(&mut self) -> Option<Hostile> {
        self.hostile.take()
    }

    /// Puts one in its place.
    pub fn admit(&mut self, hostile: Hostile) {
        self.hostile = Some(hostile);
    }

    /// What the operator is told of the hostile guest's device.
    pub fn status(&self) -> DeviceStatus {
        let device = self.devices.device(3).expect("the last port is h");
        device.status()
    }

    /// What the ring from the hostile guest has counted.
    pub fn taken(&self) -> RingCounters {
        self.status().queues[1].counters
    }
}

impl Hostile {
    /// Attaches it, with its rings as `attack` says.
    ///
    /// # Panics
    /// If it can't be attached.
    pub fn attach(socket: &Path, attack: Attack) -> Self {
        let (end, pair) = attach(socket, RING);
        let made = Self {
            end,
            attack,
            _pair: pair,
        };
        made.arm();
        made
    }

    /// Starts its rings anew, with what the attack says in them.
    ///
    /// # Errors
    /// A back end that refuses.
    pub fn restart(&mut self) -> Result<(), DriverError> {
        self.end.restart(self.end.features())?;
        self.arm();
        Ok(())
    }

    /// Moves the available index of the ring that it sends by further than the ring is long.
    pub fn jump(&self) {
        let layout = self.layout(1);
        let used = self.end.memory().load_u16(layout.used + 2);
        let far = used.wrapping_add(1 << 15);
        self.end.memory().store_u16(layout.avail + 2, far);
    }

    /// Writes a descriptor into the table at an offset of the hostile guest's memory.
    fn describe(&self, table: usize, index: u16, offset: usize, len: u32, flags: u64, next: u16) {
        let at = table + 16 * usize::from(index);
        let memory = self.end.memory();
        memory.store_u64(at, GUEST_BASE + offset as u64);
        memory.store_u64(at + 8, u64::from(len) | flags | u64::from(next) << 48);
    }

    fn layout(&self, queue: usize) -> RingLayout {
        self.end.layouts()[queue]
    }

    /// Writes both rings as the attack says.
    fn arm(&self) {
        for queue in 0..2 {
            let layout = self.layout(queue);
            let write = if queue == 0 { WRITE } else { 0 };
            let spare = self.end.spare() + queue * 16 * MAX_CHAIN;
            for index in 0..RING {
                let entry = layout.avail + 4 + 2 * usize::from(index);
                self.end.memory().store_u16(entry, index);
            }
            match self.attack {
                Attack::None => return,
                Attack::Crumbs => self.indirect(layout, spare, 1, write),
                Attack::Nothings => self.indirect(layout, spare, 0, write),
                Attack::Direct => self.direct(layout, write),
                Attack::Giants | Attack::Shreds if queue == 0 => {}
                Attack::Giants => self.single(layout, (MAX_FRAME + 12) as u32),
                Attack::Oversize => self.indirect(layout, spare, (4 << 20) - 16, write),
                Attack::Shreds => self.shreds(layout),
            }
        }
    }

    /// Every chain is an indirect table of the largest size.
    fn indirect(&self, layout: RingLayout, table: usize, len: u32, write: u64) {
        for index in 0..MAX_CHAIN as u16 {
            let last = usize::from(index) + 1 == MAX_CHAIN;
            let flags = write | if last { 0 } else { NEXT };
            self.describe(table, index, 0, len, flags, index.wrapping_add(1));
        }
        for index in 0..RING {
            let bytes = 16 * MAX_CHAIN as u32;
            self.describe(layout.desc, index, table, bytes, INDIRECT, 0);
        }
    }

    /// Every chain is the whole of the ring's table.
    fn direct(&self, layout: RingLayout, write: u64) {
        for index in 0..RING {
            let flags = write | if index + 1 < RING { NEXT } else { 0 };
            self.describe(layout.desc, index, 0, 1, flags, index.wrapping_add(1));
            let entry = layout.avail + 4 + 2 * usize::from(index);
            self.end.memory().store_u16(entry, 0);
        }
    }

    fn single(&self, layout: RingLayout, len: u32) {
        for index in 0..RING {
            self.describe(layout.desc, index, layout.buffers, len, 0, 0);
        }
    }

    /// Every frame is a TCP segment to be cut into 256 pieces of 128 bytes.
    fn shreds(&self, layout: RingLayout) {
        let mut frame = Vec::new();
        etherparse::PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .tcp(1000, 2000, 1, 1000)
            .ack(1)
            .write(&mut frame, &vec![7; 256 * 128])
            .expect("a frame in memory");
        let header = NetHeader {
            flags: FLAG_NEEDS_CSUM,
            gso_type: GSO_TCPV4,
            hdr_len: 54,
            gso_size: 128,
            csum_start: 34,
            csum_offset: 16,
            num_buffers: 0,
        }
        .to_bytes();
        let memory = self.end.memory();
        memory.write(layout.buffers, &header);
        memory.write(layout.buffers + header.len(), &frame);
        self.single(layout, (header.len() + frame.len()) as u32);
    }

    /// Makes every entry of the hostile guest's rings available, again where they were used.
    pub fn refill(&self) {
        if self.attack == Attack::None {
            return;
        }
        for queue in 0..2 {
            let (layout, memory) = (self.layout(queue), self.end.memory());
            let used = memory.load_u16(layout.used + 2);
            memory.store_u16(layout.avail + 2, used.wrapping_add(RING));
        }
    }
}

/// A guest with one pair of queues, without receive offloads.
fn attach(socket: &Path, size: u16) -> (FrontEnd, DriverPair) {
    let mut config = FrontEndConfig::new(socket);
    config.queue_size = size;
    config.spare_memory = 16 << 20;
    let tso = feature::CSUM | feature::HOST_TSO4;
    config.features = feature::VERSION_1 | feature::MRG_RXBUF | feature::INDIRECT_DESC | tso;
    let (end, pairs) = FrontEnd::connect(config).expect("a guest that attaches");
    let pair = pairs.into_iter().next().expect("a pair of queues");
    (end, pair)
}
