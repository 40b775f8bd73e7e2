//! Record and replay: what a whole path did to a flow's first packet, done again to the packets that follow.
//!
//! * [`key`]: which packets are of one flow, and which may not be replayed at all;
//! * `recorder`: gathers, while the stages run, what a record must hold;
//! * `record`: the finished record, its guards, and its replay;
//! * `table`: finds a packet's record;
//! * `paths`: counts replayed packets once for the whole path they took, exactly, whatever its length.

mod key;
mod paths;
mod record;
mod recorder;
mod table;
#[cfg(test)]
mod tests;

pub use key::{FlowKey, Parsed, key_of, parse_common, parse_general, parse_plain};
pub use paths::{End, PathReader, Paths, Step};
pub use record::{Record, Replay, Stale};
pub use recorder::Recorder;
pub use table::FlowTable;
