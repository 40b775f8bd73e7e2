//! The ping task: ICMP echo requests, one after the other.

use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use smoltcp::iface::SocketHandle;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::socket::icmp;
use smoltcp::wire::{Icmpv4Packet, Icmpv4Repr, Icmpv6Packet, Icmpv6Repr};

use super::stack::Stack;
use super::task::{Step, TaskResult};
use super::wire::Wire;
use crate::spec::file::{Ping, Reached};

/// How long an answer that should come may take: address resolution on the way, and a busy machine.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long an answer that should not come is waited for. Longer than the second for which the stack keeps quiet
/// after a vain address resolution: a request that was never sent would prove nothing.
const SHORT_PATIENCE: Duration = Duration::from_millis(1500);
/// What requests carry, as many bytes as ping(8) sends.
const PAYLOAD: [u8; 56] = [0x5a; 56];

/// A ping under way.
pub struct PingJob {
    ping: Ping,
    handle: SocketHandle,
    ident: u16,
    /// Rounds begun.
    sent: u32,
    /// When the last round ends without an answer.
    deadline: Option<Instant>,
    /// When the next round may begin.
    next: Instant,
}

impl PingJob {
    pub fn new<W: Wire>(stack: &mut Stack<W>, ping: Ping) -> Self {
        let (handle, ident) = socket(stack);
        Self {
            ping,
            handle,
            ident,
            sent: 0,
            deadline: None,
            next: Instant::now(),
        }
    }

    pub fn step<W: Wire>(&mut self, stack: &mut Stack<W>, result: &mut TaskResult) -> Step {
        if let Some(deadline) = self.deadline {
            if self.is_answered(stack) {
                result.answered += 1;
            } else if Instant::now() < deadline {
                return Step::Until(deadline);
            } else {
                result.unanswered += 1;
                result.note(format!("no answer to request {}", self.sent));
            }
            self.deadline = None;
        }
        if self.sent == self.ping.count {
            stack.sockets.remove(self.handle);
            return Step::Done;
        }
        if Instant::now() < self.next {
            return Step::Until(self.next);
        }
        self.next = Instant::now() + Duration::from_millis(self.ping.interval_ms.into());
        self.sent += 1;
        request(
            stack,
            self.handle,
            self.ident,
            self.sequence(),
            self.ping.to,
        );
        let patience = match self.ping.expect {
            Reached::Answered => PATIENCE,
            Reached::Unanswered => SHORT_PATIENCE,
        };
        self.deadline = Some(Instant::now() + patience);
        Step::Again
    }

    /// The sequence number of the last round.
    fn sequence(&self) -> u16 {
        self.sent as u16
    }

    /// Whether the answer to the last round is there; late ones to earlier rounds are passed over.
    fn is_answered<W: Wire>(&self, stack: &mut Stack<W>) -> bool {
        let socket = stack.sockets.get_mut::<icmp::Socket<'_>>(self.handle);
        while let Ok((bytes, from)) = socket.recv() {
            if IpAddr::from(from) == self.ping.to
                && echoed(bytes, from.into()) == Some(self.sequence())
            {
                return true;
            }
        }
        false
    }
}

/// A socket for echo requests, and its identifier.
pub(super) fn socket<W: Wire>(stack: &mut Stack<W>) -> (SocketHandle, u16) {
    let buffer = || {
        let packets = vec![icmp::PacketMetadata::EMPTY; 8];
        icmp::PacketBuffer::new(packets, vec![0; 1024])
    };
    let ident = stack.ephemeral_port();
    let mut socket = icmp::Socket::new(buffer(), buffer());
    // It fails for a bound socket only.
    let _ = socket.bind(icmp::Endpoint::Ident(ident));
    (stack.sockets.add(socket), ident)
}

/// Sends an echo request.
pub(super) fn request<W: Wire>(
    stack: &mut Stack<W>,
    handle: SocketHandle,
    ident: u16,
    seq_no: u16,
    to: IpAddr,
) {
    let (data, sums) = (&PAYLOAD[..], ChecksumCapabilities::default());
    let source = match to {
        IpAddr::V4(_) => Ipv6Addr::UNSPECIFIED,
        IpAddr::V6(to) => stack.interface.get_source_address_ipv6(&to),
    };
    let socket = stack.sockets.get_mut::<icmp::Socket<'_>>(handle);
    // The buffer holds several requests and one is sent at a time; where it is full, none of them can leave.
    let Ok(room) = socket.send(8 + PAYLOAD.len(), to.into()) else {
        return;
    };
    match to {
        IpAddr::V4(_) => {
            let mut packet = Icmpv4Packet::new_unchecked(room);
            Icmpv4Repr::EchoRequest {
                ident,
                seq_no,
                data,
            }
            .emit(&mut packet, &sums);
        }
        IpAddr::V6(to) => {
            let mut packet = Icmpv6Packet::new_unchecked(room);
            Icmpv6Repr::EchoRequest {
                ident,
                seq_no,
                data,
            }
            .emit(&source, &to, &mut packet, &sums);
        }
    }
}

/// The sequence number of an echo reply that carries what we sent. The stack has checked the checksum, and that
/// the identifier is the socket's.
fn echoed(bytes: &[u8], from: IpAddr) -> Option<u16> {
    let sums = ChecksumCapabilities::ignored();
    let (data, seq_no) = match from {
        IpAddr::V4(_) => match Icmpv4Repr::parse(&Icmpv4Packet::new_checked(bytes).ok()?, &sums) {
            Ok(Icmpv4Repr::EchoReply { seq_no, data, .. }) => (data, seq_no),
            _ => return None,
        },
        IpAddr::V6(from) => {
            let packet = Icmpv6Packet::new_checked(bytes).ok()?;
            match Icmpv6Repr::parse(&from, &Ipv6Addr::UNSPECIFIED, &packet, &sums) {
                Ok(Icmpv6Repr::EchoReply { seq_no, data, .. }) => (data, seq_no),
                _ => return None,
            }
        }
    };
    (data == PAYLOAD).then_some(seq_no)
}
