//! Guest memory: mappings of the front end's files, and the map from guest addresses to them.
//!
//! A [`GuestMemory`] never changes; a new memory table makes a new one. Addresses are translated
//! once, into a pointer and a length that was checked, and nobody gets a reference into a mapping.

use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{FileType, fstat};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::copy;
use crate::iotlb::{Entry, Iotlb, access};
use crate::sigbus::{self, Guarded};
use crate::virtqueue::Cell;

/// Most regions in one memory table (the limit that QEMU and the vhost kernel modules know too).
pub const MAX_REGIONS: usize = 509;

/// A region as the front end describes it (vhost-user, "Memory region description").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionLayout {
    /// Guest physical address of the first byte.
    pub guest_address: u64,
    /// Address of the first byte in the front end's own process.
    pub user_address: u64,
    /// Length in bytes.
    pub size: u64,
    /// Where the region starts in its file, in bytes.
    pub file_offset: u64,
}

impl RegionLayout {
    /// Whether both are of the same memory in the guest and in the front end, which is what a region is removed by.
    pub fn is_at(&self, other: &Self) -> bool {
        let place = |layout: &Self| (layout.guest_address, layout.user_address, layout.size);
        place(self) == place(other)
    }
}

/// Why a memory table was refused.
#[derive(Debug)]
pub enum MemoryError {
    /// More regions than [`MAX_REGIONS`], or none.
    Count(usize),
    /// A region of size 0, or one that wraps round the end of an address space.
    Range(RegionLayout),
    /// Two regions overlap in the guest's or the front end's address space.
    Overlap(RegionLayout, RegionLayout),
    /// The file is not a regular file or memfd.
    FileType(RegionLayout),
    /// The file is shorter than the region needs, in bytes.
    FileTooShort(RegionLayout, u64),
    /// The kernel refused the mapping.
    Map(RegionLayout, std::io::Error),
    /// The process has as many guest mappings as it can guard.
    TooManyMappings,
    /// The region to remove is not there.
    Unknown(RegionLayout),
}

impl fmt::Display for MemoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(n) => write!(f, "{n} memory regions; 1 to {MAX_REGIONS} are possible"),
            Self::Range(r) => write!(f, "memory region is empty or wraps: {r:x?}"),
            Self::Overlap(a, b) => write!(f, "memory regions overlap: {a:x?} and {b:x?}"),
            Self::FileType(r) => write!(f, "memory region is not backed by a file: {r:x?}"),
            Self::FileTooShort(r, len) => {
                write!(
                    f,
                    "memory file of {len} bytes is too short for region {r:x?}"
                )
            }
            Self::Map(r, error) => write!(f, "memory region can't be mapped: {error}: {r:x?}"),
            Self::TooManyMappings => write!(f, "too many guest memory mappings in this process"),
            Self::Unknown(r) => write!(f, "no such memory region to remove: {r:x?}"),
        }
    }
}

impl std::error::Error for MemoryError {}

/// A shared mapping of a file, with checked access by offset.
///
/// Others change the memory at will, so values are read once, by copies and atomics.
#[derive(Debug)]
pub struct Mapping {
    base: *mut u8,
    mapped: usize,
    /// Offset of the first byte that belongs to the region.
    lead: usize,
    len: usize,
    guarded: Option<Guarded>,
}

