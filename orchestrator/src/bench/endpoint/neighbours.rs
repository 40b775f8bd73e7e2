//! ARP (RFC 826) and neighbour discovery (RFC 4861): answers for all hosts of an endpoint, and questions for its
//! next hop.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use chainplane_dataplane::packet::{Mac, Pseudo, ethertype, protocol, pseudo_header};

const REQUEST: u16 = 1;
const REPLY: u16 = 2;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;

/// What a control frame means for an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Nothing.
    Nothing,
    /// It asks who has an address; this is the answer.
    Asked(Vec<u8>),
    /// It tells who has an address.
    Told(IpAddr, Mac),
}

/// Understands a frame. Whoever is asked for lives here, as the endpoint plays all hosts of its side, unless the
/// question is only to find out whether an address is free, or comes from the address itself.
pub fn hear(frame: &[u8], own: Mac) -> Heard {
    let ty = frame.get(12..14).map(|t| u16::from_be_bytes([t[0], t[1]]));
    let heard = match ty {
        Some(ethertype::ARP) => hear_arp(frame, own),
        Some(ethertype::IPV6) => hear_ndp(frame, own),
        _ => None,
    };
    heard.unwrap_or(Heard::Nothing)
}

fn hear_arp(frame: &[u8], own: Mac) -> Option<Heard> {
    let arp = frame.get(14..42)?;
    if arp[..6] != [0, 1, 8, 0, 6, 4] {
        return None;
    }
    let v4 = |at: usize| Ipv4Addr::new(arp[at], arp[at + 1], arp[at + 2], arp[at + 3]);
    let (sender, target) = (v4(14), v4(24));
    let mac = Mac(arp[8..14].try_into().ok()?);
    match u16::from_be_bytes([arp[6], arp[7]]) {
        REQUEST if sender.is_unspecified() || sender == target => None,
        REQUEST => Some(Heard::Asked(arp_frame(REPLY, own, target, mac, sender))),
        REPLY => Some(Heard::Told(sender.into(), mac)),
        _ => None,
    }
}

fn arp_frame(operation: u16, own: Mac, from: Ipv4Addr, mac: Mac, to: Ipv4Addr) -> Vec<u8> {
    let (link, asked) = if operation == REQUEST {
        (Mac([0xff; 6]), Mac([0; 6]))
    } else {
        (mac, mac)
    };
    let mut frame = ethernet(link, own, ethertype::ARP);
    frame.extend_from_slice(&[0, 1, 8, 0, 6, 4]);
    frame.extend_from_slice(&operation.to_be_bytes());
    frame.extend_from_slice(&own.0);
    frame.extend_from_slice(&from.octets());
    frame.extend_from_slice(&asked.0);
    frame.extend_from_slice(&to.octets());
    frame.resize(60, 0);
    frame
}

fn hear_ndp(frame: &[u8], own: Mac) -> Option<Heard> {
    let ip = frame.get(14..54)?;
    let icmp = frame.get(54..)?;
    // Whoever decremented the hop limit was a router, and this is not for us (RFC 4861, 7.1).
    if ip[6] != protocol::ICMPV6 || ip[7] != 255 {
        return None;
    }
    let v6 = |bytes: &[u8]| Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?));
    let (from, target) = (v6(&ip[8..24])?, v6(icmp.get(8..24)?)?);
    match icmp[0] {
        SOLICITATION if from.is_unspecified() => None,
        SOLICITATION => {
            let link = option(icmp.get(24..)?, 1)
                .unwrap_or_else(|| Mac([6, 7, 8, 9, 10, 11].map(|at| frame[at])));
            let flags = 0x6000_0000;
            let body = Body {
                ty: ADVERTISEMENT,
                flags,
                target,
                option: 2,
            };
            Some(Heard::Asked(ndp_frame(link, own, target, from, &body)))
        }
        ADVERTISEMENT => Some(Heard::Told(target.into(), option(icmp.get(24..)?, 2)?)),
        _ => None,
    }
}

/// The link-layer address of an option of type `wanted`.
fn option(mut options: &[u8], wanted: u8) -> Option<Mac> {
    while let [ty, len, ..] = *options {
        let len = 8 * usize::from(len);
        if ty == wanted {
            return Some(Mac(options.get(2..8)?.try_into().ok()?));
        }
        options = options.get(len.max(8)..)?;
    }
    None
}

struct Body {
    ty: u8,
    flags: u32,
    target: Ipv6Addr,
    option: u8,
}

