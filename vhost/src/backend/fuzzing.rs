//! Bytes play a hostile front end: messages in any order and form, against a whole session.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recv, sendmsg};

use super::connection::{Announced, Connection};
use super::{DeviceConfig, QueuePair, Shared};
use crate::event::Event;
use crate::memory::Mapping;
use crate::net::feature;

/// Bytes of the memory file, of which every other page is a region's and the rest nobody's.
const FILE: usize = 16 * PAGE;
const PAGE: usize = 4096;
/// What nobody's pages hold.
const UNTOUCHED: u8 = 0x5A;
/// Where regions begin in the guest and in the front end.
const GUEST: u64 = 0x10_0000;
const USER: u64 = 0x7000_0000;
/// Messages in one run at most, so that none takes long.
const STEPS: usize = 200;

/// Reads values off the fuzzer's bytes.
struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (now, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*now)
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        let (now, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        now.to_vec()
    }
}

/// What a front end sends along.
struct Things {
    file: OwnedFd,
    short: OwnedFd,
    event: Event,
    channel: (UnixStream, UnixStream),
}

impl Things {
    fn fd(&self, which: u8) -> BorrowedFd<'_> {
        match which % 4 {
            0 => self.file.as_fd(),
            1 => self.event.as_fd(),
            2 => self.channel.1.as_fd(),
            _ => self.short.as_fd(),
        }
    }
}

/// A message: header, payload, and which of the things come with it.
struct Message {
    request: u32,
    flags: u32,
    size: u32,
    payload: Vec<u8>,
    fds: Vec<u8>,
}

fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// A region: guest address, size, user address, offset in the file. Every other page.
fn region(which: u8) -> [u64; 4] {
    let slot = u64::from(which % 8);
    let (at, page) = (slot * 0x10_000, PAGE as u64);
    // What is larger leads behind the end of the file and must be refused.
    let size = if which & 0x80 == 0 { page } else { FILE as u64 };
    [GUEST + at, size, USER + at, 2 * slot * page + page]
}

/// Request, payload, and what comes with it.
type Parts = (u32, (Vec<u8>, Vec<u8>));

/// A message that is about the device, or about memory and translations as a whole.
fn device_wide(kind: u8, what: u8) -> Parts {
    let (low, high) = (u64::from(what & 3), u64::from(what >> 2));
    let [guest, size, user, _] = region(what);
    match kind {
        14 => (19, (words(&[u64::from(what) << 8 | 2]), vec![])),
        15 => (20, (words(&[u64::from(what) << 4]), vec![])),
        16 => (21, (vec![], vec![2])),
        17 | 18 => {
            let kind = u64::from(2 + (kind & 1));
            let entry = [guest + high * 64, size, user + high * 64, low | kind << 8];
            (22, (words(&entry), vec![]))
        }
        19 => (39, (words(&[what.into()]), vec![])),
        20 => (40, (vec![], vec![])),
        21 => (
            24,
            (
                [words(&[low | 8 << 32])[..].to_vec(), vec![0; 4 + 8]].concat(),
                vec![],
            ),
        ),
        22 => (
            25,
            (
                [
                    words(&[low | 2 << 32])[..].to_vec(),
                    vec![0, 0, 0, 0, what, 0],
                ]
                .concat(),
                vec![],
            ),
        ),
        23 => (34, (vec![], vec![])),
        24 => (6, (words(&[high << 8, low << 10]), vec![3])),
        25 => (7, (vec![], vec![1])),
        26 => (31, (words(&[0, 0, 2 | 8 << 16]), vec![])),
        27 => (32, (words(&[high << 8, 0, 2 | 8 << 16]), vec![3])),
        28 => (4, (vec![], vec![])),
        _ => (36, (vec![], vec![])),
    }
}

/// The next message of the script: mostly one that could be meant, with one thing wrong or not.
fn next(script: &mut Script<'_>) -> Option<Message> {
    let (kind, what) = (script.byte()?, script.byte()?);
    let (low, high) = (u64::from(what & 3), u64::from(what >> 2));
    let queue = |value: u64| words(&[low | value << 32]);
    let fd = |value: u64| (words(&[value]), vec![1]);
    let [guest, size, user, offset] = region(what);
    let (request, (payload, fds)) = match kind & 0x1f {
        0 => (
            2,
            (
                words(&[u64::from_ne_bytes(*script.take(8).first_chunk()?)]),
                vec![],
            ),
        ),
        1 => {
            let all = feature::VERSION_1 | feature::MRG_RXBUF | feature::INDIRECT_DESC;
            let more = [
                0,
                feature::ACCESS_PLATFORM,
                feature::LOG_ALL,
                feature::PROTOCOL_FEATURES,
            ];
            (2, (words(&[all | more[low as usize]]), vec![]))
        }
        2 => (16, (words(&[0x1_8230 | high | 0x08]), vec![])),
        3 => {
            let count = low + 1;
            let mut payload = words(&[count]);
            let mut fds = vec![];
            for index in 0..count {
                payload.extend(words(&region(what.wrapping_add(index as u8))));
                fds.push(0);
            }
            (5, (payload, fds))
        }
        4 => (37, (words(&[0, guest, size, user, offset]), vec![0])),
        5 => (38, (words(&[0, guest, size, user, offset]), vec![])),
        6 => (8, (queue(1 << (high & 15)), vec![])),
        7 => {
            let base = if high & 1 == 0 { USER } else { GUEST } + (high >> 1 & 7) * 0x10_000;
            let parts = [
                low | (high & 2) << 31,
                base,
                base + 0x800,
                base + 0x400,
                base,
            ];
            (9, (words(&parts), vec![]))
        }
        8 => (10, (queue(high), vec![])),
        9 => (11, (queue(0), vec![])),
        10 => (12, fd(low)),
        11 => (13, fd(low)),
        12 => (14, fd(low)),
        13 => (18, (queue(high & 1), vec![])),
        14..=29 => device_wide(kind & 0x1f, what),
        _ => {
            let len = script.byte()?.into();
            let mut fds = script.take(usize::from(what >> 6));
            // A region of the script's own making may be anywhere.
            for which in &mut fds {
                *which |= 1;
            }
            (what.into(), (script.take(len), fds))
        }
    };
    let mut message = Message {
        request,
        flags: 9,
        size: payload.len() as u32,
        payload,
        fds,
    };
    match kind >> 5 {
        0 => message.flags = 1,
        1 => message.flags = script.byte()?.into(),
        2 => message.size = script.byte()?.into(),
        3 => message.fds.push(what | 1),
        4 => message.fds.clear(),
        _ => {}
    }
    Some(message)
}

