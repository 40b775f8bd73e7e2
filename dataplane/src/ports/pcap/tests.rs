use super::*;
use crate::packet::{HugePages, Packet, Pool, PoolConfig};
use crate::port::{PortCounter, PortTally};
use std::path::Path;

struct Bench {
    port: Pcap,
    pool: Pool,
    tally: PortTally,
}

impl Bench {
    fn new(config: &PcapConfig) -> Self {
        let (small, large, huge_pages) = (64, 1, HugePages::Never);
        Self {
            port: Pcap::open(config).unwrap(),
            pool: Pool::new(PoolConfig {
                small,
                large,
                huge_pages,
            })
            .unwrap(),
            tally: PortTally::default(),
        }
    }

    fn receive(&mut self, now: u64) -> Vec<Vec<u8>> {
        let Self { port, pool, tally } = self;
        let mut batch = Batch::new();
        port.receive(&mut PortContext::new(pool, tally, Time(now)), &mut batch);
        batch.iter().map(|packet| packet.data().to_vec()).collect()
    }

    fn send(&mut self, now: u64, packets: &[&[u8]]) {
        let Self { port, pool, tally } = self;
        let mut batch: Batch = packets
            .iter()
            .map(|bytes| pool.copy_of(bytes).unwrap())
            .collect();
        port.send(&mut PortContext::new(pool, tally, Time(now)), &mut batch);
        assert!(batch.is_empty());
    }
}

/// Records packets with these times and bytes to a file.
fn recorded(path: &Path, packets: &[(u64, &[u8])]) {
    let config = PcapConfig {
        record: Some(path.to_owned()),
        ..PcapConfig::default()
    };
    let mut bench = Bench::new(&config);
    assert!(bench.port.is_finished() && bench.port.deadline().is_none());
    for (time, bytes) in packets {
        bench.send(*time, &[bytes]);
    }
    assert_eq!(
        bench.tally.reader().get(PortCounter::TxPackets),
        packets.len() as u64
    );
}

fn replay(path: &Path, timing: Timing, repeat: u64) -> PcapConfig {
    PcapConfig {
        replay: Some(Replay {
            path: path.to_owned(),
            timing,
            repeat,
        }),
        record: None,
    }
}

const PACKETS: [(u64, &[u8]); 3] = [(1000, b"first"), (1500, b"second"), (3000, b"third")];

#[test]
fn what_was_recorded_is_replayed_in_time() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.pcap");
    recorded(&path, &PACKETS);
    let mut bench = Bench::new(&replay(&path, Timing::Original, 2));
    assert_eq!(bench.receive(7000), [b"first"]);
    assert_eq!(bench.port.deadline(), Some(Time(7500)));
    assert!(!bench.port.arm());
    assert!(bench.receive(7499).is_empty());
    assert_eq!(bench.receive(7500), [b"second"]);
    assert_eq!(bench.receive(9000), [b"third"]);
    // The second pass begins after the mean gap, and nothing is lost by a late poll.
    assert_eq!(bench.port.deadline(), Some(Time(10_000)));
    assert!(bench.receive(9999).is_empty() && !bench.port.is_finished());
    let got = bench.receive(20_000);
    assert_eq!(got, [&b"first"[..], b"second", b"third"]);
    assert!(bench.port.is_finished() && !bench.port.arm());
    assert_eq!(bench.port.deadline(), None);
    assert!(bench.receive(30_000).is_empty());
}

#[test]
fn fast_replay_waits_only_for_buffers() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.pcap");
    recorded(&path, &PACKETS);
    let mut bench = Bench::new(&replay(&path, Timing::Fast, 50));
    let held: Vec<Packet> = (0..60).map(|_| bench.pool.take(1).unwrap()).collect();
    assert_eq!(bench.receive(0).len(), 4);
    assert!(bench.port.arm());
    drop(held);
    assert_eq!(bench.receive(0).len(), 64);
    assert_eq!(bench.receive(0).len(), 64);
    assert_eq!(bench.receive(0).len(), 18);
    assert!(bench.port.is_finished());
}

#[test]
fn a_record_that_is_full_or_broken_drops() {
    let config = PcapConfig {
        record: Some("/dev/full".into()),
        ..PcapConfig::default()
    };
    let error = Pcap::open(&config).err().unwrap().to_string();
    assert!(error.starts_with("cannot record to `/dev/full`"), "{error}");

    // The ring holds 16 MiB, and may be emptied in the meantime.
    let directory = tempfile::tempdir().unwrap();
    let record = Some(directory.path().join("a.pcap"));
    let mut bench = Bench::new(&PcapConfig {
        replay: None,
        record,
    });
    let long = vec![1; 60_000];
    let total = 2000;
    for now in 0..total {
        bench.send(now, &[&long]);
    }
    let reader = bench.tally.reader();
    let full = PortCounter::INFO.len() + crate::port::PortDrop::Full as usize;
    let sent = reader.get(PortCounter::TxPackets);
    assert_eq!(sent + reader.at(full), total);
    drop(bench);
    let path = directory.path().join("a.pcap");
    assert_eq!(load::load(&path).unwrap().len() as u64, sent);
}

#[test]
fn errors_name_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("nothing.pcap");
    for (path, repeat, expected) in [
        (path.as_path(), 1, "nothing.pcap"),
        (directory.path(), 1, "directory"),
        (Path::new("/dev/null"), 1, "too short"),
        (Path::new("/dev/null"), 0, "at least once"),
    ] {
        let config = replay(path, Timing::Fast, repeat);
        let error = Pcap::open(&config).err().unwrap().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn tshark_reads_a_record() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.pcap");
    let mut packet = [0; 60];
    packet[12..14].copy_from_slice(&[0x88, 0xb5]);
    recorded(&path, &[(1000, &packet), (1700, &packet)]);
    let output = std::process::Command::new("tshark")
        .args([
            "-n",
            "-T",
            "fields",
            "-e",
            "frame.time_delta",
            "-e",
            "eth.type",
            "-r",
        ])
        .arg(&path)
        .output();
    let Ok(output) = output else {
        crate::testing::leave_out("tshark");
        return;
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines, ["0.000000000\t0x88b5", "0.000000700\t0x88b5"]);
}
