//! Embedded guests on the vhost-user ports of a running instance.

use std::path::Path;
use std::time::{Duration, Instant};

use chainplane::guest::{GuestSpec, Guests};
use chainplane::instance::Instance;
use chainplane::spec::{self, Environment};

/// Two guests on one cable: no function between them.
const CABLE: &str = r#"
version: 1
workers: [{ idle: interrupt }]
packets: { buffers: 2048, huge-pages: never }
ports:
  client:
    embedded-guest:
      address: [10.0.0.1/24, "fd00::1/64"]
      tasks:
        - ping: { to: 10.0.0.2, count: 3 }
        - ping: { to: "fd00::2", count: 3 }
        - fetch: { from: "10.0.0.2:80", count: 3, bytes: 500000, served-by: server, seen-as: 10.0.0.1 }
        - fetch: { from: "[fd00::2]:80", count: 3, bytes: 500000, served-by: server, seen-as: "fd00::1" }
        - fetch: { from: "10.0.0.2:81", expect: denied }
  server:
    embedded-guest: { address: [10.0.0.2/24, "fd00::2/64"], serve: [80] }
chains:
  cable: [client, server]
"#;

fn run(offload_checksums: bool) {
    let environment = Environment {
        cores: vec![0],
        socket_directory: std::env::temp_dir(),
    };
    let model = spec::parse(CABLE, Path::new("cable.yaml"), &environment);
    let model = model.unwrap_or_else(|report| panic!("{}", report.render(false)));
    let mut instance = Instance::start(model).unwrap();
    let seats = instance.seats().iter().map(|seat| {
        let mut spec = GuestSpec::new(&seat.name, &seat.guest);
        spec.offload_checksums = offload_checksums;
        (spec, seat.socket.clone())
    });
    let mut guests = Guests::start(seats.collect()).unwrap();
    guests.begin();
    let deadline = Instant::now() + Duration::from_mins(2);
    while !guests.are_done() && Instant::now() < deadline {
        guests.wait(Duration::from_millis(100));
    }
    guests.stop();
    instance.stop();
    assert_eq!(guests.failures(), [""; 0]);
    let results: Vec<String> = guests.results().iter().map(ToString::to_string).collect();
    assert_eq!(
        results,
        [
            "client: ping 10.0.0.2: 3 of 3 answered",
            "client: ping fd00::2: 3 of 3 answered",
            "client: fetch 10.0.0.2:80: 3 of 3 answered; by server 3; seen as 10.0.0.1",
            "client: fetch [fd00::2]:80: 3 of 3 answered; by server 3; seen as fd00::1",
            "client: fetch 10.0.0.2:81: 1 of 1 denied",
        ]
    );
    for snapshot in instance.snapshots() {
        snapshot.check_conservation().unwrap();
        let server = snapshot.port("server").unwrap();
        assert!(server.value("tx-packets") > 0 && server.value("rx-bytes") > 3_000_000);
        // The offload is carried from guest to guest: nobody on the way computes a checksum.
        assert_eq!(server.value("checksummed"), 0);
    }
}

#[test]
fn guests_talk_over_virtqueues() {
    run(false);
}

#[test]
fn guests_leave_checksums_to_each_other() {
    run(true);
}
