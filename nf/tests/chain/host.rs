//! Hosts that answer for their addresses.

use std::net::IpAddr;

use crate::frame::MacBytes;

/// A host, and the port it is reached by.
#[derive(Clone, Debug)]
pub struct Host {
    pub port: usize,
    pub addresses: Vec<IpAddr>,
    pub mac: MacBytes,
    /// Whether it answers when it is asked for its link-layer address.
    pub answers: bool,
}

impl Host {
    /// Its answer to an ARP request or a neighbour solicitation, if the frame is one for it.
    pub fn neighbour_answer(&self, frame: &[u8]) -> Option<Vec<u8>> {
        match frame.get(12..14)? {
            [8, 6] => self.arp_reply(frame),
            [0x86, 0xdd] => self.advertisement(frame),
            _ => None,
        }
    }

    fn arp_reply(&self, frame: &[u8]) -> Option<Vec<u8>> {
        let request = frame.get(14..42)?;
        let asked: IpAddr = <[u8; 4]>::try_from(&request[24..28]).ok()?.into();
        if request[6..8] != [0, 1] || !self.addresses.contains(&asked) {
            return None;
        }
        Some(self.arp(2, asked, &request[8..14], &request[14..18], &request[8..14]))
    }

    fn arp(&self, op: u8, address: IpAddr, to: &[u8], to_ip: &[u8], target: &[u8]) -> Vec<u8> {
        let IpAddr::V4(own) = address else {
            panic!("ARP is of IPv4");
        };
        let mut frame = [to, &self.mac, &[8, 6, 0, 1, 8, 0, 6, 4, 0, op], &self.mac].concat();
        frame.extend(own.octets());
        frame.extend([target, to_ip].concat());
        frame
    }

    /// A question for an address's owner.
    pub fn arp_request(&self, address: IpAddr) -> Vec<u8> {
        let IpAddr::V4(wanted) = address else {
            panic!("ARP is of IPv4");
        };
        self.arp(1, self.addresses[0], &[0xff; 6], &wanted.octets(), &[0; 6])
    }

    /// An announcement that nobody asked for.
    pub fn gratuitous(&self) -> Vec<u8> {
        let address = self.addresses[0];
        let IpAddr::V4(own) = address else {
            panic!("ARP is of IPv4");
        };
        self.arp(1, address, &[0xff; 6], &own.octets(), &[0; 6])
    }

    fn advertisement(&self, frame: &[u8]) -> Option<Vec<u8>> {
        use chainplane_dataplane::packet::{Pseudo, pseudo_header};
        if frame.get(20) != Some(&58) || frame.get(54) != Some(&135) {
            return None;
        }
        let asked = std::net::Ipv6Addr::from(<[u8; 16]>::try_from(frame.get(62..78)?).ok()?);
        let asker = std::net::Ipv6Addr::from(<[u8; 16]>::try_from(frame.get(22..38)?).ok()?);
        if !self.addresses.contains(&IpAddr::V6(asked)) {
            return None;
        }
        let mut reply = [
            &frame[6..12],
            &self.mac,
            &[0x86, 0xdd, 0x60, 0, 0, 0, 0, 32, 58, 255],
        ]
        .concat();
        reply.extend(asked.octets());
        reply.extend(asker.octets());
        let mut message = vec![136, 0, 0, 0, 0x60, 0, 0, 0];
        message.extend(asked.octets());
        message.extend([2, 1]);
        message.extend(self.mac);
        let sum = pseudo_header(Pseudo::V6(asked, asker), 58, message.len()).plus_bytes(&message);
        message[2..4].copy_from_slice(&sum.finish().to_be_bytes());
        reply.extend(message);
        Some(reply)
    }
}
