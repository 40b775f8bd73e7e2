//! The split ring against another implementation of it, rust-vmm's `virtio-queue`: the same valid
//! driver on two copies of the same memory, for frames from the guest and for frames to it.

use std::sync::Arc;

use proptest::prelude::*;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::{Areas, Direction, FromGuest, Ring, RingReport, Started, ToGuest};
use crate::memory::{GuestMemory, Mapping, RegionLayout};
use crate::net::{NetHeader, feature};

const LEN: usize = 0x1_0000;
const BASE: u64 = 0x8000_0000;
const USER: u64 = 0x6000_0000;
const SIZE: u16 = 16;
const DESC: u64 = 0;
const AVAIL: u64 = 0x1000;
const USED: u64 = 0x2000;
const TABLES: u64 = 0x3000;
const BUFFERS: u64 = 0x8000;
/// Room of a buffer for the device to write: no two of them share a byte.
const ROOM: u64 = 0x200;
const WRITE: u16 = 2;

/// What a driver does, and when the device polls.
#[derive(Clone, Debug)]
enum Step {
    /// Makes a chain of buffers (offset, length) available, indirect or not.
    Send(Vec<(u16, u16)>, bool),
    /// Asks to be notified that many entries after the last used one.
    Event(u16),
    /// The device takes up to so many chains and gives them back, or delivers so many frames, of about so
    /// many bytes.
    Poll(u16, u16),
}

fn step() -> impl Strategy<Value = Step> {
    let buffer = (0u16..0x4000, 1u16..600);
    prop_oneof![
        4 => (proptest::collection::vec(buffer, 1..4), any::<bool>()).prop_map(|(b, i)| Step::Send(b, i)),
        1 => (0u16..20).prop_map(Step::Event),
        2 => (1u16..20, 1u16..1500).prop_map(|(count, len)| Step::Poll(count, len)),
    ]
}

/// One driver that writes to both copies.
struct Driver {
    ours: Mapping,
    theirs: GuestMemoryMmap,
    /// The device writes.
    write: bool,
    available: u16,
    /// Chains made available and not yet given back.
    open: u16,
    /// Descriptors of the ring's table in use; all are free again once no chain is open.
    next_desc: u16,
}

impl Driver {
    fn write(&self, at: u64, bytes: &[u8]) {
        self.ours.write(at as usize, bytes);
        self.theirs
            .write_slice(bytes, GuestAddress(BASE + at))
            .expect("inside");
    }

    fn describe(&self, table: u64, index: u16, address: u64, len: u32, flags: u16, next: u16) {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&(BASE + address).to_le_bytes());
        bytes[8..12].copy_from_slice(&len.to_le_bytes());
        bytes[12..14].copy_from_slice(&flags.to_le_bytes());
        bytes[14..].copy_from_slice(&next.to_le_bytes());
        self.write(table + 16 * u64::from(index), &bytes);
    }

    fn send(&mut self, buffers: &[(u16, u16)], indirect: bool) {
        let needed = if indirect { 1 } else { buffers.len() as u16 };
        if self.open == 0 {
            self.next_desc = 0;
        }
        if self.next_desc + needed > SIZE || self.open == SIZE {
            return;
        }
        let head = self.next_desc;
        let (table, first) = if indirect {
            let table = TABLES + 0x100 * u64::from(head);
            let len = 16 * buffers.len() as u32;
            self.describe(DESC, head, table, len, 4, 0);
            (table, 0)
        } else {
            (DESC, head)
        };
        for (i, (at, len)) in buffers.iter().enumerate() {
            let index = first + i as u16;
            let mut flags = u16::from(i + 1 < buffers.len());
            let (mut at, mut len) = (u64::from(*at), u32::from(*len));
            if self.write {
                flags |= WRITE;
                at = (4 * u64::from(head) + i as u64) * ROOM;
                len = len.min(ROOM as u32);
            }
            self.describe(table, index, BUFFERS + at, len, flags, index + 1);
        }
        self.next_desc += needed;
        self.open += 1;
        self.write(
            AVAIL + 4 + 2 * u64::from(self.available % SIZE),
            &head.to_le_bytes(),
        );
        self.available = self.available.wrapping_add(1);
        self.write(AVAIL + 2, &self.available.to_le_bytes());
    }

    fn used_ring(&self) -> (Vec<u8>, Vec<u8>) {
        let len = 2 + 8 * usize::from(SIZE);
        let (mut ours, mut theirs) = (vec![0; len], vec![0; len]);
        // The flags before and the event index behind are each side's own business.
        self.ours.read(USED as usize + 2, &mut ours);
        self.theirs
            .read_slice(&mut theirs, GuestAddress(BASE + USED + 2))
            .expect("inside");
        (ours, theirs)
    }
}

