//! The kinds of port.

mod interface;
mod tap;
mod vhost_user;
pub mod virtio_header;

pub use tap::{Tap, TapConfig};
pub use vhost_user::VhostUser;
