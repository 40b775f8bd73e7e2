//! Which inside endpoint each port of a NAT's pool stands for: what may differ between one worker and several is which
//! port that is, and nothing else.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ICMP: u8 = 1;

/// NATs in a row, at most.
const MOST_NATS: usize = 24;

/// A port of a pool was given to another endpoint than before. What is kept elsewhere of the one before, by a firewall
/// outside of the NAT, is met by the other one then, where others of that port's number would not be.
#[derive(Debug)]
pub struct Reassigned;

/// What one side knows its ports for.
#[derive(Default)]
pub struct Names(HashMap<(u8, SocketAddr), SocketAddr>);

impl Names {
    /// Learns from a NAT's sessions, as it lists them.
    pub fn learn(&mut self, listed: &str) -> Result<(), Reassigned> {
        let words: Vec<_> = listed.split(' ').collect();
        let [protocol, src, ">", _, "as", outer, ..] = words[..] else {
            return Ok(());
        };
        let (Some(protocol), Ok(src), Ok(outer)) = (number(protocol), src.parse(), outer.parse())
        else {
            return Ok(());
        };
        if src == outer {
            return Ok(());
        }
        match self.0.insert((protocol, outer), src) {
            Some(before) if before != src => Err(Reassigned),
            _ => Ok(()),
        }
    }

    /// The same number on both sides for a port of a pool, and any other port as it is.
    pub fn port(&self, protocol: u8, address: IpAddr, port: u16) -> u16 {
        let mut end = SocketAddr::new(address, port);
        let mut name = 0;
        for _ in 0..MOST_NATS {
            let Some(inner) = self.0.get(&(protocol, end)) else {
                break;
            };
            end = *inner;
            name = 1;
        }
        if name == 0 {
            return port;
        }
        let IpAddr::V4(inner) = end.ip() else {
            return port;
        };
        let mixed = (u64::from(inner.to_bits()) << 16 | u64::from(end.port()))
            .wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 48) as u16
    }

    /// A session as it is listed, with the same numbers for ports of pools.
    pub fn session(&self, listed: &str) -> String {
        let first = listed.split(' ').next().and_then(number);
        let protocol = first.unwrap_or(if listed.contains("/tcp") { TCP } else { UDP });
        let word = |word: &str| match word.parse::<SocketAddr>() {
            Ok(end) => {
                let port = self.port(protocol, end.ip(), end.port());
                SocketAddr::new(end.ip(), port).to_string()
            }
            Err(_) => word.to_owned(),
        };
        let words: Vec<_> = listed.split(' ').map(word).collect();
        words.join(" ")
    }
}

fn number(protocol: &str) -> Option<u8> {
    match protocol {
        "tcp" => Some(TCP),
        "udp" => Some(UDP),
        "icmp" => Some(ICMP),
        _ => None,
    }
}
