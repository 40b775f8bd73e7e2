//! The front end's part of an IOMMU: translations that the device asks for, gets and loses.
//!
//! I/O virtual addresses are those that the driver always writes into descriptors, from
//! [`GUEST_BASE`](super::GUEST_BASE) on; where the memory is in the guest's physical address space
//! is nobody's business then, so it is somewhere else.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use vhost::vhost_user::VhostUserFrontend;

use super::front_end::{DriverError, FrontEnd};
use super::{GUEST_BASE, USER_BASE};
use crate::iotlb::Entry;

/// Guest physical address of the memory where there is an IOMMU.
pub(super) const PHYSICAL_BASE: u64 = 1 << 40;

const IOTLB_MSG: u32 = 22;
const BACKEND_IOTLB_MSG: u32 = 1;
const MISS: u8 = 1;
const UPDATE: u8 = 2;
const INVALIDATE: u8 = 3;
const PAGE: u64 = 4096;

impl FrontEnd {
    /// Gives the back end a channel for its requests.
    pub(super) fn open_channel(&mut self) -> Result<(), DriverError> {
        let (ours, theirs) = UnixStream::pair()?;
        self.messages().set_backend_request_fd(&theirs)?;
        self.requests = Some(ours);
        Ok(())
    }

    /// Waits for the device to ask for a translation; tells the address and the access, as bits of
    /// [`access`](crate::iotlb::access).
    ///
    /// # Errors
    /// No channel, or something else on it.
    pub fn missed(&self, patience: Duration) -> Result<Option<(u64, u8)>, DriverError> {
        let mut channel = self
            .requests
            .as_ref()
            .ok_or_else(|| io::Error::other("no IOMMU was negotiated"))?;
        channel.set_read_timeout(Some(patience))?;
        let mut bytes = [0; 44];
        match channel.read(&mut bytes) {
            Ok(44) => {}
            Ok(other) => return Err(io::Error::other(format!("{other} bytes as request")).into()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        let mut expected = Vec::new();
        for word in [BACKEND_IOTLB_MSG, 1, 32] {
            expected.extend_from_slice(&word.to_ne_bytes());
        }
        let mut iova = [0; 8];
        iova.copy_from_slice(&bytes[12..20]);
        if bytes[..12] != expected || bytes[37] != MISS {
            return Err(io::Error::other(format!("{bytes:02x?} as request")).into());
        }
        Ok(Some((u64::from_ne_bytes(iova), bytes[36])))
    }

    /// Tells the device a translation.
    ///
    /// # Errors
    /// A back end that refuses it.
    pub fn translate(&self, entry: Entry) -> Result<(), DriverError> {
        self.iotlb(entry, UPDATE)
    }

    /// Tells the device where a page of the driver's memory is.
    ///
    /// # Errors
    /// A back end that refuses it.
    pub fn translate_page(&self, iova: u64, access: u8) -> Result<(), DriverError> {
        let iova = iova & !(PAGE - 1);
        self.translate(Entry {
            iova,
            size: PAGE,
            user: iova.wrapping_sub(GUEST_BASE).wrapping_add(USER_BASE),
            access,
        })
    }

    /// Takes translations back; the device has let go of them when this returns.
    ///
    /// # Errors
    /// A back end that does not acknowledge it.
    pub fn invalidate(&self, iova: u64, size: u64) -> Result<(), DriverError> {
        let (user, access) = (0, 0);
        self.iotlb(
            Entry {
                iova,
                size,
                user,
                access,
            },
            INVALIDATE,
        )
    }

    fn iotlb(&self, entry: Entry, kind: u8) -> Result<(), DriverError> {
        let mut payload = Vec::new();
        for word in [entry.iova, entry.size, entry.user] {
            payload.extend_from_slice(&word.to_ne_bytes());
        }
        payload.extend_from_slice(&[entry.access, kind, 0, 0, 0, 0, 0, 0]);
        self.acknowledged(IOTLB_MSG, &payload)
    }
}
