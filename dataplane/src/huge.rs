//! Memory in 2 MiB pages: arrays and lists of a fixed size, for tables that are read at random.
//!
//! A table of a million flows takes a TLB miss besides the cache miss for each access to ordinary pages. Nothing here
//! touches memory that nobody asked for: a table that is sized for the most takes what it uses.

use std::io;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use rustix::mm::{Advice, MapFlags, ProtFlags};
use zerocopy::FromZeros;

/// Bytes of a huge page.
pub const HUGE_PAGE: usize = 2 << 20;
/// Bytes of an ordinary one.
const PAGE: usize = 4096;

/// Where memory comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HugePages {
    /// 2 MiB pages if the machine has enough free ones set aside; otherwise ordinary memory, which the kernel is asked to
    /// back by such pages where it finds them.
    #[default]
    Auto,
    /// Ordinary memory.
    Never,
    /// 2 MiB pages that were set aside, or an error.
    Require,
}

/// Zeroed memory of our own, unmapped when dropped.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    bytes: usize,
    reserved: bool,
}

// SAFETY: nobody else has the address; what is done with the memory is its holder's to answer for.
unsafe impl Send for Mapping {}
// SAFETY: as above; a shared mapping gives away its address and nothing else.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// At least `bytes` bytes (none is one page), in whole huge pages where there are more than one half.
    pub(crate) fn new(bytes: usize, pages: HugePages) -> io::Result<Self> {
        let whole = bytes
            .max(1)
            .checked_next_multiple_of(HUGE_PAGE)
            .filter(|whole| *whole < isize::MAX as usize - HUGE_PAGE)
            .ok_or(io::ErrorKind::OutOfMemory)?;
        let little = bytes <= HUGE_PAGE / 2 && pages == HugePages::Auto;
        if little || pages == HugePages::Never {
            return Self::map(
                bytes.max(1).next_multiple_of(PAGE),
                MapFlags::empty(),
                false,
            );
        }
        let reserved = MapFlags::HUGETLB | MapFlags::HUGE_2MB;
        match Self::map(whole, reserved, true) {
            Err(_) if pages == HugePages::Auto => Self::aligned(whole),
            result => result,
        }
    }

    fn map(bytes: usize, flags: MapFlags, reserved: bool) -> io::Result<Self> {
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches nothing that exists.
        let base = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | flags,
            )
        }?;
        let base = NonNull::new(base.cast())
            .ok_or_else(|| io::Error::other("memory was mapped at address 0"))?;
        Ok(Self {
            base,
            bytes,
            reserved,
        })
    }

    /// Ordinary memory that starts at a multiple of a huge page, of which `whole` is one.
    fn aligned(whole: usize) -> io::Result<Self> {
        let wide = Self::map(whole + HUGE_PAGE, MapFlags::empty(), false)?;
        let before = wide.base.addr().get().wrapping_neg() % HUGE_PAGE;
        // The ends are given back by the mappings that they become; the middle is what is wanted.
        let (_, rest) = wide.split_at(before);
        let (middle, _) = rest.split_at(whole);
        // SAFETY: advice on a mapping of our own, of which nobody knows yet. Without the kernel's help it is what it is.
        let _ = unsafe {
            rustix::mm::madvise(
                middle.base.as_ptr().cast(),
                middle.bytes,
                Advice::LinuxHugepage,
            )
        };
        Ok(middle)
    }

    /// Two mappings of one, at a multiple of a page that is not behind its end.
    fn split_at(self, bytes: usize) -> (Self, Self) {
        let whole = std::mem::ManuallyDrop::new(self);
        let part = |from: usize, to: usize| Self {
            // SAFETY: both callers split within the mapping.
            base: unsafe { whole.base.add(from) },
            bytes: to - from,
            reserved: whole.reserved,
        };
        (part(0, bytes), part(bytes, whole.bytes))
    }

    /// Has the kernel find the memory now rather than at the first access.
    pub(crate) fn populate(&self) {
        // SAFETY: populating changes nothing that a program can see. A kernel before 5.14 knows not how, and finds the
        // memory later.
        let _ = unsafe {
            rustix::mm::madvise(
                self.base.as_ptr().cast(),
                self.bytes,
                Advice::LinuxPopulateWrite,
            )
        };
    }

    /// The first byte: aligned to a page, zero at first, as are those that follow.
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Whether it is in pages that were set aside.
    pub(crate) fn is_reserved(&self) -> bool {
        self.reserved
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.bytes > 0 {
            // SAFETY: base and bytes are of a mapping that this alone owns.
            let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.bytes) };
        }
    }
}

