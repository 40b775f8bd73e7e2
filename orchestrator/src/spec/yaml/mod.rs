//! YAML text to Rust values, with the place of everything that is wrong.
//!
//! The only module that knows YAML. It reads the parser's events into a [`Tree`] and deserializes
//! from that, for two reasons: *all* errors are shown rather than the first, and a check made long
//! after reading can still point at the text through a path of keys and indices.

mod build;
mod de;
mod error;
mod scalar;
mod tree;

pub use de::read;
pub use tree::{Kind, MAX_BYTES, NodeId, Tree};
