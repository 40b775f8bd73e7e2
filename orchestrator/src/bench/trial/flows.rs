//! What the generator knows of each flow: how the target rewrites it, and what has come of it.

use chainplane_dataplane::prefetch::prefetch;

use crate::bench::traffic::tuple::Tuple;
use crate::bench::traffic::{Divisor, Packets};

/// No flow has this number.
const NONE: u32 = u32::MAX;

/// How a flow's packets arrive at the second endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// None has come.
    Nothing,
    /// As they were sent.
    Same,
    /// With the addresses and ports that the table of translations has.
    Translated,
}

/// Never across two cache lines.
#[derive(Clone, Copy)]
#[repr(align(32))]
struct Flow {
    /// The flow that has this place now.
    id: u32,
    /// The last flow here whose connection the first endpoint, and the second, began.
    begun: [u32; 2],
    /// The last sequence number of each direction.
    last: [u32; 2],
    known: Known,
    /// The answer to its opening came, as it must be.
    confirmed: bool,
}

const EMPTY: Flow = Flow {
    id: NONE,
    begun: [NONE; 2],
    last: [NONE; 2],
    known: Known::Nothing,
    confirmed: false,
};

/// All flows there are at a time. A new one takes the place of the one that it replaces.
pub struct Flows {
    places: Vec<Flow>,
    by: Divisor,
    /// Tuples as they arrive, made when the first of them is not as it was sent.
    translations: Vec<Tuple>,
    /// A flow whose packets have arrived.
    any: Option<u32>,
}

impl Flows {
    /// So many flows, of which nothing is known.
    pub fn new(count: u32) -> Self {
        Self {
            places: vec![EMPTY; count as usize],
            by: Divisor::new(count),
            translations: Vec::new(),
            any: None,
        }
    }

    /// Before another trial: sequence numbers start anew.
    pub fn restart(&mut self) {
        for flow in &mut self.places {
            flow.last = [NONE; 2];
        }
    }

    /// Forgets what was learnt.
    pub fn forget(&mut self) {
        self.places.fill(EMPTY);
        self.any = None;
    }

    #[inline]
    fn place(&self, id: u32) -> usize {
        self.by.remainder(id) as usize
    }

    /// Brings near what is known of a flow.
    #[inline]
    pub fn prefetch(&self, id: u32) {
        prefetch(&self.places[self.place(id)]);
    }

    /// Learns how a flow's packets arrive at the second endpoint; true if it was not known.
    pub fn learn(&mut self, id: u32, sent: &Tuple, seen: &Tuple) -> bool {
        let (place, count) = (self.place(id), self.places.len());
        let flow = &mut self.places[place];
        let newer = flow.id == NONE || id.wrapping_sub(flow.id) as i32 > 0;
        if flow.id != id && !newer {
            return false;
        }
        if flow.id != id {
            (flow.id, flow.known, flow.confirmed) = (id, Known::Nothing, false);
            flow.last = [NONE; 2];
        }
        if flow.known != Known::Nothing {
            return false;
        }
        flow.known = if sent == seen {
            Known::Same
        } else {
            if self.translations.is_empty() {
                self.translations = vec![Tuple::default(); count];
            }
            self.translations[place] = *seen;
            Known::Translated
        };
        self.any = Some(id);
        true
    }

    /// The answer to a flow's opening has come as it must be; true for the first.
    pub fn confirm(&mut self, id: u32) -> bool {
        let place = self.place(id);
        let flow = &mut self.places[place];
        flow.id == id && !std::mem::replace(&mut flow.confirmed, true)
    }

    /// Whether a flow's packets have arrived, and, if that is asked for, the answer as well.
    pub fn is_open(&self, id: u32, answered: bool) -> bool {
        let flow = &self.places[self.place(id)];
        flow.id == id && flow.known != Known::Nothing && (flow.confirmed || !answered)
    }

    /// The tuple with which a flow's packets arrive at the second endpoint; `None` if that is not known.
    #[inline]
    pub fn arriving(&self, id: u32, packets: &Packets) -> Option<Tuple> {
        let place = self.place(id);
        match self.places[place] {
            Flow { id: known, .. } if known != id => None,
            Flow {
                known: Known::Nothing,
                ..
            } => None,
            Flow {
                known: Known::Same, ..
            } => Some(packets.tuple(id)),
            _ => Some(self.translations[place]),
        }
    }

    /// A flow on which the second endpoint can send, if there is one.
    pub fn any(&self) -> Option<u32> {
        self.any
    }

    /// Whether an endpoint sends on a flow for the first time.
    #[inline]
    pub fn begin(&mut self, id: u32, direction: usize) -> bool {
        let place = self.place(id);
        std::mem::replace(&mut self.places[place].begun[direction], id) != id
    }

    /// Enters the sequence number of a packet that came; true if it is out of order within its flow (RFC 4737).
    #[inline]
    pub fn is_reordered(&mut self, id: u32, direction: usize, sequence: u32) -> bool {
        let place = self.place(id);
        let flow = &mut self.places[place];
        if flow.id != id {
            return false;
        }
        let last = &mut flow.last[direction];
        if sequence.wrapping_sub(*last) as i32 <= 0 {
            return true;
        }
        *last = sequence;
        false
    }
}
