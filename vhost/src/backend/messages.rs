//! The messages that the protocol crate does not take, or takes too strictly: read off the socket,
//! checked and answered here.
//!
//! The control thread looks at the header of every message before anyone takes it. What is ours
//! goes to [`take`], everything else to the crate. The rules are the crate's: a message that is
//! malformed, or whose protocol feature was not negotiated, ends the connection; one that is
//! refused gets a negative acknowledgement, and ends the connection if none was asked for.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendFlags,
    SocketType, recvmsg, send, sockopt,
};
use vhost::vhost_user::message::VhostUserProtocolFeatures as Protocol;
use vhost::vhost_user::{Error, Result};

/// Bytes of a message header: request, flags, size.
pub(super) const HEADER: usize = 12;
/// Header flags: version 1 of the protocol.
const VERSION: u32 = 1;
/// Header flag: this is an answer.
const REPLY: u32 = 1 << 2;
/// Header flag: the sender waits for an acknowledgement.
const NEED_REPLY: u32 = 1 << 3;
/// Longest payload of the messages that are ours, in bytes.
const MAX_PAYLOAD: usize = IOTLB;
/// Bytes of an IOTLB message as the kernel's structure lays it out, and as the protocol's text does.
const IOTLB: usize = 32;
const IOTLB_UNPADDED: usize = 26;
/// File descriptors taken with a message; the kernel closes what is beyond.
const MAX_FDS: usize = 8;

/// Request numbers (vhost-user, "Front-end message types").
const GET_FEATURES: u32 = 1;
const SET_FEATURES: u32 = 2;
const SET_LOG_BASE: u32 = 6;
const SET_LOG_FD: u32 = 7;
const GET_VRING_BASE: u32 = 11;
const GET_PROTOCOL_FEATURES: u32 = 15;
const GET_QUEUE_NUM: u32 = 17;
const SET_VRING_ENABLE: u32 = 18;
const SEND_RARP: u32 = 19;
const NET_SET_MTU: u32 = 20;
const SET_BACKEND_REQ_FD: u32 = 21;
const IOTLB_MSG: u32 = 22;
const GET_INFLIGHT_FD: u32 = 31;
const GET_MAX_MEM_SLOTS: u32 = 36;
const SET_STATUS: u32 = 39;
const GET_STATUS: u32 = 40;
/// The back end's request for a translation ("Back-end message types").
const BACKEND_IOTLB_MSG: u32 = 1;

/// The header of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    request: u32,
    flags: u32,
    /// Bytes of the payload.
    pub(super) size: u32,
}

impl Header {
    pub(super) fn from_bytes(bytes: [u8; HEADER]) -> Self {
        let word = |at: usize| {
            u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        Self {
            request: word(0),
            flags: word(4),
            size: word(8),
        }
    }

    /// The sender waits for an acknowledgement, if that was negotiated.
    pub(super) fn need_reply(self) -> bool {
        self.flags & NEED_REPLY != 0
    }

    /// Whether the driver's choice of features comes with it.
    pub(super) fn sets_features(self) -> bool {
        self.request == SET_FEATURES
    }

    /// Whether the answer is what was asked for, so that there is none for a refusal. (The crate
    /// answers `GET_CONFIG` in either case.)
    pub(super) fn asks(self) -> bool {
        matches!(
            self.request,
            GET_FEATURES
                | SET_LOG_BASE
                | GET_VRING_BASE
                | GET_PROTOCOL_FEATURES
                | GET_QUEUE_NUM
                | GET_INFLIGHT_FD
                | GET_MAX_MEM_SLOTS
        )
    }

    /// Whether the message is one of those that [`take`] takes.
    pub(super) fn is_ours(self) -> bool {
        form(self.request).is_some()
    }
}

/// An IOTLB message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Iotlb {
    /// First I/O virtual address.
    pub(super) iova: u64,
    /// Length in bytes.
    pub(super) size: u64,
    /// Address of the first byte in the front end's process.
    pub(super) user: u64,
    /// Bits of [`access`](crate::iotlb::access).
    pub(super) access: u8,
    /// What kind of message it is.
    pub(super) kind: u8,
}

