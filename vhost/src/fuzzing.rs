//! Bytes play a hostile driver or a hostile front end: for a fuzzer, and for tests that replay its
//! corpus.

use std::sync::Arc;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

pub use crate::backend::fuzzing::control_messages;
use crate::memory::{GuestMemory, Mapping, RegionLayout};
use crate::net::{NetHeader, feature};
use crate::ring::{
    Areas, BURST, Direction, FromGuest, Lent, MAX_FRAME, Outgoing, QueueRegion, Ring, RingReport,
    Started, ToGuest, Tracker,
};
use crate::virtqueue::Place;

/// Bytes of each of the two regions of the guest, which follow one another.
const REGION: usize = 0x4000;
/// Bytes before, between and behind the regions in the file; nobody may write there.
const FENCE: usize = 0x1000;
/// Guest address of the first region.
const BASE: u64 = 0x10_0000;
/// Address of the first region as the front end knows it.
const USER: u64 = 0x7000_0000;
/// What the fences hold.
const UNTOUCHED: u8 = 0xA5;

/// Where the rings of both queues are from the start of the first region.
const RINGS: [[u64; 3]; 2] = [[0, 0x800, 0xa00], [0x1000, 0x1800, 0x1a00]];

/// Reads values off the fuzzer's bytes.
pub(crate) struct Script<'a>(pub(crate) &'a [u8]);

impl Script<'_> {
    pub(crate) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (now, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*now)
    }

    pub(crate) fn byte(&mut self) -> Option<u8> {
        self.take::<1>().map(|[b]| b)
    }

    pub(crate) fn word(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }
}

struct Duel {
    file: Mapping,
    memory: Arc<GuestMemory>,
    /// Where both queues tell what is in flight, which the front end writes, too.
    inflight: Arc<Mapping>,
    tracked: bool,
    /// Starts of the queues so far.
    epoch: u64,
    size: u16,
    packed: bool,
    features: u64,
    /// Where the driver of a packed ring writes next, for both queues.
    places: [Place; 2],
    to_guest: ToGuest,
    from_guest: FromGuest,
    frame: Vec<u8>,
}

impl Duel {
    fn new(size: u16, features: u64, tracked: bool) -> std::io::Result<Self> {
        let len = 2 * REGION + 3 * FENCE;
        let fd = memfd_create("fuzz", MemfdFlags::CLOEXEC)?;
        ftruncate(&fd, len as u64)?;
        let file = Mapping::of_file(&fd, len)?;
        for fence in 0..3 {
            file.write(fence * (REGION + FENCE), &[UNTOUCHED; FENCE]);
        }
        let region = |i: u64| RegionLayout {
            guest_address: BASE + i * REGION as u64,
            user_address: USER + i * REGION as u64,
            size: REGION as u64,
            file_offset: FENCE as u64 + i * (REGION + FENCE) as u64,
        };
        let regions = vec![(region(0), fd.try_clone()?), (region(1), fd)];
        let memory = Arc::new(GuestMemory::new(regions).map_err(std::io::Error::other)?);
        let packed = features & feature::RING_PACKED != 0;
        let len = 2 * QueueRegion::bytes(size, packed);
        let fd = memfd_create("fuzz", MemfdFlags::CLOEXEC)?;
        ftruncate(&fd, len as u64)?;
        let mut duel = Self {
            file,
            memory,
            inflight: Arc::new(Mapping::of_file(&fd, len)?),
            tracked,
            epoch: 0,
            size,
            packed,
            features,
            places: [Place::START; 2],
            to_guest: ToGuest::new(Arc::new(RingReport::default()), None),
            from_guest: FromGuest::new(Arc::new(RingReport::default()), None),
            frame: vec![0; MAX_FRAME],
        };
        duel.start();
        assert!(duel.to_guest.is_running() && duel.from_guest.is_running());
        Ok(duel)
    }

    /// Starts both queues, or starts them anew where the region of one allows it.
    fn start(&mut self) {
        self.epoch += 1;
        let [to, from] = [0, 1].map(|queue| self.started(queue));
        self.to_guest.install(to);
        self.from_guest.install(from);
    }

    fn started(&self, queue: usize) -> Option<Started> {
        let [desc, driver, device] = RINGS[queue].map(|at| USER + at);
        let areas = Areas {
            desc,
            driver,
            device,
        };
        let direction = [Direction::Writable, Direction::Readable][queue];
        let (size, features) = (self.size, self.features);
        let opened = Ring::open(&self.memory, size, areas, None, direction, features);
        let mut ring = opened.ok()?;
        let mut inflight = None;
        if self.tracked {
            let region = QueueRegion::of_queue(&self.inflight, queue, size, self.packed)?;
            inflight = Some(Tracker::start(region, &mut ring).ok()?);
        }
        Some(Started {
            ring,
            epoch: self.epoch,
            features,
            enabled: true,
            kick: None,
            call: None,
            error: None,
            log: None,
            inflight,
        })
    }

