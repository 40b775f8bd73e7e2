//! Requests about the device as a whole: status, MTU, configuration space, announcement, reset.

mod common;

use chainplane_vhost::backend::device_status::{
    ACKNOWLEDGE, DRIVER, DRIVER_OK, FAILED, FEATURES_OK, NEEDS_RESET,
};
use chainplane_vhost::backend::{Device, DeviceConfig};
use chainplane_vhost::driver::{FrontEnd, FrontEndConfig};
use chainplane_vhost::net::{feature, protocol_feature};
use common::{Echo, connect, ping, socket, wait_for};
use vhost::VhostBackend;
use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::VhostUserConfigFlags;

const READY: u8 = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK;

#[test]
fn status_follows_the_driver() {
    let (_dir, path) = socket();
    let echo = Echo::start(DeviceConfig::new(&path));
    let (mut front_end, mut pairs) = connect(&path);
    assert_eq!(front_end.status().expect("answers"), u64::from(READY));
    assert_eq!(echo.status().device_status, READY);
    let protocol = protocol_feature::names(echo.status().protocol_features);
    for name in ["rarp", "reply-ack", "mtu", "reset-device", "status"] {
        assert!(protocol.iter().any(|p| p == name), "{name}");
    }
    ping(&mut pairs[0], &[60; 10]);
    // Given up: the rings stand still until the driver begins anew.
    front_end.set_status(READY | FAILED).expect("takes it");
    assert!(echo.status().queues.iter().all(|queue| !queue.started));
    let all = FrontEndConfig::new(&path).features;
    ping(&mut front_end.restart(all).expect("restarts")[0], &[60; 10]);
    // Reset: nothing is negotiated, nothing runs, and the front end stays. It may ask where the
    // queues stood only then, as QEMU does.
    front_end.set_status(0).expect("resets");
    for queue in 0..2 {
        let base = front_end.messages().get_vring_base(queue).expect("answers");
        assert_eq!(base, 10);
    }
    assert_eq!(front_end.status().expect("answers"), 0);
    let status = echo.status();
    assert!(status.queues.iter().all(|queue| !queue.started));
    assert_eq!((status.features, status.device_status), (0, 0));
    assert!(status.connected);
    ping(&mut front_end.restart(all).expect("restarts")[0], &[60; 10]);
    assert_eq!(echo.status().last_error, None);
}

#[test]
fn features_that_are_not_accepted() {
    let (_dir, path) = socket();
    let echo = Echo::start(DeviceConfig::new(&path));
    let (front_end, _pairs) = connect(&path);
    let messages = front_end.messages();
    let wrong = [1 << 50, feature::VERSION_1 | 1 << 60];
    for features in wrong {
        front_end.set_status(0).expect("resets");
        front_end
            .set_status(ACKNOWLEDGE | DRIVER)
            .expect("takes it");
        messages.set_features(features).expect_err("refused");
        let wish = ACKNOWLEDGE | DRIVER | FEATURES_OK;
        front_end.set_status(wish).expect("takes it");
        let status = front_end.status().expect("answers");
        assert_eq!(status, u64::from(ACKNOWLEDGE | DRIVER), "{features:#x}");
        // A better choice is accepted.
        messages.set_features(feature::VERSION_1).expect("accepted");
        front_end.set_status(wish).expect("takes it");
        assert_eq!(front_end.status().expect("answers"), u64::from(wish));
    }
    assert_eq!(echo.status().connections, 1);
}

/// QEMU with checksums switched off offers TSO all the same, and Linux takes what it is offered.
#[test]
fn an_offload_without_the_one_it_needs_is_accepted() {
    let (_dir, path) = socket();
    let _echo = Echo::start(DeviceConfig::new(&path));
    let (mut front_end, _) = connect(&path);
    let odd = feature::VERSION_1
        | feature::MRG_RXBUF
        | feature::GUEST_ECN
        | feature::HOST_TSO4
        | feature::HOST_ECN;
    let mut pairs = front_end.restart(odd).expect("accepted");
    assert_eq!(front_end.status().expect("answers"), u64::from(READY));
    ping(&mut pairs[0], &[60; 10]);
}

#[test]
fn a_broken_ring_needs_a_reset() {
    let (_dir, path) = socket();
    let _echo = Echo::start(DeviceConfig::new(&path));
    let (mut front_end, _pairs) = connect(&path);
    let at = front_end.layouts()[1].avail + 2;
    front_end.memory().store_u16(at, 40_000);
    let status = |f: &FrontEnd| f.status().expect("answers") as u8;
    wait_for("the status", || status(&front_end) == READY | NEEDS_RESET);
    front_end.set_status(0).expect("resets");
    assert_eq!(status(&front_end), 0);
    let all = FrontEndConfig::new(&path).features;
    ping(&mut front_end.restart(all).expect("restarts")[0], &[60; 10]);
    assert_eq!(status(&front_end), READY);
}

#[test]
fn mtu_is_checked_and_remembered() {
    let (_dir, path) = socket();
    let mut config = DeviceConfig::new(&path);
    config.mtu = Some(9000);
    let echo = Echo::start(config);
    let (front_end, mut pairs) = connect(&path);
    assert_eq!(echo.status().mtu, None);
    for mtu in [0, 67, 9001, 65_536, u64::MAX] {
        front_end.set_mtu(mtu).expect_err("refused");
    }
    for mtu in [68, 9000, 1500] {
        front_end.set_mtu(mtu).expect("accepted");
        assert_eq!(echo.status().mtu, Some(mtu as u16));
    }
    ping(&mut pairs[0], &[60; 10]);
    drop(front_end);
    wait_for("the front end to be gone", || !echo.status().connected);
    assert_eq!(echo.status().mtu, None);
}

