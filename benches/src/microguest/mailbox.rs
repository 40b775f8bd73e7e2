//! What the host and the guest's program tell each other: 8-byte words in the guest's memory.

use chainplane_vhost::driver::RingLayout;
use chainplane_vhost::memory::Mapping;

/// Offsets of the words for the whole guest, in bytes from the mailbox's start.
pub mod at {
    /// Number of ports.
    pub const PORTS: usize = 0;
    /// Not 0 once the guest is to end.
    pub const STOP: usize = 8;
    /// Where a write ends the guest.
    pub const EXIT: usize = 16;
    /// Where a write has the host take pending interrupts away.
    pub const TAKE: usize = 24;
    /// Where the interrupt controller shows the pending ones, for a guest that waits; 0 for one that polls.
    pub const PENDING: usize = 32;
    /// Rounds so far.
    pub const ROUNDS: usize = 40;
    /// Rounds in which there was nothing to do.
    pub const EMPTY: usize = 48;
    /// Not 0 when a guest that waits is to look round; it makes it 0 again.
    pub const WAKE: usize = 56;
    /// The first port's words.
    pub const FIRST_PORT: usize = 64;
}

/// Offsets of the words for one port, in bytes from its first.
pub mod port {
    /// Bytes of a port's words.
    pub const BYTES: usize = 256;
    /// Address of the receive queue's available ring; `RX_USED` and so on follow the same pattern.
    pub const RX_AVAIL: usize = 0;
    pub const RX_USED: usize = 8;
    pub const RX_BUFFERS: usize = 16;
    /// Bytes from one buffer to the next.
    pub const RX_STRIDE: usize = 24;
    /// Address of the doorbell.
    pub const RX_KICK: usize = 32;
    /// Next entry of the used ring to read.
    pub const RX_INDEX: usize = 40;
    /// The sequence number that is expected next.
    pub const RX_SEQUENCE: usize = 48;
    pub const TX_AVAIL: usize = 56;
    pub const TX_USED: usize = 64;
    pub const TX_BUFFERS: usize = 72;
    pub const TX_STRIDE: usize = 80;
    pub const TX_KICK: usize = 88;
    /// Next entry of the available ring to fill.
    pub const TX_INDEX: usize = 96;
    /// The next sequence number.
    pub const TX_SEQUENCE: usize = 104;
    /// Entries of each ring, less one.
    pub const MASK: usize = 112;
    /// Most frames of one round and direction.
    pub const BURST: usize = 120;
    /// Not 0 where notifications go by index.
    pub const EVENT_INDEX: usize = 128;
    /// Address of the frame to send, and of the one that is expected, each behind a virtio-net header.
    pub const FRAME: usize = 136;
    pub const EXPECTED: usize = 144;
    /// Bytes of either, header included.
    pub const FRAME_BYTES: usize = 152;
    /// Frames still to send. While it is 0 the host may write it.
    pub const TO_SEND: usize = 160;
    /// Frames that may have been sent for which none has been received.
    pub const WINDOW: usize = 208;
    /// What the guest counts.
    pub const SENT: usize = 168;
    pub const RECEIVED: usize = 176;
    /// Received frames that were not what was sent, or in another buffer than the next.
    pub const ERRORS: usize = 184;
    /// Received frames whose sequence number was not the next.
    pub const GAPS: usize = 192;
    pub const KICKS: usize = 200;
}

/// What one port of a guest has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames made available to the device.
    pub sent: u64,
    /// Frames received.
    pub received: u64,
    /// Of those, frames that were not byte for byte what was sent.
    pub errors: u64,
    /// Of those, frames before which some are missing.
    pub gaps: u64,
    /// Kicks sent.
    pub kicks: u64,
}

/// What is told of a port before the guest starts. Addresses are the guest's.
pub struct PortSetup {
    /// Where the device's memory starts.
    pub base: u64,
    /// Receive queue, transmit queue.
    pub layouts: [RingLayout; 2],
    /// Their doorbells.
    pub kicks: [u64; 2],
    /// Most frames of one round and direction.
    pub burst: u64,
    /// Whether notifications go by index.
    pub event_index: bool,
    /// The frame to send, and the one that is expected.
    pub frames: [u64; 2],
    /// Bytes of either.
    pub frame_bytes: u64,
    /// Frames that may have been sent for which none has been received.
    pub window: u64,
}

/// A mailbox at a place in a guest's memory.
#[derive(Clone, Copy, Debug)]
pub struct Mailbox(pub usize);

impl Mailbox {
    fn port(self, index: usize) -> usize {
        self.0 + at::FIRST_PORT + index * port::BYTES
    }

    /// Writes a word for the whole guest.
    pub fn set(self, memory: &Mapping, word: usize, value: u64) {
        memory.store_u64(self.0 + word, value);
    }

    /// Reads one.
    pub fn get(self, memory: &Mapping, word: usize) -> u64 {
        memory.load_u64(self.0 + word)
    }

    /// Writes all that the guest must know of a port.
    pub fn set_port(self, memory: &Mapping, index: usize, setup: &PortSetup) {
        let [rx, tx] = setup.layouts;
        let address = |offset: usize| setup.base + offset as u64;
        let words = [
            (port::RX_AVAIL, address(rx.avail)),
            (port::RX_USED, address(rx.used)),
            (port::RX_BUFFERS, address(rx.buffers)),
            (port::RX_STRIDE, rx.buffer_size as u64),
            (port::RX_KICK, setup.kicks[0]),
            (port::TX_AVAIL, address(tx.avail)),
            (port::TX_USED, address(tx.used)),
            (port::TX_BUFFERS, address(tx.buffers)),
            (port::TX_STRIDE, tx.buffer_size as u64),
            (port::TX_KICK, setup.kicks[1]),
            (port::MASK, u64::from(tx.size) - 1),
            (port::BURST, setup.burst),
            (port::EVENT_INDEX, setup.event_index.into()),
            (port::FRAME, setup.frames[0]),
            (port::EXPECTED, setup.frames[1]),
            (port::FRAME_BYTES, setup.frame_bytes),
            (port::WINDOW, setup.window),
        ];
        for (word, value) in words {
            memory.store_u64(self.port(index) + word, value);
        }
    }

    /// Has a port send so many frames; it must have sent what it was to send before.
    pub fn send(self, memory: &Mapping, index: usize, frames: u64) {
        memory.store_u64(self.port(index) + port::TO_SEND, frames);
        self.set(memory, at::WAKE, 1);
    }

    /// What a port has done so far.
    pub fn counters(self, memory: &Mapping, index: usize) -> Counters {
        let word = |offset: usize| memory.load_u64(self.port(index) + offset);
        Counters {
            sent: word(port::SENT),
            received: word(port::RECEIVED),
            errors: word(port::ERRORS),
            gaps: word(port::GAPS),
            kicks: word(port::KICKS),
        }
    }
}
