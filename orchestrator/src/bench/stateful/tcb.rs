//! One end of a TCP connection (RFC 9293), small enough that a million of them fit: it holds no data, as all bytes are
//! known; it takes segments in order only and sends again from the first missing one.

use chainplane_dataplane::packet::tcp_flag::{ACK, FIN, PSH, RST, SYN};

/// The first wait for an acknowledgment, in nanoseconds; it doubles with each repetition.
const TIMEOUT: u64 = 250_000_000;
/// Repetitions of a SYN, and of anything else, before the connection is given up.
const SYN_TRIES: u8 = 3;
const TRIES: u8 = 6;
/// Segments that may be under way at the start (RFC 6928).
const INITIAL_WINDOW: u32 = 10;
/// What we say we take: all that fits the field, as nothing is ever kept waiting.
pub const WINDOW: u16 = 65_535;

/// A segment without its payload, which is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgment number.
    pub acknowledged: u32,
    /// SYN, ACK and so on.
    pub flags: u8,
    /// Bytes that the sender takes.
    pub window: u16,
    /// Bytes of payload.
    pub len: u32,
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The handshake is not over.
    Opening,
    /// Data can flow.
    Open,
    /// Over, both ends having said all.
    Closed,
    /// Reset by the other end, or given up.
    Failed,
}

/// What a segment brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Brought {
    /// The handshake is over with it.
    pub opened: bool,
    /// New bytes of data.
    pub bytes: u32,
    /// The other end will send no more.
    pub finished: bool,
}

/// One end of a connection.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Tcb {
    phase: Phase,
    /// Began the connection.
    active: bool,
    /// The first byte that is not acknowledged, the next to be sent, and the highest that was ever sent.
    una: u32,
    next: u32,
    top: u32,
    /// Behind the last byte that there is to send.
    end: u32,
    /// A FIN follows it.
    fin: bool,
    /// The next byte that is expected.
    expected: u32,
    peer_finished: bool,
    acknowledge: bool,
    peer_window: u32,
    window: u32,
    threshold: u32,
    repeated: u8,
    tries: u8,
    /// There was no room for something.
    blocked: bool,
    /// When to send again; 0 for not at all.
    pub deadline: u64,
}

/// Whether `a` comes before `b` in the circle of sequence numbers.
#[inline]
fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

impl Tcb {
    /// The end that begins, with its first sequence number.
    pub fn connect(initial: u32) -> Self {
        Self {
            phase: Phase::Opening,
            active: true,
            una: initial,
            next: initial,
            top: initial,
            end: initial.wrapping_add(1),
            fin: false,
            expected: 0,
            peer_finished: false,
            acknowledge: false,
            peer_window: WINDOW.into(),
            window: 0,
            threshold: u32::MAX,
            repeated: 0,
            tries: 0,
            blocked: false,
            deadline: 0,
        }
    }

    /// The end that is asked by `syn`.
    pub fn accept(initial: u32, syn: &Segment) -> Self {
        Self {
            active: false,
            expected: syn.sequence.wrapping_add(1),
            peer_window: syn.window.into(),
            ..Self::connect(initial)
        }
    }

    /// How far it is.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Has more bytes sent.
    pub fn write(&mut self, bytes: u32) {
        self.end = self.end.wrapping_add(bytes);
    }

    /// Says that no more follow.
    pub fn finish(&mut self) {
        self.fin = true;
    }

    /// Behind the FIN, if there is one.
    fn last(&self) -> u32 {
        self.end.wrapping_add(u32::from(self.fin))
    }

