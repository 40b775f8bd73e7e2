//! Real TCP connections between clients at the first endpoint and servers at the second.
//!
//! The embedded guests' stack looks at every socket for every packet and holds each socket's bytes, which is right for
//! a guest and too slow for a hundred thousand connections. Here a connection is a hundred bytes: it does handshakes,
//! retransmission with slow start, and orderly ends (`tcb`), while the bytes it carries are known to both ends.

mod clients;
mod segment;
mod servers;
mod tcb;
#[cfg(test)]
mod tests;
mod wheel;
mod wire;

use std::time::{Duration, Instant};

use chainplane_dataplane::packet::ethertype;

use super::endpoint::neighbours::{Heard, hear};
use super::traffic::look;
use super::trial::{BenchError, Pace, StatefulLoad, StatefulResult};
use clients::{Clients, MOST_PLACES, Tally};
use servers::Servers;
use wire::{Inbox, Wire};

use super::trial::{Control, Engine, Gaps, Observed, Scene};

/// From one look at endpoints and the user's wish to the next, in nanoseconds.
const LOOK: u64 = 5_000_000;
/// How long connections may take to end.
const ENDING: Duration = Duration::from_secs(2);

/// Runs a stateful trial.
///
/// # Errors
/// A load that can't be; a target that goes or lets nothing through; the user's wish.
pub fn run(
    engine: &mut Engine,
    load: &StatefulLoad,
    control: &Control,
) -> Result<StatefulResult, BenchError> {
    let (ends, scene, polite) = engine.parts()?;
    check(load, scene)?;
    let first = scene.connections;
    let wire = Wire::new(ends, &scene.packets, scene.next_hops);
    let seed = scene.packets.traffic.seed;
    let mut trial = Trial {
        clients: Clients::new(load, scene.packets.client_span(), first),
        servers: Servers::new(load.request, load.response, seed),
        wire,
        inbox: Inbox::default(),
        start: Instant::now(),
        polite,
        polls: 0,
        idle: 0,
    };
    let before = Observed::now();
    let mut gaps = Gaps::default();
    trial.start = Instant::now();
    let ended = trial.go_on(load, scene, &mut gaps, control);
    let elapsed = trial.start.elapsed();
    let noise = before.until(&Observed::now(), gaps);
    ended?;
    trial.end(scene, control)?;
    let idle = trial.idle as f64 / trial.polls.max(1) as f64;
    let again = trial.servers.retransmitted;
    let next = trial.clients.next_number();
    let tally = trial.clients.settle();
    scene.connections = next;
    if tally.attempted > 0 && tally.established == 0 {
        return Err(BenchError::Blocked {
            direction: engine.names()[0].clone(),
            reason: format!("none of {} connections came about", tally.attempted),
            hint: Some(
                "does the target forward between these two endpoints, and does it allow TCP to this port?".into(),
            ),
        });
    }
    Ok(result(tally, again, elapsed, noise, idle))
}

fn result(
    tally: Tally,
    again: u64,
    elapsed: Duration,
    noise: super::trial::Noise,
    generator_idle: f64,
) -> StatefulResult {
    StatefulResult {
        attempted: tally.attempted,
        established: tally.established,
        failed: tally.failed,
        completed: tally.completed,
        most_open: tally.most_open,
        transactions: tally.transactions,
        bytes: tally.bytes,
        retransmitted: tally.retransmitted + again,
        elapsed,
        connect_latency: tally.connect,
        transaction_latency: tally.transaction,
        noise,
        generator_idle,
    }
}

