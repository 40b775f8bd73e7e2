//! A guest's server: answers requests on TCP ports.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp;
use smoltcp::time::Duration;

use super::protocol::{self, MAX_LINE};
use super::stack::Stack;
use super::wire::Wire;

/// Connections to one port at a time; whoever comes then is refused.
const CONNECTIONS: usize = 8;
/// A socket's buffers, in bytes.
const RECEIVE_BUFFER: usize = 2 * MAX_LINE;
const SEND_BUFFER: usize = 64 << 10;
/// A client that is silent for so long is gone; it is asked from time to time.
const TIMEOUT: Duration = Duration::from_secs(20);
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// What a guest has served, for others to see.
#[derive(Debug, Default)]
pub struct Served {
    requests: AtomicU64,
    bytes: AtomicU64,
}

impl Served {
    /// Requests that were answered in full.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Bytes that those asked for.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn add(&self, bytes: u64) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// All ports of a guest that serves.
pub struct Server {
    name: String,
    served: Arc<Served>,
    seats: Vec<Seat>,
}

impl Server {
    /// Listens on `ports`.
    pub fn new<W: Wire>(
        stack: &mut Stack<W>,
        name: &str,
        ports: &[u16],
        served: Arc<Served>,
    ) -> Self {
        let seat = |port: &u16| Seat::new(stack, *port);
        let ports = ports.iter().flat_map(|port| [port; CONNECTIONS]);
        Self {
            name: name.to_owned(),
            served,
            seats: ports.map(seat).collect(),
        }
    }

    /// Goes on with every connection as far as it can.
    pub fn step<W: Wire>(&mut self, stack: &mut Stack<W>) {
        for seat in &mut self.seats {
            let socket = stack.sockets.get_mut(seat.handle);
            seat.step(socket, &self.name, &self.served);
        }
    }
}

/// A place for one connection.
struct Seat {
    handle: SocketHandle,
    port: u16,
    line: Vec<u8>,
    sending: Option<Sending>,
}

/// An answer under way.
struct Sending {
    head: Vec<u8>,
    sent: u64,
    bytes: u64,
}

impl Seat {
    fn new<W: Wire>(stack: &mut Stack<W>, port: u16) -> Self {
        let buffer = |len| tcp::SocketBuffer::new(vec![0; len]);
        let mut socket = tcp::Socket::new(buffer(RECEIVE_BUFFER), buffer(SEND_BUFFER));
        socket.set_nagle_enabled(false);
        socket.set_timeout(Some(TIMEOUT));
        socket.set_keep_alive(Some(KEEP_ALIVE));
        Self {
            handle: stack.sockets.add(socket),
            port,
            line: Vec::with_capacity(MAX_LINE),
            sending: None,
        }
    }

    fn step(&mut self, socket: &mut tcp::Socket<'_>, name: &str, served: &Served) {
        if !socket.is_open() {
            // After a reset, the address of the other end stays until the reset is sent.
            if socket.state() == tcp::State::TimeWait || socket.remote_endpoint().is_none() {
                self.line.clear();
                self.sending = None;
                let _ = socket.listen(self.port);
            }
            return;
        }
        loop {
            if self.sending.is_none() && !self.read(socket, name) {
                break;
            }
            if !self.write(socket, served) {
                break;
            }
        }
        if self.sending.is_none() && !socket.may_recv() && socket.may_send() {
            socket.close();
        }
    }

    /// Reads a request's line; true when it is complete.
    fn read(&mut self, socket: &mut tcp::Socket<'_>, name: &str) -> bool {
        let room = MAX_LINE - self.line.len();
        let line = &mut self.line;
        let take = |bytes: &mut [u8]| {
            let bytes = &bytes[..bytes.len().min(room)];
            let end = bytes.iter().position(|b| *b == b'\n');
            line.extend_from_slice(&bytes[..end.unwrap_or(bytes.len())]);
            (end.map_or(bytes.len(), |end| end + 1), end.is_some())
        };
        if !socket.can_recv() {
            return false;
        }
        let complete = socket.recv(take).unwrap_or(false);
        if !complete && self.line.len() < MAX_LINE {
            // The receive buffer may have wrapped round in the middle of the line.
            return socket.can_recv() && self.read(socket, name);
        }
        let request = protocol::parse_request(&self.line).filter(|_| complete);
        self.line.clear();
        let (Some(bytes), Some(client)) = (request, socket.remote_endpoint()) else {
            socket.abort();
            return false;
        };
        self.sending = Some(Sending {
            head: protocol::answer(name, client.into()).into_bytes(),
            sent: 0,
            bytes,
        });
        true
    }

    /// Writes as much of the answer as there is room for; true when that was all of it.
    fn write(&mut self, socket: &mut tcp::Socket<'_>, served: &Served) -> bool {
        let Some(sending) = &mut self.sending else {
            return false;
        };
        while socket.can_send() && !sending.is_complete() {
            if socket.send(|room| sending.fill(room)).is_err() {
                return false;
            }
        }
        let complete = sending.is_complete();
        if complete {
            served.add(sending.bytes);
            self.sending = None;
        }
        complete
    }
}

impl Sending {
    fn is_complete(&self) -> bool {
        self.head.is_empty() && self.sent == self.bytes
    }

    /// Writes the next bytes to `room`.
    fn fill(&mut self, room: &mut [u8]) -> (usize, ()) {
        if !self.head.is_empty() {
            let len = self.head.len().min(room.len());
            room[..len].copy_from_slice(&self.head[..len]);
            self.head.drain(..len);
            return (len, ());
        }
        let left = usize::try_from(self.bytes - self.sent).unwrap_or(usize::MAX);
        let len = left.min(room.len());
        protocol::fill(self.sent, &mut room[..len]);
        self.sent += len as u64;
        (len, ())
    }
}
