//! Lets a decision that rests on there being *no* session be replayed.
//!
//! A flow record can't depend on a session that does not exist. It depends on an object that stands for the flow's
//! share of all flows instead, and every session that is made moves the epochs of its two shares on.

use chainplane_dataplane::function::Context;
use chainplane_dataplane::objects::{ObjectRange, Objects};
use chainplane_dataplane::session::KeyHasher;

use super::Tuple;

/// Shares of all flows: so many that a new session seldom meets a recorded drop that it does not concern.
const SHARES: usize = 4096;

/// The objects that stand for sessions there are not.
pub struct Absence {
    objects: ObjectRange,
    hasher: KeyHasher,
}

impl Absence {
    /// Reserves the objects.
    pub fn new(seed: u64, objects: &mut Objects) -> Self {
        Self {
            objects: objects.reserve(SHARES),
            hasher: KeyHasher::new(seed),
        }
    }

    fn share(&self, tuple: &Tuple) -> usize {
        self.hasher.hash(tuple) as usize % SHARES
    }

    /// The decision in hand holds while no session is made for this tuple.
    pub fn depend(&self, cx: &mut Context<'_>, tuple: &Tuple) {
        cx.depend_narrowly(self.objects.at(self.share(tuple)));
    }

    /// A session with these keys was made.
    pub fn filled(&self, keys: [&Tuple; 2], objects: &mut Objects) {
        for key in keys {
            objects.invalidate(self.objects.at(self.share(key)));
        }
    }
}
