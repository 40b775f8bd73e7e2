//! Workers that run four functions together: packets a second through all of them, in memory, each on a core of its own.
//!
//! Every worker has a port at each end of the chain that brings packets of established flows in turn, as fast as they are
//! taken, and swallows what leaves. Half of the flows begin inside, and go through the NAT; half outside, at the load
//! balancer's address. Both directions of each are brought, or one after the other as they were seen.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use chainplane_dataplane::crew::{Membership, Share, crew};
use chainplane_dataplane::packet::{BURST, Batch, protocol};
use chainplane_dataplane::port::{Port, PortContext, PortDrop};
use chainplane_dataplane::stats::{Snapshot, WorkerStats};
use chainplane_dataplane::time::Time;
use chainplane_dataplane::worker::WakeHandle;

use crate::opening::engine::{ends_of, engine_of, owners};
use crate::opening::frames::{Frame, number, set_number, turned_round};
use crate::opening::load::Load;
use crate::opening::{Kind, Size};

/// How long flows may take to be opened.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where packets come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comes {
    /// At the worker that owns them.
    Home,
    /// At any worker, so that most are handed over.
    Anywhere,
}

/// What a run brought.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    /// Packets a second that left.
    pub rate: f64,
    /// The share of packets that were handed over.
    pub handed: f64,
    /// The share of packets that were lost.
    pub lost: f64,
}

/// What the ports of a worker bring and take.
#[derive(Clone, Default)]
struct Wire {
    /// In turn.
    frames: Rc<RefCell<Arc<Vec<Frame>>>>,
    next: Rc<Cell<usize>>,
    /// Whether they come again and again.
    again: Rc<Cell<bool>>,
    /// What left, while flows are opened.
    seen: Rc<RefCell<Vec<Frame>>>,
    arrived: Rc<Cell<u64>>,
}

impl Port for Wire {
    fn receive(&mut self, cx: &mut PortContext<'_>, batch: &mut Batch) {
        let frames = self.frames.borrow();
        for _ in 0..BURST {
            if self.next.get() >= frames.len() {
                if !self.again.get() || frames.is_empty() {
                    break;
                }
                self.next.set(0);
            }
            let frame = &frames[self.next.get()];
            self.next.set(self.next.get() + 1);
            match cx.pool.copy_of(frame) {
                Some(packet) => batch.push(packet),
                None => cx.tally.refuse(PortDrop::NoBuffer, frame.len()),
            }
        }
    }

    fn send(&mut self, cx: &mut PortContext<'_>, batch: &mut Batch) {
        let count = batch.len() as u64;
        cx.tally.sent(count, count * size_of::<Frame>() as u64);
        self.arrived.set(self.arrived.get() + count);
        if !self.again.get() {
            let seen = batch
                .iter()
                .filter_map(|packet| packet.data().first_chunk());
            self.seen.borrow_mut().extend(seen);
        }
        cx.pool.recycle(batch);
    }
}

/// What a worker is to do.
struct Order {
    /// What comes in at each end.
    frames: [Arc<Vec<Frame>>; 2],
    again: bool,
    stop: Arc<AtomicBool>,
    /// What left, by all workers; told while flows are opened.
    arrived: Arc<AtomicU64>,
}

/// What a worker has done.
struct Done {
    arrived: u64,
    seen: [Vec<Frame>; 2],
    took: Duration,
    snapshot: Snapshot,
}

