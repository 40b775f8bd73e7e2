//! Survives a guest that truncates its memory file while we have it mapped.
//!
//! Touching a page beyond the end of the file raises SIGBUS. The handler finds the mapping in a
//! static, lock-free table, lays anonymous memory over it, marks it broken and returns: the access
//! is repeated and reads zeroes, and the ring that did it sees the mark and breaks its device. A
//! fault anywhere else goes to the handler that was there before ours.

use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Slots for mappings in the whole process: 16 devices with every one of their memory slots, or
/// thousands with the usual one to four.
const SLOTS: usize = 8192;

struct Slot {
    /// First byte, 0 when the slot is free, 1 while it is being filled or emptied.
    start: AtomicUsize,
    /// Length in bytes.
    len: AtomicUsize,
    broken: AtomicBool,
}

static TABLE: [Slot; SLOTS] = [const {
    Slot {
        start: AtomicUsize::new(0),
        len: AtomicUsize::new(0),
        broken: AtomicBool::new(false),
    }
}; SLOTS];

/// Slots at and above this were never used, so that the handler's search is short.
static HIGH_WATER: AtomicUsize = AtomicUsize::new(0);

/// Faults handled since the process started: a cheap sign for rings that one should look closer.
static FAULTS: AtomicUsize = AtomicUsize::new(0);

static PREVIOUS: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];

/// A mapping under the handler's protection. Drop it before unmapping.
#[derive(Debug)]
pub(crate) struct Guarded(usize);

impl Guarded {
    /// Whether a fault was seen in the mapping.
    pub(crate) fn is_broken(&self) -> bool {
        TABLE[self.0].broken.load(Ordering::Relaxed)
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        TABLE[self.0].len.store(0, Ordering::Relaxed);
        TABLE[self.0].start.store(0, Ordering::Release);
    }
}

/// Number of faults handled so far in any mapping.
#[inline]
pub(crate) fn faults() -> usize {
    FAULTS.load(Ordering::Relaxed)
}

/// Protects `len` bytes at `start`, or returns `None` when the table is full.
pub(crate) fn guard(start: *mut u8, len: usize) -> Option<Guarded> {
    install();
    for (index, slot) in TABLE.iter().enumerate() {
        if slot
            .start
            .compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
        {
            slot.broken.store(false, Ordering::Relaxed);
            slot.len.store(len, Ordering::Relaxed);
            slot.start.store(start as usize, Ordering::Release);
            HIGH_WATER.fetch_max(index + 1, Ordering::Release);
            return Some(Guarded(index));
        }
    }
    None
}

fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: both structures are plain data that the calls fill or read; the handler has the
        // signature that SA_SIGINFO asks for and does only what a signal handler may.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            let mut previous: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigemptyset(&raw mut action.sa_mask);
            // The old handler is stored before ours can run.
            libc::sigaction(libc::SIGBUS, std::ptr::null(), &raw mut previous);
            PREVIOUS[0].store(previous.sa_sigaction, Ordering::Relaxed);
            PREVIOUS[1].store(previous.sa_flags as usize, Ordering::Relaxed);
            libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut());
        }
    });
}

extern "C" fn handler(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid siginfo, whose address field is set for SIGBUS.
    let address = unsafe { (*info).si_addr() } as usize;
    for slot in &TABLE[..HIGH_WATER.load(Ordering::Acquire)] {
        let start = slot.start.load(Ordering::Acquire);
        let len = slot.len.load(Ordering::Relaxed);
        if start <= 1 || address.wrapping_sub(start) >= len {
            continue;
        }
        // SAFETY: the slot's mapping is ours and stays mapped while a thread works with it, as
        // the faulting one does; whole pages are replaced by private zero pages of equal size.
        let replaced = unsafe {
            libc::mmap(
                start as *mut libc::c_void,
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if replaced != libc::MAP_FAILED {
            slot.broken.store(true, Ordering::Relaxed);
            FAULTS.fetch_add(1, Ordering::Release);
            return;
        }
    }
    forward(signal, info, context);
}

/// Hands the signal to whoever had it before us.
fn forward(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let previous = PREVIOUS[0].load(Ordering::Relaxed);
    let flags = PREVIOUS[1].load(Ordering::Relaxed) as libc::c_int;
    // SAFETY: the stored value is what sigaction(2) gave for the old handler, and its flags say
    // which of the two signatures it has; SIG_DFL and SIG_IGN are handled apart.
    unsafe {
        if previous == libc::SIG_DFL || previous == libc::SIG_IGN {
            // A fault can't be ignored: the default action ends the process when it repeats.
            libc::signal(signal, libc::SIG_DFL);
        } else if flags & libc::SA_SIGINFO != 0 {
            type Full = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
            std::mem::transmute::<usize, Full>(previous)(signal, info, context);
        } else {
            std::mem::transmute::<usize, extern "C" fn(libc::c_int)>(previous)(signal);
        }
    }
}
