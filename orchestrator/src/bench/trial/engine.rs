//! The polled loop that sends by the clock and takes what comes.

use std::cell::RefCell;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use chainplane_dataplane::packet::Mac;

use super::generator::Control;
use super::noise::{Gaps, Observed};
use super::opening;
use super::pace::Pacer;
use super::scene::Scene;
use super::{BenchError, Load, TrialResult};
use crate::bench::endpoint::{Endpoint, neighbours};
use crate::bench::traffic::head::HEAD;
use crate::bench::traffic::{NextHop, Packets, Traffic, replay};

/// Frames of a poll and direction at most: what fell due while the generator was away leaves in such bursts.
pub const BURST: usize = 64;
/// From one look at endpoints and the user's wish to the next, in nanoseconds.
const LOOK: u64 = 5_000_000;
/// Silence after which nothing more is expected.
const SILENCE: Duration = Duration::from_millis(200);
/// The longest wait for what is under way (RFC 2544, section 23).
const LONGEST_DRAIN: Duration = Duration::from_secs(2);
/// The wait for copies, once everything has come.
const COPIES: Duration = Duration::from_millis(5);
/// The longest that packets are sent after the end, and the most of them.
const CATCH_UP: Duration = Duration::from_millis(100);
const MOST_LATE: u64 = 1024;
/// After so long without traffic, functions may have forgotten flows, which are opened again.
const FORGOTTEN: Duration = Duration::from_secs(2);

/// Two endpoints and what goes on between them. It lives on the generator's thread.
pub struct Engine {
    pub(super) ends: [Endpoint; 2],
    pub(super) names: [String; 2],
    pub(super) scene: Option<Scene>,
    pub(super) head: [u8; HEAD],
    /// Whether to give the processor away when there is nothing to do: where there is only one.
    polite: bool,
    /// When the last trial with this traffic ended.
    pub(super) fresh: Option<Instant>,
    tag: u16,
}

/// How a loop's polls went.
#[derive(Clone, Copy, Default)]
pub struct Polls {
    all: u64,
    idle: u64,
}

impl Polls {
    /// The share that found nothing to do.
    pub fn idle(self) -> f64 {
        self.idle as f64 / self.all.max(1) as f64
    }
}

impl Engine {
    /// Between two endpoints, which results call by these names.
    pub fn new(ends: [Endpoint; 2], names: &[String; 2], polite: bool) -> Self {
        let [a, b] = names;
        Self {
            ends,
            names: [format!("{a} to {b}"), format!("{b} to {a}")],
            scene: None,
            head: [0; HEAD],
            polite,
            fresh: None,
            tag: std::process::id() as u16 ^ 0x5a5a,
        }
    }

    /// Names and values of settings of both endpoints.
    pub fn settings(&self) -> Vec<(String, String)> {
        let [a, b] = [0, 1].map(|end| self.ends[end].settings());
        let mut all = Vec::new();
        for (end, settings) in [a, b].into_iter().enumerate() {
            let name = ["first", "second"][end];
            all.extend(
                settings
                    .into_iter()
                    .map(|(k, v)| (format!("{name} endpoint: {k}"), v)),
            );
        }
        all
    }

    /// The names of both directions.
    pub fn names(&self) -> &[String; 2] {
        &self.names
    }

    /// The endpoints, what is known of the traffic between them, and whether to give the processor away.
    ///
    /// # Errors
    /// When no traffic was set.
    pub fn parts(&mut self) -> Result<(&mut [Endpoint; 2], &mut Scene, bool), BenchError> {
        match &mut self.scene {
            Some(scene) => Ok((&mut self.ends, scene, self.polite)),
            None => Err(BenchError::Arguments("no traffic was set".into())),
        }
    }

    /// Decides what is sent, and finds where it goes first.
    ///
    /// # Errors
    /// Contradictions; frames that an endpoint can't carry; a next hop that does not answer.
    pub fn set_traffic(&mut self, traffic: &Traffic, control: &Control) -> Result<(), BenchError> {
        let capture = traffic.replay.as_deref().map(replay::read).transpose()?;
        let longest = match &capture {
            Some(capture) => capture.packets.iter().flatten().map(|(_, len)| *len).max(),
            None => traffic.sizes.longest(),
        };
        let longest = usize::from(longest.unwrap_or(0));
        for (end, name) in self.ends.iter().zip(["first", "second"]) {
            if longest > end.longest_frame() {
                return Err(BenchError::Arguments(format!(
                    "frames of {longest} bytes; the {name} endpoint carries {} at most",
                    end.longest_frame()
                )));
            }
        }
        let packets = Packets::new(traffic, capture)?;
        self.ends
            .iter_mut()
            .for_each(|end| end.set_fill(&packets.fill));
        self.tag = self.tag.wrapping_add(0x0202);
        self.fresh = None;
        self.scene = Some(Scene::new(packets, [None; 2], self.tag));
        let [a, b] = &traffic.sides;
        let first = match a.next_hop {
            None => Some(b.mac),
            Some(hop) => Some(self.resolve(0, hop, control)?),
        };
        let second = match b.next_hop {
            None => None,
            Some(hop) => Some(self.resolve(1, hop, control)?),
        };
        if let Some(scene) = &mut self.scene {
            scene.next_hops = [first, second];
        }
        Ok(())
    }

