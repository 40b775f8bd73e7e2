//! Regions of another back end, which gives chains back in whatever order, step by step as the
//! protocol's text has it; and dies between any two of them.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::tests::{Sending, World};
use crate::net::feature;
use crate::virtqueue::{DESC_NEXT, Place, fuse};

/// A chain that it has taken: the number of its frame, and what each format knows it by.
#[derive(Clone, Copy)]
struct Held {
    number: u64,
    /// Head, or buffer id.
    id: u16,
    /// Its head's state in a packed ring's region, and the descriptors that it takes.
    entry: u16,
    slots: u16,
}

struct Foreign<'a> {
    world: &'a World,
    /// Chains taken so far; the next one's counter and number.
    counter: u64,
    next_avail: Place,
    held: Vec<Held>,
    given: BTreeSet<u64>,
    /// Given back, unless it died before that.
    perhaps: BTreeSet<u64>,
}

impl Foreign<'_> {
    fn packed(&self) -> bool {
        self.world.features & feature::RING_PACKED != 0
    }

    fn region(&self, at: usize) -> u16 {
        let region = &self.world.region;
        region.memory.load_u16(region.start + at)
    }

    fn put(&self, at: usize, value: u16) {
        let region = &self.world.region;
        region.memory.store_u16(region.start + at, value);
    }

    fn put_byte(&self, at: usize, value: u8) {
        fuse::burn();
        let region = &self.world.region;
        region.memory.write(region.start + at, &[value]);
    }

    fn put_counter(&self, at: usize) {
        let region = &self.world.region;
        region.memory.store_u64(region.start + at, self.counter);
    }

    /// Fills a region in that is new.
    fn fill_in(&self) {
        let entries = self.world.region.entries;
        if self.packed() {
            (0..entries).for_each(|i| self.put(32 + 32 * usize::from(i) + 2, i + 1));
            (20..22).for_each(|at| self.put_byte(at, 1));
        }
        self.put(10, entries);
        self.put(8, 1);
    }

    fn take(&mut self) {
        if self.packed() {
            self.take_packed();
        } else {
            self.take_split();
        }
    }

    fn take_split(&mut self) {
        let (file, layout) = (&self.world.file, self.world.layout);
        let next = self.counter as u16;
        if file.load_u16(layout.avail + 2) == next {
            return;
        }
        let slot = usize::from(next % layout.size);
        let head = file.load_u16(layout.avail + 4 + 2 * slot);
        let at = 16 + 16 * usize::from(head);
        self.put_counter(at + 8);
        self.put_byte(at, 1);
        self.hold(head, 0, 0);
    }

    fn hold(&mut self, id: u16, entry: u16, slots: u16) {
        let number = self.counter;
        self.counter += 1;
        self.held.push(Held {
            number,
            id,
            entry,
            slots,
        });
    }

    fn take_packed(&mut self) {
        let (file, layout) = (&self.world.file, self.world.layout);
        let flags_of = |place: Place| {
            let at = layout.desc + 16 * usize::from(place.index);
            (at, file.load_u16(at + 14))
        };
        if !self.next_avail.is_available(flags_of(self.next_avail).1) {
            return;
        }
        let head = self.region(14);
        let at = |entry: u16| 32 + 32 * usize::from(entry);
        self.put(at(head) + 6, 0);
        self.put_counter(at(head) + 8);
        self.put_byte(at(head), 1);
        let mut slots = 0;
        loop {
            let (from, flags) = flags_of(self.next_avail);
            let free = self.region(12);
            let last = flags & DESC_NEXT == 0;
            if last {
                self.put(at(head) + 4, free);
            }
            slots += 1;
            self.put(at(head) + 6, slots);
            let mut words = [0; 16];
            file.read(from, &mut words);
            let half = |i: usize| u16::from_le_bytes([words[i], words[i + 1]]);
            (0..4).for_each(|i| self.put(at(free) + 24 + 2 * i, half(2 * i)));
            (0..2).for_each(|i| self.put(at(free) + 20 + 2 * i, half(8 + 2 * i)));
            self.put(at(free) + 18, flags);
            self.put(at(free) + 16, half(12));
            let next = self.region(at(free) + 2);
            self.put(12, next);
            self.next_avail.advance(1, layout.size);
            if last {
                self.put(14, next);
                return self.hold(half(12), head, slots);
            }
        }
    }

    /// Gives chains back in one batch.
    fn give(&mut self, batch: &[Held]) {
        self.perhaps.extend(batch.iter().map(|held| held.number));
        if self.packed() {
            self.give_packed(batch);
        } else {
            self.give_split(batch);
        }
        self.perhaps.clear();
        self.given.extend(batch.iter().map(|held| held.number));
    }

    fn give_split(&mut self, batch: &[Held]) {
        let (file, layout) = (&self.world.file, self.world.layout);
        let mut index = file.load_u16(layout.used + 2);
        for held in batch {
            let slot = usize::from(index % layout.size);
            file.store_u32(layout.used + 4 + 8 * slot, held.id.into());
            file.store_u32(layout.used + 8 + 8 * slot, 0);
            index = index.wrapping_add(1);
            self.put(16 + 16 * usize::from(held.id) + 6, self.region(12));
            self.put(12, held.id);
        }
        file.store_u16(layout.used + 2, index);
        for held in batch {
            self.put_byte(16 + 16 * usize::from(held.id), 0);
        }
        self.put(14, index);
    }

    fn give_packed(&mut self, batch: &[Held]) {
        let (file, layout) = (&self.world.file, self.world.layout);
        let at = |entry: u16| 32 + 32 * usize::from(entry);
        let mut place = Place {
            index: self.region(16),
            wrap: self.region(20) & 1 != 0,
        };
        let mut used = Vec::new();
        for held in batch {
            let last = self.region(at(held.entry) + 4);
            self.put(at(last) + 2, self.region(12));
            self.put(12, held.entry);
            let word = u64::from(held.id) << 32 | u64::from(place.used()) << 48;
            used.push((layout.desc + 16 * usize::from(place.index) + 8, word));
            place.advance(held.slots, layout.size);
        }
        self.put(16, place.index);
        self.put_byte(20, place.wrap.into());
        // The driver looks at the first one.
        for (at, word) in used.into_iter().rev() {
            file.store_u64(at, word);
        }
        for held in batch {
            self.put_byte(at(held.entry), 0);
        }
        self.put(14, self.region(12));
        self.put(18, place.index);
        self.put_byte(21, place.wrap.into());
    }
}

