//! The kinds of port.

mod vhost_user;
pub mod virtio_header;

pub use vhost_user::VhostUser;
