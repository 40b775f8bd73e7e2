//! A guest under KVM without an operating system: its processor runs a driver of ours, so that frames, kicks and
//! interrupts pass the boundary of a real virtual machine.
//!
//! Its memory is what the vhost-user front end shares with the back end. Kicks are writes to a doorbell that KVM turns
//! into the vring's kick (`KVM_IOEVENTFD`); the vring's call becomes an interrupt (`KVM_IRQFD`), which the guest finds in
//! its interrupt controller: it runs in user mode with interrupts off, the only mode that runs at native speed where the
//! host's KVM is a guest's itself.

mod machine;
mod mailbox;
mod program;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use chainplane_vhost::driver::{DriverPair, FrontEnd, FrontEndConfig, GUEST_BASE};
use chainplane_vhost::memory::Mapping;
use chainplane_vhost::net::{NetHeader, feature};

use machine::{APIC, Entry, Left, Machine, REQUESTS};
pub use mailbox::Counters;
use mailbox::{Mailbox, PortSetup, at};
pub use program::SEQUENCE;

/// Whether this machine has KVM and lets us use it.
pub fn is_possible() -> bool {
    std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .is_ok()
}

/// Where nothing is: writes there are doorbells, and the last two reach the host's program.
const DOORBELLS: u64 = 0xd000_0000;
const EXIT: u64 = DOORBELLS + 0x1000;
const TAKE: u64 = DOORBELLS + 0x1008;
/// Bytes from one port's memory to the next in the guest.
const PORT_SPACE: u64 = GUEST_BASE;
/// Ports at most, so that their memory ends below the doorbells.
pub const MAX_PORTS: usize = 2;

const PAGE: usize = 4096;
/// Pages of the first port's spare memory: page tables of three levels (the last for 4 GiB), mailbox, code, stack, and
/// two frames for each port.
const TABLES: usize = 0;
const MAILBOX: usize = 6 * PAGE;
const CODE: usize = 7 * PAGE;
const STACK_END: usize = 9 * PAGE;
const FRAMES: usize = 9 * PAGE;
const SPARE: usize = FRAMES + 2 * MAX_PORTS * PAGE;

/// How a guest drives its queues.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Entries of each ring.
    pub queue_size: u16,
    /// Whether buffers are mergeable.
    pub mergeable: bool,
    /// Whether notifications are suppressed by index.
    pub event_index: bool,
    /// Whether the guest waits for interrupts when it has nothing to do; it polls otherwise.
    pub interrupts: bool,
    /// Frames that a port may have sent for which it has received none: a bound to what is under way, where none is to
    /// be lost. The signed half of the range.
    pub window: u64,
    /// Frames of one round and direction at most.
    pub burst: u16,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            queue_size: 256,
            mergeable: true,
            event_index: false,
            interrupts: false,
            window: i64::MAX as u64 / 2,
            burst: 64,
        }
    }
}

/// A port that a guest is to have.
#[derive(Clone, Copy, Debug)]
pub struct PortConfig<'a> {
    /// The back end's socket.
    pub socket: &'a Path,
    /// The frame that is sent; its bytes at [`SEQUENCE`] (virtio-net header counted) become a number.
    pub sends: &'a [u8],
    /// The frame that should come back, as long as the other.
    pub expects: &'a [u8],
}

/// A guest that runs. Dropping it ends it.
pub struct MicroGuest {
    thread: Option<JoinHandle<io::Result<()>>>,
    interrupts: Arc<AtomicU64>,
    memory: Arc<Mapping>,
    mailbox: Mailbox,
    ports: Vec<Attached>,
}

/// A port's front end, kept for as long as the guest runs; nobody but the guest touches its queues.
struct Attached {
    end: FrontEnd,
    pair: DriverPair,
}

