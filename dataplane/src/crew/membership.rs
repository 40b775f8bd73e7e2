//! A member's side of its crew.

use super::{Owners, Share};
use crate::worker::WakeHandle;

/// What a member knows of its crew: who owns what, rings to and from all others, who can send by which port. Handed
/// to [`Engine::join`](crate::engine::Engine::join).
pub struct Membership {
    owners: Owners,
    share: Share,
    wakes: Vec<WakeHandle>,
    ports: usize,
}

/// The memberships of a crew, one for each worker of which this is the handle, in order. Every member's first `ports`
/// ports are the crew's, under the same numbers; behind them a member may have ports of its own.
///
/// # Panics
/// When `owners` were made for another number of members, or there are none or more than 65,535.
pub fn crew(owners: &Owners, wakes: Vec<WakeHandle>, ports: usize) -> Vec<Membership> {
    let members = u16::try_from(wakes.len()).expect("a crew of 65,535 at most");
    (0..members)
        .map(|index| Membership {
            owners: owners.clone(),
            share: Share::new(index, members),
            wakes: wakes.clone(),
            ports,
        })
        .collect()
}

impl Membership {
    /// Which member it is.
    pub fn share(&self) -> Share {
        self.share
    }
}