/// What a message asks for. Its form was checked, its sense was not.
#[derive(Debug)]
pub(super) enum Request {
    /// Frames of a queue may pass, or not.
    Enable(u32, bool),
    /// The network shall learn that the guest with this MAC address is here.
    Announce([u8; 6]),
    /// The MTU that the guest is told, in bytes.
    Mtu(u64),
    /// Where the back end's own requests go.
    Channel(UnixStream),
    /// Translations of an IOMMU.
    Translation(Iotlb),
    /// The virtio device status, as the driver sets it.
    SetStatus(u64),
    /// The driver asks for the virtio device status.
    GetStatus,
    /// Whoever has this event wants to be told that the log of written pages changed.
    LogChanged(OwnedFd),
}

/// What a well-formed message of ours looks like.
struct Form {
    /// Bytes of the payload.
    payload: usize,
    /// File descriptors that come with it.
    fds: usize,
    /// The protocol feature that allows it.
    feature: Protocol,
}

fn form(request: u32) -> Option<Form> {
    let (payload, fds, feature) = match request {
        // QEMU switches the queues of a network card on and off before it sets the features, and
        // relies on it afterwards; the crate insists on the order that is written.
        SET_VRING_ENABLE => (8, 0, Protocol::empty()),
        SEND_RARP => (8, 0, Protocol::RARP),
        NET_SET_MTU => (8, 0, Protocol::MTU),
        SET_BACKEND_REQ_FD => (0, 1, Protocol::BACKEND_REQ),
        IOTLB_MSG => (IOTLB, 0, Protocol::BACKEND_REQ),
        SET_STATUS => (8, 0, Protocol::STATUS),
        GET_STATUS => (0, 0, Protocol::STATUS),
        SET_LOG_FD => (0, 1, Protocol::LOG_SHMFD),
        _ => return None,
    };
    Some(Form {
        payload,
        fds,
        feature,
    })
}

/// Takes a message of ours, which has arrived whole, off the socket. `negotiated` are the protocol
/// features.
///
/// # Errors
/// A message that is malformed or not allowed, after which the connection can't go on.
pub(super) fn take(stream: &UnixStream, header: Header, negotiated: Protocol) -> Result<Request> {
    let form = form(header.request).ok_or(Error::InvalidMessage)?;
    let len = header.size as usize;
    let unpadded = header.request == IOTLB_MSG && len == IOTLB_UNPADDED;
    if len != form.payload && !unpadded || header.flags & !NEED_REPLY != VERSION {
        return Err(Error::InvalidMessage);
    }
    let (payload, mut fds) = receive(stream, len)?;
    if fds.len() != form.fds {
        return Err(Error::IncorrectFds);
    }
    if !negotiated.contains(form.feature) {
        return Err(Error::InactiveOperation(form.feature));
    }
    let word = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&payload[at..at + 8]);
        u64::from_ne_bytes(bytes)
    };
    let value = word(0);
    Ok(match header.request {
        SET_VRING_ENABLE => match (value as u32, value >> 32) {
            (queue, on @ 0..=1) => Request::Enable(queue, on == 1),
            _ => return Err(Error::InvalidParam),
        },
        SEND_RARP => {
            let mut mac = [0; 6];
            mac.copy_from_slice(&payload[..6]);
            Request::Announce(mac)
        }
        NET_SET_MTU => Request::Mtu(value),
        SET_BACKEND_REQ_FD => match fds.pop() {
            Some(fd) => Request::Channel(channel(fd)?),
            None => return Err(Error::IncorrectFds),
        },
        IOTLB_MSG => Request::Translation(Iotlb {
            iova: value,
            size: word(8),
            user: word(16),
            access: payload[24],
            kind: payload[25],
        }),
        SET_STATUS => Request::SetStatus(value),
        SET_LOG_FD => Request::LogChanged(fds.pop().ok_or(Error::IncorrectFds)?),
        _ => Request::GetStatus,
    })
}

