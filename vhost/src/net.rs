//! The virtio-net header and the feature bits that matter at this boundary (virtio 1.2, 5.1).

/// Bits of the feature set, by the names that virtio 1.2 and vhost-user give them.
pub mod feature {
    /// The device handles packets with partial checksums (5.1.3).
    pub const CSUM: u64 = 1 << 0;
    /// The driver handles packets with partial checksums.
    pub const GUEST_CSUM: u64 = 1 << 1;
    /// The device has a maximum MTU to tell.
    pub const MTU: u64 = 1 << 3;
    /// The device has a MAC address to tell.
    pub const MAC: u64 = 1 << 5;
    /// The driver can receive TCP segmentation offload over IPv4.
    pub const GUEST_TSO4: u64 = 1 << 7;
    /// The driver can receive TCP segmentation offload over IPv6.
    pub const GUEST_TSO6: u64 = 1 << 8;
    /// The driver can receive TSO with ECN.
    pub const GUEST_ECN: u64 = 1 << 9;
    /// The device can receive TCP segmentation offload over IPv4.
    pub const HOST_TSO4: u64 = 1 << 11;
    /// The device can receive TCP segmentation offload over IPv6.
    pub const HOST_TSO6: u64 = 1 << 12;
    /// The device can receive TSO with ECN.
    pub const HOST_ECN: u64 = 1 << 13;
    /// The driver can merge receive buffers.
    pub const MRG_RXBUF: u64 = 1 << 15;
    /// The device tells its link status in its configuration space.
    pub const STATUS: u64 = 1 << 16;
    /// There is a control queue; with vhost-user the front end serves it.
    pub const CTRL_VQ: u64 = 1 << 17;
    /// The driver announces the guest's addresses when it is asked to, after a migration.
    pub const GUEST_ANNOUNCE: u64 = 1 << 21;
    /// The device has several pairs of queues.
    pub const MQ: u64 = 1 << 22;
    /// Dirty pages are logged during migration (vhost).
    pub const LOG_ALL: u64 = 1 << 26;
    /// A legacy driver may lay its descriptors out as it likes.
    pub const ANY_LAYOUT: u64 = 1 << 27;
    /// Descriptors may point to tables of descriptors.
    pub const INDIRECT_DESC: u64 = 1 << 28;
    /// Notifications are suppressed by index.
    pub const EVENT_IDX: u64 = 1 << 29;
    /// The vhost-user protocol features can be negotiated.
    pub const PROTOCOL_FEATURES: u64 = 1 << 30;
    /// The device follows virtio 1.0 or later.
    pub const VERSION_1: u64 = 1 << 32;
    /// The device reaches memory through an IOMMU.
    pub const ACCESS_PLATFORM: u64 = 1 << 33;
    /// The queues are packed.
    pub const RING_PACKED: u64 = 1 << 34;
    /// The device uses buffers in the order in which they were made available.
    pub const IN_ORDER: u64 = 1 << 35;
    /// The driver can stop and start one queue alone.
    pub const RING_RESET: u64 = 1 << 40;
    /// The driver can receive trains of UDP datagrams over IPv4 (USO).
    pub const GUEST_USO4: u64 = 1 << 54;
    /// The driver can receive trains of UDP datagrams over IPv6.
    pub const GUEST_USO6: u64 = 1 << 55;
    /// The device can receive trains of UDP datagrams, over IPv4 and IPv6.
    pub const HOST_USO: u64 = 1 << 56;

    /// The names of the bits that are set, as virtio spells them, without `VIRTIO_` and `F_`; a
    /// bit that has none here is there by its number.
    pub fn names(features: u64) -> Vec<String> {
        super::names(features, &NAMES)
    }

