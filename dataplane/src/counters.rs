//! Counters with one writer: the worker that owns them. Anyone may read them at any time without disturbing it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Name and meaning of a counter or a drop reason, as operators see them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// Lower case with dashes; part of what `show` prints and of a metric's name.
    pub name: &'static str,
    /// One sentence.
    pub help: &'static str,
}

/// Declares an enum whose variants index counters or drop reasons. A variant's doc comment is its help text.
#[macro_export]
macro_rules! indices {
    ($(#[$meta:meta])* $vis:vis enum $name:ident {
        $( $(#[doc = $help:literal])+ $variant:ident = $text:literal, )+
    }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        $vis enum $name {
            $( $(#[doc = $help])+ $variant, )+
        }

        impl $name {
            /// Name and help of each, in order.
            pub const INFO: &'static [$crate::counters::Info] = &[
                $( $crate::counters::Info { name: $text, help: concat!($($help),+).trim_ascii() }, )+
            ];
        }

        impl From<$name> for u8 {
            fn from(index: $name) -> u8 {
                index as u8
            }
        }
    };
}

/// The writer's side of a block of counters.
#[derive(Debug)]
pub struct Counters(Arc<[AtomicU64]>);

impl Counters {
    /// `len` counters at zero.
    pub fn new(len: usize) -> Self {
        Self((0..len).map(|_| AtomicU64::new(0)).collect())
    }

    /// Adds to a counter. As there is one writer, a load and a store do; no locked instruction is needed.
    #[inline]
    pub fn add(&self, index: usize, count: u64) {
        if let Some(cell) = self.0.get(index) {
            cell.store(cell.load(Relaxed).wrapping_add(count), Relaxed);
        }
    }

    /// Sets a gauge.
    #[inline]
    pub fn set(&self, index: usize, value: u64) {
        if let Some(cell) = self.0.get(index) {
            cell.store(value, Relaxed);
        }
    }

    /// A counter's value.
    #[inline]
    pub fn get(&self, index: usize) -> u64 {
        self.0.get(index).map_or(0, |cell| cell.load(Relaxed))
    }

    /// A handle for readers.
    pub fn reader(&self) -> CounterReader {
        CounterReader(Arc::clone(&self.0))
    }
}

/// A reader's side of a block of counters.
#[derive(Clone, Debug)]
pub struct CounterReader(Arc<[AtomicU64]>);

impl CounterReader {
    /// A counter's value now; 0 beyond the block's end.
    pub fn get(&self, index: usize) -> u64 {
        self.0.get(index).map_or(0, |cell| cell.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    indices! {
        /// Just for this test.
        enum Sample {
            /// First of
            /// two.
            First = "first",
            /// Second.
            Second = "second",
        }
    }

    #[test]
    fn doc_comments_become_help() {
        assert_eq!(Sample::INFO[0].name, "first");
        assert_eq!(Sample::INFO[0].help, "First of two.");
        assert_eq!((u8::from(Sample::First), u8::from(Sample::Second)), (0, 1));
    }

    #[test]
    fn readers_see_what_the_writer_counts() {
        let counters = Counters::new(2);
        let reader = counters.reader();
        counters.add(1, 5);
        counters.add(1, 2);
        counters.add(9, 1);
        assert_eq!((reader.get(0), reader.get(1), reader.get(9)), (0, 7, 0));
    }
}
