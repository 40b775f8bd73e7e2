//! How the control thread hands rings to the worker that polls them, and gets them back.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::thread::Thread;
use std::time::{Duration, Instant};

use crate::ring::{RingReport, Started};

/// The rings of a pair as they shall be: to the guest, from the guest.
pub(crate) type PairSetup = [Option<Started>; 2];

/// How often a worker tries for the mailbox in one poll.
const LOCK_TRIES: u32 = 256;

#[derive(Debug, Default)]
struct Mailbox {
    generation: u64,
    setup: Option<PairSetup>,
    /// The MAC address of a guest that the network shall learn of.
    announcement: Option<[u8; 6]>,
    /// What the worker let go of, to be freed on the control thread.
    returned: Vec<Started>,
    /// The worker works on rings.
    holds: bool,
    /// The worker's side was dropped.
    gone: bool,
}

/// The meeting point of a pair's control side and worker side.
#[derive(Debug)]
pub(crate) struct PairShared {
    /// Generation of the newest setup.
    wanted: AtomicU64,
    /// Generation that the worker works with.
    seen: AtomicU64,
    mailbox: Mutex<Mailbox>,
    reports: [Arc<RingReport>; 2],
    control: OnceLock<Thread>,
}

impl PairShared {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            wanted: AtomicU64::new(0),
            seen: AtomicU64::new(0),
            // Room for what one change can return, so that the worker need not allocate.
            mailbox: Mutex::new(Mailbox {
                returned: Vec::with_capacity(8),
                ..Mailbox::default()
            }),
            reports: Default::default(),
            control: OnceLock::new(),
        })
    }

    /// The report of the ring to (0) or from (1) the guest.
    pub(crate) fn report(&self, ring: usize) -> &Arc<RingReport> {
        &self.reports[ring]
    }

    fn lock(&self) -> MutexGuard<'_, Mailbox> {
        self.mailbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tries for some microseconds.
    fn try_lock(&self) -> Option<MutexGuard<'_, Mailbox>> {
        for _ in 0..LOCK_TRIES {
            match self.mailbox.try_lock() {
                Ok(mailbox) => return Some(mailbox),
                Err(TryLockError::Poisoned(error)) => return Some(error.into_inner()),
                Err(TryLockError::WouldBlock) => std::hint::spin_loop(),
            }
        }
        None
    }

    /// Control side: whether the worker works on rings.
    pub(crate) fn is_held(&self) -> bool {
        let mailbox = self.lock();
        mailbox.holds
            || mailbox
                .setup
                .as_ref()
                .is_some_and(|s| s.iter().any(Option::is_some))
    }

    /// Control side: who waits for the worker.
    pub(crate) fn set_control(&self, thread: Thread) {
        let _ = self.control.set(thread);
    }

    /// Control side: hands a setup over and waits, at most `patience`, until the worker works
    /// with it. True if nothing of the old setup is in use any more.
    pub(crate) fn hand_over(
        &self,
        mut setup: PairSetup,
        wake: &dyn Fn(),
        patience: Duration,
    ) -> bool {
        let (generation, must_wait) = {
            let mut mailbox = self.lock();
            if mailbox.gone {
                return true;
            }
            mailbox.generation += 1;
            // What a ring was opened with, and its worker has not come to take, goes along.
            for (new, old) in setup
                .iter_mut()
                .zip(mailbox.setup.take().into_iter().flatten())
            {
                if let (Some(new), Some(mut old)) = (new, old) {
                    if new.epoch == old.epoch {
                        new.resume(&mut old);
                    }
                    mailbox.returned.push(old);
                }
            }
            mailbox.setup = Some(setup);
            self.wanted.store(mailbox.generation, Ordering::Release);
            // A worker that took nothing yet holds nothing, and may take its time.
            (mailbox.generation, mailbox.holds)
        };
        wake();
        let deadline = Instant::now() + patience;
        let mut done = !must_wait;
        while !done && Instant::now() < deadline {
            done = self.seen.load(Ordering::Acquire) >= generation || self.lock().gone;
            if !done {
                std::thread::park_timeout(Duration::from_millis(1));
            }
        }
        // Freed here, after the lock: the last holder of a memory map unmaps it.
        let returned: Vec<_> = self.lock().returned.drain(..).collect();
        drop(returned);
        done
    }

    /// Control side: has the worker tell the network that a guest is here, by its MAC address.
    pub(crate) fn announce(&self, mac: [u8; 6], wake: &dyn Fn()) {
        let mut mailbox = self.lock();
        mailbox.announcement = Some(mac);
        mailbox.generation += 1;
        self.wanted.store(mailbox.generation, Ordering::Release);
        drop(mailbox);
        wake();
    }

    /// Worker side: whether there is a newer setup than `generation`.
    #[inline]
    pub(crate) fn is_newer(&self, generation: u64) -> bool {
        self.wanted.load(Ordering::Acquire) != generation
    }

    /// Worker side: takes the newest setup through `install`, which gives back the old rings;
    /// tells the generation, and whom to announce. `None` when the control thread keeps the
    /// mailbox to itself, which it does for a moment only unless the system has put it aside: the
    /// worker must not wait for that, and comes again.
    #[cold]
    pub(crate) fn take(
        &self,
        install: impl FnOnce(PairSetup) -> PairSetup,
    ) -> Option<(u64, Option<[u8; 6]>)> {
        let (generation, announcement) = {
            let mut mailbox = self.try_lock()?;
            if let Some(setup) = mailbox.setup.take() {
                mailbox.holds = setup.iter().any(Option::is_some);
                let old = install(setup);
                mailbox.returned.extend(old.into_iter().flatten());
            }
            (mailbox.generation, mailbox.announcement.take())
        };
        self.seen.store(generation, Ordering::Release);
        if let Some(control) = self.control.get() {
            control.unpark();
        }
        Some((generation, announcement))
    }

    /// Worker side: says goodbye, giving the rings back.
    pub(crate) fn leave(&self, old: PairSetup) {
        let mut mailbox = self.lock();
        mailbox.gone = true;
        mailbox.setup = None;
        mailbox.returned.extend(old.into_iter().flatten());
        drop(mailbox);
        if let Some(control) = self.control.get() {
            control.unpark();
        }
    }
}
