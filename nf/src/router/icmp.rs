//! ICMP errors and echo replies (RFC 792, RFC 1812 section 4.3, RFC 4443).

use core::net::IpAddr;
use core::time::Duration;

use chainplane_dataplane::crew::Share;
use chainplane_dataplane::packet::{
    Gso, Packet, Pseudo, Sum, checksum, ethertype, protocol, pseudo_header,
};
use chainplane_dataplane::time::Time;

/// Where the network header is: tagged frames never get this far.
const L3: usize = 14;
/// TTL and hop limit of the router's own packets.
const TTL: u8 = 64;
/// An ICMP error is at most this long (RFC 1812, section 4.3.2.3).
const MAX_V4: usize = 576;
/// An `ICMPv6` error is at most this long (RFC 4443, section 2.4 (c)).
const MAX_V6: usize = 1280;
/// Precedence "internetwork control" (RFC 1812, section 4.3.2.5).
const CONTROL: u8 = 0xc0;

/// The longest frame that [`error`] writes.
pub const MAX_FRAME: usize = L3 + MAX_V6;

/// Why a packet gets no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// TTL or hop limit would become 0.
    TimeExceeded,
    /// No route.
    NoRoute,
    /// The neighbour does not answer.
    HostUnreachable,
    /// Longer than the next link takes, in bytes.
    TooLong(u16),
    /// Nobody listens on the router's own port.
    PortUnreachable,
    /// The router itself does not speak the protocol.
    ProtocolUnreachable,
}

impl Problem {
    /// Type, code and the header's last four bytes.
    #[allow(
        clippy::match_same_arms,
        reason = "the numbers of two protocols, not the same thing"
    )]
    fn header(self, ipv6: bool) -> ([u8; 2], u32) {
        match (self, ipv6) {
            (Self::TimeExceeded, false) => ([11, 0], 0),
            (Self::NoRoute, false) => ([3, 0], 0),
            (Self::HostUnreachable, false) => ([3, 1], 0),
            (Self::ProtocolUnreachable, false) => ([3, 2], 0),
            (Self::PortUnreachable, false) => ([3, 3], 0),
            (Self::TooLong(mtu), false) => ([3, 4], mtu.into()),
            (Self::TimeExceeded, true) => ([3, 0], 0),
            (Self::NoRoute, true) => ([1, 0], 0),
            (Self::HostUnreachable, true) => ([1, 3], 0),
            (Self::PortUnreachable, true) => ([1, 4], 0),
            (Self::TooLong(mtu), true) => ([2, 0], mtu.into()),
            // The pointer: the next header field of the IPv6 header.
            (Self::ProtocolUnreachable, true) => ([4, 1], 6),
        }
    }
}

/// Whether an error may be sent about a packet (RFC 1812, section 4.3.2.7; RFC 4443, section 2.4 (e)). That its
/// addresses are those of single hosts, and that it came to this interface alone, was checked before.
pub fn may_report(packet: &Packet) -> bool {
    let layers = packet.layers();
    if layers.is_later_fragment() {
        return false;
    }
    match (layers.protocol, packet.icmp_type_code()) {
        (protocol::ICMP, Some((kind, _))) => !matches!(kind, 3 | 4 | 5 | 11 | 12),
        (protocol::ICMPV6, Some((kind, _))) => kind >= 128 && kind != 137,
        _ => true,
    }
}

/// Writes the frame of an error about a packet, from one of the router's addresses to the packet's source; the
/// link-layer addresses are left zero.
pub fn error(frame: &mut Vec<u8>, problem: Problem, about: &Packet, from: IpAddr) {
    frame.clear();
    let quoted = about.data().get(L3..).unwrap_or_default();
    match (from, about.ip_src()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let (kind, rest) = problem.header(false);
            let quoted = &quoted[..quoted.len().min(MAX_V4 - 28)];
            frame.extend_from_slice(&[0; 12]);
            frame.extend_from_slice(&ethertype::IPV4.to_be_bytes());
            let total = (28 + quoted.len()) as u16;
            frame.extend_from_slice(&[0x45, CONTROL]);
            frame.extend_from_slice(&total.to_be_bytes());
            // Never fragmented, so that it needs no identification (RFC 6864).
            frame.extend_from_slice(&[0, 0, 0x40, 0, TTL, protocol::ICMP, 0, 0]);
            frame.extend_from_slice(&from.octets());
            frame.extend_from_slice(&to.octets());
            write_message(frame, kind, rest, quoted);
            let header_sum = checksum(&frame[L3..L3 + 20]);
            frame[L3 + 10..L3 + 12].copy_from_slice(&header_sum.to_be_bytes());
            let sum = checksum(&frame[L3 + 20..]);
            frame[L3 + 22..L3 + 24].copy_from_slice(&sum.to_be_bytes());
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let (kind, rest) = problem.header(true);
            let quoted = &quoted[..quoted.len().min(MAX_V6 - 48)];
            frame.extend_from_slice(&[0; 12]);
            frame.extend_from_slice(&ethertype::IPV6.to_be_bytes());
            let len = (8 + quoted.len()) as u16;
            frame.extend_from_slice(&[0x60 | CONTROL >> 4, CONTROL << 4, 0, 0]);
            frame.extend_from_slice(&len.to_be_bytes());
            frame.extend_from_slice(&[protocol::ICMPV6, TTL]);
            frame.extend_from_slice(&from.octets());
            frame.extend_from_slice(&to.octets());
            write_message(frame, kind, rest, quoted);
            let sum = pseudo_header(Pseudo::V6(from, to), protocol::ICMPV6, len.into())
                .plus_bytes(&frame[L3 + 40..])
                .finish();
            frame[L3 + 42..L3 + 44].copy_from_slice(&sum.to_be_bytes());
        }
        _ => {}
    }
}

