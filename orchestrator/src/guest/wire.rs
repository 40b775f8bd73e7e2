//! What a guest's network card is to its TCP/IP stack.

use std::os::fd::BorrowedFd;

/// Longest frame that a guest sends or takes: an IP packet of 1500 bytes and an Ethernet header.
pub const MAX_FRAME: usize = 1514;

/// What the sender and the receiver of a frame say about its transport checksum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksum {
    /// It is in the frame, and nobody has looked at it.
    #[default]
    Present,
    /// It was found right, or the frame never left this machine; the receiver need not look.
    Trusted,
    /// It is still to be computed: the sum of the bytes from `start` on goes to `start + offset`, where the
    /// pseudo-header's sum is now.
    Partial {
        /// Bytes from the start of the frame.
        start: u16,
        /// Bytes from `start`.
        offset: u16,
    },
}

/// A network card with a ring for each direction.
pub trait Wire {
    /// Puts the next frame that came in into `frame`; `None` where there is none, and for now no more.
    fn receive(&mut self, frame: &mut Vec<u8>) -> Option<Checksum>;

    /// Whether a frame can be sent now.
    fn can_send(&mut self) -> bool;

    /// Sends a frame, if [`Wire::can_send`] said so just before.
    fn send(&mut self, frame: &[u8], checksum: Checksum);

    /// Tells the other side of what was sent and taken since the last time, where it wants to know.
    fn flush(&mut self);

    /// Asks to be woken up by the next frame; true if one is there already.
    fn arm(&mut self) -> bool;

    /// Becomes readable when a frame has come in after [`Wire::arm`].
    fn wakeup(&self) -> BorrowedFd<'_>;

    /// Asks for no more wake-ups, and takes the one that came.
    fn disarm(&mut self);

    /// Becomes readable when the other side has gone.
    fn link(&self) -> Option<BorrowedFd<'_>>;

    /// Whether checksums may be left to the other side, and are by it.
    fn offloads_checksums(&self) -> bool;
}