fn check(load: &StatefulLoad, scene: &Scene) -> Result<(), BenchError> {
    let refuse = |text: String| Err(BenchError::Arguments(text));
    if load.transactions > 0 && (load.request == 0 || load.response == 0) {
        return refuse("requests and answers need at least a byte".into());
    }
    if load.request > 1 << 24 || load.response > 1 << 30 {
        return refuse("requests have 16 MiB at most, answers 1 GiB".into());
    }
    let places = scene.packets.client_span().min(MOST_PLACES);
    let open = match load.pace {
        Pace::ConnectionsPerSecond(rate) if rate > 0.0 && rate <= 1e8 => 0,
        Pace::ConnectionsPerSecond(rate) => {
            return refuse(format!(
                "{rate} connections a second; above 0 up to 10^8 are possible"
            ));
        }
        Pace::Concurrent(count) | Pace::Hold(count) => u64::from(count),
    };
    if open > places {
        return refuse(format!(
            "{open} connections at a time; the first side's hosts and ports are enough for {places}: more hosts make \
             more, up to {MOST_PLACES}"
        ));
    }
    Ok(())
}

/// A trial under way.
struct Trial<'a> {
    clients: Clients,
    servers: Servers,
    wire: Wire<'a>,
    inbox: Inbox,
    start: Instant,
    polite: bool,
    polls: u64,
    idle: u64,
}

impl Trial<'_> {
    fn now(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    /// Until the time is over.
    fn go_on(
        &mut self,
        load: &StatefulLoad,
        scene: &Scene,
        gaps: &mut Gaps,
        control: &Control,
    ) -> Result<(), BenchError> {
        let end = load.duration.as_nanos() as u64;
        let mut look = 0;
        loop {
            let now = self.now();
            gaps.tick(now);
            if now >= end {
                return Ok(());
            }
            if now >= look {
                look = now + LOOK;
                control.tick(now as f64 / end.max(1) as f64);
                control.check()?;
                self.wire.check()?;
            }
            let begun = self.clients.begin(now, &scene.packets, &mut self.wire);
            let moved = self.poll(now, scene) + begun as usize;
            self.polls += 1;
            if moved == 0 {
                self.idle += 1;
                if self.polite {
                    std::thread::yield_now();
                }
            }
        }
    }

    /// Closes what is open and waits until all is over.
    fn end(&mut self, scene: &Scene, control: &Control) -> Result<(), BenchError> {
        let until = self.start.elapsed() + ENDING;
        self.clients.end(self.now(), &scene.packets, &mut self.wire);
        while self.clients.alive() > 0 && self.start.elapsed() < until {
            let now = self.now();
            if self.poll(now, scene) == 0 {
                control.check()?;
                self.wire.check()?;
                std::thread::yield_now();
            }
        }
        Ok(())
    }

    /// Takes what has come, answers, and serves timers; tells how many frames moved.
    fn poll(&mut self, now: u64, scene: &Scene) -> usize {
        let sent = self.wire.sent;
        let mut moved = 0;
        for end in 0..2 {
            moved += self.wire.receive(end, &mut self.inbox);
            for index in 0..self.inbox.frames().len() {
                self.take(end, index, now, scene);
            }
        }
        self.clients.turn(now, &scene.packets, &mut self.wire);
        self.servers.turn(now, &mut self.wire);
        self.wire.flush();
        moved + (self.wire.sent - sent) as usize
    }

    fn take(&mut self, end: usize, index: usize, now: u64, scene: &Scene) {
        let frame = &self.inbox.frames()[index];
        let own = scene.packets.traffic.sides[end].mac;
        let macs = look::macs(frame);
        if let Some((tuple, segment)) = segment::read(frame, &scene.packets.fill) {
            if macs[0] != own {
                return;
            }
            if end == 1 {
                let Self { servers, wire, .. } = self;
                servers.receive(&tuple, &segment, macs[1], now, wire);
            } else {
                let Self { clients, wire, .. } = self;
                clients.receive(&tuple, &segment, now, &scene.packets, wire);
            }
            return;
        }
        let control = frame.get(12..14).is_some_and(|ty| {
            let ty = u16::from_be_bytes([ty[0], ty[1]]);
            ty == ethertype::ARP || ty == ethertype::IPV6
        });
        if control && let Heard::Asked(answer) = hear(frame, own) {
            self.wire.send_whole(end, &answer);
        }
    }
}