fn ours(memory: &Arc<GuestMemory>, direction: Direction, features: u64) -> Started {
    let areas = Areas {
        desc: USER + DESC,
        driver: USER + AVAIL,
        device: USER + USED,
    };
    let opened = Ring::open(memory, SIZE, areas, None, direction, features);
    Started {
        ring: opened.expect("valid"),
        epoch: 1,
        features,
        enabled: true,
        kick: None,
        call: Some(Arc::new(crate::event::Event::new().expect("eventfd"))),
        error: None,
        log: None,
        inflight: None,
    }
}

fn theirs(event_index: bool) -> Queue {
    let mut queue = Queue::new(SIZE).expect("size");
    let parts = |at: u64| (Some((BASE + at) as u32), Some(((BASE + at) >> 32) as u32));
    let (low, high) = parts(DESC);
    queue.set_desc_table_address(low, high);
    let (low, high) = parts(AVAIL);
    queue.set_avail_ring_address(low, high);
    let (low, high) = parts(USED);
    queue.set_used_ring_address(low, high);
    queue.set_event_idx(event_index);
    queue.set_ready(true);
    queue
}

/// Both devices, and the driver that they share.
struct Pair {
    driver: Driver,
    from: FromGuest,
    to: ToGuest,
    report: Arc<RingReport>,
    queue: Queue,
    oracle: GuestMemoryMmap,
    /// Chains given back.
    used: u16,
    /// Whether anything was given back yet.
    begun: bool,
}

