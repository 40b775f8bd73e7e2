//! Front ends and guests that mean harm: each breaks its own device and no other, and the device
//! serves the next one.

mod common;

use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Instant;

use chainplane_vhost::backend::DeviceConfig;
use chainplane_vhost::driver::{DriverPair, FrontEnd, FrontEndConfig, GUEST_BASE, RingLayout};
use chainplane_vhost::net::NetHeader;
use chainplane_vhost::ring::RingError;
use common::{Echo, PATIENCE, connect, ping, socket, wait_for};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use vhost::{VhostBackend, VringConfigData};

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

const SET_MEM_TABLE: u32 = 5;
const SET_VRING_NUM: u32 = 8;
const SET_VRING_KICK: u32 = 12;
const NEED_REPLY: u32 = 8;
const SET_PROTOCOL_FEATURES: u32 = 16;
const SET_VRING_ENABLE: u32 = 18;
const SEND_RARP: u32 = 19;
const NET_SET_MTU: u32 = 20;
const SET_STATUS: u32 = 39;
const GET_STATUS: u32 = 40;
/// RARP, MTU, STATUS; without `REPLY_ACK`.
const PROTOCOL: u64 = 1 << 2 | 1 << 4 | 1 << 16;

/// Two devices: one to attack, and a neighbour that must not notice.
struct Street {
    _dirs: [tempfile::TempDir; 2],
    paths: [std::path::PathBuf; 2],
    victim: Echo,
    _neighbour: Echo,
    /// The neighbour's guest, connected all the while.
    guest: (FrontEnd, Vec<DriverPair>),
}

impl Street {
    fn new() -> Self {
        let (dir_a, a) = socket();
        let (dir_b, b) = socket();
        let victim = Echo::start(DeviceConfig::new(&a));
        let neighbour = Echo::start(DeviceConfig::new(&b));
        let mut guest = connect(&b);
        ping(&mut guest.1[0], &[60; 10]);
        Self {
            _dirs: [dir_a, dir_b],
            paths: [a, b],
            victim,
            _neighbour: neighbour,
            guest,
        }
    }

    fn path(&self) -> &Path {
        &self.paths[0]
    }

    /// The neighbour is well, and so is the device that was attacked.
    fn proves_well(mut self) {
        ping(&mut self.guest.1[0], &[60, 1500, 9000]);
        let (_front_end, mut pairs) = connect(&self.paths[0]);
        ping(&mut pairs[0], &[60, 1500, 9000]);
        assert!(
            self.victim
                .status()
                .queues
                .iter()
                .all(|q| q.broken.is_none())
        );
    }
}

/// The rings of a guest that is about to misbehave, and how to write to them.
struct Attack<'a> {
    front_end: &'a FrontEnd,
    layout: RingLayout,
}

impl Attack<'_> {
    fn describe(&self, at: usize, index: u16, address: u64, len: u32, flags: u16, next: u16) {
        let at = at + 16 * usize::from(index);
        let memory = self.front_end.memory();
        memory.store_u64(at, address);
        memory.store_u64(
            at + 8,
            u64::from(len) | u64::from(flags) << 32 | u64::from(next) << 48,
        );
    }

    /// A descriptor of the ring's own table that points to the buffer of the same number.
    fn buffer(&self, index: u16, len: u32, flags: u16, next: u16) {
        let address = GUEST_BASE + self.layout.buffer(index) as u64;
        self.describe(self.layout.desc, index, address, len, flags, next);
    }

    /// Makes one chain available.
    fn offer(&self, head: u16) {
        let (memory, layout) = (self.front_end.memory(), self.layout);
        let index = memory.load_u16(layout.avail + 2);
        memory.store_u16(
            layout.avail + 4 + 2 * usize::from(index % layout.size),
            head,
        );
        memory.store_u16(layout.avail + 2, index.wrapping_add(1));
    }
}

