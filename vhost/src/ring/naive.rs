//! The packed ring against a model of it that goes by the specification's text, one descriptor and
//! one sentence at a time (virtio 1.2, 2.8): the same driver on two copies of the same memory.

use std::sync::Arc;

use proptest::prelude::*;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

use super::{Areas, Direction, FromGuest, Outgoing, Ring, RingReport, Started, ToGuest};
use crate::event::Event;
use crate::memory::{GuestMemory, Mapping, RegionLayout};
use crate::net::{NetHeader, feature};

const LEN: usize = 0x1_0000;
const BASE: u64 = 0x8000_0000;
const USER: u64 = 0x6000_0000;
const DESC: usize = 0;
const DRIVER: usize = 0x1000;
const DEVICE: usize = 0x1100;
const TABLES: usize = 0x2000;
const BUFFERS: usize = 0x4000;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
const AVAIL: u16 = 1 << 7;
const USED: u16 = 1 << 15;

/// What a driver does, and when the device polls.
#[derive(Clone, Debug)]
enum Step {
    /// Makes a chain of buffers (offset, length) available, indirect or not, under an id.
    Offer(Vec<(u16, u16)>, bool, u16),
    /// Writes its event suppression: flags, and a place so many descriptors on.
    Event(u16, u16),
    /// The device takes up to so many chains, or delivers so many frames, of such lengths.
    Poll(u16, u16),
}

fn step() -> impl Strategy<Value = Step> {
    let buffer = (0u16..0x4000, 1u16..600);
    let chain = proptest::collection::vec(buffer, 1..4);
    prop_oneof![
        5 => (chain, any::<bool>(), any::<u16>()).prop_map(|(b, i, id)| Step::Offer(b, i, id)),
        1 => (0u16..4, 0u16..40).prop_map(|(flags, ahead)| Step::Event(flags, ahead)),
        3 => (1u16..20, 1u16..1500).prop_map(|(max, len)| Step::Poll(max, len)),
    ]
}

/// An index and a wrap counter, kept as the text says.
#[derive(Clone, Copy, PartialEq)]
struct Counter {
    index: u16,
    wrap: bool,
}

impl Counter {
    const START: Self = Self {
        index: 0,
        wrap: true,
    };

    fn step(&mut self, size: u16) {
        self.index += 1;
        if self.index == size {
            self.index = 0;
            self.wrap = !self.wrap;
        }
    }
}

/// The model: a device, and the driver's own account.
struct Model {
    memory: Vec<u8>,
    size: u16,
    write: bool,
    in_order: bool,
    event_index: bool,
    /// The driver's place, and how many descriptors the device has not given back.
    offered: Counter,
    outstanding: u16,
    /// Where the device reads, and writes.
    read: Counter,
    used: Counter,
}

/// A chain as the model read it: id, descriptors, buffers.
type Read = (u16, u16, Vec<(usize, usize)>);

impl Model {
    fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.memory[at..at + 2].try_into().expect("length"))
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.memory[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn buffer(&self, at: usize) -> (usize, usize) {
        let word = |at: usize, n: usize| &self.memory[at..at + n];
        let address = u64::from_le_bytes(word(at, 8).try_into().expect("length"));
        let len = u32::from_le_bytes(word(at + 8, 4).try_into().expect("length"));
        ((address - BASE) as usize, len as usize)
    }

    /// Reads the next chain that is available.
    fn take(&mut self) -> Option<Read> {
        let flags = self.u16(DESC + 16 * usize::from(self.read.index) + 14);
        let available = (flags & AVAIL != 0) == self.read.wrap;
        let unused = (flags & USED != 0) != self.read.wrap;
        if !(available && unused) {
            return None;
        }
        let mut buffers = Vec::new();
        let mut slots = 0;
        loop {
            let at = DESC + 16 * usize::from(self.read.index);
            let (flags, id) = (self.u16(at + 14), self.u16(at + 12));
            let (address, len) = self.buffer(at);
            if flags & INDIRECT != 0 {
                buffers.extend((0..len / 16).map(|i| self.buffer(address + 16 * i)));
            } else {
                buffers.push((address, len));
            }
            self.read.step(self.size);
            slots += 1;
            if flags & NEXT == 0 {
                return Some((id, slots, buffers));
            }
        }
    }

    /// Writes one used descriptor, and skips forward by the list's descriptors.
    fn give(&mut self, id: u16, slots: u16, written: u32) {
        let at = DESC + 16 * usize::from(self.used.index);
        let mut flags = if self.used.wrap { AVAIL | USED } else { 0 };
        if self.write {
            flags |= WRITE;
        }
        self.put(at + 8, &written.to_le_bytes());
        self.put(at + 12, &id.to_le_bytes());
        self.put(at + 14, &flags.to_le_bytes());
        (0..slots).for_each(|_| self.used.step(self.size));
        self.outstanding -= slots;
    }

    /// Gives chains back; tells whether the driver wants to know. In order, one used descriptor
    /// with the last id stands for all that are used completely.
    fn give_all(&mut self, chains: &[(Read, u32)]) -> bool {
        let mut passed = self.used;
        if self.in_order && !self.write {
            let slots = chains.iter().map(|((_, slots, _), _)| slots).sum();
            if let Some(((id, ..), _)) = chains.last() {
                self.give(*id, slots, 0);
            }
        } else {
            for ((id, slots, _), written) in chains {
                self.give(*id, *slots, *written);
            }
        }
        let (place, flags) = (self.u16(DRIVER), self.u16(DRIVER + 2) & 3);
        let mut event = false;
        while passed != self.used {
            event |= passed.index == place & 0x7fff && passed.wrap == (place >> 15 != 0);
            passed.step(self.size);
        }
        match flags {
            1 => false,
            2 if self.event_index => event || place & 0x7fff >= self.size,
            _ => true,
        }
    }
}

