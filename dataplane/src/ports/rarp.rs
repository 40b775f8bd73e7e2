//! The frame that tells a network where a station is now.

use crate::packet::ethertype;

/// Shortest Ethernet frame, without its checksum.
pub(super) const LEN: usize = 60;

/// A broadcast reverse ARP request (RFC 903) in which a station asks for its own address, as it
/// would send it itself: bridges learn by its source where the station is, and nobody minds.
pub(super) fn announcement(mac: [u8; 6]) -> [u8; LEN] {
    let mut frame = [0; LEN];
    frame[..6].fill(0xff);
    frame[6..12].copy_from_slice(&mac);
    frame[12..14].copy_from_slice(&ethertype::RARP.to_be_bytes());
    // Ethernet and IPv4 addresses of 6 and 4 bytes; operation 3, "request reverse".
    frame[14..22].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, 3]);
    // Both the one who asks and the one who is asked for; protocol addresses are not known.
    frame[22..28].copy_from_slice(&mac);
    frame[32..38].copy_from_slice(&mac);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_rfc_903_lays_it_out() {
        let frame = announcement([2, 0, 0, 0, 0, 9]);
        let expected = [
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 9, 0x80, 0x35, // Ethernet
            0, 1, 8, 0, 6, 4, 0, 3, // header
            2, 0, 0, 0, 0, 9, 0, 0, 0, 0, 2, 0, 0, 0, 0, 9, 0, 0, 0, 0, // addresses
        ];
        assert_eq!(frame[..42], expected);
        assert_eq!(frame[42..], [0; 18]);
    }
}
