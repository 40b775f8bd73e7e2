//! Memory that comes and goes in slots, as many as there can be, while frames pass.

mod common;

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use chainplane_vhost::backend::{Device, DeviceConfig};
use chainplane_vhost::driver::{DriverPair, FrontEnd, FrontEndConfig};
use chainplane_vhost::memory::MAX_REGIONS;
use chainplane_vhost::ring::RingError;
use common::{Echo, PATIENCE, ping, socket, wait_for};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::pwrite;
use vhost::VhostUserMemoryRegionInfo;
use vhost::vhost_user::VhostUserFrontend;

const PAGE: u64 = 4096;

/// A slot of one page whose frame, behind a header, is full of the slot's number.
struct Slot {
    file: OwnedFd,
    number: u64,
}

impl Slot {
    fn new(number: u64) -> Self {
        let file = memfd_create("slot", MemfdFlags::CLOEXEC).expect("memfd");
        let mut page = vec![number as u8; PAGE as usize];
        page[..12].fill(0);
        page[12..20].copy_from_slice(&number.to_le_bytes());
        pwrite(&file, &page, 0).expect("writes");
        Self { file, number }
    }

    /// Guest addresses with a hole of a page between any two, in another order than the front
    /// end's.
    fn guest(&self) -> u64 {
        (1 << 40) + (self.number * 7 % 509) * 2 * PAGE
    }

    fn region(&self) -> VhostUserMemoryRegionInfo {
        VhostUserMemoryRegionInfo {
            guest_phys_addr: self.guest(),
            memory_size: PAGE,
            userspace_addr: (1 << 45) + self.number * PAGE,
            mmap_offset: 0,
            mmap_handle: self.file.as_raw_fd(),
        }
    }

    /// Makes the slot's frame of `len` bytes available in the transmit queue.
    fn send(&self, front_end: &FrontEnd, len: u32) {
        let (memory, layout) = (front_end.memory(), front_end.layouts()[1]);
        let index = memory.load_u16(layout.avail + 2);
        let place = usize::from(index % layout.size);
        memory.store_u64(layout.desc + 16 * place, self.guest());
        memory.store_u64(layout.desc + 16 * place + 8, u64::from(len + 12));
        memory.store_u16(layout.avail + 4 + 2 * place, place as u16);
        memory.store_u16(layout.avail + 2, index.wrapping_add(1));
    }
}

fn connect(path: &std::path::Path) -> (FrontEnd, Vec<DriverPair>) {
    let config = FrontEndConfig {
        memory_slots: true,
        ..FrontEndConfig::new(path)
    };
    FrontEnd::connect(config).expect("connects")
}

#[test]
fn as_many_slots_as_there_can_be() {
    let (_dir, path) = socket();
    let device = Echo::keeping(DeviceConfig::new(&path));
    let (front_end, mut pairs) = connect(&path);
    let mut messages = front_end.messages();
    assert_eq!(messages.get_max_mem_slots().expect("answers"), 509);
    // One is the driver's own.
    let slots: Vec<Slot> = (1..MAX_REGIONS as u64).map(Slot::new).collect();
    for slot in &slots {
        messages.add_mem_region(&slot.region()).expect("adds");
    }
    let more = Slot::new(MAX_REGIONS as u64);
    messages.add_mem_region(&more.region()).expect_err("full");
    // A frame out of each, two rounds, in an order that jumps about.
    let order = (0..2 * slots.len()).map(|i| &slots[i * 211 % slots.len()]);
    for slot in order {
        slot.send(&front_end, 100);
        let mut got = Vec::new();
        wait_for("the frame", || {
            let receive = &mut pairs[0].receive;
            receive.receive(1, |_, frame| got = frame.to_vec()) == 1
        });
        assert_eq!(got[..8], slot.number.to_le_bytes());
        assert!(got.len() == 100 && got[8..].iter().all(|byte| *byte == slot.number as u8));
    }
    for slot in slots
        .iter()
        .rev()
        .step_by(2)
        .chain(slots.iter().rev().skip(1).step_by(2))
    {
        messages.remove_mem_region(&slot.region()).expect("removes");
    }
    assert_eq!(device.status().queues[1].broken, None);
    // What is gone can't be used any more.
    slots[0].send(&front_end, 100);
    wait_for("the ring to break", || {
        device.status().queues[1].broken == Some(RingError::OutsideMemory)
    });
}

#[test]
fn slots_come_and_go_while_frames_pass() {
    let (_dir, path) = socket();
    let device = Echo::keeping(DeviceConfig::new(&path));
    let (front_end, mut pairs) = connect(&path);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let mut messages = front_end.messages();
        let done = &done;
        scope.spawn(move || {
            for round in 0..4 {
                let slots: Vec<Slot> = (1..40).map(|i| Slot::new(40 * round + i)).collect();
                for slot in &slots {
                    messages.add_mem_region(&slot.region()).expect("adds");
                }
                for slot in &slots {
                    messages.remove_mem_region(&slot.region()).expect("removes");
                }
            }
            done.store(true, Ordering::Release);
        });
        // Every frame comes back once, whole, in order.
        while !done.load(Ordering::Acquire) {
            ping(&mut pairs[0], &[60, 1500, 200, 9000, 64].repeat(20));
        }
    });
    let status = device.status();
    assert_eq!(status.last_error, None);
    assert!(status.queues.iter().all(|queue| queue.broken.is_none()));
}

#[test]
fn a_slot_goes_once_no_burst_points_to_it() {
    let (_dir, path) = socket();
    let (_device, mut workers) =
        Device::start(DeviceConfig::new(&path), Box::new(|| {})).expect("starts");
    let (front_end, _pairs) = connect(&path);
    let (slot, mut messages) = (Slot::new(1), front_end.messages());
    messages.add_mem_region(&slot.region()).expect("adds");
    workers[0].poll();
    slot.send(&front_end, 100);
    assert_eq!(workers[0].from_guest.fetch(64), 1);
    let removing = std::thread::spawn(move || {
        messages.remove_mem_region(&slot.region()).expect("removes");
        slot
    });
    // The burst is open: its bytes are there, and the front end waits.
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert!(!removing.is_finished());
    let mut bytes = [0; 100];
    assert_eq!(workers[0].from_guest.read(0, 0, &mut bytes), 100);
    assert_eq!(bytes[8..], [1; 92]);
    let start = std::time::Instant::now();
    while !workers[0].poll() {
        assert!(start.elapsed() < PATIENCE);
    }
    assert_eq!(workers[0].from_guest.count(), 0);
    let slot = removing.join().expect("ends");
    slot.send(&front_end, 100);
    assert_eq!(workers[0].from_guest.fetch(64), 0);
    assert!(!workers[0].from_guest.is_running());
    assert_eq!(workers[0].from_guest.counters().breaks, 1);
    let used = front_end.memory().load_u16(front_end.layouts()[1].used + 2);
    assert_eq!(used, 1, "given back once");
}
