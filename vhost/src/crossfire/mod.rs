//! Bytes play a hostile guest and its front end beside a well-behaved guest: for a fuzzer, and for tests that replay
//! its corpus.
//!
//! The hostile one writes what it likes, where it likes, in the memory that it has; it plugs and unplugs memory, starts
//! and stops its rings, and changes what was negotiated. The worker moves frames between the two meanwhile. Everything
//! is in one file, of which each guest has parts: what is not its own must neither change nor reach it.

use std::sync::Arc;

use rustix::fd::OwnedFd;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

use crate::fuzzing::Script;
use crate::memory::{GuestMemory, Mapping, RegionLayout};
use crate::net::{NetHeader, feature};
use crate::ring::{
    Areas, BURST_BYTES, BURST_DESCRIPTORS, Direction, FRAME_DESCRIPTORS, FromGuest, MAX_CHAIN,
    MAX_FRAME, Ring, RingReport, Started, ToGuest,
};
use crate::virtqueue::{EVENTS_DESC, Place, suppression};

/// Bytes of a region, and from one region to the next in the file. A region begins and ends in the midst of a page, so
/// that a step beyond it is one into what lies between the regions and is looked at in the end.
const REGION: usize = 0x3e40;
const STRIDE: usize = 0x6000;
/// Where the first region is in the file.
const LEAD: usize = 0x1340;
/// The hostile guest's regions, which follow one another in its addresses.
const REGIONS: usize = 3;
/// The other guest's region.
const VICTIM: usize = REGIONS;
const LEN: usize = LEAD + (REGIONS + 1) * STRIDE;
/// Guest address of the first region, and its address as the front end knows it.
const BASE: u64 = 0x10_0000;
const USER: u64 = 0x7000_0000;
/// Where the rings of both queues are from the start of the first region of their guest.
const RINGS: [[u64; 3]; 2] = [[0, 0x800, 0xa00], [0x1000, 0x1800, 0x1a00]];
/// The well-behaved guest's rings have so many entries; its buffers follow them.
const ENTRIES: u16 = 8;
const BUFFERS: usize = 0x2000;
const BUFFER: usize = 0x180;
/// What the well-behaved guest sends: so many bytes, all of them this.
const SENT: (usize, u8) = (300, 0x11);
/// What nobody but the well-behaved guest may ever see.
const SECRET: [u8; 8] = *b"\x9e\x37\x79\xb9\x7f\x4a\x7c\x15";

/// Offset in the file of a region.
fn place(region: usize) -> usize {
    LEAD + region * STRIDE
}

fn layout(region: usize, index: usize) -> RegionLayout {
    RegionLayout {
        guest_address: BASE + (index * REGION) as u64,
        user_address: USER + (index * REGION) as u64,
        size: REGION as u64,
        file_offset: place(region) as u64,
    }
}

/// A guest's queues, as its worker has them.
struct Seat {
    to_guest: ToGuest,
    from_guest: FromGuest,
}

impl Seat {
    fn new() -> Self {
        Self {
            to_guest: ToGuest::new(Arc::new(RingReport::default()), None),
            from_guest: FromGuest::new(Arc::new(RingReport::default()), None),
        }
    }

    /// Gives the queues this memory; what can't be found in it stops.
    fn install(&mut self, memory: Option<&Arc<GuestMemory>>, deal: Deal) {
        let started = |queue: usize| {
            let [desc, driver, device] = RINGS[queue].map(|at| USER + at);
            let areas = Areas {
                desc,
                driver,
                device,
            };
            let direction = [Direction::Writable, Direction::Readable][queue];
            Some(Started {
                ring: Ring::open(memory?, deal.size, areas, None, direction, deal.features).ok()?,
                epoch: deal.epoch,
                features: deal.features,
                enabled: deal.enabled,
                kick: None,
                call: None,
                error: None,
                log: None,
                inflight: None,
            })
        };
        self.to_guest.install(started(0));
        self.from_guest.install(started(1));
    }
}

/// What a front end has settled for a pair of queues.
#[derive(Clone, Copy)]
struct Deal {
    size: u16,
    features: u64,
    enabled: bool,
    epoch: u64,
}

impl Deal {
    /// Reads one off two bytes.
    fn read([size, bits]: [u8; 2], epoch: u64) -> Self {
        let all = [
            feature::EVENT_IDX,
            feature::INDIRECT_DESC,
            feature::MRG_RXBUF,
            feature::VERSION_1,
        ];
        let mut features = (0..all.len())
            .filter(|i| bits >> i & 1 == 0)
            .map(|i| all[i])
            .sum();
        let mut entries = 1 << (size % 8);
        if bits & 0x10 != 0 {
            features |= feature::RING_PACKED;
            entries = u16::from(size % 128) + 1;
        }
        if bits & 0x20 != 0 {
            features |= feature::IN_ORDER;
        }
        Self {
            size: entries,
            features,
            enabled: bits & 0x40 == 0,
            epoch,
        }
    }
}

