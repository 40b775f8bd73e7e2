//! The fetch task: TCP connections to a guest that serves, one after the other.

use std::time::{Duration, Instant};

use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp;

use super::protocol::{self, MAX_LINE};
use super::stack::Stack;
use super::task::{Step, TaskResult};
use super::wire::Wire;
use crate::spec::file::{Expected, Fetch};

/// How long a connection that should come about may take, and each further piece of the answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a connection that should not come about is waited for: the first SYN and one more.
const SHORT_PATIENCE: Duration = Duration::from_millis(1500);
/// How long the end of a connection is waited for, once everything has come.
const CLOSING: Duration = Duration::from_secs(2);
/// A socket's buffers, in bytes.
const RECEIVE_BUFFER: usize = 64 << 10;
const SEND_BUFFER: usize = MAX_LINE;

/// A fetch under way. One socket serves all its connections.
pub struct FetchJob {
    fetch: Fetch,
    handle: SocketHandle,
    /// Connections begun.
    begun: u32,
    state: State,
    /// When the state is given up.
    deadline: Instant,
    /// When the next connection may begin.
    next: Instant,
}

enum State {
    /// Between two connections.
    Idle,
    /// A SYN is under way.
    Connecting,
    /// The answer's line, as far as it has come.
    Line(Vec<u8>),
    /// Bytes of the pattern that have come.
    Bytes(u64),
    /// Everything has come; the connection ends.
    Closing,
}

impl FetchJob {
    pub fn new<W: Wire>(stack: &mut Stack<W>, fetch: Fetch) -> Self {
        let buffer = |len| tcp::SocketBuffer::new(vec![0; len]);
        let socket = tcp::Socket::new(buffer(RECEIVE_BUFFER), buffer(SEND_BUFFER));
        Self {
            fetch,
            handle: stack.sockets.add(socket),
            begun: 0,
            state: State::Idle,
            deadline: Instant::now(),
            next: Instant::now(),
        }
    }

    pub fn step<W: Wire>(&mut self, stack: &mut Stack<W>, result: &mut TaskResult) -> Step {
        if matches!(self.state, State::Idle) {
            return self.connect(stack, result);
        }
        let socket = stack.sockets.get_mut::<tcp::Socket<'_>>(self.handle);
        let late = Instant::now() >= self.deadline;
        match &mut self.state {
            State::Idle => {}
            State::Connecting if socket.may_send() => {
                let request = protocol::request(self.fetch.bytes);
                // An empty send buffer holds a request.
                let _ = socket.send_slice(request.as_bytes());
                self.state = State::Line(Vec::new());
                self.deadline = Instant::now() + PATIENCE;
            }
            State::Connecting => {
                if late || !socket.is_open() {
                    let how = if late { "no answer" } else { "refused" };
                    result.note(format!("connection {}: {how}", self.begun));
                    result.unanswered += 1;
                    result.refused += u32::from(!late);
                    socket.abort();
                    self.state = State::Idle;
                }
            }
            State::Line(_) | State::Bytes(_) => self.read(socket, result, late),
            State::Closing => {
                let over = matches!(socket.state(), tcp::State::Closed | tcp::State::TimeWait);
                if over || late {
                    socket.abort();
                    self.state = State::Idle;
                }
            }
        }
        match self.state {
            // The stack gets a turn before the socket is used again: what it owes the other side goes first.
            State::Idle => Step::Again,
            _ => Step::Until(self.deadline),
        }
    }

    fn connect<W: Wire>(&mut self, stack: &mut Stack<W>, result: &mut TaskResult) -> Step {
        if self.begun == self.fetch.count {
            stack.sockets.remove(self.handle);
            return Step::Done;
        }
        if Instant::now() < self.next {
            return Step::Until(self.next);
        }
        self.next = Instant::now() + Duration::from_millis(self.fetch.interval_ms.into());
        self.begun += 1;
        let port = stack.ephemeral_port();
        let socket = stack.sockets.get_mut::<tcp::Socket<'_>>(self.handle);
        let context = stack.interface.context();
        if let Err(error) = socket.connect(context, self.fetch.from, port) {
            result.unanswered += 1;
            result.note(format!("connection {}: {error}", self.begun));
            return Step::Again;
        }
        let patience = match self.fetch.expect {
            Expected::Answered => PATIENCE,
            Expected::Denied => SHORT_PATIENCE,
        };
        self.deadline = Instant::now() + patience;
        self.state = State::Connecting;
        Step::Again
    }

    /// Takes what has come of the answer.
    fn read(&mut self, socket: &mut tcp::Socket<'_>, result: &mut TaskResult, late: bool) {
        let mut wrong = None;
        while socket.can_recv() && wrong.is_none() {
            self.deadline = Instant::now() + PATIENCE;
            let taken = socket.recv(|bytes| self.state.take(bytes, result));
            wrong = taken.unwrap_or(Some("the connection failed"));
        }
        if matches!(self.state, State::Bytes(got) if got == self.fetch.bytes) && wrong.is_none() {
            result.answered += 1;
            socket.close();
            self.state = State::Closing;
            self.deadline = Instant::now() + CLOSING;
            return;
        }
        let excess = matches!(self.state, State::Bytes(got) if got > self.fetch.bytes);
        let wrong = match wrong {
            None if excess => Some("more bytes than asked for"),
            None if !socket.may_recv() => Some("ended early"),
            None if late => Some("stalled"),
            wrong => wrong,
        };
        if let Some(wrong) = wrong {
            result.broken += 1;
            let got = match self.state {
                State::Bytes(got) => got,
                _ => 0,
            };
            result.note(format!(
                "connection {}: {wrong} after {got} bytes",
                self.begun
            ));
            socket.abort();
            self.state = State::Idle;
        }
    }
}

impl State {
    /// Takes bytes of the answer; tells how many, and what is wrong with them.
    fn take(&mut self, bytes: &[u8], result: &mut TaskResult) -> (usize, Option<&'static str>) {
        match self {
            Self::Line(line) => {
                let end = bytes.iter().position(|b| *b == b'\n');
                let part = &bytes[..end.unwrap_or(bytes.len())];
                if line.len() + part.len() >= MAX_LINE {
                    return (bytes.len(), Some("an endless line"));
                }
                line.extend_from_slice(part);
                let Some(end) = end else {
                    return (bytes.len(), None);
                };
                let Some((server, client)) = protocol::parse_answer(line) else {
                    return (bytes.len(), Some("an answer in another language"));
                };
                result.count_server(server);
                result.count_sight(client.ip());
                *self = Self::Bytes(0);
                (end + 1, None)
            }
            Self::Bytes(got) => {
                let wrong = !protocol::matches(*got, bytes);
                *got += bytes.len() as u64;
                (bytes.len(), wrong.then_some("wrong bytes"))
            }
            _ => (bytes.len(), None),
        }
    }
}