// SAFETY: a mapping is plain memory, shared with other processes anyway; all access goes through
// atomics and opaque copies, and `munmap` may be called by any thread.
unsafe impl Send for Mapping {}
// SAFETY: as above; no method hands out a reference into the memory.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` bytes of `fd` from `offset`, which need not be page-aligned.
    pub(crate) fn of_region(layout: RegionLayout, fd: &OwnedFd) -> Result<Self, MemoryError> {
        let stat = fstat(fd).map_err(|e| MemoryError::Map(layout, e.into()))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(MemoryError::FileType(layout));
        }
        let end = layout.file_offset.checked_add(layout.size);
        let end = end.ok_or(MemoryError::Range(layout))?;
        let length = u64::try_from(stat.st_size).unwrap_or(0);
        if end > length {
            return Err(MemoryError::FileTooShort(layout, length));
        }
        // A hugetlb file tells its page size as its block size; mappings of it must be aligned to it.
        let block = u64::try_from(stat.st_blksize).unwrap_or(4096);
        let page = if block.is_power_of_two() && block <= 1 << 30 {
            block.max(4096)
        } else {
            4096
        };
        let start = layout.file_offset & !(page - 1);
        let mapped = (end - start).checked_next_multiple_of(page);
        let mapped = mapped.and_then(|n| usize::try_from(n).ok());
        let mapped = mapped.ok_or(MemoryError::Range(layout))?;
        let lead = (layout.file_offset - start) as usize;
        // The front end has reserved the pages; a second reservation could only fail.
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        Self::map(fd, start, mapped, flags, lead, layout.size as usize).map_err(|e| {
            e.map_or(MemoryError::TooManyMappings, |e| {
                MemoryError::Map(layout, e)
            })
        })
    }

    /// Maps the whole of a file of our own making.
    ///
    /// # Errors
    /// What mmap(2) says, or an exhausted table of guarded mappings.
    pub(crate) fn of_file(fd: &OwnedFd, len: usize) -> std::io::Result<Self> {
        Self::map(fd, 0, len, MapFlags::SHARED, 0, len)
            .map_err(|e| e.unwrap_or_else(|| std::io::Error::other("too many mappings")))
    }

    fn map(
        fd: &OwnedFd,
        start: u64,
        mapped: usize,
        flags: MapFlags,
        lead: usize,
        len: usize,
    ) -> Result<Self, Option<std::io::Error>> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice disturbs nothing.
        let base = unsafe {
            mmap(
                std::ptr::null_mut(),
                mapped,
                protection,
                flags,
                fd.as_fd(),
                start,
            )
            .map_err(|e| Some(e.into()))?
        }
        .cast::<u8>();
        let guarded = sigbus::guard(base, mapped);
        let mapping = Self {
            base,
            mapped,
            lead,
            len,
            guarded,
        };
        if mapping.guarded.is_none() {
            return Err(None);
        }
        Ok(mapping)
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Where the first byte is in this process, for a hypervisor that is to give the memory to a
    /// guest.
    pub fn address(&self) -> u64 {
        self.at(0, self.len).addr() as u64
    }

    /// Whether the mapping has no bytes; never the case.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn is_broken(&self) -> bool {
        self.guarded.as_ref().is_some_and(Guarded::is_broken)
    }

    /// Pointer to `len` bytes at `offset`.
    ///
    /// # Panics
    /// If they are not all inside.
    #[inline]
    pub(crate) fn at(&self, offset: usize, len: usize) -> *mut u8 {
        assert!(
            offset <= self.len && len <= self.len - offset,
            "outside the mapping"
        );
        // SAFETY: just checked; `lead + len` is within the mapping by construction.
        unsafe { self.base.add(self.lead + offset) }
    }

    /// Copies bytes at `offset` out.
    ///
    /// # Panics
    /// If they are not all inside.
    #[inline]
    pub fn read(&self, offset: usize, into: &mut [u8]) {
        let from = self.at(offset, into.len());
        // SAFETY: `at` checked the source; the target is a slice of ours.
        unsafe { copy::copy(from, into.as_mut_ptr(), into.len()) }
    }

    /// Copies bytes to `offset`.
    ///
    /// # Panics
    /// If they do not fit.
    #[inline]
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        let to = self.at(offset, bytes.len());
        // SAFETY: `at` checked the target; the source is a slice of ours.
        unsafe { copy::copy(bytes.as_ptr(), to, bytes.len()) }
    }

    /// Asks for the cache line at `offset`, to read it soon.
    ///
    /// # Panics
    /// If it is outside.
    #[inline]
    pub(crate) fn prefetch_read(&self, offset: usize) {
        copy::prefetch_read(self.at(offset, 1));
    }

    /// Asks for the cache line at `offset`, to write it soon.
    ///
    /// # Panics
    /// If it is outside.
    #[inline]
    pub(crate) fn prefetch_write(&self, offset: usize) {
        copy::prefetch_write(self.at(offset, 1));
    }

    /// Takes a little-endian value out of memory, leaving 0, in one step.
    ///
    /// # Panics
    /// If it is outside or not naturally aligned.
    pub fn take_u64(&self, offset: usize) -> u64 {
        // The next line checks the alignment.
        #[allow(clippy::cast_ptr_alignment)]
        let p = self.at(offset, 8).cast::<u64>();
        assert!(p.is_aligned(), "unaligned");
        // SAFETY: inside the mapping, aligned, and only ever accessed atomically or by opaque
        // copies.
        let cell = unsafe { std::sync::atomic::AtomicU64::from_ptr(p) };
        u64::from_le(cell.swap(0, std::sync::atomic::Ordering::SeqCst))
    }

    /// Sets bits of a byte, whatever others do to it at the same time.
    ///
    /// # Panics
    /// If it is outside.
    #[inline]
    pub fn or_u8(&self, offset: usize, bits: u8) {
        let p = self.at(offset, 1);
        // SAFETY: inside the mapping, and only ever accessed atomically or by opaque copies.
        let cell = unsafe { std::sync::atomic::AtomicU8::from_ptr(p) };
        cell.fetch_or(bits, std::sync::atomic::Ordering::SeqCst);
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // The handler must forget the mapping before its addresses can be used for another.
        self.guarded = None;
        // SAFETY: `base` and `mapped` are what mmap gave, and nobody holds a pointer any more:
        // rings keep their map alive.
        let _ = unsafe { munmap(self.base.cast(), self.mapped) };
    }
}

