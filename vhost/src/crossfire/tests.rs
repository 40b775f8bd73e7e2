//! Random games, and games in which the hostile guest has a second processor.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;

use super::{BASE, Deal, REGION, RINGS, Scene, Script, place, two_guests};
use crate::memory::Mapping;

/// As [`two_guests`], while another thread writes into the rings all the time, as another processor of the guest can.
fn two_guests_and_a_scribbler(data: &[u8]) {
    let mut script = Script(data);
    let Some(first) = script.take() else {
        return;
    };
    let Ok(mut scene) = Scene::new(Deal::read(first, 1)) else {
        return;
    };
    let (file, stop) = (scene.file.clone(), Arc::new(AtomicBool::new(false)));
    let stopped = stop.clone();
    let scribbler = std::thread::spawn(move || scribble(&file, &stopped));
    // Unplugging the rings' own region is for the deterministic game.
    while let Some(step) = script.byte() {
        let what = step & 0x3f;
        let went = match step >> 6 {
            2 => scene.worker(what, &mut script),
            3 if what % 4 != 0 => scene.front_end(what, &mut script),
            _ => scene.worker(what % 3, &mut Script(&[64])),
        };
        if went.is_none() {
            break;
        }
    }
    stop.store(true, Ordering::Relaxed);
    scribbler.join().expect("the thread that scribbles");
    scene.check();
}

/// Writes into the rings of the hostile guest until told to stop. Regions come and go by the front end's moves, of which
/// this knows nothing: it keeps to the first, which stays.
fn scribble(file: &Mapping, stopped: &AtomicBool) {
    let mut seed = 0x2545_f491_4f6c_dd1du64;
    while !stopped.load(Ordering::Relaxed) {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        let [queue, part] = [(seed >> 8) as usize % 2, (seed >> 9) as usize % 4];
        let [desc, avail, _] = RINGS[queue].map(|at| place(0) + at as usize);
        let (index, small) = ((seed >> 16) as usize % 128, (seed >> 24) as u16 % 128);
        match part {
            // Descriptors of which some make sense: the flags are a byte, the rest as it comes.
            0 => file.store_u64(desc + 16 * index, BASE + (seed >> 32) % (3 * REGION as u64)),
            1 => file.store_u64(
                desc + 16 * index + 8,
                ((seed >> 40) % 0x800) | u64::from(small % 8) << 32 | u64::from(small) << 48,
            ),
            2 => file.store_u16(avail + 4 + 2 * index, small),
            _ => file.store_u16(avail + 2, file.load_u16(avail + 2).wrapping_add(small % 8)),
        }
    }
}

/// Steps of which most make sense, so that they come further than random bytes.
fn script() -> impl Strategy<Value = Vec<u8>> {
    let offer = (0u8..2, any::<u8>(), any::<u16>(), any::<u16>(), any::<u8>()).prop_map(
        |(queue, index, address, len, flags)| {
            let direction = if queue == 0 { 2 } else { 0 };
            let flags = if flags < 180 {
                direction
            } else {
                direction | flags & 0xc5
            };
            let mut step = vec![queue << 6, index & 15];
            step.extend((address % 0xbac0).to_le_bytes());
            step.extend((len & 0x7ff).to_le_bytes());
            step.extend([flags, index.wrapping_add(1) & 15]);
            step.extend([queue << 6 | 1, index & 15]);
            step
        },
    );
    let step = prop_oneof![
        8 => offer,
        3 => (0u8..3, any::<u8>()).prop_map(|(what, byte)| vec![0x80 | what, byte]),
        1 => any::<u8>().prop_map(|what| vec![0x80 | what & 3, what]),
        1 => (0u8..2).prop_map(|queue| vec![queue << 6 | 2]),
        1 => any::<[u8; 2]>().prop_map(|[what, byte]| vec![0xc0 | what & 3, byte, byte]),
        1 => any::<[u8; 11]>().prop_map(|bytes| {
            let mut step = bytes.to_vec();
            step[0] = 4;
            step
        }),
    ];
    (
        any::<u8>(),
        0u8..64,
        proptest::collection::vec(step, 1..120),
    )
        .prop_map(|(size, bits, steps)| {
            let mut script = vec![size % 4 + 4, bits];
            script.extend(steps.concat());
            script
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn any_guest_keeps_to_itself(data in proptest::collection::vec(any::<u8>(), 0..600)) {
        two_guests(&data);
    }

    #[test]
    fn plausible_guest_keeps_to_itself(script in script()) {
        two_guests(&script);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_guest_that_writes_meanwhile_keeps_to_itself(script in script()) {
        two_guests_and_a_scribbler(&script);
    }
}
