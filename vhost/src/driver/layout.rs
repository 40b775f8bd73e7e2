//! Where things are in the driver's memory.

use super::FrontEndConfig;
use crate::net::NetHeader;
use crate::ring::MAX_FRAME;

/// Guest physical address of the first byte of the driver's memory.
pub const GUEST_BASE: u64 = 0x4000_0000;
/// Address that the back end is told for the same byte in the front end's process. It is not the
/// real one: back ends only compare and subtract such addresses.
pub const USER_BASE: u64 = 0x7f00_0000_0000;

/// Offsets of one queue's parts from the start of the driver's memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingLayout {
    /// Entries of the ring.
    pub size: u16,
    /// Descriptor area, 16 bytes an entry: the table, or the packed ring.
    pub desc: usize,
    /// Driver area: the available ring, or the driver's event suppression.
    pub avail: usize,
    /// Device area: the used ring, or the device's event suppression.
    pub used: usize,
    /// Indirect tables, one for each descriptor.
    pub tables: usize,
    /// Entries of each indirect table.
    pub table_entries: usize,
    /// Buffers, one for each descriptor.
    pub buffers: usize,
    /// Bytes of a buffer.
    pub buffer_size: usize,
}

impl RingLayout {
    /// Offset of a buffer.
    #[inline]
    pub fn buffer(&self, index: u16) -> usize {
        self.buffers + usize::from(index) * self.buffer_size
    }

    /// Offset of a descriptor's indirect table.
    pub fn table(&self, index: u16) -> usize {
        self.tables + usize::from(index) * self.table_entries * 16
    }
}

/// Lays out the queues of a front end, in virtio's order; tells the bytes needed, too.
pub(super) fn lay_out(config: &FrontEndConfig) -> (Vec<RingLayout>, usize) {
    let mut next = 0;
    let mut take = |bytes: usize| {
        let at = next;
        next = (at + bytes).next_multiple_of(4096);
        at
    };
    let mut layouts = Vec::new();
    let size = usize::from(config.queue_size);
    let offset = config.buffer_offset as usize;
    for queue in 0..2 * config.queue_pairs {
        let (table_entries, buffer_size) = if queue % 2 == 0 {
            (0, config.receive_buffer as usize)
        } else {
            let buffer = config.transmit_buffer as usize;
            ((MAX_FRAME + NetHeader::LEN).div_ceil(buffer) + 1, buffer)
        };
        layouts.push(RingLayout {
            size: config.queue_size,
            desc: take(16 * size),
            avail: take(6 + 2 * size),
            used: take(6 + 8 * size),
            tables: take(16 * size * table_entries),
            table_entries,
            buffers: take(offset + size * buffer_size) + offset,
            buffer_size,
        });
    }
    (layouts, next)
}
