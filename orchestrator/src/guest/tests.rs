//! Guests back to back, over a cable of queues in memory.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chainplane_dataplane::packet::Sum;
use chainplane_nf::config::OneOrMany;
use chainplane_vhost::event::Event as Bell;

use super::wire::{Checksum, Wire};
use super::*;
use crate::spec::file::{Expected, Fetch, Ping, Reached};

type Queue = Arc<Mutex<VecDeque<(Vec<u8>, Checksum)>>>;
/// Changes the frame with this number, or swallows it.
type Fault = fn(u32, &mut [u8]) -> bool;

/// One end of a cable.
struct End {
    from: Queue,
    to: Queue,
    bell: Arc<Bell>,
    other_bell: Arc<Bell>,
    checksums: bool,
    fault: Fault,
    sent: u32,
}

fn cable(checksums: bool, fault: Fault) -> (End, End) {
    let (a, b) = (Queue::default(), Queue::default());
    let bell = || Arc::new(Bell::new().unwrap());
    let (bell_a, bell_b) = (bell(), bell());
    let end = |from: &Queue, to: &Queue, bell: &Arc<Bell>, other: &Arc<Bell>| End {
        from: from.clone(),
        to: to.clone(),
        bell: bell.clone(),
        other_bell: other.clone(),
        checksums,
        fault,
        sent: 0,
    };
    let left = end(&a, &b, &bell_a, &bell_b);
    let right = end(&b, &a, &bell_b, &bell_a);
    (left, right)
}

impl Wire for End {
    fn receive(&mut self, frame: &mut Vec<u8>) -> Option<Checksum> {
        let (bytes, checksum) = self.from.lock().unwrap().pop_front()?;
        frame.extend(bytes);
        Some(checksum)
    }

    fn can_send(&mut self) -> bool {
        // As many as the real card has room for.
        self.to.lock().unwrap().len() < 1024
    }

    fn send(&mut self, frame: &[u8], checksum: Checksum) {
        let mut bytes = frame.to_vec();
        if let Checksum::Partial { start, offset } = checksum {
            // What a wire that is one does with it.
            let (start, field) = (usize::from(start), usize::from(start + offset));
            let sum = Sum::default().plus_bytes(&bytes[start..]).finish();
            bytes[field..field + 2].copy_from_slice(&sum.to_be_bytes());
        }
        self.sent += 1;
        if (self.fault)(self.sent, &mut bytes) {
            self.to
                .lock()
                .unwrap()
                .push_back((bytes, Checksum::Present));
        }
    }

    fn flush(&mut self) {
        self.other_bell.signal();
    }

    fn arm(&mut self) -> bool {
        !self.from.lock().unwrap().is_empty()
    }