/// Attacks the victim's transmit queue and waits until it breaks as expected.
fn breaks(expected: RingError, attack: impl FnOnce(&Attack<'_>)) {
    breaks_queue(1, expected, attack);
}

fn breaks_queue(queue: usize, expected: RingError, attack: impl FnOnce(&Attack<'_>)) {
    let street = Street::new();
    let config = FrontEndConfig {
        transmit_buffer: 1 << 17,
        ..FrontEndConfig::new(street.path())
    };
    let (front_end, mut pairs) = FrontEnd::connect(config).expect("front end connects");
    ping(&mut pairs[0], &[60]);
    attack(&Attack {
        front_end: &front_end,
        layout: front_end.layouts()[queue],
    });
    if queue == 0 {
        // The device looks at receive buffers once there is something to receive.
        for _ in 0..300 {
            pairs[0].transmit.send(NetHeader::default(), &[7; 60]);
        }
        pairs[0].transmit.flush();
    }
    wait_for("the queue to break", || {
        street.victim.status().queues[queue].broken.is_some()
    });
    let status = street.victim.status();
    assert_eq!(status.queues[queue].broken, Some(expected));
    wait_for("the operator to be told", || {
        let error = street.victim.status().last_error.unwrap_or_default();
        error.contains(&expected.to_string()) && error.contains(&format!("queue {queue}"))
    });
    drop(front_end);
    street.proves_well();
}

#[test]
fn available_index_jumps() {
    breaks(RingError::AvailableJump, |a| {
        a.front_end.memory().store_u16(a.layout.avail + 2, 40_000);
    });
}

#[test]
fn head_outside_the_table() {
    breaks(RingError::DescriptorIndex, |a| a.offer(a.layout.size));
}

#[test]
fn next_outside_the_table() {
    breaks(RingError::DescriptorIndex, |a| {
        a.buffer(0, 64, NEXT, 65_535);
        a.offer(0);
    });
}

#[test]
fn chain_that_runs_in_a_circle() {
    breaks(RingError::ChainTooLong, |a| {
        a.buffer(0, 64, NEXT, 1);
        a.buffer(1, 64, NEXT, 0);
        a.offer(0);
    });
}

#[test]
fn buffer_outside_memory() {
    for address in [0, 0x3fff_ffff, u64::MAX, u64::MAX - 63, 1 << 63] {
        breaks(RingError::OutsideMemory, |a| {
            a.describe(a.layout.desc, 0, address, 64, 0, 0);
            a.offer(0);
        });
    }
}

#[test]
fn buffer_of_four_gibibytes() {
    breaks(RingError::OutsideMemory, |a| {
        a.buffer(0, u32::MAX, 0, 0);
        a.offer(0);
    });
}

#[test]
fn chain_of_four_gibibytes() {
    breaks(RingError::Length, |a| {
        // The memory is larger than 16 MiB; every buffer is all of it from the start.
        for index in 0..a.layout.size {
            let flags = if index + 1 < a.layout.size { NEXT } else { 0 };
            a.describe(a.layout.desc, index, GUEST_BASE, 17 << 20, flags, index + 1);
        }
        a.offer(0);
    });
}

#[test]
fn writable_buffer_in_the_transmit_queue() {
    breaks(RingError::Direction, |a| {
        a.buffer(0, 64, NEXT, 1);
        a.buffer(1, 64, WRITE, 0);
        a.offer(0);
    });
}

#[test]
fn readable_buffer_in_the_receive_queue() {
    breaks_queue(0, RingError::Direction, |a| {
        for index in 0..a.layout.size {
            a.buffer(index, 64, 0, 0);
        }
    });
}

#[test]
fn bad_indirect_tables() {
    let table = |a: &Attack<'_>| GUEST_BASE + a.layout.table(0) as u64;
    // Empty, of an odd length, chained, nested, too long, outside.
    for (len, flags) in [(0, INDIRECT), (24, INDIRECT), (16, INDIRECT | NEXT)] {
        breaks(RingError::Indirect, |a| {
            a.describe(a.layout.desc, 0, table(a), len, flags, 1);
            a.offer(0);
        });
    }
    breaks(RingError::Indirect, |a| {
        a.describe(a.layout.desc, 0, table(a), 32, INDIRECT, 0);
        a.describe(a.layout.table(0), 0, table(a), 32, INDIRECT, 0);
        a.offer(0);
    });
    breaks(RingError::ChainTooLong, |a| {
        a.describe(a.layout.desc, 0, table(a), 16 * 1025, INDIRECT, 0);
        a.offer(0);
    });
    breaks(RingError::ChainTooLong, |a| {
        a.describe(a.layout.desc, 0, table(a), 16, INDIRECT, 0);
        a.describe(a.layout.table(0), 0, GUEST_BASE, 64, NEXT, 0);
        a.offer(0);
    });
    breaks(RingError::OutsideMemory, |a| {
        a.describe(a.layout.desc, 0, 0x1000, 32, INDIRECT, 0);
        a.offer(0);
    });
}

#[test]
fn memory_file_truncated_while_mapped() {
    let street = Street::new();
    let (front_end, mut pairs) = connect(street.path());
    ping(&mut pairs[0], &[60, 1500]);
    ftruncate(front_end.memory_file(), 0).expect("truncates");
    let broken = || street.victim.status().queues[1].broken;
    wait_for("the queue to break", || broken().is_some());
    assert_eq!(broken(), Some(RingError::MemoryTruncated));
    drop((front_end, pairs));
    street.proves_well();
}

#[test]
fn frames_without_a_byte_or_too_long_are_counted() {
    let street = Street::new();
    let config = FrontEndConfig {
        transmit_buffer: 1 << 17,
        ..FrontEndConfig::new(street.path())
    };
    let (front_end, mut pairs) = FrontEnd::connect(config).expect("front end connects");
    let a = Attack {
        front_end: &front_end,
        layout: front_end.layouts()[1],
    };
    for (index, len) in [0, 1, 11, 12, 70_000, 100_000].into_iter().enumerate() {
        a.buffer(index as u16, len, 0, 0);
        a.offer(index as u16);
    }
    let used = || front_end.memory().load_u16(a.layout.used + 2);
    wait_for("the device to give the buffers back", || used() == 6);
    wait_for("the counters", || {
        let counters = street.victim.status().queues[1].counters;
        counters.short == 4 && counters.oversize == 2 && counters.frames == 0
    });
    assert_eq!(pairs[0].receive.receive(64, |_, _| {}), 0);
    drop(front_end);
    street.proves_well();
}

/// Sends a protocol message as it would never be sent.
fn message(
    stream: &UnixStream,
    request: u32,
    flags: u32,
    size: u32,
    body: &[u8],
    fds: &[BorrowedFd<'_>],
) {
    let mut bytes = Vec::new();
    for word in [request, flags | 1, size] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes.extend_from_slice(body);
    let mut space = [std::mem::MaybeUninit::uninit(); 1024];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(fds)));
    }
    sendmsg(
        stream,
        &[std::io::IoSlice::new(&bytes)],
        &mut ancillary,
        SendFlags::NOSIGNAL,
    )
    .expect("message is sent");
}

