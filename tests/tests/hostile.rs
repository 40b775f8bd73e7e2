//! What a hostile guest can cost the others on its worker.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use chainplane::instance::Instance;
use chainplane_benches::siege::{self, Attack, FULL, Hostile, Polled, Siege};
use chainplane_dataplane::rota::LONGEST_REST;
use chainplane_vhost::driver::{FrontEnd, FrontEndConfig};
use chainplane_vhost::net::NetHeader;
use chainplane_vhost::ring::{BURST_BYTES, BURST_DESCRIPTORS, MAX_CHAIN, MAX_FRAME, RingError};

const POLLS: usize = 200;

/// Whatever a guest has in its rings, its neighbours move a full burst in every poll, and what a poll spends on it is
/// within the bound that `docs/threat-model.md` tells.
#[test]
fn a_poll_spends_no_more_on_a_guest_than_the_bound() {
    for attack in Attack::ALL {
        let mut siege = Siege::new(attack);
        let polls: Vec<_> = (0..POLLS).map(|_| siege.poll()).collect();
        let worst = |of: fn(&Polled) -> u64| polls.iter().map(of).max().unwrap_or_default();
        let (descriptors, bytes) = (worst(|poll| poll.descriptors), worst(|poll| poll.bytes));
        let mut times: Vec<_> = polls.iter().map(|poll| poll.time).collect();
        times.sort();
        let time = times[POLLS / 2];
        println!(
            "{attack:?}: at most {descriptors} descriptors and {bytes} bytes a poll; {time:?}"
        );
        for poll in &polls {
            assert_eq!(poll.received, [FULL; 2], "{attack:?}");
        }
        assert!(descriptors <= u64::from(BURST_DESCRIPTORS) + MAX_CHAIN as u64);
        assert!(bytes <= u64::from(BURST_BYTES) + MAX_FRAME as u64);
        assert!(
            attack == Attack::None || descriptors > 0,
            "{attack:?} does nothing"
        );
    }
}

/// Polls until a thread that misbehaves has ended; in no poll the others may get less than all.
fn poll_beside<T: Send + 'static>(
    siege: &mut Siege,
    misbehave: impl FnOnce(&dyn Fn()) -> T + Send + 'static,
) -> T {
    let polls = Arc::new(AtomicU64::new(0));
    let seen = polls.clone();
    let thread = thread::spawn(move || {
        // Lets the worker have so many polls that it has seen what was done before: a guest who was silent rests.
        misbehave(&|| {
            let until = seen.load(Ordering::Acquire) + u64::from(LONGEST_REST) + 2;
            while seen.load(Ordering::Acquire) < until {
                thread::sleep(Duration::from_micros(20));
            }
        })
    });
    while !thread.is_finished() {
        assert_eq!(siege.poll().received, [FULL; 2]);
        polls.fetch_add(1, Ordering::Release);
    }
    // Whoever waits has two polls more.
    println!("{} polls", polls.load(Ordering::Acquire));
    thread.join().expect("the thread that misbehaves")
}

/// Breaks its ring and starts it anew, a hundred times in a row, with memory tables, switches and kicks in between.
#[test]
fn a_flood_of_messages_and_breaks_costs_others_nothing() {
    const CYCLES: u64 = 100;
    let mut siege = Siege::new(Attack::Crumbs);
    let mut hostile = siege.release().expect("a hostile guest");
    let before = siege.taken().breaks;
    let hostile = poll_beside(&mut siege, move |worker_polls| {
        for _ in 0..CYCLES {
            hostile.jump();
            worker_polls();
            for _ in 0..5 {
                hostile.end.share_memory().expect("a memory table");
                hostile.end.enable(false).expect("off");
                hostile.end.enable(true).expect("on");
            }
            hostile.restart().expect("a ring that starts anew");
            hostile.refill();
            worker_polls();
        }
        hostile
    });
    assert_eq!(siege.taken().breaks - before, CYCLES);
    assert_eq!(siege.status().queues[1].broken, None);
    drop(hostile);
}

/// Truncates its memory while the worker copies from it and to it, and comes back, again and again.
#[test]
fn truncated_memory_under_load_costs_others_nothing() {
    const CYCLES: usize = 20;
    let mut siege = Siege::new(Attack::Giants);
    for cycle in 0..CYCLES {
        let hostile = siege.release().expect("a hostile guest");
        let socket = siege.socket();
        // To nothing, or to the rings without the buffers.
        let rest = if cycle % 2 == 0 {
            0
        } else {
            hostile.end.layouts()[1].buffers as u64
        };
        let hostile = poll_beside(&mut siege, move |worker_polls| {
            let file = hostile.end.memory_file().try_clone().expect("a descriptor");
            let file = std::fs::File::from(file);
            hostile.refill();
            file.set_len(rest).expect("a truncated file");
            hostile.refill();
            worker_polls();
            hostile
        });
        let broken = siege.status().queues[1].broken;
        assert_eq!(broken, Some(RingError::MemoryTruncated), "cycle {cycle}");
        drop(hostile);
        let next = poll_beside(&mut siege, move |_| {
            Hostile::attach(&socket, Attack::Giants)
        });
        siege.admit(next);
    }
    let before = siege.taken().frames;
    for _ in 0..10 {
        siege.poll();
    }
    assert!(siege.taken().frames > before, "the last one is served");
}

/// Kicks without end and without anything to send, while the others kick a sleeping worker for each frame.
#[test]
fn a_flood_of_kicks_loses_nobodys_frames() {
    const FRAMES: usize = 300;
    let directory = tempfile::tempdir().expect("a directory for sockets");
    let socket = |name: &str| directory.path().join(name);
    let model = siege::model(directory.path(), "{ idle: interrupt }");
    let mut instance = Instance::start(model).expect("an instance");
    let connect = |name| FrontEnd::connect(FrontEndConfig::new(socket(name))).expect("a guest");
    let [mut a, mut b, h] = ["a", "b", "h"].map(connect);
    let done = Arc::new(AtomicBool::new(false));
    let stop = done.clone();
    let flood = thread::spawn(move || {
        let mut kicks = 0u64;
        while !stop.load(Ordering::Relaxed) {
            h.1[0].transmit.kick().signal();
            kicks += 1;
        }
        kicks
    });
    let frame = [7; 60];
    for number in 0..FRAMES {
        let (from, to) = if number % 2 == 0 {
            (&mut a, &mut b)
        } else {
            (&mut b, &mut a)
        };
        assert!(from.1[0].transmit.send(NetHeader::default(), &frame));
        from.1[0].transmit.flush();
        let start = Instant::now();
        while to.1[0].receive.receive(1, |_, got| assert_eq!(got, frame)) == 0 {
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "frame {number} is lost"
            );
            thread::yield_now();
        }
    }
    done.store(true, Ordering::Relaxed);
    println!(
        "{FRAMES} frames beside {} kicks",
        flood.join().expect("the flood")
    );
    instance.stop();
}
