//! The contract between a port and the worker that polls it.

use std::os::fd::RawFd;

use chainplane_vhost::backend::QueuePair;
use chainplane_vhost::ring::FromGuest;

use crate::counters::{CounterReader, Counters};
use crate::indices;
use crate::packet::{Batch, Malformed, Pool};
use crate::tails::Lenders;
use crate::time::Time;

indices! {
    /// A port's counters.
    pub enum PortCounter {
        /// Packets that came in.
        RxPackets = "rx-packets",
        /// Bytes that came in.
        RxBytes = "rx-bytes",
        /// Packets that went out.
        TxPackets = "tx-packets",
        /// Bytes that went out.
        TxBytes = "tx-bytes",
        /// Packets made by cutting large segments for an egress that can't.
        Created = "created",
        /// Large segments that were cut.
        Consumed = "consumed",
        /// Notifications sent to the guest or the kernel.
        Notifications = "notifications",
        /// Packets whose checksum was computed here as the egress could not.
        Checksummed = "checksummed",
        /// Packets that the kernel dropped before the port saw them, as the ring was full.
        Missed = "missed",
    }
}

indices! {
    /// Why a port drops packets.
    pub enum PortDrop {
        /// Shorter than its link header.
        MalformedLink = "malformed-link",
        /// An IP header with a wrong version, or cut short.
        MalformedIp = "malformed-ip-header",
        /// An IP length beyond the end of the frame, or shorter than its headers.
        MalformedLength = "malformed-ip-length",
        /// A wrong IPv4 header checksum.
        MalformedChecksum = "malformed-ip-checksum",
        /// IPv6 extension headers cut short, or too many.
        MalformedExtensions = "malformed-extensions",
        /// A transport header cut short, or whose length disagrees with the packet's.
        MalformedTransport = "malformed-transport",
        /// The packet went through more functions than any sensible path has.
        Loop = "loop",
        /// The receiver's ring or the kernel's queue was full.
        Full = "full",
        /// Nobody is attached to the port.
        Down = "down",
        /// The packet does not fit what the receiver takes.
        TooLong = "too-long",
        /// The guest's or the kernel's side refused the packet.
        Refused = "refused",
        /// A large segment, or its checksum, could not be completed for an egress that needs it.
        Offload = "offload",
        /// The sender's offload request (virtio-net header) made no sense.
        BadOffload = "bad-offload",
        /// No packet buffer was free to take it.
        NoBuffer = "no-buffer",
        /// The way to the worker that handles the packet, or sends by the port, was full.
        Crowded = "crowded",
    }
}

impl From<Malformed> for PortDrop {
    fn from(error: Malformed) -> Self {
        match error {
            Malformed::Link => Self::MalformedLink,
            Malformed::IpHeader => Self::MalformedIp,
            Malformed::IpLength => Self::MalformedLength,
            Malformed::IpChecksum => Self::MalformedChecksum,
            Malformed::Extensions => Self::MalformedExtensions,
            Malformed::Transport => Self::MalformedTransport,
        }
    }
}

/// A port's block of counters, the worker's side.
#[derive(Debug)]
pub struct PortTally(Counters);

impl Default for PortTally {
    fn default() -> Self {
        Self(Counters::new(
            PortCounter::INFO.len() + PortDrop::INFO.len(),
        ))
    }
}

impl PortTally {
    /// Adds to a counter.
    #[inline]
    pub fn add(&self, counter: PortCounter, count: u64) {
        self.0.add(counter as usize, count);
    }

    /// Counts dropped packets.
    #[inline]
    pub fn drop(&self, reason: PortDrop, count: u64) {
        self.0.add(PortCounter::INFO.len() + reason as usize, count);
    }

    /// Counts a packet that came in and is dropped at once.
    pub fn refuse(&self, reason: PortDrop, bytes: usize) {
        self.add(PortCounter::RxPackets, 1);
        self.add(PortCounter::RxBytes, bytes as u64);
        self.drop(reason, 1);
    }

    /// Counts packets that went out.
    #[inline]
    pub fn sent(&self, packets: u64, bytes: u64) {
        self.add(PortCounter::TxPackets, packets);
        self.add(PortCounter::TxBytes, bytes);
    }

    /// A handle for readers.
    pub fn reader(&self) -> PortTallyReader {
        PortTallyReader(self.0.reader())
    }
}

/// A port's block of counters, from outside.
#[derive(Clone, Debug)]
pub struct PortTallyReader(CounterReader);

impl PortTallyReader {
    /// A counter's value.
    pub fn get(&self, counter: PortCounter) -> u64 {
        self.0.get(counter as usize)
    }

    /// A cell of the block: the counters, then the drops.
    pub(crate) fn at(&self, index: usize) -> u64 {
        self.0.get(index)
    }
}

/// What a port may use while it moves packets.
pub struct PortContext<'a> {
    /// Where to take buffers from.
    pub pool: &'a mut Pool,
    /// The port's counters.
    pub tally: &'a PortTally,
    /// The time of this poll.
    pub now: Time,
    /// The port's number, if frames that it receives may stay where they are until the end of the poll, but for
    /// their [head](crate::packet::HEAD).
    pub lend_as: Option<u16>,
    /// How many frames stayed there, for the port to tell.
    pub lent: u32,
    /// Where the rest of the packets is that have a tail.
    pub lenders: Lenders<'a>,
}