struct Pair {
    model: Model,
    ours: Mapping,
    to: ToGuest,
    from: FromGuest,
    report: Arc<RingReport>,
    /// Polls that published something.
    told: bool,
}

/// Frames that differ, sent to the guest; tells how many of them found room.
pub(super) fn send(to: &mut ToGuest, count: u16, len: u16) -> (Vec<Vec<u8>>, usize) {
    let frames: Vec<Vec<u8>> = (0..count)
        .map(|i| vec![i as u8 ^ 0x5a; usize::from(len + i)])
        .collect();
    let outgoing = frames.iter().map(|frame| {
        Some(Outgoing {
            header: None,
            head: frame,
            rest: None,
        })
    });
    // Every other burst goes the short way, if it can.
    if count.is_multiple_of(2)
        && let Some(sent) = to.put_burst(outgoing)
    {
        return (frames, sent);
    }
    let lens: Vec<u32> = frames.iter().map(|frame| frame.len() as u32).collect();
    let reserved = to.reserve(&lens);
    for (slot, frame) in frames[..reserved].iter().enumerate() {
        to.fill(slot, NetHeader::default(), frame);
    }
    to.publish();
    (frames, reserved)
}

impl Pair {
    fn new(size: u16, write: bool, features: u64) -> Self {
        let fd = memfd_create("naive", MemfdFlags::CLOEXEC).expect("memfd");
        ftruncate(&fd, LEN as u64).expect("size");
        let ours = Mapping::of_file(&fd, LEN).expect("maps");
        let layout = RegionLayout {
            guest_address: BASE,
            user_address: USER,
            size: LEN as u64,
            file_offset: 0,
        };
        let memory = Arc::new(GuestMemory::new(vec![(layout, fd)]).expect("maps"));
        let areas = Areas {
            desc: USER + DESC as u64,
            driver: USER + DRIVER as u64,
            device: USER + DEVICE as u64,
        };
        let direction = [Direction::Readable, Direction::Writable][usize::from(write)];
        let report = Arc::new(RingReport::default());
        let (mut to, mut from) = (
            ToGuest::new(report.clone(), None),
            FromGuest::new(report.clone(), None),
        );
        let ring = Ring::open(&memory, size, areas, None, direction, features).expect("valid");
        let started = Some(Started {
            ring,
            epoch: 1,
            features,
            enabled: true,
            kick: None,
            call: Some(Arc::new(Event::new().expect("eventfd"))),
            error: None,
            log: None,
            inflight: None,
        });
        if write {
            to.install(started);
        } else {
            from.install(started);
        }
        let mut made = Self {
            model: Model {
                memory: vec![0; LEN],
                size,
                write,
                in_order: features & feature::IN_ORDER != 0,
                event_index: features & feature::EVENT_IDX != 0,
                offered: Counter::START,
                outstanding: 0,
                read: Counter::START,
                used: Counter::START,
            },
            ours,
            to,
            from,
            report,
            told: false,
        };
        let content: Vec<u8> = (0..LEN - BUFFERS)
            .map(|i| (i * 13 + (i >> 7)) as u8)
            .collect();
        made.put(BUFFERS, &content);
        made
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.ours.write(at, bytes);
        self.model.put(at, bytes);
    }

