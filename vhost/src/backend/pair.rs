//! The worker's side of a device: one pair of queues.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use super::handover::PairShared;
use crate::event::Event;
use crate::ring::{FromGuest, ToGuest};

/// A pair of queues, to be polled by one worker.
///
/// Call [`poll`](Self::poll) once in every round of the polled loop: that is the boundary at which
/// rings start, stop and change. Between two of them the rings, and the guest memory that their
/// bursts point to, stay what they are.
#[derive(Debug)]
pub struct QueuePair {
    /// Frames to the guest.
    pub to_guest: ToGuest,
    /// Frames from the guest.
    pub from_guest: FromGuest,
    shared: Arc<PairShared>,
    generation: u64,
    announcement: Option<[u8; 6]>,
}

impl QueuePair {
    pub(super) fn new(shared: Arc<PairShared>, alarm: Arc<Event>) -> Self {
        Self {
            to_guest: ToGuest::new(shared.report(0).clone(), Some(alarm.clone())),
            from_guest: FromGuest::new(shared.report(1).clone(), Some(alarm)),
            shared,
            generation: 0,
            announcement: None,
        }
    }

    /// Passes a poll boundary; true if rings or their event fds changed. An open burst of a pair
    /// that changes is completed first.
    #[inline]
    pub fn poll(&mut self) -> bool {
        if !self.shared.is_newer(self.generation) {
            return false;
        }
        let Self {
            to_guest,
            from_guest,
            shared,
            ..
        } = self;
        let taken = shared.take(|[to, from]| [to_guest.install(to), from_guest.install(from)]);
        let Some((generation, announcement)) = taken else {
            return false;
        };
        self.generation = generation;
        self.announcement = announcement.or(self.announcement);
        true
    }

    /// Whether something is left for the next [`poll`](Self::poll): the last one could not have it without waiting, or
    /// it came just now.
    #[inline]
    pub fn is_behind(&self) -> bool {
        self.shared.is_newer(self.generation)
    }

    /// The MAC address of a guest that came from elsewhere and can't announce itself: the one who
    /// polls shall send a reverse ARP request (RFC 903) in its name. Asked for once
    /// [`poll`](Self::poll) returned true.
    pub fn take_announcement(&mut self) -> Option<[u8; 6]> {
        self.announcement.take()
    }

    /// Changes whenever [`poll`](Self::poll) returned true: a worker that sleeps on the
    /// [`kick_fds`](Self::kick_fds) must look at them again.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The fds that become readable when the guest kicks: it posted receive buffers, it sent.
    pub fn kick_fds(&self) -> [Option<BorrowedFd<'_>>; 2] {
        let kicks = [self.to_guest.started(), self.from_guest.started()];
        kicks.map(|started| Some(started?.kick.as_ref()?.as_fd()))
    }

    /// Takes the kicks that have come, after a sleep.
    pub fn clear_kicks(&self) {
        for started in [self.to_guest.started(), self.from_guest.started()] {
            if let Some(kick) = started.and_then(|s| s.kick.as_ref()) {
                kick.clear();
            }
        }
    }

    /// Features negotiated with the driver; 0 while no ring is started.
    pub fn features(&self) -> u64 {
        let started = self
            .from_guest
            .started()
            .or_else(|| self.to_guest.started());
        started.map_or(0, |s| s.features)
    }
}

impl Drop for QueuePair {
    fn drop(&mut self) {
        let old = [self.to_guest.install(None), self.from_guest.install(None)];
        self.shared.leave(old);
    }
}