    const NAMES: [(u64, &str); 28] = [
        (CSUM, "csum"),
        (GUEST_CSUM, "guest-csum"),
        (MTU, "mtu"),
        (MAC, "mac"),
        (GUEST_TSO4, "guest-tso4"),
        (GUEST_TSO6, "guest-tso6"),
        (GUEST_ECN, "guest-ecn"),
        (HOST_TSO4, "host-tso4"),
        (HOST_TSO6, "host-tso6"),
        (HOST_ECN, "host-ecn"),
        (MRG_RXBUF, "mrg-rxbuf"),
        (STATUS, "status"),
        (CTRL_VQ, "ctrl-vq"),
        (GUEST_ANNOUNCE, "guest-announce"),
        (MQ, "mq"),
        (LOG_ALL, "log-all"),
        (ANY_LAYOUT, "any-layout"),
        (INDIRECT_DESC, "indirect-desc"),
        (EVENT_IDX, "event-idx"),
        (PROTOCOL_FEATURES, "protocol-features"),
        (VERSION_1, "version-1"),
        (ACCESS_PLATFORM, "access-platform"),
        (RING_PACKED, "ring-packed"),
        (IN_ORDER, "in-order"),
        (RING_RESET, "ring-reset"),
        (GUEST_USO4, "guest-uso4"),
        (GUEST_USO6, "guest-uso6"),
        (HOST_USO, "host-uso"),
    ];

    /// Offloads that the device side accepts from the guest.
    pub const HOST_OFFLOADS: u64 = CSUM | HOST_TSO4 | HOST_TSO6 | HOST_ECN | HOST_USO;
    /// Offloads that the guest accepts from the device side.
    pub const GUEST_OFFLOADS: u64 =
        GUEST_CSUM | GUEST_TSO4 | GUEST_TSO6 | GUEST_ECN | GUEST_USO4 | GUEST_USO6;
    /// Every offload there is here.
    pub const OFFLOADS: u64 = HOST_OFFLOADS | GUEST_OFFLOADS;
}

/// Bits of vhost-user's protocol features.
pub mod protocol_feature {
    /// The names of the bits that are set, as vhost-user spells them; a bit that has none here is
    /// there by its number.
    pub fn names(features: u64) -> Vec<String> {
        super::names(features, &NAMES)
    }

    const NAMES: [(u64, &str); 17] = [
        (1 << 0, "mq"),
        (1 << 1, "log-shmfd"),
        (1 << 2, "rarp"),
        (1 << 3, "reply-ack"),
        (1 << 4, "mtu"),
        (1 << 5, "backend-req"),
        (1 << 6, "cross-endian"),
        (1 << 7, "crypto-session"),
        (1 << 8, "pagefault"),
        (1 << 9, "config"),
        (1 << 10, "backend-send-fd"),
        (1 << 11, "host-notifier"),
        (1 << 12, "inflight-shmfd"),
        (1 << 13, "reset-device"),
        (1 << 14, "inband-notifications"),
        (1 << 15, "configure-mem-slots"),
        (1 << 16, "status"),
    ];
}

fn names(bits: u64, table: &[(u64, &str)]) -> Vec<String> {
    let bits = (0..64).map(|i| 1 << i).filter(|bit| bits & bit != 0);
    let name = |bit: u64| match table.iter().find(|(known, _)| *known == bit) {
        Some((_, name)) => (*name).to_owned(),
        None => format!("bit-{}", bit.trailing_zeros()),
    };
    bits.map(name).collect()
}

/// `flags`: the checksum from `csum_start` is still to be computed and stored at `csum_offset`.
pub const FLAG_NEEDS_CSUM: u8 = 1;
/// `flags`: the checksums were validated.
pub const FLAG_DATA_VALID: u8 = 2;

/// `gso_type`: an ordinary frame.
pub const GSO_NONE: u8 = 0;
/// `gso_type`: TCP over IPv4, to be cut into segments of `gso_size`.
pub const GSO_TCPV4: u8 = 1;
/// `gso_type`: TCP over IPv6, to be cut into segments of `gso_size`.
pub const GSO_TCPV6: u8 = 4;
/// `gso_type`: UDP over IPv4 or IPv6, to be cut into datagrams of `gso_size` (`VIRTIO_NET_HDR_GSO_UDP_L4`).
pub const GSO_UDP_L4: u8 = 5;
/// `gso_type`: the segments carry ECN bits (or-ed to the type).
pub const GSO_ECN: u8 = 0x80;