fn ndp_frame(link: Mac, own: Mac, from: Ipv6Addr, to: Ipv6Addr, body: &Body) -> Vec<u8> {
    let mut icmp = vec![body.ty, 0, 0, 0];
    icmp.extend_from_slice(&body.flags.to_be_bytes());
    icmp.extend_from_slice(&body.target.octets());
    icmp.extend_from_slice(&[body.option, 1]);
    icmp.extend_from_slice(&own.0);
    let sum = pseudo_header(Pseudo::V6(from, to), protocol::ICMPV6, icmp.len());
    let sum = sum.plus_bytes(&icmp).finish();
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut frame = ethernet(link, own, ethertype::IPV6);
    frame.extend_from_slice(&[0x60, 0, 0, 0, 0, icmp.len() as u8, protocol::ICMPV6, 255]);
    frame.extend_from_slice(&from.octets());
    frame.extend_from_slice(&to.octets());
    frame.extend_from_slice(&icmp);
    frame
}

fn ethernet(to: Mac, from: Mac, ty: u16) -> Vec<u8> {
    let mut frame = Vec::with_capacity(96);
    frame.extend_from_slice(&to.0);
    frame.extend_from_slice(&from.0);
    frame.extend_from_slice(&ty.to_be_bytes());
    frame
}

/// The question who has `target`, asked by the host `from`, of the same version.
pub fn question(own: Mac, from: IpAddr, target: IpAddr) -> Vec<u8> {
    match (from, target) {
        (IpAddr::V6(from), IpAddr::V6(target)) => {
            // The target's solicited-node group (RFC 4291, 2.7.1), and the group's MAC address (RFC 2464, 7).
            let t = target.octets();
            let [x, y, z] = [t[13], t[14], t[15]];
            let (low, high) = (u16::from_be_bytes([y, z]), 0xff00 | u16::from(x));
            let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, high, low);
            let body = Body {
                ty: SOLICITATION,
                flags: 0,
                target,
                option: 1,
            };
            ndp_frame(Mac([0x33, 0x33, 0xff, x, y, z]), own, from, group, &body)
        }
        (from, target) => {
            let v4 = |address| match address {
                IpAddr::V4(address) => address,
                IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
            };
            arp_frame(REQUEST, own, v4(from), Mac([0; 6]), v4(target))
        }
    }
}

/// The sum of a neighbour discovery message of ours is right; for tests elsewhere.
#[cfg(test)]
fn is_sound(frame: &[u8]) -> bool {
    let address = |at: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&frame[at..at + 16]).unwrap());
    let sum = pseudo_header(
        Pseudo::V6(address(22), address(38)),
        protocol::ICMPV6,
        frame.len() - 54,
    );
    sum.plus_bytes(&frame[54..]).folded() == 0xffff
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const B: Mac = Mac([2, 0, 0, 0, 0, 2]);

    fn resolves(from: IpAddr, target: IpAddr) -> Vec<u8> {
        let asked = question(A, from, target);
        let Heard::Asked(answer) = hear(&asked, B) else {
            panic!("no answer to {asked:?}");
        };
        assert_eq!(hear(&answer, A), Heard::Told(target, B));
        assert_eq!(answer[..6], A.0);
        answer
    }

    #[test]
    fn questions_are_answered() {
        resolves([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let v6 = |last| IpAddr::from([0x2001, 2, 0, 0, 0, 0, 0x12, last]);
        assert!(is_sound(&resolves(v6(1), v6(2))));
        assert!(is_sound(&question(A, v6(1), v6(2))));
    }

    #[test]
    fn probes_and_announcements_are_left_alone() {
        let zero = Ipv4Addr::UNSPECIFIED.into();
        let host = IpAddr::from([10, 0, 0, 2]);
        assert_eq!(hear(&question(A, zero, host), B), Heard::Nothing);
        assert_eq!(hear(&question(A, host, host), B), Heard::Nothing);
        let unspecified = Ipv6Addr::UNSPECIFIED.into();
        let host = IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, 2]);
        assert_eq!(hear(&question(A, unspecified, host), B), Heard::Nothing);
    }

    proptest! {
        #[test]
        fn any_frame_is_heard(mut frame in proptest::collection::vec(any::<u8>(), 0..120), kind in 0usize..3) {
            let ty = [ethertype::ARP, ethertype::IPV6, 0][kind].to_be_bytes();
            if frame.len() > 22 {
                frame[12..14].copy_from_slice(&ty);
                frame[20] = protocol::ICMPV6;
                frame[21] = 255;
            }
            hear(&frame, A);
        }
    }
}
