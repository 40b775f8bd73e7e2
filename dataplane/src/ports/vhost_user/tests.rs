use chainplane_vhost::backend::{Device, DeviceConfig};
use chainplane_vhost::driver::{FrontEnd, FrontEndConfig};

use super::*;
use crate::packet::{HugePages, Pool, PoolConfig};
use crate::port::PortTally;
use crate::time::Time;

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
