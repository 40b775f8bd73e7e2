//! Where the generator is attached: guests of a vhost-user back end, interfaces of the host, a plain loop.

mod interface;
mod memory;
pub mod neighbours;
mod spec;
mod vhost;

use super::traffic::fill::Fill;
use super::traffic::head::HEAD;
use super::trial::BenchError;

pub use memory::plain_loop;
pub use spec::{EndpointSpec, VhostOptions};

use interface::InterfaceEnd;
use memory::MemoryEnd;
use vhost::VhostEnd;

/// An attached endpoint. It stays on the thread that made it.
pub enum Endpoint {
    /// A guest of a vhost-user back end.
    Vhost(Box<VhostEnd>),
    /// A tap, or a packet socket.
    Interface(Box<InterfaceEnd>),
    /// One end of a plain loop in memory.
    Memory(MemoryEnd),
}

/// Calls the same method of whatever the endpoint is.
macro_rules! each {
    ($self:ident, $end:ident => $call:expr) => {
        match $self {
            Endpoint::Vhost($end) => $call,
            Endpoint::Interface($end) => $call,
            Endpoint::Memory($end) => $call,
        }
    };
}

impl Endpoint {
    /// Attaches.
    ///
    /// # Errors
    /// Which endpoint, why, and what may help.
    pub fn attach(spec: &EndpointSpec, cancelled: &dyn Fn() -> bool) -> Result<Self, BenchError> {
        Ok(match spec {
            EndpointSpec::Vhost(socket, options) => {
                Self::Vhost(Box::new(VhostEnd::attach(socket, options, cancelled)?))
            }
            EndpointSpec::Tap(name) => Self::Interface(Box::new(InterfaceEnd::tap(name)?)),
            EndpointSpec::AfPacket(name) => {
                Self::Interface(Box::new(InterfaceEnd::af_packet(name)?))
            }
        })
    }

    /// Name and value of what a reader of results should know.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        each!(self, end => end.settings())
    }

    /// The longest frame that the endpoint can send and receive.
    pub fn longest_frame(&self) -> usize {
        each!(self, end => end.longest_frame())
    }

    /// Pairs of queues.
    #[inline]
    pub fn queues(&self) -> usize {
        each!(self, end => end.queues())
    }

    /// Has later frames end in these bytes.
    pub fn set_fill(&mut self, fill: &Fill) {
        each!(self, end => end.set_fill(fill));
    }

    /// Brings near where the other side tells what it has done.
    #[inline]
    pub fn prefetch(&self) {
        if let Self::Vhost(end) = self {
            end.prefetch();
        }
    }

    /// Brings near what the next frames are written to, of which there will be so many.
    #[inline]
    pub fn prepare(&mut self, frames: usize) {
        if let Self::Vhost(end) = self {
            end.prepare(frames);
        }
    }

    /// Whether a frame of `len` bytes has room in a queue, as far as that is known beforehand.
    #[inline]
    pub fn has_room(&mut self, queue: usize, len: usize) -> bool {
        match self {
            Self::Vhost(end) => end.has_room(queue, len),
            Self::Memory(end) => end.has_room(),
            Self::Interface(_) => true,
        }
    }

    /// Queues a frame of `len` bytes that starts with `head` and goes on with the fill; false if there is no room.
    #[inline]
    pub fn send(&mut self, queue: usize, head: &[u8; HEAD], len: usize) -> bool {
        each!(self, end => end.send(queue, head, len))
    }

    /// Queues any frame.
    pub fn send_whole(&mut self, frame: &[u8]) -> bool {
        each!(self, end => end.send_whole(frame))
    }

    /// Shows the other side what was queued.
    #[inline]
    pub fn flush(&mut self) {
        each!(self, end => end.flush());
    }

    /// Hands up to `max` frames of each queue to `take`; tells how many. Where frames come in bursts, `ahead` sees each a
    /// little earlier, and can bring near what `take` will need.
    #[inline]
    pub fn receive(
        &mut self,
        max: usize,
        ahead: impl FnMut(&[u8]),
        take: impl FnMut(&[u8]),
    ) -> usize {
        match self {
            Self::Vhost(end) => end.receive(max, ahead, take),
            Self::Interface(end) => end.receive(max, take),
            Self::Memory(end) => end.receive(max, take),
        }
    }

    /// Whether the other side is still there.
    ///
    /// # Errors
    /// What was seen, if it is not.
    pub fn check(&mut self) -> Result<(), BenchError> {
        each!(self, end => end.check())
    }
}