    /// Takes a segment in.
    pub fn receive(&mut self, segment: &Segment) -> Brought {
        let mut brought = Brought::default();
        if matches!(self.phase, Phase::Closed | Phase::Failed) {
            return brought;
        }
        if segment.flags & RST != 0 {
            // Only one that fits is believed (RFC 9293, 3.10.7).
            let fits = if self.phase == Phase::Opening && self.active {
                segment.flags & ACK != 0 && segment.acknowledged == self.next
            } else {
                segment.sequence == self.expected
            };
            if fits {
                self.fail();
            }
            return brought;
        }
        if segment.flags & SYN != 0 {
            return self.synchronize(segment);
        }
        if segment.flags & ACK == 0 || (self.phase == Phase::Opening && self.active) {
            return brought;
        }
        self.acknowledged(segment, &mut brought);
        if self.phase == Phase::Open {
            self.take(segment, &mut brought);
        }
        if self.peer_finished && self.fin && self.una == self.last() {
            self.phase = Phase::Closed;
            self.deadline = 0;
        }
        brought
    }

    /// A SYN, or the answer to ours.
    fn synchronize(&mut self, segment: &Segment) -> Brought {
        let mut brought = Brought::default();
        let answers = segment.flags & ACK != 0 && segment.acknowledged == self.una.wrapping_add(1);
        if self.active && self.phase == Phase::Opening && answers {
            self.expected = segment.sequence.wrapping_add(1);
            self.peer_window = segment.window.into();
            self.open(&mut brought);
            self.una = segment.acknowledged;
        }
        // Whatever we have sent to answer it got lost.
        if !self.active && self.phase == Phase::Opening {
            self.next = self.una;
        } else {
            self.acknowledge = true;
        }
        brought
    }

    fn open(&mut self, brought: &mut Brought) {
        self.phase = Phase::Open;
        (self.tries, self.deadline) = (0, 0);
        brought.opened = true;
    }

    fn acknowledged(&mut self, segment: &Segment, brought: &mut Brought) {
        let ack = segment.acknowledged;
        if before(self.top, ack) {
            self.acknowledge = true;
            return;
        }
        if before(self.una, ack) {
            if self.phase == Phase::Opening {
                self.open(brought);
            }
            let bytes = ack.wrapping_sub(self.una);
            self.una = ack;
            if before(self.next, ack) {
                self.next = ack;
            }
            // Slow start up to the threshold, then a segment a round.
            let grow = if self.window < self.threshold {
                bytes
            } else {
                (u64::from(bytes) * 1460 / u64::from(self.window.max(1))) as u32
            };
            self.window = self.window.saturating_add(grow).min(1 << 20);
            (self.repeated, self.tries, self.deadline) = (0, 0, 0);
        } else if ack == self.una
            && segment.len == 0
            && segment.flags & FIN == 0
            && self.una != self.next
        {
            self.repeated = self.repeated.saturating_add(1);
            if self.repeated == 3 {
                self.threshold = (self.window / 2).max(2 * 1460);
                self.window = self.threshold;
                self.next = self.una;
            }
        }
        self.peer_window = segment.window.into();
    }

    fn take(&mut self, segment: &Segment, brought: &mut Brought) {
        let fin = segment.flags & FIN != 0;
        if segment.len == 0 && !fin {
            return;
        }
        self.acknowledge = true;
        // A segment may begin with what has come already.
        let known = self.expected.wrapping_sub(segment.sequence);
        if self.peer_finished || known > segment.len {
            return;
        }
        brought.bytes = segment.len - known;
        self.expected = self.expected.wrapping_add(brought.bytes);
        if fin {
            self.expected = self.expected.wrapping_add(1);
            self.peer_finished = true;
            brought.finished = true;
        }
    }

