//! A packet socket on an interface of the host.
//!
//! What comes in by the interface is read from a ring that the kernel fills; what goes out is handed over with one
//! system call a batch. The host's own network stack sees the incoming packets, too: the interface should have no
//! address.
//!
//! An interface that is set down, or deleted, makes the port drop packets as `down`; once one of that name is there
//! again and up, the port goes on with it.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::Duration;

use arrayvec::ArrayVec;
use chainplane_vhost::net::NetHeader;
use rustix::io::Errno;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, sendmmsg, sockopt};

use super::interface::{self, Name};
use super::packet_ring::{PacketSocket, Slot};
use crate::offload;
use crate::packet::{BURST, Batch, LARGE, Packet};
use crate::port::{Offloads, Port, PortContext, PortCounter, PortDrop};
use crate::time::Time;

/// From one look at the interface's state to the next.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Bytes of a VLAN tag, and of the addresses in front of it.
const TAG: usize = 4;
const ADDRESSES: usize = 12;

/// How an af-packet port is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AfPacketConfig {
    /// The interface's name, 15 bytes at most.
    pub interface: String,
    /// What the kernel or the interface's hardware completes in packets that leave. Cutting needs `checksum`. UDP is
    /// cut where the kernel knows how to (6.2 and newer).
    pub offloads: Offloads,
}

/// An af-packet port.
pub struct AfPacket {
    socket: PacketSocket,
    name: Name,
    looked: Time,
    offloads: Offloads,
}

impl AfPacket {
    /// Opens the socket. The interface need not be up.
    ///
    /// # Errors
    /// With what could not be done and what is missing for it: there is no interface of that name, or the
    /// capability `CAP_NET_RAW` is missing.
    pub fn open(config: &AfPacketConfig) -> io::Result<Self> {
        let name = Name::new(&config.interface)?;
        if !config.offloads.is_consistent() {
            let message = "a packet cannot be left uncut without leaving its checksum";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let udp = interface::knows_udp_trains();
        let wrong = |error: io::Error| {
            let hint = match error.raw_os_error() {
                Some(libc::EPERM) => " (the capability CAP_NET_RAW is missing)",
                _ => "",
            };
            let message = format!(
                "cannot open a packet socket on `{}`: {error}{hint}",
                name.as_str()
            );
            io::Error::new(error.kind(), message)
        };
        let socket = PacketSocket::open().map_err(wrong)?;
        let index = interface::index(&name).map_err(wrong)?.ok_or_else(|| {
            let message = format!("there is no interface `{}`", name.as_str());
            io::Error::new(io::ErrorKind::NotFound, message)
        })?;
        socket.bind(index).map_err(wrong)?;
        Ok(Self {
            socket,
            name,
            looked: Time(0),
            offloads: Offloads {
                udp4: config.offloads.udp4 && udp,
                udp6: config.offloads.udp6 && udp,
                ..config.offloads
            },
        })
    }

    /// Binds to a new interface of the name where the old one has gone.
    fn look(&mut self, cx: &PortContext<'_>) {
        cx.tally.add(PortCounter::Missed, self.socket.missed());
        // Clears an error that the interface's change of state left behind, or it would fail the next send.
        let _ = sockopt::socket_error(&self.socket);
        if !self.socket.is_bound()
            && let Ok(Some(index)) = interface::index(&self.name)
        {
            // It may be gone again; there is another look later.
            let _ = self.socket.bind(index);
        }
    }
}

/// Copies a packet out of the ring, or reads it from the socket if it is longer than a slot.
fn copy(
    socket: &PacketSocket,
    slot: &Slot<'_>,
    cx: &mut PortContext<'_>,
) -> Result<Packet, PortDrop> {
    // A tag that the kernel took out needs room between the addresses and the rest.
    let len = slot.len + slot.vlan.map_or(0, |_| TAG);
    let behind = len - slot.len + ADDRESSES.min(slot.len);
    let Some(mut packet) = blank(cx, len) else {
        if slot.queued {
            // It has to leave the queue all the same, or the next one would be mistaken for it.
            let _ = rustix::io::read(socket, &mut [0; NetHeader::SHORT_LEN]);
        }
        return Err(if len > LARGE {
            PortDrop::TooLong
        } else {
            PortDrop::NoBuffer
        });
    };
    let (front, rest) = packet.data_mut().split_at_mut(behind);
    let front = &mut front[..ADDRESSES.min(slot.len)];
    let mut header = slot.header;
    if slot.queued {
        let mut parts = [&mut header[..], front, rest].map(IoSliceMut::new);
        if rustix::io::readv(socket, &mut parts) != Ok(NetHeader::SHORT_LEN + slot.len) {
            return Err(PortDrop::Refused);
        }
    } else if slot.data.len() == slot.len {
        let (addresses, others) = slot.data.split_at(front.len());
        front.copy_from_slice(addresses);
        rest.copy_from_slice(others);
    } else {
        // The queue for long packets was full.
        return Err(PortDrop::NoBuffer);
    }
    finish(packet, header, slot)
}

/// Puts the VLAN tag back in its place, and notes what the sender left undone.
fn finish(
    mut packet: Packet,
    header: [u8; NetHeader::SHORT_LEN],
    slot: &Slot<'_>,
) -> Result<Packet, PortDrop> {
    let mut header = NetHeader::from_short(header);
    if let Some(tag) = slot.vlan {
        packet
            .data_mut()
            .get_mut(ADDRESSES..ADDRESSES + TAG)
            .ok_or(PortDrop::MalformedLink)?
            .copy_from_slice(&tag);
        // The kernel counts from the start of the packet without the tag.
        header.csum_start = header.csum_start.saturating_add(TAG as u16);
        header.hdr_len = header.hdr_len.saturating_add(TAG as u16);
    }
    *packet.offload_mut() = offload::from_header(&header, packet.len())?;
    Ok(packet)
}

fn blank(cx: &mut PortContext<'_>, len: usize) -> Option<Packet> {
    let mut packet = cx.pool.take(len)?;
    packet.extend(len)?;
    Some(packet)
}

impl Port for AfPacket {
    fn receive(&mut self, cx: &mut PortContext<'_>, batch: &mut Batch) {
        if cx.now.since(self.looked) >= LOOK_INTERVAL {
            self.looked = cx.now;
            self.look(cx);
        }
        for _ in 0..batch.remaining_capacity() {
            let Some(slot) = self.socket.peek() else {
                return;
            };
            match copy(&self.socket, &slot, cx) {
                Ok(packet) => batch.push(packet),
                Err(reason) => cx.tally.refuse(reason, slot.len),
            }
            self.socket.release();
        }
    }

