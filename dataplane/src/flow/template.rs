//! Templates: what the records of thousands of flows have in common.
//!
//! Guards, MAC addresses, TTL, where packets end, which counters count them and which tables and neighbours all that
//! rests on: few distinct ones exist, and they stay in the nearest cache. A record has a template and, beside it, what is
//! its flow's own. Templates are shared by content, counted by the records that use them, and used again when nobody
//! does: a neighbour that comes and goes makes new ones, but not more and more of them.
//!
//! What a template rests on is looked at again only after something of the kind has changed anywhere in the worker: the
//! worker's *generation* has moved on, and the template remembers at which it was last found valid.

use std::hash::{BuildHasher, Hash};

use arrayvec::ArrayVec;
use foldhash::SharedSeed;
use foldhash::fast::SeedableRandomState;
use zerocopy::FromZeros;

use super::paths::End;
use super::record::{MAX_DEPENDENCIES, MAX_SLOTS};
use super::recorder::{Dependency, Kind, Recorder};
use crate::huge::HugeArray;
use crate::objects::ObjectId;
use crate::packet::{BURST, Mac};

/// Templates at most; flows that want yet another are handled by the stages.
const MOST: usize = 1 << 16;

/// Twelve bytes in two words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromZeros)]
#[repr(C)]
pub(super) struct Macs {
    low: [u32; 2],
    high: u32,
}

impl Macs {
    #[inline(always)]
    fn of(bytes: [u8; 12]) -> Self {
        let [a, b, high]: [u32; 3] = zerocopy::transmute!(bytes);
        Self { low: [a, b], high }
    }

    /// As the frame's first eight bytes, and the four behind them.
    #[inline(always)]
    pub fn words(&self) -> (u64, u32) {
        (zerocopy::transmute!(self.low), self.high)
    }
}

/// Guards and what is done to every packet. All words are of bytes in the order of the frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromZeros)]
#[repr(C)]
pub(super) struct Work {
    /// Which bits of the frame's first eight bytes must be as in `guard`.
    pub guarded: u64,
    pub guard: u64,
    /// Which bits of the first twelve bytes, both MAC addresses, stay; the others are those of `macs`.
    pub kept: Macs,
    pub macs: Macs,
    /// The longest IP packet, in bytes.
    pub wire_len: u32,
    /// The port that packets leave by.
    pub egress: u16,
    /// What is taken off the TTL; above 0, a packet's TTL must be greater.
    pub ttl: u8,
    /// 1 if packets are dropped.
    pub dropped: u8,
}

/// What is looked at only now and then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromZeros)]
#[repr(C)]
struct Rare {
    path: u16,
    slot_count: u8,
    dependency_count: u8,
    slots: [(u16, u16); MAX_SLOTS],
    objects: [u32; MAX_DEPENDENCIES],
    epochs: [u32; MAX_DEPENDENCIES],
}

/// What many records share; the first cache line is all that a replayed packet needs.
#[derive(Clone, Copy, Debug, FromZeros)]
#[repr(C, align(64))]
pub(super) struct Template {
    /// The generation at which it was last found valid.
    pub valid_at: u64,
    /// Packets that used it and are not in the counters yet, and their bytes: of one batch at most.
    packets: u32,
    bytes: u32,
    pub work: Work,
    rare: Rare,
    /// Records that use it.
    users: u32,
    /// The next one with the same hash, or the next free one; 0 for none.
    next: u16,
    /// Whether it can't be found any more, as what it rested on has changed.
    hidden: u16,
}

impl Template {
    /// Counts a packet that used it; true for the first one since the counts were drained.
    #[inline(always)]
    pub fn count(&mut self, bytes: usize) -> bool {
        self.bytes += bytes as u32;
        self.packets += 1;
        self.packets == 1
    }

    /// Whether it is the one of these, for new records.
    fn is_found_by(&self, work: &Work, rare: &Rare) -> bool {
        self.hidden == 0 && self.work == *work && self.rare == *rare
    }

    /// The objects it rests on, with the epochs at which it does.
    pub fn dependencies(&self) -> impl Iterator<Item = (ObjectId, u32)> {
        let rare = &self.rare;
        let count = rare.dependency_count as usize;
        let both = rare.objects[..count].iter().zip(&rare.epochs[..count]);
        both.map(|(object, epoch)| (ObjectId(*object), *epoch))
    }
}

/// A worker's templates, numbered from 1.
pub(crate) struct Templates {
    list: HugeArray<Template>,
    /// The first of each hash.
    heads: HugeArray<u16>,
    hasher: SeedableRandomState,
    used: u16,
    free: u16,
    /// The one that was obtained last: most often it is the next one, too.
    last: u16,
    /// Those with packets to count.
    counting: ArrayVec<u16, BURST>,
}

impl Templates {
    /// Templates for so many records; no more than 65,535.
    pub fn new(records: usize, seed: u64) -> std::io::Result<Self> {
        let most = (records + 1).min(MOST);
        Ok(Self {
            list: HugeArray::zeroed(most)?,
            heads: HugeArray::zeroed(most.next_power_of_two())?,
            hasher: SeedableRandomState::with_seed(seed, SharedSeed::global_fixed()),
            used: 0,
            free: 0,
            last: 0,
            counting: ArrayVec::new(),
        })
    }

    #[inline]
    pub fn get(&self, number: u16) -> &Template {
        &self.list[number as usize]
    }

    #[inline]
    pub fn get_mut(&mut self, number: u16) -> &mut Template {
        &mut self.list[number as usize]
    }