impl<'a> PortContext<'a> {
    /// A context for a port that only meets whole packets.
    pub fn new(pool: &'a mut Pool, tally: &'a PortTally, now: Time) -> Self {
        Self {
            pool,
            tally,
            now,
            lend_as: None,
            lent: 0,
            lenders: Lenders::default(),
        }
    }
}

/// What the receiver behind a port can complete by itself, so that a packet may leave with it undone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a feature bit of virtio-net"
)]
pub struct Offloads {
    /// Transport checksums.
    pub checksum: bool,
    /// Cutting of TCP over IPv4.
    pub tcp4: bool,
    /// Cutting of TCP over IPv6.
    pub tcp6: bool,
    /// Cutting of TCP with ECN in use.
    pub ecn: bool,
    /// Cutting of trains of UDP datagrams over IPv4.
    pub udp4: bool,
    /// Cutting of trains of UDP datagrams over IPv6.
    pub udp6: bool,
}

impl Offloads {
    /// Everything.
    pub const ALL: Self = Self {
        checksum: true,
        tcp4: true,
        tcp6: true,
        ecn: true,
        udp4: true,
        udp6: true,
    };

    /// Whether nothing is cut by a receiver that does not complete checksums: a piece's checksum can't be completed
    /// before the packet is cut.
    pub fn is_consistent(self) -> bool {
        self.checksum || !(self.tcp4 || self.tcp6 || self.udp4 || self.udp6)
    }
}

/// What came in by a port and went straight to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// Packets, those that the other port dropped included.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// A port, as the worker that polls it sees it. Nothing here blocks.
pub trait Port {
    /// Appends packets that came in to `batch`, no more than it has room for. Counts what it drops
    /// itself (a bad offload request, no free buffer) by [`PortTally::refuse`]; the worker counts
    /// what is in the batch.
    fn receive(&mut self, cx: &mut PortContext<'_>, batch: &mut Batch);

    /// As [`Port::receive`], for a port whose packets all go to `to` and are read by nobody on their way. They may go
    /// straight from one memory to the other, and are then counted as sent or dropped by `tally`, which is `to`'s.
    /// What is in the batch afterwards is sent later, so no packet passes that has to stay behind one of those.
    fn receive_for(
        &mut self,
        cx: &mut PortContext<'_>,
        batch: &mut Batch,
        _to: &mut dyn Port,
        _tally: &PortTally,
    ) -> Passed {
        self.receive(cx, batch);
        Passed::default()
    }

    /// The queues of the guest behind the port, if there is one, for [`Port::receive_for`] to copy to.
    fn guest_queues(&mut self) -> Option<&mut [QueuePair]> {
        None
    }

    /// The queue of a pair, whose open burst holds the frames that [`Port::receive`] left where they are.
    fn lent(&self, _pair: u8) -> Option<&FromGuest> {
        None
    }

    /// Gives the guest back what was [lent](Port::lent): called at the end of a poll in which something was.
    fn take_back(&mut self) {}

    /// Whether [`Port::send`] can take packets whose [tail](crate::packet::Tail) is with one of the
    /// [lenders](PortContext::lenders). A port that can't gets whole packets only.
    fn takes_tails(&self) -> bool {
        false
    }

    /// Sends all packets of `batch`, which is empty afterwards, in order; counts what was sent and what had to be
    /// dropped. The worker has completed what [`Port::offloads`] leaves out.
    fn send(&mut self, cx: &mut PortContext<'_>, batch: &mut Batch);

    /// What may be left undone in the packets to send. Asked once a batch, as a guest may change its mind.
    fn offloads(&self) -> Offloads {
        Offloads::default()
    }

    /// Called at the beginning of a poll once control threads have [told](crate::worker::WakeHandle::wake) that they left
    /// something (rings, memory maps): picks it up. True if not all of it could be had yet, and the next poll has to
    /// call again.
    fn sync(&mut self) -> bool {
        false
    }

    /// Whether a cheap look shows that nothing is there to be received. False where only receiving tells.
    fn is_quiet(&mut self) -> bool {
        false
    }

    /// File descriptors that become readable when packets may have come in, and a number that changes whenever the
    /// list does. A port without any is polled whenever its [`Port::deadline`] passes.
    fn wakeups(&self, _fds: &mut Vec<RawFd>) -> u64 {
        0
    }

    /// Asks to be notified of packets, before the worker sleeps; true if some are there already.
    fn arm(&mut self) -> bool {
        false
    }

    /// The worker is awake again and polls.
    fn disarm(&mut self) {}

    /// When the port next wants a poll even if nobody wakes the worker.
    fn deadline(&self) -> Option<Time> {
        None
    }

    /// Whether somebody is there to take what is sent. Where another worker of the same [crew](crate::crew) reaches the
    /// port's receiver and this one does not, that one sends.
    fn is_reachable(&self) -> bool {
        true
    }

    /// Whether nothing will ever come in any more (a capture file at its end).
    fn is_finished(&self) -> bool {
        false
    }

    /// Packets that the port keeps inside for now.
    fn held(&self) -> u64 {
        0
    }
}
