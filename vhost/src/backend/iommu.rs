//! A device behind an IOMMU: translations come from the front end, are asked for when they are
//! missing, and are taken back.
//!
//! A worker that misses one leaves the address in its ring's report and goes on with its other
//! rings. The control thread finds it there, asks the front end over the channel for requests of
//! the back end, and hands the answer over as a new memory map, with which the ring goes on. What
//! the front end takes back is acknowledged after the same hand-over: no worker uses it then.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::{SendFlags, send};
use vhost::vhost_user::Result;
use vhost::vhost_user::message::VhostUserProtocolFeatures as Protocol;

use super::messages::{self, Iotlb as Message};
use super::session::{Session, refuse};
use crate::iotlb::{Entry, Iotlb, access};
use crate::memory::{Access, GuestMemory};
use crate::net::feature;

/// Types of IOTLB messages (vhost-user, "An IOTLB message").
const MISS: u8 = 1;
const UPDATE: u8 = 2;
const INVALIDATE: u8 = 3;

/// After this long without an answer a translation is asked for again: the guest may have mapped
/// it meanwhile.
pub(super) const RETRY: Duration = Duration::from_secs(1);
/// Addresses are asked for by pages of 4 KiB.
const PAGE_MASK: u64 = 0xfff;

/// A page's address and how it is to be accessed, as bits of [`access`].
pub(super) type Miss = (u64, u8);

/// What a session knows of its IOMMU.
#[derive(Debug, Default)]
pub(super) struct Iommu {
    tlb: Iotlb,
    channel: Option<UnixStream>,
    /// What was asked for last, for each queue.
    asked: Vec<Option<Miss>>,
    since: Option<Instant>,
}

impl Session {
    /// Whether addresses are I/O virtual ones. A front end that has agreed on
    /// [`ACCESS_PLATFORM`](feature::ACCESS_PLATFORM) alone can't be asked for translations: there is
    /// no IOMMU in its way.
    pub(super) fn is_translated(&self) -> bool {
        self.features & feature::ACCESS_PLATFORM != 0
            && self.protocol().contains(Protocol::BACKEND_REQ)
    }

    /// The memory as the rings shall see it.
    pub(super) fn view(&self) -> Option<Arc<GuestMemory>> {
        let memory = self.memory.as_ref()?;
        Some(if self.is_translated() {
            Arc::new(memory.behind_iommu(&self.iommu.tlb))
        } else {
            memory.clone()
        })
    }

    /// Forgets every translation; the rings must have been stopped, or be handed over next.
    pub(super) fn forget_translations(&mut self) {
        self.iommu.tlb.clear();
        self.iommu.asked.clear();
        for pair in &self.shared.pairs {
            pair.report(0).clear_missed();
            pair.report(1).clear_missed();
        }
    }

    pub(super) fn set_channel(&mut self, channel: UnixStream) {
        self.iommu.channel = Some(channel);
        self.iommu.asked.clear();
    }

    /// Carries out what the front end says of a translation.
    pub(super) fn translation(&mut self, message: Message) -> Result<()> {
        let Message {
            iova,
            size,
            user,
            access,
            kind,
        } = message;
        match kind {
            UPDATE if self.is_translated() => {
                let memory = self.memory.as_ref();
                let entry = Entry {
                    iova,
                    size,
                    user,
                    access,
                };
                let inside = memory.is_some_and(|memory| memory.has_user_range(user, size));
                if !inside || !self.iommu.tlb.update(entry) {
                    return refuse(format!("{entry:x?} makes no sense"));
                }
            }
            // Nothing is cached then.
            INVALIDATE if !self.is_translated() => return Ok(()),
            INVALIDATE => self.iommu.tlb.invalidate(iova, size),
            _ => return refuse(format!("IOTLB message of type {kind} is not expected")),
        }
        self.show_memory()
    }

    /// The first page of a ring's parts that is not translated.
    pub(super) fn missing(memory: &GuestMemory, parts: &[(u64, u64, Access)]) -> Option<Miss> {
        parts.iter().find_map(|(address, len, access)| {
            let missing = memory.first_missing(*address, *len, *access)?;
            Some((missing & !PAGE_MASK, access.bit()))
        })
    }

    /// A translation that has come need not be asked for again, or may be when it goes.
    pub(super) fn settle_misses(&mut self, view: &GuestMemory) {
        let settled = |(page, bits): Miss| {
            let access = if bits == access::READ {
                Access::READ
            } else {
                Access::WRITE
            };
            view.first_missing(page, 1, access).is_none()
        };
        for pair in &self.shared.pairs {
            for report in [pair.report(0), pair.report(1)] {
                if report.missed().is_some_and(settled) {
                    report.clear_missed();
                }
            }
        }
        for asked in &mut self.iommu.asked {
            *asked = asked.filter(|miss| !settled(*miss));
        }
    }

    /// Asks for what the rings miss; tells whether answers are due.
    pub(super) fn ask(&mut self) -> bool {
        if !self.is_translated() {
            return false;
        }
        let misses = self.queues.iter().enumerate().map(|(index, queue)| {
            let report = self.shared.pairs[index / 2].report(index % 2);
            queue.missing.or_else(|| report.missed())
        });
        let misses: Vec<Option<Miss>> = misses.collect();
        let iommu = &mut self.iommu;
        iommu.asked.resize(misses.len(), None);
        if iommu.since.is_some_and(|since| since.elapsed() >= RETRY) {
            iommu.asked.fill(None);
            iommu.since = None;
        }
        let mut failed = None;
        for (asked, miss) in iommu.asked.iter_mut().zip(&misses) {
            if asked != miss {
                *asked = *miss;
                if let Some(miss) = miss {
                    failed = failed.or(request(iommu.channel.as_ref(), *miss).err());
                    iommu.since = Some(Instant::now());
                }
            }
        }
        if let Some(error) = failed {
            self.shared
                .report(format!("a translation can't be asked for: {error}"));
        }
        misses.iter().any(Option::is_some)
    }
}

/// Asks the front end for a translation, without waiting for room or for an answer.
fn request(channel: Option<&UnixStream>, (page, access): Miss) -> std::io::Result<()> {
    let none = || std::io::Error::other("the front end gave no channel");
    let bytes = messages::iotlb_request(Message {
        iova: page,
        size: 0,
        user: 0,
        access,
        kind: MISS,
    });
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    match send(channel.ok_or_else(none)?, &bytes, flags)? {
        sent if sent == bytes.len() => Ok(()),
        _ => Err(std::io::Error::other("the channel is full")),
    }
}
