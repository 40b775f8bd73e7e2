//! The ends that begin connections, ask, and close.

use hdrhistogram::Histogram;

use super::tcb::{Phase, Segment, Tcb};
use super::wheel::{Timer, Wheel};
use super::wire::Wire;
use crate::bench::traffic::Packets;
use crate::bench::traffic::random::mix;
use crate::bench::traffic::tuple::Tuple;
use crate::bench::trial::{Pace, StatefulLoad};

/// Places for connections: by address and port of the client, whatever the server.
pub const MOST_PLACES: u64 = 1 << 22;
/// Nobody.
const NONE: u32 = u32::MAX;
/// Handshakes under way at most where the clock does not say when they begin, so that no queue overflows.
const OPENING: u64 = 256;
/// Connections begun in a poll at most.
const BURST: u64 = 32;

/// A connection from its client's side.
#[derive(Clone, Copy)]
struct Client {
    tcb: Tcb,
    /// Its number among all.
    number: u32,
    /// When its SYN was due, then when its request began.
    since: u64,
    /// Answers that came in full, and bytes of the one under way.
    answers: u32,
    bytes: u32,
    /// When its next request is due, if it waits for that; otherwise 0.
    resting: u64,
    /// It has been established.
    open: bool,
    timer: Timer,
}

/// Counts of a trial.
#[derive(Clone)]
pub struct Tally {
    pub attempted: u64,
    pub established: u64,
    pub failed: u64,
    pub completed: u64,
    pub open: u64,
    pub most_open: u64,
    pub transactions: u64,
    pub bytes: u64,
    pub retransmitted: u64,
    pub connect: Histogram<u64>,
    pub transaction: Histogram<u64>,
}

impl Tally {
    pub fn new() -> Self {
        let histogram = || {
            Histogram::new_with_bounds(1, 100_000_000_000, 3)
                .unwrap_or_else(|error| unreachable!("constant bounds: {error}"))
        };
        Self {
            attempted: 0,
            established: 0,
            failed: 0,
            completed: 0,
            open: 0,
            most_open: 0,
            transactions: 0,
            bytes: 0,
            retransmitted: 0,
            connect: histogram(),
            transaction: histogram(),
        }
    }
}

/// All clients.
pub struct Clients {
    load: StatefulLoad,
    all: Vec<Client>,
    free: Vec<u32>,
    /// Which client has a place.
    places: Vec<u32>,
    /// Addresses times ports of the first side.
    span: u64,
    wheel: Wheel,
    next: u32,
    /// Connections that are not over.
    alive: usize,
    /// Connections begun and neither established nor failed.
    opening: u64,
    pub tally: Tally,
    /// No more connections begin, and where they are not counted by the clock no more requests either.
    over: bool,
    ending: bool,
}

impl Clients {
    /// Clients for a load, with connections numbered from `first` on, and places for as many as the sides have
    /// addresses and ports for.
    pub fn new(load: &StatefulLoad, span: u64, first: u32) -> Self {
        Self {
            load: *load,
            all: Vec::new(),
            free: Vec::new(),
            places: vec![NONE; span.min(MOST_PLACES) as usize],
            span,
            wheel: Wheel::new(),
            next: first,
            alive: 0,
            opening: 0,
            tally: Tally::new(),
            over: false,
            ending: false,
        }
    }

    /// The number of the next connection.
    pub fn next_number(&self) -> u32 {
        self.next
    }

    /// Connections that are not over.
    pub fn alive(&self) -> usize {
        self.alive
    }

    fn place(&self, number: u32) -> usize {
        (u64::from(number) % self.span % self.places.len() as u64) as usize
    }

    /// Begins what is due at `now`; tells how many.
    pub fn begin(&mut self, now: u64, packets: &Packets, wire: &mut Wire<'_>) -> u64 {
        if self.over {
            return 0;
        }
        let alive = self.alive() as u64;
        let room = OPENING.saturating_sub(self.opening);
        let due = match self.load.pace {
            Pace::ConnectionsPerSecond(rate) => {
                let due = (now as f64 * rate / 1e9) as u64 + 1;
                due.saturating_sub(self.tally.attempted)
            }
            Pace::Concurrent(count) => u64::from(count).saturating_sub(alive).min(room),
            Pace::Hold(count) => u64::from(count)
                .saturating_sub(self.tally.attempted)
                .min(room),
        };
        let mut begun = 0;
        while begun < due.min(BURST) && wire.has_room(0) {
            let since = match self.load.pace {
                Pace::ConnectionsPerSecond(rate) => {
                    (self.tally.attempted as f64 * 1e9 / rate) as u64
                }
                _ => now,
            };
            if !self.open(since, now, packets, wire) {
                break;
            }
            begun += 1;
        }
        begun
    }

    fn open(&mut self, since: u64, now: u64, packets: &Packets, wire: &mut Wire<'_>) -> bool {
        // A place whose last connection is still there is passed over.
        let number = (self.next..self.next.saturating_add(1024))
            .find(|number| self.places[self.place(*number)] == NONE);
        let Some(number) = number else {
            return false;
        };
        self.next = number.wrapping_add(1) & (u32::MAX >> 1);
        let seed = packets.traffic.seed;
        let client = Client {
            tcb: Tcb::connect(mix(seed ^ u64::from(number)) as u32),
            number,
            since,
            answers: 0,
            bytes: 0,
            resting: 0,
            open: false,
            timer: Timer::default(),
        };
        let index = if let Some(index) = self.free.pop() {
            self.all[index as usize] = client;
            index
        } else {
            self.all.push(client);
            self.all.len() as u32 - 1
        };
        let place = self.place(number);
        self.places[place] = index;
        self.tally.attempted += 1;
        self.opening += 1;
        self.alive += 1;
        self.drive(index, now, packets, wire);
        true
    }

