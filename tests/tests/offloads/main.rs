//! Every set of offloads that a sender can have negotiated, against every set that a receiver can: the same bytes
//! arrive, with right checksums, nothing undone that the receiver does not take, and nothing done that it would have
//! taken undone. Straight from port to port, and through all four functions.
//!
//! Both ends are drivers of ours on real vhost-user sockets, which negotiate anew for each pair of sets.

use std::path::Path;
use std::time::{Duration, Instant};

use chainplane::instance::Instance;
use chainplane::spec::{self, Environment};
use chainplane_dataplane::counters::Info;
use chainplane_vhost::driver::{DriverPair, FrontEnd, FrontEndConfig};
use chainplane_vhost::net::{FLAG_DATA_VALID, NetHeader, feature};

use chainplane_tests::wire::{CWR, Received, Route, SIZE, SYN, receive};

/// Longest wait for anything: only a failing test reaches it.
const PATIENCE: Duration = Duration::from_secs(20);
/// Payload bytes that a sender has to send: several pieces, the last one shorter.
const STRETCH: usize = 5 * SIZE + 100;
/// Where probes go, which show that a pair is up.
const PROBE_PORT: u16 = 999;

const CORE_IN: [u8; 6] = [2, 0, 0, 0, 1, 1];
const CORE_WAN: [u8; 6] = [2, 0, 0, 0, 1, 2];

const DIRECT: &str = r"
chains:
  only: [inside, outside]
";

const FUNCTIONS: &str = r#"
functions:
  core:
    router:
      interfaces:
        in:
          address: [10.0.1.1/24, "fd00:1::1/64"]
          mac: "02:00:00:00:01:01"
          neighbours: { 10.0.1.2: "02:00:00:00:00:01", "fd00:1::2": "02:00:00:00:00:01" }
        wan:
          address: [198.51.100.2/30, "fd00:9::2/64"]
          mac: "02:00:00:00:01:02"
          neighbours: { 198.51.100.1: "02:00:00:00:00:02", "fd00:9::1": "02:00:00:00:00:02" }
      routes: [{ to: 0.0.0.0/0, via: 198.51.100.1 }]
  frontend:
    load-balancer: { address: "203.0.113.10:80/tcp", backends: [{ address: 10.0.1.2 }] }
  egress:
    nat:
      pool: 203.0.113.2
      inside: [10.0.0.0/8]
      forwards:
        - { protocol: udp, port: 5000, to: "10.0.1.2:5000" }
        - { protocol: udp, port: 999, to: "10.0.1.2:999" }
  edge:
    firewall:
      default: { outbound: allow, inbound: drop }
      rules:
        - { allow: tcp, direction: inbound, ports: [80] }
        - { allow: udp, direction: inbound, ports: [5000, 999] }
chains:
  inside: [inside, core.in]
  wan: [core.wan, frontend, egress, edge, outside]
"#;

/// Every set of what a sender may leave undone that follows the rules of virtio 1.2, section 5.1.3.1.
fn senders() -> Vec<u64> {
    let cuts = [feature::HOST_TSO4, feature::HOST_TSO6, feature::HOST_USO];
    let tso = feature::HOST_TSO4 | feature::HOST_TSO6;
    sets(feature::CSUM, &cuts, tso, feature::HOST_ECN)
}

/// Every set of what a receiver may take undone.
fn receivers() -> Vec<u64> {
    let cuts = [
        feature::GUEST_TSO4,
        feature::GUEST_TSO6,
        feature::GUEST_USO4,
        feature::GUEST_USO6,
    ];
    let tso = feature::GUEST_TSO4 | feature::GUEST_TSO6;
    sets(feature::GUEST_CSUM, &cuts, tso, feature::GUEST_ECN)
}

/// Nothing, or `checksum` with any of `cuts`, and with `ecn` where there is any of `tso`.
fn sets(checksum: u64, cuts: &[u64], tso: u64, ecn: u64) -> Vec<u64> {
    let mut sets = vec![0];
    for chosen in 0..1 << cuts.len() {
        let bits = (0..cuts.len()).filter(|bit| chosen & 1 << bit != 0);
        let set = bits.fold(checksum, |set, bit| set | cuts[bit]);
        sets.push(set);
        if set & tso != 0 {
            sets.push(set | ecn);
        }
    }
    sets
}

/// A guest at one of the ports.
struct Guest {
    front_end: FrontEnd,
    pair: DriverPair,
    got: Vec<Received>,
}

impl Guest {
    fn connect(socket: &Path) -> Self {
        let mut config = FrontEndConfig::new(socket);
        config.transmit_buffer = 16 << 10;
        // Without mergeable buffers each has to hold the longest frame.
        config.receive_buffer = 66 << 10;
        let (front_end, mut pairs) = FrontEnd::connect(config).expect("the port takes a guest");
        Self {
            front_end,
            pair: pairs.remove(0),
            got: Vec::new(),
        }
    }