/// Little-endian scalars at naturally aligned offsets, for the side that owns the memory.
macro_rules! scalar {
    ($cell:ident, $load:ident, $store:ident, $type:ty, $atomic:ty) => {
        impl Mapping {
            /// The word at an offset.
            ///
            /// # Panics
            /// If it is outside or not naturally aligned.
            #[inline]
            pub(crate) fn $cell(&self, offset: usize) -> &$atomic {
                // The next line checks the alignment.
                #[allow(clippy::cast_ptr_alignment)]
                let p = self.at(offset, size_of::<$type>()).cast::<$type>();
                assert!(p.is_aligned(), "unaligned");
                // SAFETY: inside the mapping, which lives as long as the borrow, aligned, and only
                // ever accessed atomically or by opaque copies.
                unsafe { <$atomic>::from_ptr(p) }
            }

            /// Reads a little-endian value with acquire ordering.
            ///
            /// # Panics
            /// If it is outside or not naturally aligned.
            #[inline]
            pub fn $load(&self, offset: usize) -> $type {
                Cell::load(self.$cell(offset), std::sync::atomic::Ordering::Acquire)
            }

            /// Writes a little-endian value with release ordering.
            ///
            /// # Panics
            /// If it is outside or not naturally aligned.
            #[inline]
            pub fn $store(&self, offset: usize, value: $type) {
                let order = std::sync::atomic::Ordering::Release;
                Cell::store(self.$cell(offset), value, order);
            }
        }
    };
}
scalar!(
    cell_u16,
    load_u16,
    store_u16,
    u16,
    std::sync::atomic::AtomicU16
);
scalar!(
    cell_u32,
    load_u32,
    store_u32,
    u32,
    std::sync::atomic::AtomicU32
);
scalar!(
    cell_u64,
    load_u64,
    store_u64,
    u64,
    std::sync::atomic::AtomicU64
);

/// One line of the address map; all of them are looked at together, so they are small and flat.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line {
    guest: u64,
    size: u64,
    host: *mut u8,
}

impl Line {
    /// The host pointer of a buffer that is not empty and lies in this line as a whole.
    #[inline(always)]
    pub(crate) fn find(&self, address: u64, len: u32) -> Option<*mut u8> {
        let offset = address.wrapping_sub(self.guest);
        // An empty buffer wraps to a length that no line has.
        if offset >= self.size || u64::from(len).wrapping_sub(1) >= self.size - offset {
            return None;
        }
        // SAFETY: `offset` is inside the region, and so inside its mapping.
        Some(unsafe { self.host.add(offset as usize) })
    }
}

