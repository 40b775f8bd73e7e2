//! What a worker does besides packets, piece by piece, with tables that are large: sweeps, neighbours, gauges, lists of
//! sessions. The clock is moved by hand, so that every run of the course does the same.
//!
//! Two chains of four functions: through one connections go out, so that firewall and NAT have sessions, through the
//! other they come in, so that the load balancer and another firewall do.

use std::rc::Rc;
use std::time::Duration;

use chainplane_dataplane::crew::Share;
use chainplane_dataplane::engine::Engine;
use chainplane_dataplane::function::{
    Context, Descriptor, Exits, Function, Interface, SessionInfo, Verdict,
};
use chainplane_dataplane::objects::Objects;
use chainplane_dataplane::packet::{Packet, protocol};
use chainplane_dataplane::stats::WorkerStats;
use chainplane_dataplane::time::Time;
use chainplane_dataplane::worker::TOLD_AT_ONCE;
use quanta::Clock;

use super::engine::{ends_of, engine_of};
use super::frames::Frame;
use super::load::Load;
use super::times::Samples;
use super::wire::{End, Line};
use super::{GRANT, Kind, Size};

/// From one poll to the next by the clock: each has one function's turn.
const STEP: Duration = Duration::from_micros(8);
/// Every timeout.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Neighbours that announce themselves.
const NEIGHBOURS: u32 = 4000;
/// Functions in all.
const FUNCTIONS: usize = 8;
/// From one look at gauges, and one piece of a list, to the next, in polls.
const ASKED: u64 = 16;

/// A function whose ticks are timed.
struct Timed {
    function: Box<dyn Function>,
    samples: Rc<Samples>,
    clock: Clock,
}

impl Function for Timed {
    fn descriptor(&self) -> &'static Descriptor {
        self.function.descriptor()
    }

    fn process(&mut self, cx: &mut Context<'_>, packet: Packet, from: Interface) -> Verdict {
        self.function.process(cx, packet, from)
    }

    fn look_ahead(&mut self, batch: &[Packet], from: Interface) {
        self.function.look_ahead(batch, from);
    }

    fn pass(
        &mut self,
        cx: &mut Context<'_>,
        packets: &mut [Packet],
        place: usize,
        from: Interface,
        exits: &mut Exits,
    ) {
        self.function.pass(cx, packets, place, from, exits);
    }

    fn tick(&mut self, cx: &mut Context<'_>) {
        let start = self.clock.raw();
        self.function.tick(cx);
        let end = self.clock.raw();
        let name = match self.descriptor().kind {
            "firewall" => "tick of a firewall",
            "nat" => "tick of a NAT",
            "load-balancer" => "tick of a load balancer",
            _ => "tick of a router",
        };
        self.samples.note(name, self.clock.delta(start, end));
    }

    fn slots(&self) -> Vec<String> {
        self.function.slots()
    }

    fn session_count(&self) -> usize {
        self.function.session_count()
    }

    fn sessions(
        &self,
        now: Time,
        objects: &Objects,
        cursor: usize,
        out: &mut Vec<SessionInfo>,
    ) -> Option<usize> {
        self.function.sessions(now, objects, cursor, out)
    }
}

/// The engine, its ends, and where a list of sessions is.
pub struct Tail {
    engine: Engine,
    lines: [Rc<Line>; 2],
    samples: Rc<Samples>,
    clock: Clock,
    now: Time,
    polls: u64,
    /// Whose sessions are listed next, and from where on.
    asked: usize,
    cursors: [usize; FUNCTIONS],
    sessions: u64,
}

impl Tail {
    /// Empty tables for so many sessions (up to 4 million) in each function, and flow records for all of them.
    ///
    /// # Panics
    /// When there is no memory.
    pub fn new(sessions: u32) -> Self {
        let kind = |inbound| Kind {
            protocol: protocol::UDP,
            ipv6: false,
            inbound,
            answers: true,
        };
        let size = Size {
            sessions,
            flows: 4 * sessions as usize,
            timeout: TIMEOUT.as_secs() as u32,
        };
        let (samples, clock) = (Rc::new(Samples::default()), Clock::new());
        let timed = |function| -> Box<dyn Function> {
            Box::new(Timed {
                function,
                samples: Rc::clone(&samples),
                clock: clock.clone(),
            })
        };
        let mut engine = engine_of(kind(false), size, 2, (true, Share::WHOLE), &timed);
        let lines: [Rc<Line>; 2] = core::array::from_fn(|_| Rc::default());
        for (chain, line) in (0..).zip(&lines) {
            let load = Rc::new(Load::new(kind(chain == 1)));
            for (outside, link) in [false, true].into_iter().zip(ends_of(chain)) {
                let end = End {
                    line: Rc::clone(line),
                    load: Rc::clone(&load),
                    outside,
                    clock: clock.clone(),
                };
                engine.add_port("end", Box::new(end), link);
            }
        }
        Self {
            engine,
            lines,
            samples,
            clock,
            now: Time(1 << 40),
            polls: 0,
            asked: 0,
            cursors: [0; FUNCTIONS],
            sessions: sessions.into(),
        }
    }

