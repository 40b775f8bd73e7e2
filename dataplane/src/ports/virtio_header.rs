//! What the virtio-net header in front of a frame says of it (virtio 1.2, section 5.1.6), to and from [`Offload`].
//!
//! Guests and the kernel's tap driver write it. Nothing in it is believed before it was checked here against the
//! frame's length, and by [`crate::offload::check`] against its headers once those are parsed.

use crate::offload::BadOffload;
use crate::packet::{Gso, Offload, Packet};

/// The flag that a checksum is left to be computed.
pub const NEEDS_CHECKSUM: u8 = 1;
/// The flag that checksums were found right.
pub const DATA_VALID: u8 = 2;

const GSO_NONE: u8 = 0;
const GSO_TCP4: u8 = 1;
const GSO_TCP6: u8 = 4;
const GSO_UDP: u8 = 5;
/// Or-ed to a type: TCP with ECN in use.
const GSO_ECN: u8 = 0x80;

/// Offset of the checksum in a TCP header.
pub(crate) const TCP_CHECKSUM: u16 = 16;
/// Offset of the checksum in a UDP header.
pub(crate) const UDP_CHECKSUM: u16 = 6;

/// The header's fields, all but the number of merged buffers, in host byte order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VirtioHeader {
    /// [`NEEDS_CHECKSUM`], [`DATA_VALID`]; other bits have no meaning here and are ignored, as the specification
    /// asks.
    pub flags: u8,
    /// How a large segment is to be cut.
    pub gso_type: u8,
    /// Bytes of headers in front of what is cut; a hint.
    pub hdr_len: u16,
    /// Payload bytes of a piece.
    pub gso_size: u16,
    /// Where summing starts, from the start of the frame.
    pub csum_start: u16,
    /// Where the sum goes, from `csum_start`.
    pub csum_offset: u16,
}

impl VirtioHeader {
    /// Bytes that the fields take on a ring or a tap; the number of merged buffers follows where there is one.
    pub const LEN: usize = 10;

