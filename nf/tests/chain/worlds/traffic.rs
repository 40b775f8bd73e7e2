//! What a world's hosts send: few flows, many packets of each, in every shape.

use std::net::IpAddr;

use chainplane_dataplane::packet::Offload;

use super::config::PORTS;
use super::dice::Dice;
use super::map::{End, router_address, v4};
use super::world::World;
use crate::frame::{ACK, FIN, MacBytes, Quirk, RST, SYN, Spec, Transport, answer_to};

/// Packets that a host sends to another.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    /// Its sender, by number.
    pub host: usize,
    pub port: usize,
    pub src: IpAddr,
    pub dst: IpAddr,
    pub mac: MacBytes,
    pub transport: Transport,
    /// The tag control information, if the frames are tagged.
    pub tag: Option<u16>,
}

/// A frame, where it comes in, and what is left to do.
pub struct Sent {
    pub port: usize,
    pub bytes: Vec<u8>,
    pub offload: Offload,
}

impl Sent {
    /// A frame of which nothing is left to do.
    pub fn plain(port: usize, bytes: Vec<u8>) -> Self {
        Self {
            port,
            bytes,
            offload: Offload::default(),
        }
    }
}

impl Flow {
    pub fn draw(world: &World, dice: &mut Dice) -> Self {
        let host = dice.below(world.hosts.len());
        let own = &world.hosts[host];
        let chain = world.map.chain_of_port(own.port);
        let side = world.map.chains[chain].side_of(End::Port(own.port));
        let src = dice.pick(&own.addresses);
        let mut mac = world.door(chain, side, dice);
        let mut transport = transport(dice, None);
        let dst = match dice.weighted(&[45, 35, 5, 12, 3]) {
            0 => {
                let other = &world.hosts[dice.below(world.hosts.len())];
                if world.map.routers == 0 {
                    mac = other.mac;
                }
                other
                    .addresses
                    .iter()
                    .copied()
                    .find(|other| other.is_ipv6() == src.is_ipv6())
            }
            1 => {
                let fits = world
                    .services
                    .iter()
                    .filter(|service| service.address.is_ipv6() == src.is_ipv6());
                let fits: Vec<_> = fits.collect();
                let service = fits.get(dice.below(fits.len()));
                service.map(|service| {
                    if service.chain == chain && side == 1 && dice.chance(80) {
                        mac = service.mac;
                    }
                    if dice.chance(90) {
                        transport = self::transport(dice, Some((service.tcp, service.port)));
                    }
                    service.address
                })
            }
            2 => Some(router_address(
                dice.below(world.map.chains.len()),
                dice.below(2),
                src.is_ipv6(),
            )),
            3 if src.is_ipv6() => "2001:db8::50".parse().ok(),
            3 => "192.0.2.50".parse().ok(),
            _ => "172.16.0.1".parse().ok(),
        };
        let dst = dst.filter(|dst| dst.is_ipv6() == src.is_ipv6());
        let fallback = if src.is_ipv6() { src } else { v4(chain, 99) };
        let far = chain + 1 == world.map.chains.len() && dice.chance(30);
        let src = match src {
            IpAddr::V4(_) if far => IpAddr::from([192, 0, 2, 7]),
            IpAddr::V6(_) if far => "2001:db8::7".parse().unwrap_or(src),
            _ => src,
        };
        let tagged = dice.chance(if world.map.routers == 0 { 20 } else { 2 });
        Self {
            host,
            port: own.port,
            src,
            dst: dst.unwrap_or(fallback),
            mac,
            transport,
            tag: tagged.then(|| dice.pick(&[0, 7, 7, 0x6007, 8])),
        }
    }

    /// From the same port to somebody else.
    pub fn sibling(self, world: &World, dice: &mut Dice) -> Self {
        let other = Self::draw(world, dice);
        if other.port != self.port || other.dst.is_ipv6() != self.dst.is_ipv6() {
            return other;
        }
        Self {
            dst: other.dst,
            ..self
        }
    }

    /// One packet of it.
    pub fn packet(&self, world: &World, dice: &mut Dice, flags: Option<u8>) -> Sent {
        // The same identifier both ways at once.
        let transport = match self.transport {
            Transport::Echo { id, reply } if dice.chance(10) => {
                Transport::Echo { id, reply: !reply }
            }
            transport => transport,
        };
        let spec = Spec {
            macs: (world.hosts[self.host].mac, self.mac),
            src: self.src,
            dst: self.dst,
            transport,
            payload: 0,
            quirk: Quirk::None,
            salt: 0,
        };
        varied(spec, self.port, self.tag, dice, flags)
    }
}