struct Worker {
    orders: Sender<Order>,
    done: Receiver<Done>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Without orders the thread ends.
        self.orders = channel().0;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Workers that have opened all flows.
pub struct Crew {
    workers: Vec<Worker>,
    /// What comes in at each end of each worker, where it belongs and elsewhere.
    home: Vec<[Arc<Vec<Frame>>; 2]>,
    anywhere: Vec<[Arc<Vec<Frame>>; 2]>,
    before: Vec<Snapshot>,
}

/// A flow that is open.
struct Open {
    /// The end, inside or outside, at which each direction comes in, and what does.
    ways: [(usize, Frame); 2],
    /// The worker that owns it.
    owner: usize,
}

impl Crew {
    /// So many workers, on the cores 0, 1 and so on, and so many flows: of all of them together, or of each a part that
    /// it runs by itself, which is what the machine can do.
    ///
    /// # Panics
    /// When a flow does not come up.
    pub fn new(members: u16, together: bool, flows: u32) -> Self {
        let mut crew = Self {
            workers: start(members, together, flows),
            home: Vec::new(),
            anywhere: Vec::new(),
            before: Vec::new(),
        };
        let open = crew.open(flows, together);
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut anyone = move || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random >> 20) as usize % usize::from(members)
        };
        crew.home = dealt(members, &open, |open| open.owner);
        crew.anywhere = dealt(members, &open, |_| anyone());
        // Answers open what is left to open, and records are made of all.
        crew.run(Comes::Home, Duration::from_millis(200));
        crew
    }

    /// Opens all flows by packets that come in at the first worker, or, of those that it runs by itself, at each.
    fn open(&mut self, flows: u32, together: bool) -> Vec<Open> {
        let loads = [false, true].map(|inbound| Load::new(kind(inbound)));
        let mut first: [Vec<Frame>; 2] = Default::default();
        let mut frames: Vec<[Vec<Frame>; 2]> = vec![Default::default(); self.workers.len()];
        for flow in 0..flows {
            let from = (flow % 2) as usize;
            let mut frame = loads[from].frame((flow / 2).into());
            set_number(&mut frame, flow);
            first[from].push(frame);
            let at = if together { 0 } else { flow as usize / 2 };
            frames[at % self.workers.len()][from].push(frame);
        }
        let frames: Vec<_> = frames.into_iter().map(|ends| ends.map(Arc::new)).collect();
        let (done, _) = self.order(&frames, false, |arrived, elapsed| {
            assert!(elapsed < PATIENCE, "{arrived} of {flows} flows came up");
            arrived < u64::from(flows)
        });
        let first = first.map(|frames| {
            let by_number = frames.into_iter().map(|frame| (number(&frame), frame));
            by_number.collect::<std::collections::HashMap<_, _>>()
        });
        let mut open = Vec::new();
        for (owner, done) in done.iter().enumerate() {
            for (end, seen) in done.seen.iter().enumerate() {
                open.extend(seen.iter().map(|frame| Open {
                    ways: [
                        (1 - end, first[1 - end][&number(frame)]),
                        (end, turned_round(frame)),
                    ],
                    owner,
                }));
            }
        }
        open.sort_by_key(|open| number(&open.ways[0].1));
        open
    }

    /// Brings packets of all flows for so long.
    pub fn run(&mut self, comes: Comes, time: Duration) -> Outcome {
        let frames = match comes {
            Comes::Home => self.home.clone(),
            Comes::Anywhere => self.anywhere.clone(),
        };
        let (done, before) = self.order(&frames, true, |_, elapsed| elapsed < time);
        let rate = done
            .iter()
            .map(|done| done.arrived as f64 / done.took.as_secs_f64());
        let change = |of: &dyn Fn(&Snapshot) -> u64| {
            let after: u64 = done.iter().map(|done| of(&done.snapshot)).sum();
            (after - before.iter().map(of).sum::<u64>()) as f64
        };
        let ports = |snapshot: &Snapshot, name: &str| -> u64 {
            snapshot.ports.iter().map(|port| port.value(name)).sum()
        };
        let received = change(&|snapshot| ports(snapshot, "rx-packets")).max(1.0);
        let sent = change(&|snapshot| ports(snapshot, "tx-packets"));
        Outcome {
            rate: rate.sum(),
            handed: change(&|snapshot| snapshot.value("handed-over")) / received,
            lost: (received - sent) / received,
        }
    }

    /// Has all workers poll as long as `more` says, of what has left so far; what they did, and their counters before.
    fn order(
        &mut self,
        frames: &[[Arc<Vec<Frame>>; 2]],
        again: bool,
        more: impl Fn(u64, Duration) -> bool,
    ) -> (Vec<Done>, Vec<Snapshot>) {
        let (stop, arrived) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        for (worker, frames) in self.workers.iter().zip(frames) {
            let order = Order {
                frames: frames.clone(),
                again,
                stop: Arc::clone(&stop),
                arrived: Arc::clone(&arrived),
            };
            worker.orders.send(order).expect("a worker");
        }
        let start = Instant::now();
        while more(arrived.load(Relaxed), start.elapsed()) {
            std::thread::sleep(Duration::from_millis(1));
        }
        stop.store(true, Relaxed);
        let done = self.workers.iter().map(|worker| worker.done.recv());
        let done: Vec<_> = done.map(|done| done.expect("a worker")).collect();
        let now = done.iter().map(|done| done.snapshot.clone()).collect();
        (done, std::mem::replace(&mut self.before, now))
    }
}