    /// Goes through the whole course, and gives the times of all pieces.
    pub fn run(mut self) -> Samples {
        let round = self.polls_of_a_sweep();
        self.begin("empty tables");
        self.polls(1 << 13, 0);
        self.begin("sessions being made");
        self.open(self.sessions);
        self.check(self.sessions * 9 / 10);
        self.begin("all sessions alive, little traffic");
        self.announce();
        self.polls(round, 1);
        // The same packets once more: from now on the records know more than the sessions.
        self.begin("established traffic");
        self.now = self.now + TIMEOUT * 2 / 3;
        self.lines.iter().for_each(|line| line.go_on_from(0));
        self.open(self.sessions);
        self.now = self.now + TIMEOUT / 2;
        self.begin("all sessions alive by their records");
        self.list_all();
        self.polls(round, 1);
        self.now = self.now + TIMEOUT * 2;
        self.begin("all sessions dead");
        self.list_all();
        self.begin("all sessions expiring, no traffic");
        self.polls(round, 0);
        self.begin("random flows, tables full");
        let more = self.sessions + self.sessions / 4;
        self.open(more);
        self.now = self.now + TIMEOUT * 2;
        self.begin("random flows, all sessions dead");
        self.open(self.sessions / 2);
        self.check(0);
        drop(self.engine);
        drop(self.lines);
        Rc::into_inner(self.samples).unwrap_or_default()
    }

    fn begin(&self, part: &'static str) {
        self.samples.begin(part);
    }

    /// Polls until every table was swept twice, as a NAT sweeps two tables in turn.
    fn polls_of_a_sweep(&self) -> u64 {
        self.sessions / 32 * FUNCTIONS as u64 * 2
    }

    fn polls(&mut self, count: u64, grant: u32) {
        for poll in 0..count {
            self.poll(if poll.is_multiple_of(8) { grant } else { 0 });
        }
    }

    /// Opens so many connections in each chain, all of which are answered.
    fn open(&mut self, count: u64) {
        // Ports whose packets run the stages sit out turns, so that not every grant is used.
        let ends = self.lines.each_ref().map(|line| line.opened().0 + count);
        let more = |(line, end): (&Rc<Line>, &u64)| line.opened().0 < *end;
        while self.lines.iter().zip(&ends).any(more) {
            self.poll(GRANT);
        }
        while self.lines.iter().any(|line| line.waiting() > 0) {
            self.poll(0);
        }
    }

    fn poll(&mut self, grant: u32) {
        self.lines.iter().for_each(|line| line.grant(grant));
        let start = self.clock.raw();
        let received = self.engine.poll(self.now);
        let end = self.clock.raw();
        let piece = if received == 0 {
            "poll that finds no packets"
        } else {
            "(poll with packets)"
        };
        self.samples.add(piece, self.clock.delta(start, end));
        self.samples.settle();
        self.now = self.now + STEP;
        self.polls += 1;
        if self.polls.is_multiple_of(ASKED) {
            self.publish();
            self.list();
        }
    }

    fn publish(&mut self) {
        let start = self.clock.raw();
        self.engine.publish_gauges();
        let end = self.clock.raw();
        self.samples.add("gauges", self.clock.delta(start, end));
    }

    /// A piece of a list of sessions, of each function in turn.
    fn list(&mut self) {
        let function = self.asked % FUNCTIONS;
        self.asked += 1;
        let next = self.piece(function, self.cursors[function]);
        self.cursors[function] = next.unwrap_or(0);
    }

    fn piece(&mut self, function: usize, from: usize) -> Option<usize> {
        let mut few = Vec::with_capacity(TOLD_AT_ONCE);
        let start = self.clock.raw();
        let next = self.engine.sessions(function, self.now, from, &mut few);
        let end = self.clock.raw();
        self.samples
            .add("piece of a list of sessions", self.clock.delta(start, end));
        next
    }

    /// Lists all sessions of every function, a few at a time.
    fn list_all(&mut self) {
        for function in 0..FUNCTIONS {
            let mut cursor = Some(0);
            while let Some(from) = cursor {
                cursor = self.piece(function, from);
            }
        }
    }

    /// Neighbours of the first router announce themselves, and then never answer.
    fn announce(&mut self) {
        for number in 0..NEIGHBOURS {
            self.lines[0].inject(false, announcement(number));
            if number % 16 == 15 {
                self.poll(0);
            }
        }
    }

    /// Four tables are as large as they are meant to be, and every packet is accounted for.
    fn check(&mut self, least: u64) {
        self.engine.publish_gauges();
        let snapshot = WorkerStats::of(&self.engine).snapshot();
        snapshot
            .check_conservation()
            .unwrap_or_else(|error| panic!("{error}"));
        let sessions = snapshot.functions.iter().map(|at| at.sessions);
        let large = sessions.clone().filter(|count| *count >= least).count();
        assert!(large >= 4, "{:?}", sessions.collect::<Vec<_>>());
    }
}

/// A neighbour asks for the router's address, and so tells its own (RFC 826).
fn announcement(number: u32) -> Frame {
    let host = number.to_be_bytes();
    let mac = [2, 9, 0, 0, host[2], host[3]];
    let address = [10, 0, 16 + host[2], host[3]];
    let mut frame = [0; 64];
    frame[..6].fill(0xff);
    frame[6..12].copy_from_slice(&mac);
    frame[12..22].copy_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame[22..28].copy_from_slice(&mac);
    frame[28..32].copy_from_slice(&address);
    frame[38..42].copy_from_slice(&[10, 0, 1, 1]);
    frame
}
