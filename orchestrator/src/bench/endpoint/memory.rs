//! A plain loop: what one end sends, the other receives. It costs next to nothing, so that what a trial over it
//! reaches is the most that the generator can do.

use std::cell::RefCell;
use std::rc::Rc;

use super::Endpoint;
use crate::bench::traffic::fill::{Fill, MAX_FRAME};
use crate::bench::traffic::head::HEAD;
use crate::bench::trial::BenchError;

/// Frames that a direction holds.
const CAPACITY: usize = 512;

/// Frames under way in one direction: a ring of buffers that are used again and again.
struct Queue {
    frames: Vec<(usize, Vec<u8>)>,
    first: usize,
    count: usize,
}

impl Queue {
    fn new() -> Rc<RefCell<Self>> {
        Rc::new(RefCell::new(Self {
            frames: vec![(0, vec![0; MAX_FRAME]); CAPACITY],
            first: 0,
            count: 0,
        }))
    }

    fn push(&mut self, len: usize, write: impl FnOnce(&mut [u8])) -> bool {
        if self.count == CAPACITY || len > MAX_FRAME {
            return false;
        }
        let (held, buffer) = &mut self.frames[(self.first + self.count) % CAPACITY];
        *held = len;
        write(buffer);
        self.count += 1;
        true
    }
}

/// One end of the loop.
pub struct MemoryEnd {
    out: Rc<RefCell<Queue>>,
    back: Rc<RefCell<Queue>>,
}

/// Both ends of a loop.
pub fn plain_loop() -> [Endpoint; 2] {
    let (a, b) = (Queue::new(), Queue::new());
    let (out, back) = (Rc::clone(&a), Rc::clone(&b));
    [
        Endpoint::Memory(MemoryEnd { out, back }),
        Endpoint::Memory(MemoryEnd { out: b, back: a }),
    ]
}

#[expect(
    clippy::unused_self,
    clippy::unnecessary_wraps,
    reason = "all kinds of endpoint have the same methods"
)]
impl MemoryEnd {
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        vec![("loop", format!("{CAPACITY} frames in memory"))]
    }

    pub fn longest_frame(&self) -> usize {
        MAX_FRAME
    }

    pub fn queues(&self) -> usize {
        1
    }

    pub fn set_fill(&mut self, fill: &Fill) {
        for (_, buffer) in &mut self.out.borrow_mut().frames {
            buffer.copy_from_slice(fill.bytes());
        }
    }

    #[inline]
    pub fn has_room(&self) -> bool {
        self.out.borrow().count < CAPACITY
    }

    #[inline]
    pub fn send(&mut self, _queue: usize, head: &[u8; HEAD], len: usize) -> bool {
        let write = |buffer: &mut [u8]| buffer[..HEAD].copy_from_slice(head);
        self.out.borrow_mut().push(len, write)
    }

    pub fn send_whole(&mut self, frame: &[u8]) -> bool {
        // The next owner of the buffer relies on the fill behind the head.
        frame.len() <= HEAD && {
            let write = |buffer: &mut [u8]| buffer[..frame.len()].copy_from_slice(frame);
            self.out.borrow_mut().push(frame.len(), write)
        }
    }

    pub fn flush(&mut self) {}

    #[inline]
    pub fn receive(&mut self, max: usize, mut take: impl FnMut(&[u8])) -> usize {
        let mut queue = self.back.borrow_mut();
        let count = queue.count.min(max);
        for _ in 0..count {
            let (len, buffer) = &queue.frames[queue.first];
            take(&buffer[..*len]);
            queue.first = (queue.first + 1) % CAPACITY;
            queue.count -= 1;
        }
        count
    }

    pub fn check(&mut self) -> Result<(), BenchError> {
        Ok(())
    }
}