    fn wakeup(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    fn disarm(&mut self) {
        self.bell.clear();
    }

    fn link(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn offloads_checksums(&self) -> bool {
        self.checksums
    }
}

fn spec(name: &str, addresses: &[&str], serve: &[u16], tasks: Vec<Task>) -> GuestSpec {
    GuestSpec {
        name: name.to_owned(),
        mac: Mac::local(name),
        addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        gateways: Vec::new(),
        serve: serve.to_vec(),
        tasks,
        offload_checksums: true,
    }
}

fn ping(to: &str, count: u32, expect: Reached) -> Task {
    let to = to.parse().unwrap();
    Task::Ping(Ping {
        to,
        count,
        interval_ms: 0,
        expect,
    })
}

fn fetch(from: &str, count: u32, bytes: u64) -> Fetch {
    Fetch {
        from: from.parse().unwrap(),
        count,
        bytes,
        interval_ms: 0,
        expect: Expected::Answered,
        served_by: OneOrMany::default(),
        seen_as: None,
    }
}

/// Two guests, of which the client does its tasks; results as they come.
struct Pair {
    client: Guest,
    server: Guest,
    events: Receiver<Event>,
}

fn pair(tasks: Vec<Task>, checksums: bool, fault: Fault) -> Pair {
    let (left, right) = cable(checksums, fault);
    let (sender, events) = channel();
    let addresses = ["10.0.0.2/24", "fd00::2/64"];
    let server = spec("server", &addresses, &[80], Vec::new());
    let addresses = ["10.0.0.1/24", "fd00::1/64"];
    let client = spec("client", &addresses, &[], tasks);
    let pair = Pair {
        server: Guest::start_with(server, sender.clone(), || Ok(right)).unwrap(),
        client: Guest::start_with(client, sender, || Ok(left)).unwrap(),
        events,
    };
    pair.client.begin();
    pair
}

impl Pair {
    fn result(&self) -> TaskResult {
        loop {
            match self.events.recv_timeout(Duration::from_mins(1)).unwrap() {
                Event::Task(result) => return *result,
                Event::Up { .. } => {}
                Event::Failed { guest, error } => panic!("{guest}: {error}"),
            }
        }
    }
}

fn whole(_: u32, _: &mut [u8]) -> bool {
    true
}

#[test]
fn pings_are_answered_over_both_ip_versions() {
    let tasks = ["10.0.0.2", "fd00::2"].map(|to| ping(to, 3, Reached::Answered));
    let pair = pair(tasks.to_vec(), false, whole);
    for to in ["10.0.0.2", "fd00::2"] {
        let result = pair.result();
        assert_eq!((result.answered, result.shortfall()), (3, None));
        assert_eq!(
            result.to_string(),
            format!("client: ping {to}: 3 of 3 answered")
        );
    }
}

#[test]
fn nobody_answers_for_an_address_that_nobody_has() {
    let tasks = vec![
        ping("10.0.0.9", 1, Reached::Unanswered),
        ping("10.0.0.2", 2, Reached::Unanswered),
    ];
    let pair = pair(tasks, false, whole);
    assert!(pair.result().met());
    let wrong = pair.result();
    assert_eq!(
        wrong.to_string(),
        "client: ping 10.0.0.2: 2 of 2 answered; NOT as expected (unanswered): 2 answered"
    );
}

#[test]
fn fetches_bring_every_byte_with_and_without_checksum_offload() {
    for checksums in [false, true] {
        let tasks =
            ["10.0.0.2:80", "[fd00::2]:80"].map(|from| Task::Fetch(fetch(from, 3, 300_000)));
        let mut pair = pair(tasks.to_vec(), checksums, whole);
        for (from, seen) in [("10.0.0.2:80", "10.0.0.1"), ("[fd00::2]:80", "fd00::1")] {
            assert_eq!(
                pair.result().to_string(),
                format!("client: fetch {from}: 3 of 3 answered; by server 3; seen as {seen}")
            );
        }
        pair.server.stop();
        let served = pair.server.served();
        assert_eq!((served.requests(), served.bytes()), (6, 1_800_000));
    }
}

#[test]
fn rounds_keep_their_interval() {
    let slow = Task::Ping(Ping {
        to: "10.0.0.2".parse().unwrap(),
        count: 3,
        interval_ms: 30,
        expect: Reached::Answered,
    });
    let slow_too = Task::Fetch(Fetch {
        interval_ms: 30,
        ..fetch("10.0.0.2:80", 3, 10)
    });
    let pair = pair(vec![slow, slow_too], false, whole);
    for _ in 0..2 {
        let result = pair.result();
        assert_eq!((result.answered, result.shortfall()), (3, None));
        assert!(
            result.took >= Duration::from_millis(60),
            "{:?}",
            result.took
        );
    }
}

#[test]
fn a_port_that_nobody_serves_is_denied() {
    let denied = Fetch {
        expect: Expected::Denied,
        ..fetch("10.0.0.2:81", 2, 10)
    };
    let pair = pair(vec![Task::Fetch(denied)], false, whole);
    let result = pair.result();
    assert!(result.met());
    assert_eq!(
        result.to_string(),
        "client: fetch 10.0.0.2:81: 2 of 2 denied"
    );
}

#[test]
fn who_served_and_who_was_seen_must_be_as_expected() {
    let by = |names: &[&str]| OneOrMany(names.iter().map(|n| (*n).to_owned()).collect());
    let wanted = |names: &[&str], seen: &str| {
        Task::Fetch(Fetch {
            served_by: by(names),
            seen_as: Some(seen.parse().unwrap()),
            ..fetch("10.0.0.2:80", 1, 0)
        })
    };
    let tasks = vec![
        wanted(&["server"], "10.0.0.1"),
        wanted(&["server", "other"], "10.0.0.1"),
        wanted(&["server"], "203.0.113.2"),
    ];
    let pair = pair(tasks, false, whole);
    assert_eq!(pair.result().shortfall(), None);
    assert_eq!(pair.result().shortfall().unwrap(), "other served none");
    assert_eq!(pair.result().shortfall().unwrap(), "seen as 10.0.0.1");
}

#[test]
fn lost_frames_are_sent_again() {
    let tasks = vec![Task::Fetch(fetch("10.0.0.2:80", 2, 200_000))];
    let pair = pair(tasks, true, |number, _| number % 50 != 0);
    let result = pair.result();
    assert!(result.met(), "{result}");
}

#[test]
fn a_damaged_segment_does_not_pass_for_a_right_one() {
    let damage = |number: u32, frame: &mut [u8]| {
        if number.is_multiple_of(50) && frame.len() > 1000 {
            frame[500] ^= 0x10;
        }
        true
    };
    for checksums in [false, true] {
        let tasks = vec![Task::Fetch(fetch("10.0.0.2:80", 2, 200_000))];
        let pair = pair(tasks, checksums, damage);
        let result = pair.result();
        assert!(result.met(), "{result}");
    }
}