/// Flows that begin inside and go through the NAT, or outside and to the load balancer.
fn kind(inbound: bool) -> Kind {
    Kind {
        protocol: protocol::UDP,
        ipv6: false,
        inbound,
        answers: false,
    }
}

/// Deals out both directions of each flow to workers.
fn dealt(
    members: u16,
    flows: &[Open],
    mut to: impl FnMut(&Open) -> usize,
) -> Vec<[Arc<Vec<Frame>>; 2]> {
    let mut frames: Vec<[Vec<Frame>; 2]> = (0..members).map(|_| Default::default()).collect();
    for flow in flows {
        for (end, frame) in flow.ways {
            frames[to(flow)][end].push(frame);
        }
    }
    frames.into_iter().map(|ends| ends.map(Arc::new)).collect()
}

fn start(members: u16, together: bool, flows: u32) -> Vec<Worker> {
    let size = Size {
        sessions: flows * 2,
        flows: flows as usize * 4,
        timeout: 3600,
    };
    let owners = owners(kind(false), size, members);
    let wakes = (0..members).map(|_| WakeHandle::new().expect("a descriptor"));
    let memberships: Vec<_> = if together {
        let joined = crew(&owners, wakes.collect(), 2);
        joined.into_iter().map(Some).collect()
    } else {
        wakes.map(|_| None).collect()
    };
    let memberships = memberships.into_iter().enumerate();
    memberships
        .map(|(core, membership)| {
            let (orders, inbox) = channel();
            let (reply, done) = channel();
            let work = move || work(core, membership, size, &inbox, &reply);
            let thread = std::thread::spawn(work);
            Worker {
                orders,
                done,
                thread: Some(thread),
            }
        })
        .collect()
}

/// A worker's thread: polls as it is ordered to.
fn work(
    core: usize,
    membership: Option<Membership>,
    size: Size,
    orders: &Receiver<Order>,
    reply: &Sender<Done>,
) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(core);
    rustix::thread::sched_setaffinity(None, &set).expect("a core");
    let share = membership.as_ref().map_or(Share::WHOLE, Membership::share);
    let mut engine = engine_of(kind(false), size, 1, (false, share), &|function| function);
    let wires = [Wire::default(), Wire::default()];
    for ((wire, name), link) in wires.iter().zip(["inside", "outside"]).zip(ends_of(0)) {
        engine.add_port(name, Box::new(wire.clone()), link);
    }
    if let Some(membership) = membership {
        engine.join(membership);
    }
    let clock = Instant::now();
    let now = || Time((1 << 30) + clock.elapsed().as_nanos() as u64);
    while let Ok(order) = orders.recv() {
        for (wire, frames) in wires.iter().zip(order.frames) {
            *wire.frames.borrow_mut() = frames;
            wire.next.set(0);
            wire.again.set(order.again);
            wire.arrived.set(0);
        }
        let arrived = || wires.iter().map(|wire| wire.arrived.get()).sum::<u64>();
        let (start, mut told) = (Instant::now(), 0);
        while !order.stop.load(Relaxed) {
            engine.poll(now());
            if !order.again {
                let all = arrived();
                order.arrived.fetch_add(all - told, Relaxed);
                told = all;
            }
        }
        let (took, arrived) = (start.elapsed(), arrived());
        engine.publish_gauges();
        let done = Done {
            arrived,
            seen: [&wires[0], &wires[1]].map(|wire| wire.seen.take()),
            took,
            snapshot: WorkerStats::of(&engine).snapshot(),
        };
        if reply.send(done).is_err() {
            break;
        }
    }
}