    /// Starts anew, as after a reboot into another system.
    fn negotiate(&mut self, features: u64) {
        let restarted = self.front_end.restart(features);
        self.pair = restarted.expect("the port takes the features").remove(0);
        assert_eq!(self.front_end.features(), features, "what was negotiated");
    }

    fn send(&mut self, frames: &[(NetHeader, Vec<u8>)]) {
        for (header, bytes) in frames {
            assert!(self.pair.transmit.send(*header, bytes), "room in the ring");
        }
        self.pair.transmit.flush();
    }

    fn poll(&mut self) {
        let features = self.front_end.features();
        self.pair
            .receive
            .receive(64, |header, bytes| match receive(features, header, bytes) {
                Ok(got) => self.got.extend(got),
                Err(what) => panic!("{what}: {header:?} with features {features:#x}: {bytes:02x?}"),
            });
    }
}

/// A running chain with a guest at each of its ends.
struct Bench {
    instance: Instance,
    guests: [Guest; 2],
    functions: bool,
    from_port: u16,
    _directory: tempfile::TempDir,
}

impl Bench {
    fn new(chain: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let sockets = ["inside", "outside"].map(|name| directory.path().join(name));
        let [inside, outside] = sockets.each_ref().map(|socket| socket.display());
        let yaml = format!(
            "version: 1\nworkers: [{{ idle: adaptive }}]\npackets: {{ buffers: 2048, huge-pages: never }}\n\
             ports:\n  inside: {{ vhost-user: {{ socket: {inside} }} }}\n  \
             outside: {{ vhost-user: {{ socket: {outside} }} }}\n{chain}"
        );
        let environment = Environment {
            cores: vec![0],
            socket_directory: directory.path().into(),
        };
        let model = spec::parse(&yaml, Path::new("offloads.yaml"), &environment);
        let model = model.unwrap_or_else(|report| panic!("{}", report.render(false)));
        Self {
            instance: Instance::start(model).unwrap(),
            guests: sockets.map(|socket| Guest::connect(&socket)),
            functions: chain == FUNCTIONS,
            from_port: 1024,
            _directory: directory,
        }
    }

    /// From the guest of this number to the other.
    fn route(&self, from: usize, v6: bool, udp: bool) -> Route {
        let address = |text: &str| text.parse().expect("an address");
        let (inside, outside) = if v6 {
            (address("fd00:1::2"), address("fd00:9::1"))
        } else {
            (address("10.0.1.2"), address("198.51.100.1"))
        };
        let to_port = if udp { 5000 } else { 80 };
        // Straight from port to port nobody looks at addresses.
        let shown = match (v6, udp) {
            (true, _) => inside,
            (_, true) => address("203.0.113.2"),
            (_, false) => address("203.0.113.10"),
        };
        let (to_mac, from, to) = if from == 0 {
            (CORE_IN, inside, outside)
        } else {
            (CORE_WAN, outside, shown)
        };
        Route {
            udp,
            to_mac,
            from,
            to,
            from_port: self.from_port,
            to_port,
        }
    }

    /// Polls both guests until `done`.
    fn until(&mut self, what: &str, mut done: impl FnMut(&mut [Guest; 2]) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(&mut self.guests) {
            let late = Instant::now() > deadline;
            assert!(!late, "{what}: {:?}", drops(&self.instance));
            self.guests.iter_mut().for_each(Guest::poll);
            std::thread::yield_now();
        }
    }

    /// Both guests negotiate, and packets cross both ways.
    fn negotiate(&mut self, features: u64) {
        self.guests
            .iter_mut()
            .for_each(|guest| guest.negotiate(features));
        for from in [0, 1] {
            let mut route = self.route(from, false, true);
            route.to_port = PROBE_PORT;
            // No driver may say that a checksum was found right; the receiver is not to believe it.
            let header = NetHeader {
                flags: FLAG_DATA_VALID,
                ..NetHeader::default()
            };
            let probe = [(header, route.packet(0, 0, b"probe"))];
            let mut next = Instant::now();
            self.until("no probe crosses", |guests| {
                // What came while the other side was still down is lost.
                if Instant::now() >= next {
                    guests[from].send(&probe);
                    next = Instant::now() + Duration::from_millis(2);
                }
                guests[1 - from]
                    .got
                    .iter()
                    .any(|got| got.to_port == PROBE_PORT)
            });
        }
    }

