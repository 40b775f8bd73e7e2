//! Device and driver side over real sockets.

mod common;

use chainplane_vhost::backend::{DeviceConfig, Role};
use chainplane_vhost::driver::{FrontEnd, FrontEndConfig};
use chainplane_vhost::net::feature;
use common::{Echo, connect, ping, socket, wait_for};

/// Lengths that meet every branch: small, around buffer boundaries, and the longest.
fn lens() -> Vec<usize> {
    let edges = [
        1, 14, 60, 64, 65, 127, 128, 1500, 1514, 2035, 2036, 2037, 2048, 4084, 4085, 9000, 65_550,
    ];
    edges.into_iter().cycle().take(400).collect()
}

fn short_lens() -> Vec<usize> {
    [1, 60, 64, 590, 1500, 1514]
        .into_iter()
        .cycle()
        .take(600)
        .collect()
}

fn echo_with(features: u64, change: impl FnOnce(&mut FrontEndConfig)) -> u64 {
    let (_dir, path) = socket();
    let _echo = Echo::start(DeviceConfig::new(&path));
    let mut config = FrontEndConfig::new(&path);
    config.features = features;
    change(&mut config);
    let (front_end, mut pairs) = FrontEnd::connect(config).expect("front end connects");
    let lens = if features & (feature::GUEST_TSO4 | feature::MRG_RXBUF) == 0 {
        short_lens()
    } else {
        lens()
    };
    // A ring of one descriptor has no room for a header of its own.
    let headers = if front_end.layouts()[0].size == 1 {
        &[false][..]
    } else {
        &[false, true]
    };
    for split_header in headers {
        pairs[0].transmit.split_header = *split_header;
        ping(&mut pairs[0], &lens);
    }
    front_end.features()
}

const ALL: u64 = feature::VERSION_1
    | feature::MRG_RXBUF
    | feature::INDIRECT_DESC
    | feature::EVENT_IDX
    | feature::OFFLOADS;

/// Both formats, each with whatever else.
fn both_formats(features: u64, change: impl Fn(&mut FrontEndConfig)) {
    for format in [0, feature::RING_PACKED] {
        for order in [0, feature::IN_ORDER] {
            let all = features | format | order;
            assert_eq!(echo_with(all, &change), all, "{all:#x}");
        }
    }
}

#[test]
fn everything_negotiated() {
    both_formats(ALL, |_| {});
}

#[test]
fn without_event_index() {
    both_formats(ALL & !feature::EVENT_IDX, |_| {});
}

#[test]
fn without_indirect_descriptors() {
    both_formats(ALL & !feature::INDIRECT_DESC, |_| {});
}

#[test]
fn without_mergeable_buffers() {
    both_formats(ALL & !feature::MRG_RXBUF, |c| c.receive_buffer = 65_700);
}

#[test]
fn without_mergeable_buffers_and_offloads() {
    both_formats(feature::VERSION_1, |_| {});
}

#[test]
fn legacy_driver_with_a_short_header() {
    both_formats(0, |_| {});
}

#[test]
fn small_ring_with_small_buffers() {
    both_formats(ALL, |c| {
        c.queue_size = 256;
        c.receive_buffer = 300;
        c.transmit_buffer = 600;
    });
}

#[test]
fn packed_rings_need_not_be_powers_of_two() {
    for size in [1, 3, 100, 257, 1000] {
        let features = feature::VERSION_1 | feature::RING_PACKED;
        for features in [features, features | feature::IN_ORDER] {
            echo_with(features, |c| c.queue_size = size);
        }
    }
}

#[test]
fn largest_rings() {
    both_formats(feature::VERSION_1 | feature::EVENT_IDX, |c| {
        c.queue_size = 32_768;
    });
}

#[test]
fn device_as_client() {
    let (_dir, path) = socket();
    let echo = Echo::start(DeviceConfig {
        role: Role::Client,
        ..DeviceConfig::new(&path)
    });
    for _ in 0..3 {
        let config = FrontEndConfig {
            role: Role::Server,
            ..FrontEndConfig::new(&path)
        };
        let (_front_end, mut pairs) = FrontEnd::connect(config).expect("front end connects");
        ping(&mut pairs[0], &lens());
    }
    wait_for("the last front end to be gone", || !echo.status().connected);
    assert_eq!(echo.status().connections, 3);
}

#[test]
fn as_many_queue_pairs_as_there_can_be() {
    let (_dir, path) = socket();
    let echo = Echo::start(DeviceConfig {
        queue_pairs: 64,
        ..DeviceConfig::new(&path)
    });
    for format in [0, feature::RING_PACKED] {
        let mut config = FrontEndConfig {
            queue_pairs: 64,
            ..FrontEndConfig::new(&path)
        };
        config.features |= format;
        let before = echo.status();
        let (front_end, mut pairs) = FrontEnd::connect(config).expect("front end connects");
        assert_ne!(front_end.features() & feature::MQ, 0);
        for pair in &mut pairs {
            ping(pair, &lens()[..32]);
        }
        let after = echo.status();
        for (before, after) in before.queues.iter().zip(&after.queues) {
            assert!(after.started && after.enabled);
            assert_eq!(after.counters.frames, before.counters.frames + 32);
        }
    }
}

#[test]
fn front_ends_come_and_go() {
    let (_dir, path) = socket();
    let echo = Echo::start(DeviceConfig::new(&path));
    for round in 0..10 {
        let (front_end, mut pairs) = connect(&path);
        ping(&mut pairs[0], &lens()[..20 + round]);
        drop(front_end);
    }
    wait_for("the last front end to be gone", || !echo.status().connected);
    let status = echo.status();
    assert_eq!(status.connections, 10);
    assert!(
        status
            .queues
            .iter()
            .all(|q| !q.started && q.broken.is_none())
    );
}
