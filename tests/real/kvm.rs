//! Guests under KVM, without an operating system: frames, kicks and interrupts across the boundary of a real virtual
//! machine.

use std::path::Path;
use std::time::{Duration, Instant};

use chainplane_benches::microguest::{Counters, MicroGuest, PortConfig, Settings};
use chainplane_benches::traffic::frames;
use chainplane_tests::{Chainplane, Error, Need, Result, Workspace, wait_until};
use chainplane_vhost::driver::{FrontEnd, FrontEndConfig};
use chainplane_vhost::net::feature;

use crate::Test;

const NEEDS: &[Need] = &[Need::Kvm];

pub const TESTS: &[Test] = &[
    Test {
        name: "kvm::frames_come_back_from_the_other_side",
        needs: NEEDS,
        run: frames_come_back,
    },
    Test {
        name: "kvm::two_guests_send_to_each_other",
        needs: NEEDS,
        run: two_guests,
    },
    Test {
        name: "kvm::two_guests_use_event_indices",
        needs: NEEDS,
        run: two_guests_by_index,
    },
    Test {
        name: "kvm::a_guest_polls_at_full_speed",
        needs: NEEDS,
        run: full_speed,
    },
];

/// Frames that each guest sends.
const FRAMES: u64 = 1000;
/// The same where it polls.
const MANY_FRAMES: u64 = 200_000;
const LIMIT: Duration = Duration::from_secs(30);

/// Two ports of a worker that sleeps as soon as it has nothing to do, so that the next frame needs a kick.
const SLEEPY: &str = r"
version: 1
workers: [{ idle: interrupt }]
ports:
  a: { vhost-user: { socket: a.sock } }
  b: { vhost-user: { socket: b.sock } }
chains:
  only: [a, b]
";

/// What a guest does that waits for interrupts.
const WAITING: Settings = Settings {
    queue_size: 256,
    mergeable: true,
    event_index: false,
    interrupts: true,
    window: 16,
    burst: 4,
};