    fn resolve(&mut self, end: usize, hop: NextHop, control: &Control) -> Result<Mac, BenchError> {
        let Some(scene) = &self.scene else {
            return Err(BenchError::Arguments("no traffic was set".into()));
        };
        let first = scene.packets.tuple(0);
        let first = if end == 0 { first } else { first.answer() };
        let target = match hop {
            NextHop::Mac(mac) => return Ok(mac),
            NextHop::Router(address) => address,
            NextHop::OnLink => first.destination(),
        };
        let side = &scene.packets.traffic.sides[end];
        let from: IpAddr = match target {
            IpAddr::V4(_) => side.v4.into(),
            IpAddr::V6(_) => side.v6.into(),
        };
        let question = neighbours::question(side.mac, from, target);
        for _ in 0..15 {
            self.ends[end].send_whole(&question);
            self.ends[end].flush();
            let until = Instant::now() + Duration::from_millis(200);
            while Instant::now() < until {
                self.turn(0, control)?;
                let told = self
                    .scene
                    .as_mut()
                    .map(|scene| std::mem::take(&mut scene.told));
                let mut told = told.into_iter().flatten();
                if let Some((_, _, mac)) = told.find(|(at, a, _)| (*at, *a) == (end, target)) {
                    return Ok(mac);
                }
                std::thread::yield_now();
            }
        }
        Err(BenchError::Blocked {
            direction: self.names[end].clone(),
            reason: format!("nobody answers for the next hop {target} (15 requests in 3 s)"),
            hint: Some(format!(
                "is {target} the address of the target's interface there, and {from} in its subnet?"
            )),
        })
    }

    /// Takes what has come and sends what answers it: one poll without traffic.
    pub(super) fn turn(&mut self, now: u64, control: &Control) -> Result<usize, BenchError> {
        let got = self.receive(|| now);
        self.send_controls();
        if got == 0 {
            control.check()?;
            self.ends.iter_mut().try_for_each(Endpoint::check)?;
        }
        Ok(got)
    }

    #[inline]
    fn receive(&mut self, mut clock: impl FnMut() -> u64) -> usize {
        let Some(scene) = &mut self.scene else {
            return 0;
        };
        let mut got = 0;
        for (index, end) in self.ends.iter_mut().enumerate() {
            // The time at which the first of a burst was found.
            let mut now = None;
            let scene = RefCell::new(&mut *scene);
            got += end.receive(
                64,
                |frame| scene.borrow().expect(frame),
                |frame| {
                    let now = *now.get_or_insert_with(&mut clock);
                    scene.borrow_mut().take(index, frame, now);
                },
            );
        }
        got
    }

    #[inline]
    fn send_controls(&mut self) {
        let Some(scene) = &mut self.scene else { return };
        while let Some((end, frame)) = scene.controls.pop_front() {
            // An answer that finds no room is asked for again.
            self.ends[end].send_whole(&frame);
            self.ends[end].flush();
        }
    }

    /// Runs a trial.
    ///
    /// # Errors
    /// A target that goes or lets nothing through; the user's wish.
    pub fn trial(&mut self, load: &Load, control: &Control) -> Result<TrialResult, BenchError> {
        let directions = self.begin(control)?;
        let mut pacers = [0, 1].map(|direction| Pacer::new(load, direction, directions));
        let before = Observed::now();
        let start = Instant::now();
        let mut gaps = Gaps::default();
        let end = load.duration.as_nanos() as u64;
        let polls = self.send_all(start, end, &mut pacers, &mut gaps, control)?;
        self.catch_up(start, &mut pacers);
        let elapsed = start.elapsed();
        let noise = before.until(&Observed::now(), gaps);
        self.drain(start, control)?;
        self.fresh = Some(Instant::now());
        let Some(scene) = &mut self.scene else {
            return Err(BenchError::Arguments("no traffic was set".into()));
        };
        let settle =
            |direction: usize| scene.ledgers[direction].settle(pacers[direction].offered());
        Ok(TrialResult {
            directions: (0..directions).map(settle).collect(),
            elapsed,
            latency: scene.latency.all(),
            noise,
            generator_idle: polls.idle(),
            cycles_per_packet: None,
        })
    }

    /// Opens flows where they may be forgotten, and begins new accounts; tells the number of directions.
    pub(super) fn begin(&mut self, control: &Control) -> Result<usize, BenchError> {
        let stale = self.fresh.is_none_or(|at| at.elapsed() > FORGOTTEN);
        if stale {
            opening::open(self, control)?;
        }
        self.fresh = None;
        let names = self.names.clone();
        let Some(scene) = &mut self.scene else {
            return Err(BenchError::Arguments("no traffic was set".into()));
        };
        scene.restart(&names);
        Ok(if scene.packets.has(1) { 2 } else { 1 })
    }