/// What is to be done with memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Access(u8);

impl Access {
    pub(crate) const READ: Self = Self(access::READ);
    pub(crate) const WRITE: Self = Self(access::WRITE);

    /// The bit of [`access`] that allows it.
    pub(crate) fn bit(self) -> u8 {
        self.0
    }
}

/// Lines in the making: those that follow one another in both address spaces become one.
#[derive(Default)]
struct Lines {
    lines: Vec<Line>,
    /// The mapping that the last line leads into.
    mapping: Option<*const Mapping>,
}

impl Lines {
    fn add(&mut self, entry: Entry, by_user: &[&Region]) {
        let Entry {
            mut iova,
            mut size,
            mut user,
            ..
        } = entry;
        while size > 0 {
            let after = by_user.partition_point(|r| r.layout.user_address <= user);
            let Some(region) = after.checked_sub(1).map(|index| by_user[index]) else {
                return;
            };
            let offset = user - region.layout.user_address;
            if offset >= region.layout.size {
                return;
            }
            let len = size.min(region.layout.size - offset);
            self.push(iova, len, &region.mapping, offset as usize);
            size -= len;
            (iova, user) = (iova.wrapping_add(len), user.wrapping_add(len));
        }
    }

    fn push(&mut self, iova: u64, size: u64, mapping: &Arc<Mapping>, offset: usize) {
        let host = mapping.at(offset, size as usize);
        let same = self.mapping == Some(Arc::as_ptr(mapping));
        self.mapping = Some(Arc::as_ptr(mapping));
        if let Some(last) = self.lines.last_mut()
            && same
            && last.guest.checked_add(last.size) == Some(iova)
            && last.host.wrapping_add(last.size as usize) == host
        {
            last.size += size;
            return;
        }
        self.lines.push(Line {
            guest: iova,
            size,
            host,
        });
    }
}

#[derive(Clone, Debug)]
struct Region {
    layout: RegionLayout,
    mapping: Arc<Mapping>,
}

/// The guest's memory as it was at one memory table, by guest physical addresses or, behind an
/// IOMMU, by I/O virtual ones.
#[derive(Debug)]
pub struct GuestMemory {
    /// What may be read, and what may be written; each sorted by address. Without an IOMMU both
    /// are the same.
    lines: [Arc<[Line]>; 2],
    /// Sorted by guest physical address.
    regions: Arc<[Region]>,
    /// Addresses are I/O virtual ones, and what is not here may be somewhere yet.
    translated: bool,
}

// SAFETY: the pointers are into mappings that the regions keep alive; see `Mapping`.
unsafe impl Send for GuestMemory {}
// SAFETY: as above; nothing changes after construction.
unsafe impl Sync for GuestMemory {}

impl GuestMemory {
    /// Maps the regions of a memory table.
    ///
    /// # Errors
    /// What is wrong with the table; nothing stays mapped then.
    pub fn new(regions: Vec<(RegionLayout, OwnedFd)>) -> Result<Self, MemoryError> {
        let layouts: Vec<_> = regions.iter().map(|(layout, _)| *layout).collect();
        check(&layouts)?;
        let map = |(layout, fd)| {
            Ok(Region {
                layout,
                mapping: Arc::new(Mapping::of_region(layout, &fd)?),
            })
        };
        let regions: Result<Vec<_>, _> = regions.into_iter().map(map).collect();
        Ok(Self::from_regions(regions?))
    }

    fn from_regions(mut regions: Vec<Region>) -> Self {
        regions.sort_by_key(|r| r.layout.guest_address);
        let line = |r: &Region| Line {
            guest: r.layout.guest_address,
            size: r.layout.size,
            host: r.mapping.at(0, 0),
        };
        let lines: Arc<[Line]> = regions.iter().map(line).collect();
        Self {
            lines: [lines.clone(), lines],
            regions: regions.into(),
            translated: false,
        }
    }