struct Scene {
    file: Arc<Mapping>,
    fd: OwnedFd,
    hostile: Seat,
    victim: Seat,
    deal: Deal,
    /// Where the hostile guest writes next in packed rings.
    places: [Place; 2],
    memory: Option<Arc<GuestMemory>>,
    plugged: [bool; REGIONS],
    /// What the unplugged regions held when they were unplugged.
    unplugged: [Vec<u8>; REGIONS],
    frame: Vec<u8>,
}

impl Scene {
    fn new(deal: Deal) -> std::io::Result<Self> {
        let fd = memfd_create("fuzz", MemfdFlags::CLOEXEC)?;
        ftruncate(&fd, LEN as u64)?;
        let file = Arc::new(Mapping::of_file(&fd, LEN)?);
        // Whatever is nobody's is secret, too.
        file.write(0, &SECRET.repeat(LEN / SECRET.len()));
        for region in 0..REGIONS {
            file.write(place(region), &[0; REGION]);
        }
        let mut made = Self {
            file,
            fd,
            hostile: Seat::new(),
            victim: Seat::new(),
            deal,
            places: [Place::START; 2],
            memory: None,
            plugged: [false; REGIONS],
            unplugged: std::array::from_fn(|_| vec![0; REGION]),
            frame: vec![0; MAX_FRAME],
        };
        made.plug(0);
        made.plug(1);
        made.settle()?;
        Ok(made)
    }

    /// Sets up the well-behaved guest.
    fn settle(&mut self) -> std::io::Result<()> {
        let regions = vec![(layout(VICTIM, 0), self.fd.try_clone()?)];
        let memory = Arc::new(GuestMemory::new(regions).map_err(std::io::Error::other)?);
        for (queue, [desc, avail, used]) in RINGS.into_iter().enumerate() {
            let at = |part: u64| place(VICTIM) + part as usize;
            let n = usize::from(ENTRIES);
            for (part, len) in [(desc, 16 * n), (avail, 6 + 2 * n), (used, 6 + 8 * n)] {
                self.file.write(at(part), &vec![0; len]);
            }
            for index in 0..n {
                let buffer = BUFFERS + (queue * n + index) * BUFFER;
                let (len, flags) = if queue == 0 {
                    (BUFFER as u64, 2u64 << 32)
                } else {
                    self.file.write(place(VICTIM) + buffer, &[0; 12]);
                    let frame = vec![SENT.1; SENT.0];
                    self.file.write(place(VICTIM) + buffer + 12, &frame);
                    ((12 + SENT.0) as u64, 0)
                };
                self.file
                    .store_u64(at(desc) + 16 * index, BASE + buffer as u64);
                self.file.store_u64(at(desc) + 16 * index + 8, len | flags);
                self.file.store_u16(at(avail) + 4 + 2 * index, index as u16);
            }
        }
        let deal = Deal {
            size: ENTRIES,
            features: feature::VERSION_1 | feature::MRG_RXBUF,
            enabled: true,
            epoch: 1,
        };
        self.victim.install(Some(&memory), deal);
        assert!(self.victim.to_guest.is_running() && self.victim.from_guest.is_running());
        self.repost();
        Ok(())
    }

    /// The well-behaved guest makes all its buffers available again.
    fn repost(&self) {
        for [_, avail, used] in RINGS {
            let at = |part: u64| place(VICTIM) + part as usize;
            let index = self.file.load_u16(at(used) + 2);
            self.file
                .store_u16(at(avail) + 2, index.wrapping_add(ENTRIES));
        }
    }

    /// The front end adds or removes a region.
    fn plug(&mut self, region: usize) {
        let at = layout(region, region);
        let next = if self.plugged[region] {
            let memory = self.memory.as_ref().expect("what is plugged is mapped");
            memory.without_region(at).expect("it was plugged")
        } else {
            let fd = self.fd.try_clone().expect("a descriptor");
            match &self.memory {
                Some(memory) => memory.with_region(at, &fd),
                None => GuestMemory::new(vec![(at, fd)]),
            }
            .expect("a region that is in order")
        };
        let mut held = vec![0; REGION];
        if !self.plugged[region] {
            self.file.read(place(region), &mut held);
            let same = self.unplugged[region] == held;
            assert!(same, "unplugged memory was written");
        }
        self.plugged[region] = !self.plugged[region];
        self.memory = (next.region_count() > 0).then(|| Arc::new(next));
        self.hostile.install(self.memory.as_ref(), self.deal);
        if !self.plugged[region] {
            self.file.read(place(region), &mut held);
            self.unplugged[region] = held;
        }
    }

