//! A device that dies between any two stores, and the next one that takes its ring up: each chain
//! of a valid driver is given back exactly once, and no frame from the driver is missed.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

use super::{QueueRegion, Tracker};
use crate::driver::{GUEST_BASE, ReceiveQueue, RingLayout, TransmitQueue, USER_BASE};
use crate::memory::{GuestMemory, Mapping, RegionLayout};
use crate::net::{NetHeader, feature};
use crate::ring::{Areas, Direction, FromGuest, Ring, RingReport, Started, ToGuest};
use crate::virtqueue::fuse;

/// Bytes of the guest's memory, and of each of its buffers.
const MEMORY: usize = 0x1_0000;
const BUFFER: usize = 64;
/// Frames that a burst has at most here.
const MOST: usize = 6;

/// A guest's memory, a queue in it, and the area that its front end keeps.
pub(super) struct World {
    pub(super) file: Arc<Mapping>,
    memory: Arc<GuestMemory>,
    pub(super) region: QueueRegion,
    pub(super) layout: RingLayout,
    pub(super) features: u64,
}

fn memfd(len: usize) -> (std::os::fd::OwnedFd, Arc<Mapping>) {
    let fd = memfd_create("inflight", MemfdFlags::CLOEXEC).expect("memfd");
    ftruncate(&fd, len as u64).expect("size");
    let mapping = Arc::new(Mapping::of_file(&fd, len).expect("maps"));
    (fd, mapping)
}

impl World {
    pub(super) fn new(size: u16, features: u64) -> Self {
        let features = features | feature::VERSION_1 | feature::MRG_RXBUF;
        let (fd, file) = memfd(MEMORY);
        let region = RegionLayout {
            guest_address: GUEST_BASE,
            user_address: USER_BASE,
            size: MEMORY as u64,
            file_offset: 0,
        };
        let memory = Arc::new(GuestMemory::new(vec![(region, fd)]).expect("maps"));
        let packed = features & feature::RING_PACKED != 0;
        // A queue may be smaller than its region.
        let entries = size + 3 * u16::from(packed);
        let (_, area) = memfd(2 * QueueRegion::bytes(entries, packed));
        Self {
            file,
            memory,
            region: QueueRegion::of_queue(&area, 1, entries, packed).expect("room"),
            layout: RingLayout {
                size,
                desc: 0,
                avail: 0x1000,
                used: 0x2000,
                tables: 0x3000,
                table_entries: 4,
                buffers: 0x8000,
                buffer_size: BUFFER,
            },
            features,
        }
    }

    /// A device that takes the queue up, as one does that knows nothing but the region.
    fn start(&self, direction: Direction) -> Started {
        let address = |at: usize| USER_BASE + at as u64;
        let areas = Areas {
            desc: address(self.layout.desc),
            driver: address(self.layout.avail),
            device: address(self.layout.used),
        };
        let (size, features) = (self.layout.size, self.features);
        let opened = Ring::open(&self.memory, size, areas, None, direction, features);
        let mut ring = opened.expect("a valid ring");
        let tracker = Tracker::start(self.region.clone(), &mut ring).expect("a valid region");
        Started {
            ring,
            epoch: 1,
            features,
            enabled: true,
            kick: None,
            call: None,
            error: None,
            log: None,
            inflight: Some(tracker),
        }
    }

    pub(super) fn reader(&self) -> FromGuest {
        let mut from = FromGuest::new(Arc::new(RingReport::default()), None);
        from.install(Some(self.start(Direction::Readable)));
        from
    }

    fn writer(&self) -> ToGuest {
        let mut to = ToGuest::new(Arc::new(RingReport::default()), None);
        to.install(Some(self.start(Direction::Writable)));
        to
    }
}

/// A frame of `len` bytes, 8 at least, that has a number.
fn frame(number: u64, len: usize) -> Vec<u8> {
    let mut frame = number.to_le_bytes().to_vec();
    frame.resize(len, number as u8);
    frame
}

fn number(frame: &[u8]) -> u64 {
    let number = u64::from_le_bytes(frame[..8].try_into().expect("8 bytes"));
    assert!(frame[8..].iter().all(|byte| *byte == number as u8));
    number
}

/// Frames from a driver to one device after the other.
pub(super) struct Sending {
    pub(super) driver: TransmitQueue,
    sent: u64,
    /// The first number that no device has read.
    unread: u64,
}