impl MicroGuest {
    /// Attaches a guest to back ends and starts it. It sends nothing before it is [told](Self::send) to.
    ///
    /// # Errors
    /// What attaching fails with, or KVM.
    pub fn start(ports: &[PortConfig<'_>], settings: Settings) -> io::Result<Self> {
        assert!((1..=MAX_PORTS).contains(&ports.len()), "one or two ports");
        let attached: Vec<_> = ports
            .iter()
            .map(|port| attach(port.socket, settings))
            .collect::<io::Result<_>>()?;
        let first = &attached[0].end;
        let (memory, spare) = (first.memory().clone(), first.spare());
        let mut machine = Machine::new()?;
        for (index, Attached { end, pair }) in attached.iter().enumerate() {
            machine.add_memory(base(index), end.memory())?;
            let doorbells = doorbells(index);
            machine.add_doorbell(doorbells[0], pair.receive.kick())?;
            machine.add_doorbell(doorbells[1], pair.transmit.kick())?;
            machine.add_interrupt(pair.receive.call())?;
            machine.add_interrupt(pair.transmit.call())?;
        }
        write_tables(&memory, spare + TABLES);
        memory.write(spare + CODE, program::code());
        let mailbox = Mailbox(spare + MAILBOX);
        mailbox.set(&memory, at::PORTS, ports.len() as u64);
        mailbox.set(&memory, at::EXIT, EXIT);
        mailbox.set(&memory, at::TAKE, TAKE);
        if settings.interrupts {
            mailbox.set(&memory, at::PENDING, APIC + REQUESTS);
        }
        for (index, (port, Attached { end, .. })) in ports.iter().zip(&attached).enumerate() {
            set_up_port(&memory, mailbox, spare, index, *port, end, settings);
        }
        let address = |offset: usize| base(0) + (spare + offset) as u64;
        machine.enter_at(Entry {
            tables: address(TABLES),
            code: address(CODE),
            stack: address(STACK_END),
            argument: address(MAILBOX),
        })?;
        let interrupts = Arc::new(AtomicU64::new(0));
        let seen = Arc::clone(&interrupts);
        let thread = std::thread::Builder::new()
            .name("guest".into())
            .spawn(move || run(machine, &seen))?;
        Ok(Self {
            thread: Some(thread),
            interrupts,
            memory,
            mailbox,
            ports: attached,
        })
    }

    /// Has a port send so many frames; it must have sent what it was to send before.
    pub fn send(&self, port: usize, frames: u64) {
        self.mailbox.send(&self.memory, port, frames);
    }

    /// What a port has done so far.
    pub fn counters(&self, port: usize) -> Counters {
        self.mailbox.counters(&self.memory, port)
    }

    /// Interrupts that the guest waited for and got.
    pub fn interrupts(&self) -> u64 {
        self.interrupts.load(Ordering::Relaxed)
    }

    /// Rounds, and those of them in which there was nothing to do.
    pub fn rounds(&self) -> [u64; 2] {
        [at::ROUNDS, at::EMPTY].map(|word| self.mailbox.get(&self.memory, word))
    }

    /// Features that a port's front end and back end agreed on.
    pub fn features(&self, port: usize) -> u64 {
        self.ports[port].end.features()
    }

    /// Whether the guest still runs; one that ended by itself did something wrong.
    pub fn is_running(&self) -> bool {
        self.thread
            .as_ref()
            .is_some_and(|thread| !thread.is_finished())
    }

    /// Ends the guest.
    ///
    /// # Errors
    /// Why it ended before, if it did.
    pub fn stop(mut self) -> io::Result<()> {
        self.end()
    }

    fn end(&mut self) -> io::Result<()> {
        self.mailbox.set(&self.memory, at::STOP, 1);
        let joined = self.thread.take().map(JoinHandle::join);
        match joined {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(io::Error::other("the guest's thread panicked")),
            None => Ok(()),
        }
    }
}

impl Drop for MicroGuest {
    fn drop(&mut self) {
        // Only `stop` has somebody to tell.
        let _ = self.end();
    }
}

fn base(port: usize) -> u64 {
    GUEST_BASE + port as u64 * PORT_SPACE
}

fn doorbells(port: usize) -> [u64; 2] {
    let first = DOORBELLS + 16 * port as u64;
    [first, first + 8]
}

fn attach(socket: &Path, settings: Settings) -> io::Result<Attached> {
    let mut config = FrontEndConfig::new(socket);
    config.queue_size = settings.queue_size;
    config.huge_pages = true;
    config.spare_memory = SPARE;
    config.features = feature::VERSION_1;
    if settings.mergeable {
        config.features |= feature::MRG_RXBUF;
    }
    if settings.event_index {
        config.features |= feature::EVENT_IDX;
    }
    let (end, pairs) = FrontEnd::connect(config).map_err(io::Error::other)?;
    let pair = pairs
        .into_iter()
        .next()
        .ok_or_else(|| io::Error::other("no queue pair"))?;
    Ok(Attached { end, pair })
}

/// Fills a port's rings, which stay as they are from then on, and tells the guest of them.
fn set_up_port(
    memory: &Mapping,
    mailbox: Mailbox,
    spare: usize,
    index: usize,
    port: PortConfig<'_>,
    end: &FrontEnd,
    settings: Settings,
) {
    let [receive, transmit] = [end.layouts()[0], end.layouts()[1]];
    let bytes = NetHeader::LEN + port.sends.len();
    assert!(bytes >= SEQUENCE + 16 && bytes <= transmit.buffer_size);
    assert_eq!(port.sends.len(), port.expects.len());
    let frames = [port.sends, port.expects];
    let places = [0, 1].map(|i| spare + FRAMES + (2 * index + i) * PAGE);
    for (place, frame) in places.into_iter().zip(frames) {
        memory.write(place + NetHeader::LEN, frame);
    }
    for slot in 0..transmit.size {
        let at = transmit.desc + 16 * usize::from(slot);
        let buffer = GUEST_BASE + transmit.buffer(slot) as u64;
        end.memory().store_u64(at, buffer);
        end.memory().store_u64(at + 8, bytes as u64);
        let entry = transmit.avail + 4 + 2 * usize::from(slot);
        end.memory().store_u16(entry, slot);
    }
    if !settings.interrupts && !settings.event_index {
        // The driver's wish not to be interrupted (virtio 1.2, 2.7.6).
        end.memory().store_u16(receive.avail, 1);
        end.memory().store_u16(transmit.avail, 1);
    }
    let setup = PortSetup {
        base: base(index),
        layouts: [receive, transmit],
        kicks: doorbells(index),
        burst: settings.burst.into(),
        event_index: settings.event_index,
        frames: places.map(|place| base(0) + place as u64),
        frame_bytes: bytes as u64,
        window: settings.window,
    };
    mailbox.set_port(memory, index, &setup);
}

/// Page tables that give the guest the first 4 GiB as they are, in pages of 2 MiB.
fn write_tables(memory: &Mapping, at: usize) {
    // Present, writable, for user mode; and for the last level: a large page.
    let (table, page) = (0x7, 0x87);
    let address = |page: usize| base(0) + (at + page * PAGE) as u64;
    memory.store_u64(at, address(1) | table);
    for gib in 0..4 {
        memory.store_u64(at + PAGE + 8 * gib, address(2 + gib) | table);
        for entry in 0..512 {
            let place = at + (2 + gib) * PAGE + 8 * entry;
            let mapped = (512 * gib + entry) as u64 * (2 << 20);
            memory.store_u64(place, mapped | page);
        }
    }
}

/// Runs the guest until it ends.
fn run(mut machine: Machine, interrupts: &AtomicU64) -> io::Result<()> {
    loop {
        match machine.run()? {
            Left::Write(EXIT) => return Ok(()),
            Left::Write(TAKE) => {
                let came = machine.take_interrupts()?.count_ones();
                interrupts.fetch_add(came.into(), Ordering::Relaxed);
            }
            Left::Write(address) => {
                return Err(io::Error::other(format!(
                    "the guest wrote to {address:#x}, where nothing is"
                )));
            }
            Left::Interrupted => {}
        }
    }
}