    /// Sends `payload` from one guest to the other, and looks at what arrives.
    fn carry(&mut self, from: usize, route: &Route, flags: u8, payload: &[u8]) {
        let [one, other] = &mut self.guests;
        let (sender, receiver) = if from == 0 {
            (one, other)
        } else {
            (other, one)
        };
        let (may_leave, may_take) = (sender.front_end.features(), receiver.front_end.features());
        let frames = route.send(may_leave, flags, payload);
        let whole = frames.len() == 1 && payload.len() > SIZE;
        let partial = frames[0].0.flags != 0;
        receiver.got.clear();
        sender.send(&frames);
        self.until("data is missing", |guests| {
            let got = guests[1 - from].got.iter();
            let data = got.filter(|got| got.to_port != PROBE_PORT);
            data.map(|got| got.payload.len()).sum::<usize>() >= payload.len()
        });
        let got: Vec<Received> = std::mem::take(&mut self.guests[1 - from].got);
        let got: Vec<&Received> = got.iter().filter(|got| got.to_port != PROBE_PORT).collect();
        let joined: Vec<u8> = got
            .iter()
            .flat_map(|got| got.payload.iter().copied())
            .collect();
        assert!(joined == payload, "other bytes arrive than were sent");

        let cut = match (route.udp, route.from.is_ipv6()) {
            (true, false) => feature::GUEST_USO4,
            (true, true) => feature::GUEST_USO6,
            (false, false) => feature::GUEST_TSO4,
            (false, true) => feature::GUEST_TSO6,
        };
        let ecn = flags & CWR != 0;
        let needed = cut | if ecn { feature::GUEST_ECN } else { 0 };
        let stays_whole = whole && may_take & needed == needed;
        let pieces = payload.len().div_ceil(SIZE);
        assert_eq!(got.len(), if stays_whole { 1 } else { pieces }, "{got:?}");
        let undone = partial && may_take & feature::GUEST_CSUM != 0 && (stays_whole || !whole);
        let mut offset = 0;
        for (index, got) in got.iter().enumerate() {
            assert_eq!(got.udp, route.udp);
            assert_eq!(
                got.partial, undone,
                "a checksum that is done needlessly, or undone"
            );
            if !route.udp {
                assert_eq!(got.sequence, offset);
                assert_eq!(
                    got.flags & CWR != 0,
                    ecn && index == 0,
                    "CWR is for the first"
                );
            }
            assert!(got.pieces == 1 || stays_whole);
            offset += got.payload.len() as u32;
        }
    }

    /// All protocols and both directions between guests that have negotiated the same.
    fn all_kinds(&mut self, payload: &[u8]) {
        for (from, v6, udp) in [0, 1].into_iter().flat_map(|from| {
            let kinds = [(false, false), (false, true), (true, false), (true, true)];
            kinds.map(|(v6, udp)| (from, v6, udp))
        }) {
            self.from_port = if self.from_port > 60_000 {
                1024
            } else {
                self.from_port + 1
            };
            let route = self.route(from, v6, udp);
            if self.functions && !udp {
                self.carry(from, &route, SYN, b"x");
            }
            // The first may make a record, the second meets it.
            self.carry(from, &route, 0, payload);
            self.carry(from, &route, if udp { 0 } else { CWR }, payload);
        }
    }

    fn every_pair(&mut self, rings: u64) {
        let payload: Vec<u8> = (0..STRETCH).map(|i| (i * 7 + i / 256) as u8).collect();
        for sender in senders() {
            for receiver in receivers() {
                self.negotiate(rings | sender | receiver);
                self.all_kinds(&payload);
            }
        }
        self.instance.stop();
        for snapshot in self.instance.snapshots() {
            snapshot.check_conservation().unwrap();
        }
    }
}

/// What was dropped where, and why.
fn drops(instance: &Instance) -> Vec<(String, &'static str, u64)> {
    let all = |name: &str, drops: &[(Info, u64)]| {
        let counted = drops.iter().filter(|(_, count)| *count > 0);
        let named = counted.map(|(info, count)| (name.to_owned(), info.name, *count));
        named.collect::<Vec<_>>()
    };
    let snapshots = instance.snapshots();
    let of = snapshots.iter().flat_map(|snapshot| {
        let functions = snapshot.functions.iter().map(|at| all(&at.name, &at.drops));
        let ports = snapshot.ports.iter().map(|at| all(&at.name, &at.drops));
        functions.chain(ports).flatten().collect::<Vec<_>>()
    });
    of.collect()
}

const RINGS: u64 =
    feature::VERSION_1 | feature::MRG_RXBUF | feature::INDIRECT_DESC | feature::EVENT_IDX;

#[test]
fn every_pair_of_sets_from_port_to_port() {
    Bench::new(DIRECT).every_pair(RINGS);
}

#[test]
fn every_pair_of_sets_over_packed_rings() {
    Bench::new(DIRECT).every_pair(RINGS | feature::RING_PACKED);
    Bench::new(FUNCTIONS).every_pair(RINGS | feature::RING_PACKED);
}

/// With the short header, and each frame in one buffer.
#[test]
fn every_pair_of_sets_between_legacy_drivers() {
    Bench::new(DIRECT).every_pair(0);
}

#[test]
fn every_pair_of_sets_through_all_four_functions() {
    Bench::new(FUNCTIONS).every_pair(RINGS);
}

#[test]
fn sets_are_all_there_and_lawful() {
    assert_eq!((senders().len(), receivers().len()), (15, 29));
    assert!(senders().contains(&feature::HOST_OFFLOADS));
    assert!(receivers().contains(&feature::GUEST_OFFLOADS));
}