#[test]
fn configuration_space_is_read_and_written() {
    const NONE: VhostUserConfigFlags = VhostUserConfigFlags::empty();
    let (_dir, path) = socket();
    let mut config = DeviceConfig::new(&path);
    (config.mac, config.mtu, config.queue_pairs) = (Some([2, 0, 0, 0, 0, 1]), Some(9000), 3);
    let echo = Echo::start(config);
    let (front_end, _pairs) = connect(&path);
    let mut messages = front_end.messages();
    let space = [2, 0, 0, 0, 0, 1, 1, 0, 3, 0, 0x28, 0x23];
    let (_, got) = messages.get_config(0, 12, NONE, &[0; 12]).expect("reads");
    assert_eq!(got, space);
    // A part of it, and more than there is.
    let (_, got) = messages.get_config(6, 2, NONE, &[0; 2]).expect("reads");
    assert_eq!(got, [1, 0]);
    let (_, got) = messages.get_config(8, 100, NONE, &[0; 100]).expect("reads");
    assert_eq!(got[..5], [3, 0, 0x28, 0x23, 0]);
    // The MAC address can be written, the rest can't; a migrated guest's must be the same.
    messages.set_config(3, NONE, &[7, 8, 9]).expect("writes");
    assert_eq!(echo.status().mac, Some([2, 0, 0, 7, 8, 9]));
    let (_, got) = messages.get_config(0, 6, NONE, &[0; 6]).expect("reads");
    assert_eq!(got, [2, 0, 0, 7, 8, 9]);
    messages
        .set_config(6, NONE, &[0, 0])
        .expect_err("read-only");
    messages
        .set_config(10, NONE, &[0, 0, 0])
        .expect_err("too far");
    messages
        .set_config(8, VhostUserConfigFlags::LIVE_MIGRATION, &[3, 0])
        .expect("as it is");
    front_end.set_mtu(1400).expect("accepted");
    let (_, got) = messages.get_config(10, 2, NONE, &[0; 2]).expect("reads");
    assert_eq!(got, 1400u16.to_le_bytes());
    messages.reset_device().expect("resets");
    let (_, got) = messages.get_config(0, 6, NONE, &[0; 6]).expect("reads");
    assert_eq!(got, space[..6]);
    assert!(echo.status().connected);
}

#[test]
fn guest_is_announced_by_whoever_polls_its_first_pair() {
    let (_dir, path) = socket();
    let mut config = DeviceConfig::new(&path);
    config.queue_pairs = 2;
    let (device, mut workers) = Device::start(config, Box::new(|| {})).expect("starts");
    let (front_end, _pairs) = connect(&path);
    workers[0].poll();
    assert_eq!(workers[0].take_announcement(), None);
    front_end.announce([2, 0, 0, 0, 0, 1]).expect("accepted");
    // The last one counts.
    front_end.announce([2, 0, 0, 0, 0, 9]).expect("accepted");
    assert!(workers[0].poll());
    assert_eq!(workers[0].take_announcement(), Some([2, 0, 0, 0, 0, 9]));
    assert_eq!(workers[0].take_announcement(), None);
    assert!(!workers[0].poll());
    assert!(workers[0].from_guest.is_running());
    front_end.announce([0xff; 6]).expect_err("a group");
    front_end.announce([0; 6]).expect_err("nobody");
    drop((workers, front_end, device));
}

#[test]
fn reset_device_stops_everything_and_the_driver_begins_anew() {
    let (_dir, path) = socket();
    let echo = Echo::start(DeviceConfig::new(&path));
    let (mut front_end, mut pairs) = connect(&path);
    ping(&mut pairs[0], &[60; 10]);
    front_end.messages().reset_device().expect("resets");
    let status = echo.status();
    let stopped = status.queues.iter().all(|q| !q.started && !q.enabled);
    assert!(stopped && status.features == 0 && status.device_status == 0);
    let all = FrontEndConfig::new(&path).features;
    ping(&mut front_end.restart(all).expect("restarts")[0], &[60; 10]);
    assert_eq!(echo.status().connections, 1);
}

#[test]
fn pairs_are_switched_on_in_any_order() {
    let (_dir, path) = socket();
    let mut config = DeviceConfig::new(&path);
    config.queue_pairs = 4;
    let device = Echo::keeping(config);
    let mut config = FrontEndConfig::new(&path);
    config.queue_pairs = 4;
    let (mut front_end, mut pairs) = FrontEnd::connect(config).expect("connects");
    front_end.enable(false).expect("disables");
    let mut messages = front_end.messages();
    let mut on = [false; 8];
    for queue in [7, 2, 6, 3, 0, 5, 1, 4] {
        messages.set_vring_enable(queue, true).expect("enables");
        on[queue] = true;
        for pair in (0..4).filter(|pair| on[2 * pair] && on[2 * pair + 1]) {
            ping(&mut pairs[pair], &[60, 1500]);
        }
    }
    // One goes, the others do not notice.
    messages.set_vring_enable(2, false).expect("disables");
    for pair in [0, 2, 3] {
        ping(&mut pairs[pair], &[60, 1500]);
    }
    let enabled: Vec<bool> = device.status().queues.iter().map(|q| q.enabled).collect();
    assert_eq!(enabled, [true, true, false, true, true, true, true, true]);
    messages
        .set_vring_enable(8, true)
        .expect_err("there is none");
}
