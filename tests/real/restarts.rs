//! Either side of a vhost-user port killed under load and started again, a hundred times in a row.

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use chainplane_tests::{Chainplane, Guest, Nic, Process, Result, Workspace, program};
use chainplane_vhost::driver::{DriverPair, FrontEnd, FrontEndConfig};
use chainplane_vhost::net::{NetHeader, feature};

use crate::{GUEST, Test};

pub const TESTS: &[Test] = &[
    Test {
        name: "restarts::back_end_killed_split",
        needs: &[],
        run: back_end_killed_split,
    },
    Test {
        name: "restarts::back_end_killed_split_inflight",
        needs: &[],
        run: back_end_killed_split_inflight,
    },
    Test {
        name: "restarts::back_end_killed_packed",
        needs: &[],
        run: back_end_killed_packed,
    },
    Test {
        name: "restarts::back_end_killed_packed_in_order",
        needs: &[],
        run: back_end_killed_packed_in_order,
    },
    Test {
        name: "restarts::driver_killed",
        needs: &[],
        run: driver_killed,
    },
    Test {
        name: "restarts::driver_killed_packed",
        needs: &[],
        run: driver_killed_packed,
    },
    Test {
        name: "restarts::guests_survive_kills",
        needs: &GUEST,
        run: guests_survive_kills,
    },
    Test {
        name: "restarts::killed_guest_comes_back",
        needs: &GUEST,
        run: killed_guest_comes_back,
    },
];

/// Kills in a row.
const KILLS: usize = 100;
/// Longest wait for anything.
const LIMIT: Duration = Duration::from_secs(20);
/// Set for a copy of this program that plays a driver to be killed: the path of its socket.
const DRIVER: &str = "CHAINPLANE_TEST_DRIVER";
/// The same: features that it asks for beside the usual ones.
const DRIVER_FEATURES: &str = "CHAINPLANE_TEST_DRIVER_FEATURES";
/// Frames that one kill may lose or send twice at most: those that were inside, in batches and send
/// queues, and those that the guest was not yet told of.
const INSIDE: u64 = 512;

const YAML: &str = r"
version: 1
ports:
  left: { vhost-user: { socket: left.sock } }
  right: { vhost-user: { socket: right.sock } }
chains:
  only: [left, right]
";

const GUESTS: &str = r"
version: 1
workers: [{ idle: adaptive }]
ports:
  one: { vhost-user: { socket: one.sock } }
  two: { vhost-user: { socket: two.sock, role: client } }
chains:
  only: [one, two]
";

/// Times that differ from round to round and are the same in every run.
fn pause(round: usize) -> Duration {
    Duration::from_micros(4000 + (round as u64 * 7919) % 12_000)
}

/// A guest on one of two ports, whose frames carry numbers.
struct Side {
    front_end: FrontEnd,
    pairs: Vec<DriverPair>,
    next: u64,
    /// The number expected next from the other side.
    expected: u64,
    received: u64,
    lost: u64,
    again: u64,
    /// Most frames lost or received twice in a row.
    worst: u64,
}

impl Side {
    fn connect(config: FrontEndConfig) -> Result<Self> {
        let (front_end, pairs) = FrontEnd::connect(config)?;
        Ok(Self {
            front_end,
            pairs,
            next: 0,
            expected: 0,
            received: 0,
            lost: 0,
            again: 0,
            worst: 0,
        })
    }

    fn send(&mut self, more: usize) {
        let transmit = &mut self.pairs[0].transmit;
        for _ in 0..more {
            if !transmit.send(NetHeader::default(), &frame(self.next)) {
                break;
            }
            self.next += 1;
        }
        transmit.flush();
    }

    fn receive(&mut self) {
        let Self {
            pairs,
            expected,
            received,
            lost,
            again,
            worst,
            ..
        } = self;
        pairs[0].receive.receive(64, |_, got| {
            let number = number(got);
            *received += 1;
            if number >= *expected {
                *lost += number - *expected;
                *worst = (*worst).max(number - *expected);
                *expected = number + 1;
            } else {
                *again += 1;
                *worst = (*worst).max(*expected - number);
            }
        });
    }

    fn bad(&self) -> u64 {
        self.pairs[0].receive.bad_used + self.pairs[0].transmit.bad_used
    }
}

/// A frame whose every byte follows from its number.
fn frame(number: u64) -> Vec<u8> {
    let mut frame = vec![0x02, 0, 0, 0, 0, 2, 0x02, 0, 0, 0, 0, 1, 0x88, 0xb5];
    frame.extend(number.to_le_bytes());
    let len = 60 + (number * 37 % 1400) as usize;
    frame.resize(len, number as u8);
    frame
}