    /// The front end writes to what it keeps of us.
    fn write_inflight(&self, script: &mut Script<'_>) -> Option<()> {
        let (at, bytes) = (usize::from(script.word()?), script.take::<8>()?);
        self.inflight.write(at % (self.inflight.len() - 7), &bytes);
        Some(())
    }

    /// Offset in the file of an address relative to the guest's first one.
    fn at(relative: usize) -> usize {
        let relative = relative % (2 * REGION);
        FENCE + relative + if relative >= REGION { FENCE } else { 0 }
    }

    fn write(&self, relative: usize, bytes: &[u8]) {
        for (i, byte) in bytes.iter().enumerate() {
            self.file.write(Self::at(relative + i), &[*byte]);
        }
    }

    /// The guest's move: a descriptor, an entry of the available ring, an index, raw bytes.
    fn driver(&mut self, queue: usize, what: u8, script: &mut Script<'_>) -> Option<()> {
        if self.packed {
            return self.packed_driver(queue, what, script);
        }
        let [desc, avail, _] = RINGS[queue].map(|at| at as usize);
        match what % 4 {
            0 => {
                let (index, relative) = (script.byte()?, script.word()?);
                let (len, flags, next) = (script.word()?, script.byte()?, script.byte()?);
                // Now and then an address or a length far out.
                let address =
                    BASE + u64::from(relative) * if flags & 0x40 == 0 { 1 } else { 1 << 37 };
                let len = u32::from(len) << if flags & 0x80 == 0 { 0 } else { 16 };
                let mut bytes = [0; 16];
                bytes[..8].copy_from_slice(&address.to_le_bytes());
                bytes[8..12].copy_from_slice(&len.to_le_bytes());
                bytes[12] = flags & 7;
                bytes[14] = next;
                self.write(desc + 16 * usize::from(index), &bytes);
            }
            1 => {
                let index = self.file.load_u16(Self::at(avail + 2));
                let place = avail + 4 + 2 * usize::from(index % self.size);
                self.write(place, &[script.byte()?, 0]);
                self.write(avail + 2, &index.wrapping_add(1).to_le_bytes());
            }
            2 => self.write(avail + 2, &script.word()?.to_le_bytes()),
            _ => {
                let relative = script.word()?;
                self.write(usize::from(relative), &script.take::<8>()?);
            }
        }
        Some(())
    }

    /// The same with a packed ring: a descriptor at the next place, the flags of any descriptor,
    /// event suppression, raw bytes.
    fn packed_driver(&mut self, queue: usize, what: u8, script: &mut Script<'_>) -> Option<()> {
        let [desc, driver, _] = RINGS[queue].map(|at| at as usize);
        match what % 4 {
            0 => {
                let (relative, len, flags, id) = (
                    script.word()?,
                    script.word()?,
                    script.byte()?,
                    script.byte()?,
                );
                let address =
                    BASE + u64::from(relative) * if flags & 0x40 == 0 { 1 } else { 1 << 37 };
                let len = u32::from(len) << if flags & 0x80 == 0 { 0 } else { 16 };
                let place = self.places[queue];
                let mut bytes = [0; 16];
                bytes[..8].copy_from_slice(&address.to_le_bytes());
                bytes[8..12].copy_from_slice(&len.to_le_bytes());
                bytes[12] = id;
                let flags = u16::from(flags & 7) | place.available();
                bytes[14..].copy_from_slice(&flags.to_le_bytes());
                self.write(desc + 16 * usize::from(place.index), &bytes);
                self.places[queue].advance(1, self.size);
            }
            1 => {
                let (index, flags) = (script.byte()?, script.take::<2>()?);
                self.write(desc + 16 * usize::from(index) + 14, &flags);
            }
            2 => self.write(driver, &script.take::<4>()?),
            _ => {
                let relative = script.word()?;
                self.write(usize::from(relative), &script.take::<8>()?);
            }
        }
        Some(())
    }

    /// Frames of these lengths, the last of them another guest's but for its beginning, if there is one.
    fn put_burst(&mut self, lens: &[u32]) {
        let (ring, count) = (&self.from_guest, self.from_guest.count());
        let frames = lens.iter().enumerate().map(|(turn, len)| {
            let rest = (turn == 3 && count > 0).then(|| Lent {
                ring,
                frame: count - 1,
                offset: 34,
                len: ring.frame_len(count - 1).saturating_sub(34),
            });
            Some(Outgoing {
                header: (turn == 0).then(NetHeader::default),
                head: &self.frame[..*len as usize],
                rest,
            })
        });
        let sent = self.to_guest.put_burst(frames);
        assert!(sent.is_none_or(|sent| sent <= lens.len()));
    }

