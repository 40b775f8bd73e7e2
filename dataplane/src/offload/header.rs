//! What the virtio-net header in front of a frame says of it (virtio 1.2, section 5.1.6), to and from [`Offload`].
//!
//! Guests, and the kernel's tap and packet socket, write it. Nothing in it is believed before it was checked here
//! against the frame's length, and by [`super::check`] against its headers once those are parsed.

use chainplane_vhost::net::{
    FLAG_DATA_VALID, FLAG_NEEDS_CSUM, GSO_ECN, GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4,
    NetHeader,
};

use super::{BadOffload, TCP_CHECKSUM, UDP_CHECKSUM};
use crate::packet::{Gso, Offload, Packet};

/// What the sender of a frame of `frame_len` bytes left undone.
///
/// # Errors
/// A checksum outside of the frame; a type of segment that was never offered, or without a size, or without a
/// checksum left undone (virtio 1.2, section 5.1.6.2.1, demands one), or with that of another protocol.
#[inline]
pub fn from_header(header: &NetHeader, frame_len: usize) -> Result<Offload, BadOffload> {
    if header.flags & FLAG_NEEDS_CSUM == 0 && header.gso_type == GSO_NONE {
        let checksum_valid = header.flags & FLAG_DATA_VALID != 0;
        return Ok(Offload {
            checksum_valid,
            ..Offload::default()
        });
    }
    requested(header, frame_len)
}

fn requested(header: &NetHeader, frame_len: usize) -> Result<Offload, BadOffload> {
    let field = header.csum_start as usize + header.csum_offset as usize;
    if header.flags & FLAG_NEEDS_CSUM == 0 || field + 2 > frame_len {
        return Err(BadOffload);
    }
    let gso = match header.gso_type & !GSO_ECN {
        GSO_NONE if header.gso_type == GSO_NONE => Gso::None,
        GSO_TCPV4 => Gso::Tcp4,
        GSO_TCPV6 => Gso::Tcp6,
        GSO_UDP_L4 if header.gso_type == GSO_UDP_L4 => Gso::Udp,
        _ => return Err(BadOffload),
    };
    let fits = match gso {
        Gso::None => true,
        Gso::Tcp4 | Gso::Tcp6 => header.gso_size > 0 && header.csum_offset == TCP_CHECKSUM,
        Gso::Udp => header.gso_size > 0 && header.csum_offset == UDP_CHECKSUM,
    };
    let cut = gso != Gso::None;
    fits.then_some(Offload {
        needs_checksum: true,
        checksum_valid: false,
        ecn: header.gso_type & GSO_ECN != 0,
        gso,
        gso_size: if cut { header.gso_size } else { 0 },
        header_len: if cut { header.hdr_len } else { 0 },
        checksum_start: header.csum_start,
        checksum_offset: header.csum_offset,
    })
    .ok_or(BadOffload)
}

/// What the receiver of a packet is told. The number of buffers is the ring's to fill in.
#[inline]
pub fn to_header(packet: &Packet) -> NetHeader {
    header_of(packet.offload(), packet.layers().payload)
}