    /// Sends until `end` nanoseconds after `start`.
    pub(super) fn send_all(
        &mut self,
        start: Instant,
        end: u64,
        pacers: &mut [Pacer; 2],
        gaps: &mut Gaps,
        control: &Control,
    ) -> Result<Polls, BenchError> {
        let clock = || start.elapsed().as_nanos() as u64;
        let mut polls = Polls::default();
        let mut look = 0;
        loop {
            let now = clock();
            gaps.tick(now);
            if now >= end || pacers.iter().all(Pacer::is_over) {
                return Ok(polls);
            }
            if now >= look {
                look = now + LOOK;
                control.tick(now as f64 / end.max(1) as f64);
                control.check()?;
                self.ends.iter_mut().try_for_each(Endpoint::check)?;
                self.renew_flows(now);
                gaps.pass_over(clock());
            }
            // What another core holds takes long to come: all of it is on its way while packets are looked at.
            self.ends.iter().for_each(Endpoint::prefetch);
            for (end, pacer) in self.ends.iter_mut().zip(pacers.iter()) {
                end.prepare(pacer.due(now).min(BURST as u64) as usize);
            }
            // The clock is read often, so that little of the generator's own work is in what looks like a jump.
            let mut tick = || {
                let now = clock();
                gaps.tick(now);
                now
            };
            let mut moved = self.receive(&mut tick);
            if moved > 0 {
                tick();
            }
            self.send_controls();
            for (direction, pacer) in pacers.iter_mut().enumerate() {
                let sent = self.send(direction, pacer, now);
                if sent > 0 {
                    tick();
                }
                moved += sent;
            }
            polls.all += 1;
            if moved == 0 {
                polls.idle += 1;
                if self.polite {
                    std::thread::yield_now();
                }
            }
        }
    }

    /// Sends what fell due while the generator was away just before the end, unless it was the target that had no
    /// room.
    fn catch_up(&mut self, start: Instant, pacers: &mut [Pacer; 2]) {
        let clock = || start.elapsed().as_nanos() as u64;
        let until = Instant::now() + CATCH_UP;
        for (direction, pacer) in pacers.iter_mut().enumerate() {
            let mut left = MOST_LATE.min(pacer.owed());
            while left > 0 && Instant::now() < until {
                let sent = self.send(direction, pacer, u64::MAX);
                left = left.saturating_sub(sent as u64);
                self.receive(clock);
                if sent == 0 {
                    std::thread::yield_now();
                }
            }
        }
    }

    /// Flows that have ended by now have given their places to new ones.
    fn renew_flows(&mut self, now: u64) {
        let Some(scene) = &mut self.scene else { return };
        let rate = scene.packets.traffic.new_flows;
        if rate > 0.0 {
            scene.renew(rate, now);
        }
    }

    #[inline]
    fn send(&mut self, direction: usize, pacer: &mut Pacer, now: u64) -> usize {
        let due = pacer.due(now).min(BURST as u64) as usize;
        let Some(scene) = self.scene.as_mut().filter(|_| due > 0) else {
            return 0;
        };
        let end = &mut self.ends[direction];
        let queues = end.queues() as u32;
        let mut count = 0;
        while count < due {
            let (index, at) = pacer.next(now);
            let Some((flow, len)) = scene.next(direction, index) else {
                break;
            };
            let queue = if queues == 1 { 0 } else { flow % queues };
            // A packet that is made is sent: it may be the one that begins a connection.
            if !end.has_room(queue as usize, len)
                || !scene.write(direction, (flow, len), at, &mut self.head)
                || !end.send(queue as usize, &self.head, len)
            {
                break;
            }
            pacer.sent();
            let counts = &mut scene.ledgers[direction].counts;
            counts.sent += 1;
            counts.sent_bytes += len as u64;
            count += 1;
        }
        if count > 0 {
            end.flush();
        }
        pacer.blocked = count < due;
        if pacer.blocked {
            pacer.blocked_at = Some(now);
        }
        count
    }

    /// Waits for what is under way.
    pub(super) fn drain(&mut self, start: Instant, control: &Control) -> Result<(), BenchError> {
        let clock = || start.elapsed().as_nanos() as u64;
        let begin = Instant::now();
        let (mut heard, mut complete) = (begin, None);
        loop {
            let now = Instant::now();
            if self.receive(clock) > 0 {
                heard = now;
            }
            self.send_controls();
            let Some(scene) = &self.scene else {
                return Ok(());
            };
            let all = scene.ledgers.iter().all(|l| l.arrived() >= l.counts.sent);
            if all {
                let since: &mut Instant = complete.get_or_insert(now);
                if now - *since >= COPIES {
                    return Ok(());
                }
            }
            let patience = SILENCE.max(Duration::from_nanos(2 * scene.latency.longest()));
            if now - heard >= patience.min(LONGEST_DRAIN) || now - begin >= LONGEST_DRAIN {
                return Ok(());
            }
            control.check()?;
            self.ends.iter_mut().try_for_each(Endpoint::check)?;
            if self.polite {
                std::thread::yield_now();
            }
        }
    }
}