impl Pair {
    fn new(write: bool, event_index: bool) -> Self {
        let fd = memfd_create("oracle", MemfdFlags::CLOEXEC).expect("memfd");
        ftruncate(&fd, LEN as u64).expect("size");
        let file = Mapping::of_file(&fd, LEN).expect("maps");
        let layout = RegionLayout {
            guest_address: BASE,
            user_address: USER,
            size: LEN as u64,
            file_offset: 0,
        };
        let memory = Arc::new(GuestMemory::new(vec![(layout, fd)]).expect("maps"));
        let oracle =
            GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(BASE), LEN)]).expect("maps");
        let driver = Driver {
            ours: file,
            theirs: oracle.clone(),
            write,
            available: 0,
            open: 0,
            next_desc: 0,
        };
        let content: Vec<u8> = (0..LEN - BUFFERS as usize)
            .map(|i| (i * 13 + (i >> 7)) as u8)
            .collect();
        driver.write(BUFFERS, &content);

        let bits = feature::VERSION_1 | feature::INDIRECT_DESC | feature::MRG_RXBUF;
        let features = bits | if event_index { feature::EVENT_IDX } else { 0 };
        let report = Arc::new(RingReport::default());
        let mut from = FromGuest::new(report.clone(), None);
        let mut to = ToGuest::new(report.clone(), None);
        if write {
            to.install(Some(ours(&memory, Direction::Writable, features)));
        } else {
            from.install(Some(ours(&memory, Direction::Readable, features)));
        }
        Self {
            driver,
            from,
            to,
            report,
            queue: theirs(event_index),
            oracle,
            used: 0,
            begun: false,
        }
    }

    /// Takes up to `max` chains from the driver on both sides.
    fn fetch(&mut self, max: u16) {
        let before = self.from.counters().notifications;
        self.from.fetch(max.into());
        let mut frame = 0;
        let mut chains = Vec::new();
        for _ in 0..max {
            let Some(chain) = self.queue.pop_descriptor_chain(&self.oracle) else {
                break;
            };
            chains.push((chain.head_index(), 0));
            let mut bytes = Vec::new();
            for descriptor in chain {
                let mut part = vec![0; descriptor.len() as usize];
                self.oracle
                    .read_slice(&mut part, descriptor.addr())
                    .expect("inside");
                bytes.extend(part);
            }
            // A chain with no byte behind its header holds no frame.
            if bytes.len() > NetHeader::LEN {
                let mut got = vec![0; self.from.frame_len(frame)];
                self.from.read(frame, 0, &mut got);
                assert!(got == bytes[NetHeader::LEN..]);
                let header: [u8; NetHeader::LEN] =
                    bytes[..NetHeader::LEN].try_into().expect("length");
                assert_eq!(self.from.header(frame), NetHeader::from_bytes(header));
                frame += 1;
            }
        }
        assert_eq!(frame, self.from.count());
        self.from.complete();
        let told = self.from.counters().notifications > before;
        self.give_back(&chains, told);
    }

    /// Delivers frames to the driver on both sides, as many as find room.
    fn deliver(&mut self, count: u16, len: u16) {
        let before = self.to.counters().notifications;
        let (frames, reserved) = super::naive::send(&mut self.to, count, len);
        let mut chains = Vec::new();
        let mut delivered = 0;
        'frames: for frame in &frames {
            let (mut room, mut mine) = (0, Vec::new());
            while room < frame.len() + NetHeader::LEN {
                let Some(chain) = self.queue.pop_descriptor_chain(&self.oracle) else {
                    // It stays where it is until there is room.
                    for _ in &mine {
                        self.queue.go_to_previous_position();
                    }
                    break 'frames;
                };
                let buffers: Vec<_> = chain
                    .clone()
                    .map(|d| (d.addr(), d.len() as usize))
                    .collect();
                room += buffers.iter().map(|buffer| buffer.1).sum::<usize>();
                mine.push((chain.head_index(), buffers));
            }
            let header = NetHeader {
                num_buffers: mine.len() as u16,
                ..NetHeader::default()
            };
            let mut bytes = [&header.to_bytes()[..], frame].concat();
            for (head, buffers) in mine {
                let before = bytes.len();
                for (address, len) in buffers {
                    let now: Vec<u8> = bytes.drain(..bytes.len().min(len)).collect();
                    self.oracle.write_slice(&now, address).expect("inside");
                }
                chains.push((head, (before - bytes.len()) as u32));
            }
            delivered += 1;
        }
        assert_eq!(reserved, delivered);
        let told = self.to.counters().notifications > before;
        self.give_back(&chains, told);
    }

    /// The other side gives back its chains, each with the bytes written; then all must be the same. For frames from
    /// the guest we put frames before the chains that held none, so their order within the burst is not compared.
    fn give_back(&mut self, chains: &[(u16, u32)], told: bool) {
        let start = self.queue.next_used();
        for (head, written) in chains {
            self.queue
                .add_used(&self.oracle, *head, *written)
                .expect("works");
        }
        let (ours, theirs) = self.driver.used_ring();
        assert_eq!(ours[..2], theirs[..2], "used index");
        let write = self.driver.write;
        let entries = |bytes: &[u8]| {
            let entry = |i: u16| bytes[2 + 8 * usize::from(i % SIZE)..][..8].to_vec();
            let mut entries: Vec<_> = (0..chains.len() as u16)
                .map(|i| entry(start.wrapping_add(i)))
                .collect();
            if !write {
                entries.sort();
            }
            entries
        };
        assert_eq!(entries(&ours), entries(&theirs), "used entries");
        let (mut ours, mut theirs) = (vec![0; LEN / 2], vec![0; LEN / 2]);
        self.driver.ours.read(BUFFERS as usize, &mut ours);
        self.oracle
            .read_slice(&mut theirs, GuestAddress(BASE + BUFFERS))
            .expect("inside");
        assert!(ours == theirs, "buffers differ");
        if !chains.is_empty() {
            let wanted = self.queue.needs_notification(&self.oracle).expect("works");
            // A ring that has just started tells in any case; the other one need not.
            assert!(
                told == wanted || !self.begun,
                "told {told}, wanted {wanted}"
            );
            self.begun = true;
        }
        self.used = self.used.wrapping_add(chains.len() as u16);
        self.driver.open -= chains.len() as u16;
        assert_eq!(self.report.broken(), None);
    }
}

fn compare(steps: Vec<Step>, write: bool, event_index: bool) {
    let mut pair = Pair::new(write, event_index);
    for step in steps {
        match step {
            Step::Send(buffers, indirect) => pair.driver.send(&buffers, indirect),
            Step::Event(ahead) => {
                let event = pair.used.wrapping_add(ahead);
                let at = AVAIL + 4 + 2 * u64::from(SIZE);
                pair.driver.write(at, &event.to_le_bytes());
            }
            Step::Poll(count, len) if write => pair.deliver(count, len),
            Step::Poll(max, _) => pair.fetch(max),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn with_event_index(write in any::<bool>(), steps in proptest::collection::vec(step(), 1..120)) {
        compare(steps, write, true);
    }

    #[test]
    fn without_event_index(write in any::<bool>(), steps in proptest::collection::vec(step(), 1..120)) {
        compare(steps, write, false);
    }
}