fn transport(dice: &mut Dice, service: Option<(bool, u16)>) -> Transport {
    let from = 4000 + dice.below(6) as u16;
    let to = service.map_or_else(|| dice.pick(&PORTS), |service| service.1);
    let kind = match service {
        Some((true, _)) => 0,
        Some((false, _)) => 1,
        None => dice.weighted(&[50, 32, 15, 3]),
    };
    match kind {
        0 => Transport::Tcp { from, to, flags: 0 },
        1 => Transport::Udp { from, to },
        2 => Transport::Echo {
            id: from,
            reply: dice.chance(10),
        },
        _ => Transport::Other(47),
    }
}

/// What the receiver of a frame sends back; `None` for a frame that nobody answers.
pub fn answer(seen: &[u8], port: usize, dice: &mut Dice, flags: Option<u8>) -> Option<Sent> {
    let (tag, plain) = untagged(seen);
    let spec = answer_to(&plain, 0, 0)?;
    Some(varied(spec, port, tag, dice, flags))
}

/// Gives a packet of a flow what makes it differ from others; one whose flags are given is ordinary.
fn varied(
    mut spec: Spec,
    port: usize,
    tag: Option<u16>,
    dice: &mut Dice,
    flags: Option<u8>,
) -> Sent {
    spec.salt = dice.number();
    spec.payload = dice.below(60);
    let drawn = self::flags(dice);
    if let Transport::Tcp { flags: own, .. } = &mut spec.transport {
        *own = flags.unwrap_or(drawn);
    }
    if flags.is_none() {
        spec.payload = payload(dice);
        spec.quirk = quirk(dice);
        if dice.chance(2) {
            spec.macs.1[5] ^= 0x40;
        }
        if dice.chance(3) {
            spec.macs.0[4] ^= 0x80;
        }
        if dice.chance(1) {
            spec.macs.1 = [0xff; 6];
        }
    }
    let (mut bytes, mut offload) = spec.build();
    offload.ecn = offload.gso != chainplane_dataplane::packet::Gso::None && dice.chance(20);
    if let (Some(tag), false) = (
        tag,
        matches!(spec.quirk, Quirk::Vlan(_) | Quirk::TwoVlans(..)),
    ) {
        insert_tag(&mut bytes, &mut offload, tag);
    }
    Sent {
        port,
        bytes,
        offload,
    }
}

fn insert_tag(bytes: &mut Vec<u8>, offload: &mut Offload, tag: u16) {
    if bytes.len() < 12 {
        return;
    }
    let [high, low] = tag.to_be_bytes();
    bytes.splice(12..12, [0x81, 0, high, low]);
    if offload.needs_checksum {
        offload.checksum_start += 4;
    }
}

fn untagged(frame: &[u8]) -> (Option<u16>, Vec<u8>) {
    match frame.get(12..16) {
        Some([0x81, 0, high, low]) => {
            let tag = u16::from_be_bytes([*high, *low]);
            (Some(tag), [&frame[..12], &frame[16..]].concat())
        }
        _ => (None, frame.to_vec()),
    }
}

fn flags(dice: &mut Dice) -> u8 {
    match dice.weighted(&[78, 3, 2, 3, 2, 8, 2]) {
        0 => ACK,
        1 => SYN,
        2 => SYN | ACK,
        3 => FIN | ACK,
        4 => RST,
        // PSH, URG, ECE and CWR, which say nothing of the connection.
        5 => ACK | (dice.number() as u8 & 0xe8),
        _ => dice.number() as u8,
    }
}

fn payload(dice: &mut Dice) -> usize {
    match dice.weighted(&[80, 12, 8]) {
        0 => dice.below(60),
        1 => dice.between(500, 1480),
        _ => dice.between(1400, 9000),
    }
}

fn quirk(dice: &mut Dice) -> Quirk {
    let word = dice.number() as u16;
    match dice.weighted(&[
        150, 5, 2, 2, 2, 1, 4, 4, 8, 16, 1, 1, 8, 1, 1, 8, 1, 6, 3, 1,
    ]) {
        0 => Quirk::None,
        1 => Quirk::Ttl(dice.pick(&[0, 1, 2, 3, 4, 5, 255])),
        2 => Quirk::FirstFragment,
        3 => Quirk::LaterFragment,
        4 => Quirk::Options,
        5 => Quirk::BadIpChecksum,
        6 => Quirk::BadTransportChecksum(dice.pick(&[0, 0xffff, 1, 0xfffe, word])),
        7 => Quirk::UdpWithoutChecksum,
        8 => Quirk::DontFragment,
        9 => Quirk::Partial,
        10 => Quirk::PartialInside,
        11 => Quirk::PartialAt(word % 200),
        12 => Quirk::Gso(dice.pick(&[600, 1200, 1360, 1448, 4000])),
        13 => Quirk::Vlan(dice.pick(&[0, 7])),
        14 => Quirk::TwoVlans(7, dice.pick(&[0, 7])),
        15 => Quirk::TypeOfService(word as u8),
        16 => Quirk::Cut(word % 80),
        17 => Quirk::Padded(dice.between(1, 40) as u8),
        18 => Quirk::Flipped(word % 80, dice.number() as u8),
        _ => Quirk::LengthField(word),
    }
}
