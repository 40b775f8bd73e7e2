//! Requests of the front end that the protocol crate does not know how to send.

use std::io::{self, Read, Write};

use super::front_end::{DriverError, FrontEnd};
use crate::backend::device_status::{ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK};

const SEND_RARP: u32 = 19;
const NET_SET_MTU: u32 = 20;
const SET_STATUS: u32 = 39;
const GET_STATUS: u32 = 40;

/// Header flags: version 1; this is an answer; the sender waits for an acknowledgement.
const VERSION: u32 = 1;
const REPLY: u32 = 4;
const NEED_REPLY: u32 = 8;

impl FrontEnd {
    /// Asks the back end to tell the network that the guest with this MAC address is behind it.
    ///
    /// # Errors
    /// A back end that can't, or refuses.
    pub fn announce(&self, mac: [u8; 6]) -> Result<(), DriverError> {
        let mut payload = [0; 8];
        payload[..6].copy_from_slice(&mac);
        self.acknowledged(SEND_RARP, &payload)
    }

    /// Tells the back end the MTU, in bytes, that the guest is told.
    ///
    /// # Errors
    /// A back end that can't, or refuses.
    pub fn set_mtu(&self, mtu: u64) -> Result<(), DriverError> {
        self.acknowledged(NET_SET_MTU, &mtu.to_ne_bytes())
    }

    /// Sets the virtio device status ([`device_status`](crate::backend::device_status)).
    ///
    /// # Errors
    /// A back end that can't, or refuses.
    pub fn set_status(&self, status: u8) -> Result<(), DriverError> {
        self.acknowledged(SET_STATUS, &u64::from(status).to_ne_bytes())
    }

    /// The virtio device status.
    ///
    /// # Errors
    /// A back end that does not answer as it should.
    pub fn status(&self) -> Result<u64, DriverError> {
        self.send(GET_STATUS, VERSION, &[])?;
        self.reply(GET_STATUS)
    }

    /// Goes through the status as a driver does up to its choice of features.
    pub(super) fn begin_status(&self) -> Result<(), DriverError> {
        self.set_status(0)?;
        self.set_status(ACKNOWLEDGE | DRIVER)
    }

    /// Learns whether the features were accepted (virtio 1.2, 3.1.1), and goes on if so.
    pub(super) fn end_status(&self) -> Result<(), DriverError> {
        let status = ACKNOWLEDGE | DRIVER | FEATURES_OK;
        self.set_status(status)?;
        if self.status()? & u64::from(FEATURES_OK) == 0 {
            return Err(DriverError::Config("the features were not accepted".into()));
        }
        self.set_status(status | DRIVER_OK)
    }

    /// Sends a request and waits for its acknowledgement, where those were negotiated.
    pub(super) fn acknowledged(&self, request: u32, payload: &[u8]) -> Result<(), DriverError> {
        if !self.acknowledges() {
            return self.send(request, VERSION, payload);
        }
        self.send(request, VERSION | NEED_REPLY, payload)?;
        match self.reply(request)? {
            0 => Ok(()),
            code => {
                let text = format!("request {request} was refused with {code}");
                Err(io::Error::other(text).into())
            }
        }
    }

    fn send(&self, request: u32, flags: u32, payload: &[u8]) -> Result<(), DriverError> {
        let mut bytes = Vec::new();
        for word in [request, flags, payload.len() as u32] {
            bytes.extend_from_slice(&word.to_ne_bytes());
        }
        bytes.extend_from_slice(payload);
        Ok(self.stream().write_all(&bytes)?)
    }

    fn reply(&self, request: u32) -> Result<u64, DriverError> {
        let mut bytes = [0; 20];
        self.stream().read_exact(&mut bytes)?;
        let mut expected = Vec::new();
        for word in [request, VERSION | REPLY, 8] {
            expected.extend_from_slice(&word.to_ne_bytes());
        }
        let (header, value) = bytes.split_at(12);
        match value.try_into() {
            Ok(value) if header == expected => Ok(u64::from_ne_bytes(value)),
            _ => {
                Err(io::Error::other(format!("no answer to request {request}: {header:?}")).into())
            }
        }
    }
}