/// Sends something and waits until the device has hung up on us.
fn is_hung_up(what: &str, send: impl FnOnce(&mut UnixStream)) {
    let street = Street::new();
    let mut stream = UnixStream::connect(street.path()).expect("connects");
    wait_for("the connection", || street.victim.status().connected);
    send(&mut stream);
    // The reason is told a moment after the connection is given up.
    wait_for(what, || {
        let status = street.victim.status();
        !status.connected && status.last_error.is_some()
    });
    drop(stream);
    street.proves_well();
}

#[test]
fn garbage_on_the_control_socket() {
    for seed in 0..8u32 {
        is_hung_up("garbage", |stream| {
            let bytes: Vec<u8> = (0..4000u32)
                .map(|i| (i.wrapping_mul(2_654_435_761 + seed) >> 13) as u8)
                .collect();
            let _ = stream.write_all(&bytes);
        });
    }
}

#[test]
fn messages_of_impossible_size() {
    for size in [u32::MAX, 0x7fff_ffff, 4097] {
        is_hung_up("a huge message", |s| {
            message(s, SET_VRING_NUM, 0, size, &[0; 4096], &[]);
        });
    }
    is_hung_up("a short message", |s| {
        message(s, SET_VRING_NUM, 0, 4, &[0; 4], &[]);
    });
    is_hung_up("an unknown request", |s| message(s, 4711, 0, 0, &[], &[]));
}