    /// Writes where the hostile guest can: into the regions that are plugged, from an address relative to the first.
    fn write(&self, relative: usize, bytes: &[u8]) {
        for (i, byte) in bytes.iter().enumerate() {
            let at = (relative + i) % (REGIONS * REGION);
            let region = at / REGION;
            if self.plugged[region] {
                self.file.write(place(region) + at % REGION, &[*byte]);
            }
        }
    }

    /// The hostile guest's move: a descriptor, an entry of the available ring, an index, raw bytes.
    fn guest(&mut self, queue: usize, what: u8, script: &mut Script<'_>) -> Option<()> {
        let [desc, avail, used] = RINGS[queue].map(|at| at as usize);
        let packed = self.deal.features & feature::RING_PACKED != 0;
        match what % 5 {
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
                if packed {
                    let place = &mut self.places[queue];
                    let at = desc + 16 * usize::from(place.index);
                    let flags = u16::from(flags & 7) | place.available();
                    bytes[12] = next;
                    bytes[14..].copy_from_slice(&flags.to_le_bytes());
                    place.advance(1, self.deal.size);
                    self.write(at, &bytes);
                } else {
                    bytes[12] = flags & 7;
                    bytes[14] = next;
                    self.write(desc + 16 * usize::from(index), &bytes);
                }
            }
            1 if packed => {
                // Now and then the flags of any descriptor.
                let byte = script.byte()?;
                if byte >= 0x80 {
                    self.write(desc + 16 * usize::from(byte & 0x7f) + 14, &[byte; 2]);
                }
            }
            1 if self.plugged[0] => {
                // An entry behind the last one that is available.
                let index = self.file.load_u16(place(0) + avail + 2);
                let entry = avail + 4 + 2 * usize::from(index % self.deal.size);
                self.write(entry, &[script.byte()?, 0]);
                self.write(avail + 2, &index.wrapping_add(1).to_le_bytes());
            }
            2 if packed => {
                let wish = suppression(EVENTS_DESC, self.places[queue]);
                self.write(avail, &wish.to_le_bytes());
            }
            2 if self.plugged[0] => {
                // As many as the ring holds, from what was used on.
                let index = self.file.load_u16(place(0) + used + 2);
                let all = index.wrapping_add(self.deal.size);
                self.write(avail + 2, &all.to_le_bytes());
            }
            3 => self.write(avail + 2, &script.word()?.to_le_bytes()),
            _ => {
                let relative = script.word()?;
                self.write(usize::from(relative), &script.take::<8>()?);
            }
        }
        Some(())
    }

    /// The hostile front end's move.
    fn front_end(&mut self, what: u8, script: &mut Script<'_>) -> Option<()> {
        match what % 4 {
            0 => self.plug(usize::from(script.byte()?) % REGIONS),
            1 => {
                self.deal.enabled = !self.deal.enabled;
                self.hostile.install(self.memory.as_ref(), self.deal);
            }
            // Both queues stop; and start, as another driver does it.
            2 => self.hostile.install(None, self.deal),
            _ => {
                self.deal = Deal::read(script.take()?, self.deal.epoch + 1);
                self.places = [Place::START; 2];
                self.hostile.install(self.memory.as_ref(), self.deal);
            }
        }
        Some(())
    }

    /// The worker's move.
    fn worker(&mut self, what: u8, script: &mut Script<'_>) -> Option<()> {
        match what % 4 {
            0 => self.fetch(script.byte()?.into()),
            1 => self.cross_to_victim(script.byte()?.into()),
            2 => self.cross_to_hostile(script.byte()?.into()),
            _ => {
                for seat in [&mut self.hostile, &mut self.victim] {
                    seat.from_guest.arm();
                    seat.to_guest.arm();
                    seat.from_guest.disarm();
                    seat.to_guest.disarm();
                }
            }
        }
        Some(())
    }

    /// Takes frames from the hostile guest, and looks at them.
    fn fetch(&mut self, max: usize) {
        let from = &mut self.hostile.from_guest;
        from.complete();
        let before = from.counters();
        let count = from.fetch(max);
        let followed = from.counters().descriptors - before.descriptors;
        assert!(followed <= u64::from(BURST_DESCRIPTORS) + MAX_CHAIN as u64);
        let bytes: usize = (0..count).map(|frame| from.frame_len(frame)).sum();
        assert!(bytes <= BURST_BYTES as usize + MAX_FRAME);
        for frame in 0..count {
            let len = from.frame_len(frame);
            assert_eq!(from.read(frame, 0, &mut self.frame), len);
            assert!(!holds_secret(&self.frame[..len]), "a frame tells a secret");
            let _ = from.header(frame);
        }
    }

    /// Sends the burst of the hostile guest to the other.
    fn cross_to_victim(&mut self, head: usize) {
        let from = &self.hostile.from_guest;
        let to = &mut self.victim.to_guest;
        let lens: Vec<u32> = (0..from.count())
            .map(|frame| from.frame_len(frame) as u32)
            .collect();
        let reserved = to.reserve(&lens);
        for (frame, len) in lens[..reserved].iter().enumerate() {
            let head = head.min(*len as usize);
            to.fill_from(
                frame,
                NetHeader::default(),
                &[7; 255][..head],
                from,
                frame,
                head,
            );
        }
        to.publish();
        self.repost();
    }

    /// Sends what the well-behaved guest has to the hostile one, by way of host memory or straight.
    fn cross_to_hostile(&mut self, how: usize) {
        let from = &mut self.victim.from_guest;
        let to = &mut self.hostile.to_guest;
        let count = from.fetch(1 + how % usize::from(ENTRIES));
        let lens: Vec<u32> = (0..count)
            .map(|frame| from.frame_len(frame) as u32)
            .collect();
        to.publish();
        let before = to.counters().descriptors;
        let reserved = to.reserve(&lens);
        let followed = to.counters().descriptors - before;
        let budget = BURST_DESCRIPTORS.max(FRAME_DESCRIPTORS * lens.len() as u32);
        assert!(followed <= u64::from(budget) + MAX_CHAIN as u64);
        for frame in 0..reserved {
            if how & 0x80 == 0 {
                to.fill_from(frame, NetHeader::default(), &[7; 40], from, frame, 40);
            } else {
                let len = from.read(frame, 0, &mut self.frame);
                to.fill(frame, NetHeader::default(), &self.frame[..len]);
            }
        }
        to.publish();
        from.complete();
        self.repost();
    }

    /// What must hold in the end.
    fn check(&mut self) {
        // Nothing is in use any more.
        self.hostile.install(None, self.deal);
        self.victim.install(None, self.deal);
        let mut all = vec![0; LEN];
        self.file.read(0, &mut all);
        for region in 0..REGIONS {
            let held = &mut all[place(region)..][..REGION];
            assert!(!holds_secret(held), "a guest knows a secret");
            assert!(
                self.plugged[region] || self.unplugged[region] == held,
                "unplugged memory was written"
            );
            blank(held, place(region));
        }
        let own = [(0, BUFFERS), (BUFFERS, 2 * usize::from(ENTRIES) * BUFFER)];
        for (at, len) in own {
            // Its rings and buffers are for the device to write to; those that it sends are looked at below.
            blank(&mut all[place(VICTIM) + at..][..len], place(VICTIM) + at);
        }
        let untouched = SECRET.repeat(LEN / SECRET.len());
        assert!(all == untouched, "a write outside the guest's memory");
        let sent = BUFFERS + usize::from(ENTRIES) * BUFFER;
        for index in 0..usize::from(ENTRIES) {
            let mut frame = vec![0; SENT.0];
            let at = place(VICTIM) + sent + index * BUFFER + 12;
            self.file.read(at, &mut frame);
            assert!(frame == vec![SENT.1; SENT.0], "a frame was overwritten");
        }
        assert!(self.victim_is_well(), "another guest's ring broke");
    }

    fn victim_is_well(&self) -> bool {
        let breaks = |counters: crate::ring::RingCounters| counters.breaks;
        breaks(self.victim.to_guest.counters()) + breaks(self.victim.from_guest.counters()) == 0
    }
}