    /// Our move, with what must hold of every burst.
    fn device(&mut self, what: u8, script: &mut Script<'_>) -> Option<()> {
        match what % 5 {
            0 => {
                let count = self.from_guest.fetch(usize::from(script.byte()?));
                assert!(count <= BURST && count == self.from_guest.count());
            }
            1 => {
                for frame in 0..self.from_guest.count() {
                    let len = self.from_guest.frame_len(frame);
                    assert!((1..=MAX_FRAME).contains(&len));
                    assert_eq!(self.from_guest.read(frame, 0, &mut self.frame), len);
                    let offset = usize::from(script.byte().unwrap_or(0));
                    let rest = self.from_guest.read(frame, offset, &mut self.frame[..64]);
                    assert_eq!(rest, len.saturating_sub(offset).min(64));
                    let _ = self.from_guest.header(frame);
                }
            }
            2 => {
                self.from_guest.complete();
                assert_eq!(self.from_guest.count(), 0);
            }
            3 => {
                let lens = [script.byte()?.into(), script.word()?.into(), 64, 1500];
                if what >= 0x80 {
                    self.put_burst(&lens);
                }
                let reserved = self.to_guest.reserve(&lens);
                assert!(reserved <= lens.len());
                for (slot, len) in lens[..reserved].iter().enumerate() {
                    let source = self.from_guest.count();
                    if source > 0 {
                        let from = &self.from_guest;
                        let header = NetHeader::default();
                        self.to_guest
                            .fill_from(slot, header, &[7; 40], from, source - 1, 34);
                    } else {
                        let frame = &self.frame[..*len as usize];
                        self.to_guest.fill(slot, NetHeader::default(), frame);
                    }
                }
                self.to_guest.publish();
            }
            _ => {
                self.from_guest.arm();
                self.to_guest.arm();
                self.from_guest.disarm();
                self.to_guest.disarm();
            }
        }
        Some(())
    }
}

