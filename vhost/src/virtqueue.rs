//! What both sides of a virtqueue agree on: flags, places in a packed ring, who must be notified,
//! and the one ordering that no wake-up may be lost by (virtio 1.2, 2.7 and 2.8).

use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering, fence};

/// The chain goes on with another descriptor.
pub(crate) const DESC_NEXT: u16 = 1;
/// The device writes the buffer.
pub(crate) const DESC_WRITE: u16 = 2;
/// The buffer is a table of descriptors.
pub(crate) const DESC_INDIRECT: u16 = 4;
/// Packed: equals the driver's wrap counter when the descriptor was made available.
pub(crate) const DESC_AVAIL: u16 = 1 << 7;
/// Packed: equals the device's wrap counter when the descriptor is used.
pub(crate) const DESC_USED: u16 = 1 << 15;

/// Packed event suppression, `flags`: notify of everything.
pub(crate) const EVENTS_ENABLE: u32 = 0;
/// Notify of nothing.
pub(crate) const EVENTS_DISABLE: u32 = 1;
/// Notify of the descriptor that the structure names.
pub(crate) const EVENTS_DESC: u32 = 2;

/// A little-endian word that both sides can see.
pub(crate) trait Cell {
    /// What it holds.
    type Value;
    fn load(&self, order: Ordering) -> Self::Value;
    fn store(&self, value: Self::Value, order: Ordering);
    /// A sequentially consistent fence.
    fn fence();
}

macro_rules! cell {
    ($($atomic:ty: $value:ty),*) => {
        $(impl Cell for $atomic {
            type Value = $value;

            #[inline(always)]
            fn load(&self, order: Ordering) -> $value {
                <$value>::from_le(self.load(order))
            }

            #[inline(always)]
            fn store(&self, value: $value, order: Ordering) {
                #[cfg(test)]
                fuse::burn();
                self.store(value.to_le(), order);
            }

            #[inline(always)]
            fn fence() {
                fence(Ordering::SeqCst);
            }
        })*
    };
}
cell!(AtomicU16: u16, AtomicU32: u32, AtomicU64: u64);

/// Shows the other side something, then looks at a word of its own.
///
/// Every hand-over of a virtqueue is a pair of these: one side publishes work and then asks
/// whether the other wants to be told; the other writes that it wants to, and then asks whether
/// there is work. Whichever comes second sees the first, so that at least one of them acts.
/// What was written before is visible to whoever sees `value`.
#[inline(always)]
pub(crate) fn tell_then_ask<T: Cell, A: Cell>(tell: &T, value: T::Value, ask: &A) -> A::Value {
    tell.store(value, Ordering::Release);
    T::fence();
    ask.load(Ordering::Acquire)
}

/// Publishes a split ring's index, which stood at `old` before; tells whether the other side wants
/// to be notified, by what `wish` says: the event index where that was negotiated, or the flags of
/// its ring.
#[inline(always)]
pub(crate) fn publish_index<C: Cell<Value = u16>>(
    index: &C,
    new: u16,
    old: u16,
    wish: &C,
    event_index: bool,
) -> bool {
    let wish = tell_then_ask(index, new, wish);
    if event_index {
        crossed(wish, new, old)
    } else {
        // Virtio 1.2, 2.7.6.1 and 2.7.8.1: bit 0 of either side's flags means "not now".
        wish & 1 == 0
    }
}

/// Publishes descriptors of a packed ring from `old` up to `new` by writing the first one's second
/// word; tells whether the other side wants to be notified, by its event suppression.
#[inline(always)]
pub(crate) fn publish_descriptors<C: Cell<Value = u64>, E: Cell<Value = u32>>(
    first: &C,
    word: u64,
    [old, new]: [Place; 2],
    size: u16,
    events: &E,
    event_index: bool,
) -> bool {
    let wish = tell_then_ask(first, word, events);
    is_wanted(wish, old, new, size, event_index)
}

/// Whether a split ring's step from `old` to `new` passes `event` (2.7.10).
#[inline(always)]
fn crossed(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

/// A place in a packed ring: a descriptor's index and a wrap counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) index: u16,
    pub(crate) wrap: bool,
}

impl Place {
    /// Where both sides begin.
    pub(crate) const START: Self = Self {
        index: 0,
        wrap: true,
    };

    /// As event suppression and vhost-user write it: index in bits 0 to 14, wrap counter in bit 15.
    pub(crate) fn encode(self) -> u16 {
        self.index | u16::from(self.wrap) << 15
    }

