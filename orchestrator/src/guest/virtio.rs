//! A guest's network card: a vhost-user front end with virtqueues in memory of its own.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use chainplane_vhost::driver::{DriverError, DriverPair, FrontEnd, FrontEndConfig};
use chainplane_vhost::net::{FLAG_DATA_VALID, FLAG_NEEDS_CSUM, NetHeader, feature};

use super::wire::{Checksum, MAX_FRAME, Wire};

/// Features that the card asks for in any case.
const FEATURES: u64 =
    feature::VERSION_1 | feature::MRG_RXBUF | feature::INDIRECT_DESC | feature::EVENT_IDX;
/// Features by which checksums are left undone, in both directions.
const CHECKSUMS: u64 = feature::CSUM | feature::GUEST_CSUM;

/// Entries of each ring. More than the stack sends in a burst: it loses a fast retransmission that meets a full ring,
/// and then waits for an answer that does not come.
const QUEUE_SIZE: u16 = 1024;

/// The card. Dropping it disconnects.
pub struct VirtioCard {
    // Before the pair's memory goes, the other side lets go of it.
    front_end: FrontEnd,
    pair: DriverPair,
    link: UnixStream,
}

impl VirtioCard {
    /// Connects to the back end that listens at `socket`, negotiates, and starts the rings.
    ///
    /// # Errors
    /// A socket where nobody listens, a back end that refuses a request.
    pub fn connect(socket: &Path, checksums: bool) -> Result<Self, DriverError> {
        let stream = UnixStream::connect(socket)?;
        let link = stream.try_clone()?;
        let mut config = FrontEndConfig::new(socket);
        config.queue_size = QUEUE_SIZE;
        config.features = FEATURES | if checksums { CHECKSUMS } else { 0 };
        let (front_end, pairs) = FrontEnd::from_stream(config, stream)?;
        let none = || io::Error::other("a front end without queues");
        let pair = pairs.into_iter().next().ok_or_else(none)?;
        Ok(Self {
            front_end,
            pair,
            link,
        })
    }
}

impl Wire for VirtioCard {
    fn receive(&mut self, into: &mut Vec<u8>) -> Option<Checksum> {
        let mut checksum = Checksum::Present;
        let received = self.pair.receive.receive(1, |header, frame| {
            into.extend_from_slice(frame);
            checksum = vouched(header);
        });
        (received > 0).then_some(checksum)
    }

    fn can_send(&mut self) -> bool {
        let transmit = &mut self.pair.transmit;
        transmit.room() > 0 || transmit.reclaim() > 0
    }

    fn send(&mut self, frame: &[u8], checksum: Checksum) {
        debug_assert!(frame.len() <= MAX_FRAME, "one buffer holds any frame");
        // There is room, by `can_send`.
        self.pair.transmit.send(header(checksum), frame);
    }

    fn flush(&mut self) {
        self.pair.transmit.flush();
    }

    fn arm(&mut self) -> bool {
        self.pair.receive.arm()
    }

    fn disarm(&mut self) {
        self.pair.receive.disarm();
        self.pair.receive.call().clear();
    }

    fn wakeup(&self) -> BorrowedFd<'_> {
        self.pair.receive.call_fd()
    }

    fn link(&self) -> Option<BorrowedFd<'_>> {
        Some(self.link.as_fd())
    }

    fn offloads_checksums(&self) -> bool {
        self.front_end.features() & CHECKSUMS == CHECKSUMS
    }
}

/// What a received header says about the frame's checksum. A partial one never left this machine, so that nothing
/// can have damaged the frame (virtio 1.2, section 5.1.6.4).
fn vouched(header: NetHeader) -> Checksum {
    if header.flags & (FLAG_NEEDS_CSUM | FLAG_DATA_VALID) == 0 {
        Checksum::Present
    } else {
        Checksum::Trusted
    }
}

fn header(checksum: Checksum) -> NetHeader {
    match checksum {
        Checksum::Present | Checksum::Trusted => NetHeader::default(),
        Checksum::Partial { start, offset } => NetHeader {
            flags: FLAG_NEEDS_CSUM,
            csum_start: start,
            csum_offset: offset,
            ..NetHeader::default()
        },
    }
}
