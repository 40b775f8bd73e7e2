//! What tests of this crate share.

use std::io::Write;
use std::time::Duration;

use crate::packet::Batch;
use crate::port::{Port, PortContext, PortDrop};
use crate::time::Time;

/// Says that the running test does nothing, also where the test harness keeps what tests print to itself.
pub fn leave_out(needs: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    let _ = writeln!(std::io::stderr(), "{test} left out: it needs {needs}");
}

/// A port that brings numbered frames, some at a time, and rests in between, so that who gets them falls asleep now and
/// then.
pub struct Source<F> {
    next: u64,
    end: u64,
    rest: Option<Time>,
    frame: F,
}

impl<F: Fn(u64) -> Vec<u8>> Source<F> {
    /// So many frames, of which this makes each.
    pub fn new(end: u64, frame: F) -> Self {
        Self {
            next: 0,
            end,
            rest: None,
            frame,
        }
    }
}

impl<F: Fn(u64) -> Vec<u8>> Port for Source<F> {
    fn receive(&mut self, cx: &mut PortContext<'_>, batch: &mut Batch) {
        if self.rest.is_some_and(|until| cx.now < until) {
            return;
        }
        self.rest = None;
        while self.next < self.end && !batch.is_full() && self.rest.is_none() {
            let Some(packet) = cx.pool.copy_of(&(self.frame)(self.next)) else {
                return;
            };
            batch.push(packet);
            self.next += 1;
            if self.next.is_multiple_of(50) {
                let pause = Duration::from_micros(self.next * 7919 % 100);
                self.rest = Some(cx.now + pause);
            }
        }
    }

    fn send(&mut self, cx: &mut PortContext<'_>, batch: &mut Batch) {
        cx.tally.drop(PortDrop::Down, batch.len() as u64);
        batch.clear();
    }

    fn deadline(&self) -> Option<Time> {
        self.rest
    }

    fn arm(&mut self) -> bool {
        self.rest.is_none() && self.next < self.end
    }

    fn is_finished(&self) -> bool {
        self.next == self.end
    }
}

/// A port that shows this what is sent.
pub struct Sink<F>(pub F);

impl<F: FnMut(&[u8])> Port for Sink<F> {
    fn receive(&mut self, _cx: &mut PortContext<'_>, _batch: &mut Batch) {}

    fn send(&mut self, cx: &mut PortContext<'_>, batch: &mut Batch) {
        for packet in batch.drain(..) {
            (self.0)(packet.data());
            cx.tally.sent(1, packet.len() as u64);
        }
    }

    fn is_finished(&self) -> bool {
        true
    }
}
