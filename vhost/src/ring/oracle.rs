//! The split ring against another implementation of it, rust-vmm's `virtio-queue`: the same valid
//! driver on two copies of the same memory.

use std::sync::Arc;

use proptest::prelude::*;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::{Areas, Direction, FromGuest, Ring, RingReport, Started};
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

/// What a driver does, and when the device polls.
#[derive(Clone, Debug)]
enum Step {
    /// Makes a chain of buffers (offset, length) available, indirect or not.
    Send(Vec<(u16, u16)>, bool),
    /// Asks to be notified that many entries after the last used one.
    Event(u16),
    /// The device takes up to so many chains and gives them back.
    Poll(u16),
}

fn step() -> impl Strategy<Value = Step> {
    let buffer = (0u16..0x4000, 1u16..600);
    prop_oneof![
        4 => (proptest::collection::vec(buffer, 1..4), any::<bool>()).prop_map(|(b, i)| Step::Send(b, i)),
        1 => (0u16..20).prop_map(Step::Event),
        2 => (1u16..20).prop_map(Step::Poll),
    ]
}

/// One driver that writes to both copies.
struct Driver {
    ours: Mapping,
    theirs: GuestMemoryMmap,
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
            let more = u16::from(i + 1 < buffers.len());
            self.describe(
                table,
                index,
                BUFFERS + u64::from(*at),
                (*len).into(),
                more,
                index + 1,
            );
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

fn ours(memory: &Arc<GuestMemory>, report: Arc<RingReport>, features: u64) -> FromGuest {
    let areas = Areas {
        desc: USER + DESC,
        driver: USER + AVAIL,
        device: USER + USED,
    };
    let opened = Ring::open(memory, SIZE, areas, None, Direction::Readable, features);
    let mut ring = FromGuest::new(report, None);
    ring.install(Some(Started {
        ring: opened.expect("valid"),
        epoch: 1,
        features,
        enabled: true,
        kick: None,
        call: Some(Arc::new(crate::event::Event::new().expect("eventfd"))),
        error: None,
        log: None,
        inflight: None,
    }));
    ring
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

fn compare(steps: Vec<Step>, event_index: bool) {
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
    let oracle = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(BASE), LEN)]).expect("maps");
    let mut driver = Driver {
        ours: file,
        theirs: oracle.clone(),
        available: 0,
        open: 0,
        next_desc: 0,
    };
    let content: Vec<u8> = (0..LEN - BUFFERS as usize)
        .map(|i| (i * 13 + (i >> 7)) as u8)
        .collect();
    driver.write(BUFFERS, &content);

    let bits = feature::VERSION_1 | feature::INDIRECT_DESC;
    let features = bits | if event_index { feature::EVENT_IDX } else { 0 };
    let report = Arc::new(RingReport::default());
    let mut ring = ours(&memory, report.clone(), features);
    let mut queue = theirs(event_index);
    let (mut used, mut first) = (0u16, true);
    for step in steps {
        match step {
            Step::Send(buffers, indirect) => driver.send(&buffers, indirect),
            Step::Event(ahead) => {
                let event = used.wrapping_add(ahead);
                driver.write(AVAIL + 4 + 2 * u64::from(SIZE), &event.to_le_bytes());
            }
            Step::Poll(max) => {
                let before = ring.counters();
                ring.fetch(max.into());
                let mut frame = 0;
                let mut heads = Vec::new();
                for _ in 0..max {
                    let Some(chain) = queue.pop_descriptor_chain(&oracle) else {
                        break;
                    };
                    heads.push(chain.head_index());
                    let mut bytes = Vec::new();
                    for descriptor in chain {
                        let mut part = vec![0; descriptor.len() as usize];
                        oracle
                            .read_slice(&mut part, descriptor.addr())
                            .expect("inside");
                        bytes.extend(part);
                    }
                    // A chain with no byte behind its header holds no frame.
                    if bytes.len() > NetHeader::LEN {
                        let mut got = vec![0; ring.frame_len(frame)];
                        ring.read(frame, 0, &mut got);
                        assert!(got == bytes[NetHeader::LEN..]);
                        let header: [u8; NetHeader::LEN] =
                            bytes[..NetHeader::LEN].try_into().expect("length");
                        assert_eq!(ring.header(frame), NetHeader::from_bytes(header));
                        frame += 1;
                    }
                }
                assert_eq!(frame, ring.count());
                give_back(&mut ring, &mut queue, &oracle, &driver, &heads);
                let told = ring.counters().notifications > before.notifications;
                if !heads.is_empty() {
                    let wanted = queue.needs_notification(&oracle).expect("works");
                    // A ring that has just started tells in any case; the other one need not.
                    assert!(told == wanted || first, "told {told}, wanted {wanted}");
                    first = false;
                }
                used = used.wrapping_add(heads.len() as u16);
                driver.open -= heads.len() as u16;
                assert_eq!(report.broken(), None);
            }
        }
    }
}

/// Both sides give their chains back; the used rings must then be the same. Ours puts frames
/// before the chains that held none, so their order within the burst is not compared.
fn give_back(
    ring: &mut FromGuest,
    queue: &mut Queue,
    oracle: &GuestMemoryMmap,
    driver: &Driver,
    heads: &[u16],
) {
    let start = queue.next_used();
    ring.complete();
    for head in heads {
        queue.add_used(oracle, *head, 0).expect("works");
    }
    let (ours, theirs) = driver.used_ring();
    assert_eq!(ours[..2], theirs[..2], "used index");
    let entries = |bytes: &[u8]| {
        let entry = |i: u16| bytes[2 + 8 * usize::from(i % SIZE)..][..8].to_vec();
        let mut entries: Vec<_> = (0..heads.len() as u16)
            .map(|i| entry(start.wrapping_add(i)))
            .collect();
        entries.sort();
        entries
    };
    assert_eq!(entries(&ours), entries(&theirs), "used entries");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn with_event_index(steps in proptest::collection::vec(step(), 1..120)) {
        compare(steps, true);
    }

    #[test]
    fn without_event_index(steps in proptest::collection::vec(step(), 1..120)) {
        compare(steps, false);
    }
}