/// Lets `data` play a driver against both directions of a device-side ring of either format, with
/// descriptors, indices and memory as it likes, changing while a burst is open.
///
/// # Panics
/// If an invariant of the rings does not hold, or a byte outside the guest's regions was written.
pub fn ring(data: &[u8]) {
    let mut script = Script(data);
    let Some([size, features]) = script.take() else {
        return;
    };
    let bits = [
        feature::EVENT_IDX,
        feature::INDIRECT_DESC,
        feature::MRG_RXBUF,
        feature::VERSION_1,
    ];
    let mut wanted = (0..4)
        .filter(|i| features >> i & 1 == 0)
        .map(|i| bits[i])
        .sum();
    let mut entries = 1 << (size % 8);
    if features & 0x10 != 0 {
        wanted |= feature::RING_PACKED;
        entries = u16::from(size % 128) + 1;
    }
    if features & 0x20 != 0 {
        wanted |= feature::IN_ORDER;
    }
    let tracked = features & 0x40 != 0;
    let Ok(mut duel) = Duel::new(entries, wanted, tracked) else {
        return;
    };
    while let Some(step) = script.byte() {
        let went = if tracked && step & 0x7f == 0x3f {
            duel.write_inflight(&mut script)
        } else if tracked && step == 0xff {
            duel.start();
            Some(())
        } else if step & 0x80 == 0 {
            duel.driver(usize::from(step >> 6), step & 0x3f, &mut script)
        } else {
            duel.device(step & 0x7f, &mut script)
        };
        if went.is_none() {
            break;
        }
    }
    assert!(!duel.memory.is_broken());
    let mut fence = [0; FENCE];
    for at in 0..3 {
        duel.file.read(at * (REGION + FENCE), &mut fence);
        assert!(
            fence.iter().all(|b| *b == UNTOUCHED),
            "a write outside the guest's memory"
        );
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3000))]

        #[test]
        fn any_driver_is_survived(data in proptest::collection::vec(any::<u8>(), 0..600)) {
            super::ring(&data);
        }

        #[test]
        fn any_front_end_is_survived(data in proptest::collection::vec(any::<u8>(), 0..300)) {
            super::control_messages(&data);
        }

        /// Front ends that mostly make sense come further: features, memory and rings are there
        /// before anything odd comes.
        #[test]
        fn plausible_front_end_is_survived(
            features in 0u8..4,
            steps in proptest::collection::vec((0u8..30, any::<u8>(), 0u8..40), 1..60),
        ) {
            const PLAIN: u8 = 7 << 5;
            let base = if features == 1 { 2 } else { 0 };
            let mut script = Vec::new();
            for (kind, what) in [(2, 0xff), (16, 0), (1, features), (4, 0), (4, 1)] {
                script.extend([PLAIN | kind, what]);
            }
            for queue in 0..2 {
                let start = [(6, 3 << 2), (7, base << 1), (10, 0), (11, 0), (13, 4)];
                for (kind, what) in start {
                    script.extend([PLAIN | kind, what | queue]);
                }
            }
            for (kind, what, odd) in steps {
                let form = if odd < 7 { odd << 5 } else { PLAIN };
                script.extend([form | kind, what]);
            }
            super::control_messages(&script);
        }

        /// Drivers that mostly make sense come further.
        #[test]
        fn plausible_driver_is_survived(
            size in 0u8..8,
            features in 0u8..16,
            steps in proptest::collection::vec(
                (0usize..2, any::<u8>(), any::<u16>(), any::<u16>(), any::<u8>(), any::<u8>()),
                1..60,
            ),
        ) {
            let mut script = vec![size, features];
            for (queue, index, address, len, flags, next) in steps {
                let queue = queue as u8;
                let mask = (1 << size) - 1;
                let direction = if queue == 0 { 2 } else { 0 };
                let flags = if flags < 100 { direction } else { direction | flags & 5 };
                script.extend([queue << 6, index & mask]);
                script.extend((address & 0x3fff).to_le_bytes());
                script.extend((len & 0x7ff).to_le_bytes());
                script.extend([flags, next & mask]);
                script.extend([queue << 6 | 1, index & mask]);
                script.extend(match next % 4 {
                    0 => vec![0x80, 64],
                    1 => vec![0x80, 64, 0x81],
                    2 => vec![0x82],
                    _ => vec![0x83, index, len as u8, (len >> 8) as u8 & 7],
                });
            }
            super::ring(&script);
        }

        /// The front end writes what it likes to the region, and we start from that.
        #[test]
        fn any_region_is_survived(
            size in 0u8..128,
            features in 0u8..64,
            steps in proptest::collection::vec(
                (0u8..2, any::<u16>(), 0u16..0x800, 0u8..40, any::<[u8; 8]>(), any::<u8>()),
                1..60,
            ),
        ) {
            let mut script = vec![size % 9, features | 0x40];
            for (queue, address, len, at, word, next) in steps {
                let index = word[0] & ((1 << (size % 8)) - 1);
                script.extend([queue << 6, if features & 0x10 == 0 { index } else { address as u8 }]);
                if features & 0x10 == 0 {
                    script.extend((address & 0x3fff).to_le_bytes());
                    script.extend(len.to_le_bytes());
                    script.extend([if queue == 0 { 2 } else { 0 }, index]);
                    script.extend([queue << 6 | 1, index]);
                } else {
                    script.push((address >> 8) as u8 & 0x3f);
                    script.extend(len.to_le_bytes());
                    script.extend([if queue == 0 { 2 } else { 0 }, index]);
                }
                if next % 3 == 0 {
                    // Headers mostly, and marks.
                    script.extend([0x3f, at & 0xf8, 0]);
                    let small = word.map(|byte| if next & 0x40 == 0 { byte & 3 } else { byte });
                    script.extend(small);
                }
                script.extend(match next % 4 {
                    0 => vec![0x80, 64, 0x82],
                    1 => vec![0x83, index, 60, 0],
                    2 => vec![0xff],
                    _ => vec![0x80, 64, 0xff, 0x82],
                });
            }
            super::ring(&script);
        }

        #[test]
        fn plausible_packed_driver_is_survived(
            size in 0u8..128,
            features in 0u8..64,
            steps in proptest::collection::vec(
                (0u8..2, any::<u16>(), any::<u16>(), any::<u8>(), any::<u8>(), any::<u8>()),
                1..80,
            ),
        ) {
            let mut script = vec![size % 9, features | 0x10];
            for (queue, address, len, flags, id, next) in steps {
                let direction = if queue == 0 { 2 } else { 0 };
                let flags = if flags < 150 { direction } else { direction | flags & 5 };
                script.push(queue << 6);
                script.extend((address & 0x3fff).to_le_bytes());
                script.extend((len & 0x7ff).to_le_bytes());
                script.extend([flags, id]);
                match next % 8 {
                    0 | 1 => script.extend([0x80, 64]),
                    2 => script.extend([0x80, 64, 0x81]),
                    3 | 4 => script.push(0x82),
                    5 => script.extend([0x83, id, len as u8, (len >> 8) as u8 & 7]),
                    6 => script.extend([queue << 6 | 2, id, next, 0, next & 3]),
                    _ => script.extend([0x84]),
                }
            }
            super::ring(&script);
        }
    }
}
