//! What many workers must know to agree on whose a packet is.

use core::net::Ipv4Addr;

use chainplane_dataplane::crew::Claim;

use super::forward::Forwards;
use super::pool::Pool;
use crate::config::Prefix;

/// Where hosts without addresses of their own are (RFC 1918, RFC 6598).
const PRIVATE: [(Ipv4Addr, u8); 4] = [
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
];

/// Both ends of each forward.
pub(super) fn of_forwards(forwards: &Forwards) -> Vec<Claim> {
    let both = forwards.iter().flat_map(|forward| {
        [forward.outer, forward.inner].map(|end| Claim::Fixed {
            address: end.address,
            protocol: forward.protocol,
            port: end.port,
        })
    });
    both.collect()
}

/// Each of the pool's addresses.
pub(super) fn of_pool(pool: &Pool) -> impl Iterator<Item = Claim> {
    let addresses = (0..pool.len()).filter_map(|number| pool.nth(number));
    addresses.map(|address| Claim::Pool {
        address: address.into(),
    })
}

/// Hosts that are to have one mapping for each of their ports. Where everyone is inside, nobody would be outside.
pub(super) fn of_inside(inside: &[Prefix]) -> Vec<Claim> {
    let configured = inside.iter().map(|prefix| Claim::Inside {
        address: prefix.address(),
        length: prefix.len(),
    });
    let private = PRIVATE.iter().map(|(address, length)| Claim::Inside {
        address: (*address).into(),
        length: *length,
    });
    if inside.is_empty() {
        private.collect()
    } else {
        configured.collect()
    }
}
