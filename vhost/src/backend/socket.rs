//! Where a device's front ends come from.

use std::path::PathBuf;

use super::{DeviceConfig, Role, StartError};
use crate::socket::{Listener, Permissions};

/// Where front ends come from.
#[derive(Debug)]
pub(super) enum Endpoint {
    Server(Listener),
    Client(PathBuf),
}

impl Endpoint {
    /// Opens the socket of a server; a client only keeps the path.
    pub(super) fn open(config: &DeviceConfig) -> Result<Self, StartError> {
        match config.role {
            Role::Server => {
                let DeviceConfig {
                    owner, group, mode, ..
                } = *config;
                Listener::bind(&config.socket, Permissions { owner, group, mode })
                    .map(Self::Server)
                    .map_err(StartError::Socket)
            }
            Role::Client => Ok(Self::Client(config.socket.clone())),
        }
    }
}
