//! Record and replay: what a whole path did to a flow's first packet, done again to the packets that follow.
//!
//! * [`key`]: which packets are of one flow, and which may not be replayed at all;
//! * `recorder`: gathers, while the stages run, what a record must hold;
//! * `install`: makes a record of that: what many flows share is a `template`, a `record` is what is the flow's own, and
//!   `bundle` ties it to its sessions;
//! * `table`: finds a packet's record;
//! * `hit`, `rewrite`: looks whether a record still holds, and replays it;
//! * `paths`: counts replayed packets once for the whole path they took, exactly, whatever its length.

mod bundle;
mod hit;
mod install;
mod key;
mod paths;
mod record;
mod recorder;
mod rewrite;
mod table;
mod template;
#[cfg(test)]
mod tests;

pub(crate) use hit::{Egress, Stale};
pub use key::{FlowKey, Parsed, key_of, parse_common, parse_general, parse_plain};
pub use paths::{End, PathReader, Paths, Step};
pub(crate) use recorder::Kind;
pub use recorder::Recorder;
pub use table::FlowTable;
pub(crate) use table::Located;
