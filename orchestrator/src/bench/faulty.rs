//! A back end that loses, delays, reorders, repeats and damages what passes, as a schedule says that a seed makes; and
//! keeps account of what it did. What the generator finds is held against it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chainplane_vhost::backend::QueuePair;
use chainplane_vhost::net::NetHeader;
use chainplane_vhost::ring::BURST;

use super::loopback::Lane;
use super::traffic::fill::Fill;
use super::traffic::look::{Seen, look};
use super::traffic::random::Random;

/// How often each fault happens, of 10000 packets.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rates {
    pub lose: u64,
    pub repeat: u64,
    pub damage: u64,
    pub reorder: u64,
    /// Other destination port, with the checksum made right again.
    pub mistranslate: u64,
    /// All packets wait for so long.
    pub delay: Duration,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    pub passed: u64,
    pub lost: u64,
    pub repeated: u64,
    pub damaged: u64,
    pub mistranslated: u64,
    /// Intact packets that left behind a later one of the same flow.
    pub reordered: u64,
}

/// What a test shares with a lane.
#[derive(Clone, Default)]
pub struct Switch(Arc<Mutex<(bool, Done)>>);

impl Switch {
    /// Lets faults happen from now on, and forgets the account.
    pub fn arm(&self, armed: bool) {
        *self.0.lock().unwrap() = (armed, Done::default());
    }

    pub fn done(&self) -> Done {
        self.0.lock().unwrap().1
    }
}

/// A lane with faults, between one pair of queues.
pub struct Faulty {
    switch: Switch,
    rates: Rates,
    random: Random,
    fill: Fill,
    /// Packets to come out, and when.
    waiting: VecDeque<(Instant, Vec<u8>)>,
    /// A packet that lets the next one of its flow overtake it.
    held: Option<(u32, Vec<u8>)>,
    /// Frames of any kind have faults, and count as one flow's.
    blind: bool,
}

impl Faulty {
    pub fn new(switch: &Switch, rates: Rates, seed: u64, fill: Fill) -> Self {
        Self {
            switch: switch.clone(),
            rates,
            random: Random::new(seed),
            fill,
            waiting: VecDeque::new(),
            held: None,
            blind: false,
        }
    }

    /// With faults for frames of any kind.
    pub fn blind(switch: &Switch, rates: Rates, seed: u64, fill: Fill) -> Self {
        let blind = true;
        Self {
            blind,
            ..Self::new(switch, rates, seed, fill)
        }
    }

    fn disturb(&mut self, frame: Vec<u8>, armed: bool) {
        let at = Instant::now() + self.rates.delay;
        let flow = match look(&frame, &self.fill) {
            Seen::Intact(stamp, _) if armed && stamp.tag & 1 == 0 => stamp.flow,
            _ if self.blind && armed => 0,
            _ => return self.waiting.push_back((at, frame)),
        };
        let switch = self.switch.clone();
        let done = &mut switch.0.lock().unwrap().1;
        done.passed += 1;
        // A packet that is held leaves behind the next one of its flow, whatever becomes of that one.
        let behind = self.held.take_if(|(held, _)| *held == flow);
        let mut draw = self.random.below(10_000);
        let mut falls = |rate: u64| {
            let hit = draw < rate;
            draw = draw.wrapping_sub(rate);
            hit
        };
        let rates = self.rates;
        if behind.is_some() {
            done.reordered += 1;
            self.waiting.push_back((at, frame));
        } else if falls(rates.lose) {
            done.lost += 1;
        } else if falls(rates.repeat) {
            done.repeated += 1;
            self.waiting.push_back((at, frame.clone()));
            self.waiting.push_back((at, frame));
        } else if falls(rates.damage) {
            done.damaged += 1;
            let frame = self.damage(frame);
            self.waiting.push_back((at, frame));
        } else if falls(rates.mistranslate) {
            done.mistranslated += 1;
            self.waiting.push_back((at, mistranslate(frame)));
        } else if falls(rates.reorder) && self.held.is_none() {
            self.held = Some((flow, frame));
        } else {
            self.waiting.push_back((at, frame));
        }
        self.waiting.extend(behind.map(|(_, frame)| (at, frame)));
    }

    fn damage(&mut self, mut frame: Vec<u8>) -> Vec<u8> {
        let bit = self.random.below(8 * frame.len() as u64) as usize;
        // A set group bit makes it a frame that anybody may send, and so no packet of the trial.
        let bit = if bit == 0 { 1 } else { bit };
        frame[bit / 8] ^= 1 << (bit % 8);
        frame
    }
}

/// Adds one to the destination port of a UDP packet over IPv4 and takes it from the checksum.
fn mistranslate(mut frame: Vec<u8>) -> Vec<u8> {
    let word = |frame: &[u8], at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    let port = word(&frame, 36).wrapping_add(1);
    let sum = chainplane_dataplane::packet::Sum::default()
        .minus(word(&frame, 36))
        .plus(port)
        .apply(word(&frame, 40));
    frame[36..38].copy_from_slice(&port.to_be_bytes());
    frame[40..42].copy_from_slice(&sum.to_be_bytes());
    frame
}

impl Lane for Faulty {
    fn pass(&mut self, from: &mut QueuePair, to: &mut QueuePair) -> usize {
        let armed = self.switch.0.lock().unwrap().0;
        // No more than there will be room for: nothing is lost but what the schedule says.
        let count = if self.waiting.len() < 4 * BURST {
            from.from_guest.fetch(BURST)
        } else {
            0
        };
        for index in 0..count {
            let mut frame = vec![0; 10_000];
            let len = from.from_guest.read(index, 0, &mut frame);
            frame.truncate(len);
            self.disturb(frame, armed);
        }
        if count > 0 {
            from.from_guest.complete();
        } else if !armed && let Some((_, frame)) = self.held.take() {
            self.waiting.push_back((Instant::now(), frame));
        }
        let now = Instant::now();
        let due = self.waiting.iter().take_while(|(at, _)| *at <= now);
        let lens: Vec<u32> = due.take(BURST).map(|(_, f)| f.len() as u32).collect();
        let reserved = if lens.is_empty() {
            0
        } else {
            to.to_guest.reserve(&lens)
        };
        for (slot, (_, frame)) in self.waiting.drain(..reserved).enumerate() {
            to.to_guest.fill(slot, NetHeader::default(), &frame);
        }
        if reserved > 0 {
            to.to_guest.publish();
        }
        count + reserved
    }
}