    /// Takes a segment to the client whose it is; whether there is one.
    pub fn receive(
        &mut self,
        tuple: &Tuple,
        segment: &Segment,
        now: u64,
        packets: &Packets,
        wire: &mut Wire<'_>,
    ) -> bool {
        let Some(place) = packets
            .client(tuple)
            .map(|n| n as usize % self.places.len())
        else {
            return false;
        };
        let index = self.places[place];
        let Some(client) = self.all.get_mut(index as usize) else {
            return false;
        };
        if client.number == NONE || packets.connection(client.number).answer() != *tuple {
            return false;
        }
        let before = client.tcb.phase();
        let brought = client.tcb.receive(segment);
        if brought.opened {
            client.open = true;
            self.opening -= 1;
            self.tally.established += 1;
            self.tally.open += 1;
            self.tally.most_open = self.tally.most_open.max(self.tally.open);
            let took = now.saturating_sub(client.since).max(1);
            self.tally.connect.saturating_record(took);
            client.since = now;
            Self::ask(client, &self.load, self.ending);
        }
        if brought.bytes > 0 {
            self.answered(index, brought.bytes, now);
        }
        if brought.finished && before == Phase::Open {
            // The server has closed before it was asked to, or in answer to us; either way we are done.
            self.all[index as usize].tcb.finish();
        }
        self.drive(index, now, packets, wire);
        true
    }

    /// The next request, or the end.
    fn ask(client: &mut Client, load: &StatefulLoad, ending: bool) {
        if client.answers < load.transactions && !ending {
            client.tcb.write(load.request);
        } else if !matches!(load.pace, Pace::Hold(_)) || ending {
            client.tcb.finish();
        }
    }

    fn answered(&mut self, index: u32, bytes: u32, now: u64) {
        let client = &mut self.all[index as usize];
        client.bytes += bytes;
        self.tally.bytes += u64::from(bytes);
        if client.bytes < self.load.response {
            return;
        }
        client.bytes -= self.load.response;
        client.answers += 1;
        self.tally.transactions += 1;
        self.tally.bytes += u64::from(self.load.request);
        let took = now.saturating_sub(client.since).max(1);
        self.tally.transaction.saturating_record(took);
        client.since = now;
        if let Pace::Hold(_) = self.load.pace
            && client.answers < self.load.transactions
            && !self.ending
        {
            // Its requests are spread over the time.
            let time = self.load.duration.as_nanos() as u64;
            client.resting = now + time / u64::from(self.load.transactions.max(1));
        } else {
            Self::ask(client, &self.load, self.ending);
        }
    }

    /// Sends what a client has to send, and settles it if it is over.
    fn drive(&mut self, index: u32, now: u64, packets: &Packets, wire: &mut Wire<'_>) {
        let client = &mut self.all[index as usize];
        let tuple = packets.connection(client.number);
        let macs = wire.macs(0, None);
        let most = wire.most(tuple.v6);
        self.tally.retransmitted += client.tcb.emit(now, most, |segment| {
            wire.send(0, macs, &tuple, &segment, client.number)
        });
        let phase = client.tcb.phase();
        if matches!(phase, Phase::Closed | Phase::Failed) {
            let done = client.answers >= self.load.transactions || self.ending;
            if client.open {
                self.tally.open -= 1;
            } else {
                self.opening -= 1;
            }
            if phase == Phase::Closed && done {
                self.tally.completed += 1;
            } else {
                self.tally.failed += 1;
            }
            self.alive -= 1;
            let number = std::mem::replace(&mut client.number, NONE);
            // What is in the wheel outlives its client.
            if client.timer.is_out() {
                self.free.push(index);
            }
            let place = self.place(number);
            self.places[place] = NONE;
            return;
        }
        let wants = [client.tcb.deadline, client.resting];
        // What found no room is tried again soon.
        let soon = client.tcb.is_blocked().then_some(now);
        let wants = wants.into_iter().filter(|at| *at != 0).chain(soon).min();
        if let Some(at) = wants.filter(|at| client.timer.wants(*at)) {
            self.wheel.insert(index, at);
        }
    }

    /// Serves timers.
    pub fn turn(&mut self, now: u64, packets: &Packets, wire: &mut Wire<'_>) {
        let due = self.wheel.turn(now);
        for &index in &due {
            let client = &mut self.all[index as usize];
            client.timer.came_out();
            if client.number == NONE {
                if client.timer.is_out() {
                    self.free.push(index);
                }
                continue;
            }
            if client.tcb.deadline != 0 && now >= client.tcb.deadline {
                client.tcb.time_out();
            }
            if client.resting != 0 && (now >= client.resting || self.ending) {
                (client.resting, client.since) = (0, now);
                Self::ask(client, &self.load, self.ending);
            }
            self.drive(index, now, packets, wire);
        }
        self.wheel.give_back(due);
    }

    /// Begins no other connection. Those that the clock began do what they were to do; others close when they are
    /// answered.
    pub fn end(&mut self, now: u64, packets: &Packets, wire: &mut Wire<'_>) {
        self.over = true;
        if let Pace::ConnectionsPerSecond(_) = self.load.pace {
            return;
        }
        self.ending = true;
        for index in 0..self.all.len() as u32 {
            let client = &mut self.all[index as usize];
            if client.number != NONE {
                client.tcb.finish();
                self.drive(index, now, packets, wire);
            }
        }
    }

    /// Counts those that never came to an end.
    pub fn settle(mut self) -> Tally {
        self.tally.failed += self.opening;
        self.tally
    }
}
