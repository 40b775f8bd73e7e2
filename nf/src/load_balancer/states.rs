//! Which backends are up: set by an operator or a health checker from any thread, seen by the workers at their next
//! poll.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// A handle to the states of one load balancer's backends, in the order of its configuration. All of them are up
/// at first.
#[derive(Clone, Debug)]
pub struct BackendStates(Arc<States>);

#[derive(Debug)]
struct States {
    /// Moves on with every change, so that a worker looks at one number in a poll.
    generation: AtomicU64,
    /// How often each backend changed its state: even is up. A worker that comes too late to see it down sees
    /// nevertheless that it was.
    changes: Box<[AtomicU32]>,
}

impl BackendStates {
    pub(super) fn new(backends: usize) -> Self {
        Self(Arc::new(States {
            generation: AtomicU64::new(0),
            changes: (0..backends).map(|_| AtomicU32::new(0)).collect(),
        }))
    }

    /// How many backends there are.
    pub fn len(&self) -> usize {
        self.0.changes.len()
    }

    /// Whether there are none, which no valid configuration has.
    pub fn is_empty(&self) -> bool {
        self.0.changes.is_empty()
    }

    /// Whether this backend takes connections; false for one that does not exist.
    pub fn is_up(&self, backend: usize) -> bool {
        self.changes(backend).is_some_and(is_up)
    }

    /// Says that a backend is lost, which ends its connections, or that it is back. A backend that does not exist
    /// is passed over.
    pub fn set(&self, backend: usize, up: bool) {
        let Some(changes) = self.0.changes.get(backend) else {
            return;
        };
        let change = |changes: u32| (is_up(changes) != up).then(|| changes.wrapping_add(1));
        if changes
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, change)
            .is_ok()
        {
            self.0.generation.fetch_add(1, Ordering::Release);
        }
    }

    fn changes(&self, backend: usize) -> Option<u32> {
        let changes = self.0.changes.get(backend)?;
        Some(changes.load(Ordering::Acquire))
    }
}

fn is_up(changes: u32) -> bool {
    changes.is_multiple_of(2)
}

/// What one worker has seen of the states.
#[derive(Debug)]
pub(super) struct Seen {
    states: BackendStates,
    generation: u64,
    changes: Box<[u32]>,
}

impl Seen {
    pub fn new(states: BackendStates) -> Self {
        let changes = vec![0; states.len()].into_boxed_slice();
        Self {
            states,
            generation: 0,
            changes,
        }
    }

    /// Takes over what has changed since the last call, and names each backend that was lost in between.
    pub fn refresh(&mut self, mut lost: impl FnMut(usize)) {
        let generation = self.states.0.generation.load(Ordering::Acquire);
        if generation == self.generation {
            return;
        }
        self.generation = generation;
        for backend in 0..self.changes.len() {
            let before = self.life(backend);
            self.changes[backend] = self.states.changes(backend).unwrap_or_default();
            if self.life(backend) != before {
                lost(backend);
            }
        }
    }

    #[inline]
    pub fn is_up(&self, backend: usize) -> bool {
        is_up(self.changes[backend])
    }

    /// How often the backend was lost. A session of an earlier life is over.
    #[inline]
    pub fn life(&self, backend: usize) -> u32 {
        self.changes[backend].div_ceil(2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(seen: &mut Seen) -> Vec<usize> {
        let mut all = Vec::new();
        seen.refresh(|backend| all.push(backend));
        all
    }

    #[test]
    fn a_worker_sees_each_loss_once() {
        let states = BackendStates::new(3);
        let mut seen = Seen::new(states.clone());
        assert!(lost(&mut seen).is_empty());
        states.set(1, false);
        states.set(1, false);
        states.set(7, false);
        assert!(!states.is_up(1) && states.is_up(0) && !states.is_up(7));
        assert!(seen.is_up(1));
        assert_eq!(lost(&mut seen), [1]);
        assert!(!seen.is_up(1));
        states.set(1, true);
        assert!(lost(&mut seen).is_empty());
        assert!(seen.is_up(1));
    }

    #[test]
    fn a_backend_that_came_back_meanwhile_was_lost_all_the_same() {
        let states = BackendStates::new(1);
        let mut seen = Seen::new(states.clone());
        states.set(0, false);
        states.set(0, true);
        assert_eq!(lost(&mut seen), [0]);
        assert!(seen.is_up(0));
        assert!(lost(&mut seen).is_empty());
    }
}