/// The channel that a file descriptor is, if it can be one.
fn channel(fd: OwnedFd) -> Result<UnixStream> {
    let socket = |e: rustix::io::Errno| Error::InvalidSocketFd(e.into());
    if sockopt::socket_domain(&fd).map_err(socket)? != AddressFamily::UNIX {
        return Err(Error::NotUnixSocket);
    }
    if sockopt::socket_type(&fd).map_err(socket)? != SocketType::STREAM {
        return Err(Error::NotStreamSocket);
    }
    Ok(fd.into())
}

/// The back end's request for a translation, which wants no answer but the translation.
pub(super) fn iotlb_request(message: Iotlb) -> [u8; HEADER + IOTLB] {
    let mut bytes = [0; HEADER + IOTLB];
    let words = [BACKEND_IOTLB_MSG, VERSION, IOTLB as u32];
    for (at, word) in words.into_iter().enumerate() {
        bytes[4 * at..4 * at + 4].copy_from_slice(&word.to_ne_bytes());
    }
    let words = [message.iova, message.size, message.user];
    for (at, word) in words.into_iter().enumerate() {
        let at = HEADER + 8 * at;
        bytes[at..at + 8].copy_from_slice(&word.to_ne_bytes());
    }
    (bytes[HEADER + 24], bytes[HEADER + 25]) = (message.access, message.kind);
    bytes
}

/// Reads a header and `len` bytes behind it, with the file descriptors that come along.
fn receive(stream: &UnixStream, len: usize) -> Result<([u8; MAX_PAYLOAD], Vec<OwnedFd>)> {
    let mut bytes = [0; HEADER + MAX_PAYLOAD];
    let (mut got, mut fds) = (0, Vec::new());
    // A message that was sent in pieces is received in pieces.
    while got < HEADER + len {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let part = recvmsg(
            stream,
            &mut [IoSliceMut::new(&mut bytes[got..HEADER + len])],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT,
        )
        .map_err(|e| Error::SocketError(e.into()))?;
        if part.bytes == 0 {
            return Err(Error::Disconnected);
        }
        got += part.bytes;
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        if part.flags.contains(ReturnFlags::CTRUNC) {
            return Err(Error::IncorrectFds);
        }
    }
    let mut payload = [0; MAX_PAYLOAD];
    payload.copy_from_slice(&bytes[HEADER..]);
    Ok((payload, fds))
}

/// Answers a message of ours with what came of it: its value, or an acknowledgement where one is
/// due. Gives back the refusal.
///
/// # Errors
/// The refusal, or a socket that takes no answer.
pub(super) fn answer(
    stream: &UnixStream,
    header: Header,
    negotiated: Protocol,
    result: Result<Option<u64>>,
) -> Result<()> {
    let acknowledge = header.need_reply() && negotiated.contains(Protocol::REPLY_ACK);
    let value = match &result {
        Ok(Some(value)) => Some(*value),
        Ok(None) => acknowledge.then_some(0),
        Err(_) => acknowledge.then_some(1),
    };
    if let Some(value) = value {
        reply(stream, header.request, value)?;
    }
    result.map(|_| ())
}

fn reply(stream: &UnixStream, request: u32, value: u64) -> Result<()> {
    let mut bytes = [0; HEADER + 8];
    for (at, word) in [request, VERSION | REPLY, 8].into_iter().enumerate() {
        bytes[4 * at..4 * at + 4].copy_from_slice(&word.to_ne_bytes());
    }
    bytes[HEADER..].copy_from_slice(&value.to_ne_bytes());
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let sent =
            send(stream, rest, SendFlags::NOSIGNAL).map_err(|e| Error::SocketError(e.into()))?;
        rest = &rest[sent..];
    }
    Ok(())
}
