//! Forwards frames between two vhost-user ports on one polling thread:
//! `cargo run --release -p chainplane-vhost --example forward -- a.sock b.sock [SECONDS]`.

use std::time::{Duration, Instant};

use chainplane_vhost::backend::{Device, DeviceConfig, QueuePair};
use chainplane_vhost::ring::BURST;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(a), Some(b)) = (args.next(), args.next()) else {
        return Err("usage: forward SOCKET SOCKET [SECONDS]".into());
    };
    let seconds = args.next().map_or(Ok(10), |s| s.parse())?;
    let (first, mut a) = Device::start(DeviceConfig::new(a), Box::new(|| {}))?;
    let (second, mut b) = Device::start(DeviceConfig::new(b), Box::new(|| {}))?;
    let mut frames = vec![vec![0; 70_000]; BURST];
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        for _ in 0..1024 {
            forward(&mut a[0], &mut b[0], &mut frames);
            forward(&mut b[0], &mut a[0], &mut frames);
        }
    }
    println!("{:#?}\n{:#?}", first.status(), second.status());
    Ok(())
}

/// Moves a burst; what finds no room is dropped.
fn forward(from: &mut QueuePair, to: &mut QueuePair, frames: &mut [Vec<u8>]) {
    from.poll();
    let count = from.from_guest.fetch(BURST);
    let mut lens = [0; BURST];
    for i in 0..count {
        lens[i] = from.from_guest.read(i, 0, &mut frames[i]) as u32;
    }
    for i in 0..to.to_guest.reserve(&lens[..count]) {
        to.to_guest
            .fill(i, from.from_guest.header(i), &frames[i][..lens[i] as usize]);
    }
    to.to_guest.publish();
    from.from_guest.complete();
}
