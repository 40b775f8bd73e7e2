//! A guest's TCP/IP stack.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use smoltcp::iface::{Config, Interface, PollIngressSingleResult, PollResult, SocketSet};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr};

use super::GuestSpec;
use super::card::Card;
use super::wire::Wire;

/// Frames taken in one turn at most, so that a guest under fire still sends, and hears when it has to stop.
const FRAMES: usize = 64;
/// The wait while the ring to the other side is full.
const FULL: Duration = Duration::from_millis(1);
/// First port of the range for clients (RFC 6335, section 6).
const FIRST_EPHEMERAL: u16 = 49_152;

/// The stack, and the sockets on it.
pub struct Stack<W> {
    card: Card<W>,
    pub interface: Interface,
    pub sockets: SocketSet<'static>,
    last_port: u16,
}

impl<W: Wire> Stack<W> {
    /// A stack with the guest's addresses and gateways.
    pub fn new(spec: &GuestSpec, wire: W) -> Self {
        let seed = RandomState::new().build_hasher().finish();
        let mut card = Card::new(wire);
        let mac = HardwareAddress::Ethernet(EthernetAddress(spec.mac.0));
        let mut config = Config::new(mac);
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut card, Instant::now());
        interface.update_ip_addrs(|addresses| {
            for address in &spec.addresses {
                // The configuration holds fewer than the stack has room for.
                let _ = addresses.push(IpCidr::new(address.address.into(), address.len));
            }
            if spec.addresses.iter().any(|a| a.address.is_ipv6()) {
                let _ = addresses.push(IpCidr::new(link_local(spec.mac.0).into(), 64));
            }
        });
        for gateway in &spec.gateways {
            let routes = interface.routes_mut();
            let _ = match gateway {
                IpAddr::V4(gateway) => routes.add_default_ipv4_route(*gateway),
                IpAddr::V6(gateway) => routes.add_default_ipv6_route(*gateway),
            };
        }
        Self {
            card,
            interface,
            sockets: SocketSet::new(Vec::new()),
            last_port: seed as u16,
        }
    }

    /// Takes what came in and sends what is due: a bounded amount of work.
    pub fn turn(&mut self) {
        let Self {
            card,
            interface,
            sockets,
            ..
        } = self;
        let now = Instant::now();
        interface.poll_maintenance(now);
        for _ in 0..FRAMES {
            match interface.poll_ingress_single(now, card, sockets) {
                PollIngressSingleResult::None => break,
                PollIngressSingleResult::PacketProcessed
                | PollIngressSingleResult::SocketStateChanged => {}
            }
        }
        for _ in 0..FRAMES {
            if interface.poll_egress(now, card, sockets) == PollResult::None {
                break;
            }
        }
        card.wire().flush();
    }

    /// How long the stack can wait for a frame before it wants a turn.
    pub fn patience(&mut self) -> Option<Duration> {
        let delay = self.interface.poll_delay(Instant::now(), &self.sockets);
        let delay = delay.map(Duration::from);
        if self.card.wire().can_send() {
            return delay;
        }
        Some(delay.unwrap_or(FULL).max(FULL))
    }

    pub fn wire(&mut self) -> &mut W {
        self.card.wire()
    }

    /// A port for the next connection; each comes again after all others.
    pub fn ephemeral_port(&mut self) -> u16 {
        self.last_port = self.last_port.wrapping_add(1);
        FIRST_EPHEMERAL | self.last_port
    }
}

/// The link-local address that goes with a MAC address (RFC 4291, appendix A).
fn link_local(mac: [u8; 6]) -> Ipv6Addr {
    let mut octets = [0; 16];
    octets[..2].copy_from_slice(&[0xfe, 0x80]);
    octets[8..11].copy_from_slice(&mac[..3]);
    octets[8] ^= 2;
    octets[11..13].copy_from_slice(&[0xff, 0xfe]);
    octets[13..].copy_from_slice(&mac[3..]);
    octets.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_local_addresses_follow_the_mac() {
        let address = link_local([0x02, 0x00, 0x5e, 0x10, 0x20, 0x30]);
        assert_eq!(address.to_string(), "fe80::5eff:fe10:2030");
    }
}