    /// The same memory as a device behind an IOMMU sees it. What of a translation leads out of
    /// the memory is left out.
    #[must_use]
    pub fn behind_iommu(&self, translations: &Iotlb) -> Self {
        let mut by_user: Vec<&Region> = self.regions.iter().collect();
        by_user.sort_by_key(|region| region.layout.user_address);
        let lines = [Access::READ, Access::WRITE].map(|access| {
            let mut lines = Lines::default();
            for entry in translations.entries().filter(|e| e.access & access.0 != 0) {
                lines.add(entry, &by_user);
            }
            lines.lines.into()
        });
        Self {
            lines,
            regions: self.regions.clone(),
            translated: true,
        }
    }

    /// Whether addresses are I/O virtual ones, so that one that is not known may still become so.
    pub(crate) fn is_translated(&self) -> bool {
        self.translated
    }

    /// Whether this range of the front end's address space is all within the memory.
    pub fn has_user_range(&self, address: u64, size: u64) -> bool {
        let (mut address, mut left) = (address, size);
        while left > 0 {
            let within = |r: &&Region| {
                let layout = r.layout;
                address
                    .checked_sub(layout.user_address)
                    .is_some_and(|offset| offset < layout.size)
            };
            let Some(region) = self.regions.iter().find(within) else {
                return false;
            };
            let room = region.layout.size - (address - region.layout.user_address);
            left = left.saturating_sub(room);
            address = address.wrapping_add(room);
        }
        true
    }

    /// The first address of a range that can't be accessed so, if there is one.
    pub(crate) fn first_missing(&self, address: u64, len: u64, access: Access) -> Option<u64> {
        let (mut address, mut left, mut hint) = (address, len, 0);
        while left > 0 {
            let step = left.min(1 << 30) as u32;
            let found = self.translate(address, step, access, &mut hint);
            let Some((_, found)) = found else {
                return Some(address);
            };
            address = address.wrapping_add(found.into());
            left -= u64::from(found);
        }
        None
    }

    /// The same map with one region more; the others stay mapped as they are.
    ///
    /// # Errors
    /// What is wrong with the new region.
    pub fn with_region(&self, layout: RegionLayout, fd: &OwnedFd) -> Result<Self, MemoryError> {
        let mut layouts: Vec<_> = self.regions.iter().map(|r| r.layout).collect();
        layouts.push(layout);
        check(&layouts)?;
        let mut regions = self.regions.to_vec();
        regions.push(Region {
            layout,
            mapping: Arc::new(Mapping::of_region(layout, fd)?),
        });
        Ok(Self::from_regions(regions))
    }

    /// The same map without the region that has these addresses and this size.
    ///
    /// # Errors
    /// [`MemoryError::Unknown`] when there is none.
    pub fn without_region(&self, layout: RegionLayout) -> Result<Self, MemoryError> {
        let index = self
            .regions
            .iter()
            .position(|r| r.layout.is_at(&layout))
            .ok_or(MemoryError::Unknown(layout))?;
        let mut regions = self.regions.to_vec();
        regions.remove(index);
        Ok(Self::from_regions(regions))
    }

    /// Whether this very region is mapped.
    pub fn has_region(&self, layout: RegionLayout) -> bool {
        self.regions.iter().any(|r| r.layout == layout)
    }

    /// Number of regions.
    pub fn region_count(&self) -> usize {
        self.regions.len()
    }

    /// Whether a file was truncated under one of the mappings.
    pub fn is_broken(&self) -> bool {
        self.regions.iter().any(|r| r.mapping.is_broken())
    }