#[test]
fn disconnect_in_the_middle_of_a_message() {
    let street = Street::new();
    for len in [1, 5, 11, 12, 15, 19] {
        let mut stream = UnixStream::connect(street.path()).expect("connects");
        let mut bytes = Vec::new();
        for word in [SET_VRING_NUM, 1, 8, 0, 256] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        stream.write_all(&bytes[..len]).expect("sends");
    }
    wait_for("six visits", || street.victim.status().connections == 6);
    street.proves_well();
}

#[test]
fn half_a_message_hangs_neither_stop_nor_the_next_front_end() {
    is_hung_up("half a message", |s| {
        s.write_all(&[8, 0, 0, 0, 1]).expect("sends");
    });
    let (_dir, path) = socket();
    let echo = Echo::start(DeviceConfig::new(&path));
    let mut stream = UnixStream::connect(&path).expect("connects");
    wait_for("the connection", || echo.status().connected);
    stream.write_all(&[8, 0, 0, 0, 1]).expect("sends");
    let start = Instant::now();
    drop(echo);
    assert!(start.elapsed() < PATIENCE);
    assert!(!path.exists());
}

fn memfd(len: u64) -> OwnedFd {
    let fd = memfd_create("hostile", MemfdFlags::CLOEXEC).expect("memfd");
    ftruncate(&fd, len).expect("size");
    fd
}

/// A memory table: guest address, size, user address, offset.
fn table(stream: &UnixStream, regions: &[[u64; 4]], fd: &OwnedFd, flags: u32) {
    let mut body = (regions.len() as u64).to_le_bytes().to_vec();
    for word in regions.iter().flatten() {
        body.extend_from_slice(&word.to_le_bytes());
    }
    let fds = vec![fd.as_fd(); regions.len()];
    message(stream, SET_MEM_TABLE, flags, body.len() as u32, &body, &fds);
}

#[test]
fn absurd_memory_regions() {
    const M: u64 = 1 << 20;
    let cases: &[&[[u64; 4]]] = &[
        // Overlap in the guest's addresses, and in the front end's.
        &[[0, M, 0, 0], [M - 1, M, 16 * M, 0]],
        &[[0, M, 0, 0], [16 * M, M, M / 2, 0]],
        // The same twice.
        &[[0, M, 0, 0], [0, M, 0, 0]],
        // Nothing; more than there is; an offset behind the end; round the end of the world.
        &[[0, 0, 0, 0]],
        &[[0, 3 * M, 0, 0]],
        &[[0, M, 0, 2 * M]],
        &[[0, M, 0, u64::MAX - 4095]],
        &[[u64::MAX - 4095, M, 0, 0]],
        &[[0, M, u64::MAX - 4095, 0]],
        &[[0, u64::MAX, 0, 0]],
        &[[0, 1 << 63, 0, 0]],
        // No region at all.
        &[],
    ];
    let fd = memfd(2 * M);
    for case in cases {
        is_hung_up("a refused memory table", |s| table(s, case, &fd, 0));
    }
    let null = OwnedFd::from(std::fs::File::open("/dev/zero").expect("opens"));
    is_hung_up("a device as memory", |s| {
        table(s, &[[0, M, 0, 0]], &null, 0);
    });
}

