//! The ends that are asked, and answer.

use std::collections::HashMap;

use chainplane_dataplane::packet::{Mac, tcp_flag};

use super::tcb::{Phase, Segment, Tcb};
use super::wheel::{Timer, Wheel};
use super::wire::Wire;
use crate::bench::traffic::random::mix;
use crate::bench::traffic::tuple::Tuple;

/// A connection's addresses and ports, as packets from the client have them.
type Key = ([u8; 16], [u8; 16], u16, u16);

/// Connections at most; whoever comes then is not answered.
const MOST: usize = 8 << 20;

/// A connection from its server's side.
#[derive(Clone, Copy)]
struct Server {
    tcb: Tcb,
    /// As packets to the client have it.
    tuple: Tuple,
    /// Where they go.
    to: Mac,
    /// Bytes of the request under way.
    bytes: u32,
    gone: bool,
    timer: Timer,
}

/// All servers.
pub struct Servers {
    request: u32,
    response: u32,
    all: Vec<Server>,
    free: Vec<u32>,
    known: HashMap<Key, u32>,
    wheel: Wheel,
    seed: u64,
    /// Segments sent again.
    pub retransmitted: u64,
}

fn key(tuple: &Tuple) -> Key {
    (tuple.src, tuple.dst, tuple.src_port, tuple.dst_port)
}

impl Servers {
    /// Servers that answer each `request` bytes with `response` bytes.
    pub fn new(request: u32, response: u32, seed: u64) -> Self {
        Self {
            request,
            response,
            all: Vec::new(),
            free: Vec::new(),
            known: HashMap::new(),
            wheel: Wheel::new(),
            seed,
            retransmitted: 0,
        }
    }

    /// Takes a segment that came from `source`.
    pub fn receive(
        &mut self,
        tuple: &Tuple,
        segment: &Segment,
        source: Mac,
        now: u64,
        wire: &mut Wire<'_>,
    ) {
        let syn = segment.flags & (tcp_flag::SYN | tcp_flag::ACK) == tcp_flag::SYN;
        let known = self.known.get(&key(tuple)).copied();
        let index = match known {
            Some(index) if !syn || self.all[index as usize].tcb.phase() == Phase::Opening => index,
            Some(index) => {
                // The client has begun anew with the same port.
                self.remove(index);
                return self.accept(tuple, segment, source, now, wire);
            }
            None if syn => return self.accept(tuple, segment, source, now, wire),
            None => return refuse(tuple, segment, source, wire),
        };
        let server = &mut self.all[index as usize];
        // As the wire said last: no checksum tells of a source address that was damaged once.
        server.to = source;
        let brought = server.tcb.receive(segment);
        server.bytes += brought.bytes;
        while server.bytes >= self.request {
            server.bytes -= self.request;
            server.tcb.write(self.response);
        }
        if brought.finished {
            server.tcb.finish();
        }
        self.drive(index, now, wire);
    }

    fn accept(&mut self, tuple: &Tuple, syn: &Segment, source: Mac, now: u64, wire: &mut Wire<'_>) {
        if self.known.len() >= MOST {
            return;
        }
        let initial = mix(self.seed ^ u64::from(syn.sequence) ^ u64::from(tuple.src_port) << 32);
        let server = Server {
            tcb: Tcb::accept(initial as u32, syn),
            tuple: tuple.answer(),
            to: source,
            bytes: 0,
            gone: false,
            timer: Timer::default(),
        };
        let index = if let Some(index) = self.free.pop() {
            self.all[index as usize] = server;
            index
        } else {
            self.all.push(server);
            self.all.len() as u32 - 1
        };
        self.known.insert(key(tuple), index);
        self.drive(index, now, wire);
    }

    fn drive(&mut self, index: u32, now: u64, wire: &mut Wire<'_>) {
        let server = &mut self.all[index as usize];
        let macs = wire.macs(1, Some(server.to));
        let (tuple, most) = (server.tuple, wire.most(server.tuple.v6));
        let sent = server.tcb.emit(now, most, |segment| {
            wire.send(1, macs, &tuple, &segment, u32::from(tuple.dst_port))
        });
        self.retransmitted += sent;
        if matches!(server.tcb.phase(), Phase::Closed | Phase::Failed) {
            return self.remove(index);
        }
        let soon = server.tcb.is_blocked().then_some(now);
        let deadline = Some(server.tcb.deadline).filter(|at| *at != 0);
        let wants = deadline.into_iter().chain(soon).min();
        if let Some(at) = wants.filter(|at| server.timer.wants(*at)) {
            self.wheel.insert(index, at);
        }
    }

    fn remove(&mut self, index: u32) {
        let server = &mut self.all[index as usize];
        server.gone = true;
        self.known.remove(&key(&server.tuple.answer()));
        // What is in the wheel outlives its server.
        if server.timer.is_out() {
            self.free.push(index);
        }
    }

    /// Serves timers.
    pub fn turn(&mut self, now: u64, wire: &mut Wire<'_>) {
        let due = self.wheel.turn(now);
        for &index in &due {
            let server = &mut self.all[index as usize];
            server.timer.came_out();
            if server.gone {
                if server.timer.is_out() {
                    self.free.push(index);
                }
                continue;
            }
            if server.tcb.deadline != 0 && now >= server.tcb.deadline {
                server.tcb.time_out();
            }
            self.drive(index, now, wire);
        }
        self.wheel.give_back(due);
    }
}

/// Answers a segment of no connection by a reset (RFC 9293, section 3.10.7.1).
fn refuse(tuple: &Tuple, segment: &Segment, source: Mac, wire: &mut Wire<'_>) {
    if segment.flags & tcp_flag::RST != 0 || segment.flags & tcp_flag::ACK == 0 {
        return;
    }
    let reset = Segment {
        sequence: segment.acknowledged,
        flags: tcp_flag::RST,
        ..Segment::default()
    };
    let macs = wire.macs(1, Some(source));
    wire.send(1, macs, &tuple.answer(), &reset, u32::from(tuple.src_port));
}
