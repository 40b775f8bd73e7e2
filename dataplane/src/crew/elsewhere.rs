//! A stand-in for a port of which another member holds the queues.

use crate::packet::Batch;
use crate::port::{Port, PortContext, PortDrop};

/// A port in the place of one of which this member holds no queue: nothing comes in, and what is sent goes to a member
/// that holds one. Outside of a crew nobody is there to send it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Elsewhere;

impl Port for Elsewhere {
    fn receive(&mut self, _cx: &mut PortContext<'_>, _batch: &mut Batch) {}

    fn send(&mut self, cx: &mut PortContext<'_>, batch: &mut Batch) {
        cx.tally.drop(PortDrop::Down, batch.len() as u64);
        batch.clear();
    }

    fn takes_tails(&self) -> bool {
        true
    }

    fn is_quiet(&mut self) -> bool {
        true
    }

    fn is_reachable(&self) -> bool {
        false
    }

    fn is_finished(&self) -> bool {
        true
    }
}