fn holds_secret(bytes: &[u8]) -> bool {
    // Any eight bytes in a row of the repeated secret are a rotation of it; its first byte is in each.
    let repeated = SECRET.repeat(2);
    (0..SECRET.len()).any(|turn| {
        let part = &repeated[turn..turn + SECRET.len()];
        bytes
            .windows(SECRET.len())
            .any(|window| window[0] == part[0] && window == part)
    })
}

/// Puts the secret where it was in the beginning.
fn blank(bytes: &mut [u8], at: usize) {
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = SECRET[(at + i) % SECRET.len()];
    }
}

fn play(scene: &mut Scene, script: &mut Script<'_>) {
    while let Some(step) = script.byte() {
        let what = step & 0x3f;
        let went = match step >> 6 {
            queue @ (0 | 1) => scene.guest(queue.into(), what, script),
            2 => scene.worker(what, script),
            _ => scene.front_end(what, script),
        };
        if went.is_none() {
            break;
        }
    }
}

/// Lets `data` play a hostile guest and its front end beside another guest.
///
/// # Panics
/// If memory that is not the hostile guest's was written or has reached it, or a burst cost more than one may.
pub fn two_guests(data: &[u8]) {
    let mut script = Script(data);
    let Some(first) = script.take() else {
        return;
    };
    let Ok(mut scene) = Scene::new(Deal::read(first, 1)) else {
        return;
    };
    play(&mut scene, &mut script);
    scene.check();
}

#[cfg(test)]
mod tests;
