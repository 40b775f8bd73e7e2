//! Port forwards: mappings that the configuration made.

use crate::track::Endpoint;

/// A port of the pool that leads inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Static {
    /// Its IP protocol.
    pub protocol: u8,
    /// The pool's side.
    pub outer: Endpoint,
    /// The host's side.
    pub inner: Endpoint,
}

/// All forwards, in two orders.
#[derive(Clone, Debug)]
pub(super) struct Forwards {
    by_outer: Box<[Static]>,
    by_inner: Box<[Static]>,
}

impl Forwards {
    /// Sorts forwards, of which no two have the same outer side. Of those with the same inner side, the first one
    /// gives its outer side to what the host sends.
    pub fn new(forwards: &[Static]) -> Self {
        let sorted = |key: fn(&Static) -> (u8, Endpoint)| {
            let mut sorted = forwards.to_vec();
            sorted.sort_by_key(|forward| {
                let (protocol, endpoint) = key(forward);
                (protocol, endpoint.address, endpoint.port)
            });
            sorted.dedup_by_key(|forward| key(forward));
            sorted.into()
        };
        Self {
            by_outer: sorted(|forward| (forward.protocol, forward.outer)),
            by_inner: sorted(|forward| (forward.protocol, forward.inner)),
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Static> {
        self.by_outer.iter()
    }

    /// Where what is sent to this side of the pool goes.
    pub fn inner(&self, protocol: u8, outer: Endpoint) -> Option<Endpoint> {
        find(&self.by_outer, protocol, outer, |forward| forward.outer).map(|forward| forward.inner)
    }

    /// What the host's side appears as.
    pub fn outer(&self, protocol: u8, inner: Endpoint) -> Option<Endpoint> {
        find(&self.by_inner, protocol, inner, |forward| forward.inner).map(|forward| forward.outer)
    }
}

fn find(
    sorted: &[Static],
    protocol: u8,
    wanted: Endpoint,
    side: fn(&Static) -> Endpoint,
) -> Option<&Static> {
    let found = sorted.binary_search_by_key(&(protocol, wanted.address, wanted.port), |forward| {
        let side = side(forward);
        (forward.protocol, side.address, side.port)
    });
    sorted.get(found.ok()?)
}