fn port<'a>(socket: &'a Path, frames: [&'a [u8]; 2]) -> PortConfig<'a> {
    PortConfig {
        socket,
        sends: frames[0],
        expects: frames[1],
    }
}

/// Waits until a port of a guest has received so many frames; all of them must be right, and in order.
fn wait_for_frames(guest: &MicroGuest, port: usize, frames: u64) -> Result<Counters> {
    let counters = wait_until(LIMIT, &format!("{frames} frames"), || {
        if !guest.is_running() {
            return Err(Error::new("the guest has ended"));
        }
        let counters = guest.counters(port);
        Ok((counters.received >= frames).then_some(counters))
    })?;
    assert_eq!((counters.errors, counters.gaps), (0, 0), "{counters:?}");
    Ok(counters)
}

/// Ends the guests and chainplane. The worker slept often, was woken by kicks, and sent interrupts; nothing was dropped.
fn proves_notifications(
    chainplane: Chainplane,
    guests: impl IntoIterator<Item = MicroGuest>,
) -> Result<()> {
    for guest in guests {
        let (kicks, interrupts) = (guest.counters(0).kicks, guest.interrupts());
        guest.stop()?;
        println!("{kicks} kicks, {interrupts} interrupts");
        // How often a guest finds its frames before it sleeps is a matter of luck.
        assert!(
            kicks > 10 && interrupts > 0,
            "{kicks} kicks, {interrupts} interrupts"
        );
    }
    let report = chainplane.show()?;
    let sleeps = report["workers"][0]["counters"]["sleeps"].as_u64();
    assert!(sleeps > Some(10), "{report:#}");
    for port in ["a", "b"] {
        let counters = &chainplane.report("ports", port)?["counters"];
        for counter in ["rx-packets", "tx-packets"] {
            assert_eq!(counters[counter].as_u64(), Some(FRAMES), "{report:#}");
        }
    }
    chainplane.stop()
}

/// A guest sends to a driver on the host, which returns every frame.
fn frames_come_back() -> Result<()> {
    let files = Workspace::new()?;
    let chainplane = Chainplane::start(&files, None, SLEEPY)?;
    let (a, b) = (files.path("a.sock"), files.path("b.sock"));
    let mut config = FrontEndConfig::new(b);
    config.features = feature::VERSION_1 | feature::MRG_RXBUF;
    let (_end, mut pairs) = FrontEnd::connect(config).map_err(std::io::Error::other)?;
    let frame = frames(300)[0].clone();
    let guest = MicroGuest::start(&[port(&a, [&frame, &frame])], WAITING)?;
    guest.send(0, FRAMES);
    let (pair, start) = (&mut pairs[0], Instant::now());
    let mut waiting = Vec::new();
    while guest.counters(0).received < FRAMES && start.elapsed() < LIMIT {
        pair.receive
            .receive(64, |header, bytes| waiting.push((header, bytes.to_vec())));
        for (header, bytes) in waiting.drain(..) {
            assert_eq!(bytes.len(), frame.len());
            assert!(pair.transmit.send(header, &bytes), "the ring has room");
        }
        pair.transmit.flush();
        std::thread::yield_now();
    }
    let counters = wait_for_frames(&guest, 0, FRAMES)?;
    assert_eq!((counters.sent, counters.received), (FRAMES, FRAMES));
    proves_notifications(chainplane, [guest])
}

fn two_guests() -> Result<()> {
    meet(WAITING)
}

fn two_guests_by_index() -> Result<()> {
    meet(Settings {
        event_index: true,
        mergeable: false,
        ..WAITING
    })
}

/// Two guests send to each other, waiting for interrupts in between.
fn meet(settings: Settings) -> Result<()> {
    let files = Workspace::new()?;
    let chainplane = Chainplane::start(&files, None, SLEEPY)?;
    let [there, back] = frames(300);
    let (a, b) = (files.path("a.sock"), files.path("b.sock"));
    let guests = [
        MicroGuest::start(&[port(&a, [&there, &back])], settings)?,
        MicroGuest::start(&[port(&b, [&back, &there])], settings)?,
    ];
    for guest in &guests {
        let by_index = guest.features(0) & feature::EVENT_IDX != 0;
        assert_eq!(by_index, settings.event_index);
        guest.send(0, FRAMES);
    }
    for guest in &guests {
        let counters = wait_for_frames(guest, 0, FRAMES)?;
        assert_eq!((counters.sent, counters.received), (FRAMES, FRAMES));
    }
    proves_notifications(chainplane, guests)
}

/// A guest with two network cards polls as fast as it can, through a firewall between them.
fn full_speed() -> Result<()> {
    let files = Workspace::new()?;
    let chainplane = Chainplane::start(
        &files,
        None,
        r"
version: 1
workers: [{ idle: busy }]
ports:
  a: { vhost-user: { socket: a.sock } }
  b: { vhost-user: { socket: b.sock } }
functions:
  filter:
    firewall: { default: { outbound: allow, inbound: allow } }
chains:
  only: [a, filter, b]
",
    )?;
    let [there, back] = frames(64);
    let settings = Settings {
        window: 512,
        queue_size: 1024,
        ..Settings::default()
    };
    let (a, b) = (files.path("a.sock"), files.path("b.sock"));
    let ports = [port(&a, [&there, &back]), port(&b, [&back, &there])];
    let guest = MicroGuest::start(&ports, settings)?;
    let start = Instant::now();
    for port in 0..2 {
        guest.send(port, MANY_FRAMES);
    }
    for port in 0..2 {
        let counters = wait_for_frames(&guest, port, MANY_FRAMES)?;
        assert_eq!(
            (counters.sent, counters.received),
            (MANY_FRAMES, MANY_FRAMES)
        );
    }
    println!("{} frames in {:?}", 2 * MANY_FRAMES, start.elapsed());
    guest.stop()?;
    chainplane.stop()
}