/// The same, of what is left undone in a packet whose payload starts at `payload`, or at 0 if nobody parsed it.
#[inline]
pub fn header_of(offload: &Offload, payload: u16) -> NetHeader {
    if !offload.needs_checksum && offload.gso == Gso::None {
        return NetHeader {
            flags: if offload.checksum_valid {
                FLAG_DATA_VALID
            } else {
                0
            },
            ..NetHeader::default()
        };
    }
    let ecn = if offload.ecn { GSO_ECN } else { 0 };
    let gso_type = match offload.gso {
        Gso::None => GSO_NONE,
        Gso::Tcp4 => GSO_TCPV4 | ecn,
        Gso::Tcp6 => GSO_TCPV6 | ecn,
        Gso::Udp => GSO_UDP_L4,
    };
    // The parsed headers know better than the sender's hint, where there are any.
    let hdr_len = match (offload.gso, payload) {
        (Gso::None, _) => 0,
        (_, 0) => offload.header_len,
        (_, parsed) => parsed,
    };
    NetHeader {
        flags: if offload.needs_checksum {
            FLAG_NEEDS_CSUM
        } else {
            0
        },
        gso_type,
        hdr_len,
        gso_size: offload.gso_size,
        csum_start: offload.checksum_start,
        csum_offset: offload.checksum_offset,
        num_buffers: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{HugePages, Pool, PoolConfig};
    use proptest::prelude::*;

    const TSO4: NetHeader = NetHeader {
        flags: FLAG_NEEDS_CSUM,
        gso_type: GSO_TCPV4 | GSO_ECN,
        hdr_len: 54,
        gso_size: 1448,
        csum_start: 34,
        csum_offset: 16,
        num_buffers: 0,
    };

    #[test]
    fn a_good_segment_is_understood() {
        let offload = from_header(&TSO4, 3000).unwrap();
        assert!(offload.needs_checksum && offload.ecn);
        assert_eq!((offload.gso, offload.gso_size), (Gso::Tcp4, 1448));
        assert_eq!((offload.checksum_start, offload.checksum_offset), (34, 16));
    }

    #[test]
    fn bytes_are_little_endian() {
        let bytes = [1, 0x81, 54, 0, 0xa8, 5, 34, 0, 16, 0];
        assert_eq!(TSO4.to_short(), bytes);
        assert_eq!(NetHeader::from_short(bytes), TSO4);
    }

    #[test]
    fn lies_are_refused() {
        let lies = [
            NetHeader {
                csum_start: 2990,
                ..TSO4
            },
            NetHeader {
                csum_start: 0xffff,
                csum_offset: 0xffff,
                gso_type: 0,
                ..TSO4
            },
            NetHeader {
                gso_size: 0,
                ..TSO4
            },
            NetHeader { flags: 0, ..TSO4 },
            NetHeader {
                csum_offset: 6,
                ..TSO4
            },
            NetHeader {
                gso_type: GSO_UDP_L4,
                ..TSO4
            },
            NetHeader {
                gso_type: 3,
                ..TSO4
            },
            NetHeader {
                gso_type: GSO_ECN,
                ..TSO4
            },
            NetHeader {
                gso_type: GSO_UDP_L4 | GSO_ECN,
                csum_offset: 6,
                ..TSO4
            },
        ];
        for lie in lies {
            assert_eq!(from_header(&lie, 3000), Err(BadOffload), "{lie:?}");
        }
    }

    #[test]
    fn a_good_train_of_datagrams_is_understood() {
        let train = NetHeader {
            gso_type: GSO_UDP_L4,
            csum_offset: 6,
            ..TSO4
        };
        let offload = from_header(&train, 3000).unwrap();
        assert!(offload.needs_checksum && !offload.ecn);
        assert_eq!((offload.gso, offload.gso_size), (Gso::Udp, 1448));
    }

    #[test]
    fn a_plain_frame_may_be_of_any_length() {
        assert_eq!(
            from_header(&NetHeader::default(), 0),
            Ok(Offload::default())
        );
        let valid = NetHeader {
            flags: FLAG_DATA_VALID,
            csum_start: 0xffff,
            ..NetHeader::default()
        };
        assert!(from_header(&valid, 0).unwrap().checksum_valid);
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_lies_in_the_frame_and_is_told_again(bytes: [u8; 10], small: bool, len in 0usize..70_000) {
            let mut header = NetHeader::from_short(bytes);
            if small {
                header.flags = 1;
                header.gso_type &= 0x85;
                header.csum_start &= 0x7f;
                header.csum_offset &= 0x16;
            }
            if let Ok(offload) = from_header(&header, len) {
                if offload.needs_checksum {
                    let end = offload.checksum_start as usize + offload.checksum_offset as usize + 2;
                    prop_assert!(end <= len);
                }
                let config = PoolConfig { small: 1, large: 0, huge_pages: HugePages::Never };
                let mut packet = Pool::new(config).unwrap().copy_of(b"frame").unwrap();
                *packet.offload_mut() = offload;
                let back = to_header(&packet);
                prop_assert_eq!(from_header(&NetHeader::from_short(back.to_short()), len), Ok(offload));
            }
        }
    }
}