/// The number of a frame that must be whole.
fn number(got: &[u8]) -> u64 {
    let bytes = got[14..22].try_into().unwrap_or_default();
    let number = u64::from_le_bytes(bytes);
    assert!(got == frame(number), "frame {number} is not what was sent");
    number
}

/// Lets both sides send for `time`.
fn exchange(sides: &mut [Side; 2], time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        for side in &mut *sides {
            side.send(32);
            side.receive();
        }
    }
}

/// Sends until more frames have come to both sides, or for too long.
fn exchange_until_it_works(sides: &mut [Side; 2]) {
    let before = [sides[0].received, sides[1].received];
    let end = Instant::now() + LIMIT;
    while (0..2).any(|i| sides[i].received < before[i] + 200) {
        assert!(Instant::now() < end, "no frames come through any more");
        exchange(sides, Duration::from_millis(1));
    }
}

/// Kills chainplane again and again while two guests of ours send as fast as they can.
fn kill_back_end(features: u64, more: impl Fn(FrontEndConfig) -> FrontEndConfig) -> Result<()> {
    let files = Workspace::new()?;
    let mut chainplane = Chainplane::launch(&files, None, YAML)?;
    let connect = |socket: &str| {
        Side::connect(more(FrontEndConfig {
            features: FrontEndConfig::new("").features | features,
            ..FrontEndConfig::new(files.path(socket))
        }))
    };
    let mut sides = [connect("left.sock")?, connect("right.sock")?];
    exchange_until_it_works(&mut sides);
    let (mut longest, mut total) = (Duration::ZERO, Duration::ZERO);
    for round in 0..KILLS {
        exchange(&mut sides, pause(round));
        chainplane.kill();
        // The guests go on; nobody is there.
        exchange(&mut sides, Duration::from_micros(500));
        let start = Instant::now();
        chainplane = Chainplane::launch(&files, None, YAML)?;
        for side in &mut sides {
            side.front_end.reconnect(&side.pairs)?;
        }
        exchange_until_it_works(&mut sides);
        longest = longest.max(start.elapsed());
        total += start.elapsed();
        assert_eq!(
            sides[0].bad() + sides[1].bad(),
            0,
            "a bad descriptor after kill {round}"
        );
    }
    // What is still on its way comes, and every descriptor comes back.
    let end = Instant::now() + LIMIT;
    while !(sides[0].pairs[0].transmit.is_idle() && sides[1].pairs[0].transmit.is_idle()) {
        assert!(Instant::now() < end, "descriptors are missing");
        sides.iter_mut().for_each(Side::receive);
    }
    exchange_until_it_works(&mut sides);
    for side in &sides {
        let Side {
            received,
            lost,
            again,
            worst,
            ..
        } = side;
        println!(
            "{received} frames received, {lost} lost, {again} twice, {worst} in a row at most"
        );
        assert!(*worst <= INSIDE, "a kill has cost {worst} frames");
    }
    println!(
        "{KILLS} kills; {} ms from a start to frames on average, {} ms at most",
        total.as_millis() / KILLS as u128,
        longest.as_millis()
    );
    chainplane.stop()
}

fn back_end_killed_split() -> Result<()> {
    kill_back_end(0, |config| config)
}

/// The front ends keep what is in flight.
fn tracked(config: FrontEndConfig) -> FrontEndConfig {
    FrontEndConfig {
        inflight: true,
        ..config
    }
}

fn back_end_killed_split_inflight() -> Result<()> {
    kill_back_end(0, tracked)
}

fn back_end_killed_packed() -> Result<()> {
    kill_back_end(feature::RING_PACKED, tracked)
}

fn back_end_killed_packed_in_order() -> Result<()> {
    kill_back_end(feature::RING_PACKED | feature::IN_ORDER, tracked)
}

fn with(socket: PathBuf, features: u64) -> FrontEndConfig {
    let config = tracked(FrontEndConfig::new(socket));
    FrontEndConfig {
        features: config.features | features,
        ..config
    }
}

/// Plays a driver that floods a port until it is killed, if the environment says that this program
/// was started for that.
pub fn play_driver() -> Option<ExitCode> {
    let socket = PathBuf::from(env::var_os(DRIVER)?);
    let more: u64 = env::var(DRIVER_FEATURES).ok()?.parse().ok()?;
    let Ok((_front_end, mut pairs)) = FrontEnd::connect(with(socket, more)) else {
        return Some(ExitCode::FAILURE);
    };
    for number in 0.. {
        let pair = &mut pairs[0];
        while !pair.transmit.send(NetHeader::default(), &frame(number)) {
            pair.receive.receive(64, |_, _| {});
        }
        pair.transmit.flush();
    }
    Some(ExitCode::SUCCESS)
}

