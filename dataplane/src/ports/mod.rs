//! The kinds of port.

pub mod virtio_header;