    /// Translates a guest physical address: the host pointer, and how many of the `len` bytes
    /// asked for lie in that region. `hint` remembers the region for the next call with the same
    /// access.
    #[inline]
    pub(crate) fn translate(
        &self,
        address: u64,
        len: u32,
        access: Access,
        hint: &mut u32,
    ) -> Option<(*mut u8, u32)> {
        let lines = self.lines(access);
        if let Some(line) = lines.get(*hint as usize) {
            let offset = address.wrapping_sub(line.guest);
            if offset < line.size {
                let room = line.size - offset;
                // SAFETY: `offset` is inside the region, and so inside its mapping.
                let host = unsafe { line.host.add(offset as usize) };
                return Some((host, u64::from(len).min(room) as u32));
            }
        }
        Self::search(lines, address, len, hint)
    }

    /// The line of the map that [`translate`](Self::translate) used last, by its `hint`.
    #[inline]
    pub(crate) fn line(&self, access: Access, hint: u32) -> Option<Line> {
        self.lines(access).get(hint as usize).copied()
    }

    #[inline(always)]
    fn lines(&self, access: Access) -> &[Line] {
        &self.lines[usize::from(access == Access::WRITE)]
    }

    #[cold]
    fn search(lines: &[Line], address: u64, len: u32, hint: &mut u32) -> Option<(*mut u8, u32)> {
        let after = lines.partition_point(|line| line.guest <= address);
        let index = after.checked_sub(1)?;
        let line = lines[index];
        let offset = address - line.guest;
        if offset >= line.size {
            return None;
        }
        *hint = index as u32;
        // SAFETY: `offset` is inside the region, and so inside its mapping.
        let host = unsafe { line.host.add(offset as usize) };
        Some((host, u64::from(len).min(line.size - offset) as u32))
    }

    /// The guest physical address of a byte that one of our pointers leads to: the way back from
    /// [`translate`](Self::translate), for the log of written pages.
    pub(crate) fn guest_address(&self, pointer: *const u8) -> Option<u64> {
        self.regions.iter().find_map(|region| {
            let start = region.mapping.at(0, 0).addr() as u64;
            let offset = (pointer.addr() as u64).wrapping_sub(start);
            (offset < region.layout.size).then(|| region.layout.guest_address + offset)
        })
    }

    /// The guest physical address behind the last byte of the last region.
    pub(crate) fn end(&self) -> u64 {
        let last = self.regions.last().map(|region| region.layout);
        last.map_or(0, |layout| layout.guest_address + layout.size)
    }

    /// Translates the address of a ring's part to a pointer to `len` bytes in one piece: an address
    /// of the front end's process or, behind an IOMMU, an I/O virtual one.
    pub(crate) fn translate_user(&self, address: u64, len: usize) -> Option<*mut u8> {
        if self.translated {
            return [Access::READ, Access::WRITE]
                .into_iter()
                .find_map(|access| {
                    let asked = u32::try_from(len).ok()?;
                    let (host, found) = self.translate(address, asked, access, &mut 0)?;
                    (found == asked).then_some(host)
                });
        }
        self.regions.iter().find_map(|region| {
            let offset = address.checked_sub(region.layout.user_address)?;
            if offset >= region.layout.size || region.layout.size - offset < len as u64 {
                return None;
            }
            Some(region.mapping.at(offset as usize, len))
        })
    }
}

/// Checks what can be checked of a table without its files.
fn check(layouts: &[RegionLayout]) -> Result<(), MemoryError> {
    if layouts.is_empty() || layouts.len() > MAX_REGIONS {
        return Err(MemoryError::Count(layouts.len()));
    }
    for layout in layouts {
        let wraps = [
            layout.guest_address,
            layout.user_address,
            layout.file_offset,
        ]
        .iter()
        .any(|start| {
            start
                .checked_add(layout.size)
                .is_none_or(|end| end > i64::MAX as u64)
        });
        if layout.size == 0 || wraps {
            return Err(MemoryError::Range(*layout));
        }
    }
    for key in [
        |r: &RegionLayout| r.guest_address,
        |r: &RegionLayout| r.user_address,
    ] {
        let mut sorted = layouts.to_vec();
        sorted.sort_by_key(key);
        for pair in sorted.windows(2) {
            if key(&pair[0]) + pair[0].size > key(&pair[1]) {
                return Err(MemoryError::Overlap(pair[0], pair[1]));
            }
        }
    }
    Ok(())
}