#[derive(Clone, Debug)]
enum Step {
    Send(Vec<usize>),
    Take(usize),
    /// Gives some of what it holds back.
    Give(Vec<prop::sample::Index>),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        proptest::collection::vec(8usize..250, 1..5).prop_map(Step::Send),
        (1usize..6).prop_map(Step::Take),
        proptest::collection::vec(any::<prop::sample::Index>(), 1..4).prop_map(Step::Give),
    ]
}

/// Goes through `steps`, of which the last may end early.
fn serve(foreign: &mut Foreign<'_>, sending: &mut Sending, steps: &[Step], stores: u32) {
    foreign.fill_in();
    let (last, steps) = steps.split_last().expect("a step");
    let mut go = |step: &Step| match step {
        Step::Send(lens) => {
            sending.driver.reclaim();
            sending.send(lens);
        }
        Step::Take(count) => (0..*count).for_each(|_| foreign.take()),
        Step::Give(which) => {
            let mut batch = Vec::new();
            for index in which.iter().take(foreign.held.len()) {
                batch.push(foreign.held.remove(index.index(foreign.held.len())));
            }
            if !batch.is_empty() {
                foreign.give(&batch);
            }
        }
    };
    steps.iter().for_each(&mut go);
    if !matches!(last, Step::Send(_)) {
        fuse::within(stores, || go(last));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn any_order_is_taken_up(
        log in 2u32..5,
        odd in 0u16..5,
        packed in any::<bool>(),
        indirect in any::<bool>(),
        steps in proptest::collection::vec(step(), 1..40),
        stores in 0u32..50,
        deaths in 0u32..30,
    ) {
        let size = (1 << log) + if packed { odd } else { 0 };
        let features = [0, feature::RING_PACKED][usize::from(packed)]
            | [0, feature::INDIRECT_DESC][usize::from(indirect)];
        let world = World::new(size, features);
        let mut sending = Sending::new(&world);
        let mut foreign = Foreign {
            world: &world,
            counter: 0,
            next_avail: Place::START,
            held: Vec::new(),
            given: BTreeSet::new(),
            perhaps: BTreeSet::new(),
        };
        serve(&mut foreign, &mut sending, &steps, stores);
        let device = super::tests::start_after(deaths, || world.reader());
        let Foreign { given, perhaps, .. } = foreign;
        sending.finish_after(device, &given, &perhaps);
    }
}
