//! What a front end does to the device as a whole: the virtio device status, the MTU, the
//! configuration space, and the announcement that a guest is here.

use vhost::vhost_user::message::VhostUserProtocolFeatures as Protocol;
use vhost::vhost_user::{Result, VhostUserBackendReqHandlerMut};

use super::DeviceConfig;
use super::messages::{Header, Request};
use super::session::{Session, refuse};

/// Bits of the device status (virtio 1.2, 2.1).
pub mod device_status {
    /// The guest has noticed the device.
    pub const ACKNOWLEDGE: u8 = 1;
    /// The guest knows how to drive it.
    pub const DRIVER: u8 = 2;
    /// The driver is ready.
    pub const DRIVER_OK: u8 = 4;
    /// The features that the driver chose are accepted.
    pub const FEATURES_OK: u8 = 8;
    /// The device can't go on until it is reset: a ring is broken.
    pub const NEEDS_RESET: u8 = 64;
    /// The driver has given up on the device.
    pub const FAILED: u8 = 128;
}
use device_status::{FAILED, FEATURES_OK, NEEDS_RESET};

/// Smallest MTU of IPv4 (RFC 791), which virtio takes as its own (virtio 1.2, 5.1.4).
pub(super) const MIN_MTU: u16 = 68;

impl Session {
    /// Carries out a request; tells the value to answer with, if it is one that asks for a value.
    pub(super) fn perform(&mut self, request: Request) -> Result<Option<u64>> {
        match request {
            Request::Enable(queue, on) => self.set_vring_enable(queue, on)?,
            Request::Announce(mac) => self.announce(mac)?,
            Request::Mtu(mtu) => self.set_mtu(mtu)?,
            Request::Channel(channel) => self.set_channel(channel),
            Request::Translation(message) => self.translation(message)?,
            Request::SetStatus(status) => self.set_status(status)?,
            Request::LogChanged(event) => self.set_log_event(event)?,
            Request::GetStatus => return Ok(Some(self.status().into())),
        }
        Ok(None)
    }

    /// The protocol features that were negotiated.
    pub(super) fn protocol(&self) -> Protocol {
        Protocol::from_bits_truncate(self.protocol)
    }

    /// Whether the sender of a request learns that it was refused: by the acknowledgement, or, of
    /// features, by the device status.
    pub(super) fn is_told(&self, header: Header) -> bool {
        header.need_reply() && !header.asks() && self.protocol().contains(Protocol::REPLY_ACK)
            || header.sets_features() && self.has_status()
    }

    fn has_status(&self) -> bool {
        self.protocol().contains(Protocol::STATUS)
    }

    /// Takes note of whether the driver's features will do.
    pub(super) fn judge_features(&mut self, features: u64) -> Result<()> {
        self.features_refused = true;
        let unknown = features & !self.offered;
        if unknown != 0 {
            return refuse(format!("features {unknown:#x} were not offered"));
        }
        // An offload without the one it needs is no reason to refuse: with checksums switched off, QEMU still
        // offers TSO and Linux takes it. Such an offload goes unused.
        self.features_refused = false;
        Ok(())
    }

    fn set_status(&mut self, status: u64) -> Result<()> {
        let Ok(mut status) = u8::try_from(status) else {
            return refuse(format!("device status {status:#x} is longer than 8 bits"));
        };
        if status == 0 {
            return self.reset();
        }
        if self.features_refused {
            status &= !FEATURES_OK;
        }
        // The device sets this bit, not the driver.
        let status = status & !NEEDS_RESET;
        let failed = (status ^ self.device_status) & FAILED != 0;
        self.device_status = status;
        self.shared.update(|shown| shown.device_status = status);
        if failed { self.refresh_all() } else { Ok(()) }
    }

    fn status(&self) -> u8 {
        let broken = self.queues.iter().enumerate().any(|(index, queue)| {
            let report = self.shared.pairs[index / 2].report(index % 2);
            queue.epoch != 0 && report.broken().is_some()
        });
        self.device_status | if broken { NEEDS_RESET } else { 0 }
    }

    /// A driver that has given up wants no more frames.
    pub(super) fn has_failed(&self) -> bool {
        self.device_status & FAILED != 0
    }

    /// Resets the device as its driver does (virtio 1.2, 2.4.1). Which queues are switched on is
    /// the front end's affair and stays.
    fn reset(&mut self) -> Result<()> {
        let on: Vec<bool> = self.queues.iter().map(|queue| queue.enabled).collect();
        self.reset_device()?;
        for (queue, on) in self.queues.iter_mut().zip(on) {
            queue.enabled = on;
        }
        Ok(())
    }

    fn set_mtu(&mut self, mtu: u64) -> Result<()> {
        let most = self.shared.config.mtu.unwrap_or(u16::MAX);
        match u16::try_from(mtu) {
            Ok(mtu) if (MIN_MTU..=most).contains(&mtu) => {
                self.mtu = Some(mtu);
                self.shared.update(|status| status.mtu = Some(mtu));
                Ok(())
            }
            _ => refuse(format!("MTU {mtu} is not within {MIN_MTU} to {most}")),
        }
    }

    fn announce(&mut self, mac: [u8; 6]) -> Result<()> {
        // A group address or none is nobody's.
        if mac[0] & 1 != 0 || mac == [0; 6] {
            return refuse(format!("{mac:02x?} is no station's address"));
        }
        self.shared.pairs[0].announce(mac, &self.shared.waker);
        Ok(())
    }

    /// The configuration space as the driver sees it now.
    pub(super) fn space(&self) -> [u8; DeviceConfig::SPACE] {
        let mut space = self.shared.config.space();
        if let Some(mac) = self.mac {
            space[..6].copy_from_slice(&mac);
        }
        if let Some(mtu) = self.mtu {
            space[10..].copy_from_slice(&mtu.to_le_bytes());
        }
        space
    }

    /// Writes to the configuration space. A driver may change the MAC address alone; what a
    /// migrated guest brings must be what is there (virtio 1.2, 5.1.4).
    pub(super) fn write_space(&mut self, offset: u32, bytes: &[u8]) -> Result<()> {
        let before = self.space();
        let mut after = before;
        let place = after
            .get_mut(offset as usize..)
            .and_then(|s| s.get_mut(..bytes.len()));
        let Some(place) = place else {
            return refuse("a write behind the end of the configuration space");
        };
        place.copy_from_slice(bytes);
        if after[6..] != before[6..] {
            return refuse("a write to what is read-only in the configuration space");
        }
        let mac = [after[0], after[1], after[2], after[3], after[4], after[5]];
        if after != before {
            self.mac = Some(mac);
            self.shared.update(|status| status.mac = Some(mac));
        }
        Ok(())
    }
}
