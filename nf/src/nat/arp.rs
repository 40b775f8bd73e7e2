//! Answers ARP for the pool (RFC 826; as a proxy, RFC 1027).

use core::net::Ipv4Addr;

use chainplane_dataplane::function::{Context, OUTSIDE, Verdict};
use chainplane_dataplane::packet::{Mac, Packet};

use super::pool::Pool;
use super::process::{NatCounter, untouched};

/// Ethernet and IPv4 addresses, request.
const REQUEST: [u8; 8] = [0, 1, 8, 0, 6, 4, 0, 1];

/// Answers a request from outside for an address of the pool; anything else passes.
pub(super) fn process(cx: &mut Context<'_>, mut packet: Packet, pool: &Pool, mac: Mac) -> Verdict {
    let l3 = packet.layers().l3 as usize;
    let Some((station, reply)) = packet
        .data()
        .get(l3..)
        .and_then(|body| answer(body, pool, mac))
    else {
        return untouched(cx, packet, OUTSIDE);
    };
    if let Some(body) = packet.data_mut().get_mut(l3..l3 + reply.len()) {
        body.copy_from_slice(&reply);
    }
    cx.set_macs(&mut packet, mac, station);
    cx.count(NatCounter::ArpAnswered);
    Verdict::Leave(OUTSIDE, packet)
}

/// The reply to a request that someone has to answer, and to whom.
fn answer(body: &[u8], pool: &Pool, mac: Mac) -> Option<(Mac, [u8; 28])> {
    let body: &[u8; 28] = body.first_chunk()?;
    let station = Mac(*body[8..].first_chunk()?);
    let (sender, target) = (&body[14..18], &body[24..28]);
    let wanted = Ipv4Addr::from(*target.first_chunk()?);
    // Who announces the address as its own does not ask for it (RFC 5227).
    if body[..8] != REQUEST
        || station.is_multicast()
        || sender == target
        || !pool.contains(wanted.into())
    {
        return None;
    }
    let mut reply = [0; 28];
    reply[..8].copy_from_slice(&REQUEST);
    reply[7] = 2;
    reply[8..14].copy_from_slice(&mac.0);
    reply[14..18].copy_from_slice(target);
    reply[18..24].copy_from_slice(&station.0);
    reply[24..28].copy_from_slice(sender);
    Some((station, reply))
}
