//! A cable between two workers: two ports, each in one of them, of which the one receives what the other sends.

use crate::packet::Batch;
use crate::port::{Offloads, Port, PortContext};
use crate::worker::WakeHandle;

/// One end of a [`patch`].
pub struct Patch {
    wake: WakeHandle,
}

/// Two ports that are joined; `wakes` are the workers' that poll them, in order.
pub fn patch(wakes: [WakeHandle; 2]) -> (Patch, Patch) {
    let [a, b] = wakes;
    (Patch { wake: b }, Patch { wake: a })
}

impl Port for Patch {
    fn receive(&mut self, _cx: &mut PortContext<'_>, _batch: &mut Batch) {}

    fn send(&mut self, _cx: &mut PortContext<'_>, batch: &mut Batch) {
        batch.clear();
        self.wake.wake();
    }

    fn offloads(&self) -> Offloads {
        Offloads::ALL
    }

    fn takes_tails(&self) -> bool {
        true
    }
}
