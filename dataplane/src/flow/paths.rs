//! The distinct ways that replayed packets take, and how many took each.
//!
//! Thousands of flows share a path: the same functions, by the same interfaces, with the same counters. So a
//! replayed packet is counted once, in its path, and whoever reads a function's counters adds those of the paths
//! that go through it. The figures are exact, and cost the same for a chain of one function as of eight.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use arrayvec::ArrayVec;
use foldhash::fast::FixedState;

use crate::counters::{CounterReader, Counters};

/// Functions on one path; a longer one is handled by the stages.
pub const MAX_STEPS: usize = 16;
/// Distinct paths of one worker; flows on others are handled by the stages.
const MAX_PATHS: usize = 4096;

/// One function on a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Step {
    /// The function's index.
    pub function: u16,
    /// The interface it came in by.
    pub came_by: u16,
    /// The interface it left by; meaningless when dropped.
    pub left_by: u16,
    drop: u16,
    /// Which of the function's own counters count it, by bit.
    pub counted: u32,
}

impl Step {
    pub(super) fn new(function: u16, came_by: u16) -> Self {
        Self {
            function,
            came_by,
            left_by: 0,
            drop: 0,
            counted: 0,
        }
    }

    pub(super) fn drop_for(&mut self, reason: u8) {
        self.drop = u16::from(reason) + 1;
    }

    /// The reason the function drops it for, if it does.
    pub fn dropped(&self) -> Option<usize> {
        (self.drop as usize).checked_sub(1)
    }
}

/// Where a path ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// At this port.
    Port(u16),
    /// In the last function on the path, which drops the packet.
    Drop,
}

type Definition = (ArrayVec<Step, MAX_STEPS>, End);

#[derive(Debug)]
struct Definitions {
    paths: Box<[OnceLock<Definition>]>,
    len: AtomicUsize,
}

/// A worker's paths.
#[derive(Debug)]
pub struct Paths {
    definitions: Arc<Definitions>,
    counts: Counters,
    /// From a path's hash to its number.
    index: HashMap<u64, u16, FixedState>,
    /// The path that was asked for last: most often it is the next one, too.
    last: u16,
}

impl Default for Paths {
    fn default() -> Self {
        Self {
            definitions: Arc::new(Definitions {
                paths: (0..MAX_PATHS).map(|_| OnceLock::new()).collect(),
                len: AtomicUsize::new(0),
            }),
            counts: Counters::new(MAX_PATHS * 2),
            index: HashMap::with_capacity_and_hasher(MAX_PATHS, FixedState::default()),
            last: 0,
        }
    }
}

impl Paths {
    /// The number of this path, a new one if it was never taken; `None` when there are too many, or in the unlikely
    /// case that two have the same hash.
    pub(crate) fn intern(&mut self, steps: &[Step], end: End) -> Option<u16> {
        let last = self.definitions.paths[self.last as usize].get();
        if last.is_some_and(|(known, known_end)| known[..] == *steps && *known_end == end) {
            return Some(self.last);
        }
        self.last = self.look_up(steps, end)?;
        Some(self.last)
    }

    fn look_up(&mut self, steps: &[Step], end: End) -> Option<u16> {
        let hash = FixedState::default().hash_one((steps, end));
        if let Some(&path) = self.index.get(&hash) {
            let (known, known_end) = self.definitions.paths[path as usize].get()?;
            return (known[..] == *steps && *known_end == end).then_some(path);
        }
        let path = self.index.len();
        let definition = (ArrayVec::try_from(steps).ok()?, end);
        self.definitions.paths.get(path)?.set(definition).ok()?;
        self.definitions.len.store(path + 1, Ordering::Release);
        self.index.insert(hash, path as u16);
        Some(path as u16)
    }

    /// Counts replayed packets.
    #[inline]
    pub(crate) fn count(&self, path: u16, packets: u64, bytes: u64) {
        self.counts.add(path as usize * 2, packets);
        self.counts.add(path as usize * 2 + 1, bytes);
    }

    /// A handle for readers.
    pub fn reader(&self) -> PathReader {
        PathReader {
            definitions: Arc::clone(&self.definitions),
            counts: self.counts.reader(),
        }
    }
}

/// Reads a worker's paths from outside.
#[derive(Clone, Debug)]
pub struct PathReader {
    definitions: Arc<Definitions>,
    counts: CounterReader,
}

impl PathReader {
    /// Every path that was ever taken, with its packets and bytes.
    pub fn iter(&self) -> impl Iterator<Item = (&[Step], u64, u64)> {
        let len = self.definitions.len.load(Ordering::Acquire);
        self.definitions.paths[..len]
            .iter()
            .enumerate()
            .filter_map(|(path, definition)| {
                let (steps, _) = definition.get()?;
                Some((
                    &steps[..],
                    self.counts.get(path * 2),
                    self.counts.get(path * 2 + 1),
                ))
            })
    }
}