/// Sends a message as it is; false if the other side is gone.
fn send(to: &UnixStream, message: &Message, things: &Things) -> bool {
    let mut bytes = Vec::new();
    for word in [message.request, message.flags, message.size] {
        bytes.extend_from_slice(&word.to_ne_bytes());
    }
    bytes.extend_from_slice(&message.payload);
    let fds: Vec<_> = message.fds.iter().map(|which| things.fd(*which)).collect();
    let mut space = [std::mem::MaybeUninit::uninit(); 4096];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(&fds));
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    sendmsg(to, &[std::io::IoSlice::new(&bytes)], &mut ancillary, flags).is_ok()
}

/// Takes what was answered, so that nobody waits for room.
fn drain(from: &UnixStream) {
    let mut bytes = [0u8; 4096];
    while matches!(recv(from, &mut bytes, RecvFlags::DONTWAIT), Ok((_, got)) if got > 0) {}
}

/// A worker that polls its pair and moves what the rings hold.
fn work(pair: &mut QueuePair, stop: &AtomicBool) {
    let mut frame = vec![0; 2048];
    while !stop.load(Ordering::Acquire) {
        pair.poll();
        for index in 0..pair.from_guest.fetch(8) {
            pair.from_guest.read(index, 0, &mut frame);
        }
        pair.from_guest.complete();
        if pair.to_guest.reserve(&[64]) == 1 {
            pair.to_guest
                .fill(0, crate::net::NetHeader::default(), &frame[..64]);
            pair.to_guest.publish();
        }
        pair.take_announcement();
        std::thread::yield_now();
    }
}

/// Lets `data` play a front end against a session, while a worker polls.
///
/// # Panics
/// If the session does not survive it, or a byte outside the regions was written.
pub fn control_messages(data: &[u8]) {
    // Failing here says nothing of the session: the machine is out of something.
    let _ = play(data);
}

fn play(data: &[u8]) -> std::io::Result<()> {
    let memfd = |len: usize| -> std::io::Result<OwnedFd> {
        let fd = memfd_create("fuzz", MemfdFlags::CLOEXEC)?;
        ftruncate(&fd, len as u64)?;
        Ok(fd)
    };
    let things = Things {
        file: memfd(FILE)?,
        short: memfd(PAGE)?,
        event: Event::new()?,
        channel: UnixStream::pair()?,
    };
    let file = Mapping::of_file(&things.file, FILE)?;
    for page in (0..FILE).step_by(2 * PAGE) {
        file.write(page, &[UNTOUCHED; PAGE]);
    }
    let config = DeviceConfig::new("fuzz");
    let shared = Shared::new(config, Box::new(|| {}))?;
    let mut workers = shared.workers();
    let (ours, theirs) = UnixStream::pair()?;
    let mut connection = Connection::new(shared.clone(), theirs)?;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| work(&mut workers[0], &stop));
        shared.pairs[0].set_control(std::thread::current());
        let mut script = Script(data);
        for _ in 0..STEPS {
            let Some(message) = next(&mut script) else {
                break;
            };
            if !send(&ours, &message, &things) || !served(&mut connection) {
                break;
            }
            drain(&ours);
            drain(&things.channel.0);
        }
        connection.close();
        stop.store(true, Ordering::Release);
    });
    let status = shared.status();
    assert!(!status.connected && status.features == 0);
    assert!(status.queues.iter().all(|queue| !queue.started));
    drop(workers);
    let mut page = [0; PAGE];
    for at in (0..FILE).step_by(2 * PAGE) {
        file.read(at, &mut page);
        let clean = page.iter().all(|byte| *byte == UNTOUCHED);
        assert!(clean, "a write outside the regions, in page {}", at / PAGE);
    }
    Ok(())
}

/// Handles what has arrived whole; false if the connection can't go on.
fn served(connection: &mut Connection) -> bool {
    while let Ok(Some(Announced::Whole(header))) = connection.announced() {
        connection.ask();
        if connection.handle(header).is_err() {
            return false;
        }
    }
    connection.ask();
    true
}