impl Sending {
    pub(super) fn new(world: &World) -> Self {
        let driver = TransmitQueue::new(world.file.clone(), world.layout, world.features);
        Self {
            driver: driver.expect("eventfds"),
            sent: 0,
            unread: 0,
        }
    }

    pub(super) fn send(&mut self, lens: &[usize]) {
        for len in lens {
            if self
                .driver
                .send(NetHeader::default(), &frame(self.sent, *len))
            {
                self.sent += 1;
            }
        }
        self.driver.flush();
    }

    /// The device takes a burst and gives it back; the latter may be its end.
    fn poll(&mut self, device: &mut FromGuest, max: usize) {
        let mut buffer = [0; 512];
        let mut next = None;
        for i in 0..device.fetch(max) {
            let len = device.read(i, 0, &mut buffer);
            let got = number(&buffer[..len]);
            // Every burst is in order, and none begins behind what was not read.
            assert!(got <= self.unread && next.is_none_or(|next| next == got));
            next = Some(got + 1);
            self.unread = self.unread.max(got + 1);
        }
        device.complete();
    }

    pub(super) fn finish(mut self, mut device: FromGuest) {
        for _ in 0..=self.sent {
            self.poll(&mut device, MOST);
        }
        assert!(self.driver.is_idle(), "a chain was lost");
        assert_eq!(self.driver.bad_used, 0, "a chain was given back twice");
        assert_eq!(self.unread, self.sent, "a frame was missed");
    }
}

impl Sending {
    /// The same behind a device of another kind, which has given some frames back, and others
    /// perhaps.
    pub(super) fn finish_after(
        mut self,
        mut device: FromGuest,
        given: &BTreeSet<u64>,
        perhaps: &BTreeSet<u64>,
    ) {
        let mut buffer = [0; 512];
        let mut seen = BTreeSet::new();
        let mut count = 1;
        while count > 0 {
            count = device.fetch(MOST);
            for i in 0..count {
                let len = device.read(i, 0, &mut buffer);
                assert!(seen.insert(number(&buffer[..len])), "a frame came twice");
            }
            device.complete();
        }
        assert!(self.driver.is_idle(), "a chain was lost");
        assert_eq!(self.driver.bad_used, 0, "a chain was given back twice");
        for number in 0..self.sent {
            let took = [given.contains(&number), seen.contains(&number)];
            let clear = took[0] != took[1];
            assert!(
                clear || perhaps.contains(&number) && !took[0],
                "frame {number}"
            );
        }
    }
}

/// Frames from one device after the other to a driver.
struct Receiving {
    driver: ReceiveQueue,
    sent: u64,
    /// The first number that may come next.
    next: u64,
}

impl Receiving {
    fn new(world: &World) -> Self {
        let driver = ReceiveQueue::new(world.file.clone(), world.layout, world.features);
        let mut driver = driver.expect("eventfds");
        driver.flush();
        Self {
            driver,
            sent: 0,
            next: 0,
        }
    }

    /// The device delivers frames, which may be its end.
    fn deliver(&mut self, device: &mut ToGuest, lens: &[usize]) -> usize {
        let asked: Vec<u32> = lens.iter().map(|len| *len as u32).collect();
        let reserved = device.reserve(&asked);
        for (slot, len) in lens[..reserved].iter().enumerate() {
            device.fill(slot, NetHeader::default(), &frame(self.sent, *len));
            self.sent += 1;
        }
        device.publish();
        reserved
    }

    fn receive(&mut self) {
        let next = &mut self.next;
        self.driver.receive(64, |_, frame| {
            let got = number(frame);
            assert!(got >= *next, "a frame came twice");
            *next = got + 1;
        });
        assert_eq!(self.driver.bad_used, 0);
    }

    fn finish(mut self, mut device: ToGuest) {
        self.receive();
        // Every buffer is there, once, to hold a frame of its own.
        let size = u64::from(self.driver.layout().size);
        let first = self.sent;
        while self.deliver(&mut device, &[BUFFER - NetHeader::LEN]) > 0 {}
        assert_eq!(self.sent, first + size, "a buffer was lost, or used twice");
        self.next = first;
        self.receive();
        assert_eq!(self.next, self.sent, "a frame was lost");
    }
}