    /// Reads a header.
    #[inline]
    pub fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        let word = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        Self {
            flags: bytes[0],
            gso_type: bytes[1],
            hdr_len: word(2),
            gso_size: word(4),
            csum_start: word(6),
            csum_offset: word(8),
        }
    }

    /// The header as it stands on a ring or a tap.
    #[inline]
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [self.flags, self.gso_type, 0, 0, 0, 0, 0, 0, 0, 0];
        let words = [
            self.hdr_len,
            self.gso_size,
            self.csum_start,
            self.csum_offset,
        ];
        for (at, word) in bytes[2..].chunks_exact_mut(2).zip(words) {
            at.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// What the sender of a frame of `frame_len` bytes left undone.
    ///
    /// # Errors
    /// A checksum outside of the frame; a type of segment that was never offered, or without a size, or without a
    /// checksum left undone (virtio 1.2, section 5.1.6.2.1, demands one), or with that of another protocol.
    #[inline]
    pub fn offload(&self, frame_len: usize) -> Result<Offload, BadOffload> {
        if self.flags & NEEDS_CHECKSUM == 0 && self.gso_type == GSO_NONE {
            let checksum_valid = self.flags & DATA_VALID != 0;
            return Ok(Offload {
                checksum_valid,
                ..Offload::default()
            });
        }
        self.requested(frame_len)
    }

    fn requested(&self, frame_len: usize) -> Result<Offload, BadOffload> {
        let field = self.csum_start as usize + self.csum_offset as usize;
        if self.flags & NEEDS_CHECKSUM == 0 || field + 2 > frame_len {
            return Err(BadOffload);
        }
        let gso = match self.gso_type & !GSO_ECN {
            GSO_NONE if self.gso_type == GSO_NONE => Gso::None,
            GSO_TCP4 => Gso::Tcp4,
            GSO_TCP6 => Gso::Tcp6,
            GSO_UDP if self.gso_type == GSO_UDP => Gso::Udp,
            _ => return Err(BadOffload),
        };
        let fits = match gso {
            Gso::None => true,
            Gso::Tcp4 | Gso::Tcp6 => self.gso_size > 0 && self.csum_offset == TCP_CHECKSUM,
            Gso::Udp => self.gso_size > 0 && self.csum_offset == UDP_CHECKSUM,
        };
        let cut = gso != Gso::None;
        fits.then_some(Offload {
            needs_checksum: true,
            checksum_valid: false,
            ecn: self.gso_type & GSO_ECN != 0,
            gso,
            gso_size: if cut { self.gso_size } else { 0 },
            header_len: if cut { self.hdr_len } else { 0 },
            checksum_start: self.csum_start,
            checksum_offset: self.csum_offset,
        })
        .ok_or(BadOffload)
    }

    /// What the receiver of a packet is told.
    #[inline]
    pub fn of(packet: &Packet) -> Self {
        let offload = packet.offload();
        if !offload.needs_checksum && offload.gso == Gso::None {
            return Self {
                flags: if offload.checksum_valid {
                    DATA_VALID
                } else {
                    0
                },
                ..Self::default()
            };
        }
        let ecn = if offload.ecn { GSO_ECN } else { 0 };
        let gso_type = match offload.gso {
            Gso::None => GSO_NONE,
            Gso::Tcp4 => GSO_TCP4 | ecn,
            Gso::Tcp6 => GSO_TCP6 | ecn,
            Gso::Udp => GSO_UDP,
        };
        // The parsed headers know better than the sender's hint, where there are any.
        let hdr_len = match (offload.gso, packet.layers().payload) {
            (Gso::None, _) => 0,
            (_, 0) => offload.header_len,
            (_, parsed) => parsed,
        };
        Self {
            flags: if offload.needs_checksum {
                NEEDS_CHECKSUM
            } else {
                0
            },
            gso_type,
            hdr_len,
            gso_size: offload.gso_size,
            csum_start: offload.checksum_start,
            csum_offset: offload.checksum_offset,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{HugePages, Pool, PoolConfig};
    use proptest::prelude::*;

    const TSO4: VirtioHeader = VirtioHeader {
        flags: NEEDS_CHECKSUM,
        gso_type: GSO_TCP4 | GSO_ECN,
        hdr_len: 54,
        gso_size: 1448,
        csum_start: 34,
        csum_offset: 16,
    };

    #[test]
    fn a_good_segment_is_understood() {
        let offload = TSO4.offload(3000).unwrap();
        assert!(offload.needs_checksum && offload.ecn);
        assert_eq!((offload.gso, offload.gso_size), (Gso::Tcp4, 1448));
        assert_eq!((offload.checksum_start, offload.checksum_offset), (34, 16));
    }

    #[test]
    fn bytes_are_little_endian() {
        let bytes = [1, 0x81, 54, 0, 0xa8, 5, 34, 0, 16, 0];
        assert_eq!(TSO4.to_bytes(), bytes);
        assert_eq!(VirtioHeader::from_bytes(bytes), TSO4);
    }

    #[test]
    fn lies_are_refused() {
        let lies = [
            VirtioHeader {
                csum_start: 2990,
                ..TSO4
            },
            VirtioHeader {
                csum_start: 0xffff,
                csum_offset: 0xffff,
                gso_type: 0,
                ..TSO4
            },
            VirtioHeader {
                gso_size: 0,
                ..TSO4
            },
            VirtioHeader { flags: 0, ..TSO4 },
            VirtioHeader {
                csum_offset: 6,
                ..TSO4
            },
            VirtioHeader {
                gso_type: GSO_UDP,
                ..TSO4
            },
            VirtioHeader {
                gso_type: 3,
                ..TSO4
            },
            VirtioHeader {
                gso_type: GSO_ECN,
                ..TSO4
            },
            VirtioHeader {
                gso_type: GSO_UDP | GSO_ECN,
                csum_offset: 6,
                ..TSO4
            },
        ];
        for lie in lies {
            assert_eq!(lie.offload(3000), Err(BadOffload), "{lie:?}");
        }
    }

    #[test]
    fn a_plain_frame_may_be_of_any_length() {
        assert_eq!(VirtioHeader::default().offload(0), Ok(Offload::default()));
        let valid = VirtioHeader {
            flags: DATA_VALID,
            csum_start: 0xffff,
            ..VirtioHeader::default()
        };
        assert!(valid.offload(0).unwrap().checksum_valid);
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_lies_in_the_frame_and_is_told_again(bytes: [u8; 10], small: bool, len in 0usize..70_000) {
            let mut header = VirtioHeader::from_bytes(bytes);
            if small {
                header.flags = 1;
                header.gso_type &= 0x85;
                header.csum_start &= 0x7f;
                header.csum_offset &= 0x16;
            }
            if let Ok(offload) = header.offload(len) {
                if offload.needs_checksum {
                    let end = offload.checksum_start as usize + offload.checksum_offset as usize + 2;
                    prop_assert!(end <= len);
                }
                let config = PoolConfig { small: 1, large: 0, huge_pages: HugePages::Never };
                let mut packet = Pool::new(config).unwrap().copy_of(b"frame").unwrap();
                *packet.offload_mut() = offload;
                let told = VirtioHeader::of(&packet);
                prop_assert_eq!(VirtioHeader::from_bytes(told.to_bytes()).offload(len), Ok(offload));
            }
        }
    }
}
