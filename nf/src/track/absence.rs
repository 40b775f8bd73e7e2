//! Lets a decision that rests on there being *no* session be replayed.
//!
//! A flow record can't depend on a session that does not exist. It depends on an object that stands for the flow's
//! share of all flows instead, and every session that is made moves the epochs of its keys' shares on. Shares go by the
//! keyed hashes of the table that has the sessions.

use chainplane_dataplane::function::Context;
use chainplane_dataplane::objects::{ObjectId, ObjectRange, Objects};

/// Shares of all flows: so many that a new session seldom meets a recorded drop that it does not concern.
const SHARES: usize = 4096;

/// The objects that stand for sessions there are not.
pub struct Absence {
    objects: ObjectRange,
}

impl Absence {
    /// Reserves the objects.
    pub fn new(objects: &mut Objects) -> Self {
        Self {
            objects: objects.reserve(SHARES),
        }
    }

    #[inline]
    fn share(&self, hash: u64) -> ObjectId {
        self.objects.at(hash as usize % SHARES)
    }

    /// The decision in hand holds while no session is made for the key with this hash.
    pub fn depend(&self, cx: &mut Context<'_>, hash: u64) {
        cx.depend_narrowly(self.share(hash));
    }

    /// A session was made for the key with this hash.
    #[inline]
    pub fn filled(&self, hash: u64, objects: &mut Objects) {
        objects.invalidate(self.share(hash));
    }

    /// Brings near what [`Absence::filled`] needs.
    #[inline]
    pub fn prefetch(&self, hash: u64, objects: &Objects) {
        objects.prefetch(self.share(hash));
    }
}
