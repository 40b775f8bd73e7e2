use chainplane_vhost::backend::{Device, DeviceConfig};
use chainplane_vhost::driver::{FrontEnd, FrontEndConfig};

use super::*;
use crate::crew::{Owners, crew};
use crate::engine::Hop;
use crate::packet::{HugePages, Pool, PoolConfig};
use crate::port::PortTally;
use crate::sim::Sim;
use crate::time::Time;
use crate::worker::WakeHandle;

#[test]
fn a_guest_that_came_from_elsewhere_is_announced_once() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let (_device, pairs) = Device::start(DeviceConfig::new(&socket), Box::new(|| {})).unwrap();
    let mut port = VhostUser::new(pairs);
    let (front_end, mut queues) = FrontEnd::connect(FrontEndConfig::new(&socket)).unwrap();
    let mut pool = Pool::new(PoolConfig {
        small: 2,
        large: 2,
        huge_pages: HugePages::Never,
    })
    .unwrap();
    let tally = PortTally::default();
    let mut poll = |port: &mut VhostUser, keep: usize| -> Vec<Vec<u8>> {
        let kept: Vec<_> = (0..keep).map(|_| pool.take(60).unwrap()).collect();
        let (mut batch, pool, now) = (Batch::new(), &mut pool, Time(0));
        let mut cx = PortContext::new(pool, &tally, now);
        assert!(!port.sync());
        port.receive(&mut cx, &mut batch);
        drop(kept);
        batch.iter().map(|packet| packet.data().to_vec()).collect()
    };
    assert!(poll(&mut port, 0).is_empty());
    front_end.announce([2, 0, 0, 0, 0, 7]).unwrap();
    // Without a buffer it waits.
    assert!(poll(&mut port, 2).is_empty());
    assert!(port.arm());
    queues[0].transmit.send(NetHeader::default(), &[5; 64]);
    queues[0].transmit.flush();
    let frames = poll(&mut port, 0);
    assert_eq!(
        frames,
        [rarp::announcement([2, 0, 0, 0, 0, 7]).to_vec(), vec![5; 64]]
    );
    assert!(poll(&mut port, 0).is_empty());
}

/// A device's pairs are split over the members of a crew, and its driver enables the first one only.
#[test]
fn packets_go_to_the_pair_that_the_driver_enabled() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let mut config = DeviceConfig::new(&socket);
    config.queue_pairs = 2;
    let (_device, pairs) = Device::start(config, Box::new(|| {})).unwrap();
    let mut members: Vec<_> = pairs
        .into_iter()
        .map(|pair| {
            let mut sim = Sim::new(None, &[], 0);
            let guest = Box::new(VhostUser::new(vec![pair]));
            sim.engine().add_port("guest", guest, Hop::Port(1));
            sim.add_port("wire", Hop::Port(0));
            sim
        })
        .collect();
    let wakes = [0; 2].map(|_| WakeHandle::new().unwrap());
    let memberships = crew(&Owners::anyone(), wakes.into(), 2);
    for (member, membership) in members.iter_mut().zip(memberships) {
        member.engine().join(membership);
    }
    let mut send = |by: usize| {
        (0..10).for_each(|_| members[by].inject(0, &[5; 64]));
        for member in [by, 0, 1] {
            members[member].run();
        }
        let down = members
            .iter_mut()
            .map(|member| member.snapshot().port("guest").unwrap().value("down"));
        down.sum::<u64>()
    };
    assert_eq!(send(1), 10, "there is no guest yet");
    let (front_end, mut queues) = FrontEnd::connect(FrontEndConfig::new(&socket)).unwrap();
    // The members see what their control threads left.
    assert_eq!((send(0), send(1), send(1)), (10, 10, 10));
    let mut came = 0;
    queues[0].receive.receive(usize::MAX, |_, frame| {
        assert_eq!(frame, [5; 64]);
        came += 1;
    });
    assert_eq!(came, 30);
    drop((front_end, queues));
}
