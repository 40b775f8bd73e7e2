//! Replays a record on a packet of its flow.

use super::record::MAX_WATCHES;
use super::rewrite::apply;
use crate::objects::Objects;
use crate::packet::Packet;
use crate::time::Time;

/// Why a record does not serve a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stale {
    /// This packet does not meet a guard; others may.
    Guard,
    /// Something the record relied on has changed: it serves no packet any more.
    Dependency,
}

/// Where a replayed packet goes: to this port, or nowhere.
pub(crate) type Egress = Option<u16>;

impl Objects {
    /// Does to a packet what the path did to the flow's first one, keeps the sessions alive, and counts.
    ///
    /// # Errors
    /// Why the record does not serve the packet, which is unchanged then; the stages are to run.
    #[inline]
    pub(crate) fn replay(
        &mut self,
        number: u32,
        packet: &mut Packet,
        now: Time,
    ) -> Result<Egress, Stale> {
        let Self {
            slots,
            generation,
            flows,
        } = self;
        let Some(flows) = flows else {
            return Err(Stale::Dependency);
        };
        let (record, wide, watches, templates) = flows.parts(number);
        if now.ticks().wrapping_sub(record.last_used) > record.alive_for {
            return Err(Stale::Dependency);
        }
        let watched = usize::from(record.watches);
        if watched != 0 {
            let mut watched = watches.objects.iter().zip(&watches.epochs).take(watched);
            if !watched.all(|(object, epoch)| slots[*object as usize].holds(*epoch, now)) {
                return Err(Stale::Dependency);
            }
        }
        let template = templates.get_mut(record.template);
        if template.valid_at != *generation {
            if !template
                .dependencies()
                .all(|(object, epoch)| slots[object.0 as usize].epoch == epoch)
            {
                templates.hide(record.template);
                return Err(Stale::Dependency);
            }
            template.valid_at = *generation;
        }
        let work = &template.work;
        let egress = (work.dropped == 0).then_some(work.egress);
        if !apply(packet, work, record, wide) {
            return Err(Stale::Guard);
        }
        record.last_used = now.ticks();
        let mut sessions = record.watched_sessions;
        while sessions != 0 {
            let object = watches.objects[sessions.trailing_zeros() as usize % MAX_WATCHES];
            slots[object as usize].last_seen = now.ticks();
            sessions &= sessions - 1;
        }
        if template.count(packet.len()) {
            templates.counts(record.template);
        }
        Ok(egress)
    }
}