    /// The template of a recording, with one user more; `None` when there are too many.
    pub fn obtain(&mut self, recorder: &Recorder, path: u16, end: End, now: u64) -> Option<u16> {
        let (work, rare) = (work(recorder, end), rare(recorder, path));
        let number = match self.last {
            last if last != 0 && self.get(last).is_found_by(&work, &rare) => last,
            _ => self.find_or_make(work, rare)?,
        };
        self.last = number;
        let template = self.get_mut(number);
        template.users += 1;
        // The epochs that were just recorded are its own.
        template.valid_at = now;
        Some(number)
    }

    fn find_or_make(&mut self, work: Work, rare: Rare) -> Option<u16> {
        let head = self.head(&work, &rare);
        let mut number = self.heads[head];
        while number != 0 {
            let known = self.get(number);
            if known.is_found_by(&work, &rare) {
                return Some(number);
            }
            number = known.next;
        }
        let number = self.vacant()?;
        let next = std::mem::replace(&mut self.heads[head], number);
        *self.get_mut(number) = Template {
            valid_at: 0,
            packets: 0,
            bytes: 0,
            work,
            rare,
            users: 0,
            next,
            hidden: 0,
        };
        Some(number)
    }

    fn head(&self, work: &Work, rare: &Rare) -> usize {
        self.hasher.hash_one((work, rare)) as usize & (self.heads.len() - 1)
    }

    fn vacant(&mut self) -> Option<u16> {
        if self.free != 0 {
            let number = self.free;
            self.free = self.get(number).next;
            return Some(number);
        }
        let number = self.used.checked_add(1)?;
        self.list.get(number as usize)?;
        self.used = number;
        Some(number)
    }

    /// It serves no packet any more, and no new record finds it.
    pub fn hide(&mut self, number: u16) {
        let Template {
            work,
            rare,
            next,
            hidden,
            ..
        } = *self.get(number);
        if hidden != 0 {
            return;
        }
        let head = self.head(&work, &rare);
        if self.heads[head] == number {
            self.heads[head] = next;
        } else {
            let mut before = self.heads[head];
            while self.get(before).next != number && before != 0 {
                before = self.get(before).next;
            }
            self.get_mut(before).next = next;
        }
        self.get_mut(number).hidden = 1;
    }

    /// A record less uses it; it is used again when none does and its packets are counted.
    pub fn release(&mut self, number: u16) {
        let template = self.get_mut(number);
        template.users -= 1;
        if template.users == 0 && template.packets == 0 {
            self.recycle(number);
        }
    }

    fn recycle(&mut self, number: u16) {
        self.hide(number);
        let free = std::mem::replace(&mut self.free, number);
        self.get_mut(number).next = free;
    }

    /// A template with packets to count, as [`Template::count`] told, is to be drained.
    pub fn counts(&mut self, number: u16) {
        // There are no more than the packets of a batch.
        let _ = self.counting.try_push(number);
    }

    /// Hands over what was counted since the last time: path, packets, bytes, and the functions' slots that count too.
    #[inline]
    pub fn drain_counts(&mut self, mut each: impl FnMut(u16, u64, u64, &[(u16, u16)])) {
        for number in std::mem::take(&mut self.counting) {
            let template = self.get_mut(number);
            let packets = std::mem::take(&mut template.packets);
            let bytes = std::mem::take(&mut template.bytes);
            let slots = &template.rare.slots[..template.rare.slot_count as usize];
            each(template.rare.path, packets.into(), bytes.into(), slots);
            if template.users == 0 {
                self.recycle(number);
            }
        }
    }

    /// Templates in use.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        let mut free = 0;
        let mut number = self.free;
        while number != 0 {
            free += 1;
            number = self.get(number).next;
        }
        self.used as usize - free
    }
}

pub(super) fn work(recorder: &Recorder, end: End) -> Work {
    let mut work = Work {
        wire_len: recorder.guard_wire_len,
        ttl: recorder.ttl,
        ..Work::default()
    };
    match end {
        End::Port(port) => work.egress = port,
        End::Drop => work.dropped = 1,
    }
    if let Some(Mac(mac)) = recorder.guard_mac {
        let wide = |mac: [u8; 6]| {
            let mut bytes = [0; 8];
            bytes[..6].copy_from_slice(&mac);
            u64::from_ne_bytes(bytes)
        };
        (work.guarded, work.guard) = (wide([0xff; 6]), wide(mac));
    }
    let (mut kept, mut macs) = ([0xff_u8; 12], [0_u8; 12]);
    for (at, mac) in [(0, recorder.mac_dst), (6, recorder.mac_src)] {
        if let Some(Mac(mac)) = mac {
            kept[at..at + 6].fill(0);
            macs[at..at + 6].copy_from_slice(&mac);
        }
    }
    (work.kept, work.macs) = (Macs::of(kept), Macs::of(macs));
    work
}

fn rare(recorder: &Recorder, path: u16) -> Rare {
    let mut rare = Rare {
        path,
        slot_count: recorder.slots.len() as u8,
        ..Rare::default()
    };
    rare.slots[..recorder.slots.len()].copy_from_slice(&recorder.slots);
    let shared = recorder
        .dependencies
        .iter()
        .filter(|used| used.kind == Kind::Shared);
    for Dependency { object, epoch, .. } in shared {
        let at = rare.dependency_count as usize;
        (rare.objects[at], rare.epochs[at]) = (object.0, *epoch);
        rare.dependency_count += 1;
    }
    rare
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_packet_needs_is_one_cache_line() {
        assert_eq!(std::mem::offset_of!(Template, rare), 64);
        assert_eq!(size_of::<Template>(), 192);
    }
}
