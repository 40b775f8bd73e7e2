//! The hand-over between both sides of a ring under loom, which tries every order and everything
//! that the memory model lets a load see: what one side publishes and how it asks, what the other
//! arms and how it looks again, by the functions that the rings themselves use.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64, Ordering, fence};
use loom::thread;

use super::{
    Cell, DESC_USED, EVENTS_DESC, EVENTS_DISABLE, EVENTS_ENABLE, Place, publish_descriptors,
    publish_index, suppression, tell_then_ask,
};

macro_rules! cell {
    ($($atomic:ty: $value:ty),*) => {
        $(impl Cell for $atomic {
            type Value = $value;

            fn load(&self, order: Ordering) -> $value {
                self.load(order)
            }

            fn store(&self, value: $value, order: Ordering) {
                self.store(value, order);
            }

            fn fence() {
                fence(Ordering::SeqCst);
            }
        })*
    };
}
cell!(AtomicU16: u16, AtomicU32: u32, AtomicU64: u64);

/// A word of a side that forgot its fence.
struct Unfenced(AtomicU16);

impl Cell for Unfenced {
    type Value = u16;

    fn load(&self, order: Ordering) -> u16 {
        self.0.load(order)
    }

    fn store(&self, value: u16, order: Ordering) {
        self.0.store(value, order);
    }

    fn fence() {}
}

/// A split ring's index and wish, the payload of one entry, and the event fd.
struct Split<C> {
    index: C,
    wish: C,
    payload: AtomicU16,
    notified: AtomicBool,
}

/// One side publishes an entry, the other arms and looks again: it sees the entry and the whole of
/// it, or it is notified.
fn split<C: Cell<Value = u16> + Send + Sync + 'static>(
    new: fn(u16) -> C,
    event_index: bool,
    // The free-running index at the start.
    start: u16,
) {
    loom::model(move || {
        // Until it arms, the other side wants no notifications.
        let (asleep, awake) = if event_index {
            (start, start.wrapping_sub(1))
        } else {
            (0, 1)
        };
        let ring = Arc::new(Split {
            index: new(start),
            wish: new(awake),
            payload: AtomicU16::new(0),
            notified: AtomicBool::new(false),
        });
        let there = ring.clone();
        let publisher = thread::spawn(move || {
            there.payload.store(7, Ordering::Relaxed);
            let next = start.wrapping_add(1);
            if publish_index(&there.index, next, start, &there.wish, event_index) {
                there.notified.store(true, Ordering::Relaxed);
            }
        });
        let seen = tell_then_ask(&ring.wish, asleep, &ring.index);
        if seen != start {
            assert_eq!(ring.payload.load(Ordering::Relaxed), 7);
        }
        publisher.join().expect("publishes");
        let notified = ring.notified.load(Ordering::Relaxed);
        assert!(seen != start || notified, "asleep, and nobody was told");
    });
}

#[test]
fn split_ring_loses_no_wake_up() {
    for start in [0, 41, u16::MAX] {
        split(AtomicU16::new, false, start);
        split(AtomicU16::new, true, start);
    }
}

/// The tests can tell: without the fences a wake-up is lost.
#[test]
#[should_panic(expected = "asleep, and nobody was told")]
fn without_fences_a_wake_up_is_lost() {
    split(|value| Unfenced(AtomicU16::new(value)), true, 0);
}

/// A packed ring of two descriptors, with the event suppression of who takes them.
struct Packed {
    control: [AtomicU64; 2],
    events: AtomicU32,
    payload: [AtomicU16; 2],
    notified: AtomicBool,
}

/// The device uses a burst of two descriptors, the first one last; the driver that sees the first
/// as used sees the second so, too, and what was written in both buffers. As the driver's half of
/// it is the same, it stands for chains of two that a driver makes available.
fn packed(event_index: bool) {
    loom::model(move || {
        let (size, start) = (2, Place::START);
        let mut end = start;
        end.advance(2, size);
        let ring = Arc::new(Packed {
            control: [AtomicU64::new(0), AtomicU64::new(0)],
            events: AtomicU32::new(suppression(EVENTS_DISABLE, start)),
            payload: [AtomicU16::new(0), AtomicU16::new(0)],
            notified: AtomicBool::new(false),
        });
        let there = ring.clone();
        let publisher = thread::spawn(move || {
            for payload in &there.payload {
                payload.store(7, Ordering::Relaxed);
            }
            let used = u64::from(start.used()) << 48;
            Cell::store(&there.control[1], used, Ordering::Relaxed);
            let places = [start, end];
            let events = &there.events;
            if publish_descriptors(&there.control[0], used, places, size, events, event_index) {
                there.notified.store(true, Ordering::Relaxed);
            }
        });
        let flags = if event_index {
            EVENTS_DESC
        } else {
            EVENTS_ENABLE
        };
        let seen = tell_then_ask(&ring.events, suppression(flags, start), &ring.control[0]);
        let seen = start.is_used((seen >> 48) as u16);
        if seen {
            let second = Cell::load(&ring.control[1], Ordering::Relaxed);
            assert!(second >> 48 & u64::from(DESC_USED) != 0, "half a burst");
            for payload in &ring.payload {
                assert_eq!(payload.load(Ordering::Relaxed), 7);
            }
        }
        publisher.join().expect("publishes");
        let notified = ring.notified.load(Ordering::Relaxed);
        assert!(seen || notified, "asleep, and nobody was told");
    });
}

#[test]
fn packed_ring_loses_no_wake_up_and_shows_whole_bursts() {
    packed(false);
    packed(true);
}