fn write_message(frame: &mut Vec<u8>, kind: [u8; 2], rest: u32, quoted: &[u8]) {
    frame.extend_from_slice(&kind);
    frame.extend_from_slice(&[0, 0]);
    frame.extend_from_slice(&rest.to_be_bytes());
    frame.extend_from_slice(quoted);
}

/// Whether the router can answer this echo request: in one piece and without options.
pub fn is_answerable(packet: &Packet) -> bool {
    let layers = packet.layers();
    !layers.is_fragment() && !layers.has_options() && packet.offload().gso == Gso::None
}

/// Turns an echo request into its reply, where it is.
pub fn answer_echo(packet: &mut Packet) {
    let (l4, ipv6) = (packet.layers().l4 as usize, packet.layers().is_ipv6());
    let unsummed = packet.has_partial_checksum();
    let frame = packet.data_mut();
    let reply = if ipv6 {
        frame[L3 + 8..L3 + 40].rotate_left(16);
        frame[L3 + 7] = TTL;
        129
    } else {
        frame[L3 + 12..L3 + 20].rotate_left(4);
        frame[L3 + 8] = TTL;
        frame[L3 + 10..L3 + 12].fill(0);
        let sum = checksum(&frame[L3..L3 + 20]);
        frame[L3 + 10..L3 + 12].copy_from_slice(&sum.to_be_bytes());
        0
    };
    let old = core::mem::replace(&mut frame[l4], reply);
    if !unsummed {
        // Adjusted, not computed anew: a request that was damaged on its way gives a reply that is seen to be.
        let field = u16::from_be_bytes([frame[l4 + 2], frame[l4 + 3]]);
        let change = Sum::default()
            .minus(u16::from(old) << 8)
            .plus(u16::from(reply) << 8);
        frame[l4 + 2..l4 + 4].copy_from_slice(&change.apply(field).to_be_bytes());
    }
}

/// How many errors may be sent: a token bucket.
#[derive(Clone, Copy, Debug)]
pub struct Limiter {
    /// Nanoseconds saved up.
    saved: u64,
    last: Time,
    /// What an error costs, in nanoseconds.
    cost: u64,
    /// What can be saved.
    most: u64,
}

/// Errors in a second, in the long run, from all workers together.
pub const RATE: u64 = 100;
/// Errors at once, from all workers together.
pub const BURST: usize = 50;

impl Limiter {
    /// A full bucket for a worker's share of errors.
    pub fn new(share: Share) -> Self {
        let second = Duration::from_secs(1).as_nanos() as u64;
        let cost = second / RATE * u64::from(share.of());
        let most = cost * share.part_of(BURST) as u64;
        Self {
            saved: most,
            last: Time::default(),
            cost,
            most,
        }
    }

    /// Whether one more may be sent now.
    pub fn allow(&mut self, now: Time) -> bool {
        let elapsed = now.0.saturating_sub(self.last.0);
        self.saved = self.saved.saturating_add(elapsed).min(self.most);
        self.last = now;
        let allowed = self.saved >= self.cost;
        if allowed {
            self.saved -= self.cost;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(limiter: &mut Limiter, now: Time) -> usize {
        (0..1000).filter(|_| limiter.allow(now)).count()
    }

    #[test]
    fn the_limiter_lets_a_burst_through_and_then_its_rate() {
        let mut limiter = Limiter::new(Share::WHOLE);
        let mut now = Time(5 << 40);
        assert_eq!(count(&mut limiter, now), BURST);
        now = now + Duration::from_millis(100);
        assert_eq!(count(&mut limiter, now), RATE as usize / 10);
        now = now + Duration::from_hours(1);
        assert_eq!(count(&mut limiter, now), BURST);
    }

    #[test]
    fn workers_share_the_errors_that_may_be_sent() {
        for of in [2, 3, 5] {
            let limiter = |index| Limiter::new(Share::new(index, of));
            let mut limiters: Vec<_> = (0..of).map(limiter).collect();
            let mut all = |now| -> usize { limiters.iter_mut().map(|one| count(one, now)).sum() };
            let mut now = Time(5 << 40);
            assert!((BURST..BURST + of as usize).contains(&all(now)));
            let mut later = 0;
            for _ in 0..100 {
                now = now + Duration::from_millis(100);
                later += all(now);
            }
            assert!((RATE as usize * 10 - of as usize..=RATE as usize * 10).contains(&later));
        }
    }
}