#[test]
fn ring_addresses_outside_memory() {
    let street = Street::new();
    let (front_end, mut pairs) = connect(street.path());
    ping(&mut pairs[0], &[60]);
    let messages = front_end.messages();
    let config = VringConfigData {
        queue_max_size: 256,
        queue_size: 256,
        flags: 0,
        desc_table_addr: 0x10,
        used_ring_addr: 0x7f00_0000_0000 + front_end.memory().len() as u64 - 64,
        avail_ring_addr: u64::MAX - 1,
        log_addr: None,
    };
    // The front end asked for an acknowledgement: it gets a negative one and may go on.
    messages.set_vring_addr(1, &config).expect_err("refused");
    wait_for("the ring to stop", || {
        !street.victim.status().queues[1].started
    });
    messages
        .set_vring_num(1, 3)
        .expect_err("not a power of two");
    messages.set_vring_num(1, 0).expect_err("nothing");
    messages.set_vring_base(0, 7).expect_err("the ring runs");
    assert!(street.victim.status().connected);
    drop((messages, front_end));
    street.proves_well();
}

#[test]
fn queues_that_do_not_exist_and_kicks_that_are_none() {
    let index = |n: u64| n.to_le_bytes();
    is_hung_up("queue 200", |s| {
        message(s, SET_VRING_NUM, 0, 8, &index(200), &[]);
    });
    is_hung_up("queue 2", |s| {
        message(s, SET_VRING_KICK, 0, 8, &index(2 | 256), &[]);
    });
    let fd = memfd(4096);
    is_hung_up("a file as kick", |s| {
        message(s, SET_VRING_KICK, 0, 8, &index(0), &[fd.as_fd()]);
    });
    let (pipe, _end) = rustix::pipe::pipe().expect("pipe");
    is_hung_up("a pipe as kick", |s| {
        message(s, SET_VRING_KICK, 0, 8, &index(0), &[pipe.as_fd()]);
    });
    is_hung_up("no kick", |s| {
        message(s, SET_VRING_KICK, NEED_REPLY, 8, &index(0), &[]);
    });
}

#[test]
fn requests_of_another_form_than_theirs() {
    let fd = memfd(4096);
    let fd = fd.as_fd();
    let start = |s: &UnixStream| {
        message(s, SET_PROTOCOL_FEATURES, 0, 8, &PROTOCOL.to_le_bytes(), &[]);
    };
    for request in [
        SET_VRING_ENABLE,
        SEND_RARP,
        NET_SET_MTU,
        SET_STATUS,
        GET_STATUS,
    ] {
        let right = if request == GET_STATUS { 0 } else { 8 };
        let payload = [0; 4096];
        for size in [0usize, 1, 7, 8, 9, 16, 4096]
            .into_iter()
            .filter(|s| *s != right)
        {
            is_hung_up("a wrong size", |s| {
                start(s);
                message(s, request, 0, size as u32, &payload[..size], &[]);
            });
        }
        for size in [4097, u32::MAX] {
            is_hung_up("an impossible size", |s| {
                start(s);
                message(s, request, 0, size, &payload, &[]);
            });
        }
        let payload = &payload[..right];
        // An answer, another version, bits that mean nothing.
        for flags in [4, 2, 16, 1 << 31] {
            is_hung_up("wrong flags", |s| {
                start(s);
                message(s, request, flags, right as u32, payload, &[]);
            });
        }
        for fds in [&[fd][..], &[fd; 8], &[fd; 60]] {
            is_hung_up("unasked file descriptors", |s| {
                start(s);
                message(s, request, 0, right as u32, payload, fds);
            });
        }
        if request != SET_VRING_ENABLE {
            is_hung_up("what was not negotiated", |s| {
                message(s, request, 0, right as u32, payload, &[]);
            });
        }
    }
}

#[test]
fn requests_that_make_no_sense_and_want_no_reply() {
    for (request, value) in [
        (SET_VRING_ENABLE, 2 | 1 << 32),
        (SET_VRING_ENABLE, 2 << 32),
        (SEND_RARP, u64::MAX),
        (NET_SET_MTU, 10),
        (SET_STATUS, 256),
    ] {
        is_hung_up("nonsense", |s| {
            message(s, SET_PROTOCOL_FEATURES, 0, 8, &PROTOCOL.to_le_bytes(), &[]);
            // Nobody acknowledges what was not agreed on.
            message(s, request, NEED_REPLY, 8, &value.to_le_bytes(), &[]);
        });
    }
}