    /// Sends what may be sent, in segments of `most` bytes; `send` says whether there was room. Tells how many were
    /// repetitions.
    pub fn emit(&mut self, now: u64, most: u32, mut send: impl FnMut(Segment) -> bool) -> u64 {
        let mut repetitions = 0;
        let mut sent = false;
        self.blocked = false;
        if self.window == 0 {
            self.window = INITIAL_WINDOW * most;
        }
        while let Some((len, flags)) = self.next_segment(most) {
            let ack = if self.active && self.phase == Phase::Opening {
                0
            } else {
                ACK
            };
            let segment = Segment {
                sequence: self.next,
                acknowledged: if ack == 0 { 0 } else { self.expected },
                flags: flags | ack,
                window: WINDOW,
                len,
            };
            if !send(segment) {
                self.blocked = true;
                break;
            }
            sent = true;
            repetitions += u64::from(before(self.next, self.top));
            self.next = self
                .next
                .wrapping_add(len + u32::from(flags & (SYN | FIN) != 0));
            if before(self.top, self.next) {
                self.top = self.next;
            }
        }
        // Whatever is under way is waited for, also what an acknowledgment has left over (RFC 6298, 5.3).
        if self.next != self.una && self.deadline == 0 {
            self.deadline = now + (TIMEOUT << self.tries);
        }
        if sent {
            self.acknowledge = false;
        } else if self.acknowledge && self.phase != Phase::Failed {
            let segment = Segment {
                sequence: self.next,
                acknowledged: self.expected,
                flags: ACK,
                window: WINDOW,
                len: 0,
            };
            self.acknowledge = !send(segment);
            self.blocked |= self.acknowledge;
        }
        repetitions
    }

    /// Whether [`Tcb::emit`] found no room for something.
    pub fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Length and flags of the next segment that may be sent.
    fn next_segment(&self, most: u32) -> Option<(u32, u8)> {
        match self.phase {
            Phase::Opening => (self.next == self.una).then_some((0, SYN)),
            Phase::Open => {
                let under_way = self.next.wrapping_sub(self.una);
                let room = self.window.min(self.peer_window).saturating_sub(under_way);
                let left = self.end.wrapping_sub(self.next);
                if self.fin && self.next == self.end {
                    return Some((0, FIN));
                }
                if left == 0 || left > u32::MAX / 2 || room == 0 {
                    return None;
                }
                let len = left.min(most);
                if len > room && under_way > 0 {
                    return None;
                }
                let len = len.min(room);
                // The FIN goes with the last bytes.
                let fin = self.fin && len == left;
                Some((len, if fin { FIN | PSH } else { PSH }))
            }
            Phase::Closed | Phase::Failed => None,
        }
    }

    /// The deadline has passed: sends again, or gives up.
    pub fn time_out(&mut self) {
        self.deadline = 0;
        let tries = if self.phase == Phase::Opening {
            SYN_TRIES
        } else {
            TRIES
        };
        self.tries += 1;
        if self.tries > tries {
            self.fail();
            return;
        }
        self.threshold = (self.window / 2).max(2 * 1460);
        self.window = self.window.min(2 * 1460);
        self.next = self.una;
        self.repeated = 0;
    }