    fn describe(&mut self, at: usize, address: usize, len: usize, id: u16, flags: u16) {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&(BASE + address as u64).to_le_bytes());
        bytes[8..12].copy_from_slice(&(len as u32).to_le_bytes());
        bytes[12..14].copy_from_slice(&id.to_le_bytes());
        bytes[14..].copy_from_slice(&flags.to_le_bytes());
        self.put(at, &bytes);
    }

    fn offer(&mut self, buffers: &[(u16, u16)], indirect: bool, id: u16) {
        let slots = if indirect { 1 } else { buffers.len() as u16 };
        if self.model.outstanding + slots > self.model.size {
            return;
        }
        self.model.outstanding += slots;
        let write = if self.model.write { WRITE } else { 0 };
        let table = TABLES + 64 * usize::from(self.model.offered.index);
        let mut list: Vec<(usize, usize, u16)> = buffers
            .iter()
            .map(|(at, len)| (BUFFERS + usize::from(*at), (*len).into(), write))
            .collect();
        if indirect {
            for (index, (at, len, flags)) in list.iter().enumerate() {
                // Every flag but WRITE is reserved in a table, and ignored.
                self.describe(table + 16 * index, *at, *len, id, flags | NEXT | AVAIL);
            }
            list = vec![(table, 16 * buffers.len(), INDIRECT)];
        }
        for (index, (at, len, flags)) in list.iter().enumerate() {
            let mut flags = *flags;
            if index + 1 < list.len() {
                flags |= NEXT;
            }
            flags |= if self.model.offered.wrap { AVAIL } else { USED };
            let place = DESC + 16 * usize::from(self.model.offered.index);
            // Only the last one's id counts.
            let id = if index + 1 < list.len() { !id } else { id };
            self.describe(place, *at, *len, id, flags);
            self.model.offered.step(self.model.size);
        }
    }

    /// Takes frames from the driver on both sides.
    fn fetch(&mut self, max: u16) {
        let before = self.from.counters();
        self.from.fetch(max.into());
        let mut frame = 0;
        let mut chains = Vec::new();
        while chains.len() < max.into()
            && let Some(chain) = self.model.take()
        {
            let pieces = chain.2.iter();
            let bytes: Vec<u8> = pieces
                .flat_map(|(at, len)| &self.model.memory[*at..at + len])
                .copied()
                .collect();
            // A chain with no byte behind its header holds no frame.
            if bytes.len() > NetHeader::LEN {
                let mut got = vec![0; self.from.frame_len(frame)];
                self.from.read(frame, 0, &mut got);
                assert!(got == bytes[NetHeader::LEN..]);
                frame += 1;
            }
            chains.push((chain, 0));
        }
        assert_eq!(frame, self.from.count());
        self.from.complete();
        let told = self.from.counters().notifications > before.notifications;
        self.compare(&chains, told);
    }

    /// Delivers frames to the driver on both sides.
    fn deliver(&mut self, count: u16, len: u16) {
        let before = self.to.counters();
        let (frames, reserved) = send(&mut self.to, count, len);
        let mut chains = Vec::new();
        let mut delivered = 0;
        'frames: for frame in &frames {
            let (start, mut mine) = (self.model.read, Vec::new());
            let mut room = 0;
            while room < frame.len() + NetHeader::LEN {
                let Some(chain) = self.model.take() else {
                    // It stays where it is until there is room.
                    self.model.read = start;
                    break 'frames;
                };
                let len: usize = chain.2.iter().map(|buffer| buffer.1).sum();
                room += len;
                mine.push((chain, len as u32));
            }
            let header = NetHeader {
                num_buffers: mine.len() as u16,
                ..NetHeader::default()
            };
            let mut bytes = [&header.to_bytes()[..], frame].concat();
            for (chain, written) in &mut mine {
                *written = (*written).min(bytes.len() as u32);
                for (at, len) in &chain.2 {
                    let now: Vec<u8> = bytes.drain(..bytes.len().min(*len)).collect();
                    self.model.put(*at, &now);
                }
            }
            chains.extend(mine);
            delivered += 1;
        }
        assert_eq!(reserved, delivered);
        let told = self.to.counters().notifications > before.notifications;
        self.compare(&chains, told);
    }

    fn compare(&mut self, chains: &[(Read, u32)], told: bool) {
        if !chains.is_empty() {
            let wanted = self.model.give_all(chains);
            // A ring that has just started tells in any case.
            assert!(told == wanted || !self.told, "told {told}, wanted {wanted}");
            self.told = true;
        }
        let mut ours = vec![0; LEN];
        self.ours.read(0, &mut ours);
        // The device's event suppression is each side's own business.
        ours[DEVICE..DEVICE + 4].fill(0);
        let differs = ours
            .iter()
            .zip(&self.model.memory)
            .position(|(a, b)| a != b);
        assert_eq!(differs, None, "memory differs");
        assert_eq!(self.report.broken(), None);
    }
}

fn run(size: u16, write: bool, features: u64, steps: Vec<Step>) {
    let bits = feature::VERSION_1 | feature::RING_PACKED | feature::INDIRECT_DESC;
    let mut pair = Pair::new(size, write, bits | feature::MRG_RXBUF | features);
    for step in steps {
        match step {
            Step::Offer(buffers, indirect, id) => pair.offer(&buffers, indirect, id),
            Step::Event(flags, ahead) => {
                let mut event = pair.model.used;
                (0..ahead).for_each(|_| event.step(size));
                let place = event.index | u16::from(event.wrap) << 15;
                pair.put(DRIVER, &place.to_le_bytes());
                pair.put(DRIVER + 2, &flags.to_le_bytes());
            }
            Step::Poll(max, len) if write => pair.deliver(max, len),
            Step::Poll(max, _) => pair.fetch(max),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1200))]

    #[test]
    fn packed_as_specified(
        size in 1u16..20,
        write in any::<bool>(),
        features in proptest::sample::subsequence(vec![feature::EVENT_IDX, feature::IN_ORDER], 0..=2),
        steps in proptest::collection::vec(step(), 1..120),
    ) {
        run(size, write, features.iter().sum(), steps);
    }
}