/// Kills the driver of one port again and again, as a VMM dies; the driver of the other one notices
/// nothing but missing frames.
fn kill_driver(features: u64) -> Result<()> {
    let files = Workspace::new()?;
    let chainplane = Chainplane::start(&files, None, YAML)?;
    let mut right = Side::connect(with(files.path("right.sock"), features))?;
    for round in 0..KILLS {
        let mut command = program(env::current_exe()?);
        command.env(DRIVER, files.path("left.sock"));
        command.env(DRIVER_FEATURES, features.to_string());
        let mut left = Process::start("driver", command)?;
        let (end, mut seen) = (Instant::now() + LIMIT, 0);
        // Each driver counts from 0.
        while seen < 200 {
            assert!(Instant::now() < end, "driver {round} gets nothing through");
            right.pairs[0].receive.receive(64, |_, got| {
                number(got);
                seen += 1;
            });
            right.send(8);
        }
        std::thread::sleep(pause(round) / 8);
        left.kill();
        assert_eq!(right.bad(), 0, "a bad descriptor after kill {round}");
    }
    chainplane.stop()
}

fn driver_killed() -> Result<()> {
    kill_driver(0)
}

fn driver_killed_packed() -> Result<()> {
    kill_driver(feature::RING_PACKED)
}

/// Kills chainplane under a TCP connection between two guests; one of them listens for chainplane,
/// the other connects to it.
fn guests_survive_kills() -> Result<()> {
    const KILLS: u32 = 8;
    let files = Workspace::new()?;
    let mut chainplane = Chainplane::start(&files, None, GUESTS)?;
    let first = Nic::new(files.path("one.sock"), "52:54:00:00:00:01").redialing();
    let second = Nic::new(files.path("two.sock"), "52:54:00:00:00:02").listening();
    let mut one = Guest::start("one", &[first])?;
    let mut two = Guest::start("two", &[second])?;
    one.wait_booted()?;
    two.wait_booted()?;
    one.address("eth0", "10.0.0.1/24")?;
    two.address("eth0", "10.0.0.2/24")?;
    one.ok("ping -c 3 -W 20 10.0.0.2")?;
    two.ok("iperf3 --server --daemon")?;
    one.ok("(iperf3 --client 10.0.0.2 --time 25 --connect-timeout 20000; echo ended with $?) >/tmp/log 2>&1 &")?;
    let packets = "cat /sys/class/net/eth0/statistics/rx_packets";
    let received =
        |guest: &mut Guest| -> Result<u64> { Ok(guest.ok(packets)?.trim().parse().unwrap_or(0)) };
    for kill in 0..KILLS {
        std::thread::sleep(Duration::from_millis(700));
        chainplane.kill();
        let before = received(&mut two)?;
        chainplane = Chainplane::start(&files, None, GUESTS)?;
        let end = Instant::now() + LIMIT;
        while received(&mut two)? < before + 20 {
            assert!(Instant::now() < end, "no packets after kill {kill}");
        }
    }
    let log = one.ok("until grep -q 'ended with' /tmp/log; do sleep 1; done; cat /tmp/log")?;
    assert!(log.contains("ended with 0"), "the connection broke:\n{log}");
    two.ok("ping -c 3 -W 20 10.0.0.1")?;
    chainplane.stop()
}

/// Kills a VMM under a TCP connection and starts it again at the same port, where it listens for us.
fn killed_guest_comes_back() -> Result<()> {
    let files = Workspace::new()?;
    let chainplane = Chainplane::start(&files, None, GUESTS)?;
    let first = Nic::new(files.path("one.sock"), "52:54:00:00:00:01");
    let second = Nic::new(files.path("two.sock"), "52:54:00:00:00:02").listening();
    let mut one = Guest::start("one", &[first])?;
    for kill in [true, false] {
        let mut two = Guest::boot("two", std::slice::from_ref(&second))?;
        two.address("eth0", "10.0.0.2/24")?;
        if kill {
            one.wait_booted()?;
            one.address("eth0", "10.0.0.1/24")?;
        }
        one.ok("ping -c 3 -W 20 10.0.0.2")?;
        two.ok("iperf3 --server --daemon")?;
        one.ok("iperf3 --client 10.0.0.2 --time 600 >/dev/null 2>&1 &")?;
        one.ok("ping -c 3 -W 20 10.0.0.2")?;
        if kill {
            two.kill();
        } else {
            two.ok("ping -c 3 -W 20 10.0.0.1")?;
        }
    }
    chainplane.stop()
}