    fn fail(&mut self) {
        self.phase = Phase::Failed;
        (self.acknowledge, self.deadline) = (false, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::traffic::random::Random;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    /// Two ends and a wire that loses, repeats and reorders.
    struct Pipe {
        ends: [Option<Tcb>; 2],
        wires: [VecDeque<Segment>; 2],
        random: Random,
        loss: u64,
        got: [u32; 2],
        finished: [bool; 2],
    }

    impl Pipe {
        fn new(seed: u64, loss: u64) -> Self {
            Self {
                ends: [Some(Tcb::connect(u32::MAX - 5)), None],
                wires: [VecDeque::new(), VecDeque::new()],
                random: Random::new(seed),
                loss,
                got: [0; 2],
                finished: [false; 2],
            }
        }

        fn step(&mut self, now: u64) {
            for side in 0..2 {
                let Some(end) = &mut self.ends[side] else {
                    continue;
                };
                if end.deadline != 0 && now >= end.deadline {
                    end.time_out();
                }
                let (wire, random, loss) = (&mut self.wires[side], &mut self.random, self.loss);
                end.emit(now, 100, |segment| {
                    let draw = random.below(100);
                    if draw >= loss {
                        wire.push_back(segment);
                    }
                    if draw == 99 && loss > 0 {
                        wire.push_front(segment);
                    }
                    true
                });
            }
            for side in 0..2 {
                for _ in 0..4 {
                    let Some(segment) = self.wires[1 - side].pop_front() else {
                        break;
                    };
                    let end = match &mut self.ends[side] {
                        Some(end) => end,
                        none => {
                            if segment.flags == SYN {
                                *none = Some(Tcb::accept(77, &segment));
                            }
                            continue;
                        }
                    };
                    let brought = end.receive(&segment);
                    self.got[side] += brought.bytes;
                    self.finished[side] |= brought.finished;
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn everything_arrives_once_over_a_bad_wire(seed: u64, loss in 0u64..15, request in 1u32..500, response in 1u32..20_000) {
            let mut pipe = Pipe::new(seed, loss);
            let (mut asked, mut answered) = (false, false);
            let mut done = false;
            for turn in 0..200_000u64 {
                pipe.step(turn * 1_000_000);
                let opened = pipe.ends[0].is_some_and(|end| end.phase() == Phase::Open);
                if opened && !asked {
                    pipe.ends[0].as_mut().unwrap().write(request);
                    asked = true;
                }
                if pipe.got[1] == request && !answered {
                    pipe.ends[1].as_mut().unwrap().write(response);
                    answered = true;
                }
                if pipe.got[0] == response && answered {
                    pipe.ends[0].as_mut().unwrap().finish();
                }
                if pipe.finished[1] {
                    pipe.ends[1].as_mut().unwrap().finish();
                }
                prop_assert!(pipe.got[0] <= response && pipe.got[1] <= request);
                let phases = pipe.ends.map(|end| end.map(|end| end.phase()));
                if loss == 0 {
                    prop_assert!(!phases.contains(&Some(Phase::Failed)));
                }
                if phases[0] == Some(Phase::Closed) || phases.contains(&Some(Phase::Failed)) {
                    done = true;
                    break;
                }
            }
            prop_assert!(done, "it neither ends nor is given up: {:?}", pipe.ends);
            let failed = pipe.ends.iter().flatten().any(|end| end.phase() == Phase::Failed);
            // Six repetitions in a row get lost very seldom, three of a SYN seldom.
            prop_assert!(failed || pipe.got == [response, request]);
        }

        #[test]
        fn any_segment_is_taken(segments in proptest::collection::vec(any::<(u32, u32, u8, u16, u16)>(), 1..40), active: bool) {
            let syn = Segment { flags: SYN, sequence: 5, ..Segment::default() };
            let mut end = if active { Tcb::connect(9) } else { Tcb::accept(9, &syn) };
            for (turn, (sequence, acknowledged, flags, window, len)) in segments.into_iter().enumerate() {
                let near = |n: u32| n % 64;
                let segment = Segment {
                    sequence: near(sequence), acknowledged: near(acknowledged), flags, window, len: len.into(),
                };
                end.receive(&segment);
                let mut room = 64;
                end.emit(turn as u64, 1460, |_| { room -= 1; room > 0 });
                if turn % 5 == 0 {
                    end.time_out();
                    end.write(1000);
                }
            }
        }
    }

    #[test]
    fn a_reset_fails_the_connection_if_it_fits() {
        let mut end = Tcb::connect(9);
        end.emit(0, 1460, |_| true);
        let reset = |acknowledged| Segment {
            flags: RST | ACK,
            acknowledged,
            ..Segment::default()
        };
        end.receive(&reset(55));
        assert_eq!(end.phase(), Phase::Opening);
        end.receive(&reset(10));
        assert_eq!(end.phase(), Phase::Failed);
    }

    #[test]
    fn silence_is_given_up() {
        let mut end = Tcb::connect(9);
        let (mut now, mut sent) = (0, 0);
        while end.phase() == Phase::Opening {
            end.emit(now, 1460, |_| {
                sent += 1;
                true
            });
            now = end.deadline;
            end.time_out();
        }
        assert_eq!((sent, now), (4, 250_000_000 * 15));
    }
}
