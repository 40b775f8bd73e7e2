//! What QEMU does that a reader of the protocol would not expect.

mod common;

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chainplane_vhost::backend::{Device, DeviceConfig, QueuePair};
use vhost::vhost_user::message::{VhostUserHeaderFlag, VhostUserProtocolFeatures};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo};

/// A message of the vhost-user protocol, version 1, without a wish for a reply.
fn message(request: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [request, 1, payload.len() as u32] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(payload);
    bytes
}

/// A device, and a connection on which nothing was said yet.
fn unnegotiated() -> (Device, Vec<QueuePair>, UnixStream) {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let (device, pairs) = Device::start(DeviceConfig::new(&socket), Box::new(|| {})).unwrap();
    let front_end = UnixStream::connect(&socket).unwrap();
    front_end
        .set_read_timeout(Some(Duration::from_mins(1)))
        .unwrap();
    (device, pairs, front_end)
}

/// QEMU enables the queues of a network card before it has negotiated any feature, and not again later.
#[test]
fn a_queue_may_be_enabled_before_any_feature() {
    const GET_FEATURES: u32 = 1;
    const SET_VRING_ENABLE: u32 = 18;
    let (device, _pairs, mut front_end) = unnegotiated();

    let queue_0_on = [0, 0, 0, 0, 1, 0, 0, 0];
    front_end
        .write_all(&message(SET_VRING_ENABLE, &queue_0_on))
        .unwrap();
    front_end.write_all(&message(GET_FEATURES, &[])).unwrap();
    let mut answer = [0; 20];
    front_end.read_exact(&mut answer).unwrap();
    assert_eq!(answer[..4], GET_FEATURES.to_le_bytes());
    let status = device.status();
    assert_eq!(status.last_error, None);
    assert!(status.queues[0].enabled && !status.queues[1].enabled);
}

/// QEMU 10 does the same once it has agreed on `REPLY_ACK`, and waits for the answer.
#[test]
fn a_queue_may_be_enabled_before_any_feature_and_is_answered() {
    const GET_PROTOCOL_FEATURES: u32 = 15;
    const SET_PROTOCOL_FEATURES: u32 = 16;
    const SET_VRING_ENABLE: u32 = 18;
    let (device, _pairs, mut front_end) = unnegotiated();
    let mut answer = [0; 20];
    front_end
        .write_all(&message(GET_PROTOCOL_FEATURES, &[]))
        .unwrap();
    front_end.read_exact(&mut answer).unwrap();
    let reply_ack = VhostUserProtocolFeatures::REPLY_ACK.bits().to_le_bytes();
    front_end
        .write_all(&message(SET_PROTOCOL_FEATURES, &reply_ack))
        .unwrap();
    for queue in 0..2 {
        let mut enable = message(SET_VRING_ENABLE, &[queue, 0, 0, 0, 1, 0, 0, 0]);
        // Beside the version: a reply is needed.
        enable[4] |= 1 << 3;
        front_end.write_all(&enable).unwrap();
        front_end.read_exact(&mut answer).unwrap();
        assert_eq!(answer[..4], SET_VRING_ENABLE.to_le_bytes());
        assert_eq!(answer[12..], [0; 8]);
    }
    let status = device.status();
    assert_eq!(status.last_error, None);
    assert!(status.queues.iter().all(|queue| queue.enabled));
}

/// QEMU, 10.0 and before, passes `RING_RESET` on to its guest and then keeps the reset to itself: the guest's new ring is
/// never told of.
#[test]
fn ring_reset_is_not_offered_unasked() {
    use chainplane_vhost::net::feature;
    let mut config = DeviceConfig::new("socket");
    assert_eq!(config.features() & feature::RING_RESET, 0);
    config.ring_reset = true;
    assert_ne!(config.features() & feature::RING_RESET, 0);
}

