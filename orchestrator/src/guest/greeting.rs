//! Keeps a guest's IPv6 gateways in its stack's mind.
//!
//! The stack answers echo requests itself, and forgets the answer where it does not know the gateway's link-layer
//! address yet; it finds the address out, but the first request stays unanswered. Over IPv4 the gateway's own ARP
//! request tells the address; an IPv6 gateway asks from its link-local address, which tells nothing of the others.
//! So a guest pings its IPv6 gateways when it comes up, and again before the stack forgets them after a minute.

use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use smoltcp::iface::SocketHandle;
use smoltcp::socket::icmp;

use super::ping;
use super::stack::Stack;
use super::wire::Wire;

/// From one greeting to the next.
const INTERVAL: Duration = Duration::from_secs(20);
/// How long a guest that comes up waits for the first answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// The gateways that are greeted.
pub struct Greeting {
    gateways: Vec<Ipv6Addr>,
    socket: Option<(SocketHandle, u16)>,
    count: u16,
    next: Instant,
    answered: usize,
    patience: Instant,
}

impl Greeting {
    pub fn new<W: Wire>(stack: &mut Stack<W>, gateways: &[IpAddr]) -> Self {
        let ipv6 = |gateway: &IpAddr| match gateway {
            IpAddr::V4(_) => None,
            IpAddr::V6(gateway) => Some(*gateway),
        };
        let gateways: Vec<_> = gateways.iter().filter_map(ipv6).collect();
        Self {
            socket: (!gateways.is_empty()).then(|| ping::socket(stack)),
            gateways,
            count: 0,
            next: Instant::now(),
            answered: 0,
            patience: Instant::now() + PATIENCE,
        }
    }

    /// Greets when it is time; tells when it next is, if ever.
    pub fn step<W: Wire>(&mut self, stack: &mut Stack<W>) -> Option<Instant> {
        let (handle, ident) = self.socket?;
        let socket = stack.sockets.get_mut::<icmp::Socket<'_>>(handle);
        while socket.recv().is_ok() {
            self.answered += 1;
        }
        if Instant::now() >= self.next {
            self.next = Instant::now() + INTERVAL;
            self.count = self.count.wrapping_add(1);
            for gateway in &self.gateways {
                ping::request(stack, handle, ident, self.count, IpAddr::V6(*gateway));
            }
            return Some(Instant::now());
        }
        Some(if self.is_over() {
            self.next
        } else {
            self.patience
        })
    }

    /// Whether all gateways have answered once, or have been waited for.
    pub fn is_over(&self) -> bool {
        self.answered >= self.gateways.len() || Instant::now() >= self.patience
    }
}