    /// The inverse of [`encode`](Self::encode).
    pub(crate) fn decode(word: u16) -> Self {
        Self {
            index: word & 0x7fff,
            wrap: word >> 15 != 0,
        }
    }

    /// Goes on by up to `size` descriptors in a ring of `size`.
    #[inline(always)]
    pub(crate) fn advance(&mut self, by: u16, size: u16) {
        // At most 65536 less one: sizes end at 32768, and the index is below.
        let index = self.index + by;
        if index >= size {
            self.index = index - size;
            self.wrap = !self.wrap;
        } else {
            self.index = index;
        }
    }

    /// The two flags of a descriptor that the driver makes available here.
    #[inline(always)]
    pub(crate) fn available(self) -> u16 {
        if self.wrap { DESC_AVAIL } else { DESC_USED }
    }

    /// The two flags of a descriptor that the device uses here.
    #[inline(always)]
    pub(crate) fn used(self) -> u16 {
        if self.wrap { DESC_AVAIL | DESC_USED } else { 0 }
    }

    /// Whether a descriptor's flags say that it is available.
    #[inline(always)]
    pub(crate) fn is_available(self, flags: u16) -> bool {
        flags & (DESC_AVAIL | DESC_USED) == self.available()
    }

    /// Whether a descriptor's flags say that it is used.
    #[inline(always)]
    pub(crate) fn is_used(self, flags: u16) -> bool {
        flags & (DESC_AVAIL | DESC_USED) == self.used()
    }

    /// Descriptors from `earlier` to here.
    fn since(self, earlier: Self, size: u16) -> u32 {
        let turn = 2 * u32::from(size);
        let at = |p: Self| u32::from(p.index) + if p.wrap { 0 } else { u32::from(size) };
        let (now, then) = (at(self), at(earlier));
        if now >= then {
            now - then
        } else {
            now + turn - then
        }
    }
}

/// Whether whoever wrote `suppression`, an event suppression structure (2.8.10), wants to be told
/// that the other side went from `old` to `new` in a ring of `size`.
#[inline]
fn is_wanted(suppression: u32, old: Place, new: Place, size: u16, event_index: bool) -> bool {
    match suppression >> 16 & 3 {
        EVENTS_DISABLE => false,
        EVENTS_DESC if event_index => {
            let event = Place::decode(suppression as u16);
            // A descriptor that does not exist: better told once too often.
            event.index >= size || (1..=new.since(old, size)).contains(&new.since(event, size))
        }
        _ => true,
    }
}

/// The event suppression structure that asks to be told of nothing, of everything, or of one place.
#[inline]
pub(crate) fn suppression(flags: u32, place: Place) -> u32 {
    u32::from(place.encode()) | flags << 16
}

#[cfg(test)]
pub(crate) mod fuse;
#[cfg(test)]
mod ordering;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_go_round_and_count() {
        for size in [1, 2, 3, 7, 256, 300, 32_768] {
            let mut place = Place::START;
            for step in 0..4 * u32::from(size) {
                assert_eq!(u32::from(place.index), step % u32::from(size));
                assert_eq!(place.wrap, step / u32::from(size) % 2 == 0);
                assert_eq!(Place::decode(place.encode()), place);
                assert!(place.is_available(place.available()) && place.is_used(place.used()));
                assert!(!place.is_available(place.used()) && !place.is_used(place.available()));
                let before = place;
                place.advance(1, size);
                assert_eq!(place.since(before, size), 1);
            }
            let mut round = Place::START;
            round.advance(size, size);
            assert_eq!(round.since(Place::START, size), u32::from(size));
        }
    }

    #[test]
    fn suppression_names_one_descriptor() {
        let size = 5;
        for start in 0..10 {
            let mut old = Place::START;
            (0..start).for_each(|_| old.advance(1, size));
            for step in 1..=size {
                let mut new = old;
                new.advance(step, size);
                let mut event = old;
                for ahead in 0..2 * size {
                    let word = suppression(EVENTS_DESC, event);
                    assert_eq!(is_wanted(word, old, new, size, true), ahead < step);
                    assert!(is_wanted(word, old, new, size, false));
                    event.advance(1, size);
                }
                assert!(!is_wanted(
                    suppression(EVENTS_DISABLE, old),
                    old,
                    new,
                    size,
                    true
                ));
                assert!(is_wanted(
                    suppression(EVENTS_ENABLE, old),
                    old,
                    new,
                    size,
                    true
                ));
            }
        }
    }
}