/// An array whose length is given when it is made, and whose values are all zero then.
#[derive(Debug)]
pub struct HugeArray<T>(HugeVec<T>);

impl<T: FromZeros> HugeArray<T> {
    /// An array of `len` zeros.
    ///
    /// # Errors
    /// The system has not so much memory.
    pub fn zeroed(len: usize) -> io::Result<Self> {
        const { assert!(!std::mem::needs_drop::<T>()) };
        let mut list = HugeVec::with_capacity(len)?;
        // There is memory for so many values, and zeros are values.
        list.len = len;
        Ok(Self(list))
    }
}

impl<T> Deref for HugeArray<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T> DerefMut for HugeArray<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.0
    }
}

/// A list that never moves and never grows beyond what it was made for; for values that zeros can't stand for, and are
/// put there one after the other.
#[derive(Debug)]
pub struct HugeVec<T> {
    memory: Mapping,
    capacity: usize,
    len: usize,
    values: PhantomData<T>,
}

impl<T> HugeVec<T> {
    /// An empty list with room for `capacity` values.
    ///
    /// # Errors
    /// The system has not so much memory.
    pub fn with_capacity(capacity: usize) -> io::Result<Self> {
        const { assert!(align_of::<T>() <= PAGE) };
        let bytes = capacity
            .checked_mul(size_of::<T>())
            .ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self {
            memory: Mapping::new(bytes, HugePages::Auto)?,
            capacity,
            len: 0,
            values: PhantomData,
        })
    }

    /// How many values it can hold.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Makes room for `more` values behind those that are there, which move; not while packets wait.
    ///
    /// # Errors
    /// The system has not so much memory.
    pub fn grow(&mut self, more: usize) -> io::Result<()> {
        let capacity = self
            .len
            .checked_add(more)
            .ok_or(io::ErrorKind::OutOfMemory)?;
        if capacity <= self.capacity {
            return Ok(());
        }
        let mut grown = Self::with_capacity(capacity)?;
        // SAFETY: both are memory of their own with room for `len` values. Those of `self` were all written, and are
        // nobody's behind this: its length is 0 then, so that it drops none of them.
        unsafe {
            let (from, to) = (self.memory.base().cast::<T>(), grown.memory.base().cast());
            from.copy_to_nonoverlapping(to, self.len);
        }
        grown.len = std::mem::take(&mut self.len);
        *self = grown;
        Ok(())
    }

    /// Adds a value at the end.
    ///
    /// # Errors
    /// The list is full; here is the value.
    #[inline]
    pub fn push(&mut self, value: T) -> Result<(), T> {
        if self.len == self.capacity {
            return Err(value);
        }
        // SAFETY: there is memory for `capacity` values, and this is one of them behind those in use.
        unsafe { self.memory.base().cast::<T>().add(self.len).write(value) };
        self.len += 1;
        Ok(())
    }

    /// Takes the last value away.
    #[inline]
    pub fn pop(&mut self) -> Option<T> {
        self.len = self.len.checked_sub(1)?;
        // SAFETY: the value was written by `push`, and is not in use any more.
        Some(unsafe { self.memory.base().cast::<T>().add(self.len).read() })
    }
}

impl<T> Deref for HugeVec<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: the first `len` values were written by `push`, or are zeros which `HugeArray` knows to be values; the
        // memory is aligned to a page.
        unsafe { std::slice::from_raw_parts(self.memory.base().cast().as_ptr(), self.len) }
    }
}

impl<T> DerefMut for HugeVec<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`, and `&mut self` makes it the only reference.
        unsafe { std::slice::from_raw_parts_mut(self.memory.base().cast().as_ptr(), self.len) }
    }
}

impl<T> Drop for HugeVec<T> {
    fn drop(&mut self) {
        if std::mem::needs_drop::<T>() {
            while self.pop().is_some() {}
        }
    }
}

#[cfg(test)]
mod tests;