/// The header before every frame on a virtio-net ring, in host byte order (virtio 1.2, 5.1.6). The kernel puts the
/// same one before frames of a tap and of a packet socket.
///
/// What a guest writes in it is hearsay: whoever uses an offset checks it against the frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct NetHeader {
    /// [`FLAG_NEEDS_CSUM`], [`FLAG_DATA_VALID`].
    pub flags: u8,
    /// One of the `GSO_` values.
    pub gso_type: u8,
    /// Bytes of all headers of a segmented frame, Ethernet included; a hint only.
    pub hdr_len: u16,
    /// Payload bytes of a segment.
    pub gso_size: u16,
    /// Where the checksummed part starts, in bytes from the start of the frame.
    pub csum_start: u16,
    /// Where the checksum is stored, in bytes from `csum_start`.
    pub csum_offset: u16,
    /// Number of merged buffers; set by the device side when it sends to the guest.
    pub num_buffers: u16,
}

impl NetHeader {
    /// Bytes of the header with `VERSION_1` or `MRG_RXBUF`.
    pub const LEN: usize = 12;
    /// Bytes of the header without `num_buffers`: of legacy drivers, of a tap and of a packet socket.
    pub const SHORT_LEN: usize = 10;

    /// Reads the 12 bytes of a header.
    #[inline]
    pub fn from_bytes(b: [u8; Self::LEN]) -> Self {
        let word = |i: usize| u16::from_le_bytes([b[i], b[i + 1]]);
        Self {
            flags: b[0],
            gso_type: b[1],
            hdr_len: word(2),
            gso_size: word(4),
            csum_start: word(6),
            csum_offset: word(8),
            num_buffers: word(10),
        }
    }

    /// Reads the 10 bytes of a header without `num_buffers`.
    #[inline]
    pub fn from_short(b: [u8; Self::SHORT_LEN]) -> Self {
        let [b0, b1, b2, b3, b4, b5, b6, b7, b8, b9] = b;
        Self::from_bytes([b0, b1, b2, b3, b4, b5, b6, b7, b8, b9, 0, 0])
    }

    /// The 10 bytes of the header without `num_buffers`.
    #[inline]
    pub fn to_short(self) -> [u8; Self::SHORT_LEN] {
        let [b0, b1, b2, b3, b4, b5, b6, b7, b8, b9, ..] = self.to_bytes();
        [b0, b1, b2, b3, b4, b5, b6, b7, b8, b9]
    }

    /// The 12 bytes of the header.
    #[inline]
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[0] = self.flags;
        bytes[1] = self.gso_type;
        bytes[2..4].copy_from_slice(&self.hdr_len.to_le_bytes());
        bytes[4..6].copy_from_slice(&self.gso_size.to_le_bytes());
        bytes[6..8].copy_from_slice(&self.csum_start.to_le_bytes());
        bytes[8..10].copy_from_slice(&self.csum_offset.to_le_bytes());
        bytes[10..].copy_from_slice(&self.num_buffers.to_le_bytes());
        bytes
    }

    /// Bytes of the header under a set of negotiated features (5.1.6.1).
    pub fn len_for(features: u64) -> usize {
        if features & (feature::VERSION_1 | feature::MRG_RXBUF) == 0 {
            Self::SHORT_LEN
        } else {
            Self::LEN
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_have_names() {
        let bits = feature::MQ | feature::VERSION_1 | 1 << 63;
        assert_eq!(feature::names(bits), ["mq", "version-1", "bit-63"]);
        assert_eq!(protocol_feature::names(0x1_0008), ["reply-ack", "status"]);
    }

    #[test]
    fn header_bytes_round_trip() {
        let bytes = [1, 4, 54, 0, 180, 5, 34, 0, 16, 0, 3, 0];
        let header = NetHeader::from_bytes(bytes);
        assert_eq!(header.gso_size, 1460);
        assert_eq!(header.num_buffers, 3);
        assert_eq!(header.to_bytes(), bytes);
        let short = *bytes.first_chunk().unwrap();
        assert_eq!(header.to_short(), short);
        assert_eq!(NetHeader::from_short(short).num_buffers, 0);
        assert_eq!(NetHeader::from_short(short).to_short(), short);
    }
}