/// QEMU 7.2 adds every memory region once for each pair of queues, and removes it as often.
#[test]
fn a_region_may_be_added_again() {
    const MEMORY: u64 = 1 << 20;
    let directory = tempfile::tempdir().unwrap();
    let mut config = DeviceConfig::new(directory.path().join("socket"));
    config.queue_pairs = 2;
    let (device, _pairs) = Device::start(config.clone(), Box::new(|| {})).unwrap();
    let mut front_end = Frontend::connect(&config.socket, 4).unwrap();
    front_end.set_owner().unwrap();
    let features = front_end.get_features().unwrap();
    front_end.set_features(features).unwrap();
    front_end.get_protocol_features().unwrap();
    let wanted =
        VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS | VhostUserProtocolFeatures::REPLY_ACK;
    front_end.set_protocol_features(wanted).unwrap();
    front_end.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);

    let file = tempfile::tempfile().unwrap();
    file.set_len(MEMORY).unwrap();
    let region = VhostUserMemoryRegionInfo {
        guest_phys_addr: 0,
        memory_size: MEMORY,
        userspace_addr: 0x7000_0000_0000,
        mmap_offset: 0,
        mmap_handle: file.as_raw_fd(),
    };
    front_end.add_mem_region(&region).unwrap();
    front_end.add_mem_region(&region).unwrap();
    let overlapping = VhostUserMemoryRegionInfo {
        memory_size: MEMORY / 2,
        ..region
    };
    front_end.add_mem_region(&overlapping).unwrap_err();
    front_end.remove_mem_region(&region).unwrap();
    front_end.remove_mem_region(&region).unwrap();
    front_end.remove_mem_region(&region).unwrap_err();
    assert!(device.status().connected);
}

/// QEMU 7.2 sets the features that need a control queue without `CTRL_VQ`, and asks by the device status
/// whether they will do.
#[test]
fn the_control_queue_is_no_business_of_ours() {
    use chainplane_vhost::driver::{FrontEnd, FrontEndConfig};
    use chainplane_vhost::net::feature;
    let directory = tempfile::tempdir().unwrap();
    let mut config = DeviceConfig::new(directory.path().join("socket"));
    config.queue_pairs = 2;
    let (device, _pairs) = Device::start(config.clone(), Box::new(|| {})).unwrap();
    let mut qemu = FrontEndConfig::new(&config.socket);
    qemu.features &= !feature::CTRL_VQ;
    qemu.features |= feature::MQ | feature::GUEST_ANNOUNCE;
    let (front_end, _) = FrontEnd::connect(qemu).unwrap();
    assert_eq!(device.status().last_error, None);
    let needy = feature::MQ | feature::GUEST_ANNOUNCE;
    assert_eq!(front_end.features() & needy, needy);
}

/// QEMU 7.2 resets the device status before it asks where the queues stood; a migrated guest goes on from
/// the answer.
#[test]
fn a_reset_device_knows_where_its_queues_stood() {
    use chainplane_vhost::driver::{FrontEnd, FrontEndConfig};
    use chainplane_vhost::net::NetHeader;
    let directory = tempfile::tempdir().unwrap();
    let config = DeviceConfig::new(directory.path().join("socket"));
    let (device, mut workers) = Device::start(config.clone(), Box::new(|| {})).unwrap();
    let (front_end, mut pairs) = FrontEnd::connect(FrontEndConfig::new(&config.socket)).unwrap();
    workers[0].poll();
    for _ in 0..7 {
        pairs[0].transmit.send(NetHeader::default(), &[1; 60]);
    }
    pairs[0].transmit.flush();
    assert_eq!(workers[0].from_guest.fetch(5), 5);
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let worker = std::thread::spawn(move || {
        while !stopped.load(Ordering::Relaxed) {
            workers[0].poll();
        }
    });
    front_end.set_status(0).unwrap();
    assert_eq!(front_end.messages().get_vring_base(1).unwrap(), 5);
    assert_eq!(front_end.messages().get_vring_base(0).unwrap(), 0);
    stop.store(true, Ordering::Relaxed);
    worker.join().unwrap();
    drop(device);
}

/// When a guest is halted, QEMU sets the device status to 0 and asks afterwards where the queues stood; when the guest
/// goes on, so must they.
#[test]
fn a_guest_is_halted_and_goes_on() {
    use chainplane_vhost::driver::{FrontEnd, FrontEndConfig};
    use chainplane_vhost::net::feature;
    for format in [0, feature::RING_PACKED] {
        let (_directory, socket) = common::socket();
        let device = common::Echo::keeping(DeviceConfig::new(&socket));
        let mut config = FrontEndConfig::new(&socket);
        config.features |= format;
        let (mut front_end, mut pairs) = FrontEnd::connect(config).unwrap();
        for _ in 0..5 {
            common::ping(&mut pairs[0], &[60; 100]);
            front_end.set_status(0).unwrap();
            let bases = front_end.stop().unwrap();
            let features = front_end.features() | feature::PROTOCOL_FEATURES;
            front_end.messages().set_features(features).unwrap();
            front_end.resume(&pairs, &bases).unwrap();
        }
        common::ping(&mut pairs[0], &[60; 100]);
        assert_eq!(device.status().last_error, None);
    }
}