const FORMATS: [u64; 4] = [
    0,
    feature::IN_ORDER,
    feature::RING_PACKED,
    feature::RING_PACKED | feature::IN_ORDER,
];

/// Starts a device, which dies in the attempt after ever more stores, and then doesn't.
fn start_at_last<T>(start: impl Fn() -> T) -> T {
    (0..)
        .find_map(|stores| fuse::within(stores, &start))
        .expect("it starts")
}

#[test]
fn a_burst_dies_at_every_store() {
    for features in FORMATS {
        for indirect in [0, feature::INDIRECT_DESC] {
            let mut ended = false;
            let mut stores = 0;
            while !ended {
                let world = World::new(16, features | indirect);
                let mut sending = Sending::new(&world);
                let mut device = world.reader();
                // The ring's end is within the second burst.
                sending.send(&[20, 200, 20]);
                sending.poll(&mut device, MOST);
                sending.send(&[100, 20, 150, 20]);
                ended = fuse::within(stores, || sending.poll(&mut device, MOST)).is_some();
                drop(device);
                sending.finish(start_at_last(|| world.reader()));
                stores += 1;
            }
            assert!(stores > 8, "{features:#x}: only {stores} stores");
        }
    }
}

#[test]
fn a_delivery_dies_at_every_store() {
    for features in FORMATS {
        let mut ended = false;
        let mut stores = 0;
        while !ended {
            let world = World::new(8, features);
            let mut receiving = Receiving::new(&world);
            let mut device = world.writer();
            receiving.deliver(&mut device, &[20, 150, 40]);
            receiving.receive();
            let deliver = || receiving.deliver(&mut device, &[100, 20, 40]);
            ended = fuse::within(stores, deliver).is_some();
            drop(device);
            receiving.finish(start_at_last(|| world.writer()));
            stores += 1;
        }
        assert!(stores > 8, "{features:#x}: only {stores} stores");
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// The driver sends, or receives.
    Drive(Vec<usize>),
    /// The device takes so many frames, or delivers these.
    Serve(usize, Vec<usize>),
    /// The same, and dies after so many stores; so do the next ones, each after one store more
    /// than the one before.
    Die(u32, usize, Vec<usize>, u32),
}

fn step() -> impl Strategy<Value = Step> {
    let lens = || proptest::collection::vec(8usize..300, 0..MOST);
    prop_oneof![
        3 => lens().prop_map(Step::Drive),
        3 => (1..MOST, lens()).prop_map(|(max, lens)| Step::Serve(max, lens)),
        2 => (0u32..60, 1..MOST, lens(), 0u32..40)
            .prop_map(|(stores, max, lens, more)| Step::Die(stores, max, lens, more)),
    ]
}

/// A new device, at whose start `deaths` die first.
pub(super) fn start_after<T>(deaths: u32, start: impl Fn() -> T) -> T {
    for stores in 0..deaths {
        if let Some(device) = fuse::within(stores, &start) {
            return device;
        }
    }
    start()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn chains_come_back_once(
        log in 0u32..5,
        odd in 0u16..5,
        features in proptest::sample::select(FORMATS.to_vec()),
        more in proptest::sample::subsequence(vec![feature::EVENT_IDX, feature::INDIRECT_DESC], 0..=2),
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let packed = features & feature::RING_PACKED != 0;
        let size = (1 << log) + if packed { odd } else { 0 };
        let features = features | more.iter().sum::<u64>();
        let (world, other) = (World::new(size, features), World::new(size, features));
        let mut sending = Sending::new(&world);
        let mut receiving = Receiving::new(&other);
        let (mut from, mut to) = (world.reader(), other.writer());
        for step in steps {
            match step {
                Step::Drive(lens) => {
                    sending.send(&lens);
                    receiving.receive();
                }
                Step::Serve(max, lens) => {
                    sending.poll(&mut from, max);
                    receiving.deliver(&mut to, &lens);
                }
                Step::Die(stores, max, lens, deaths) => {
                    fuse::within(stores, || sending.poll(&mut from, max));
                    fuse::within(stores, || receiving.deliver(&mut to, &lens));
                    from = start_after(deaths, || world.reader());
                    to = start_after(deaths, || other.writer());
                }
            }
        }
        sending.finish(from);
        receiving.finish(to);
    }
}