    fn send(&mut self, cx: &mut PortContext<'_>, batch: &mut Batch) {
        send_all(&self.socket, cx, batch);
        batch.clear();
    }

    fn offloads(&self) -> Offloads {
        self.offloads
    }

    fn wakeups(&self, fds: &mut Vec<RawFd>) -> u64 {
        let fd = self.socket.as_fd().as_raw_fd();
        fds.push(fd);
        fd as u64
    }

    fn arm(&mut self) -> bool {
        self.socket.is_ready()
    }
}

/// Hands all packets to the kernel. One that it refuses costs a further call for those behind it.
fn send_all(socket: &PacketSocket, cx: &PortContext<'_>, packets: &[Packet]) {
    let headers: ArrayVec<_, BURST> = packets
        .iter()
        .map(|packet| offload::to_header(packet).to_short())
        .collect();
    let parts: ArrayVec<_, BURST> = headers
        .iter()
        .zip(packets)
        .map(|(header, packet)| [IoSlice::new(header), IoSlice::new(packet.data())])
        .collect();
    let mut control: [SendAncillaryBuffer<'_, '_, '_>; BURST] =
        std::array::from_fn(|_| SendAncillaryBuffer::default());
    let mut messages: ArrayVec<_, BURST> = parts
        .iter()
        .zip(&mut control)
        .map(|(parts, control)| MMsgHdr::new(parts, control))
        .collect();
    let mut at = 0;
    while at < packets.len() {
        let error = match sendmmsg(socket, &mut messages[at..], SendFlags::DONTWAIT) {
            Ok(count) if count > 0 => {
                let sent = &packets[at..(at + count).min(packets.len())];
                let bytes: usize = sent.iter().map(Packet::len).sum();
                cx.tally.sent(sent.len() as u64, bytes as u64);
                at += sent.len();
                continue;
            }
            Ok(_) => Errno::AGAIN,
            Err(error) => error,
        };
        let rest = (packets.len() - at) as u64;
        match error {
            Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM => {
                return cx.tally.drop(PortDrop::Full, rest);
            }
            Errno::NETDOWN | Errno::NXIO | Errno::NODEV => {
                return cx.tally.drop(PortDrop::Down, rest);
            }
            Errno::MSGSIZE => cx.tally.drop(PortDrop::TooLong, 1),
            _ => cx.tally.drop(PortDrop::Refused, 1),
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests;
